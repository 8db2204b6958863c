"""Mixed precision: which nodes are float16 or bfloat16, how far that may be off, and the loss scale.

How far such a network may be off is measured: it runs in float64, and each value that would be narrow is wrong by
up to 2^-11 of itself, at random, as rounding makes it.
"""

from __future__ import annotations

import re
import runpy
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_programs import Room, by_references, differences, distance, in_c, largest, outcome, typed
from test_example_networks import BATCH, batch, tiny
from test_random_graphs import Judge, Tally, optimized, same, with_gradients

import minigraph as mg
from minigraph import GraphError, layers
from minigraph.backends.cupy.device import Device
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.lower import lower
from minigraph.core import trial
from minigraph.core.dtypes import NARROW, epsilon, is_float
from minigraph.core.ir import Graph, Value
from minigraph.core.op import OPS, Half, Op
from minigraph.driver.given import complete
from minigraph.driver.program import optimize
from minigraph.nn import loss_scale
from minigraph.passes import mixed_precision
from minigraph.passes.mixed_precision import in_narrow
from random_graphs import random_graph

Arrays = Mapping[str, np.ndarray]
NETWORKS = ["mlp", "lenet with batch norm", "resnet20"]


@cache
def state_of(name: str) -> mg.State:
    """A state with running statistics of its own."""
    state = tiny(name).init(seed=1)
    mg.compile(tiny(name), state)(**batch(tiny(name)))
    return state


def in_float16(model: Graph) -> Graph:
    return in_narrow(model, "float16")


def stepping(
    model: Graph, optimizer: mg.optim.Optimizer | None = None, precision: str = "float16", **options: Any
) -> Graph:
    optimizer = mg.optim.SGD(0.1) if optimizer is None else optimizer
    return mg.training_step(model, "loss", optimizer, precision=precision, **options)


def dtypes(graph: Graph) -> dict[str, set[str]]:
    """Of the results of each op that makes floats."""
    found: dict[str, set[str]] = defaultdict(set)
    for node in graph.nodes:
        found[node.op.name] |= {value.type.dtype for value in node.outputs if value.type.is_float}
    return {name: kinds for name, kinds in found.items() if kinds}


# which are float16


def test_each_node_of_lenet() -> None:
    """From the image to the logits, in order. Casts aside."""
    made = {
        node.origin.sources[0] if node.origin.sources else node.name: [value.type.dtype for value in node.outputs]
        for node in in_float16(tiny("lenet with batch norm")).nodes
        if node.op.name != "cast"
    }
    half, single = ["float16"], ["float32"]
    norm, average = ["float16", "float32", "float32"], {"count": single, "fill": single}
    averages = {**average, "running_average": single, "running_average2": single}
    assert made == {
        "conv1.conv": half,
        "bn1.batch_norm": norm,
        **{f"bn1.{name}": kind for name, kind in averages.items()},
        "relu": half,
        "max_pool": half,
        "conv2.conv": half,
        "bn2.batch_norm": norm,
        **{f"bn2.{name}": kind for name, kind in averages.items()},
        "relu2": half,
        "max_pool2": half,
        "reshape": half,
        "linear1.transpose": half,
        "linear1.matmul": half,
        "linear1.add": half,
        "relu3": half,
        "classifier.transpose": half,
        "classifier.matmul": half,
        "classifier.add": single,
        "cross_entropy": single,
        "accuracy.argmax": ["int64"],
        "accuracy.equal": ["bool"],
        "accuracy.mean": single,
    }


PRODUCTS = {"conv", "conv_input_gradient", "conv_weight_gradient", "matmul"}
SINGLE = {"cross_entropy", "running_average", "mean", "softmax", "exp", "log", "sqrt", "div"}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_products_are_half_and_what_is_never_half_is_single(name: str) -> None:
    found = dtypes(stepping(tiny(name), mg.optim.Adam(0.1), clip_norm=1.0))
    assert all(found[op] == {"float16"} for op in PRODUCTS & found.keys())
    assert all(found[op] <= {"float32", "float64"} for op in SINGLE & found.keys())


