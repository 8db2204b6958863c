"""The GPU: its memory, kernels on one stream, and graphs of kernels, through CuPy."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigraph.backends.cupy.compiler import compiled
from minigraph.backends.cupy.device import CUDA, Lent, Memory, OutOfMemory, lies_on_gpu
from minigraph.backends.cupy.grid import Grid
from minigraph.backends.cupy.libraries.installed import Libraries
from minigraph.backends.cupy.libraries.patterns import Failed, Pattern, Routine
from minigraph.backends.cupy.source import Source
from minigraph.core.errors import GraphError, expect
from minigraph.core.turn import Turn


class Gpu:
    """One GPU, by CuPy, with two streams of its own: one computes, the other uploads."""

    def __init__(self, cupy: Any, number: int):
        self._cupy, self.number = cupy, number
        self._process = os.getpid()
        self.turn = Turn()
        self._uploading: deque[tuple[Any, np.ndarray]] = deque()  # pinned memory that somebody else could be given
        with cupy.cuda.Device(number):
            self._stream, self._uploads = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
        self._libraries = Libraries(int(self._stream.ptr))
        self.stream = int(self._stream.ptr)
        self.dlpack_device = CUDA, number

    @contextmanager
    def _here(self) -> Iterator[None]:
        """Calls of CuPy, on this GPU and its stream."""
        here = os.getpid() == self._process
        expect(here, "a process that was forked reaches no GPU of the one before: start it by spawn instead")
        runtime, driver = self._cupy.cuda.runtime, self._cupy.cuda.driver
        try:
            with self._cupy.cuda.Device(self.number), self._stream:
                yield
        except (runtime.CUDARuntimeError, driver.CUDADriverError) as error:
            raise GraphError(f"the GPU reports {error}") from error

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """The same, for what no graph may hold."""
        with self.turn.lock, self._here():
            expect(not self._stream.is_capturing(), "a step is being captured, and nothing can be read or written")
            yield

    def memory(self, nbytes: int) -> Memory:
        with self._waiting():
            try:
                pointer = self._cupy.cuda.alloc(max(1, nbytes))
            except self._cupy.cuda.memory.OutOfMemoryError:
                raise OutOfMemory(nbytes, self._free()) from None
            return Memory(pointer.ptr, nbytes, pointer)

    def staging(self, nbytes: int) -> np.ndarray:
        with self._waiting():
            return np.frombuffer(self._cupy.cuda.alloc_pinned_memory(max(1, nbytes)), np.uint8, nbytes)

    def write(self, memory: Memory, array: np.ndarray) -> None:
        self._copy(memory.address, array.ctypes.data, array.nbytes, "memcpyHostToDevice")

    def read(self, memory: Memory, array: np.ndarray) -> None:
        with self._waiting():
            self._copy(array.ctypes.data, memory.address, array.nbytes, "memcpyDeviceToHost")
            self._stream.synchronize()

    def upload(self, memory: Memory, array: np.ndarray, after: Any) -> Any:
        runtime = self._cupy.cuda.runtime
        with self._waiting():
            if after is not None:
                self._uploads.wait_event(after)
            while self._uploading and self._uploading[0][0].done:
                self._uploading.popleft()
            given = array.ctypes.data
            runtime.memcpyAsync(memory.address, given, array.nbytes, runtime.memcpyHostToDevice, self._uploads.ptr)
            moment = self._uploads.record()
            self._uploading.append((moment, array))
            return moment

    def copy(self, target: Memory, source: Memory) -> None:
        self._copy(target.address, source.address, source.nbytes, "memcpyDeviceToDevice")

    def _copy(self, target: int, source: int, nbytes: int, kind: str) -> None:
        runtime = self._cupy.cuda.runtime
        with self._waiting():
            if nbytes:
                runtime.memcpyAsync(target, source, nbytes, getattr(runtime, kind), self._stream.ptr)

    def lent(self, given: Any) -> Lent | None:
        if not lies_on_gpu(given):
            return None
        computed = self._cupy.cuda.get_current_stream().record()  # by this stream, where the array does not say
        with self._waiting():
            self._stream.wait_event(computed)
            take = hasattr(given, "__cuda_array_interface__")
            array = self._cupy.asarray(given) if take else self._cupy.from_dlpack(given)
            if array.device.id != self.number:
                return None
            array = self._cupy.ascontiguousarray(array)
            return Lent(Memory(array.data.ptr, array.nbytes, array), array.shape, array.dtype)

    def load(self, source: Source) -> Mapping[str, Any]:
        with self._waiting():
            capability = int(self._cupy.cuda.Device(self.number).compute_capability)
            files = compiled(self._cupy.cuda.nvrtc, source, capability)
            found: dict[str, Any] = {}
            for module, file in zip(source.modules, files, strict=True):
                loaded = self._cupy.RawModule(path=str(file))
                found.update((name, loaded.get_function(name)) for name in module.kernels)
            return found

    def launch(self, kernel: Any, grid: Grid, addresses: Sequence[int]) -> None:
        with self._here():
            kernel((grid.blocks,), (grid.threads,), tuple(map(np.uint64, addresses)))

    def routine(self, pattern: Pattern) -> Routine | None:
        with self._waiting():
            return self._libraries.routine(pattern)

    def call(self, routine: Routine, addresses: Sequence[int]) -> None:
        with self._here():
            try:
                routine.run(addresses)
            except Failed as error:
                raise GraphError(f"{routine.name} reports {error}") from error

    def capture(self, launches: Callable[[], None]) -> Any:
        graph = None
        with self.turn.lock, self._here():
            try:
                self._stream.begin_capture()
                launches()
            finally:  # an interrupt must not leave the stream capturing
                if self._stream.is_capturing():
                    graph = self._stream.end_capture()
        return graph

    def replay(self, graph: Any) -> None:
        with self._waiting():
            graph.launch(self._stream)

    @property
    def name(self) -> str:
        with self._here():
            found: bytes = self._cupy.cuda.runtime.getDeviceProperties(self.number)["name"]
            return found.decode()

    def mark(self) -> Any:
        with self._waiting():
            return self._stream.record()

    def wait(self, moment: Any) -> None:
        with self._waiting():
            self._stream.wait_event(moment)

    def until(self, moment: Any) -> None:
        with self._waiting():
            moment.synchronize()

    def finish(self) -> None:
        with self._waiting():
            self._uploads.synchronize()
            self._stream.synchronize()

    def follow(self) -> None:
        theirs = self._theirs()
        with self._waiting():
            self._stream.wait_event(theirs.record())

    def lead(self) -> None:
        theirs = self._theirs()
        with self._waiting():
            theirs.wait_event(self._stream.record())

    def _theirs(self) -> Any:
        """The stream on which the caller computes with CuPy, and with others that took no stream of their own."""
        with self._cupy.cuda.Device(self.number):
            return self._cupy.cuda.get_current_stream()

    def dlpack(self, memory: Memory, shape: tuple[int, ...], dtype: np.dtype, **asked: Any) -> Any:
        with self._waiting():
            pointer = memory.owner + (memory.address - memory.owner.ptr)
            return self._cupy.ndarray(shape, dtype, pointer).__dlpack__(**asked)

    def seconds(self, first: Any, last: Any) -> float:
        with self._waiting():
            last.synchronize()
            return float(self._cupy.cuda.get_elapsed_time(first, last)) / 1000

    def free(self) -> int:
        with self._waiting():
            return self._free()

    def _free(self) -> int:
        left, _ = self._cupy.cuda.runtime.memGetInfo()
        return int(left + self._cupy.get_default_memory_pool().free_bytes())

    def __repr__(self) -> str:
        return f"<Gpu {self.number}>"
