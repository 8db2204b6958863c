"""Batch normalization as a user meets it: layers, training steps and inference graphs, against formulas in float64."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.core.dtypes import NARROW, epsilon
from onnx_ops import differences

Arrays = dict[str, np.ndarray]


def formula(
    x: np.ndarray, g: np.ndarray, gamma: np.ndarray, beta: np.ndarray, axis: int = 1, eps: float = 1e-5
) -> Arrays:
    """In float64: y, the batch's statistics, and the gradients of sum(g * y)."""
    x, g, gamma, beta = (np.asarray(a, np.float64) for a in (x, g, gamma, beta))
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    shape = [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]
    n = x.size // x.shape[axis]
    mean, var = x.mean(others), x.var(others)
    sigma = np.sqrt(var + eps).reshape(shape)
    normal = (x - mean.reshape(shape)) / sigma
    dgamma, dbeta = (g * normal).sum(others), g.sum(others)
    dx = gamma.reshape(shape) / sigma * (g - dbeta.reshape(shape) / n - normal * dgamma.reshape(shape) / n)
    return {
        "y": normal * gamma.reshape(shape) + beta.reshape(shape),
        "mean": mean,
        "var": var,
        "unbiased": var * n / (n - 1),
        "dx": dx,
        "dgamma": dgamma,
        "dbeta": dbeta,
    }


def model(shape: Any, dtype: str = "float32", **options: Any) -> mg.Graph:
    """One batch norm, the gradients of sum(g * y), and that sum as its loss."""
    net = mg.Builder("norm")
    x, g = net.input("x", shape, dtype), net.input("g", shape, dtype)
    y = layers.batch_norm(x, name="bn", **options)
    loss = mg.sum(y * g)
    wrt = {"dx": x, **{f"d{p.name.removeprefix('bn.')}": p for p in net.parameters}}
    gradients = dict(zip(wrt, mg.gradient(loss, list(wrt.values()))))
    return net.build({"y": y, "loss": loss, **gradients})


def initial(graph: mg.Graph, **arrays: Any) -> mg.State:
    """The graph's state with some arrays given, by the name behind "bn."."""
    state = graph.init(0)
    for name, array in arrays.items():
        state[f"bn.{name}"] = np.asarray(array)
    return state


def data(shape: tuple[int, ...], axis: int = 1, dtype: str = "float32", seed: int = 0) -> tuple[np.ndarray, ...]:
    """x, g, gamma, beta."""
    rng = np.random.default_rng(seed)
    x, g = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    gamma, beta = (rng.normal(size=shape[axis]).astype(dtype) for _ in range(2))
    return x, g, gamma, beta


def close(actual: np.ndarray, expected: np.ndarray, terms: int, units: float = 8.0) -> None:
    """`units` roundings of the dtype, and one for each of `terms` additions, relative to the largest number."""
    tolerance = epsilon(actual.dtype) * (units + terms) * max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(actual.astype(np.float64), expected, rtol=0, atol=tolerance)


