"""What a program returns: arrays on the GPU that belong to the caller, and that no later step writes to.

A graph of kernels leaves its outputs where it always does, and from there they are copied: small ones all at once, to
the next free bytes of a chunk that serves many steps, each larger one to memory of its own. Who keeps a loss keeps its
chunk, and no large output.
"""

from __future__ import annotations

from minigraph.backends.cupy.arrays import GpuArray
from minigraph.backends.cupy.device import Device, Memory
from minigraph.backends.cupy.program import Ends, Program

CHUNK = 1 << 16  # bytes

Places = tuple[Memory, list[Memory]]  # of all small outputs together, and of each output


class Returned:
    """The outputs of all programs of one executable."""

    def __init__(self, device: Device):
        self.device = device
        self._chunk: Memory | None = None
        self._used = 0

    def reserve(self, program: Program) -> Places:
        """Memory for the outputs of a step that is about to begin. Raises OutOfMemory."""
        few = self._few(program.ends.large - program.ends.small)
        return few, [
            few.part(one.offset - program.ends.small, one.nbytes) if one.small else self.device.memory(one.nbytes)
            for one in program.outputs
        ]

    def _few(self, nbytes: int) -> Memory:
        """The next bytes of the chunk."""
        if self._chunk is None or self._used + nbytes > self._chunk.nbytes:
            self._chunk, self._used = self.device.memory(max(CHUNK, nbytes)), 0
        start, self._used = self._used, self._used + nbytes
        return self._chunk.part(start, nbytes)

    def take(self, program: Program, work: Memory, places: Places) -> dict[str, GpuArray]:
        """The outputs of the step that was begun, in these places."""
        few, each = places
        if few.nbytes:
            self.device.copy(few, work.part(program.ends.small, few.nbytes))
        found = {}
        for one, memory in zip(program.outputs, each, strict=True):
            if not one.small:
                self.device.copy(memory, work.part(one.offset, one.nbytes))
            found[one.name] = GpuArray(self.device, memory, one.shape, one.dtype)
        return found


def nbytes(ends: Ends) -> int:
    """What the outputs of one step may take."""
    return max(CHUNK, ends.large - ends.small) + ends.arena - ends.large
