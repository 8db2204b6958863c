"""A loss scale, which keeps gradients in the range of float16.

Of a float16 number there is nothing left below 2^-25, and gradients of activations are often there. The gradients of
S · L are S times those of L: so the backward pass begins at S instead of 1, everything in it is S times as large, and
what arrives at the parameters is divided by S, in float32. S is a power of two, and rounds nothing.

S is part of the state, "optimizer.loss_scale", and finds its own size (Micikevicius et al. 2018, "Mixed precision
training"). Where it makes a gradient infinite, the step is left out, and S halves; after so many good steps in a row
it doubles.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from minigraph.core.builder import Builder, Tensor
from minigraph.core.initial import Constant
from minigraph.nn import optim
from minigraph.ops.pointwise import cast, equal, isfinite, logical_and, maximum, minimum, where
from minigraph.ops.reduce import all as all_of

FIRST = 2.0**15
LEAST, MOST = 1.0, 2.0**127  # in between it can go both ways: half of 0 is 0, and half of infinity is infinite
PATIENCE = 2000  # good steps


def loss_scale(builder: Builder) -> Tensor:
    """S, a float32 scalar."""
    with optim.updating(builder):
        return builder.variable("loss_scale", (), Constant(FIRST), "float32", "counter")


def unscaled(builder: Builder, scale: Tensor, gradients: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of the loss, from S times as large ones."""
    with optim.updating(builder):
        return [g / cast(scale, g.dtype) for g in gradients]


def only_if_finite(builder: Builder, scale: Tensor, gradients: Sequence[Tensor]) -> None:
    """Every update so far happens only if all numbers of the gradients are finite; the scale moves by the same.

    Where one is not, parameters, slots, running statistics, counters and random streams stay as they were.
    """
    with optim.updating(builder):
        good = reduce(logical_and, [all_of(isfinite(g)) for g in gradients])
        optim.only_if(builder, good, {})
        row = builder.variable("good_steps", (), Constant(0), "int64", "counter")
        grows = equal(row, PATIENCE - 1)
        larger = where(grows, minimum(scale * 2.0, MOST), scale)
        builder.update(scale, where(good, larger, maximum(scale * 0.5, LEAST)))
        builder.update(row, where(good, where(grows, 0, row + 1), 0))
