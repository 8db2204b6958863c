"""A device without a GPU: kernels in CUDA C++, compiled for a CPU, one thread after the other, in memory of NumPy."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from c_compilers import cxx

import minigraph.backends.c
import minigraph.backends.cupy
from minigraph.backends.cupy.device import ALIGNMENT, Lent, Memory, OutOfMemory
from minigraph.backends.cupy.grid import Grid
from minigraph.backends.cupy.libraries.patterns import Library, Pattern, Routine
from minigraph.backends.cupy.source import Source
from minigraph.core.turn import Turn

OWN = [Path(room.__path__[0]) for room in (minigraph.backends.cupy, minigraph.backends.c)]
FLAGS = ["-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-ffp-contract=off", "-U_FORTIFY_SOURCE"]
ALL = """
extern "C" void launches(size_t n, void (**kernels)(unsigned, unsigned, void **), const unsigned *blocks,
                         const unsigned *threads, void ***arguments) {
  for (size_t i = 0; i < n; i++) kernels[i](blocks[i], threads[i], arguments[i]);
}
"""
GARBAGE = 0xFF  # in every byte of memory that nobody has written


@dataclass(frozen=True)
class Kernel:
    """One that was loaded, and its library."""

    name: str
    library: ctypes.CDLL


@dataclass(frozen=True)
class Launched:
    """What a kernel was launched with."""

    kernel: Kernel
    grid: Grid
    addresses: tuple[int, ...]


Work = Launched | Callable[[], None]  # a kernel, or a call of a library


class Processor:
    """The CPU as a device. capacity: bytes of memory that it has.

    It notes what is asked of it in `events`, and does nothing but launch while a graph is captured.
    """

    name = "a CPU"
    stream, dlpack_device = None, (1, 0)

    def __init__(self, folder: Path, capacity: int = 1 << 40):
        self.folder, self.capacity, self.used = folder, capacity, 0
        self.turn = Turn()
        self.events: list[str] = []
        self._graph: list[Work] | None = None  # what is being captured
        self.library: Library | None = None  # that is asked

    def _note(self, event: str) -> None:
        assert self._graph is None, f"{event} while a graph is captured"
        self.events.append(event)

    def memory(self, nbytes: int) -> Memory:
        self._note("memory")
        if nbytes > self.free():
            raise OutOfMemory(nbytes, self.free())
        raw = np.full(nbytes + ALIGNMENT, GARBAGE, np.uint8)
        self.used += nbytes
        weakref.finalize(raw, self._back, nbytes)
        return Memory(raw.ctypes.data + -raw.ctypes.data % ALIGNMENT, nbytes, raw)

    def _back(self, nbytes: int) -> None:
        self.used -= nbytes

    def free(self) -> int:
        return self.capacity - self.used

    def staging(self, nbytes: int) -> np.ndarray:
        self._note("staging")
        return np.full(nbytes, GARBAGE, np.uint8)

    def write(self, memory: Memory, array: np.ndarray) -> None:
        self._note("write")
        assert array.flags.c_contiguous
        assert array.nbytes <= memory.nbytes
        ctypes.memmove(memory.address, array.ctypes.data, array.nbytes)

    def read(self, memory: Memory, array: np.ndarray) -> None:
        self._note("read")
        assert array.flags.c_contiguous
        assert array.nbytes <= memory.nbytes
        ctypes.memmove(array.ctypes.data, memory.address, array.nbytes)

    def copy(self, target: Memory, source: Memory) -> None:
        self._note("copy")
        assert source.nbytes <= target.nbytes
        ctypes.memmove(target.address, source.address, source.nbytes)

    def lent(self, given: Any) -> Lent | None:
        told = getattr(given, "__cuda_array_interface__", None)
        if told is None:
            return None
        shape, dtype = told["shape"], np.dtype(told["typestr"])
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return Lent(Memory(told["data"][0], nbytes, given), shape, dtype)

    def load(self, source: Source) -> Mapping[str, Any]:
        self._note("load")
        library = ctypes.CDLL(str(compiled(source, self.folder)))
        return {name: Kernel(name, library) for name in source.kernels}

    def launch(self, kernel: Kernel, grid: Grid, addresses: Sequence[int]) -> None:
        launched = Launched(kernel, grid, tuple(addresses))
        if self._graph is not None:
            self._graph.append(launched)
        else:
            self._note("launch")
            self._run([launched])

    def routine(self, pattern: Pattern) -> Routine | None:
        assert self._graph is None, "a library is asked while a graph is captured"
        return self.library.routine(pattern) if self.library else None

    def call(self, routine: Routine, addresses: Sequence[int]) -> None:
        called = partial(routine.run, tuple(addresses))
        if self._graph is not None:
            self._graph.append(called)
        else:
            self._note("call")
            called()

    def _run(self, work: Sequence[Work]) -> None:
        for own, some in groupby(work, lambda one: isinstance(one, Launched)):
            if own:
                self._launched([one for one in some if isinstance(one, Launched)])
            else:
                for one in some:
                    assert callable(one)
                    one()

    def _launched(self, launches: Sequence[Launched]) -> None:
        """One call, which no signal divides."""
        library, n = launches[0].kernel.library, len(launches)
        pointers, numbers = ctypes.c_void_p * n, ctypes.c_uint * n
        arguments = [(ctypes.c_void_p * max(1, len(one.addresses)))(*one.addresses) for one in launches]
        library.launches(
            ctypes.c_size_t(n),
            pointers(*(ctypes.cast(library[f"launch_{one.kernel.name}"], ctypes.c_void_p).value for one in launches)),
            numbers(*(one.grid.blocks for one in launches)),
            numbers(*(one.grid.threads for one in launches)),
            pointers(*map(ctypes.addressof, arguments)),
        )

    def capture(self, launches: Callable[[], None]) -> tuple[Work, ...]:
        self._note("capture")
        found: list[Work] = []
        self._graph = found
        try:
            launches()
        finally:
            self._graph = None
        return tuple(found)

    def replay(self, graph: tuple[Work, ...]) -> None:
        self._note("replay")
        self._run(graph)

    def mark(self) -> float:
        self._note("mark")
        return time.perf_counter()

    def seconds(self, first: float, last: float) -> float:
        return last - first

    # what is begun here is done at once

    def upload(self, memory: Memory, array: np.ndarray, after: object) -> str:
        self._note("upload")
        assert array.nbytes <= memory.nbytes
        ctypes.memmove(memory.address, array.ctypes.data, array.nbytes)
        return "uploaded"

    def wait(self, moment: object) -> None:
        self._note("wait")

    def until(self, moment: object) -> None: ...

    def finish(self) -> None: ...

    def follow(self) -> None: ...

    def lead(self) -> None: ...

    def dlpack(self, memory: Memory, shape: tuple[int, ...], dtype: np.dtype, **asked: Any) -> Any:
        numbers = np.ctypeslib.as_array((ctypes.c_uint8 * memory.nbytes).from_address(memory.address))
        return numbers.view(dtype).reshape(shape).__dlpack__(**asked)


def compiled(source: Source, folder: Path) -> Path:
    """The library of a program's kernels."""
    text = "\n".join(['#include "cuda_on_cpu.h"', source.text, *map(launcher, source.kernels), ALL])
    name = hashlib.sha256(text.encode()).hexdigest()[:20]
    file, library = folder / f"{name}.cpp", folder / f"{name}.so"
    if not library.exists():
        file.write_text(text)
        folders = dict.fromkeys([Path(__file__).parent, *OWN, *(header.parent for header in source.headers)])
        done = subprocess.run(
            [cxx(), *FLAGS, *(f"-I{f}" for f in folders), str(file), "-o", str(library)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[:4000]
    return library


def launcher(name: str) -> str:
    """The function that runs a kernel's grid."""
    head = f'extern "C" void launch_{name}(unsigned blocks, unsigned threads, void **a)'
    return f"{head} {{ launch({name}, blocks, threads, a); }}"
