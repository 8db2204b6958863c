"""What a plan says of memory and of waiting, at one size of the batch and at others."""

from __future__ import annotations

from itertools import accumulate, combinations

import pytest
from example_networks import networks

import minigraph as mg
from minigraph import layers
from minigraph.backends.c.tuned import claim, laid_out
from minigraph.backends.lower import lower
from minigraph.backends.plan import Buffer, Plan, plan, typical
from minigraph.backends.source import print_program
from minigraph.core.ir import Graph


@pytest.fixture(scope="module", params=["lenet", "resnet20"])
def graph(request: pytest.FixtureRequest) -> Graph:
    model = getattr(networks, request.param)()
    return laid_out(lower(mg.training_step(model, "loss", mg.optim.SGD(0.1, momentum=0.9))))


def lives(made: Plan) -> dict[Buffer, tuple[int, int]]:
    """The first and the last phase in which memory of the arena is touched: between barriers lies a phase."""
    found: dict[Buffer, tuple[int, int]] = {}
    phases = accumulate(int(step.barrier) for step in made.steps)
    for phase, step in zip(phases, made.steps, strict=True):
        for buffer in (*step.reads.values(), *step.touched):
            if buffer.place == "arena":
                first, _ = found.get(buffer.root, (phase, phase))
                found[buffer.root] = first, phase
    return found


@pytest.mark.parametrize("n", [2, 32, 50])
def test_what_may_be_touched_at_the_same_time_does_not_overlap(graph: Graph, n: int) -> None:
    made = plan(graph, claim, {"N": n})
    shared = 0
    for (a, lived), (b, other) in combinations(lives(made).items(), 2):
        apart = a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
        assert apart or lived[1] < other[0] or other[1] < lived[0], (a, b)
        shared += not apart
    assert shared > len(made.steps)
    assert made.arena == max(root.offset + -(-root.nbytes // 64) * 64 for root in made.roots)


def test_a_barrier_parts_what_writes_from_what_else_touches_the_same(graph: Graph) -> None:
    written: set[Buffer] = set()
    read: set[Buffer] = set()
    for step in plan(graph, claim, {"N": 8}).steps:
        if step.barrier:
            written, read = set(), set()
        reads, writes = {b.root for b in step.reads.values()}, {b.root for b in step.touched}
        assert written.isdisjoint(reads | writes)
        assert read.isdisjoint(writes)
        written, read = written | writes, read | reads


def test_the_text_is_one_for_many_batches(graph: Graph) -> None:
    plans = [plan(graph, claim, {"N": n}) for n in (32, 64, 100, 1023)]
    assert len({print_program(made).text for made in plans}) == 1
    assert len({tuple(root.offset for root in made.roots) for made in plans}) == len(plans)
    assert [made.arena for made in plans] == sorted(made.arena for made in plans)


def test_typical_sizes() -> None:
    sizes = {0: 0, 1: 1, 2: 2, 3: 2, 31: 16, 32: 128, 1023: 128, 1024: 4096, 32767: 4096, 32768: 131072}
    assert {n: typical({"N": n})["N"] for n in sizes} == sizes


@pytest.mark.parametrize("optimizer", [mg.optim.SGD(0.1, momentum=0.9), mg.optim.Adam(0.1)])
def test_what_a_product_is_followed_by_moves_the_state_where_it_lies(optimizer: mg.optim.Optimizer) -> None:
    """The gradient lies elsewhere meanwhile: what it moves is still read."""
    net = mg.Builder("net")
    x = net.input("x", ("N", 48))
    model = net.build(loss=mg.sum(layers.linear(mg.relu(layers.linear(x, 40)), 30)))
    made = plan(laid_out(lower(mg.training_step(model, "loss", optimizer))), claim, {"N": 32})
    assert not [step for step in made.steps if step.region is None], "a state is copied"
    for step in made.steps:
        moved = [buffer for buffer in step.writes.values() if buffer.place == "state"]
        if made.kernel(step) == "gemm" and moved:
            assert [buffer.place for buffer in step.writes.values() if buffer not in moved] == ["arena"]
            break
    else:
        raise AssertionError("no product moves a state")