LAYOUTS = [
    ((5, 3), 1),
    ((5, 3), -1),
    ((3, 2, 5), 1),
    ((3, 5, 2), -1),
    ((2, 3, 4, 5), 1),
    ((2, 4, 5, 3), -1),
    ((2, 3, 1, 4), 1),
    ((2, 3, 2, 4, 3), 1),
    ((2, 2, 4, 3, 5), -1),
    ((1, 3, 2, 1, 1), 1),
    ((3, 4, 2), 0),
    ((7, 1), 1),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_training_is_its_formula(shape: tuple[int, ...], axis: int, dtype: str) -> None:
    x, g, gamma, beta = data(shape, axis, dtype)
    graph = model(shape, dtype, axis=axis)
    state = initial(graph, gamma=gamma, beta=beta)
    found = mg.compile(graph, state)(x=x, g=g)
    wanted = formula(x, g, gamma, beta, axis)
    for name in ("y", "dx", "dgamma", "dbeta"):
        assert found[name].dtype == dtype
        close(found[name], wanted[name], x.size)
    close(state["bn.running_mean"], 0.1 * wanted["mean"], x.size)
    close(state["bn.running_var"], 0.9 + 0.1 * wanted["unbiased"], x.size)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_inference_takes_the_running_statistics(shape: tuple[int, ...], axis: int, dtype: str) -> None:
    x, _, gamma, beta = data(shape, axis, dtype)
    mean, var = beta + 1, np.abs(gamma) + 0.5
    graph = mg.inference(model(shape, dtype, axis=axis), outputs=["y"])
    assert [value.name for value in graph.inputs] == ["x"]
    state = initial(graph, gamma=gamma, beta=beta, running_mean=mean, running_var=var)
    before = dict(state)
    y = mg.compile(graph, state)(x=x)["y"]
    along = [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]
    m, v, a, b = (p.astype(np.float64).reshape(along) for p in (mean, var, gamma, beta))
    close(y, (x - m) / np.sqrt(v + 1e-5) * a + b, 0)
    assert all(np.array_equal(before[name], state[name]) for name in before)


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_frozen_is_linear_and_leaves_its_statistics(shape: tuple[int, ...], axis: int) -> None:
    x, g, gamma, beta = data(shape, axis)
    mean, var = beta + 1, np.abs(gamma) + 0.5
    graph = model(shape, axis=axis, frozen=True)
    state = initial(graph, gamma=gamma, beta=beta, running_mean=mean, running_var=var)
    found = mg.compile(graph, state)(x=x, g=g)
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    along = [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]
    normal = (x.astype(np.float64) - mean.reshape(along)) / np.sqrt(var.astype(np.float64) + 1e-5).reshape(along)
    scale = (gamma / np.sqrt(var.astype(np.float64) + 1e-5)).reshape(along)
    close(found["y"], normal * gamma.reshape(along) + beta.reshape(along), 0)
    close(found["dx"], g * scale, 0)
    close(found["dgamma"], (g * normal).sum(others), x.size)
    close(found["dbeta"], g.astype(np.float64).sum(others), x.size)

    net = mg.Builder()
    loss = mg.sum(layers.batch_norm(net.input("x", shape), axis=axis, frozen=True, name="bn"))
    step = mg.training_step(net.build(loss=loss), "loss", mg.optim.SGD(0.5))
    state = initial(step, gamma=gamma, beta=beta, running_mean=mean, running_var=var)
    mg.compile(step, state)(x=x)
    assert np.array_equal(state["bn.running_mean"], mean)
    assert np.array_equal(state["bn.running_var"], var)
    close(state["bn.gamma"], gamma - 0.5 * normal.sum(others), x.size)
    close(state["bn.beta"], beta - 0.5 * x.size / len(gamma), x.size)


@pytest.mark.parametrize(("shape", "axis"), [((4, 3, 16, 16), 1), ((4, 16, 16, 3), -1), ((512, 3), 1), ((8, 3, 64), 1)])
def test_a_mean_far_above_the_deviation(shape: tuple[int, ...], axis: int) -> None:
    """1e4 +- 0.1: one unit of x is 0.001 there, but differences of two such numbers are exact. So outputs and gradients
    come within the rounding of sums of up to 1024 numbers of order 1, added pairwise or in rows: 1e-5 and 1e-4."""
    x, g, gamma, beta = data(shape, axis)
    x = (1e4 + 0.1 * x.astype(np.float64)).astype(np.float32)
    graph = model(shape, axis=axis)
    state = initial(graph, gamma=gamma, beta=beta)
    found = mg.compile(graph, state)(x=x, g=g)
    wanted = formula(x, g, gamma, beta, axis)
    np.testing.assert_allclose(found["y"], wanted["y"], rtol=0, atol=1e-5 * np.abs(wanted["y"]).max())
    for name in ("dx", "dgamma", "dbeta"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-4 * np.abs(wanted[name]).max())
    np.testing.assert_allclose(state["bn.running_mean"], 0.1 * wanted["mean"], rtol=1e-6)
    np.testing.assert_allclose(state["bn.running_var"] - 0.9, 0.1 * wanted["unbiased"], rtol=1e-4)  # 0.001 beside 0.9


@pytest.mark.parametrize(("rows", "outlier"), [(64, 3000.0), (100_000, 1e4)])
@pytest.mark.parametrize("place", [0, 7])
def test_an_outlier_wherever_it_stands(rows: int, outlier: float, place: int) -> None:
    """One number far from all others must not pull the mean off, be it the first. Every addition may round by half a
    unit of what is added up so far, which is of the order of the deviation (for 1e4 among 1e5 rows: 32) times the rows.
    """
    x, g, gamma, beta = data((rows, 2))
    x[place] = outlier
    graph = model((rows, 2))
    state = initial(graph, gamma=gamma, beta=beta)
    found = mg.compile(graph, state)(x=x, g=g)
    wanted = formula(x, g, gamma, beta)
    for name in ("y", "dx", "dgamma"):
        close(found[name], wanted[name], rows // 2)
    deviation = float(np.sqrt(wanted["var"].max()))
    error = np.abs(state["bn.running_mean"] - 0.1 * wanted["mean"]).max()
    assert error < 0.1 * deviation * rows * 2**-24


def test_a_constant_channel_gives_exactly_beta() -> None:
    x, g, gamma, beta = data((4, 3, 5))
    x[:, 1] = 1e10
    graph = model((4, 3, 5))
    state = initial(graph, gamma=gamma, beta=beta)
    found = mg.compile(graph, state)(x=x, g=g)
    assert (found["y"][:, 1] == beta[1]).all()
    assert found["dgamma"][1] == 0
    wanted = formula(x, g, gamma, beta)
    assert wanted["var"][1] == 0
    close(found["dx"][:, 1], wanted["dx"][:, 1], 20)
    assert state["bn.running_var"][1] == np.float32(0.9)
    np.testing.assert_allclose(state["bn.running_mean"][1], 1e9, rtol=1e-6)


def test_running_averages_are_floats() -> None:
    net = mg.Builder()
    running, one = net.input("running", (3,), "int32"), net.input("one", (), "int32")
    with pytest.raises(mg.GraphError, match="float"):
        mg.running_average(running, running, one, one)


# one number for each channel, and none


@pytest.mark.parametrize(("shape", "axis"), [((1, 3), 1), ((1, 3, 1, 1), 1), ((1, 1, 3), -1)])
def test_one_number_for_each_channel_is_refused_when_it_is_built(shape: tuple[int, ...], axis: int) -> None:
    net = mg.Builder()
    x = net.input("picture", shape)
    with pytest.raises(mg.GraphError) as error:
        layers.batch_norm(x, axis=axis, name="stem")
    message = str(error.value)
    assert "one number for each channel" in message
    assert "frozen=True" in message
    assert "stem" in message
    assert f"{__file__}:{line_of(error)}" in message


def test_one_number_for_each_channel_is_refused_when_it_is_run() -> None:
    net = mg.Builder()
    x = net.input("x", ("N", 3))
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    y = layers.batch_norm(x, name="stem")
    graph = net.build(y=y)
    state = graph.init(0)
    program = mg.compile(graph, state)
    with pytest.raises(mg.GraphError) as error:
        program(x=np.ones((1, 3)))
    for part in ("one number for each channel", "stem", f"{__file__}:{line}", "N = 1"):
        assert part in str(error.value)
    assert np.array_equal(state["stem.running_var"], np.ones(3))
    assert program(x=np.array([[1.0, 2, 3], [3, 2, 1]]))["y"].shape == (2, 3)  # and the program goes on


def line_of(error: pytest.ExceptionInfo[BaseException]) -> int:
    """The line of this file on which the error came up."""
    return next(entry.lineno + 1 for entry in error.traceback if str(entry.path) == __file__)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [("N", 3), ("N", 3, 4, 4), (0, 3)])
def test_an_empty_batch_leaves_the_statistics_alone(shape: tuple[Any, ...], momentum: float | None) -> None:
    graph = model(shape, momentum=momentum)
    state = initial(graph, running_mean=[1, 2, 3], running_var=[4, 5, 6])
    empty = np.zeros((0, *shape[1:]))
    found = mg.compile(graph, state)(x=empty, g=empty)
    assert found["y"].shape == empty.shape
    assert state["bn.running_mean"].tolist() == [1, 2, 3]
    assert state["bn.running_var"].tolist() == [4, 5, 6]
    if momentum is None:
        assert state["bn.num_batches"] == 0


def test_an_empty_batch_has_gradients_of_zero() -> None:
    """The loss is then a sum of nothing, which no parameter moves. NaN would destroy gamma at the next step."""
    graph = model(("N", 3))
    found = mg.compile(graph, graph.init(0))(x=np.zeros((0, 3)), g=np.zeros((0, 3)))
    assert found["dx"].shape == (0, 3)
    assert found["dbeta"].tolist() == [0, 0, 0]
    assert found["dgamma"].tolist() == [0, 0, 0]


# running statistics


@pytest.mark.parametrize("unbiased", [True, False])
def test_the_running_variance_by_both_conventions(unbiased: bool) -> None:
    """Numbers small enough to be followed by hand: variance 4 of (1, 5), 8 if divided by n - 1."""
    graph = model(("N", 1), unbiased=unbiased, momentum=0.25)
    state = initial(graph, running_mean=[1], running_var=[2])
    mg.compile(graph, state)(x=[[1], [5]], g=np.zeros((2, 1)))
    assert state["bn.running_mean"].tolist() == [0.75 * 1 + 0.25 * 3]
    assert state["bn.running_var"].tolist() == [0.75 * 2 + 0.25 * (8 if unbiased else 4)]


@pytest.mark.parametrize("momentum", [0.0, 0.125, 1.0])
def test_momentum_is_the_weight_of_the_new_batch(momentum: float) -> None:
    graph = model(("N", 2), momentum=momentum)
    state = initial(graph)
    program = mg.compile(graph, state)
    mean, var = np.zeros(2), np.ones(2)
    for seed, n in enumerate((4, 7, 3)):
        x, g, _, _ = data((n, 2), seed=seed)
        program(x=x, g=g)
        mean = (1 - momentum) * mean + momentum * x.astype(np.float64).mean(0)
        var = (1 - momentum) * var + momentum * x.astype(np.float64).var(0, ddof=1)
        close(state["bn.running_mean"], mean, 8)
        close(state["bn.running_var"], var, 8)


def test_without_momentum_every_batch_counts_the_same() -> None:
    graph = model(("N", 2), momentum=None)
    state = initial(graph, running_mean=[99, 99])  # of no batches; the first one replaces it
    program = mg.compile(graph, state)
    batches = [data((n, 2), seed=n)[0] for n in (4, 0, 7, 3, 2)]
    for x in batches:
        program(x=x, g=np.zeros_like(x))
    seen = [x.astype(np.float64) for x in batches if len(x)]
    close(state["bn.running_mean"], np.mean([x.mean(0) for x in seen], axis=0), 16)
    close(state["bn.running_var"], np.mean([x.var(0, ddof=1) for x in seen], axis=0), 16)
    assert state["bn.num_batches"] == 4


def test_used_twice_it_moves_its_statistics_twice_in_order() -> None:
    net = mg.Builder()
    x, z = net.input("x", (4, 2)), net.input("z", (6, 2))
    outputs = {}
    for name, tensor in (("a", x), ("b", z)):
        with net.scope("shared", share=True):
            outputs[name] = layers.batch_norm(tensor, momentum=0.25, name="bn")
    graph = net.build(outputs)
    assert sorted(graph.variables) == [f"shared.bn.{name}" for name in ("beta", "gamma", "running_mean", "running_var")]
    state = graph.init(0)
    a, b = data((4, 2))[0].astype(np.float64), data((6, 2), seed=1)[0].astype(np.float64)
    found = mg.compile(graph, state)(x=a, z=b)
    close(found["a"], formula(a, a, np.ones(2), np.zeros(2))["y"], 8)
    close(found["b"], formula(b, b, np.ones(2), np.zeros(2))["y"], 8)
    mean, var = np.zeros(2), np.ones(2)
    for batch in (a, b):  # the other order would weigh a and b otherwise
        mean, var = 0.75 * mean + 0.25 * batch.mean(0), 0.75 * var + 0.25 * batch.var(0, ddof=1)
    close(state["shared.bn.running_mean"], mean, 8)
    close(state["shared.bn.running_var"], var, 8)

    answer = mg.compile(mg.inference(graph), state)(x=a, z=b)
    for name, batch in (("a", a), ("b", b)):
        close(answer[name], (batch - mean) / np.sqrt(var + 1e-5), 8)


def test_used_twice_without_momentum() -> None:
    net = mg.Builder()
    x, z = net.input("x", (4, 2)), net.input("z", (6, 2))
    for tensor in (x, z):
        with net.scope("shared", share=True):
            layers.batch_norm(tensor, momentum=None, name="bn")
    graph = net.build()
    state = graph.init(0)
    a, b = data((4, 2))[0], data((6, 2), seed=1)[0]
    mg.compile(graph, state)(x=a, z=b)
    assert state["shared.bn.num_batches"] == 2
    close(state["shared.bn.running_mean"], (a.astype(np.float64).mean(0) + b.astype(np.float64).mean(0)) / 2, 8)


def classifier() -> mg.Graph:
    net = mg.Builder("classifier")
    x, label = net.input("x", ("N", 4)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.linear(x, 5)))
    logits = layers.linear(h, 3)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), unused=mg.sum(x))


