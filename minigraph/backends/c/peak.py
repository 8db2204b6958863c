"""What this machine can do at best, measured: float32 operations and bytes of memory in a second, on all threads.

Operations: chains of multiply-adds in registers. Bytes: arrays much larger than a cache, read, or read and written; the
faster of both. Each is the best of several, since others may use the machine as well: what is measured is never more
than the machine can do, and may be less. It is measured once for a processor, a compiler and a number of threads, and
kept in the cache folder.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigraph.backends.c import cache
from minigraph.backends.c.compiler import compiled, compiler, processor
from minigraph.backends.c.executable import address
from minigraph.backends.c.threads import pool, threads
from minigraph.backends.rates import Rates, kept

HERE = Path(__file__).parent
HEADERS = ("prelude.h", "vector.h", "clocks.h", "peak.h")
COUNT = 1 << 24  # floats of each of three arrays: 64 MiB
TURNS = 500_000  # of multiply-adds: milliseconds
TRIES = 15
CHAINS = 12  # as in peak.h


class Job(ctypes.Structure):
    """`struct peak` of peak.h."""

    _fields_ = (
        ("barrier", ctypes.c_void_p),
        ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("c", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("turns", ctypes.c_int64),
        ("sums", ctypes.c_void_p),
        ("begin", ctypes.c_double),
        ("end", ctypes.c_double),
    )


@dataclass(frozen=True)
class Peak(Rates):
    """On so many threads."""

    threads: int

    @property
    def by(self) -> str:
        return f"{self.threads} thread{'s' * (self.threads > 1)}"


def peak() -> Peak:
    """That of this machine: from the cache folder, or measured now, which takes a second."""
    count = threads()
    found = kept(fingerprint(count), lambda: measured(count))
    return Peak(found.flops, found.bytes, count)


def measured(count: int) -> Peak:
    """Measured now, on so many threads."""
    library = compiled("\n".join(f'#include "{name}"' for name in HEADERS) + "\n", [HERE / name for name in HEADERS])
    arrays = [np.full(COUNT, value, np.float32) for value in (0.5, 0.25, 1.0)]
    sums = np.zeros(64 * count, np.float32)
    job = Job(pool().barrier or 0, *map(address, arrays), COUNT, TURNS, address(sums))

    def least(name: str) -> float:
        function = ctypes.cast(library[name], ctypes.c_void_p).value or 0
        return min(_tries(job, function, count))

    operations = 2 * CHAINS * library.lanes() * TURNS * count
    flops = operations / least("multiply_adds")
    return Peak(flops, 4 * COUNT * max(1 / least("reads"), 3 / least("triad")), count)


def _tries(job: Job, function: int, count: int) -> Iterator[float]:
    for _ in range(TRIES):
        pool().run(function, ctypes.addressof(job), count)
        yield job.end - job.begin


def fingerprint(count: int) -> str:
    """What a measurement is true for."""
    by = compiler()
    return cache.key([*by.command, by.version, *by.flags, processor(), str(count)])
