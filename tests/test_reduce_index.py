"""Reductions and indexing: gradients at zeros, ties and infinities, indices outside, and the functions made of ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph.core import proof
from minigraph.core.evaluate import evaluate
from minigraph.core.op import Sample
from minigraph.ops import index, reduce, scan

INF, NAN = float("inf"), float("nan")


def compute(function: Callable[..., Any], *arrays: Any) -> np.ndarray:
    """A function of tensors on arrays."""
    net = mg.Builder()
    given = {f"x{i}": np.asarray(a) for i, a in enumerate(arrays)}
    y = function(*(net.input(name, a.shape, a.dtype) for name, a in given.items()))
    return evaluate(net.build(y=y), given)["y"]


def slope(function: Callable[..., Any], x: Any, order: int = 1) -> np.ndarray:
    """The gradient of the sum of a function's results; of a higher order, that of the sum of the gradient before."""

    def of(t: mg.Tensor, *_: Any) -> mg.Tensor:
        y = t
        for i in range(order + 1):
            y = mg.gradient(mg.sum(y), [t])[0] if i else function(t)
        return y

    return compute(of, np.asarray(x))


def proved(function: Callable[..., mg.Tensor], *samples: Sample) -> None:
    """The gradient of a function of tensors, and the gradient of that, in exact numbers."""
    net = mg.Builder()
    inputs = [net.input(f"x{i}", s.shape, s.in_dtype("float64")) for i, s in enumerate(samples)]
    graph, drawn = net.build(y=function(*inputs)), {f"x{i}": s for i, s in enumerate(samples)}
    proof.prove_gradient(graph, drawn)
    backward, seeds = proof.gradient_graph(graph)
    proof.prove_gradient(backward, {**drawn, **seeds})


def real(*shape: int) -> Sample:
    return Sample(shape)


def places(*shape: int, of: int) -> Sample:
    return Sample(shape, "int64", -of, of)