def test_the_trunk_of_a_residual_network_is_half_until_its_last_block() -> None:
    """The last block is read by a mean alone."""
    graph = in_float16(tiny("resnet20"))
    ops = Counter(node.op.name for node in graph.nodes if node.outputs[0].type.dtype == "float16")
    blocks = 9
    assert ops["conv"] == 2 * blocks + 1
    assert ops["batch_norm"] == 2 * blocks  # and one more is not
    assert ops["relu"] == 2 * blocks
    assert ops["add"] == blocks - 1
    assert ops["pad"] == 2


def test_it_casts_each_way_once() -> None:
    """No value goes to float32 between two nodes in float16, and weights are read once."""
    graph = optimize(in_float16(tiny("lenet with batch norm"))).graph
    casts = [node for node in graph.nodes if node.op.name == "cast" and node.inputs[0].type.is_float]
    down = [node for node in casts if node.outputs[0].type.dtype == "float16"]
    parameters = {variable.value for variable in graph.state}
    assert [node.inputs[0] for node in down if node.inputs[0] not in parameters] == [graph.inputs[0]]
    assert len(down) == 1 + 4 + 1  # the image, four weights, one bias between products
    assert [node.inputs[0].type.shape for node in casts if node not in down] == [graph.outputs["logits"].type.shape]


@pytest.mark.parametrize(
    ("name", "wide"),
    [("lenet with batch norm", ()), ("resnet20", ("stage3.block2.relu2", "stage3.block3.", "mean.grad."))],
)
def test_images_inside_of_a_training_step_are_half(name: str, wide: tuple[str, ...]) -> None:
    """But those of a last block, that go into a mean."""
    graph = optimize(stepping(tiny(name))).graph
    made = [value for node in graph.nodes for value in node.outputs if value.type.dtype == "float32"]
    images = [value.name for value in made if value.type.rank == 4 and not isinstance(value.type.shape[0], int)]
    assert not [image for image in images if not image.startswith(wide)]
    assert all(any(image.startswith(begins) for image in images) for begins in wide)


def test_a_state_is_what_it_was_beside_the_scale() -> None:
    """Parameters, slots and running statistics are float32, and begin as they did."""
    model = tiny("lenet with batch norm")
    with_scale, plain = stepping(model, mg.optim.Adam(0.1)), mg.training_step(model, "loss", mg.optim.Adam(0.1))
    own = {"optimizer.loss_scale": "float32[]", "optimizer.good_steps": "int64[]"}
    types = lambda graph: {v.name: str(v.value.type) for v in graph.state}
    assert types(with_scale) == {**types(plain), **own}
    assert {old.name for old in with_scale.updates} == {old.name for old in plain.updates} | own.keys()
    ends = lambda graph: [str(v) for v in (*graph.inputs, *(v.type for v in graph.outputs.values()))]
    assert ends(with_scale) == ends(plain)


def test_gradients_reach_clipping_and_the_optimizer_as_float32() -> None:
    """Nothing in the update is float16."""
    step = stepping(tiny("lenet with batch norm"), mg.optim.Adam(0.1), clip_norm=1.0, accumulate=2)
    update = [node for node in step.nodes if node.origin.role == "update"]
    assert update
    assert not [value for node in update for value in (*node.inputs, *node.outputs) if value.type.dtype == "float16"]


def gated(net: mg.Builder) -> mg.Tensor:
    """An image whose channels are scaled by a sigmoid of their means."""
    h = layers.conv2d(net.input("x", ("N", 3, 4, 4)), 4, 3)
    gate = mg.sigmoid(layers.linear(mg.mean(h, (2, 3)), 4))
    return layers.conv2d(h * mg.reshape(gate, (-1, 4, 1, 1)), 2, 1)


