"""Initializers: the distributions that they promise, and the data that they are.

Of n independent numbers the mean is off by deviation / sqrt(n), and the variance by sqrt((kurtosis - 1) / n) of itself.
Five of these are allowed: more comes once in two million draws, and the draws are always the same ones.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.core.dtypes import FLOATS
from minigraph.core.initial import Constant, Initializer, Normal, Orthogonal, TruncatedNormal, Uniform
from minigraph.nn import init

EPS = 2.0**-52


def draw(initializer: Initializer, *shape: int, name: str = "w", seed: int = 0, dtype: str = "float64") -> np.ndarray:
    return initializer.array(seed, name, shape, dtype)


def has(x: np.ndarray, mean: float, std: float, kurtosis: float) -> None:
    assert abs(x.mean() - mean) <= 5 * std / math.sqrt(x.size)
    # the variance around the known mean
    assert abs(((x - mean) ** 2).mean() / std**2 - 1) <= 5 * math.sqrt((kurtosis - 1) / x.size)


# fan in 5 * 9 = 45, fan out 600 * 9 = 5400
@pytest.mark.parametrize(
    ("function", "variance"),
    [
        (init.he_normal, 2 / 45),
        (init.lecun_normal, 1 / 45),
        (init.xavier_normal, 2 / 5445),
        (init.he_uniform, 2 / 45),
        (init.xavier_uniform, 2 / 5445),
    ],
)
def test_variance_by_fan(function: Any, variance: float) -> None:
    shape = (600, 5, 3, 3)
    found = function(shape)
    assert isinstance(found, (Normal, Uniform))
    x = draw(found, *shape)
    has(x, 0, math.sqrt(variance), 3 if isinstance(found, Normal) else 9 / 5)
    if isinstance(found, Uniform):
        assert np.abs(x).max() <= math.sqrt(3 * variance) * (1 + 4 * EPS)


def test_truncated_normal_is_within_two_deviations() -> None:
    """Its moments by the density phi(z) / (Phi(2) - Phi(-2)): E[z^2] = 1 - 4 phi(2) / P, E[z^4] = 3 E[z^2] - 16 phi(2)
    / P."""
    density, inside = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    second = 1 - 4 * density / inside
    fourth = 3 * second - 16 * density / inside
    assert math.sqrt(second) == pytest.approx(0.87962566, abs=1e-8)
    x = draw(init.truncated_normal(0.5, mean=3.0), 100_000)
    assert np.abs(x - 3).max() <= 1
    assert np.abs(x - 3).max() > 0.99  # beyond are about 2 * 0.02 * density / inside of them: 230
    has(x, 3, 0.5 * math.sqrt(second), fourth / second**2)
    # and the shape: within one deviation are erf(1 / sqrt(2)) / inside of them
    share = math.erf(math.sqrt(0.5)) / inside
    within = (np.abs(x - 3) < 0.5).mean()
    assert abs(within - share) <= 5 * math.sqrt(share * (1 - share) / x.size)


def test_truncated_normal_of_little() -> None:
    assert draw(init.truncated_normal(1.0), 0, 3).shape == (0, 3)
    assert draw(init.truncated_normal(1.0)).shape == ()
    np.testing.assert_array_equal(draw(init.truncated_normal(0.0, 2.0), 5), np.full(5, 2.0))


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3, 3), (40, 2, 3, 3), (1, 4), (4, 1), (6, 5, 1)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    """Householder's QR of an m by n matrix is orthogonal to about m n eps."""
    gain = 1.5
    w = draw(init.orthogonal(gain), *shape).reshape(shape[0], -1)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, gain**2 * np.eye(min(w.shape)), rtol=0, atol=gain**2 * 4 * w.size * EPS)


def test_orthogonal_matrices_are_drawn_uniformly() -> None:
    """An entry then has mean 0, variance 1/n and fourth moment 3 / (n (n + 2)); LAPACK's own signs would not be random.

    The diagonal of 4000 matrices; those of other signs would have a mean far from 0.
    """
    n = 3
    many = np.array([np.diagonal(draw(Orthogonal(), n, n, seed=seed)) for seed in range(4000)])
    kurtosis = 3 / (n * (n + 2)) * n**2
    for entries in many.T:
        has(entries, 0, math.sqrt(1 / n), kurtosis)
    turns = [np.linalg.det(draw(Orthogonal(), n, n, seed=seed)) > 0 for seed in range(400)]
    assert abs(np.mean(turns) - 0.5) <= 5 * 0.5 / math.sqrt(400)  # as many rotations as reflections


