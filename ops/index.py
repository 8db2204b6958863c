"""Indexing by tensors of integers: gather and its transpose scatter_add, top_k, and masks.

gather picks y[..., i, ...] = x[..., indices[i], ...]; scatter_add adds what it is given at these places of a tensor of
zeros. Both are linear, and each is the gradient of the other. With `batch`, the first axes of x and of indices run
together, and each entry of these has indices of its own; take_along_axis is that, with all other axes in the batch.

An index counts from the end where it is negative. One that lies outside of the axis is an error when the graph runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigraph.core.builder import Builder, Tensor
from minigraph.core.dim import Size, known, product, show, size
from minigraph.core.dtypes import INTEGERS, NARROW, dtype_of, is_float
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import (
    OPS,
    Channels,
    Example,
    Half,
    Kernel,
    Op,
    Sample,
    axis_of,
    booleans,
    integers,
    no_flops,
    per_number,
    real,
    whole,
)
from minigraph.ops.pointwise import less_equal, where
from minigraph.ops.shape import reshape, transpose


def _check_indices(x: Type, indices: Type, axis: int, batch: int) -> None:
    expect(indices.dtype in ("int32", "int64"), "indices are a tensor of int32 or int64, not {}", indices)
    expect(batch <= axis, "the batch of {} axes ends before axis {} that is indexed", batch, axis)
    expect(batch <= indices.rank, "a batch of {} axes needs indices of as many axes or more, not {}", batch, indices)
    expect(
        x.shape[:batch] == indices.shape[:batch], "the first axes of {} and {} are the batch, and differ", x, indices
    )


def _batch_of(batch: Any) -> int:
    return whole(batch, "batch, a number of axes,", 0)


def _from_the_front(indices: np.ndarray, n: int) -> np.ndarray:
    """Indices of an axis of n places as 0 to n - 1; GraphError for one that lies outside."""
    wrong = (indices < -n) | (indices >= n)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        places = f"{-n} to {n - 1}, the places of an axis of size {n}" if n else "an axis of size 0"
        expect(False, "index {} at {} is outside of {}", indices[at], list(at), places)
    return np.where(indices < 0, indices + n, indices).astype(np.int64)


def _gathered(x: Type, indices: Type, axis: int, batch: int) -> Any:
    return (*x.shape[:axis], *indices.shape[batch:], *x.shape[axis + 1 :])


def _seen_by_kernels(x: Type, indices: Type, axis: int, batch: int) -> dict[str, Size]:
    """x as (lead, before, size, after), the indices as (lead, each). The kernels need no lead."""
    before, after = product(x.shape[batch:axis]), product(x.shape[axis + 1 :])
    return {"before": before, "size": x.shape[axis], "after": after, "each": product(indices.shape[batch:])}


# gather


def gather_types(x: Type, indices: Type, /, axis: int = 0, *, batch: int = 0) -> Type:
    """Entries of x at `indices` along `axis`, as NumPy's take: the axes of indices stand where `axis` was.

    indices: int32 or int64, of any shape, 0 to size - 1, or -1 to -size from the end; any other is an error when the
        graph runs. An embedding is gather(table, tokens). An array of indices is made a tensor by `constant` of the
        builder; as it stands it would become numbers of x's dtype.
    batch: how many first axes x and indices have in common, each of whose entries has indices of its own: with batch=1,
        y[n, i] = x[n, indices[n, i]].
    """
    _check_indices(x, indices, axis, batch)
    return Type(_gathered(x, indices, axis, batch), x.dtype)


def gather_canonical(x: Type, indices: Type, axis: Any, batch: Any) -> dict[str, Any]:
    return {"axis": axis_of(axis, x.rank), "batch": _batch_of(batch)}


def gather_reference(x: np.ndarray, indices: np.ndarray, axis: int, batch: int) -> np.ndarray:
    places = _from_the_front(indices, x.shape[axis])
    if batch == 0:
        return np.take(x, places, axis)
    shape = _gathered(x, indices, axis, batch)  # type: ignore[arg-type]
    lead, before, after = _extents(x.shape, axis, batch)
    each = places.reshape(lead, 1, math.prod(indices.shape[batch:]), 1)
    return np.take_along_axis(x.reshape(lead, before, x.shape[axis], after), each, 2).reshape(shape)


def _extents(shape: tuple[int, ...], axis: int, batch: int) -> tuple[int, int, int]:
    """How many entries: in the batch, between it and the axis, after the axis."""
    return math.prod(shape[:batch]), math.prod(shape[batch:axis]), math.prod(shape[axis + 1 :])


def gather_gradient(gs: Any, xs: Any, ys: Any, axis: int, batch: int) -> tuple[Any, None]:
    return scatter_add(gs[0], xs[1], size=xs[0].shape[axis], axis=axis, batch=batch), None


def _places(*shape: int, of: int, dtype: str = "int64") -> Sample:
    """Indices of an axis of `of` places, from both of its ends."""
    return Sample(shape, dtype, -of, of)


def gather_channels(types: tuple[Type, ...], channel: int, axis: int, batch: int) -> Channels | None:
    """The axes of the indices stand in the place of the one that is indexed."""
    place = channel if channel < axis else channel + types[1].rank - batch - 1
    return None if channel == axis else Channels(place, "any", True)


def gather_shape(ins: Sequence[Type], outs: Sequence[Type], axis: int, batch: int) -> dict[str, Size]:
    return _seen_by_kernels(ins[0], ins[1], axis, batch)


gather: Op = Op(
    "gather",
    gather_types,
    gather_reference,
    gather_gradient,
    canonical=gather_canonical,
    channels=gather_channels,
    kernel=Kernel("index.h", gather_shape, checks=True),
    flops=no_flops,
    half=Half(),
    examples=(
        Example(real(4, 2), _places(2, 3, of=4)),
        Example(real(2, 3, 2), _places(5, of=3, dtype="int32"), axis=1),
        Example(real(3, 1), _places(of=1), axis=-1),
        Example(real(2, 3), _places(0, of=3), axis=1),
        Example(real(0, 3), _places(2, of=3), axis=1),
        Example(real(3, 4), _places(3, 2, of=4), axis=1, batch=1),
        Example(real(2, 2, 3, 2), _places(2, 2, 1, of=3), axis=2, batch=1),
        Example(real(2, 3), _places(2, of=3), axis=1, batch=1),
        Example(real(0, 3), _places(0, 2, of=3), axis=1, batch=1),
        Example(integers(4, below=9), _places(3, of=4)),
        Example(booleans(4), _places(3, of=4)),
    ),
)


# scatter_add


def scatter_add_types(updates: Type, indices: Type, /, size: Any, axis: int = 0, *, batch: int = 0) -> Type:
    """Zeros with `updates` added at `indices` along `axis`, an axis of `size` places: the transpose of gather.

    updates: of the shape that gather gives, the axes of indices (less the batch) standing where `axis` will be. What
    falls on one place is added up, narrow floats in float32. indices, axis (of the result), batch: as in gather.
    x + scatter_add(...) adds to x.
    """
    expect(updates.dtype != "bool", "{} cannot be added up; cast it", updates)
    rank = indices.rank - batch
    expect(
        indices.shape[batch:] == updates.shape[axis : axis + rank],
        "updates {} need the axes {} of the indices, from axis {} on",
        updates,
        show(indices.shape[batch:]),
        axis,
    )
    x = Type((*updates.shape[:axis], size, *updates.shape[axis + rank :]), updates.dtype)
    _check_indices(x, indices, axis, batch)
    return x


def scatter_add_canonical(updates: Type, indices: Type, size: Any, axis: Any, batch: Any) -> dict[str, Any]:
    batch = _batch_of(batch)
    return {"size": _size(size), "axis": axis_of(axis, updates.rank - indices.rank + batch + 1), "batch": batch}


def _size(given: Any) -> Size:
    n = size(given)
    expect(not isinstance(n, int) or n >= 0, "a size is 0 or more, not {!r}", given)
    return n


def scatter_add_reference(updates: np.ndarray, indices: np.ndarray, size: int, axis: int, batch: int) -> np.ndarray:
    """Updates in the order of their places, so that those of one place stand together and are added up."""
    shape = (*updates.shape[:axis], size, *updates.shape[axis + indices.ndim - batch :])
    lead, before, after = _extents(shape, axis, batch)
    each = math.prod(indices.shape[batch:])
    places = (_from_the_front(indices, size).reshape(lead, each) + size * np.arange(lead)[:, None]).reshape(-1)
    rows = np.moveaxis(updates.reshape(lead, before, each, after), 2, 1).reshape(lead * each, before, after)
    x = np.zeros((lead * size, before, after), updates.dtype)
    order = np.argsort(places, kind="stable")
    used, starts = np.unique(places[order], return_index=True)
    x[used] = np.add.reduceat(rows[order], starts, 0, dtype=updates.dtype)
    return np.moveaxis(x.reshape(lead, size, before, after), 1, 2).reshape(shape)


def scatter_add_gradient(gs: Any, xs: Any, ys: Any, size: Any, axis: int, batch: int) -> tuple[Any, None]:
    return gather(gs[0], xs[1], axis, batch=batch), None


def scatter_add_channels(types: tuple[Type, ...], channel: int, size: Any, axis: int, batch: int) -> Channels | None:
    """One axis of places stands where the updates have those of the indices."""
    rank = types[1].rank - batch
    if channel < axis:
        return Channels(channel, "any", False)
    return Channels(channel - rank + 1, "any", False) if channel >= axis + rank else None


SCATTER_WIDTH = 32  # as in index.h


def scatter_add_shape(ins: Sequence[Type], outs: Sequence[Type], axis: int, batch: int, **_: Any) -> dict[str, Any]:
    seen = _seen_by_kernels(outs[0], ins[1], axis, batch)
    width = SCATTER_WIDTH if isinstance(seen["after"], int) else 1
    return {**seen, "width": width, "in_place": outs[0].dtype not in NARROW}


def scatter_add_lines(ins: Sequence[Type], outs: Sequence[Type], axis: int, **_: Any) -> Size:
    """One for each place beside the axis; those behind it in groups, where their number is known."""
    before, after = product(outs[0].shape[:axis]), product(outs[0].shape[axis + 1 :])
    return before * (-(-after // SCATTER_WIDTH) if isinstance(after, int) else after)


scatter_add: Op = Op(
    "scatter_add",
    scatter_add_types,
    scatter_add_reference,
    scatter_add_gradient,
    canonical=scatter_add_canonical,
    channels=scatter_add_channels,
    kernel=Kernel("index.h", scatter_add_shape, lines=scatter_add_lines, checks=True),
    flops=per_number(1),
    examples=(
        Example(real(2, 3, 2), _places(2, 3, of=4), size=4),
        Example(real(2, 5, 2), _places(5, of=3, dtype="int32"), size=3, axis=1),
        Example(real(3), _places(of=1), size=1, axis=-1),
        Example(real(2, 0), _places(0, of=3), size=3, axis=1),
        Example(real(0, 2), _places(2, of=3), size=3, axis=1),
        Example(real(3, 2), _places(3, 2, of=4), size=4, axis=1, batch=1),
        Example(real(2, 2, 2, 1, 2), _places(2, 2, 1, of=3), size=3, axis=2, batch=1),
        Example(integers(3, below=9), _places(3, of=2), size=2),
        Example(real(5, 35), _places(5, of=3), size=3),
    ),
)


# along an axis


def _to_the_end(x: Tensor, axis: int) -> Tensor:
    return x if axis == x.rank - 1 else transpose(x, (*(i for i in range(x.rank) if i != axis), axis))


def _from_the_end(x: Tensor, axis: int) -> Tensor:
    others = iter(range(x.rank - 1))
    return x if axis == x.rank - 1 else transpose(x, [x.rank - 1 if i == axis else next(others) for i in range(x.rank)])


def _check_ranks(x: Tensor, indices: Tensor) -> None:
    expect(x.rank == indices.rank, "{} and indices {} do not have the same number of axes", x.value, indices.value)


def take_along_axis(x: Tensor, indices: Tensor, axis: int = -1) -> Tensor:
    """y[i, j, k] = x[i, indices[i, j, k], k], for axis 1 of three; indices has the sizes of x along its other axes.

    As NumPy's take_along_axis (without broadcasting), ONNX's GatherElements.
    """
    _check_ranks(x, indices)
    axis = axis_of(axis, x.rank)
    lines, places = _to_the_end(x, axis), _to_the_end(indices, axis)
    return _from_the_end(gather(lines, places, -1, batch=x.rank - 1), axis)


def scatter_add_along_axis(updates: Tensor, indices: Tensor, size: Any, axis: int = -1) -> Tensor:
    """The transpose of take_along_axis: zeros, with updates[i, j, k] added at [i, indices[i, j, k], k], for axis 1.

    The result has `size` places along the axis. updates and indices have one shape.
    """
    _check_ranks(updates, indices)
    axis = axis_of(axis, updates.rank)
    lines, places = _to_the_end(updates, axis), _to_the_end(indices, axis)
    return _from_the_end(scatter_add(lines, places, size=size, axis=-1, batch=updates.rank - 1), axis)


# top_k


def topk_types(x: Type, /, k: int, axis: int = -1, *, largest: bool = True) -> tuple[Type, Type]:
    """The k largest (or smallest) numbers along `axis` in order, the best one first, and their indices as int64.

    Among equal ones the first in x comes first. NaNs come before all numbers, in both directions, as max, min, argmax
    and argmin answer NaN. The gradient goes to the chosen numbers.
    """
    expect(x.dtype != "bool", "needs numbers, got {}", x)
    n = x.shape[axis]
    expect(not isinstance(n, int) or k <= n, "there are no {} numbers along axis {} of {}", k, axis, x)
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return Type(shape, x.dtype), Type(shape, "int64")


def topk_canonical(x: Type, k: Any, axis: Any, largest: Any) -> dict[str, Any]:
    return {"k": whole(k, "k", 1), "axis": axis_of(axis, x.rank), "largest": bool(largest)}


def topk_reference(x: np.ndarray, k: int, axis: int, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    n = x.shape[axis]
    if largest:  # ascending order of the reversed line, read from its end: equal ones come first to last, NaNs first
        order = np.flip(n - 1 - np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
        if is_float(x.dtype):
            number = ~np.isnan(np.take_along_axis(x, order, axis))
            order = np.take_along_axis(order, np.argsort(number, axis, kind="stable"), axis)
    first = np.take(order, np.arange(k), axis).astype(np.int64)
    return np.take_along_axis(x, first, axis), first


def topk_gradient(gs: Any, xs: Any, ys: Any, k: int, axis: int, largest: bool) -> tuple[Tensor]:
    return (scatter_add_along_axis(gs[0], ys[1], xs[0].shape[axis], axis),)


def topk_shape(ins: Sequence[Type], outs: Sequence[Type], k: int, axis: int, largest: bool) -> dict[str, Size]:
    return {"size": ins[0].shape[axis], "after": product(ins[0].shape[axis + 1 :]), "k": k, "largest": largest}


topk = Op(
    "topk",
    topk_types,
    topk_reference,
    topk_gradient,
    canonical=topk_canonical,
    kernel=Kernel(
        "index.h",
        topk_shape,
        lines=lambda ins, outs, axis, **_: product(n for i, n in enumerate(ins[0].shape) if i != axis),
    ),
    flops=per_number(1),
    outputs=("values", "indices"),
    examples=(
        Example(real(2, 5), k=3),
        Example(real(4, 2), k=2, axis=0, largest=False),
        Example(real(2, 3, 1), k=1, axis=1),
        Example(real(2, 1), k=1),
        Example(real(0, 3), k=2),
        Example(integers(7, below=3), k=4),
    ),
)


# masks


def iota_types(*, size: Any, dtype: str = "int64") -> Type:
    """0, 1, 2, ..., size - 1. The size may be known only at run time."""
    expect(dtype in INTEGERS, "counts in integers, not in {}", dtype)
    limit = int(np.iinfo(dtype).max)
    expect(not isinstance(size, int) or size - 1 <= limit, "{} does not reach {}", dtype, size)
    return Type((size,), dtype)


iota = Op(
    "iota",
    iota_types,
    lambda size, dtype: np.arange(size, dtype=dtype),
    canonical=lambda size, dtype: {"size": _size(size), "dtype": dtype_of(dtype)},
    kernel=Kernel("index.h", lambda ins, outs, size, dtype: {"size": size}, light=True),
    gradient=lambda gs, xs, ys, **_: (),
    flops=no_flops,
    examples=(Example(size=5), Example(size=0, dtype="int32"), Example(size=1, dtype="uint8")),
)


def arange(graph: Builder | Tensor, size: Any, dtype: str = "int64") -> Tensor:
    """0, 1, 2, ..., size - 1 in a graph, given by its builder or by a tensor of it: arange(net, "T")."""
    builder = graph.builder if isinstance(graph, Tensor) else graph
    return builder.emit(OPS["iota"], (), {"size": size, "dtype": dtype})[0]


def tri(graph: Builder | Tensor, rows: Any, columns: Any = None, k: int = 0) -> Tensor:
    """Bools (rows, columns) that are true up to the k-th diagonal: where column <= row + k. Square by default."""
    k = known(k, "the diagonal k")
    row = arange(graph, rows)
    column = row if columns is None or columns == rows else arange(graph, columns)
    return less_equal(column, reshape(row + k, (*row.shape, 1)))


def tril(x: Tensor, k: int = 0) -> Tensor:
    """x (..., rows, columns) with zeros above the k-th diagonal: entries with column <= row + k stay."""
    expect(x.rank >= 2, "a triangle needs two axes, got {}", x.value)
    return where(tri(x, x.shape[-2], x.shape[-1], k), x, False if x.dtype == "bool" else 0)


def triu(x: Tensor, k: int = 0) -> Tensor:
    """x (..., rows, columns) with zeros below the k-th diagonal: entries with column >= row + k stay."""
    expect(x.rank >= 2, "a triangle needs two axes, got {}", x.value)
    return where(tri(x, x.shape[-2], x.shape[-1], k - 1), False if x.dtype == "bool" else 0, x)


def masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    """x with `value` where the mask (bool, broadcast to x) is true. No gradient flows to x there."""
    filled = where(mask, value, x)
    expect(filled.shape == x.shape, "the mask {} does not broadcast to {}", mask.value, x.value)
    return filled