def attended(net: mg.Builder) -> mg.Tensor:
    x = net.input("x", ("N", 5, 4))
    scores = layers.linear(x, 4) @ mg.transpose(layers.linear(x, 4), (0, 2, 1))
    return layers.linear(mg.softmax(scores * 0.5, -1) @ x, 2)


def looked_up(net: mg.Builder) -> mg.Tensor:
    h = layers.embedding(net.input("x", ("N", 3), "int64"), 7, 4)
    return layers.linear(mg.layer_norm(layers.linear(h, 4), *(number(net, n) for n in ("gamma", "beta"))), 2)


def number(net: mg.Builder, name: str) -> mg.Tensor:
    return net.parameter(name, (4,), mg.init.ones)


@pytest.mark.parametrize(
    ("build", "half", "single"),
    [
        (gated, {"conv", "matmul", "sigmoid", "mul"}, {"mean"}),
        (attended, {"matmul"}, {"softmax", "mul"}),
        (looked_up, {"matmul", "layer_norm"}, {"gather"}),
    ],
)
def test_other_forms(build: Callable[[mg.Builder], mg.Tensor], half: set[str], single: set[str]) -> None:
    net = mg.Builder("net")
    found = dtypes(in_float16(net.build(y=build(net))))
    assert {op for op, kinds in found.items() if kinds == {"float16"}} >= half
    assert {op for op, kinds in found.items() if kinds == {"float32"}} >= single


def test_what_is_float64_or_float16_by_its_author_stays() -> None:
    net = mg.Builder("net")
    x, y = net.input("x", ("N", 3)), net.input("y", ("N", 3), "float64")
    wide = layers.linear(y, 3)
    graph = in_float16(net.build(a=layers.linear(x, 2), b=wide, c=mg.cast(wide, "float16")))
    assert [node.outputs[0].type.dtype for node in graph.nodes if node.op.name == "matmul"] == ["float64", "float16"]


def test_a_network_without_products_is_refused() -> None:
    net = mg.Builder("thin")
    x = net.input("x", ("N", 3))
    model = net.build(loss=mg.mean(x * net.parameter("w", (3,), mg.init.ones)))
    with pytest.raises(GraphError, match="'thin' has no convolution and no matrix product of float32"):
        stepping(model)
    with pytest.raises(GraphError, match="'thin' has no convolution"):
        mg.inference(model, precision="float16")


@pytest.mark.parametrize("precision", ["float32", "half", 16, ["float16"]])
def test_other_precisions_are_refused(precision: Any) -> None:
    for make in (
        lambda: mg.training_step(tiny("mlp"), "loss", mg.optim.SGD(0.1), precision=precision),
        lambda: mg.inference(tiny("mlp"), precision=precision),
    ):
        with pytest.raises(GraphError, match=re.escape(f"or None for that of the model, not {precision!r}")):
            make()


# what ops promise

TAKING_PART = [op for op in OPS.values() if op.half is not None]


@pytest.mark.parametrize("op", TAKING_PART, ids=lambda op: op.name)
def test_an_op_says_which_inputs_may_be_half(op: Op) -> None:
    """As its examples do: statistics and parameters are those that are float32 where the rest is float16."""
    assert isinstance(op.half, Half)
    for example in op.examples:
        floats = tuple(i for i, s in enumerate(example.inputs) if s.dtype is None and not s.wide)
        whole = len(floats) == sum(s.in_dtype("float32") == "float32" for s in example.inputs)
        assert floats == op.half.inputs or (op.half.inputs is None and whole)


