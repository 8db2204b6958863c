"""Winograd's convolutions in C against float64: tails and edges, any number of threads, and how they round."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from c_kernels import EPS, THREADS, UNTOUCHED, Case, builds, check, literal, results, untouched

pytestmark = pytest.mark.compiler

# B^T, G and A of winograd.h, by m and r: written down as there; and how far from the largest number of a result it says
# that others may be wrong.
SIX = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
FOUR = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]


def _powers(points: Sequence[int], count: int, divided: Sequence[float]) -> np.ndarray:
    """Rows of the powers of each point and of infinity, each divided by a number."""
    rows = [[point**i for i in range(count)] for point in points]
    rows.append([0] * (count - 1) + [1])
    return np.array(rows, float) / np.array(divided)[:, None]


MATRICES: dict[tuple[int, int], tuple[Any, Any, Any]] = {
    (4, 3): (SIX, _powers((0, 1, -1, 2, -2), 3, (4, -6, -6, 24, 24, 1)), _powers((0, 1, -1, 2, -2), 4, [1] * 6)),
    (2, 5): (SIX, _powers((0, 1, -1, 2, -2), 5, (4, -6, -6, 24, 24, 1)), _powers((0, 1, -1, 2, -2), 2, [1] * 6)),
    (2, 3): (FOUR, _powers((0, 1, -1), 3, (1, 2, 2, 1)), _powers((0, 1, -1), 2, [1] * 4)),
}
STATED = {(4, 3): 2e-5, (2, 5): 2e-5, (2, 3): 2e-6}


def _squares(x: np.ndarray, size: int, step: int) -> np.ndarray:
    """(n, rows, columns, channels, i, j): squares of size x size pixels of x, at every step-th place."""
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::step, ::step]


def _tiles(x: np.ndarray, size: int, m: int) -> np.ndarray:
    """The squares that the tiles read, zeros where x ends."""
    rows, columns = ((m - (axis - (size - m)) % m) % m for axis in x.shape[1:3])
    return _squares(np.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0))), size, m)


def _sum(equation: str, *terms: np.ndarray) -> np.ndarray:
    return np.einsum(equation, *terms, optimize=True)


def _within(m: int, r: int, want: np.ndarray, absolute: np.ndarray, terms: int) -> np.ndarray:
    """How far each number may be from what is wanted: as the header states, and what n roundings in a row can do.

    `absolute` is the sum that Winograd makes, of absolute values. From a given number to the result there is a
    rounding for each of the products over channels (or tiles), and in each of the three transforms and either axis
    one for each of at most 4 terms and one for the constant: |error| <= n u / (1 - n u) absolute.
    """
    n = terms + 3 * 2 * 5
    return np.minimum(n * EPS / (1 - n * EPS) * absolute, STATED[m, r] * np.abs(want).max(initial=0))


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def _halo(y: np.ndarray, halo: int, around: float) -> np.ndarray:
    return np.pad(y, ((0, 0), (halo, halo), (halo, halo), (0, 0)), constant_values=around)


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def _scratch(points: int, block: int, channels: int, outputs: int, vectors: int) -> tuple[np.ndarray, str]:
    """Scratch for all threads, whatever LANES is, and what a thread of them has."""
    floats = points * (block * (_up(channels, 16) + _up(outputs, 16 * vectors)) + 32)
    return np.full(floats * max(THREADS), np.nan, np.float32), str(floats)


def convolution(
    m: int,
    batch: int,
    rows: int,
    columns: int,
    channels: int,
    outputs: int,
    vectors: int,
    block: int,
    *,
    r: int = 3,
    halo: int = 0,
    turned: bool = False,
    finish: bool = False,
    x: np.ndarray | None = None,
    w: np.ndarray | None = None,
) -> Case:
    """y = x * w, in a halo that is not written; `turned`: w is (channels, outputs, r, r), read backwards."""
    p, points = m + r - 1, (m + r - 1) ** 2
    x = _normal(batch, rows + r - 1, columns + r - 1, channels) if x is None else x
    w = _normal(*((channels, outputs) if turned else (outputs, channels)), r, r) if w is None else w
    to_x, to_w, to_y = (np.abs(np.array(matrix)) for matrix in MATRICES[m, r])
    right = (w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1] if turned else w).astype(float)
    want = _sum("nyxcij,kcij->nyxk", _squares(x.astype(float), r, 1), right)

    v = _sum("pi,qj,nyxcij->nyxcpq", to_x, to_x, _tiles(np.abs(x.astype(float)), p, m))
    u = _sum("pi,qj,kcij->kcpq", to_w, to_w, np.abs(right))
    absolute = _sum("pi,qj,nyxcpq,kcpq->nyixjk", to_y, to_y, v, u)
    absolute = absolute.reshape(batch, _up(rows, m), _up(columns, m), outputs)[:, :rows, :columns]
    within = _within(m, r, want, absolute, channels)
    if finish:
        want, within = 2 * want + 1, 2 * within + 2 * EPS * np.abs(2 * want + 1)

    scratch, floats = _scratch(points, block, channels, outputs, vectors)
    y_row, y_rows = (columns + 2 * halo) * outputs, rows + 2 * halo
    weights = literal(
        "winograd_weights_shape",
        groups=1,
        channels=channels,
        outputs=outputs,
        tile=m,
        window=r,
        vectors=vectors,
        turned=int(turned),
    )
    shape = literal(
        "winograd_shape", batch=f"run_time({batch})", rows=rows, columns=columns,
        groups=1, channels=channels, outputs=outputs,
        x_image=(rows + r - 1) * (columns + r - 1) * channels, x_row=(columns + r - 1) * channels,
        y_image=y_rows * y_row, y_row=y_row,
        tile=m, window=r, vectors=vectors, block=block, scratch=floats,
    )  # fmt: skip
    y = f"p[4] + {halo * y_row + halo * outputs}"
    calls = [
        f"winograd_weights(thread, threads, p[1], p[2], {weights})",
        f"winograd(thread, threads, p[0], p[2], {y}, p[3], {shape}, {f'twice_plus_one, {y}' if finish else '0, 0'})",
    ]
    want, within = _halo(want, halo, UNTOUCHED), _halo(within, halo, 0)
    packed = untouched(points, _up(outputs, 16 * vectors), channels)
    name = f"F{m}-{r}-{batch}x{rows}x{columns}-{channels}-{outputs}-{vectors}-{block}" + "-turned" * turned
    return Case(name, calls, [x, w, packed, scratch, untouched(*want.shape)], want, within)


def weight_gradient(
    m: int,
    batch: int,
    rows: int,
    columns: int,
    channels: int,
    outputs: int,
    vectors: int,
    block: int,
    parts: int,
    *,
    r: int = 3,
    halo: int = 0,
    finish: bool = False,
) -> Case:
    """dw from x and from dy, which lies in a halo of numbers that have no part in it."""
    p, points = m + r - 1, (m + r - 1) ** 2
    x, dy = _normal(batch, rows + r - 1, columns + r - 1, channels), _normal(batch, rows, columns, outputs)
    to_x, to_w, to_y = (np.abs(np.array(matrix)) for matrix in MATRICES[m, r])
    want = _sum("nyxcij,nyxk->kcij", _squares(x.astype(float), r, 1), dy.astype(float))

    v = _sum("pi,qj,nyxcij->nyxcpq", to_x, to_x, _tiles(np.abs(x.astype(float)), p, m))
    d = _sum("pi,qj,nyxkij->nyxkpq", to_y, to_y, _tiles(np.abs(dy.astype(float)), m, m))
    absolute = _sum("pi,qj,kcpq->kcij", to_w, to_w, _sum("nyxcpq,nyxkpq->kcpq", v, d))
    within = _within(m, r, want, absolute, v.shape[0] * v.shape[1] * v.shape[2] + parts)
    if finish:
        want, within = 2 * want + 1, 2 * within + 2 * EPS * np.abs(2 * want + 1)

    scratch, floats = _scratch(points, block, channels, outputs, vectors)
    around = _halo(dy, halo, UNTOUCHED)
    shape = literal(
        "winograd_gradient_shape", batch=f"run_time({batch})", rows=rows, columns=columns, groups=1, channels=channels,
        outputs=outputs, x_image=x[0].size, x_row=x[0, 0].size, y_image=around[0].size, y_row=around[0, 0].size,
        tile=m, window=r, vectors=vectors, block=block, parts=parts, scratch=floats,
    )  # fmt: skip
    inside = f"p[1] + {halo * around[0, 0].size + halo * outputs}"
    after = "twice_plus_one, p[4]" if finish else "0, 0"
    calls = [
        f"winograd_gradient(thread, threads, p[0], {inside}, p[2], p[3], {shape})",
        f"winograd_gradient_finish(thread, threads, p[2], p[4], {shape}, {after})",
    ]
    sums = untouched(parts, points, _up(channels, 16) * _up(outputs, 16 * vectors) + 16)
    name = f"dw-F{m}-{r}-{batch}x{rows}x{columns}-{channels}-{outputs}-{vectors}-{block}-{parts}"
    return Case(name, calls, [x, around, sums, scratch, untouched(*want.shape)], want, within)


def gradient_with_stride_2() -> Case:
    """dx of y = x[padded by 1] * w with stride 2: dy dilated by two and padded, through turned weights."""
    batch, channels, outputs = 2, 18, 5  # of the convolution that is made: dy has `channels`
    dy, w = _normal(batch, 6, 5, channels), _normal(channels, outputs, 3, 3)
    dilated = np.zeros((batch, 14, 12, channels), np.float32)
    dilated[:, 1:12:2, 1:10:2] = dy
    case = convolution(4, batch, 12, 10, channels, outputs, 1, 9, turned=True, x=dilated, w=w)
    dx = np.zeros((batch, 14, 12, outputs))  # padded as x was: y reads 13 x 11 of it
    for i in range(3):
        for j in range(3):
            dx[:, i : i + 11 : 2, j : j + 9 : 2] += dy.astype(float) @ w[:, :, i, j].astype(float)
    np.testing.assert_allclose(case.want, dx[:, 1:-1, 1:-1], rtol=0, atol=1e-12)
    return case


CASES = [
    convolution(4, 2, 7, 9, 3, 10, 1, 5, finish=True),
    convolution(4, 1, 13, 6, 24, 70, 2, 40, halo=1, finish=True),  # one block: threads share outputs
    convolution(4, 3, 17, 16, 16, 64, 2, 14, turned=True),
    convolution(4, 1, 20, 19, 40, 33, 2, 30, halo=2, turned=True),
    convolution(2, 1, 7, 7, 10, 24, 2, 100, halo=1, finish=True),
    convolution(2, 5, 1, 2, 1, 1, 1, 1, finish=True),
    convolution(2, 2, 12, 15, 32, 17, 1, 20, turned=True),
    convolution(4, 0, 7, 9, 3, 10, 1, 5),
    convolution(2, 2, 7, 9, 3, 10, 1, 5, r=5, finish=True),
    convolution(2, 1, 13, 6, 24, 70, 2, 40, r=5, halo=1, finish=True),
    convolution(2, 2, 8, 11, 40, 33, 2, 14, r=5, halo=2, turned=True),
    convolution(2, 0, 7, 9, 3, 10, 1, 5, r=5),
    gradient_with_stride_2(),
    weight_gradient(4, 2, 7, 9, 3, 10, 1, 5, 2, finish=True),
    weight_gradient(4, 3, 14, 17, 24, 70, 2, 16, 1, halo=1, finish=True),
    weight_gradient(4, 1, 5, 3, 40, 33, 1, 30, 5),  # more parts than tiles
    weight_gradient(2, 4, 7, 7, 17, 24, 2, 20, 3, halo=1),
    weight_gradient(2, 2, 7, 9, 3, 10, 1, 5, 2, r=5, finish=True),
    weight_gradient(2, 3, 9, 10, 24, 70, 2, 16, 1, r=5, halo=1, finish=True),
    weight_gradient(2, 1, 5, 3, 40, 33, 1, 30, 7, r=5),
    # Sizes of networks, where the stated error counts.
    convolution(4, 2, 28, 28, 64, 32, 2, 28),
    convolution(2, 2, 28, 28, 64, 32, 2, 28),
    convolution(2, 4, 14, 14, 256, 64, 2, 56, r=5),
    weight_gradient(2, 16, 14, 14, 32, 64, 2, 56, 4, r=5),
    weight_gradient(4, 16, 28, 28, 16, 16, 1, 32, 2),
    weight_gradient(2, 16, 28, 28, 16, 16, 1, 32, 2),
]


@cache
def _results(build: Sequence[str]) -> dict[str, list[np.ndarray]]:
    return results(CASES, build)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("build", builds(), ids=["plain", "sanitized"][: len(builds())])
def test_against_float64(build: Sequence[str], case: Case) -> None:
    check(case, _results(build)[case.name])
