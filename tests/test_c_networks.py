"""The example networks, small ones, as programs in C: what they answer, their gradients, and steps of training.

How far two results may be apart is measured, as in c_programs.py: with noise on what is computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import null_backend
import numpy as np
import pytest
from c_programs import Room, by_references, differences, largest, outcome, typed
from test_example_networks import BATCH, TINY, batch, tiny

import minigraph as mg
from minigraph.backends import source
from minigraph.backends.c.executable import Executable
from minigraph.backends.c.tuned import claim
from minigraph.backends.lower import lower
from minigraph.core import trial
from minigraph.core.ir import Graph
from minigraph.driver.given import complete
from minigraph.driver.program import optimize

Arrays = Mapping[str, np.ndarray]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Everything is compiled anew in each run of the tests."""
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path_factory.getbasetemp() / "programs"))


@cache
def state_of(name: str) -> mg.State:
    """A state with running statistics of its own."""
    model = tiny(name)
    state = model.init(seed=1)
    mg.compile(model, state)(**batch(model))
    return state


OPTIMIZERS = {
    "gradients": mg.optim.SGD(1.0),  # what a parameter moves by is its gradient
    "momentum": mg.optim.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "Adam": mg.optim.Adam(0.001),
}
CLEAR = ["mlp", "lenet", "lenet with batch norm", "vgg_small", "unet", "densenet_bc", "cnn1d"]  # noise grows little

DROWNED = [
    "mobilenet_v2"
]  # noise of float32 hides all from the second step on: batch norms of few numbers nearly equal


def answering(name: str) -> tuple[Graph, mg.State]:
    graph, state = mg.inference(tiny(name), ["logits"]), state_of(name)
    return optimize(graph, state).graph, state


@cache
def training(name: str, optimizer: str) -> tuple[Graph, mg.State]:
    """A step of training, optimized, and a state for it."""
    step, state = mg.training_step(tiny(name), "loss", OPTIMIZERS[optimizer]), state_of(name)
    complete(step, state)
    return optimize(step, state).graph, state


def given(graph: Graph, name: str, state: Arrays) -> dict[str, np.ndarray]:
    return typed(graph, {**batch(tiny(name)), **state})


def hold(graph: Graph, arrays: Arrays, found: Arrays) -> tuple[list[str], bool]:
    """Which results noise moves much, and whether most cannot be judged for it.

    In deep narrow networks a ReLU's kink is passed somewhere, in float32; and batch norms of a few numbers that are
    nearly equal make much of a little noise.
    """
    graph = graph.bind(N=BATCH) if graph.symbols else graph
    room = Room(graph, arrays)
    vague = [name for name, right in room.right.items() if room.of(name) > 0.01 * max(1.0, largest(right))]
    wrong, loose = differences(by_references(graph, arrays), found, room)
    assert not wrong, "; ".join(wrong)
    return vague, loose > 0.1 * len(found)


def steps(executable: Any, graph: Graph, name: str, state: Arrays, count: int, clear: bool) -> None:
    """So many steps of training by an executable, each held against the reference from where it begins.

    Of five steps one may not be judged. clear: and of five noise may move a result much in one.
    """
    arrays = given(graph, name, state)
    vague, lost = Counter[str](), 0
    for _ in range(count):
        outputs, new = executable.run({"N": BATCH}, arrays)
        moved, blind = hold(graph, arrays, outcome(outputs, new))
        vague.update(moved)
        lost += blind
        arrays = {**arrays, **new}
    assert lost <= count // 5, f"{lost} of {count} steps cannot be judged"
    assert not clear or max(vague.values(), default=0) <= count // 5, vague


def in_c(graph: Graph) -> Executable:
    return Executable(lower(graph))


def some(names: Collection[str]) -> list[Any]:
    """All networks; in CI these."""
    return [pytest.param(name, marks=() if name in names else pytest.mark.nightly) for name in TINY]