def test_running_statistics_survive_a_graph_pruned_to_its_loss() -> None:
    x, label = data((6, 4))[0], np.arange(6) % 3
    whole, pruned = (mg.training_step(classifier(), "loss", mg.optim.SGD(0.1)) for _ in range(2))
    pruned = pruned.prune(["loss"])
    assert list(pruned.outputs) == ["loss"]
    states = []
    for graph in (whole, pruned):
        states.append(graph.init(3))
        mg.compile(graph, states[-1])(x=x, label=label)
    assert not np.array_equal(states[0]["bn1.running_mean"], np.zeros(5))
    assert {name: a.tolist() for name, a in states[0].items()} == {name: a.tolist() for name, a in states[1].items()}


def test_an_evaluation_loss_leaves_everything_alone_and_uses_the_running_statistics() -> None:
    x, label = data((6, 4))[0], np.arange(6) % 3
    graph = mg.inference(classifier(), outputs=["loss"])
    assert not graph.updates
    state = graph.init(3)
    program = mg.compile(graph, state)
    before = {name: a.tolist() for name, a in state.items()}
    first = program(x=x, label=label)["loss"]
    assert {name: a.tolist() for name, a in state.items()} == before
    assert program(x=x, label=label)["loss"] == first
    # an example's loss is its own: the loss of all is the mean of the losses of each, even of batches of one
    alone = [program(x=x[i : i + 1], label=label[i : i + 1])["loss"] for i in range(6)]
    np.testing.assert_allclose(first, np.mean(alone), rtol=1e-6)  # eight float32 roundings


