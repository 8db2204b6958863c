"""Numbers that do not depend on any input, and counts."""

from __future__ import annotations

import numpy as np

from minigraph.core.dim import product
from minigraph.core.ir import Node
from minigraph.onnx.draft import Draft, tensor_of, writes
from minigraph.ops.constant import constant, count, fill
from minigraph.ops.index import iota


@writes(constant)
def write_constant(draft: Draft, node: Node) -> str:
    array = node.attrs["value"].array
    return draft.array(array, array.dtype.name)


@writes(fill)
def write_fill(draft: Draft, node: Node) -> str:
    value, shape, dtype = (node.attrs[name] for name in ("value", "shape", "dtype"))
    if not shape:
        return draft.array(value, dtype)
    number = tensor_of("", np.array([value], dtype))
    return draft.add("ConstantOfShape", draft.shape(shape), value=number)


@writes(count)
def write_count(draft: Draft, node: Node, x: str) -> str:
    size, dtype = product(node.inputs[0].type.shape[axis] for axis in node.attrs["axes"]), node.attrs["dtype"]
    if isinstance(size, int):
        return draft.array(size, dtype)
    return draft.cast(draft.reshape(draft.size(size), (1,), ()), "int64", dtype)


@writes(iota)
def write_iota(draft: Draft, node: Node) -> str:
    end = draft.reshape(draft.size(node.attrs["size"]), (1,), ())
    numbers = draft.add("Range", draft.array(0), end, draft.array(1))
    return draft.cast(numbers, "int64", node.attrs["dtype"])
