"""The judge of programs: what it sees, and what it allows."""

from __future__ import annotations

import numpy as np
import pytest
from c_programs import Room, by_references, differences, typed

import minigraph as mg
from minigraph.core.ir import Graph
from minigraph.nn import layers


def unequal_channels() -> tuple[Graph, dict[str, np.ndarray]]:
    """A step through the batch norm of a channel that hardly varies, beside one that varies a million times as much."""
    net = mg.Builder("channels")
    y = layers.batch_norm(net.input("x", (8, 2)), name="bn")
    loss = mg.sum(y * y * net.input("weight", (8, 2)))
    graph = mg.training_step(net.build({"loss": loss, "y": y}), "loss", mg.optim.SGD(0.1))
    x, weight = np.random.default_rng(0).normal(size=(2, 8, 2))
    given = {"x": x * [1e-3, 1e3], "weight": weight, **graph.init(seed=1)}
    return graph, typed(graph, given)


def test_a_channel_that_hardly_varies_can_be_judged_beside_a_large_one() -> None:
    graph, arrays = unequal_channels()
    room, right = Room(graph, arrays), by_references(graph, arrays)
    assert all(room.of(name) < 1e-4 * np.abs(array).max() for name, array in right.items())
    assert differences(right, right, room) == ([], 0)


@pytest.mark.parametrize("name", ["y", "loss", "-> bn.running_mean", "-> bn.running_var", "-> bn.gamma"])
def test_a_ten_thousandth_is_seen(name: str) -> None:
    graph, arrays = unequal_channels()
    right = by_references(graph, arrays)
    wrong, loose = differences(right, {**right, name: right[name] * np.float32(1 + 1e-4)}, Room(graph, arrays))
    assert [sentence.split(" is off")[0] for sentence in wrong] == [name]
    assert loose == 0


def test_numbers_that_are_as_near_to_float64_as_they_may_be_are_right() -> None:
    graph, arrays = unequal_channels()
    room, right = Room(graph, arrays), by_references(graph, arrays)
    assert differences({**right, "loss": right["loss"] * np.float32(1.1)}, right, room) == ([], 0)
