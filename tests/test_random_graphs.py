"""Random graphs of all ops: every pipeline leaves outputs, gradients and running statistics as they were.

Two graphs run in float64 and are compared within what rounding can do. How far that is, is measured: the graph given
runs again with noise on every value that an op computes, 2^-40 of the largest number of its tensor, which is 8000
roundings. What an output moves by then, times 8, is what it may differ by. Sums that cancel and divisors that are small
get their room so, and nothing else does: a pass that is wrong is off by a part of the numbers themselves.

Noise is a function of the number that it is put on, and none is put on zeros: ties, and what is exactly 0, stay. What
is made of constants may have been computed, and rounded, beforehand; counts of known sizes are such constants. One that
comes out with the bits of a constant of the graph given is that constant. What was made of several is another: their
noise is the rounding of their own dtypes, and if that is not enough, what they really are rounded by: 5e-4 to TF32.
Outputs that noise moves by more than a thousandth (a floor whose argument is whole, say) are not judged; there are few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

import minigraph as mg
from minigraph.core import trial
from minigraph.core.autodiff import vjp
from minigraph.core.builder import Builder, Tensor
from minigraph.core.dtypes import epsilon, is_float
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import OPS
from minigraph.core.pipeline import Pass, Pipeline, run
from minigraph.core.rounding import same_constants
from minigraph.passes.pipelines import BEFORE_AUTODIFF, INFERENCE, TRAINING, TURNS
from random_graphs import RandomGraph, random_graph

NOISE = 2.0**-40
MOVES = {
    "fill",
    "constant",
    "reshape",
    "transpose",
    "concat",
    "slice",
    "unslice",
    "broadcast_to",
    "relu",
    "neg",
    "where",
}
SMALL = 1e-3  # outputs below it are held to the tolerance of this size
LOOSE = 1e-3
Arrays = Mapping[str, np.ndarray]


# running


def results(graph: Graph) -> dict[str, Value]:
    """Outputs, and updates as "-> name of the state"."""
    return {**graph.outputs, **{f"-> {old.name}": new for old, new in graph.updates.items()}}


def bound(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph of these sizes; only what counts axes that were symbols is counted while it runs."""
    graph = trial.counted(graph)
    return graph.bind(**sizes) if graph.symbols else graph


def compute(wide: trial.Wide, arrays: Arrays, seen: trial.Seen = lambda value, array: array) -> dict[str, np.ndarray]:
    found = wide.run({name: trial.widened(array) for name, array in arrays.items()}, seen)
    return {name: found[value] for name, value in results(wide.graph).items()}


class Noise:
    """Puts noise on the values of a graph while its copy in float64 runs.

    everywhere: on those that are 0 as well; and on constants as much as they are rounded by, if that is more.
    """

    def __init__(self, graph: Graph, wide: trial.Wide, salt: int, everywhere: bool = False):
        self.salt, self.everywhere = salt, everywhere
        known, found = trial.constants(graph), trial.constants(wide.graph)
        self.constants = {
            value: max(4 * epsilon(old.type.dtype), everywhere * trial.difference(known[old], found[value]))
            for value, old in wide.given.items()
            if old in known and old.type.is_float
        }
        self.made = {
            value for node in wide.graph.nodes for value in node.outputs if value in found or node.op.name not in MOVES
        }

    def __call__(self, value: Value, array: np.ndarray) -> np.ndarray:
        if not is_float(array.dtype) or value not in self.made:
            return array
        size = NOISE
        if value in self.constants:
            size = 0.0 if powers_of_two(array) else self.constants[value]
        return trial.with_noise(array, size, self.salt, self.everywhere)


def powers_of_two(array: np.ndarray) -> bool:
    """Whether all numbers are such, or 0: what is computed with them is exact."""
    mantissa, _ = np.frexp(array[np.isfinite(array)])
    return bool(((mantissa == 0) | (np.abs(mantissa) == 0.5)).all())


