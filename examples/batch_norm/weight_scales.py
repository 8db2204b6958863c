"""3. Badly scaled weights: a small CNN, with batch norm and without, from first weights that are too small or large.

Behind a batch norm the scale of a weight does not matter: batch_norm(s w x) = batch_norm(w x), but for eps; and the
gradient for s w is 1/s of that for w, so that large weights learn more slowly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.figure import Figure

from . import grid
from .experiment import At, Claim, Experiment, Measurement, Records
from .figures import panels
from .grid import BATCH, LEARNED, WITH, WITHOUT, steps_of

SCALES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
RATE = 0.1


def measure(seed: int, at: At) -> Mapping[str, Measurement]:
    scales = at.of(SCALES[::5], SCALES, SCALES)
    return grid.measure([(scale, RATE, scale) for scale in scales], seed, at)


def decades(measured: Measurement) -> float:
    """From the least to the greatest scale at which the network learned, in powers of ten."""
    places = grid.learned(measured) or [1.0]
    return math.log10(max(places) / min(places))


def draw(records: Records) -> Figure:
    figure, (axes,) = panels("Which first weights a small CNN endures", 1, height=4.5)
    grid.draw(axes, records, "scale of the first weights (1: deviation √(2 / fan in))")
    return figure


EXPERIMENT = Experiment(
    name="weight_scales",
    title="Badly scaled weights",
    source="Ioffe and Szegedy 2015, section 3.3: back-propagation is unaffected by the scale of the parameters",
    claims=(
        Claim(
            f"With batch norm the network comes to {LEARNED:.0f} % over a range of scales that is ten times as wide.",
            WITH,
            WITHOUT,
            decades,
            margin=1.0,
            unit="powers of ten",
        ),
    ),
    measure=measure,
    draw=draw,
    setting=lambda at: (
        f"{at.data.name}; convolutions of 8 and 16 channels, all weights times the scale, SGD at {RATE}, batches of"
        f" {BATCH}, {steps_of(at)} steps. The grey line is {LEARNED:.0f} %."
    ),
)
