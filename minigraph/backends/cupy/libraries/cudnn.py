"""cuDNN: convolutions and their gradients, through the graphs of its frontend.

Its engines are asked for in the order of its own heuristics. Left out are those whose results may differ from run to
run, those that make inputs or sums narrower, those that transform them (Winograd, FFT), those that work in more than
MOST_WORKSPACE, and, in strict float32, those of tensor cores, which round to tf32. Where relu follows, only those
remain that keep NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minigraph.backends.cupy.libraries.patterns import Array, Convolution, Failed, Missing, Pattern

ALIGNMENT = 16  # bytes: what engines take for granted
MOST_WORKSPACE = 128 << 20  # bytes
DTYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BFLOAT16"}
INEXACT = (
    "NONDETERMINISTIC",
    "DOWN_CONVERT_INPUTS",
    "REDUCED_PRECISION_REDUCTION",
    "FFT",
    "WINOGRAD",
    "WINOGRAD_TILE_4x4",
    "WINOGRAD_TILE_6x6",
    "WINOGRAD_TILE_13x13",
)
UIDS = {"x": 1, "w": 2, "y": 3, "b": 4}


def loaded() -> Any:
    """The module. Raises Missing."""
    try:
        import cudnn
    except ImportError as error:
        raise Missing(f"nvidia-cudnn-frontend is not installed ({error})") from None
    try:
        cudnn.backend_version()
    except RuntimeError as error:
        raise Missing(f"nvidia-cudnn-frontend finds no libcudnn.so.9 ({error})") from None
    return cudnn


def version() -> str:
    """Of the library, and of its frontend. Raises Missing."""
    cudnn = loaded()
    number = cudnn.backend_version()
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}, frontend {cudnn.__version__}"


class Cudnn:
    """For the current GPU."""

    def __init__(self, stream: int):
        """Raises Missing."""
        self._cudnn = loaded()
        try:
            self._handle = self._cudnn.create_handle()
            self._cudnn.set_stream(self._handle, stream)
        except RuntimeError as error:
            raise Missing(f"cuDNN does not start ({error})") from None
        self._known: dict[Convolution, _Routine | None] = {}

    def routine(self, pattern: Pattern) -> _Routine | None:
        if not isinstance(pattern, Convolution) or not takes(pattern):
            return None
        if pattern not in self._known:
            self._known[pattern] = self._planned(pattern)
        return self._known[pattern]

    def _planned(self, pattern: Convolution) -> _Routine | None:
        cudnn = self._cudnn
        try:
            graph = drawn(cudnn, pattern, handle=self._handle)
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
            graph.deselect_numeric_notes(refused(cudnn, pattern))
            graph.deselect_workspace_greater_than(MOST_WORKSPACE)
            if pattern.relu:
                graph.select_numeric_notes([cudnn.numerical_note.STRICT_NAN_PROP])
            graph.check_support()
            graph.build_plans()
        except (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError):  # how it says no, from version to version
            return None
        uids = tuple(UIDS[name] for name in pattern.names)
        return _Routine(f"cudnn: {pattern}", int(graph.get_workspace_size()), graph, uids, self._handle)


def takes(pattern: Convolution) -> bool:
    """Whether it is worth asking: for dtypes that it knows, at addresses that it can read."""
    arrays = (pattern.x, pattern.w, pattern.y)
    return pattern.x.dtype in DTYPES and all(array.alignment % ALIGNMENT == 0 for array in arrays)


def refused(cudnn: Any, pattern: Convolution) -> list[Any]:
    """The notes of engines that must not compute a pattern."""
    strict = pattern.x.dtype == "float32" and not pattern.tf32
    return [getattr(cudnn.numerical_note, name) for name in (*INEXACT, *(["TENSOR_CORE"] if strict else []))]


def drawn(cudnn: Any, pattern: Convolution, **options: Any) -> Any:
    """The pattern as a graph of cuDNN's, whose tensors have the numbers of UIDS. options: of the graph."""
    narrow, wide = getattr(cudnn.data_type, DTYPES[pattern.x.dtype]), cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=narrow, intermediate_data_type=wide, compute_data_type=wide, **options)

    def given(name: str, array: Array) -> Any:
        return graph.tensor(
            name=name, dim=[*array.sizes], stride=[*array.strides], data_type=narrow, is_virtual=False, uid=UIDS[name]
        )

    how: dict[str, Any] = {
        "pre_padding": [before for before, _ in pattern.padding],
        "post_padding": [behind for _, behind in pattern.padding],
        "stride": [*pattern.stride],
        "dilation": [*pattern.dilation],
        "compute_data_type": wide,
    }
    if pattern.op == "conv":
        result, array = graph.conv_fprop(image=given("x", pattern.x), weight=given("w", pattern.w), **how), pattern.y
    elif pattern.op == "conv_input_gradient":
        result, array = graph.conv_dgrad(loss=given("y", pattern.y), filter=given("w", pattern.w), **how), pattern.x
    else:
        result, array = graph.conv_wgrad(image=given("x", pattern.x), loss=given("y", pattern.y), **how), pattern.w
    result.set_dim([*array.sizes])
    if pattern.bias:
        outputs, ones = array.sizes[1], [1] * (len(array.sizes) - 2)
        row = Array(array.dtype, (1, outputs, *ones), (outputs, 1, *(outputs for _ in ones)), ALIGNMENT)
        result = graph.bias(input=result, bias=given("b", row))
    if pattern.relu:
        result = graph.relu(input=result)
    result.set_output(True).set_data_type(narrow).set_dim([*array.sizes]).set_stride([*array.strides])
    result.set_uid(UIDS[pattern.names[-1]])
    return graph


@dataclass(frozen=True)
class _Routine:
    """A graph whose plan is built. uids: in the order of the addresses."""

    name: str
    workspace: int
    graph: Any
    uids: tuple[int, ...]
    handle: Any

    def run(self, addresses: Sequence[int]) -> None:
        pointers = dict(zip(self.uids, addresses))
        try:
            self.graph.execute(pointers, addresses[-1] if self.workspace else 0, handle=self.handle)
        except RuntimeError as error:
            raise Failed(str(error)) from error
