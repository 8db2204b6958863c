"""2. Larger learning rates: two small CNNs, with batch norm and without, trained over a grid of learning rates."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from . import grid
from .experiment import At, Claim, Experiment, Measurement, Records
from .figures import panels
from .grid import ARMS, BATCH, LEARNED, WITH, WITHOUT, steps_of

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
DEPTHS = {"two convolutions": 1, "six convolutions": 3}  # and how many of them before each pooling


def measure(seed: int, at: At) -> Mapping[str, Measurement]:
    rates = at.of(RATES[::4], RATES, RATES)
    points = [(rate, rate, 1.0) for rate in rates]
    return {
        name(depth, arm): measured
        for depth, times in DEPTHS.items()
        for arm, measured in grid.measure(points, seed, at, times).items()
    }


def name(depth: str, arm: str) -> str:
    return f"{depth}, {arm}"


def draw(records: Records) -> Figure:
    figure, every = panels("Which learning rates a small CNN endures", len(DEPTHS), height=4.5)
    for depth, axes in zip(DEPTHS, every):
        grid.draw(axes, {arm: records[name(depth, arm)] for arm in ARMS}, "learning rate of SGD")
        axes.set_title(depth)
    return figure


def claims(depth: str) -> tuple[Claim, ...]:
    arms = name(depth, WITH), name(depth, WITHOUT)
    return (
        Claim(
            f"With {depth} and batch norm the largest rate that comes to {LEARNED:.0f} % is twice as large.",
            *arms,
            lambda m: max(grid.learned(m), default=min(m["x"])),
            margin=2.0,
            unit="as largest rate",
            times=True,
        ),
        Claim(
            f"With {depth} and batch norm the accuracy at the best rate of each is higher.",
            *arms,
            lambda m: max(m["accuracy"]),
            margin=0.5,
            unit="% of test images",
        ),
    )


EXPERIMENT = Experiment(
    name="learning_rates",
    title="Larger learning rates",
    source="Ioffe and Szegedy 2015, section 3.3: batch normalization enables higher learning rates",
    claims=tuple(claim for depth in DEPTHS for claim in claims(depth)),
    measure=measure,
    draw=draw,
    setting=lambda at: (
        f"{at.data.name}; convolutions of 8 channels, then of 16, SGD, batches of {BATCH}, {steps_of(at)} steps. The"
        f" grey line is {LEARNED:.0f} %; a network at 10 % has learned nothing, or has lost all that it had learned."
        " Six convolutions were tried when two had shown no difference."
    ),
)
