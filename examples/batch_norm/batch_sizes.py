"""4. Batch size: the statistics of few images are noisy, in training and in the running averages; what is left of that
where precise BN computes the statistics anew, over all training images (Wu and Johnson 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import minigraph as mg
from minigraph import layers

from .data import Batch, Data
from .experiment import At, Claim, Experiment, Measurement, Records
from .figures import lines, panels
from .learning import accuracy, answers, batches, checker, trainer

SIZES = (2, 4, 8, 32, 128, 512)
RATE = 0.1  # for 64 images, and times √(images / 64) for others
LOOKS = 40  # batches whose statistics are compared


def network(data: Data) -> mg.Graph:
    """`before` is what comes into the second batch norm."""
    net = mg.Builder("two_norms")
    image, label = net.input("image", ("N", 1, data.side, data.side)), net.input("label", ("N",), "int64")
    h = mg.max_pool(mg.relu(layers.batch_norm(layers.conv2d(image, 8, 3, padding="same"))), 2)
    before = layers.conv2d(h, 16, 3, padding="same")
    h = mg.max_pool(mg.relu(layers.batch_norm(before)), 2)
    statistics = {"mean": mg.mean(before, (0, 2, 3)), "deviation": mg.std(before, (0, 2, 3))}
    return answers(net, mg.flatten(h), label, **statistics)


def of_size(size: int, seed: int, at: At) -> dict[str, dict[str, Any]]:
    """The measurements with the running averages, and with precise BN, after the same training."""
    model = network(at.data)
    state = model.init(seed)
    images = at.of(64, 6 * len(at.data.train["label"]), len(at.data.train["label"]))
    program, check = trainer(model, state, mg.optim.SGD("rate")), checker(model, state)
    for batch in batches(at.data.train, size, max(1, images // size), seed):
        program(**batch, rate=RATE * (size / 64) ** 0.5)
    own = mg.compile(model.prune(["mean", "deviation", "accuracy"]), state.copy())  # by the batch's own statistics
    noise = noise_of(own, at.data.train, size, seed)
    by_batch = 100 * float(np.mean([own(**b)["accuracy"] for b in batches(at.data.test, size, LOOKS, seed)]))
    running = {"accuracy": accuracy(check, at.data.test), "noise": noise, "by batch": by_batch}
    whole = at.of(64, len(at.data.train["label"]), 8192)
    mg.precise_bn(model, state, list(batches(at.data.train, size, max(1, whole // size), seed)))
    precise = {"accuracy": accuracy(check, at.data.test)}
    return {f"batch {size}": running, f"batch {size}, precise BN": precise}


def noise_of(own: mg.Program, data: Batch, size: int, seed: int) -> float:
    """How far the mean of a batch is from that of all batches: its deviation over batches, as a share (%) of that of
    the numbers themselves; the mean of the channels."""
    looks = [own(**batch) for batch in batches(data, size, LOOKS, seed)]
    means = np.array([look["mean"] for look in looks])
    within = np.mean([look["deviation"] ** 2 for look in looks], axis=0)
    between = means.var(axis=0)
    return 100 * float(np.mean(np.sqrt(between / (within + between + 1e-12))))


def measure(seed: int, at: At) -> Mapping[str, Measurement]:
    found: dict[str, Measurement] = {}
    for size in SIZES:
        found |= of_size(size, seed, at)
    return found


def draw(records: Records) -> Figure:
    figure, (left, right) = panels("The statistics of small batches are noisy", 2, height=4.5)
    per_seed = lambda what, more="": np.array([[m[what] for m in records[f"batch {n}{more}"]] for n in SIZES]).T
    noise = per_seed("noise")
    lines(left, SIZES, {"measured": noise})
    left.plot(SIZES, np.median(noise[:, -1]) * (SIZES[-1] / np.array(SIZES)) ** 0.5, ":", color="grey", label="1 / √n")
    left.set(yscale="log", ylabel="deviation of a batch's mean (% of that of the numbers)")
    lines(
        right,
        SIZES,
        {
            "by running averages": per_seed("accuracy"),
            "by precise BN": per_seed("accuracy", ", precise BN"),
            "by the test batch itself": per_seed("by batch"),
        },
    )
    right.set(ylabel="test accuracy (% of images)")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(SIZES, list(map(str, SIZES)))
        axes.set_xlabel("images in a batch")
        axes.legend()
    return figure


EXPERIMENT = Experiment(
    name="batch_sizes",
    title="Batch size",
    source="Wu and Johnson 2021, Rethinking “Batch” in BatchNorm, sections 3 and 5",
    claims=(
        Claim(
            "The mean of 2 images is at least four times as noisy as that of 128.",
            "batch 2",
            "batch 128",
            lambda m: float(m["noise"]),
            margin=4.0,
            unit="% of the deviation",
            times=True,
        ),
        Claim(
            "Training with 2 images in a batch costs test accuracy, against 32.",
            "batch 32",
            "batch 2",
            lambda m: float(m["accuracy"]),
            margin=1.0,
            unit="% of test images",
        ),
        Claim(
            "Precise BN wins accuracy where batches have 2 images.",
            "batch 2, precise BN",
            "batch 2",
            lambda m: float(m["accuracy"]),
            margin=0.5,
            unit="% of test images",
        ),
    ),
    measure=measure,
    draw=draw,
    setting=lambda at: (
        f"{at.data.name}; convolutions of 8 and 16 channels, {at.of('64 images', 'six epochs', 'one epoch')} at every size,"
        f" SGD at {RATE} √(images / 64)."
    ),
)