def test_orthogonal_of_nothing() -> None:
    assert draw(init.orthogonal(), 0, 3).shape == (0, 3)
    assert draw(init.orthogonal(), 3, 0, 2).shape == (3, 0, 2)


SOME = [init.orthogonal(), init.orthogonal(gain=2**0.5), init.truncated_normal(0.02), init.truncated_normal(1, mean=-2)]


@pytest.mark.parametrize("initializer", SOME)
@pytest.mark.parametrize("dtype", FLOATS)
def test_name_and_seed_decide(initializer: Initializer, dtype: str) -> None:
    one = draw(initializer, 3, 4, dtype=dtype)
    assert one.dtype == dtype
    np.testing.assert_array_equal(one, draw(initializer, 3, 4, dtype=dtype))
    np.testing.assert_array_equal(one, draw(initializer, 3, 4).astype(dtype))
    assert not np.array_equal(one, draw(initializer, 3, 4, name="v", dtype=dtype))
    assert not np.array_equal(one, draw(initializer, 3, 4, seed=1, dtype=dtype))


def test_they_are_data_of_a_graph_that_reads_back() -> None:
    net = mg.Builder()
    h = net.input("x", ("N", 3, 8, 8))
    h = layers.conv2d(h, 4, 3, weight_init=init.orthogonal(gain=2**0.5), bias_init=init.truncated_normal(0.1))
    h = layers.linear(mg.flatten(h), 5, weight_init=init.lecun_normal)
    graph = net.build(y=h)
    text = str(graph)
    assert "Orthogonal(gain=1.4142135623730951)" in text
    assert "TruncatedNormal(std=0.1, mean=0.0)" in text
    again = mg.parse(text)
    assert str(again) == text
    assert [v.initializer for v in again.state] == [v.initializer for v in graph.state]
    state, other = graph.init(seed=3), again.init(seed=3)
    assert all(np.array_equal(state[name], other[name]) for name in state)
    w = state["conv1.weight"].reshape(4, -1)
    # rounded to float32, and 27 products of them added up in it
    np.testing.assert_allclose(w @ w.T, 2 * np.eye(4), rtol=0, atol=2 * 32 * 2.0**-23)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: init.orthogonal("1"), "gain is a number, not '1'"),  # type: ignore[arg-type]
        (lambda: init.orthogonal(float("nan")), "gain is a number, not nan"),
        (lambda: init.truncated_normal(-1.0), "std is 0 or more and mean a number, not -1.0 and 0.0"),
        (lambda: TruncatedNormal(1.0, mean=None), "mean a number, not 1.0 and None"),  # type: ignore[arg-type]
        (lambda: draw(init.orthogonal(), 5), r"at least two axes \(outputs, inputs\), not shape \(5,\)"),
        (lambda: init.lecun_normal((5,)), "at least two axes"),
        (lambda: init.constant(np.str_("1")), "a constant is a number, not '1'"),  # type: ignore[arg-type]
        (
            lambda: mg.Builder("g").parameter("w", (4, 3), init.he_normal),  # type: ignore[arg-type]
            r"parameter 'w' begins with an initializer, such as init.he_normal\(shape\) or init.zeros, not <function",
        ),
    ],
)
def test_mistakes(make: Any, message: str) -> None:
    with pytest.raises(mg.GraphError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "numbers", "plain"),
    [
        (init.constant, [np.float32(0.5)], Constant(0.5)),
        (init.constant, [np.int64(3)], Constant(3)),
        (init.constant, [np.True_], Constant(True)),
        (init.constant, [Fraction(1, 4)], Constant(0.25)),
        (init.normal, [np.float32(0.5), np.int64(1)], Normal(0.5, 1)),
        (init.uniform, [np.float64(-1), np.float16(2)], Uniform(-1.0, 2.0)),
        (init.truncated_normal, [np.float32(0.5)], TruncatedNormal(0.5)),
        (init.orthogonal, [np.int32(2)], Orthogonal(2)),
    ],
    ids=lambda given: getattr(given, "__name__", repr(given)),
)
def test_numbers_of_other_kinds_print_as_pythons(make: Any, numbers: list[Any], plain: Initializer) -> None:
    assert repr(make(*numbers)) == repr(plain)


def test_a_wrong_initializer_in_a_text_is_named() -> None:
    with pytest.raises(mg.GraphError, match=r"line 2: .*Orthogonal\(gain=inf\).* is not an initializer: gain is a num"):
        mg.parse('graph "g"\nparameter w: float32[2, 2] = Orthogonal(gain=inf)\n')
