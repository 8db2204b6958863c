"""A trained state moves to the model without redundant biases and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.core.ir import Graph
from minigraph.core.state import State
from rules import number


def net_of(build: Callable[[mg.Builder, mg.Tensor], mg.Tensor], dtype: str = "float64") -> Graph:
    """A classifier of images (N, 2, 6, 6)."""
    net = mg.Builder("net")
    h = build(net, net.input("x", ("N", 2, 6, 6), dtype))
    logits = layers.linear(mg.global_avg_pool(mg.relu(h)), 3, name="head")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, net.input("label", ("N",), "int64")))


def plain(net: mg.Builder, x: mg.Tensor) -> mg.Tensor:
    """A bias that goes down a pool and a sum, one that a ReLU keeps, and a beta."""
    h = mg.relu(layers.batch_norm(mg.max_pool(layers.conv2d(x, 4, 3, padding=1), 2)))
    h = layers.batch_norm(h + layers.conv2d(h, 4, 3, padding=1))
    h = layers.batch_norm(mg.relu(layers.conv2d(h, 3, 1)))
    return layers.batch_norm(layers.conv2d(h, 3, 1))


GONE = ["conv1.bias", "conv2.bias", "bn3.beta", "conv4.bias"]


def batch(seed: int, n: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(n, 2, 6, 6)), "label": rng.integers(0, 3, n)}


def trained(model: Graph, steps: int = 5, still: tuple[str, ...] = ("bn3.beta",)) -> State:
    """A state with biases other than 0, but for those of `still`, after some steps."""
    state, rng = model.init(seed=1), np.random.default_rng(2)
    for name in state:
        if name.endswith((".bias", ".beta")) and name not in still:
            state[name] = rng.normal(size=state[name].shape)
    train = mg.compile(mg.training_step(model, "loss", mg.optim.SGD(0.05, momentum=0.9)), state)
    for i in range(steps):
        train(**batch(i))
    return state


def answer(model: Graph, state: State) -> np.ndarray:
    return mg.compile(mg.inference(model, ["logits"]), state)(x=batch(99)["x"])["logits"]


def same(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_what_goes_and_what_stays() -> None:
    model = net_of(plain)
    text = str(model)
    other = mg.without_biases(model)
    assert str(model) == text
    assert [v.name for v in other.gone] == GONE
    assert [v.name for v in other.model.state] == [v.name for v in model.state if v.name not in GONE]
    assert [v.name for v in other.model.inputs] == ["x", "label"]
    assert list(other.model.outputs) == ["logits", "loss"]
    assert not other.stays
    again = mg.without_biases(other.model)
    assert again.gone == ()
    assert len(again.model.nodes) == len(other.model.nodes)


def test_evaluation_agrees_there_and_back() -> None:
    model = net_of(plain)
    state = trained(model)
    before = {name: array.copy() for name, array in state.items()}
    other = mg.without_biases(model)
    moved = other.state(state)
    same(answer(other.model, moved), answer(model, state))
    back = other.back(moved)
    assert set(back) == set(state)
    assert all(not back[name].any() for name in GONE)
    same(answer(model, back), answer(model, state))
    assert all(np.array_equal(state[name], before[name]) for name in before), "the state given has changed"
    assert not np.allclose(moved["bn1.running_mean"], state["bn1.running_mean"], atol=0.1)
    assert np.array_equal(moved["bn1.running_var"], state["bn1.running_var"])


def test_training_goes_on_as_it_would_have() -> None:
    model = net_of(plain)
    other = mg.without_biases(model)
    here = trained(model, still=("bn3.beta", "conv4.bias"))
    there = other.state(here)
    assert "optimizer.conv1.weight.velocity" in there
    programs = [
        mg.compile(mg.training_step(g, "loss", mg.optim.SGD(0.05, momentum=0.9)), s)
        for g, s in ((model, here), (other.model, there))
    ]
    assert not programs[1].created
    for i in range(20):
        losses = [program(**batch(100 + i))["loss"] for program in programs]
        same(*losses)
    same(answer(other.model, there), answer(model, here))
    for name in there:
        if "running_mean" not in name:
            same(there[name], here[name])


def test_slots_of_what_is_gone_go_with_it() -> None:
    model = net_of(plain)
    state = model.init()
    step = mg.training_step(model, "loss", mg.optim.Adam(0.1), without=("drop-bias", "drop-beta"))
    mg.compile(step, state)(**batch(0))
    assert "optimizer.conv1.bias.m" in state
    moved = mg.without_biases(model).state(state)
    assert not [name for name in moved if any(gone in name for gone in GONE)]
    assert "optimizer.conv3.bias.m" in moved
    assert moved["optimizer.step"] == 1


def test_a_shared_running_mean_with_other_shifts_keeps_its_biases() -> None:
    def build(net: mg.Builder, x: mg.Tensor) -> mg.Tensor:
        h = mg.relu(layers.batch_norm(layers.conv2d(x, 3, 1, name="free"), name="own"))
        parts = []
        for name in ("conv1", "conv2"):
            with net.scope("twice", share=True):
                parts.append(layers.batch_norm(layers.conv2d(h, 3, 1, name=name), name="bn"))
        return mg.maximum(*parts)

    model = net_of(build)
    other = mg.without_biases(model)
    assert [v.name for v in other.gone] == ["free.bias"]
    assert other.stays == {
        "twice.bn.running_mean": "twice.bn.running_mean averages what 2 batch norms see, with other biases"
    }
    state = trained(model)
    same(answer(other.model, other.state(state)), answer(model, state))


def test_a_layer_used_twice_loses_its_bias() -> None:
    def build(net: mg.Builder, x: mg.Tensor) -> mg.Tensor:
        parts = []
        for part in (x, mg.tanh(x)):
            with net.scope("twice", share=True):
                parts.append(layers.batch_norm(layers.conv2d(part, 3, 1)))
        return mg.maximum(*parts)

    model = net_of(build)
    other = mg.without_biases(model)
    assert [v.name for v in other.gone] == ["twice.conv1.bias"]
    assert not other.stays
    here = trained(model)
    there = other.state(here)
    same(answer(other.model, there), answer(model, here))
    for g, s in ((model, here), (other.model, there)):
        train = mg.compile(mg.training_step(g, "loss", mg.optim.SGD(0.1)), s)
        for i in range(3):
            train(**batch(i))
    same(answer(other.model, there), answer(model, here))


def test_a_bias_that_another_layer_reads_stays() -> None:
    def build(net: mg.Builder, x: mg.Tensor) -> mg.Tensor:
        b = number(net, "shared", 3, 1, 1, dtype="float64")
        h = layers.batch_norm(layers.conv2d(x, 3, 1, bias=False) + b)
        return mg.relu(layers.conv2d(h, 3, 3, padding=1, bias=False) + b)

    model = net_of(build)
    other = mg.without_biases(model)
    assert other.gone == ()
    assert "shared" in other.model.variables
    state = trained(model, still=())
    moved = other.state(state)
    assert all(np.array_equal(moved[name], state[name]) for name in state)
    same(answer(other.model, moved), answer(model, state))


def test_a_running_mean_that_is_read_elsewhere_stays_what_it_is() -> None:
    net = mg.Builder("net")
    h = layers.batch_norm(layers.conv2d(net.input("x", ("N", 2, 3, 3), "float64"), 3, 1))
    model = net.build(y=h, mean=net.tensor("bn1.running_mean") * 2.0)
    other = mg.without_biases(model)
    assert other.gone == ()
    assert other.stays == {"bn1.running_mean": "bn1.running_mean is also read by mul"}


def test_a_batch_norm_without_statistics_needs_none() -> None:
    model = net_of(lambda net, x: layers.batch_norm(layers.conv2d(x, 3, 1), track=False))
    other = mg.without_biases(model)
    assert [v.name for v in other.gone] == ["conv1.bias"]
    state = trained(model)
    assert set(other.state(state)) == set(state) - {"conv1.bias"}
    assert set(other.back(other.state(state))) == set(state)


def test_a_model_without_redundant_biases_stays_the_same() -> None:
    model = net_of(lambda net, x: layers.batch_norm(layers.conv2d(x, 3, 1, bias=False)))
    other = mg.without_biases(model)
    assert other.model.nodes == model.nodes
    assert other.gone == ()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_states_keep_their_dtypes(dtype: str) -> None:
    model = net_of(lambda net, x: layers.batch_norm(layers.conv2d(x, 3, 1)), dtype)
    other = mg.without_biases(model)
    state = model.init()
    state["conv1.bias"] = [1.0, 2.0, -3.0]
    moved = other.state(state)
    assert moved["bn1.running_mean"].tolist() == [-1.0, -2.0, 3.0]
    assert {name: moved[name].dtype for name in moved} == {name: state[name].dtype for name in moved}
