"""Regions that are alike have the same function; what its text depends on makes regions differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
from example_networks import networks

import minigraph as mg
from minigraph.backends.c.tuned import claim, laid_out
from minigraph.backends.function import Printer
from minigraph.backends.kernels import Kernels
from minigraph.backends.likeness import likeness
from minigraph.backends.lower import lower
from minigraph.backends.plan import Plan, plan
from minigraph.core.errors import GraphError
from minigraph.core.ir import Graph
from random_graphs import random_graph


def planned(graph: Graph, sizes: Mapping[str, int]) -> Plan:
    return plan(laid_out(lower(graph)), claim, sizes)


def first_and_others(made: Plan) -> Iterator[tuple[str, str]]:
    """For each step that is like an earlier one: the call that it gets with that one's function, and with its own."""
    kernels = Kernels()
    first = {}
    for step in made.steps:
        if step.region is None:
            continue
        like, values = likeness(made, step)
        own = Printer(made, step, kernels).function()
        if like not in first:
            first[like] = own, values
            continue
        function, others = first[like]
        now = dict(zip(others, values, strict=True))
        called = [now[value].name for value in function.reads]
        yield (
            f"{function.text} {called} {function.barrier} {function.symbols} {function.fault}",
            f"{own.text} {[v.name for v in own.reads]} {own.barrier} {own.symbols} {own.fault}",
        )


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "densenet_bc", "cnn1d"])
def test_what_is_alike_has_one_function(name: str) -> None:
    model = getattr(networks, name)()
    made = planned(mg.training_step(model, "loss", mg.optim.Adam(0.1)), {"N": 32})
    pairs = list(first_and_others(made))
    assert all(shared == own for shared, own in pairs)
    assert pairs


@pytest.mark.parametrize("seed", range(60))
def test_what_is_alike_has_one_function_in_random_graphs(seed: int) -> None:
    given = random_graph(seed, "float32")
    try:
        made = planned(given.graph, given.sizes)
    except GraphError:
        return  # an op that only NumPy has
    assert all(shared == own for shared, own in first_and_others(made))


def like(x: mg.Tensor) -> mg.Tensor:
    return mg.tanh(x * 2.0)


DIFFERENT: dict[str, Callable[[mg.Tensor], mg.Tensor]] = {
    "op": lambda x: mg.exp(x * 2.0),
    "attribute": lambda x: mg.tanh(x * 3.0),
    "shape": lambda x: mg.tanh(x[:, :4] * 2.0),
    "dtype": lambda x: mg.tanh(mg.cast(x, "float64") * 2.0),
    "order": lambda x: mg.tanh(mg.transpose(x, (1, 0)) * 2.0),
    "what is read twice": lambda x: mg.tanh(x * x),
    "total": lambda x: mg.sum(mg.tanh(x * 2.0), 1),
}


def steps_of(*builds: Callable[[mg.Tensor], mg.Tensor]) -> list[object]:
    """The likenesses of the steps of a graph with these outputs, each of an input of its own."""
    net = mg.Builder()
    outputs = {f"y{i}": build(net.input(f"x{i}", (6, 6))) for i, build in enumerate(builds)}
    made = planned(net.build(outputs), {})
    assert len(made.steps) == len(builds)
    return [likeness(made, step)[0] for step in made.steps]


def test_of_other_values_it_is_alike() -> None:
    one, two = steps_of(like, like)
    assert one == two


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_the_text_depends_on_makes_it_another(name: str) -> None:
    one, two = steps_of(like, DIFFERENT[name])
    assert one != two


def test_a_negative_zero_is_another_number() -> None:
    one, two = steps_of(lambda x: x / 0.0, lambda x: x / -0.0)
    assert one != two


def test_what_is_also_written_makes_it_another() -> None:
    net = mg.Builder()
    x, y = mg.exp(net.input("x", (6, 6))), mg.exp(net.input("y", (6, 6)))
    made = planned(net.build(a=mg.tanh(x), b=mg.tanh(y), c=y), {})
    one, two = (likeness(made, step)[0] for step in made.steps)
    assert one != two


def test_what_is_read_from_within_its_padding_makes_it_another() -> None:
    net = mg.Builder()
    x, y = (mg.tanh(net.input(name, (2, 8, 8, 16))) for name in "xy")
    outputs = {"padded": mg.conv(x, net.input("w", (16, 16, 3, 3)), padding=1, layout="NHWC")}
    outputs |= {value.name: value - mg.mean(value, (0, 1, 2)) for value in (x, y)}
    made = planned(net.build(outputs), {})
    assert list(made.partition.memory.frames) == [x.value]
    last = [step for step in made.steps if any(buffer.place == "output" for buffer in step.writes.values())]
    one, two = (likeness(made, step)[0] for step in last if step.region is not None and step.region.call is None)
    assert one != two
