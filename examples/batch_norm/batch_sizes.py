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
from .learning import accuracy, answers, batches, checker, normalized, trainer

SIZES = (2, 4, 8, 32, 128, 512)
MLP, CNN, PRECISE = "MLP", "CNN", ", precise BN"
RATE = 0.1  # for 64 images, and times √(images / 64) for others
LOOKS = 40  # batches whose statistics are compared


def network(kind: str, data: Data) -> mg.Graph:
    """Two batch norms. `before`, what comes into the first one, has one number of each image in each channel of the
    MLP, and as many as there are pixels in the CNN.

    What comes into the second one would say less: two numbers are always normalized to about -1 and 1, so that the mean
    of what is made of them hardly varies.
    """
    net = mg.Builder(kind)
    image, label = net.input("image", ("N", 1, data.side, data.side)), net.input("label", ("N",), "int64")
    if kind == CNN:
        before = layers.conv2d(image, 8, 3, padding="same")
        h = mg.max_pool(normalized(before), 2)
        h = mg.max_pool(normalized(layers.conv2d(h, 16, 3, padding="same")), 2)
    else:
        before = layers.linear(mg.flatten(image), 100)
        h = normalized(layers.linear(normalized(before), 100))
    axes = tuple(i for i in range(before.rank) if i != 1)
    statistics = {"mean": mg.mean(before, axes), "deviation": mg.std(before, axes)}
    return answers(net, mg.flatten(h), label, **statistics)


def of_size(kind: str, size: int, seed: int, at: At) -> dict[str, dict[str, Any]]:
    """The measurements with the running averages, and with precise BN, after the same training."""
    data = at.data.first(test=2000)
    model = network(kind, data)
    state = model.init(seed)
    images = at.of(64, 6 * len(data.train["label"]), 20_000)
    program, check = trainer(model, state, mg.optim.SGD("rate")), checker(model, state)
    for batch in batches(data.train, size, max(1, images // size), seed):
        program(**batch, rate=RATE * (size / 64) ** 0.5)
    own = mg.compile(model.prune(["mean", "deviation", "accuracy"]), state.copy())  # by the batch's own statistics
    by_batch = [own(**batch)["accuracy"] for batch in batches(data.test, size, max(LOOKS, 256 // size), seed)]
    running = {
        "accuracy": accuracy(check, data.test),
        "noise": noise_of(own, data.train, size, seed),
        "by batch": 100 * float(np.mean(by_batch)),
    }
    whole = at.of(64, len(data.train["label"]), 8192)
    mg.precise_bn(model, state, list(batches(data.train, size, max(1, whole // size), seed)))
    return {name(kind, size): running, name(kind, size, PRECISE): {"accuracy": accuracy(check, data.test)}}


def name(kind: str, size: int, more: str = "") -> str:
    return f"{kind}, batch {size}{more}"


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
    for kind in (MLP, CNN):
        for size in SIZES:
            found |= of_size(kind, size, seed, at)
    return found


def draw(records: Records) -> Figure:
    figure, (left, *others) = panels("Batch norm with batches of 2 to 512 images", 3, height=4.5)

    def each(kind: str, what: str, more: str = "") -> np.ndarray:
        return np.array([[m[what] for m in records[name(kind, size, more)]] for size in SIZES]).T

    lines(left, SIZES, {kind: each(kind, "noise") for kind in (MLP, CNN)})
    left.plot(SIZES, 100 / np.array(SIZES) ** 0.5, ":", color="grey", label="1 / √n")
    left.set(yscale="log", ylabel="noise of a batch's mean (% of the numbers' deviation)")
    for axes, kind in zip(others, (MLP, CNN)):
        arms = {
            "by running averages": each(kind, "accuracy"),
            "by precise BN": each(kind, "accuracy", PRECISE),
            "by the test batch's own statistics": each(kind, "by batch"),
        }
        lines(axes, SIZES, arms)
        axes.set(ylabel="test accuracy (% of images)", title=kind)
    for axes in (left, *others):
        axes.set_xscale("log", base=2)
        axes.set_xticks(SIZES, list(map(str, SIZES)))
        axes.set_xlabel("images in a batch (n)")
        axes.legend()
    return figure


def claims(kind: str) -> tuple[Claim, ...]:
    two, more = name(kind, 2), name(kind, 32)
    right = lambda m: float(m["accuracy"])
    images = "% of test images"
    return (
        Claim(
            f"In the {kind} the mean of 2 images is at least four times as noisy as that of 128.",
            two,
            name(kind, 128),
            lambda m: float(m["noise"]),
            margin=4.0,
            unit="% of the deviation",
            times=True,
        ),
        Claim(f"The {kind} loses accuracy where batches have 2 images and not 32.", more, two, right, 1.0, images),
        Claim(f"There precise BN wins some for the {kind}.", name(kind, 2, PRECISE), two, right, 0.5, images),
    )


EXPERIMENT = Experiment(
    name="batch_sizes",
    title="Batch size",
    source="Wu and Johnson 2021, Rethinking “Batch” in BatchNorm, sections 3 and 5",
    claims=claims(MLP) + claims(CNN),
    measure=measure,
    draw=draw,
    setting=lambda at: (
        f"{at.data.name}; two layers of 100 units, and convolutions of 8 and 16 channels;"
        f" {at.of('64 images', 'six epochs', '20,000 images')} at every size,"
        f" so that 512 images at a time are 256 times fewer steps than 2; SGD at {RATE} √(images / 64)."
        " The noise is that of what comes into the first batch norm. Of the test at most 2,000 images."
    ),
)
