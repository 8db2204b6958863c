"""Composition: chains and residual blocks of functions Tensor -> Tensor, under readable names.

    def block(x):
        conv = lambda h: layers.conv2d(h, 64, 3, padding=1, bias=False)
        return residual(x, lambda h: sequential(h, conv, layers.batch_norm, mg.relu, conv, layers.batch_norm))

A residual block is a scope, named by its kind and a number or as `name=` says; a chain is one only if it has a name. So
what the first convolution of the second block learns is residual2.conv1.weight.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from minigraph.core.builder import Tensor
from minigraph.core.errors import expect

Layer = Callable[[Tensor], Tensor]


def sequential(x: Tensor, *layers: Layer, name: str | None = None) -> Tensor:
    """The layers one after the other: sequential(x, f, g) is g(f(x)).

    Each is a function of one tensor: an op such as relu, or a layer with its arguments,
    `lambda h: layers.linear(h, 10)`. With a name they are built in a scope of that name: stem.conv1.weight.
    """
    with nullcontext() if name is None else x.builder.layer("sequential", name):
        for number, layer in enumerate(layers, 1):
            x = _applied(layer, x, f"layer {number} of {len(layers)} in sequential")
        return x


def residual(
    x: Tensor,
    body: Layer,
    *,
    shortcut: Layer | None = None,
    activation: Layer | None = None,
    name: str | None = None,
) -> Tensor:
    """activation(body(x) + shortcut(x)) (He et al. 2016).

    shortcut: None adds x itself. Where the body changes the shape, a projection to the new one: a convolution of window
        1, with the body's channels and stride. What it makes is named shortcut.conv1, and so on.
    activation: None leaves the sum as it is, as networks with pre-activation want it.
    """
    with x.builder.layer("residual", name):
        y, along = _applied(body, x, "the body"), x
        if shortcut is not None:
            with x.builder.scope("shortcut"):
                along = _applied(shortcut, x, "the shortcut")
        if y.value.type != along.value.type:
            _refuse(y, along, shortcut is None)
        y = y + along
        return y if activation is None else _applied(activation, y, "the activation")


def _refuse(y: Tensor, along: Tensor, plain: bool) -> None:
    expect(y.dtype == along.dtype, "the body gives {} and the shortcut {}: cast one of them", y.value, along.value)
    where = "the number of axes"
    if y.rank == along.rank:
        where = "axis " + ", ".join(str(i) for i, (n, m) in enumerate(zip(y.shape, along.shape)) if n != m)
    help_ = (
        "shortcut= takes a projection of x to the body's shape, such as a convolution of window 1 with the body's"
        " channels and stride"
        if plain
        else "give the shortcut the body's channels and strides"
    )
    expect(False, "the body gives {} and the shortcut {}; they differ in {}. {}", y.value, along.value, where, help_)


def _applied(layer: Layer, x: Tensor, what: str) -> Tensor:
    expect(
        callable(layer),
        "{} is a function of a tensor, such as `lambda h: layers.linear(h, 10)`, not {!r}",
        what,
        layer,
    )
    y = layer(x)
    expect(isinstance(y, Tensor) and y.builder is x.builder, "{} gives a tensor of this graph, not {!r}", what, y)
    return y
