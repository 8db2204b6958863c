"""7. The redundant bias: what a layer adds to all numbers of a channel, the batch norm behind it takes off again.

Its gradient is 0 but for rounding. SGD moves it by rounding noise, which nobody sees, until with ReLUs an input that is
nearly 0 falls on the other side of it: then a gradient jumps, and from there the two trainings are as far apart as any
two that were rounded differently. With tanh, which has no kink, that does not come.

Adam divides each gradient by its own size, so that the noise becomes steps of the full learning rate. The pass
drop-bias takes the bias out of the graph before the gradient is taken.
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
from .learning import Block, batches, mlp, normalized, plain

NORM, NONE = "bias before a batch norm, ReLU", "bias before none, ReLU"
SMOOTH, SMOOTH_NONE = "bias before a batch norm, tanh", "bias before none, tanh"
BLOCKS: dict[str, Block] = {
    NORM: normalized,
    NONE: plain,
    SMOOTH: lambda h: mg.tanh(layers.batch_norm(h)),
    SMOOTH_NONE: mg.tanh,
}
ADAM, PASS = "Adam, all biases trained", "Adam, after the pass"
BATCH, SGD_RATE, ADAM_RATE = 64, 0.1, 1e-3
LEAST = 1e-8  # gaps below are drawn and compared as this: float32 has no digits there


def losses(block: Block, bias: bool, seed: int, at: At) -> list[float]:
    """Of SGD, with every bias that is there trained."""
    model = mlp(at.data, block, bias=bias)
    step = mg.training_step(model, "loss", mg.optim.SGD(SGD_RATE), outputs=["loss"], without=["drop-bias"])
    program = mg.compile(step, model.init(seed))
    return [float(program(**batch)["loss"]) for batch in batches(at.data.train, BATCH, steps_of(at), seed)]


def drift(without: tuple[str, ...], seed: int, at: At) -> list[float]:
    """How far the bias of the first layer, which begins at 0, has come by each step: its largest number, in steps of
    the learning rate."""
    model = mlp(at.data, normalized)
    state = model.init(seed)
    step = mg.training_step(model, "loss", mg.optim.Adam(ADAM_RATE), outputs=["loss"], without=without)
    program = mg.compile(step, state)
    found = []
    for batch in batches(at.data.train, BATCH, steps_of(at), seed):
        program(**batch)
        found.append(float(np.abs(state["linear1.bias"]).max()) / ADAM_RATE)
    return found


def steps_of(at: At) -> int:
    return int(at.of(10, 300, 1000))


def measure(seed: int, at: At) -> Mapping[str, Measurement]:
    found: dict[str, dict[str, Any]] = {}
    for arm, block in BLOCKS.items():
        with_bias, without = (losses(block, bias, seed, at) for bias in (True, False))
        gap = np.maximum(np.abs(np.subtract(with_bias, without)), LEAST)
        found[arm] = {"gap": gap.tolist()}
        if arm == SMOOTH:
            found[arm] |= {"with": with_bias, "without": without}
    found[ADAM] = {"drift": drift(("drop-bias",), seed, at)}
    found[PASS] = {"drift": drift((), seed, at)}
    return found


def draw(records: Records) -> Figure:
    figure, (left, middle, right) = panels("A bias before a batch norm does nothing, and Adam moves it all the same", 3)
    steps = range(1, len(records[NORM][0]["gap"]) + 1)
    curves = {f"{how} a bias": [m[how] for m in records[SMOOTH]] for how in ("with", "without")}
    lines(left, steps, curves)
    left.set(xlabel="step of SGD", ylabel="training loss (nats)", title="batch norm and tanh: two curves in one place")
    lines(middle, steps, series(records, "gap", tuple(BLOCKS)))
    middle.set(yscale="log", xlabel="step of SGD", ylabel="gap of the losses with and without bias (nats)")
    middle.set_title("how far apart the two curves are")
    lines(right, steps, series(records, "drift", (ADAM, PASS)))
    right.set(xlabel="step of Adam", ylabel="largest bias of the first layer (learning rates)")
    right.set_title("the bias before a batch norm, under Adam")
    middle.set_ylim(top=1e3)  # room for the legend
    for axes in (left, middle, right):
        axes.legend(fontsize=8)
    return figure


def on_one_another(activation: str, first: str, second: str) -> Claim:
    return Claim(
        f"Under SGD, with {activation}, the loss curves with and without a bias lie on one another where a batch norm"
        " follows: they are ten times nearer than where none does.",
        first,
        second,
        lambda m: float(np.mean(m["gap"])),
        margin=10.0,
        unit="nats of mean gap",
        less=True,
        times=True,
    )


EXPERIMENT = Experiment(
    name="redundant_bias",
    title="The redundant bias",
    source="Ioffe and Szegedy 2015, section 3.2: the bias can be ignored since its effect is cancelled",
    claims=(
        on_one_another("tanh", SMOOTH, SMOOTH_NONE),
        on_one_another("ReLUs", NORM, NONE),
        Claim(
            "Under Adam the dead bias drifts by many steps of the learning rate; after the pass it stays.",
            ADAM,
            PASS,
            lambda m: float(m["drift"][-1]),
            margin=5.0,
            unit="learning rates of drift",
        ),
    ),
    measure=measure,
    draw=draw,
    setting=lambda at: (
        f"{at.data.name}; two layers of 100 units (ReLU under Adam), batches of {BATCH}, SGD at {SGD_RATE}, Adam at"
        f" {ADAM_RATE}. Gaps below {LEAST:.0e} count as that. With ReLUs the curves part where rounding brings an input"
        " of a ReLU to the other side of 0."
    ),
)
