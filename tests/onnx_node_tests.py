"""ONNX's own tests of its operators, run by minigraph.

Each is a small model with inputs and the outputs that they give. What comes of one: "passed"; "failed"; or "skipped",
where minigraph says that an operator, a use of it or a dtype is not supported. Inputs that must be known when a model
is read (a shape, say) are given to `load` as values, those and no others.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

import minigraph as mg
from minigraph.core.errors import GraphError
from minigraph.onnx.call import NeedsValue
from minigraph.onnx.file import Unsupported, nodes_of, parsed
from minigraph.onnx.read import graph_of, reader_name


@dataclass(frozen=True)
class NodeTest:
    """One test: its model, and (inputs, outputs) of each of its runs. `operators` are those of the model."""

    name: str
    kind: str
    model: onnx.ModelProto
    runs: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    rtol: float
    atol: float

    @functools.cached_property
    def operators(self) -> list[str]:
        return sorted({reader_name(node) for node in nodes_of(self.model.graph)})

    @property
    def expanded(self) -> bool:
        """Whether it is made of another test, its operator written out as its definition in other ones."""
        return "_expanded" in self.name

    @property
    def operator(self) -> str:
        """The operator that it is about: the first of its model that is not a Constant."""
        named = [reader_name(node) for node in self.model.graph.node]
        return next((name for name in named if name != "Constant"), "Constant")


def tests_of(kind: str) -> Iterator[NodeTest]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what makes the tests divides by zero, and says so
        found = sorted(load_model_tests(kind=kind), key=lambda test: test.name)
    for test in found:
        if test.model is not None:
            model, runs = test.model, test.data_sets
        else:
            folder = Path(test.model_dir)
            model = onnx.load(folder / "model.onnx")
            runs = [stored(each) for each in sorted(folder.glob("test_data_set_*"))]
        yield NodeTest(test.name, kind, model, runs, test.rtol, test.atol)


def stored(folder: Path) -> tuple[list[Any], list[Any]]:
    """The inputs and outputs of a run that lie in files. What is no tensor stays bytes."""

    def read(kind: str) -> list[Any]:
        number = len(list(folder.glob(f"{kind}_*.pb")))
        return [onnx.load_tensor(folder / f"{kind}_{i}.pb") for i in range(number)]

    return read("input"), read("output")


def array(given: Any) -> np.ndarray:
    if isinstance(given, onnx.TensorProto):
        return numpy_helper.to_array(given)
    if isinstance(given, (list, dict)) or given is None:
        raise Unsupported("values that are no tensors")
    return np.asarray(given)


@dataclass(frozen=True)
class Outcome:
    """passed, failed or skipped; and why, where it is not passed."""

    verdict: str
    why: str = ""


@functools.cache
def nothing() -> mg.State:
    return mg.State({})


def loaded(test: NodeTest, inputs: Mapping[str, np.ndarray]) -> tuple[mg.Graph, mg.State]:
    """The graph of a test, its inputs given as values where they must be known."""
    values: dict[str, np.ndarray] = {}
    model = parsed(test.model.SerializeToString(), test.name)
    while True:
        try:
            return graph_of(model, None, values)
        except NeedsValue as error:
            new = [name for name in error.inputs if name not in values]
            if not new:
                raise
            values.update((name, inputs[name]) for name in new)


def outcome(test: NodeTest, backend: str) -> Outcome:
    """What comes of a test on a backend."""
    names = [value.name for value in test.model.graph.input]
    try:
        for given, wanted in test.runs:
            inputs = dict(zip(names, map(array, given)))
            graph, state = loaded(test, inputs)
            program = mg.compile(graph, state, backend=backend)
            results = program(**{value.name: inputs[name] for value, name in fed(graph, inputs)})
            Runner.assert_similar_outputs(list(map(array, wanted)), list(results.values()), test.rtol, test.atol)
    except Unsupported as error:
        return Outcome("skipped", str(error))
    except (GraphError, AssertionError, ValueError) as error:
        return Outcome("failed", f"{type(error).__name__}: {error}")
    return Outcome("passed")


def fed(graph: mg.Graph, inputs: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """Each input of the graph with its name in the model."""
    from minigraph.onnx.names import cleaned

    by_name = {cleaned(name): name for name in inputs}
    return [(value, by_name[value.name]) for value in graph.inputs]
