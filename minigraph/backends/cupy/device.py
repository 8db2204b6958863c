"""The GPU: its memory, kernels on one stream, and graphs of kernels, through CuPy.

`device()` is the GPU that programs run on. CuPy is loaded when it is asked for, and not before.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minigraph.backends.cupy.compiler import compiled
from minigraph.backends.cupy.grid import Grid
from minigraph.backends.cupy.libraries.installed import Libraries
from minigraph.backends.cupy.libraries.patterns import Failed, Pattern, Routine
from minigraph.backends.cupy.source import Source
from minigraph.core.errors import GraphError, expect
from minigraph.core.table import quantity
from minigraph.core.turn import Turn

ALIGNMENT = 256  # bytes: what libraries and the widest loads ask for
CUDA, CUDA_MANAGED = 2, 13  # kinds of memory, as DLPack has them


@dataclass(frozen=True, eq=False)
class Memory:
    """Bytes of a device, which are there as long as `owner` is."""

    address: int
    nbytes: int
    owner: Any

    def part(self, offset: int, nbytes: int) -> Memory:
        return Memory(self.address + offset, nbytes, self.owner)


@dataclass(frozen=True)
class Lent:
    """An array in the memory of the device, in order.

    limits: of whole numbers, the least and the largest, where they are known.
    """

    memory: Memory
    shape: tuple[int, ...]
    dtype: np.dtype
    limits: tuple[int, int] | None = None


class Device(Protocol):
    """Where kernels run, one after the other, in the order in which they are launched.

    Nothing waits for them but `read`, `until`, `finish` and `seconds`. What is written, read and copied takes its turn
    among the kernels; only what is uploaded goes beside them.

    turn: of whoever computes; busy while a step runs. Nothing but `launch` and `call` may be called while a graph
    is captured.
    stream: the number of the stream of kernels, as CUDA has it; None where there is none. dlpack_device: its kind and
    its number, as DLPack has them.
    """

    turn: Turn

    @property
    def stream(self) -> int | None: ...

    @property
    def dlpack_device(self) -> tuple[int, int]: ...

    @property
    def name(self) -> str:
        """As its maker calls it."""

    def memory(self, nbytes: int) -> Memory:
        """So many bytes, whose numbers may be anything, from an address that is a multiple of ALIGNMENT on."""

    def staging(self, nbytes: int) -> np.ndarray:
        """Bytes of NumPy's, which the device reads and writes faster than others, and while others compute."""

    def write(self, memory: Memory, array: np.ndarray) -> None:
        """The bytes of a contiguous array that is not of `staging`: it may be written over at once."""

    def upload(self, memory: Memory, array: np.ndarray, after: Any) -> Any:
        """Begin to copy the bytes of an array of `staging`, beside the kernels, once the moment `after` has come, if
        one is given. Returns the moment when they are there: until then, the array stays as it is.
        """

    def read(self, memory: Memory, array: np.ndarray) -> None:
        """Into a contiguous array, when all that was launched is done."""

    def copy(self, target: Memory, source: Memory) -> None:
        """As many bytes as the source has."""

    def lent(self, given: Any) -> Lent | None:
        """An array of another library that lies on this device; None for all others."""

    def load(self, source: Source) -> Mapping[str, Any]:
        """Its kernels, compiled, by name."""

    def launch(self, kernel: Any, grid: Grid, addresses: Sequence[int]) -> None:
        """Begin a kernel when those launched before it are done."""

    def routine(self, pattern: Pattern) -> Routine | None:
        """How a library computes the pattern, ready to be called; None where none does."""

    def call(self, routine: Routine, addresses: Sequence[int]) -> None:
        """Begin what a library does when all that was launched before is done."""

    def capture(self, launches: Callable[[], None]) -> Any:
        """A graph of what is launched meanwhile, which is not run."""

    def replay(self, graph: Any) -> None:
        """Run a graph when what was launched before is done."""

    def mark(self) -> Any:
        """A moment: when all that was launched before is done."""

    def wait(self, moment: Any) -> None:
        """What is launched from here on waits for this moment."""

    def until(self, moment: Any) -> None:
        """Return when the moment has come."""

    def finish(self) -> None:
        """Return when all is done that was launched or uploaded."""

    def follow(self) -> None:
        """What is launched from here on waits for what the caller has begun with other libraries on the device."""

    def lead(self) -> None:
        """What the caller begins with other libraries from here on waits for what was launched: it may write over what
        that reads, and give back memory of its own.
        """

    def dlpack(self, memory: Memory, shape: tuple[int, ...], dtype: np.dtype, **asked: Any) -> Any:
        """An array for another library, which comes to its numbers when all that was launched before is done.

        asked: what DLPack's `__dlpack__` was.
        """

    def seconds(self, first: Any, last: Any) -> float:
        """Between two moments; waits for the last."""

    def free(self) -> int:
        """The bytes that are left."""


class NoGpu(GraphError):
    """There is no GPU that CuPy reaches, or no CuPy."""


class NoCupy(NoGpu):
    """CuPy is not installed."""


class OutOfMemory(GraphError):
    """The memory of the device does not suffice. asked, free: bytes."""

    def __init__(self, asked: int, free: int):
        super().__init__(f"{quantity(asked, 'B')} of the GPU's memory are needed, and {quantity(free, 'B')} are free")
        self.asked, self.free = asked, free


def device() -> Device:
    """The current GPU. Raises NoGpu, which says what is missing."""
    cupy = _cupy()
    _look_for_gpu(cupy)
    return _gpu(cupy.cuda.Device().id)


def _cupy() -> Any:
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise NoGpu(f"CuPy cannot be loaded: {error}") from error
        what = "CuPy is not installed: pip install 'minigraph[cuda13]', or 'minigraph[cuda12]' for a driver of CUDA 12"
        raise NoCupy(what) from None
    except ImportError as error:
        raise NoGpu(f"CuPy cannot be loaded: {error}") from error
    return cupy


def _look_for_gpu(cupy: Any) -> None:
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        driver, built = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        if 0 < driver < built:
            known, wanted = (f"CUDA {v // 1000}.{v % 1000 // 10}" for v in (driver, built))
            why = f"the driver knows {known}, and this CuPy is built for {wanted}: install a newer driver"
            if driver // 1000 == 12:
                why += f", or pip uninstall cupy-cuda{built // 1000}x and pip install 'minigraph[cuda12]'"
            raise NoGpu(f"{why} ({error})") from error
        why = "there is no NVIDIA driver" if driver == 0 else "the driver refuses"
        raise NoGpu(f"CuPy finds no GPU: {why} ({error})") from error
    if not count:
        raise NoGpu("CuPy finds no GPU: the driver names none (CUDA_VISIBLE_DEVICES may hide them)")


@functools.cache
def _gpu(number: int) -> Gpu:
    return Gpu(_cupy(), number)


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


def fetched(device: Device, lent: Lent) -> np.ndarray:
    """The same numbers, as a new array of NumPy's."""
    array = np.empty(lent.shape, lent.dtype)
    with device.turn.lock:
        device.read(lent.memory, array)
    return array


def lies_on_gpu(given: Any) -> bool:
    """Whether it is an array in the memory of a GPU, of whatever library."""
    if hasattr(given, "__cuda_array_interface__"):
        return True
    if isinstance(given, np.ndarray) or not hasattr(given, "__dlpack_device__"):
        return False
    kind, _ = given.__dlpack_device__()
    return int(kind) in (CUDA, CUDA_MANAGED)
