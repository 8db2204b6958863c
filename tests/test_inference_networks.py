"""The networks in examples/networks, folded: what is left of their batch norms, why, and that they answer the same."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from test_compile import stirred
from test_example_networks import BATCH, FULL, TINY, sizes

import minigraph as mg
from minigraph import layers
from minigraph.core.frozen import frozen
from minigraph.core.ir import Graph, Node
from minigraph.core.op import Op
from minigraph.core.pipeline import Optimized

ROUNDING = 1e-5  # of the largest logit, in float32 and through up to 54 layers

# Batch norms in the inference graph at full size -> how many of them are left, as one scale and one shift each.
COUNTS = {
    "mlp": (0, 0),
    "lenet": (0, 0),
    "lenet with batch norm": (2, 0),
    "vgg_small": (6, 0),
    "resnet20": (19, 0),
    "resnet18": (20, 0),
    "resnet34": (36, 0),
    "resnet50": (53, 0),
    "wide_resnet": (25, 12),
    "mobilenet_v2": (52, 0),
    "densenet_bc": (99, 51),
    "unet": (18, 0),
    "cnn1d": (3, 0),
}
COMPLETE = [name for name, (_, left) in COUNTS.items() if not left]


@cache
def written(name: str) -> Graph:
    return mg.inference(FULL[name][0](), ["logits"])


@cache
def folded(name: str) -> Optimized:
    """Without a state: what is folded at full size is the same for all parameters, whatever their signs."""
    return mg.optimize(written(name))


def called(graph: Graph) -> list[Node]:
    """The nodes that run at each call, those that are computed once left out."""
    still = frozen(graph)
    return [node for node in graph.nodes if node.outputs[0] not in still]


def with_frozen(graph: Graph, op: Op) -> list[Node]:
    """The nodes of an op that run at each call, and take in what is computed once."""
    still = frozen(graph)
    return [node for node in called(graph) if node.op is op and not still.isdisjoint(node.inputs)]


def scales(graph: Graph) -> list[Node]:
    return with_frozen(graph, mg.mul)


def shifts(graph: Graph) -> list[Node]:
    """Those that do not stand right behind a weight, as biases do."""

    def is_bias(node: Node) -> bool:
        return any(v in graph.producer and graph.producer[v].op.weights for v in node.inputs)

    return [node for node in with_frozen(graph, mg.add) if not is_bias(node)]


def test_every_network_is_counted() -> None:
    assert COUNTS.keys() == FULL.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_batch_norms_before_and_after(name: str) -> None:
    before, left = COUNTS[name]
    graph = folded(name).graph
    assert sum(node.op is mg.batch_norm_inference for node in written(name).nodes) == before
    assert not [node for node in graph.nodes if node.op.name.startswith("batch_norm")]
    assert len(scales(graph)) == len(shifts(graph)) == left


@pytest.mark.parametrize("name", COMPLETE)
def test_what_is_folded_completely_has_the_ops_of_a_network_without_batch_norm(name: str) -> None:
    """And each batch norm left a bias."""
    graph, given = folded(name).graph, written(name)
    names = {node.op.name for node in called(graph)}
    assert names - {"add"} == {node.op.name for node in called(given)} - {"add", "batch_norm_inference"}
    added = len([node for node in called(graph) if node.op is mg.add])
    assert added == len([node for node in called(given) if node.op is mg.add]) + COUNTS[name][0]


@pytest.mark.parametrize("name", COUNTS)
def test_weights_are_neither_copied_nor_lost(name: str) -> None:
    kinds = [[n.op.name for n in called(g) if n.op.weights] for g in (written(name), folded(name).graph)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("name", COUNTS)
def test_doing_it_twice_changes_nothing(name: str) -> None:
    graph = folded(name).graph
    assert mg.optimize(graph).graph is graph


# what is left, and its reason


def reasons(optimized: Optimized) -> dict[str, str]:
    """For each batch norm of which the scale is left, the sentence of the report."""
    told: dict[str, str] = {}
    for refused in optimized.refused:
        told.setdefault(refused.at, refused.why)
    return {node.origin.sources[0]: told[node.name] for node in scales(optimized.graph)}


def left_in_densenet(blocks: int, layers: int) -> Iterator[tuple[str, str]]:
    """The first batch norm of each layer, the one of each transition, and the last one.

    What a layer takes in is also handed on as it is; a transition sees that of the layers before it, as a part.
    """
    for b in range(1, blocks + 1):
        h = "conv1.conv" if b == 1 else f"transition{b - 1}.avg_pool"
        for i in range(1, layers + 1):
            layer = f"block{b}.layer{i}"
            why = f"{h} is read by {layer}.bn1.batch_norm and {layer}.concat"
            yield f"{layer}.bn1.batch_norm", why
            h = f"{layer}.concat"
        yield f"transition{b}.bn1.batch_norm" if b < blocks else "bn1.batch_norm", why


def left_in_wide_resnet(stages: int, blocks: int) -> Iterator[tuple[str, str]]:
    """The first batch norm of each block but the first, and the last one: what they take in is a sum.

    Behind it stands the shortcut of the next block, and of the first block of a stage, whose shortcut is a convolution,
    the sum before that.
    """
    for s in range(1, stages + 1):
        for b in range(1, blocks + 1):
            if b > 1:
                block = f"stage{s}.block{b}"
                why = f"stage{s}.block{b - 1}.add is read by {block}.bn1.batch_norm and {block}.add"
            if (s, b) != (1, 1):
                yield f"stage{s}.block{b}.bn1.batch_norm", why
    yield "bn1.batch_norm", why


def test_the_list_of_densenet() -> None:
    expected = dict(left_in_densenet(3, 16))
    assert reasons(folded("densenet_bc")) == expected
    assert len(expected) == COUNTS["densenet_bc"][1]


def test_the_list_of_wide_resnet() -> None:
    expected = dict(left_in_wide_resnet(3, 4))
    assert reasons(folded("wide_resnet")) == expected
    assert len(expected) == COUNTS["wide_resnet"][1]


@pytest.mark.parametrize("name", COMPLETE)
def test_what_is_folded_completely_needs_no_reasons(name: str) -> None:
    assert not folded(name).refused


# numbers


@pytest.mark.parametrize("name", TINY)
def test_a_folded_network_answers_the_same(name: str) -> None:
    graph = mg.inference(TINY[name](), ["logits"])
    state, data = stirred(graph), graph.inputs[0]
    batch = {data.name: np.random.default_rng(1).normal(size=(BATCH, *sizes(data)))}
    program = mg.compile(graph, state)
    found, wanted = program(**batch)["logits"], mg.compile(graph, state, pipeline=())(**batch)["logits"]
    assert np.ptp(wanted) > 0.1
    np.testing.assert_allclose(found, wanted, rtol=0, atol=ROUNDING * abs(wanted).max())
    assert len(scales(program.graph)) == len(reasons(program.optimized))


@pytest.mark.parametrize("name", ["lenet with batch norm", "cnn1d", "densenet_bc", "wide_resnet"])
def test_a_folded_network_is_proved(name: str) -> None:
    graph = mg.inference(TINY[name](), ["logits"])
    state = stirred(graph)
    found = mg.verify(graph, mg.optimize(graph, state).graph, state)
    assert found, found


# how much work it is, counted in what does not depend on the machine


def convolutions(length: int) -> Graph:
    """conv, batch norm and ReLU, one behind the other: each batch norm goes into its weight."""
    net = mg.Builder("convolutions")
    h = net.input("image", ("N", 4, 6, 6))
    for _ in range(length):
        h = layers.conv2d(h, 4, 3, padding=1, bias=False)
        h = mg.relu(layers.batch_norm(h, frozen=True))
    return net.build(y=h)


def norms(length: int) -> Graph:
    """Batch norms behind one convolution: all of them go into its weight."""
    net = mg.Builder("norms")
    h = layers.conv2d(net.input("image", ("N", 4, 6, 6)), 4, 3, bias=False)
    for _ in range(length):
        h = layers.batch_norm(h, frozen=True)
    return net.build(y=h)


def activations(length: int) -> Graph:
    """A scale that goes up through ReLUs."""
    net = mg.Builder("activations")
    h = layers.conv2d(net.input("image", ("N", 4, 6, 6)), 4, 3, bias=False)
    for _ in range(length):
        h = mg.relu(h)
    return net.build(y=layers.batch_norm(h, frozen=True))


def residuals(length: int) -> Graph:
    """Sums that are handed on beside their batch norms, which stay."""
    net = mg.Builder("residuals")
    h = layers.conv2d(net.input("image", ("N", 4, 6, 6)), 4, 3, bias=False)
    for _ in range(length):
        h = h + layers.conv2d(mg.relu(layers.batch_norm(h, frozen=True)), 4, 3, padding=1, bias=False)
    return net.build(y=layers.batch_norm(h, frozen=True))


def work(graph: Graph) -> tuple[int, int]:
    """How many rules fire, and how many functions are called."""
    state, calls = graph.init(), Counter[str]()
    sys.setprofile(lambda frame, event, argument: calls.update([event]))
    try:
        optimized = mg.optimize(graph, state)
    finally:
        sys.setprofile(None)
    return sum(len(step.fired) for step in optimized.steps), calls["call"]


@pytest.mark.parametrize("chain", [convolutions, norms, activations, residuals])
def test_twice_as_long_a_chain_is_twice_the_work(chain: Callable[[int], Graph]) -> None:
    fired, calls = zip(*(work(chain(length)) for length in (5, 10, 20)))
    assert fired[2] - fired[1] == 2 * (fired[1] - fired[0]) > 0
    assert calls[2] - calls[1] < 2.02 * (calls[1] - calls[0])
