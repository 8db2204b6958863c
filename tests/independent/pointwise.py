"""Pointwise ops and activations: by ONNX's evaluator, and by Python's `math`, number by number.

ONNX holds attributes in float32, so that others (alpha=0.01) are held against `math` alone; so are erf and gelu, since
the evaluator's erf is float32 in float64 too, softsign, of which it knows no single number, and what depends on NaN in
thresholded_relu, which ONNX makes 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cases import INF, NAN, Case, Random, These, positive, real, truth, whole
from minigraph.core.dtypes import is_float

EDGES = These([NAN, -INF, INF, 0.0, -0.0, 1.0, -1.0, 3.5, -3.0, 3.0, 6.0, 6.5])
FAR = These([-1e4, -90.0, -20.0, -9.0, -1e-3, 0.0, 1e-3, 9.0, 20.0, 90.0, 1e4])  # saturated; float16 ends at 65504
HALVES = These([-2.5, -1.5, -0.5, -0.0, 0.5, 1.5, 2.5, 0.75, -0.75, 7.0])
TIES = These([1 + 2**-11, -1 - 2**-11, 1 + 3 * 2**-11, 2 - 2**-11, 1 + 2**-11 - 2**-23, 1 + 2**-23, 2.0**-140])
SHAPES = ((3, 5), (), (0, 3), (3, 1, 7))
PAIRS = (
    (real(3, 5), real(3, 5)),
    (real(7, 1, 3), real(5, 1)),
    (real(), real(3)),
    (real(0, 3), real(1, 3)),
    (real(1), real(0)),
)

ANYWHERE = (
    "square",
    "abs",
    "sign",
    "expm1",
    "atan",
    "sinh",
    "cosh",
    "erf",
    "softplus",
    "floor",
    "ceil",
    "trunc",
    "round",
)
ACTIVATIONS = (
    "relu6",
    "leaky_relu",
    "thresholded_relu",
    "hard_sigmoid",
    "hard_swish",
    "elu",
    "selu",
    "celu",
    "softsign",
    "silu",
    "mish",
    "gelu",
)
GATED = ("silu", "mish", "gelu", "softsign")  # NaN at an infinity, where the definition may have another answer
ROUNDED = ("leaky_relu", "hard_sigmoid")  # default attributes that float32 does not hold

CASES = [
    *(Case(op, real(*shape), loops=op in ROUNDED) for op in (*ANYWHERE, *ACTIVATIONS) for shape in SHAPES),
    *(Case(op, positive(*shape)) for op in ("rsqrt", "log1p", "reciprocal") for shape in SHAPES),
    *(Case(op, Random(shape, -0.9, 0.9)) for op in ("asin", "acos", "tan") for shape in SHAPES),
    *(Case(op, EDGES) for op in (*ANYWHERE, "rsqrt", "log1p", "reciprocal", "asin", "acos", "isnan", "isinf")),
    *(Case(op, EDGES, loops=op in (*ROUNDED, "thresholded_relu")) for op in ACTIVATIONS if op not in GATED),
    *(Case(op, FAR, loops=op in ROUNDED) for op in ("erf", "atan", "softplus", *ACTIVATIONS)),
    *(Case("tf32", x, dtypes=("float16", "float32")) for x in (real(3, 5), real(0, 3), EDGES, FAR, TIES)),
    *(Case(op, HALVES) for op in ("floor", "ceil", "trunc", "round")),
    *(Case(op, whole(7, dtype=dtype)) for op in ("square", "abs", "sign") for dtype in ("int8", "int32", "int64")),
    # powers
    Case("pow", positive(3, 5), real(3, 5)),
    Case("pow", positive(7, 1, 3), real(5, 1)),
    Case("pow", positive(0, 3), real(1, 3)),
    Case("pow", These([-2.0, -2.0, -2.0, 0.0, 0.0, -3.0, 4.0]), These([3.0, -2.0, 0.5, 0.0, 2.0, 0.0, -0.5])),
    Case("pow", These([[NAN], [INF], [-INF], [1.0], [0.0]]), These([0.0, 1.0, NAN, INF, -INF])),
    *(Case("power", real(3, 5), exponent=exponent) for exponent in (0, 1, 2, 3)),
    *(Case("power", positive(3, 1), exponent=exponent) for exponent in (-2, 0.5, -0.5, 2.25)),
    Case("power", real(0, 3), exponent=2),
    Case("power", EDGES, exponent=3),
    Case("power", EDGES, exponent=-1),
    # two inputs
    *(Case(op, *pair) for op in ("maximum", "minimum", "prelu") for pair in PAIRS),
    *(Case(op, EDGES, y) for op in ("maximum", "minimum") for y in (These(0.0), These(NAN), These(INF))),
    Case("prelu", EDGES, These(0.25)),
    Case("prelu", real(2, 3, 4), real(3, 1)),
    *(
        Case(op, whole(3, 5, dtype=dtype), whole(5, dtype=dtype))
        for op in ("maximum", "minimum")
        for dtype in ("int8", "int32", "int64")
    ),
    *(
        Case(op, x, y)
        for op in ("mod", "fmod")
        for x, y in (
            (real(3, 5), positive(3, 5)),
            (real(7, 1, 3), Random((5, 1), -2, -0.1)),
            (real(0, 3), positive(3)),
            (These([5.5, -5.5, 5.5, -5.5, 6.0, -6.0]), These([3.0, 3.0, -3.0, -3.0, 3.0, 3.0])),
            (whole(9), whole(9, low=1, below=5)),
            (whole(9), whole(9, low=-5, below=0)),
            (whole(9, dtype="int32"), whole(1, low=2, below=4, dtype="int32")),
            (whole(9, low=0, below=99, dtype="uint8"), whole(9, low=1, below=9, dtype="uint8")),
        )
    ),
    *(
        Case("logical_xor", *pair)
        for pair in ((truth(4, 7), truth(7)), (truth(0), truth()), (truth(5, 1), truth(1, 5)))
    ),
    # questions
    *(Case(op, real(*shape)) for op in ("isnan", "isinf") for shape in SHAPES),
    *(
        Case("isinf", EDGES, detect_positive=positive_, detect_negative=negative)
        for positive_ in (True, False)
        for negative in (True, False)
    ),
    # attributes
    *(Case("clip", real(*shape), low=-0.5, high=1) for shape in SHAPES),
    Case("clip", EDGES, low=-1.0, high=3.0),
    Case("clip", EDGES, low=0),
    Case("clip", EDGES, high=0),
    Case("clip", real(3, 5), low=0.5, high=-0.5),
    Case("clip", whole(9), low=-3, high=4),
    Case("clip", whole(9, dtype="int8"), high=4),
    *(
        Case(op, x, alpha=alpha, loops=op == "thresholded_relu" and x is EDGES)
        for op in ("leaky_relu", "elu", "celu", "thresholded_relu")
        for alpha in (0.25, 1.5)
        for x in (real(3, 5), EDGES, FAR)
    ),
    Case("leaky_relu", real(3, 5), alpha=-0.5),
    Case("hard_sigmoid", real(3, 5), alpha=0.5, beta=0.25),
    Case("hard_sigmoid", EDGES, alpha=0.5, beta=0.25),
    *(Case("gelu", x, approximate=approximate) for x in (real(3, 5), FAR) for approximate in ("none", "tanh")),
]


# by ONNX


def _named(onnx_name: str) -> Callable[..., str]:
    return lambda model, *inputs, **attrs: model.add(onnx_name, *inputs, **attrs)


def _clip(model: Any, x: str, low: Any = None, high: Any = None) -> str:
    bounds = [("" if bound is None else model.array(bound, model.given[x].dtype)) for bound in (low, high)]
    return model.add("Clip", x, *bounds)


ONNX: dict[str, Callable[..., Any]] = {
    **{
        op: _named(onnx_name)
        for op, onnx_name in {
            "abs": "Abs",
            "sign": "Sign",
            "atan": "Atan",
            "asin": "Asin",
            "acos": "Acos",
            "tan": "Tan",
            "sinh": "Sinh",
            "cosh": "Cosh",
            "softplus": "Softplus",
            "floor": "Floor",
            "ceil": "Ceil",
            "round": "Round",
            "reciprocal": "Reciprocal",
            "pow": "Pow",
            "maximum": "Max",
            "minimum": "Min",
            "logical_xor": "Xor",
            "isnan": "IsNaN",
            "prelu": "PRelu",
            "leaky_relu": "LeakyRelu",
            "thresholded_relu": "ThresholdedRelu",
            "hard_sigmoid": "HardSigmoid",
            "elu": "Elu",
            "celu": "Celu",
            "mish": "Mish",
        }.items()
    },
    "fmod": lambda model, x, y: model.add("Mod", x, y, fmod=1),
    "isinf": lambda model, x, detect_positive=True, detect_negative=True: model.add(
        "IsInf", x, detect_positive=int(detect_positive), detect_negative=int(detect_negative)
    ),
    "clip": _clip,
}


# by definition, one number after the other


def _each(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """A function of Python's numbers on arrays; where `math` raises, the answer is IEEE's: infinity or NaN."""

    def loop(*arrays: np.ndarray, **attrs: Any) -> np.ndarray:
        arrays = tuple(np.broadcast_arrays(*arrays))
        kind = object if not is_float(arrays[0].dtype) else np.float64
        y = np.empty(arrays[0].shape, kind)
        for at in np.ndindex(*y.shape):
            xs = [array[at].item() for array in arrays]
            if function not in KNOW_NAN and any(x != x for x in xs):
                y[at] = NAN
                continue
            try:
                y[at] = function(*xs, **attrs)
            except ZeroDivisionError:
                y[at] = math.copysign(INF, xs[0])
            except OverflowError:
                y[at] = INF
            except ValueError:
                y[at] = NAN
        return y

    return loop


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _softplus(x: float) -> float:
    return x if x > 40 else math.log1p(math.exp(x))


def _step(function: Callable[[float], float]) -> Callable[[float], float]:
    return lambda x: x if math.isinf(x) else function(x)


def _tf32(x: float) -> float:
    """11 binary digits, of two the one farther from 0: what is below 2^-126 has fewer, as float32 has."""
    if math.isinf(x):
        return x
    unit = max(math.frexp(x)[1] - 11, -136)
    return math.copysign(math.ldexp(math.floor(math.ldexp(abs(x), -unit) + 0.5), unit), x)


def _pow(x: float, y: float) -> float:
    if x == 0 and y < 0:
        return INF if y % 2 != 1 else math.copysign(INF, x)
    return math.pow(x, y)


def _power(x: float, exponent: float) -> float:
    return _pow(x, exponent)


def _gelu(x: float, approximate: str = "none") -> float:
    if approximate == "none":
        return x * 0.5 * math.erfc(-x / math.sqrt(2))
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


KNOW_NAN = {_pow, _power}

DEFINITIONS: dict[str, Callable[..., Any]] = {
    "square": lambda x: x * x,
    "sign": lambda x: (x > 0) - (x < 0),
    "expm1": math.expm1,
    "log1p": lambda x: -INF if x == -1 else math.log1p(x),
    "rsqrt": lambda x: math.copysign(INF, x) if x == 0 else 1 / math.sqrt(x),
    "erf": math.erf,
    "softplus": _softplus,
    "trunc": _step(math.trunc),
    "round": _step(round),
    "tf32": _tf32,
    "pow": _pow,
    "power": _power,
    "mod": lambda x, y: x % y,
    "fmod": math.fmod,
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "leaky_relu": lambda x, alpha=0.01: x if x > 0 else alpha * x,
    "thresholded_relu": lambda x, alpha=1.0: x if x > alpha else 0.0,
    "hard_sigmoid": lambda x, alpha=1 / 6, beta=0.5: min(max(alpha * x + beta, 0.0), 1.0),
    "hard_swish": lambda x: 0.0 if x <= -3 else x if x >= 3 else x * (x + 3) / 6,
    "elu": lambda x, alpha=1.0: x if x > 0 else alpha * math.expm1(x),
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x)),
    "celu": lambda x, alpha=1.0: max(x, 0.0) + min(0.0, alpha * math.expm1(min(x, 0.0) / alpha)),
    "softsign": lambda x: x / (1 + abs(x)),
    "silu": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * math.tanh(_softplus(x)),
    "gelu": _gelu,
}
LOOPS: dict[str, Callable[..., Any]] = {op: _each(function) for op, function in DEFINITIONS.items()}

EXACT = {
    "abs",
    "sign",
    "floor",
    "ceil",
    "trunc",
    "round",
    "tf32",
    "maximum",
    "minimum",
    "clip",
    "relu6",
    "thresholded_relu",
}
