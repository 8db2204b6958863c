"""How many threads a program may use, and the pool of them that all programs of the process share."""

from __future__ import annotations

import ctypes
import errno
import functools
import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from minigraph.backends.c.compiler import compiled
from minigraph.core.errors import GraphError, expect
from minigraph.core.turn import Turn

HERE = Path(__file__).parent
MOST = 1024  # threads of one job: POOL_MOST in thread_pool.h


def threads(root: Path = Path("/")) -> int:
    """MINIGRAPH_THREADS; else the cores that this process may use, as far as its CPU quota goes, which is read once.

    `root` is where /proc and /sys lie.
    """
    wanted = os.environ.get("MINIGRAPH_THREADS", "").strip()
    if wanted:
        known = re.fullmatch(r"[0-9]{1,4}", wanted) and 1 <= int(wanted) <= MOST
        expect(known, "MINIGRAPH_THREADS is a number from 1 to {}, not {!r}", MOST, wanted)
        return int(wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MOST, _quota(root)))


@functools.cache  # reading files before each step would cost more than a small step
def _quota(root: Path) -> int:
    """The cores that the control groups allow, rounded up."""
    quota = min(_quotas(root), default=math.inf)
    return math.ceil(quota) if math.isfinite(quota) else MOST


def _quotas(root: Path) -> Iterator[float]:
    """What the control groups of this process, and those around them, allow in cores. Both versions of them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for group in _around(mount, path):
                yield from _cores(group / "cpu.max")
        elif "cpu" in controllers.split(","):
            for group in _around(mount / controllers, path):
                yield from _cores(group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us")


def _around(mount: Path, path: str) -> Iterator[Path]:
    """The folder of a group and of all around it. In a container those outside of it are not there."""
    inner = Path(path.lstrip("/"))
    return (mount / group for group in (inner, *inner.parents))


def _cores(*files: Path) -> Iterator[float]:
    """Quota divided by period, which stand in one file or in two; nothing where there is no limit."""
    with suppress(OSError, ValueError):
        quota, period = (int(number) for number in " ".join(file.read_text() for file in files).split())
        if quota > 0 and period > 0:
            yield quota / period


class Pool:
    """The threads of this process that run programs. Made by `pool()`, once.

    barrier: the address of `void barrier(void)`, which every thread of a job calls; nothing outside of a job.
    """

    def __init__(self, library: ctypes.CDLL):
        self.barrier = ctypes.cast(library.pool_barrier, ctypes.c_void_p).value
        self._run = library.pool_run
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        self._run.restype = ctypes.c_int

    def run(self, function: int, context: int, count: int) -> None:
        """Call `void function(void *context, int thread, int threads)` on `count` threads; returns when all are done.

        Both are addresses. The GIL is released, and while one job runs on several threads, a call from another Python
        thread waits. Ctrl-C takes effect after the job, and fork waits for the end of all.
        """
        error = self._run(function, context, count)
        if error:
            raise GraphError(f"{count} threads cannot be had: {os.strerror(error)}" + _hint(error))


def _hint(error: int) -> str:
    return "; MINIGRAPH_THREADS asks for fewer" if error == errno.EAGAIN else ""


_making = Turn()


@functools.cache
def pool() -> Pool:
    """The pool. The first call compiles it, or finds it compiled; NoCompiler as `compiled`.

    There is one also where two threads call it first: a barrier is none to the threads of another pool.
    """
    with _making.lock:
        return _only_pool()


@functools.cache
def _only_pool() -> Pool:
    return Pool(compiled((HERE / "thread_pool.c").read_text(encoding="utf-8"), (HERE / "thread_pool.h",)))
