"""Ops that move numbers and do not compute: reshape, transpose, concat, slice, pad.

Each is linear, and its gradient is its transpose: a slice's is the same slice of a tensor of zeros, filled (`unslice`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigraph.core.dim import Shape, Size, divide, product, shape_of, show, size
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Type
from minigraph.core.op import Example, Op, axis_of, integers, real, same_dtype


def _no_flops(*_: Any) -> int:
    return 0


# reshape


def reshape_types(x: Type, /, shape: Any) -> Type:
    """The same numbers, in order, in another shape. One size may be -1: it is what is left over."""
    expect(
        product(shape) == x.size,
        "{} cannot take shape {}: {} numbers against {}",
        x,
        show(shape),
        x.size,
        product(shape),
    )
    return Type(shape, x.dtype)


def reshape_canonical(x: Type, shape: Any) -> dict[str, Any]:
    shape = shape_of(shape)
    unknown = [axis for axis, n in enumerate(shape) if n == -1]
    expect(len(unknown) <= 1, "shape {} leaves more than one size open", show(shape))
    if unknown:
        rest = product(n for n in shape if n != -1)
        try:
            left = divide(x.size, rest)
        except GraphError:
            raise GraphError(f"{x} cannot take shape {show(shape)}: {x.size} numbers do not divide by {rest}") from None
        shape = tuple(left if n == -1 else n for n in shape)
    return {"shape": shape}


reshape: Op = Op(
    "reshape",
    reshape_types,
    lambda x, shape: x.reshape(shape),
    canonical=reshape_canonical,
    flops=_no_flops,
    gradient=lambda gs, xs, ys, shape: (reshape(gs[0], xs[0].shape),),
    examples=(
        Example(real(2, 6), shape=(3, -1)),
        Example(real(0, 4), shape=(0, 2, 2)),
        Example(real(), shape=(1, 1)),
        Example(real(3), shape=(3,)),
        Example(integers(4, below=9), shape=(2, 2)),
    ),
)


def flatten(x: Any, start: int = 1) -> Any:
    """All axes from `start` on as one: (N, C, H, W) -> (N, C*H*W)."""
    start = axis_of(start, x.rank)
    return reshape(x, (*x.shape[:start], product(x.shape[start:])))


# transpose


def transpose_types(x: Type, /, axes: Any = None) -> Type:
    """The axes in another order: axis i of the result is axis axes[i] of x. Without `axes`, in reverse."""
    return Type(tuple(x.shape[axis] for axis in axes), x.dtype)


def transpose_canonical(x: Type, axes: Any) -> dict[str, Any]:
    axes = tuple(reversed(range(x.rank))) if axes is None else tuple(axis_of(axis, x.rank) for axis in axes)
    expect(sorted(axes) == list(range(x.rank)), "axes {} do not name each axis of {} once", axes, x)
    return {"axes": axes}


def transpose_gradient(gs: Any, xs: Any, ys: Any, axes: tuple[int, ...]) -> tuple[Any]:
    return (transpose(gs[0], tuple(axes.index(axis) for axis in range(len(axes)))),)


transpose: Op = Op(
    "transpose",
    transpose_types,
    lambda x, axes: x.transpose(axes),
    transpose_gradient,
    canonical=transpose_canonical,
    flops=_no_flops,
    examples=(
        Example(real(2, 3)),
        Example(real(2, 3, 4), axes=(2, 0, 1)),
        Example(real(0, 3), axes=(1, 0)),
        Example(real()),
        Example(real(2, 1, 3), axes=(0, -1, 1)),
    ),
)


# concat


def concat_types(*xs: Type, axis: int = 0) -> Type:
    """Tensors one behind the other along `axis`; their other sizes agree."""
    expect(xs, "needs a tensor")
    dtype, first = same_dtype(*xs), xs[0]
    for x in xs:
        same = x.rank == first.rank and all(a == b for i, (a, b) in enumerate(zip(x.shape, first.shape)) if i != axis)
        expect(same, "{} and {} differ in more than axis {}", first, x, axis)
    total: Size = 0
    for x in xs:
        total = total + x.shape[axis]
    return Type((*first.shape[:axis], total, *first.shape[axis + 1 :]), dtype)


def concat_canonical(*xs: Type, axis: Any) -> dict[str, Any]:
    return {"axis": axis_of(axis, xs[0].rank) if xs else axis}


def concat_gradient(gs: Any, xs: Any, ys: Any, axis: int) -> list[Any]:
    parts, start = [], 0
    for x in xs:
        stop = start + x.shape[axis]
        parts.append(slice_axis(gs[0], axis, start, stop))
        start = stop
    return parts


concat: Op = Op(
    "concat",
    concat_types,
    lambda *xs, axis: np.concatenate(xs, axis),
    concat_gradient,
    canonical=concat_canonical,
    flops=_no_flops,
    examples=(
        Example(real(2, 3), real(2, 1), axis=1),
        Example(real(3)),
        Example(real(0, 2), real(2, 2), real(1, 2)),
        Example(real(2, 3, 1), real(2, 3, 4), axis=-1),
    ),
)


# slice and its transpose


def _extent(start: Size, stop: Size, step: int) -> Size:
    return (stop - start + step - 1) // step


def slice_types(x: Type, /, start: Any, stop: Any, step: Any = None) -> Type:
    """x[start:stop:step], one entry for each axis. None is the beginning, the end, or step 1; steps are positive."""
    return Type(tuple(map(_extent, start, stop, step)), x.dtype)


def _bound(given: Any, length: Size, default: Size) -> Size:
    """Python's rule: negative ones count from the end; what lies outside is moved to the edge, of a known length."""
    if given is None:
        return default
    bound = size(given)
    if isinstance(bound, int) and bound < 0:
        bound = length + bound
    return max(0, min(bound, length)) if isinstance(bound, int) and isinstance(length, int) else bound


