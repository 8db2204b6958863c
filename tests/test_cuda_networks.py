"""The example networks, small ones, as programs in CUDA C++, run on a CPU: answers, gradients and steps of training.

They are held as the programs in C are, in test_c_networks.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from c_programs import by_references, largest, outcome
from test_c_networks import CLEAR, DROWNED, answering, given, hold, some, steps, training
from test_example_networks import BATCH, TINY, tiny

from minigraph.backends.cupy.device import Device
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.cupy.tuned import laid_out
from minigraph.backends.lower import lower
from minigraph.core import trial
from minigraph.core.ir import Graph

pytestmark = pytest.mark.cxx


def program(graph: Graph, device: Device) -> Executable:
    return Executable(laid_out(lower(graph)), device)


@pytest.mark.parametrize("name", some(["lenet with batch norm", "mobilenet_v2", "cnn1d"]))
def test_answers(name: str, device: Device) -> None:
    graph, state = answering(name)
    arrays, executable = given(graph, name, state), program(graph, device)
    vague, blind = hold(graph, arrays, outcome(*executable.run({"N": BATCH}, arrays)))
    assert not vague
    assert not blind


@pytest.mark.parametrize("name", some(["mlp"]))
@pytest.mark.parametrize("n", [1, 0])
def test_answers_of_other_batches(name: str, n: int, device: Device) -> None:
    graph, state = answering(name)
    arrays, data = given(graph, name, state), tiny(name).inputs[0].name
    fewer = {**arrays, data: arrays[data][:n]}
    answer = program(graph, device).run({"N": n}, fewer)[0]["logits"]
    right = by_references(graph.bind(N=n), fewer)["logits"]
    # sums of at most 1280 float32 in another order, through at most 53 layers: 1e-7 * sqrt(1280 * 53) = 3e-5
    np.testing.assert_allclose(answer, right, rtol=0, atol=3e-5 * max(1.0, largest(right)))


@pytest.mark.parametrize("name", some(["lenet with batch norm", "resnet20", "unet"]))
def test_gradients_and_running_statistics(name: str, device: Device) -> None:
    graph, state = training(name, "gradients")
    steps(program(graph, device), graph, name, state, 1, clear=name in CLEAR)


@pytest.mark.parametrize("name", some(["vgg_small"]))
def test_gradients_and_running_statistics_in_float64(name: str, device: Device) -> None:
    """With so little rounding that any other difference shows."""
    graph = trial.in_float64(training(name, "gradients")[0])
    steps(program(graph, device), graph, name, training(name, "gradients")[1], 1, clear=True)


@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
@pytest.mark.parametrize("name", ["mlp", "lenet with batch norm"])
def test_three_steps(name: str, optimizer: str, device: Device) -> None:
    graph, state = training(name, optimizer)
    steps(program(graph, device), graph, name, state, 3, clear=True)


@pytest.mark.nightly
@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
@pytest.mark.parametrize("name", TINY)
def test_twenty_steps(name: str, optimizer: str, device: Device) -> None:
    graph, state = training(name, optimizer)
    graph = trial.in_float64(graph) if name in DROWNED else graph
    steps(program(graph, device), graph, name, state, 20, clear=name in (*CLEAR, *DROWNED))


@pytest.mark.parametrize("name", some(["lenet with batch norm"]))
def test_a_step_does_not_depend_on_what_lay_in_memory(name: str, device: Device) -> None:
    """It repeats itself to the bit, though the first finds the bytes of nobody, and the second those of the first."""
    graph, state = training(name, "momentum")
    arrays, executable = given(graph, name, state), program(graph, device)
    first, again = (outcome(*executable.run({"N": BATCH}, arrays)) for _ in range(2))
    assert [key for key in first if again[key].tobytes() != first[key].tobytes()] == []
