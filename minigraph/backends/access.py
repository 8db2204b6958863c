"""Where numbers lie: each axis of a value, seen from the axes of a loop nest.

A loop nest runs over a *domain*, a shape. What it computes at a point of the domain reads other values at an *index*:
for each axis of the value an `Along`, which says along which axis of the domain it runs. Views (transposes, slices,
broadcasts) compose with an index and need no memory. In memory a value is contiguous, so that an index becomes an
`Access`: an offset, and a stride for each axis of the domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minigraph.core.dim import Shape, Size
from minigraph.core.ir import Node, Value
from minigraph.core.op import Along

Index = tuple[Along, ...]
ONE = Along(None)  # of an axis of size 1


@dataclass(frozen=True)
class Access:
    """offset + the sum of strides[axis] * (index along that axis of the domain), counted in numbers."""

    offset: Size
    strides: tuple[tuple[int, Size], ...]

    def stride(self, axis: int) -> Size:
        return dict(self.strides).get(axis, 0)


def contiguous(shape: Shape) -> tuple[Size, ...]:
    """The stride of each axis where the last one runs fastest."""
    strides: list[Size] = []
    step: Size = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * size
    return tuple(reversed(strides))


def access(index: Index, shape: Shape) -> Access:
    """The place in memory of a contiguous value of this shape."""
    offset: Size = 0
    strides: dict[int, Size] = {}
    for along, stride in zip(index, contiguous(shape), strict=True):
        offset = offset + along.start * stride
        if along.axis is not None:
            strides[along.axis] = strides.get(along.axis, 0) + along.step * stride
    return Access(offset, tuple(sorted(strides.items())))


def place(shape: Shape, domain: Sequence[tuple[int, Size]]) -> Index | None:
    """The index of a value that has one number at each point of these axes of a domain; None where it has not.

    Axes of size 1 may be anywhere in the shape, and are none of the domain's.
    """
    axes = iter(domain)
    index = []
    for size in shape:
        if size == 1:
            index.append(ONE)
            continue
        axis, wanted = next(axes, (0, None))
        if wanted != size:
            return None
        index.append(Along(axis))
    return tuple(index) if next(axes, None) is None else None


def through_view(node: Node, index: Index) -> Index:
    """The index into the input of a view, from one into its result."""
    assert node.op.view is not None
    types = [v.type for v in node.inputs], [v.type for v in node.outputs]
    return tuple(_compose(along, index) for along in node.op.view(*types, **node.attrs))


def _compose(outer: Along, index: Index) -> Along:
    if outer.axis is None:
        return outer
    inner = index[outer.axis]
    return Along(inner.axis, outer.start + outer.step * inner.start, outer.step * inner.step)


def broadcast(value: Value, result: Value, index: Index) -> Index:
    """The index into an operand of a pointwise op, from one into its result."""
    if value.type.shape == result.type.shape and 1 not in value.type.shape:
        return index
    behind = result.type.rank - value.type.rank
    return tuple(ONE if size == 1 else along for size, along in zip(value.type.shape, index[behind:], strict=True))


def reshaped(value: Value, result: Value, index: Index) -> Index | None:
    """The index into what is reshaped, where only axes of size 1 come or go; else None."""
    old = [size for size in value.type.shape if size != 1]
    new = [(along, size) for along, size in zip(index, result.type.shape, strict=True) if size != 1]
    if old != [size for _, size in new]:
        return None
    alongs = iter([along for along, _ in new])
    return tuple(ONE if size == 1 else next(alongs) for size in value.type.shape)
