"""2. Larger learning rates: a small CNN, with batch norm and without, trained by SGD over a grid of learning rates."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from . import grid
from .experiment import At, Claim, Experiment, Measurement, Records
from .figures import panels
from .grid import BATCH, LEARNED, WITH, WITHOUT, steps_of

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def measure(seed: int, at: At) -> Mapping[str, Measurement]:
    rates = at.of(RATES[::4], RATES, RATES)
    return grid.measure([(rate, rate, 1.0) for rate in rates], seed, at)


def draw(records: Records) -> Figure:
    figure, (axes,) = panels("Which learning rates a small CNN endures", 1, height=4.5)
    grid.draw(axes, records, "learning rate of SGD")
    return figure


EXPERIMENT = Experiment(
    name="learning_rates",
    title="Larger learning rates",
    source="Ioffe and Szegedy 2015, section 3.3: batch normalization enables higher learning rates",
    claims=(
        Claim(
            f"With batch norm the largest rate at which the network comes to {LEARNED:.0f} % is twice as large.",
            WITH,
            WITHOUT,
            lambda m: max(grid.learned(m), default=min(m["x"])),
            margin=2.0,
            unit="as largest rate",
            times=True,
        ),
        Claim(
            "With batch norm the accuracy at the best rate of each is higher.",
            WITH,
            WITHOUT,
            lambda m: max(m["accuracy"]),
            margin=0.5,
            unit="% of test images",
        ),
    ),
    measure=measure,
    draw=draw,
    setting=lambda at: (
        f"{at.data.name}; convolutions of 8 and 16 channels, SGD, batches of {BATCH}, {steps_of(at)} steps. The grey"
        f" line is {LEARNED:.0f} %; a network at 10 % has learned nothing, or has lost all that it had learned."
    ),
)
