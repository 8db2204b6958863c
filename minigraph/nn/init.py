"""Initial weights by the fan of a layer: how many numbers go into one output (in) or come from one input (out).

He et al. 2015 keep the variance of activations through ReLUs; Glorot and Bengio 2010 ("Xavier") through linear layers,
forward and backward; LeCun et al. 1998 forward, and for units that normalize themselves (SELU). The functions named
after them take the weight's shape, (O, I, *window) as everywhere, and give the distribution as data; the others take
its numbers. A layer's `weight_init` is either: he_normal, or orthogonal(gain=2**0.5).
"""

from __future__ import annotations

import math

from minigraph.core.errors import expect
from minigraph.core.initial import Constant, Initializer, Normal, Orthogonal, TruncatedNormal, Uniform


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(in, out) of a weight (O, I, *window)."""
    expect(len(shape) >= 2, "a weight with a fan has at least two axes (outputs, inputs), not shape {}", shape)
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def he_normal(shape: tuple[int, ...]) -> Initializer:
    """Deviation sqrt(2 / in)."""
    return Normal(math.sqrt(2 / max(1, fans(shape)[0])))


def he_uniform(shape: tuple[int, ...]) -> Initializer:
    """Within sqrt(6 / in) of 0."""
    bound = math.sqrt(6 / max(1, fans(shape)[0]))
    return Uniform(-bound, bound)


def xavier_normal(shape: tuple[int, ...]) -> Initializer:
    """Deviation sqrt(2 / (in + out))."""
    return Normal(math.sqrt(2 / max(1, sum(fans(shape)))))


def xavier_uniform(shape: tuple[int, ...]) -> Initializer:
    """Within sqrt(6 / (in + out)) of 0."""
    bound = math.sqrt(6 / max(1, sum(fans(shape))))
    return Uniform(-bound, bound)


def lecun_normal(shape: tuple[int, ...]) -> Initializer:
    """Deviation sqrt(1 / in)."""
    return Normal(math.sqrt(1 / max(1, fans(shape)[0])))


def orthogonal(gain: float = 1.0) -> Orthogonal:
    """Orthogonal rows, or columns if they are fewer, of length `gain`: sqrt(2) in front of ReLUs (Saxe et al. 2014)."""
    return Orthogonal(gain)


def truncated_normal(std: float, mean: float = 0.0) -> TruncatedNormal:
    """A normal distribution without what is more than two of its deviations from the mean."""
    return TruncatedNormal(std, mean)


def normal(std: float, mean: float = 0.0) -> Normal:
    return Normal(std, mean)


def uniform(low: float, high: float) -> Uniform:
    return Uniform(low, high)


def constant(value: float) -> Constant:
    return Constant(value)


zeros, ones = Constant(0.0), Constant(1.0)