# products


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([2.0, 3.0, 4.0], [12.0, 8.0, 6.0]),
        ([2.0, 0.0, 4.0], [0.0, 8.0, 0.0]),
        ([0.0, 0.0, 4.0], [0.0, 0.0, 0.0]),
        ([0.0], [1.0]),
        ([2.0, 3.0, 0.0, 5.0, 7.0, 1.0, -1.0], [0.0, 0.0, -210.0, 0.0, 0.0, 0.0, 0.0]),
        ([INF, 2.0, 3.0], [6.0, INF, INF]),
        ([], []),
    ],
)
def test_gradient_of_a_product_is_the_product_of_the_others(x: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(slope(reduce.prod, x), expected)


def test_second_derivative_of_a_product_is_right_at_zeros() -> None:
    """d2/dx_i dx_j of abc is the third factor: row sums of the Hessian at (0, 0, 5) are b + c, a + c, a + b."""
    np.testing.assert_array_equal(slope(reduce.prod, [0.0, 0.0, 5.0], order=2), [5.0, 5.0, 0.0])


def test_product_over_several_axes_and_its_gradient_with_zeros() -> None:
    x = np.random.default_rng(0).integers(-2, 3, (3, 4, 5)).astype(np.float64)
    others = np.ones_like(x)
    for i, j, k in np.ndindex(x.shape):
        rest = x[:, j, :].copy()
        rest[i, k] = 1
        others[i, j, k] = rest.prod()
    np.testing.assert_array_equal(slope(lambda t: reduce.prod(t, (0, 2)), x), others)  # whole numbers: exact


def test_product_over_an_axis_of_unknown_size() -> None:
    net = mg.Builder()
    x = net.input("x", ("N", 3))
    y = reduce.prod(x, 0)
    np.testing.assert_array_equal(evaluate(net.build(y=y).bind(N=2), {"x": np.full((2, 3), 2.0, "f")})["y"], [4, 4, 4])
    with pytest.raises(
        mg.GraphError, match=r"size 0 of x: float32\[N, 3\], .* must be known when the graph is built, not N"
    ):
        mg.gradient(mg.sum(y), [x])


# variance and deviation


@pytest.mark.parametrize("correction", [0, 1])
def test_variance_of_an_unknown_number(correction: int) -> None:
    """The same as of a known one, and the gradient too; of as many as the correction it is NaN."""
    net = mg.Builder()
    x = net.input("x", ("N", 2), "float64")
    y = reduce.var(x, 0, correction=correction)
    graph = net.build(y=y, gradient=mg.gradient(mg.sum(y), [x])[0])
    for n in (5, 2, correction, 0):
        given = np.random.default_rng(n).normal(size=(n, 2))
        found = evaluate(graph.bind(N=n), {"x": given})
        if n <= correction:
            assert np.isnan(found["y"]).all()
            continue
        # sums of five numbers of about 1
        np.testing.assert_allclose(found["y"], given.var(0, ddof=correction), rtol=1e-14)
        expected = 2 * (given - given.mean(0)) / (n - correction)
        np.testing.assert_allclose(found["gradient"], expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("function", [lambda x: x, lambda x: x * 3.0 + 1.0])
def test_gradient_of_a_deviation_of_zero_is_zero(function: Callable[..., Any]) -> None:
    for order in (1, 2):
        found = slope(lambda t: reduce.std(function(t)), [2.0, 2.0, 2.0], order)
        np.testing.assert_array_equal(found, [0.0, 0.0, 0.0])


def test_half_precision_variance_of_large_numbers() -> None:
    """Squares of 300 exceed float16's 65504; their mean, 40000 = 200^2, does not."""
    x = np.array([100.0, 500.0, 100.0, 500.0], np.float16)
    assert compute(reduce.var, x) == 40000.0
    assert compute(reduce.std, x * 2) == 400.0  # its square does
    np.testing.assert_array_equal(slope(reduce.std, x * 2), np.array([-1, 1, -1, 1]) / 4)


def test_gradient_of_a_variance_far_from_zero() -> None:
    """Near a million float32 has steps of 1/16, so a mean may be off by 1/32, and with it each deviation of about 1.

    Once that is taken off again, what is left is the rounding of a sum of 50 deviations and of less than 10 operations.
    """
    x = np.array([1e6 + n % 3 for n in range(50)])
    expected = 2 * (x - x.mean()) / 50
    found = slope(reduce.var, x.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 / 50 * 60 * 2.0**-24)


def test_a_correction_is_0_or_1() -> None:
    with pytest.raises(mg.GraphError, match="correction is 0 or 1, not 2"):
        reduce.var(mg.Builder().input("x", (3,)), correction=2)


# least, log-sum-exp, norms


def test_least_numbers_share_the_gradient() -> None:
    np.testing.assert_array_equal(slope(reduce.min, [1.0, 3.0, 1.0, 2.0]), [0.5, 0.0, 0.5, 0.0])


def test_no_numbers_have_no_extremes() -> None:
    x = mg.Builder().input("x", (2, 0))
    for op in (reduce.min, reduce.logsumexp, reduce.argmin):
        with pytest.raises(mg.GraphError, match=r"of no numbers: float32\[2, 0\]"):
            op(x)


def test_gradient_of_logsumexp_is_the_softmax_and_zero_where_all_is_minus_infinity() -> None:
    x = [[-INF, -INF], [0.0, -INF], [1000.0, 1000.0]]
    expected = [[0.0, 0.0], [1.0, 0.0], [0.5, 0.5]]
    np.testing.assert_array_equal(slope(lambda t: reduce.logsumexp(t, 1), x), expected)
    half = slope(lambda t: reduce.logsumexp(t, 1), np.array(x, np.float16))
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, expected)


def test_norms() -> None:
    x = np.array([[3.0, -4.0], [0.0, 0.0]])
    np.testing.assert_array_equal(compute(lambda t: reduce.l1_norm(t, 1), x), [7.0, 0.0])
    np.testing.assert_array_equal(compute(lambda t: reduce.l2_norm(t, 1, True), x), [[5.0], [0.0]])
    np.testing.assert_array_equal(slope(lambda t: reduce.l1_norm(t, 1), x), [[1.0, -1.0], [0.0, 0.0]])
    # a root, a quotient, a product and a sum round, each by half an eps of at most 1
    np.testing.assert_allclose(slope(lambda t: reduce.l2_norm(t, 1), x), [[0.6, -0.8], [0.0, 0.0]], rtol=0, atol=2**-51)
    half = compute(reduce.l2_norm, np.full(4, 300.0, np.float16))
    assert half == 600.0
    assert half.dtype == np.float16
    assert compute(reduce.l1_norm, np.array([200, 1], np.uint8)) == 201
    assert np.isnan(compute(reduce.l1_norm, [NAN, 1.0]))
    assert np.isnan(compute(reduce.l2_norm, [NAN, 1.0]))
    proved(lambda t: reduce.l2_norm(t, 0), real(3, 2))
    proved(lambda t: reduce.l1_norm(t, 0), real(3, 2))


def test_logic_needs_bools_and_arithmetic_needs_numbers() -> None:
    net = mg.Builder()
    number, truth = net.input("number", (3,)), net.input("truth", (3,), "bool")
    for logic in (reduce.all, reduce.any):
        with pytest.raises(mg.GraphError, match=r"needs bools, got float32\[3\]"):
            logic(number)
    for op in (reduce.min, reduce.prod, scan.cumsum, reduce.var, lambda x: index.topk(x, 1)):
        with pytest.raises(mg.GraphError, match=r"bool\[3\]"):
            op(truth)


# indices


def of_gather(x: mg.Tensor, i: mg.Tensor) -> mg.Tensor:
    return index.gather(x, i)


@pytest.mark.parametrize(
    ("function", "x", "indices", "message"),
    [
        (of_gather, np.zeros((5, 2)), [[0, 4], [5, 9]], r"index 5 at \[1, 0\] is outside of -5 to 4, .* size 5"),
        (of_gather, np.zeros((5, 2)), [-6], r"index -6 at \[0\] is outside of -5 to 4"),
        (of_gather, np.zeros((0, 2)), [0], r"index 0 at \[0\] is outside of an axis of size 0"),
        (
            lambda x, i: index.gather(x, i, 1, batch=1),
            np.zeros((2, 3)),
            [[0, 0], [0, 3]],
            r"index 3 at \[1, 1\] is outside of -3 to 2",
        ),
        (lambda x, i: index.scatter_add(x, i, 3), np.zeros(2), [0, 3], r"index 3 at \[1\] is outside of -3 to 2"),
        (
            lambda x, i: index.scatter_add(x, i, 3),
            np.zeros(1),
            np.array([2**31 - 1], np.int32),
            "index 2147483647 at",
        ),
    ],
)
def test_an_index_outside_is_an_error_that_names_it(function: Any, x: Any, indices: Any, message: str) -> None:
    with pytest.raises(mg.GraphError, match=message):
        compute(function, x, indices)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda x, i, f: index.gather(x, f), r"indices are a tensor of int32 or int64, not float32\[2\]"),
        (lambda x, i, f: index.gather(x, i, 2), "there is no axis 2 in 2 dimensions"),
        (lambda x, i, f: index.gather(x, i, 0, batch=1), "the batch of 1 axes ends before axis 0"),
        (lambda x, i, f: index.gather(x, i, 1, batch=1), r"the first axes of float32\[3, 4\] and int64\[2\] .* differ"),
        (lambda x, i, f: index.gather(x, i, batch=-1), "batch, a number of axes, is 0 or more"),
        (lambda x, i, f: index.gather(x, i, -1, batch=True), "batch, a number of axes, is 0 or more"),
        (lambda x, i, f: index.scatter_add(x, i, 5), r"updates float32\[3, 4\] need the axes \(2\) of the indices"),
        (lambda x, i, f: index.scatter_add(f, i, -1), "a size is 0 or more, not -1"),
        (lambda x, i, f: index.take_along_axis(x, i), "do not have the same number of axes"),
        (lambda x, i, f: index.topk(x, 5), r"there are no 5 numbers along axis 1 of float32\[3, 4\]"),
        (lambda x, i, f: index.topk(x, 0), "k is 1 or more, in whole numbers, not 0"),
        (lambda x, i, f: index.topk(x, "K"), "k is 1 or more, in whole numbers, not 'K'"),
        (lambda x, i, f: index.arange(x, 300, "uint8"), "uint8 does not reach 300"),
        (lambda x, i, f: index.arange(x, 3, "float32"), "counts in integers, not in float32"),
        (lambda x, i, f: index.arange(x, "T"), "no input tells how large T is"),
        (lambda x, i, f: index.tril(f), "a triangle needs two axes"),
        (lambda x, i, f: index.masked_fill(f, x < 0, 0.0), r"broadcast"),
        (lambda x, i, f: index.masked_fill(f, mg.reshape(f, (2, 1)) < 0, 0.0), r"the mask .* does not broadcast to f"),
    ],
)
def test_errors_of_indexing(build: Any, message: str) -> None:
    net = mg.Builder()
    tensors = net.input("x", (3, 4)), net.input("i", (2,), "int64"), net.input("f", (2,))
    with pytest.raises(mg.GraphError, match=message):
        build(*tensors)


