"""DenseNet-BC: each layer sees what all layers before it in its block have made."""

from __future__ import annotations

import minigraph as mg
from minigraph import layers


def densenet_bc(depth: int = 100, growth: int = 12, classes: int = 10, size: int = 32, blocks: int = 3) -> mg.Graph:
    """DenseNet-BC of Huang et al. 2017 ("Densely connected convolutional networks") for CIFAR, with compression 0.5:
    three blocks of (depth - 4) / 6 layers that make `growth` channels each. As it stands it has 769,162 parameters
    (0.8 M in the paper's table 2).
    """
    if depth <= 1 + blocks or (depth - 1 - blocks) % (2 * blocks):
        raise mg.GraphError(f"with {blocks} blocks the depth is {2 * blocks}n + {1 + blocks}, not {depth}")
    net = mg.Builder(f"densenet_bc{depth}-{growth}")
    image, label = net.input("image", ("N", 3, size, size)), net.input("label", ("N",), "int64")
    h = layers.conv2d(image, 2 * growth, 3, padding=1, bias=False)
    for block in range(blocks):
        for i in range((depth - 1 - blocks) // (2 * blocks)):
            with net.scope(f"block{block + 1}.layer{i + 1}"):
                h = dense_layer(h, growth)
        if block < blocks - 1:
            with net.scope(f"transition{block + 1}"):
                h = transition(h)
    h = mg.relu(layers.batch_norm(h))
    logits = layers.linear(mg.global_avg_pool(h), classes, name="classifier")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def dense_layer(x: mg.Tensor, growth: int) -> mg.Tensor:
    """x, and behind it `growth` new channels; a 1 x 1 convolution first brings x down to four times as many."""
    y = layers.conv2d(mg.relu(layers.batch_norm(x)), 4 * growth, 1, bias=False)
    y = layers.conv2d(mg.relu(layers.batch_norm(y)), growth, 3, padding=1, bias=False)
    return mg.concat([x, y], axis=1)


def transition(x: mg.Tensor) -> mg.Tensor:
    """Half of the channels, half of the image."""
    channels = int(x.shape[1])  # type: ignore[arg-type]
    x = layers.conv2d(mg.relu(layers.batch_norm(x)), channels // 2, 1, bias=False)
    return mg.avg_pool(x, 2)
