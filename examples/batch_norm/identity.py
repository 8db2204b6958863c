"""9. Undoing itself: with γ = √(var + eps) and β = mean a batch norm gives its input back.

So a network loses nothing by a batch norm: training can find the γ and β that undo it, or any other mean and deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import minigraph as mg
from minigraph import layers

from .experiment import At, Claim, Experiment, Measurement, Records
from .figures import dots, lines, panels

UNDONE, LEFT = "γ = √(var + eps), β = mean", "γ = 1, β = 0"
TRAINED = LEARNED, FIXED = "γ and β learned", "γ = 1 and β = 0 kept"
CHANNELS, BATCH, RATE = 8, 64, 0.2
EPS = 1e-5


def images_like(seed: int) -> np.ndarray:
    """(BATCH, CHANNELS, 6, 6), each channel with a mean and a deviation of its own."""
    rng = np.random.default_rng(seed)
    mean, deviation = rng.uniform(-5, 5, (CHANNELS, 1, 1)), rng.uniform(0.2, 5, (CHANNELS, 1, 1))
    return (mean + deviation * rng.standard_normal((BATCH, CHANNELS, 6, 6))).astype(np.float32)


def digits_back(x: np.ndarray, undone: bool) -> float:
    """To how many decimal digits the batch norm's output is its input, as a share of the deviation of x."""
    net = mg.Builder("identity")
    model = net.build(y=layers.batch_norm(net.input("x", ("N", CHANNELS, 6, 6)), eps=EPS))
    state = model.init()
    if undone:
        wide = x.astype(np.float64)
        state["bn1.gamma"] = np.sqrt(wide.var(axis=(0, 2, 3)) + EPS).astype(np.float32)
        state["bn1.beta"] = wide.mean(axis=(0, 2, 3)).astype(np.float32)
    y = mg.compile(model, state)(x=x)["y"]
    return float(-np.log10(np.abs(y - x).max() / x.std()))


def found_by_training(x: np.ndarray, rate: float, steps: int) -> dict[str, Any]:
    """A batch norm of a fixed input is trained to give the input itself: the loss by step, and γ and β at the end."""
    net = mg.Builder("wanted")
    given = net.input("x", ("N", CHANNELS, 6, 6))
    model = net.build(loss=mg.mse_loss(layers.batch_norm(given, eps=EPS), given))
    state = model.init()
    program = mg.compile(mg.training_step(model, "loss", mg.optim.SGD("rate", momentum=0.9)), state)
    losses = [float(program(x=x, rate=rate)["loss"]) for _ in range(steps)]
    return {"loss": losses, "gamma": state["bn1.gamma"].tolist(), "beta": state["bn1.beta"].tolist()}


def measure(seed: int, at: At) -> Mapping[str, Measurement]:
    x = images_like(seed)
    axes = (0, 2, 3)
    truth = {"deviation": x.std(axis=axes).tolist(), "mean": x.mean(axis=axes).tolist()}
    found: dict[str, dict[str, Any]] = {arm: {"digits": digits_back(x, arm == UNDONE)} for arm in (UNDONE, LEFT)}
    for arm, rate in ((LEARNED, RATE), (FIXED, 0.0)):
        found[arm] = {**found_by_training(x, rate, at.of(20, 300, 300)), **truth}
    return found


def draw(records: Records) -> Figure:
    figure, (left, middle, right) = panels("A batch norm can undo itself, and training finds how", 3)
    dots(left, {arm: [m["digits"] for m in records[arm]] for arm in (UNDONE, LEFT)})
    left.axhline(-np.log10(np.finfo(np.float32).eps), color="grey", linewidth=0.8)
    left.text(1.7, 7.0, "float32", color="grey", ha="right", va="bottom")
    left.set(ylabel="agreement of output and input (decimal digits)", title="γ and β set by hand")
    lines(middle, range(1, 1 + len(records[LEARNED][0]["loss"])), {a: [m["loss"] for m in records[a]] for a in TRAINED})
    middle.set(xlabel="step", ylabel="mean square of output − input", yscale="log", title="γ and β found by training")
    middle.legend()
    for what, truth, marker, color in (("gamma", "deviation", "o", "#0072B2"), ("beta", "mean", "^", "#D55E00")):
        wanted, got = ([n for m in records[LEARNED] for n in m[which]] for which in (truth, what))
        label = {"gamma": "γ: the deviation", "beta": "β: the mean"}[what]
        right.plot(wanted, got, marker, color=color, fillstyle="none", label=label)
    right.plot([-5, 5], [-5, 5], color="grey", linewidth=0.8)
    right.set(xlabel="of the input's channel", ylabel="what training found", title="8 channels, all seeds")
    right.legend()
    return figure


EXPERIMENT = Experiment(
    name="identity",
    title="Undoing itself",
    source="Ioffe and Szegedy 2015, section 3: with γ = √var and β = mean the original activations are recovered",
    claims=(
        Claim(
            "With γ = √(var + eps) and β = mean the output is the input, to three digits more than with 1 and 0.",
            UNDONE,
            LEFT,
            lambda m: float(m["digits"]),
            margin=3.0,
            unit="digits",
        ),
        Claim(
            "Training finds a γ and β that give the mean and deviation a layer wants: the squared error falls to a"
            " thousandth of what it is without them.",
            LEARNED,
            FIXED,
            lambda m: float(m["loss"][-1]),
            margin=1000.0,
            unit="of mean squared error",
            less=True,
            times=True,
        ),
    ),
    measure=measure,
    draw=draw,
    setting=lambda at: (
        f"{CHANNELS} channels of normal numbers, means from −5 to 5 and deviations from 0.2 to 5, {BATCH} images of 6 x"
        f" 6; SGD at {RATE} with momentum 0.9, or at 0."
    ),
)
