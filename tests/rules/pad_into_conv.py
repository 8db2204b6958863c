"""pad-into-conv."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from minigraph.core.op import OPS
from rules import Case, Near, number

Built = Mapping[str, Tensor]


def padded(op: str, widths: Any, layout: str = "NCL", **attrs: Any) -> Callable[[Builder], Built]:
    """The op on 2 images of 5 places and 3 channels, padded; and a weight, or a gradient, for each place but two."""

    def build(net: Builder) -> Built:
        x = mg.pad(net.input("x", (2, 3, 5) if layout == "NCL" else (2, 5, 3)), widths, **attrs)
        channels, places = (x.shape[layout.index(letter)] for letter in "CL")
        if op == "conv":
            return {"y": mg.conv(x, number(net, "w", 2, channels, 3), padding=((0, 1),), layout=layout)}
        shape = (x.shape[0], 2, places - 1) if layout == "NCL" else (x.shape[0], places - 1, 2)
        g = net.input("g", shape)
        return {"w": OPS[op](x, g, window=3, padding=((0, 1),), layout=layout)}

    return build


def case(op: str, golden: str) -> Case:
    def near(widths: Any, fails: Any = None, **attrs: Any) -> Near:
        return Near(padded(op, widths, **attrs), fails=fails)

    return Case(
        build=padded(op, ((0, 0), (2, 0), (0, 0)), layout="NLC"),
        golden=golden,
        near={
            "it pads with zeros": near(((0, 0), (0, 0), (2, 0)), value=0.5),
            "it pads spatial axes only": near(((0, 0), (1, 0), (2, 0)), fails=mg.GraphError),
            "it takes nothing away": near(((0, 0), (0, 0), (2, -1))),
        },
    )


CASES = {
    "pad-into-conv": case(
        "conv",
        golden="""
            conv: float32[2, 6, 2] = conv(x, w, stride=(1,), padding=((2, 1),), dilation=(1,), groups=1, layout="NLC")
            output y = conv
            """,
    ),
    "pad-into-weight-gradient": case(
        "conv_weight_gradient",
        golden="""
            conv_weight_gradient: float32[2, 3, 3] = conv_weight_gradient(x, g, window=(3,), stride=(1,), padding=((2, 1),), dilation=(1,), groups=1, layout="NLC")
            output w = conv_weight_gradient
            """,  # noqa: E501
    ),
}
