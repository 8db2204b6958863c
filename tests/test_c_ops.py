"""Every op of the registry, compiled, against its reference.

Many applications are one program, as a compiler is started for each; so neighbours are fused with one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from c_programs import Joined, Joining, Room, by_references, differences, in_c, typed
from test_onnx_ops import CASES

import minigraph as mg
from minigraph.backends import source
from minigraph.backends.c.executable import Executable
from minigraph.backends.lower import lower, runs
from minigraph.backends.plan import fits
from minigraph.core import proof
from minigraph.core.dtypes import FLOATS, INTEGERS, is_float
from minigraph.core.ir import Graph
from minigraph.core.op import OPS, Example, Op

CHUNK = 170  # applications in one program
BATCH = 5


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Everything is compiled anew in each run of the tests."""
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path_factory.getbasetemp() / "programs"))


EXAMPLES = [(f"{op.name}.{i}", op, example) for op in OPS.values() for i, example in enumerate(op.examples)]
CHUNKS = [EXAMPLES[i : i + CHUNK] for i in range(0, len(EXAMPLES), CHUNK)]


def hold(graph: Graph, arrays: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> None:
    wrong, loose = differences(by_references(graph, arrays), found, Room(graph, arrays))
    assert not wrong, "\n".join(wrong)
    assert loose <= 0.01 * len(found)


def hold_all(joined: Joined) -> None:
    hold(joined.graph, joined.arrays, in_c(joined.graph, joined.arrays))


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_every_op_has_a_way_to_c(op):
    """A kernel, an expression, a view; or it is made of ops that have."""
    for example in op.examples:
        for dtype in FLOATS:
            graph, _ = proof.graph_of(op, example, dtype)
            assert all(runs(node.op) for node in lower(graph).nodes)


@pytest.mark.compiler
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("chunk", CHUNKS, ids=[chunk[0][0] for chunk in CHUNKS])
def test_examples(chunk, dtype):
    joining = Joining()
    for label, op, example in chunk:
        joining.example(label, op, example, dtype)
    assert len(joining.refused) < 0.2 * len(chunk), joining.refused
    hold_all(joining.done())


@pytest.mark.compiler
@pytest.mark.parametrize("chunk", CHUNKS, ids=[chunk[0][0] for chunk in CHUNKS])
def test_gradients_of_examples(chunk):
    hold_all(joined_gradients(chunk))


def joined_gradients(chunk) -> Joined:
    """The gradients of some examples as one graph, in float32."""
    net = mg.Builder("gradients")
    outputs, arrays, rng = {}, {}, np.random.default_rng(0)
    for label, op, example in chunk:
        graph, samples = proof.graph_of(op, example, "float32")
        try:
            backward, seeds = proof.gradient_graph(graph)
        except mg.GraphError:
            continue
        given = {**samples, **seeds}
        own = {
            value: net.input(f"{label}.{value.name}", value.type.shape, value.type.dtype) for value in backward.inputs
        }
        arrays.update({own[v].name: proof.concrete(given[v.name], v.type.dtype, rng) for v in backward.inputs})
        for node in backward.nodes:
            made = net.emit(node.op, [own[v] for v in node.inputs], node.attrs)
            own.update(zip(node.outputs, made))
        outputs.update({f"{label}.{name}": own[value] for name, value in backward.outputs.items()})
    joined = net.build(outputs)
    return Joined(joined, typed(joined, arrays))


@pytest.mark.compiler
@pytest.mark.parametrize("chunk", CHUNKS, ids=[chunk[0][0] for chunk in CHUNKS])
def test_on_several_threads(chunk, monkeypatch):
    """Two numbers are enough for several threads; and results do not depend on how many there are."""
    monkeypatch.setattr(source, "SMALL", 2)
    joining = Joining(seed=1)
    for label, op, example in chunk:
        joining.example(label, op, example, "float32")
    joined = joining.done()
    executable = Executable(lower(joined.graph))
    monkeypatch.setenv("MINIGRAPH_THREADS", "1")
    right, _ = executable.run({}, joined.arrays)
    for threads in (2, 3):
        monkeypatch.setenv("MINIGRAPH_THREADS", str(threads))
        found, _ = executable.run({}, joined.arrays)
        assert [name for name in right if found[name].tobytes() != right[name].tobytes()] == [], threads


ALONE = [pytest.param(*e, marks=() if i % 12 == 0 else pytest.mark.nightly, id=e[0]) for i, e in enumerate(EXAMPLES)]


@pytest.mark.compiler
@pytest.mark.parametrize(("label", "op", "example"), ALONE)
def test_one_example_alone(label, op, example):
    joining = Joining()
    joining.example(label, op, example, "float32")
    if not joining.refused:
        hold_all(joining.done())


@pytest.mark.compiler
@pytest.mark.parametrize("start", range(0, len(CASES), CHUNK))
def test_cases_of_other_implementations(start):
    """With NaN, infinities and signed zeros among them."""
    joining = Joining()
    for i, case in enumerate(CASES[start : start + CHUNK]):
        dtype = case.dtypes[i % len(case.dtypes)]
        joining.add(f"{i}.{case.op}", OPS[case.op], case.draw(dtype), case.attrs)
    hold_all(joining.done())


@pytest.mark.compiler
def test_an_output_of_several_that_nobody_reads():
    net = mg.Builder("net")
    x = net.input("x", (3, 5), "float64")
    values, _ = mg.topk(x, 2)
    _, indices = mg.topk(mg.neg(x), 2)
    graph = net.build(values=values + 1.0, indices=indices)
    arrays = {"x": np.random.default_rng(0).normal(size=(3, 5))}
    hold(graph, arrays, in_c(graph, arrays))


# random shapes, attributes and dtypes


class Draw:
    """Random applications of ops whose shapes and dtypes are free."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.joining = Joining(seed)

    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def shape(self, least: int = 0) -> tuple[int, ...]:
        """Mostly small; sometimes long enough for several rounds of a sum, or empty."""
        rank = self.number(least, 4)
        sizes = [self.number(1, 5) for _ in range(rank)]
        if sizes and self.rng.random() < 0.15:
            sizes[self.number(0, rank - 1)] = self.number(60, 300)
        if sizes and self.rng.random() < 0.05:
            sizes[self.number(0, rank - 1)] = 0
        return tuple(sizes)

    def array(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        if dtype in FLOATS:
            return self.rng.uniform(0.1, 0.9, shape).astype(dtype)
        return (
            self.rng.integers(0, 2, shape).astype(bool)
            if dtype == "bool"
            else self.rng.integers(1, 6, shape).astype(dtype)
        )

    def pointwise(self, op: Op) -> tuple[list[np.ndarray], dict[str, Any]]:
        """Operands that broadcast: some have fewer axes, some size 1."""
        shape, dtype = self.shape(), self.dtype()
        arrays = []
        for i in range(op.tensors):
            own = [1 if self.rng.random() < 0.3 else n for n in shape] if i else list(shape)
            kept = own[self.number(0, len(own)) if self.rng.random() < 0.3 and i else 0 :]
            arrays.append(self.array(tuple(kept), "bool" if op.name == "where" and i == 0 else dtype))
        return arrays, {}

    def dtype(self) -> str:
        return str(self.rng.choice([*FLOATS, *FLOATS, *INTEGERS, "bool"]))

    def reduction(self, op: Op) -> tuple[list[np.ndarray], dict[str, Any]]:
        shape = self.shape()
        axes = tuple(i for i in range(len(shape)) if self.rng.random() < 0.5)
        return [self.array(shape, self.dtype())], {"axes": axes, "keepdims": bool(self.rng.random() < 0.5)}

    def view(self, op: Op) -> tuple[list[np.ndarray], dict[str, Any]]:
        shape = self.shape(1)
        attrs: dict[str, Any]
        if op.name == "transpose":
            attrs = {"axes": tuple(int(i) for i in self.rng.permutation(len(shape)))}
        elif op.name == "broadcast_to":
            attrs = {"shape": (self.number(1, 3), *shape)}
            shape = tuple(1 if self.rng.random() < 0.3 else n for n in shape)
        else:
            step = [int(self.rng.choice([1, 2, 3, -1, -2])) for _ in shape]
            attrs = {"start": tuple(None if self.rng.random() < 0.4 else self.number(-3, 3) for _ in shape)}
            attrs |= {
                "stop": tuple(None if self.rng.random() < 0.4 else self.number(-3, 6) for _ in shape),
                "step": step,
            }
        return [self.array(shape, self.dtype())], attrs

    def draw(self, label: str, op: Op) -> None:
        kind = self.view if op.view else self.reduction if "axes" in op.defaults else self.pointwise
        self.joining.add(label, op, *kind(op))


FREE = [
    op for op in OPS.values() if op.tensors > 0 and (op.expression or op.name in ("transpose", "slice", "broadcast_to"))
]
REDUCTIONS = ("sum", "max", "min", "mean", "moments", "var", "logsumexp", "any", "all")
FREE += [OPS[name] for name in REDUCTIONS if name in OPS]
SEEDS = [pytest.param(i, marks=() if i < 2 else pytest.mark.nightly) for i in range(30)]


@pytest.mark.compiler
@pytest.mark.parametrize("seed", SEEDS)
def test_random_applications(seed):
    drawn = Draw(seed)
    for i in range(3):
        for op in FREE:
            drawn.draw(f"{op.name}.{i}", op)
    assert len(drawn.joining.outputs) > len(FREE)
    hold_all(drawn.joining.done())


# any batch


SIZES = (BATCH, 2, 1, 0)


def least_batch(op: Op, example: Example) -> int | None:
    """The least of SIZES that fits an example with N in place of its first size; None where the largest does not."""
    alone = Joining()
    alone.example("", op, example, "float64", BATCH)
    found = None
    for n in () if alone.refused else SIZES:
        try:
            graph = lower(alone.done().graph)
            graph.bind(N=n)
        except mg.GraphError:
            break
        if not fits(graph, {"N": n}):
            break
        found = n
    return found


def batched(dtype: str, least: int) -> Joined:
    """All examples that take a batch of `least`, and of no less."""
    joining = Joining()
    for label, op, example in EXAMPLES:
        sizes = {sample.shape[0] for sample in example.inputs if sample.shape}
        if len(sizes) == 1 and least_batch(op, example) == least:
            joining.example(label, op, example, dtype, BATCH)
    return joining.done()


@pytest.mark.compiler
@pytest.mark.parametrize(  # to a plan bfloat16 is float16 by another name
    "dtype", [pytest.param(dtype, marks=pytest.mark.nightly) if dtype == "bfloat16" else dtype for dtype in FLOATS]
)
@pytest.mark.parametrize(("least", "many"), [(0, 250), (1, 1), (2, 1)])  # there is no largest of nothing
def test_any_batch(dtype, least, many):
    """Planned for the largest batch: run at it, at smaller ones, at one and at none."""
    joined = batched(dtype, least)
    assert len(joined.graph.outputs) >= many
    executable = Executable(lower(joined.graph))
    first = {v.name for v in joined.graph.inputs if "N" in map(str, v.type.shape)}
    for n in (*SIZES, BATCH):
        if n >= least:
            arrays = {name: array[:n] if name in first else array for name, array in joined.arrays.items()}
            hold(joined.graph.bind(N=n), arrays, executable.run({"N": n}, arrays)[0])


@pytest.mark.compiler
def test_what_counts_back_from_the_end_of_a_batch():
    """x[-3:] begins at the beginning where there are fewer."""
    net = mg.Builder("net")
    x = net.input("x", ("N", 3), "float64")
    graph = net.build(last=x[-3:] * 2.0, most=mg.exp(x[:-1]), turned=mg.flip(x, 0) + 1.0)
    executable = Executable(lower(graph))
    for n in (7, 4, 2, 1, 3):
        arrays = {"x": np.random.default_rng(n).normal(size=(n, 3))}
        hold(graph.bind(N=n), arrays, executable.run({"N": n}, arrays)[0])


@pytest.mark.compiler
def test_what_is_larger_for_a_smaller_batch():
    """The plan for a batch has no room for what a smaller one needs."""
    net = mg.Builder("net")
    h, p = net.input("h", ("N", 4), "float64"), net.input("p", (4000, 4), "float64")
    rest = mg.exp(p[h.shape[0] :])
    graph = net.build(rest=mg.exp(rest - mg.mean(rest, axes=0)), twice=h * 2.0)
    executable = Executable(lower(graph))
    rng = np.random.default_rng(0)
    for n in (3990, 20, 2000):
        arrays = {"h": rng.normal(size=(n, 4)), "p": rng.normal(size=(4000, 4))}
        assert not executable.program({"N": n}).plan.sizes
        hold(graph.bind(N=n), arrays, executable.run({"N": n}, arrays)[0])


# special numbers

EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, np.nan, np.inf, -np.inf, 1e-3, -30.0, 60.0]


def edges(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    limits = ml_dtypes.finfo(dtype)
    tiny = [float(limits.smallest_subnormal), float(limits.tiny) / 4, -float(limits.tiny)]
    special = rng.choice(np.array([*EDGES, *tiny]), shape)
    return np.where(rng.random(shape) < 0.2, special, rng.uniform(-2, 2, shape)).astype(dtype)


def same_edges(right: np.ndarray, found: np.ndarray) -> bool:
    """NaN and infinities are where they were."""
    if not is_float(right.dtype):
        return np.array_equal(right, found)
    finite = np.isfinite(right)
    return np.array_equal(finite, np.isfinite(found)) and np.array_equal(right[~finite], found[~finite], equal_nan=True)


@pytest.mark.compiler
@pytest.mark.parametrize("dtype", FLOATS)
def test_special_numbers(dtype):
    """NaN, infinities, denormals and zeros, where all inputs of an op are full of them."""
    joining, rng = Joining(), np.random.default_rng(0)
    for label, op, example in EXAMPLES:
        arrays = []
        for sample in example.inputs:
            kind = sample.in_dtype(dtype)
            arrays.append(edges(kind, sample.shape, rng) if kind in FLOATS else proof.concrete(sample, kind, rng))
        attrs = {k: dtype if (k, v) == ("dtype", None) else v for k, v in example.attrs.items()}
        joining.add(label, op, arrays, attrs)
    joined = joining.done()
    right, found = by_references(joined.graph, joined.arrays), in_c(joined.graph, joined.arrays)
    wrong = [name for name in right if not same_edges(right[name], found[name])]
    assert not wrong, ", ".join(wrong)


@pytest.mark.compiler
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("shape", "axis"), [((6, 3), 1), ((4, 3, 5, 5), 1), ((4, 5, 5, 3), -1), ((8, 64, 64, 3), -1)])
def test_one_special_number_of_a_batch(shape, axis, number):
    """Statistics, normalized numbers and gradients of its channel are what the reference has; others are finite."""
    net, channels = mg.Builder("norms"), shape[axis]
    x, g = net.input("x", shape), net.input("g", shape)
    gamma, beta, mean, var = (net.input(name, (channels,)) for name in ("gamma", "beta", "mean", "var"))
    y, average, variance = mg.batch_norm(x, gamma, beta, axis=axis)
    dx, dgamma, dbeta = mg.gradient(mg.sum(y * g), [x, gamma, beta])
    inference = mg.batch_norm_inference(x, gamma, beta, mean, var, axis=axis)
    outputs = {"y": y, "average": average, "variance": variance, "dx": dx, "dgamma": dgamma, "dbeta": dbeta}
    graph = net.build({**outputs, "inference": inference})
    rng = np.random.default_rng(0)
    sizes = {"x": shape, "g": shape}
    arrays = {v.name: rng.uniform(0.5, 2, sizes.get(v.name, channels)).astype("float32") for v in graph.inputs}
    arrays["x"][(1,) * len(shape)] = number
    right, found = by_references(graph, arrays), in_c(graph, arrays)
    assert [name for name in right if not same_edges(right[name], found[name])] == []
    np.testing.assert_array_equal(found["average"][[0, 2]] > 0, True)
    np.testing.assert_array_equal(found["average"][1], np.float32(number))
    assert np.isnan(found["variance"][1])
