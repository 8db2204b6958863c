"""Proofs: that two graphs are one function, and that gradients are right, in exact numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minigraph.core import exact
from minigraph.core.autodiff import vjp
from minigraph.core.builder import Builder
from minigraph.core.dim import known
from minigraph.core.dtypes import FLOATS
from minigraph.core.errors import GraphError, expect
from minigraph.core.evaluate import apply
from minigraph.core.exact import Modular, NeedsOrder, Number, Rational, Redraw, Unknown
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import Example, Op, Sample

Samples = Mapping[str, Sample]
ORDERED_DRAWS = 12  # all of them miss a case that has a chance of 1/4 once in 30 times
DRAWS = 400  # a proof with k square roots finds inputs for which all exist in 2^k draws
Kinds = Sequence[tuple[type[Number], int]]  # kinds of numbers, in the order in which they are tried, and how many draws
KINDS: Kinds = ((Modular, 1), (Rational, ORDERED_DRAWS))


class Refuted(AssertionError):
    """An input was found on which the claim is false."""


def graph_of(op: Op, example: Example, dtype: str = "float32") -> tuple[Graph, Samples]:
    """The graph of one node: inputs x0, x1, ... and outputs y0, y1, ..., and what to draw for the inputs."""
    builder = Builder(op.name)
    inputs = [builder.input(f"x{i}", s.shape, s.in_dtype(dtype)) for i, s in enumerate(example.inputs)]
    outputs = builder.emit(op, inputs, {k: dtype if (k, v) == ("dtype", None) else v for k, v in example.attrs.items()})
    return (
        builder.build({f"y{i}": y for i, y in enumerate(outputs)}),
        {f"x{i}": sample for i, sample in enumerate(example.inputs)},
    )


def gradient_graph(graph: Graph) -> tuple[Graph, Samples]:
    """Inputs of `graph` and a seed for each float output -> the gradient for each float input (zero ones left out)."""
    builder = Builder.extending(graph)
    wrt = [builder.tensor(value.name) for value in graph.inputs if value.type.is_float]
    outputs = [builder.tensor(name) for name, value in graph.outputs.items() if value.type.is_float]
    expect(outputs, "{!r} has no output of floats, and so no gradient", graph.name)
    seeds = [builder.input(f"seed{len(graph.inputs)}.{i}", y.shape, y.dtype) for i, y in enumerate(outputs)]
    found = vjp(outputs, seeds, wrt)
    named = {f"gradient.{x.name}": g for x, g in zip(wrt, found) if g is not None}
    return builder.build(named), {
        seed.name: Sample(tuple(known(n, "the size of an output") for n in seed.shape)) for seed in seeds
    }


def given(graph: Graph) -> tuple[Value, ...]:
    """What a graph computes from: inputs and state."""
    return (*graph.inputs, *(variable.value for variable in graph.state))


def results(graph: Graph) -> dict[str, Value]:
    """What a graph computes: outputs by name, and what each state becomes."""
    return {**graph.outputs, **{f"update of {old.name}": new for old, new in graph.updates.items()}}


def evaluate(
    graph: Graph, arrays: Mapping[str, np.ndarray], kind: type[Number], world: Unknown
) -> dict[str, np.ndarray]:
    """All results in exact numbers. Integers and bools stay what they are."""
    found: dict[Value, np.ndarray] = {value: arrays[value.name] for value in given(graph)}
    for node in graph.nodes:
        for value, array in zip(node.outputs, apply(_exact(node), [found[v] for v in node.inputs])):
            found[value] = exact.lift(array, kind, world) if value.type.is_float else array
    return {name: found[value] for name, value in results(graph).items()}


def _exact(node: Node) -> Node:
    """The node with `object` in place of a float dtype among its attributes."""
    if node.attrs.get("dtype") not in FLOATS:
        return node
    return Node(node.op, node.inputs, node.outputs, {**node.attrs, "dtype": object}, node.name, node.origin)


def draw(graph: Graph, samples: Samples, kind: type[Number], world: Unknown, moving: bool) -> dict[str, np.ndarray]:
    arrays = {}
    for value in given(graph):
        sample = samples[value.name]
        if value.type.is_float:
            arrays[value.name] = exact.draw(sample.shape, kind, world, sample.low, sample.high, moving)
        else:
            arrays[value.name] = concrete(
                sample, value.type.dtype, np.random.default_rng(world.random.randrange(2**32))
            )
    return arrays


def concrete(sample: Sample, dtype: str, rng: np.random.Generator) -> np.ndarray:
    """Random machine numbers for one input."""
    if dtype in FLOATS:
        return rng.uniform(sample.low, sample.high, sample.shape).astype(dtype)
    return rng.integers(int(sample.low), int(sample.high), sample.shape).astype(dtype)


def prove_same(before: Graph, after: Graph, samples: Samples, kinds: Kinds = KINDS) -> type[Number]:
    """Raise Refuted unless both graphs give equal outputs and updates; returns the kind of numbers that it took."""

    names, others = results(before), results(after)
    if names.keys() != others.keys():
        raise Refuted(f"before it computes {', '.join(names)}, after {', '.join(others)}")

    def once(kind: type[Number], world: Unknown) -> None:
        arrays = draw(before, samples, kind, world, moving=False)
        a, b = evaluate(before, arrays, kind, world), evaluate(after, arrays, kind, world)
        for name in names:
            if a[name].shape != b[name].shape or not np.all(a[name] == b[name]):
                raise Refuted(f"{name!r} differs between {before.name!r} and {after.name!r}")

    return _prove(once, kinds)


def prove_gradient(graph: Graph, samples: Samples) -> type[Number]:
    """Raise Refuted unless the gradient of `graph` is the transpose of its derivative: <u, J v> = <J^T u, v>."""
    backward, seed_samples = gradient_graph(graph)

    def once(kind: type[Number], world: Unknown) -> None:
        moving = draw(graph, samples, kind, world, moving=True)
        outputs = evaluate(graph, moving, kind, world)
        seeds = {name: exact.draw(sample.shape, kind, world) for name, sample in seed_samples.items()}
        at_rest = {name: exact.still(a) if a.dtype == object else a for name, a in moving.items()}
        gradients = evaluate(backward, {**at_rest, **seeds}, kind, world)
        floats = [outputs[name] for name, value in graph.outputs.items() if value.type.is_float]
        pushed = _inner(kind, [(u, y) for u, y in zip(seeds.values(), floats, strict=True)])
        pulled = _inner(kind, [(g, moving[name.removeprefix("gradient.")]) for name, g in gradients.items()])
        if kind(pushed - pulled, 0, world).value != 0:
            raise Refuted(f"the gradient of {graph.name!r} is wrong: <u, J v> is {pushed}, <J^T u, v> is {pulled}")

    return _prove(once)


def _inner(kind: type[Number], pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Any:
    """The sum of value times slope."""
    return sum((u.value * y.slope for us, ys in pairs for u, y in zip(us.flat, ys.flat, strict=True)), start=0)


def _prove(once: Callable[[type[Number], Unknown], None], kinds: Kinds = KINDS) -> type[Number]:
    """Modular numbers first, where one draw is enough; where order matters several, each seeing one case of it."""
    for kind, wanted in kinds:
        done = 0
        for seed in range(DRAWS):
            try:
                once(kind, Unknown(seed))
                done += 1
            except Redraw:
                continue
            except NeedsOrder:
                break
            if done == wanted:
                return kind
    raise GraphError(f"no inputs were found in {DRAWS} draws on which all square roots and quotients exist")
