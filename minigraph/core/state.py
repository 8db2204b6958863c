"""State: named arrays that live across steps, with files for them.

A `State` is a mapping from a name to one read-only array. Whoever got an array keeps its numbers: assigning replaces an
array, and a program writes over one only while nobody but the state holds it, or a view of it (see `in_place`). So a
snapshot costs nothing until the next step, which copies what the snapshot holds.

The memory of a device may hold an array in place of NumPy's (`Away`): it went there at a step, and is read back where
somebody asks for it.

Files are safetensors; they are written beside the old one and renamed, so that a reader, or a machine that stops in the
middle, sees the old file or the new one whole.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from minigraph.core.dtypes import becomes, is_number
from minigraph.core.errors import GraphError, expect
from minigraph.core.turn import Turn

T = TypeVar("T")

BUSY = "a step that moves this state is not over, and another one cannot begin"
RESERVED = "__metadata__"  # what safetensors calls the texts beside the arrays

# Whether a reference count tells who holds an array. Where it does not, in_place copies all.
COUNTS = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()


class Away(Protocol):
    """An array of a state that lies in the memory of a device. As an array, it keeps its numbers for who holds it."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int: ...

    def read(self) -> np.ndarray:
        """Its numbers, as a new array."""

    def apart(self) -> Away:
        """Another one of the same numbers, which may be written over. It takes over the place of this one."""

    def empty(self) -> Away:
        """Another one of the same form on the same device, with whatever numbers."""

    def copy_to(self, other: Away) -> None:
        """Its numbers, to one that `empty` gave."""


Held = np.ndarray | Away


