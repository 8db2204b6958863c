"""What the kernels of convolutions are told: sizes, strides, and where images, rows, pixels and taps lie."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from typing import Any

from minigraph.backends.c.claims.shapes import strides, vectors
from minigraph.backends.calls import Operand, Pointers
from minigraph.backends.groups import weight_of
from minigraph.core.dim import Size, known
from minigraph.core.ir import Node, Value
from minigraph.ops.window import extents_of, three


def geometry(x: Value, y: Value, node: Node) -> dict[str, Any] | None:
    """The fields that convolutions share, of the one that gives y from x; None where the kernels do not serve it."""
    attrs, layout, weight = node.attrs, node.attrs["layout"], weight_of(node)
    small, large = extents_of(y.type, layout), extents_of(x.type, layout)
    if layout[-1] != "C" or 0 in weight.type.shape or not all(isinstance(n, int) for n in (*small, *large)):
        return None
    (depth, H, W), (D, P, Q), (T, R, S) = three(large, 1), three(small, 1), three(weight.type.shape[2:], 1)
    groups, (sd, sh, sw), (dd, dh, dw) = attrs["groups"], three(attrs["stride"], 1), three(attrs["dilation"], 1)
    batch, channels, outputs = x.type.shape[0], x.type.shape[-1], y.type.shape[-1]
    if depth == D and T == sd == 1:  # slices are images
        batch, depth, D = batch * D, 1, 1
    return {
        "batch": batch, "groups": groups, "C": channels // groups, "K": outputs // groups,
        "D": D, "P": P, "Q": Q, "T": T, "R": R, "S": S,
        "stride_d": sd, "stride_h": sh, "stride_w": sw, "dilation_d": dd, "dilation_h": dh, "dilation_w": dw,
        "x_image": depth * H * W * channels, "x_slice": H * W * channels, "x_row": W * channels,
        "y_image": D * P * Q * outputs, "y_slice": P * Q * outputs, "y_row": Q * outputs, "y_pixel": outputs,
        "vectors": vectors(outputs // groups),
    }  # fmt: skip


def is_padded(node: Node) -> bool:
    return any(n for pair in node.attrs["padding"] for n in pair)


def taps_apart(w: Operand, rank: int, groups: int) -> dict[str, Size]:
    """How far apart the numbers of a weight (groups K, C, ...) lie."""
    k, c, *window = strides(w, rank)
    t, r, s = three(window, 0)
    rows = known(w.shape[0], "the number of outputs") // groups
    return {"w_group": rows * k, "w_k": k, "w_c": c, "w_t": t, "w_r": r, "w_s": s}


def sizes_of(shape: Mapping[str, Any]) -> dict[str, Size]:
    return {name: shape[name] for name in ("groups", "K", "C", "T", "R", "S")}


def lying_in(shape: Mapping[str, Any], p: Pointers, x: int | None, y: int | None) -> dict[str, Any]:
    """The fields, with the places of the operands, or the result (-1), that lie in the middle of others."""
    found = dict(shape)
    for name, number in (("x", x), ("y", y)):
        if number is not None and (rows := p.rows(number)) is not None:
            found[f"{name}_image"], found[f"{name}_row"] = rows
    return found


Axes = Mapping[str, dict[str, int]]


def axes_of(shape: Mapping[str, Any], node: Node) -> Axes:
    """What a gradient to the input reads along each axis: see conv_phase.h."""
    before = three([before for before, _ in node.attrs["padding"]], 0)
    found = {}
    for name, size, window, letter, front in zip(("depth", "height", "width"), "DPQ", "TRS", "dhw", before):
        stride, dilation = shape[f"stride_{letter}"], shape[f"dilation_{letter}"]
        found[name] = {"size": shape[size], "window": shape[window], "front": front}
        found[name].update(stride=stride, dilation=dilation, step=stride // gcd(stride, dilation))
    return found


def steps_of(axes: Axes) -> dict[str, int]:
    """By which the taps of a weight are sorted."""
    return {f"step_{letter}": axis["step"] for letter, axis in zip("trs", axes.values())}


def of_phase(shape: Mapping[str, Any], axes: Axes) -> dict[str, Any]:
    """The fields of the convolution that a phase of a gradient to the input is."""
    found = dict(shape)
    for letter, far, axis in zip("dhw", ("y_slice", "y_row", "y_pixel"), axes.values()):
        found[f"stride_{letter}"], found[f"dilation_{letter}"] = 1, axis["dilation"] * axis["step"] // axis["stride"]
        found[far] *= axis["stride"]
    return found
