"""A device without a GPU: kernels in CUDA C++, compiled for a CPU, one thread after the other, in memory of NumPy."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from c_compilers import cxx

import minigraph.backends.c
import minigraph.backends.cupy
from minigraph.backends.cupy.executable import ALIGNMENT
from minigraph.backends.cupy.grid import Grid
from minigraph.backends.cupy.source import Source

OWN = [Path(room.__path__[0]) for room in (minigraph.backends.cupy, minigraph.backends.c)]
FLAGS = ["-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-ffp-contract=off"]
GARBAGE = 0xFF  # in every byte of memory that nobody has written


class Memory:
    def __init__(self, nbytes: int):
        raw = np.full(nbytes + ALIGNMENT, GARBAGE, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        self.bytes = raw[start : start + nbytes]
        self.address = self.bytes.ctypes.data


class Processor:
    """The CPU as a device."""

    def __init__(self, folder: Path):
        self.folder = folder

    def memory(self, nbytes: int) -> Memory:
        return Memory(nbytes)

    def write(self, memory: Memory, array: np.ndarray) -> None:
        memory.bytes[: array.nbytes] = array.reshape(-1).view(np.uint8)

    def read(self, memory: Memory, array: np.ndarray) -> None:
        array.reshape(-1).view(np.uint8)[...] = memory.bytes[: array.nbytes]

    def load(self, source: Source) -> Mapping[str, Any]:
        library = ctypes.CDLL(str(compiled(source, self.folder)))
        return {name: library[f"launch_{name}"] for name in source.kernels}

    def launch(self, kernel: Any, grid: Grid, addresses: list[int]) -> None:
        kernel(grid.blocks, grid.threads, (ctypes.c_void_p * max(1, len(addresses)))(*addresses))


def compiled(source: Source, folder: Path) -> Path:
    """The library of a program's kernels."""
    text = "\n".join(['#include "cuda_on_cpu.h"', source.text, *map(launcher, source.kernels)])
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
