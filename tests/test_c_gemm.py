"""Matrix products in C against float64: all tails, both transposed forms, packed and not, any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from c_kernels import EPS, Case, builds, check, literal, results, untouched

pytestmark = pytest.mark.compiler

LANES = "LANES"


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def _product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The product in float64, and how far a sum in float32 may be from it: a rounding for each term and one more."""
    a, b = a.astype(float), b.astype(float)
    return a @ b, (a.shape[1] + 1) * EPS * (np.abs(a) @ np.abs(b))


def _packed_size(K: int, N: int, vectors: int) -> int:
    """Floats of a packed b, whatever LANES is: at most 16."""
    width = 16 * vectors
    return K * ((N + width - 1) // width) * width


def _pack(K: int, N: int, w_k: int, w_c: int, vectors: int) -> str:
    fields = literal("pack_shape", groups=1, K=N, C=K, T=1, R=1, S=1, w_k=w_k, w_c=w_c, width=f"{vectors} * LANES")
    return f"pack(thread, threads, p[1], p[2], {fields})"


def _gemm(a: str, b: str, y: str, finish: str = "0, 0", **fields: int | str) -> str:
    return f"gemm(thread, threads, {a}, {b}, {y}, {literal('gemm_shape', **fields)}, {finish})"


def forward(M: int, N: int, K: int, vectors: int, known: bool = False, finish: bool = False) -> Case:
    """y = x w: w packed in the first call. `known`: M is a literal."""
    a, b = _normal(M, K), _normal(K, N)
    width = f"{vectors} * LANES"
    call = _gemm(
        "p[0]", "p[2]", "p[3]", "twice_plus_one, p[3]" if finish else "0, 0",
        M=M if known else f"run_time({M})", N=N, K=K, a_row=K, a_column=1, b_row=width, b_panel=f"{K} * {width}",
        y_row=N, y_panel=width, vectors=vectors, b_padded="true",
    )  # fmt: skip
    want, within = _product(a, b)
    if finish:
        want, within = 2 * want + 1, 3 * within + 2 * EPS * np.abs(2 * want + 1)
    name = f"forward-{M}-{N}-{K}-{vectors}" + "-known" * known + "-finish" * finish
    arrays = [a, b, untouched(_packed_size(K, N, vectors)), untouched(M, N)]
    return Case(name, [_pack(K, N, 1, N, vectors), call], arrays, want, within)


def input_gradient(M: int, N: int, K: int, vectors: int) -> Case:
    """dx = dy w^T, w being (N, K) by rows."""
    a, w = _normal(M, K), _normal(N, K)
    width = f"{vectors} * LANES"
    call = _gemm(
        "p[0]", "p[2]", "p[3]",
        M=f"run_time({M})", N=N, K=K, a_row=K, a_column=1, b_row=width, b_panel=f"{K} * {width}",
        y_row=N, y_panel=width, vectors=vectors, b_padded="true",
    )  # fmt: skip
    arrays = [a, w, untouched(_packed_size(K, N, vectors)), untouched(M, N)]
    pack = _pack(K, N, K, 1, vectors)
    return Case(f"input-{M}-{N}-{K}-{vectors}", [pack, call], arrays, *_product(a, w.T))


def weight_gradient(M: int, N: int, K: int, vectors: int) -> Case:
    """dw = x^T dy, both by rows, over a batch of K."""
    x, dy = _normal(K, M), _normal(K, N)
    width = f"{vectors} * LANES"
    call = _gemm(
        "p[0]", "p[1]", "p[2]",
        M=M, N=N, K=f"run_time({K})", a_row=1, a_column=M, b_row=N, b_panel=width, y_row=N, y_panel=width,
        vectors=vectors, b_padded="false",
    )  # fmt: skip
    return Case(f"weight-{M}-{N}-{K}-{vectors}", [call], [x, dy, untouched(M, N)], *_product(x.T, dy))


CASES = [
    *(forward(M, N, K, vectors) for M, N, K, vectors in [
        (1, 1, 1, 1), (3, 10, 7, 1), (1, 1000, 33, 2), (1, 70, 64, 2), (60, 100, 84, 2), (14, 64, 9, 2),
        (29, 48, 600, 2), (400, 33, 5, 2), (345, 16, 1030, 1), (13, 31, 50, 2), (0, 20, 5, 2), (5, 20, 0, 2),
        (64, 130, 16, 2),
    ]),
    *(forward(M, 40, 11, 2, known=True) for M in (1, 2, 5, 14, 23)),
    forward(60, 100, 20, 2, finish=True),
    forward(5, 10, 1200, 1, finish=True),
    *(input_gradient(M, N, K, 2) for M, N, K in [(1, 10, 3), (60, 84, 100), (17, 1000, 10), (6, 33, 515)]),
    *(weight_gradient(M, N, K, vectors) for M, N, K, vectors in [
        (1, 1, 1, 1), (84, 100, 60, 2), (10, 1000, 3, 2), (100, 10, 130, 1), (33, 47, 1025, 2), (20, 30, 0, 2),
    ]),
]  # fmt: skip


@pytest.fixture(scope="module", params=builds(), ids=lambda extra: "sanitized" if extra else "fast")
def got(request: pytest.FixtureRequest) -> dict[str, list[np.ndarray]]:
    return results(CASES, request.param)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_products(case: Case, got: dict[str, list[np.ndarray]]) -> None:
    check(case, got[case.name])
