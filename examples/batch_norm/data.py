"""The images: scikit-learn's digits for the quick run, Fashion-MNIST for the full one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from fashion_mnist import DEBIAN, find, read

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Data:
    """image (N, 1, side, side), float32 from 0 to 1, and label (N,) of ten classes, for training and test."""

    name: str
    train: Batch
    test: Batch

    @property
    def side(self) -> int:
        return int(self.train["image"].shape[-1])

    def first(self, train: int | None = None, test: int | None = None) -> Data:
        """With so many images only."""
        return Data(self.name, part(self.train, slice(train)), part(self.test, slice(test)))


def part(batch: Batch, chosen: slice | np.ndarray) -> Batch:
    return {name: array[chosen] for name, array in batch.items()}


def digits() -> Data:
    """1,797 digits of 8 x 8 pixels, a fifth of them for the test."""
    loaded = load_digits()
    images = (loaded.images[:, np.newaxis] / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    held = len(order) // 5
    everything = {"image": images, "label": loaded.target.astype(np.int64)}
    return Data("scikit-learn's digits", part(everything, order[held:]), part(everything, order[:held]))


def fashion(folder: Path | None = None) -> Data:
    """60,000 training and 10,000 test images of 28 x 28 pixels; from Debian's package, or else out/data.

    Raises GraphError where they are not.
    """
    folder = folder or (DEBIAN if DEBIAN.is_dir() else Path("out/data"))
    find(folder)
    scaled = lambda b: {"image": (b["image"] / 255).astype(np.float32), "label": b["label"]}
    return Data("Fashion-MNIST", scaled(read(folder, "train")), scaled(read(folder, "t10k")))
