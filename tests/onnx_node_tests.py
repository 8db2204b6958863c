"""ONNX's own tests of its operators, run by minigraph.

Each is a small model with inputs and the outputs that they give. What comes of one: "passed"; "failed"; or "skipped",
where minigraph says that an operator, a use of it or a dtype is not supported. Inputs that must be known when a model
is read (a shape, say) are given to `load` as values, those and no others.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

import minigraph as mg
from minigraph.core import dim
from minigraph.core.errors import GraphError
from minigraph.core.ir import Node, Value, Variable
from minigraph.onnx.call import NeedsValue
from minigraph.onnx.file import Unsupported, nodes_of, parsed
from minigraph.onnx.names import cleaned
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


def cases_of(kind: str) -> Iterator[NodeTest]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what makes the tests divides by zero, and says so
        found = sorted(load_model_tests(kind=kind), key=lambda test: test.name)
    for test in found:
        runs: Any = test.data_sets
        if test.model is not None:
            model = test.model
        else:
            folder = Path(str(test.model_dir))
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


def loaded(test: NodeTest, inputs: Mapping[str, np.ndarray]) -> tuple[mg.Graph, mg.State]:
    """The graph of a test. Inputs are given as values where they must be known."""
    values: dict[str, np.ndarray] = {}
    model = parsed(test.model.SerializeToString())
    while True:
        try:
            return graph_of(model, None, values)
        except NeedsValue as error:
            new = [name for name in error.inputs if name not in values]
            if not new:
                raise
            values.update((name, inputs[name]) for name in new)


@dataclass(frozen=True)
class Run:
    """A graph with the numbers of its inputs, by its own names, and what its outputs should be, in order."""

    test: NodeTest
    graph: mg.Graph
    state: mg.State
    given: Mapping[str, np.ndarray]
    wanted: Sequence[np.ndarray]

    def check(self, results: Sequence[np.ndarray]) -> None:
        """AssertionError, by the comparison of ONNX's own runner, unless the results are as they should be."""
        Runner.assert_similar_outputs(list(self.wanted), list(results), self.test.rtol, self.test.atol)


def runs_of(test: NodeTest) -> list[Run]:
    """What a test runs, read anew for each: what must be known may differ."""
    names = [value.name for value in test.model.graph.input]
    found = []
    for given, wanted in test.runs:
        inputs = dict(zip(names, map(array, given)))
        graph, state = loaded(test, inputs)
        by_name = {cleaned(name): values for name, values in inputs.items()}
        used = {value.name: by_name[value.name] for value in graph.inputs}
        found.append(Run(test, graph, state, used, list(map(array, wanted))))
    return found


def outcome(test: NodeTest, backend: str = "numpy") -> Outcome:
    """What comes of a test on a backend."""
    try:
        for run in runs_of(test):
            run.check(list(mg.compile(run.graph, run.state, backend=backend)(**run.given).values()))
    except Unsupported as error:
        return Outcome("skipped", str(error))
    except (GraphError, AssertionError, ValueError) as error:
        return Outcome("failed", f"{type(error).__name__}: {error}")
    return Outcome("passed")


@functools.cache
def outcomes(kind: str) -> Mapping[str, tuple[NodeTest, Outcome]]:
    """Those of all tests of a kind with NumPy."""
    return {test.name: (test, outcome(test)) for test in cases_of(kind)}


# many in one program, since a C compiler takes longer to begin than for the rest


def merged(runs: Sequence[Run]) -> tuple[mg.Graph, mg.State, dict[str, np.ndarray]]:
    """The graphs of these runs side by side as one, with its state and inputs; all names begin with r0., r1., ..."""
    inputs: list[Value] = []
    variables: list[Variable] = []
    nodes: list[Node] = []
    outputs: dict[str, Value] = {}
    state: dict[str, np.ndarray] = {}
    given: dict[str, np.ndarray] = {}
    for i, run in enumerate(runs):
        graph = bound(run)
        new: dict[Value, Value] = {}
        named = lambda value, i=i: Value(value.type, f"r{i}.{value.name}")
        for value in graph.inputs:
            inputs.append(new.setdefault(value, named(value)))
        for variable in graph.state:
            renamed = new.setdefault(variable.value, named(variable.value))
            variables.append(Variable(renamed, variable.initializer, variable.kind))
        for node in graph.nodes:
            new.update((value, named(value)) for value in node.outputs)
            moved = node.reading(tuple(new[v] for v in node.inputs), tuple(new[v] for v in node.outputs))
            nodes.append(replace(moved, name=f"r{i}.{node.name}"))
        outputs.update((f"r{i}.o{k}", new[value]) for k, value in enumerate(graph.outputs.values()))
        state.update((f"r{i}.{name}", run.state[name]) for name in run.state)
        given.update((f"r{i}.{name}", numbers) for name, numbers in run.given.items())
    whole = mg.Graph("tests", tuple(inputs), tuple(variables), tuple(nodes), outputs).check()
    return whole, mg.State(state), given


def bound(run: Run) -> mg.Graph:
    """The graph of a run with the sizes of its inputs for its symbols."""
    symbols: dict[str, int] = {}
    for value in run.graph.inputs:
        assert dim.solve(value.type.shape, run.given[value.name].shape, symbols)
    return run.graph.bind(**symbols) if symbols else run.graph


def failures(tests: Sequence[NodeTest], backend: str) -> dict[str, str]:
    """Those of these tests that fail on a backend, where they run in one program, and how."""
    return failed([run for test in tests for run in runs_of(test)], backend)


def failed(runs: Sequence[Run], backend: str) -> dict[str, str]:
    """The same of runs. Those that keep something for the next step are left out."""
    runs = [run for run in runs if not run.graph.updates]
    graph, state, given = merged(runs)
    results = mg.compile(graph, state, backend=backend)(**given)
    found = {}
    for i, run in enumerate(runs):
        try:
            run.check([results[f"r{i}.o{k}"] for k in range(len(run.graph.outputs))])
        except AssertionError as error:
            found[run.test.name] = str(error)
    return found


# the counts that the repository keeps

COUNTS = Path(__file__).parent / "onnx_counts.txt"
KINDS = ("node", "pytorch-converted", "pytorch-operator", "simple")
VERDICTS = ("passed", "failed", "skipped")


def counts() -> str:
    """How many tests of each operator passed, failed and were skipped; those with an operator written out by itself."""
    lines = [f"# onnx {onnx.__version__}: tests that passed, failed and were skipped, with NumPy.", HOW]
    for kind in KINDS:
        for expanded in (False, True):
            number: dict[str, Counter[str]] = defaultdict(Counter)
            for test, found in outcomes(kind).values():
                if test.expanded == expanded:
                    number[test.operator][found.verdict] += 1
            if number:
                total = Counter(v for each in number.values() for v in each.elements())
                lines += ["", f"{kind}{', operator written out' if expanded else ''}: {shown(total)}"]
                lines += [f"  {operator:40} {shown(number[operator])}" for operator in sorted(number)]
    return "\n".join(lines) + "\n"


HOW = "# Written by: python tests/onnx_node_tests.py"


def shown(number: Counter[str]) -> str:
    return " ".join(f"{number[verdict]:4}" for verdict in VERDICTS)


if __name__ == "__main__":
    COUNTS.write_text(counts())
