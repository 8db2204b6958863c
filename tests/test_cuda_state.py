"""State that lives on a GPU, and is read, written and shared between steps; what holds of programs in C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_c_program as in_c
from cuda_on_cpu import Processor
from cuda_programs import STEP, data, executable, mlp, step_of
from test_c_program import assert_near, batch, classifier, contents, counting, numbers_of, training

import minigraph as mg
from minigraph import GraphError, State
from minigraph.backends.cupy.resident import Array

pytestmark = [pytest.mark.cxx, pytest.mark.usefixtures("on_device")]


PROMISES = [
    in_c.test_a_program_trains_and_another_answers_in_turn,
    in_c.test_a_snapshot_program_stays_as_it_was,
    in_c.test_inner_values_and_the_first_nan_come_from_the_references,
    in_c.test_a_twin_moves_by_itself,
    in_c.test_two_programs_write_to_one_state_in_turn,
    in_c.test_an_array_that_was_assigned_or_taken_over_is_used,
    in_c.test_an_interrupt_comes_before_a_step_or_after,
    in_c.test_two_programs_in_two_threads_lose_no_step,
    in_c.test_readers_in_other_threads_see_whole_steps,
    in_c.test_a_program_answers_while_another_trains,
    in_c.test_sizes_that_a_node_cannot_have_are_refused,
    in_c.test_state_that_went_away_or_changed_its_form_is_named,
    in_c.test_inputs_lie_anywhere,
    in_c.test_an_input_that_was_written_to_is_read_anew,
    in_c.test_outputs_are_the_callers_own,
]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__.removeprefix("test_"))
def test_what_holds_of_programs_in_c_holds_here(promise: Callable[[str], None]) -> None:
    promise("cupy")


@pytest.mark.parametrize("how", in_c.HOLDERS)
def test_who_holds_an_array_keeps_its_numbers(how: str) -> None:
    in_c.test_who_holds_an_array_keeps_its_numbers("cupy", how)


@pytest.mark.parametrize("label", [3, -1, 2**40])
def test_a_bad_label_leaves_the_state_to_the_byte(label: int) -> None:
    in_c.test_a_bad_label_leaves_the_state_to_the_byte("cupy", label)


def test_where_counts_say_nothing_arrays_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    in_c.test_where_counts_say_nothing_arrays_are_copied("cupy", monkeypatch)


def test_state_moves_there_once_and_stays(processor: Processor) -> None:
    state = classifier().init(seed=0)
    train = training(state, "cupy")
    version = state.version
    train(**batch())
    assert state.version is not version
    assert not any(isinstance(state.held(name), np.ndarray) for name in executable(train).graph.variables)
    version, events = state.version, len(processor.events)
    for _ in range(3):
        train(**batch())
    assert state.version is version
    assert processor.events[events:] == [*STEP[:-1], "copy", "replay", "copy"] * 3  # no fault before, outputs after
    used = processor.used
    snapshot = state.copy()
    held = contents(snapshot)
    train(**batch())  # which gives the snapshot memory of its own
    assert contents(snapshot) == held != contents(state)
    assert processor.used > used
    del snapshot
    assert processor.used == used
    assert processor.events.count("capture") == 1


def address(state: State, name: str) -> int:
    array = state.held(name)
    assert isinstance(array, Array)
    return array.memory.address


def test_programs_of_several_batches_share_the_memory_of_the_state() -> None:
    graph = step_of("mlp")
    a, b = graph.init(seed=0), graph.init(seed=0)
    here, there = mg.compile(graph, a, "cupy"), mg.compile(graph, b, "numpy")
    answer = mg.compile(mg.inference(mlp(), ["logits"]), a, "cupy")
    there_too = mg.compile(mg.inference(mlp(), ["logits"]), b, "numpy")
    here(**data(graph, 5, 0)), there(**data(graph, 5, 0))
    homes = {name: address(a, name) for name in a}
    for i, n in enumerate((8, 5, 3, 8, 5)):
        assert_near(here(**data(graph, n, i)), there(**data(graph, n, i)))
        image = data(graph, 4, i)["image"]
        assert_near(answer(image=image), there_too(image=image))
    assert_near(a, b)
    here(**data(graph, 5, 0))
    assert {name: address(a, name) for name in a} == homes


def test_programs_on_other_backends_go_on_from_there() -> None:
    """And each sees the steps of the others."""
    graph = step_of("mlp")
    mixed, alone = graph.init(seed=0), graph.init(seed=0)
    programs = [mg.compile(graph, mixed, backend) for backend in ("cupy", "numpy", "cupy", "c")]
    reference = mg.compile(graph, alone, "numpy")
    for step in range(8):
        inputs = data(graph, 5, step)
        assert_near(programs[step % 4](**inputs), reference(**inputs))
        assert_near(mixed, alone)


def test_state_is_read_written_saved_and_loaded_between_steps(tmp_path: Path, processor: Processor) -> None:
    graph = step_of("cnn")
    a, b = graph.init(seed=0), graph.init(seed=0)
    here, there = mg.compile(graph, a, "cupy"), mg.compile(graph, b, "numpy")
    inputs = data(graph, 5, 0)

    def both(do: Callable[[State], object]) -> None:
        for state in (a, b):
            do(state)
        for _ in range(2):
            assert_near(here(**inputs), there(**inputs))
        assert_near(a, b)

    both(lambda state: None)
    a.save(tmp_path / "a.safetensors")
    both(lambda state: state.update({"head.weight": np.full_like(state["head.weight"], 0.25)}))
    both(lambda state: state.replace({"head.bias": np.ones(3, "float32")}))
    kept = {name: a[name] for name in a}
    both(lambda state: state.load(tmp_path / "a.safetensors"))
    assert not np.array_equal(kept["head.weight"], a["head.weight"])
    assert not a["head.weight"].flags.writeable
    assert State.read(tmp_path / "a.safetensors")["head.weight"].shape == a["head.weight"].shape
    assert processor.events.count("capture") == 1


def test_a_handler_in_the_middle_of_a_step_reads_the_state(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, state = counting(4, "cupy")
    other = mg.compile(program.source, State(state), "cupy")
    program(x=1)
    seen: list[Any] = []
    replay = processor.replay

    def handled(graph: Any) -> None:
        replay(graph)
        seen.append(numbers_of(state.copy()) | numbers_of(state["a"]))
        with pytest.raises(GraphError, match="is not over"):
            other(x=1)
        with pytest.raises(GraphError, match="is not over"):
            state.come_home()

    monkeypatch.setattr(processor, "replay", handled)
    program(x=1)
    assert seen == [{2}]
