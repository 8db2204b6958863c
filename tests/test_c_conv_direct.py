"""Direct and depthwise convolutions in C, and their gradients, against float64: strides, dilations, tails, views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd

import numpy as np
import pytest
from c_kernels import EPS, UNTOUCHED, Case, builds, check, literal, results, untouched

pytestmark = pytest.mark.compiler

WHOLE_PANEL = "(({}) + LANES - 1) / LANES * LANES"


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Shape:
    """A convolution of padded images: H and W (and D) include the halo; C and K are of all groups."""

    batch: int
    H: int
    W: int
    C: int
    K: int
    R: int
    S: int
    stride: tuple[int, ...] = (1, 1)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    D: int = 1
    T: int = 1

    @property
    def strides(self) -> tuple[int, ...]:
        return (*(1,) * (3 - len(self.stride)), *self.stride)

    @property
    def dilations(self) -> tuple[int, ...]:
        return (*(1,) * (3 - len(self.dilation)), *self.dilation)

    @property
    def places(self) -> tuple[int, int, int]:
        """The sizes of the result."""
        axes = zip((self.D, self.H, self.W), (self.T, self.R, self.S), self.strides, self.dilations)
        D, P, Q = ((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in axes)
        return D, P, Q

    @property
    def taps(self) -> Iterator[tuple[int, ...]]:
        return np.ndindex(self.T, self.R, self.S)

    @property
    def images(self) -> tuple[int, ...]:
        return self.batch, self.D, self.H, self.W, self.C

    @property
    def results(self) -> tuple[int, ...]:
        return self.batch, *self.places, self.K

    @property
    def weights(self) -> tuple[int, ...]:
        return self.K, self.C // self.groups, self.T, self.R, self.S

    def __str__(self) -> str:
        ends = [f"g{self.groups}"] * (self.groups > 1) + [f"t{self.T}of{self.D}"] * (self.D > 1)
        ends += [
            f"{name}{''.join(map(str, n))}" for name, n in (("s", self.stride), ("d", self.dilation)) if set(n) != {1}
        ]
        return "-".join([f"{self.batch}x{self.H}x{self.W}x{self.C}-{self.K}x{self.R}x{self.S}", *ends])

    def seen(self, x: np.ndarray, tap: Sequence[int]) -> np.ndarray:
        """What a tap meets in each position: a view (N, D, P, Q, C)."""
        axes = zip(tap, self.places, self.strides, self.dilations)
        return x[(slice(None), *(slice(i * d, i * d + (n - 1) * s + 1, s) for i, n, s, d in axes))]

    def of_group(self, group: int) -> tuple[slice, slice]:
        """Its channels and its results."""
        c, k = self.C // self.groups, self.K // self.groups
        return slice(group * c, group * c + c), slice(group * k, group * k + k)

    def fields(self, y_row: int = 0, y_image: int = 0) -> dict[str, int | str]:
        (D, P, Q), (sd, sh, sw), (dd, dh, dw) = self.places, self.strides, self.dilations
        return {
            "batch": f"run_time({self.batch})", "groups": self.groups,
            "C": self.C // self.groups, "K": self.K // self.groups,
            "D": D, "P": P, "Q": Q, "T": self.T, "R": self.R, "S": self.S,
            "stride_d": sd, "stride_h": sh, "stride_w": sw, "dilation_d": dd, "dilation_h": dh, "dilation_w": dw,
            "x_image": self.D * self.H * self.W * self.C, "x_slice": self.H * self.W * self.C, "x_row": self.W * self.C,
            "y_image": y_image or D * P * Q * self.K, "y_slice": P * Q * self.K,
            "y_row": y_row or Q * self.K, "y_pixel": self.K,
        }  # fmt: skip

    def direct(self, vectors: int, **strides: int) -> str:
        return literal("conv_direct_shape", **self.fields(**strides), vectors=vectors)

    def depthwise(self, fields: Mapping[str, int | str]) -> str:
        """The fields that the depthwise kernels have."""
        flat = {name: value for name, value in fields.items() if name not in ("groups", "K")}
        return literal("conv_depthwise_shape", **{**flat, "C": self.C})


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


def at_tap(w: np.ndarray, tap: Sequence[int]) -> np.ndarray:
    """One matrix (K, C) of a weight."""
    t, r, s = tap
    return w[:, :, t, r, s]


def _convolve(c: Shape, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """x (N, D, H, W, C), w (K, C / groups, T, R, S): (N, D, P, Q, K)."""
    y = np.zeros(c.results)
    for g, tap in product(range(c.groups), c.taps):
        channels, rows = c.of_group(g)
        y[..., rows] += c.seen(x, tap)[..., channels] @ at_tap(w[rows], tap).T
    return y


def _weights_of(c: Shape, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """The gradient to the weights, (T, R, S, C / groups, K)."""
    dw = np.empty((c.T, c.R, c.S, c.C // c.groups, c.K))
    for g, tap in product(range(c.groups), c.taps):
        channels, rows = c.of_group(g)
        dw[tap][:, rows] = np.einsum("ndpqc,ndpqk->ck", c.seen(x, tap)[..., channels], dy[..., rows])
    return dw


def _inputs_of(c: Shape, dy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The gradient to the padded images."""
    dx = np.zeros(c.images)
    for g, tap in product(range(c.groups), c.taps):
        channels, rows = c.of_group(g)
        c.seen(dx, tap)[..., channels] += dy[..., rows] @ at_tap(w[rows], tap)
    return dx


