"""The face: every op of the registry can be reached from it, or is a part of another op."""

from __future__ import annotations

import subprocess
import sys

import minigraph as mg

# Ops that nobody writes: gradients and transposes, and what layers and functions are made of.
INNER = {
    "avg_pool_gradient", "batch_norm_gradient", "constant", "count", "fill", "iota", "max_pool_gradient",
    "max_pool_select", "moments", "pad_gradient", "resize_gradient", "unslice",
}  # fmt: skip


def test_every_name_is_there() -> None:
    for name in mg.__all__:
        assert getattr(mg, name) is not None


def test_every_op_has_a_public_name() -> None:
    public = {value.name for name in mg.__all__ if isinstance(value := getattr(mg, name), mg.Op)}
    functions = {name for name in mg.__all__ if callable(getattr(mg, name))}
    assert {
        op.name for op in mg.OPS.values() if op.types.__module__.startswith("minigraph.")
    } - public - functions == INNER


def test_importing_is_light() -> None:
    """What only some programs need is not loaded before it is used."""
    code = "import sys, minigraph; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "minigraph.driver" in loaded
    assert not {"networkx", "graphviz", "safetensors", "tqdm", "matplotlib", "onnx"} & set(loaded)
    assert not {"numpy.random", "importlib.metadata", "logging", "concurrent.futures"} & set(loaded)
    later = {"driver.on_gpu", "backends.cupy.gpu", "backends.cupy.source", "backends.c.export", "core.equivalence"}
    assert not {f"minigraph.{name}" for name in later} & set(loaded)
