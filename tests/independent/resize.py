"""Independent implementations of resize: ONNX's Resize, and the definition, entry by entry, in fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from cases import INF, NAN, Case, These, real, truth, whole

TRANSFORMATIONS = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")

# x and the new sizes: up and down, by whole numbers and others, to and from one entry
SIZES: list[tuple[tuple[int, ...], Any]] = [
    ((2, 1, 5), 7),
    ((1, 2, 7), 3),
    ((1, 1, 1), 4),
    ((1, 1, 5), 1),
    ((1, 2, 3, 4), (6, 8)),
    ((2, 1, 6, 5), (3, 7)),
    ((1, 1, 1, 3), (2, 1)),
    ((0, 2, 3, 4), (5, 2)),
    ((1, 1, 3, 2, 4), (2, 5, 4)),
]
SCALES: list[tuple[tuple[int, ...], Any]] = [
    ((1, 2, 4), 2),
    ((1, 1, 7), 0.5),  # 3.5 entries become 3
    ((1, 1, 5, 3), (1.5, 3)),
    ((1, 1, 10), 0.7),
    ((1, 2, 5, 3), (0.4, 1)),
]
MODES = [
    *({"mode": "linear", "coordinate_transformation": t} for t in TRANSFORMATIONS),
    *(
        {"mode": "nearest", "coordinate_transformation": t, "nearest_mode": r}
        for t, r in product(TRANSFORMATIONS, ROUNDINGS)
    ),
]
LAST: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 5, 3), {"sizes": 7, "layout": "NLC"}),
    ((1, 3, 4, 2), {"sizes": (5, 3), "layout": "NHWC"}),
    ((1, 3, 2, 2, 3), {"scales": (2, 1, 1.5), "layout": "NDHWC"}),
]


def _case(shape: tuple[int, ...], **attrs: Any) -> Case:
    return Case("resize", real(*shape), **attrs)


def _unaligned(shape: tuple[int, ...], scales: Any, mode: dict[str, Any]) -> bool:
    """Where a size is rounded down the evaluator does not align the corners: it takes the size before rounding."""
    each = scales if isinstance(scales, tuple) else (scales,) * (len(shape) - 2)
    rounded = any(Fraction(str(s)) * n % 1 for s, n in zip(each, shape[2:]))
    return rounded and mode["coordinate_transformation"] == "align_corners"


CASES = [
    *(_case(shape, sizes=sizes, **mode) for shape, sizes in SIZES for mode in MODES),
    *(
        _case(shape, scales=scales, loops=_unaligned(shape, scales, mode), **mode)
        for shape, scales in SCALES
        for mode in MODES
    ),
    *(_case(shape, **attrs, **mode) for shape, attrs in LAST for mode in (MODES[0], MODES[3], MODES[4], MODES[-1])),
    *(
        Case("resize", x, sizes=5, coordinate_transformation=t, loops=loops)
        for x, loops in ((whole(1, 2, 3), False), (truth(1, 1, 4), True), (These([[[NAN, 1.0, INF, -INF]]]), True))
        for t in TRANSFORMATIONS
    ),
    # the evaluator has no bools, and adds 0 * infinity also to the nearest entry
    # what falls on an entry is that entry, whatever is beside it
    Case("resize", These([[[INF, 1.0, 2.0, NAN, 3.0]]]), sizes=9, mode="linear", loops=True),
    Case("resize", These([[[INF, 1.0, 2.0, NAN, 3.0]]]), scales=2, mode="linear", loops=True),
    *(
        Case(
            "resize_gradient",
            real(*shape[:2], *(sizes if isinstance(sizes, tuple) else (sizes,))),
            extents=shape[2:],
            sizes=sizes,
            **mode,
        )
        for shape, sizes in SIZES
        for mode in (*MODES[:6], MODES[9], MODES[12], MODES[17])
    ),
    *(
        Case("resize_gradient", real(1, 2, *after), extents=before, scales=scales, **mode)
        for before, after, scales in (((7,), (3,), 0.5), ((5, 3), (7, 9), (1.5, 3)))
        for mode in (*MODES[:4], MODES[6])
    ),
    *(
        Case("resize_gradient", real(2, 5, 3, 2), extents=(3, 4), sizes=(5, 3), layout="NHWC", **mode)
        for mode in (MODES[0], MODES[4])
    ),
    Case("resize_gradient", real(0, 2, 3), extents=(5,), scales=0.6, mode="linear"),
]


def _resize(
    model: Any,
    x: str,
    sizes: Any = None,
    scales: Any = None,
    mode: str = "nearest",
    coordinate_transformation: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    layout: str | None = None,
) -> str:
    shape, given = model.given[x].shape, sizes if scales is None else scales
    spatial = range(1, len(shape) - 1) if _is_last(layout) else range(2, len(shape))
    full = list(shape) if scales is None else [1.0] * len(shape)  # its `axes` fail for no images
    for i, axis in enumerate(spatial):
        full[axis] = given[i] if isinstance(given, tuple) else given
    return model.add(
        "Resize",
        x,
        "",
        *(("", model.array(full)) if scales is None else (model.array(full, np.float64),)),
        mode=mode,
        coordinate_transformation_mode=coordinate_transformation,
        nearest_mode=nearest_mode,
    )


def _coordinate(i: int, n: int, m: int, scale: Fraction, transformation: str) -> Fraction:
    if transformation == "align_corners":
        return Fraction(i * (n - 1), m - 1) if m > 1 else Fraction(0)
    if transformation == "asymmetric":
        return i / scale
    if transformation == "pytorch_half_pixel" and m == 1:
        return Fraction(0)
    return (2 * i + 1) / (2 * scale) - Fraction(1, 2)


def _weights(n: int, size: Any, scale: Any, mode: str, transformation: str, nearest_mode: str) -> list[list[Fraction]]:
    """For each new entry the weight of every entry of x: a tent around its coordinate, or 1 for the nearest."""
    s = Fraction(size, n) if scale is None else Fraction(str(scale))
    rows = []
    for i in range(m := int(n * s)):
        c = _coordinate(i, n, m, s, transformation)
        if mode == "linear":
            c = sorted((Fraction(0), c, Fraction(n - 1)))[1]
            rows.append([max(Fraction(0), 1 - abs(c - k)) for k in range(n)])
            continue
        around = range(-n - m - 2, 2 * n + m + 2)  # as if x went on to both sides, with its outermost entries
        below, above = max(k for k in around if k <= c), min(k for k in around if k >= c)
        middle = {"floor": below, "round_prefer_floor": below, "ceil": above, "round_prefer_ceil": above}[nearest_mode]
        by_distance = below if c - below < above - c else above if above - c < c - below else middle
        chosen = middle if nearest_mode in ("floor", "ceil") else by_distance
        rows.append([Fraction(int(sorted((0, chosen, n - 1))[1] == k)) for k in range(n)])
    return rows


def _lines(
    extents: Any,
    sizes: Any = None,
    scales: Any = None,
    mode: str = "nearest",
    coordinate_transformation: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
) -> list[list[list[Fraction]]]:
    each = lambda given: given if isinstance(given, tuple) else (given,) * len(extents)
    return [
        _weights(n, m, s, mode, coordinate_transformation, nearest_mode)
        for n, m, s in zip(extents, each(sizes), each(scales))
    ]


def _links(lines: Any) -> Any:
    """Each new place with the places of x that it reads, and their weights: products over the axes."""
    for place in product(*(range(len(rows)) for rows in lines)):
        rows = [rows[i] for rows, i in zip(lines, place)]
        for source in product(*([k for k, w in enumerate(row) if w] for row in rows)):
            yield place, source, float(np.prod([float(row[k]) for row, k in zip(rows, source)]))


def _is_last(layout: str | None) -> bool:
    return layout is not None and layout[-1] == "C"


def resize(x: np.ndarray, layout: str | None = None, **attrs: Any) -> np.ndarray:
    x = np.moveaxis(x, -1, 1) if _is_last(layout) else x
    lines = _lines(x.shape[2:], **attrs)
    y = np.zeros((*x.shape[:2], *map(len, lines)), x.dtype)
    for place, source, weight in _links(lines):
        for image in np.ndindex(*x.shape[:2]):
            y[(*image, *place)] += (weight * x[(*image, *source)]).astype(x.dtype)
    return np.moveaxis(y, 1, -1) if _is_last(layout) else y


def resize_gradient(g: np.ndarray, extents: Any, layout: str | None = None, **attrs: Any) -> np.ndarray:
    g = np.moveaxis(g, -1, 1) if _is_last(layout) else g
    x = np.zeros((*g.shape[:2], *extents))
    for place, source, weight in _links(_lines(extents, **attrs)):
        for image in np.ndindex(*g.shape[:2]):
            x[(*image, *source)] += weight * g[(*image, *place)]
    return np.moveaxis(x, 1, -1) if _is_last(layout) else x


ONNX = {"resize": _resize}
LOOPS: dict[str, Any] = {"resize": resize, "resize_gradient": resize_gradient}
EXACT: set[str] = set()
