"""Networks with and without batch norm, trained at each point of a grid: learning rates, or scales of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import minigraph as mg

from .experiment import At, Measurement, Records
from .figures import STYLES, lines, series
from .learning import CHANCE, accuracy, checker, cnn, normalized, plain, train, trainer

WITH, WITHOUT = "with batch norm", "without"
BLOCKS = {WITH: normalized, WITHOUT: plain}
ARMS = tuple(BLOCKS)
BATCH = 64
LEARNED = 70.0  # percent of the test images: what counts as having learned

Point = tuple[float, float, float]  # place on the axis, learning rate, scale of the first weights


def steps_of(at: At) -> int:
    return int(at.of(3, 150, 600))


def measure(points: Sequence[Point], seed: int, at: At, times: int = 1) -> Mapping[str, Measurement]:
    """For each of the points the test accuracy (%), and whether the loss became infinite or NaN; with so many
    convolutions before each pooling."""
    return {arm: _arm(cnn(at.data, block, times=times), points, seed, at) for arm, block in BLOCKS.items()}


def _arm(model: mg.Graph, points: Sequence[Point], seed: int, at: At) -> dict[str, Any]:
    found: dict[str, Any] = {"x": [x for x, _, _ in points], "accuracy": [], "diverged": []}
    for _, rate, scale in points:
        state = model.init(seed)
        for name in [name for name in state if name.endswith(".weight")]:
            state[name] = state[name] * np.float32(scale)
        program, check = trainer(model, state, mg.optim.SGD("rate")), checker(model, state)
        losses = train(program, at.data.train, BATCH, steps_of(at), seed, rate=rate)
        found["diverged"].append(not np.isfinite(losses[-1]))
        found["accuracy"].append(CHANCE if found["diverged"][-1] else accuracy(check, at.data.test))
    return found


def learned(measured: Measurement) -> list[float]:
    """The places where the network came to LEARNED percent."""
    return [x for x, found in zip(measured["x"], measured["accuracy"]) if found >= LEARNED]


def draw(axes: Axes, records: Records, what: str) -> None:
    lines(axes, records[WITH][0]["x"], series(records, "accuracy", ARMS))
    for i, arm in enumerate(ARMS):
        every = zip(*(m["diverged"] for m in records[arm]))
        lost = [x for x, gone in zip(records[arm][0]["x"], every) if any(gone)]
        if lost:
            label = f"loss infinite or NaN in a seed, {arm}"
            axes.plot(lost, [2 + 3 * i] * len(lost), "x", color=STYLES[i]["color"], label=label)
    axes.axhline(LEARNED, color="grey", linewidth=0.8)
    axes.set(xscale="log", xlabel=what, ylabel="test accuracy at the end (% of images)", ylim=(0, 102))
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)  # lines are all over the place