def slice_canonical(x: Type, start: Any, stop: Any, step: Any) -> dict[str, Any]:
    step = (1,) * x.rank if step is None else tuple(1 if s is None else size(s) for s in step)
    for given in (start, stop, step):
        expect(len(given) == x.rank, "needs an entry for each of the {} axes, got {}", x.rank, given)
    expect(all(isinstance(s, int) and s > 0 for s in step), "steps are positive numbers, not {}", step)
    starts = tuple(_bound(given, length, 0) for given, length in zip(start, x.shape))
    stops = tuple(_bound(given, length, length) for given, length in zip(stop, x.shape))
    known = [(a, b) for a, b in zip(starts, stops) if isinstance(a, int) and isinstance(b, int)]
    stops = tuple(max(a, b) if (a, b) in known else b for a, b in zip(starts, stops))
    return {"start": starts, "stop": stops, "step": step}


def slice_reference(x: np.ndarray, start: Any, stop: Any, step: Any) -> np.ndarray:
    return x[tuple(map(slice, start, stop, step))]


def slice_gradient(gs: Any, xs: Any, ys: Any, start: Any, stop: Any, step: Any) -> tuple[Any]:
    return (unslice(gs[0], shape=xs[0].shape, start=start, step=step),)


slice_: Op = Op(
    "slice",
    slice_types,
    slice_reference,
    slice_gradient,
    canonical=slice_canonical,
    flops=_no_flops,
    examples=(
        Example(real(5, 4), start=(1, None), stop=(4, -1)),
        Example(real(7), start=(0,), stop=(None,), step=(3,)),
        Example(real(0, 3), start=(0, 1), stop=(None, 2)),
        Example(real(4), start=(3,), stop=(1,)),
        Example(integers(6, below=9), start=(-2,), stop=(99,)),
    ),
)


def slice_axis(x: Any, axis: int, start: Any = None, stop: Any = None, step: int = 1) -> Any:
    """x[start:stop:step] along one axis."""
    axis = axis_of(axis, x.rank)
    one = lambda given, other: tuple(given if i == axis else other for i in range(x.rank))
    return slice_(x, one(start, None), one(stop, None), one(step, 1))


def unslice_types(g: Type, /, shape: Any, start: Any, step: Any) -> Type:
    """Zeros of `shape` with g at start, start + step, ... along each axis: the transpose of slice."""
    expect(len(shape) == len(start) == len(step) == g.rank, "{} needs {} sizes, starts and steps", g, g.rank)
    for n, length, a, s in zip(g.shape, shape, start, step):
        if all(isinstance(v, int) for v in (n, length, a)):
            expect(
                n == 0 or a + (n - 1) * s < length, "{} does not fit into {} from {} by {}", g, show(shape), start, step
            )
    return Type(shape, g.dtype)


def unslice_reference(g: np.ndarray, shape: Any, start: Any, step: Any) -> np.ndarray:
    x = np.zeros(shape, g.dtype)
    x[tuple(slice(a, a + n * s, s) for a, n, s in zip(start, g.shape, step))] = g
    return x


def unslice_gradient(gs: Any, xs: Any, ys: Any, shape: Any, start: Any, step: Any) -> tuple[Any]:
    stop = tuple(a + (n - 1) * s + 1 for a, n, s in zip(start, xs[0].shape, step))
    return (slice_(gs[0], start, tuple(a if n == 0 else b for a, b, n in zip(start, stop, xs[0].shape)), step),)


unslice: Op = Op(
    "unslice",
    unslice_types,
    unslice_reference,
    unslice_gradient,
    flops=_no_flops,
    canonical=lambda g, shape, start, step: {
        "shape": shape_of(shape),
        "start": shape_of(start),
        "step": shape_of(step),
    },
    examples=(
        Example(real(3, 2), shape=(5, 4), start=(1, 0), step=(1, 2)),
        Example(real(0, 2), shape=(3, 2), start=(0, 0), step=(1, 1)),
        Example(real(3), shape=(9,), start=(1,), step=(3,)),
    ),
)


# pad


def pad_types(x: Type, /, widths: Any, value: float = 0.0) -> Type:
    """x with widths[i] = (before, after) entries of `value` at the ends of axis i."""
    return Type(tuple(before + n + after for n, (before, after) in zip(x.shape, widths)), x.dtype)


def pad_canonical(x: Type, widths: Any, value: Any) -> dict[str, Any]:
    widths = tuple((int(before), int(after)) for before, after in widths)
    expect(len(widths) == x.rank, "needs (before, after) for each of the {} axes, got {}", x.rank, widths)
    expect(all(w >= 0 for pair in widths for w in pair), "widths are 0 or more, not {}", widths)
    return {"widths": widths, "value": bool(value) if x.dtype == "bool" else float(value) if x.is_float else int(value)}


def pad_gradient(gs: Any, xs: Any, ys: Any, widths: Any, value: float) -> tuple[Any]:
    start: Shape = tuple(before for before, _ in widths)
    return (slice_(gs[0], start, tuple(a + n for a, n in zip(start, xs[0].shape))),)


pad: Op = Op(
    "pad",
    pad_types,
    lambda x, widths, value: np.pad(x, widths, constant_values=value),
    pad_gradient,
    canonical=pad_canonical,
    flops=_no_flops,
    examples=(
        Example(real(2, 3), widths=((1, 0), (0, 2)), value=0.5),
        Example(real(0, 2), widths=((0, 0), (1, 1))),
        Example(real(3), widths=((2, 1),)),
        Example(integers(3, below=9), widths=((2, 1),), value=7),
    ),
)
