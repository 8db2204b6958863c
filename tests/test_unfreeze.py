"""The graph that answers, made the graph that is trained again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.core.builder import Builder, Tensor
from minigraph.core.ir import Graph


def network(**norm: object) -> Graph:
    """Two convolutions with batch norms, a linear layer, and a loss."""
    net = Builder("small")
    x, label = net.input("x", ("N", 2, 4, 4)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.conv2d(x, 3, 3, padding=1, bias=False), **norm))  # type: ignore[arg-type]
    with net.scope("head"):
        h = mg.relu(layers.batch_norm(layers.conv2d(h, 4, 1, bias=False), **norm))  # type: ignore[arg-type]
        logits = layers.linear(mg.flatten(h), 5)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def batch(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(1, 3, (6, 2, 4, 4)).astype("f4"), "label": rng.integers(0, 5, 6)}


def frozen(**norm: object) -> Graph:
    return mg.inference(network(**norm))


def with_statistics(build: Callable[[Builder, Tensor], tuple[Tensor, Tensor]]) -> Graph:
    """One frozen batch norm, called norm, over the mean and the variance that `build` makes."""
    net = Builder()
    x = net.input("x", ("N", 3, 2))
    gamma, beta = (net.parameter(name, (3,), mg.init.ones) for name in ("gamma", "beta"))
    mean, var = build(net, beta)
    with net.scope("norm"):
        y = mg.batch_norm_inference(x, gamma, beta, mean, var)
    return net.build(y=y, shifted=y + 1.0)


def state_of(net: Builder, *names: str) -> list[Tensor]:
    return [net.variable(name, (3,), mg.init.ones) for name in names]


def test_freezing_it_again_gives_the_graph_back() -> None:
    graph = frozen()
    assert str(mg.freeze(mg.unfreeze(graph))) == str(graph)


def test_it_trains_as_the_network_before_it_was_frozen() -> None:
    """Step by step, parameters and running statistics."""
    model = network()
    again = mg.unfreeze(mg.inference(model))
    one, other = model.init(3), model.init(3)
    step = lambda graph, state: mg.compile(mg.training_step(graph, "loss", mg.optim.SGD(0.1)), state)
    first, second = step(model, one), step(again, other)
    for number in range(3):
        assert first(**batch(number))["loss"] == second(**batch(number))["loss"]
    assert not np.array_equal(one["bn1.running_var"], np.ones(3))
    for name in model.variables:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_momentum_and_bias_are_those_that_are_given() -> None:
    again = mg.unfreeze(frozen(), momentum=0.25, unbiased=False)
    expected, state, found = mg.compile(network(momentum=0.25, unbiased=False), a := network().init()), None, None
    expected(**batch())
    state = network().init()
    found = mg.compile(again, state)
    found(**batch())
    np.testing.assert_array_equal(a["bn1.running_var"], state["bn1.running_var"])
    np.testing.assert_array_equal(a["bn1.running_mean"], state["bn1.running_mean"])


@pytest.mark.parametrize(
    ("norms", "moved"),
    [
        ("*", {"bn1", "head.bn1"}),
        ("bn1", {"bn1"}),
        ("head", {"head.bn1"}),
        (["!head.*"], {"bn1"}),
        (["*", "!bn1"], {"head.bn1"}),
        ("bn1.batch_norm.y", {"bn1"}),
    ],
)
def test_the_others_stay_frozen(norms: str, moved: set[str]) -> None:
    graph = frozen()
    again = mg.unfreeze(graph, norms)
    assert {value.name.rpartition(".")[0] for value in again.updates} == moved
    ops = [node.op.name for node in again.nodes]
    assert (ops.count("batch_norm"), ops.count("batch_norm_inference")) == (len(moved), 2 - len(moved))
    assert str(mg.freeze(again)) == str(graph)


def test_a_norm_that_is_applied_twice_moves_its_statistics_twice() -> None:
    def build() -> Graph:
        net = Builder()
        total = None
        for name in ("x", "z"):
            with net.scope("tower", share=True):
                y = layers.batch_norm(net.input(name, ("N", 3)), name="bn")
            total = y if total is None else total + y
        assert total is not None
        return net.build(y=total)

    model = build()
    again = mg.unfreeze(mg.freeze(model))
    assert len(again.updates) == 2
    report = mg.verify(model, again)
    assert report.same, report


def test_names_and_the_interface_stay() -> None:
    graph = frozen()
    again = mg.unfreeze(graph)
    assert [v.name for v in again.inputs] == [v.name for v in graph.inputs]
    assert list(again.outputs) == list(graph.outputs)
    assert list(again.variables) == list(graph.variables)
    assert str(mg.parse(str(again))) == str(again)


def test_statistics_that_were_parameters_are_no_longer_trained() -> None:
    def parameters(net: Builder, beta: Tensor) -> tuple[Tensor, Tensor]:
        mean, var = (net.parameter(name, (3,), mg.init.ones) for name in ("mean", "var"))
        return mean, var

    again = mg.unfreeze(with_statistics(parameters))
    kinds = {name: variable.kind for name, variable in again.variables.items()}
    assert kinds == {"gamma": "parameter", "beta": "parameter", "mean": "statistic", "var": "statistic"}


def test_statistics_that_are_no_state_are_named_with_what_to_leave_out() -> None:
    constants = lambda net, beta: (net.constant(np.zeros(3, "f4")), net.constant(np.ones(3, "f4")))
    with pytest.raises(mg.GraphError, match=r"constant is computed, and only state can be updated") as error:
        mg.unfreeze(with_statistics(constants))
    assert 'norms=["!norm.batch_norm_inference"]' in str(error.value)


def test_a_statistic_that_something_else_reads_would_change_it() -> None:
    beta_is_mean = lambda net, beta: (beta, *state_of(net, "var"))
    with pytest.raises(mg.GraphError, match="running statistic beta is read also as another input of it"):
        mg.unfreeze(with_statistics(beta_is_mean))
    one = lambda net, beta: (s := state_of(net, "both")[0], s)
    with pytest.raises(mg.GraphError, match="running mean and variance are one value, both"):
        mg.unfreeze(with_statistics(one))

    def shown(net: Builder, beta: Tensor) -> tuple[Tensor, Tensor]:
        mean, var, other = state_of(net, "mean", "var", "other")
        net.update(other, other + mean)
        return mean, var

    with pytest.raises(mg.GraphError, match="running statistic mean is read also by add, which would change"):
        mg.unfreeze(with_statistics(shown))


def test_a_statistic_that_is_updated_already_is_refused() -> None:
    def moving(net: Builder, beta: Tensor) -> tuple[Tensor, Tensor]:
        mean, var = state_of(net, "mean", "var")
        net.update(var, var * 2.0)
        return mean, var

    with pytest.raises(mg.GraphError, match="running statistic var is updated already"):
        mg.unfreeze(with_statistics(moving))


def test_of_a_norm_that_stays_frozen_the_statistics_cannot_move_either() -> None:
    net = Builder()
    x = net.input("x", ("N", 3))
    state = [net.variable(name, (3,), mg.init.ones) for name in ("gamma", "beta", "mean", "var")]
    for name in ("a", "b"):
        with net.scope(name):
            x = mg.batch_norm_inference(x, *state)
    graph = net.build(y=x)
    assert len(mg.unfreeze(graph).updates) == 2
    with pytest.raises(mg.GraphError, match=r"mean is read also by b\.batch_norm_inference"):
        mg.unfreeze(graph, "a")


def test_what_cannot_normalize_by_its_batch_says_so() -> None:
    net = Builder()
    x = net.input("x", (1, 3))
    with net.scope("norm"):
        y = mg.batch_norm_inference(x, *(net.variable(name, (3,), mg.init.ones) for name in "abcd"))
    with pytest.raises(mg.GraphError, match=r"cannot normalize by the batch: .*one number for each channel"):
        mg.unfreeze(net.build(y=y))


def test_patterns_that_nothing_fits_and_momenta_outside_of_0_to_1() -> None:
    with pytest.raises(mg.GraphError, match=r"called like 'bn7'; there are bn1\.batch_norm\.y, "):
        mg.unfreeze(frozen(), "bn7")
    with pytest.raises(mg.GraphError, match="no batch norm is left"):
        mg.unfreeze(frozen(), ["bn1", "!bn1"])
    with pytest.raises(mg.GraphError, match=r"called like '\*'; there are none"):
        mg.unfreeze(network())
    with pytest.raises(mg.GraphError, match="momentum, the weight of a new batch, is 0 to 1, not 2"):
        mg.unfreeze(frozen(), momentum=2)
