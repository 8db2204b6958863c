"""Files that hold a graph and its state, by their ending: saved graphs (.safetensors) and models of ONNX (.onnx)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph
from minigraph.core.state import State
from minigraph.tools import saved

ENDINGS = (saved.ENDING, saved.ONNX)


def load(path: Path, values: Mapping[str, Any] | None = None) -> tuple[Graph, State | None]:
    """The graph and the state in a file; of a saved graph the state may lack.

    values: what must be known of a model's inputs before anything runs (see minigraph.onnx.load).
    Raises GraphError as minigraph.load and minigraph.onnx.load do, and where the package onnx is needed and missing.
    """
    if is_onnx(path):
        read, _ = _onnx()
        return read(path, values or {})
    expect(not values, "{} is a saved graph, of which no values can be fixed: that is for models of ONNX", path)
    return saved.load(path)


def save(path: Path, graph: Graph, state: State | None) -> None:
    """Write a graph and its state, in the form that the ending asks for."""
    check_ending(path)
    if is_onnx(path):
        _, write = _onnx()
        write(graph, state, path)
    else:
        saved.save(path, graph, state)


def is_onnx(path: Path) -> bool:
    return path.suffix == saved.ONNX


def check_ending(path: Path) -> None:
    """Raise GraphError for a file that could not be written."""
    expect(path.suffix in ENDINGS, "a graph is written to a {} file, not to {}", " or a ".join(ENDINGS), path)


def _onnx() -> tuple[Callable[..., tuple[Graph, State]], Callable[..., None]]:
    """minigraph.onnx.load and save, which need a package that is not always there, and takes long to load."""
    try:
        from minigraph.onnx import load, save
    except ImportError as error:
        raise GraphError(str(error)) from None
    return load, save
