"""The page for those who know PyTorch: its right column runs as one program, and what it says of defaults is so."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import minigraph as mg
from minigraph import layers

PAGE = (Path(__file__).resolve().parent.parent / "examples" / "for_pytorch.md").read_text(encoding="utf-8")
OURS, THEIRS = (re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) for kind in ("python", "py"))


def test_the_right_column_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile("\n".join(OURS), "for_pytorch.md", "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"net.safetensors", "model.safetensors", "net.onnx"}
    assert not any(node.op.name == "batch_norm" for node in names["infer"].graph.nodes)
    assert names["slope"].shape == (10, 128)
    trained = {v.name for v in names["head"].state if v.name.startswith("optimizer.")}
    assert not any("conv1" in name for name in trained)


def test_the_columns_stand_side_by_side() -> None:
    assert len(OURS) == len(THEIRS) == PAGE.count("</td><td>") > 8
    for code in THEIRS:
        ast.parse(code)
    for line in "\n".join(OURS + THEIRS).splitlines():
        assert len(line) <= 63, line


def test_the_defaults_are_those_of_the_page() -> None:
    norm = inspect.signature(layers.batch_norm).parameters
    assert (norm["momentum"].default, norm["eps"].default, norm["unbiased"].default) == (0.1, 1e-5, True)
    adam = mg.optim.Adam(1e-3)
    assert (adam.beta1, adam.beta2, adam.eps) == (0.9, 0.999, 1e-8)
    state = mg.training_step(small(), "loss", mg.optim.AdamW(1e-3)).state
    assert not any(v.name.startswith("optimizer.conv1.bias") for v in state)  # a batch norm follows


def small() -> mg.Graph:
    net = mg.Builder("net")
    image, label = net.input("image", ("N", 1, 8, 8)), net.input("label", ("N",), "int64")
    h = layers.batch_norm(layers.conv2d(image, 8, 3, name="conv1"))
    return net.build(loss=mg.cross_entropy(layers.linear(mg.flatten(h), 10), label))
