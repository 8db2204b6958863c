"""Losses against ONNX's loss operators and against the definitions, one number after the other."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, fsum, log, log1p
from typing import Any

import numpy as np

from cases import INF, NAN, Case, These, positive, real, whole
from onnx_ops import Model, log_softmax, moved

ENTROPIES: list[tuple[Any, ...]] = [
    # logits, labels, class weights or nothing, attributes
    (real(5, 3), whole(5, low=0, below=3), positive(3), {}),
    (real(5, 3), whole(5, low=0, below=3), positive(3), {"reduction": "sum"}),
    (real(2, 3, 4), whole(2, 4, low=0, below=3), positive(3), {"reduction": "none"}),
    (real(7, 3), whole(7, low=0, below=3), {"ignore_index": 1}),
    (real(7, 3), whole(7, low=0, below=3), positive(3), {"ignore_index": 0}),
    (real(2, 3, 5), whole(2, 3, low=0, below=5), positive(5), {"axis": -1, "ignore_index": 2}),
    (real(6, 3), whole(6, low=-1, below=3), {"ignore_index": -1, "loops": True}),
    (real(6, 3), whole(6, low=-1, below=3, dtype="int32"), positive(3), {"ignore_index": -1, "loops": True}),
    (real(6, 2), whole(6, low=0, below=3, dtype="uint8"), {"ignore_index": 2, "reduction": "none", "loops": True}),
    (real(3, 2), whole(3, low=1, below=2), {"ignore_index": 1, "loops": True}),  # all ignored: NaN
    (real(3, 2), whole(3, low=1, below=2), {"ignore_index": 1, "reduction": "sum", "loops": True}),
    (real(4, 1), whole(4, low=0, below=1), positive(1), {}),
    *(
        (real(0, 3), whole(0, low=0, below=3), positive(3), {"reduction": reduction, "ignore_index": 1, "loops": True})
        for reduction in ("mean", "sum", "none")
    ),
]
EXTREME = These([[1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 999.0], [60000.0, -60000.0, 60000.0]])
SMOOTHED: list[tuple[Any, ...]] = [
    (real(5, 3), whole(5, low=0, below=3), {"label_smoothing": 0.125}),
    (real(5, 3), whole(5, low=0, below=3), positive(3), {"label_smoothing": 0.25, "reduction": "none"}),
    (real(2, 4, 3), whole(2, 3, low=0, below=4), positive(4), {"label_smoothing": 0.5, "ignore_index": 3}),
    (real(5, 2), whole(5, low=0, below=2), {"label_smoothing": 1}),
    (These([[20.0, -20.0, 0.0]]), whole(1, low=0, below=3), {"label_smoothing": 0.1, "reduction": "sum"}),
]

PAIRS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((3, 5), {}),
    ((2, 1, 3), {"reduction": "sum"}),
    ((7,), {"reduction": "none"}),
    ((), {}),
    *(((0, 3), {"reduction": reduction}) for reduction in ("mean", "sum", "none")),
]
NUMBERS = These([NAN, INF, -INF, 1.0, 2.5, -3.0, 200.0, 0.0])
OTHERS = These([1.0, 0.0, 2.0, 1.0, -1.0, INF, -100.0, NAN])
LOGITS = These([-200.0, -20.0, -1e-3, 0.0, -0.0, 20.0, 200.0, NAN])
BINARY: list[tuple[Any, ...]] = [
    # logits, targets, positive weight or nothing, attributes
    (real(3, 5), positive(3, 5), positive(5), {}),
    (real(3, 5), positive(3, 5), positive(3, 1), {"reduction": "none"}),
    (real(3, 5), positive(3, 5), positive(), {"reduction": "sum"}),
    (real(0, 5), positive(0, 5), positive(5), {}),
    (LOGITS, These([0.0] * 8), {"reduction": "none"}),
    (LOGITS, These([1.0] * 8), These(3.0), {"reduction": "none"}),
    (LOGITS, These([0.25] * 8), {"reduction": "none"}),
]
DIVERGENCES: list[tuple[Any, Any, dict[str, Any]]] = [
    (real(3, 5), positive(3, 5), {}),
    (real(3, 5), real(3, 5), {"log_target": True}),
    (real(2, 3, 4), positive(2, 3, 4), {"reduction": "batchmean"}),
    (real(2, 1), real(2, 1), {"reduction": "sum", "log_target": True}),
    (real(7), positive(7), {"reduction": "none"}),
    (real(), positive(), {}),
    (These([-1.0, -INF, -INF, 0.0]), These([0.0, 0.0, 0.5, 1.0]), {"reduction": "none"}),
    (
        These([-1.0, -INF, -INF, 0.0]),
        These([-INF, -INF, -0.5, 0.0]),
        {"reduction": "none", "log_target": True},
    ),
    *((real(0, 3), positive(0, 3), {"reduction": reduction}) for reduction in ("mean", "batchmean", "none")),
]

CASES = [
    *(Case(op, *tensors, **attrs) for op in ("cross_entropy", "nll_loss") for *tensors, attrs in ENTROPIES),
    *(Case("cross_entropy", *tensors, loops=True, **attrs) for *tensors, attrs in SMOOTHED),
    Case("cross_entropy", EXTREME, whole(3, low=0, below=3), reduction="none", loops=True),
    Case("nll_loss", real(3, 2), whole(3, low=0, below=2)),
    *(
        Case("soft_cross_entropy", x, p, **attrs)
        for x, p, attrs in (
            (real(3, 5), positive(3, 5), {}),
            (real(2, 5, 3), positive(2, 5, 3), {"reduction": "none"}),
            (real(2, 3, 4), real(2, 3, 4), {"axis": -1, "reduction": "sum"}),
            (real(4, 1), positive(4, 1), {}),
            (EXTREME, These([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.0, 0.5]]), {"reduction": "none"}),
            (These([[-INF, 0.0, 1.0]]), These([[0.0, 0.25, 0.75]]), {}),
            (real(0, 3), real(0, 3), {}),
            (real(0, 3), real(0, 3), {"reduction": "none"}),
        )
    ),
    *(
        Case(op, real(*shape), real(*shape), **attrs)
        for op in ("mse_loss", "l1_loss", "huber_loss", "hinge_loss", "binary_cross_entropy")
        for shape, attrs in PAIRS
    ),
    *(Case(op, NUMBERS, OTHERS, reduction="none") for op in ("mse_loss", "l1_loss", "huber_loss", "hinge_loss")),
    *(Case("huber_loss", real(3, 5), real(3, 5), delta=delta) for delta in (0.25, 2, 9.0)),
    Case("huber_loss", These([3e4]), These([-3e4]), delta=1.0),  # its square is beyond float16
    *(Case("hinge_loss", real(5), These([1.0, -1.0, -1.0, 1.0, 1.0]), margin=margin) for margin in (0.5, 2)),
    *(Case("binary_cross_entropy", *tensors, **attrs) for *tensors, attrs in BINARY),
    *(Case("kl_div", x, target, **attrs) for x, target, attrs in DIVERGENCES),
]


# by ONNX


def _labelled(name: str) -> Callable[..., str]:
    def build(model: Model, x: str, labels: str, *weight: str, axis: int = 1, **attrs: Any) -> str:
        x = moved(model, x, model.given[x].ndim, axis, 1)
        return model.add(name, x, labels, *weight, **attrs)

    return build


ONNX: dict[str, Callable[..., Any]] = {
    "cross_entropy": _labelled("SoftmaxCrossEntropyLoss"),
    "nll_loss": _labelled("NegativeLogLikelihoodLoss"),
}


# by loops


def reduced(each: Any, reduction: str, count: float | None = None) -> np.ndarray:
    """Of an array, or of a nested list with its empty axes lost: only its numbers count then."""
    each = np.asarray(each, np.float64)
    if reduction == "none":
        return each
    added = fsum(each.flat) if np.isfinite(each).all() else float(each.sum())
    count = each.size if count is None else count
    return np.array(added if reduction == "sum" else added / count if count else NAN)


def nll_loss(
    x: np.ndarray,
    labels: np.ndarray,
    *class_weight: np.ndarray,
    axis: int = 1,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> np.ndarray:
    """Each class has a target probability, and each class a weight; the mean is over the weights of the labels."""
    lines = np.moveaxis(x, axis, -1)
    classes = lines.shape[-1]
    weights = class_weight[0] if class_weight else np.ones(classes)
    each, count = np.zeros(labels.shape), 0.0
    for at in np.ndindex(*labels.shape):
        label = int(labels[at])
        if label == ignore_index:
            continue
        count += weights[label]
        for c in range(classes):
            target = (1 - label_smoothing) * (c == label) + label_smoothing / classes
            each[at] -= weights[c] * target * lines[at][c] if target else 0.0
    return reduced(each, reduction, count)


def cross_entropy(logits: np.ndarray, labels: np.ndarray, *weight: np.ndarray, **attrs: Any) -> np.ndarray:
    return nll_loss(log_softmax(logits, attrs.get("axis", 1)), labels, *weight, **attrs)


def soft_cross_entropy(x: np.ndarray, target: np.ndarray, axis: int = 1, reduction: str = "mean") -> np.ndarray:
    logs, target = np.moveaxis(log_softmax(x, axis), axis, -1), np.moveaxis(target, axis, -1)
    each = np.zeros(logs.shape[:-1])
    for at in np.ndindex(*each.shape):
        each[at] = -fsum(t * v for t, v in zip(target[at], logs[at]) if t != 0)
    return reduced(each, reduction)


def by_number(each: Callable[..., float]) -> Callable[..., np.ndarray]:
    """A loss from its formula for one number; tensors behind the first two broadcast."""

    def loss(x: np.ndarray, target: np.ndarray, *more: np.ndarray, reduction: str = "mean", **attrs: Any) -> np.ndarray:
        others = [np.broadcast_to(array, x.shape) for array in more]
        found = np.zeros(x.shape)
        for at in np.ndindex(*x.shape):
            found[at] = each(float(x[at]), float(target[at]), *(float(array[at]) for array in others), **attrs)
        return reduced(found, reduction, len(x) if reduction == "batchmean" else None)

    return loss


def huber(x: float, target: float, delta: float = 1.0) -> float:
    d = abs(x - target)
    return d * d / 2 if d <= delta else delta * (d - delta / 2)


def hinge(score: float, target: float, margin: float = 1.0) -> float:
    short = margin - target * score
    return 0.0 if short <= 0 else short


def softplus(x: float) -> float:
    """log(1 + e^x)."""
    return x + log1p(exp(-x)) if x > 0 else log1p(exp(x))


def binary(x: float, target: float, weight: float = 1.0) -> float:
    return weight * target * softplus(-x) + (1 - target) * softplus(x)


def kl(log_input: float, target: float, log_target: bool = False) -> float:
    p = exp(target) if log_target else target
    return 0.0 if p == 0 else p * (log(p) - log_input)


LOOPS: dict[str, Callable[..., Any]] = {
    "cross_entropy": cross_entropy,
    "nll_loss": nll_loss,
    "soft_cross_entropy": soft_cross_entropy,
    "mse_loss": by_number(lambda x, target: (x - target) * (x - target)),
    "l1_loss": by_number(lambda x, target: abs(x - target)),
    "huber_loss": by_number(huber),
    "hinge_loss": by_number(hinge),
    "binary_cross_entropy": by_number(binary),
    "kl_div": by_number(kl),
}

EXACT: set[str] = set()
