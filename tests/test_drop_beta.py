"""Betas of batch norms before other batch norms: which go, which stay and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.core.builder import Builder, Tensor
from minigraph.core.ir import Graph, needed
from minigraph.core.pipeline import Optimized, run
from minigraph.passes import drop_beta
from rules import number, prove

Build = Callable[[Builder], Mapping[str, Tensor]]


def graph(build: Build) -> Graph:
    net = Builder("net")
    return net.build(build(net))


def dropped(before: Graph) -> Optimized:
    text = str(before)
    done = run((drop_beta.PASS,), before)
    assert str(before) == text
    assert run((drop_beta.PASS,), done.graph).graph is done.graph, "the second time something changed"
    return done


def gone(before: Graph, after: Graph) -> set[str]:
    """Parameters that had an effect on the outputs, and no longer have."""
    a, b = (needed(g.nodes, g.outputs.values())[1] for g in (before, after))
    return {v.name for v in before.state if v.value in a - b}


def bn(x: Tensor, name: str, axis: int = 1, **options: bool) -> Tensor:
    return layers.batch_norm(x, axis=axis, eps=0.5, name=name, **options)


def first(net: Builder, *shape: int, axis: int = 1) -> Tensor:
    return bn(net.input("x", shape or (2, 2, 3)), "first", axis)


def conv(x: Tensor, channels: int = 3, window: int = 1, name: str = "conv", **options: object) -> Tensor:
    build = layers.conv1d if x.rank == 3 else layers.conv2d
    return build(x, channels, window, name=name, bias=False, **options)  # type: ignore[arg-type]


def last(x: Tensor, axis: int = 1) -> Mapping[str, Tensor]:
    return {"y": bn(x, "last", axis)}


GOES: dict[str, Build] = {
    "convolution": lambda net: last(conv(first(net))),
    "convolution with a window": lambda net: last(conv(first(net), window=2)),
    "convolution in two dimensions": lambda net: last(conv(first(net, 1, 2, 2, 3), window=2)),
    "grouped": lambda net: last(conv(first(net, 2, 4, 1), 6, groups=2)),
    "depthwise, two of all": lambda net: last(conv(first(net, 2, 2, 2), 2, groups=2)),
    "channels last": lambda net: last(conv(first(net, 1, 2, 1, 2, axis=-1), layout="NHWC"), -1),
    "dense": lambda net: last(layers.linear(first(net, 3, 2), 4, bias=False)),
    "dense, L = F": lambda net: last(layers.linear(first(net, 2, 2, 2, axis=2), 2, bias=False), 2),
    "pools and places": lambda net: last(conv(mg.transpose(mg.avg_pool(first(net), 2), (0, 2, 1)), layout="NLC"), 2),
    "nothing in between": lambda net: last(first(net)),
    "residual": lambda net: residual(net),
    "batch norm of one for all": lambda net: last(conv(first(net, 3, 1, 2))),
}


def residual(net: Builder) -> Mapping[str, Tensor]:
    """As in MobileNetV2: the sum is read by a convolution and by the next sum."""
    h = first(net, 2, 2, 2)
    h = h + bn(conv(mg.tanh(bn(conv(h, name="conv1"), "inner")), 2, name="conv2"), "middle")
    return last(conv(h))


@pytest.mark.parametrize("name", GOES)
def test_it_goes(name: str) -> None:
    before = graph(GOES[name])
    after = dropped(before).graph
    assert gone(before, after) == {"first.beta"} | ({"middle.beta"} if name == "residual" else set())
    assert [v.name for v in after.updates] == [v.name for v in before.updates]
    prove(before, after, {})


def also_output(net: Builder) -> Mapping[str, Tensor]:
    h = first(net)
    return {**last(conv(h)), "h": h}


def weight_from_the_batch(net: Builder) -> Mapping[str, Tensor]:
    return last(mg.conv(first(net), net.input("w", (3, 2, 1))))


STAYS: dict[str, tuple[Build, str]] = {
    "padding": (lambda net: last(conv(first(net), window=3, padding=1)), "windows of conv.conv reach into padding"),
    "padding on one side": (
        lambda net: last(conv(first(net), window=2, padding=((0, 1),))),
        "windows of conv.conv reach into padding",
    ),
    "transposed": (
        lambda net: last(layers.conv_transpose1d(first(net), 2, 1, bias=False, name="up")),
        "one shift comes out of up.conv_transpose as several",
    ),
    "relu behind": (
        lambda net: last(mg.relu(conv(first(net)))),
        "no shift passes through relu",
    ),
    "an output": (also_output, "first.batch_norm.y is output 'h'"),
    "a weight that moves": (weight_from_the_batch, "no factor of conv is frozen"),
    "other channels": (
        lambda net: last(layers.linear(first(net, 2, 2, 2), 2, bias=False, name="dense"), 2),
        "its channels, axis 1, are not the input channels of dense.matmul, axis 2",
    ),
    "no batch norm": (
        lambda net: {"y": layers.layer_norm(conv(first(net)), name="norm")},
        "norm.layer_norm is no batch norm",
    ),
    "running statistics": (
        lambda net: {"y": bn(conv(first(net)), "last", frozen=True)},
        "last.batch_norm_inference uses running statistics",
    ),
    "a matrix for each sample": (
        lambda net: last(mg.matmul(number(net, "w", 3, 2, 2), first(net, 3, 2, 2))),
        "one shift comes out of matmul as several",
    ),
    "the end": (lambda net: {"y": conv(first(net))}, "conv.conv is output 'y'"),
}


@pytest.mark.parametrize("name", STAYS)
def test_it_stays(name: str) -> None:
    build, why = STAYS[name]
    before = graph(build)
    done = dropped(before)
    assert done.graph is before
    sentences = [r.why for r in done.refused if r.rule == "beta-is-a-bias"]
    assert len(sentences) == 1
    assert sentences[0].endswith(why), sentences


QUIET: dict[str, Build] = {
    "relu": lambda net: last(conv(mg.relu(first(net)))),
    "no beta": lambda net: last(conv(bn(net.input("x", (2, 2, 3)), "first", beta=False))),
    "an output": lambda net: {"y": first(net)},
    "a beta that moves": lambda net: last(
        conv(mg.batch_norm(net.input("x", (2, 2, 3)), number(net, "gamma", 2), net.input("beta", (2,)))[0])
    ),
}


@pytest.mark.parametrize("name", QUIET)
def test_where_there_is_nothing_to_drop_there_is_nothing_to_say(name: str) -> None:
    before = graph(QUIET[name])
    done = dropped(before)
    assert done.graph is before
    assert done.refused == ()


def test_the_second_running_mean_gets_the_shift_back() -> None:
    net = Builder("net")
    h = bn(net.input("x", ("N", 2, 3), "float64"), "first")
    model = net.build(y=bn(conv(h), "last"))
    state, x = model.init(), np.random.default_rng(0).normal(size=(4, 2, 3))
    state["first.beta"] = np.array([5.0, -7.0])
    found = []
    for g in (model, dropped(model).graph):
        mine = state.copy()
        y = mg.compile(g, mine, pipeline=())(x=x)["y"]
        found.append((y, *(mine[name] for name in state if "running" in name)))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    assert np.abs(found[1][-2]).max() > 0.3
