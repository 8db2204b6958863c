"""Pointwise ops: derivatives at kinks and zeros, extreme numbers, operators, attributes, and what the errors say."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph.core import exact, proof
from minigraph.core.dtypes import FLOATS, epsilon, largest
from minigraph.core.evaluate import evaluate
from minigraph.core.exact import Modular, NeedsOrder, Rational, Redraw, Unknown
from minigraph.core.op import Sample
from minigraph.core.scalar import TWO_OVER_ROOT_PI
from minigraph.ops import activation, pointwise

NAN, INF = math.nan, math.inf


def run(build: Callable[..., Any], *arrays: Any, dtype: str = "float64") -> np.ndarray:
    """What a graph of these inputs gives."""
    given = [np.asarray(a) if np.asarray(a).dtype.kind in "bui" else np.asarray(a, dtype) for a in arrays]
    builder = mg.Builder()
    graph = builder.build(y=build(*(builder.input(f"x{i}", a.shape, a.dtype) for i, a in enumerate(given))))
    return evaluate(graph, {f"x{i}": a for i, a in enumerate(given)})["y"]


def slope(build: Callable[..., Any], *arrays: Any, wrt: int = 0, dtype: str = "float64") -> np.ndarray:
    """The derivative of each number of a pointwise expression by its own input."""

    def derivative(*xs: Any) -> Any:
        return mg.gradient(mg.sum(build(*xs)), [xs[wrt]])[0]

    return run(derivative, *arrays, dtype=dtype)


# derivatives at kinks


@pytest.mark.parametrize(
    ("build", "at", "expected"),
    [
        (pointwise.absolute, [0.0, -0.0, 2.0, -2.0], [0, 0, 1, -1]),
        (activation.relu6, [0.0, 6.0, 3.0, 7.0, -1.0], [0, 0, 1, 0, 0]),
        (lambda x: activation.leaky_relu(x, 0.25), [0.0, 1.0, -1.0], [0.25, 1, 0.25]),
        (activation.thresholded_relu, [1.0, 0.5, 1.5], [0, 0, 1]),
        (activation.hard_sigmoid, [-3.5, 3.5, 0.0], [0, 0, 1 / 6]),
        (lambda x: activation.hard_sigmoid(x, 0.5, 0.5), [-1.0, 1.0, 0.0], [0, 0, 0.5]),
        (activation.hard_swish, [-3.0, 3.0, 0.0, -4.0, 4.0], [0, 1, 0.5, 0, 1]),
        (lambda x: activation.elu(x, 0.5), [0.0, 1.0], [0.5, 1]),
        (activation.selu, [0.0, 1.0], [1.7580993408473766, 1.0507009873554805]),
        (lambda x: activation.celu(x, 0.5), [0.0, 1.0], [1, 1]),
        (activation.softsign, [0.0], [1]),
        (lambda x: pointwise.clip(x, -1, 1), [-1.0, 1.0, 0.0, 2.0, -2.0], [1, 1, 1, 0, 0]),
        (lambda x: pointwise.clip(x, 1, -1), [-1.0, 1.0, 0.0], [0, 0, 0]),
        (activation.hard_tanh, [-1.0, 1.0, 0.5, -3.0], [1, 1, 1, 0]),
    ],
)
def test_the_derivative_at_a_kink_is_what_the_docstring_says(build: Any, at: Any, expected: Any) -> None:
    np.testing.assert_allclose(slope(build, at), expected, rtol=4 * 2.0**-53)


@pytest.mark.parametrize("op", [pointwise.maximum, pointwise.minimum])
def test_a_tie_shares_the_gradient_equally(op: mg.Op) -> None:
    x, y = [1.0, 1.0, 2.0, 0.0, -INF], [1.0, 2.0, 1.0, -0.0, -INF]
    of_x, of_y = slope(op, x, y), slope(op, x, y, wrt=1)
    np.testing.assert_array_equal(of_x, [0.5, *((0, 1) if op is pointwise.maximum else (1, 0)), 0.5, 0.5])
    np.testing.assert_array_equal(of_x + of_y, 1)


def test_prelu_at_zero_takes_the_slope() -> None:
    x, a = [0.0, 1.0, -2.0], [0.25, 0.25, 0.25]
    np.testing.assert_array_equal(slope(activation._prelu, x, a), [0.25, 1, 0.25])
    np.testing.assert_array_equal(slope(activation._prelu, x, a, wrt=1), [0, 0, -2])


@pytest.mark.parametrize("op", [pointwise.sign, pointwise.floor, pointwise.ceil, pointwise.trunc, pointwise.round])
def test_steps_have_no_gradient(op: mg.Op) -> None:
    np.testing.assert_array_equal(slope(lambda x: op(x) * x, [1.25, -0.5]), run(op, [1.25, -0.5]))
    builder = mg.Builder()
    x = builder.input("x", (3,))
    with pytest.raises(mg.GraphError, match="does not depend"):
        mg.gradient(mg.sum(op(x)), [x])


# powers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers_have_the_right_derivative_at_zero_and_below(dtype: str) -> None:
    for exponent, at, expected in (
        (0, [0.0, -2.0, 1e-45], [0, 0, 0]),
        (1, [0.0, -2.0], [1, 1]),
        (2, [0.0, -2.0], [0, -4]),
        (3, [0.0, -2.0], [0, 12]),
        (-1, [-2.0], [-0.25]),
        (0.5, [0.0, 4.0], [INF, 0.25]),
        (1.5, [0.0], [0]),
    ):
        ys = np.full(len(at), float(exponent))
        for build in (lambda x: x**exponent, lambda x: pointwise.pow(x, exponent)):  # noqa: B023
            if exponent:
                np.testing.assert_array_equal(slope(build, at, dtype=dtype), expected)
        np.testing.assert_array_equal(slope(pointwise.pow, at, ys, dtype=dtype), expected)


def test_the_derivative_by_the_exponent() -> None:
    """x^y log(x): 0 at x = 0 for y >= 0; none where x^y is defined for whole y only."""
    x, y = [0.0, 0.0, 2.0, 1.0, -2.0], [2.0, 0.0, 3.0, 5.0, 3.0]
    np.testing.assert_allclose(
        slope(pointwise.pow, x, y, wrt=1), [0, 0, 8 * math.log(2), 0, NAN], rtol=8 * 2.0**-53, equal_nan=True
    )


def test_second_derivatives_of_powers_at_zeros() -> None:
    """d2/dx2 x^y = y (y - 1) x^(y - 2); d2/dx dy x^y = x^(y - 1) (1 + y log x), which is 1 / x at y = 0."""
    x, y = [0.0, 0.0, 0.0, 0.0, -2.0, 4.0], [0.0, 1.0, 2.0, 3.0, 3.0, 0.0]
    first = lambda wrt: lambda a, b: mg.gradient(mg.sum(pointwise.pow(a, b)), [(a, b)[wrt]])[0]
    np.testing.assert_array_equal(slope(first(0), x, y), [0, 0, 2, 0, -12, 0])
    assert slope(first(0), [4.0], [0.0], wrt=1) == 0.25
    assert slope(first(1), [4.0], [0.0]) == 0.25
    np.testing.assert_array_equal(slope(lambda a: mg.gradient(mg.sum(a**2), [a])[0], [0.0, -3.0]), 2)


def test_a_power_of_one_is_the_tensor_itself() -> None:
    x = mg.Builder().input("x", (3,))
    assert pointwise.pow(x, 1) is x
    assert (x**2).shape == (3,)


def test_integers_have_no_powers() -> None:
    x = mg.Builder().input("x", (3,), "int64")
    for build in (lambda: x**2, lambda: x**x, lambda: pointwise.pow(x, 1)):
        with pytest.raises(mg.GraphError, match="needs floats"):
            build()


# extreme numbers

SMOOTH = ["elu", "selu", "celu", "softplus", "softsign", "silu", "mish", "gelu", "hard_swish", "hard_sigmoid", "relu6"]
LINES = ["hard_sigmoid", "relu6", "leaky_relu"]  # without second derivatives


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", [*SMOOTH, "sigmoid", "tanh", "erf", "atan", "leaky_relu", "gelu_tanh"])
def test_the_largest_numbers_have_finite_answers_and_derivatives(name: str, dtype: str) -> None:
    """All of these approach 0, a constant or a line at both ends, and so their derivatives a constant."""
    op = mg.OPS[name.removesuffix("_tanh")]
    attrs = {"approximate": "tanh"} if name == "gelu_tanh" else {}
    most = largest(dtype) / (2 if name == "selu" else 1)  # selu is a little more than x
    xs = np.array([-most, -most / 4, -300.0, -100.0, -30.0, 30.0, 100.0, 300.0, most / 4, most], dtype)
    build = lambda x: op(x, **attrs)
    once = slope(build, xs, dtype=dtype)
    assert np.isfinite(run(build, xs, dtype=dtype)).all()
    assert np.isfinite(once).all()
    # 1 / 30^2, how far atan and softsign are from a constant, and the dtype's rounding of it
    near = max(2.0**-9, epsilon(dtype))
    if name not in LINES:
        twice = slope(lambda x: mg.gradient(mg.sum(build(x)), [x])[0], xs / 2, dtype=dtype)  # products hold x + x
        np.testing.assert_allclose(twice.astype(float), 0, atol=near)
    ends = {"leaky_relu": (0.01, 1), "selu": (0, 1.0507), **dict.fromkeys(["sigmoid", "tanh", "erf"], (0, 0))}
    left, right = ends.get(name, (0, 0 if name in ("softsign", "atan", "hard_sigmoid", "relu6") else 1))
    np.testing.assert_allclose(once[:5].astype(float), left, atol=near)
    np.testing.assert_allclose(once[5:].astype(float), right, atol=near)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*(n for n in SMOOTH if n != "gelu"), "sigmoid", "erf", "leaky_relu"])
def test_nothing_overflows_on_the_way(name: str, dtype: str) -> None:
    most = largest(dtype) / 2
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        mg.OPS[name].run([np.array([-most, -1e3, 0.0, 1e3, most], dtype)], defaults(name))


def defaults(name: str) -> dict[str, Any]:
    return dict(mg.OPS[name].infer((mg.Type((1,), "float32"),), {})[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_answers_keep_their_digits(dtype: str) -> None:
    """Relative to the answer: a few roundings of the dtype."""
    xs = np.array([-30.0, -1e-6, 1e-6], dtype)
    for op, definition in (
        (pointwise.expm1, math.expm1),
        (pointwise.log1p, lambda x: math.log1p(x) if x > -1 else NAN),
        (pointwise.softplus, lambda x: math.log1p(math.exp(x))),
        (activation.elu, lambda x: x if x > 0 else math.expm1(x)),
        (activation.celu, lambda x: x if x > 0 else math.expm1(x)),
        (activation.silu, lambda x: x / (1 + math.exp(-x))),
        (activation.mish, lambda x: x * math.tanh(math.log1p(math.exp(x)))),
    ):
        expected = [definition(float(x)) for x in xs]
        # e^-30 by a float32 exponential: the argument is exact, so that the result is off by a few eps
        np.testing.assert_allclose(run(op, xs, dtype=dtype), expected, rtol=8 * epsilon(dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_erf_is_rounded_once(dtype: str) -> None:
    xs = np.linspace(-6, 6, 1001).astype(dtype)
    expected = np.array([math.erf(float(x)) for x in xs]).astype(dtype)
    found = run(pointwise.erf, xs, dtype=dtype)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == dtype


def test_both_gelus_are_near_each_other() -> None:
    """Hendrycks and Gimpel's approximation is off by less than 5e-4, and equal in the tails."""
    xs = np.linspace(-8, 8, 321)
    difference = np.abs(run(activation.gelu, xs) - run(lambda x: activation.gelu(x, "tanh"), xs))
    assert 1e-5 < difference.max() < 5e-4


