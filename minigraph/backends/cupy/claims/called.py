"""Products that a library computes: what it is asked for each node, with what follows and without.

A bias and relu join the product where nobody else needs the number before them and the library takes all of it;
else the library computes the product alone. What it refuses even then is for the own kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from minigraph.backends.access import contiguous
from minigraph.backends.calls import Call, Operand, dense, operand
from minigraph.backends.cupy.claims.launched import strides
from minigraph.backends.cupy.libraries.patterns import (
    NAMES,
    WORKSPACE_ALIGNMENT,
    Array,
    Convolution,
    Pattern,
    Product,
    Routine,
)
from minigraph.backends.layout import to_first
from minigraph.backends.plan import ALIGNMENT
from minigraph.core.dim import known
from minigraph.core.ir import Graph, Node, Value
from minigraph.ops import conv as convolution
from minigraph.ops.matmul import matmul
from minigraph.ops.pointwise import add, relu
from minigraph.ops.tf32 import tf32

Ask = Callable[[Pattern], Routine | None]
Operands = tuple[Operand, Operand]


@dataclass(frozen=True)
class Answer:
    """A routine, and what it reads, in order."""

    routine: Routine
    operands: tuple[Operand, ...]

    def offsets(self) -> tuple[int, ...]:
        """Bytes from the beginning of each operand's memory to its first number."""
        return tuple(_offset(operand) for operand in self.operands)


@dataclass(frozen=True, eq=False)
class Called(Call):
    """A call of a library. answers: by the value that it gives, which is that of the node or of what follows it."""

    answers: Mapping[Value, Answer] = field(default_factory=dict)