def test_an_embedding_with_sizes_known_at_run_time() -> None:
    """The table's gradient counts how often each row was read."""
    net = mg.Builder()
    table, tokens = net.input("table", ("V", 2)), net.input("tokens", ("N", "T"), "int64")
    y = index.gather(table, tokens)
    assert [str(n) for n in y.shape] == ["N", "T", "2"]
    graph = net.build(y=y, gradient=mg.gradient(mg.sum(y), [table])[0])
    assert str(mg.parse(str(graph))) == str(graph)
    given = {"table": np.arange(8.0, dtype="f").reshape(4, 2), "tokens": np.array([[0, 3, 3], [-1, 1, 0]])}
    found = mg.compile(graph, mg.State())(**given)
    np.testing.assert_array_equal(found["y"], given["table"][given["tokens"]])
    np.testing.assert_array_equal(found["gradient"], [[2, 2], [1, 1], [0, 0], [3, 3]])


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_along_an_axis(axis: int) -> None:
    rng = np.random.default_rng(3)
    x, g = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4, 2))
    n = x.shape[axis]
    indices = rng.integers(-n, n, x.shape)
    for i in (indices, np.take(indices, [0], axis), np.take(indices, [], axis)):
        found = compute(lambda t, i: index.take_along_axis(t, i, axis), x, i)
        np.testing.assert_array_equal(found, np.take_along_axis(x, i, axis))
    expected = np.zeros((3, 4, 2))
    for at in np.ndindex(x.shape):
        place = list(at)
        place[axis] = indices[at]
        expected[tuple(place)] += g[at]
    found = compute(lambda t, i: index.scatter_add_along_axis(t, i, n, axis), g, indices)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)  # sums of at most four numbers of about 1
    shape = tuple(2 if i == axis % 3 else n for i, n in enumerate(x.shape))
    proved(lambda t, i: index.take_along_axis(t, i, axis), real(3, 4, 2), places(*shape, of=n))
    proved(lambda t, i: index.scatter_add_along_axis(t, i, 5, axis), real(*shape), places(*shape, of=5))