def test_remainders_have_the_gradient_of_the_quotient_that_they_have() -> None:
    """0.1 is a little above a tenth: 1.0 % 0.1 is 0.0999..., 9 tenths off, though 1.0 / 0.1 is 10."""
    assert slope(pointwise.mod, [1.0], [0.1], wrt=1) == -9
    np.testing.assert_array_equal(slope(pointwise.mod, [5.5, -5.5], [3.0, 3.0], wrt=1), [-1, 2])
    np.testing.assert_array_equal(slope(pointwise.fmod, [5.5, -5.5], [3.0, 3.0], wrt=1), [-1, 1])


# operators, plain functions, questions


def test_operators_are_those_of_python() -> None:
    x, y = [-5.5, 2.0, 3.0], [2.0, -3.0, 0.5]
    a, b = np.array(x), np.array(y)
    for build, expected in (
        (lambda x, y: abs(x) ** y, abs(a) ** b),
        (lambda x, y: 2**y, 2**b),
        (lambda x, y: x**3, a**3),
        (lambda x, y: x % y, a % b),
        (lambda x, y: x % 2, a % 2),
        (lambda x, y: 7 % y, 7 % b),
        (lambda x, y: (x > 0) & (y > 0), (a > 0) & (b > 0)),
        (lambda x, y: (x > 0) | ~(y > 0), (a > 0) | ~(b > 0)),
        (lambda x, y: True & (x > 0), a > 0),
        (lambda x, y: False | (x > 0), a > 0),
    ):
        np.testing.assert_allclose(run(build, x, y), expected, rtol=4 * 2.0**-53)


