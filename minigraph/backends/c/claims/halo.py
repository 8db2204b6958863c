"""Zeros around images: padding, and the spreading of gradients."""

from __future__ import annotations

from typing import Any

from minigraph.backends.c.claims.geometry import lying_in
from minigraph.backends.c.claims.shapes import fields
from minigraph.backends.calls import Call, Pointers, dense
from minigraph.core.dim import product
from minigraph.core.ir import Graph, Node
from minigraph.core.op import OPS
from minigraph.ops.window import three


def pad(graph: Graph, node: Node) -> Call | None:
    widths, zeros = node.attrs["widths"], node.attrs["value"] == 0 and node.attrs["mode"] == "constant"
    inside = all(n >= 0 for pair in widths for n in pair)
    return _halo(graph, node, [before for before, _ in widths], [1] * len(widths)) if zeros and inside else None


def unslice(graph: Graph, node: Node) -> Call | None:
    return _halo(graph, node, node.attrs["start"], node.attrs["step"])


def _halo(graph: Graph, node: Node, start: Any, step: Any) -> Call | None:
    """Zeros around x, along the spatial axes of images with channels last or along the last axis alone."""
    (x,), y = node.inputs, node.outputs[0]
    sizes, larger = x.type.shape, y.type.shape
    if x.type.rank < 2 or not all(isinstance(n, int) for n in (*start, *sizes[1:], *larger[1:])):
        return None
    if any(n < 0 for n in start) or any(n <= 0 for n in step):
        return None
    shape: dict[str, Any]
    if sizes[:-1] == larger[:-1]:
        shape = {"batch": product(sizes[:-1]), "C": 1, "D": 1, "H": 1, "W": sizes[-1]}
        shape.update(slices=1, rows=1, columns=larger[-1])
        shape.update(front=0, top=0, left=start[-1], step_d=1, step_h=1, step_w=step[-1])
    elif x.type.rank in (3, 4, 5) and (sizes[0], sizes[-1]) == (larger[0], larger[-1]):
        shape = {"batch": sizes[0], "C": sizes[-1]}
        shape.update(zip("DHW", three(sizes[1:-1], 1)))
        shape.update(zip(("slices", "rows", "columns"), three(larger[1:-1], 1)))
        shape.update(zip(("front", "top", "left"), three(start[1:-1], 0)))
        shape.update(zip(("step_d", "step_h", "step_w"), three(step[1:-1], 1)))
    else:
        return None

    shape["x_row"] = shape["W"] * shape["C"]
    shape["x_slice"] = shape["H"] * shape["x_row"]
    shape["x_image"] = shape["D"] * shape["x_slice"]

    def phases(p: Pointers) -> list[str]:
        return [
            f"halo(thread, threads, {p.operands[0]}, {p.result}, {fields('halo_shape', lying_in(shape, p, 0, None))});"
        ]

    def border(result: str) -> str:
        return f"halo_border(thread, threads, {result}, {fields('halo_shape', shape)});"

    images = x.type.rank in (3, 4) and sizes[0] == larger[0] and sizes[-1] == larger[-1]
    apart = frozenset({0} if images else ())
    framing = border if images and node.op is OPS["pad"] else None
    return Call(node, ("halo.h",), (dense(graph, x),), phases, apart=apart, border=framing)
