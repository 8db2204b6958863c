"""Normalization within an image: numbers far from 0, half precision, sizes known at run time, and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph.core.dtypes import wide_dtype
from minigraph.ops.norm import group_norm, instance_norm, layer_norm, local_response_norm, rms_norm

SHAPE, EPS = (2, 4, 5, 6), 1e-5


def standard(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    wide = x.astype(np.float64)
    deviation = wide - wide.mean(axes, keepdims=True)
    return deviation / np.sqrt((deviation**2).mean(axes, keepdims=True) + EPS)


def by_layer(x: Any, gamma: Any, beta: Any) -> Any:
    return layer_norm(x, mg.broadcast_to(gamma, (4, 5, 6)), mg.broadcast_to(beta, (4, 5, 6)), axis=1)


def by_group(x: Any, gamma: Any, beta: Any) -> Any:
    return group_norm(x, mg.broadcast_to(gamma, (4,)), mg.broadcast_to(beta, (4,)), groups=2)


def by_instance(x: Any, gamma: Any, beta: Any) -> Any:
    return instance_norm(x, mg.broadcast_to(gamma, (4,)), mg.broadcast_to(beta, (4,)))


def by_definition(x: np.ndarray, norm: Callable[..., Any]) -> np.ndarray:
    if norm is by_group:
        return standard(x.reshape(2, 2, 2, 5, 6), (2, 3, 4)).reshape(SHAPE)
    return standard(x, (1, 2, 3) if norm is by_layer else (2, 3))


def run(norm: Callable[..., Any], x: np.ndarray, g: np.ndarray) -> dict[str, np.ndarray]:
    """y and the gradients of sum(g * y), with gamma 1 and beta 0."""
    net = mg.Builder()
    wide = wide_dtype(str(x.dtype))
    given, seed = net.input("x", x.shape, x.dtype), net.input("g", g.shape, x.dtype)
    gamma, beta = net.input("gamma", (), wide), net.input("beta", (), wide)
    y = norm(given, gamma, beta)
    dx, dgamma, dbeta = mg.gradient(mg.sum(mg.cast(y * seed, wide)), [given, gamma, beta])
    graph = net.build(y=y, dx=dx, dgamma=dgamma, dbeta=dbeta)
    return mg.compile(graph, mg.State(), backend="numpy")(x=x, g=g, gamma=1.0, beta=0.0)


def gradient(x: np.ndarray, g: np.ndarray, norm: Callable[..., Any]) -> np.ndarray:
    """(g - mean(g) - x^ mean(g x^)) / sigma, in float64."""
    split = (2, 2, 2, 5, 6) if norm is by_group else SHAPE
    axes = {by_layer: (1, 2, 3), by_group: (2, 3, 4), by_instance: (2, 3)}[norm]
    x, g = x.astype(np.float64).reshape(split), g.astype(np.float64).reshape(split)
    hat, sigma = standard(x, axes), np.sqrt(x.var(axes, keepdims=True) + EPS)
    result = (g - g.mean(axes, keepdims=True) - hat * (g * hat).mean(axes, keepdims=True)) / sigma
    return np.asarray(result.reshape(SHAPE))


NORMS = (by_layer, by_group, by_instance)


@pytest.mark.parametrize("norm", NORMS)
def test_ten_thousand_and_a_tenth_in_float32(norm: Callable[..., Any]) -> None:
    """Mean 1e4, deviation 0.1. x is given: what is rounded afterwards is x less its mean, which float32 holds exactly
    but for the rounding of the mean, which is taken off. What is left are some roundings of numbers of about 3."""
    rng = np.random.default_rng(0)
    x = (1e4 + 0.1 * rng.normal(size=SHAPE)).astype(np.float32)
    g = rng.normal(size=SHAPE).astype(np.float32)
    found = run(norm, x, g)
    np.testing.assert_allclose(found["y"], by_definition(x, norm), rtol=0, atol=64 * 2.0**-24)
    # 120 numbers at most are added up in float32, in ops, and divided by 0.1
    np.testing.assert_allclose(found["dx"], gradient(x, g, norm), rtol=0, atol=10 * 120 * 2.0**-24)
    np.testing.assert_allclose(found["dgamma"], (g * by_definition(x, norm)).sum(), rtol=0, atol=240 * 4 * 2.0**-24)


@pytest.mark.parametrize("norm", NORMS)
def test_half_precision_has_its_statistics_in_single(norm: Callable[..., Any]) -> None:
    """Numbers whose squares and sums exceed float16's 65504."""
    rng = np.random.default_rng(1)
    x = rng.normal(1000.0, 600.0, SHAPE).astype(np.float16)
    g = rng.normal(size=SHAPE).astype(np.float16)
    found = run(norm, x, g)
    assert found["y"].dtype == np.float16
    # one rounding to float16 of numbers up to 4
    np.testing.assert_allclose(found["y"], by_definition(x, norm), rtol=0, atol=4 * 2.0**-11)
    # dx is about g / 600, and subnormal numbers of float16 are 2^-24 apart
    np.testing.assert_allclose(found["dx"], gradient(x, g, norm), rtol=2.0**-10, atol=2.0**-23)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_constant_becomes_beta(norm: Callable[..., Any]) -> None:
    found = run(norm, np.full(SHAPE, 0.1, np.float32), np.ones(SHAPE, np.float32))
    assert not found["y"].any()
    assert not found["dx"].any()


