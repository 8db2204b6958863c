"""MobileNetV2: convolutions of single channels between narrow layers, for small processors."""

from __future__ import annotations

import minigraph as mg
from minigraph import layers

# the paper's table 2: expansion, channels, blocks, stride of the first of them
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(classes: int = 1000, size: int = 224, width: float = 1.0, dropout: float = 0.2) -> mg.Graph:
    """MobileNetV2 of Sandler et al. 2018 ("MobileNetV2: inverted residuals and linear bottlenecks") for ImageNet:
    3,504,872 parameters (3.4 M in the paper). `width` multiplies the channels.
    """
    net = mg.Builder("mobilenet_v2")
    image, label = net.input("image", ("N", 3, size, size)), net.input("label", ("N",), "int64")
    h = mg.relu6(conv_bn(image, scaled(32, width), 3, stride=2))
    for stage, (expansion, channels, blocks, stride) in enumerate(STAGES):
        for i in range(blocks):
            with net.scope(f"stage{stage + 1}.block{i + 1}"):
                h = inverted_residual(h, scaled(channels, width), expansion, stride if not i else 1)
    h = mg.relu6(conv_bn(h, scaled(1280, max(1.0, width)), 1))  # a narrow network keeps its features
    h = mg.global_avg_pool(h)
    if dropout:
        h = layers.dropout(h, dropout)
    logits = layers.linear(h, classes, name="classifier")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def inverted_residual(x: mg.Tensor, channels: int, expansion: int, stride: int) -> mg.Tensor:
    """Widen, convolve each channel by itself, and narrow again without a ReLU, which would lose too much there."""
    y, inputs = x, int(x.shape[1])  # type: ignore[arg-type]
    hidden = expansion * inputs
    if expansion > 1:
        y = mg.relu6(conv_bn(y, hidden, 1))
    y = mg.relu6(conv_bn(y, hidden, 3, stride, groups=hidden))
    y = conv_bn(y, channels, 1)
    return x + y if inputs == channels and stride == 1 else y


def conv_bn(x: mg.Tensor, channels: int, window: int, stride: int = 1, groups: int = 1) -> mg.Tensor:
    x = layers.conv2d(x, channels, window, stride=stride, padding=window // 2, groups=groups, bias=False)
    return layers.batch_norm(x)


def scaled(channels: int, width: float) -> int:
    """A number of channels times `width`, to the nearest multiple of 8, but not less than 9/10 of it."""
    wanted = channels * width
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * wanted else nearest + 8
