"""The inputs of a run from the command line: arrays from .npy and .npz files, random numbers for the rest."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np

from minigraph.core import dim
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph, Type
from minigraph.core.state import write_whole

SIZE = 4  # of an axis that is known only at run time, where nothing says another


def read_inputs(graph: Graph, given: Iterable[str]) -> dict[str, np.ndarray]:
    """Arrays by the names of inputs. given: "name=file.npy" for one, or "file.npz" for all that it holds by name.

    Raises GraphError for what is no such file, or is no input of the graph, or comes twice.
    """
    names = [value.name for value in graph.inputs]
    found: dict[str, np.ndarray] = {}
    for word in given:
        name, equals, file = word.partition("=")
        if equals and name in names:
            arrays = {name: _one(Path(file))}
        else:
            wanted = Path(word).suffix == ".npz" and not (equals and not Path(word).exists())
            expect(wanted, "an input is name=file.npy, of {}, or file.npz; not {}", ", ".join(names) or "none", word)
            arrays = _all(Path(word))
        for key, array in arrays.items():
            expect(key in names, "{} has no input {!r}; it has {}", graph.name, key, ", ".join(names) or "none")
            expect(key not in found, "the input {!r} is given twice", key)
            found[key] = array
    return found


def random_inputs(graph: Graph, given: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The given arrays, and random ones for the other inputs: the same at each call.

    Floats are normal with mean 0 and deviation 1, integers and truths 0 or 1. sizes: of symbols; one that neither these
    nor the given arrays tell is 4.
    """
    for name in sizes:
        expect(name in graph.symbols, "{} has no size {!r}; it has {}", graph.name, name, _listed(graph.symbols))
    symbols = dict(sizes)
    for value in graph.inputs:
        if value.name in given:
            dim.solve(value.type.shape, given[value.name].shape, symbols)
    symbols = {**dict.fromkeys(graph.symbols, SIZE), **symbols}
    rng = np.random.default_rng(0)
    return {
        value.name: given[value.name] if value.name in given else _random(value.type.bind(symbols), value.name, rng)
        for value in graph.inputs
    }


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """One .npz file with these arrays by name, written whole."""
    expect(path.suffix == ".npz", "outputs are written to a .npz file, not {}", path)
    data = BytesIO()
    with zipfile.ZipFile(data, "w") as archive:  # np.savez takes no array that is called "file"
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    write_whole(path, data.getvalue())


def _random(type_: Type, name: str, rng: np.random.Generator) -> np.ndarray:
    shape = tuple(dim.known(n, name) for n in type_.shape)
    expect(all(n >= 0 for n in shape), "the input {!r} would have the shape {}", name, shape)
    return (rng.standard_normal(shape) if type_.is_float else rng.integers(0, 2, shape)).astype(type_.dtype)


def _one(path: Path) -> np.ndarray:
    arrays = _read(path)
    if isinstance(arrays, np.ndarray):
        return arrays
    expect(len(arrays) == 1, "{} holds {} arrays, {}; give it without a name", path, len(arrays), _listed(arrays))
    return next(iter(arrays.values()))


def _all(path: Path) -> dict[str, np.ndarray]:
    arrays = _read(path)
    if isinstance(arrays, np.ndarray):
        raise GraphError(f"{path} holds one array without a name: write name={path}")
    return arrays


def _read(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """What a .npy or .npz file holds. Objects, whose reading would run code, are refused."""
    expect(not path.is_dir(), "{} is a folder", path)
    expect(path.is_file(), "there is no file {}", path)
    with open(path, "rb") as file:
        try:
            found = np.load(file, allow_pickle=False)
            return found if isinstance(found, np.ndarray) else dict(found)
        except Exception as error:  # a damaged file comes out of NumPy and zipfile as a dozen kinds of them
            why = "it is another, or one of objects, whose reading runs code" if "pickle" in str(error) else error
            raise GraphError(f"{path} is not a whole .npy or .npz file of numbers: {why}") from None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
