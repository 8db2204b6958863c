"""Residual networks for images of 32 x 32 pixels: ResNet-20 and its deeper siblings."""

from __future__ import annotations

import minigraph as mg
from minigraph import layers


def resnet20(classes: int = 10, size: int = 32, width: int = 16) -> mg.Graph:
    """ResNet-20 for CIFAR-10: 269,722 parameters (0.27 M in the paper); see resnet_cifar."""
    return resnet_cifar(20, classes, size, width)


def resnet_cifar(depth: int, classes: int = 10, size: int = 32, width: int = 16) -> mg.Graph:
    """The networks of He et al. 2015 ("Deep residual learning for image recognition"), section 4.2: depth = 6n + 2, in
    three stages of n blocks with 16, 32 and 64 channels.

    Shortcuts are the paper's option A, without parameters: where the image shrinks, every second pixel goes on, and the
    new channels are zeros.
    """
    if depth < 8 or (depth - 2) % 6:
        raise mg.GraphError(f"the depth is 6n + 2 (8, 14, 20, ...), not {depth}")
    net = mg.Builder(f"resnet{depth}")
    image, label = net.input("image", ("N", 3, size, size)), net.input("label", ("N",), "int64")
    h = mg.relu(conv_bn(image, width))
    for stage in range(3):
        for i in range((depth - 2) // 6):
            with net.scope(f"stage{stage + 1}.block{i + 1}"):
                h = block(h, width << stage, stride=2 if stage and not i else 1)
    logits = layers.linear(mg.global_avg_pool(h), classes, name="classifier")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def block(x: mg.Tensor, channels: int, stride: int) -> mg.Tensor:
    y = mg.relu(conv_bn(x, channels, stride))
    y = conv_bn(y, channels)
    return mg.relu(y + shortcut(x, channels, stride))


def shortcut(x: mg.Tensor, channels: int, stride: int) -> mg.Tensor:
    if stride == 1:
        return x
    x = x[:, :, ::stride, ::stride]
    return mg.pad(x, ((0, 0), (0, channels // 2), (0, 0), (0, 0)))  # the stage before had half of the channels


def conv_bn(x: mg.Tensor, channels: int, stride: int = 1) -> mg.Tensor:
    return layers.batch_norm(layers.conv2d(x, channels, 3, stride=stride, padding=1, bias=False))
