"""VGG-small: nothing but 3 x 3 convolutions in a row."""

from __future__ import annotations

import minigraph as mg
from minigraph import layers


def vgg_small(classes: int = 10, size: int = 32, width: int = 128, dropout: float = 0.0) -> mg.Graph:
    """Six convolutions with batch norm, in three stages that double the channels and halve the image, and one linear
    layer: 4,660,106 parameters.

    The design is that of VGG (Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image
    recognition"); the convolutions are those of BinaryConnect's network for CIFAR-10 (Courbariaux et al. 2015), without
    its two hidden linear layers.
    """
    net = mg.Builder("vgg_small")
    image, label = net.input("image", ("N", 3, size, size)), net.input("label", ("N",), "int64")
    h = image
    for stage in range(3):
        with net.scope(f"stage{stage + 1}"):
            for _ in range(2):
                h = layers.conv2d(h, width << stage, 3, padding=1, bias=False)
                h = mg.relu(layers.batch_norm(h))
            h = mg.max_pool(h, 2)
    h = mg.flatten(h)
    if dropout:
        h = layers.dropout(h, dropout)
    logits = layers.linear(h, classes, name="classifier")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))
