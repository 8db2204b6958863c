"""What the experiments train, and how: two small networks, batches in the order of a seed, and test accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import minigraph as mg
from minigraph import layers

from .data import Batch, Data, part

Block = Callable[[mg.Tensor], mg.Tensor]
CHANCE = 10.0  # percent, of ten classes


def cnn(
    data: Data, block: Block, *, channels: tuple[int, ...] = (8, 16), times: int = 1, first: Block = lambda h: h
) -> mg.Graph:
    """For each of the channels a convolution and `block`, so many times, and pooling; then a linear layer. `first` is
    put before all."""
    net = mg.Builder("cnn")
    image, label = net.input("image", ("N", 1, data.side, data.side)), net.input("label", ("N",), "int64")
    h = first(image)
    for width in channels:
        for _ in range(times):
            h = block(layers.conv2d(h, width, 3, padding="same"))
        h = mg.max_pool(h, 2)
    return answers(net, mg.flatten(h), label)


def mlp(data: Data, block: Block, *, widths: tuple[int, ...] = (100, 100), bias: bool = True) -> mg.Graph:
    """A linear layer, with a bias or without, and `block` for each of the widths, then a linear layer."""
    net = mg.Builder("mlp")
    image, label = net.input("image", ("N", 1, data.side, data.side)), net.input("label", ("N",), "int64")
    h = mg.flatten(image)
    for width in widths:
        h = block(layers.linear(h, width, bias=bias))
    return answers(net, h, label)


def answers(net: mg.Builder, h: mg.Tensor, label: mg.Tensor, **more: mg.Tensor) -> mg.Graph:
    """The model whose last layer reads h, with what it answers, and more, as outputs."""
    logits = layers.linear(h, 10)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label), **more)


def plain(h: mg.Tensor) -> mg.Tensor:
    return mg.relu(h)


def normalized(h: mg.Tensor) -> mg.Tensor:
    return mg.relu(layers.batch_norm(h))


def trainer(model: mg.Graph, state: mg.State, optimizer: mg.optim.Optimizer) -> mg.Program:
    return mg.compile(mg.training_step(model, "loss", optimizer, outputs=["loss"]), state)


def checker(model: mg.Graph, state: mg.State) -> mg.Program:
    return mg.compile(mg.inference(model, outputs=["loss", "accuracy"]), state)


def batches(data: Batch, size: int, count: int, seed: int) -> Iterator[Batch]:
    """So many batches, of images in a new order in each epoch; what does not fill a batch is left for another epoch."""
    rng, total = np.random.default_rng(seed), len(data["label"])
    size = min(size, total)
    order, place = rng.permutation(total), 0
    for _ in range(count):
        if place + size > total:
            order, place = rng.permutation(total), 0
        yield part(data, order[place : place + size])
        place += size


def train(program: mg.Program, data: Batch, size: int, count: int, seed: int, **inputs: Any) -> list[float]:
    """Run so many steps, and give their losses. Where one is not finite the training ends: it has diverged."""
    losses = []
    with np.errstate(all="ignore"):
        for batch in batches(data, size, count, seed):
            losses.append(float(program(**batch, **inputs)["loss"]))
            if not np.isfinite(losses[-1]):
                break
    return losses


def curve(
    program: mg.Program, check: mg.Program, data: Data, size: int, points: list[int], seed: int, **inputs: Any
) -> dict[str, list[float]]:
    """Train to the last of the points (steps, from 0), and look at each: its test accuracy (%), and the mean loss since
    the point before it."""
    accuracies, losses, seen, step = [], [], [], 0
    stream = batches(data.train, size, points[-1], seed)
    for point in points:
        while step < point:
            seen.append(float(program(**next(stream), **inputs)["loss"]))
            step += 1
        accuracies.append(accuracy(check, data.test))
        losses.append(float(np.mean(seen)) if seen else float("nan"))
        seen = []
    return {"step": list(map(float, points)), "accuracy": accuracies, "loss": losses}


def accuracy(check: mg.Program, data: Batch) -> float:
    """In percent; of a network that has diverged, that of chance."""
    with np.errstate(all="ignore"):
        found = mg.evaluate(check, data, 1000)
    return 100 * float(found["accuracy"]) if np.isfinite(found["loss"]) else CHANCE


def points_up_to(steps: int, count: int) -> list[int]:
    """Steps from 0 to `steps`, so many after 0, evenly."""
    return sorted({round(steps * i / count) for i in range(count + 1)})


def first_step(measured: Any, target: float) -> float:
    """The first step at which the test accuracy is the target (%) or more; the last step where it never was."""
    reached = [step for step, found in zip(measured["step"], measured["accuracy"]) if found >= target]
    return max(1.0, reached[0] if reached else measured["step"][-1])
