"""Images on a ground of zeros, and weights brought back into their order, in C: to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from c_kernels import Case, builds, check, literal, results, untouched

pytestmark = pytest.mark.compiler


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def halo(
    batch: int, H: int, W: int, C: int, sizes: tuple[int, int], start: tuple[int, int] = (1, 1), step: int = 1
) -> Case:
    """x at every step-th place from `start` on of images of these sizes."""
    x = numbers(batch, H, W, C)
    want = np.zeros((batch, *sizes, C))
    (top, left), rows, columns = start, (H - 1) * step + 1, (W - 1) * step + 1
    want[:, top : top + rows : step, left : left + columns : step] = x
    shape = literal(
        "halo_shape", batch=f"run_time({batch})", C=C, D=1, H=H, W=W, slices=1, rows=sizes[0], columns=sizes[1],
        front=0, top=top, left=left, step_d=1, step_h=step, step_w=step,
    )  # fmt: skip
    call = f"halo(thread, threads, p[0], p[1], {shape})"
    name = f"halo-{batch}x{H}x{W}x{C}-{sizes[0]}x{sizes[1]}-{step}"
    return Case(name, [call], [x, untouched(*want.shape)], want, np.zeros(want.shape))


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
