"""Pooling in C, and its gradients, against the references: any window, ties, NaN, tails, any number of threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from c_kernels import EPS, Case, builds, literal, results, untouched

import minigraph as mg
from minigraph.core.ir import Type
from minigraph.ops.pool import (
    avg_pool_gradient_reference,
    avg_pool_reference,
    max_pool,
    max_pool_gradient_reference,
    max_pool_reference,
)

pytestmark = pytest.mark.compiler

Pair = tuple[int, int]


@dataclass(frozen=True)
class Pool:
    """Windows over images of shape (batch, H, W, C)."""

    shape: tuple[int, int, int, int]
    window: Pair
    stride: Pair
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    counting: tuple[Pair, Pair] = ((0, 0), (0, 0))  # how much of the padding counts in a mean
    finish: bool = False

    @property
    def places(self) -> Pair:
        sizes = zip(self.shape[1:3], self.window, self.stride, self.padding, self.dilation)
        height, width = ((a + n + b - d * (k - 1) - 1) // s + 1 for n, k, s, (a, b), d in sizes)
        return height, width

    @property
    def attrs(self) -> dict[str, Any]:
        names = ("window", "stride", "padding", "dilation")
        return {**{name: getattr(self, name) for name in names}, "layout": "NHWC"}

    def __str__(self) -> str:
        return "-".join("x".join(map(str, np.ravel(part))) for part in (self.shape, *list(self.attrs.values())[:-1]))

    def fields(self) -> str:
        (batch, H, W, C), (P, Q), (R, S) = self.shape, self.places, self.window
        (top, bottom), (left, right) = self.counting
        return literal(
            "pooling_shape", batch=f"run_time({batch})", C=C, H=H, W=W, P=P, Q=Q, R=R, S=S,
            stride_h=self.stride[0], stride_w=self.stride[1], dilation_h=self.dilation[0], dilation_w=self.dilation[1],
            top=self.padding[0][0], left=self.padding[1][0],
            counted_top=top, counted_left=left, counted_bottom=bottom, counted_right=right,
        )  # fmt: skip

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """x with many ties, infinities and NaN; and a gradient."""
        rng = np.random.default_rng(sum(self.shape))
        x = rng.choice(
            [-2.0, -1.0, -0.0, 0.0, 1.0, 2.0, 3.0, -np.inf, np.inf, np.nan], self.shape, p=[0.11] * 9 + [0.01]
        )
        g = rng.normal(size=(self.shape[0], *self.places, self.shape[3]))
        return x.astype(np.float32), g.astype(np.float32)

    def case(self, name: str, call: str, arrays: list[np.ndarray], want: np.ndarray, within: np.ndarray) -> Case:
        last = f"p[{len(arrays)}]"
        call = f"{call}, {last}, {self.fields()}, {f'twice_plus_one, {last}' if self.finish else '0, 0'})"
        if self.finish:
            want, within = 2 * want + 1, 3 * within + 2 * EPS * np.abs(2 * want + 1)
        return Case(f"{name}-{self}", [call], [*arrays, untouched(*want.shape)], want, within)

    def cases(self) -> list[Case]:
        (x, g), entries = self.numbers(), float(np.prod(self.window))
        finite = np.nan_to_num(x, nan=0.5, posinf=4, neginf=-4)
        mean = {**self.attrs, "count_include_pad": self.counting}
        mean_gradient = {**mean, "extents": self.shape[1:3]}
        largest, wide = max_pool_reference(x, **self.attrs), g.astype(float)
        return [
            self.case("max", "pooling(true, thread, threads, p[0]", [x], largest, np.zeros(g.shape)),
            self.case(
                "mean", "pooling(false, thread, threads, p[0]", [finite],
                avg_pool_reference(finite.astype(float), **mean),
                (entries + 1) * EPS * avg_pool_reference(np.abs(finite).astype(float), **mean),
            ),
            self.case(
                "max-gradient", "pooling_gradient(thread, threads, p[0], p[1]", [x, g],
                max_pool_gradient_reference(wide, x.astype(float), **self.attrs),
                entries * EPS * max_pool_gradient_reference(np.abs(wide), x.astype(float), **self.attrs),
            ),
            self.case(
                "mean-gradient", "pooling_gradient(thread, threads, 0, p[0]", [g],
                avg_pool_gradient_reference(wide, **mean_gradient),
                (entries + 1) * EPS * avg_pool_gradient_reference(np.abs(wide), **mean_gradient),
            ),
        ]  # fmt: skip


def any_pool(rng: np.random.Generator) -> Pool:
    """Windows of any kind over images, each of which holds a number at least."""
    while True:
        pair = lambda low, high: (int(rng.integers(low, high)), int(rng.integers(low, high)))
        shape = (int(rng.integers(1, 4)), *pair(1, 12), int(rng.integers(1, 40)))
        padding = (pair(0, 3), pair(0, 3))
        counting = tuple((int(rng.integers(0, a + 1)), int(rng.integers(0, b + 1))) for a, b in padding)
        found = Pool(shape, pair(1, 5), pair(1, 5), padding, pair(1, 3), counting, bool(rng.integers(2)))  # type: ignore[arg-type]
        assert max_pool.canonical is not None
        try:
            max_pool.canonical(Type(shape, "float32"), **found.attrs, ceil_mode=False)
        except mg.GraphError:
            continue
        if min(found.places) > 0:
            return found


POOLS = [
    Pool((2, 6, 6, 6), (2, 2), (2, 2)),
    Pool((2, 9, 11, 40), (3, 3), (2, 2), ((1, 1), (1, 1)), finish=True),
    Pool((1, 5, 5, 16), (3, 3), (1, 1), ((1, 1), (1, 1)), counting=((1, 1), (1, 1))),
    Pool((1, 1, 13, 5), (1, 3), (1, 2)),
    Pool((1, 9, 9, 3), (2, 2), (4, 4), finish=True),  # rows between windows
    Pool((3, 7, 7, 33), (7, 7), (1, 1)),
    Pool((0, 4, 4, 5), (2, 2), (2, 2)),
    *(any_pool(np.random.default_rng(number)) for number in range(8)),
]
CASES = [case for pool in POOLS for case in pool.cases()]


@pytest.fixture(scope="module", params=builds(), ids=lambda extra: "sanitized" if extra else "fast")
def got(request: pytest.FixtureRequest) -> dict[str, list[np.ndarray]]:
    return results(CASES, request.param)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pools(case: Case, got: dict[str, list[np.ndarray]]) -> None:
    """Each number is within its bound, NaN where the reference is, and no number of threads gives other bits."""
    one, *others = got[case.name]
    assert all(other.tobytes() == one.tobytes() for other in others)
    same = (one == case.want) | (np.isnan(one) & np.isnan(case.want))
    with np.errstate(invalid="ignore"):
        assert (same | (np.abs(one - case.want) <= case.within)).all()
