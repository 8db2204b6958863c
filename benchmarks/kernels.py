"""How fast the tuned C kernels are, beside NumPy's matrix product of the same size.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.kernels

For a convolution NumPy multiplies the matrices that are left once the images are unfolded, which itself is not counted.
Both take turns in one process; times are the shortest of many rounds, as GFLOP/s. A kernel's two numbers are those of
the call and of the gradient to its weights. BLAS gets one thread, since its threads wait in loops and take the cores
from the kernels: compare with MINIGRAPH_THREADS=1.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from minigraph.backends.c import compiler
from minigraph.backends.c.threads import pool, threads

FOLDER = Path(compiler.__file__).parent
NAMES = ("prelude", "vector", "tile", "gemm", "conv_phase", "conv_direct", "conv_depthwise")
HEADERS = tuple(FOLDER / f"{name}.h" for name in NAMES)
SECONDS = 0.3  # for the rounds of one row

JOB = """\
void {name}(void *with, int thread, int threads) {{ float **p = with; {call}; }}
"""


@dataclass(frozen=True)
class Row:
    """Calls of kernels of p[0], p[1] and p[2], the result; the floats of each; and the product that NumPy makes."""

    name: str
    calls: Sequence[str]
    sizes: Sequence[int]
    flops: int
    peer: tuple[int, int, int] | None


def product(M: int, K: int, N: int) -> Row:
    vectors = 2 if N > 16 else 1  # what is packed has so many floats that it serves any LANES
    width = f"{vectors} * LANES"
    forward = (
        f"(gemm_shape){{.M = {M}, .N = {N}, .K = {K}, .a_row = {K}, .a_column = 1, .b_row = {width}, "
        f".b_panel = {K} * {width}, .y_row = {N}, .y_panel = {width}, .vectors = {vectors}, .b_padded = true}}"
    )
    weights = (
        f"(gemm_shape){{.M = {K}, .N = {N}, .K = {M}, .a_row = 1, .a_column = {K}, .b_row = {N}, .b_panel = {width}, "
        f".y_row = {N}, .y_panel = {width}, .vectors = {vectors}}}"
    )
    calls = [f"gemm(thread, threads, p[0], p[1], p[2], {shape}, 0, 0)" for shape in (forward, weights)]
    wide = -(-N // (16 * vectors)) * 16 * vectors
    sizes = (M * K, max(K, M) * wide, max(M, K) * N)
    return Row(f"product {M} x {K} x {N}", calls, sizes, 2 * M * N * K, (M, K, N))


def convolution(name: str, batch: int, size: int, C: int, K: int, window: int, stride: int = 1) -> Row:
    """`size`: height and width of the padded images."""
    P, vectors = (size - window) // stride + 1, 2 if K > 16 else 1
    deep = ".groups = 1, .D = 1, .T = 1, .stride_d = 1, .dilation_d = 1"
    shape = _shape("conv_direct_shape", batch, size, C, K, P, window, stride)
    shape = f"{shape[:-1]}, {deep}, .K = {K}, .vectors = {vectors}}}"
    calls = [
        f"conv_direct(thread, threads, p[0], p[1], p[2], {shape}, 0, 0)",
        f"conv_direct_weights(thread, threads, p[0], p[1], p[2], {K}, {vectors} * LANES, {shape}, 0, 0)",
    ]
    taps, pixels, wide = window**2 * C, batch * P * P, -(-K // (16 * vectors)) * 16 * vectors
    sizes = (batch * size**2 * C, max(taps * wide, pixels * K), max(taps, pixels) * K)
    return Row(name, calls, sizes, 2 * pixels * taps * K, (pixels, taps, K))


def depthwise(name: str, batch: int, size: int, C: int, window: int, stride: int = 1) -> Row:
    P = (size - window) // stride + 1
    shape = _shape("conv_depthwise_shape", batch, size, C, C, P, window, stride)
    calls = [f"conv_depthwise{kind}(thread, threads, p[0], p[1], p[2], {shape}, 0, 0)" for kind in ("", "_weights")]
    taps, pixels, wide = window**2, batch * P * P, -(-C // 16) * 16
    sizes = (batch * size**2 * C, max(taps * wide, pixels * C), max(taps, pixels) * C)
    return Row(name, calls, sizes, 2 * pixels * taps * C, None)


def _shape(kind: str, batch: int, size: int, C: int, K: int, P: int, window: int, stride: int) -> str:
    return (
        f"({kind}){{.batch = {batch}, .C = {C}, .P = {P}, .Q = {P}, .R = {window}, .S = {window}, "
        f".stride_h = {stride}, .stride_w = {stride}, .dilation_h = 1, .dilation_w = 1, "
        f".x_row = {size * C}, .x_image = {size * size * C}, .y_row = {P * K}, .y_image = {P * P * K}, .y_pixel = {K}}}"
    )


ROWS = [
    product(60, 784, 100),
    product(128, 1024, 1024),
    product(1024, 1024, 1024),
    product(1, 1024, 1000),
    product(10, 512, 10),
    convolution("3x3, 64 to 64, 56 x 56", 1, 58, 64, 64, 3),
    convolution("3x3, 512 to 512, 7 x 7", 1, 9, 512, 512, 3),
    convolution("7x7, 3 to 64, 224 x 224, stride 2", 1, 230, 3, 64, 7, 2),
    convolution("3x3, 64 to 128, 56 x 56, stride 2", 1, 58, 64, 128, 3, 2),
    convolution("1x1, 64 to 128, 56 x 56, stride 2, 8 images", 8, 56, 64, 128, 1, 2),
    convolution("3x3, 16 to 16, 32 x 32, 32 images", 32, 34, 16, 16, 3),
    convolution("3x3, 3 to 16, 32 x 32, 32 images", 32, 34, 3, 16, 3),
    convolution("3x3, 10 to 24, 17 x 17, 8 images", 8, 19, 10, 24, 3),
    depthwise("depthwise 3x3, 32, 112 x 112", 1, 114, 32, 3),
    depthwise("depthwise 3x3, 128, 56 x 56, 8 images", 8, 58, 128, 3),
    depthwise("depthwise 5x5, 576, 14 x 14", 1, 18, 576, 5),
]


def aligned(size: int) -> np.ndarray:
    """So many normal numbers, from a line of the cache on."""
    memory = np.random.default_rng(0).normal(size=size + 16).astype(np.float32)
    return memory[-memory.ctypes.data // 4 % 16 :][:size]


def shortest(functions: Sequence[Callable[[], object]]) -> list[float]:
    """The shortest time of each, in seconds. They take turns; a call before wakes threads that sleep."""
    best = [math.inf] * len(functions)
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for i, function in enumerate(functions):
            function()
            start = time.perf_counter()
            function()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def main() -> None:
    count, jobs = threads(), pool()
    names = [[f"row_{i}_{j}" for j in range(len(row.calls))] for i, row in enumerate(ROWS)]
    functions = [JOB.format(name=n, call=c) for row, called in zip(ROWS, names) for n, c in zip(called, row.calls)]
    source = "".join(f'#include "{header.name}"\n' for header in HEADERS) + "".join(functions)
    library = compiler.compiled(source, HEADERS)
    print(f"GFLOP/s on {count} thread{'s' * (count > 1)}: the kernel, its weight gradient, NumPy's product")
    for row, called in zip(ROWS, names):
        arrays = [aligned(size) for size in row.sizes]
        pointers = (ctypes.c_void_p * 3)(*(a.ctypes.data for a in arrays))
        with_ = ctypes.addressof(pointers)
        work: list[Callable[[], object]] = []
        for name in called:
            address = ctypes.cast(library[name], ctypes.c_void_p).value or 0
            work.append(partial(jobs.run, address, with_, count))
        if row.peer:
            M, K, N = row.peer
            a, b, y = aligned(M * K).reshape(M, K), aligned(K * N).reshape(K, N), aligned(M * N).reshape(M, N)
            work.append(partial(np.matmul, a, b, out=y))
        print(f"{row.name:48}", *(f"{row.flops / seconds / 1e9:8.0f}" for seconds in shortest(work)))


if __name__ == "__main__":
    main()
