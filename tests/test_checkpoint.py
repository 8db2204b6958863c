"""A training that was stopped, by whatever, goes on from its checkpoint and ends with the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kill_and_resume as small
import minigraph as mg
from minigraph.core.state import read

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"


def fit(program: mg.Program, check: mg.Program, folder: Path, **options: Any) -> Any:
    """The training of kill_and_resume.py, in this process."""
    given: dict[str, Any] = {
        "epochs": small.EPOCHS,
        "batch_size": small.BATCH,
        "seed": 5,
        "validation": (check, small.data()),
        "augment": small.noise,
        "best": ("val_loss", "min"),
        "best_file": folder / BEST,
        "checkpoint": folder / CHECKPOINT,
        "checkpoint_every": small.EVERY,
    }
    return mg.fit(program, small.data(), **{**given, **options})


def metrics(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """A history without the seconds, which are never twice the same."""
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in history]


def assert_same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> None:
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name, strict=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(run, final state, the state in the file of the best epoch)"""
    folder = tmp_path_factory.mktemp("undisturbed")
    program, check = small.programs()
    run = fit(program, check, folder)
    return run, program.state.copy(), read(folder / BEST)[0]


# in one process


class Stop(Exception):
    pass


def stopping(error: type[BaseException], at: int) -> Any:
    """An augmentation that raises an error in its call of that number, from 0."""
    calls = iter(range(10**6))

    def augment(batch, rng):
        if next(calls) == at:
            raise error
        return small.noise(batch, rng)

    return augment


@pytest.mark.parametrize("at", [0, 1, 4, 12, 13, 14, 21, 38])
def test_a_training_that_broke_off_ends_with_the_same_bits(tmp_path, undisturbed, at):
    program, check = small.programs()
    with pytest.raises(Stop):
        fit(program, check, tmp_path, augment=stopping(Stop, at))
    program, check = small.programs()  # as in a new process: nothing but the files
    run = fit(program, check, tmp_path)
    whole, state, best = undisturbed
    assert metrics(run.history) == metrics(whole.history)
    assert run.best.epoch == whole.best.epoch
    assert run.steps == whole.steps == small.STEPS
    assert 0 <= at - run.resumed_at <= small.EVERY
    assert_same(program.state, state)
    assert_same(read(tmp_path / BEST)[0], best)


@pytest.mark.parametrize("at", [0, 2, 13, 20])
def test_ctrl_c_leaves_a_checkpoint_of_the_last_whole_step(tmp_path, undisturbed, at):
    program, check = small.programs()
    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(program, check, tmp_path, augment=stopping(KeyboardInterrupt, at), checkpoint_every=None)
    epoch, batch = divmod(at, 13)
    sentence = (
        f"stopped in epoch {epoch + 1} after {batch} of 13 batches; the same call goes on from {tmp_path / CHECKPOINT}"
    )
    assert str(stopped.value) == sentence
    program, check = small.programs()
    run = fit(program, check, tmp_path)
    assert run.resumed_at == at  # no step is repeated
    assert_same(program.state, undisturbed[1])
    assert metrics(run.history) == metrics(undisturbed[0].history)


def test_ctrl_c_between_the_step_and_its_record_takes_the_step_back(tmp_path, undisturbed, monkeypatch):
    """The worst moment: the state has moved and nobody has counted it yet."""
    program, check = small.programs()
    replace, moved = mg.State.replace, iter(range(10**6))

    def interrupted(self: mg.State, arrays: Any) -> None:
        replace(self, arrays)
        if "random.step" in arrays and next(moved) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(mg.State, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt, match="after 6 of 13 batches"):
        fit(program, check, tmp_path)
    assert program.state["random.step"] == 6
    monkeypatch.undo()
    program, check = small.programs()
    assert fit(program, check, tmp_path).resumed_at == 6
    assert_same(program.state, undisturbed[1])


def test_ctrl_c_without_a_checkpoint_says_that_only_memory_has_it():
    program, _ = small.programs()
    with pytest.raises(
        KeyboardInterrupt, match="after 3 of 13 batches; without checkpoint=FILE only the state in memory"
    ):
        mg.fit(program, small.data(), epochs=1, batch_size=8, augment=stopping(KeyboardInterrupt, 3))
    assert program.state["random.step"] == 3


def test_more_epochs_go_on_after_the_end(tmp_path, undisturbed):
    program, check = small.programs()
    assert len(fit(program, check, tmp_path, epochs=1).history) == 1
    assert fit(program, check, tmp_path, epochs=1).resumed_at == 13  # nothing was left to do
    run = fit(program, check, tmp_path)
    assert run.resumed_at == 13
    assert_same(program.state, undisturbed[1])


def test_resume_false_begins_anew(tmp_path, undisturbed):
    program, check = small.programs()
    fit(program, check, tmp_path, epochs=1)
    program, check = small.programs()
    assert fit(program, check, tmp_path, resume=False).resumed_at == 0
    assert_same(program.state, undisturbed[1])


# what is no checkpoint of this training


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    program, check = small.programs()
    fit(program, check, tmp_path, epochs=1)
    before = program.state.copy()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"batch_size": 10}, "batch_size: 8 there, 10 here"),
        ({"seed": 6}, "seed: 5 there, 6 here"),
        ({"drop_last": True}, "drop_last: False there, True here"),
        ({"best": ("val_accuracy", "max")}, "best: .*val_loss.* there, .*val_accuracy.* here"),
        ({"validation": (check, {k: v[:50] for k, v in small.data().items()})}, r"validation data x: .*100, 6.*50, 6"),
    ]
    for options, sentence in cases:
        with pytest.raises(mg.GraphError, match=f"checkpoint of another training(.|\n)*{sentence}(.|\n)*resume=False"):
            fit(program, check, tmp_path, **options)
    data = {name: array[:80] for name, array in small.data().items()}
    with pytest.raises(mg.GraphError, match=r"data x: float32\[100, 6\] there, float32\[80, 6\] here"):
        mg.fit(program, data, epochs=1, batch_size=8, seed=5, checkpoint=tmp_path / CHECKPOINT)
    assert_same(program.state, before)


