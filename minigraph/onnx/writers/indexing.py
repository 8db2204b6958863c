"""Gather and its transpose."""

from __future__ import annotations

from minigraph.core.dim import product
from minigraph.core.ir import Node
from minigraph.onnx.draft import Draft, writes
from minigraph.onnx.writers.shape import scattered
from minigraph.ops.index import gather, scatter_add


@writes(gather)
def write_gather(draft: Draft, node: Node, x: str, indices: str) -> str:
    """With a batch it is GatherND, which indexes the axis behind the batch; along the last axis GatherElements."""
    axis, batch = node.attrs["axis"], node.attrs["batch"]
    data, places = (value.type for value in node.inputs)
    if batch == 0:
        return draft.add("Gather", x, indices, axis=axis)
    if batch == data.rank - 1 == places.rank - 1:
        return draft.add("GatherElements", x, indices, axis=axis)
    picked = places.rank - batch  # axes of the indices that stand where the axis was
    index = draft.add("Unsqueeze", draft.cast(indices, places.dtype, "int64"), draft.array([-1]))
    found = draft.add("GatherND", draft.move(x, data.rank, axis, batch), index, batch_dims=batch)
    rank, between = data.rank - 1 + picked, axis - batch
    order = [*range(batch), *(batch + picked + i for i in range(between)), *(batch + i for i in range(picked))]
    return draft.transpose(found, [*order, *range(batch + picked + between, rank)])


@writes(scatter_add)
def write_scatter_add(draft: Draft, node: Node, updates: str, indices: str) -> str:
    """The entries of a batch stand one behind the other along one axis, into which all rows are added."""
    size, axis, batch = (node.attrs[name] for name in ("size", "axis", "batch"))
    data, places = (value.type for value in node.inputs)
    picked, between = places.rank - batch, axis - batch
    order = [*range(batch), *(axis + i for i in range(picked)), *(batch + i for i in range(between))]
    rows = draft.transpose(updates, [*order, *range(axis + picked, data.rank)])
    lead, rest = data.shape[:batch], (*data.shape[batch:axis], *data.shape[axis + picked :])
    count, each = product(lead), product(places.shape[batch:])
    rows = draft.reshape(
        rows, tuple(data.shape[i] for i in (*order, *range(axis + picked, data.rank))), (count * each, *rest)
    )
    flat = draft.reshape(draft.cast(indices, places.dtype, "int64"), places.shape, (count, each))
    length = draft.reshape(draft.size(size), (1,), ())
    negative = draft.add("Less", flat, draft.array(0))
    flat = draft.add("Where", negative, draft.add("Add", flat, length), flat)
    first = draft.add("Range", draft.array(0), draft.reshape(draft.size(count), (1,), ()), draft.array(1))
    first = draft.add("Mul", draft.reshape(first, (count,), (count, 1)), length)
    flat = draft.reshape(draft.add("Add", flat, first), (count, each), (count * each,))
    total = scattered(draft, draft.shape((count * size, *rest)), data.dtype, flat, rows)
    total = draft.reshape(total, (count * size, *rest), (*lead, size, *rest))
    return draft.move(total, batch + 1 + len(rest), batch, axis)