def test_half_precision_scatter_adds_in_float32() -> None:
    """4096 ones: in float16, 2048 + 1 is 2048."""
    ones = np.ones(4096, np.float16)
    found = compute(lambda t, i: index.scatter_add(t, i, 2), ones, np.zeros(4096, np.int32))
    np.testing.assert_array_equal(found, [4096, 0])


@pytest.mark.parametrize(("largest", "arg", "extreme"), [(True, mg.argmax, mg.max), (False, reduce.argmin, reduce.min)])
def test_top_of_one_is_what_argmax_and_argmin_answer(largest: bool, arg: Any, extreme: Any) -> None:
    rng = np.random.default_rng(5)
    x = rng.integers(0, 4, (50, 6)).astype(np.float64)
    x[rng.random(x.shape) < 0.1] = NAN
    values, indices = (compute(lambda t, o=o: index.topk(t, 1, largest=largest)[o], x) for o in (0, 1))
    np.testing.assert_array_equal(indices, compute(lambda t: arg(t, -1, True), x))
    np.testing.assert_array_equal(values, compute(lambda t: extreme(t, -1, True), x))


def test_gradient_of_topk_goes_to_what_was_chosen() -> None:
    found = slope(lambda t: index.topk(t, 2)[0] * np.array([1.0, 10.0]), [1.0, 3.0, 3.0, 2.0])
    np.testing.assert_array_equal(found, [0.0, 1.0, 10.0, 0.0])