@pytest.mark.parametrize("op", TAKING_PART, ids=lambda op: op.name)
def test_an_op_that_goes_along_stays_in_the_range_of_float16(op: Op) -> None:
    """Of numbers as large as 100."""
    for example in op.examples:
        rng = np.random.default_rng(0)
        arrays = [
            rng.uniform(-100, 100, s.shape).astype(s.in_dtype("float16"))
            if s.dtype is None and not s.wide
            else rng.integers(0, max(1, int(s.high)), s.shape).astype(s.in_dtype("float16"))
            for s in example.inputs
        ]
        if not any(array.dtype == np.float16 for array in arrays):
            continue
        if 0 in (n for array in arrays for n in array.shape):
            continue
        with np.errstate(all="ignore"):
            (result, *_) = op.run(arrays, op.infer(tuple(_type(a) for a in arrays), example.attrs)[0])
        assert result.dtype == np.float16
        assert np.isfinite(result).all()


def _type(array: np.ndarray) -> mg.Type:
    return mg.Type(array.shape, array.dtype.name)


# the same formula

OTHER_FLOAT = re.compile(r"""(?<![\w.])float(16|64)(?=[\["'])""")  # of a type or an attribute, and not in a name


@pytest.mark.parametrize(
    "seeds", [range(64), *(pytest.param(range(i, i + 200), marks=pytest.mark.nightly) for i in range(200, 2000, 200))]
)
def test_random_graphs_stay_the_same_formula(seeds: Sequence[int]) -> None:
    """Outputs, updates and gradients, with all floats in float64; and a second time there is nothing to do."""
    tally = Tally()
    for seed in seeds:
        random = random_graph(seed)
        model = mg.parse(OTHER_FLOAT.sub("float32", str(random.graph))).check()
        narrowing = mixed_precision.PASSES[NARROW[seed % 2]]
        half = optimized((narrowing,), model, None, tally)
        assert optimized((narrowing,), half, None, tally) is half
        pair = with_gradients(model), with_gradients(replace(half, state=model.state))
        same(Judge(pair[0], random.sizes, random.arrays), pair[1], tally)
    assert tally.loose <= 0.1 * tally.judged
    for dtype in NARROW:
        assert tally.fired[f"products-in-{dtype}"] > len(seeds) / 2
        assert tally.fired[f"stay-in-{dtype}"] > len(seeds) / 4


# how far off


