"""Direct and depthwise convolutions in C, and their gradients, against float64: strides, dilations, tails, views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from c_kernels import EPS, UNTOUCHED, Case, builds, check, literal, results, untouched

pytestmark = pytest.mark.compiler

WHOLE_PANEL = "(({}) + LANES - 1) / LANES * LANES"


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Shape:
    """A convolution of padded images: H and W include the halo; `K` is the number of results of a pixel."""

    batch: int
    H: int
    W: int
    C: int
    K: int
    R: int
    S: int
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    @property
    def P(self) -> int:
        return (self.H - self.dilation[0] * (self.R - 1) - 1) // self.stride[0] + 1

    @property
    def Q(self) -> int:
        return (self.W - self.dilation[1] * (self.S - 1) - 1) // self.stride[1] + 1

    def __str__(self) -> str:
        ends = "".join(
            f"-{name}{a}{b}" for name, (a, b) in (("s", self.stride), ("d", self.dilation)) if (a, b) != (1, 1)
        )
        return f"{self.batch}x{self.H}x{self.W}x{self.C}-{self.K}x{self.R}x{self.S}{ends}"

    def seen(self, x: np.ndarray, r: int, s: int) -> np.ndarray:
        """What tap (r, s) meets in each position: a view (N, P, Q, C)."""
        top, left = r * self.dilation[0], s * self.dilation[1]
        rows, columns = (self.P - 1) * self.stride[0] + 1, (self.Q - 1) * self.stride[1] + 1
        return x[:, top : top + rows : self.stride[0], left : left + columns : self.stride[1]]

    def fields(self, x_row: int = 0, x_image: int = 0, y_row: int = 0, y_image: int = 0) -> dict[str, int | str]:
        return {
            "batch": f"run_time({self.batch})",
            "C": self.C,
            "P": self.P,
            "Q": self.Q,
            "R": self.R,
            "S": self.S,
            "stride_h": self.stride[0],
            "stride_w": self.stride[1],
            "dilation_h": self.dilation[0],
            "dilation_w": self.dilation[1],
            "x_row": x_row or self.W * self.C,
            "x_image": x_image or self.H * self.W * self.C,
            "y_row": y_row or self.Q * self.K,
            "y_image": y_image or self.P * self.Q * self.K,
            "y_pixel": self.K,
        }

    def direct(self, vectors: int, **strides: int) -> str:
        return literal("conv_direct_shape", **self.fields(**strides), K=self.K, vectors=vectors)

    def depthwise(self, multiplier: int, summed: int = 1) -> str:
        return literal("conv_depthwise_shape", **self.fields(), multiplier=multiplier, summed=summed)


def _both(function, *arrays: np.ndarray, terms: int) -> tuple[np.ndarray, np.ndarray]:
    """What a sum of products is in float64, and a rounding for each of its terms and one more."""
    exact = [a.astype(float) for a in arrays]
    return function(*exact), (terms + 1) * EPS * function(*map(np.abs, exact))


def _pack(source: str, packed: str, width: str, **fields: int) -> str:
    return f"pack(thread, threads, {source}, {packed}, {literal('pack_shape', **fields, width=width)})"


def _packed_size(K: int, rest: int, vectors: int = 1) -> int:
    """Floats of packed weights, whatever LANES is: at most 16."""
    width = 16 * vectors
    return (K + width - 1) // width * width * rest


# direct


def _convolve(c: Shape, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """x (N, H, W, C), w (K, C, R, S): (N, P, Q, K)."""
    y = np.zeros((c.batch, c.P, c.Q, c.K))
    for r in range(c.R):
        for s in range(c.S):
            y += c.seen(x, r, s) @ w[:, :, r, s].T
    return y


def _weights_of(c: Shape, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """The gradient to the weights, (R, S, C, K)."""
    dw = np.empty((c.R, c.S, c.C, c.K))
    for r in range(c.R):
        for s in range(c.S):
            dw[r, s] = c.seen(x, r, s).reshape(-1, c.C).T @ dy.reshape(-1, c.K)
    return dw


def _inputs_of(c: Shape, dy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The gradient to the padded images."""
    dx = np.zeros((c.batch, c.H, c.W, c.C))
    for r in range(c.R):
        for s in range(c.S):
            c.seen(dx, r, s)[...] += dy @ w[:, :, r, s]
    return dx


