"""Convolutions of each channel by itself, and their gradients, as programs in C: tuned kernels serve them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from c_kernels import EPS

import minigraph as mg
from minigraph.backends.c.executable import Executable
from minigraph.backends.c.tuned import claim, laid_out
from minigraph.backends.lower import lower
from minigraph.core.builder import Builder
from minigraph.core.dim import known
from minigraph.core.evaluate import evaluate
from minigraph.core.ir import Graph
from minigraph.ops.conv import conv, conv_input_gradient, conv_weight_gradient

pytestmark = pytest.mark.compiler


def depthwise(batch: int, C: int, H: int, W: int, multiplier: int, window: tuple[int, int], **attrs: Any) -> Graph:
    """A depthwise convolution and its two gradients, each of inputs of its own."""
    net = Builder("depthwise")
    x = net.input("x", (batch, C, H, W))
    w = net.input("w", (C * multiplier, 1, *window))
    y = conv(x, w, groups=C, **attrs)
    g = net.input("g", y.shape)
    to_x = conv_input_gradient(g, w, extents=(H, W), groups=C, **attrs)
    return net.build(y=y, to_x=to_x, to_w=conv_weight_gradient(x, g, window=window, groups=C, **attrs))


GRAPHS = {
    "3x3": depthwise(2, 40, 9, 8, 1, (3, 3), padding=1),
    "strided": depthwise(1, 24, 9, 12, 1, (3, 3), padding=1, stride=2),
    "wide": depthwise(2, 5, 7, 9, 1, (2, 5), padding=((1, 0), (2, 2)), stride=(1, 3), dilation=(2, 1)),
    "several of each": depthwise(1, 6, 8, 8, 3, (3, 3), padding=1, stride=2),
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_each_channel_by_itself(graph: Graph) -> None:
    """Each number is a sum that errs no more than a rounding for each of its terms, as the reference does."""
    rng = np.random.default_rng(0)
    arrays = {
        v.name: rng.normal(size=[known(n, "a size") for n in v.type.shape]).astype("float32") for v in graph.inputs
    }
    want = evaluate(graph, arrays)
    sizes = evaluate(graph, {name: np.abs(array) for name, array in arrays.items()})
    got, _ = Executable(laid_out(lower(graph))).run({}, arrays)
    terms = 2 + max(array[:, 0].size for array in arrays.values())  # of one channel, or of the window
    for name, array in want.items():
        assert (np.abs(got[name] - array) <= 2 * terms * EPS * sizes[name]).all()


@pytest.mark.parametrize("name", GRAPHS)
def test_tuned_kernels_serve_them(name: str) -> None:
    """All but the gradient to the input where several results of each channel would have to be added up."""
    after = laid_out(lower(GRAPHS[name]))
    convolutions = [node for node in after.nodes if node.op.name.startswith("conv")]
    left = [node.op for node in convolutions if claim(after, node) is None]
    assert left == ([conv_input_gradient] if name == "several of each" else [])
    assert len(convolutions) == 3
    assert mg.verify(GRAPHS[name], after)
