"""Losses: of labels (cross entropy, negative log likelihood), of probabilities, and of numbers.

Each gives one number for each thing that is compared, and then their mean, their sum or themselves: `reduction` is
"mean", "sum" or "none". The mean of nothing is NaN. Narrow floats are computed in float32 and rounded at the end. A
loss is defined by its expansion, whose derivative is its gradient; the references are the formulas that lose no digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from minigraph.core import scalar
from minigraph.core.builder import Tensor
from minigraph.core.dim import Size, product
from minigraph.core.dim import broadcast as broadcast_shapes
from minigraph.core.dtypes import dtype_of
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import (
    Example,
    Kernel,
    Op,
    axis_of,
    float_dtype,
    integers,
    no_flops,
    per_number,
    positive,
    real,
    whole,
)
from minigraph.ops import broadcast
from minigraph.ops.constant import count_along
from minigraph.ops.half import expand_in_float32
from minigraph.ops.pointwise import (
    absolute,
    cast,
    equal,
    exp,
    log,
    logical_not,
    minimum,
    relu,
    softplus,
    square,
    where,
)
from minigraph.ops.reduce import argmax, mean
from minigraph.ops.shape import reshape
from minigraph.ops.softmax import log_softmax, log_softmax_reference, softmax_types


def one_hot_types(labels: Type, /, classes: int, *, axis: int = -1, dtype: str = "float32") -> Type:
    """1 where the new axis, of size `classes`, has the label as its index, else 0."""
    expect(not labels.is_float and labels.dtype != "bool", "labels are integers, not {}", labels)
    return Type((*labels.shape[:axis], classes, *labels.shape[axis:]), dtype)


def one_hot_canonical(labels: Type, classes: Any, axis: Any, dtype: Any) -> dict[str, Any]:
    return {"classes": whole(classes, "classes", 1), "axis": axis_of(axis, labels.rank + 1), "dtype": dtype_of(dtype)}


def one_hot_reference(labels: np.ndarray, classes: int, axis: int, dtype: str) -> np.ndarray:
    check_labels(labels, classes)
    index = np.arange(classes).reshape([-1 if i == axis else 1 for i in range(labels.ndim + 1)])
    return (np.expand_dims(labels, axis) == index).astype(dtype)


def check_labels(labels: np.ndarray, classes: int, ignore_index: int | None = None) -> None:
    """Raise GraphError for a label that names no class and is not to be ignored."""
    wrong = (labels < 0) | (labels >= classes)
    if ignore_index is not None:
        wrong &= labels != ignore_index
    if wrong.any():
        where_ = tuple(int(i) for i in np.argwhere(wrong)[0])
        expect(False, "label {} at {} is outside of 0 to {}", labels[where_], list(where_), classes - 1)


def one_hot_shape(ins: Sequence[Type], outs: Sequence[Type], classes: int, axis: int, dtype: str) -> dict[str, Size]:
    return {"classes": classes, "after": product(ins[0].shape[axis:])}


one_hot = Op(
    "one_hot",
    one_hot_types,
    one_hot_reference,
    gradient=lambda gs, xs, ys, **_: (None,),
    canonical=one_hot_canonical,
    kernel=Kernel("loss.h", one_hot_shape, light=True, checks=True),
    flops=no_flops,
    examples=(
        Example(integers(4, below=3), classes=3),
        Example(integers(2, 3, below=2), classes=2, axis=1, dtype="bool"),
        Example(integers(0, below=3), classes=3),
    ),
)


# what all losses share


def check_reduction(reduction: Any, *more: str) -> None:
    known = ("mean", "sum", *more, "none")
    named = ", ".join(f'"{r}"' for r in known[:-1])
    expect(reduction in known, 'reduction is {} or "none", not {!r}', named, reduction)


def total(each: np.ndarray, reduction: str, count: Any = None) -> np.ndarray:
    """The reduction of a loss of each thing; its mean divides by `count`, by default by how many there are."""
    each = np.asarray(each)  # of one pair of exact numbers it was no array
    if reduction == "none":
        return each
    added = np.asarray(each.sum(), each.dtype)
    if reduction == "batchmean":
        count = len(each)
    return added if reduction == "sum" else np.asarray(added / (each.size if count is None else count))


def total_of_tensor(each: Tensor, reduction: str, count: Tensor | None = None) -> Tensor:
    """The same with nodes."""
    if reduction == "none":
        return each
    if reduction == "batchmean":
        count = count_along(each, (0,), each.dtype)
    elif reduction == "mean" and count is None:
        return mean(each)
    added = broadcast.sum(each)
    return added if count is None else added / count


# of labels


def labels_types(x: Type, labels: Type, class_weight: tuple[Type, ...], axis: int, reduction: str) -> Type:
    float_dtype(x, *class_weight)
    softmax_types(x, axis)
    expect(not labels.is_float and labels.dtype != "bool", "labels are integers, not {}", labels)
    wanted = (*x.shape[:axis], *x.shape[axis + 1 :])
    expect(
        labels.shape == wanted,
        "{} with classes along axis {} needs labels of shape {}, not {}",
        x,
        axis,
        wanted,
        labels,
    )
    expect(len(class_weight) <= 1, "takes two or three tensors, got {}", 2 + len(class_weight))
    for weight in class_weight:
        expect(
            weight.shape == (x.shape[axis],),
            "class_weight has a number for each class, shape {}, not {}",
            (x.shape[axis],),
            weight,
        )
    return Type(wanted if reduction == "none" else (), x.dtype)


def labels_canonical(
    x: Type, labels: Type, *class_weight: Type, axis: Any, reduction: Any, ignore_index: Any
) -> dict[str, Any]:
    check_reduction(reduction)
    if ignore_index is not None:
        ignore_index = whole(ignore_index, "ignore_index, where it is not None,")
        if labels.dtype.startswith(("i", "u")):  # else the types say what labels are
            limits = np.iinfo(labels.dtype)
            fits = limits.min <= ignore_index <= limits.max
            expect(fits, "ignore_index {} is no number of the labels' dtype, {}", ignore_index, labels.dtype)
    return {"axis": axis_of(axis, x.rank), "reduction": reduction, "ignore_index": ignore_index}


def of_labels(
    logs: np.ndarray,
    labels: np.ndarray,
    class_weight: tuple[np.ndarray, ...],
    axis: int,
    reduction: str,
    ignore_index: int | None,
    smoothing: float = 0.0,
) -> np.ndarray:
    """-weight[label] * logs[label]; smoothed, the mean over all classes has a share in it."""
    classes = logs.shape[axis]
    check_labels(labels, classes, ignore_index)
    counted = np.full(labels.shape, True) if ignore_index is None else labels != ignore_index
    labels = np.where(counted, labels, 0).astype(np.int64)
    weighted = logs
    if class_weight:
        weighted = logs * class_weight[0].reshape([-1 if i == axis else 1 for i in range(logs.ndim)])
    each = -np.squeeze(np.take_along_axis(weighted, np.expand_dims(labels, axis), axis), axis)
    if smoothing:
        each = (1 - smoothing) * each - smoothing / classes * weighted.sum(axis)
    each = np.where(counted, each, 0)
    count = np.where(counted, class_weight[0][labels], 0).sum() if class_weight else int(counted.sum())
    return total(each, reduction, count)


def of_label_tensors(
    logs: Tensor,
    labels: Tensor,
    class_weight: tuple[Tensor, ...],
    axis: int,
    reduction: str,
    ignore_index: int | None,
    smoothing: float = 0.0,
) -> Tensor:
    """The same with nodes."""
    classes = logs.shape[axis]
    ignored = None
    if ignore_index is not None:
        ignored = equal(labels, ignore_index)
        labels = where(ignored, 0, labels)
    kept = lambda x: x if ignored is None else where(ignored, 0.0, x)
    chosen = one_hot(labels, classes, axis=axis, dtype="bool")
    weighted, count = logs, None
    if class_weight:
        weight = reshape(class_weight[0], tuple(-1 if i == axis else 1 for i in range(logs.rank)))
        weighted = logs * weight
        count = broadcast.sum(kept(broadcast.sum(where(chosen, weight, 0.0), axis)))
    elif ignored is not None:
        count = broadcast.sum(cast(logical_not(ignored), logs.dtype))
    each = -broadcast.sum(where(chosen, weighted, 0.0), axis)
    if smoothing:
        each = each * (1 - smoothing) - broadcast.sum(weighted, axis) * (smoothing / classes)  # type: ignore[operator]
    return total_of_tensor(kept(each), reduction, count if reduction == "mean" else None)


def cross_entropy_types(
    logits: Type,
    labels: Type,
    /,
    *class_weight: Type,
    axis: int = 1,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> Type:
    """-log softmax(logits) at the label: logits (N, C) and integer labels (N,), or (N, C, ...) and (N, ...).

    class_weight: a third tensor (C,), or none: the loss of a label is multiplied by the weight of its class, and the
        mean is the weighted one, divided by the sum of the labels' weights.
    reduction: "mean" over all labels (NaN for none), "sum", or "none".
    label_smoothing: e: the target is 1 - e for the label and e / C for each class on top (Szegedy et al. 2016).
    ignore_index: labels of this number count neither in the sum nor in the mean; their loss and gradient are 0.
    Any other label outside of 0 to C - 1 is an error.
    """
    return labels_types(logits, labels, class_weight, axis, reduction)


def cross_entropy_canonical(*types: Type, label_smoothing: Any, **attrs: Any) -> dict[str, Any]:
    number = isinstance(label_smoothing, (int, float)) and 0 <= label_smoothing <= 1
    expect(number, "label_smoothing is from 0 to 1, not {!r}", label_smoothing)
    return {**labels_canonical(*types, **attrs), "label_smoothing": float(label_smoothing)}


def cross_entropy_reference(
    logits: np.ndarray, labels: np.ndarray, *class_weight: np.ndarray, axis: int, label_smoothing: float, **attrs: Any
) -> np.ndarray:
    logs = log_softmax_reference(logits, axis=axis)
    return of_labels(logs, labels, class_weight, axis, smoothing=label_smoothing, **attrs)


@expand_in_float32
def cross_entropy_expand(
    logits: Tensor, labels: Tensor, *class_weight: Tensor, axis: int, label_smoothing: float, **attrs: Any
) -> Tensor:
    logs = log_softmax(logits, axis)
    return of_label_tensors(logs, labels, class_weight, axis, smoothing=label_smoothing, **attrs)


LABELLED = (
    Example(real(4, 3), integers(4, below=3)),
    Example(real(2, 3, 2), integers(2, 2, below=3), reduction="sum"),
    Example(real(3, 2), integers(3, below=2, dtype="int32"), reduction="none"),
    Example(real(0, 3), integers(0, below=3), reduction="sum"),
    Example(real(2, 2, 3), integers(2, 2, below=3), axis=-1),
    Example(real(4, 3), integers(4, below=3), positive(3)),
    Example(real(5, 3), integers(5, below=3), ignore_index=1),
    Example(real(2, 2, 3), integers(2, 3, below=2), positive(2), ignore_index=0, reduction="sum"),
    Example(real(5, 2), integers(5, below=3), positive(2), ignore_index=2),
)

cross_entropy = Op(
    "cross_entropy",
    cross_entropy_types,
    cross_entropy_reference,
    expand=cross_entropy_expand,
    canonical=cross_entropy_canonical,
    flops=per_number(6),
    examples=(
        *LABELLED,
        Example(real(3, 2), integers(3, below=2), label_smoothing=0.25),
        Example(real(6, 3), integers(6, below=3), positive(3), label_smoothing=0.5, ignore_index=2),
    ),
)


def nll_loss_types(
    log_probabilities: Type,
    labels: Type,
    /,
    *class_weight: Type,
    axis: int = 1,
    reduction: str = "mean",
    ignore_index: int | None = None,
) -> Type:
    """The negative log likelihood: -log_probabilities at the label.

    Of log_softmax(logits) it is the cross entropy; shapes, class_weight and ignore_index are as there.
    """
    return labels_types(log_probabilities, labels, class_weight, axis, reduction)


def nll_loss_reference(logs: np.ndarray, labels: np.ndarray, *class_weight: np.ndarray, **attrs: Any) -> np.ndarray:
    return of_labels(logs, labels, class_weight, **attrs)


@expand_in_float32
def nll_loss_expand(logs: Tensor, labels: Tensor, *class_weight: Tensor, **attrs: Any) -> Tensor:
    return of_label_tensors(logs, labels, class_weight, **attrs)


nll_loss = Op(
    "nll_loss",
    nll_loss_types,
    nll_loss_reference,
    expand=nll_loss_expand,
    canonical=labels_canonical,
    flops=lambda inputs, outputs, attrs: inputs[1].size,
    examples=LABELLED,
)


def accuracy(logits: Tensor, labels: Tensor, axis: int = 1) -> Tensor:
    """The share of labels that have the largest logit, as a float32 scalar."""
    with logits.builder.scope("accuracy"):
        return mean(cast(equal(argmax(logits, axis), cast(labels, "int64")), "float32"))


# of probabilities


def alike(x: Type, target: Type) -> None:
    """Two tensors of one float dtype and one shape: what merely broadcasts, (N,) and (N, 1), is a mistake."""
    float_dtype(x, target)
    expect(x.shape == target.shape, "what is compared has one shape, not {} and {}", x, target)


def soft_cross_entropy_types(logits: Type, probabilities: Type, /, *, axis: int = 1, reduction: str = "mean") -> Type:
    """Cross entropy with a distribution as target: -sum(probabilities * log softmax(logits)) along the classes.

    Both are (N, C, ...). A probability of 0 adds nothing, whatever the logit, and its gradient is 0. For class weights,
    multiply the probabilities by them.
    """
    softmax_types(logits, axis)
    alike(logits, probabilities)
    left = (*logits.shape[:axis], *logits.shape[axis + 1 :])
    return Type(left if reduction == "none" else (), logits.dtype)


def soft_cross_entropy_canonical(logits: Type, probabilities: Type, axis: Any, reduction: Any) -> dict[str, Any]:
    check_reduction(reduction)
    return {"axis": axis_of(axis, logits.rank), "reduction": reduction}


def soft_cross_entropy_reference(x: np.ndarray, target: np.ndarray, axis: int, reduction: str) -> np.ndarray:
    logs = scalar.where(scalar.equal(target, 0), 0, log_softmax_reference(x, axis=axis))
    return total(-(target * logs).sum(axis), reduction)


@expand_in_float32
def soft_cross_entropy_expand(x: Tensor, target: Tensor, axis: int, reduction: str) -> Tensor:
    logs = where(equal(target, 0.0), 0.0, log_softmax(x, axis))
    return total_of_tensor(-broadcast.sum(target * logs, axis), reduction)


soft_cross_entropy = Op(
    "soft_cross_entropy",
    soft_cross_entropy_types,
    soft_cross_entropy_reference,
    expand=soft_cross_entropy_expand,
    canonical=soft_cross_entropy_canonical,
    flops=per_number(7),
    examples=(
        Example(real(3, 2), positive(3, 2)),
        Example(real(2, 3, 1), positive(2, 3, 1), reduction="none"),
        Example(real(2, 2, 3), positive(2, 2, 3), axis=-1, reduction="sum"),
        Example(real(0, 3), positive(0, 3), reduction="sum"),
    ),
)


def compared(
    name: str,
    types: Callable[..., Type],
    each: Callable[..., np.ndarray],
    each_of_tensors: Callable[..., Tensor],
    examples: tuple[Example, ...],
    flops: int,
    canonical: Callable[..., dict[str, Any]] = dict,
    reductions: tuple[str, ...] = (),
) -> Op:
    """A loss that compares number by number.

    each: its formula on arrays; each_of_tensors: the same with nodes; flops: how many operations for one number;
    canonical: its attributes but `reduction`; reductions: those that it has beyond the three.
    """

    def canonical_with_reduction(*types: Type, reduction: Any, **attrs: Any) -> dict[str, Any]:
        check_reduction(reduction, *reductions)
        return {**canonical(**attrs), "reduction": reduction}

    return Op(
        name,
        types,
        lambda *arrays, reduction, **attrs: total(each(*arrays, **attrs), reduction),
        expand=expand_in_float32(
            lambda *tensors, reduction, **attrs: total_of_tensor(each_of_tensors(*tensors, **attrs), reduction)
        ),
        canonical=canonical_with_reduction,
        flops=per_number(flops),
        examples=examples,
    )


def compared_type(x: Type, target: Type, reduction: str) -> Type:
    alike(x, target)
    return Type(x.shape if reduction == "none" else (), x.dtype)


def binary_cross_entropy_types(logits: Type, targets: Type, /, *positive_weight: Type, reduction: str = "mean") -> Type:
    """-targets * log sigmoid(logits) - (1 - targets) * log(1 - sigmoid(logits)), of one shape, targets from 0 to 1.

    Without overflow and without a log of 0, for logits of any size. positive_weight: a third tensor, or none: the first
    of the two terms is multiplied by it (it broadcasts to the logits: one number for each class is shape (C,)).
    """
    expect(len(positive_weight) <= 1, "takes two or three tensors, got {}", 2 + len(positive_weight))
    for weight in positive_weight:
        float_dtype(logits, weight)
        fits = broadcast_shapes(weight.shape, logits.shape) == logits.shape
        expect(fits, "positive_weight {} does not broadcast to logits {}", weight, logits)
    return compared_type(logits, targets, reduction)


def binary_each(softplus: Callable[[Any], Any], x: Any, target: Any, *positive_weight: Any) -> Any:
    """-log sigmoid(x) is softplus(-x), and -log(1 - sigmoid(x)) is softplus(x)."""
    one = target * softplus(-x)
    for weight in positive_weight:
        one = one * weight
    return one + (1.0 - target) * softplus(x)


binary_cross_entropy = compared(
    "binary_cross_entropy",
    binary_cross_entropy_types,
    partial(binary_each, scalar.softplus),
    partial(binary_each, softplus),
    (
        Example(real(3, 2), positive(3, 2)),
        Example(real(2, 3), positive(2, 3), positive(3), reduction="sum"),
        Example(real(2, 1), positive(2, 1), positive(), reduction="none"),
        Example(real(0, 3), positive(0, 3), positive(3), reduction="sum"),
    ),
    flops=11,
)


def kl_div_types(log_input: Type, target: Type, /, *, log_target: bool = False, reduction: str = "mean") -> Type:
    """The Kullback-Leibler divergence of a distribution from a target: target * (log target - log_input), number by
    number, in PyTorch's order: the first tensor holds log-probabilities, the second one probabilities.

    log_target: the target, too, is given as logarithms.
    reduction: "mean" divides by all numbers; "batchmean" by the size of the first axis, which is the divergence as
        mathematics has it where the rest is one distribution.
    A target of 0 adds nothing, whatever the input (0 log 0 = 0), and its gradient is 0.
    """
    expect(reduction != "batchmean" or log_input.rank >= 1, "batchmean needs a batch, got {}", log_input)
    return compared_type(log_input, target, reduction)


def kl_canonical(log_target: Any) -> dict[str, Any]:
    return {"log_target": bool(log_target)}


def kl_each(log_input: np.ndarray, target: np.ndarray, log_target: bool) -> np.ndarray:
    p = scalar.exp(target) if log_target else target
    none = scalar.equal(p, 0)
    log_p = target if log_target else scalar.log(np.where(none, 1, p))
    # each is masked by itself: -inf - -inf would be NaN
    return p * (np.where(none, 0, log_p) - np.where(none, 0, log_input))


def kl_each_of_tensors(log_input: Tensor, target: Tensor, log_target: bool) -> Tensor:
    p = exp(target) if log_target else target
    none = equal(p, 0.0)
    log_p = where(none, 0.0, target) if log_target else log(where(none, 1.0, p))
    return p * (log_p - where(none, 0.0, log_input))


kl_div = compared(
    "kl_div",
    kl_div_types,
    kl_each,
    kl_each_of_tensors,
    (
        Example(real(3, 2), positive(3, 2)),
        Example(real(2, 3), real(2, 3), log_target=True, reduction="batchmean"),
        Example(real(2, 1), positive(2, 1), reduction="none"),
        Example(real(2, 2), positive(2, 2), reduction="batchmean"),
        Example(real(0, 3), positive(0, 3), reduction="sum"),
    ),
    flops=4,
    canonical=kl_canonical,
    reductions=("batchmean",),
)


# of numbers

PAIRS = (
    Example(real(2, 3), real(2, 3)),
    Example(real(3, 1), real(3, 1), reduction="sum"),
    Example(real(2, 2), real(2, 2), reduction="none"),
    Example(real(0, 3), real(0, 3), reduction="sum"),
    Example(real(), real()),
)


def mse_loss_types(x: Type, target: Type, /, *, reduction: str = "mean") -> Type:
    """(x - target) squared; both have one shape."""
    return compared_type(x, target, reduction)


mse_loss = compared(
    "mse_loss",
    mse_loss_types,
    lambda x, target: (x - target) * (x - target),
    lambda x, target: square(x - target),
    PAIRS,
    flops=2,
)


def l1_loss_types(x: Type, target: Type, /, *, reduction: str = "mean") -> Type:
    """|x - target|; both have one shape. The slope where they are equal is 0."""
    return compared_type(x, target, reduction)


l1_loss = compared(
    "l1_loss",
    l1_loss_types,
    lambda x, target: np.abs(x - target),
    lambda x, target: absolute(x - target),
    PAIRS,
    flops=2,
)


def huber_loss_types(x: Type, target: Type, /, *, delta: float = 1.0, reduction: str = "mean") -> Type:
    """d^2 / 2 for d = |x - target| up to delta, and from there on the straight line delta * (d - delta / 2) (Huber
    1964). Both have one shape; delta is above 0.
    """
    return compared_type(x, target, reduction)


def huber_canonical(delta: Any) -> dict[str, Any]:
    expect(isinstance(delta, (int, float)) and 0 < delta < math.inf, "delta is a number above 0, not {!r}", delta)
    return {"delta": float(delta)}


def huber_each(
    size: Callable[[Any], Any], smaller: Callable[[Any, Any], Any], x: Any, target: Any, delta: float
) -> Any:
    d = size(x - target)
    curved = smaller(d, delta)
    return curved * (d - curved * 0.5)  # both pieces in one, and no square that overflows


huber_loss = compared(
    "huber_loss",
    huber_loss_types,
    partial(huber_each, np.abs, np.minimum),
    partial(huber_each, absolute, minimum),
    (*PAIRS, Example(real(2, 3), real(2, 3), delta=0.5), Example(real(5), real(5), delta=2, reduction="none")),
    flops=5,
    canonical=huber_canonical,
)


def smooth_l1_loss(x: Tensor, target: Tensor, *, beta: float = 1.0, reduction: str = "mean") -> Tensor:
    """d^2 / (2 beta) for d = |x - target| up to beta, then d - beta / 2 (Girshick 2015): the Huber loss over beta.

    With beta = 0 it is the L1 loss.
    """
    if beta == 0:
        return l1_loss(x, target, reduction=reduction)
    return huber_loss(x, target, delta=beta, reduction=reduction) / beta


def hinge_loss_types(scores: Type, targets: Type, /, *, margin: float = 1.0, reduction: str = "mean") -> Type:
    """max(0, margin - targets * scores): targets are -1 or 1, of the scores' shape and dtype."""
    return compared_type(scores, targets, reduction)


def hinge_canonical(margin: Any) -> dict[str, Any]:
    expect(isinstance(margin, (int, float)) and math.isfinite(margin), "margin is a number, not {!r}", margin)
    return {"margin": float(margin)}


hinge_loss = compared(
    "hinge_loss",
    hinge_loss_types,
    lambda scores, targets, margin: scalar.maximum(margin - targets * scores, 0),
    lambda scores, targets, margin: relu(margin - targets * scores),
    (*PAIRS, Example(real(2, 3), real(2, 3), margin=0.5)),
    flops=3,
    canonical=hinge_canonical,
)