def forward(c: Shape, vectors: int = 2, inside: bool = False, finish: bool = False) -> Case:
    """`inside`: the result is the interior of a buffer with a halo."""
    x, w = _normal(c.batch, c.H, c.W, c.C), _normal(c.K, c.C, c.R, c.S)
    taps = c.R * c.S
    pack = _pack(
        "p[1]", "p[2]", f"{vectors} * LANES", K=c.K, C=c.C, R=c.R, S=c.S, w_k=c.C * taps, w_c=taps, w_r=c.S, w_s=1
    )
    want, within = _both(lambda x, w: _convolve(c, x, w), x, w, terms=taps * c.C)
    if finish:
        want, within = 2 * want + 1, 3 * within + 2 * EPS * np.abs(2 * want + 1)
    shape, y = c.direct(vectors), "p[3]"
    if inside:
        row = (c.Q + 2) * c.K
        shape, y = c.direct(vectors, y_row=row, y_image=(c.P + 3) * row), f"p[3] + {2 * row + c.K}"
        edges = ((0, 0), (2, 1), (1, 1), (0, 0))
        want, within = np.pad(want, edges, constant_values=UNTOUCHED), np.pad(within, edges)
    call = f"conv_direct(thread, threads, p[0], p[2], {y}, {shape}, {f'twice_plus_one, {y}' if finish else '0, 0'})"
    arrays = [x, w, untouched(_packed_size(c.K, taps * c.C, vectors)), untouched(*want.shape)]
    return Case(f"forward-{c}" + "-inside" * inside + "-finish" * finish, [pack, call], arrays, want, within)


def weight_gradient(c: Shape, vectors: int = 2, finish: bool = False) -> Case:
    x, dy = _normal(c.batch, c.H, c.W, c.C), _normal(c.batch, c.P, c.Q, c.K)
    want, within = _both(lambda x, dy: _weights_of(c, x, dy), x, dy, terms=c.batch * c.P * c.Q)
    if finish:
        want, within = 2 * want + 1, 3 * within + 2 * EPS * np.abs(2 * want + 1)
    width, then = f"{vectors} * LANES", "twice_plus_one, p[2]" if finish else "0, 0"
    call = f"conv_direct_weights(thread, threads, p[0], p[1], p[2], {c.K}, {width}, {c.direct(vectors)}, {then})"
    return Case(f"weight-{c}" + "-finish" * finish, [call], [x, dy, untouched(*want.shape)], want, within)


def packed_weight_gradient(c: Shape) -> Case:
    """dw in the order of the packed weights: only the numbers of channels that exist are written."""
    x, dy = _normal(c.batch, c.H, c.W, c.C), _normal(c.batch, c.P, c.Q, c.K)
    lines = c.R * c.S * c.C
    want, within = _both(lambda x, dy: _weights_of(c, x, dy), x, dy, terms=c.batch * c.P * c.Q)
    call = (
        f"conv_direct_weights(thread, threads, p[0], p[1], p[2], LANES, {lines} * LANES, {c.direct(1)}, 0, 0)",
        f"if (thread == threads - 1) for (idx i = 0; i < {lines}; i++) for (idx k = 0; k < {c.K}; k++)"
        f" p[3][i * {c.K} + k] = p[2][k / LANES * {lines} * LANES + i * LANES + k % LANES]",
    )
    size = _packed_size(c.K, lines)
    return Case(f"packed-{c}", call, [x, dy, untouched(size), untouched(*want.shape)], want, within)


