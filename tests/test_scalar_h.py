"""The functions of scalar.h: how far they are from the exact results, special numbers, and loops around them.

Where there is no C compiler nothing is collected.
"""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_compilers import all_of_them

from minigraph.backends import c
from minigraph.backends.c.compiler import compiled

FOLDER = Path(c.__file__).parent
HEADERS = (FOLDER / "prelude.h", FOLDER / "scalar.h")

# Units in the last place, as scalar.h states them, and the exact function in double.
LIMITS = {
    "exp": (1.01, "exp(x)"),
    "expm1": (1.6, "expm1(x)"),
    "tanh": (2.5, "tanh(x)"),
    "sinh": (2.4, "sinh(x)"),
    "cosh": (1.5, "cosh(x)"),
    "sigmoid": (2.41, "x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x))"),
    "log": (0.86, "log(x)"),
    "log1p": (1.5, "log1p(x)"),
    "softplus": (1.71, "x > 0 ? x + log1p(exp(-x)) : log1p(exp(x))"),
    "sin": (0.501, "sin(x)"),
    "cos": (0.501, "cos(x)"),
    "tan": (0.501, "tan(x)"),
    "asin": (2.4, "asin(x)"),
    "acos": (1.2, "acos(x)"),
    "atan": (1.6, "atan(x)"),
    "erf": (1.33, "erf(x)"),
    "rsqrt": (1.5, "1 / sqrt(x)"),
}
POW_LIMIT = 0.501
# without AVX2 or its like, compilers keep loops with loads from a table or with floor as they are
EVERYWHERE = sorted(LIMITS.keys() - {"sin", "cos", "tan"})

INCLUDES = '#include "prelude.h"\n#include "scalar.h"\n'
ONE = """
static double exact_{name}(double x) {{ return {exact}; }}
void try_{name}(const float *restrict x, float *restrict y, double *restrict exact, idx n) {{
#pragma omp simd
  for (idx i = 0; i < n; i++) y[i] = {name}_float(x[i]);
  for (idx i = 0; i < n; i++) exact[i] = exact_{name}(x[i]);
}}
"""
POW = """
void try_pow(const float *restrict x, const float *restrict p, float *restrict y, double *restrict exact, idx n) {
#pragma omp simd
  for (idx i = 0; i < n; i++) y[i] = pow_float(x[i], p[i]);
  for (idx i = 0; i < n; i++) exact[i] = pow(x[i], p[i]);
}
"""
SOURCE = INCLUDES + "".join(ONE.format(name=name, exact=exact) for name, (_, exact) in LIMITS.items()) + POW
SPECIAL = np.array(
    [0, 1, 0.5, 2, 3, 2.5, np.inf, 1e-45, 1.1754942e-38, 1.1754944e-38, 3.4028235e38, 1e-20, 2.0**-25, 2.0**-12]
    + [88.72283, 88.72284, 89.415985, 89.415993, 87.33655, 103.97208, 103.97209, 9.0109, 17.32868, 3.92, 3.9500003]
    + [0.99999994, 1.0000001, 0.41421357, 0.70710677, 1.5707964, 3.1415927, 16367173 * 2.0**72, 2.0**24, 2.0**24 - 1],
    "float32",
)


