"""How state begins: distributions as data, so that a graph can be printed, compared and initialized again.

Each variable draws from its own stream, keyed by (seed, name): adding a layer does not move another layer's weights.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minigraph.core.errors import expect


class Initializer:
    """Subclass as a frozen dataclass and define `sample`; the class's name is its name in a printed graph."""

    known: ClassVar[dict[str, type[Initializer]]] = {}

    def __init_subclass__(cls) -> None:
        Initializer.known[cls.__name__] = cls

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        raise NotImplementedError

    def array(self, seed: int, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        key = hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16]
        rng = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
        return np.asarray(self.sample(rng, shape)).astype(dtype)


@dataclass(frozen=True)
class Constant(Initializer):
    value: float | int | bool

    def __post_init__(self) -> None:
        expect(isinstance(self.value, (int, float)), "a constant is a number, not {!r}", self.value)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self.value)


@dataclass(frozen=True)
class Normal(Initializer):
    std: float
    mean: float = 0.0

    def __post_init__(self) -> None:
        numbers = isinstance(self.std, (int, float)) and isinstance(self.mean, (int, float))
        expect(numbers and self.std >= 0, "std is 0 or more and mean a number, not {!r} and {!r}", self.std, self.mean)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.normal(self.mean, self.std, shape)


@dataclass(frozen=True)
class Uniform(Initializer):
    low: float
    high: float

    def __post_init__(self) -> None:
        numbers = isinstance(self.low, (int, float)) and isinstance(self.high, (int, float))
        expect(numbers and self.low <= self.high, "low is at most high, not {!r} and {!r}", self.low, self.high)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.uniform(self.low, self.high, shape)


@dataclass(frozen=True)
class RandomSeed(Initializer):
    """The key of a random stream: 62 random bits."""

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.integers(0, 2**62, shape)
