"""What a GPU can do at best, measured: float32 operations and bytes of memory in a second.

Operations: chains of multiply-adds in registers. Bytes: a copy from one array to another, both much larger than a
cache. Each is the best of several. It is measured once for GPUs of one name, and kept in the cache folder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigraph.backends.c import cache
from minigraph.backends.cupy.clocks import Clocks
from minigraph.backends.cupy.compiler import find
from minigraph.backends.cupy.device import Device
from minigraph.backends.cupy.grid import THREADS, Grid, grid_of
from minigraph.backends.cupy.source import of_header
from minigraph.backends.rates import Rates, kept

HEADER = "peak.cuh"
BLOCKS = 1 << 16  # of multiply-adds: dozens for each place that a large GPU has for one
TURNS = 128  # of a thread: milliseconds for all
OPERATIONS = 2 * 8 * 16  # a turn: as in peak.cuh
PIECE = 16  # bytes
COPIED = 1 << 28  # bytes of an array, where there is room
TRIES = 15


@dataclass(frozen=True)
class Peak(Rates):
    """device: the GPU's name."""

    device: str

    @property
    def by(self) -> str:
        return self.device


def peak(device: Device) -> Peak:
    """That of this GPU: from the cache folder, or measured now, which takes a second."""
    name = device.name
    found = kept(cache.key(["GPU", name, find(HEADER).read_bytes()]), lambda: measured(device))
    return Peak(found.flops, found.bytes, name)


def measured(device: Device) -> Peak:
    """Measured now. Raises OutOfMemory where next to nothing is free."""
    kernels = device.load(of_header(HEADER, "multiply_adds", "copies"))
    pieces = min(COPIED, device.free() // 4) // PIECE
    given, start, end = device.memory(3 * 256), device.memory(pieces * PIECE), device.memory(pieces * PIECE)
    sizes, factors, found = (given.part(offset, 256) for offset in (0, 256, 512))
    device.write(sizes, np.array([TURNS, pieces], np.int64))
    device.write(factors, np.array([0.5, 0.25, -1.0], np.float32))

    def multiply_adds() -> None:
        device.launch(kernels["multiply_adds"], Grid(BLOCKS, THREADS), [sizes.address, factors.address, found.address])

    def copies() -> None:
        device.launch(kernels["copies"], grid_of(pieces), [sizes.address + 8, start.address, end.address])

    with device.turn.lock:
        computing, copying = (min(Clocks(device, [work] * TRIES).run()) for work in (multiply_adds, copies))
    return Peak(OPERATIONS * TURNS * THREADS * BLOCKS / computing, 2 * PIECE * pieces / copying, device.name)
