"""Arrays that a program leaves on the GPU, and that go on as NumPy's where somebody looks at them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from minigraph.backends.cupy.checks import Limits
from minigraph.backends.cupy.device import Device, Lent, Memory

BYTES = np.dtype(np.uint8)


class GpuArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array in the memory of a GPU, in order.

    NumPy's functions, operators, methods, `float(x)`, `x[i]` and `print(x)` wait for it and work on a copy in the
    host's memory, anew each time: take `np.asarray(x)` where it is to be read often. What they give is NumPy's; a
    method that would change the array itself is an error, while `x[i] = y` and `x += y` write to the GPU.
    Libraries on the GPU take the array where it lies, without a copy: `cupy.asarray(x)`, `torch.from_dlpack(x)`.

    limits: of whole numbers, the least and the largest, where they are known without a look.
    """

    def __init__(
        self, device: Device, memory: Memory, shape: tuple[int, ...], dtype: np.dtype, limits: Limits | None = None
    ):
        self.device, self.memory, self.shape, self.dtype, self.limits = device, memory, shape, dtype, limits

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        return len(self.shape)

    # for NumPy

    def get(self) -> np.ndarray:
        """The numbers, as a new array of NumPy's, when all that was launched before is done."""
        array = np.empty(self.shape, self.dtype)
        with self.device.turn.lock:
            self.device.follow()
            self.device.read(self.memory, array)
        return array

    def _write(self, array: np.ndarray) -> None:
        """Go on with these numbers."""
        self.limits = None
        with self.device.turn.lock:
            self.device.follow()
            self.device.write(self.memory, np.ascontiguousarray(array, self.dtype))
            self.device.lead()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array on the GPU becomes NumPy's by a copy")
        array = self.get()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        targets = [_here(x) for x in out]
        if targets:
            options["out"] = tuple(targets)
        found = getattr(ufunc, method)(*map(_here, inputs), **options)
        for x, target in zip(out, targets):
            if isinstance(x, GpuArray):
                x._write(target)
        return out[0] if len(out) == 1 else out or found

    def __getattr__(self, name: str) -> Any:
        """NumPy's attributes and methods, of a copy that nobody can write to."""
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(f"an array on the GPU has no {name!r}")
        array = self.get()
        array.flags.writeable = False
        return getattr(array, name)

    def __getitem__(self, index: Any) -> Any:
        return self.get()[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        array = self.get()
        array[index] = _here(value)
        self._write(array)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("one number has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.get())

    def __contains__(self, number: object) -> bool:
        return number in self.get()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __index__(self) -> int:
        return self.get().__index__()

    def __format__(self, form: str) -> str:
        return format(self.get(), form)

    def __str__(self) -> str:
        return str(self.get())

    def __repr__(self) -> str:
        return f"Gpu{self.get()!r}"

    def __reduce__(self) -> Any:
        return self.get().__reduce__()  # pickled, or copied, it is an array of NumPy's

    # for libraries on the GPU, which may write to it

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self.limits = None
        self.device.lead()  # not all who ask look at `stream`
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.memory.address, False),
            "version": 3,
            "stream": self.device.stream,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device.dlpack_device

    def __dlpack__(self, **asked: Any) -> Any:
        self.limits = None
        return self.device.dlpack(self.memory, self.shape, self.dtype, **asked)

    # for programs

    def lent(self) -> Lent:
        return Lent(self.memory, self.shape, self.dtype, self.limits)


def moved(device: Device, array: np.ndarray) -> GpuArray:
    """The same numbers on the device. Raises OutOfMemory."""
    limits = limits_of(array)
    with device.turn.lock:
        memory = device.memory(array.nbytes)
        device.write(memory, np.ascontiguousarray(array))
    return GpuArray(device, memory, array.shape, array.dtype, limits)


def limits_of(array: np.ndarray) -> Limits | None:
    """The least and the largest of whole numbers; None where there are none."""
    if array.dtype.kind not in "iu" or not array.size:
        return None
    return int(array.min()), int(array.max())


def at_home(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All of these as arrays of NumPy's, by name."""
    return dict(zip(arrays, fetched(list(arrays.values()))))


def fetched(arrays: Sequence[Any]) -> list[np.ndarray]:
    """All of these as arrays of NumPy's. Those of one piece of a GPU's memory come in one piece."""
    pieces: dict[int, list[GpuArray]] = {}
    for x in arrays:
        if isinstance(x, GpuArray):
            pieces.setdefault(id(x.memory.owner), []).append(x)
    found: dict[int, np.ndarray] = {}
    for together in pieces.values():
        found.update(zip(map(id, together), _in_one_piece(together), strict=True))
    return [found[id(x)] if isinstance(x, GpuArray) else np.asarray(x) for x in arrays]


def _in_one_piece(arrays: Sequence[GpuArray]) -> Iterator[np.ndarray]:
    first = min(x.memory.address for x in arrays)
    end = max(x.memory.address + x.nbytes for x in arrays)
    whole = GpuArray(arrays[0].device, Memory(first, end - first, arrays[0].memory.owner), (end - first,), BYTES).get()
    for x in arrays:
        offset = x.memory.address - first
        yield whole[offset : offset + x.nbytes].view(x.dtype).reshape(x.shape).copy()


def _here(x: Any) -> Any:
    return x.get() if isinstance(x, GpuArray) else x