class Rounded:
    """A graph in float64, whose values that are narrow in truth, or rounded to TF32, are rounded, at random."""

    def __init__(self, graph: Graph, seed: int):
        self.graph, self.rng = trial.in_float64(graph), np.random.default_rng(seed)
        pairs = zip(_made(self.graph), _made(graph), strict=True)
        self.off = {wide: epsilon(half.type.dtype) / 2 for wide, half in pairs if half.type.dtype in NARROW}
        self.off |= {value: 2.0**-11 for node in self.graph.nodes if node.op.name == "tf32" for value in node.outputs}

    def run(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Outputs, and new state."""
        found = trial.run(self.graph, _in_float64(arrays), self._rounded)
        named = {**self.graph.outputs, **{old.name: new for old, new in self.graph.updates.items()}}
        return {name: found[value] for name, value in named.items()}

    def _rounded(self, value: Value, array: np.ndarray) -> np.ndarray:
        return array * (1 + self.off[value] * self.rng.uniform(-1, 1, array.shape)) if value in self.off else array


def _made(graph: Graph) -> Iterator[Value]:
    return (value for node in graph.nodes for value in node.outputs)


def _in_float64(arrays: Arrays) -> dict[str, np.ndarray]:
    return {name: a.astype(np.float64) if is_float(a.dtype) else a for name, a in arrays.items()}


def given(name: str, graph: Graph) -> dict[str, np.ndarray]:
    return typed(graph, {**batch(tiny(name)), **state_of(name)})


@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize("make", [mg.inference, lambda model, outputs, **more: _trained(model, **more)])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_agree_with_those_of_float32(name: str, make: Any, precision: str) -> None:
    """As roundings do: the difference is no larger than the largest of 16 draws."""
    single, half = (make(tiny(name), ["logits"], **more).bind(N=BATCH) for more in ({}, {"precision": precision}))
    right = by_references(single, given(name, single))["logits"]
    found = by_references(half, given(name, half))["logits"]
    off = distance(right, found)
    draws = [distance(right, Rounded(half, seed).run(given(name, half))["logits"]) for seed in range(16)]
    assert 0 < off <= max(draws)
    assert max(draws) < 100 * epsilon(precision) * largest(right)


def _trained(model: Graph, precision: str | None = None) -> Graph:
    """With the statistics of the batch, and the same dropout."""
    return (model if precision is None else in_narrow(model, precision)).prune(["logits"], updates=False)


def curve(step: Graph, name: str, run: Callable[[Arrays], Arrays]) -> list[float]:
    """The losses of twenty steps."""
    state = state_of(name).copy()
    complete(step, state)
    arrays, losses = typed(step, {**batch(tiny(name)), **state}), []
    if "optimizer.loss_scale" in arrays:  # a mean over three images has large gradients
        arrays["optimizer.loss_scale"] = np.array(2**10, np.float32)
    for _ in range(20):
        found = run(arrays)
        losses.append(float(found["loss"]))
        arrays = {key: found.get(key, array) for key, array in arrays.items()}
    return losses


def by_name(graph: Graph) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key.removeprefix("-> "): array for key, array in by_references(graph, arrays).items()}


OPTIMIZERS = {
    "SGD": mg.optim.SGD(0.05, momentum=0.9),
    "Adam": mg.optim.Adam(0.01),
    "RMSprop": mg.optim.RMSprop(0.005),
}


@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["mlp", "lenet with batch norm"])
def test_twenty_steps_follow_those_in_float32(name: str, optimizer: str, precision: str) -> None:
    """The losses are off by no more than those of the worst of 4 draws, each where it is farthest off."""
    single = mg.training_step(tiny(name), "loss", OPTIMIZERS[optimizer]).bind(N=BATCH)
    half = stepping(tiny(name), OPTIMIZERS[optimizer], precision).bind(N=BATCH)
    right = np.array(curve(single, name, by_name(single)))
    found = np.array(curve(half, name, by_name(half)))
    draws = [np.abs(np.array(curve(half, name, Rounded(half, seed).run)) - right).max() for seed in range(4)]
    assert 0 < np.abs(found - right).max() <= max(draws)
    assert right[-1] < 0.5 * right[0]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is compiled anew in each run of the tests."""
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path_factory.getbasetemp() / "programs"))


@pytest.mark.compiler
@pytest.mark.cxx
@pytest.mark.parametrize(
    "name", ["lenet with batch norm", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("mlp", "resnet20"))]
)
@pytest.mark.parametrize("precision", NARROW)
def test_it_runs_the_same_in_c_and_in_cuda(name: str, precision: str, device: Device) -> None:
    """A step, which moves parameters by their gradients, and answers."""
    model, state = tiny(name), state_of(name).copy()
    step = stepping(model, mg.optim.SGD(1.0), precision)
    complete(step, state)
    if SCALE in state:
        state[SCALE] = np.float32(2**10)
    for graph in (step, mg.inference(model, ["logits"], precision=precision)):
        ready = optimize(graph, state).graph
        arrays, bound = typed(ready, {**batch(model), **state}), ready.bind(N=BATCH)
        right, room = by_references(bound, arrays), Room(bound, arrays)
        assert graph is not step or right.get("-> optimizer.good_steps", 1) == 1
        for found in (in_c(ready, arrays, {"N": BATCH}), outcome(*Executable(lower(bound), device).run({}, arrays))):
            wrong, loose = differences(right, found, room)
            assert not wrong, "; ".join(wrong)
            assert loose <= 0.01 * len(found)


