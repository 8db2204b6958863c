"""Weights to measure with, and how far results are apart."""

from __future__ import annotations

import numpy as np

import minigraph as mg


def random_statistics(model: mg.Graph) -> mg.State:
    """Initial weights, and running statistics that no layer can mistake for 0 or 1."""
    state, rng = model.init(seed=0), np.random.default_rng(0)
    for name, array in state.items():
        if name.endswith(".running_var"):
            state[name] = rng.uniform(0.5, 1.5, array.shape)
        elif name.endswith(".running_mean"):
            state[name] = rng.normal(0, 0.2, array.shape)
    return state


def distance(found: np.ndarray, right: np.ndarray) -> float:
    """The largest difference, relative to the largest number; infinite where one of them is not finite."""
    if not right.size:
        return 0.0
    off = np.abs(np.asarray(found, "float64") - right).max()
    largest = np.abs(right).max()
    return float(off / largest) if np.isfinite(off) and largest else 0.0 if off == 0 else float("inf")