class Judge:
    """Knows what a graph gives, and how far each result moves under noise."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int], arrays: Arrays):
        self.graph, self.sizes, self.arrays = graph, sizes, arrays
        self.bound = bound(graph, sizes)
        self.wide = trial.Wide(self.bound)
        self.right = compute(self.wide, arrays)
        self.moved = [self.noisy(salt) for salt in (1, 2)]

    def noisy(self, salt: int, everywhere: bool = False) -> dict[str, np.ndarray]:
        return compute(self.wide, self.arrays, Noise(self.bound, self.wide, salt, everywhere))

    def of(self, other: Graph) -> dict[str, np.ndarray]:
        """What another graph gives for the same numbers."""
        after = bound(other, self.sizes)
        same = {value: array for value, (_, array) in same_constants(self.bound, after).items()}
        return compute(trial.Wide(after, same), self.arrays)

    def against(self, found: Arrays) -> tuple[list[str], int]:
        """What differs, as sentences, and how many results were not judged. Gradients that are 0 may be missing."""
        differ, loose = [], 0
        gone = {name for name in self.right.keys() - found.keys() if name.startswith("d.")}
        for name in (*found, *gone):
            right = self.right[name]
            array = found.get(name, np.zeros_like(right))
            if name.startswith("d.") and not np.isfinite(self.right["loss"]):
                continue  # a loss that is no number, as that of the mean of nothing, has no gradients
            allowed = room(right, [moved[name] for moved in self.moved])
            off = distance(right, array)
            if off > allowed:  # is it a zero on a knife's edge, or a constant of few digits?
                allowed = room(right, [self.noisy(salt, everywhere=True)[name] for salt in (3, 4)])
            loose += allowed == np.inf
            if off > allowed:
                differ.append(f"{name} is off by {off:.1e}, of {largest(right):.1e}; {allowed:.1e} is allowed")
        differ += [f"{name} is missing" for name in self.right.keys() - found.keys() - gone]
        return differ, loose


def largest(array: np.ndarray) -> float:
    """The largest finite number."""
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def distance(right: np.ndarray, array: np.ndarray) -> float:
    """The largest difference; inf where one is finite and the other is not, and for whole numbers that differ."""
    if right.shape != array.shape or right.dtype != array.dtype:
        return np.inf
    if not is_float(right.dtype):
        return 0.0 if np.array_equal(right, array) else np.inf
    finite = np.isfinite(right)
    if not np.array_equal(right[~finite], array[~finite], equal_nan=True) or not np.isfinite(array[finite]).all():
        return np.inf
    return float(np.abs(right[finite] - array[finite]).max(initial=0.0))


def room(right: np.ndarray, moved: list[np.ndarray]) -> float:
    """How far a result may be off; inf where noise moves it too far to judge."""
    allowed = 8 * max(distance(right, array) for array in moved) + 1e-13 * max(1.0, largest(right))
    return allowed if allowed <= LOOSE * max(SMALL, largest(right)) else np.inf


# what is held


@dataclass
class Tally:
    judged: int = 0
    loose: int = 0
    fired: Counter[str] = field(default_factory=Counter)


def with_gradients(graph: Graph) -> Graph:
    """The graph, and what the loss changes by with each parameter, as outputs "d.name"."""
    net = Builder.extending(graph)
    loss = net.tensor("loss")
    found = vjp([loss], [net.constant(1.0, loss.dtype)], net.parameters)
    gradients = {f"d.{p.name}": g for p, g in zip(net.parameters, found) if g is not None}
    return net.build({**{name: net.tensor(name) for name in graph.outputs}, **gradients})


def optimized(pipeline: Pipeline, graph: Graph, state: Arrays | None, tally: Tally) -> Graph:
    """The graph after the pipeline, which leaves the graph given and the state alone."""
    text, before = str(graph), {name: array.tobytes() for name, array in (state or {}).items()}
    result = run(pipeline, graph, state, turns=TURNS)
    assert str(graph) == text, "the graph given has changed"
    assert before == {name: array.tobytes() for name, array in (state or {}).items()}, "the state has changed"
    tally.fired.update(fired.rule for step in result.steps for fired in step.fired)
    names = [value.name for node in result.graph.nodes for value in node.outputs]
    assert len(set(names)) == len(names), "two values have one name"
    return result.graph.check()


def settled(pipeline: Pipeline, after: Graph, state: Arrays | None) -> None:
    """An optimized graph stays as it is, and can be written down."""
    assert str(mg.parse(str(after))) == str(after), "the text does not read back"
    again = run(pipeline, after, state)
    fired = [f"{fired.rule} at {fired.at}" for step in again.steps for fired in step.fired]
    assert again.graph is after, f"a second time {fired or 'a pass'} changes it"


def same(judge: Judge, after: Graph, tally: Tally) -> None:
    judged(judge, judge.of(after), tally)


def judged(judge: Judge, found: Arrays, tally: Tally) -> None:
    differ, loose = judge.against(found)
    tally.judged += len(found) - loose
    tally.loose += loose
    assert not differ, "; ".join(differ)


def training(given: RandomGraph, tally: Tally) -> None:
    """Before autodiff, then gradients, then the passes for training."""
    judge = Judge(with_gradients(given.graph), given.sizes, given.arrays)
    model = optimized(BEFORE_AUTODIFF, given.graph, None, tally)
    after = optimized(TRAINING, with_gradients(replace(model, state=given.graph.state)), given.state, tally)
    same(judge, after, tally)
    if given.seed % 3 == 0:
        assert run(BEFORE_AUTODIFF, model).graph is model, "before autodiff, a second time changes it"
        settled(TRAINING, after, given.state)


def inference(given: RandomGraph, tally: Tally) -> None:
    """Frozen, with the numbers of the state, or without them."""
    frozen = mg.inference(given.graph)
    judge = Judge(frozen, given.sizes, given.arrays)
    for state in (given.state, None)[: 2 if given.seed % 3 == 1 else 1]:
        after = optimized(INFERENCE, frozen, state, tally)
        same(judge, after, tally)
        if given.seed % 3 == 0:
            settled(INFERENCE, after, state)
    if given.seed % 10 == 0 and all(v.type.dtype == "float64" for v in frozen.values.values() if v.type.is_float):
        inputs = {value.name: given.inputs[value.name] for value in frozen.inputs}
        judged(judge, mg.compile(frozen, mg.State(given.state))(**inputs), tally)


def without_each(pipeline: Sequence[Pass], first: int, many: int, tally: Tally) -> None:
    """With each pass and each rule left out in turn, so many random graphs are still what they were."""
    names = {p.name for p in pipeline} | {rule.name for p in pipeline for rule in p.rules}
    for i, name in enumerate(sorted(names)):
        for seed in range(first + i * many, first + (i + 1) * many):
            given = random_graph(seed)
            graph = mg.inference(given.graph) if pipeline is INFERENCE else with_gradients(given.graph)
            try:
                if pipeline is BEFORE_AUTODIFF:
                    model = run(pipeline, given.graph, without=[name]).graph
                    after = with_gradients(replace(model, state=given.graph.state))
                else:
                    after = run(pipeline, graph, given.state, [name], turns=TURNS).graph
                same(Judge(graph, given.sizes, given.arrays), after, tally)
            except Exception as error:
                raise AssertionError(f"random_graph({seed}), without {name!r}: {error}\n{given.graph}") from error


def crosswise(given: RandomGraph, tally: Tally) -> None:
    """Each pipeline on a graph that is not meant for it."""
    same(Judge(given.graph, given.sizes, given.arrays), optimized(INFERENCE, given.graph, given.state, tally), tally)
    frozen = mg.inference(given.graph)
    same(Judge(frozen, given.sizes, given.arrays), optimized(TRAINING, frozen, given.state, tally), tally)


def holds(seed: int, tally: Tally) -> None:
    """Everything, of one graph."""
    given = random_graph(seed)
    for what in (training, inference, *([crosswise] if seed % 3 == 2 else [])):
        try:
            what(given, tally)
        except Exception as error:
            raise AssertionError(f"random_graph({seed}), {what.__name__}: {error}\n{given.graph}") from error


def verified(seed: int) -> None:
    """Exact proofs, where there are any, agree."""
    given = random_graph(seed)
    frozen = mg.inference(given.graph)
    pairs = [
        (frozen, run(INFERENCE, frozen, turns=TURNS).graph),
        (given.graph, run(BEFORE_AUTODIFF, given.graph).graph),
    ]
    for before, after in pairs:
        report = mg.verify(before, after, sizes={name: given.sizes[name] for name in before.symbols})
        assert report, f"random_graph({seed}): {report}\n{given.graph}"


def spoiled(graph: Graph, node: Node) -> Graph:
    """The graph after a pass that is wrong: what one node computes is off by a thousandth."""
    builder = Builder.extending(graph)
    builder.nodes = []
    now: dict[Value, Value] = {}
    for old in graph.nodes:
        outputs = tuple(Value(value.type, value.name) for value in old.outputs)
        now.update(zip(old.outputs, outputs))
        builder.append(replace(old, inputs=tuple(now.get(value, value) for value in old.inputs), outputs=outputs))
        if old is node:
            now[old.outputs[0]] = (Tensor(builder, outputs[0]) * 1.001 + 0.001).value
    ends = {name: now.get(value, value) for name, value in graph.outputs.items()}
    moved = {old: now.get(value, value) for old, value in graph.updates.items()}
    return replace(graph, nodes=tuple(builder.nodes), outputs=ends, updates=moved)


CI, CHUNK = 256, 32
NIGHTLY, LONG_CHUNK = 10000, 500


def hold(seeds: Sequence[int]) -> None:
    tally = Tally()
    for seed in seeds:
        holds(seed, tally)
    assert tally.loose <= 0.1 * tally.judged


@pytest.mark.parametrize("start", range(0, CI, CHUNK))
def test_pipelines_leave_random_graphs_as_they_were(start):
    hold(range(start, start + CHUNK))


@pytest.mark.nightly
@pytest.mark.parametrize("start", range(CI, CI + NIGHTLY, LONG_CHUNK))
def test_pipelines_leave_many_random_graphs_as_they_were(start):
    hold(range(start, start + LONG_CHUNK))


PIPELINES = pytest.mark.parametrize(
    "pipeline", [BEFORE_AUTODIFF, TRAINING, INFERENCE], ids=["before autodiff", "training", "inference"]
)


@PIPELINES
def test_each_pass_and_rule_can_be_left_out(pipeline):
    without_each(pipeline, 20_000, 2, Tally())


@PIPELINES
@pytest.mark.nightly
def test_each_pass_and_rule_can_be_left_out_of_many_graphs(pipeline):
    without_each(pipeline, 30_000, 40, Tally())


@pytest.mark.parametrize("seed", range(0, CI, 16))
def test_random_graphs_are_proved(seed):
    verified(seed)


@pytest.mark.nightly
@pytest.mark.parametrize("start", range(CI, CI + 400, 50))
def test_many_random_graphs_are_proved(start):
    for seed in range(start, start + 50):
        verified(seed)


def test_every_op_is_in_a_random_graph():
    found = {node.op.name for seed in range(CI) for node in random_graph(seed).graph.nodes}
    assert not OPS.keys() - found


@pytest.mark.nightly
def test_every_rule_fires_in_a_random_graph():
    tally = Tally()
    for seed in range(3000):
        given = random_graph(seed)
        optimized(BEFORE_AUTODIFF, given.graph, None, tally)
        optimized(TRAINING, with_gradients(given.graph), given.state, tally)
        optimized(INFERENCE, mg.inference(given.graph), given.state, tally)
    rules = {rule.name for p in (*BEFORE_AUTODIFF, *TRAINING, *INFERENCE) for rule in p.rules}
    assert not rules - tally.fired.keys()


def test_a_wrong_pass_is_found_out():
    """A thousandth too much, in a node of each graph, shows: but where a factor is 0, or a maximum is another."""
    seen = tried = 0
    for seed in range(60):
        given = random_graph(seed)
        graph = mg.inference(given.graph)
        judge = Judge(graph, given.sizes, given.arrays)
        nodes = [n for n in graph.nodes if n.outputs[0].type.is_float and graph.readers.get(n.outputs[0])]
        node = nodes[seed % len(nodes)]
        differ, _ = judge.against(judge.of(spoiled(graph, node)))
        tried += 1
        seen += bool(differ)
    assert seen >= 0.7 * tried, f"{seen} of {tried}"


CONSTANTS = {
    "rounded to TF32": lambda net, x: OPS["tf32"](net.constant(np.full((2, 3), 0.1), "float32")),
    "a known count": lambda net, x: mg.sqrt(OPS["count"](x, axes=(1,), dtype="float32") + 0.5),
    "float32 in float64": lambda net, x: mg.cast(mg.sigmoid(net.constant(0.1, "float32")), "float64") * 3.0,
    "narrow": lambda net, x: mg.exp(net.constant(0.1, "bfloat16")),
}


@pytest.mark.parametrize("made", CONSTANTS.values(), ids=CONSTANTS)
def test_what_is_folded_is_what_the_graph_computes(made):
    """To the bit: what a float32 of a constant is, or a TF32, needs no room."""
    net = Builder("constants")
    x = net.input("x", ("N", 6), "float64")
    graph = net.build({"y": mg.sin(x) * mg.sum(mg.cast(made(net, x), "float64")), "constant": made(net, x)})
    arrays = {"x": np.random.default_rng(0).normal(size=(3, 6))}
    judge = Judge(graph, {"N": 3}, arrays)
    found = judge.of(run(INFERENCE, graph, turns=TURNS).graph)
    assert all(np.array_equal(found[name], judge.right[name]) for name in ("y", "constant"))


def test_a_random_graph_is_known_by_its_number():
    one, other = random_graph(17), random_graph(17)
    assert str(one.graph) == str(other.graph)
    assert one.arrays.keys() == other.arrays.keys()
    assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)
    assert str(random_graph(18).graph) != str(one.graph)
