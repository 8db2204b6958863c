"""The stage fashion: seconds of training until 92 % of Fashion-MNIST's test images are right.

The images lie on the GPU, and are shuffled and mirrored there, an epoch at a time. Compiling, and the test after each
epoch, are not counted.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minigraph as mg
from benchmarks.machine import ROOT
from benchmarks.on_gpu.ours import asked, there
from benchmarks.on_gpu.report import Report
from examples.fashion_mnist import DEBIAN, find, read
from minigraph import layers
from minigraph.backends.cupy import device as gpu

WIDTHS, BATCH, EPOCHS, RATE, DECAY = (32, 64, 128), 256, 8, 8e-3, 0.05
GOAL, SEEDS, TESTED = 0.92, 3, 1000
COLUMNS = ("part", "seconds_to_goal", "epoch", "accuracy", "images_a_second", "seconds_of_all_epochs")


def network() -> mg.Graph:
    net = mg.Builder("fashion_mnist")
    image, label = net.input("image", ("N", 1, 28, 28), "uint8"), net.input("label", ("N",), "int64")
    h = mg.cast(image, "float32") / 255
    for channels in WIDTHS:
        h = layers.conv2d(h, channels, 3, padding="same", bias=False)
        h = mg.max_pool(mg.relu(layers.batch_norm(h)), 2)
    logits = layers.linear(mg.flatten(h), 10)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def one_cycle(steps: int) -> mg.optim.Schedule:
    """A linear rise over a fifth of the steps, then half a cosine down to 0."""
    rise = steps // 5
    return mg.optim.warmup(rise, mg.optim.cosine(RATE, steps - rise))


def fashion(report: Report, folder: Path | None) -> None:
    data: dict[str, dict[str, np.ndarray]] = {}
    report.part("data", partial(bring, data, folder))
    for precision in ("float32", "float16"):
        for seed in range(SEEDS):
            if data:
                report.part(f"{precision} seed {seed}", partial(trained, report, data, precision, seed))
        found = [row["seconds_to_goal"] for row in report.rows if row.get("precision") == precision]
        if found:
            reached = [seconds for seconds in found if seconds is not None]
            median = statistics.median(reached) if len(reached) == len(found) else None
            report.add(part=f"{precision} median", seconds_to_goal=median)
    report.show(COLUMNS)


def bring(data: dict[str, dict[str, np.ndarray]], folder: Path | None) -> None:
    """Read the files, from this folder or from where the example has them. Raises GraphError that says what lacks."""
    folder = folder or (DEBIAN if DEBIAN.is_dir() else ROOT / "out" / "data")
    try:
        find(folder)
    except mg.GraphError:
        how = "--data names a folder that has, and examples/train_fashion_mnist.py --download makes out/data one"
        raise mg.GraphError(f"{folder} has not all four files of Fashion-MNIST: {how}") from None
    for part in ("train", "t10k"):
        data[part] = read(folder, part)


def trained(report: Report, data: dict[str, dict[str, np.ndarray]], precision: str, seed: int) -> dict[str, Any]:
    """One training: after which epoch the goal was reached, and how many seconds all its steps took until then."""
    model, rng = network(), np.random.default_rng(seed)
    state, count = model.init(seed), len(data["train"]["label"]) // BATCH
    optimizer = mg.optim.AdamW(one_cycle(EPOCHS * count), weight_decay=DECAY)
    graph = mg.training_step(model, "loss", optimizer, precision=asked(precision), outputs=["loss"])
    train = mg.compile(graph, state, "cupy")
    check = mg.compile(mg.inference(model, ["accuracy"], precision=asked(precision)), state, "cupy")
    image, label = there(data["train"]["image"]), data["train"]["label"]
    test = {"image": there(data["t10k"]["image"]), "label": data["t10k"]["label"]}
    before = state.copy()
    train(image=image[:BATCH], label=label[:BATCH])  # compiled, and captured
    state.update({name: before[name] for name in before})
    seconds, reached, accuracies = 0.0, None, []
    for epoch in range(EPOCHS):
        begin = time.perf_counter()
        images, labels = shuffled(image, label, rng)
        for i in range(0, count * BATCH, BATCH):
            train(image=images[i : i + BATCH], label=labels[i : i + BATCH])
        gpu.device().finish()
        seconds += time.perf_counter() - begin
        parts = [{name: x[i : i + TESTED] for name, x in test.items()} for i in range(0, len(test["label"]), TESTED)]
        accuracies.append(float(np.mean([check(**part)["accuracy"] for part in parts])))
        if reached is None and accuracies[-1] >= GOAL:
            reached = {"seconds_to_goal": seconds, "epoch": epoch + 1}
        if report.left < 0:
            break
    return {
        "precision": precision,
        **(reached or {"seconds_to_goal": None}),
        "accuracy": max(accuracies),
        "accuracies": accuracies,
        "seconds_of_all_epochs": seconds,
        "images_a_second": round(len(accuracies) * count * BATCH / seconds),
    }


def shuffled(image: Any, label: np.ndarray, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    """All images in another order, half of them mirrored: where they lie. NumPy has the labels, and looks at them."""
    order, mirrored = rng.permutation(len(label)), there(rng.random(len(label)) < 0.5)
    images = image[there(order)]
    images[mirrored] = images[mirrored][..., ::-1]
    return images, label[order]
