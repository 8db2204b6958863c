"""Lowering for C: the lowered graph is the same function, in exact numbers, and has the form that kernels ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.backends.c.tuned import laid_out, serves
from minigraph.backends.groups import regrouped, weight_of
from minigraph.backends.layout import as_read, channels_last, gradient_halo, to_first, to_last, with_halos
from minigraph.backends.lower import lower, runs
from minigraph.core import proof
from minigraph.core.builder import Builder, Tensor
from minigraph.core.dim import known
from minigraph.core.evaluate import evaluate
from minigraph.core.ir import Graph
from minigraph.core.op import Example, Op
from minigraph.ops.constant import count
from minigraph.ops.conv import conv, conv_input_gradient, conv_weight_gradient

OF_IMAGES = [
    pytest.param(op, example, id=f"{op.name}-{number}")
    for op in mg.OPS.values()
    if op.images or op.expand
    for number, example in enumerate(op.examples)
]


def rng_arrays(graph: Graph, samples: proof.Samples) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: proof.concrete(sample, graph.values[name].type.dtype, rng) for name, sample in samples.items()}


def off(graph: Graph, other: Graph, arrays: dict[str, np.ndarray]) -> float:
    """The largest difference of outputs, in float64."""
    one, two = evaluate(graph, arrays), evaluate(other, arrays)
    return max(float(np.abs(np.asarray(one[n], "float64") - two[n]).max(initial=0.0)) for n in one)


@pytest.mark.parametrize(("op", "example"), OF_IMAGES)
def test_a_lowered_op_is_the_same_function(op: Op, example: Example) -> None:
    graph, samples = proof.graph_of(op, example, "float64")
    after = channels_last(lower(graph)).check()
    assert all(runs(node.op) for node in after.nodes)
    arrays = rng_arrays(graph, samples)
    with np.errstate(all="ignore"):
        one, other = evaluate(graph, arrays), evaluate(after, arrays)
    for name, array in one.items():
        np.testing.assert_allclose(other[name], array, rtol=1e-11, atol=1e-11, equal_nan=True)


REPEATED = {
    "other numbers": lambda x, y: (mg.mse_loss(x, y), mg.mse_loss(y, x * 2.0)),
    "itself, first": lambda x, y: (mg.kl_div(x, x), mg.kl_div(x, y), mg.kl_div(y, x)),
    "itself, afterwards": lambda x, y: (mg.kl_div(x, y), mg.kl_div(y, y)),
    "other attributes": lambda x, y: (mg.mean(x, 0), mg.mean(y, 0, keepdims=True), mg.mean(x, 1), mg.mean(y, 0)),
    "one inside another": lambda x, y: (mg.std(x, 0), mg.var(y, 0), mg.std(y, 0), mg.mean(y, 0)),
    "several results": lambda x, y: (
        *mg.batch_norm(x, y[0], y[1]),
        *mg.batch_norm(y, x[0], x[1]),
        *mg.batch_norm(y, x[0], x[1], axis=0),
    ),
    "one input in common": lambda x, y: (mg.rms_norm(x, x[0]), mg.rms_norm(y, x[0])),
    "of other sizes": lambda x, y: (mg.logsumexp(x, 0), mg.logsumexp(y[:3], 0), mg.logsumexp(y, 0)),
}


@pytest.mark.parametrize("name", REPEATED)
def test_an_op_that_repeats_is_expanded_for_each_of_its_inputs(name: str) -> None:
    """What one expansion was is built again of others."""
    net = Builder()
    x, y = (net.input(name, (5, 5), "float64") for name in "xy")
    graph = net.build({f"out{i}": tensor for i, tensor in enumerate(REPEATED[name](x, y))})
    after = lower(graph).check()
    names = [value.name for node in after.nodes for value in node.outputs]
    assert len(set(names)) == len(names)
    assert all(runs(node.op) for node in after.nodes)
    rng = np.random.default_rng(2)
    assert off(graph, after, {name: rng.uniform(0.5, 2.0, (5, 5)) for name in "xy"}) < 1e-14


TURNED = {
    "a gradient to a weight": (lambda x, y: mg.transpose(mg.matmul(mg.transpose(x), y)), ["transpose", "matmul"]),
    "of two matrices": (lambda x, y: mg.transpose(mg.matmul(x, y)), ["transpose", "transpose", "matmul"]),
    "of turned ones": (lambda x, y: mg.transpose(mg.matmul(mg.transpose(x), mg.transpose(y))), ["matmul"]),
}


@pytest.mark.parametrize("name", TURNED)
def test_a_product_is_made_as_it_is_read(name: str) -> None:
    made, ops = TURNED[name]
    net = Builder()
    x, y = (net.input(name, (5, 5), "float64") for name in "xy")
    graph = net.build(out=made(x, y))
    after = as_read(graph).check()
    assert [node.op.name for node in after.nodes] == ops
    rng = np.random.default_rng(2)
    assert off(graph, after, {name: rng.normal(size=(5, 5)) for name in "xy"}) < 1e-14


def test_products_of_many_matrices_are_made_as_they_are_read() -> None:
    net = Builder()
    x, y = net.input("x", (2, 1, 3, 4), "float64"), net.input("y", (6, 4, 5), "float64")
    graph = net.build(out=mg.transpose(mg.matmul(x, y), (0, 1, 3, 2)))
    after = as_read(graph).check()
    assert [node.op.name for node in after.nodes] == ["transpose", "transpose", "matmul"]
    rng = np.random.default_rng(2)
    assert off(graph, after, {"x": rng.normal(size=(2, 1, 3, 4)), "y": rng.normal(size=(6, 4, 5))}) < 1e-14


READ_OTHERWISE = {
    "it is given out": lambda net, product: net.build(y=mg.transpose(product), product=product),
    "it is read as it is": lambda net, product: net.build(y=mg.transpose(product), other=product * 2.0),
    "other axes are turned": lambda net, product: net.build(y=mg.transpose(product, (2, 1, 0))),
}


@pytest.mark.parametrize("name", READ_OTHERWISE)
def test_a_product_stays_where(name: str) -> None:
    net = Builder()
    shape = (3, 3, 3) if name == "other axes are turned" else (3, 3)
    graph = READ_OTHERWISE[name](net, mg.matmul(net.input("a", shape), net.input("b", shape)))
    assert as_read(graph) is graph


CONVOLUTIONS = [
    pytest.param(op, example, id=f"{op.name}-{number}")
    for op in (conv, conv_input_gradient, conv_weight_gradient)
    for number, example in enumerate(op.examples)
]


@pytest.mark.parametrize(("op", "example"), CONVOLUTIONS)
def test_padding_is_a_node(op: Op, example: Example) -> None:
    """A gradient to the input gets the zeros that it reads around g."""
    graph, samples = proof.graph_of(op, example, "float64")
    after = with_halos(channels_last(graph), lambda node: True).check()
    assert off(graph, after, rng_arrays(graph, samples)) < 1e-12
    for node in after.nodes:
        if node.op is conv_input_gradient:
            assert not any(map(any, gradient_halo(node) or []))
        else:
            assert not any(n for pair in node.attrs.get("padding", ()) for n in pair)


def gradient_at(extents: tuple[int, ...], window: tuple[int, ...], **attrs: Any) -> Graph:
    net = Builder("net")
    w = net.input("w", (3, 2, *window))
    y = conv(net.input("x", ("N", 2, *extents)), w, **attrs)
    return net.build(dx=conv_input_gradient(net.input("g", y.shape), w, extents=extents, **attrs))


@pytest.mark.parametrize(
    "graph",
    [
        gradient_at((5, 4), (3, 3), padding=1),
        gradient_at((4, 4), (2, 1), padding=(3, 2)),
        gradient_at((5, 6), (3, 3), padding=1, stride=2),
        gradient_at((7, 5), (1, 2), stride=(3, 4)),
        gradient_at((7, 6), (3, 2), padding=((2, 0), (1, 2)), stride=(2, 3), dilation=(2, 2)),
        gradient_at((8,), (3,), stride=4, dilation=2),
    ],
    ids=lambda graph: str(graph.nodes[-1].attrs["stride"]),
)
def test_a_gradient_with_a_halo_is_proved(graph: Graph) -> None:
    after = with_halos(channels_last(graph), lambda node: True).check()
    report = mg.verify(graph, after)
    assert report
    assert report.proved
    assert with_halos(after, lambda node: True) is after


IN_GROUPS = {
    "pairs of two": (4, 4, (4, 3), (3, 3), {"padding": 1, "groups": 2}),
    "of three and one": (3, 9, (3, 3), (2, 2), {"stride": 2, "padding": 1, "groups": 3}),
    "volumes": (4, 4, (2, 2, 2), (2, 1, 2), {"groups": 2}),
    "all in one": (3, 3, (4,), (3,), {"groups": 3, "layout": "NLC"}),
}


@pytest.mark.parametrize(("C", "K", "sizes", "window", "attrs"), IN_GROUPS.values(), ids=IN_GROUPS)
def test_groups_become_larger(C: int, K: int, sizes: Any, window: Any, attrs: Any) -> None:
    """Until they have four channels and four results, or are one; but depthwise ones become those of single results."""
    net = Builder("net")
    x = net.input("x", (1, *sizes, C) if "layout" in attrs else (1, C, *sizes))
    w = net.input("w", (K, C // attrs["groups"], *window))
    y = conv(x, w, **attrs)
    g = net.input("g", y.shape)
    to_x = conv_input_gradient(g, w, extents=sizes, **attrs)
    graph = net.build(y=y, to_x=to_x, to_w=conv_weight_gradient(x, g, window=window, **attrs))
    after = regrouped(channels_last(graph), lambda node: True, 4).check()
    report = mg.verify(graph, after)
    assert report
    assert report.proved or not [node for node in after.nodes if node not in channels_last(graph).nodes]
    for node in after.nodes:
        if node.op in (conv, conv_input_gradient, conv_weight_gradient):
            groups, (rows, columns) = node.attrs["groups"], weight_of(node).type.shape[:2]
            assert groups == 1 or (rows, columns) == (groups, 1) or min(known(rows, "rows") // groups, columns) >= 4
    assert regrouped(after, lambda node: True, 4) is after


def residual_net(rank: int = 2) -> Graph:
    """Convolutions, norms, a shortcut, pools and sums over every kind of axes."""
    net = Builder("net")
    x = net.input("x", ("N", 3, *(8, 6, 4)[:rank]))
    conv_of = {1: layers.conv1d, 2: layers.conv2d, 3: layers.conv3d}[rank]
    h = mg.relu(layers.batch_norm(conv_of(x, 4, 3, padding=1)))
    h = h + conv_of(h, 4, 3, padding=1) * net.constant(np.arange(4.0).reshape(4, *(1,) * rank), "float32")
    both = mg.concat([h, mg.sigmoid(h)], axis=1)
    padded = mg.pad(mg.slice(both, (0, 1, *(0,) * rank), (None,) * (2 + rank)), ((0, 0), (1, 0), *((1, 2),) * rank))
    spatial = tuple(range(2, 2 + rank))
    return net.build(
        image=padded,
        pooled=mg.mean(both, axes=spatial),
        channels=mg.sum(both, axes=(0, *spatial)),
        map=mg.max(both, axes=1),
        kept=mg.sum(both, axes=1, keepdims=True),
        one=mg.sum(both, axes=2),
        size=mg.OPS["count"](both, axes=(0, 2)),
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_what_follows_an_image_is_turned_with_it(rank: int) -> None:
    graph = lower(residual_net(rank))
    after = channels_last(graph).check()
    report = mg.verify(graph, after)
    assert report
    for node in after.nodes:
        assert node.attrs.get("layout", "C")[-1] == "C"
    images = [node.inputs[i] for node in after.nodes for i in node.op.images if i >= 0]
    makers = [after.producer.get(value) for value in images]
    between = [node for node in makers if node is not None and node.op.name == "transpose"]
    assert not any(after.producer[node.inputs[0]].op.name == "transpose" for node in after.nodes if node.op is count)
    assert all(node.inputs[0] in after.inputs for node in between), "an image is turned in the middle of the graph"


def test_permutations_are_inverse() -> None:
    for rank in (3, 4, 5):
        assert [to_last(rank)[axis] for axis in to_first(rank)] == list(range(rank))


def training_step_of(make: Any) -> Graph:
    net = Builder("net")
    x = net.input("x", ("N", 3, 8, 8))
    h: Tensor = make(x)
    logits = layers.linear(mg.flatten(h), 3)
    model = net.build(logits=logits, loss=mg.cross_entropy(logits, net.input("label", ("N",), "int64")))
    return mg.training_step(model, loss="loss", optimizer=mg.optim.SGD(0.1))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_lowered_training_step_is_proved(stride: int) -> None:
    step = training_step_of(lambda x: mg.relu(layers.batch_norm(layers.conv2d(x, 4, 3, stride=stride, padding=1))))
    report = mg.verify(step, laid_out(lower(step)))
    assert report
    assert report.proved


def test_a_step_is_not_touched_twice() -> None:
    """What is lowered is at rest."""
    step = training_step_of(lambda x: mg.max_pool(layers.conv2d(x, 4, 3, padding=1), 2, stride=2))
    once = laid_out(lower(step))
    assert lower(once) is once or [n.op for n in lower(once).nodes] == [n.op for n in once.nodes]
    assert channels_last(once) is once
    assert with_halos(once, serves) is once


def test_an_op_without_any_form_is_refused() -> None:
    op = Op("only_a_reference", lambda x, /: x, lambda x: x)
    try:
        net = Builder("net")
        graph = net.build(y=op(net.input("x", (3,))))
        with pytest.raises(mg.GraphError, match=r"only_a_reference 'only_a_reference': has neither a kernel nor"):
            lower(graph)
    finally:
        del mg.OPS["only_a_reference"]
