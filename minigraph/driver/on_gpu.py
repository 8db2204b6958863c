"""What a program does on a GPU: how inputs and data come there, the steps, and what they take.

Programs load it when the first of them runs there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from minigraph.backends.cupy import device as gpu
from minigraph.backends.cupy.arrays import GpuArray, moved
from minigraph.backends.cupy.clocks import Times, measure
from minigraph.backends.cupy.device import Device, Lent, fetched
from minigraph.backends.cupy.executable import Call, Executable
from minigraph.backends.cupy.feed import Given
from minigraph.backends.cupy.peak import peak
from minigraph.backends.cupy.resident import resident
from minigraph.backends.cupy.rows import Rows
from minigraph.core.dtypes import holds
from minigraph.core.ir import Graph, Value
from minigraph.core.state import State
from minigraph.driver.given import array_of, check_names
from minigraph.driver.profile import Profile, profile_of_launches

SHARE_OF_DATA = 0.5  # of the free memory of a GPU


class OnGpu:
    """One lowered graph on the GPU, for a program whose graph was `source`."""

    def __init__(self, source: Graph, lowered: Graph, kept: Collection[str]):
        """kept: as of Executable."""
        self.source, self.executable = source, Executable(lowered, gpu.device(), kept)

    @property
    def device(self) -> Device:
        return self.executable.device

    def given(self, inputs: Mapping[str, Any]) -> dict[str, Given]:
        """As driver.given.arrays_of. What lies on the device in the declared dtype stays there."""
        check_names(self.source.inputs, inputs, self.source.name)
        return {value.name: _given(self.device, value, inputs[value.name]) for value in self.source.inputs}

    def fetched(self, given: Mapping[str, Given]) -> dict[str, np.ndarray]:
        """Inputs as arrays of NumPy's."""
        return self.executable.fetched(given)

    def settle(self, state: State) -> None:
        """Bring the state to its place there."""
        self.executable.settle(state, resident(state, self.device))

    def call(
        self,
        symbols: Mapping[str, int],
        given: Mapping[str, Given],
        kept: Callable[[], Mapping[str, np.ndarray]],
        computed: object,
    ) -> Call:
        """What one step is given."""
        return Call(symbols, given, kept, computed)

    def measured(self, call: Call, repeats: int) -> Times:
        """The least times of so many runs."""
        return measure(self.executable, call, repeats)

    def profile(self, graph: Graph, call: Call, times: Times, repeats: int) -> Profile:
        """Of the program's graph, from such times."""
        return profile_of_launches(graph, call.symbols, times, repeats, peak(self.device))

    def put(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """See Program.put."""
        new = [v for v in self.source.inputs if v.name in data and not _is_placed(self.device, v, data[v.name])]
        nbytes = sum(math.prod(np.shape(data[v.name])) * np.dtype(v.type.dtype).itemsize for v in new)
        if nbytes > SHARE_OF_DATA * self.device.free():
            return dict(data)
        return {**data, **{v.name: _placed(self.device, v, data[v.name]) for v in new}}


def _given(device: Device, value: Value, given: Any) -> Given:
    if isinstance(given, Rows):
        stays = given.array.device is device and given.dtype == np.dtype(value.type.dtype)
        return given if stays else array_of(value, np.asarray(given))
    lent = _lent_by(device, given)
    if lent is None:
        return array_of(value, given)
    return lent if holds(lent.dtype, value.type.dtype) else array_of(value, fetched(device, lent))


def _lent_by(device: Device, given: Any) -> Lent | None:
    """An array that lies on the device, whoever's it is; None for all others."""
    if isinstance(given, GpuArray) and given.device is device:
        return given.lent()
    return device.lent(given)


def _is_placed(device: Device, value: Value, given: Any) -> bool:
    """Whether it lies on the device already, as an input of a program there."""
    return isinstance(given, GpuArray) and given.device is device and given.dtype == np.dtype(value.type.dtype)


def _placed(device: Device, value: Value, given: Any) -> GpuArray:
    """A copy on the device, in the dtype of an input. Raises OutOfMemory, and GraphError as array_of does."""
    lent = _lent_by(device, given)
    return moved(device, array_of(value, given if lent is None else fetched(device, lent)))