@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize("name", ["lenet with batch norm", "resnet20"])
def test_batch_norms_fold_and_weights_are_rounded_once(name: str, precision: str) -> None:
    """What is folded into a weight is computed in float64."""
    state = state_of(name)
    program = mg.compile(mg.inference(tiny(name), ["logits"], precision=precision), state)
    assert "batch_norm_inference" not in [node.op.name for node in program.graph.nodes]
    conv = next(node for node in program.graph.nodes if node.op.name == "conv")
    first = mg.compile(replace(program.graph, inputs=(), outputs={"w": conv.inputs[1]}).prune(), state)()["w"]
    numbers = {key: state[key].astype(np.float64) for key in state}
    scale = numbers["bn1.gamma"] / np.sqrt(numbers["bn1.running_var"] + 1e-5)
    folded = numbers["conv1.weight"] * scale[:, None, None, None]
    np.testing.assert_array_equal(first, folded.astype(precision))


def _digits() -> dict[str, Any]:
    """What examples/train_digits.py defines, without running it."""
    folder = Path(__file__).parent.parent / "examples"
    sys.path.insert(0, str(folder))
    try:
        return runpy.run_path(str(folder / "train_digits.py"))
    finally:
        sys.path.remove(str(folder))


def test_it_learns_digits_as_well() -> None:
    """Of 360 images that are right with probability p, sqrt(360 p (1 - p)) more or fewer are, by chance: with p = 0.95
    that is 4. Two networks may differ by three deviations of a difference, 3 * sqrt(2) * 4 = 18 images, or 5 %."""
    net = mg.Builder("digits")
    image, label = net.input("image", ("N", 1, 8, 8)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.conv2d(image / 16, 8, 3, padding="same", bias=False)))
    h = mg.relu(layers.batch_norm(layers.conv2d(mg.max_pool(h, 2), 16, 3, padding="same", bias=False)))
    logits = layers.linear(mg.flatten(h), 10)
    model = net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))
    train_data, _, test_data = _digits()["split"](0)
    right = []
    for precision in (None, *NARROW):
        state = model.init(seed=0)
        step = mg.training_step(model, "loss", mg.optim.AdamW(5e-3), precision=precision)
        mg.fit(mg.compile(step, state), train_data, epochs=3, batch_size=32, seed=0)
        answers = mg.compile(mg.inference(model, ["accuracy"], precision=precision), state)
        right.append(float(answers(**test_data)["accuracy"]))
    assert min(right) > 0.9
    assert max(right) - min(right) <= 0.05


# the range of bfloat16


def test_bfloat16_needs_no_scale() -> None:
    """The gradients that float16 loses arrive, and no state is added."""
    model, inputs = slight(), {"x": data()["x"]}
    state = model.init(seed=0)
    right = mg.compile(gradients(model), state)(**inputs)
    before = snapshot(state)
    step = stepping(model, mg.optim.SGD(1e6), "bfloat16")
    assert {v.name for v in step.state} == {*before, "optimizer.step"}
    mg.compile(step, state)(**inputs)
    for name in ("linear1.weight", "linear2.weight"):
        found = (before[name] - state[name]) / 1e6
        most = largest(right[f"d.{name}"])
        np.testing.assert_allclose(found, right[f"d.{name}"], rtol=0, atol=6 * 2.0**-8 * most)


# the scale


def small(frozen: bool = False) -> Graph:
    """With statistics, dropout and a parameter that the loss scale may spoil."""
    net = mg.Builder("small")
    x, label = net.input("x", ("N", 4)), net.input("label", ("N",), "int64")
    h = layers.dropout(layers.batch_norm(layers.linear(x, 6), frozen=frozen), 0.2)
    return net.build(loss=mg.cross_entropy(layers.linear(mg.relu(h), 3), label))


def data(size: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.normal(0, size, (8, 4)), "label": rng.integers(0, 3, 8)}


SCALE, ROW = "optimizer.loss_scale", "optimizer.good_steps"
OWN = {SCALE, ROW}


def moved(before: Arrays, after: Arrays) -> set[str]:
    return {name for name in after if not np.array_equal(before[name], after[name])}


def snapshot(state: mg.State) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in state.items()}


def scale_and_row(state: mg.State) -> tuple[float, int]:
    return float(state[SCALE]), int(state[ROW])


