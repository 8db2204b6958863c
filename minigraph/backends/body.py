"""What is computed at one point of a loop nest, as statements of C.

Everything is computed in the type of its dtype, narrow floats in float and rounded after each op.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from minigraph.backends.access import Access, Index, access, place, reshaped
from minigraph.backends.expressions import COMPUTED, loaded, print_c, rounded, stored
from minigraph.backends.kernels import Kernels
from minigraph.backends.loops import Statement
from minigraph.backends.regions import Partition, Region
from minigraph.core.dim import Size
from minigraph.core.dtypes import NARROW
from minigraph.core.ir import Node, Type, Value
from minigraph.core.scalar import var


@dataclass(eq=False)
class Body:
    """The statements that compute values of one region at a point of its domain, or of the axes that are kept."""

    partition: Partition
    region: Region
    pointers: dict[Value, str]  # of what is read, as parameters of the function
    kernels: Kernels
    prefix: str = "v"  # of the names of variables
    guard: str = ""  # where there may be nothing to read: whether there is, in C; else 0 is read
    statements: list[Statement] = field(default_factory=list)
    known: dict[tuple[Value, Index], tuple[str, frozenset[int]]] = field(default_factory=dict)
    heavy: bool = False  # whether a statement is itself a loop

    def member(self, value: Value, axes: Sequence[tuple[int, Size]]) -> tuple[str, frozenset[int]]:
        """The variable that holds a member of the region."""
        index = place(value.type.shape, axes)
        assert index is not None
        if (value, index) not in self.known:
            node = self.partition.graph.producer[value]
            self.known[value, index] = self._computed(node, index)
        return self.known[value, index]

    def value(self, value: Value, index: Index) -> tuple[str, frozenset[int]]:
        """The variable that holds the value at an index."""
        if (value, index) not in self.known:
            partition = self.partition
            if value in partition.virtual and value not in partition.region_of:
                self.known[value, index] = self._computed(partition.graph.producer[value], index)
            else:
                self.known[value, index] = self._loaded(value, value.type, partition.memory.access(value, index))
        return self.known[value, index]

    def store(self, value: Value, axes: Sequence[tuple[int, Size]], pointer: str) -> Statement:
        name, _ = self.member(value, axes)
        index = place(value.type.shape, axes)
        assert index is not None
        every = frozenset(axis for axis, _ in axes)
        text = f"{pointer}[@] = {stored(name, value.type.dtype)};"
        return Statement(text, every, self.partition.memory.access(value, index))

    def _computed(self, node: Node, index: Index) -> tuple[str, frozenset[int]]:
        op, result = node.op, node.outputs[0]
        if op.kernel is not None:
            return self._called(node, index)
        if op.in_order:
            inner = reshaped(node.inputs[0], result, index)
            if inner is None:
                return self._loaded(self.partition.base(result), result.type, access(index, result.type.shape))
            return self.value(node.inputs[0], inner)
        operands = [self.value(v, inner) for v, inner in self.partition.operands(node, index) if inner is not None]
        if op.view is not None:
            return operands[0]
        expression = op.expression(*(var(str(i)) for i in range(len(operands))), **node.attrs)  # type: ignore[misc]
        names = {str(i): name for i, (name, _) in enumerate(operands)}
        dtypes = {str(i): v.type.dtype for i, v in enumerate(node.inputs)}
        text = print_c(expression, names, dtypes, result.type.dtype)
        return self._set(result.type.dtype, text, frozenset().union(*(axes for _, axes in operands)), None)

    def _loaded(self, value: Value, type_: Type, where: Access) -> tuple[str, frozenset[int]]:
        pointer = self.pointer(value)
        if type_.dtype == "bool":  # gcc 12 does not vectorize a loop that chooses by a bool from memory
            pointer = f"((const uint8_t *){pointer})"
        return self._set(type_.dtype, f"{pointer}[@]", _axes(where), where, lies=True)

    def _called(self, node: Node, index: Index) -> tuple[str, frozenset[int]]:
        kernel, result = node.op.kernel, node.outputs[0]
        assert kernel is not None
        self.heavy = self.heavy or not kernel.light
        where = access(index, result.type.shape)
        pointers = [self.pointer(self.partition.base(v)) for v in node.inputs]
        text = self.kernels.call(node, ["@", *pointers])
        return self._set(result.type.dtype, text, _axes(where), where, lies=True)

    def pointer(self, value: Value) -> str:
        return self.pointers.setdefault(value, f"x{len(self.pointers)}")

    def _set(
        self, dtype: str, text: str, axes: frozenset[int], where: Access | None, lies: bool = False
    ) -> tuple[str, frozenset[int]]:
        """lies: whether the text is a number as it lies in memory."""
        name = f"{self.prefix}{len(self.known)}_{len(self.statements)}"
        if dtype in NARROW:
            text = loaded(text, dtype) if lies else rounded(text, dtype)
        if lies and self.guard:
            text = f"{self.guard} ? {text} : 0"
        self.statements.append(Statement(f"const {COMPUTED[dtype]} {name} = {text};", axes, where))
        return name, axes


def _axes(where: Access) -> frozenset[int]:
    return frozenset(axis for axis, stride in where.strides if stride != 0)
