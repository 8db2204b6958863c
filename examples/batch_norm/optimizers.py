"""6. Optimizers: what batch norm brings to SGD, momentum, RMSprop and Adam."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

import minigraph as mg

from .experiment import At, Claim, Experiment, Measurement, Records
from .figures import lines, panels
from .learning import checker, cnn, curve, first_step, normalized, plain, points_up_to, trainer

OPTIMIZERS: dict[str, mg.optim.Optimizer] = {
    "SGD": mg.optim.SGD(0.1),
    "momentum": mg.optim.SGD(0.02, momentum=0.9),
    "RMSprop": mg.optim.RMSprop(1e-3),
    "Adam": mg.optim.Adam(1e-3),
}
WITH, WITHOUT = "with batch norm", "without"
BATCH, TARGET = 64, 75.0


def measure(seed: int, at: At) -> Mapping[str, Measurement]:
    found, data = {}, at.data.first(test=2000)
    points = points_up_to(at.of(4, 200, 1000), at.of(2, 40, 50))
    for name, optimizer in OPTIMIZERS.items():
        for arm, block in ((WITH, normalized), (WITHOUT, plain)):
            model = cnn(data, block)
            state = model.init(seed)
            program, check = trainer(model, state, optimizer), checker(model, state)
            found[f"{name}, {arm}"] = curve(program, check, data, BATCH, points, seed)
    return found


def draw(records: Records) -> Figure:
    figure, every = panels("Four optimizers, with batch norm and without", len(OPTIMIZERS))
    for name, axes in zip(OPTIMIZERS, every):
        steps = records[f"{name}, {WITH}"][0]["step"]
        lines(axes, steps, {arm: [m["accuracy"] for m in records[f"{name}, {arm}"]] for arm in (WITH, WITHOUT)})
        axes.axhline(TARGET, color="grey", linewidth=0.8)
        axes.set(xlabel=f"step ({BATCH} images each)", ylabel="test accuracy (% of images)", title=name, ylim=(50, 100))
        axes.legend(loc="lower right")
    return figure


EXPERIMENT = Experiment(
    name="optimizers",
    title="Optimizers",
    source="Ioffe and Szegedy 2015, section 4.1, who saw faster training with SGD; here others are tried as well",
    claims=tuple(
        Claim(
            f"{name} needs at least 1.25 times fewer steps to {TARGET:.0f} % with batch norm.",
            f"{name}, {WITH}",
            f"{name}, {WITHOUT}",
            lambda m: first_step(m, TARGET),
            margin=1.25,
            unit=f"steps to {TARGET:.0f} %",
            less=True,
            times=True,
        )
        for name in OPTIMIZERS
    ),
    measure=measure,
    draw=draw,
    setting=lambda at: (
        f"{at.data.name}; convolutions of 8 and 16 channels, batches of {BATCH}; SGD at 0.1, momentum 0.9 at 0.02,"
        f" RMSprop and Adam at 0.001. The grey line is {TARGET:.0f} %. Of the test at most 2,000 images."
    ),
)