def _sizes(c: Shape) -> dict[str, int]:
    """Of the weight, for pack.h."""
    taps, each = c.T * c.R * c.S, c.C // c.groups
    apart = {"w_group": c.K // c.groups * each * taps, "w_k": each * taps, "w_c": taps}
    sizes = {"groups": c.groups, "K": c.K // c.groups, "C": each, "T": c.T, "R": c.R, "S": c.S}
    return {**sizes, **apart, "w_t": c.R * c.S, "w_r": c.S, "w_s": 1}


def forward(c: Shape, vectors: int = 2, inside: bool = False, finish: bool = False) -> Case:
    """`inside`: the result is the interior of a buffer with a halo."""
    x, w = _normal(*c.images), _normal(*c.weights)
    pack = _pack("p[1]", "p[2]", f"{vectors} * LANES", **_sizes(c))
    want, within = _both(lambda x, w: _convolve(c, x, w), x, w, terms=w[0].size)
    if finish:
        want, within = 2 * want + 1, 3 * within + 2 * EPS * np.abs(2 * want + 1)
    shape, y = c.direct(vectors), "p[3]"
    if inside:
        row, rows = (c.places[2] + 2) * c.K, c.places[1] + 3
        shape, y = c.direct(vectors, y_row=row, y_image=rows * row), f"p[3] + {2 * row + c.K}"
        edges = ((0, 0), (0, 0), (2, 1), (1, 1), (0, 0))
        want, within = np.pad(want, edges, constant_values=UNTOUCHED), np.pad(within, edges)
    call = f"conv_direct(thread, threads, p[0], p[2], {y}, {shape}, {f'twice_plus_one, {y}' if finish else '0, 0'})"
    packed = c.groups * _packed_size(c.K // c.groups, w[0].size, vectors)
    arrays = [x, w, untouched(packed), untouched(*want.shape)]
    return Case(f"forward-{c}" + "-inside" * inside + "-finish" * finish, [pack, call], arrays, want, within)


def weight_gradient(c: Shape, vectors: int = 2, finish: bool = False) -> Case:
    x, dy = _normal(*c.images), _normal(*c.results)
    want, within = _both(lambda x, dy: _weights_of(c, x, dy), x, dy, terms=dy[..., 0].size)
    if finish:
        want, within = 2 * want + 1, 3 * within + 2 * EPS * np.abs(2 * want + 1)
    width, then = f"{vectors} * LANES", "twice_plus_one, p[2]" if finish else "0, 0"
    call = f"conv_direct_weights(thread, threads, p[0], p[1], p[2], {c.K}, {width}, {c.direct(vectors)}, {then})"
    return Case(f"weight-{c}" + "-finish" * finish, [call], [x, dy, untouched(*want.shape)], want, within)


def packed_weight_gradient(c: Shape) -> Case:
    """dw in the order of the packed weights: only the numbers of channels that exist are written."""
    x, dy = _normal(*c.images), _normal(*c.results)
    lines = c.R * c.S * c.C
    want, within = _both(lambda x, dy: _weights_of(c, x, dy), x, dy, terms=dy[..., 0].size)
    call = (
        f"conv_direct_weights(thread, threads, p[0], p[1], p[2], LANES, {lines} * LANES, {c.direct(1)}, 0, 0)",
        f"if (thread == threads - 1) for (idx i = 0; i < {lines}; i++) for (idx k = 0; k < {c.K}; k++)"
        f" p[3][i * {c.K} + k] = p[2][k / LANES * {lines} * LANES + i * LANES + k % LANES]",
    )
    size = _packed_size(c.K, lines)
    return Case(f"packed-{c}", call, [x, dy, untouched(size), untouched(*want.shape)], want, within)


def _with_zeros(c: Shape, dy: np.ndarray) -> np.ndarray:
    """dy with more zeros around it than any tap reaches, three of them for each tap."""
    return np.pad(dy, ((0, 0), *((3 * n, 3 * n) for n in (c.T, c.R, c.S)), (0, 0)))


def _axes(c: Shape) -> dict[str, str]:
    sizes = zip((c.D, c.H, c.W), (c.T, c.R, c.S), c.strides, c.dilations)
    return {
        name: literal("conv_axis", size=n, window=k, stride=s, dilation=d, front=3 * k * s, step=s // gcd(s, d))
        for name, (n, k, s, d) in zip(("depth", "height", "width"), sizes)
    }


def _of_phase(c: Shape, g: np.ndarray) -> dict[str, int | str]:
    """The fields of the convolution of g that a phase of the gradient to the input is."""
    found, image = c.fields(), int(np.prod(g.shape[1:]))
    found.update(C=c.K // c.groups, K=c.C // c.groups)
    found.update(x_image=image, x_slice=image // g.shape[1], x_row=image // g.shape[1] // g.shape[2])
    found.update(y_image=c.D * c.H * c.W * c.C)
    apart = (c.H * c.W * c.C, c.W * c.C, c.C)
    for axis, y, step, s, d in zip("dhw", ("y_slice", "y_row", "y_pixel"), apart, c.strides, c.dilations):
        found.update({f"stride_{axis}": 1, f"dilation_{axis}": d // gcd(s, d), y: s * step})
    return found


def _steps(c: Shape) -> dict[str, int]:
    return {f"step_{axis}": s // gcd(s, d) for axis, s, d in zip("trs", c.strides, c.dilations)}


def input_gradient(c: Shape, vectors: int = 2, finish: bool = False) -> Case:
    dy, w = _normal(*c.results), _normal(*c.weights)
    want, within = _both(lambda dy, w: _inputs_of(c, dy, w), dy, w, terms=w.size // w.shape[1] // c.groups)
    if finish:
        want, within = 2 * want + 1, 3 * within + 2 * EPS * np.abs(2 * want + 1)
    g, sizes = _with_zeros(c, dy), _sizes(c)
    turned = {"K": sizes["C"], "C": sizes["K"], "w_k": sizes["w_c"], "w_c": sizes["w_k"], **_steps(c)}
    pack = _pack("p[1]", "p[2]", f"{vectors} * LANES", **{**sizes, **turned})
    one = literal("conv_direct_shape", **_of_phase(c, g), vectors=vectors)
    shape = literal("conv_direct_inputs_shape", **_axes(c), one=one)
    then = "twice_plus_one, p[3]" if finish else "0, 0"
    call = f"conv_direct_inputs(thread, threads, p[0], p[2], p[3], {shape}, {then})"
    packed = c.groups * _packed_size(c.C // c.groups, w.size // c.C, vectors)
    arrays = [g, w, untouched(packed), untouched(*want.shape)]
    return Case(f"input-{c}" + "-finish" * finish, [pack, call], arrays, want, within)


# depthwise


def _pack_depthwise(c: Shape, **steps: int) -> str:
    """Of weights (T, R, S, C)."""
    sizes = {"groups": 1, "K": c.C, "C": 1, "T": c.T, "R": c.R, "S": c.S}
    apart = {"w_k": 1, "w_t": c.R * c.S * c.C, "w_r": c.S * c.C, "w_s": c.C}
    return _pack("p[1]", "p[2]", WHOLE_PANEL.format(c.C), **sizes, **apart, **steps)


def depthwise(c: Shape, finish: bool = False) -> Case:
    x, w = _normal(*c.images), _normal(c.T, c.R, c.S, c.C)
    convolve = lambda x, w: np.sum([c.seen(x, tap) * w[tap] for tap in c.taps], axis=0)
    want, within = _both(convolve, x, w, terms=c.T * c.R * c.S)
    if finish:
        want, within = 2 * want + 1, 3 * within + 2 * EPS * np.abs(2 * want + 1)
    then = "twice_plus_one, p[3]" if finish else "0, 0"
    call = f"conv_depthwise(thread, threads, p[0], p[2], p[3], {c.depthwise(c.fields())}, {then})"
    arrays = [x, w, untouched(_packed_size(c.C, c.T * c.R * c.S)), untouched(*want.shape)]
    return Case(f"depthwise-{c}" + "-finish" * finish, [_pack_depthwise(c), call], arrays, want, within)


def depthwise_weights(c: Shape, finish: bool = False) -> Case:
    x, dy = _normal(*c.images), _normal(*c.results)
    gradient = lambda x, dy: np.reshape(
        [(c.seen(x, tap) * dy).sum((0, 1, 2, 3)) for tap in c.taps], (c.T, c.R, c.S, c.C)
    )
    want, within = _both(gradient, x, dy, terms=dy[..., 0].size)
    if finish:
        want, within = 2 * want + 1, 3 * within + 2 * EPS * np.abs(2 * want + 1)
    then = "twice_plus_one, p[2]" if finish else "0, 0"
    call = f"conv_depthwise_weights(thread, threads, p[0], p[1], p[2], {c.depthwise(c.fields())}, {then})"
    arrays = [x, dy, untouched(*want.shape)]
    return Case(f"depthwise-weight-{c}" + "-finish" * finish, [call], arrays, want, within)


def depthwise_inputs(c: Shape, finish: bool = False) -> Case:
    dy, w = _normal(*c.results), _normal(c.T, c.R, c.S, c.C)

    def gradient(dy: np.ndarray, w: np.ndarray) -> np.ndarray:
        dx = np.zeros(c.images)
        for tap in c.taps:
            c.seen(dx, tap)[...] += dy * w[tap]
        return dx

    want, within = _both(gradient, dy, w, terms=c.T * c.R * c.S)
    if finish:
        want, within = 2 * want + 1, 3 * within + 2 * EPS * np.abs(2 * want + 1)
    g = _with_zeros(c, dy)
    one = c.depthwise(_of_phase(c, g))
    shape = literal("conv_depthwise_inputs_shape", **_axes(c), one=one)
    then = "twice_plus_one, p[3]" if finish else "0, 0"
    call = f"conv_depthwise_inputs(thread, threads, p[0], p[2], p[3], {shape}, {then})"
    arrays = [g, w, untouched(_packed_size(c.C, c.T * c.R * c.S)), untouched(*want.shape)]
    return Case(
        f"depthwise-input-{c}" + "-finish" * finish, [_pack_depthwise(c, **_steps(c)), call], arrays, want, within
    )


CASES = [
    forward(Shape(2, 9, 11, 3, 10, 3, 3), vectors=1),
    forward(Shape(1, 19, 21, 3, 24, 7, 7, stride=(2, 2)), finish=True),
    # short rows, two in a tile: of one image and of two, of an odd number, of slices, of phases, in groups
    *(forward(Shape(3, Q + 2, Q + 2, 5, 70, 3, 3), inside=True) for Q in (3, 4, 5, 6, 7, 8)),
    forward(Shape(3, 15, 15, 9, 64, 3, 3, stride=(2, 2)), finish=True),
    forward(Shape(2, 5, 7, 33, 96, 1, 1), finish=True),
    forward(Shape(2, 5, 7, 6, 40, 2, 2, D=4, T=2), finish=True),
    forward(Shape(3, 7, 7, 8, 80, 1, 1, groups=2), finish=True),
    input_gradient(Shape(3, 12, 14, 40, 7, 4, 4, stride=(2, 2)), finish=True),
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
    input_gradient(Shape(2, 9, 10, 12, 10, 3, 3), finish=True),
    input_gradient(Shape(2, 11, 14, 10, 24, 3, 3, stride=(2, 2)), finish=True),
    input_gradient(Shape(1, 16, 15, 3, 5, 7, 4, stride=(2, 3)), vectors=1),
    input_gradient(Shape(2, 7, 8, 40, 20, 1, 1, stride=(2, 2)), finish=True),
    input_gradient(Shape(1, 13, 17, 9, 6, 3, 3, stride=(2, 4), dilation=(3, 2)), vectors=1),
    input_gradient(Shape(0, 7, 8, 4, 20, 1, 1, stride=(2, 2))),
    forward(Shape(2, 9, 20, 12, 18, 3, 3, groups=3), vectors=1, finish=True),
    forward(Shape(1, 9, 20, 40, 80, 3, 2, stride=(2, 1), dilation=(1, 2), groups=2), finish=True),
    weight_gradient(Shape(2, 9, 20, 12, 18, 3, 3, groups=3), vectors=1, finish=True),
    weight_gradient(Shape(1, 9, 20, 40, 80, 3, 2, stride=(2, 1), dilation=(1, 2), groups=2)),
    input_gradient(Shape(2, 9, 20, 12, 18, 3, 3, stride=(2, 2), groups=3), vectors=1, finish=True),
    forward(Shape(2, 6, 7, 5, 18, 3, 3, D=7, T=3), finish=True),
    forward(Shape(1, 6, 9, 8, 6, 2, 1, stride=(2, 1, 2), dilation=(2, 1, 1), groups=2, D=9, T=3), vectors=1),
    weight_gradient(Shape(2, 6, 7, 5, 18, 3, 3, D=7, T=3), finish=True),
    weight_gradient(Shape(1, 6, 9, 8, 6, 2, 1, stride=(2, 1, 2), dilation=(2, 1, 1), groups=2, D=9, T=3), vectors=1),
    weight_gradient(Shape(1, 60, 64, 16, 16, 1, 1, stride=(2, 1, 1), D=9, T=2)),
    weight_gradient(Shape(0, 6, 7, 5, 18, 3, 3, D=7, T=3)),
    input_gradient(Shape(2, 7, 6, 5, 18, 3, 3, stride=(2, 2, 2), D=8, T=3), finish=True),
    input_gradient(Shape(1, 6, 9, 8, 6, 2, 1, stride=(3, 1, 2), dilation=(2, 1, 1), groups=2, D=9, T=2), vectors=1),
    depthwise(Shape(2, 9, 20, 24, 24, 3, 3)),
    depthwise(Shape(1, 15, 13, 33, 33, 5, 5, stride=(2, 2)), finish=True),
    depthwise(Shape(2, 9, 20, 5, 5, 3, 2, dilation=(2, 3))),
    depthwise(Shape(1, 5, 5, 1, 1, 3, 3)),
    depthwise_weights(Shape(2, 9, 20, 24, 24, 3, 3), finish=True),
    depthwise_weights(Shape(3, 15, 13, 33, 33, 7, 7, stride=(2, 2))),
    depthwise_weights(Shape(2, 1, 60, 40, 40, 1, 31, dilation=(1, 1))),
    depthwise_weights(Shape(2, 9, 20, 5, 5, 3, 2, dilation=(2, 3))),
    depthwise_weights(Shape(0, 9, 20, 20, 20, 3, 3)),
    depthwise_inputs(Shape(2, 8, 9, 24, 24, 3, 3), finish=True),
    depthwise_inputs(Shape(1, 19, 23, 21, 21, 3, 5, stride=(2, 2)), finish=True),
    depthwise_inputs(Shape(1, 9, 12, 7, 7, 2, 3, stride=(3, 2), dilation=(1, 2))),
    depthwise_inputs(Shape(0, 8, 9, 24, 24, 3, 3)),
    depthwise(Shape(2, 5, 12, 18, 18, 3, 3, D=4, T=2), finish=True),
    depthwise_weights(Shape(2, 5, 12, 18, 18, 2, 3, stride=(2, 1, 2), dilation=(2, 1, 1), D=8, T=3), finish=True),
    depthwise_inputs(Shape(2, 5, 12, 18, 18, 2, 3, stride=(2, 1, 2), D=8, T=3), finish=True),
]


@pytest.fixture(scope="module", params=builds(), ids=lambda extra: "sanitized" if extra else "fast")
def got(request: pytest.FixtureRequest) -> dict[str, list[np.ndarray]]:
    return results(CASES, request.param)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolutions(case: Case, got: dict[str, list[np.ndarray]]) -> None:
    check(case, got[case.name])
