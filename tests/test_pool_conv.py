"""Convolution and pooling: their laws over drawn geometries, their rules at the edges, and their errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigraph as mg
from minigraph import layers
from minigraph.core.dtypes import FLOATS
from onnx_ops import avg_pool, max_pool, max_pool_gradient, visits

NAN, INF = float("nan"), float("inf")


def compute(op: Callable[..., mg.Tensor], *arrays: Any, **attrs: Any) -> np.ndarray:
    """One op on arrays."""
    net = mg.Builder()
    arrays = tuple(np.asarray(a) for a in arrays)
    y = op(*(net.input(f"x{i}", a.shape, a.dtype) for i, a in enumerate(arrays)), **attrs)
    return mg.compile(net.build(y=y), mg.State())(**{f"x{i}": a for i, a in enumerate(arrays)})["y"]


# drawn geometries


@dataclass(frozen=True)
class Geometry:
    """Sizes and attributes that fit together. All of convolution's; pooling takes those that it knows."""

    batch: int
    inputs: int
    outputs: int
    extents: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    layout: str

    @property
    def places(self) -> tuple[int, ...]:
        return tuple(
            (a + x + b - d * (k - 1) - 1) // s + 1
            for x, k, s, (a, b), d in zip(self.extents, self.window, self.stride, self.padding, self.dilation)
        )

    def arranged(self, channels: int, spatial: tuple[int, ...]) -> tuple[int, ...]:
        last = self.layout.endswith("C")
        return (self.batch, *spatial, channels) if last else (self.batch, channels, *spatial)

    @property
    def attrs(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "layout": self.layout}


@st.composite
def geometries(draw: st.DrawFn, pooling: bool = False) -> Geometry:
    """Small ones, of 1 to 3 axes. For pooling without dilation, and with less padding than window."""
    rank = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    axes = []
    for _ in range(rank):
        k, d, s = draw(st.integers(1, 3)), draw(st.integers(1, 2 if not pooling else 1)), draw(st.integers(1, 3))
        reach = d * (k - 1) + 1
        a, b = (draw(st.integers(0, reach - 1 if pooling else 2)) for _ in range(2))
        least = max(1, reach - a - b)
        axes.append((draw(st.integers(least, least + 4)), k, s, (a, b), d))
    extents, window, stride, padding, dilation = zip(*axes)
    first = "NC" + {1: "L", 2: "HW", 3: "DHW"}[rank]
    layout = draw(st.sampled_from([first, first[0] + first[2:] + "C"]))
    return Geometry(
        draw(st.integers(0 if pooling else 1, 2)),
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        extents,
        window,
        stride,
        padding,
        dilation,
        groups,
        layout,
    )


