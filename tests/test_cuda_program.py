"""Programs on a GPU, which a CPU plays: steps that are captured once, and what their kernels find in memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import GARBAGE, Launched, Processor
from cuda_programs import NETWORKS, OPTIMIZERS, STEP, data, executable, step_of
from test_c_program import assert_near, batch, classifier, contents, counting, numbers_of, training

import minigraph as mg
from minigraph import GraphError
from minigraph.backends.cupy import device as gpu
from minigraph.backends.cupy.program import Program
from minigraph.backends.plan import Buffer
from minigraph.core import trial
from minigraph.core.ir import Value

pytestmark = [pytest.mark.cxx, pytest.mark.usefixtures("on_device")]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_twenty_steps_are_those_of_numpy(name: str, optimizer: str) -> None:
    """In float64, in which 20 steps of sums of some 100 numbers round by less than 1e-12 of numbers around 1.

    Adam divides gradients by their sizes, and those of 1e-4 have 1e4 times the rounding.
    """
    graph = trial.in_float64(step_of(name, optimizer))
    a, b = graph.init(seed=0), graph.init(seed=0)
    here, there = mg.compile(graph, a, "cupy"), mg.compile(graph, b, "numpy")
    for step in range(20):
        inputs = data(graph, 6, step)
        found, wanted = here(**inputs), there(**inputs)
        for key in wanted:
            np.testing.assert_allclose(found[key], wanted[key], rtol=1e-8, atol=1e-8, err_msg=key)
    assert here.backend == "cupy"
    assert any("running_var" in key for key in b)
    for key in b:
        np.testing.assert_allclose(a[key], b[key], rtol=1e-8, atol=1e-8, err_msg=key)


# capturing


def test_a_step_is_captured_once_and_replayed(processor: Processor) -> None:
    program, state = counting(8, "cupy")
    program(x=1)
    assert processor.events.count("capture") == 1
    first = processor.events.index("capture")
    assert "memory" not in processor.events[first:]
    processor.events.clear()
    for _ in range(3):
        program(x=1)
    assert processor.events == STEP * 3
    assert numbers_of(state) == {4}


@pytest.mark.parametrize("name", NETWORKS)
def test_replayed_steps_are_those_that_are_launched_one_by_one(name: str) -> None:
    """To the bit."""
    graph = step_of(name)
    runs = []
    for capture in (True, False):
        state = graph.init(seed=0)
        program = mg.compile(graph, state, "cupy")
        executable(program).capture = capture
        found = [program(**data(graph, n, i)) for i, n in enumerate((6, 6, 4, 6, 4))]
        runs.append((contents(state), [{k: v.tobytes() for k, v in one.items()} for one in found]))
    assert runs[0] == runs[1]


def poison(program: mg.Program) -> None:
    """Garbage in all of its memory but the state."""
    work = executable(program)._work
    assert work is not None
    executable(program).device.write(work, np.full(work.nbytes, GARBAGE, np.uint8))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_thousand_replays_do_not_read_what_nobody_wrote(name: str) -> None:
    graph = step_of(name)
    runs = []
    for poisoned in (True, False):
        state = graph.init(seed=0)
        program = mg.compile(graph, state, "cupy")
        inputs = data(graph, 4, 0)
        for _ in range(1000):
            found = program(**inputs)
            if poisoned:
                poison(program)
        runs.append((contents(state), {key: array.tobytes() for key, array in found.items()}))
    assert runs[0] == runs[1]


def test_warming_up_advances_nothing(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running statistics, counters and random streams: what is captured, and then not replayed, is no step."""
    graph = step_of("cnn")
    state = graph.init(seed=0)
    program = mg.compile(graph, state, "cupy")
    before = contents(state)
    kinds = {variable.kind for variable in graph.state if variable.value in graph.updates}
    assert kinds >= {"parameter", "statistic", "slot", "counter"}
    with monkeypatch.context() as patch:
        patch.setattr(processor, "replay", lambda graph: None)
        program(**data(graph, 5, 0))
    assert processor.events.count("launch") > 10
    assert contents(state) == before
    other = graph.init(seed=0)
    wanted = mg.compile(graph, other, "numpy")(**data(graph, 5, 0))
    assert_near(program(**data(graph, 5, 0)), wanted)
    assert_near(state, other)


