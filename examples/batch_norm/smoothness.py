"""11. Internal covariate shift, or smoothness: after Santurkar, Tsipras, Ilyas and Madry (2018).

Behind each batch norm the channels are scaled and shifted at random, anew at each step. So the layers that follow see
other distributions at every step, the very thing that batch norm was said to prevent. If that is why batch norm helps,
its help is gone. And at points of the training the gradient is taken again some way along the step: how much has it
changed, and how far do the losses lie apart?
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import minigraph as mg
from minigraph import layers

from .data import Batch, Data
from .experiment import At, Claim, Experiment, Measurement, Records
from .figures import lines, panels, series
from .learning import answers, batches, trainer

WITH, WITHOUT = "with batch norm", "without"
MILD, STRONG = "batch norm, then mild noise", "batch norm, then strong noise"
ARMS = WITH, MILD, STRONG, WITHOUT
NOISE = {MILD: (1.0, 1.25, 0.5), STRONG: (0.5, 2.0, 1.0)}  # least and greatest scale, and greatest shift
TITLE = "Training with noise behind batch norm; and how gradient and loss change along the step"
WIDTHS = (8, 16, 16)
BATCH, RATE = 64, 0.1
FARTHER = (0.5, 1.0, 2.0, 4.0)  # steps along the gradient, in learning rates


def network(data: Data, arm: str) -> mg.Graph:
    """With inputs scale1, shift1, ... (channels, 1, 1) behind each of the convolutions, where there is noise."""
    net = mg.Builder("smoothness")
    image, label = net.input("image", ("N", 1, data.side, data.side)), net.input("label", ("N",), "int64")
    h = image
    for i, width in enumerate(WIDTHS, 1):
        h = layers.conv2d(h, width, 3, padding="same")
        if arm != WITHOUT:
            h = layers.batch_norm(h)
        if arm in NOISE:
            h = h * net.input(f"scale{i}", (width, 1, 1)) + net.input(f"shift{i}", (width, 1, 1))
        h = mg.max_pool(mg.relu(h), 2)
    return answers(net, mg.flatten(h), label)


def noise(arm: str, rng: np.random.Generator) -> Batch:
    """For one step: a scale and a shift for each channel; a shift of 1 is the deviation that batch norm begins with."""
    if arm not in NOISE:
        return {}
    least, greatest, far = NOISE[arm]
    found: Batch = {}
    for i, width in enumerate(WIDTHS, 1):
        found[f"scale{i}"] = np.exp(rng.uniform(np.log(least), np.log(greatest), (width, 1, 1))).astype(np.float32)
        found[f"shift{i}"] = rng.uniform(-far, far, (width, 1, 1)).astype(np.float32)
    return found


def fed(arm: str, data: Data, count: int, seed: int) -> Iterator[Batch]:
    rng = np.random.default_rng(seed)
    for batch in batches(data.train, BATCH, count, seed):
        yield {**batch, **noise(arm, rng)}


def trained(arm: str, seed: int, at: At) -> dict[str, Any]:
    model = network(at.data, arm)
    state = model.init(seed)
    program = trainer(model, state, mg.optim.SGD("rate"))
    probe = Probe(model, state)
    steps, every = at.of(4, 300, 1500), at.of(2, 15, 50)
    found: dict[str, Any] = {"loss": [], "step": [], "change": [], "range": []}
    for step, batch in enumerate(fed(arm, at.data, steps, seed)):
        if step % every == 0:
            found["step"].append(step)
            for name, value in zip(("change", "range"), probe.along_the_step(batch)):
                found[name].append(value)
        found["loss"].append(float(program(**batch, rate=RATE)["loss"]))
    return found


class Probe:
    """Gradients at the weights of a state and near them, without moving it: a step of SGD at rate 1 moves the weights
    of a copy by the gradient."""

    def __init__(self, model: mg.Graph, state: mg.State):
        self.watched, self.own = state, model.init()
        self.step = trainer(model, self.own, mg.optim.SGD("rate"))
        self.names = [variable.name for variable in model.state if variable.kind == "parameter"]

    def at(self, weights: Batch, batch: Batch) -> tuple[float, Batch]:
        """The loss and the gradient."""
        for name in self.names:
            self.own[name] = weights[name]
        loss = float(self.step(**batch, rate=1.0)["loss"])
        return loss, {name: weights[name] - self.own[name] for name in self.names}

    def along_the_step(self, batch: Batch) -> tuple[float, float]:
        """At the points FARTHER along the gradient: its largest change, as a share of its length, and the distance of
        the greatest loss from the least (nats)."""
        weights = {name: self.watched[name].copy() for name in self.names}
        loss, gradient = self.at(weights, batch)
        losses, changes = [loss], []
        for far in FARTHER:
            there = {name: weights[name] - np.float32(far * RATE) * gradient[name] for name in self.names}
            loss, other = self.at(there, batch)
            losses.append(loss)
            changes.append(length({name: other[name] - gradient[name] for name in self.names}) / length(gradient))
        return max(changes), max(losses) - min(losses)


def length(gradient: Batch) -> float:
    return float(np.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in gradient.values())))


def measure(seed: int, at: At) -> Mapping[str, Measurement]:
    return {arm: trained(arm, seed, at) for arm in ARMS}


def smoothed(losses: list[float], window: int) -> np.ndarray:
    return np.convolve(losses, np.ones(window) / window, "valid")


def draw(records: Records) -> Figure:
    figure, (left, middle, right) = panels(TITLE, 3, height=4.5)
    window = max(1, len(records[WITH][0]["loss"]) // 30)
    curves = {arm: [smoothed(m["loss"], window) for m in records[arm]] for arm in ARMS}
    lines(left, range(len(curves[WITH][0])), curves)
    left.set(xlabel=f"step ({BATCH} images each)", ylabel=f"training loss (nats, mean of {window} steps)", yscale="log")
    steps = records[WITH][0]["step"]
    lines(middle, steps, series(records, "change", ARMS))
    middle.set(yscale="log", ylabel="change of the gradient (of its length)")
    lines(right, steps, series(records, "range", ARMS))
    right.set(yscale="log", ylabel="distance of the losses (nats)")
    for axes in (middle, right):
        axes.set_xlabel(f"step ({BATCH} images each)")
    for axes in (left, middle, right):
        axes.legend(fontsize=8)
    return figure


def faster_than_without(how: str, arm: str) -> Claim:
    return Claim(
        f"With {how} noise behind batch norm, so that distributions shift at each step, the network still learns faster"
        " than without batch norm: its mean training loss is smaller.",
        arm,
        WITHOUT,
        lambda m: float(np.mean(m["loss"])),
        margin=1.1,
        unit="nats, mean over the training",
        less=True,
        times=True,
    )


EXPERIMENT = Experiment(
    name="smoothness",
    title="Internal covariate shift, or smoothness",
    source="Santurkar, Tsipras, Ilyas and Madry 2018, How does batch normalization help optimization?",
    claims=(
        faster_than_without("mild", MILD),
        faster_than_without("strong", STRONG),
        Claim(
            "With batch norm the gradient is better to predict: it changes less along the step.",
            WITH,
            WITHOUT,
            lambda m: float(np.median(m["change"])),
            margin=1.2,
            unit="of its length over the training",
            less=True,
            times=True,
        ),
        Claim(
            "With batch norm the losses along the step lie less far apart.",
            WITH,
            WITHOUT,
            lambda m: float(np.median(m["range"])),
            margin=1.2,
            unit="nats over the training",
            less=True,
            times=True,
        ),
    ),
    measure=measure,
    draw=draw,
    setting=lambda at: (
        f"{at.data.name}; convolutions of 8, 16 and 16 channels, SGD at {RATE}, batches of {BATCH}. Along the step:"
        f" {', '.join(f'{far:g}' for far in FARTHER)} learning rates times the gradient, with the same batch. Mild"
        " noise scales each channel by 1 to 1.25 and shifts it by up to half of its first deviation, strong noise by"
        " 0.5 to 2 and by up to one deviation."
    ),
)
