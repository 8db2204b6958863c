"""Residual networks for photographs: ResNet-18, ResNet-34 and ResNet-50."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import minigraph as mg
from minigraph import layers


def resnet18(classes: int = 1000, size: int = 224, width: int = 64) -> mg.Graph:
    """ResNet-18 for ImageNet: 11,689,512 parameters; see resnet."""
    return resnet("resnet18", basic, (2, 2, 2, 2), classes, size, width)


def resnet34(classes: int = 1000, size: int = 224, width: int = 64) -> mg.Graph:
    """ResNet-34 for ImageNet: 21,797,672 parameters; see resnet."""
    return resnet("resnet34", basic, (3, 4, 6, 3), classes, size, width)


def resnet50(classes: int = 1000, size: int = 224, width: int = 64) -> mg.Graph:
    """ResNet-50 for ImageNet: 25,557,032 parameters; see resnet."""
    return resnet("resnet50", bottleneck, (3, 4, 6, 3), classes, size, width)


def resnet(
    name: str, block: Callable[..., mg.Tensor], depths: Sequence[int], classes: int, size: int, width: int
) -> mg.Graph:
    """The networks of He et al. 2015 ("Deep residual learning for image recognition"), table 1, with stages of so many
    blocks, `width` channels in the first and twice as many in each other.

    A shortcut that has to change its shape is a 1 x 1 convolution (option B). A bottleneck's stride is in its 3 x 3
    convolution; the paper has it in the 1 x 1 in front, which throws three of four pixels away. The numbers of
    parameters are the same.
    """
    net = mg.Builder(name)
    image, label = net.input("image", ("N", 3, size, size)), net.input("label", ("N",), "int64")
    h = mg.relu(conv_bn(image, width, 7, stride=2))
    h = mg.max_pool(h, 3, stride=2, padding=1)
    for stage, depth in enumerate(depths):
        for i in range(depth):
            with net.scope(f"stage{stage + 1}.block{i + 1}"):
                h = block(h, width << stage, stride=2 if stage and not i else 1)
    logits = layers.linear(mg.global_avg_pool(h), classes, name="classifier")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def basic(x: mg.Tensor, channels: int, stride: int) -> mg.Tensor:
    y = mg.relu(conv_bn(x, channels, 3, stride))
    y = conv_bn(y, channels, 3)
    return mg.relu(y + shortcut(x, channels, stride))


def bottleneck(x: mg.Tensor, channels: int, stride: int) -> mg.Tensor:
    y = mg.relu(conv_bn(x, channels, 1))
    y = mg.relu(conv_bn(y, channels, 3, stride))
    y = conv_bn(y, 4 * channels, 1)
    return mg.relu(y + shortcut(x, 4 * channels, stride))


def shortcut(x: mg.Tensor, channels: int, stride: int) -> mg.Tensor:
    if x.shape[1] == channels and stride == 1:
        return x
    x = layers.conv2d(x, channels, 1, stride=stride, bias=False, name="shortcut_conv")
    return layers.batch_norm(x, name="shortcut_bn")


def conv_bn(x: mg.Tensor, channels: int, window: int, stride: int = 1) -> mg.Tensor:
    x = layers.conv2d(x, channels, window, stride=stride, padding=window // 2, bias=False)
    return layers.batch_norm(x)
