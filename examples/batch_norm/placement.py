"""5. Where it stands: before the activation or behind it; and as the very first layer, in place of normalized data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import minigraph as mg
from minigraph import layers

from .experiment import At, Claim, Experiment, Measurement, Records
from .figures import lines, panels, series
from .learning import Block, checker, cnn, curve, normalized, plain, points_up_to, trainer

BEFORE, AFTER, NONE = "before the ReLU", "behind the ReLU", "no batch norm"
FIRST, DATA, RAW = "batch norm as first layer", "data normalized beforehand", "bytes from 0 to 255"
BATCH, RATE = 64, 0.05


def behind(h: mg.Tensor) -> mg.Tensor:
    return layers.batch_norm(mg.relu(h))


def trained(block: Block, first: Block, seed: int, at: At) -> dict[str, Any]:
    model = cnn(at.data, block, first=first)
    state = model.init(seed)
    points = points_up_to(at.of(4, 300, 1500), at.of(2, 15, 15))
    program, check = trainer(model, state, mg.optim.SGD(RATE)), checker(model, state)
    with np.errstate(all="ignore"):  # bytes from 0 to 255 may be too much
        return curve(program, check, at.data, BATCH, points, seed)


def measure(seed: int, at: At) -> Mapping[str, Measurement]:
    same: Block = lambda h: h
    mean, deviation = float(at.data.train["image"].mean()), float(at.data.train["image"].std())
    found = {
        arm: trained(block, same, seed, at) for arm, block in ((BEFORE, normalized), (AFTER, behind), (NONE, plain))
    }
    firsts: dict[str, Block] = {
        FIRST: lambda h: layers.batch_norm(h * 255.0),
        DATA: lambda h: (h - mean) / deviation,
        RAW: lambda h: h * 255.0,
    }
    found |= {arm: trained(plain, first, seed, at) for arm, first in firsts.items()}
    for arm in firsts:
        found[arm]["off"] = abs(last(found[arm]) - last(found[DATA]))
    return found


def last(measured: Measurement) -> float:
    """The test accuracy at the end, as the mean of the last three looks."""
    return float(np.mean(measured["accuracy"][-3:]))


def draw(records: Records) -> Figure:
    figure, (left, right) = panels("Where a batch norm stands", 2, height=4.5)
    steps = records[BEFORE][0]["step"]
    lines(left, steps, series(records, "accuracy", (BEFORE, AFTER, NONE)))
    left.set_title("behind each convolution")
    lines(right, steps, series(records, "accuracy", (FIRST, DATA, RAW)))
    right.set_title("in front of a network without other batch norms")
    for axes in (left, right):
        axes.set(xlabel=f"step ({BATCH} images each)", ylabel="test accuracy (% of images)")
    left.set_ylim(60, 100)  # what differs little is seen
    left.legend(loc="lower right")
    right.set_ylim(0, 102)
    right.legend(loc="center right")
    return figure


EXPERIMENT = Experiment(
    name="placement",
    title="Before or behind the activation, and first of all",
    source="Ioffe and Szegedy 2015, section 3.2, which puts it before the activation",
    claims=(
        Claim(
            "Before the ReLU is the better place: accuracy at the end is higher than behind it.",
            BEFORE,
            AFTER,
            last,
            margin=0.5,
            unit="% of test images",
        ),
        Claim(
            "As the very first layer it makes up for data that are not normalized.",
            FIRST,
            RAW,
            last,
            margin=2.0,
            unit="% of test images",
        ),
        Claim(
            "As the very first layer it comes nearer to normalized data than bytes do.",
            FIRST,
            RAW,
            lambda m: float(m["off"]),
            margin=2.0,
            unit="% of test images off",
            less=True,
        ),
    ),
    measure=measure,
    draw=draw,
    setting=lambda at: f"{at.data.name}; convolutions of 8 and 16 channels, SGD at {RATE}, batches of {BATCH}.",
)
