"""Independent implementations of what ops/shape.py moves: ONNX's Slice and Pad, and loops over single numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import INF, NAN, Case, These, real, truth, whole

EDGES = These([NAN, -INF, INF, 0.0, -0.0, 1.0])

SLICES = [
    Case("slice", x, **attrs)
    for x, attrs in (
        (real(5), {"start": (None,), "stop": (None,), "step": (-1,)}),
        (real(5, 4), {"start": (None, None), "stop": (None, None), "step": (-2, 3)}),
        (real(7), {"start": (-2,), "stop": (1,), "step": (-2,)}),
        (real(7), {"start": (99,), "stop": (-99,), "step": (-3,)}),
        (real(7), {"start": (2,), "stop": (4,), "step": (-1,)}),
        (real(7), {"start": (3,), "stop": (-7,), "step": (-1,)}),
        (real(3, 4), {"start": (-9, None), "stop": (None, 0), "step": (-1, -1)}),
        (real(0, 3), {"start": (None, 1), "stop": (None, None), "step": (-1, -1)}),
        (real(1), {"start": (None,), "stop": (None,), "step": (-5,)}),
        (EDGES, {"start": (None,), "stop": (None,), "step": (-1,)}),
        (whole(6), {"start": (4,), "stop": (None,), "step": (-2,)}),
        (truth(6), {"start": (-1,), "stop": (2,), "step": (-1,)}),
    )
] + [
    Case("unslice", g, **attrs)
    for g, attrs in (
        (real(5), {"shape": (5,), "start": (4,), "step": (-1,)}),
        (real(3, 2), {"shape": (7, 5), "start": (6, 0), "step": (-3, 4)}),
        (real(0, 2), {"shape": (3, 2), "start": (2, 1), "step": (-1, -1)}),
        (real(0), {"shape": (0,), "start": (0,), "step": (-1,)}),
        (real(1), {"shape": (4,), "start": (2,), "step": (-9,)}),
    )
]

# Widths at most as large as the axis allows once: NumPy, in which the evaluator pads, differs between its versions
# where it repeats more than that, and refuses negative widths. Those are for loops alone.
PADS: list[tuple[Any, tuple[tuple[int, int], ...], dict[str, Any]]] = [
    *(
        (x, widths, {"mode": mode})
        for mode in ("edge", "reflect", "wrap")
        for x, widths in (
            (real(4), ((2, 3),)),
            (real(3, 5), ((0, 2), (4, 0))),
            (real(2, 3, 4, 3), ((0, 0), (0, 0), (1, 2), (2, 1))),
            (real(0, 3), ((0, 0), (1, 2))),
            (real(3, 0), ((1, 1), (0, 0))),
            (EDGES, ((3, 2),)),
            (whole(4), ((1, 2),)),
            (truth(3, 2), ((2, 0), (0, 1))),
        )
    ),
    (real(1, 3), ((2, 3), (5, 1)), {"mode": "edge"}),
    *(
        (x, widths, {"mode": mode, "loops": True})
        for mode in ("reflect", "wrap")
        for x, widths in ((real(1, 3), ((2, 3), (7, 5))), (real(2), ((3, 4),)), (real(3), ((8, 0),)))
    ),
    (real(4, 3), ((-1, 2), (-1, -1)), {"value": 0.5, "loops": True}),
    (real(2), ((-3, 4),), {"value": 1.5, "loops": True}),
    (real(2, 3), ((-1, -1), (0, -3)), {"loops": True}),
    (whole(4), ((2, -3),), {"value": 7, "loops": True}),
]

TRANSPOSES: list[tuple[tuple[int, ...], tuple[tuple[int, int], ...]]] = [
    ((9,), ((2, 3),)),
    ((5, 9), ((0, 2), (4, 0))),
    ((2, 1, 7, 6), ((0, 0), (0, 0), (1, 2), (2, 1))),
    ((0, 6), ((0, 0), (1, 2))),
    ((6, 15), ((2, 3), (7, 5))),
    ((9,), ((3, 4),)),
]

CASES = [
    *SLICES,
    *(Case("pad", x, widths=widths, **attrs) for x, widths, attrs in PADS),
    *(
        Case("pad_gradient", real(*g), widths=widths, mode=mode)
        for g, widths in TRANSPOSES
        for mode in ("edge", "reflect", "wrap")
    ),
]


def _slice(model: Any, x: str, start: Any, stop: Any, step: Any = None) -> str:
    steps = [s or 1 for s in step or [1] * len(start)]
    starts = [(0 if s > 0 else 2**62) if a is None else a for a, s in zip(start, steps)]
    stops = [(2**62 if s > 0 else -(2**62)) if b is None else b for b, s in zip(stop, steps)]
    return model.add("Slice", x, *map(model.array, (starts, stops, range(len(start)), steps)))


def _pad(model: Any, x: str, widths: Any, value: float = 0.0, mode: str = "constant") -> str:
    pads = model.array([a for a, _ in widths] + [b for _, b in widths])
    if mode != "constant":
        return model.add("Pad", x, pads, mode=mode)
    return model.add("Pad", x, pads, model.array(value, model.given[x].dtype))


def _walk(n: int, before: int, after: int, mode: str) -> list[int | None]:
    """Step by step away from x: for each entry of a padded axis, where it comes from; None is the padding value."""

    def outward(at: int, way: int, steps: int) -> list[int | None]:
        visited: list[int | None] = []
        for _ in range(steps):
            inside = 0 <= at + way < n
            if mode == "reflect" and not inside:
                way = -way  # turn round
            if inside or (mode == "reflect" and n > 1):
                at += way
            elif mode == "wrap":
                at = 0 if way > 0 else n - 1  # come in at the other end
            visited.append(None if mode == "constant" else at)
        return visited

    line = [*reversed(outward(0, -1, max(before, 0))), *range(n), *outward(n - 1, 1, max(after, 0))]
    return line[max(-before, 0) : len(line) + min(after, 0)]


def pad(x: np.ndarray, widths: Any, value: float = 0.0, mode: str = "constant") -> np.ndarray:
    walks = [_walk(n, a, b, mode) for n, (a, b) in zip(x.shape, widths)]
    y = np.full([len(walk) for walk in walks], value, x.dtype)
    for at in np.ndindex(*y.shape):
        source = [walk[i] for walk, i in zip(walks, at)]
        if None not in source:
            y[at] = x[tuple(source)]
    return y


def pad_gradient(g: np.ndarray, widths: Any, mode: str) -> np.ndarray:
    walks = [_walk(n - a - b, a, b, mode) for n, (a, b) in zip(g.shape, widths)]
    x = np.zeros([n - a - b for n, (a, b) in zip(g.shape, widths)])
    for at in np.ndindex(*g.shape):
        x[tuple(walk[i] for walk, i in zip(walks, at))] += g[at]
    return x


ONNX = {"slice": _slice, "pad": _pad}
LOOPS = {"pad": pad, "pad_gradient": pad_gradient}
EXACT = {"slice", "unslice", "pad"}