def test_topk_of_an_axis_that_turns_out_too_short() -> None:
    net = mg.Builder()
    graph = net.build(y=index.topk(net.input("x", (2, "N")), 3)[0])
    with pytest.raises(mg.GraphError, match="there are no 3 numbers along axis 1"):
        mg.compile(graph, mg.State())(x=np.zeros((2, 2)))


# masks


@pytest.mark.parametrize("k", [-4, -1, 0, 1, 2, 5])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool"])
def test_triangles(k: int, dtype: str) -> None:
    x = np.ones((2, 3, 4), dtype)
    np.testing.assert_array_equal(compute(lambda t: index.tril(t, k), x), np.tril(x, k))
    np.testing.assert_array_equal(compute(lambda t: index.triu(t, k), x), np.triu(x, k))
    assert compute(lambda t: index.tril(t, k), x).dtype == dtype
    np.testing.assert_array_equal(compute(lambda t: index.tri(t, 3, 4, k), x), np.tri(3, 4, k, dtype=bool))
    np.testing.assert_array_equal(compute(lambda t: index.tri(t, 3, k=k), x), np.tri(3, k=k, dtype=bool))


def test_a_causal_mask_of_a_size_known_at_run_time() -> None:
    net = mg.Builder()
    scores = net.input("scores", ("N", "T", "T"))
    t = scores.shape[1]
    masked = index.masked_fill(scores, mg.logical_not(index.tri(net, t)), -INF)
    graph = net.build(
        y=mg.softmax(masked), places=index.arange(net, t), gradient=mg.gradient(mg.sum(masked), [scores])[0]
    )
    assert str(mg.parse(str(graph))) == str(graph)
    found = mg.compile(graph, mg.State())(scores=np.zeros((2, 3, 3)))
    rows = np.tril(np.ones((3, 3), "f"))
    np.testing.assert_array_equal(found["y"], np.broadcast_to(rows / rows.sum(1, keepdims=True), (2, 3, 3)))
    np.testing.assert_array_equal(found["places"], [0, 1, 2])
    np.testing.assert_array_equal(found["gradient"], np.broadcast_to(rows, (2, 3, 3)))


def test_no_gradient_flows_to_what_a_triangle_or_mask_leaves_out() -> None:
    proved(lambda t: index.tril(t * t), real(2, 3, 2))
    proved(lambda t: index.triu(t * t, 1), real(2, 3))
    proved(lambda t, m: index.masked_fill(t * t, m, 7.0), real(2, 3), Sample((3,), "bool", 0, 2))


# running sums


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradient_of_a_running_sum(exclusive: bool, reverse: bool) -> None:
    """Each number counts in its own sum (unless that is exclusive) and in those that follow."""
    found = slope(lambda t: scan.cumsum(t, 0, exclusive=exclusive, reverse=reverse), [1.0, 2.0, 3.0, 4.0])
    counts = [4, 3, 2, 1] if not reverse else [1, 2, 3, 4]
    np.testing.assert_array_equal(found, np.array(counts) - exclusive)