def test_rms_norm_in_half_precision() -> None:
    """300 squared is beyond float16."""
    net = mg.Builder()
    x = net.input("x", (1, 2), "float16")
    y = rms_norm(x, net.constant(np.ones(2, np.float32)))
    found = mg.compile(net.build(y=y), mg.State(), backend="numpy")(x=np.array([[300.0, 400.0]], np.float16))["y"]
    np.testing.assert_allclose(found, [[0.6 * 2**0.5, 0.8 * 2**0.5]], rtol=2.0**-10)


def test_instance_norm_has_a_group_for_each_channel_in_any_layout() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 5, 6, 3))
    net = mg.Builder()
    given = net.input("x", x.shape, "float64")
    ones, zeros = net.constant(np.ones(3)), net.constant(np.zeros(3))
    y = instance_norm(given, ones, zeros, axis=-1)
    found = mg.compile(net.build(y=y), mg.State(), backend="numpy")(x=x)["y"]
    np.testing.assert_allclose(found, standard(x, (1, 2)), rtol=0, atol=1e-14)  # float64, 30 numbers


@pytest.mark.parametrize("n", [0, 1, 3])
def test_sizes_known_only_at_run_time(n: int) -> None:
    net = mg.Builder()
    x = net.input("x", ("N", 4, "H", 3), "float64")
    four, three = (net.constant(np.full(k, 2.0)) for k in (4, 3))
    y = layer_norm(group_norm(x, four, four, groups=2), three, three)
    y = local_response_norm(rms_norm(y, three), size=3)
    graph = net.build(y=y, dx=mg.gradient(mg.sum(y * y), [x])[0])
    given = np.random.default_rng(0).normal(size=(n, 4, 2, 3))
    found = mg.compile(graph, mg.State(), backend="numpy")(x=given)
    fixed = mg.compile(graph.bind(N=n, H=2), mg.State(), backend="numpy")(x=given)
    for name in ("y", "dx"):
        assert found[name].shape == given.shape
        np.testing.assert_array_equal(found[name], fixed[name])


WRONG: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "gamma of another shape": (r"gamma of .* is float32\[3\].*got .*float32\[4\]", lambda x, p: layer_norm(x, p, p)),
    "layer norm's axis": ("no axis 4", lambda x, p: layer_norm(x, p, p, axis=4)),
    "rms norm's gamma": ("gamma", lambda x, p: rms_norm(x, p)),
    "groups do not divide": ("4 channels do not divide into 3 groups", lambda x, p: group_norm(x, p, p, groups=3)),
    "groups of 0": ("groups is 1 or more", lambda x, p: group_norm(x, p, p, groups=0)),
    "channels in the batch": ("axis 0 is the batch", lambda x, p: group_norm(x, p, p, groups=2, axis=0)),
    "unknown channels": ("number of channels must be known", lambda x, p: instance_norm(x, p, p, axis=2)),
    "eps below 0": ("eps is 0 or more", lambda x, p: group_norm(x, p, p, groups=2, eps=-1.0)),
    "eps without bound": ("eps is a finite number", lambda x, p: layer_norm(x, x, p, eps=float("inf"))),
    "eps that is no number": ("eps is a finite number", lambda x, p: mg.batch_norm(x, p, p, eps=float("nan"))),
    "alpha that is no number": ("alpha is a finite", lambda x, p: local_response_norm(x, size=3, alpha=float("nan"))),
    "momentum above 1": ("momentum.* 0 to 1 or None, not 5", lambda x, p: mg.layers.batch_norm(x, momentum=5)),
    "momentum below 0": ("momentum.* 0 to 1 or None, not -1", lambda x, p: mg.layers.batch_norm(x, momentum=-1.0)),
    "half parameters": (
        "is float32",
        lambda x, p: group_norm(mg.cast(x, "float16"), mg.cast(p, "float16"), p, groups=2),
    ),
    "integers": ("needs floats", lambda x, p: layer_norm(mg.cast(x, "int32"), p, p)),
    "size of 0": ("size is 1 or more", lambda x, p: local_response_norm(x, size=0)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_an_error(name: str) -> None:
    message, call = WRONG[name]
    net = mg.Builder()
    x, p = net.input("x", ("N", 4, "H", 3)), net.input("p", (4,))
    with pytest.raises(mg.GraphError, match=message):
        call(x, p)
