"""Gather and its transpose."""

from __future__ import annotations

from minigraph.core.dim import Size, product
from minigraph.core.ir import Node, Type
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
    """Rows, one for each index, are added into axes of `size` places that stand one behind the other for the batch."""
    size, axis, batch = (node.attrs[name] for name in ("size", "axis", "batch"))
    data, places = (value.type for value in node.inputs)
    picked = [*range(batch), *range(axis, axis + places.rank - batch)]  # axes of the indices
    beside = [i for i in range(data.rank) if i not in picked]
    lead, row = data.shape[:batch], tuple(data.shape[i] for i in beside)
    rows = draft.transpose(updates, [*picked, *beside])
    rows = draft.reshape(rows, (*places.shape, *row), (product(places.shape), *row))
    through = (product(lead) * size, *row)
    flat = _counted_through(draft, indices, places, batch, size)
    total = scattered(draft, draft.shape(through), data.dtype, flat, rows)
    return draft.move(draft.reshape(total, through, (*lead, size, *row)), len(lead) + 1 + len(row), batch, axis)


def _counted_through(draft: Draft, indices: str, places: Type, batch: int, size: Size) -> str:
    """Indices of axes of `size` places, an axis for each entry of the batch, counted through all of these: int64[n]."""
    count, each = product(places.shape[:batch]), product(places.shape[batch:])
    index = draft.reshape(draft.cast(indices, places.dtype, "int64"), places.shape, (count, each))
    length = draft.reshape(draft.size(size), (1,), ())
    from_the_end = draft.add("Less", index, draft.array(0))
    index = draft.add("Where", from_the_end, draft.add("Add", index, length), index)
    entry = draft.add("Range", draft.array(0), draft.reshape(draft.size(count), (1,), ()), draft.array(1))
    first = draft.add("Mul", draft.reshape(entry, (count,), (count, 1)), length)
    return draft.reshape(draft.add("Add", index, first), (count, each), (count * each,))
