"""Images on a ground of zeros, and weights brought back into their order, in C: to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from c_kernels import Case, builds, check, literal, results, untouched

pytestmark = pytest.mark.compiler


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def halo(
    batch: int,
    H: int,
    W: int,
    C: int,
    sizes: tuple[int, int],
    start: tuple[int, int] = (1, 1),
    step: int = 1,
    around: int = 0,
) -> Case:
    """x at every step-th place from `start` on of images of these sizes. around: pixels of what x lies in."""
    ground = numbers(batch, H + 2 * around, W + 2 * around, C)
    x = ground[:, around : around + H, around : around + W]
    want = np.zeros((batch, *sizes, C))
    (top, left), rows, columns = start, (H - 1) * step + 1, (W - 1) * step + 1
    want[:, top : top + rows : step, left : left + columns : step] = x
    shape = literal(
        "halo_shape", batch=f"run_time({batch})", C=C, D=1, H=H, W=W, slices=1, rows=sizes[0], columns=sizes[1],
        front=0, top=top, left=left, step_d=1, step_h=step, step_w=step,
        x_image=(H + 2 * around) * (W + 2 * around) * C, x_slice=0, x_row=(W + 2 * around) * C,
    )  # fmt: skip
    first = around * (W + 2 * around + 1) * C
    call = f"halo(thread, threads, p[0] + {first}, p[1], {shape})"
    name = f"halo-{batch}x{H}x{W}x{C}-{sizes[0]}x{sizes[1]}-{step}-{around}"
    return Case(name, [call], [ground, untouched(*want.shape)], want, np.zeros(want.shape))


def border(batch: int, H: int, W: int, C: int, sizes: tuple[int, int], start: tuple[int, int]) -> Case:
    """The zeros around what lies there already."""
    want = np.full((batch, *sizes, C), 7.0)
    inside = np.s_[:, start[0] : start[0] + H, start[1] : start[1] + W]
    want[...], want[inside] = 0, 7
    y = np.full(want.shape, 7, np.float32)
    shape = literal(
        "halo_shape", batch=f"run_time({batch})", C=C, D=1, H=H, W=W, slices=1, rows=sizes[0], columns=sizes[1],
        front=0, top=start[0], left=start[1], step_d=1, step_h=1, step_w=1,
    )  # fmt: skip
    name = f"border-{batch}x{H}x{W}x{C}-{sizes[0]}x{sizes[1]}"
    return Case(name, [f"halo_border(thread, threads, p[0], {shape})"], [y], want, np.zeros(want.shape))


def unpacked(K: int, C: int, R: int, S: int) -> Case:
    packed = numbers(R, S, C, K)
    want = packed.transpose(3, 2, 0, 1).astype(float)
    shape = literal("pack_shape", K=K, C=C, T=1, R=R, S=S, w_k=C * R * S, w_c=R * S, w_r=S, w_s=1, width=K)
    call = f"unpack(thread, threads, p[0], p[1], {shape})"
    return Case(f"unpack-{K}-{C}-{R}x{S}", [call], [packed, untouched(*want.shape)], want, np.zeros(want.shape))


CASES = [
    halo(2, 5, 7, 3, (7, 9)),
    halo(1, 4, 4, 17, (11, 9), (2, 1), step=2),
    halo(3, 1, 6, 1, (1, 20), (0, 3), step=3),
    halo(2, 3, 3, 5, (3, 3), (0, 0)),
    halo(0, 3, 3, 5, (5, 5)),
    halo(2, 3, 5, 4, (7, 8), (2, 1), around=1),
    halo(2, 3, 2, 17, (7, 5), (1, 0), step=2, around=2),
    border(2, 3, 5, 4, (6, 9), (1, 3)),
    border(1, 1, 1, 33, (3, 1), (2, 0)),
    border(0, 3, 3, 5, (5, 5), (1, 1)),
    unpacked(5, 3, 3, 2),
    unpacked(33, 10, 1, 1),
    unpacked(1, 1, 1, 1),
]


@pytest.fixture(scope="module", params=builds(), ids=lambda extra: "sanitized" if extra else "fast")
def got(request: pytest.FixtureRequest) -> dict[str, list[np.ndarray]]:
    return results(CASES, request.param)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_places(case: Case, got: dict[str, list[np.ndarray]]) -> None:
    check(case, got[case.name])