def called(graph: Graph, node: Node, ask: Ask) -> Called | None:
    """How a library computes a node, or None where none does."""
    if node.op not in PATTERNS:
        return None
    (result,), moved = node.outputs, {_base(graph, value) for value in graph.updates.values()}
    if 0 in result.type.shape or result in moved:
        return None  # whoever writes a state must see whether an input was found wrong, which no library does
    for lie in (operand, dense):
        operands = (lie(graph, node.inputs[0]), lie(graph, node.inputs[1]))
        pattern = PATTERNS[node.op](graph, node, operands)
        if pattern is not None and (routine := ask(pattern)) is not None:
            break
    else:
        return None
    answers = {result: Answer(routine, operands)}
    for value, fused, extra in _followed(graph, node, pattern):
        if value not in moved and (routine := ask(fused)) is not None:
            answers[value] = Answer(routine, (*operands, *extra))
    workspace = max(answer.routine.workspace for answer in answers.values())
    read = {operand.value: operand for answer in answers.values() for operand in answer.operands}
    return Called(
        node,
        (),
        (*operands, *(one for value, one in read.items() if all(value is not o.value for o in operands))),
        lambda pointers: (),
        scratch=-(-(workspace + WORKSPACE_ALIGNMENT) // 4) if workspace else 0,
        finishes=len(answers) > 1,
        follows=frozenset(answers) - {result},
        by=answers[result].routine.name.partition(":")[0],
        answers=answers,
    )


def _base(graph: Graph, value: Value) -> Value:
    while value in graph.producer and graph.producer[value].op.in_order:
        value = graph.producer[value].inputs[0]
    return value


# what follows


def _followed(graph: Graph, node: Node, pattern: Pattern) -> Iterator[tuple[Value, Pattern, tuple[Operand, ...]]]:
    """The values behind a node that a library might give instead, one behind the other."""
    if node.op not in (convolution.conv, matmul):
        return
    (value,) = node.outputs
    follower, extra = _only_reader(graph, value), tuple[Operand, ...]()
    if follower is not None and follower.op is add:
        bias = _bias(graph, node, follower)
        if bias is None:
            return
        (value,), extra, pattern = follower.outputs, (bias,), replace(pattern, bias=True)
        yield value, pattern, extra
        follower = _only_reader(graph, value)
    if follower is not None and follower.op is relu:
        yield follower.outputs[0], replace(pattern, relu=True), extra


def _only_reader(graph: Graph, value: Value) -> Node | None:
    """The one node that needs the value."""
    readers, ends = graph.readers.get(value, ()), (*graph.outputs.values(), *graph.updates.values())
    return readers[0] if len(readers) == 1 and value not in ends else None


def _bias(graph: Graph, node: Node, follower: Node) -> Operand | None:
    """What is added, if it is a number for each column of the result that is there before the node is computed."""
    (result,), (first, second) = node.outputs, follower.inputs
    value = second if first is result else first
    columns = result.type.shape[-1]
    if value is result or value.type.dtype != result.type.dtype or follower.outputs[0].type != result.type:
        return None
    if columns == 1 or value.type.shape[-1:] != (columns,) or value.type.size != columns:
        return None
    found = operand(graph, value)
    maker = graph.producer.get(found.value)
    if maker is not None and maker.inputs and graph.nodes.index(maker) > graph.nodes.index(node):
        return None
    return found if strides(found, value.type.rank)[-1] == 1 and _alignment(found) >= 16 else None


# patterns


def _array(found: Operand, value: Value, order: tuple[int, ...]) -> Array | None:
    """The axes of an input, in this order; None where numbers are read more than once."""
    sizes, own = [known(n, "a size") for n in value.type.shape], strides(found, value.type.rank)
    steps = [step or packed for step, packed in zip(own, contiguous(value.type.shape))]
    if 0 in sizes or any(size > 1 and step <= 0 for size, step in zip(sizes, own)):
        return None
    taken = lambda numbers: tuple(known(numbers[axis], "a number") for axis in order)
    return Array(value.type.dtype, taken(sizes), taken(steps), _alignment(found))


def _offset(found: Operand) -> int:
    return known(found.access.offset, "an offset") * np.dtype(found.value.type.dtype).itemsize


def _alignment(found: Operand) -> int:
    """Bytes of which the address of its first number is a multiple: a power of two."""
    offset = _offset(found)
    return min(ALIGNMENT, offset & -offset) if offset else ALIGNMENT


def _rounded(graph: Graph, operands: Operands) -> bool:
    """Whether both operands lie in memory rounded to tf32, so that tensor cores take them as they are.

    Own kernels round what they read. How a library would round is nowhere written.
    """
    makers = (graph.producer.get(one.value) for one in operands)
    return all(maker is not None and maker.op is tf32 for maker in makers)


def _convolution(graph: Graph, node: Node, operands: Operands) -> Convolution | None:
    attrs, (result,) = node.attrs, node.outputs
    if attrs["layout"][-1] != "C":
        return None
    rank = result.type.rank
    images, as_it_is = to_first(rank), tuple(range(rank))
    values = (*node.inputs, result)
    arrays = {
        name: _array(found, value, as_it_is if name == "w" else images)
        for name, found, value in zip(NAMES[node.op.name], (*operands, dense(graph, result)), values)
    }
    x, w, y = (arrays[name] for name in ("x", "w", "y"))
    if x is None or w is None or y is None:
        return None
    how = {name: attrs[name] for name in ("stride", "dilation", "padding")}
    return Convolution(node.op.name, x, w, y, **how, tf32=_rounded(graph, operands))


def _product(graph: Graph, node: Node, operands: Operands) -> Product | None:
    """Matrices of a that lie behind one another, and meet the same b, are one; others are counted along one axis."""
    *front, M, N = (known(n, "a size") for n in node.outputs[0].type.shape)
    arrays = [_array(found, value, tuple(range(value.type.rank))) for found, value in zip(operands, node.inputs)]
    (a, b), K = arrays, known(node.inputs[0].type.shape[-1], "a size")
    if a is None or b is None:
        return None
    a_row, b_row = a.strides[-2], b.strides[-2]
    axes = [axis for axis in zip(front, *(_apart(array, len(front)) for array in (a, b))) if axis[0] != 1]
    while axes and axes[-1][1:] == (M * a_row, 0):
        M *= axes.pop()[0]
    while len(axes) > 1:
        (n, *far), (inner, *near) = axes[-2:]
        if far != [step * inner for step in near]:
            return None
        axes[-2:] = [(n * inner, near[0], near[1])]
    count, of_a, of_b = axes[0] if axes else (1, 0, 0)
    return Product(
        Array(a.dtype, (count, M, K), (of_a, a_row, a.strides[-1]), a.alignment),
        Array(b.dtype, (count, K, N), (of_b, b_row, b.strides[-1]), b.alignment),
        Array(a.dtype, (count, M, N), (M * N, N, 1), ALIGNMENT),
        tf32=_rounded(graph, operands),
    )


def _apart(array: Array, axes: int) -> list[int]:
    """How far matrices lie apart along each of so many axes in front; 0 where there is one."""
    own = [0 if size == 1 else step for size, step in zip(array.sizes[:-2], array.strides[:-2])]
    return [0] * (axes - len(own)) + own


PATTERNS: Mapping[object, Callable[[Graph, Node, Operands], Pattern | None]] = {
    matmul: _product,
    convolution.conv: _convolution,
    convolution.conv_input_gradient: _convolution,
    convolution.conv_weight_gradient: _convolution,
}
