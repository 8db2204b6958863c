"""Losses where it is hard for them: extreme logits, labels out of range, ignored labels, empty batches, mistakes.

That they are the right formulas is tested in test_onnx_ops.py, that their gradients are in test_registry.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph.core.dtypes import FLOATS, epsilon
from minigraph.core.evaluate import evaluate
from minigraph.ops.loss import (
    binary_cross_entropy,
    cross_entropy,
    hinge_loss,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
    soft_cross_entropy,
)

NAN, INF = float("nan"), float("inf")


def with_gradient(loss: Callable[..., mg.Tensor], *arrays: Any, dtype: str = "float32", **attrs: Any) -> Any:
    """The loss, and its gradient for the first array: of its sum, if it is not a scalar. Integers stay integers."""
    net = mg.Builder()
    given = [np.asarray(a) if np.asarray(a).dtype.kind == "i" else np.asarray(a, dtype) for a in arrays]
    tensors = [net.input(f"x{i}", a.shape, a.dtype) for i, a in enumerate(given)]
    y = loss(*tensors, **attrs)
    (slope,) = mg.gradient(y if y.rank == 0 else mg.sum(y), [tensors[0]])
    found = evaluate(net.build(loss=y, slope=slope), {f"x{i}": a for i, a in enumerate(given)})
    return found["loss"], found["slope"]


def close(found: np.ndarray, wanted: Any, ulps: float = 16) -> None:
    """To a few roundings of the dtype, for each number by itself."""
    np.testing.assert_allclose(found.astype(float), np.asarray(wanted, float), rtol=ulps * epsilon(found.dtype), atol=0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_cross_entropy_of_extreme_logits(dtype: str) -> None:
    big = 3e4 if dtype == "float16" else 1e30
    logits = [[big, -big], [-big, big], [big, big]]
    loss, slope = with_gradient(cross_entropy, logits, [0, 0, 1], reduction="none", dtype=dtype)
    close(loss, np.array([0, 2 * big, np.log(2)], dtype))
    close(slope, [[0, 0], [-1, 1], [0.5, -0.5]])


@pytest.mark.parametrize("dtype", FLOATS)
def test_binary_cross_entropy_of_extreme_logits(dtype: str) -> None:
    big = 3e4 if dtype == "float16" else 1e30
    logits, targets = [big, -big, big, -big, 0, 0, 0], [1, 0, 0, 1, 1, 0, 0.25]
    loss, slope = with_gradient(binary_cross_entropy, logits, targets, reduction="none", dtype=dtype)
    close(loss, [0, 0, big, big, *[np.log(2)] * 3])
    close(slope, [0, 0, 1, -1, -0.5, 0.5, 0.25])  # sigmoid(logit) - target, at 0 too


def test_a_confident_answer_still_has_a_small_loss() -> None:
    """log(1 + e^-30) is e^-30, which 1 + e^-30 in float32 does not hold."""
    loss, slope = with_gradient(binary_cross_entropy, [30.0, -30.0], [1.0, 0.0], reduction="none")
    close(loss, [np.exp(-30.0)] * 2)
    close(slope, [-np.exp(-30.0), np.exp(-30.0)])


def test_positive_weight_counts_positives_more() -> None:
    x, y, w = np.array([[0.5, -1.0], [2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([3.0, 0.5])
    plain = lambda x, y: np.log1p(np.exp(-x)) * y + np.log1p(np.exp(x)) * (1 - y)
    loss, slope = with_gradient(binary_cross_entropy, x, y, w, dtype="float64")
    close(loss, np.mean(np.where(y == 1, w * plain(x, y), plain(x, y))))
    s = 1 / (1 + np.exp(-x))
    close(slope, np.where(y == 1, w * (s - 1), s) / 4)


def test_the_weighted_mean_divides_by_the_weights_of_the_labels() -> None:
    logits, labels, weight = np.array([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]]), np.array([0, 1, 1]), np.array([5.0, 0.25])
    each = np.log(np.exp(logits).sum(1)) - logits[[0, 1, 2], labels]
    loss, _ = with_gradient(cross_entropy, logits, labels, weight, dtype="float64")
    close(loss, (5 * each[0] + 0.25 * each[1] + 0.25 * each[2]) / 5.5)


def test_a_class_weight_may_be_an_array() -> None:
    net = mg.Builder()
    logits, label = net.input("logits", ("N", 2)), net.input("label", ("N",), "int64")
    graph = net.build(loss=cross_entropy(logits, label, np.array([1.0, 3.0])))
    found = evaluate(graph, {"logits": np.zeros((2, 2), np.float32), "label": np.array([0, 1])})
    close(found["loss"], np.log(2))


@pytest.mark.parametrize("loss", [cross_entropy, nll_loss])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [(), ([2.0, 0.5, 1.0],)])
def test_ignored_labels_are_as_if_they_were_not_there(loss: Any, reduction: str, weight: Any) -> None:
    rng = np.random.default_rng(0)
    x, labels, kept = rng.normal(size=(5, 3)), np.array([0, -100, 2, -100, 1]), [0, 2, 4]
    whole, slope = with_gradient(loss, x, labels, *weight, reduction=reduction, ignore_index=-100, dtype="float64")
    part, part_slope = with_gradient(loss, x[kept], labels[kept], *weight, reduction=reduction, dtype="float64")
    close(whole[kept] if reduction == "none" else whole, part)
    close(slope[kept], part_slope)
    assert not slope[[1, 3]].any()
    if reduction == "none":
        assert not whole[[1, 3]].any()


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_with_all_labels_ignored_nothing_moves(reduction: str) -> None:
    loss, slope = with_gradient(cross_entropy, [[1.0, 2.0]], [7], ignore_index=7, reduction=reduction)
    assert not loss.any()
    assert not slope.any()
    mean, _ = with_gradient(cross_entropy, [[1.0, 2.0]], [7], ignore_index=7)
    assert np.isnan(mean)


def test_label_smoothing_moves_the_best_logits_from_infinity() -> None:
    """With C classes and smoothing e, softmax is to be 1 - e + e/C at the label and e/C elsewhere."""
    smoothing, classes = 0.3, 3
    target = np.full(classes, smoothing / classes)
    target[1] += 1 - smoothing
    loss, slope = with_gradient(cross_entropy, [np.log(target)], [1], label_smoothing=smoothing, dtype="float64")
    np.testing.assert_allclose(slope, 0, atol=1e-15)
    close(loss, -(target * np.log(target)).sum())


def test_soft_targets_of_one_hot_are_labels() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    soft, soft_slope = with_gradient(soft_cross_entropy, x, np.eye(3)[[2, 0, 1, 1]], dtype="float64")
    hard, hard_slope = with_gradient(cross_entropy, x, [2, 0, 1, 1], dtype="float64")
    close(soft, hard)
    np.testing.assert_allclose(soft_slope, hard_slope, rtol=0, atol=1e-15)  # of numbers below 1/4


def test_masked_logits_with_no_probability_do_no_harm() -> None:
    loss, slope = with_gradient(soft_cross_entropy, [[-INF, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    close(loss, np.log(2))
    close(slope, [[0, -0.5, 0.5]])


@pytest.mark.parametrize(("target", "attrs"), [([0.0, 1.0], {}), ([-INF, 0.0], {"log_target": True})])
def test_what_is_impossible_in_both_does_not_diverge(target: list[float], attrs: dict[str, Any]) -> None:
    loss, slope = with_gradient(kl_div, [-INF, -0.5], target, reduction="sum", **attrs)
    close(loss, 0.5)
    close(slope, [0, -1])


def test_divergence_of_distributions() -> None:
    """batchmean is the mean of sum(p log(p / q)), at least 0 and 0 for equal ones; mean divides by the classes too."""
    p, q = np.array([[0.25, 0.75], [0.5, 0.5]]), np.array([[0.5, 0.5], [0.5, 0.5]])
    wanted = (0.25 * np.log(0.5) + 0.75 * np.log(1.5)) / 2
    close(with_gradient(kl_div, np.log(q), p, reduction="batchmean", dtype="float64")[0], wanted)
    close(with_gradient(kl_div, np.log(q), p, dtype="float64")[0], wanted / 2)
    close(
        with_gradient(kl_div, np.log(q), np.log(p), log_target=True, reduction="batchmean", dtype="float64")[0], wanted
    )


def test_robust_losses_grow_straight_and_are_flat_where_they_agree() -> None:
    x = [0.0, 0.5, -0.5, 1e30, -1e30]
    zero = [0.0] * 5
    cases: list[tuple[Any, dict[str, Any], Any, list[float]]] = [
        (l1_loss, {}, np.abs(x), [0, 1, -1, 1, -1]),
        (huber_loss, {"delta": 2.0}, [0, 0.125, 0.125, 2e30, 2e30], [0, 0.5, -0.5, 2, -2]),
        (smooth_l1_loss, {"beta": 0.25}, [0, 0.375, 0.375, 1e30, 1e30], [0, 1, -1, 1, -1]),
        (smooth_l1_loss, {"beta": 2.0}, [0, 0.0625, 0.0625, 1e30, 1e30], [0, 0.25, -0.25, 1, -1]),
        (smooth_l1_loss, {"beta": 0}, np.abs(x), [0, 1, -1, 1, -1]),
    ]
    for loss, attrs, wanted, slopes in cases:
        found, slope = with_gradient(loss, x, zero, reduction="none", **attrs)
        close(found, wanted)
        close(slope, slopes)


def test_hinge_asks_for_the_margin_only() -> None:
    loss, slope = with_gradient(hinge_loss, [3.0, 0.5, -1.0, -3.0], [1.0, 1.0, 1.0, -1.0], reduction="none")
    close(loss, [0, 0.5, 2, 0])
    close(slope, [0, -1, -1, 0])


def test_half_precision_is_rounded_once() -> None:
    """The squares (90000) and their sum are beyond float16's 65504, the mean and its gradient are not."""
    x, zero = np.full(4096, 300.0), np.zeros(4096)
    loss, slope = with_gradient(l1_loss, x, zero, dtype="float16")
    assert (loss.dtype, slope.dtype) == (np.float16, np.float16)
    close(loss, 300)
    close(slope, np.full(4096, 1 / 4096))
    _, slope = with_gradient(mse_loss, x, zero, dtype="float16")
    close(slope, np.full(4096, 600 / 4096))


