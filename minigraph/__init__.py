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

from minigraph.core.autodiff import gradient
from minigraph.core.builder import Builder, Tensor
from minigraph.core.errors import GraphError
from minigraph.core.ir import Graph, Node, Type, Value
from minigraph.core.op import OPS, Example, Op
from minigraph.core.parse import parse
from minigraph.core.state import State
from minigraph.driver import Program, compile, inference, training_step
from minigraph.nn import init, layers, optim
from minigraph.ops.batch_norm import batch_norm, batch_norm_inference, running_average
from minigraph.ops.broadcast import broadcast_to, sum
from minigraph.ops.constant import constant, count, fill
from minigraph.ops.conv import conv, conv_input_gradient, conv_weight_gradient
from minigraph.ops.loss import accuracy, cross_entropy, log_softmax, one_hot, softmax
from minigraph.ops.matmul import matmul
from minigraph.ops.pointwise import (
    add,
    cast,
    cos,
    div,
    equal,
    exp,
    greater,
    greater_equal,
    less,
    less_equal,
    log,
    logical_and,
    logical_not,
    logical_or,
    mul,
    neg,
    not_equal,
    relu,
    sigmoid,
    sin,
    sqrt,
    stop_gradient,
    sub,
    tanh,
    where,
)
from minigraph.ops.pool import avg_pool, global_avg_pool, max_pool
from minigraph.ops.random import dropout, random_bits
from minigraph.ops.reduce import argmax, max, mean
from minigraph.ops.shape import concat, flatten, pad, reshape, transpose
from minigraph.ops.shape import slice_ as slice
from minigraph.passes.freeze import freeze

if TYPE_CHECKING:
    from minigraph.tools.draw import draw
    from minigraph.tools.fit import evaluate, fit
    from minigraph.tools.summary import summary

# what only some programs need, and takes long to load: name -> its module
_LATER = {
    "draw": "minigraph.tools.draw",
    "fit": "minigraph.tools.fit",
    "evaluate": "minigraph.tools.fit",
    "summary": "minigraph.tools.summary",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

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
    "Graph",
    "GraphError",
    "Node",
    "Op",
    "Program",
    "State",
    "Tensor",
    "Type",
    "Value",
    "accuracy",
    "add",
    "argmax",
    "avg_pool",
    "batch_norm",
    "batch_norm_inference",
    "broadcast_to",
    "cast",
    "compile",
    "concat",
    "constant",
    "conv",
    "conv_input_gradient",
    "conv_weight_gradient",
    "cos",
    "count",
    "cross_entropy",
    "div",
    "draw",
    "dropout",
    "equal",
    "evaluate",
    "exp",
    "fill",
    "fit",
    "flatten",
    "freeze",
    "global_avg_pool",
    "gradient",
    "greater",
    "greater_equal",
    "inference",
    "init",
    "layers",
    "less",
    "less_equal",
    "log",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "matmul",
    "max",
    "max_pool",
    "mean",
    "mul",
    "neg",
    "not_equal",
    "one_hot",
    "optim",
    "pad",
    "parse",
    "random_bits",
    "relu",
    "reshape",
    "running_average",
    "sigmoid",
    "sin",
    "slice",
    "softmax",
    "sqrt",
    "stop_gradient",
    "sub",
    "sum",
    "summary",
    "tanh",
    "training_step",
    "transpose",
    "where",
]