def test_bools_alone_are_anded() -> None:
    x = mg.Builder().input("x", (3,))
    for build in (lambda: x & x, lambda: x | (x > 0), lambda: ~x):
        with pytest.raises(mg.GraphError, match="needs bools"):
            build()


def test_infinities_and_nans_are_found() -> None:
    x = [NAN, INF, -INF, 0.0, 1e300]
    np.testing.assert_array_equal(run(pointwise.isfinite, x), [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(run(lambda x: pointwise.isinf(x, detect_negative=False), x), [0, 1, 0, 0, 0])
    assert not pointwise.isnan.reference(exact.draw((2,), Modular, Unknown(0))).any()


@pytest.mark.parametrize("op", [pointwise.maximum, pointwise.minimum])
def test_nan_wins(op: mg.Op) -> None:
    assert np.isnan(run(op, [NAN, 1.0, INF], [1.0, NAN, NAN])).all()


def test_prelu_has_a_slope_for_each_channel() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    slopes = np.array([0.5, 0.0, -1.0])
    for axis, shape in ((1, (1, 3, 1)), (-2, (1, 3, 1))):
        found = run(lambda x, a, axis=axis: activation.prelu(x, a, axis), x, slopes)
        np.testing.assert_array_equal(found, np.where(x > 0, x, x * slopes.reshape(shape)))
    for one in (np.array(0.5), np.array([0.5])):
        np.testing.assert_array_equal(run(activation.prelu, x, one), np.where(x > 0, x, x * 0.5))
    np.testing.assert_array_equal(run(lambda x, a: activation.prelu(x, a, -1), x, np.ones(4)), x)
    builder = mg.Builder()
    tensor, slope_ = builder.input("x", ("N", 3, 4)), builder.input("a", (4,))
    with pytest.raises(mg.GraphError, match="not one number a channel"):
        activation.prelu(tensor, slope_)
    with pytest.raises(mg.GraphError, match="one number or one for each channel"):
        activation.prelu(tensor, builder.input("b", (3, 4)))


# attributes


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda x: activation.elu(x, alpha="1"), "alpha is a finite number, not '1'"),
        (lambda x: activation.leaky_relu(x, INF), "alpha is a finite number, not inf"),
        (lambda x: activation.celu(x, 0), "alpha is above 0, not 0"),
        (lambda x: activation.gelu(x, approximate="sigmoid"), '"none" or "tanh", not \'sigmoid\''),
        (lambda x: activation.elu(x, beta=1), "has no attribute 'beta'"),
        (lambda x: pointwise.power(x), "needs the attribute 'exponent'"),
        (lambda x: x**NAN, "exponent is a finite number"),
        (lambda x: pointwise.isinf(x, detect_positive=1), "detect_positive is True or False, not 1"),
        (lambda x: pointwise.clip(x), "needs a low or a high bound"),
        (lambda x: pointwise.clip(x, -INF, INF), "needs a low or a high bound"),
        (lambda x: pointwise.clip(x, low=INF), "nothing would be left"),
        (lambda x: pointwise.clip(x, low="0"), "low is a finite number"),
        (lambda x: pointwise.clip(mg.cast(x, "int64"), low=0.5), "low of integers is a whole number"),
        (lambda x: pointwise.clip(mg.cast(x, "uint8"), low=-1), "low is no number of dtype uint8"),
        (lambda x: pointwise.isnan(mg.cast(x, "int64")), "needs floats"),
        (lambda x: activation.gelu(mg.cast(x, "int64")), "needs floats"),
        (lambda x: pointwise.maximum(x > 0, x > 0), "needs numbers"),
    ],
)
def test_errors_say_what_was_expected(build: Any, says: str) -> None:
    with pytest.raises(mg.GraphError, match=says):
        build(mg.Builder().input("x", (3,)))


