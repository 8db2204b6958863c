"""What processes are given of a workload, as files. Only who writes them loads the package of ONNX."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

import minigraph as mg
from benchmarks.layers import layers_of
from benchmarks.numbers import random_statistics
from benchmarks.on_cpu.workloads import Workload
from minigraph import onnx


def write(workload: Workload, folder: Path) -> None:
    """Layers, weights and data; and the model, for those that read ONNX."""
    model, settings = workload.make(), workload.optimizer
    state = random_statistics(model)
    layers, optimizer = layers_of(model, workload.batch), asdict(settings) if settings else None
    task = {"name": workload.name, "layers": layers, "optimizer": optimizer}
    (folder / "task.json").write_text(json.dumps(task, default=float))
    np.savez(folder / "weights.npz", **state)
    np.savez(folder / "data.npz", **workload.data())
    if settings is None:  # the batch norms are left in: folding them is up to whoever reads it
        onnx.save(mg.inference(model, ["logits"]), state, folder / "model.onnx")
