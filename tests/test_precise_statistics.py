"""Precise statistics against NumPy's over all the data at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.passes.freeze import without_dropout

Arrays = dict[str, np.ndarray]
SIZES = (8, 3, 1, 12, 2)  # of batches; x has more than one number for each channel and sample


def one_norm(shape: Any, dtype: str = "float64", **options: Any) -> mg.Graph:
    net = mg.Builder("norm")
    return net.build(y=layers.batch_norm(net.input("x", shape, dtype), name="bn", **options))


def two_norms() -> mg.Graph:
    """Dense layers with two batch norms, dropout in front of the second, and a loss that reads a label."""
    net = mg.Builder("two")
    x, label = net.input("x", ("N", 5)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.linear(x, 7)))
    h = layers.batch_norm(layers.linear(layers.dropout(h, 0.5), 6))
    return net.build(loss=mg.cross_entropy(h, label), logits=h)


def in_batches(x: np.ndarray, sizes: Iterable[int]) -> list[Arrays]:
    parts = np.split(x, np.cumsum(list(sizes)))
    assert len(parts[-1]) == 0
    return [{"x": part} for part in parts[:-1]]


def data(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> np.ndarray:
    """Numbers whose mean and deviation change with the sample: batches differ."""
    rng = np.random.default_rng(seed)
    drift = np.linspace(-2, 3, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (rng.normal(size=shape) * (1 + drift**2) + drift).astype(dtype)


def check(state: mg.State, x: np.ndarray, axis: int = 1, unbiased: bool = True, rtol: float = 1e-12) -> None:
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(state["bn.running_mean"], exact.mean(others), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(state["bn.running_var"], exact.var(others, ddof=int(unbiased)), rtol=rtol)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize(
    ("shape", "axis", "sizes"),
    [
        ((26, 3, 4, 5), 1, SIZES),
        ((26, 4, 5, 3), -1, SIZES),
        ((26, 3, 2), 1, (0, *SIZES, 0)),
        ((26, 3), 1, (8, 3, 0, 13, 2)),
    ],
)
def test_unequal_and_empty_batches_pool_to_those_of_all_data(
    shape: tuple[int, ...], axis: int, sizes: tuple[int, ...], unbiased: bool
) -> None:
    x = data(shape)
    model = one_norm(("N", *shape[1:]), axis=axis, unbiased=unbiased)
    state = model.init()
    program = mg.compile(mg.precise_statistics(model), state)
    for batch in in_batches(x, sizes):
        assert program(**batch) == {}
    check(state, x, axis, unbiased)
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    assert program.created == ("precise.bn.count", "precise.bn.mean", "precise.bn.var")
    assert state["precise.bn.count"] == x.size // 3
    np.testing.assert_allclose(state["precise.bn.var"], x.var(others), rtol=1e-12)


def test_after_every_batch_they_are_those_so_far() -> None:
    x = data((26, 3, 2))
    model = one_norm(("N", 3, 2))
    state = model.init()
    program = mg.compile(mg.precise_statistics(model), state)
    seen = 0
    for batch in in_batches(x, SIZES):
        program(**batch)
        seen += len(batch["x"])
        check(state, x[:seen])


def test_a_large_mean_and_many_batches_in_float32() -> None:
    """A float32 sum of squares is wrong in every digit here, and a running average in float32 stands still."""
    x = (1e4 + 0.1 * np.random.default_rng(0).normal(size=(20_000, 2))).astype("float32")
    model = one_norm(("N", 2), "float32")
    state = model.init()
    mg.precise_bn(model, state, in_batches(x, [10] * 2000))
    exact = x.astype(np.float64)
    spacing = np.spacing(np.float32(1e4))  # 0.001
    assert np.abs(state["bn.running_mean"] - exact.mean(0)).max() <= spacing / 2 + 1e-4
    # the 2000 batch means deviate by 0.032 and are rounded by 0.00028: 2 * 0.032 * 0.00028 / sqrt(2000) of 0.01 is 4e-5
    np.testing.assert_allclose(state["bn.running_var"], exact.var(0, ddof=1), rtol=2e-4)


def test_half_precision_pools_in_float32() -> None:
    x = data((26, 3, 4), "float16")
    model = one_norm(("N", 3, 4), "float16")
    state = model.init()
    mg.precise_bn(model, state, in_batches(x, SIZES))
    assert state["bn.running_var"].dtype == np.float32
    check(state, x, rtol=1e-6)


def test_two_applications_pool_both() -> None:
    net = mg.Builder()
    a, b = net.input("a", ("N", 3), "float64"), net.input("b", ("M", 3, 2), "float64")
    for x in (a, b):
        with net.scope("both", share=True):
            y = layers.batch_norm(x, name="bn")
    model = net.build(y=y)
    state = model.init()
    first, second = data((12, 3)), data((20, 3, 2), seed=1) + 5.0
    program = mg.compile(mg.precise_statistics(model), state)
    for i in range(2):
        program(a=first[i * 6 : i * 6 + 6], b=second[i * 10 : i * 10 + 10])
    together = np.concatenate([first, np.moveaxis(second, 2, 1).reshape(-1, 3)])
    np.testing.assert_allclose(state["both.bn.running_mean"], together.mean(0), rtol=1e-12)
    np.testing.assert_allclose(state["both.bn.running_var"], together.var(0, ddof=1), rtol=1e-12)
    assert state["precise.both.bn.count"] == len(together)


def test_nothing_else_moves() -> None:
    model = two_norms()
    step = mg.training_step(model, "loss", mg.optim.SGD(0.1, momentum=0.9))
    state = model.init()
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(16, 5)), "label": rng.integers(0, 6, 16)}
    mg.compile(step, state)(**batch)
    text, before = str(step), dict(state)
    mg.precise_bn(step, state, [batch, batch])
    assert str(step) == text
    assert list(state) == list(before)
    moved = {name for name in before if not np.array_equal(state[name], before[name])}
    assert moved == {f"bn{i}.running_{statistic}" for i in (1, 2) for statistic in ("mean", "var")}


def test_only_what_the_statistics_need_is_left_and_all_inputs() -> None:
    step = mg.training_step(two_norms(), "loss", mg.optim.SGD("rate", momentum=0.9))
    graph = mg.precise_statistics(step).check()
    assert graph.inputs == step.inputs
    assert {variable.kind for variable in graph.state} == {"parameter", "statistic", "counter"}
    assert {node.origin.role for node in graph.nodes} == {"forward", "statistic"}
    assert not [node for node in graph.nodes if node.op.name in ("dropout", "cross_entropy")]
    assert str(mg.parse(str(graph))) == str(graph)


def test_the_first_batch_norm_of_inference_is_that_of_the_whole_set_exactly() -> None:
    """With the biased variance, inference with precise statistics is training on all the data as one batch."""
    model = one_norm(("N", 3, 4), unbiased=False)
    x = data((26, 3, 4))
    state = model.init()
    state["bn.gamma"], state["bn.beta"] = np.array([0.5, -1.0, 2.0]), np.array([1.0, 0.0, -1.0])
    whole = mg.compile(model, state.copy())(x=x)["y"]
    mg.precise_bn(model, state, in_batches(x, SIZES))
    answer = mg.compile(mg.inference(model), state)(x=x)["y"]
    np.testing.assert_allclose(answer, whole, rtol=1e-12, atol=1e-12)


def test_one_pass_is_right_for_deeper_layers_and_dropout_is_off() -> None:
    """On one batch, inference with precise statistics gives what training without dropout gives."""
    model = two_norms()
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(64, 5)), "label": rng.integers(0, 6, 64)}
    state = model.init()
    mg.precise_bn(model, state, [batch])
    wanted = mg.compile(without_dropout(model), state.copy())(**batch)["logits"]
    n = len(batch["x"])
    for name in ("bn1.running_var", "bn2.running_var"):
        state[name] = state[name] * np.float32((n - 1) / n)
    found = mg.compile(mg.inference(model, ["logits"]), state)(x=batch["x"])["logits"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)


def test_without_dropout_keeps_updates_and_what_is_upstream() -> None:
    model = two_norms()
    plain = without_dropout(model).check()
    assert [node.op.name for node in model.nodes if node.op is not mg.OPS["dropout"]] == [
        n.op.name for n in plain.nodes
    ]
    assert set(plain.updates) == set(model.updates)
    first = next(node for node in model.nodes if node.op is mg.batch_norm)
    assert first in plain.nodes
    assert without_dropout(plain).nodes == plain.nodes


def test_of_a_training_step_they_are_those_of_its_model() -> None:
    """Though the step dropped the bias in front, which the running mean has to have in it."""
    net = mg.Builder("biased")
    x = net.input("x", ("N", 5))
    y = layers.batch_norm(layers.linear(x, 7), name="bn")
    model = net.build(loss=mg.mean(mg.square(y - 1.0)))
    step = mg.training_step(model, "loss", mg.optim.SGD(0.1))
    state = model.init()
    state["linear1.bias"] = np.arange(7, dtype="float32")
    batches = in_batches(data((26, 5), "float32"), (20, 6))
    of_model, of_step = state.copy(), state.copy()
    mg.precise_bn(model, of_model, batches)
    mg.precise_bn(step, of_step, batches)
    for name in ("bn.running_mean", "bn.running_var"):
        np.testing.assert_allclose(of_step[name], of_model[name], rtol=1e-5)


def test_untracked_and_frozen_ones_are_left() -> None:
    net = mg.Builder()
    x = net.input("x", ("N", 3), "float64")
    h = layers.batch_norm(layers.batch_norm(x, track=False), frozen=True, name="frozen")
    model = net.build(y=layers.batch_norm(h, name="bn"))
    assert sorted(v.name for v in mg.precise_statistics(model).updates if v.name in model.variables) == [
        "bn.running_mean",
        "bn.running_var",
    ]
    state = model.init()
    state["frozen.running_mean"] = np.array([1.0, 2.0, 3.0])
    mg.precise_bn(model, state, [{"x": data((26, 3))}])
    np.testing.assert_allclose(state["bn.running_mean"], [-1.0, -2.0, -3.0], atol=1e-4)
    assert state["frozen.running_mean"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("options", [{"track": False}, {"frozen": True}])
def test_a_model_without_running_averages_is_an_error(options: dict[str, Any]) -> None:
    model = one_norm(("N", 3), **options)
    with pytest.raises(mg.GraphError, match="'norm' has no batch norm with running statistics"):
        mg.precise_statistics(model)


def test_a_frozen_model_is_an_error() -> None:
    with pytest.raises(mg.GraphError, match="no batch norm with running statistics"):
        mg.precise_statistics(mg.inference(one_norm(("N", 3))))


def test_running_averages_made_by_hand() -> None:
    net = mg.Builder("by_hand")
    x = net.input("x", ("N", 3), "float64")
    gamma, beta = net.constant(np.ones(3)), net.constant(np.zeros(3))
    y, mean, var = mg.batch_norm(x, gamma, beta)
    count, momentum = net.constant(26.0, "float64"), net.constant(0.5, "float64")
    for name, batch, correct in (("centre", mean, False), ("spread", var, True)):
        old = net.variable(name, (3,), mg.init.zeros, "float64")
        net.update(old, mg.running_average(old, batch, count, momentum, unbiased=correct))
    model = net.build(y=y)
    state, x_all = model.init(), data((26, 3))
    mg.precise_bn(model, state, in_batches(x_all, (20, 6)))
    np.testing.assert_allclose(state["centre"], x_all.mean(0), rtol=1e-12)
    np.testing.assert_allclose(state["spread"], x_all.var(0, ddof=1), rtol=1e-12)


# precise_bn


def test_each_pass_begins_anew() -> None:
    model = one_norm(("N", 3))
    state, first, second = model.init(), data((26, 3)), data((14, 3), seed=1) - 7.0
    mg.compile(mg.precise_statistics(model), state)(x=first)  # leaves its counters behind
    mg.precise_bn(model, state, in_batches(first, (20, 6)))
    check(state, first)
    mg.precise_bn(model, state, in_batches(second, (10, 4)))
    check(state, second)


def test_by_hand_a_pass_goes_on_where_the_counters_stand() -> None:
    model = one_norm(("N", 3))
    state, x = model.init(), data((26, 3))
    for batch in in_batches(x, (20, 6)):
        mg.compile(mg.precise_statistics(model), state)(**batch)
    check(state, x)


def test_an_error_in_the_middle_leaves_the_state() -> None:
    model = one_norm(("N", 3))
    state = model.init()
    before = dict(state)
    with pytest.raises(mg.GraphError, match="one number for each channel"):
        mg.precise_bn(model, state, in_batches(data((26, 3)), (20, 1, 5)))
    assert list(state) == list(before)
    assert all(state[name] is before[name] for name in before)


@pytest.mark.parametrize("batches", [[], [{"x": np.ones((0, 3))}]])
def test_no_data_is_an_error(batches: list[Arrays]) -> None:
    model = one_norm(("N", 3))
    state = model.init()
    with pytest.raises(mg.GraphError, match="there was no data"):
        mg.precise_bn(model, state, iter(batches))
    assert state["bn.running_var"].tolist() == [1.0, 1.0, 1.0]


def test_one_batch_is_not_a_list_of_batches() -> None:
    model = one_norm(("N", 3))
    state, x = model.init(), np.ones((4, 3))
    with pytest.raises(mg.GraphError, match=r"one dict alone is written \[batch\]"):
        mg.precise_bn(model, state, {"x": x})  # type: ignore[dict-item]
    with pytest.raises(mg.GraphError, match="a batch is a dict of inputs by name, not a ndarray"):
        mg.precise_bn(model, state, [x])  # type: ignore[list-item]
    with pytest.raises(mg.GraphError, match="needs the model, a Graph, not a Program"):
        mg.precise_bn(mg.compile(model, state), state, [{"x": x}])  # type: ignore[arg-type]


def test_training_goes_on_from_precise_statistics() -> None:
    model = one_norm(("N", 3), momentum=0.25)
    state, x = model.init(), data((26, 3))
    mg.precise_bn(model, state, [{"x": x}])
    mg.compile(model, state)(x=x + 4.0)
    np.testing.assert_allclose(state["bn.running_mean"], x.mean(0) + 1.0, rtol=1e-12)


def test_inputs_that_no_batch_norm_depends_on_may_be_left_out() -> None:
    net = mg.Builder("labelled")
    x, label = net.input("x", ("N", 3)), net.input("label", ("N",), "int64")
    y = layers.batch_norm(x)
    model = net.build(y=y, loss=mg.cross_entropy(y, label))
    state, array = model.init(), data((8, 3))
    mg.precise_bn(model, state, [{"x": array[:4]}, {"x": array[4:], "label": np.zeros(4, int)}])
    np.testing.assert_allclose(state["bn1.running_mean"], array.mean(0), rtol=1e-5)
    with pytest.raises(mg.GraphError, match="'lable' is not one of them"):
        mg.precise_bn(model, state, [{"x": array, "lable": np.zeros(8, int)}])
