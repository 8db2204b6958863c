"""A convolutional network for series of numbers: sensors, sound, prices."""

from __future__ import annotations

from collections.abc import Sequence

import minigraph as mg
from minigraph import layers


def cnn1d(
    classes: int = 10,
    length: int = 128,
    channels: int = 1,
    widths: Sequence[int] = (128, 256, 128),
    windows: Sequence[int] = (8, 5, 3),
) -> mg.Graph:
    """The FCN of Wang, Yan and Oates 2017 ("Time series classification from scratch with deep neural networks"): three
    convolutions with batch norm and ReLU, and the mean over time. 265,482 parameters for one channel and ten classes.
    """
    net = mg.Builder("cnn1d")
    series, label = net.input("series", ("N", channels, length)), net.input("label", ("N",), "int64")
    h = series
    for width, window in zip(widths, windows, strict=True):
        h = layers.conv1d(h, width, window, padding="same", bias=False)
        h = mg.relu(layers.batch_norm(h))
    logits = layers.linear(mg.global_avg_pool(h), classes, name="classifier")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))
