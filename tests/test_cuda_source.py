"""The list of launches that is printed for a plan."""

from __future__ import annotations

import re
from collections.abc import Sequence

import minigraph as mg
from minigraph.backends.cupy.source import Source, print_program
from minigraph.backends.cupy.totals import shares
from minigraph.backends.cupy.tuned import claim
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
        assert all(launch.grid and launch.grid.blocks > 0 for launch in printed(graph).launches)


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


# modules


def chain(constants: Sequence[float]) -> Source:
    """A kernel for each constant: sums of rows divide what would be one."""
    net = mg.Builder()
    x = net.input("x", (3, 5))
    for constant in constants:
        x = x * mg.sum(mg.tanh(x * constant), 1, keepdims=True)
    return printed(net.build(y=x))


def test_each_kernel_is_in_one_module_which_has_all_that_it_calls() -> None:
    source = updates(30)
    names = [name for module in source.modules for name in module.kernels]
    assert sorted(names) == sorted({launch.kernel for launch in source.launches})
    for module in source.modules:
        called = set(re.findall(r"\bf[0-9a-f]{16}\b", "".join(module.kernels.values())))
        assert called == set(module.functions)
        assert all(f"KERNEL {name}(" in module.text for name in module.kernels)


def test_programs_that_differ_in_places_have_most_modules_in_common() -> None:
    constants = [1 + i / 100 for i in range(100)]
    first = {module.text for module in chain(constants).modules}
    assert 10 < len(first) < 50
    assert first == {module.text for module in chain(constants).modules}
    changed = {module.text for module in chain([*constants[:50], 7.0, *constants[51:]]).modules}
    assert len(first - changed) <= 3
    assert {module.text for module in chain(constants[:80]).modules} & first


def test_kernels_of_a_tuned_call_are_a_module() -> None:
    net = mg.Builder()
    x, w = net.input("x", (2, 8, 8, 12), "float32"), net.input("w", (16, 12, 3, 3))
    y = mg.conv(x, w, padding=1, layout="NHWC")
    made = plan(lower(net.build(y=mg.tanh(y))), claim, {}, chunks=lambda region, sizes: shares(region).chunks)
    source = print_program(made)
    modules = [module for module in source.modules if "conv.cuh" in module.own]
    (text,) = [module.text for module in modules]
    assert "conv_forward<" in text
    assert "pack(" in text
    assert all("tile.cuh" not in module.own for module in source.modules if module not in modules)
