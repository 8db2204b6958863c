"""LeNet-5, the convolutional network that read cheques."""

from __future__ import annotations

from collections.abc import Sequence

import minigraph as mg
from minigraph import layers


def lenet(
    classes: int = 10,
    size: int = 28,
    channels: Sequence[int] = (6, 16),
    widths: Sequence[int] = (120, 84),
    batch_norm: bool = False,
) -> mg.Graph:
    """LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition"): 61,706 parameters, or
    61,728 with a batch norm behind each convolution instead of a bias.

    As in most descendants, pooling takes the largest number, ReLU follows, the last layer is linear, and the second
    convolution sees all six channels; the paper's sees some of them, and has 60,000 parameters.
    """
    net = mg.Builder("lenet")
    image, label = net.input("image", ("N", 1, size, size)), net.input("label", ("N",), "int64")
    h = image
    for i, count in enumerate(channels):
        # the paper puts the 28 x 28 digits into 32 x 32 pixels: here the first convolution pads
        h = layers.conv2d(h, count, 5, padding=0 if i else 2, bias=not batch_norm)
        if batch_norm:
            h = layers.batch_norm(h)
        h = mg.max_pool(mg.relu(h), 2)
    h = mg.flatten(h)
    for width in widths:
        h = mg.relu(layers.linear(h, width))
    logits = layers.linear(h, classes, name="classifier")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))
