"""Softmax, log-softmax, cross entropy from logits, and accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigraph.core import scalar
from minigraph.core.builder import Tensor
from minigraph.core.errors import expect
from minigraph.core.ir import Type, dtype_of
from minigraph.core.op import Example, Op, axis_of, float_dtype, integers, real
from minigraph.ops import broadcast
from minigraph.ops.half import in_float32
from minigraph.ops.pointwise import cast, equal, exp, log, where
from minigraph.ops.reduce import argmax, max, mean

AXES = (Example(real(2, 3)), Example(real(3, 2, 4), axis=1), Example(real(0, 3)), Example(real(2, 1)))


def softmax_types(x: Type, /, axis: int = -1) -> Type:
    """e^x over its sum along `axis`. The largest x is taken off first, so nothing overflows."""
    float_dtype(x)
    expect(x.shape[axis] != 0, "there is nothing to share among along axis {} of {}", axis, x)
    return x


def axis_canonical(x: Type, axis: Any) -> dict[str, Any]:
    return {"axis": axis_of(axis, x.rank)}


@in_float32
def softmax_reference(x: np.ndarray, axis: int) -> np.ndarray:
    e = scalar.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def softmax_expand(x: Tensor, axis: int) -> Tensor:
    e = exp(x - max(x, axis, True))
    return e / broadcast.sum(e, axis, True)


softmax: Op = Op(
    "softmax",
    softmax_types,
    softmax_reference,
    expand=softmax_expand,
    canonical=axis_canonical,
    gradient=lambda gs, xs, ys, axis: (ys[0] * (gs[0] - broadcast.sum(gs[0] * ys[0], axis, True)),),
    flops=lambda inputs, outputs, attrs: 5 * inputs[0].size,
    examples=AXES,
)


def log_softmax_types(x: Type, /, axis: int = -1) -> Type:
    """The logarithm of softmax, computed as x - max - log(sum(e^(x - max))): no overflow, and no log of 0."""
    return softmax_types(x, axis)


@in_float32
def log_softmax_reference(x: np.ndarray, axis: int) -> np.ndarray:
    shifted = x - x.max(axis, keepdims=True)
    return shifted - scalar.log(scalar.exp(shifted).sum(axis, keepdims=True))


def log_softmax_expand(x: Tensor, axis: int) -> Tensor:
    shifted = x - max(x, axis, True)
    return shifted - log(broadcast.sum(exp(shifted), axis, True))


log_softmax = Op(
    "log_softmax",
    log_softmax_types,
    log_softmax_reference,
    expand=log_softmax_expand,
    canonical=axis_canonical,
    gradient=lambda gs, xs, ys, axis: (gs[0] - softmax(xs[0], axis) * broadcast.sum(gs[0], axis, True),),
    flops=lambda inputs, outputs, attrs: 5 * inputs[0].size,
    examples=AXES,
)


def one_hot_types(labels: Type, /, classes: int, *, axis: int = -1, dtype: str = "float32") -> Type:
    """1 where the new axis, of size `classes`, has the label as its index, else 0."""
    expect(not labels.is_float and labels.dtype != "bool", "labels are integers, not {}", labels)
    return Type((*labels.shape[:axis], classes, *labels.shape[axis:]), dtype)


def one_hot_canonical(labels: Type, classes: Any, axis: Any, dtype: Any) -> dict[str, Any]:
    expect(isinstance(classes, int) and classes > 0, "classes is a number of 1 or more, not {!r}", classes)
    return {"classes": classes, "axis": axis_of(axis, labels.rank + 1), "dtype": dtype_of(dtype)}


def one_hot_reference(labels: np.ndarray, classes: int, axis: int, dtype: str) -> np.ndarray:
    check_labels(labels, classes)
    index = np.arange(classes).reshape([-1 if i == axis else 1 for i in range(labels.ndim + 1)])
    return (np.expand_dims(labels, axis) == index).astype(dtype)


def check_labels(labels: np.ndarray, classes: int) -> None:
    """Raise GraphError for a label that names no class."""
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        where_ = tuple(int(i) for i in np.argwhere(wrong)[0])
        expect(False, "label {} at {} is outside of 0 to {}", labels[where_], list(where_), classes - 1)


one_hot = Op(
    "one_hot",
    one_hot_types,
    one_hot_reference,
    gradient=lambda gs, xs, ys, **_: (None,),
    canonical=one_hot_canonical,
    flops=lambda *_: 0,
    examples=(
        Example(integers(4, below=3), classes=3),
        Example(integers(2, 3, below=2), classes=2, axis=1, dtype="bool"),
        Example(integers(0, below=3), classes=3),
    ),
)


def cross_entropy_types(logits: Type, labels: Type, /, *, axis: int = 1, reduction: str = "mean") -> Type:
    """-log softmax(logits) at the label: logits (N, C) and integer labels (N,), or (N, C, ...) and (N, ...).

    reduction: "mean" over all labels (NaN for none), "sum", or "none". A label outside of 0 to C - 1 is an error.
    """
    float_dtype(logits)
    softmax_types(logits, axis)
    expect(not labels.is_float and labels.dtype != "bool", "labels are integers, not {}", labels)
    wanted = (*logits.shape[:axis], *logits.shape[axis + 1 :])
    expect(
        labels.shape == wanted,
        "logits {} with classes along axis {} need labels of shape {}, not {}",
        logits,
        axis,
        wanted,
        labels,
    )
    return Type(wanted if reduction == "none" else (), logits.dtype)


def cross_entropy_canonical(logits: Type, labels: Type, axis: Any, reduction: Any) -> dict[str, Any]:
    expect(reduction in ("mean", "sum", "none"), 'reduction is "mean", "sum" or "none", not {!r}', reduction)
    return {"axis": axis_of(axis, logits.rank), "reduction": reduction}


@in_float32
def cross_entropy_reference(logits: np.ndarray, labels: np.ndarray, axis: int, reduction: str) -> np.ndarray:
    check_labels(labels, logits.shape[axis])
    picked = np.take_along_axis(
        log_softmax_reference(logits, axis=axis), np.expand_dims(labels, axis).astype(np.int64), axis
    )
    each = -np.squeeze(picked, axis)
    if reduction == "none":
        return each
    total = np.asarray(each.sum(), each.dtype)
    return total if reduction == "sum" else total / each.size


def cross_entropy_expand(logits: Tensor, labels: Tensor, axis: int, reduction: str) -> Tensor:
    classes = logits.shape[axis]
    chosen = one_hot(labels, classes, axis=axis, dtype="bool")
    each = -broadcast.sum(where(chosen, log_softmax(logits, axis), 0.0), axis)
    return each if reduction == "none" else broadcast.sum(each) if reduction == "sum" else mean(each)


cross_entropy = Op(
    "cross_entropy",
    cross_entropy_types,
    cross_entropy_reference,
    expand=cross_entropy_expand,
    canonical=cross_entropy_canonical,
    flops=lambda inputs, outputs, attrs: 6 * inputs[0].size,
    examples=(
        Example(real(4, 3), integers(4, below=3)),
        Example(real(2, 3, 2), integers(2, 2, below=3), reduction="sum"),
        Example(real(3, 2), integers(3, below=2, dtype="int32"), reduction="none"),
        Example(real(0, 3), integers(0, below=3), reduction="sum"),
        Example(real(2, 2, 3), integers(2, 2, below=3), axis=-1),
    ),
)


def accuracy(logits: Tensor, labels: Tensor, axis: int = 1) -> Tensor:
    """The share of labels that have the largest logit, as a float32 scalar."""
    return mean(cast(equal(argmax(logits, axis), cast(labels, "int64")), "float32"))
