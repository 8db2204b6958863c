"""The same graphs at small shapes, so that they can be run in exact numbers.

A formula over tensors means the same for 512 channels as for 2, if its attributes are changed along with the shapes.
Sizes are mapped: each large one to a small one, distinct ones to distinct ones, and where one size is a multiple of
another the small ones are, too, as groups and reshapes need it. What a size has become is written wherever it stands:
in the shapes of inputs, in attributes that are sizes, and in numbers that count elements. Then every node's types are
inferred anew. Where that fails, or the two graphs no longer give the same type, another map is tried.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from minigraph.core.dim import known
from minigraph.core.errors import GraphError
from minigraph.core.ir import Graph, Node, Type, Value

# Attributes that hold whole numbers which are not sizes.
NOT_SIZES = frozenset(
    ("axis", "axes", "stride", "dilation", "padding", "output_padding", "step", "stream", "batch", "ignore_index", "k")
)
Sizes = Mapping[int, int]


def cost(graph: Graph) -> int:
    """About how many operations on numbers it takes to run a graph: those of its ops, and one for each result."""
    total = 0
    for node in graph.nodes:
        outputs = [value.type for value in node.outputs]
        total += known(node.op.count([v.type for v in node.inputs], outputs, node.attrs), "the cost of a graph")
        total += sum(known(t.size, "a size") for t in outputs)
    return total


def shrunken(before: Graph, after: Graph, budget: int) -> Iterator[tuple[Graph, Graph]]:
    """Pairs of graphs at shapes at which both together take at most `budget` operations, the real shapes first.

    Both graphs have the same inputs and one output.
    """
    tried: set[tuple[Any, ...]] = set()
    for sizes in _maps(before, after):
        try:
            pair = _resized(before, sizes), _resized(after, sizes)
        except GraphError:
            continue
        key = tuple(value.type for graph in pair for value in (*graph.inputs, *_ends(graph)))
        same = [v.type for v in _ends(pair[0])] == [v.type for v in _ends(pair[1])]
        if same and key not in tried and cost(pair[0]) + cost(pair[1]) <= budget:
            tried.add(key)
            yield pair


def _ends(graph: Graph) -> list[Value]:
    return list(graph.outputs.values())


def _maps(before: Graph, after: Graph) -> Iterator[Sizes]:
    """Maps of sizes, the ones more likely to fit first."""
    yield {}
    shapes = [value.type.shape for value in before.inputs]
    sizes = {n for shape in shapes for n in shape if isinstance(n, int)}
    # where channels stand in weights, vectors and images, whatever else stands there
    outer = {n for shape in shapes for n in shape[:2] if isinstance(n, int)}
    last = {shape[-1] for shape in shapes if shape and isinstance(shape[-1], int)}
    for above in (8, 3):
        for chosen in (sizes, outer, last, sizes - outer):
            large = sorted(n for n in chosen if n > above)
            if large:
                kept = sizes - set(large)
                for found in (_related(large, kept), _divided(large), _distinct(large, kept), _roomy(large)):
                    yield {**found, 0: 0, 1: 1}


def _related(large: Sequence[int], kept: set[int]) -> dict[int, int]:
    """A product of two sizes, or a small multiple of one, stays that; others become small numbers of their own."""
    found: dict[int, int] = {}
    for n in large:
        products = [(a, n // a) for a in found if n % a == 0 and n // a in found]
        multiples = [a for a in found if n % a == 0 and n // a <= 4]
        if products:
            a, b = products[0]
            found[n] = found[a] * found[b]
        elif multiples:
            found[n] = found[multiples[-1]] * (n // multiples[-1])
        else:
            found[n] = next(i for i in itertools.count(2) if i not in found.values() and i not in kept)
    return found


def _divided(large: Sequence[int]) -> dict[int, int]:
    """All divided by what divides them all: sums and ratios stay."""
    divisor = math.gcd(*large)
    least = 2 if large[0] == divisor else 1
    return {n: n // divisor * least for n in large}


def _distinct(large: Sequence[int], kept: set[int]) -> dict[int, int]:
    """Small numbers in the same order."""
    return dict(zip(large, (i for i in itertools.count(2) if i not in kept)))


def _roomy(large: Sequence[int]) -> dict[int, int]:
    """Numbers with room for windows, and divisible by 2 and 4."""
    return {n: 8 + 4 * i for i, n in enumerate(large)}


def _resized(graph: Graph, sizes: Sizes) -> Graph:
    """The graph with other sizes of its inputs. Raises GraphError where its ops do not take them."""
    if not sizes:
        return graph
    new: dict[Value, Value] = {}
    seen = {**sizes}  # and what other sizes have become on the way
    counts: dict[int, int] = {}
    for value in graph.inputs:
        shape = tuple([sizes.get(n, n) for n in value.type.shape])  # type: ignore[arg-type]
        new[value] = Value(Type(shape, value.type.dtype), value.name)
        _learn(value.type, new[value].type, seen, counts)
    nodes = []
    for node in graph.nodes:
        inputs = tuple([new[v] for v in node.inputs])
        attrs, types = node.op.infer(tuple([v.type for v in inputs]), _attributes(node, inputs, seen, counts))
        outputs = tuple([Value(t, v.name) for t, v in zip(types, node.outputs, strict=True)])
        for old, value in zip(node.outputs, outputs):
            new[old] = value
            if old.type.rank != value.type.rank or old.type.dtype != value.type.dtype:
                raise GraphError(f"{old} would become {value}")
            _learn(old.type, value.type, seen, counts)
        nodes.append(Node(node.op, inputs, outputs, attrs, node.name, node.origin))
    ends = {name: new[value] for name, value in graph.outputs.items()}
    return Graph(graph.name, tuple(new[v] for v in graph.inputs), (), tuple(nodes), ends)


def _learn(old: Type, now: Type, seen: dict[int, int], counts: dict[int, int]) -> None:
    """Note what the sizes of a type have become, and how many numbers there are along some of its axes.

    0 in `counts` is a count that became two different ones.
    """
    pairs: list[tuple[int, int]] = list(zip(old.shape, now.shape))  # type: ignore[arg-type]
    for n, m in pairs:
        seen.setdefault(n, m)
    for several in range(1, len(pairs) + 1):
        for axes in itertools.combinations(pairs, several):
            n, m = (math.prod(side) for side in zip(*axes))
            if n > 1 and counts.setdefault(n, m) != m:
                counts[n] = 0


def _attributes(node: Node, inputs: tuple[Value, ...], seen: Sizes, counts: Sizes) -> dict[str, Any]:
    """The attributes at other sizes."""
    change: Callable[[Any], Any] = lambda n: seen.get(n, n)
    found = {k: v if k in NOT_SIZES or k == "value" else _mapped(v, change) for k, v in node.attrs.items()}
    if node.op.name == "reshape":
        found["shape"] = _reshaped(node, inputs[0].type, seen)
    if node.op.name == "fill" and node.attrs["dtype"] != "bool":
        value = node.attrs["value"]
        found["value"] = type(value)(_counted(value, counts))
    return found


def _mapped(attribute: Any, change: Callable[[Any], Any]) -> Any:
    """The attribute with each whole number in it changed."""
    if type(attribute) is tuple:
        return tuple(_mapped(a, change) for a in attribute)
    return change(attribute) if type(attribute) is int else attribute


def _reshaped(node: Node, now: Type, seen: Sizes) -> tuple[int, ...]:
    """The shape of a reshape: axes that go together into others keep doing so.

    (64, 7, 7) as (3136,) is (2, 3, 3) as (18,). One axis of each group takes what the others leave.
    """
    old: Sequence[Any] = node.inputs[0].type.shape
    target: Sequence[Any] = node.attrs["shape"]
    result: list[int] = []
    i = j = 0
    while j < len(target):
        start, first = i, j
        left, right = 1, target[j]
        j += 1
        while left != right and (i < len(old) if left < right else j < len(target)):
            if left < right:
                left, i = left * old[i], i + 1
            else:
                right, j = right * target[j], j + 1
        total = math.prod(now.shape[start:i])
        group = [seen.get(n, n) for n in target[first:j]]
        largest = max(range(len(group)), key=lambda axis: target[first:j][axis])
        rest = math.prod(n for axis, n in enumerate(group) if axis != largest)
        if math.prod(group) != total:
            if rest == 0 or total % rest:
                raise GraphError("the sizes of a reshape do not divide")
            group[largest] = total // rest
        result.extend(group)
    return tuple(result)


def _counted(number: float, counts: Sizes) -> float:
    """A number that counts elements, or one over it, at other sizes."""
    if number >= 2 and number in counts:
        return float(counts[int(number)] or number)
    if 0 < number < 1 and abs(round(1 / number) * number - 1) < 1e-15 and round(1 / number) in counts:
        return 1 / (counts[round(1 / number)] or 1 / number)
    return number
