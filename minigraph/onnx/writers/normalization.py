"""Norms. ONNX has the channels along axis 1.

A batch norm that normalizes by its batch is written in smaller ops. ONNX has it (training_mode=1), but ONNX Runtime
(1.31) gives wrong numbers for it when it optimizes the model.
"""

from __future__ import annotations

from minigraph.core.ir import Node
from minigraph.onnx.draft import Draft, code_of, holds, writes
from minigraph.onnx.nodes import expanded
from minigraph.ops.batch_norm import batch_norm_inference
from minigraph.ops.norm import group_norm, layer_norm, local_response_norm


@writes(batch_norm_inference)
def write_batch_norm_inference(draft: Draft, node: Node, x: str, *parameters: str) -> str:
    (data, gamma), (axis, eps) = (v.type for v in node.inputs[:2]), node.attrs.values()
    if not holds(data.dtype, eps):
        return expanded(draft, node, [x, *parameters])[0]
    first = draft.move(draft.cast(x, data.dtype, gamma.dtype), data.rank, axis, 1)
    y = draft.add("BatchNormalization", first, *parameters, epsilon=eps)
    return draft.cast(draft.move(y, data.rank, 1, axis), gamma.dtype, data.dtype)


@writes(layer_norm)
def write_layer_norm(draft: Draft, node: Node, x: str, gamma: str, beta: str) -> str:
    (data, parameters), (axis, eps) = (v.type.dtype for v in node.inputs[:2]), node.attrs.values()
    if not holds(data, eps):
        return expanded(draft, node, [x, gamma, beta])[0]
    y = draft.add("LayerNormalization", draft.cast(x, data, parameters), gamma, beta, axis=axis, epsilon=eps)
    return draft.cast(y, parameters, data)


@writes(group_norm)
def write_group_norm(draft: Draft, node: Node, x: str, gamma: str, beta: str) -> str:
    """With a group for each channel it is ONNX's instance norm, of at least one spatial axis."""
    data, parameters = (v.type for v in node.inputs[:2])
    groups, axis, eps = (node.attrs[name] for name in ("groups", "axis", "eps"))
    if not holds(data.dtype, eps):
        return expanded(draft, node, [x, gamma, beta])[0]
    first = draft.move(draft.cast(x, data.dtype, parameters.dtype), data.rank, axis, 1)
    if groups == data.shape[axis] and data.rank > 2:
        y = draft.add("InstanceNormalization", first, gamma, beta, epsilon=eps)
    else:
        attrs = {"num_groups": groups, "epsilon": eps, "stash_type": code_of(parameters.dtype)}
        y = draft.add("GroupNormalization", first, gamma, beta, **attrs)
    return draft.cast(draft.move(y, data.rank, 1, axis), parameters.dtype, data.dtype)


@writes(local_response_norm)
def write_local_response_norm(draft: Draft, node: Node, x: str) -> str:
    """ONNX Runtime has it of images alone, and of windows with a middle; others are written in smaller ops."""
    data, size, axis = node.inputs[0].type, node.attrs["size"], node.attrs["axis"]
    if data.rank != 4 or size % 2 == 0 or data.dtype != "float32":
        return expanded(draft, node, [x])[0]
    numbers = {name: node.attrs[name] for name in ("alpha", "beta", "bias")}
    y = draft.add("LRN", draft.move(x, data.rank, axis, 1), size=size, **numbers)
    return draft.move(y, data.rank, 1, axis)
