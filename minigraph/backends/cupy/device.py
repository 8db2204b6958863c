"""Devices: what programs on a GPU ask of it, and which GPU there is.

`device()` is the GPU that programs run on. CuPy is loaded when it is asked for, and not before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from minigraph.core.errors import GraphError
from minigraph.core.table import quantity
from minigraph.core.turn import Turn

if TYPE_CHECKING:  # all programs ask whether there is a GPU, and those that find none need no more
    from minigraph.backends.cupy.grid import Grid
    from minigraph.backends.cupy.libraries.patterns import Pattern, Routine
    from minigraph.backends.cupy.source import Source

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
def _gpu(number: int) -> Device:
    from minigraph.backends.cupy.gpu import Gpu  # here: who has no GPU need not load what compiles for one

    return Gpu(_cupy(), number)


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
