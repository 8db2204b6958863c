"""Ops that move numbers and do not compute: reshape, transpose, concat, slice, pad, and what is made of them.

Each is linear, and its gradient is its transpose: a slice's is the same slice of a tensor of zeros, filled (`unslice`);
that of padding with what x holds adds each number up where it came from (`pad_gradient`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minigraph.core.dim import Dim, Shape, Size, divide, known, product, shape_of, show, size
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Type
from minigraph.core.op import (
    Along,
    Channels,
    Example,
    Half,
    Kernel,
    Op,
    axis_of,
    integers,
    no_flops,
    real,
    same_dtype,
    whole,
)
from minigraph.ops.constant import in_c, number_of

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


def reshape_channels(types: tuple[Type, ...], axis: int, shape: Shape) -> Channels | None:
    """The channels stay an axis of their own where as many numbers as before lie in front of it and behind it.

    There may be several such axes where one channel lies among axes of size 1; its own place is then the first choice.
    """
    x = types[0].shape
    before, after = product(x[:axis]), product(x[axis + 1 :])
    found = [
        i
        for i, n in enumerate(shape)
        if n == x[axis] and product(shape[:i]) == before and product(shape[i + 1 :]) == after
    ]
    return Channels(axis if axis in found else found[0], "any", True) if found else None


reshape: Op = Op(
    "reshape",
    reshape_types,
    lambda x, shape: x.reshape(shape),
    canonical=reshape_canonical,
    flops=no_flops,
    channels=reshape_channels,
    in_order=True,
    gradient=lambda gs, xs, ys, shape: (reshape(gs[0], xs[0].shape),),
    half=Half(),
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


def _axes_of(axes: Any, rank: int) -> set[int]:
    """One axis or several, counted from the front, each named once."""
    given = [axis_of(axis, rank) for axis in (axes if isinstance(axes, Iterable) else (axes,))]
    expect(len(set(given)) == len(given), "an axis is named twice in {}", axes)
    return set(given)


def squeeze(x: Any, axes: Any = None) -> Any:
    """x without these axes, each of size 1. By default all whose size is known to be 1."""
    left_out = {i for i, n in enumerate(x.shape) if n == 1} if axes is None else _axes_of(axes, x.rank)
    for axis in sorted(left_out):
        expect(x.shape[axis] == 1, "axis {} of {} has size {}, and only one of size 1 goes", axis, x, x.shape[axis])
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in left_out))


def expand_dims(x: Any, axes: Any) -> Any:
    """x with axes of size 1 that stand at these places of the result: (3, 4) at (0, -1) -> (1, 3, 4, 1)."""
    rank = x.rank + (len(tuple(axes)) if isinstance(axes, Iterable) else 1)
    new, sizes = _axes_of(axes, rank), iter(x.shape)
    return reshape(x, tuple(1 if i in new else next(sizes) for i in range(rank)))


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
    flops=no_flops,
    channels=lambda types, axis, axes: Channels(axes.index(axis), "any", True),
    view=lambda ins, outs, axes: [Along(axes.index(axis)) for axis in range(len(axes))],
    half=Half(),
    examples=(
        Example(real(2, 3)),
        Example(real(2, 3, 4), axes=(2, 0, 1)),
        Example(real(0, 3), axes=(1, 0)),
        Example(real()),
        Example(real(2, 1, 3), axes=(0, -1, 1)),
    ),
)


def moveaxis(x: Any, source: Any, target: Any) -> Any:
    """x with the axes `source` (one or several) at the places `target` of the result, the others in order."""
    listed = lambda given: [axis_of(a, x.rank) for a in (given if isinstance(given, Iterable) else (given,))]
    sources, targets = listed(source), listed(target)
    fits = len(sources) == len(targets) == len(set(sources)) == len(set(targets))
    expect(fits, "axes {} cannot go to places {}: each stands once on its side", source, target)
    others = iter(axis for axis in range(x.rank) if axis not in sources)
    placed = dict(zip(targets, sources))
    return transpose(x, tuple(placed[i] if i in placed else next(others) for i in range(x.rank)))


def swapaxes(x: Any, first: int, second: int) -> Any:
    """x with two axes exchanged."""
    axes = list(range(x.rank))
    first, second = axis_of(first, x.rank), axis_of(second, x.rank)
    axes[first], axes[second] = second, first
    return transpose(x, tuple(axes))


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


def concat_parts(ins: Sequence[Type], outs: Sequence[Type], axis: int) -> list[list[Along]]:
    parts, start = [], size(0)
    for x in ins:
        parts.append([Along(i, start if i == axis else 0) for i in range(x.rank)])
        start = start + x.shape[axis]
    return parts


concat: Op = Op(
    "concat",
    concat_types,
    lambda *xs, axis: np.concatenate(xs, axis),
    concat_gradient,
    canonical=concat_canonical,
    parts=concat_parts,
    flops=no_flops,
    half=Half(),
    examples=(
        Example(real(2, 3), real(2, 1), axis=1),
        Example(real(3)),
        Example(real(0, 2), real(2, 2), real(1, 2)),
        Example(real(2, 3, 1), real(2, 3, 4), axis=-1),
    ),
)


def stack(xs: Any, axis: int = 0) -> Any:
    """Tensors of one shape side by side along a new axis, which stands at `axis` of the result."""
    expect(isinstance(xs, (tuple, list)) and xs, "stack takes tensors in a list, at least one, not {!r}", xs)
    for x in xs:
        expect(x.shape == xs[0].shape, "only tensors of one shape are stacked, not {} and {}", xs[0], x)
    return concat(*(expand_dims(x, axis) for x in xs), axis=axis_of(axis, xs[0].rank + 1))


# what kernels need to know of each axis

AXES = 8  # as in shape.h


def _each_axis(of_each: Sequence[Size], filler: int = 0) -> tuple[Size, ...]:
    """An array of a kernel's shape: a number for each axis, and fillers."""
    expect(len(of_each) <= AXES, "the kernel takes up to {} axes, not {}", AXES, len(of_each))
    return (*of_each, *(filler,) * (AXES - len(of_each)))