def run(name: str, *xs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a float function gives in a loop, and the double one."""
    library = compiled(SOURCE, HEADERS)
    y, exact = np.empty(xs[0].shape, "float32"), np.empty(xs[0].shape, "float64")
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*xs, y, exact)]
    getattr(library, f"try_{name}")(*pointers, ctypes.c_int64(y.size))
    return y, exact


def worst(y: np.ndarray, exact: np.ndarray) -> tuple[float, int]:
    """The largest error in units in the last place, and where; what is special must be the same, the sign of 0 too."""
    with np.errstate(all="ignore"):
        rounded = exact.astype("float32")
        special = ~np.isfinite(rounded) | ~np.isfinite(y) | (rounded == 0) | (y == 0)
        # the unit is that of the binade of the exact number
        unit = np.ldexp(1.0, np.maximum(np.frexp(exact)[1], -125) - 24)
        error = np.abs(y - exact) / unit
        overflow = np.isinf(y) & (np.abs(exact) > 2.0**128 * (1 - 2.0**-23)) & (np.sign(y) == np.sign(exact))
        underflow = (np.abs(y) < 2.0**-147) & (np.signbit(y) == np.signbit(exact)) & (exact != 0)
        same = (y == rounded) & (np.signbit(y) == np.signbit(rounded)) | np.isnan(y) & np.isnan(rounded)
        error = np.where(special & (same | overflow), 0, error)
        error = np.where(special & ~same & ~overflow & ~underflow, np.inf, error)
    at = int(np.argmax(error))
    return float(error[at]), at


def check(name: str, limit: float, *xs: np.ndarray) -> None:
    y, exact = run(name, *xs)
    error, at = worst(y, exact)
    given = ", ".join(str(x[at]) for x in xs)
    assert error <= limit, f"{name}({given}) is {y[at]} and not {exact[at]}: {error} ulp"


@pytest.mark.compiler
def test_functions_of_floats_are_as_near_as_they_say() -> None:
    """From all of the floats one in 16411, and the special ones."""
    some = np.arange(0, 2**32, 16411, dtype=np.int64).astype("uint32").view("float32")
    xs = np.concatenate([some, SPECIAL, -SPECIAL, np.array([np.nan], "float32")])
    for name, (limit, _) in LIMITS.items():
        check(name, limit, xs)


@pytest.mark.compiler
def test_powers_of_floats_are_as_near_as_they_say() -> None:
    special = np.concatenate([SPECIAL, -SPECIAL, np.array([np.nan, 16777215.0, 8388609.0, -3.0], "float32")])
    x, y = (a.ravel() for a in np.meshgrid(special, special))
    check("pow", POW_LIMIT, np.ascontiguousarray(x), np.ascontiguousarray(y))
    rng = np.random.default_rng(2)
    x = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view("float32")
    x = x[np.isfinite(x) & (x != 0)]
    with np.errstate(divide="ignore"):
        y = rng.uniform(-150, 150, x.size) / np.log2(np.abs(x.astype("float64")))
    y = np.where(rng.random(x.size) < 0.5, np.rint(y), y).astype("float32")
    check("pow", POW_LIMIT, x, y)
    half = np.rint(rng.uniform(-40, 40, x.size)).astype("float32") / np.float32(2)
    check("pow", POW_LIMIT, rng.normal(0, 3, x.size).astype("float32"), half)


@pytest.mark.gcc
def test_loops_are_vectorized(tmp_path: Path) -> None:
    """One loop for each function, of which gcc says that it made vectors of it."""
    by = all_of_them()["gcc"]
    loops = [f"  for (idx i = 0; i < n; i++) y[i] = {name}_float(x[i]);  // {name}" for name in EVERYWHERE]
    functions = [
        f"void try_{name}(const float *restrict x, float *restrict y, idx n) {{\n#pragma omp simd\n{loop}\n}}"
        for name, loop in zip(EVERYWHERE, loops)
    ]
    functions.append(
        "void narrow(const bfloat16 *restrict x, bfloat16 *restrict y, idx n) {\n#pragma omp simd\n"
        "  for (idx i = 0; i < n; i++) y[i] = bfloat16_of(1 + float_of_bfloat16(x[i]));  // bfloat16\n}"
    )
    text = INCLUDES + "\n".join(functions)
    source = tmp_path / "loops.c"
    source.write_text(text)
    command = [*by.command, *by.flags, f"-I{FOLDER}", "-fopt-info-vec-optimized", "-c", str(source)]
    said = subprocess.run([*command, "-o", str(tmp_path / "loops.o")], capture_output=True, text=True, check=True)
    lines = text.splitlines()
    vectorized = {line.split(":")[1] for line in said.stderr.splitlines() if "loop vectorized" in line}
    missing = [lines[i - 1] for i in range(1, len(lines) + 1) if "//" in lines[i - 1] and str(i) not in vectorized]
    assert not missing