class State(MutableMapping[str, np.ndarray]):
    """A dict of arrays: state["conv1.weight"].

    A new array must have the old one's shape; it takes the old one's dtype. While one thread runs a step that writes to
    the state in place, others that ask for its arrays wait. So does a fork, for the end of the step.
    """

    def __init__(self, arrays: Mapping[str, Any] = {}):
        self._turn = Turn()  # of whoever writes; busy while it writes in place
        self._hold({name: _frozen(name, array) for name, array in arrays.items()})
        self._alone = object()  # held by this attribute only, as an array is by its dict if nobody else has it
        self.memory: dict[object, Any] = {}  # what a device keeps for this state, by the device

    def _hold(self, arrays: dict[str, Held]) -> None:
        """Take a new dict for the old one, which is never changed: an interrupt comes before or after.

        Each comes with a version of its own.
        """
        self._held = arrays, object()

    @property
    def lock(self) -> threading.RLock:
        """Held by whoever reads arrays, computes others from them and puts these back."""
        return self._turn.lock

    @property
    def _arrays(self) -> dict[str, Held]:
        return self._held[0]

    @property
    def version(self) -> object:
        """An object that is another one when any name has come to another array.

        While it is the same, and the state is there, the arrays lie where they lay. Their numbers may be others.
        """
        return self._held[1]

    def __getitem__(self, name: str) -> np.ndarray:
        with self.lock:
            array = self.held(name)
            return array if isinstance(array, np.ndarray) and not self._turn.busy else _read(array)

    def held(self, name: str) -> Held:
        """The array where it lies. Another one is there when the numbers are others."""
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyError(f"no state {name!r}; there are {', '.join(self._arrays) or 'none'}") from None

    def __setitem__(self, name: str, array: Any) -> None:
        new = _array(name, array)
        with self.lock:
            if name in self._arrays:
                old = self._arrays[name]
                fits = becomes(new.dtype, old.dtype)
                expect(fits, "state {!r} is {}; the new array is {}", name, old.dtype, new.dtype)
                same = new.shape == old.shape
                expect(same, "state {!r} has shape {}; the new array has {}", name, old.shape, new.shape)
                new = new.astype(old.dtype)
            new = _frozen(name, new)
            self._hold({**self._arrays, name: new})

    def __delitem__(self, name: str) -> None:
        with self.lock:
            left = dict(self._arrays)
            del left[name]
            self._hold(left)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def replace(self, arrays: Mapping[str, Held]) -> None:
        """All of these at once: an interrupt comes before or after, never between two of them.

        The arrays are taken over, and not copied if they are whole and in order; their owner must not write to them
        again.
        """
        own = {name: _whole(array) if isinstance(array, np.ndarray) else array for name, array in arrays.items()}
        with self.lock:
            self._hold({**self._arrays, **own})

    def place(self, arrays: Mapping[str, Held]) -> None:
        """Go on with these arrays, which have the numbers of those of the same names and lie elsewhere."""
        with self.lock:
            expect(not self._turn.busy, BUSY)
            self._hold({**self._arrays, **arrays})

    def come_home(self) -> None:
        """Bring to NumPy's memory what lies in that of devices."""
        with self.lock:
            away = {name: array for name, array in self._arrays.items() if not isinstance(array, np.ndarray)}
            if away:
                self.place({name: _read(array) for name, array in away.items()})

    def copy(self) -> State:
        """A snapshot. The arrays are shared until one of both states moves."""
        twin = State()
        with self.lock:
            arrays, version = self._held
            if self._turn.busy:
                twin._hold({name: _read(array) for name, array in arrays.items()})
            else:
                twin._held = dict(arrays), version  # a dict of its own: it holds each array once more
        return twin

    def copy_to(self, arrays: Mapping[str, Held]) -> None:
        """Copy the numbers of these names into these arrays, which have their shapes and dtypes.

        One that lies on a device is for what lies there, too.
        """
        with self.lock:
            there = self._arrays
            for name, array in arrays.items():
                held = there[name]
                if isinstance(array, np.ndarray):
                    np.copyto(array, held if isinstance(held, np.ndarray) else held.read(), casting="no")
                else:
                    assert not isinstance(held, np.ndarray)
                    held.copy_to(array)

    def in_place(self, names: Sequence[str], write: Callable[[State], T]) -> T:
        """What `write` returns, which may write over the arrays of these names where they lie.

        What somebody else holds, or a view of which, is copied first: the state goes on with the copy. Other threads
        that ask for arrays wait. This thread may ask too, in a signal handler say, and is given copies. The state that
        `write` gets is for it alone: it must keep none of its arrays. GraphError inside of another such call.
        """
        with self.lock:
            expect(not self._turn.busy, BUSY)
            try:
                self._turn.busy = True
                shared = self._shared(names)
                if shared:
                    self._hold({**self._arrays, **{name: _own(self._arrays[name]) for name in shared}})
                own = State()
                own._held = self._held
                return write(own)
            finally:
                self._turn.busy = False

    def _shared(self, names: Sequence[str]) -> list[str]:
        """Those of the names whose arrays others hold, too.

        Of references to `_alone` there is always the same number, whatever this function itself holds: it is asked in
        the same way. A view of an array holds the array.
        """
        if not COUNTS:
            return list(names)
        held: list[object] = [*map(self._arrays.__getitem__, names), self._alone]
        counts = list(map(sys.getrefcount, held))
        alone = counts.pop()
        if counts.count(alone) == len(counts):
            return []
        return [name for name, count in zip(names, counts) if count != alone]

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write all arrays to one safetensors file, whole or not at all."""
        arrays = dict(self.copy())
        expect(RESERVED not in arrays, "a safetensors file takes no array that is called {!r}", RESERVED)
        from safetensors.numpy import save  # here: a program that never writes a file need not load it

        write_whole(path, save(arrays, dict(metadata) if metadata else None))  # {} for none spoils an empty file

    def load(self, path: str | os.PathLike[str], strict: bool = True) -> Difference:
        """Take over from a file every array that this state has by the same name and shape.

        Says what was missing in the file, superfluous, or of another shape or dtype. With strict=True any of these is a
        GraphError, and nothing has changed.
        """
        arrays, _ = read(path)
        missing = tuple(name for name in self._arrays if name not in arrays)
        superfluous = tuple(name for name in arrays if name not in self._arrays)
        common = [name for name in arrays if name in self._arrays]
        other = {
            name: (_form(self._arrays[name]), _form(arrays[name]))
            for name in common
            if _form(self._arrays[name]) != _form(arrays[name])
        }
        difference = Difference(missing, superfluous, other)
        if strict and difference:
            what = "load(..., strict=False) takes what fits; State.read(file) gives all that the file has"
            raise GraphError(f"{os.fspath(path)} does not fit this state.\n{difference}\n{what}")
        self.replace({name: arrays[name] for name in common if name not in other})
        return difference

    @staticmethod
    def read(path: str | os.PathLike[str]) -> State:
        """A state with exactly what the file holds."""
        return State(read(path)[0])

    def __repr__(self) -> str:
        return f"<State: {len(self)} arrays, {sum(a.nbytes for a in self._arrays.values()):,} bytes>"


@dataclass(frozen=True)
class Difference:
    """How a file and a state differ. False if they do not."""

    missing: tuple[str, ...]
    superfluous: tuple[str, ...]
    other_form: Mapping[str, tuple[str, str]]  # name: (what the state has, what the file has)

    def __bool__(self) -> bool:
        return bool(self.missing or self.superfluous or self.other_form)

    def __str__(self) -> str:
        lines = []
        if self.missing:
            lines.append("missing in the file: " + ", ".join(self.missing))
        if self.superfluous:
            lines.append("only in the file: " + ", ".join(self.superfluous))
        lines += [f"{name}: expected {want}, the file has {got}" for name, (want, got) in self.other_form.items()]
        return "\n".join(lines) or "no difference"


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays and the metadata of a safetensors file; GraphError if it is not one, or not whole."""
    from safetensors import SafetensorError, safe_open

    expect(not Path(path).is_dir(), "{} is a folder", os.fspath(path))
    expect(Path(path).is_file(), "there is no file {}", os.fspath(path))
    try:
        with safe_open(os.fspath(path), "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no mapping)
    except (SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise GraphError(f"{os.fspath(path)} is not a whole safetensors file: {error}") from None


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file beside its place, flush it to the disk, and rename it: it is there whole, or as it was before.

    Folders on the way are made. GraphError if a folder is in its place, or a file in that of its folder; OSError with
    this path if the system refuses it.
    """
    path = Path(path)
    expect(not path.is_dir(), "{} is a folder", path)
    there = path.parent
    expect(there.is_dir() or not there.exists(), "{} cannot be written: {} is a file, not a folder", path, there)
    there.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is not None:
            error.filename, error.filename2 = str(path), None  # nobody knows the file beside it
        raise


def _array(name: str, given: Any) -> np.ndarray:
    try:
        return np.asarray(given)
    except ValueError as error:
        raise GraphError(f"state {name!r} is no array: {error}") from None


def _frozen(name: str, given: Any) -> np.ndarray:
    """A copy that nobody can write to, in order; GraphError for what a file could not hold."""
    array = np.array(_array(name, given), order="C")
    numbers = is_number(array.dtype) and array.dtype.itemsize <= 8
    expect(numbers, "state {!r} is made of numbers, not {}", name, array.dtype)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    array.flags.writeable = False
    return array


def _read(array: Held) -> np.ndarray:
    """A copy of one of a state's arrays, as a state holds it."""
    own = array.copy() if isinstance(array, np.ndarray) else array.read()
    own.flags.writeable = False
    return own


def _own(array: Held) -> Held:
    """One of a state's arrays, for the state alone."""
    return _read(array) if isinstance(array, np.ndarray) else array.apart()


def _whole(array: np.ndarray) -> np.ndarray:
    """The array, read-only; a copy where it is part of another one, or not in order."""
    if not (array.flags.owndata and array.flags.c_contiguous):
        array = np.array(array, order="C")
    array.flags.writeable = False
    return array


def _form(array: Held) -> str:
    return f"{array.dtype}[{', '.join(map(str, array.shape))}]"
