"""The tuned kernels at the very shapes at which MobileNetV2 and ResNet-50 call them in training, against float64.

A sum of n products of float32 is off by at most n roundings of the sum of their sizes, |x| |w|. Those go up and down,
and what n independent ones add up to is a few times sqrt(n): that is what a kernel may be off by that sums in any
order. Winograd's convolutions may be off by what their headers state, of the largest result. What only moves and
compares numbers is exact.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from math import sqrt

import numpy as np
import pytest
from c_kernels import EPS
from c_programs import in_c, largest
from test_c_winograd import STATED
from test_example_networks import FULL

import minigraph as mg
from minigraph.backends.c.tuned import claim
from minigraph.backends.calls import Call, Pointers
from minigraph.core.builder import Builder, Tensor
from minigraph.core.dim import known
from minigraph.core.ir import Graph, Node, Value
from minigraph.driver.choice import choose
from minigraph.driver.program import optimize

pytestmark = pytest.mark.compiler

BATCH = 2
NETWORKS = ("mobilenet_v2", "resnet50")
EXACT = ("pad", "unslice", "max_pool")
CHUNK = 12
FEW = 4  # of the cheapest calls of each op, in every run


@functools.cache
def step(name: str) -> Graph:
    """A step of training as the C backend runs it, for BATCH images of full size."""
    model = FULL[name][0]()
    graph = optimize(mg.training_step(model, "loss", mg.optim.SGD(1.0)), model.init(seed=0)).graph
    return choose("c", graph)[1].bind(N=BATCH)


@functools.cache
def calls(name: str) -> tuple[Node, ...]:
    """The nodes that tuned kernels compute, the cheapest first: of those that differ in nothing one."""
    graph = step(name)
    found: dict[str, Node] = {}
    for node in graph.nodes:
        if (call := claim(graph, node)) is not None:
            lie = tuple((operand.access, operand.value.type) for operand in call.operands)
            found.setdefault(f"{node.op.name} {dict(node.attrs)} {lie}", node)
    return tuple(sorted(found.values(), key=flops))


def flops(node: Node) -> int:
    return known(node.op.count([v.type for v in node.inputs], [v.type for v in node.outputs], node.attrs), "flops")


def cheap(name: str) -> list[Node]:
    """The cheapest ones of each op."""
    by_op: dict[str, list[Node]] = {}
    for node in calls(name):
        by_op.setdefault(node.op.name, []).append(node)
    return [node for nodes in by_op.values() for node in nodes[:FEW]]


def joined(graph: Graph, nodes: Sequence[Node]) -> Graph:
    """These nodes, each by itself, with the views through which they read."""
    net = Builder("calls")

    def read(value: Value, label: str) -> Tensor:
        node = graph.producer.get(value)
        if node is not None and (node.op.view is not None or node.op.in_order):
            return net.emit(node.op, [read(v, label) for v in node.inputs], node.attrs)[0]
        return net.input(label, value.type.shape, value.type.dtype)

    outputs = {}
    for number, node in enumerate(nodes):
        inputs = [read(value, f"{number}.x{i}") for i, value in enumerate(node.inputs)]
        outputs[str(number)] = net.emit(node.op, inputs, node.attrs)[0]
    return net.build(outputs)


def sizes_of(call: Call) -> tuple[int, int] | None:
    """Tile and window of Winograd's convolutions; None for other calls."""
    pointers = Pointers(["x"] * len(call.operands), "y", "", lambda *call: call[2], lambda _: None)
    text = " ".join(call.phases(pointers))
    tile, window = (re.search(rf"\.{name} = (\d)", text) for name in ("tile", "window"))
    return (int(tile[1]), int(window[1])) if tile and window else None


def within(graph: Graph, node: Node, inputs: Sequence[np.ndarray], want: np.ndarray) -> np.ndarray | float:
    """How far from what is wanted each number may be."""
    if node.op.name in EXACT:
        return 0.0
    call = claim(graph, node)
    assert call is not None
    if sizes := sizes_of(call):
        return STATED[sizes] * largest(want)
    absolute = [np.abs(x) for x in inputs]
    if node.op.name == "max_pool_gradient":
        absolute[1] = inputs[1]  # it says where the maxima are
    terms = flops(node) / max(1, want.size)
    (most,) = node.op.run(absolute, node.attrs)
    return 2 * (1 + sqrt(terms)) * EPS * most


def hold(name: str, nodes: Sequence[Node]) -> None:
    graph = joined(step(name), nodes)
    rng = np.random.default_rng(0)
    arrays = {v.name: rng.normal(size=v.type.shape).astype("float32") for v in graph.inputs}  # type: ignore[arg-type]
    found = in_c(graph, arrays)
    values: dict[Value, np.ndarray] = {v: arrays[v.name].astype(np.float64) for v in graph.inputs}
    ends = {value: key for key, value in graph.outputs.items()}
    for node in graph.nodes:
        inputs, result = [values[v] for v in node.inputs], node.outputs[0]
        (values[result],) = node.op.run(inputs, node.attrs)
        if result in ends:
            want, got = values[result], found[ends[result]]
            off = np.abs(got - want)
            assert claim(graph, node) is not None
            assert (off <= within(graph, node, inputs, want)).all(), f"{node.op.name} {node.inputs} off by {off.max()}"


@pytest.mark.parametrize("name", NETWORKS)
def test_the_cheapest_calls(name: str) -> None:
    nodes = cheap(name)
    assert {node.op.name for node in nodes} >= {"conv", "conv_weight_gradient", "matmul", "pad"}
    hold(name, nodes)


@pytest.mark.nightly
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("start", range(0, 120, CHUNK))
def test_all_calls(name: str, start: int) -> None:
    assert len(calls(name)) <= 120
    if nodes := calls(name)[start : start + CHUNK]:
        hold(name, nodes)
