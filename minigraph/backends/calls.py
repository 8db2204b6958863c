"""Calls of tuned kernels: what a backend does with one node in a function of its own, faster than number by number.

A backend *claims* nodes: it looks at a node, at how its inputs lie in memory, and answers with a `Call` or with None.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from minigraph.backends.access import Access, Index, access, reshaped, through_view
from minigraph.core.dim import Shape, Size
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import Along, Op


@dataclass(frozen=True)
class Operand:
    """An input as it lies in memory: the value whose memory it is, seen from the axes of the input.

    Transposes, slices and broadcasts of what lies in memory are read where they are. moves: whether it may be another
    at each step, as inputs are and what is computed; what does not move is packed once, before the first step. shape:
    by which the value is indexed.
    """

    value: Value
    shape: Shape
    index: Index
    moves: bool

    @property
    def access(self) -> Access:
        """Its places in memory, by the axes of the input."""
        return access(self.index, self.shape)


@dataclass(frozen=True)
class Pack:
    """An operand in the order in which the kernel reads it: `floats` numbers.

    kernel(thread, threads, operand, packed, shape) writes them; `shape` is C text.
    """

    operand: int
    floats: int
    kernel: str
    shape: str


@dataclass(frozen=True, eq=False)
class Call:
    """How one node is computed.

    operands: what it reads. packs: those that it reads packed, by their names in the phases.
    scratch: floats that it works in, called "scratch" there; behind them are `each` more for each thread.
    phases: what all threads do, as C statements; between two of them they wait for each other.
    finishes: whether what follows number by number may be done by the kernel, while numbers are in the cache.
    follows: the values that may be computed so; None: all.
    hands_on: whether what follows is given each number, and does not look for it where the result lies.
    by: the library that computes it, where no kernel of the headers does.
    apart: the numbers of the operands whose images and rows may lie anywhere (Pointers.rows says where); -1 stands for
        the result.
    border: of padding, result -> what is left to do where the operand lies in the middle of the result already.
    others: other kernels that compute the same, by name. This one is the usual one; which is the fastest on a machine,
        tuning measures.
    """

    node: Node
    headers: tuple[str, ...]
    operands: tuple[Operand, ...]
    phases: Callable[[Pointers], Sequence[str]]
    packs: Mapping[str, Pack] = field(default_factory=dict)
    scratch: Size = 0
    each: int = 0
    finishes: bool = False
    follows: frozenset[Value] | None = None
    hands_on: bool = False
    by: str = ""
    apart: frozenset[int] = frozenset()
    border: Callable[[str], str] | None = None
    others: Mapping[str, Callable[[], Call]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pointers:
    """The C names of what a call works with.

    rows: of an operand, or of the result (-1), with channels last: how many numbers one image, and one row, lie from
        the next, if they do not lie side by side; else None. Just those are asked for that Call.apart names.
    shared: (kernel, pointers, its shape as C, finish) -> a call of a function that calls the kernel: one for all that
        call it with this shape. A kernel that is written into each of its callers is slower to compile.
    """

    operands: Sequence[str]
    result: str
    finish: str  # ", function, with": the last arguments of kernels that finish
    shared: Callable[[str, Sequence[str], str, str], str]
    rows: Callable[[int], tuple[Size, Size] | None]


Claim = Callable[[Graph, Node], Call | None]


def operand(graph: Graph, value: Value, through: Collection[Op] = ()) -> Operand:
    """Where a value lies: behind all views of it, and before these ops of one input, which the kernel computes."""
    index: Index = tuple(Along(axis) for axis in range(value.type.rank))
    while value in graph.producer:
        node = graph.producer[value]
        if node.op.view is not None:
            index = through_view(node, index)
        elif node.op.in_order:
            inner = reshaped(node.inputs[0], value, index)
            if inner is None:
                break
            index = inner
        elif node.op not in through:
            break
        value = node.inputs[0]
    return _operand(graph, value, index)


def dense(graph: Graph, value: Value, through: Collection[Op] = ()) -> Operand:
    """A value that must lie in memory as it is, but for these ops of one input, which the kernel computes."""
    while value in graph.producer and graph.producer[value].op in through:
        value = graph.producer[value].inputs[0]
    return _operand(graph, value, tuple(Along(axis) for axis in range(value.type.rank)))


def _operand(graph: Graph, value: Value, index: Index) -> Operand:
    shape = value.type.shape
    while value in graph.producer and graph.producer[value].op.in_order:
        value = graph.producer[value].inputs[0]
    moves = value in graph.inputs or value in graph.producer or value in graph.updates
    return Operand(value, shape, index, moves)
