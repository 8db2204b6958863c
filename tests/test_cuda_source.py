"""The list of launches that is printed for a plan."""

from __future__ import annotations

import minigraph as mg
from minigraph.backends.cupy.source import Source, print_program
from minigraph.backends.cupy.totals import shares
from minigraph.backends.lower import lower
from minigraph.backends.plan import plan
from minigraph.core.ir import Graph


def printed(graph: Graph) -> Source:
    made = plan(lower(graph), lambda graph, node: None, {}, chunks=lambda region, sizes: shares(region).chunks)
    return print_program(made)


def swapped(size: int) -> Graph:
    """Two states that become each other, so that one waits elsewhere until the other is read."""
    net = mg.Builder()
    a, b = (net.variable(name, (size,), mg.init.zeros) for name in "ab")
    net.update(a, b * 2.0)
    net.update(b, a * 2.0)
    return net.build(total=mg.sum(a))


def test_what_waits_elsewhere_is_copied_into_the_state() -> None:
    assert "const char *x, char *y" in printed(swapped(3)).text


def test_there_is_no_grid_of_no_blocks() -> None:
    net = mg.Builder()
    x = net.input("x", (0, 4))
    empty = net.build(y=mg.relu(x), rows=mg.sum(x, 1), total=mg.sum(x), both=mg.concat([x, x], axis=0))
    for graph in (swapped(0), empty):
        assert all(launch.grid.blocks > 0 for launch in printed(graph).launches)


def updates(count: int) -> Source:
    """Of so many parameters, each by its own gradient."""
    net = mg.Builder()
    states = [net.variable(f"w{i}", (i % 3 + 1, 5), mg.init.zeros, kind="parameter") for i in range(count)]
    for i, state in enumerate(states):
        net.update(state, state - 0.1 * mg.tanh(net.input(f"g{i}", state.shape)))
    return printed(net.build())


def test_updates_of_all_parameters_share_a_launch() -> None:
    (launch,) = updates(30).launches
    assert len(launch.steps) == 30
    assert len(launch.arguments) == 30 * 3


def test_a_launch_takes_no_more_pointers_than_all_gpus_have_room_for() -> None:
    launches = updates(400).launches
    assert sum(len(launch.steps) for launch in launches) == 400
    assert len(launches) == 3
    assert all(len(launch.arguments) <= 500 for launch in launches)


def test_functions_of_updates_that_are_alike_are_one() -> None:
    assert updates(30).text.count("INLINE void f") == 3  # one for each size
