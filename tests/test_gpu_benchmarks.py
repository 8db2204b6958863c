"""The stages of benchmarks.gpu run on a CPU that plays a GPU: what they find, and what they say where others lack."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import minigraph as mg

HERE = Path(__file__).parent.parent
sys.path.append(str(HERE))
networks, report, speed, steps = (  # not for the type checker, which knows examples.networks as networks
    import_module(f"benchmarks.on_gpu.{name}") for name in ("networks", "report", "speed", "steps")
)
ON_CPU = """
import sys
from pathlib import Path
sys.path[:0] = ["tests", "."]
from cuda_on_cpu import Processor
from benchmarks import gpu
from benchmarks.on_gpu import networks, ours, race, speed, steps
made = Processor(Path(sys.argv.pop(1)))
gpu.gpu.device = lambda: made
ours.there = lambda array: array
networks.WIDTHS, race.ROUNDS, race.ROUND, steps.REPLAYS = (16,), 2, 0.001, 3
speed.OTHERS = {"no_such_package": ""}
gpu.STAGES["training"] = lambda report: speed.measure(report, [networks.Case("mlp_bn", 4)], training=True)
gpu.main()
"""


def stage(name: str, folder: Path, *only: str) -> tuple[list[dict[str, object]], subprocess.CompletedProcess[str]]:
    """The rows of a stage, and how it ended."""
    command = [sys.executable, "-c", ON_CPU, str(folder), name, "--out", str(folder), "--only", *only]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    return json.loads((folder / f"{'-'.join([name, *only])}.json").read_text())["rows"], done


@pytest.mark.cxx
def test_steps(tmp_path: Path) -> None:
    rows, done = stage("steps", tmp_path, "captured small float32", "small float64", "replays small")
    assert done.returncode == 0, done.stderr
    assert {row["part"]: row["holds"] for row in rows} == {
        "captured small float32": True,
        "like NumPy small float64": True,
        "replays small": True,
    }
    assert done.stdout.count(" yes ") == 3


@pytest.mark.cxx
def test_training_without_others(tmp_path: Path) -> None:
    (row,), done = stage("training", tmp_path, "tf32")
    assert done.returncode == 0, done.stderr
    assert row["errors"] == {"no_such_package": "is not installed"}
    assert row["minigraph"] > 0 < row["kernels_alone"]  # type: ignore[operator]
    assert row["ratio"] is None
    assert "mlp_bn 4 tf32, no_such_package: is not installed" in done.stdout


def test_the_last_rows_of_a_stage_go_without_what_compiles_for_long() -> None:
    def made(seconds: float) -> set[str]:
        errors: dict[str, str] = {}
        makers = dict.fromkeys(("minigraph", "torch", "torch_compiled", "jax"), lambda: "a program")
        found = set(speed.prepared(makers, errors, lambda: seconds))
        assert found | errors.keys() == makers.keys()
        return found

    assert made(400) == {"minigraph", "torch", "torch_compiled", "jax"}
    assert made(50) == {"minigraph", "torch", "jax"}
    assert made(20) == {"minigraph", "torch"}
    assert made(-10) == {"minigraph"}


def test_time_is_kept_for_the_rows_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that are asked for."""
    kept: list[float] = []
    monkeypatch.setattr(speed, "measured", lambda report, case, precision, training, seconds: kept.append(seconds))
    made = report.Report("training", tmp_path, ["resnet20"])
    speed.measure(made, networks.TRAINING, training=True)
    assert kept == [3 * speed.KEPT, 2 * speed.KEPT, speed.KEPT, 0]


def test_what_a_step_may_be_off_by_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 by less than TF32 rounds: a weight that is off by as much is found."""
    compile = mg.compile

    def in_numpy(graph: mg.Graph, state: mg.State, backend: str) -> mg.Program:
        if backend == "cupy" and rounds:
            state["conv1.weight"] = state["conv1.weight"] * np.float32(1 + 2**-12)
        return compile(graph, state, "numpy")

    monkeypatch.setattr(mg, "compile", in_numpy)
    for rounds in (False, True):
        row = steps.like_numpy(steps.small(dropout=0.0), 4, "float32")
        assert row["holds"] == (not rounds), row
        assert row["allowed"] < 1e-4


def test_a_curve_is_held_to_what_noise_moves_it_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate of learning that is a fifth too small is found."""
    compile = mg.compile

    def step_of(model: mg.Graph, precision: str) -> mg.Graph:
        return mg.training_step(model, "loss", mg.optim.SGD(rate), outputs=["loss"])

    monkeypatch.setattr(mg, "compile", lambda graph, state, backend: compile(graph, state, "numpy"))
    monkeypatch.setattr(steps, "resnet20", lambda: steps.small((4, 6), dropout=0.0))
    monkeypatch.setattr(steps, "step_of", step_of)
    monkeypatch.setattr(steps, "CURVE", 60)
    monkeypatch.setattr(steps.Reference, "batch", 16)
    rate, reference = 0.05, steps.Reference()
    reference.losses()
    assert steps.curve(reference, "float32")["holds"]
    rate = 0.04
    assert not steps.curve(reference, "float32")["holds"]
