"""Layers of neurons, each joined to every one of the next."""

from __future__ import annotations

from collections.abc import Sequence

import minigraph as mg
from minigraph import layers


def mlp(
    classes: int = 10, size: int = 28, channels: int = 1, widths: Sequence[int] = (300, 100), dropout: float = 0.0
) -> mg.Graph:
    """A multilayer perceptron on images: 266,610 parameters as it stands, which is the 784-300-100-10 of LeCun et al.
    1998 ("Gradient-based learning applied to document recognition") with ReLU instead of tanh.
    """
    net = mg.Builder("mlp")
    image, label = net.input("image", ("N", channels, size, size)), net.input("label", ("N",), "int64")
    h = mg.flatten(image)
    for width in widths:
        h = mg.relu(layers.linear(h, width))
        if dropout:
            h = layers.dropout(h, dropout)
    logits = layers.linear(h, classes, name="classifier")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))
