"""Reverse-mode differentiation, graph to graph: the backward nodes join the nodes that they differentiate.

For y = f(x) with y further used in a scalar L, and given ḡ = ∂L/∂y, the op's rule gives ∂L/∂x = (∂f/∂x)ᵀ ḡ. Walking the
nodes backwards and adding where several readers meet gives the gradient of everything that was asked for. Rules are
made of ops, so gradients can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minigraph.core.builder import Builder, Tensor
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Node, Origin, Value, describe


def gradient(of: Tensor, wrt: Sequence[Tensor], seed: Tensor | None = None) -> list[Tensor]:
    """The gradients of `of` with respect to each tensor of `wrt` (inputs, state or anything between), in their shapes.

    `of` is a scalar, or `seed`, of its shape, says with which weights its numbers are added up. Raises GraphError where
    there is no gradient: for integers, where an op has none, and where `of` does not depend on the tensor.
    """
    builder = of.builder
    for tensor in (of, *wrt):
        expect(tensor.builder is builder, "{} belongs to another graph", tensor.value)
        expect(tensor.value.type.is_float, "{} has no gradient: it is not a float", tensor.value)
    if seed is None:
        expect(
            of.shape == (),
            "the gradient is of one number, and {} has more; add them up with sum or mean, or give a seed",
            of.value,
        )
        maker = next((node for node in reversed(builder.nodes) if of.value in node.outputs), None)
        with builder.root(), builder.origin(_backward(maker) if maker else None, role="backward"):
            seed = builder.constant(1.0, of.dtype)
    found = vjp([of], [seed], wrt)
    for tensor, result in zip(wrt, found):
        expect(
            result is not None,
            "{} does not depend on {}, or only through integers, comparisons or stop_gradient",
            of.value,
            tensor.value,
        )
    return [result for result in found if result is not None]


def vjp(outputs: Sequence[Tensor], seeds: Sequence[Tensor], wrt: Sequence[Tensor]) -> list[Tensor | None]:
    """The vector-Jacobian product.

    For each tensor of `wrt` the gradient of the sum of <seed, output>, or None for zero.
    """
    builder = outputs[0].builder
    parts: Parts = {}
    for output, seed in zip(outputs, seeds, strict=True):
        expect(seed.value.type == output.value.type, "seed {} does not have the type of {}", seed.value, output.value)
        parts.setdefault(output.value, []).append(seed)
    with builder.root(), builder.origin(role="backward"):
        found = _sweep(builder, list(builder.nodes), parts, [tensor.value for tensor in wrt])
    return [found.get(tensor.value) for tensor in wrt]


Parts = dict[Value, list[Tensor]]  # for a value, what its readers contribute to its gradient


def _sweep(builder: Builder, nodes: Sequence[Node], parts: Parts, wrt: Sequence[Value]) -> dict[Value, Tensor]:
    """Gradients of the values `wrt`, through `nodes`; a value to which nothing contributes is left out."""
    depends, path = set(wrt), []
    for node in nodes:
        if not depends.isdisjoint(node.inputs) and any(value.type.is_float for value in node.outputs):
            depends.update(value for value in node.outputs if value.type.is_float)
            path.append(node)
    first: dict[Value, Node] = {}
    for node in reversed(path):
        first.update((value, node) for value in node.inputs)
    for node in reversed(path):
        if parts.keys().isdisjoint(node.outputs):
            continue
        with builder.origin(_backward(node)), builder.scope(f"{node.name}.grad".replace("~", "_")):
            gradients = {value: _total(parts, value) for value in node.outputs if value in parts}
            contributions = _of_node(builder, node, gradients)
            _check(node, contributions)
            for value, contribution in zip(node.inputs, contributions):
                if contribution is not None and value in depends:
                    parts.setdefault(value, []).append(contribution)
                    if node is first[value]:  # the first reader is the last to contribute
                        _total(parts, value)
    return {value: _total(parts, value) for value in dict.fromkeys(wrt) if value in parts}


def _backward(node: Node) -> Origin:
    origin = node.origin
    return Origin("backward", origin.scope, origin.file, origin.line, origin.forward or node.name)


def _total(parts: Parts, value: Value) -> Tensor:
    """The sum of the contributions, which then stands for them."""
    while len(parts[value]) > 1:
        first, second, *rest = parts[value]
        parts[value] = [first + second, *rest]
    return parts[value][0]


def _check(node: Node, contributions: Sequence[Tensor | None]) -> None:
    """Raise GraphError unless the rule of the node's op gave a tensor of its input's type, or None, for each input."""
    n, m = len(contributions), len(node.inputs)
    if n != m:
        raise GraphError(describe(node, f"the gradient rule of {node.op.name} gives {n} gradients for {m} inputs"))
    for value, contribution in zip(node.inputs, contributions):
        if contribution is not None:
            found = contribution.value.type if isinstance(contribution, Tensor) else repr(contribution)
            if found != value.type and value.type.is_float:
                raise GraphError(describe(node, f"its gradient for {value} has type {found}"))


def _of_node(builder: Builder, node: Node, gradients: Mapping[Value, Tensor]) -> Sequence[Tensor | None]:
    inputs = tuple(Tensor(builder, value) for value in node.inputs)
    if node.op.gradient is not None:
        outputs = tuple(Tensor(builder, value) for value in node.outputs)
        return node.op.gradient(tuple(gradients.get(value) for value in node.outputs), inputs, outputs, **node.attrs)
    if node.op.expand is None:
        raise GraphError(describe(node, f"the op {node.op.name} has no gradient"))
    # differentiate the smaller ops that it is made of; a tensor that is read twice gets its whole gradient once
    start = len(builder.nodes)
    result = node.op.expand(*inputs, **node.attrs)
    parts: Parts = {}
    for value, tensor in zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=True):
        if value in gradients:
            parts.setdefault(tensor.value, []).append(gradients[value])
    found = _sweep(builder, builder.nodes[start:], parts, node.inputs)
    return [found.pop(value, None) for value in node.inputs]