def test_attributes_have_one_form() -> None:
    x = mg.Builder().input("x", (3,))
    nodes = [activation.elu(x, 1), activation.elu(x), activation.elu(x, alpha=np.float64(1))]
    assert len({tuple(n.builder.nodes[i].attrs.items()) for i, n in enumerate(nodes)}) == 1
    assert pointwise.clip(x, -INF, 1).builder.nodes[-1].attrs == {"low": None, "high": 1.0}
    assert "alpha" in str(activation.elu.__signature__)


# exact numbers


@pytest.mark.parametrize("kind", [Modular, Rational])
def test_exact_functions_are_what_they_are_made_of(kind: Any) -> None:
    world = Unknown(5)
    x = kind(kind.field(Fraction(4, 9)), kind.field(3), world)
    one, root = kind(1, 0, world), x.sqrt()
    for found, expected in (
        (x.expm1(), x.exp() - 1),
        (x.log1p(), (x + 1).log()),
        (x.tan(), x.sin() / x.cos()),
        (x.rsqrt(), one / root),
        (x.pow(3), x * x * x),
        (x.pow(-2), one / (x * x)),
        (x.pow(0), one),
        (x.pow(kind(2, 0, world)), x * x),
        (x.pow(one + one), x * x),
    ):
        same = kind(found.value - expected.value, found.slope - expected.slope, world)
        assert (same.value, same.slope) == (0, 0)
    assert (x.erf().slope - 3 * ((-(x * x)).exp() * TWO_OVER_ROOT_PI).value) % (2**61 - 1) == 0
    with pytest.raises(Redraw):
        kind(0, 0, world).pow(-1)


