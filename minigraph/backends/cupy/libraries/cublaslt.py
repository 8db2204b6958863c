"""cublasLt: matrix products, through the bindings of nvmath-python.

Its matrices lie in columns, so that y = a b in rows is its y' = b' a', with a bias for each of its rows. What it takes
for fastest is taken, among the algorithms that add up the parts of a sum apart from each other and in order; float32
is strict unless the pattern says tf32. Whether its relu keeps NaN is nowhere written: ours follows, which does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigraph.backends.cupy.libraries.patterns import Array, Failed, Missing, Pattern, Product

MOST_WORKSPACE = 32 << 20  # bytes; what NVIDIA advises for Hopper
ASKED = 8  # algorithms, the fastest first
DTYPES = {"float32": "CUDA_R_32F", "float16": "CUDA_R_16F", "bfloat16": "CUDA_R_16BF"}
TRANSPOSED = 1  # of cublasOperation_t
FACTORS = np.array([1, 0], np.float32)  # of the product, and of what lies in the result: read when it is handed over


@dataclass(frozen=True)
class _Names:
    """The modules of the bindings that are needed."""

    lt: Any
    compute: Any
    types: Any


def loaded() -> _Names:
    """The bindings. Raises Missing."""
    try:
        from nvmath import CudaDataType
        from nvmath.bindings import cublasLt
        from nvmath.bindings.cublas import ComputeType
    except ImportError as error:
        raise Missing(f"nvmath-python is not installed ({error})") from None
    return _Names(cublasLt, ComputeType, CudaDataType)


def version() -> str:
    """Of the library, and of its bindings. Raises Missing."""
    names = loaded()
    import nvmath

    try:
        number = int(names.lt.get_version())
    except RuntimeError as error:
        raise Missing(f"nvmath-python finds no libcublasLt ({error})") from None
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}, nvmath-python {nvmath.__version__}"


class CublasLt:
    """For the current GPU."""

    def __init__(self, stream: int):
        """Raises Missing."""
        self._names, self._stream = loaded(), stream
        try:
            self._handle = int(self._names.lt.create())
        except (RuntimeError, self._names.lt.cuBLASLtError) as error:
            raise Missing(f"cublasLt does not start ({error})") from None
        self._known: dict[Product, _Routine | None] = {}

    def routine(self, pattern: Pattern) -> _Routine | None:
        if not isinstance(pattern, Product) or pattern.relu or pattern.a.dtype not in DTYPES:
            return None
        if pattern not in self._known:
            self._known[pattern] = self._planned(pattern)
        return self._known[pattern]

    def _planned(self, pattern: Product) -> _Routine | None:
        lt = self._names.lt
        described = Described.of(self._names, pattern)
        if described is None:
            return None
        preference = lt.matmul_preference_create()
        try:
            attribute = lt.MatmulPreferenceAttribute
            setting = lambda which, value: _set(lt, "matmul_preference", preference, which, value)
            setting(attribute.MAX_WORKSPACE_BYTES, MOST_WORKSPACE)
            setting(attribute.REDUCTION_SCHEME_MASK, int(lt.ReductionScheme.COMPUTE_TYPE))
            setting(attribute.MIN_ALIGNMENT_A_BYTES, pattern.b.alignment)
            setting(attribute.MIN_ALIGNMENT_B_BYTES, pattern.a.alignment)
            setting(attribute.MIN_ALIGNMENT_C_BYTES, pattern.y.alignment)
            setting(attribute.MIN_ALIGNMENT_D_BYTES, pattern.y.alignment)
            found, count = np.zeros(ASKED, lt.matmul_heuristic_result_dtype), np.zeros(1, np.int32)
            layouts = (described.first, described.second, described.result, described.result)
            lt.matmul_algo_get_heuristic(
                self._handle, described.product, *layouts, preference, ASKED, found.ctypes.data, count.ctypes.data
            )
        except lt.cuBLASLtError:
            return None
        finally:
            lt.matmul_preference_destroy(preference)
        best = next((one for one in found[: count[0]] if one["state"] == 0), None)
        if best is None:
            return None
        algorithm, workspace = best["algo"].copy(), int(best["workspace_size"])
        return _Routine(f"cublaslt: {pattern}", workspace, pattern, described, algorithm, self._handle, self._stream)


@dataclass(frozen=True)
class Matrices:
    """So many matrices in columns, or their transposes: how they lie in memory."""

    dtype: str
    rows: int
    columns: int
    apart: int  # from a column to the next
    transposed: bool
    count: int
    step: int  # from a matrix to the next

    @staticmethod
    def of(array: Array) -> Matrices | None:
        """Those whose transposes, in columns, are an array of matrices; None if they have no line of neighbours."""
        count, rows, columns = array.sizes
        step, down, across = array.strides
        if (across == 1 or columns == 1) and (rows == 1 or down >= columns):
            return Matrices(array.dtype, columns, rows, max(down, columns), False, count, step)
        if (down == 1 or rows == 1) and (columns == 1 or across >= rows):
            return Matrices(array.dtype, rows, columns, max(across, rows), True, count, step)
        return None


@dataclass(frozen=True)
class Described:
    """The descriptors of a product: y' = first x second. They live as long as the process, as few as patterns are."""

    lt: Any
    product: int
    first: int
    second: int
    result: int

    @staticmethod
    def of(names: _Names, pattern: Product) -> Described | None:
        first, second, result = (Matrices.of(array) for array in (pattern.b, pattern.a, pattern.y))
        if first is None or second is None or result is None:
            return None
        lt, fast = names.lt, pattern.tf32
        compute = names.compute.COMPUTE_32F_FAST_TF32 if fast else names.compute.COMPUTE_32F
        product = lt.matmul_desc_create(int(compute), int(names.types.CUDA_R_32F))
        attribute = lt.MatmulDescAttribute
        for which, matrices in ((attribute.TRANSA, first), (attribute.TRANSB, second)):
            if matrices.transposed:
                _set(lt, "matmul_desc", product, which, TRANSPOSED)
        if pattern.bias:
            _set(lt, "matmul_desc", product, attribute.EPILOGUE, int(lt.Epilogue.BIAS))
            _set(lt, "matmul_desc", product, attribute.BIAS_POINTER, 256)  # some address: none is taken for no bias
        return Described(lt, int(product), *(_layout(names, matrices) for matrices in (first, second, result)))