# slice and its transpose


def _extent(start: Size, stop: Size | None, step: int) -> Size:
    if step < 0:  # the last one may be the first of the axis: then there is no place to stop at
        start, stop, step = -1 if stop is None else stop, start, -step
    return (stop - start + step - 1) // step  # type: ignore[operator]


def slice_types(x: Type, /, start: Any, stop: Any, step: Any = None) -> Type:
    """x[start:stop:step], one entry for each axis, by Python's rules.

    None is where the axis begins or ends, as the step goes, and for a step is 1; a negative step goes backwards.
    Along an axis known only at run time a negative start or stop is for positive steps only: x[:-1][::-1] does both.
    """
    return Type(tuple(map(_extent, start, stop, step)), x.dtype)


def _bound(given: Any, length: Size, default: Size) -> Size:
    """Python's rule: negative ones count from the end; what lies outside is moved to the edge, of a known length."""
    if given is None:
        return default
    bound = size(given)
    if isinstance(bound, int) and bound < 0:
        bound = length + bound
    return max(0, min(bound, length)) if isinstance(bound, int) and isinstance(length, int) else bound


def _forwards(start: Any, stop: Any, length: Size) -> tuple[Size, Size]:
    begin, end = _bound(start, length, 0), _bound(stop, length, length)
    return begin, max(begin, end) if isinstance(begin, int) and isinstance(end, int) else end