def test_an_interrupt_while_a_step_is_captured_leaves_the_state_and_the_device_as_they_were(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, state = counting(8, "cupy")
    launch, count = processor.launch, 0

    def interrupted(*given: Any) -> None:
        nonlocal count
        count += 1
        if processor._graph is not None:
            raise KeyboardInterrupt
        launch(*given)

    with monkeypatch.context() as patch:
        patch.setattr(processor, "launch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            program(x=1)
    assert count > 1
    assert numbers_of(state) == {0}
    program(x=1)
    assert numbers_of(state) == {1}


# what a CPU can see of a GPU's program


def launched(name: str) -> tuple[Program, tuple[Launched, ...]]:
    """The program of a step, and the launches that are captured of it."""
    graph = step_of(name)
    program = mg.compile(graph, graph.init(seed=0), "cupy")
    program(**data(graph, 6, 0))
    (found,) = executable(program)._programs.values()
    assert isinstance(found, Program)
    return found, found._graph


@pytest.mark.parametrize("name", NETWORKS)
def test_all_that_kernels_touch_begins_at_a_multiple_of_256_bytes(name: str, processor: Processor) -> None:
    made, captured = launched(name)
    assert any(buffer.place == "arena" and buffer.nbytes % 256 for buffer in made.where)
    assert {memory.address % 256 for memory in made.where.values()} == {0}
    assert {address % 256 for launch in captured for address in launch.addresses} == {0}


class Contents:
    """Which value lies in the memory of each buffer: known by the addresses with which kernels were launched."""

    def __init__(self, program: Program):
        self.program = program
        self.value: dict[Buffer, Value] = {}
        for buffer in program.plan.buffers:
            if buffer.place in ("input", "state", "literal"):
                self.value[buffer.root] = buffer.value

    def write(self, buffer: Buffer, value: Value | None) -> None:
        """Whatever lay in these bytes is gone."""
        where = self.program.where
        start, end = where[buffer].address, where[buffer].address + where[buffer].nbytes
        for other in list(self.value):
            if start < where[other].address + where[other].nbytes and where[other].address < end:
                del self.value[other]
        if value is not None:
            self.value[buffer] = value


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_find_what_was_computed_for_them(name: str, processor: Processor) -> None:
    """Launches are in the order of what is computed from what, and buffers that are needed at a time do not overlap."""
    made, captured = launched(name)
    plan, lies = made.plan, Contents(made)
    begun: set[int] = set()
    checked = 0
    for launch, seen in zip(made.source.launches, captured, strict=True):
        assert list(seen.addresses[: len(launch.arguments)]) == [made.where[b.root].address for b in launch.arguments]
        new = [number for number in launch.steps if number not in begun]
        for number in new:
            for value, buffer in plan.steps[number].reads.items():
                if buffer.nbytes:
                    assert lies.value.get(buffer.root) is value, f"step {number} does not find {value}"
                    checked += 1
        for number in new:
            for buffer in plan.steps[number].touched:
                lies.write(buffer.root, None)
            begun.add(number)
        for number in launch.steps:
            for value, buffer in plan.steps[number].writes.items():
                lies.write(buffer.root, value)
    assert begun == set(range(len(plan.steps)))
    assert checked > 50
    for old, new_value in plan.graph.updates.items():
        (home,) = (buffer for buffer in plan.buffers if buffer.value is old)
        assert lies.value[home] in (plan.partition.base(new_value), old)


def test_a_plan_is_that_of_the_last_call() -> None:
    program = training(classifier().init(), "cupy")
    with pytest.raises(GraphError, match="call the program first"):
        _ = program.plan
    program(**batch(6))
    assert "plan of 'classifier'" in str(program.plan)
    assert program.peak_bytes == program.plan.arena > 0


def test_too_little_memory_is_said_with_the_batch_that_fits(
    processor: Processor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = Processor(folder, capacity=200_000)
    monkeypatch.setattr(gpu, "device", lambda: tight)
    graph = step_of("mlp")
    state = graph.init(seed=0)
    program = mg.compile(graph, state, "cupy")
    program(**data(graph, 4, 0))
    before = contents(state)
    says = r"'mlp' needs [\d.]+ MB of the GPU's memory for N = 20000, and 1\d\d kB are free; N = (\d+) fits"
    with pytest.raises(GraphError, match=says) as caught:
        program(**data(graph, 20_000, 0))
    assert contents(state) == before
    match = re.search(says, str(caught.value))
    assert match is not None
    fits = int(match[1])
    assert 100 < fits < 2000
    program(**data(graph, fits, 0))
    full = Processor(folder, capacity=1000)
    monkeypatch.setattr(gpu, "device", lambda: full)
    with pytest.raises(GraphError, match=r"of the GPU's memory are needed, and 1\.00 kB are free"):
        mg.compile(graph, graph.init(seed=0), "cupy")(**data(graph, 4, 0))