@pytest.mark.parametrize("kind", [Modular, Rational])
@pytest.mark.parametrize(
    ("name", "derivative"),
    [
        ("expm1", lambda x: x.exp()),
        ("log1p", lambda x: 1 / (x + 1)),
        ("rsqrt", lambda x: x.rsqrt() / x / -2),
        ("softplus", lambda x: x.sigmoid()),
        ("tan", lambda x: (x.sin() * x.sin() + x.cos() * x.cos()) / (x.cos() * x.cos())),
        ("asin", lambda x: (1 - x * x).rsqrt()),
        ("acos", lambda x: -(1 - x * x).rsqrt()),
        ("atan", lambda x: 1 / (1 + x * x)),
        ("sinh", lambda x: x.cosh()),
        ("cosh", lambda x: x.sinh()),
    ],
)
def test_exact_functions_have_the_derivatives_of_the_textbook(kind: Any, name: str, derivative: Any) -> None:
    world = Unknown(1)
    at = Fraction(1, 9)  # a square, and modulo the prime 1 - x^2 is one, too
    moving, still = (kind(kind.field(at), kind.field(speed), world) for speed in (7, 0))
    assert kind(getattr(moving, name)().slope, 0, world) == 7 * derivative(still)


def test_exact_steps_and_remainders() -> None:
    world = Unknown(0)
    number = lambda value: Rational(Fraction(value), Fraction(1), world)
    for value, floor, ceil, trunc, nearest, sign in (
        (Fraction(5, 2), 2, 3, 2, 2, 1),
        (Fraction(-7, 2), -4, -3, -3, -4, -1),
        (0, 0, 0, 0, 0, 0),
    ):
        x = number(value)
        found = [x.floor(), x.ceil(), x.trunc(), x.round(), x.sign()]
        assert [n.value for n in found] == [floor, ceil, trunc, nearest, sign]
        assert all(n.slope == 0 for n in found)
    three = Rational(Fraction(3), Fraction(0), world)
    assert (number(-4).mod(three).value, number(-4).fmod(three).value) == (2, -1)
    assert (number(4).mod(-three).value, number(4).fmod(-three).value) == (-2, 1)
    assert number(-4).mod(three).slope == 1
    for step in ("floor", "round", "sign", "trunc"):
        with pytest.raises(NeedsOrder):
            getattr(Modular(3, 0, world), step)()


def test_a_wrong_rule_of_a_power_is_refuted() -> None:
    builders = []
    for build in (lambda x, g: g * 2.5 * x**1.5, lambda x, g: g * 2.5 * x**2.5):
        builder = mg.Builder()
        x, g = builder.input("x", (2,), "float64"), builder.input("g", (2,), "float64")
        builders.append(builder.build(y=build(x, g)))
    builder = mg.Builder()
    x, g = builder.input("x", (2,), "float64"), builder.input("g", (2,), "float64")
    right = builder.build(y=mg.gradient(x**2.5, [x], seed=g)[0])
    samples = {"x": Sample((2,), low=0.1), "g": Sample((2,))}
    proof.prove_same(right, builders[0], samples)
    with pytest.raises(proof.Refuted):
        proof.prove_same(right, builders[1], samples)