@pytest.mark.parametrize(
    ("optimizer", "backend"),
    [*((name, "numpy") for name in OPTIMIZERS), pytest.param("Adam", "c", marks=pytest.mark.compiler)],
)
def test_a_step_that_overflows_changes_nothing_but_the_scale(optimizer: str, backend: str) -> None:
    model = small()
    state = model.init(seed=0)
    train = mg.compile(stepping(model, OPTIMIZERS[optimizer], clip_norm=1.0, accumulate=2), state, backend)
    assert state[SCALE] == 2.0**15
    for _ in range(3):
        train(**data())
    before = snapshot(state)
    assert before[ROW] == 3
    state[SCALE] = np.float32(2.0**100)
    loss = train(**data())["loss"]
    assert np.isfinite(loss)  # it is the gradients that are infinite
    assert moved(before, state) == OWN
    assert scale_and_row(state) == (2.0**99, 0)
    state[SCALE] = before[SCALE]
    assert not np.isfinite(train(**data(1e6))["loss"])  # here the image is, in float16
    assert moved(before, state) == OWN
    assert scale_and_row(state) == (2.0**14, 0)
    train(**data())
    still = {"linear1.bias"}  # the batch norm takes off again what it adds
    assert {"random.step", "bn1.running_mean", "bn1.running_var"} <= moved(before, state)
    assert moved(before, state) >= {v.name for v in model.state if v.kind == "parameter"} - still
    assert state[ROW] == 1


@pytest.mark.parametrize("backend", ["numpy", pytest.param("c", marks=pytest.mark.compiler)])
def test_the_scale_doubles_after_so_many_good_steps(backend: str) -> None:
    model = small()
    state = model.init(seed=0)
    train = mg.compile(stepping(model), state, backend)
    state[ROW] = loss_scale.PATIENCE - 2
    for scale, row in ((2.0**15, loss_scale.PATIENCE - 1), (2.0**16, 0), (2.0**16, 1)):
        train(**data())
        assert scale_and_row(state) == (scale, row)


def test_the_scale_finds_its_size() -> None:
    """From far too large a one down to the first that is small enough, and no further."""
    model = small()
    state = model.init(seed=0)
    train = mg.compile(stepping(model), state)
    state[SCALE] = np.float32(2.0**40)
    seen = []
    for _ in range(40):
        train(**data())
        seen.append(scale_and_row(state))
    bad = [scale for scale, row in seen if row == 0]
    assert bad == [2.0 ** (39 - i) for i in range(len(bad))]
    assert 2.0**10 < bad[-1] < 2.0**25
    assert [scale for scale, row in seen if row] == [bad[-1]] * (40 - len(bad))


@pytest.mark.parametrize(("first", "size", "last"), [(1.0, 1e6, 1.0), (2.0**127, 1e-9, 2.0**127)])
def test_the_scale_comes_back_from_its_ends(first: float, size: float, last: float) -> None:
    """From 1, below which it would get to 0; from the largest, beyond which it would be infinite."""
    model = small() if first == 1 else slight()
    state = model.init(seed=0)
    train = mg.compile(stepping(model), state)
    state[SCALE], state[ROW] = np.float32(first), loss_scale.PATIENCE - 1
    train(**(data(size) if first == 1 else {"x": np.zeros((8, 4))}))
    assert state[SCALE] == last
    assert state[ROW] == 0


def slight() -> Graph:
    """A loss of 1e-6 of its usual size, whose gradients are near 1e-9: float16 ends at 6e-8."""
    net = mg.Builder("slight")
    h = layers.linear(layers.linear(net.input("x", ("N", 4)), 6), 3)
    return net.build(loss=mg.mean(h * h) * 1e-8)


def gradients(model: Graph) -> Graph:
    """Of its parameters, without a scale."""
    net = mg.Builder.extending(model)
    return net.build(
        {f"d.{p.name}": g for p, g in zip(net.parameters, mg.gradient(net.tensor("loss"), net.parameters))}
    )


