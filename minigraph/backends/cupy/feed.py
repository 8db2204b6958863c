"""How inputs come to a program: those of NumPy's while the step before still computes.

They are put side by side into pinned memory, of which there are two pieces in turn, and uploaded beside the kernels to
the piece's counterpart on the device. From there they are copied among the kernels, which takes next to no time, to
where the program reads them: a graph of kernels knows one address only. So a step waits for its own inputs and for the
step before, and the host for no step but the one before the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minigraph.backends.cupy.device import Device, Lent, Memory
from minigraph.backends.cupy.program import FAULT, Ends, Program, aligned
from minigraph.backends.cupy.rows import Gathering, Rows
from minigraph.backends.plan import Buffer

Given = np.ndarray | Lent | Rows

PIECES = 2


class Feed:
    """The inputs of all programs of one executable."""

    def __init__(self, device: Device):
        self.device = device
        self._pieces: list[_Piece] = []
        self._none: Memory | None = None  # found wrong: FAULT zeros
        self._gathering = Gathering(device)

    def reserve(self, ends: Ends) -> None:
        """Get ready for the inputs of a program. Raises OutOfMemory."""
        if self._none is None:
            self._none = self.device.memory(FAULT)
            self.device.write(self._none, np.zeros(FAULT, np.uint8))
        if not self._pieces or self._pieces[0].staging.size < ends.fault:
            self.device.finish()  # nobody reads the pieces before any more
            self._pieces = []
            self._pieces = [_Piece(self.device, ends.fault) for _ in range(PIECES)]

    def give(self, program: Program, inputs: Mapping[str, Given], work: Memory) -> None:
        """Put the inputs where the kernels find them, and note that none was found wrong."""
        assert self._none is not None
        self._upload(program.ends.inputs, inputs, work)
        for buffer, offset in program.ends.inputs:
            given, place = inputs[buffer.name], work.part(offset, buffer.nbytes)
            if isinstance(given, Lent):
                self.device.copy(place, given.memory)
            elif isinstance(given, Rows):
                self._gathering.begin(given, place)
        if any(isinstance(given, Lent) for given in inputs.values()):
            self.device.lead()
        if program.indices != {}:
            self.device.copy(work.part(program.ends.fault, FAULT), self._none)

    def _upload(self, places: Sequence[tuple[Buffer, int]], inputs: Mapping[str, Given], work: Memory) -> None:
        """Those that NumPy has."""
        runs = _runs(places, inputs)
        if not runs:
            return
        self._pieces.reverse()
        piece = self._pieces[0]
        staging = piece.emptied()
        for buffer, offset in places:
            given = inputs[buffer.name]
            if isinstance(given, np.ndarray):
                there = staging[offset : offset + buffer.nbytes].view(buffer.type.dtype)
                np.copyto(there.reshape(given.shape), given, casting="same_kind")
        piece.send(runs, work)


class _Piece:
    """Pinned memory, and as much on the device, for the inputs of one step at a time.

    An interrupt in the middle spoils nothing but what it holds: the step that it was for is not begun.
    """

    def __init__(self, device: Device, nbytes: int):
        self.device = device
        self.staging, self.memory = device.staging(nbytes), device.memory(nbytes)
        self._sent: list[Any] = []  # the moments when it was on the device
        self._taken: Any = None  # the moment when it was where the program reads it

    def emptied(self) -> np.ndarray:
        """The pinned memory, when it may be written over."""
        for moment in self._sent:
            self.device.until(moment)
        self._sent = []
        return self.staging

    def send(self, runs: Sequence[tuple[int, int]], work: Memory) -> None:
        """Bytes of it, from where to where, to the same places in `work`."""
        device = self.device
        for start, stop in runs:
            here, there = self.memory.part(start, stop - start), work.part(start, stop - start)
            self._sent.append(device.upload(here, self.staging[start:stop], self._taken))
            device.wait(self._sent[-1])
            device.copy(there, here)
        self._taken = device.mark()


def nbytes(ends: Ends) -> int:
    """What the inputs of one step take, but for the places from which kernels read them."""
    return PIECES * aligned(ends.fault) + aligned(FAULT)


def _runs(places: Sequence[tuple[Buffer, int]], inputs: Mapping[str, Given]) -> list[tuple[int, int]]:
    """From where to where those that NumPy has lie, one beside the other."""
    runs: list[tuple[int, int]] = []
    beside = False
    for buffer, offset in places:
        here = isinstance(inputs[buffer.name], np.ndarray)
        if here:
            start = runs.pop()[0] if beside else offset
            runs.append((start, offset + buffer.nbytes))
        beside = here
    return runs