PAIRED = [mse_loss, l1_loss, huber_loss, smooth_l1_loss, hinge_loss, binary_cross_entropy, kl_div]


@pytest.mark.parametrize("loss", [*PAIRED, soft_cross_entropy])
def test_an_empty_batch_has_no_gradient_and_a_sum_of_0(loss: Any) -> None:
    empty = np.zeros((0, 3))
    found, slope = with_gradient(loss, empty, empty, reduction="sum")
    assert found == 0
    assert slope.shape == (0, 3)
    assert np.isnan(with_gradient(loss, empty, empty)[0])


@pytest.mark.parametrize("loss", [cross_entropy, nll_loss])
def test_a_label_out_of_range_is_named_with_its_place(loss: Any) -> None:
    x = np.zeros((2, 3, 2))
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ([[0, 1], [2, 3]], {}, r"label 3 at \[1, 1\] is outside of 0 to 2"),
        ([[0, -1], [2, 0]], {}, r"label -1 at \[0, 1\] is outside"),
        ([[9, -1], [-2, 0]], {"ignore_index": 9}, r"label -1 at \[0, 1\] is outside"),
    ]
    for labels, attrs, message in cases:
        with pytest.raises(mg.GraphError, match=message):
            with_gradient(loss, x, labels, **attrs)


