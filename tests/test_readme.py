"""The README's Python runs, in order, as one program; its shell commands and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import minigraph as mg

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


OF_PYTORCH = {  # what PyTorch calls the arrays of the README's small network
    "conv1.weight": (16, 3, 3, 3),
    **{f"bn1.{name}": (16,) for name in ("weight", "bias", "running_mean", "running_var")},
    "bn1.num_batches_tracked": (),
    "fc.weight": (10, 16),
    "fc.bias": (10,),
}


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    mg.State({name: np.full(n, 0.5, "f4") for name, n in OF_PYTORCH.items()}).save("small.safetensors")
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    assert code.count("\n") > 40
    try:
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    finally:
        for name in ("shift", "complex_mul"):  # the README's own ops are not ours
            mg.OPS.pop(name, None)
    assert "lenet" in capsys.readouterr().out
    assert (tmp_path / "lenet.safetensors").is_file()


def test_the_first_network_is_short() -> None:
    first = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    assert len([line for line in first.splitlines() if line.strip()]) <= 25


def test_links_and_pictures_are_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_make_command_has_its_rule() -> None:
    rules = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)", README)) <= rules
