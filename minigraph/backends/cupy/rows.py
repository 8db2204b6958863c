"""Batches of data that lie on the GPU: the numbers of their entries, which are gathered where a program reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minigraph.backends.cupy.arrays import GpuArray
from minigraph.backends.cupy.device import Device, Memory
from minigraph.backends.cupy.grid import grid_of
from minigraph.backends.cupy.source import of_header

ITEM = 8  # bytes of a number of an order
WORDS = {16: "rows_by_16", 4: "rows_by_4", 1: "rows_by_1"}  # the kernels, by the bytes that a thread copies at a time


class Rows:
    """An input of a program: the entries array[order[start:stop]] along the first axis, which nobody has gathered yet.

    `order` are int64 numbers of entries that there are. each: bytes of an entry.
    """

    def __init__(self, array: GpuArray, order: GpuArray, start: int, stop: int):
        self.array, self.order, self.start, self.stop = array, order, start, stop
        self.dtype, self.limits = array.dtype, array.limits
        self.shape = (stop - start, *array.shape[1:])
        self.each = math.prod(array.shape[1:]) * array.dtype.itemsize
        self.nbytes = self.each * (stop - start)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array on the GPU becomes NumPy's by a copy")
        device = self.array.device
        with device.turn.lock:
            gathered = device.memory(self.nbytes)
            Gathering(device).begin(self, gathered)
            array = GpuArray(device, gathered, self.shape, self.dtype).get()
        return array if dtype is None else array.astype(dtype, copy=False)


class Gathering:
    """The kernels that do it, on one device. They are loaded when they are first needed."""

    def __init__(self, device: Device):
        self.device = device
        self._kernels: Mapping[str, Any] = {}

    def begin(self, rows: Rows, target: Memory) -> None:
        """Launch what brings these rows there."""
        if not rows.nbytes:
            return
        if not self._kernels:
            self._kernels = self.device.load(of_header("rows.cuh", *WORDS.values()))
        word = next(word for word in WORDS if rows.each % word == 0)
        n, words = rows.stop - rows.start, rows.each // word
        order = rows.order.memory.address + ITEM * rows.start
        addresses = [rows.array.memory.address, order, target.address]
        self.device.launch(self._kernels[WORDS[word]], grid_of(n * words), [*addresses, n, words])
