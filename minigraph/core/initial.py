"""How state begins: distributions as data, so that a graph can be printed, compared and initialized again.

Each variable draws from its own stream, keyed by (seed, name): adding a layer does not move another layer's weights.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from minigraph.core.errors import expect


class Initializer:
    """Subclass as a frozen dataclass and define `sample`; the class's name is its name in a printed graph."""

    known: ClassVar[dict[str, type[Initializer]]] = {}

    def __init_subclass__(cls) -> None:
        expect(cls.__name__ not in Initializer.known, "there is already an initializer {!r}", cls.__name__)
        Initializer.known[cls.__name__] = cls

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        raise NotImplementedError

    def array(self, seed: int, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        key = hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16]
        rng = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
        return np.asarray(self.sample(rng, shape)).astype(dtype)


def _plain(initializer: Initializer, *names: str) -> None:
    """NumPy's numbers, and fractions, become Python's: the text of a graph has them as they print."""
    for name in names:
        given: Any = getattr(initializer, name)
        if isinstance(given, np.generic):
            given = given.item()
        elif isinstance(given, Real) and not isinstance(given, (int, float)):
            given = float(given)
        object.__setattr__(initializer, name, given)


@dataclass(frozen=True)
class Constant(Initializer):
    value: float | int | bool

    def __post_init__(self) -> None:
        _plain(self, "value")
        expect(isinstance(self.value, (int, float)), "a constant is a number, not {!r}", self.value)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self.value)


@dataclass(frozen=True)
class Normal(Initializer):
    std: float
    mean: float = 0.0

    def __post_init__(self) -> None:
        _check_normal(self)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.normal(self.mean, self.std, shape)


def _check_normal(given: Normal | TruncatedNormal) -> None:
    _plain(given, "std", "mean")
    numbers = isinstance(given.std, (int, float)) and isinstance(given.mean, (int, float))
    expect(numbers and given.std >= 0, "std is 0 or more and mean a number, not {!r} and {!r}", given.std, given.mean)


@dataclass(frozen=True)
class Uniform(Initializer):
    low: float
    high: float

    def __post_init__(self) -> None:
        _plain(self, "low", "high")
        numbers = isinstance(self.low, (int, float)) and isinstance(self.high, (int, float))
        expect(numbers and self.low <= self.high, "low is at most high, not {!r} and {!r}", self.low, self.high)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.uniform(self.low, self.high, shape)


@dataclass(frozen=True)
class TruncatedNormal(Initializer):
    """Normal numbers, of which those more than two deviations from the mean are drawn again.

    `std` is that of the normal distribution; what is left deviates by 0.87962566 of it.
    """

    std: float
    mean: float = 0.0

    def __post_init__(self) -> None:
        _check_normal(self)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        z = rng.standard_normal(shape)
        while (far := np.abs(z) > 2).any():
            z = np.where(far, rng.standard_normal(shape), z)
        return self.mean + self.std * z


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """A matrix whose rows, or whose columns if they are fewer, are orthogonal and of length `gain`.

    Axes behind the first count as one: a convolution's weight (O, I, kh, kw) is a matrix (O, I*kh*kw). Every such
    matrix is equally likely: Q of the QR decomposition of normal numbers, with the signs that make R's diagonal
    positive (Mezzadri 2007).
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        _plain(self, "gain")
        number = isinstance(self.gain, (int, float)) and math.isfinite(self.gain)
        expect(number, "gain is a number, not {!r}", self.gain)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        expect(len(shape) >= 2, "an orthogonal weight has at least two axes (outputs, inputs), not shape {}", shape)
        rows, columns = shape[0], math.prod(shape[1:])
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


@dataclass(frozen=True)
class RandomSeed(Initializer):
    """The key of a random stream: 62 random bits."""

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.integers(0, 2**62, shape)
