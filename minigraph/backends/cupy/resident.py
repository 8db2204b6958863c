"""The state on a device: each array has a place there that stays the same, whichever array it is.

So the programs of a state, and those for other sizes, share one memory, and a graph of kernels that was captured once
finds its numbers where they were. Where somebody else holds an array that is to be written over, a snapshot say, that
one goes on with a copy.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping

import numpy as np

from minigraph.backends.cupy.device import Device, Memory
from minigraph.backends.cupy.program import aligned
from minigraph.core.dim import known
from minigraph.core.ir import Value
from minigraph.core.state import Away, Held, State

Key = tuple[str, tuple[int, ...], np.dtype]


class Place:
    """Memory for one array of a state: now this one, now that."""

    def __init__(self, device: Device, memory: Memory):
        self.device, self.memory = device, memory
        self._last: weakref.ref[Array] | None = None

    def has(self, array: Held) -> bool:
        return isinstance(array, Array) and array.memory is self.memory

    def take(self, array: Held) -> Array:
        """The same numbers, here. Who holds what was here before keeps it."""
        before = self._last() if self._last is not None else None
        if before is not None and self.has(before):
            before.give_way()
        if isinstance(array, Array) and array.place.device is self.device:
            self.device.copy(self.memory, array.memory)
        else:
            numbers = array if isinstance(array, np.ndarray) else array.read()
            self.device.write(self.memory, np.ascontiguousarray(numbers))
        here = Array(self, self.memory, array.shape, array.dtype)
        self.hold(here)
        return here

    def hold(self, array: Array) -> None:
        """Note that this array is here now, if it is."""
        if self.has(array):
            self._last = weakref.ref(array)


class Array:
    """An array of a state, in its place on a device, or with memory of its own where the state has gone on."""

    def __init__(self, place: Place, memory: Memory, shape: tuple[int, ...], dtype: np.dtype):
        self.place, self.memory, self.shape, self.dtype = place, memory, shape, dtype

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)

    def read(self) -> np.ndarray:
        array = np.empty(self.shape, self.dtype)
        with self.place.device.turn.lock:
            self.place.device.read(self.memory, array)
        return array

    def apart(self) -> Array:
        """Another one of the same numbers, where this one lay."""
        twin = Array(self.place, self.memory, self.shape, self.dtype)
        self.give_way()
        self.place.hold(twin)
        return twin

    def empty(self) -> Array:
        """Another one of the same form, with memory of its own."""
        with self.place.device.turn.lock:
            return Array(self.place, self.place.device.memory(self.nbytes), self.shape, self.dtype)

    def copy_to(self, other: Away) -> None:
        assert isinstance(other, Array)
        assert other.place.device is self.place.device
        with self.place.device.turn.lock:
            self.place.device.copy(other.memory, self.memory)

    def give_way(self) -> None:
        """Go on with a copy."""
        device = self.place.device
        with device.turn.lock:
            own = device.memory(self.nbytes)
            device.copy(own, self.memory)
            self.memory = own


class Resident:
    """The places of one state on one device."""

    def __init__(self, device: Device):
        self.device = device
        self._places: dict[Key, Place] = {}

    def settle(self, state: State, values: Iterable[Value]) -> None:
        """Bring the arrays of these names to their places. An error or an interrupt leaves all where they are."""
        with state.lock, self.device.turn.lock:
            held = {value.name: state.held(value.name) for value in values}
            self._make_places(held)
            places = {name: self._places[_key(name, array)] for name, array in held.items()}
            away = {name: places[name].take(array) for name, array in held.items() if not places[name].has(array)}
            if away:
                state.place(away)

    def _make_places(self, held: Mapping[str, Held]) -> None:
        """Memory for the arrays that never were here, all in one piece."""
        new = {key: array.nbytes for name, array in held.items() if (key := _key(name, array)) not in self._places}
        if new:
            memory, offset = self.device.memory(sum(map(aligned, new.values()))), 0
            for key, nbytes in new.items():
                self._places[key] = Place(self.device, memory.part(offset, nbytes))
                offset += aligned(nbytes)

    def memory(self, value: Value) -> Memory:
        """Where the state of this name lies."""
        shape = tuple(known(n, value.name) for n in value.type.shape)
        return self._places[value.name, shape, np.dtype(value.type.dtype)].memory


def resident(state: State, device: Device) -> Resident:
    """That of a state, made where there is none yet."""
    with state.lock:
        found: Resident = state.memory.setdefault(device, Resident(device))
        return found


def _key(name: str, array: Held) -> Key:
    return name, array.shape, array.dtype
