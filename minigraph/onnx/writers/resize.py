"""Images in another size. ONNX has the channels in front."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from minigraph.core.dim import Dim, Shape
from minigraph.core.ir import Node
from minigraph.onnx.draft import Draft, Unwritable, writes
from minigraph.onnx.writers.convolution import channels_first, from_channels_first
from minigraph.ops.resize import _lines, resize, resize_gradient
from minigraph.ops.window import extents_of

RESIZED = ("float16", "float32", "int8", "int32", "uint8")  # what ONNX Runtime resizes


@writes(resize)
def write_resize(draft: Draft, node: Node, x: str) -> str:
    """ONNX's Resize where both round alike; elsewhere each axis is gathered and weighed by what the op says."""
    attrs, layout = node.attrs, node.attrs["layout"]
    before, after = (extents_of(value.type, layout) for value in (node.inputs[0], node.outputs[0]))
    x, rank = channels_first(draft, x, layout), len(layout)
    if node.inputs[0].type.dtype in RESIZED and _alike(before, after, attrs):
        axes = list(range(2, rank))
        scales = draft.array(attrs["scales"], "float32") if attrs["scales"] else ""
        sizes = "" if attrs["scales"] else draft.shape(attrs["sizes"])
        mode, rounding = attrs["mode"], attrs["nearest_mode"] if attrs["mode"] == "nearest" else None
        names = {"coordinate_transformation_mode": attrs["coordinate_transformation"], "nearest_mode": rounding}
        y = draft.add("Resize", x, "", scales, *([sizes] if sizes else []), axes=axes, mode=mode, **names)
    else:
        y = _line_by_line(draft, x, node, before, after)
    return from_channels_first(draft, y, layout)


def _alike(before: Shape, after: Shape, attrs: Any) -> bool:
    """Whether ONNX Runtime, which computes coordinates in float32, looks at the same places for sure: where sizes grow
    by whole factors, or the scales are short binary fractions; of two axes, which it interpolates between."""
    if attrs["mode"] == "linear" and len(before) != 2:
        return False
    if attrs["coordinate_transformation"] == "align_corners":
        return attrs["mode"] == "linear"
    if attrs["scales"]:
        return all(Fraction(str(s)).denominator in (1, 2, 4) for s in attrs["scales"])
    if attrs["mode"] == "linear":
        return True
    divides = lambda n, m: isinstance(n, Dim) or isinstance(m, Dim) or m % n == 0
    return all(divides(n, m) or divides(m, n) for n, m in zip(before, after))


def _line_by_line(draft: Draft, x: str, node: Node, before: Shape, after: Shape) -> str:
    dtype = node.inputs[0].type.dtype
    for axis, (source, weight) in enumerate(_known_lines(before, after, node.attrs), start=2):
        first = draft.add("Gather", x, draft.array(source), axis=axis)
        if weight.any():
            behind = np.where(weight > 0, source + 1, source)
            second = draft.add("Gather", x, draft.array(behind), axis=axis)
            shape = [1] * len(before)
            shape[axis - 2] = -1
            near, far = (draft.array(w.reshape(shape), dtype) for w in (1 - weight, weight))
            first = draft.add("Add", draft.add("Mul", first, near), draft.add("Mul", second, far))
        x = first
    return x


def _known_lines(before: Shape, after: Shape, attrs: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each axis which entry each new one looks at, and the weight of the one behind that, in float64."""
    if any(isinstance(n, Dim) for n in (*before, *after)):
        raise Unwritable("which entries it looks at depends on sizes that are known only at run time")
    return [(source, weight.astype(np.float64)) for source, weight in _lines(before, after, attrs)]


@writes(resize_gradient)
def write_resize_gradient(draft: Draft, node: Node, g: str) -> str:
    """Along each axis the product with the matrix of what each entry gave."""
    layout, dtype, rank = node.attrs["layout"], node.inputs[0].type.dtype, node.inputs[0].type.rank
    before, after = node.attrs["extents"], extents_of(node.inputs[0].type, layout)
    g = channels_first(draft, g, layout)
    for axis, (source, weight) in enumerate(_known_lines(before, after, node.attrs), start=2):
        rows = np.arange(len(source))
        matrix = np.zeros((len(source), before[axis - 2]))
        matrix[rows, source] = 1 - weight
        between = weight > 0
        matrix[rows[between], source[between] + 1] = weight[between]
        g = draft.move(g, rank, axis, rank - 1)
        g = draft.move(draft.add("MatMul", g, draft.array(matrix, dtype)), rank, rank - 1, axis)
    return from_channels_first(draft, g, layout)
