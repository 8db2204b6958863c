"""What holds for every op that is registered, on the examples that come with it. A new op is taken up by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import OPS, layers
from minigraph.core import proof
from minigraph.core.dtypes import FLOATS
from minigraph.core.evaluate import evaluate
from minigraph.core.exact import Undefined
from minigraph.core.ir import Graph
from minigraph.core.op import Example, Op
from minigraph.core.scalar import Scalar, var


def cases(wanted: Callable[[Op], object] = lambda op: True) -> list[Any]:
    """Op and example, for each example of each op that is wanted."""
    return [
        pytest.param(op, example, id=f"{op.name}-{number}")
        for op in mg.OPS.values()
        if wanted(op)
        for number, example in enumerate(op.examples)
    ]


CASES = cases()
EPS = 2.0**-53
NOT_A_DERIVATIVE = {"stop_gradient"}  # by intention


def arrays_for(graph: Graph, samples: proof.Samples, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: proof.concrete(sample, graph.values[name].type.dtype, rng) for name, sample in samples.items()}


def expansion(op: Op, graph: Graph) -> Graph:
    """The graph of one node with the node expanded."""
    builder = mg.Builder("expanded")
    inputs = [builder.input(value.name, value.type.shape, value.type.dtype) for value in graph.inputs]
    assert op.expand is not None
    result = op.expand(*inputs, **graph.nodes[0].attrs)
    return builder.build({f"y{i}": y for i, y in enumerate(result if isinstance(result, tuple) else (result,))})


def is_empty(example: Example) -> bool:
    return any(0 in sample.shape for sample in example.inputs)


def batches(example: Example) -> set[int]:
    """The sizes of the first axes of inputs."""
    return {sample.shape[0] for sample in example.inputs if sample.shape}


def of_any_batch(op: Op, example: Example) -> Graph | None:
    """The graph of one node in which the first axis of all inputs is N, if it is of one size, and may be N."""
    if len(batches(example)) != 1:
        return None
    builder = mg.Builder(op.name)
    shapes = [("N", *s.shape[1:]) if s.shape else () for s in example.inputs]
    inputs = [
        builder.input(f"x{i}", shape, s.in_dtype("float32")) for i, (shape, s) in enumerate(zip(shapes, example.inputs))
    ]
    try:
        outputs = builder.emit(op, inputs, example.attrs)
    except mg.GraphError:  # parameters, too, begin with that size; or the attributes name it
        return None
    return builder.build({f"y{i}": y for i, y in enumerate(outputs)})


def test_layers_that_messages_name_are_there() -> None:
    named = [op.layer.split(".") for op in OPS.values() if op.layer]
    assert ["layers", "dropout"] in named
    assert all(room == "layers" and callable(getattr(layers, name, None)) for room, name in named)


def test_every_op_has_a_docstring_and_examples() -> None:
    for op in mg.OPS.values():
        assert op.__doc__, op
        assert op.examples, f"{op.name} has no examples: the tests of the registry do not try it"


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("op", "example"), CASES)
def test_the_reference_gives_what_the_types_promise(op: Op, example: Example, dtype: str) -> None:
    graph, samples = proof.graph_of(op, example, dtype)
    found = evaluate(graph, arrays_for(graph, samples))  # holds every result against its type
    for name, value in graph.outputs.items():
        assert found[name].shape == value.type.shape
        assert found[name].dtype == value.type.dtype


@pytest.mark.parametrize(("op", "example"), CASES)
def test_attributes_are_canonical_and_the_node_reads_back(op: Op, example: Example) -> None:
    graph, _ = proof.graph_of(op, example)
    node = graph.nodes[0]
    hash(tuple(node.attrs.items()))
    again, types = op.infer(tuple(value.type for value in node.inputs), node.attrs)
    assert again == node.attrs
    assert types == tuple(value.type for value in node.outputs)
    assert str(mg.parse(str(graph))) == str(graph)


@pytest.mark.parametrize(("op", "example"), CASES)
def test_symbols_may_stand_for_the_batch(op: Op, example: Example) -> None:
    """Bound, the types are as before."""
    graph = of_any_batch(op, example)
    if graph is None:
        return
    assert str(mg.parse(str(graph))) == str(graph)
    (size,) = batches(example)
    bound = graph.bind(N=size)
    concrete, _ = proof.graph_of(op, example)
    assert [v.type for v in bound.outputs.values()] == [v.type for v in concrete.outputs.values()]


@pytest.mark.parametrize(("op", "example"), cases(lambda op: op.expand))
def test_the_expansion_is_the_same_function(op: Op, example: Example) -> None:
    """Exactly; and in float64 to rounding.

    What divides by a count of 0 is NaN in machine numbers, and only compared there.
    """
    graph, samples = proof.graph_of(op, example, "float64")
    expanded = expansion(op, graph)
    try:
        proof.prove_same(graph, expanded, samples)
    except Undefined:
        assert is_empty(example)
    arrays = arrays_for(graph, samples)
    one, other = evaluate(graph, arrays), evaluate(expanded, arrays)
    terms = max([sample.size if (sample := arrays[name]).size else 1 for name in arrays])
    for name in one:
        # a sum of n numbers of about 4 is off by n * 4 eps; 100 for the operations around it
        np.testing.assert_allclose(one[name], other[name], rtol=100 * terms * EPS, atol=400 * terms * EPS)


DIFFERENTIABLE = cases(lambda op: op.name not in NOT_A_DERIVATIVE and (op.gradient or op.expand))


@pytest.mark.parametrize(("op", "example"), DIFFERENTIABLE)
def test_the_gradient_is_proved_to_second_order(op: Op, example: Example) -> None:
    """<u, J v> = <J^T u, v> in exact numbers, for the op and for the graph of its gradient."""
    graph, samples = proof.graph_of(op, example, "float64")
    if not _moves(graph):
        return
    try:
        proof.prove_gradient(graph, samples)
        backward, seeds = proof.gradient_graph(graph)
        if _moves(backward):
            proof.prove_gradient(backward, {**samples, **seeds})
    except Undefined:
        assert is_empty(example)


def _moves(graph: Graph) -> bool:
    """Whether floats come in and go out."""
    return any(v.type.is_float for v in graph.inputs) and any(v.type.is_float for v in graph.outputs.values())


@pytest.mark.parametrize(("op", "example"), DIFFERENTIABLE)
def test_the_gradient_agrees_with_differences(op: Op, example: Example) -> None:
    """In float64, along a random direction v: (f(x + hv) - f(x - hv)) / 2h against J^T u.

    The differences err by h^2 and by eps/h: with h = 1e-5, by about 1e-10 and 1e-11 of numbers of about 1; 1e-6 is
    held. Kinks (max, relu) are no nearer than h to these random inputs.
    """
    graph, samples = proof.graph_of(op, example, "float64")
    if not _moves(graph) or is_empty(example):
        return
    rng = np.random.default_rng(1)
    arrays = arrays_for(graph, samples, seed=2)
    floats = {v.name for v in graph.inputs if v.type.is_float}
    v = {name: rng.normal(size=arrays[name].shape) for name in floats}
    h = 1e-5
    ahead, behind = (
        evaluate(graph, {n: a + s * h * v[n] if n in floats else a for n, a in arrays.items()}) for s in (1, -1)
    )
    backward, seed_samples = proof.gradient_graph(graph)
    seeds = {name: rng.normal(size=sample.shape) for name, sample in seed_samples.items()}
    gradients = evaluate(backward, {**arrays, **seeds})
    outputs = [name for name, value in graph.outputs.items() if value.type.is_float]
    pushed = sum(float((u * (ahead[name] - behind[name]) / (2 * h)).sum()) for name, u in zip(outputs, seeds.values()))
    pulled = sum(float((g * v[name.removeprefix("gradient.")]).sum()) for name, g in gradients.items())
    size = sum(
        float(np.abs(u * (ahead[name] - behind[name])).sum()) / (2 * h) for name, u in zip(outputs, seeds.values())
    )
    assert abs(pushed - pulled) <= 1e-6 * (1 + size)


POINTWISE = cases(lambda op: op.expression)


@pytest.mark.parametrize(("op", "example"), POINTWISE)
def test_the_expression_is_an_expression(op: Op, example: Example) -> None:
    """On Scalars a pointwise op gives an expression of its inputs, with operations to be counted (a cast has none)."""
    graph, _ = proof.graph_of(op, example)
    names = [f"x{i}" for i in range(len(example.inputs))]
    expression = op.expression(*map(var, names), **graph.nodes[0].attrs)  # type: ignore[misc]
    assert isinstance(expression, Scalar)
    assert _variables(expression) == set(names)
    assert expression.operations() >= (0 if expression.op == "cast" else 1)


def _variables(expression: Scalar) -> set[str]:
    if expression.op == "var":
        return {expression.args[0]}
    return {name for argument in expression.args if isinstance(argument, Scalar) for name in _variables(argument)}
