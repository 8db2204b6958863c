"""Every op of the registry against an implementation that is not ours: ONNX's reference evaluator, or loops.

The oracle computes in float64 from the very numbers that the op gets (rounded to the dtype that is tried), so what
differs is the op's own rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import independent
import minigraph as mg
import onnx_ops
from cases import INF, NAN, Case, Statistics, These, channel, positive, real, truth, whole
from minigraph.core.dtypes import FLOATS, NARROW, epsilon, is_float, wide_dtype

# What neither ONNX nor a loop in onnx_ops.py computes, and where it is tested instead.
ELSEWHERE = {
    "random_bits": "bits have no counterpart in ONNX; tests/test_random.py computes Philox with Python's integers",
    "dropout": "its mask is made of random_bits; tests/test_random.py derives it from those",
    "moments": "one of its results is what rounds another; tests/test_moments.py holds it against fractions",
}

# Moved, chosen and compared numbers are not computed with: these ops are right to the last bit.
EXACT = {
    "reshape",
    "transpose",
    "broadcast_to",
    "concat",
    "slice",
    "unslice",
    "pad",
    "where",
    "max",
    "max_pool",
    "max_pool_select",
    "stop_gradient",
    "constant",
    "fill",
    "relu",
    "neg",
}


EDGES = These([NAN, -INF, INF, 0.0, -0.0, 1.0, -1.0, 3.5])
WIDE = These([-90.0, -20.0, -1e-3, 0.0, 1e-3, 20.0, 90.0])  # saturates sigmoid and tanh

POINTWISE = [
    *(
        Case(op, *shapes)
        for op in ("add", "sub", "mul")
        for shapes in (
            (real(3, 5), real(3, 5)),
            (real(7, 1, 3), real(5, 1)),
            (real(), real(3)),
            (real(0, 3), real(1, 3)),
            (real(1), real(0)),
            (whole(3, 5), whole(5)),
            (whole(4, dtype="int32"), whole(1, dtype="int32")),
            (EDGES, These(1.5)),
        )
    ),
    *(Case(op, *shapes) for op in ("add", "mul") for shapes in ((whole(9, low=0, below=256, dtype="uint8"),) * 2,)),
    Case("div", real(3, 5), positive(3, 5)),
    Case("div", real(7, 1, 3), positive(5, 1)),
    Case("div", real(0, 3), positive(3)),
    Case("div", EDGES, These([0.0])),
    Case("div", These([1.0]), EDGES),
    *(
        Case(op, *inputs)
        for op in ("exp", "tanh", "sigmoid", "sin", "cos", "relu", "neg", "stop_gradient")
        for inputs in ((real(3, 5),), (real(),), (real(0, 3),), (real(3, 1, 7),))
    ),
    *(Case(op, EDGES) for op in ("exp", "tanh", "sigmoid", "sin", "cos", "relu", "neg", "sqrt", "log")),
    *(Case(op, WIDE) for op in ("tanh", "sigmoid")),
    *(Case(op, *inputs) for op in ("log", "sqrt") for inputs in ((positive(3, 5),), (positive(),), (positive(0, 3),))),
    Case("neg", whole(7)),
    Case("neg", whole(7, dtype="int8")),
    *(
        Case(op, *inputs)
        for op in ("equal", "less", "less_equal")
        for inputs in (
            (whole(3, 7, below=3, low=0), whole(7, below=3, low=0)),
            (real(2, 1, 3), real(5, 1)),
            (real(0, 3), real(3)),
            (EDGES, EDGES),
            (EDGES, These([0.0])),
            (whole(9, low=0, below=3, dtype="uint8"), whole(9, low=0, below=3, dtype="uint8")),
        )
    ),
    Case("equal", truth(9), truth(9)),
    *(
        Case(op, *inputs)
        for op in ("logical_and", "logical_or")
        for inputs in ((truth(4, 7), truth(7)), (truth(0), truth()), (truth(5, 1), truth(1, 5)))
    ),
    Case("logical_not", truth(3, 5)),
    Case("logical_not", truth(0)),
    Case("where", truth(3, 5), real(3, 5), real(3, 5)),
    Case("where", truth(3, 1), real(), real(5)),
    Case("where", truth(0, 3), real(3), real(0, 1)),
    Case("where", truth(8), EDGES, real()),
    Case("where", truth(5), whole(5), whole(1)),
    Case("where", truth(5), truth(5), truth(5)),
]

CASTS = [
    *(Case("cast", real(3, 5), dtype=dtype) for dtype in (*FLOATS, "int32", "int64", "int8", "bool")),
    *(Case("cast", whole(9), dtype=dtype) for dtype in (*FLOATS, "int8", "uint8", "bool")),  # -9 as uint8 is 247
    *(Case("cast", truth(9), dtype=dtype) for dtype in ("float32", "int64")),
    Case("cast", real(0, 2), dtype="int32"),
    Case("cast", These([1e6, -70000.0]), dtype="float16", dtypes=("float32", "float64")),
    Case("cast", These([1e6, -3.4e38, 3.4e38]), dtype="bfloat16", dtypes=("float32", "float64")),
    Case("cast", These([0.1, 1 / 3]), dtype="float32", dtypes=("float64",)),
    Case("cast", These([NAN, INF]), dtype="float64"),
]

REDUCTIONS = [
    *(
        Case(op, x, **attrs)
        for op in ("sum", "mean", "max")
        for x, attrs in (
            (real(3, 5), {}),
            (real(3, 4, 5), {"axes": (0, -1)}),
            (real(3, 1, 5), {"axes": 1, "keepdims": True}),
            (real(3, 5), {"axes": ()}),
            (real(7), {"axes": 0}),
            (real(1, 1), {}),
            (real(0, 3), {"axes": 1}),
            (real(2, 3, 4, 5), {"axes": (-1, 1), "keepdims": True}),
            (EDGES, {}),
            (These([[-INF, 1.0], [-INF, -INF]]), {"axes": 1}),
        )
    ),
    Case("sum", real(0, 3), axes=0),
    Case("sum", real(0, 3)),
    Case("sum", real()),
    Case("mean", real()),
    Case("mean", real(0, 3), axes=0),
    Case("sum", whole(3, 7), axes=0),
    Case("sum", whole(3, 7, dtype="int32"), axes=(0, 1)),
    Case("max", whole(3, 7), axes=1),
    *(
        Case("argmax", x, **attrs)
        for x, attrs in (
            (real(3, 5), {}),
            (real(3, 4, 1), {"axis": 1, "keepdims": True}),
            (real(3, 4, 1), {"axis": 2}),
            (real(0, 3), {}),
            (whole(5, 9, low=0, below=3), {}),
            (whole(5, 9, low=0, below=3), {"axis": 0}),
            (EDGES, {"axis": 0}),
        )
    ),
]

SHAPES = [
    *(
        Case("reshape", x, shape=shape)
        for x, shape in (
            (real(2, 6), (3, -1)),
            (real(0, 4), (0, 2, 2)),
            (real(), (1, 1)),
            (real(3), (3,)),
            (whole(4), (2, 2)),
            (real(1, 1), ()),
        )
    ),
    *(
        Case("transpose", x, **attrs)
        for x, attrs in (
            (real(3, 5), {}),
            (real(2, 3, 4), {"axes": (2, 0, 1)}),
            (real(0, 3), {"axes": (1, 0)}),
            (real(2, 1, 3), {"axes": (0, -1, 1)}),
            (real(2, 3, 4, 5), {"axes": (1, 3, 0, 2)}),
            (truth(2, 3), {}),
        )
    ),
    *(
        Case("broadcast_to", x, shape=shape)
        for x, shape in (
            (real(3), (2, 3)),
            (real(2, 1, 3), (4, 2, 5, 3)),
            (real(), (2, 2)),
            (real(1, 3), (0, 3)),
            (real(2), (2,)),
            (whole(1), (3,)),
        )
    ),
    Case("concat", real(2, 3), real(2, 1), axis=1),
    Case("concat", real(3)),
    Case("concat", real(0, 2), real(2, 2), real(1, 2)),
    Case("concat", real(2, 3, 1), real(2, 3, 4), axis=-1),
    Case("concat", whole(2), whole(3)),
    Case("concat", truth(2), truth(1)),
    *(
        Case("slice", x, **attrs)
        for x, attrs in (
            (real(5, 4), {"start": (1, None), "stop": (4, -1)}),
            (real(7), {"start": (0,), "stop": (None,), "step": (3,)}),
            (real(0, 3), {"start": (0, 1), "stop": (None, 2)}),
            (real(4), {"start": (3,), "stop": (1,)}),
            (real(7, 5), {"start": (-5, 1), "stop": (-1, 99), "step": (2, 3)}),
            (real(3), {"start": (-9,), "stop": (-7,)}),
            (whole(6), {"start": (-2,), "stop": (99,)}),
            (real(6), {"start": (5,), "stop": (6,), "step": (4,)}),
            (real(2, 3), {"start": (None, 9), "stop": (None, None)}),
        )
    ),
    *(
        Case("unslice", g, **attrs)
        for g, attrs in (
            (real(3, 2), {"shape": (5, 4), "start": (1, 0), "step": (1, 2)}),
            (real(0, 2), {"shape": (3, 2), "start": (0, 0), "step": (1, 1)}),
            (real(3), {"shape": (9,), "start": (1,), "step": (3,)}),
            (real(3), {"shape": (9,), "start": (2,), "step": (3,)}),
        )
    ),
    Case("pad", real(2, 3), widths=((1, 0), (0, 2)), value=0.5),
    Case("pad", real(0, 2), widths=((0, 0), (1, 1))),
    Case("pad", real(3), widths=((2, 1),)),
    Case("pad", whole(3), widths=((2, 1),), value=7),
    Case("pad", real(2), widths=((0, 0),)),
    Case("pad", real(1, 2), widths=((0, 1), (3, 0)), value=-INF),
]

CONSTANTS = [
    Case("fill", value=0.5),
    Case("fill", value=2, shape=(0, 3), dtype="int64"),
    Case("fill", value=True, shape=(2,), dtype="bool"),
    Case("fill", value=INF, shape=(2, 1), dtype="float64"),
    *(Case("fill", value=0.1, shape=(3,), dtype=dtype) for dtype in NARROW),
    Case("constant", value=np.arange(6.0).reshape(2, 3)),
    Case("constant", value=np.zeros((0, 2), np.float32)),
    Case("constant", value=np.array([1, 2, 3])),
    Case("count", real(2, 3, 4), axes=(0, 2)),
    Case("count", real(0, 3), axes=(0,)),
    Case("count", real(3), axes=(-1,), dtype="int64"),
]

MATMUL = [
    Case("matmul", real(3, 5), real(5, 7)),
    Case("matmul", real(2, 3, 1), real(1, 5)),
    Case("matmul", real(3, 1, 2, 5), real(4, 5, 3)),
    Case("matmul", real(0, 3), real(3, 2)),
    Case("matmul", real(2, 0), real(0, 3)),
    Case("matmul", real(1, 3, 2), real(5, 2, 1)),
    Case("matmul", real(17, 33), real(33, 9)),
    Case("matmul", real(3, 2), real(0, 2, 4)),
]

ENTROPIES: list[tuple[Any, Any, dict[str, Any]]] = [
    (real(5, 3), whole(5, low=0, below=3), {}),
    (real(2, 3, 2), whole(2, 2, low=0, below=3), {"reduction": "sum"}),
    (real(3, 2), whole(3, low=0, below=2, dtype="int32"), {"reduction": "none"}),
    *(
        (real(0, 3), whole(0, low=0, below=3), {"reduction": reduction, "loops": True})
        for reduction in ("sum", "mean", "none")
    ),
    (real(2, 3, 5), whole(2, 3, low=0, below=5), {"axis": -1}),
    (real(2, 3, 4, 5), whole(2, 4, 5, low=0, below=3), {"reduction": "none"}),
    (real(4, 1), whole(4, low=0, below=1), {}),
    (These([[1000.0, -1000.0], [-1000.0, 1000.0]]), whole(2, low=0, below=2), {"reduction": "none", "loops": True}),
]

LOSSES = [
    *(
        Case(op, x, **attrs)
        for op in ("softmax", "log_softmax")
        for x, attrs in (
            (real(3, 5), {}),
            (real(3, 5, 4), {"axis": 1}),
            (real(3, 5), {"axis": 0}),
            (real(0, 3), {}),
            (real(2, 1), {}),
            (real(5), {}),
            (These([[1000.0, 0.0, -1000.0], [-INF, 0.0, 1.0]]), {"loops": op == "log_softmax"}),
        )
    ),
    Case("one_hot", whole(4, low=0, below=3), classes=3),
    Case("one_hot", whole(2, 3, low=0, below=2), classes=2, axis=1, dtype="bool"),
    Case("one_hot", whole(0, low=0, below=3), classes=3),
    Case("one_hot", whole(3, 2, low=0, below=5), classes=5, axis=0, dtype="int32"),
    Case("one_hot", whole(low=0, below=5), classes=5, dtype="float64"),
    *(Case("cross_entropy", x, labels, **attrs) for x, labels, attrs in ENTROPIES),
]

EPS = 2.0**-17  # ONNX holds epsilon in float32, where 1e-5 is another number
NORMALIZED: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((5, 3), {}),
    ((3, 2, 7), {"eps": 2.0**-10}),
    ((2, 3, 3, 1), {}),
    ((2, 3, 5, 4), {"axis": -1}),
    ((3, 4, 5), {"axis": 0}),
    ((1, 2, 2, 1, 3), {}),
    ((2, 3, 2, 2, 5), {"axis": 4}),
    ((3, 1), {"eps": 10.0}),
    ((2, 3, 4), {"axis": 2, "eps": 1e-12}),
]

BATCH_NORM = [
    *(
        Case("batch_norm", real(*shape), channel(c), channel(c), **{"eps": EPS, **attrs})
        for shape, attrs in [*NORMALIZED, ((0, 3), {}), ((0, 2, 4, 4), {})]
        for c in [shape[attrs.get("axis", 1)]]
    ),
    *(
        Case(
            "batch_norm_inference",
            real(*shape),
            *(channel(c) for _ in range(3)),
            channel(c, low=0.1),
            **{"eps": EPS, **attrs},
        )
        for shape, attrs in [*NORMALIZED, ((0, 3), {}), ((1, 3), {})]
        for c in [shape[attrs.get("axis", 1)]]
    ),
    *(
        Case("batch_norm_gradient", Statistics(shape, attrs.get("axis", 1)), **{"eps": 1e-3, **attrs})
        for shape, attrs in NORMALIZED[:-1]
    ),
    Case("batch_norm", real(5, 3), channel(3), channel(3), dtypes=(*NARROW, "float32")),
    Case(
        "batch_norm_inference",
        real(5, 3),
        *(channel(3) for _ in range(3)),
        channel(3, low=0.1),
        dtypes=(*NARROW, "float32"),
    ),
    Case("running_average", channel(3), channel(3), These(8.0), These(0.1), dtypes=("float32", "float64")),
    Case(
        "running_average",
        channel(2),
        channel(2, low=0.1),
        These(2.0),
        These(0.25),
        unbiased=True,
        dtypes=("float32", "float64"),
    ),
    Case(
        "running_average",
        channel(3),
        These([NAN, NAN, NAN]),
        These(0.0),
        These(0.1),
        unbiased=True,
        dtypes=("float32", "float64"),
    ),
    Case("running_average", channel(3), channel(3), These(8.0), These(1.0), dtypes=("float32", "float64")),
]

# x, w, y, attributes. The comment says what is odd.
CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 7, 5), (4, 3, 3, 3), (2, 4, 7, 5), {"padding": 1}),
    ((1, 4, 6, 5), (6, 2, 3, 2), (1, 6, 3, 6), {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "groups": 2}),
    # asymmetric
    ((2, 6, 7, 6), (6, 1, 3, 3), (2, 6, 3, 2), {"stride": 2, "groups": 6}),  # depthwise; a column is never read
    ((2, 3, 7, 8), (9, 1, 2, 3), (2, 9, 6, 6), {"groups": 3}),  # three outputs from each channel
    ((2, 3, 7), (3, 3, 3), (2, 3, 3), {"dilation": 2}),
    ((2, 3, 7), (3, 3, 4), (2, 3, 4), {"stride": 2, "padding": "same"}),
    ((1, 2, 8), (3, 2, 3), (1, 3, 3), {"stride": 3, "padding": "same", "dilation": 2}),
    ((1, 2, 6, 7), (3, 2, 2, 5), (1, 3, 6, 7), {"padding": "same"}),  # an even window: the odd zero goes behind
    ((1, 7, 9, 2), (3, 2, 2, 3), (1, 3, 4, 3), {"stride": 2, "dilation": (2, 1), "layout": "NHWC", "padding": (0, 0)}),
    ((2, 5, 7, 4), (6, 2, 3, 3), (2, 3, 4, 6), {"stride": 2, "padding": "same", "groups": 2, "layout": "NHWC"}),
    ((2, 9, 4), (4, 4, 3), (2, 4, 4), {"stride": 2, "padding": "valid", "layout": "NLC"}),
    ((1, 2, 3, 4, 3), (2, 2, 2, 1, 2), (1, 2, 4, 4, 4), {"padding": (1, 0, 1)}),
    (
        (1, 4, 3, 3, 2),
        (2, 2, 2, 3, 2),
        (1, 2, 2, 4, 2),
        {"padding": ((0, 1), (0, 1), (1, 1)), "stride": (2, 1, 1), "layout": "NDHWC"},
    ),
    ((2, 5, 1, 1), (3, 5, 1, 1), (2, 3, 1, 1), {}),
    ((1, 1, 1), (1, 1, 5), (1, 1, 1), {"padding": 2}),  # more window than image
    ((2, 3, 5, 5), (2, 3, 1, 1), (2, 2, 2, 2), {"stride": 4}),  # strides over most of it
]
EMPTY = ((0, 2, 4, 4), (3, 2, 2, 2), (0, 3, 2, 2), {"stride": 2})


def _spatial(shape: tuple[int, ...], attrs: dict[str, Any]) -> tuple[int, ...]:
    return shape[1:-1] if attrs.get("layout", "").endswith("C") else shape[2:]


CONV = [
    *(Case("conv", real(*x), real(*w), **attrs) for x, w, _, attrs in [*CONVOLUTIONS, EMPTY]),
    *(
        Case("conv_input_gradient", real(*y), real(*w), extents=_spatial(x, attrs), **attrs)
        for x, w, y, attrs in CONVOLUTIONS
    ),
    *(
        Case("conv_weight_gradient", real(*x), real(*y), window=w[2:], **attrs)
        for x, w, y, attrs in [*CONVOLUTIONS, EMPTY]
    ),
]

POOLINGS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 5, 4), (2, 3, 2, 2), {"window": 2}),
    ((1, 2, 5, 6), (1, 2, 3, 3), {"window": 3, "stride": 2, "padding": ((1, 1), (0, 1))}),
    ((1, 2, 7, 6), (1, 2, 4, 3), {"window": 3, "stride": 2, "padding": "same"}),
    ((2, 7, 3), (2, 3, 3), {"window": 3, "stride": 2, "layout": "NLC"}),
    ((1, 2, 6, 5), (1, 2, 2, 1), {"window": (2, 3), "stride": 2, "dilation": (3, 2)}),
    ((1, 1, 3, 3, 4), (1, 1, 2, 2, 3), {"window": 2, "stride": 1}),
    ((1, 5, 4, 3), (1, 3, 2, 3), {"window": (3, 2), "stride": (2, 3), "padding": 1, "layout": "NHWC"}),
    ((2, 1, 1), (2, 1, 1), {"window": 1}),
    ((1, 1, 2, 3), (1, 1, 3, 4), {"window": 2, "stride": 1, "padding": 1}),
]

EDGES_LINE = These([[[NAN, 1.0, -INF, -INF, 0.5, NAN, INF, 2.0]]])

POOL = [
    *(Case("max_pool", real(*x), **attrs) for x, _, attrs in POOLINGS),
    Case("max_pool", whole(1, 2, 5, 4), window=2),
    Case("max_pool", whole(1, 2, 5, low=-9, below=0), window=3, stride=1, padding=1, loops=True),
    Case("max_pool", EDGES_LINE, window=2, loops=True),
    Case("max_pool", EDGES_LINE, window=3, stride=1, padding=1, loops=True),
    Case("avg_pool", EDGES_LINE, window=2, loops=True),
    Case("max_pool", real(0, 2, 4, 4), window=2),
    Case("avg_pool", real(0, 2, 4, 4), window=2),
    *(
        Case("avg_pool", real(*x), **attrs, **more)
        for x, _, attrs in POOLINGS
        for more in ({}, {"count_include_pad": True})
    ),
    *(
        Case("avg_pool_gradient", real(*y), extents=_spatial(x, attrs), **attrs, **more)
        for x, y, attrs in POOLINGS
        for more in ({}, {"count_include_pad": True})
    ),
    *(Case("max_pool_gradient", real(*y), x_, **attrs) for x, y, attrs in POOLINGS for x_ in (real(*x),)),
    *(Case("max_pool_select", real(*x), real(*x), **attrs) for x, _, attrs in POOLINGS),
    Case("max_pool_gradient", real(1, 1, 3), These([[[2.0, 2.0, NAN, 1.0, -INF, -INF]]]), window=2),
    Case("max_pool_select", real(1, 1, 6), These([[[2.0, 2.0, NAN, NAN, -INF, -INF]]]), window=2),
]

CASES = [*POINTWISE, *CASTS, *REDUCTIONS, *SHAPES, *CONSTANTS, *MATMUL, *LOSSES, *BATCH_NORM, *CONV, *POOL]

for family in independent.FAMILIES:
    CASES += family.CASES
    onnx_ops.ONNX.update(family.ONNX)
    onnx_ops.LOOPS.update(family.LOOPS)
    EXACT |= family.EXACT


def tolerance(actual: np.ndarray, expected: np.ndarray, arrays: Sequence[np.ndarray]) -> float:
    """How far rounding may lead. A result adds up at most as many terms as the largest input has numbers. Each addition
    rounds by eps relative to a sum that stays of the order of the largest result, and 8 more roundings are made around
    it. Narrow floats are added up in float32, so that there only those 8 count in their own eps."""
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max(initial=0.0)))
    terms = max((array.size for array in arrays), default=0)
    return scale * (8 * epsilon(actual.dtype) + terms * epsilon(wide_dtype(actual.dtype.name)))


def in_float64(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if is_float(array.dtype) else array


def compare(actual: np.ndarray, expected: np.ndarray, op: str, arrays: Sequence[np.ndarray]) -> None:
    assert actual.shape == expected.shape
    if not is_float(actual.dtype) or op in EXACT:
        np.testing.assert_array_equal(in_float64(actual), in_float64(expected.astype(actual.dtype)))
        return
    # finite differences over 1e-5 are right to about 1e-10 (its square, and eps of float64 divided by it)
    more = 1e-8 if op == "batch_norm_gradient" else 0.0
    with np.errstate(over="ignore"):  # float16's infinities
        expected = in_float64(expected.astype(actual.dtype)) if actual.dtype.name in NARROW else expected
    np.testing.assert_allclose(
        actual.astype(np.float64), expected, rtol=0, atol=tolerance(actual, expected, arrays) + more
    )


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, dtype) for case in CASES for dtype in case.dtypes],
    ids=lambda value: repr(value) if isinstance(value, Case) else value,
)
def test_op_is_what_others_compute(case: Case, dtype: str) -> None:
    arrays = case.draw(dtype)
    builder = mg.Builder(case.op)
    tensors = [builder.input(f"x{i}", array.shape, array.dtype) for i, array in enumerate(arrays)]
    outputs = builder.emit(mg.OPS[case.op], tensors, case.attrs)
    graph = builder.build({f"y{i}": y for i, y in enumerate(outputs)})
    actual = mg.compile(graph, mg.State(), backend="numpy")(**{f"x{i}": array for i, array in enumerate(arrays)})
    wide = [in_float64(array) for array in arrays]
    oracles: list[Callable[..., list[np.ndarray]]] = []
    oracles += [onnx_ops.by_onnx] if case.op in onnx_ops.ONNX and not case.loops else []
    oracles += [onnx_ops.by_loops] if case.op in onnx_ops.LOOPS else []
    assert oracles
    for oracle in oracles:
        expected = oracle(case.op, wide, case.attrs)
        assert len(actual) == len(expected)
        for i, array in enumerate(expected):
            compare(actual[f"y{i}"], array, case.op, arrays)


def test_every_built_in_op_is_here_or_said_to_be_elsewhere() -> None:
    built_in = {name for name, op in mg.OPS.items() if op.types.__module__.startswith("minigraph.ops")}
    assert {case.op for case in CASES} == {*onnx_ops.ONNX, *onnx_ops.LOOPS}
    assert not {case.op for case in CASES} & ELSEWHERE.keys()
    assert {case.op for case in CASES} | ELSEWHERE.keys() == built_in


def test_empty_gradient_of_convolution() -> None:
    """Here because ONNX's evaluator fails for ConvTranspose of no images."""
    builder = mg.Builder()
    g, w = builder.input("g", (0, 3, 2, 2)), builder.input("w", (3, 2, 2, 2))
    graph = builder.build(x=mg.conv_input_gradient(g, w, extents=(5, 4), stride=2))
    x = mg.compile(graph, mg.State())(g=np.zeros((0, 3, 2, 2)), w=np.ones((3, 2, 2, 2)))["x"]
    assert (x.shape, x.dtype.name) == ((0, 2, 5, 4), "float32")


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize(
    ("start", "stop"), [(-3, None), (None, -3), (-4, -2), (-1, None), (2, None), (None, 4), (3, -1), (-2, 3)]
)
def test_slice_of_an_axis_known_only_at_run_time_is_pythons(start: int | None, stop: int | None, size: int) -> None:
    builder = mg.Builder()
    x = builder.input("x", ("N",))
    graph = builder.build(y=mg.slice(x, (start,), (stop,)))
    given = np.arange(size, dtype=np.float32)
    np.testing.assert_array_equal(mg.compile(graph, mg.State())(x=given)["y"], given[start:stop])


def test_half_precision_mean_of_many_numbers_and_its_gradient_stay_in_range() -> None:
    """Sums of 70000 numbers exceed float16's 65504, their means do not."""
    builder = mg.Builder()
    x = builder.input("x", (70000,), "float16")
    logits, label = builder.input("logits", (70000, 2), "float16"), builder.input("label", (70000,), "int64")
    mean, loss = mg.mean(x), mg.cross_entropy(logits, label)
    graph = builder.build(mean=mean, loss=loss, gradient=mg.gradient(mean * 1024.0, [x])[0])
    found = mg.compile(graph, mg.State())(
        x=np.full(70000, 3), logits=np.full((70000, 2), [9.0, 0.0]), label=np.ones(70000, int)
    )
    assert found["mean"] == 3.0
    np.testing.assert_allclose(found["loss"], 9 + np.log1p(np.exp(-9.0)), rtol=2**-10)  # float16 has 11 bits
    np.testing.assert_allclose(found["gradient"], 1024 / 70000, rtol=2**-9)
