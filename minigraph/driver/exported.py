"""Programs that `Program.export` has written to a folder, run from Python: no graph is built, and nothing is compiled.

program = load_program("lenet")
outputs = program(image=...)
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigraph.backends.c import exported as form
from minigraph.backends.c.compiler import CompilerError, NoCompiler, compiler, lacking
from minigraph.backends.c.threads import threads
from minigraph.core import dim
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Type, Value
from minigraph.core.turn import Turn
from minigraph.driver.given import arrays_of, solve


def load_program(folder: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> ExportedProgram:
    """The program of an exported folder, with the weights of the folder, or of a file that its `save` has written.

    Its library is used where it fits this processor and system; elsewhere the sources in the folder are compiled, which
    takes seconds. It is machine code: load only what you trust. It uses as many threads as MINIGRAPH_THREADS says, else
    one for each core, and never more than there were where it was exported.

    Raises GraphError for a folder that is no export, is damaged or of a newer version, where neither the library fits
    nor a compiler is there, and for weights of another program.
    """
    place = Path(folder)
    expect(place.is_dir(), "there is no folder {}", place)
    about = form.manifest(place)
    expect(about, "{} is no exported program: it has no {} that can be read", place, form.MANIFEST)
    expect(
        about["format"] <= form.FORMAT,
        "{} was written by a newer minigraph: it has format {}, this minigraph reads {}",
        place,
        about["format"],
        form.FORMAT,
    )
    try:
        wrong = _misfit(about)
        needed = [form.LIBRARY] if not wrong else [name for name in about["files"] if name.endswith((".c", ".h"))]
        _check_whole(place, about, [*needed, *([] if weights else [form.WEIGHTS])])
        library = _library(place, wrong)
        return ExportedProgram(about, library, Path(weights or place / form.WEIGHTS))
    except (KeyError, TypeError, AttributeError) as error:
        raise GraphError(f"{place} is damaged: {form.MANIFEST} does not say what it should ({error!r})") from None


def _misfit(about: Mapping[str, Any]) -> str:
    """Why the library does not run here; "" if it does."""
    if (about["system"], about["machine"]) != (sys.platform, form.machine()):
        return f"is for {about['machine']} on {about['system']}, and this is {form.machine()} on {sys.platform}"
    missing = lacking(about["needs"])
    return f"needs a processor with {', '.join(missing)}, which this one has not" if missing else ""


def _check_whole(place: Path, about: Mapping[str, Any], names: list[str]) -> None:
    for name in names:
        expect((place / name).is_file(), "{} is damaged: {} is missing", place, name)
        hint = "; weights that a program has saved go into load_program(folder, weights)" * (name == form.WEIGHTS)
        same = form.digest(place / name) == about["files"][name]
        expect(same, "{} is damaged: {} is not as it was written{}", place, name, hint)


def _library(place: Path, misfit: str) -> ctypes.CDLL:
    """The library of the folder, or one that is made of its sources."""
    with tempfile.TemporaryDirectory(prefix="minigraph-") as made:  # a loaded library needs its name no longer
        library = Path(made) / form.LIBRARY
        if not misfit:
            # By a name of its own: the system may take a path for the library that it has loaded from there before.
            library.symlink_to((place / form.LIBRARY).absolute())
            try:
                return ctypes.CDLL(str(library))
            except OSError as error:
                misfit = f"cannot be loaded: {error}"
                library.unlink()
        try:
            form.build(place, library, compiler())
        except (NoCompiler, CompilerError) as error:
            raise GraphError(f"{place / form.LIBRARY} {misfit}; its sources cannot be compiled: {error}") from None
        return ctypes.CDLL(str(library))


class ExportedProgram:
    """Calling it with the inputs by name returns the outputs by name, and moves the state where there are updates.

    Outputs are the caller's own. One call runs at a time; other threads wait. An error leaves the state as it was.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    sizes: Mapping[str, int]  # the largest, of those that are known when it runs

    def __init__(self, about: Mapping[str, Any], library: ctypes.CDLL, weights: Path):
        self.name = about["graph"]
        self.inputs, self.outputs = (tuple(_value(v) for v in about[what]) for what in ("inputs", "outputs"))
        self.sizes, self.updates = dict(about["sizes"]), tuple(about["updates"])
        self._turn = Turn()
        face = about["name"]
        self._run = library[f"{face}_run"]
        self._save = library[f"{face}_save"] if self.updates else None
        self._handle = ctypes.c_void_p()
        create, free = library[f"{face}_create"], library[f"{face}_free"]
        for function in (self._run, create, *([self._save] if self._save else [])):
            function.restype = ctypes.c_char_p
        wrong = create(ctypes.byref(self._handle), os.fsencode(weights), min(threads(), about["threads"]))
        expect(not wrong, "{}: {}", weights, _text(wrong))
        weakref.finalize(self, free, ctypes.c_void_p(self._handle.value))

    def __call__(self, /, **inputs: Any) -> dict[str, np.ndarray]:
        arrays = arrays_of(self.inputs, inputs, self.name)
        symbols = solve(self.inputs, arrays)
        for symbol, most in self.sizes.items():
            got = symbols[symbol]
            expect(got <= most, "{} is {}, and {!r} was exported for {} at most", symbol, got, self.name, most)
        ordered = [np.require(array, requirements=["C", "A"]) for array in arrays.values()]
        outputs = {v.name: np.empty(dim.bind(v.type.shape, symbols), v.type.dtype) for v in self.outputs}
        pointers = [array.ctypes.data for array in (*ordered, *outputs.values())]
        fields = (ctypes.c_int64 * (len(self.sizes) + len(pointers)))(*(symbols[s] for s in self.sizes), *pointers)
        with self._turn.lock:
            wrong = self._run(self._handle, fields)
        expect(not wrong, "{!r}: {}", self.name, _text(wrong))
        return outputs

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state as it is now, whole or not at all: for load_program(folder, path), and State.read(path)."""
        expect(self._save, "{!r} has no updates: its weights stay as they are", self.name)
        with self._turn.lock:
            wrong = self._save(self._handle, os.fsencode(path))  # type: ignore[misc]
        expect(not wrong, "{}: {}", os.fspath(path), _text(wrong))

    def __repr__(self) -> str:
        return f"<ExportedProgram {self.name!r}: {', '.join(map(repr, self.inputs))} -> {self.outputs}>"


def _value(about: Mapping[str, Any]) -> Value:
    return Value(Type(dim.shape_of(tuple(about["shape"])), about["dtype"]), about["name"])


def _text(sentence: bytes) -> str:
    return (sentence or b"").decode(errors="replace")
