"""Ops that move numbers and do not compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigraph.core.dim import Dim, Size, known
from minigraph.core.errors import GraphError
from minigraph.core.ir import Node
from minigraph.onnx.draft import Draft, Unwritable, writes
from minigraph.onnx.expression import HELD
from minigraph.ops.broadcast import broadcast_to
from minigraph.ops.shape import _sources, concat, pad, pad_gradient, reshape, slice_, transpose, unslice

BEFORE_ALL = -(2**63)  # where a slice ends that goes backwards to the very first entry


@writes(reshape)
def write_reshape(draft: Draft, node: Node, x: str) -> str:
    return draft.reshape(x, node.inputs[0].type.shape, node.attrs["shape"])


@writes(transpose)
def write_transpose(draft: Draft, node: Node, x: str) -> str:
    return draft.transpose(x, node.attrs["axes"])


@writes(concat)
def write_concat(draft: Draft, node: Node, *xs: str) -> str:
    return draft.add("Concat", *xs, axis=node.attrs["axis"]) if len(xs) > 1 else xs[0]


@writes(broadcast_to)
def write_broadcast_to(draft: Draft, node: Node, x: str) -> str:
    shape = node.attrs["shape"]
    return x if shape == node.inputs[0].type.shape else draft.add("Expand", x, draft.shape(shape))


@writes(slice_)
def write_slice(draft: Draft, node: Node, x: str) -> str:
    start, stop, step = (node.attrs[name] for name in ("start", "stop", "step"))
    whole = [(0, n, 1) for n in node.inputs[0].type.shape]
    axes = [axis for axis, place in enumerate(zip(start, stop, step)) if place != whole[axis]]
    if not axes:
        return x
    ends = [BEFORE_ALL if stop[axis] is None else stop[axis] for axis in axes]
    return draft.add(
        "Slice",
        x,
        places(draft, [start[axis] for axis in axes]),
        places(draft, ends),
        draft.array(axes),
        draft.array([step[axis] for axis in axes]),
    )


def places(draft: Draft, of: Sequence[Size]) -> str:
    """Places along axes. One that depends on a size is never before the beginning (see dim.places)."""
    found = draft.shape(of)
    if not any(isinstance(n, Dim) and any(factor < 0 for _, factor in n.terms) for n in of):
        return found
    return draft.add("Max", found, draft.array([0 if isinstance(n, Dim) else BEFORE_ALL for n in of]))


@writes(unslice)
def write_unslice(draft: Draft, node: Node, g: str) -> str:
    """Along each axis: turned where the step is negative, then zeros between the entries, then zeros around them."""
    shape, start, step = (node.attrs[name] for name in ("shape", "start", "step"))
    dtype, sizes, before = node.inputs[0].type.dtype, list(node.inputs[0].type.shape), list(start)
    for axis, s in enumerate(step):
        n = sizes[axis]
        if s < 0 and n != 0:
            g = _slice_axis(draft, g, axis, -1, BEFORE_ALL, -1)
            before[axis] = start[axis] + (n - 1) * s
        if abs(s) != 1 and n != 0:
            apart = [*sizes[: axis + 1], 1, *sizes[axis + 1 :]]
            g = draft.reshape(g, tuple(sizes), tuple(apart))
            widths = [(0, abs(s) - 1) if i == axis + 1 else (0, 0) for i in range(len(apart))]
            g = padded(draft, g, _pads(draft, widths), 0, dtype)
            apart[axis + 1], sizes[axis] = abs(s), n * abs(s)
            g = draft.reshape(g, tuple(apart), tuple(sizes))
            sizes[axis] = (n - 1) * abs(s) + 1
            g = _slice_axis(draft, g, axis, 0, 1 - abs(s), 1)
    after = [n - a - m for n, a, m in zip(shape, before, sizes)]
    if not any(isinstance(n, Dim) or n for n in (*before, *after)):
        return g
    return padded(draft, g, draft.shape([*before, *after]), 0, dtype)


def _slice_axis(draft: Draft, x: str, axis: int, start: int, stop: int, step: int) -> str:
    return draft.add("Slice", x, *(draft.array([n]) for n in (start, stop, axis, step)))


def padded(draft: Draft, x: str, pads: str, value: Any, dtype: str) -> str:
    """x with `pads` (int64[2 * axes]) entries of this value around it."""
    inner = HELD.get(dtype, dtype)
    found = draft.add("Pad", draft.cast(x, dtype, inner), pads, draft.array(value, inner))
    return draft.cast(found, inner, dtype)


@writes(pad)
def write_pad(draft: Draft, node: Node, x: str) -> str:
    """Where a mirror or a repetition goes on and on, its entries are gathered: of that ONNX says too little."""
    widths, value, mode = (node.attrs[name] for name in ("widths", "value", "mode"))
    shape, dtype = node.inputs[0].type.shape, node.inputs[0].type.dtype
    if not any(map(any, widths)):
        return x
    if mode == "constant":
        return padded(draft, x, _pads(draft, widths), value, dtype)
    for axis, (n, pair) in enumerate(zip(shape, widths)):
        if isinstance(n, int) and max(pair) >= n:
            x = draft.add("Gather", x, draft.array(_sources(n, pair[0], pair[1], mode)), axis=axis)
    rest = [(0, 0) if isinstance(n, int) and max(pair) >= n else pair for n, pair in zip(shape, widths)]
    if not any(map(any, rest)):
        return x
    inner = HELD.get(dtype, dtype)
    found = draft.add("Pad", draft.cast(x, dtype, inner), _pads(draft, rest), mode=mode)
    return draft.cast(found, inner, dtype)


def _pads(draft: Draft, widths: Sequence[tuple[int, int]]) -> str:
    return draft.array([before for before, _ in widths] + [after for _, after in widths])


def _known(n: Size) -> int:
    try:
        return known(n, "the size")
    except GraphError as error:
        raise Unwritable(str(error)) from None


@writes(pad_gradient)
def write_pad_gradient(draft: Draft, node: Node, g: str) -> str:
    """What was repeated is added up where it came from, along one axis after the other."""
    widths, mode = node.attrs["widths"], node.attrs["mode"]
    dtype, sizes, rank = node.inputs[0].type.dtype, list(node.inputs[0].type.shape), node.inputs[0].type.rank
    for axis, (before, after) in enumerate(widths):
        if before or after:
            n = _known(sizes[axis]) - before - after
            rows = draft.move(g, rank, axis, 0)
            sizes[axis] = n
            shape = draft.shape([n, *(m for i, m in enumerate(sizes) if i != axis)])
            total = scattered(draft, shape, dtype, draft.array(_sources(n, before, after, mode)), rows)
            g = draft.move(total, rank, 0, axis)
    return g


def scattered(draft: Draft, shape: str, dtype: str, places: str, rows: str) -> str:
    """Zeros of a shape, with rows added at places (int64[n]) of the first axis. Narrow floats are added in float32."""
    wide = "float32" if dtype in ("float16", "bfloat16") else dtype
    zeros = draft.add("Expand", draft.array(0, wide), shape)
    index = draft.add("Unsqueeze", places, draft.array([-1]))
    found = draft.add("ScatterND", zeros, index, draft.cast(rows, dtype, wide), reduction="add")
    return draft.cast(found, wide, dtype)