def test_another_graph_over_the_same_state_is_refused(tmp_path):
    program, check = small.programs()
    fit(program, check, tmp_path, epochs=1)
    step = mg.training_step(small.network(), loss="loss", optimizer=mg.optim.Adam(1e-3), accumulate=2)  # another rate
    with pytest.raises(
        mg.GraphError, match=r"graph of model, optimizer and schedule: [0-9a-f]{16} there, [0-9a-f]{16} here"
    ):
        fit(mg.compile(step, program.state), check, tmp_path)


def test_a_state_with_other_arrays_is_refused(tmp_path):
    program, check = small.programs()
    fit(program, check, tmp_path, epochs=1)
    program.state["head"] = np.zeros(3, np.float32)
    with pytest.raises(mg.GraphError, match=r"state head: none there, float32\[3\] here"):
        fit(program, check, tmp_path)


@pytest.mark.parametrize("spoil", ["cut", "empty", "foreign", "weights", "version", "record"])
def test_a_file_that_is_no_checkpoint_is_refused_and_changes_nothing(tmp_path, spoil):
    program, check = small.programs()
    fit(program, check, tmp_path, epochs=1)
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    arrays, metadata = read(path)
    if spoil == "cut":
        path.write_bytes(content[: len(content) // 2])
        sentence = "not a whole safetensors file"
    elif spoil == "empty":
        path.write_bytes(b"")
        sentence = "not a whole safetensors file"
    elif spoil == "foreign":
        path.write_bytes(b"PK\3\4 something else altogether")
        sentence = "not a whole safetensors file"
    elif spoil == "weights":
        mg.State(arrays).save(path)
        sentence = "no record of a training"
    else:
        record = json.loads(metadata["minigraph.training"])
        record = {**record, "version": 99} if spoil == "version" else {"version": 1, "progress": {"speed": 3}}
        mg.State(arrays).save(path, {"minigraph.training": json.dumps(record)})
        sentence = "of version 99; this is version 1" if spoil == "version" else "cannot be read"
    before = program.state.copy()
    with pytest.raises(mg.GraphError, match=f"{CHECKPOINT}.*{sentence}.*resume=False"):
        fit(program, check, tmp_path)
    assert_same(program.state, before)


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    left = [tmp_path / f".{CHECKPOINT}.0123abcd.partial", tmp_path / f".{BEST}.89efcdab.partial"]
    kept = [tmp_path / ".other.safetensors.0123abcd.partial", tmp_path / f".{CHECKPOINT}.mine.partial"]
    for path in left + kept:
        path.write_bytes(b"x")
    program, check = small.programs()
    fit(program, check, tmp_path, epochs=0)
    assert [path.exists() for path in left + kept] == [False, False, True, True]


# in a process that is killed


def process(folder: Path, *arguments: object) -> subprocess.Popen[bytes]:
    # one BLAS thread: the order of additions is then the same in each process
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, small.__file__, str(folder), *map(str, arguments)]
    return subprocess.Popen(command, env=environment)


def logged(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "log").read_text().split()] if (folder / "log").exists() else []


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    """The folder of a process that nobody killed."""
    folder = tmp_path_factory.mktemp("alone")
    assert process(folder).wait(60) == 0
    assert logged(folder) == list(range(small.STEPS))
    return folder


def kill_and_resume(folder: Path, moment: str, number: int, delay: float) -> None:
    """Kill a training inside of a write, or some time after it began a step, and let another process finish it."""
    folder.mkdir()
    victim = process(folder, moment, number)
    if moment == "step":
        while len(logged(folder)) < number and victim.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        victim.send_signal(signal.SIGKILL)
    assert victim.wait(60) == -signal.SIGKILL, "the training ended before it was killed"
    done = logged(folder)
    assert process(folder).wait(60) == 0
    again = logged(folder)[len(done) :]
    assert sorted({*done, *again}) == list(range(small.STEPS))
    repeated = len({*done} & {*again})
    assert repeated <= small.EVERY, f"{repeated} steps were repeated"


def assert_as_left_alone(folder: Path, alone: Path) -> None:
    for name in (CHECKPOINT, BEST):
        assert_same(read(folder / name)[0], read(alone / name)[0])
    there, here = (json.loads(read(f / CHECKPOINT)[1]["minigraph.training"]) for f in (alone, folder))
    assert metrics(here["progress"]["history"]) == metrics(there["progress"]["history"])
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in alone.iterdir())  # no .partial is left


@pytest.mark.parametrize(("moment", "number", "delay"), [("half", 5, 0), ("renamed", 4, 0), ("step", 18, 0.002)])
def test_a_killed_training_ends_with_the_same_bits(tmp_path, left_alone, moment, number, delay):
    kill_and_resume(tmp_path / "run", moment, number, delay)
    assert_as_left_alone(tmp_path / "run", left_alone)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(20))
def test_trainings_killed_at_random_moments_end_with_the_same_bits(tmp_path, left_alone, seed):
    rng = random.Random(seed)
    moment = ("step", "half", "written", "renamed")[seed % 4]
    number = rng.randint(1, 30 if moment == "step" else 12)  # it makes 39 steps, and 13 writes or more
    kill_and_resume(tmp_path / "run", moment, number, rng.uniform(0, 0.02))
    assert_as_left_alone(tmp_path / "run", left_alone)
