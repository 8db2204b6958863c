"""Zeros around an image become padding of the convolution, in every layout, and in the training step as well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.core.builder import Builder
from minigraph.core.evaluate import evaluate
from minigraph.core.ir import Graph
from minigraph.core.rewrite import rewrite
from minigraph.passes.pad_into_conv import RULES
from minigraph.passes.pipelines import TRAINING


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


@pytest.mark.parametrize(
    ("layout", "attrs"),
    [
        ("NCL", {}),
        ("NLC", {"stride": 2}),
        ("NCHW", {"padding": ((1, 0), (0, 2)), "groups": 2}),
        ("NHWC", {"padding": 1, "dilation": 2}),
        ("NCDHW", {"padding": "same"}),
        ("NDHWC", {"stride": (1, 2, 3)}),
    ],
)
def test_the_floats_are_the_same(layout: str, attrs: dict[str, Any]) -> None:
    sizes = {"N": 2, "C": 4, "L": 6, "H": 6, "W": 5, "D": 4}
    widths = {"L": (2, 1), "H": (0, 3), "W": (1, 1), "D": (2, 0)}
    net = Builder("net")
    x = net.input("x", [sizes[letter] for letter in layout])
    w = net.input("w", (6, 4 // attrs.get("groups", 1), *(2 for _ in layout[2:])))
    padded = mg.pad(x, [widths.get(letter, (0, 0)) for letter in layout])
    before = net.build(y=mg.conv(padded, w, layout=layout, **attrs))
    after = rewrite(before, RULES)
    assert ops(after) == ["conv"]
    assert after.nodes[0].name == "conv"
    rng = np.random.default_rng(0)
    arrays = {v.name: rng.normal(size=v.type.shape).astype("f4") for v in before.inputs}  # type: ignore[arg-type]
    assert np.array_equal(evaluate(before, arrays)["y"], evaluate(after, arrays)["y"])


def test_padding_that_others_read_as_well_stays_for_them() -> None:
    net = Builder("net")
    padded = mg.pad(net.input("x", (1, 2, 5)), [(0, 0), (0, 0), (1, 1)])
    y = mg.conv(padded, net.parameter("w", (3, 2, 3), mg.init.zeros))
    after = rewrite(net.build(y=y, z=mg.max_pool(padded, 2)), RULES)
    assert sorted(ops(after)) == ["conv", "max_pool", "pad"]
    assert after.producer[after.outputs["y"]].inputs[0] is after.inputs[0]


def test_padding_of_a_pool_stays() -> None:
    """Zeros win against what is below 0, padding never does."""
    net = Builder("net")
    padded = mg.pad(net.input("x", (1, 2, 5)), [(0, 0), (0, 0), (1, 1)])
    graph = net.build(y=mg.max_pool(padded, 2), z=mg.avg_pool(padded, 2))
    assert rewrite(graph, RULES) is graph


def test_a_training_step_pads_no_more() -> None:
    net = Builder("net")
    x, label = net.input("x", ("N", 2, 6, 6)), net.input("label", ("N",), "int64")
    h = layers.conv2d(mg.pad(x, [(0, 0), (0, 0), (1, 1), (2, 0)]), 3, 3)
    logits = layers.linear(mg.global_avg_pool(mg.relu(h)), 4)
    model = net.build(loss=mg.cross_entropy(logits, label))
    step = mg.training_step(model, "loss", mg.optim.SGD(0.1))
    after = mg.optimize(step, pipeline=TRAINING).graph
    assert "pad" in ops(step)
    assert "pad" not in ops(after)
    for node in after.nodes:
        if node.op.name in ("conv", "conv_weight_gradient"):
            assert node.inputs[0] is after.inputs[0]
            assert node.attrs["padding"] == ((1, 1), (2, 0))