def whole(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Small whole numbers: their products and sums are exact in float64, in whatever order."""
    return rng.integers(-8, 9, shape).astype(np.float64)


@given(geometry=geometries(), seed=st.integers(0, 99))
def test_convolution_and_its_gradients_are_adjoint(geometry: Geometry, seed: int) -> None:
    """<conv(x, w), g> = <x, conv_input_gradient(g, w)> = <w, conv_weight_gradient(x, g)>, exactly."""
    rng = np.random.default_rng(seed)
    x = whole(rng, geometry.arranged(geometry.inputs, geometry.extents))
    w = whole(rng, (geometry.outputs, geometry.inputs // geometry.groups, *geometry.window))
    g = whole(rng, geometry.arranged(geometry.outputs, geometry.places))
    attrs = {**geometry.attrs, "groups": geometry.groups}
    y = compute(mg.conv, x, w, **attrs)
    dx = compute(mg.conv_input_gradient, g, w, extents=geometry.extents, **attrs)
    dw = compute(mg.conv_weight_gradient, x, g, window=geometry.window, **attrs)
    assert (y.shape, dx.shape, dw.shape) == (g.shape, x.shape, w.shape)
    assert (y * g).sum() == (x * dx).sum() == (w * dw).sum()


@given(geometry=geometries(), seed=st.integers(0, 99))
def test_convolution_is_linear_in_both(geometry: Geometry, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, z = (whole(rng, geometry.arranged(geometry.inputs, geometry.extents)) for _ in range(2))
    w, v = (whole(rng, (geometry.outputs, geometry.inputs // geometry.groups, *geometry.window)) for _ in range(2))
    attrs = {**geometry.attrs, "groups": geometry.groups}
    conv = lambda x, w: compute(mg.conv, x, w, **attrs)
    assert np.array_equal(conv(3 * x - z, w), 3 * conv(x, w) - conv(z, w))
    assert np.array_equal(conv(x, 3 * w - v), 3 * conv(x, w) - conv(x, v))


@given(geometry=geometries(), seed=st.integers(0, 99))
def test_convolution_is_its_definition(geometry: Geometry, seed: int) -> None:
    """y[n, o, p] = sum of x[n, c, p*stride + k*dilation - padding] * w[o, c, k], channel by channel of the group."""
    rng = np.random.default_rng(seed)
    x = whole(rng, geometry.arranged(geometry.inputs, geometry.extents))
    w: Any = whole(rng, (geometry.outputs, geometry.inputs // geometry.groups, *geometry.window))
    last = geometry.layout.endswith("C")
    found: Any = compute(mg.conv, x, w, **geometry.attrs, groups=geometry.groups)
    first: Any = np.moveaxis(x, -1, 1) if last else x
    found = np.moveaxis(found, -1, 1) if last else found
    each_in, each_out = geometry.inputs // geometry.groups, geometry.outputs // geometry.groups
    for place, entries in visits(
        geometry.extents, geometry.window, geometry.stride, geometry.padding, geometry.dilation
    ):
        for o in range(geometry.outputs):
            channels = slice(o // each_out * each_in, (o // each_out + 1) * each_in)
            total: Any = 0.0
            for inner, at in entries:
                total = total + first[(slice(None), channels, *at)] @ w[(o, slice(None), *inner)]
            assert np.array_equal(found[(slice(None), o, *place)], total + np.zeros(geometry.batch))


@given(geometry=geometries(pooling=True), seed=st.integers(0, 99), negative=st.booleans())
def test_max_pooling_and_its_gradient_are_their_definition(geometry: Geometry, seed: int, negative: bool) -> None:
    """Small whole numbers tie often; all below 0, padding would win if it took part."""
    rng = np.random.default_rng(seed)
    x = whole(rng, geometry.arranged(geometry.inputs, geometry.extents)) - (20 if negative else 0)
    g = whole(rng, geometry.arranged(geometry.inputs, geometry.places))
    attrs = {**geometry.attrs, "window": geometry.window}
    net = mg.Builder()
    given_x, given_g = net.input("x", x.shape, "float64"), net.input("g", g.shape, "float64")
    y = mg.max_pool(given_x, **attrs)
    graph = net.build(y=y, dx=mg.gradient(mg.sum(y * given_g), [given_x])[0])
    found = mg.compile(graph, mg.State())(x=x, g=g)
    if geometry.batch:
        assert np.array_equal(found["y"], max_pool(x, **attrs))
        assert np.array_equal(found["dx"], max_pool_gradient(g, x, **attrs))
    assert (found["y"].shape, found["dx"].shape) == (g.shape, x.shape)
    assert found["dx"].sum() == g.sum()


@given(geometry=geometries(pooling=True), seed=st.integers(0, 99), include=st.booleans())
def test_average_pooling_is_its_definition_and_its_gradient_adjoint(
    geometry: Geometry, seed: int, include: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=geometry.arranged(geometry.inputs, geometry.extents))
    g = rng.normal(size=geometry.arranged(geometry.inputs, geometry.places))
    attrs = {**geometry.attrs, "window": geometry.window, "count_include_pad": include}
    net = mg.Builder()
    given_x, given_g = net.input("x", x.shape, "float64"), net.input("g", g.shape, "float64")
    y = mg.avg_pool(given_x, **attrs)
    graph = net.build(y=y, dx=mg.gradient(mg.sum(y * given_g), [given_x])[0])
    found = mg.compile(graph, mg.State())(x=x, g=g)
    # windows of up to 27 numbers of order 1; inner products of up to 1000 of them, in float64
    np.testing.assert_allclose(found["y"], avg_pool(x, **attrs), rtol=0, atol=1e-14)
    np.testing.assert_allclose((found["y"] * g).sum(), (found["dx"] * x).sum(), rtol=0, atol=1e-11)


@given(geometry=geometries(pooling=True), seed=st.integers(0, 99))
def test_layouts_are_the_same_numbers(geometry: Geometry, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = "NC" + geometry.layout.replace("N", "").replace("C", "")
    last = first[0] + first[2:] + "C"
    x = rng.normal(size=(geometry.batch, geometry.inputs, *geometry.extents))
    w = rng.normal(size=(geometry.outputs, geometry.inputs // geometry.groups, *geometry.window))
    moved = np.moveaxis(x, 1, -1)
    attrs = {key: value for key, value in geometry.attrs.items() if key != "layout"}
    for op, arrays, more in (
        (mg.conv, (w,), {"groups": geometry.groups}),
        (mg.max_pool, (), {"window": geometry.window}),
        (mg.avg_pool, (), {"window": geometry.window}),
    ):
        a = compute(op, x, *arrays, **attrs, **more, layout=first)
        b = compute(op, moved, *arrays, **attrs, **more, layout=last)
        np.testing.assert_allclose(b, np.moveaxis(a, 1, -1), rtol=0, atol=1e-13)  # float64, up to 54 terms of order 1


# second derivatives


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_derivatives_of_any_order_of_convolution(layout: str) -> None:
    """conv(x, w) is linear in x and in w, so f = sum(conv(x, w)^2) is a form of degree 2 in each. Euler's rule then
    holds exactly: <x, df/dx> = 2f and, once more, <x, d<v, df/dx>/dx> = <v, df/dx>.
    """
    rng = np.random.default_rng(0)
    shape = (2, 4, 5, 5) if layout == "NCHW" else (2, 5, 5, 4)
    net = mg.Builder()
    x, v = net.input("x", shape, "float64"), net.input("v", shape, "float64")
    w = net.input("w", (6, 2, 3, 2), "float64")
    y = mg.conv(x, w, stride=2, padding=((1, 0), (0, 2)), groups=2, layout=layout)
    f = mg.sum(y * y)
    dx, dw = mg.gradient(f, [x, w])
    along = mg.sum(dx * v)
    dxx, dxw = mg.gradient(along, [x, w])
    graph = net.build(
        f=f, xdx=mg.sum(x * dx), wdw=mg.sum(w * dw), along=along, xdxx=mg.sum(x * dxx), wdxw=mg.sum(w * dxw)
    )
    found = mg.compile(graph, mg.State())(x=whole(rng, shape), v=whole(rng, shape), w=whole(rng, (6, 2, 3, 2)))
    assert found["f"] != 0
    assert found["along"] != 0
    assert found["xdx"] == found["wdw"] == 2 * found["f"]
    assert found["xdxx"] == found["along"]
    assert found["wdxw"] == 2 * found["along"]


def test_second_derivative_of_max_pooling_goes_through_the_same_choice() -> None:
    net = mg.Builder()
    x = net.input("x", (1, 1, 6))
    y = mg.max_pool(x, 2)
    dx = mg.gradient(mg.sum(y * y * y), [x])[0]
    second = mg.gradient(mg.sum(dx * dx), [x])[0]  # of sum over chosen of (3 x^2)^2: 36 x^3
    found = mg.compile(net.build(second=second), mg.State())(x=[[[1, 2, 3, 3, -1, -2]]])["second"]
    assert found.tolist() == [[[0, 36 * 8, 36 * 27, 0, -36, 0]]]


# max pooling's rules


def gradient_of_max_pool(x: Any, **attrs: Any) -> tuple[list[float], list[float]]:
    net = mg.Builder()
    array = np.array([[x]], np.float32)
    given_x = net.input("x", array.shape)
    y = mg.max_pool(given_x, **attrs)
    found = mg.compile(net.build(y=y, dx=mg.gradient(mg.sum(y), [given_x])[0]), mg.State())(x=array)
    return found["y"][0, 0].tolist(), found["dx"][0, 0].tolist()


def test_the_first_of_equals_takes_the_gradient() -> None:
    assert gradient_of_max_pool([5, 5, 5, 1, 2, 2], window=3) == ([5, 2], [1, 0, 0, 0, 1, 0])
    assert gradient_of_max_pool([0.0, -0.0, -0.0, 0.0], window=2) == ([0, 0], [1, 0, 1, 0])


def test_nan_wins_and_the_first_one_takes_the_gradient() -> None:
    y, dx = gradient_of_max_pool([1, NAN, NAN, 9, 2, 3], window=3)
    assert np.isnan(y[0])
    assert y[1] == 9
    assert dx == [0, 1, 0, 1, 0, 0]
    y, dx = gradient_of_max_pool([INF, NAN, 1, 2], window=2)
    assert np.isnan(y[0])
    assert dx == [0, 1, 0, 1]


def test_a_window_of_minus_infinity() -> None:
    assert gradient_of_max_pool([-INF, -INF, -INF, 0], window=2) == ([-INF, 0], [1, 0, 0, 1])
    assert gradient_of_max_pool([-INF, -INF], window=2, padding=1) == ([-INF, -INF], [1, 1])


def test_overlapping_windows_add_their_gradients() -> None:
    assert gradient_of_max_pool([1, 3, 2, 0], window=2, stride=1) == ([3, 3, 2], [0, 2, 1, 0])


@pytest.mark.parametrize("dtype", [*FLOATS, "int8", "int64"])
def test_padding_never_wins(dtype: str) -> None:
    x = np.array([[[-5, -7, -3]]], dtype)
    assert compute(mg.max_pool, x, window=3, stride=1, padding=1).tolist() == [[[-5, -3, -3]]]


def test_padding_counts_in_a_mean_only_if_asked() -> None:
    x = np.array([[[3.0, 6.0, 9.0]]])
    attrs = {"window": 3, "stride": 1, "padding": 1}
    assert compute(mg.avg_pool, x, **attrs).tolist() == [[[4.5, 6, 7.5]]]
    assert compute(mg.avg_pool, x, **attrs, count_include_pad=True).tolist() == [[[3, 6, 5]]]
    uneven = {"window": 2, "padding": ((0, 1),)}
    assert compute(mg.avg_pool, x, **uneven).tolist() == [[[4.5, 9]]]
    assert compute(mg.avg_pool, x, **uneven, count_include_pad=True).tolist() == [[[4.5, 4.5]]]


def test_an_average_over_everything_is_the_global_one() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    mean = x.mean((2, 3))
    np.testing.assert_allclose(compute(mg.avg_pool, x, window=(5, 4))[:, :, 0, 0], mean, rtol=0, atol=1e-15)
    np.testing.assert_allclose(compute(mg.global_avg_pool, x), mean, rtol=0, atol=1e-15)
    np.testing.assert_allclose(
        compute(mg.global_avg_pool, np.moveaxis(x, 1, -1), layout="NHWC"), mean, rtol=0, atol=1e-15
    )
    assert compute(mg.global_avg_pool, x, keepdims=True).shape == (2, 3, 1, 1)


@pytest.mark.parametrize("pool", [mg.max_pool, mg.avg_pool])
def test_dilated_windows_that_hold_only_padding_are_refused(pool: Callable[..., mg.Tensor]) -> None:
    """Two entries 3 apart, around 2 numbers with 2 of padding on either side: the middle place meets no number."""
    with pytest.raises(mg.GraphError):
        compute(pool, np.ones((1, 1, 2)), window=2, stride=1, padding=2, dilation=3)


# convolution's rules


def test_a_convolution_does_not_turn_its_window() -> None:
    x, w = np.array([[[1.0, 2, 3, 4]]]), np.array([[[1.0, 10, 100]]])
    assert compute(mg.conv, x, w).tolist() == [[[321, 432]]]
    assert compute(mg.conv, x, w, padding=((2, 0),)).tolist() == [[[100, 210, 321, 432]]]
    assert compute(mg.conv, x, w, padding="same").tolist() == [[[210, 321, 432, 43]]]
    assert compute(mg.conv, x, w, padding="same", stride=2).tolist() == [[[321, 43]]]  # the odd zero comes behind


def test_nan_times_a_weight_of_zero_is_nan() -> None:
    y = compute(mg.conv, np.array([[[1.0, NAN, 1, 1]]]), np.array([[[0.0, 1.0]]]))
    assert np.isnan(y[0, 0, :2]).all()
    assert y[0, 0, 2] == 1


def test_half_precision_is_summed_in_single() -> None:
    """1 + 4096 * 2^-11 is 3; in float16 each of these additions would be lost."""
    x = np.full((1, 4097, 1), 2.0**-11, np.float16)
    x[0, 0] = 1
    w = np.ones((1, 4097, 1), np.float16)
    assert compute(mg.conv, x, w).tolist() == [[[3]]]
    assert compute(mg.matmul, x[:, :, 0], w[0]).tolist() == [[3]]


# sizes that are known only at run time


@pytest.mark.parametrize("n", [0, 1, 3])
def test_symbols_bind_to_what_comes(n: int) -> None:
    net = mg.Builder()
    x = net.input("x", ("N", 3, "2*H", "2*W+1"))
    w = net.input("w", (4, 3, 3, 3))
    same = mg.conv(x, w, padding="same")
    halved = mg.max_pool(same, (2, 3), stride=(2, 1))
    y = mg.avg_pool(halved, (1, 3), stride=(1, 2), padding=(0, 1))
    assert [str(size) for size in same.shape] == ["N", "4", "2*H", "2*W+1"]
    assert [str(size) for size in halved.shape] == ["N", "4", "H", "2*W-1"]
    assert [str(size) for size in y.shape] == ["N", "4", "H", "W"]
    gradient = mg.gradient(mg.sum(y * y), [x, w])
    program = mg.compile(net.build(y=y, dx=gradient[0], dw=gradient[1]), mg.State())
    weight = np.ones((4, 3, 3, 3))
    for h, width in ((3, 2), (1, 4), (2, 1)):
        given = np.random.default_rng(0).normal(size=(n, 3, 2 * h, 2 * width + 1)).astype(np.float32)
        found = program(x=given, w=weight)
        assert found["y"].shape == (n, 4, h, width)
        assert (found["dx"].shape, found["dw"].shape) == (given.shape, weight.shape)
        known = compute(mg.conv, given, weight.astype(np.float32), padding=1)
        known = compute(mg.max_pool, known, window=(2, 3), stride=(2, 1))
        assert np.array_equal(found["y"], compute(mg.avg_pool, known, window=(1, 3), stride=(1, 2), padding=(0, 1)))
    with pytest.raises(mg.GraphError, match=r"'x'.*2\*H.*\(1, 3, 3, 3\)"):
        program(x=np.ones((1, 3, 3, 3)), w=weight)


def test_a_size_too_small_at_run_time_is_an_error_of_that_node() -> None:
    net = mg.Builder()
    line = sys._getframe().f_lineno + 1
    y = mg.conv(net.input("x", (1, 1, "L")), net.input("w", (1, 1, 5)))
    program = mg.compile(net.build(y=y), mg.State())
    assert program(x=np.ones((1, 1, 5)), w=np.ones((1, 1, 5)))["y"].tolist() == [[[5]]]
    with pytest.raises(mg.GraphError) as error:
        program(x=np.ones((1, 1, 4)), w=np.ones((1, 1, 5)))
    for part in ("conv 'conv'", "L = 4", "does not fit", f"{__file__}:{line}"):
        assert part in str(error.value)


def test_a_stride_that_does_not_divide_a_symbol_is_an_error_that_says_how_to_write_it() -> None:
    with pytest.raises(mg.GraphError, match="multiple of 2"):
        mg.max_pool(mg.Builder().input("x", (1, 1, "L")), 2)


# errors


def users_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The innermost line of this file on which the error came up."""
    innermost = [entry for entry in error.traceback if str(entry.path) == __file__][-1]
    return f"at {__file__}:{innermost.lineno + 1}"


def net_inputs() -> dict[str, mg.Tensor]:
    net = mg.Builder()
    shapes = {
        "x": (2, 6, 5, 5),
        "w": (4, 6, 3, 3),
        "g": (2, 4, 3, 3),
        "line": (2, 6, 5),
        "flat": (2, 6),
        "narrow": (4, 3, 3, 3),
        "bits": (2, 6, 5, 5),
    }
    return {name: net.input(name, shape, "bool" if name == "bits" else "float32") for name, shape in shapes.items()}


Wrong = tuple[str, str, Callable[[dict[str, mg.Tensor]], Any]]  # op, what the message says, call


def of_pool(pool: mg.Op) -> dict[str, Wrong]:
    calls: dict[str, tuple[str, Callable[[dict[str, mg.Tensor]], Any]]] = {
        "window too large": ("does not fit", lambda t: pool(t["x"], 6)),
        "padding as large as the window": ("as large as the window", lambda t: pool(t["x"], 2, padding=2)),
        "padding as large behind": ("as large as the window", lambda t: pool(t["x"], 3, padding=((0, 3), (0, 0)))),
        "window of 0": ("window is 1 or more", lambda t: pool(t["x"], 0)),
        "no window": ("needs the attribute 'window'", lambda t: pool(t["x"])),
        "three windows": ("window has 3 numbers for 2", lambda t: pool(t["x"], (2, 2, 2))),
        "layout": ("NCL or NLC, not 'NHWC'", lambda t: pool(t["line"], 2, layout="NHWC")),
        "bools": ("needs (numbers|floats)", lambda t: pool(t["bits"], 2)),
    }
    return {f"{name} of {pool.name}": (pool.name, message, call) for name, (message, call) in calls.items()}


WRONG: dict[str, Wrong] = {
    "channels": ("conv", "x has 6 channels.*takes 3 x 1 groups", lambda t: mg.conv(t["x"], t["narrow"])),
    "channels last": ("conv", "x has 5 channels", lambda t: mg.conv(t["x"], t["w"], layout="NHWC")),
    "groups of inputs": ("conv", "6 channels.*3 x 4 groups", lambda t: mg.conv(t["x"], t["narrow"], groups=4)),
    "groups of outputs": (
        "conv",
        "4 output channels do not divide into 3 groups",
        lambda t: mg.conv(t["x"], mg.slice(t["w"], (0, 0, 0, 0), (4, 2, 3, 3)), groups=3),
    ),
    "groups of 0": ("conv", "groups is 1 or more", lambda t: mg.conv(t["x"], t["w"], groups=0)),
    "window too large": (
        "conv",
        r"3 entries, 3 apart, does not fit into 0 \+ 5 \+ 0",
        lambda t: mg.conv(t["x"], t["w"], dilation=3),
    ),
    "a window of nothing": ("conv", "window", lambda t: mg.conv(t["x"], mg.slice(t["w"], (0, 0, 0, 0), (4, 6, 0, 3)))),
    "stride of 0": ("conv", "stride is 1 or more", lambda t: mg.conv(t["x"], t["w"], stride=0)),
    "stride of a fraction": ("conv", "not 1.5", lambda t: mg.conv(t["x"], t["w"], stride=1.5)),
    "three strides": ("conv", "stride has 3 numbers for 2", lambda t: mg.conv(t["x"], t["w"], stride=(1, 1, 1))),
    "padding below 0": ("conv", "padding is 0 or more", lambda t: mg.conv(t["x"], t["w"], padding=-1)),
    "padding by name": ("conv", "padding.*'full'", lambda t: mg.conv(t["x"], t["w"], padding="full")),
    "three paddings": ("conv", "padding has 3 entries for 2", lambda t: mg.conv(t["x"], t["w"], padding=(1, 1, 1))),
    "layout of another rank": ("conv", "NCHW or NHWC, not 'NLC'", lambda t: mg.conv(t["x"], t["w"], layout="NLC")),
    "layout in small letters": ("conv", "NCHW or NHWC, not 'nchw'", lambda t: mg.conv(t["x"], t["w"], layout="nchw")),
    "a weight of another rank": ("conv", "weight needs 3 axes", lambda t: mg.conv(t["line"], t["w"])),
    "the same with padding": ("conv", "weight needs 4 axes", lambda t: mg.conv(t["x"], t["line"], padding=(1, 1))),
    "no spatial axes": ("conv", "1 to 3 spatial axes", lambda t: mg.conv(t["flat"], t["flat"])),
    "another dtype": ("conv", r"cast\(x, dtype\)", lambda t: mg.conv(mg.cast(t["x"], "float64"), t["w"])),
    "integers": ("conv", "needs floats", lambda t: mg.conv(mg.cast(t["x"], "int32"), mg.cast(t["w"], "int32"))),
    "an unknown attribute": ("conv", "no attribute 'strides'", lambda t: mg.conv(t["x"], t["w"], strides=2)),
    "extents that give another g": (
        "conv_input_gradient",
        "gradient cannot be",
        lambda t: mg.conv_input_gradient(t["g"], t["w"], extents=(9, 9)),
    ),
    "extents of another rank": (
        "conv_input_gradient",
        "needs 2 spatial sizes",
        lambda t: mg.conv_input_gradient(t["g"], t["w"], extents=(5,)),
    ),
    "a window that gives another g": (
        "conv_weight_gradient",
        "gradient cannot be",
        lambda t: mg.conv_weight_gradient(t["x"], t["g"], window=5),
    ),
    "groups in the weight's gradient": (
        "conv_weight_gradient",
        "do not divide into 4 groups",
        lambda t: mg.conv_weight_gradient(t["x"], t["g"], window=3, groups=4),
    ),
    **of_pool(mg.max_pool),
    **of_pool(mg.avg_pool),
    "integers of avg_pool": ("avg_pool", "needs floats", lambda t: mg.avg_pool(mg.cast(t["x"], "int32"), 2)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_an_error_that_names_the_node_and_the_line(name: str) -> None:
    op, message, call = WRONG[name]
    tensors = net_inputs()
    with tensors["x"].builder.scope("block"), pytest.raises(mg.GraphError, match=message) as error:
        call(tensors)
    text = str(error.value)
    assert text.startswith(f"{op} 'block.{op}': ")
    assert "input " in text
    assert users_line(error) in text.splitlines()[-1]


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("channels do not divide into 4 groups", lambda x: layers.conv2d(x, 8, 3, groups=4)),
        ("conv1d needs 3 axes", lambda x: layers.conv1d(x, 8, 3)),
        ("conv3d needs 5 axes", lambda x: layers.conv3d(x, 8, 3)),
        ("8 output channels do not divide into 3 groups", lambda x: layers.conv2d(x, 8, 3, groups=3)),
        ("does not fit", lambda x: layers.conv2d(x, 8, 7)),
        ("window is 1 or more", lambda x: layers.conv2d(x, 8, 0)),
        ("window has 3 numbers", lambda x: layers.conv2d(x, 8, (3, 3, 3))),
    ],
)
def test_layers_name_the_line_too(message: str, call: Callable[[mg.Tensor], mg.Tensor]) -> None:
    x = mg.Builder().input("x", ("N", 6, 5, 5))
    with pytest.raises(mg.GraphError, match=message) as error:
        call(x)
    assert users_line(error) in str(error.value)


def test_the_gradient_of_a_window_of_more_entries_than_int16_counts() -> None:
    net = mg.Builder()
    x = net.input("x", (1, 1, 200, 200))
    (g,) = mg.gradient(mg.sum(mg.adaptive_max_pool(x, 1)), [x])
    given = np.zeros((1, 1, 200, 200), np.float32)
    given[0, 0, 190, 7] = 1.0
    found = mg.compile(net.build(g=g), mg.State(), backend="numpy")(x=given)["g"]
    np.testing.assert_array_equal(found, given)