def test_gradients_too_small_for_float16_arrive_with_a_scale() -> None:
    model, inputs = slight(), {"x": data()["x"]}
    state = model.init(seed=0)
    right = mg.compile(gradients(model), state)(**inputs)
    lost = mg.compile(gradients(in_float16(model)), state)(**inputs)
    assert not lost["d.linear1.weight"].any()
    before = snapshot(state)
    train = mg.compile(stepping(model, mg.optim.SGD(1e6)), state)
    state[SCALE] = np.float32(2.0**20)
    train(**inputs)
    for name in ("linear1.weight", "linear2.weight"):
        found = (before[name] - state[name]) / 1e6
        # along the longest path six values are rounded once, and each sum of 8 products adds up what they are off by
        assert largest(right[f"d.{name}"]) < 6e-8
        np.testing.assert_allclose(found, right[f"d.{name}"], rtol=0, atol=6 * 2.0**-11 * largest(right[f"d.{name}"]))


def test_clipping_sees_the_gradients_without_the_scale() -> None:
    """A step of rate 1 is as long as the limit allows, whatever the scale; and a limit that is not reached does
    nothing."""
    model = small()
    lengths = []
    for scale in (2.0**4, 2.0**12):
        state = model.init(seed=0)
        before = snapshot(state)
        train = mg.compile(stepping(model, mg.optim.SGD(1.0), clip_norm=0.01), state)
        state[SCALE] = np.float32(scale)
        train(**data())
        steps = [state[v.name] - before[v.name] for v in model.state if v.kind == "parameter"]
        lengths.append(np.sqrt(sum(float((step.astype(np.float64) ** 2).sum()) for step in steps)))
    # 63 parameters of about 1, each rounded by 6e-8, move the length by up to sqrt(63) * 6e-8 = 5e-7
    np.testing.assert_allclose(lengths, 0.01, rtol=1e-4)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_run_that_overflows_does_not_count_towards_an_accumulated_step(bad: int) -> None:
    """Two good runs make the step, and one between them is as if it had not been."""
    model = small()
    states = [model.init(seed=0) for _ in range(2)]
    trains = [mg.compile(stepping(model, mg.optim.Adam(0.01), accumulate=2), state) for state in states]
    for run in range(2):
        trains[0](**data(1 + run))
    for run in range(3):
        trains[1](**(data(1e6) if run == bad else data(1 + run - (run > bad))))
    scales = [float(state[SCALE]) for state in states]
    assert scales == [2.0**15, 2.0**14]
    for name in states[0]:
        if name not in OWN:
            # a power of two rounds nothing, but near the end of float16: both scales are far from it
            np.testing.assert_allclose(states[1][name], states[0][name], rtol=1e-6, atol=1e-7, err_msg=name)


def test_frozen_batch_norms_are_half_and_stay_as_they_are() -> None:
    model = small(frozen=True)
    step = stepping(model)
    assert dtypes(step)["batch_norm_inference"] == {"float16"}
    state = model.init(seed=0)
    train = mg.compile(step, state)
    before = snapshot(state)
    losses = [float(train(**data())["loss"]) for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]
    assert not {"bn1.running_mean", "bn1.running_var"} & moved(before, state)


def test_it_goes_on_from_a_file(tmp_path: Path) -> None:
    """The scale is state like all other."""
    model = small()
    state = model.init(seed=0)
    train = mg.compile(stepping(model, mg.optim.Adam(0.01)), state)
    state[SCALE] = np.float32(2.0**30)
    for _ in range(12):
        train(**data())
    state.save(tmp_path / "state.safetensors")
    other = mg.State.read(tmp_path / "state.safetensors")
    again = mg.compile(stepping(model, mg.optim.Adam(0.01)), other)
    assert float(other[SCALE]) == float(state[SCALE]) < 2.0**30
    assert train(**data())["loss"] == again(**data())["loss"]
    assert not moved(state, other)
