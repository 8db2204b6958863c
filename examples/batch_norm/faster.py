"""1. Faster convergence: the experiment of figure 1 in Ioffe and Szegedy (2015).

Three hidden layers of 100 sigmoid units, batches of 60, small random weights; with batch norm before each sigmoid and
without. The paper uses MNIST.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import minigraph as mg
from minigraph import layers

from .data import Data
from .experiment import At, Claim, Experiment, Measurement, Records
from .figures import STYLES, lines, panels, series
from .learning import accuracy, batches, first_step, points_up_to, trainer

WITH, WITHOUT = "with batch norm", "without"
TARGET = 75.0  # percent, which both networks pass
BATCH, RATE, DEVIATION = 60, 0.5, 0.1
PERCENTILES = (15, 50, 85)


def network(data: Data, norm: bool) -> mg.Graph:
    """`typical` is the input of the first sigmoid unit of the last hidden layer, for each image."""
    small = mg.init.normal(DEVIATION)
    net = mg.Builder("sigmoids")
    image, label = net.input("image", ("N", 1, data.side, data.side)), net.input("label", ("N",), "int64")
    h = mg.flatten(image)
    for _ in range(3):
        before = layers.linear(h, 100, weight_init=small)
        before = layers.batch_norm(before) if norm else before
        h = mg.sigmoid(before)
    logits = layers.linear(h, 10, weight_init=small)
    loss = mg.cross_entropy(logits, label)
    return net.build(logits=logits, loss=loss, accuracy=mg.accuracy(logits, label), typical=before[:, 0])


def looks_up_to(steps: int) -> list[int]:
    """More of them in the first tenth, where most happens."""
    return sorted({*points_up_to(steps // 10, 20), *points_up_to(steps, 40)})


def trained(norm: bool, seed: int, at: At) -> dict[str, Any]:
    data = at.data.first(test=2000)
    model = network(data, norm)
    state = model.init(seed)
    program = trainer(model, state, mg.optim.SGD(RATE))
    check = mg.compile(mg.inference(model, outputs=["loss", "accuracy"]), state)
    look = mg.compile(mg.inference(model, outputs=["typical"]), state)
    points = looks_up_to(at.of(20, 2000, 10_000))
    some = data.test["image"][:500]
    found: dict[str, Any] = {"step": points, "accuracy": [], "percentiles": []}
    stream, step = batches(at.data.train, BATCH, points[-1], seed), 0
    for point in points:
        while step < point:
            program(**next(stream))
            step += 1
        found["accuracy"].append(accuracy(check, data.test))
        found["percentiles"].append(np.percentile(look(image=some)["typical"], PERCENTILES).tolist())
    return found


def measure(seed: int, at: At) -> Mapping[str, Measurement]:
    return {arm: trained(norm, seed, at) for arm, norm in ((WITH, True), (WITHOUT, False))}


def draw(records: Records) -> Figure:
    figure, (left, middle, right) = panels(
        "Three layers of 100 sigmoid units: test accuracy, and what comes into one of the units", 3
    )
    steps = records[WITH][0]["step"]
    lines(left, steps, series(records, "accuracy", (WITH, WITHOUT)))
    left.axhline(TARGET, color="grey", linewidth=0.8)
    left.set(xlabel="step (60 images each)", ylabel="test accuracy (% of images)")
    left.legend(loc="lower right")
    for axes, arm, style in ((middle, WITH, STYLES[0]), (right, WITHOUT, STYLES[1])):
        bands = np.array([m["percentiles"] for m in records[arm]])  # (seeds, steps, percentiles)
        for i, (percentile, line) in enumerate(zip(PERCENTILES, ("--", "-", ":"))):
            for seed, values in enumerate(bands[:, :, i]):
                label = f"{percentile}th percentile" if seed == 0 else None
                width = 1.8 if seed == 0 else 0.8
                axes.plot(steps, values, linestyle=line, color=style["color"], label=label, linewidth=width)
        axes.set(xlabel="step (60 images each)", ylabel="input of a sigmoid unit (its number, no unit)", title=arm)
    right.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
    right.sharey(middle)
    return figure


EXPERIMENT = Experiment(
    name="faster",
    title="Faster convergence",
    source="Ioffe and Szegedy 2015, section 4.1 and figure 1",
    claims=(
        Claim(
            f"With batch norm the network needs less than half of the steps to {TARGET:.0f} % test accuracy.",
            WITH,
            WITHOUT,
            lambda m: first_step(m, TARGET),
            margin=2.0,
            unit=f"steps to {TARGET:.0f} %",
            less=True,
            times=True,
        ),
    ),
    measure=measure,
    draw=draw,
    setting=lambda at: (
        f"{at.data.name}; SGD at {RATE}, batches of {BATCH}, first weights of deviation {DEVIATION}. The unit shown is"
        " the first of the last hidden layer; thick lines are the first seed, thin ones the others. A network that"
        " never gets to the target counts with all its steps. Of the test at most 2,000 images."
    ),
)
