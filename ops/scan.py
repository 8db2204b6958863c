"""Running sums along an axis. Each is linear, and its transpose is the running sum in the other direction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigraph.core.dim import Size, product
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Channels, Example, Kernel, Op, axis_of, integers, per_number, real


def cumsum_types(x: Type, /, axis: int = -1, *, exclusive: bool = False, reverse: bool = False) -> Type:
    """The running sum along `axis`: each number added to those before it. Narrow floats are added up in float32.

    exclusive: without the number itself, so that the first sum is 0. reverse: from the end of the axis to its
    beginning.
    """
    expect(x.dtype != "bool", "{} cannot be added up; cast it", x)
    return x


def cumsum_reference(x: np.ndarray, axis: int, exclusive: bool, reverse: bool) -> np.ndarray:
    lines = np.moveaxis(np.flip(x, axis) if reverse else x, axis, -1)
    sums = np.cumsum(lines, -1, dtype=x.dtype)
    if exclusive:  # sums - lines would cancel, and be NaN after an infinity
        sums = np.concatenate([np.zeros_like(sums[..., :1]), sums[..., :-1]], -1)
    sums = np.moveaxis(sums, -1, axis)
    return np.flip(sums, axis) if reverse else sums


def cumsum_shape(
    ins: Sequence[Type], outs: Sequence[Type], axis: int, exclusive: bool, reverse: bool
) -> dict[str, Size]:
    after = product(ins[0].shape[axis + 1 :])
    return {"size": ins[0].shape[axis], "after": after, "exclusive": exclusive, "reverse": reverse}


cumsum: Op = Op(
    "cumsum",
    cumsum_types,
    cumsum_reference,
    lambda gs, xs, ys, axis, exclusive, reverse: (cumsum(gs[0], axis, exclusive=exclusive, reverse=not reverse),),
    canonical=lambda x, axis, exclusive, reverse: {
        "axis": axis_of(axis, x.rank),
        "exclusive": bool(exclusive),
        "reverse": bool(reverse),
    },
    flops=per_number(1),
    kernel=Kernel(
        "scan.h",
        cumsum_shape,
        lines=lambda ins, outs, axis, **_: product(n for i, n in enumerate(ins[0].shape) if i != axis),
    ),
    channels=lambda types, channel, axis, **attrs: None if channel == axis else Channels(channel, "any", False),
    examples=(
        Example(real(5)),
        Example(real(2, 3), axis=0, exclusive=True),
        Example(real(2, 1, 3), axis=1, reverse=True),
        Example(real(2, 3, 2), axis=1, exclusive=True, reverse=True),
        Example(real(0, 3)),
        Example(real(3, 0), axis=1, exclusive=True),
        Example(integers(4, below=9), axis=0),
    ),
)
