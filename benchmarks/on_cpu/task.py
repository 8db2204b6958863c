"""What a process is given of a workload. Only NumPy is loaded for it: the memory of the others is their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = 4  # of data, which take turns
Step = Callable[[np.ndarray, np.ndarray], Any]  # image, label: the loss, or the logits as an array; all is done then


@dataclass(frozen=True)
class Task:
    """optimizer: its settings; None where logits are asked for. threads: so many may compute."""

    folder: Path
    name: str
    layers: list[dict[str, Any]]
    optimizer: dict[str, Any] | None
    threads: int

    @staticmethod
    def read(folder: Path, threads: int) -> Task:
        return Task(folder, **json.loads((folder / "task.json").read_text()), threads=threads)

    def weights(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "weights.npz") as file:
            return dict(file)

    @cached_property
    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        with np.load(self.folder / "data.npz") as file:
            return list(zip(file["image"], file["label"]))
