"""Networks that are measured beside those of examples/networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import minigraph as mg
from examples.networks.unet import double_conv, twice
from minigraph import layers
from minigraph.nn.compose import residual, sequential


def mlp_bn(widths: Sequence[int], activation: Callable[[mg.Tensor], mg.Tensor] = mg.relu) -> mg.Graph:
    """784-widths-10, with a batch norm in front of each activation."""
    net = mg.Builder("mlp_bn")
    image, label = net.input("image", ("N", 784)), net.input("label", ("N",), "int64")
    h = image
    for width in widths:
        h = activation(layers.batch_norm(layers.linear(h, width, bias=False)))
    return ended(net, h, label)


def lenet_bn(channels: Sequence[int] = (32, 64), window: int = 5, width: int = 512) -> mg.Graph:
    """Two convolutions that keep the size of 28 x 28 digits, each halved by max pooling, and a hidden layer."""
    net = mg.Builder("lenet_bn")
    image, label = net.input("image", ("N", 1, 28, 28)), net.input("label", ("N",), "int64")
    h = image
    for count in channels:
        h = layers.batch_norm(layers.conv2d(h, count, window, padding="same", bias=False))
        h = mg.max_pool(mg.relu(h), 2)
    h = mg.relu(layers.batch_norm(layers.linear(mg.flatten(h), width, bias=False)))
    return ended(net, h, label)


def resnet9() -> mg.Graph:
    """A residual network of nine layers for 32 x 32 pixels, of the kind with which CIFAR-10 is trained in seconds."""
    net = mg.Builder("resnet9")
    image, label = net.input("image", ("N", 3, 32, 32)), net.input("label", ("N",), "int64")
    h = pooled(conv_bn(conv_bn(image, 64), 128))
    h = residual(h, lambda x: sequential(x, *[partial(conv_bn, channels=128)] * 2))
    h = pooled(conv_bn(h, 256))
    h = pooled(conv_bn(h, 512))
    h = residual(h, lambda x: sequential(x, *[partial(conv_bn, channels=512)] * 2))
    return ended(net, mg.flatten(mg.max_pool(h, 4)), label)


def unet_of_any_size(height: int, width: int, channels: int = 16, depth: int = 3, classes: int = 2) -> mg.Graph:
    """A U-Net whose image need not be a multiple of anything: pooling leaves odd rows and columns out, and on the way
    up zeros stand in for them.
    """
    net = mg.Builder("unet_of_any_size")
    image, label = net.input("image", ("N", 1, height, width)), net.input("label", ("N", height, width), "int64")
    h, across = image, []
    for level in range(depth):
        h = double_conv(h, channels << level)
        across.append(h)
        h = mg.max_pool(h, 2)
    h = double_conv(h, channels << depth)
    for level in reversed(range(depth)):
        seen, h = across[level], twice(h, channels << level)
        missing = [int(a) - int(b) for a, b in zip(seen.shape[2:], h.shape[2:])]  # type: ignore[arg-type]
        h = mg.pad(h, ((0, 0), (0, 0), *((0, count) for count in missing)))
        h = double_conv(mg.concat([seen, h], axis=1), channels << level)
    logits = layers.conv2d(h, classes, 1, name="classifier")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def conv_bn(x: mg.Tensor, channels: int) -> mg.Tensor:
    return mg.relu(layers.batch_norm(layers.conv2d(x, channels, 3, padding=1, bias=False)))


def pooled(x: mg.Tensor) -> mg.Tensor:
    return mg.max_pool(x, 2)


def ended(net: mg.Builder, h: mg.Tensor, label: mg.Tensor) -> mg.Graph:
    logits = layers.linear(h, 10, name="classifier")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))
