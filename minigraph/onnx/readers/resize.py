"""Images, and other tensors, in another size."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import Size, known, product
from minigraph.core.errors import expect
from minigraph.onnx.call import Call, reads
from minigraph.ops.index import gather
from minigraph.ops.pointwise import cast
from minigraph.ops.resize import COORDINATES, ROUNDINGS, resize
from minigraph.ops.shape import reshape, transpose

LONGEST = 1 << 20  # of an axis whose entries are gathered
OLD = {"coordinate_transformation": "asymmetric", "nearest_mode": "floor"}  # of Upsample, and Resize of opset 10


@reads("Upsample")
def upsample(call: Call) -> Tensor:
    scales = call.floats("scales") if call.opset < 9 else tuple(call.array(1).reshape(-1).tolist())
    return resized(call, call.tensor(0), {"scales": scales}, OLD)


@reads("Resize")
def read_resize(call: Call) -> Tensor:
    """scales or sizes, for all axes or (opset 18) for some."""
    x = call.tensor(0)
    if call.opset < 11:
        return resized(call, x, {"scales": tuple(call.array(1).reshape(-1).tolist())}, OLD)
    if call.flag("antialias"):
        raise call.unsupported("with antialias")
    by_scales = call.has(2) and (call.maybe(2) is None or call.array(2).size > 0)
    given: Any = tuple(call.array(2).reshape(-1).tolist()) if by_scales else call.sizes(3)
    axes = call.ints("axes", None) if call.opset >= 18 else None
    axes = tuple(range(x.rank)) if axes is None else tuple(a % x.rank if -x.rank <= a < x.rank else -1 for a in axes)
    expect(
        -1 not in axes and len(set(axes)) == len(axes) == len(given), "{} are no {} axes of {}", axes, given, x.value
    )
    how = {
        "coordinate_transformation": call.string("coordinate_transformation_mode", "half_pixel"),
        "nearest_mode": call.string("nearest_mode", "round_prefer_floor"),
    }
    if not by_scales and (policy := call.string("keep_aspect_ratio_policy", "stretch")) != "stretch":
        return _in_proportion(call, x, axes, given, policy, how)
    rest: Any = [1.0] * x.rank if by_scales else x.shape
    every = {**dict(enumerate(rest)), **dict(zip(axes, given))}
    return resized(call, x, {"scales" if by_scales else "sizes": tuple(every[i] for i in range(x.rank))}, how)


def _in_proportion(
    call: Call, x: Tensor, axes: tuple[int, ...], given: tuple[Size, ...], policy: str, how: dict[str, str]
) -> Tensor:
    """By the one factor that makes these axes about as large as given, and none larger, or none smaller.

    New sizes are rounded to the nearest. minigraph's resize rounds them down, so otherwise entries are gathered.
    """
    pairs = [(x.shape[axis], size) for axis, size in zip(axes, given)]
    numbers = all(isinstance(n, int) and isinstance(m, int) and n > 0 and m < LONGEST for n, m in pairs)
    expect(numbers, "keep_aspect_ratio_policy needs known sizes, not {} of {}", given, x.value)
    expect(policy in ("not_larger", "not_smaller"), "there is no keep_aspect_ratio_policy {!r}", policy)
    factors = [Fraction(m, n) for n, m in pairs]  # type: ignore[arg-type]
    factor = min(factors) if policy == "not_larger" else max(factors)
    new: dict[int, Any] = {axis: factor * x.shape[axis] for axis in axes}  # type: ignore[operator]
    if all(size.denominator == 1 for size in new.values()):
        sizes = tuple(int(new[i]) if i in new else n for i, n in enumerate(x.shape))
        return resized(call, x, {"sizes": sizes}, how)
    if call.string("mode", "nearest") != "nearest":
        raise call.unsupported(f"with keep_aspect_ratio_policy {policy} where sizes are rounded")
    for axis, size in new.items():
        n, m = known(x.shape[axis], "the size of an axis"), floor(size + Fraction(1, 2))
        expect(m < LONGEST, "an axis cannot grow to {}", m)
        places = [_nearest(i, n, m, factor, how) for i in range(m)]
        x = gather(x, x.builder.constant(np.asarray(places, np.int64)), axis)
    return x


def _nearest(i: int, n: int, m: int, factor: Fraction, how: dict[str, str]) -> int:
    """The entry of n that entry i of m looks at."""
    match how["coordinate_transformation"]:
        case "asymmetric":
            place = i / factor
        case "align_corners":
            place = Fraction(i * (n - 1), m - 1) if m > 1 else Fraction(0)
        case name:
            place = (i + Fraction(1, 2)) / factor - Fraction(1, 2)
            place = Fraction(0) if name == "pytorch_half_pixel" and m == 1 else place
    return max(0, min(n - 1, ROUNDINGS[how["nearest_mode"]](place)))


def resized(call: Call, x: Tensor, target: dict[str, Any], how: dict[str, str]) -> Tensor:
    """x with its axes of another size in the place of the spatial ones of images."""
    mode = call.string("mode", "nearest")
    if mode not in ("nearest", "linear") or how["coordinate_transformation"] not in COORDINATES:
        raise call.unsupported(f"with mode {mode} and {how['coordinate_transformation']}")
    key = "scales" if "scales" in target else "sizes"
    given = target[key]
    expect(len(given) == x.rank, "{} are {}, and {} has {} axes", key, given, x.value, x.rank)
    same = [n == 1 for n in given] if key == "scales" else [n == m for n, m in zip(given, x.shape)]
    moved = [axis for axis in range(x.rank) if not same[axis]]
    if not moved:
        return x
    if len(moved) > 3:
        raise call.unsupported("of more than 3 axes")
    if x.rank - 2 in (1, 2, 3) and min(moved) >= 2:
        return _images(x, key, given[2:], mode, how)
    order = [axis for axis in range(x.rank) if axis not in moved] + moved
    front = tuple(x.shape[axis] for axis in order[: -len(moved)])
    images = reshape(transpose(x, order), (1, product(front), *(x.shape[axis] for axis in moved)))
    y = _images(images, key, tuple(given[axis] for axis in moved), mode, how)
    y = reshape(y, (*front, *y.shape[2:]))
    return transpose(y, [order.index(axis) for axis in range(x.rank)])


def _images(x: Tensor, key: str, given: Any, mode: str, how: dict[str, str]) -> Tensor:
    attrs: dict[str, Any] = {"mode": mode, "coordinate_transformation": how["coordinate_transformation"]}
    if mode == "nearest":
        return resize(x, **{key: given}, **attrs, nearest_mode=how["nearest_mode"])
    wide = x if x.value.type.is_float else cast(x, "float64")
    return cast(resize(wide, **{key: given}, **attrs), x.dtype)
