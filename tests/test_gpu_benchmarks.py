"""The stages of benchmarks.gpu run on a CPU that plays a GPU: what they find, and what they say where others lack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent
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
