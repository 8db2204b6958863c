"""U-Net: down to few pixels with many channels, up again, and what was seen on the way down is handed across."""

from __future__ import annotations

import minigraph as mg
from minigraph import layers


def unet(classes: int = 2, size: int = 256, channels: int = 1, width: int = 64, depth: int = 4) -> mg.Graph:
    """The U-Net of Ronneberger et al. 2015 ("U-Net: convolutional networks for biomedical image segmentation"), with
    padded convolutions, so that labels (N, size, size) have the size of the image, and batch norm: 31,036,546
    parameters. Logits are (N, classes, size, size), and accuracy is that of pixels.

    depth: how often the image is halved; `size` is a multiple of 2^depth.
    """
    if size % 2**depth:
        raise mg.GraphError(f"an image that is halved {depth} times has a multiple of {2**depth} pixels, not {size}")
    net = mg.Builder("unet")
    image, label = net.input("image", ("N", channels, size, size)), net.input("label", ("N", size, size), "int64")
    h, across = image, []
    for level in range(depth):
        with net.scope(f"down{level + 1}"):
            h = double_conv(h, width << level)
        across.append(h)
        h = mg.max_pool(h, 2)
    with net.scope("bottom"):
        h = double_conv(h, width << depth)
    for level in reversed(range(depth)):
        with net.scope(f"up{level + 1}"):
            h = mg.concat([across[level], twice(h, width << level)], axis=1)
            h = double_conv(h, width << level)
    logits = layers.conv2d(h, classes, 1, name="classifier")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def double_conv(x: mg.Tensor, channels: int) -> mg.Tensor:
    for _ in range(2):
        x = mg.relu(layers.batch_norm(layers.conv2d(x, channels, 3, padding=1, bias=False)))
    return x


def twice(x: mg.Tensor, channels: int) -> mg.Tensor:
    """The image twice as high and wide, by a transposed convolution: each pixel makes 2 x 2."""
    return layers.conv_transpose2d(x, channels, 2, stride=2)
