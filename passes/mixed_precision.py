"""Mixed precision: a narrow float where the time goes, float32 where digits count.

    f(x, w)  ≈  float32(f(half(x), half(w)))          f a convolution or a matrix product, half float16 or bfloat16

Only casts join the graph. Parameters stay float32, the master weights: the products read copies, rounded once. Between
two products, ops that go along (see `Half` in core/op.py) compute in the narrow float as well, so that activations are
stored in half of the bytes: a ReLU, a batch norm, whose statistics and parameters are float32 all the same. All others
read and make float32: losses, softmaxes, reductions, statistics. Inputs, outputs and state keep their types.

A float16 number is right to 2^-11 of itself, and lies between 6e-8 and 65504. A bfloat16 number is right to 2^-8 only,
and lies where float32 does. Inner products are added up in float32, and rounded once. Gradients follow, where the graph
is differentiated afterwards: the gradient of a cast is the cast back, so a weight's gradient is computed in the narrow
float and becomes float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from minigraph.core.builder import Tensor
from minigraph.core.errors import expect
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import OPS
from minigraph.core.pattern import Bound
from minigraph.core.pipeline import Pass, applied
from minigraph.core.rewrite import Condition, Match, Rule, Walk, called
from minigraph.ops.pointwise import cast

CAST = OPS["cast"]  # `cast` itself leaves out casts that change nothing


def places(node: Node) -> list[int]:
    """Which of its inputs become narrow, if the node takes part."""
    half = node.op.half
    if half is None:
        return []
    inside = range(len(node.inputs)) if half.inputs is None else half.inputs
    return [i for i in inside if node.inputs[i].type.dtype == "float32"]


def seeks(walk: Walk, node: Node) -> Bound | None:
    """For patterns: inner products of float32."""
    return {} if node.op.half is not None and node.op.half.seeks and places(node) else None


def read_as_half(graph: Graph) -> set[Value]:
    """What products read, at once or through ops that go along."""
    found: set[Value] = set()
    for node in reversed(graph.nodes):
        if node.op.half is not None and (node.op.half.seeks or not found.isdisjoint(node.outputs)):
            found.update(node.inputs[i] for i in places(node))
    return found


@dataclass(frozen=True)
class Narrowing:
    """What is looked for and made, in one narrow dtype. "Half" is a number of it."""

    dtype: str

    def half_of(self, walk: Walk, value: Value) -> Value | None:
        """The half that the value is, in float32; None if it is no such number."""
        made = walk.producer.get(value)
        widened = made is not None and made.op is CAST and made.inputs[0].type.dtype == self.dtype
        return made.inputs[0] if made is not None and widened else None

    def halved(self, match: Match, value: Value) -> Tensor:
        """The value as half. A view of a weight becomes a view of its copy, which is then made as the weight lies."""
        half, made = self.half_of(match.walk, value), match.walk.producer.get(value)
        if half is not None:
            return match.tensor(half)
        if made is not None and made.op.view is not None and match.walk.is_frozen(value):
            view: Tensor = match.again(made, self.halved(match, made.inputs[0]))
            return view
        return cast(match.tensor(value), self.dtype)

    def in_half(self, match: Match) -> object:
        """The node in half, and its results as float32 again."""
        node, inputs = match.node, [match.tensor(value) for value in match.node.inputs]
        for i in places(node):
            inputs[i] = self.halved(match, node.inputs[i])
        made = match.again(node, *inputs)
        results = made if isinstance(made, tuple) else (made,)
        return tuple(cast(result, old.type.dtype) for result, old in zip(results, node.outputs))

    def goes_along(self, walk: Walk, node: Node) -> Bound | None:
        """For patterns: an op that can be half, and reads some already."""
        if node.op.half is None or node.op.half.seeks:
            return None
        return {} if any(self.half_of(walk, node.inputs[i]) for i in places(node)) else None

    def not_half_itself(self, match: Match) -> str:
        for i in places(match.node):
            value = match.node.inputs[i]
            if self.half_of(match.walk, value) is None and not match.walk.is_frozen(value):
                return f"{value.name}, which {called(match.node)} reads as well, is float32"
        return ""

    def not_read_as_half(self, match: Match) -> str:
        walk, node = match.walk, match.node
        if "read as half" not in walk.memo:
            walk.memo["read as half"] = read_as_half(walk.source)
        found = walk.memo["read as half"]
        if any(value in found for output in node.outputs for value in walk.originals(output)):
            return ""
        return f"what {called(node)} makes gets to no product that is computed in {self.dtype}"

    def made(self) -> Pass:
        """Where it begins, and where it goes on."""
        products = Rule(
            f"products-in-{self.dtype}",
            f"f(x, w) = float32(f({self.dtype}(x), {self.dtype}(w))), f made of inner products, but for rounding",
            seeks,
            self.in_half,
        )
        between = Rule(
            f"stay-in-{self.dtype}",
            "f(float32(x), …) = float32(f(x, …)), f as exact as its inputs, but for rounding",
            self.goes_along,
            self.in_half,
            pays=(
                Condition(f"what else it reads is {self.dtype}, too, or a weight", self.not_half_itself),
                Condition(f"what it makes is read in {self.dtype}", self.not_read_as_half),
            ),
        )
        what = f"Products, and what lies between them, are computed in {self.dtype}."
        return Pass(f"in-{self.dtype}", what, (products, between))


IN_FLOAT16, IN_BFLOAT16 = Narrowing("float16").made(), Narrowing("bfloat16").made()
PASSES = {"float16": IN_FLOAT16, "bfloat16": IN_BFLOAT16}


def in_narrow(graph: Graph, dtype: str) -> Graph:
    """The graph with its convolutions and matrix products of float32 in this dtype, and with them what lies between.

    Raises GraphError where there are none.
    """
    after = applied((PASSES[dtype],), graph)
    seeking = [node for node in after.nodes if node.op.half is not None and node.op.half.seeks]
    expect(
        any(node.outputs[0].type.dtype == dtype for node in seeking),
        "{!r} has no convolution and no matrix product of float32, for whose sake {} would pay",
        graph.name,
        dtype,
    )
    return after
