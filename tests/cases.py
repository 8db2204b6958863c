"""Applications of ops, to be held against independent implementations: what to draw, and with which attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigraph.core.dtypes import FLOATS, wide_dtype

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Random:
    """Random numbers of a shape; floats are of the dtype that is tried (`wide`: float32 when that is narrow)."""

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    dtype: str = ""
    wide: bool = False

    def draw(self, rng: np.random.Generator, dtype: str) -> np.ndarray:
        if self.dtype:
            return rng.integers(int(self.low), int(self.high), self.shape).astype(self.dtype)
        return rng.uniform(self.low, self.high, self.shape).astype(wide_dtype(dtype) if self.wide else dtype)


@dataclass(frozen=True)
class These:
    """Given floats, in the dtype that is tried."""

    values: Any

    def draw(self, rng: np.random.Generator, dtype: str) -> np.ndarray:
        return np.array(self.values, dtype)


def real(*shape: int) -> Random:
    return Random(shape)


def positive(*shape: int) -> Random:
    return Random(shape, 0.1)


def whole(*shape: int, low: int = -9, below: int = 9, dtype: str = "int64") -> Random:
    return Random(shape, low, below, dtype)


def truth(*shape: int) -> Random:
    return Random(shape, 0, 2, "bool")


def channel(n: int, low: float = -2.0) -> Random:
    """A parameter or statistic of a batch norm."""
    return Random((n,), low, wide=True)


@dataclass(frozen=True)
class Statistics:
    """For the gradient of batch norm: mean and var are those of x."""

    shape: tuple[int, ...]
    axis: int = 1

    def draw_all(self, rng: np.random.Generator, dtype: str) -> list[np.ndarray]:
        g, x = (rng.uniform(-2, 2, self.shape).astype(dtype) for _ in range(2))
        wide = np.dtype(wide_dtype(dtype))
        others = tuple(i for i in range(x.ndim) if i != self.axis % x.ndim)
        gamma = rng.uniform(-2, 2, (x.shape[self.axis],)).astype(wide)
        exact = x.astype(np.float64)
        return [g, x, gamma, exact.mean(others).astype(wide), exact.var(others).astype(wide)]


class Case:
    """One application of an op, tried in each of `dtypes`.

    loops=True: only against loops, because ONNX's evaluator gives a wrong answer there, or none.
    """

    def __init__(self, op: str, *inputs: Any, **attrs: Any):
        dtypes, self.loops = attrs.pop("dtypes", FLOATS), attrs.pop("loops", False)
        self.op, self.inputs, self.attrs = op, inputs, attrs
        floats = any(not getattr(i, "dtype", "") for i in inputs)
        self.dtypes = tuple(dtypes) if floats else ("float32",)

    def __repr__(self) -> str:
        parts = [getattr(i, "dtype", "") + str(list(getattr(i, "shape", ()))) for i in self.inputs]
        return f"{self.op}({', '.join(parts + [f'{k}={v}' for k, v in self.attrs.items()])})"

    def draw(self, dtype: str) -> list[np.ndarray]:
        rng = np.random.default_rng(7)
        if len(self.inputs) == 1 and isinstance(self.inputs[0], Statistics):
            return self.inputs[0].draw_all(rng, dtype)
        return [i.draw(rng, dtype) for i in self.inputs]