# options


@pytest.mark.parametrize(("gamma", "beta"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("frozen", [False, True])
def test_without_gamma_or_beta_they_are_one_and_zero(gamma: bool, beta: bool, frozen: bool) -> None:
    x, g, a, b = data((5, 3))
    graph = model((5, 3), gamma=gamma, beta=beta, frozen=frozen)
    names = [name for name, there in (("gamma", gamma), ("beta", beta)) if there]
    assert [v.name for v in graph.state if v.kind == "parameter"] == [f"bn.{name}" for name in names]
    given: Arrays = {"gamma": a if gamma else np.ones(3), "beta": b if beta else np.zeros(3)}
    state = initial(graph, **{name: given[name] for name in names})
    found = mg.compile(graph, state)(x=x, g=g)
    wanted = formula(x, g, given["gamma"], given["beta"])
    if frozen:  # running statistics 0 and 1
        scale = given["gamma"] / np.sqrt(1 + 1e-5)
        wanted = {
            "y": x * scale + given["beta"],
            "dx": g * scale,
            "dgamma": (g * x / np.sqrt(1 + 1e-5)).sum(0),
            "dbeta": g.sum(0),
        }
    for name in ("y", "dx", *(f"d{name}" for name in names)):
        close(found[name], wanted[name], 16)


def test_untracked_keeps_no_statistics_and_answers_by_the_batch() -> None:
    x, g, gamma, beta = data((5, 3))
    graph = model((5, 3), track=False)
    assert [variable.name for variable in graph.state] == ["bn.gamma", "bn.beta"]
    assert not graph.updates
    for prepared in (graph, mg.inference(graph)):
        found = mg.compile(prepared, initial(prepared, gamma=gamma, beta=beta))(x=x, g=g)
        close(found["y"], formula(x, g, gamma, beta)["y"], 16)
    with pytest.raises(mg.GraphError, match="statistics"):
        model((5, 3), track=False, frozen=True)


@pytest.mark.parametrize("eps", [1e-12, 1e-3, 10.0])
@pytest.mark.parametrize("scale", [0.0, -2.0, 1e-3])
def test_gamma_of_zero_or_below_and_any_eps(eps: float, scale: float) -> None:
    x, g, gamma, beta = data((6, 3, 2))
    gamma[1] = scale
    graph = model((6, 3, 2), eps=eps)
    found = mg.compile(graph, initial(graph, gamma=gamma, beta=beta))(x=x, g=g)
    wanted = formula(x, g, gamma, beta, eps=eps)
    for name in ("y", "dx", "dgamma", "dbeta"):
        close(found[name], wanted[name], 32)
    if scale == 0:
        assert (found["y"][:, 1] == beta[1]).all()
        assert (found["dx"][:, 1] == 0).all()


@pytest.mark.parametrize("eps", [1e-12, 1e-5])
def test_running_variance_of_zero(eps: float) -> None:
    x, _, gamma, beta = data((6, 3))
    graph = mg.inference(model((6, 3), eps=eps), ["y"])
    state = initial(graph, gamma=gamma, beta=beta, running_var=np.zeros(3))
    close(mg.compile(graph, state)(x=x)["y"], x / np.sqrt(eps) * gamma + beta.astype(np.float64), 0)


def test_gamma_that_is_the_deviation_and_beta_that_is_the_mean_give_the_input_back() -> None:
    x, g, _, _ = data((8, 3, 4))
    x = 3 * x + 5
    statistics = formula(x, g, np.ones(3), np.zeros(3))
    gamma, beta = np.sqrt(statistics["var"] + 1e-5), statistics["mean"]
    graph = model((8, 3, 4))
    close(mg.compile(graph, initial(graph, gamma=gamma, beta=beta))(x=x, g=g)["y"], x.astype(np.float64), 32)
    answer = mg.inference(graph, ["y"])
    state = initial(answer, gamma=gamma, beta=beta, running_mean=statistics["mean"], running_var=statistics["var"])
    close(mg.compile(answer, state)(x=x)["y"], x.astype(np.float64), 0)


@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_floats_have_statistics_in_single(dtype: str) -> None:
    """Sums of 4096 squares of 16 would overflow float16, and bfloat16 has 8 digits; y and dx are rounded to it once, at
    the end."""
    x, g, _, _ = data((4096, 2), dtype=dtype)
    x = x + x.dtype.type(16)
    gamma, beta = np.array([1.5, -0.5], np.float32), np.array([0.25, 1], np.float32)
    graph = model((4096, 2), dtype)
    assert {v.value.type.dtype for v in graph.state} == {"float32"}
    state = initial(graph, gamma=gamma, beta=beta)
    found = mg.compile(graph, state)(x=x, g=g)
    wanted = formula(x, g, gamma, beta)
    assert [found[name].dtype.name for name in ("y", "dx", "dgamma")] == [dtype, dtype, "float32"]
    close(found["y"], wanted["y"], 0, units=1)
    close(found["dx"], wanted["dx"], 0, units=1)
    close(found["dgamma"], wanted["dgamma"], 64)  # rows of 4096 random signs: the sum's error grows as the square root
    close(state["bn.running_mean"], 0.1 * wanted["mean"], 64)
    close(state["bn.running_var"], 0.9 + 0.1 * wanted["unbiased"], 64)


def test_nan_and_infinity_stay_in_their_channel_and_are_seen() -> None:
    x, g, gamma, beta = data((4, 3))
    x[1, 0], x[2, 1] = np.nan, np.inf
    graph = model((4, 3))
    state = initial(graph, gamma=gamma, beta=beta)
    found = mg.compile(graph, state)(x=x, g=g)
    assert np.isnan(found["y"][:, :2]).all()
    assert np.isnan(found["dx"][:, :2]).all()
    assert np.isfinite(found["y"][:, 2]).all()
    assert np.isfinite(found["dx"][:, 2]).all()
    assert np.isnan(state["bn.running_mean"][0])
    assert np.isfinite(state["bn.running_mean"][2])


# in a network


def test_gradients_mix_samples() -> None:
    """The loss reads only y[0], yet every sample has a gradient, and they add up to 0: moving all does nothing."""
    x, _, gamma, beta = data((4, 3), dtype="float64")
    g = np.zeros((4, 3))
    g[0] = 1.0
    for frozen in (False, True):
        graph = model((4, 3), "float64", frozen=frozen)
        dx = mg.compile(graph, initial(graph, gamma=gamma, beta=beta))(x=x, g=g)["dx"]
        assert (dx[1:] != 0).all() == (not frozen)
        assert np.allclose(dx.sum(0), 0, atol=1e-14) == (not frozen)  # float64, four numbers of order 1


@pytest.mark.parametrize("axis", [1, -1])
def test_a_bias_in_front_moves_only_the_running_mean(axis: int) -> None:
    shape = (4, 3, 5, 5) if axis == 1 else (4, 5, 5, 3)
    layout = "NCHW" if axis == 1 else "NHWC"
    rng = np.random.default_rng(0)
    x, bias = rng.normal(size=shape).astype("float64"), np.array([3.0, -1.0])
    found, states = [], []
    for with_bias in (False, True):
        net = mg.Builder()
        given = net.input("x", shape, "float64")
        h = layers.conv2d(given, 2, 3, layout=layout, bias=with_bias, name="conv")
        y = layers.batch_norm(h, axis=axis, name="bn")
        wrt = [given, net.tensor("conv.weight"), *([net.tensor("conv.bias")] if with_bias else [])]
        graph = net.build({"y": y, **{f"d{t.name}": d for t, d in zip(wrt, mg.gradient(mg.sum(y * y * y), wrt))}})
        states.append(graph.init(5))
        if with_bias:
            states[-1]["conv.bias"] = bias
        found.append(mg.compile(graph, states[-1])(x=x))
    # float64 sums of 36 numbers of order 10
    for name in found[0]:
        np.testing.assert_allclose(
            found[1][name], found[0][name], rtol=0, atol=1e-12 * (1 + np.abs(found[0][name]).max())
        )
    np.testing.assert_allclose(found[1]["dconv.bias"], [0, 0], rtol=0, atol=1e-11)
    np.testing.assert_allclose(states[1]["bn.running_mean"] - states[0]["bn.running_mean"], 0.1 * bias, rtol=1e-12)
    np.testing.assert_allclose(states[1]["bn.running_var"], states[0]["bn.running_var"], rtol=1e-12)


def normal(x: np.ndarray) -> np.ndarray:
    """Training batch norm of x (N, C) with gamma 1 and beta 0."""
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


ORDERS: dict[str, tuple[Callable[[mg.Tensor], mg.Tensor], Callable[[np.ndarray], np.ndarray]]] = {
    "first layer": (layers.batch_norm, normal),
    "before the activation": (lambda x: mg.tanh(layers.batch_norm(x * 2.0)), lambda x: np.tanh(normal(2 * x))),
    "after the activation": (lambda x: layers.batch_norm(mg.tanh(x * 2.0)), lambda x: normal(np.tanh(2 * x))),
    "twice": (lambda x: layers.batch_norm(mg.sin(layers.batch_norm(x))), lambda x: normal(np.sin(normal(x)))),
    "and around it": (lambda x: x * x + layers.batch_norm(x), lambda x: x * x + normal(x)),
}


@pytest.mark.parametrize("order", ORDERS)
def test_first_and_second_derivatives_wherever_it_stands(order: str) -> None:
    """Against central differences: of the value for the first derivative, of the first derivative for the second."""
    ours, theirs = ORDERS[order]
    net = mg.Builder()
    x, g, v = (net.input(name, (5, 3), "float64") for name in ("x", "g", "v"))
    y = ours(x)
    dx = mg.gradient(mg.sum(y * g), [x])[0]
    second = mg.gradient(mg.sum(dx * v), [x, g])
    program = mg.compile(graph := net.build(y=y, dx=dx, dxx=second[0], dxg=second[1]), graph.init(0))
    at, weights, direction = np.random.default_rng(2).normal(size=(3, 5, 3))
    found = program(x=at, g=weights, v=direction)
    np.testing.assert_allclose(found["y"], theirs(at), rtol=0, atol=1e-13)
    # differences over 1e-5 are right to its square times the third derivative, of order 10
    first = differences(lambda x: float((theirs(x) * weights).sum()), [at])[0]
    np.testing.assert_allclose(found["dx"], first, rtol=0, atol=1e-7)
    value = lambda x, g: float((program(x=x, g=g, v=direction)["dx"] * direction).sum())
    dxx, dxg = differences(value, [at, weights])
    np.testing.assert_allclose(found["dxx"], dxx, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found["dxg"], dxg, rtol=0, atol=1e-7)


@pytest.mark.parametrize("frozen", [False, True])
def test_second_derivatives_with_respect_to_gamma(frozen: bool) -> None:
    """dx is linear in gamma: its derivative along gamma is dx at gamma = 1, whatever gamma is."""
    net = mg.Builder()
    x, g, v = (net.input(name, (2, 3, 4), "float64") for name in ("x", "g", "v"))
    y = layers.batch_norm(x, frozen=frozen, name="bn")
    gamma, beta = net.parameters
    dx = mg.gradient(mg.sum(y * g), [x])[0]
    mixed = mg.gradient(mg.sum(dx * v), [gamma])[0]
    graph = net.build(dx=dx, mixed=mixed)
    state = initial(graph, running_var=[0.5, 1, 2])
    program = mg.compile(graph, state)
    given = dict(zip("xgv", np.random.default_rng(0).normal(size=(3, 2, 3, 4))))
    at_one = program(**given)["dx"]
    state["bn.gamma"] = np.array([0.5, -3.0, 0.0])
    np.testing.assert_allclose(program(**given)["mixed"], (at_one * given["v"]).sum((0, 2)), rtol=0, atol=1e-13)
    with pytest.raises(mg.GraphError, match="does not depend"):
        mg.gradient(mg.sum(dx * v), [beta])


def test_a_loss_of_the_batchs_own_statistics() -> None:
    """The op reports mean and variance; their gradients, and those through y, meet in x."""
    x, g, _, _ = data((5, 2), dtype="float64")
    net = mg.Builder()
    given, weights = net.input("x", (5, 2), "float64"), net.input("g", (5, 2), "float64")
    y, mean, var = mg.batch_norm(given, np.array([2.0, -1.0]), np.array([0.5, 0.0]))
    dx = mg.gradient(mg.sum(y * weights) + mg.sum(mean * mean) + mg.sum(mg.sin(var)), [given])[0]

    def loss(x: np.ndarray) -> float:
        y = normal(x) * [2.0, -1.0] + [0.5, 0.0]
        return float((y * g).sum() + (x.mean(0) ** 2).sum() + np.sin(x.var(0)).sum())

    found = mg.compile(graph := net.build(dx=dx), graph.init(0))(x=x, g=g)["dx"]
    np.testing.assert_allclose(found, differences(loss, [x])[0], rtol=0, atol=1e-8)  # as above


def test_the_gradient_of_a_variance_does_not_know_that_the_mean_was_rounded() -> None:
    """At 1e4 +- 0.1 it is, by up to 5e-4: where that is left, 2/n sum((x - mean) dx) is off by half a percent."""
    x = (1e4 + 0.1 * data((64, 2))[0]).astype("float32")
    net = mg.Builder()
    given = net.input("x", (64, 2))
    _, _, var = mg.batch_norm(given, np.ones(2, "float32"), np.zeros(2, "float32"))
    dx = mg.gradient(mg.sum(var), [given])[0]
    found = mg.compile(graph := net.build(dx=dx), graph.init(0))(x=x)["dx"]
    wide = x.astype("float64")
    wanted = 2 / 64 * (wide - wide.mean(0))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


def test_training_moves_parameters_and_statistics_together() -> None:
    """Five steps of SGD on one batch norm against the same in NumPy, float64."""
    net = mg.Builder()
    x, target = net.input("x", ("N", 3), "float64"), net.input("target", ("N", 3), "float64")
    error = layers.batch_norm(x, name="bn") - target
    step = mg.training_step(net.build(loss=mg.mean(error * error)), "loss", mg.optim.SGD(0.25))
    state = initial(step)
    program = mg.compile(step, state)
    gamma, beta, mean, var = np.ones(3), np.zeros(3), np.zeros(3), np.ones(3)
    for seed in range(5):
        batch, wanted, _, _ = data((6, 3), dtype="float64", seed=seed)
        loss = program(x=batch, target=wanted)["loss"]
        error_ = formula(batch, batch, gamma, beta)["y"] - wanted
        np.testing.assert_allclose(loss, (error_**2).mean(), rtol=1e-12)  # float64, 18 numbers
        f = formula(batch, 2 * error_ / 18, gamma, beta)
        gamma, beta = gamma - 0.25 * f["dgamma"], beta - 0.25 * f["dbeta"]
        mean, var = 0.9 * mean + 0.1 * f["mean"], 0.9 * var + 0.1 * f["unbiased"]
        for name, wanted_ in (("gamma", gamma), ("beta", beta), ("running_mean", mean), ("running_var", var)):
            np.testing.assert_allclose(state[f"bn.{name}"], wanted_, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda x: layers.batch_norm(x, axis=7), "axis 7"),
        (lambda x: layers.batch_norm(x, axis=0), "channels"),
        (lambda x: layers.batch_norm(x, eps=-1.0), "eps"),
        (lambda x: mg.batch_norm(x, np.ones(4), np.ones(4)), "channels"),
        (lambda x: mg.batch_norm_inference(x, *(np.ones(n) for n in (3, 3, 3, 2))), "channels"),
        (lambda x: layers.batch_norm(mg.sum(x, 1)), "batch and channels"),
        (lambda x: layers.batch_norm(mg.cast(x, "int64")), "float"),
    ],
)
def test_what_does_not_fit_is_refused(build: Callable[[mg.Tensor], mg.Tensor], message: str) -> None:
    net = mg.Builder()
    with pytest.raises(mg.GraphError, match=message):
        build(net.input("x", ("N", 3)))


def test_gradients_inside_a_model_are_not_frozen_by_mistake() -> None:
    """They use the batch's statistics; with the running ones in their place they would be wrong without a word."""
    net = mg.Builder()
    x = net.input("x", ("N", 3))
    score = mg.sum(mg.square(layers.batch_norm(x)))
    model = net.build(score=score, slope=mg.gradient(score, [x])[0])
    with pytest.raises(mg.GraphError, match=r"computes with the batch statistics of bn1\.batch_norm"):
        mg.inference(model)
    frozen = mg.Builder.extending(mg.inference(model, outputs=["score"]))
    again = frozen.build(slope=mg.gradient(frozen.tensor("score"), [frozen.tensor("x")])[0])
    state = model.init()
    state["bn1.running_var"] = np.array([4.0, 1.0, 0.25])
    found = mg.compile(again, state)(x=np.ones((2, 3)))["slope"]
    np.testing.assert_allclose(found, np.tile(2 / np.array([4.0, 1.0, 0.25]), (2, 1)), rtol=1e-4)  # eps is 1e-5 of 0.25