def _backwards(start: Any, stop: Any, length: Size) -> tuple[Size, Size | None]:
    """From `start` down to behind `stop`; None where the first entry of the axis belongs to it."""
    if isinstance(length, int):
        first, last, _ = slice(_whole(start, length), _whole(stop, length), -1).indices(length)
        return (0, 0) if first <= last else (first, None if last < 0 else last)
    begin, end = length - 1 if start is None else size(start), None if stop is None else size(stop)
    # A place that depends on a size and lies before the beginning is read as the beginning (see dim.places). Where the
    # step is negative Python stops there only after the first entry; N - 1 alone is right, since it then is the end.
    safe = lambda n: all(f > 0 for _, f in n.terms) if isinstance(n, Dim) else n is None or n >= 0
    expect(
        (begin == length - 1 or safe(begin)) and safe(end),
        "with a negative step along an axis of {}, start and stop are counted from its beginning, not {} and {}; "
        "slice forwards first: x[:-1][::-1]",
        length,
        start,
        stop,
    )
    if isinstance(begin, int) and isinstance(end, int):
        return (begin, end) if begin > end else (0, 0)
    return begin, end


def _whole(given: Any, length: int) -> int | None:
    return None if given is None else known(size(given), f"a place in an axis of {length}")


def slice_canonical(x: Type, start: Any, stop: Any, step: Any) -> dict[str, Any]:
    step = (1,) * x.rank if step is None else tuple(1 if s is None else size(s) for s in step)
    for given in (start, stop, step):
        expect(len(given) == x.rank, "needs an entry for each of the {} axes, got {}", x.rank, given)
    expect(all(isinstance(s, int) and s != 0 for s in step), "steps are numbers other than 0, not {}", step)
    ends = [(_forwards if s > 0 else _backwards)(a, b, length) for a, b, s, length in zip(start, stop, step, x.shape)]
    return {"start": tuple(a for a, _ in ends), "stop": tuple(b for _, b in ends), "step": step}


def slice_reference(x: np.ndarray, start: Any, stop: Any, step: Any) -> np.ndarray:
    places: Any = (..., *map(slice, start, stop, step))  # with the dots, what has no axes stays an array, too
    return x[places]


def slice_gradient(gs: Any, xs: Any, ys: Any, start: Any, stop: Any, step: Any) -> tuple[Any]:
    return (unslice(gs[0], shape=xs[0].shape, start=start, step=step),)


def slice_channels(types: tuple[Type, ...], axis: int, start: Any, stop: Any, step: Any) -> Channels | None:
    whole_axis = (start[axis], stop[axis], step[axis]) == (0, types[0].shape[axis], 1)
    return Channels(axis, "any", True) if whole_axis else None


slice_: Op = Op(
    "slice",
    slice_types,
    slice_reference,
    slice_gradient,
    canonical=slice_canonical,
    flops=no_flops,
    channels=slice_channels,
    view=lambda ins, outs, start, stop, step: [Along(i, a, s) for i, (a, s) in enumerate(zip(start, step))],
    half=Half(),
    examples=(
        Example(real(5, 4), start=(1, None), stop=(4, -1)),
        Example(real(7), start=(0,), stop=(None,), step=(3,)),
        Example(real(0, 3), start=(0, 1), stop=(None, 2)),
        Example(real(4), start=(3,), stop=(1,)),
        Example(integers(6, below=9), start=(-2,), stop=(99,)),
        Example(real(2, 5), start=(None, None), stop=(None, None), step=(-1, -2)),
        Example(real(6), start=(4,), stop=(0,), step=(-3,)),
        Example(real(0, 3), start=(None, 1), stop=(None, 2), step=(-1, -1)),
        Example(real(), start=(), stop=()),
    ),
)


def slice_axis(x: Any, axis: int, start: Any = None, stop: Any = None, step: int = 1) -> Any:
    """x[start:stop:step] along one axis."""
    axis = axis_of(axis, x.rank)
    one = lambda given, other: tuple(given if i == axis else other for i in range(x.rank))
    return slice_(x, one(start, None), one(stop, None), one(step, 1))


def flip(x: Any, axes: Any = None) -> Any:
    """x backwards along `axes`: one, several, or by default all."""
    turned = set(range(x.rank)) if axes is None else _axes_of(axes, x.rank)
    ends = (None,) * x.rank
    return slice_(x, ends, ends, tuple(-1 if i in turned else 1 for i in range(x.rank)))