def pair(*shapes: Any, dtypes: tuple[str, ...] = ("float32", "float32", "float32")) -> list[mg.Tensor]:
    net = mg.Builder()
    return [net.input(f"x{i}", shape, dtype) for i, (shape, dtype) in enumerate(zip(shapes, dtypes))]


LABELLED = ("float32", "int64", "float32", "float32")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mse_loss(*pair(("N",), ("N", 1))), r"one shape, not float32\[N\] and float32\[N, 1\]"),
        (lambda: l1_loss(*pair((3,), (3,), dtypes=("float32", "float64"))), "dtypes float32 and float64"),
        (lambda: hinge_loss(*pair((3,), (3,), dtypes=("float32", "int64"))), "dtypes float32 and int64"),
        (lambda: mse_loss(*pair((3,), (3,)), reduction="avg"), '"mean", "sum" or "none", not \'avg\''),
        (lambda: mse_loss(*pair((3,), (3,)), reduction="batchmean"), "not 'batchmean'"),
        (lambda: kl_div(*pair((), ()), reduction="batchmean"), "needs a batch"),
        (lambda: kl_div(*pair((3,), (3,)), reduction="avg"), '"mean", "sum", "batchmean" or "none", not'),
        (lambda: huber_loss(*pair((3,), (3,)), delta=0), "delta is a number above 0, not 0"),
        (lambda: huber_loss(*pair((3,), (3,)), delta=NAN), "delta is a number above 0"),
        (lambda: hinge_loss(*pair((3,), (3,)), margin="1"), "margin is a number"),
        (lambda: binary_cross_entropy(*pair((2, 3), (2, 3), (2,))), "do not broadcast: axis -1 has"),
        (lambda: binary_cross_entropy(*pair((3,), (3,), (2, 3))), "does not broadcast to logits"),
        (lambda: soft_cross_entropy(*pair((2, 3), (2,))), "one shape"),
        (lambda: cross_entropy(*pair((2, 3), (2,))), "labels are integers"),
        (lambda: cross_entropy(*pair((2, 3), (3,), dtypes=LABELLED)), r"labels of shape \(2,\), not int64\[3\]"),
        (lambda: cross_entropy(*pair((2, 3), (2,), (2,), dtypes=LABELLED)), r"class_weight .* shape \(3,\), not"),
        (lambda: nll_loss(*pair((2, 3), (2,), (3,), (3,), dtypes=LABELLED)), "two or three tensors, got 4"),
        (
            lambda: cross_entropy(*pair((2, 3), (2,), dtypes=LABELLED), label_smoothing=1.5),
            "label_smoothing is from 0 to 1, not 1.5",
        ),
        (
            lambda: cross_entropy(*pair((2, 3), (2,), dtypes=LABELLED), ignore_index=0.5),
            "ignore_index, .* whole number, not 0.5",
        ),
        (
            lambda: cross_entropy(*pair((2, 3), (2,), dtypes=("float32", "uint8")), ignore_index=-100),
            "ignore_index -100 is no number of the labels' dtype, uint8",
        ),
    ],
)
def test_mistakes_are_said_when_the_loss_is_built(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(mg.GraphError, match=message):
        build()