def input_gradient(c: Shape, vectors: int = 2) -> Case:
    """For each phase of the stride a convolution of dy with every stride-th tap, turned: see conv_direct.h."""
    assert c.dilation == (1, 1)
    dy, w = _normal(c.batch, c.P, c.Q, c.K), _normal(c.K, c.C, c.R, c.S)
    want, within = _both(lambda dy, w: _inputs_of(c, dy, w), dy, w, terms=c.R * c.S * c.K)
    halo = (c.R, c.S)  # more than enough before and behind
    g = np.pad(dy, ((0, 0), (c.R, c.R + 1), (c.S, c.S + 1), (0, 0)))
    taps, calls = c.R * c.S, []
    for f in np.ndindex(c.stride):
        rs = [max(0, -(-(size - phase) // st)) for size, phase, st in zip((c.R, c.S), f, c.stride)]
        rows, columns = (-(-(size - phase) // st) for size, phase, st in zip((c.H, c.W), f, c.stride))
        last = [phase + st * (n - 1) for phase, st, n in zip(f, c.stride, rs)]  # the tap that comes first
        calls.append(_pack(
            f"p[1] + {last[0] * c.S + last[1] if 0 not in rs else 0}", "p[2]", f"{vectors} * LANES",
            K=c.C, C=c.K, R=rs[0], S=rs[1], w_k=taps, w_c=c.C * taps, w_r=-c.stride[0] * c.S, w_s=-c.stride[1],
        ))  # fmt: skip
        shape = literal(
            "conv_direct_shape",
            batch=f"run_time({c.batch})", C=c.K, K=c.C, P=rows, Q=columns, R=rs[0], S=rs[1],
            stride_h=1, stride_w=1, dilation_h=1, dilation_w=1, x_row=g.shape[2] * c.K, x_image=g[0].size,
            y_row=c.stride[0] * c.W * c.C, y_image=c.H * c.W * c.C, y_pixel=c.stride[1] * c.C, vectors=vectors,
        )  # fmt: skip
        top, left = (edge - (n - 1) for edge, n in zip(halo, rs))
        x, y = f"p[0] + {(top * g.shape[2] + left) * c.K}", f"p[3] + {(f[0] * c.W + f[1]) * c.C}"
        calls.append(f"conv_direct(thread, threads, {x}, p[2], {y}, {shape}, 0, 0)")
    arrays = [g, w, untouched(_packed_size(c.C, taps * c.K, vectors)), untouched(*want.shape)]
    return Case(f"input-{c}", calls, arrays, want, within)


# depthwise


def _depthwise(c: Shape, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """x (N, H, W, C), w (R, S, K): (N, P, Q, K)."""
    y = np.zeros((c.batch, c.P, c.Q, c.K))
    for r in range(c.R):
        for s in range(c.S):
            y += np.repeat(c.seen(x, r, s), c.K // c.C, axis=3) * w[r, s]
    return y


def depthwise(c: Shape, finish: bool = False) -> Case:
    x, w = _normal(c.batch, c.H, c.W, c.C), _normal(c.R, c.S, c.K)
    want, within = _both(lambda x, w: _depthwise(c, x, w), x, w, terms=c.R * c.S)
    if finish:
        want, within = 2 * want + 1, 3 * within + 2 * EPS * np.abs(2 * want + 1)
    pack = _pack(
        "p[1]", "p[2]", WHOLE_PANEL.format(c.K), K=c.K, C=1, R=c.R, S=c.S, w_k=1, w_c=1, w_r=c.S * c.K, w_s=c.K
    )
    then = "twice_plus_one, p[3]" if finish else "0, 0"
    call = f"conv_depthwise(thread, threads, p[0], p[2], p[3], {c.depthwise(c.K // c.C)}, {then})"
    arrays = [x, w, untouched(_packed_size(c.K, c.R * c.S)), untouched(*want.shape)]
    return Case(f"depthwise-{c}" + "-finish" * finish, [pack, call], arrays, want, within)


def depthwise_weights(c: Shape, finish: bool = False) -> Case:
    x, dy = _normal(c.batch, c.H, c.W, c.C), _normal(c.batch, c.P, c.Q, c.K)

    def gradient(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
        taps = [(np.repeat(c.seen(x, r, s), c.K // c.C, axis=3) * dy).sum((0, 1, 2)) for r, s in np.ndindex(c.R, c.S)]
        return np.reshape(taps, (c.R, c.S, c.K))

    want, within = _both(gradient, x, dy, terms=c.batch * c.P * c.Q)
    if finish:
        want, within = 2 * want + 1, 3 * within + 2 * EPS * np.abs(2 * want + 1)
    then = "twice_plus_one, p[2]" if finish else "0, 0"
    call = f"conv_depthwise_weights(thread, threads, p[0], p[1], p[2], {c.depthwise(c.K // c.C)}, {then})"
    arrays = [x, dy, untouched(*want.shape)]
    return Case(f"depthwise-weight-{c}" + "-finish" * finish, [call], arrays, want, within)


def depthwise_inputs(c: Shape) -> Case:
    """Stride 1: the forward kernel for dy with a halo and the turned window; it sums over the results of a channel."""
    assert c.stride == c.dilation == (1, 1)
    each = c.K // c.C
    dy, w = _normal(c.batch, c.P, c.Q, c.K), _normal(c.R, c.S, c.K)

    def gradient(dy: np.ndarray, w: np.ndarray) -> np.ndarray:
        dx = np.zeros((c.batch, c.H, c.W, c.C))
        for r, s in np.ndindex(c.R, c.S):
            c.seen(dx, r, s)[...] += (dy * w[r, s]).reshape(c.batch, c.P, c.Q, c.C, each).sum(4)
        return dx

    want, within = _both(gradient, dy, w, terms=c.R * c.S * each)
    g = np.pad(dy, ((0, 0), (c.R - 1, c.R - 1), (c.S - 1, c.S - 1), (0, 0)))
    turned = Shape(c.batch, g.shape[1], g.shape[2], c.K, c.C, c.R, c.S)
    pack = _pack(
        f"p[1] + {w.size - c.K}", "p[2]", WHOLE_PANEL.format(c.C),
        K=c.C, C=each, R=c.R, S=c.S, w_k=each, w_c=1, w_r=-c.S * c.K, w_s=-c.K,
    )  # fmt: skip
    call = f"conv_depthwise(thread, threads, p[0], p[2], p[3], {turned.depthwise(1, each)}, 0, 0)"
    arrays = [g, w, untouched(_packed_size(c.C, c.R * c.S * each)), untouched(*want.shape)]
    return Case(f"depthwise-input-{c}", [pack, call], arrays, want, within)


CASES = [
    forward(Shape(2, 9, 11, 3, 10, 3, 3), vectors=1),
    forward(Shape(1, 19, 21, 3, 24, 7, 7, stride=(2, 2)), finish=True),
    forward(Shape(3, 7, 18, 24, 40, 3, 3), inside=True, finish=True),
    forward(Shape(1, 5, 34, 16, 33, 1, 1)),
    forward(Shape(2, 9, 8, 10, 70, 1, 1, stride=(2, 2)), vectors=2),
    forward(Shape(1, 12, 40, 5, 17, 3, 2, stride=(1, 3), dilation=(2, 2)), inside=True),
    forward(Shape(1, 3, 3, 600, 100, 3, 3)),
    forward(Shape(0, 5, 5, 4, 8, 3, 3)),
    weight_gradient(Shape(2, 9, 11, 3, 10, 3, 3), vectors=1, finish=True),
    weight_gradient(Shape(3, 19, 21, 3, 24, 7, 7, stride=(2, 2))),
    weight_gradient(Shape(5, 40, 41, 24, 33, 3, 3), finish=True),
    weight_gradient(Shape(2, 130, 20, 30, 40, 2, 1)),
    weight_gradient(Shape(2, 14, 19, 10, 70, 3, 2, stride=(2, 1), dilation=(2, 2))),
    weight_gradient(Shape(1, 4, 6, 100, 16, 1, 1)),
    weight_gradient(Shape(0, 4, 6, 10, 16, 1, 1)),
    packed_weight_gradient(Shape(2, 6, 7, 5, 19, 3, 3)),
    input_gradient(Shape(2, 9, 10, 12, 10, 3, 3)),
    input_gradient(Shape(2, 11, 14, 10, 24, 3, 3, stride=(2, 2))),
    input_gradient(Shape(1, 16, 15, 3, 5, 7, 4, stride=(2, 3)), vectors=1),
    input_gradient(Shape(2, 7, 8, 40, 20, 1, 1, stride=(2, 2))),
    depthwise(Shape(2, 9, 20, 24, 24, 3, 3)),
    depthwise(Shape(1, 15, 13, 33, 33, 5, 5, stride=(2, 2)), finish=True),
    depthwise(Shape(2, 9, 20, 5, 15, 3, 2, dilation=(2, 3))),
    depthwise(Shape(1, 5, 5, 1, 1, 3, 3)),
    depthwise_weights(Shape(2, 9, 20, 24, 24, 3, 3), finish=True),
    depthwise_weights(Shape(3, 15, 13, 33, 33, 7, 7, stride=(2, 2))),
    depthwise_weights(Shape(2, 1, 60, 40, 40, 1, 31, dilation=(1, 1))),
    depthwise_weights(Shape(2, 9, 20, 5, 15, 3, 2, dilation=(2, 3))),
    depthwise_weights(Shape(0, 9, 20, 20, 20, 3, 3)),
    depthwise_inputs(Shape(2, 8, 9, 24, 24, 3, 3)),
    depthwise_inputs(Shape(1, 8, 9, 21, 42, 3, 5)),
]


@pytest.fixture(scope="module", params=builds(), ids=lambda extra: "sanitized" if extra else "fast")
def got(request: pytest.FixtureRequest) -> dict[str, list[np.ndarray]]:
    return results(CASES, request.param)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolutions(case: Case, got: dict[str, list[np.ndarray]]) -> None:
    check(case, got[case.name])