def split(x: Any, parts: Any, axis: int = 0) -> tuple[Any, ...]:
    """x cut along `axis` into `parts` equal tensors, or into tensors of these sizes, one of which may be -1: the rest.

    An axis known only at run time is cut where its size is a multiple of `parts`, or where one size is -1.
    """
    axis = axis_of(axis, x.rank)
    total = x.shape[axis]
    if isinstance(parts, Iterable) and not isinstance(parts, str):
        sizes = [size(n) for n in parts]
        given: Size = 0
        for n in sizes:
            given = given if n == -1 else given + n
        if sizes.count(-1) == 1:
            sizes, given = [total - given if n == -1 else n for n in sizes], total
        fits = given == total and all(not isinstance(n, int) or n >= 0 for n in sizes)
        expect(fits, "sizes {} do not add up to the {} of axis {} of {}", show(sizes), total, axis, x)
    else:
        parts = whole(parts, "the number of parts", 1)
        try:
            sizes = [divide(total, parts)] * parts
        except GraphError:
            raise GraphError(f"axis {axis} of {x} does not divide into {parts} equal parts; give their sizes") from None
    result, start = [], size(0)
    for n in sizes:
        result.append(slice_axis(x, axis, start, start + n))
        start = start + n
    return tuple(result)


def unslice_types(g: Type, /, shape: Any, start: Any, step: Any) -> Type:
    """Zeros of `shape` with g at start, start + step, ... along each axis: the transpose of slice."""
    expect(len(shape) == len(start) == len(step) == g.rank, "{} needs {} sizes, starts and steps", g, g.rank)
    expect(all(isinstance(s, int) and s != 0 for s in step), "steps are numbers other than 0, not {}", step)
    for n, length, a, s in zip(g.shape, shape, start, step):
        if all(isinstance(v, int) for v in (n, length, a)):
            inside = n == 0 or (0 <= a < length and 0 <= a + (n - 1) * s < length)
            expect(inside, "{} does not fit into {} from {} by {}", g, show(shape), start, step)
    return Type(shape, g.dtype)


def unslice_reference(g: np.ndarray, shape: Any, start: Any, step: Any) -> np.ndarray:
    x = np.zeros(shape, g.dtype)
    places: list[Any] = [...]
    for a, n, s in zip(start, g.shape, step):
        end = a + n * s  # below 0 where the step is negative and the first entry is filled
        places.append(slice(a, None if end < 0 else end, s) if n else slice(0))
    x[tuple(places)] = g
    return x


def unslice_gradient(gs: Any, xs: Any, ys: Any, shape: Any, start: Any, step: Any) -> tuple[Any]:
    stop: list[Size | None] = []
    for a, n, s in zip(start, xs[0].shape, step):
        end = a if n == 0 else a + (n - 1) * s + (1 if s > 0 else -1)
        stop.append(None if s < 0 and end == -1 else end)
    return (slice_(gs[0], start, tuple(stop), step),)


def unslice_shape(ins: Sequence[Type], outs: Sequence[Type], shape: Shape, start: Any, step: Any) -> dict[str, Any]:
    return {
        "rank": len(shape),
        "size": _each_axis(shape, 1),
        "given": _each_axis(ins[0].shape, 1),
        "start": _each_axis(start),
        "step": _each_axis(step, 1),
    }


unslice: Op = Op(
    "unslice",
    unslice_types,
    unslice_reference,
    unslice_gradient,
    flops=no_flops,
    kernel=Kernel("shape.h", unslice_shape, light=True),
    canonical=lambda g, shape, start, step: {
        "shape": shape_of(shape),
        "start": shape_of(start),
        "step": shape_of(step),
    },
    examples=(
        Example(real(3, 2), shape=(5, 4), start=(1, 0), step=(1, 2)),
        Example(real(0, 2), shape=(3, 2), start=(0, 0), step=(1, 1)),
        Example(real(3), shape=(9,), start=(1,), step=(3,)),
        Example(real(2, 3), shape=(2, 6), start=(1, 5), step=(-1, -2)),
        Example(real(0, 2), shape=(3, 5), start=(0, 4), step=(-1, -4)),
    ),
)


