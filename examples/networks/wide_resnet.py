"""Wide residual networks: fewer blocks, with more channels each."""

from __future__ import annotations

import minigraph as mg
from minigraph import layers


def wide_resnet(
    depth: int = 28, widen: int = 10, classes: int = 10, size: int = 32, width: int = 16, dropout: float = 0.0
) -> mg.Graph:
    """WRN-depth-widen of Zagoruyko and Komodakis 2016 ("Wide residual networks") for CIFAR: three stages of
    (depth - 4) / 6 blocks, with widen * (16, 32, 64) channels. WRN-28-10 has 36,479,194 parameters (36.5 M in the
    paper).

    Batch norm and ReLU stand in front of each convolution, and `dropout` between the two of a block. A shortcut that
    has to change its shape is a 1 x 1 convolution, behind the block's first batch norm and ReLU.
    """
    if depth < 10 or (depth - 4) % 6:
        raise mg.GraphError(f"the depth is 6n + 4 (10, 16, 22, 28, ...), not {depth}")
    net = mg.Builder(f"wide_resnet{depth}-{widen}")
    image, label = net.input("image", ("N", 3, size, size)), net.input("label", ("N",), "int64")
    h = layers.conv2d(image, width, 3, padding=1, bias=False)
    for stage in range(3):
        for i in range((depth - 4) // 6):
            with net.scope(f"stage{stage + 1}.block{i + 1}"):
                h = block(h, widen * width << stage, stride=2 if stage and not i else 1, dropout=dropout)
    h = mg.relu(layers.batch_norm(h))
    logits = layers.linear(mg.global_avg_pool(h), classes, name="classifier")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def block(x: mg.Tensor, channels: int, stride: int, dropout: float) -> mg.Tensor:
    y = mg.relu(layers.batch_norm(x))
    if x.shape[1] != channels or stride > 1:
        x = layers.conv2d(y, channels, 1, stride=stride, bias=False, name="shortcut_conv")
    y = layers.conv2d(y, channels, 3, stride=stride, padding=1, bias=False)
    y = mg.relu(layers.batch_norm(y))
    if dropout:
        y = layers.dropout(y, dropout)
    return x + layers.conv2d(y, channels, 3, padding=1, bias=False)
