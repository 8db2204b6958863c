"""Saved graphs: one safetensors file that holds a graph and, if it is given, the state that the graph has.

    mg.save("net.safetensors", graph, state)
    graph, state = mg.load("net.safetensors")

The metadata of the file are "minigraph", the version of this form; "graph", the text that `str(graph)` writes and
`mg.parse` reads; and "sha256", the digest of that text, since a text with one character changed is often another that
can be read. The arrays are those of the state, so that `State.read` and every other reader of safetensors reads them
too. The text alone is `str(graph)`. A file is read as data: nothing in it is executed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np

from minigraph.core import state as files
from minigraph.core import text
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph, Type
from minigraph.core.parse import parse
from minigraph.core.state import State
from minigraph.driver.given import MADE

VERSION, GRAPH, DIGEST, KEY = 1, "graph", "sha256", "minigraph"
ENDING, ONNX = ".safetensors", ".onnx"
ROOM = 80_000_000  # bytes of text; safetensors takes 100 MB before the arrays, where quotes and line ends count twice


def save(path: str | os.PathLike[str], graph: Graph, state: State | None = None) -> None:
    """Write a graph, and of the state what the graph has, to a .safetensors file, whole or not at all.

    What else the state holds, such as an optimizer's slots beside a graph that only answers, stays away. Raises
    GraphError where the state lacks a parameter or a statistic, or has one of another type, and for a graph whose text
    does not read back: an attribute or an initializer of one's own may have none.
    """
    expect(isinstance(graph, Graph), "save(path, graph, state) needs a Graph, not a {}", type(graph).__name__)
    path = Path(path)
    expect(path.suffix != ONNX, "{} is written by minigraph.onnx.save(graph, state, path)", path)
    expect(path.suffix == ENDING, "a saved graph is a {} file, not {}; its text alone is str(graph)", ENDING, path)
    arrays = {} if state is None else {name: state[name] for name in graph.variables if name in state}
    if state is not None:
        problems = misfits(graph, arrays)
        expect(not problems, "{!r} does not fit its state: {}", graph.name, "; ".join(problems))
    written = text.write(graph)
    try:
        size = len(written.encode())
    except UnicodeEncodeError as error:
        raise GraphError(f"{graph.name!r} cannot be saved, one of its names is no text: {error}") from None
    expect(
        size <= ROOM,
        "the text of {!r} has {:,} bytes, and a file takes {:,}: make parameters of its large constants",
        graph.name,
        size,
        ROOM,
    )
    try:
        parse(written)
    except GraphError as error:
        raise GraphError(f"{graph.name!r} cannot be saved, its text would not be read back: {error}") from None
    State(arrays).save(path, {KEY: str(VERSION), GRAPH: written, DIGEST: _digest(written)})


def load(path: str | os.PathLike[str]) -> tuple[Graph, State | None]:
    """The graph that `save` has written, and its state: None where it was saved without one that it needs.

    Raises GraphError, with the reason, for a file that is none, is damaged, or is of a newer version; for an op or an
    initializer that is not known here (import the module that defines it first); and for a state that does not fit.
    """
    path = Path(path)
    expect(path.suffix != ONNX, "{} is read by minigraph.onnx.load(path)", path)
    expect(not path.is_file() or path.stat().st_size, "{} is empty", path)
    arrays, metadata = files.read(path)
    graph = _graph(path, metadata)
    needed = [v for v in graph.state if v.kind not in MADE]
    if not arrays:
        return graph, None if needed else State()
    problems = misfits(graph, arrays)
    strange = [name for name in arrays if name not in graph.variables]
    if strange:
        problems.append(f"the graph has no {', '.join(strange)}")
    expect(not problems, "{} holds a state that does not fit its graph: {}", path, "; ".join(problems))
    return graph, State({variable.name: arrays[variable.name] for variable in graph.state if variable.name in arrays})


def misfits(graph: Graph, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """What keeps the graph from running on these arrays, a sentence for each; slots, counters and streams may lack."""
    missing = [v.name for v in graph.state if v.name not in arrays and v.kind not in MADE]
    problems = [f"the state lacks {', '.join(missing)}"] if missing else []
    for variable in graph.state:
        if variable.name in arrays:
            array = arrays[variable.name]
            found = Type(array.shape, array.dtype.name)
            if found != variable.value.type:
                problems.append(f"{variable.name} is {variable.value.type}, the state has {found}")
    return problems


def _graph(path: Path, metadata: Mapping[str, str]) -> Graph:
    """The graph in the metadata of a file."""
    expect(
        KEY in metadata,
        "{} holds no graph, only arrays: build the network, and give it these with State.read(path) or"
        " state.load(path); save(path, graph, state) writes a file with both",
        path,
    )
    version = metadata[KEY]
    expect(re.fullmatch("[1-9][0-9]{0,8}", version), "{} is damaged: its version is {!r}", path, version)
    expect(
        int(version) <= VERSION,
        "{} was written by a newer minigraph: it has format {}, this minigraph reads {}",
        path,
        version,
        VERSION,
    )
    for key in (GRAPH, DIGEST):
        expect(key in metadata, "{} is damaged: it says nothing of {!r}", path, key)
    whole = _digest(metadata[GRAPH]) == metadata[DIGEST]
    expect(whole, "{} is damaged: the text of its graph is not as it was written", path)
    try:
        return parse(metadata[GRAPH])
    except GraphError as error:
        raise GraphError(f"{path} holds a graph that cannot be read: {error}") from None


def _digest(written: str) -> str:
    return sha256(written.encode()).hexdigest()