# pad and its transpose

MODES = ("constant", "edge", "reflect", "wrap")


def pad_types(x: Type, /, widths: Any, value: float = 0.0, mode: str = "constant") -> Type:
    """x with widths[i] = (before, after) more entries at the ends of axis i.

    mode "constant": they are `value`; a negative width takes entries away. "edge": the outermost entry of x again.
    "reflect": x mirrored at its outermost entry, which is not repeated. "wrap" (also called "circular"): x again and
    again. Mirrors and repeats go on where a width is larger than the axis. An axis without entries has none to repeat.
    """
    for n, pair in zip(x.shape, widths):
        expect(mode == "constant" or n != 0 or not any(pair), "{} has an empty axis, with nothing to pad it from", x)
    return Type(tuple(before + n + after for n, (before, after) in zip(x.shape, widths)), x.dtype)


def _widths_canonical(rank: int, widths: Any, mode: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    mode = "wrap" if mode == "circular" else mode
    expect(mode in MODES, "the mode is one of {}, not {!r}", ", ".join(MODES), mode)
    widths = tuple((whole(before, "a width"), whole(after, "a width")) for before, after in widths)
    expect(len(widths) == rank, "needs (before, after) for each of the {} axes, got {}", rank, widths)
    cropped = any(w < 0 for pair in widths for w in pair)
    expect(mode == "constant" or not cropped, "widths are 0 or more in mode {!r}, not {}", mode, widths)
    return mode, widths


def pad_canonical(x: Type, widths: Any, value: Any, mode: Any) -> dict[str, Any]:
    mode, widths = _widths_canonical(x.rank, widths, mode)
    return {"widths": widths, "value": number_of(value if mode == "constant" else 0, x.dtype), "mode": mode}


def _sources(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """For each entry of a padded axis, which of the n entries it repeats."""
    places = np.arange(-before, n + after)
    if mode == "edge":
        return places.clip(0, n - 1)
    period = n if mode == "wrap" else max(2 * (n - 1), 1)
    places = places % period
    return places if mode == "wrap" else np.minimum(places, period - places) if n > 1 else 0 * places


def pad_reference(x: np.ndarray, widths: Any, value: Any, mode: str) -> np.ndarray:
    if mode == "constant":
        more = tuple((max(a, 0), max(b, 0)) for a, b in widths)
        kept = tuple(slice(max(-a, 0), min(b, 0) or None) for a, b in widths)
        return np.pad(x, more, constant_values=value)[kept] if x.ndim else x  # np.pad takes no array without axes
    for axis, (before, after) in enumerate(widths):
        if before or after:
            x = np.take(x, _sources(x.shape[axis], before, after, mode), axis)
    return x


def pad_transpose(gs: Any, xs: Any, ys: Any, widths: Any, value: float, mode: str) -> tuple[Any]:
    if mode != "constant":
        return (pad_gradient(gs[0], widths, mode),)
    if any(w < 0 for pair in widths for w in pair):  # what was taken away comes back as zeros
        return (pad(gs[0], tuple((-a, -b) for a, b in widths)),)
    start: Shape = tuple(before for before, _ in widths)
    return (slice_(gs[0], start, tuple(a + n for a, n in zip(start, xs[0].shape))),)


def pad_channels(types: tuple[Type, ...], axis: int, widths: Any, value: float, mode: str) -> Channels | None:
    """What x holds already passes as x does; zeros stay zeros when they are scaled."""
    only_x = mode != "constant" or all(w <= 0 for pair in widths for w in pair)
    if any(widths[axis]) or not (only_x or value == 0):
        return None
    return Channels(axis, "any", only_x)


def pad_shape(ins: Sequence[Type], outs: Sequence[Type], widths: Any, value: Any, mode: str) -> dict[str, Any]:
    return {
        "rank": ins[0].rank,
        "size": _each_axis(outs[0].shape, 1),
        "given": _each_axis(ins[0].shape, 1),
        "before": _each_axis([before for before, _ in widths]),
        "mode": MODES.index(mode),
        **in_c(value, ins[0].dtype),
    }


pad: Op = Op(
    "pad",
    pad_types,
    pad_reference,
    pad_transpose,
    canonical=pad_canonical,
    flops=no_flops,
    channels=pad_channels,
    kernel=Kernel("shape.h", pad_shape, light=True),
    half=Half(),
    examples=(
        Example(real(2, 3), widths=((1, 0), (0, 2)), value=0.5),
        Example(real(0, 2), widths=((0, 0), (1, 1))),
        Example(real(3), widths=((2, 1),)),
        Example(real(), widths=()),
        Example(real(2, 3), widths=((0, 0), (1, 2))),
        Example(integers(3, below=9), widths=((2, 1),), value=7),
        Example(real(4, 3), widths=((-1, 2), (-1, -1)), value=0.5),
        Example(real(4, 2), widths=((-1, -2), (0, 0)), value=0.5),
        Example(real(2, 3), widths=((1, 2), (0, 1)), mode="edge"),
        Example(real(3, 4), widths=((2, 1), (0, 3)), mode="reflect"),
        Example(real(2, 1), widths=((5, 0), (1, 1)), mode="reflect"),
        Example(real(3, 2), widths=((2, 1), (0, 5)), mode="circular"),
        Example(real(0, 2), widths=((0, 0), (1, 1)), mode="edge"),
    ),
)


def pad_gradient_types(g: Type, /, widths: Any, mode: str) -> Type:
    """The transpose of pad in a mode that repeats x: what was repeated is added up, narrow floats in float32."""
    x = Type(tuple(n - before - after for n, (before, after) in zip(g.shape, widths)), g.dtype)
    expect(g.is_float, "needs floats, got {}", g)
    expect(all(not isinstance(n, int) or n >= 0 for n in x.shape), "{} is less than widths {}", g, widths)
    expect(pad_types(x, widths, mode=mode) == g, "padding {} by {} does not give {}", x, widths, g)
    return x


def pad_gradient_canonical(g: Type, widths: Any, mode: Any) -> dict[str, Any]:
    mode, widths = _widths_canonical(g.rank, widths, mode)
    expect(mode != "constant", "is for modes that repeat x; the transpose of constant padding is a slice")
    return {"widths": widths, "mode": mode}


def pad_gradient_reference(g: np.ndarray, widths: Any, mode: str) -> np.ndarray:
    for axis, (before, after) in enumerate(widths):
        if before or after:
            lines = np.moveaxis(g, axis, 0)
            n = len(lines) - before - after
            total = np.zeros((n, *lines.shape[1:]), g.dtype)
            np.add.at(total, _sources(n, before, after, mode), lines)
            g = np.moveaxis(total, 0, axis)
    return g


def pad_gradient_shape(ins: Sequence[Type], outs: Sequence[Type], widths: Any, mode: str) -> dict[str, Any]:
    return {
        "rank": outs[0].rank,
        "size": _each_axis(outs[0].shape, 1),
        "padded": _each_axis(ins[0].shape, 1),
        "before": _each_axis([before for before, _ in widths]),
        "mode": MODES.index(mode),
    }


pad_gradient: Op = Op(
    "pad_gradient",
    pad_gradient_types,
    pad_gradient_reference,
    lambda gs, xs, ys, widths, mode: (pad(gs[0], widths, mode=mode),),
    canonical=pad_gradient_canonical,
    kernel=Kernel("shape.h", pad_gradient_shape),
    flops=lambda inputs, outputs, attrs: inputs[0].size - outputs[0].size,
    examples=(
        Example(real(5, 4), widths=((1, 2), (0, 1)), mode="edge"),
        Example(real(6, 7), widths=((2, 1), (0, 3)), mode="reflect"),
        Example(real(7, 3), widths=((5, 0), (1, 1)), mode="reflect"),
        Example(real(6, 7), widths=((2, 1), (0, 5)), mode="wrap"),
        Example(real(0, 4), widths=((0, 0), (1, 1)), mode="wrap"),
    ),
)
