"""In place of the modules cudnn and nvmath: as much of them as programs use, on the stream of the GPU that a CPU plays.

Graphs and descriptors are kept as they are described, and computed in NumPy from what they say, when the stream comes
to it: a matrix where rows and columns were taken for each other, or a tensor for another, shows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from cupy_on_cpu import Stream
from library_on_cpu import seen

from minigraph.backends.cupy.libraries.cudnn import INEXACT
from minigraph.backends.cupy.libraries.patterns import Array
from minigraph.ops.conv import (
    conv_input_gradient_reference,
    conv_reference,
    conv_weight_gradient_reference,
)

WORKSPACE = 100  # bytes


def modules(stream: Callable[[], Stream]) -> dict[str, Any]:
    """By their names. stream: gives the current one."""
    nvmath, bindings, cublas = ModuleType("nvmath"), ModuleType("nvmath.bindings"), ModuleType("nvmath.bindings.cublas")
    named: Any = nvmath, bindings, cublas
    named[0].CudaDataType, named[0].__version__ = CudaDataType, "1.0.0"
    named[1].cublasLt, named[2].ComputeType = CublasLt(stream), ComputeType
    found = {module.__name__: module for module in (nvmath, bindings, cublas)}
    return {**found, "nvmath.bindings.cublasLt": named[1].cublasLt, "cudnn": cudnn(stream)}


def spoil(workspace: int) -> None:
    """Whatever lies in the workspace is lost."""
    assert workspace
    ctypes.memset(workspace, 0xA5, WORKSPACE)


# cudnn

NUMPY = {"FLOAT": "float32", "HALF": "float16", "BFLOAT16": "bfloat16"}


class NotSupported(Exception):
    """In place of cudnnGraphNotSupportedError."""


@dataclass
class Tensor:
    """compute: its numbers, from those that graphs are given. array: where these lie, of what is given or put out."""

    compute: Callable[[Mapping[int, int]], np.ndarray]
    said: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Callable[[Any], Tensor]:
        if not name.startswith("set_"):
            raise AttributeError(name)

        def note(value: Any) -> Tensor:
            self.said[name[4:]] = value
            return self

        return note

    @property
    def array(self) -> Array:
        said = self.said
        return Array(NUMPY[said["data_type"]], tuple(said["dim"]), tuple(said["stride"]), 16)


class Graph:
    """In place of a pygraph. It is made, validated, planned and built in this order, and executed then."""

    def __init__(self, stream: Callable[[], Stream], handle: SimpleNamespace, **types: Any):
        assert (types["intermediate_data_type"], types["compute_data_type"]) == ("FLOAT", "FLOAT")
        self.stream, self.handle, self.made = stream, handle, list[Tensor]()
        self.steps: list[str] = []

    def tensor(self, name: str, uid: int, **said: Any) -> Tensor:
        tensor = Tensor(lambda pointers: seen(tensor.array, pointers[uid]).astype(np.float64), said)
        return tensor

    def _made(self, compute: Callable[[Mapping[int, int]], np.ndarray]) -> Tensor:
        self.made.append(Tensor(compute))
        return self.made[-1]

    def conv_fprop(self, image: Tensor, weight: Tensor, **how: Any) -> Tensor:
        attrs = _attrs(image.array.sizes[1] // weight.array.sizes[1], len(image.array.sizes), **how)
        return self._made(lambda at: conv_reference(image.compute(at), weight.compute(at), **attrs))

    def conv_dgrad(self, loss: Tensor, filter: Tensor, **how: Any) -> Tensor:
        def compute(at: Mapping[int, int]) -> np.ndarray:
            _, channels, *extents = made.said["dim"]
            attrs = _attrs(channels // filter.array.sizes[1], len(extents) + 2, **how)
            return conv_input_gradient_reference(loss.compute(at), filter.compute(at), extents=tuple(extents), **attrs)

        made = self._made(compute)
        return made

    def conv_wgrad(self, image: Tensor, loss: Tensor, **how: Any) -> Tensor:
        def compute(at: Mapping[int, int]) -> np.ndarray:
            _, channels, *window = made.said["dim"]
            attrs = _attrs(image.array.sizes[1] // channels, len(window) + 2, **how)
            return conv_weight_gradient_reference(image.compute(at), loss.compute(at), window=tuple(window), **attrs)

        made = self._made(compute)
        return made

    def bias(self, input: Tensor, bias: Tensor) -> Tensor:
        return self._made(lambda at: input.compute(at) + bias.compute(at))

    def relu(self, input: Tensor) -> Tensor:
        return self._made(lambda at: np.maximum(input.compute(at), 0))

    def validate(self) -> None:
        self.steps.append("validate")

    def build_operation_graph(self) -> None:
        self.steps.append("build_operation_graph")

    def create_execution_plans(self, modes: list[str]) -> None:
        self.steps.append("create_execution_plans")

    def deselect_numeric_notes(self, notes: list[str]) -> None:
        assert set(INEXACT) <= set(notes)
        assert self.steps[-1] == "create_execution_plans"

    def deselect_workspace_greater_than(self, nbytes: int) -> None:
        assert nbytes > WORKSPACE

    def select_numeric_notes(self, notes: list[str]) -> None:
        assert notes == ["STRICT_NAN_PROP"]

    def check_support(self) -> None:
        self.steps.append("check_support")

    def build_plans(self) -> None:
        self.steps.append("build_plans")

    def get_workspace_size(self) -> int:
        assert self.steps[-1] == "build_plans"
        return WORKSPACE

    def execute(self, pointers: Mapping[int, int], workspace: int, handle: SimpleNamespace) -> None:
        assert handle is self.handle
        assert all(type(pointer) is int for pointer in (*pointers.values(), workspace))
        current = self.stream()
        assert current.ptr == handle.stream

        def run() -> None:
            spoil(workspace)
            (result,) = (tensor for tensor in self.made if tensor.said.get("output"))
            target = seen(result.array, pointers[result.said["uid"]])
            with np.errstate(all="ignore"):
                target[...] = result.compute(pointers).astype(np.float32).astype(target.dtype)

        current.add(run)


def _attrs(groups: int, rank: int, **how: Any) -> dict[str, Any]:
    padding = tuple(zip(how["pre_padding"], how["post_padding"], strict=True))
    stride, dilation, layout = tuple(how["stride"]), tuple(how["dilation"]), "NC" + "DHW"[5 - rank :]
    return {"groups": groups, "stride": stride, "padding": padding, "dilation": dilation, "layout": layout}


def cudnn(stream: Callable[[], Stream]) -> ModuleType:
    module: Any = ModuleType("cudnn")
    module.__version__, module.backend_version = "1.28.0", lambda: 92800
    module.data_type = SimpleNamespace(**{name: name for name in NUMPY})
    module.heur_mode = SimpleNamespace(A="A", FALLBACK="FALLBACK")
    module.numerical_note = SimpleNamespace(**{name: name for name in (*INEXACT, "TENSOR_CORE", "STRICT_NAN_PROP")})
    module.cudnnGraphNotSupportedError = NotSupported
    module.create_handle = lambda: SimpleNamespace(stream=0)
    module.set_stream = lambda handle, number: setattr(handle, "stream", number)
    module.pygraph = lambda handle, **types: Graph(stream, handle, **types)
    return module


# nvmath.bindings.cublasLt


class CudaDataType(IntEnum):
    CUDA_R_32F = 0
    CUDA_R_16F = 2
    CUDA_R_16BF = 14


class ComputeType(IntEnum):
    COMPUTE_32F = 68
    COMPUTE_32F_FAST_TF32 = 77


class MatmulDescAttribute(IntEnum):
    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8


class MatrixLayoutAttribute(IntEnum):
    BATCH_COUNT = 5
    STRIDED_BATCH_OFFSET = 6


class MatmulPreferenceAttribute(IntEnum):
    MAX_WORKSPACE_BYTES = 1
    REDUCTION_SCHEME_MASK = 3
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


class CuBLASLtError(Exception):
    """In place of cuBLASLtError."""


DTYPES = {0: "float32", 2: "float16", 14: "bfloat16"}
BIAS = 4


class CublasLt(ModuleType):
    """Matrices in columns."""

    cuBLASLtError = CuBLASLtError
    MatmulDescAttribute, MatrixLayoutAttribute = MatmulDescAttribute, MatrixLayoutAttribute
    MatmulPreferenceAttribute = MatmulPreferenceAttribute
    ReductionScheme, Epilogue = SimpleNamespace(COMPUTE_TYPE=2), SimpleNamespace(BIAS=BIAS)
    matmul_heuristic_result_dtype = np.dtype([("algo", "<u8", 8), ("workspace_size", "<u8"), ("state", "<i4")])

    def __init__(self, stream: Callable[[], Stream]):
        super().__init__("nvmath.bindings.cublasLt")
        self.stream = stream
        self.made: dict[int, dict[Any, Any]] = {}
        self.attribute_dtype = lambda which: np.int64 if which in (1, 6, 8) else np.int32
        for kind in ("matmul_desc", "matrix_layout", "matmul_preference"):
            setattr(self, f"get_{kind}_attribute_dtype", self.attribute_dtype)
            setattr(self, f"{kind}_set_attribute", self._set)

    def create(self) -> int:
        return 7

    def get_version(self) -> int:
        return 130_100

    def _make(self, **said: Any) -> int:
        self.made[len(self.made) + 1] = said
        return len(self.made)

    def matmul_desc_create(self, compute: int, scale: int) -> int:
        return self._make(compute=compute, scale=scale)

    def matrix_layout_create(self, type: int, rows: int, columns: int, apart: int) -> int:
        return self._make(type=type, rows=rows, columns=columns, apart=apart)

    def matmul_preference_create(self) -> int:
        return self._make()

    def matmul_preference_destroy(self, preference: int) -> None:
        assert self.made[preference][MatmulPreferenceAttribute.REDUCTION_SCHEME_MASK] == 2

    def _set(self, of: int, which: int, address: int, nbytes: int) -> None:
        raw = ctypes.string_at(address, nbytes)
        self.made[of][which] = int(np.frombuffer(raw, self.attribute_dtype(which))[0])

    def matmul_algo_get_heuristic(self, handle: int, *rest: int) -> None:
        *_, asked, results, count = rest
        found = np.zeros(asked, self.matmul_heuristic_result_dtype)
        found["state"][0], found["workspace_size"] = 1, WORKSPACE  # the first is not for this GPU
        ctypes.memmove(results, found.ctypes.data, found.nbytes)
        ctypes.c_int32.from_address(count).value = 2

    def matmul(self, handle: int, product: int, alpha: int, *rest: int) -> None:
        a, of_a, b, of_b, beta, c, of_c, d, of_d, _, workspace, nbytes, stream = rest
        assert (c, of_c, nbytes) == (d, of_d, WORKSPACE)
        assert [ctypes.c_float.from_address(factor).value for factor in (alpha, beta)] == [1, 0]
        current, described = self.stream(), dict(self.made[product])
        assert current.ptr == stream

        def run() -> None:
            spoil(workspace)
            first, second, result = (self._matrices(of, at) for of, at in ((of_a, a), (of_b, b), (of_d, d)))
            first = first.swapaxes(1, 2) if described.get(MatmulDescAttribute.TRANSA) else first
            second = second.swapaxes(1, 2) if described.get(MatmulDescAttribute.TRANSB) else second
            found = first.astype(np.float64) @ second.astype(np.float64)
            if described.get(MatmulDescAttribute.EPILOGUE) == BIAS:
                rows = Array(result.dtype.name, (result.shape[1],), (1,), 1)
                found = found + seen(rows, described[MatmulDescAttribute.BIAS_POINTER])[:, None].astype(np.float64)
            result[...] = found.astype(np.float32).astype(result.dtype)

        current.add(run)

    def _matrices(self, layout: int, address: int) -> np.ndarray:
        said = self.made[layout]
        count = said.get(MatrixLayoutAttribute.BATCH_COUNT, 1)
        strides = (said.get(MatrixLayoutAttribute.STRIDED_BATCH_OFFSET, 0), 1, said["apart"])
        assert said["apart"] >= said["rows"]
        return seen(Array(DTYPES[said["type"]], (count, said["rows"], said["columns"]), strides, 1), address)
