"""minigraph: a small static-graph deep-learning compiler. This module is its face: what users need, from all rooms."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

for _room in ("ops", "passes"):
    # They stand beside this folder and become minigraph.ops and minigraph.passes only by an installation: of this
    # folder, not of another copy, whose ops would then run here.
    _here, _spec = Path(__file__).resolve().parent, find_spec(f"minigraph.{_room}")
    _found = Path(_spec.origin).resolve().parent if _spec is not None and _spec.origin else None
    if _found not in (_here / _room, _here.parent / _room):
        _what = f"another copy is, whose {_room} is {_found}" if _found else "only its source folder was found"
        raise ImportError(
            f"minigraph is not installed from {_here.parent}, {_what}: type `pip install -e .` in the folder that holds"
            " pyproject.toml."
        )

__version__ = "0.1.0"

from typing import TYPE_CHECKING, Any

from minigraph.backends.cupy.arrays import GpuArray
from minigraph.core.autodiff import gradient
from minigraph.core.builder import Builder, Tensor
from minigraph.core.errors import GraphError
from minigraph.core.ir import Graph, Node, Type, Value
from minigraph.core.op import OPS, Example, Op
from minigraph.core.state import State
from minigraph.driver.program import Program, compile, optimize
from minigraph.driver.step import inference, training_step
from minigraph.nn import init, layers, optim
from minigraph.nn.compose import residual, sequential
from minigraph.ops.activation import (
    celu,
    elu,
    gelu,
    hard_sigmoid,
    hard_swish,
    hard_tanh,
    leaky_relu,
    mish,
    prelu,
    relu6,
    selu,
    silu,
    softsign,
    thresholded_relu,
)
from minigraph.ops.batch_norm import batch_norm, batch_norm_inference, running_average
from minigraph.ops.broadcast import broadcast_to, sum
from minigraph.ops.conv import conv, conv_input_gradient, conv_transpose, conv_weight_gradient
from minigraph.ops.index import (
    arange,
    gather,
    masked_fill,
    scatter_add,
    scatter_add_along_axis,
    take_along_axis,
    topk,
    tri,
    tril,
    triu,
)
from minigraph.ops.loss import (
    accuracy,
    binary_cross_entropy,
    cross_entropy,
    hinge_loss,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    one_hot,
    smooth_l1_loss,
    soft_cross_entropy,
)
from minigraph.ops.matmul import matmul
from minigraph.ops.norm import group_norm, instance_norm, layer_norm, local_response_norm, rms_norm
from minigraph.ops.pointwise import absolute as abs
from minigraph.ops.pointwise import (
    acos,
    add,
    asin,
    atan,
    cast,
    ceil,
    clip,
    cos,
    cosh,
    div,
    equal,
    erf,
    exp,
    expm1,
    floor,
    fmod,
    greater,
    greater_equal,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    mod,
    mul,
    neg,
    not_equal,
    pow,
    power,
    reciprocal,
    relu,
    round,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sinh,
    softplus,
    sqrt,
    square,
    stop_gradient,
    sub,
    tan,
    tanh,
    trunc,
    where,
)
from minigraph.ops.pool import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    lp_pool,
    max_pool,
)
from minigraph.ops.random import dropout, random_bits
from minigraph.ops.reduce import all, any, argmax, argmin, l1_norm, l2_norm, logsumexp, max, mean, min, prod, std, var
from minigraph.ops.resize import depth_to_space, resize, space_to_depth
from minigraph.ops.scan import cumsum
from minigraph.ops.shape import (
    concat,
    expand_dims,
    flatten,
    flip,
    moveaxis,
    pad,
    reshape,
    split,
    squeeze,
    stack,
    swapaxes,
    transpose,
)
from minigraph.ops.shape import slice_ as slice
from minigraph.ops.softmax import log_softmax, softmax
from minigraph.ops.tf32 import tf32
from minigraph.ops.tile import repeat, tile
from minigraph.passes.freeze import freeze
from minigraph.passes.precise_statistics import precise_statistics
from minigraph.passes.unfreeze import unfreeze
from minigraph.passes.without_biases import without_biases

if TYPE_CHECKING:
    from minigraph.core.equivalence import verify
    from minigraph.core.parse import parse
    from minigraph.driver.exported import load_program
    from minigraph.tools.doctor import doctor
    from minigraph.tools.draw import draw
    from minigraph.tools.fit import evaluate, fit
    from minigraph.tools.page import page
    from minigraph.tools.precise_bn import precise_bn
    from minigraph.tools.saved import load, save
    from minigraph.tools.summary import summary

# what only some programs need, and takes long to load: name -> its module
_LATER = {
    "doctor": "minigraph.tools.doctor",
    "draw": "minigraph.tools.draw",
    "fit": "minigraph.tools.fit",
    "evaluate": "minigraph.tools.fit",
    "page": "minigraph.tools.page",
    "parse": "minigraph.core.parse",
    "precise_bn": "minigraph.tools.precise_bn",
    "load": "minigraph.tools.saved",
    "load_program": "minigraph.driver.exported",
    "save": "minigraph.tools.saved",
    "summary": "minigraph.tools.summary",
    "verify": "minigraph.core.equivalence",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "onnx":
        return import_module("minigraph.onnx")
    if name not in _LATER:
        raise AttributeError(f"minigraph has no {name!r}")
    return getattr(import_module(_LATER[name]), name)


def _repr_svg_(graph: Graph) -> str | None:
    """Notebooks show a graph as its picture."""
    from minigraph.tools.draw import svg

    return svg(graph)


Graph._repr_svg_ = _repr_svg_  # type: ignore[attr-defined]

__all__ = [
    "OPS",
    "Builder",
    "Example",
    "GpuArray",
    "Graph",
    "GraphError",
    "Node",
    "Op",
    "Program",
    "State",
    "Tensor",
    "Type",
    "Value",
    "abs",
    "accuracy",
    "acos",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "add",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "asin",
    "atan",
    "avg_pool",
    "batch_norm",
    "batch_norm_inference",
    "binary_cross_entropy",
    "broadcast_to",
    "cast",
    "ceil",
    "celu",
    "clip",
    "compile",
    "concat",
    "conv",
    "conv_input_gradient",
    "conv_transpose",
    "conv_weight_gradient",
    "cos",
    "cosh",
    "cross_entropy",
    "cumsum",
    "depth_to_space",
    "div",
    "doctor",
    "draw",
    "dropout",
    "elu",
    "equal",
    "erf",
    "evaluate",
    "exp",
    "expand_dims",
    "expm1",
    "fit",
    "flatten",
    "flip",
    "floor",
    "fmod",
    "freeze",
    "gather",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "gradient",
    "greater",
    "greater_equal",
    "group_norm",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "hinge_loss",
    "huber_loss",
    "inference",
    "init",
    "instance_norm",
    "isfinite",
    "isinf",
    "isnan",
    "kl_div",
    "l1_loss",
    "l1_norm",
    "l2_norm",
    "layer_norm",
    "layers",
    "leaky_relu",
    "less",
    "less_equal",
    "load",
    "load_program",
    "local_response_norm",
    "log",
    "log1p",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "lp_pool",
    "masked_fill",
    "matmul",
    "max",
    "max_pool",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mish",
    "mod",
    "moveaxis",
    "mse_loss",
    "mul",
    "neg",
    "nll_loss",
    "not_equal",
    "one_hot",
    "optim",
    "optimize",
    "pad",
    "page",
    "parse",
    "pow",
    "power",
    "precise_bn",
    "precise_statistics",
    "prelu",
    "prod",
    "random_bits",
    "reciprocal",
    "relu",
    "relu6",
    "repeat",
    "reshape",
    "residual",
    "resize",
    "rms_norm",
    "round",
    "rsqrt",
    "running_average",
    "save",
    "scatter_add",
    "scatter_add_along_axis",
    "selu",
    "sequential",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinh",
    "slice",
    "smooth_l1_loss",
    "soft_cross_entropy",
    "softmax",
    "softplus",
    "softsign",
    "space_to_depth",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "stop_gradient",
    "sub",
    "sum",
    "summary",
    "swapaxes",
    "take_along_axis",
    "tan",
    "tanh",
    "tf32",
    "thresholded_relu",
    "tile",
    "topk",
    "training_step",
    "transpose",
    "tri",
    "tril",
    "triu",
    "trunc",
    "unfreeze",
    "var",
    "verify",
    "where",
    "without_biases",
]
