"""Repeating: whole tensors (tile) and single entries (repeat). Made of reshape and broadcast_to.

Their gradients add the repetitions up, as broadcasting's does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minigraph.core.dim import Size
from minigraph.core.op import axis_of, whole
from minigraph.ops.broadcast import broadcast_to
from minigraph.ops.shape import reshape


def tile(x: Any, repeats: Any) -> Any:
    """x repeats[i] times one behind the other along axis i. Fewer numbers than axes are for the last ones, as in NumPy;
    more of them make new axes in front. One number alone is for the last axis."""
    times = _counts(repeats if isinstance(repeats, Iterable) else (repeats,))
    times = (1,) * (x.rank - len(times)) + times
    shape: tuple[Size, ...] = (1,) * (len(times) - x.rank) + tuple(x.shape)
    split = [part for r, n in zip(times, shape) for part in ((1, n) if r != 1 else (n,))]
    spread = [part for r, n in zip(times, shape) for part in ((r, n) if r != 1 else (n,))]
    return reshape(broadcast_to(reshape(x, split), spread), tuple(r * n for r, n in zip(times, shape)))


def repeat(x: Any, repeats: int, axis: int) -> Any:
    """Each entry along `axis` `repeats` times in a row: (a, b) -> (a, a, b, b)."""
    axis, (times,) = axis_of(axis, x.rank), _counts((repeats,))
    before, n, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    spread = broadcast_to(reshape(x, (*before, n, 1, *after)), (*before, n, times, *after))
    return reshape(spread, (*before, times * n, *after))


def _counts(given: Iterable[Any]) -> tuple[int, ...]:
    return tuple(whole(n, "how often x is repeated", 0) for n in given)
