"""8. Regularization: few training images, and a network with batch norm, dropout, both or neither.

In training a sample's output depends, through the statistics, on who else is in its batch. Such noise is said to
regularize.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import minigraph as mg
from minigraph import layers

from .experiment import At, Claim, Experiment, Measurement, Records
from .figures import lines, panels, series
from .learning import Block, accuracy, batches, checker, mlp, normalized, plain, points_up_to, trainer

NEITHER, NORM, DROPOUT, BOTH = "neither", "batch norm", "dropout", "both"
BATCH, RATE, DROPPED = 32, 0.1, 0.3
NEIGHBOURS = (4, 16, 64)  # batches in which one image is looked at
LOOKS = 30

BLOCKS: dict[str, Block] = {
    NEITHER: plain,
    NORM: normalized,
    DROPOUT: lambda h: layers.dropout(plain(h), DROPPED),
    BOTH: lambda h: layers.dropout(normalized(h), DROPPED),
}


def trained(arm: str, seed: int, at: At) -> dict[str, Any]:
    data = at.data.first(train=at.of(64, 200, 1000))
    model = mlp(data, BLOCKS[arm])
    state = model.init(seed)
    program, check = trainer(model, state, mg.optim.SGD(RATE)), checker(model, state)
    points = points_up_to(at.of(4, 600, 3000), at.of(2, 15, 20))
    found: dict[str, Any] = {"step": points, "train": [], "test": []}
    stream, step = batches(data.train, BATCH, points[-1], seed), 0
    for point in points:
        while step < point:
            program(**next(stream))
            step += 1
        found["train"].append(accuracy(check, data.train))
        found["test"].append(accuracy(check, data.test))
    if arm in (NEITHER, NORM):
        found["dependence"] = [dependence(model, state, data.test["image"], size, seed) for size in NEIGHBOURS]
    return found


def dependence(model: mg.Graph, state: mg.State, images: np.ndarray, size: int, seed: int) -> float:
    """How much the answer for one image varies with its neighbours in the batch: the deviation of its logits over
    batches, as a share (%) of the deviation of logits over images."""
    answer = mg.compile(model.prune(["logits"]), state.copy())  # as in training: by the statistics of the batch
    rng = np.random.default_rng(seed)
    own, spread = [], []
    for _ in range(LOOKS):
        others = rng.choice(len(images) - 1, size - 1, replace=False) + 1
        logits = answer(image=images[np.array([0, *others])])["logits"]
        own.append(logits[0])
        spread.append(logits.std())
    return 100 * float(np.std(own, axis=0).mean() / np.mean(spread))


def measure(seed: int, at: At) -> Mapping[str, Measurement]:
    return {arm: trained(arm, seed, at) for arm in BLOCKS}


def draw(records: Records) -> Figure:
    figure, (left, middle, right) = panels("Few training images: batch norm, dropout, both, neither", 3, height=4.5)
    steps = records[NORM][0]["step"]
    for axes, what, title in ((left, "train", "training images"), (middle, "test", "test images")):
        lines(axes, steps, series(records, what, tuple(BLOCKS)))
        axes.set(xlabel=f"step ({BATCH} images each)", ylabel=f"accuracy (% of {title})")
        least = min(min(m["test"][len(steps) // 3 :]) for arm in BLOCKS for m in records[arm])
        axes.set_ylim(least - 3, 101)
        axes.legend(loc="lower right")
    lines(right, NEIGHBOURS, series(records, "dependence", (NEITHER, NORM)))
    right.set_xscale("log", base=2)
    right.set_xticks(NEIGHBOURS, list(map(str, NEIGHBOURS)))
    right.set(xlabel="images in the batch", ylabel="how an image's logits vary with its neighbours (%)")
    right.legend()
    return figure


def gap(measured: Measurement) -> float:
    """Training minus test accuracy at the end: the mean of the last three looks."""
    return float(np.mean(measured["train"][-3:]) - np.mean(measured["test"][-3:]))


def smaller_gap(arm: str) -> Claim:
    return Claim(
        f"With {arm} the gap between training and test accuracy is smaller than with neither.",
        arm,
        NEITHER,
        gap,
        margin=0.5,
        unit="% of images",
        less=True,
    )


EXPERIMENT = Experiment(
    name="regularization",
    title="Regularization",
    source="Ioffe and Szegedy 2015, section 3.4: batch normalization regularizes the model",
    claims=(
        smaller_gap(NORM),
        smaller_gap(DROPOUT),
        Claim(
            "Batch norm makes dropout needless: alone it comes to a higher test accuracy than dropout alone.",
            NORM,
            DROPOUT,
            lambda m: float(np.mean(m["test"][-3:])),
            margin=0.5,
            unit="% of test images",
        ),
        Claim(
            "In training an image's answer depends on its neighbours, if there is a batch norm.",
            NORM,
            NEITHER,
            lambda m: float(m["dependence"][-1]),
            margin=1.0,
            unit="% of the deviation of logits, in batches of 64",
        ),
    ),
    measure=measure,
    draw=draw,
    setting=lambda at: (
        f"{at.of(64, 200, '1,000')} training images of {at.data.name}; two layers of 100 ReLU units, SGD at {RATE},"
        f" batches of {BATCH}, dropout of {DROPPED}."
    ),
)