def _layout(names: _Names, matrices: Matrices) -> int:
    lt = names.lt
    type_ = int(getattr(names.types, DTYPES[matrices.dtype]))
    layout = int(lt.matrix_layout_create(type_, matrices.rows, matrices.columns, matrices.apart))
    if matrices.count > 1:
        _set(lt, "matrix_layout", layout, lt.MatrixLayoutAttribute.BATCH_COUNT, matrices.count)
        _set(lt, "matrix_layout", layout, lt.MatrixLayoutAttribute.STRIDED_BATCH_OFFSET, matrices.step)
    return layout


def _set(lt: Any, kind: str, of: int, which: Any, value: int) -> None:
    """An attribute of a descriptor, in the type that it has."""
    held = np.array([value], getattr(lt, f"get_{kind}_attribute_dtype")(which))
    getattr(lt, f"{kind}_set_attribute")(of, int(which), held.ctypes.data, held.nbytes)


@dataclass(frozen=True, eq=False)
class _Routine:
    name: str
    workspace: int
    pattern: Product
    described: Described
    algorithm: np.ndarray
    handle: int
    stream: int

    def run(self, addresses: Sequence[int]) -> None:
        a, b, *bias, y = addresses[: 4 if self.pattern.bias else 3]
        lt, made = self.described.lt, self.described
        if bias:
            _set(lt, "matmul_desc", made.product, lt.MatmulDescAttribute.BIAS_POINTER, bias[0])
        one = FACTORS.ctypes.data
        result = (one + FACTORS.itemsize, y, made.result, y, made.result)
        work = (addresses[-1], self.workspace) if self.workspace else (0, 0)
        algorithm = self.algorithm.ctypes.data
        try:
            lt.matmul(
                self.handle, made.product, one, b, made.first, a, made.second, *result, algorithm, *work, self.stream
            )
        except lt.cuBLASLtError as error:
            raise Failed(str(error)) from error
