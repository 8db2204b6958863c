"""How a product reads its factors: where they lie, and as which type of C++.

What was rounded to TF32 (ops/tf32.py) is read as `tf32`, which tensor cores take, where both factors were: from what it
was rounded from, so that the rounded numbers need not lie in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from minigraph.backends.calls import Operand, dense, operand
from minigraph.backends.expressions import STORED
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import Op
from minigraph.ops.tf32 import tf32


@dataclass(frozen=True)
class Factors:
    """Of one product. kind: the type that they are read as."""

    graph: Graph
    kind: str

    @property
    def nbytes(self) -> int:
        """Of one number."""
        return 4 if self.kind in ("float", "tf32") else 2

    def operand(self, value: Value) -> Operand:
        """A factor where it lies: behind all views, and before it was rounded."""
        return operand(self.graph, value, self._through)

    def dense(self, value: Value) -> Operand:
        """A factor that must lie in memory as it is."""
        return dense(self.graph, value, self._through)

    def pointer(self, pointer: str) -> str:
        return f"(const tf32 *)({pointer})" if self.kind == "tf32" else pointer

    @property
    def _through(self) -> tuple[Op, ...]:
        return (tf32,) if self.kind == "tf32" else ()


def factors(graph: Graph, node: Node) -> Factors:
    rounded = all(_is_rounded(graph, value) for value in node.inputs)
    return Factors(graph, "tf32" if rounded else STORED[node.inputs[0].type.dtype])


def _is_rounded(graph: Graph, value: Value) -> bool:
    """Whether it is float32 that was rounded to TF32, perhaps seen through views."""
    while value in graph.producer:
        node = graph.producer[value]
        if node.op is tf32:
            return value.type.dtype == "float32"
        if node.op.view is None and not node.op.in_order:
            return False
        value = node.inputs[0]
    return False
