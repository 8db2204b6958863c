"""Zeros that are put around an image become the padding of the convolution that reads it.

    conv(pad(x, n), w, padding=p)  =  conv(x, w, padding=p + n)

and the same for the convolution's gradient with respect to its weight, which reads x as well.
"""

from __future__ import annotations

from collections.abc import Callable

from minigraph.core.builder import Tensor
from minigraph.core.op import Op
from minigraph.core.pattern import values
from minigraph.core.pipeline import Pass
from minigraph.core.rewrite import Condition, Match, Rule
from minigraph.ops.conv import conv, conv_weight_gradient
from minigraph.ops.shape import pad
from minigraph.ops.window import spatial_axes


def padding_more(op: Op) -> Callable[..., Tensor]:
    """The op on x itself, with the padding that x gets and its own."""

    def built(match: Match, x: Tensor, w: Tensor) -> Tensor:
        attrs, widths = match.node.attrs, match["pad"].attrs["widths"]
        more = (widths[axis] for axis in spatial_axes(attrs["layout"]))
        padding = tuple((a + c, b + d) for (a, b), (c, d) in zip(attrs["padding"], more))
        result: Tensor = op(x, w, **{**attrs, "padding": padding})
        return result

    return built


def no_zeros(match: Match) -> str:
    attrs, name = match["pad"].attrs, match["pad"].name
    if attrs["mode"] != "constant":
        return f"{name} pads with what it is given, in mode {attrs['mode']!r}"
    return "" if attrs["value"] == 0 else f"{name} pads with {attrs['value']}"


def other_axes(match: Match) -> str:
    spatial = spatial_axes(match.node.attrs["layout"])
    found = [axis for axis, pair in enumerate(match["pad"].attrs["widths"]) if any(pair) and axis not in spatial]
    return f"{match['pad'].name} pads axis {found[0]}, which is not spatial" if found else ""


def takes_away(match: Match) -> str:
    cut = any(n < 0 for pair in match["pad"].attrs["widths"] for n in pair)
    return f"{match['pad'].name} takes entries away" if cut else ""


x, w = values("x w")

CONDITIONS = (
    Condition("it pads with zeros", no_zeros),
    Condition("it pads spatial axes only", other_axes),
    Condition("it takes nothing away", takes_away),
)

RULES = (
    Rule(
        "pad-into-conv",
        "conv(pad(x, n), w, padding=p) = conv(x, w, padding=p + n)",
        conv(pad(x).named("pad"), w),
        padding_more(conv),
        sound=CONDITIONS,
    ),
    Rule(
        "pad-into-weight-gradient",
        "conv_weight_gradient(pad(x, n), g, padding=p) = conv_weight_gradient(x, g, padding=p + n)",
        conv_weight_gradient(pad(x).named("pad"), w),
        padding_more(conv_weight_gradient),
        sound=CONDITIONS,
    ),
)

PASS = Pass("pad-into-conv", "Zeros around an image become the padding of the convolution.", RULES)