@pytest.mark.compiler
@pytest.mark.parametrize("name", some(["mlp", "lenet with batch norm", "resnet20", "mobilenet_v2", "unet", "cnn1d"]))
def test_answers_of_any_batch(name):
    graph, state = answering(name)
    arrays = given(graph, name, state)
    executable, data = Executable(lower(graph)), tiny(name).inputs[0].name
    vague, blind = hold(graph, arrays, outcome(*executable.run({"N": BATCH}, arrays)))
    assert not vague
    assert not blind
    for n in (2, 1, 0):
        fewer = {**arrays, data: arrays[data][:n]}
        answer = executable.run({"N": n}, fewer)[0]["logits"]
        right = by_references(graph.bind(N=n), fewer)["logits"]
        # sums of at most 1280 float32 in another order, through at most 53 layers: 1e-7 * sqrt(1280 * 53) = 3e-5
        np.testing.assert_allclose(answer, right, rtol=0, atol=3e-5 * max(1.0, largest(right)))


@pytest.mark.compiler
@pytest.mark.parametrize("name", some(["lenet with batch norm", "resnet20", "densenet_bc", "unet"]))
def test_gradients_and_running_statistics(name):
    graph, state = training(name, "gradients")
    steps(in_c(graph), graph, name, state, 1, clear=name in CLEAR)


@pytest.mark.compiler
@pytest.mark.parametrize("name", some(["vgg_small", "resnet18", "mobilenet_v2", "wide_resnet"]))
def test_gradients_and_running_statistics_in_float64(name):
    """By plain kernels, with so little rounding that any other difference shows."""
    graph, state = training(name, "gradients")
    wide = trial.in_float64(graph)
    steps(in_c(wide), wide, name, state, 1, clear=True)


@pytest.mark.compiler
@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
@pytest.mark.parametrize("name", ["mlp", "lenet with batch norm", "cnn1d"])
def test_three_steps(name, optimizer):
    graph, state = training(name, optimizer)
    steps(in_c(graph), graph, name, state, 3, clear=True)


@pytest.mark.compiler
@pytest.mark.nightly
@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
@pytest.mark.parametrize("name", TINY)
def test_twenty_steps(name, optimizer):
    graph, state = training(name, optimizer)
    graph = trial.in_float64(graph) if name in DROWNED else graph
    steps(in_c(graph), graph, name, state, 20, clear=name in (*CLEAR, *DROWNED))


@pytest.mark.compiler
@pytest.mark.parametrize("name", some(["mlp", "lenet with batch norm", "resnet20"]))
def test_it_repeats_itself_on_any_number_of_threads(name, monkeypatch):
    """To the bit: no sum is split by how many threads there are."""
    monkeypatch.setattr(source, "SMALL", 2)  # two numbers are enough for several threads
    graph, state = training(name, "momentum")
    arrays, executable = given(graph, name, state), Executable(lower(graph))
    first = outcome(*executable.run({"N": BATCH}, arrays))
    for threads in (1, 1, 2, 3, 2):
        monkeypatch.setenv("MINIGRAPH_THREADS", str(threads))
        again = outcome(*executable.run({"N": BATCH}, arrays))
        assert [key for key in first if again[key].tobytes() != first[key].tobytes()] == [], threads


@pytest.mark.compiler
def test_dropout_drops_what_the_reference_drops():
    net = mg.Builder("net")
    x = net.input("x", ("N", 5, 7), "float64")
    y = mg.layers.dropout(x, 0.3)
    graph = lower(net.build(y=y, z=mg.layers.dropout(y, 0.5)))
    arrays: dict[str, np.ndarray] = {**graph.init(seed=3), "x": np.ones((BATCH, 5, 7))}
    executable, masks = Executable(graph), []
    for _ in range(3):
        right, before = by_references(graph.bind(N=BATCH), arrays), dict(arrays)
        found, new = executable.run({"N": BATCH}, arrays)
        assert all(np.array_equal(found[key], right[key]) for key in "yz")
        arrays = {**arrays, **new}
        assert arrays["random.step"] == before["random.step"] + 1
        masks.append(found["z"] == 0)
    assert not np.array_equal(masks[0], masks[1])


@pytest.mark.parametrize(
    "name", some(["mlp", "lenet with batch norm", "resnet20", "mobilenet_v2", "densenet_bc", "unet"])
)
def test_plans_keep_their_word(name):
    graph, state = training(name, "momentum")
    arrays = given(graph, name, state)
    hold(graph, arrays, outcome(*null_backend.Executable(lower(graph), claim).run({"N": BATCH}, arrays)))
