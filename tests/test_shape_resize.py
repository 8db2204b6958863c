"""Functions that move numbers, against NumPy; indexing; sizes known only at run time; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from independent.resize import LOOPS
from minigraph.core import proof
from minigraph.core.op import Sample
from minigraph.ops.constant import fill
from minigraph.ops.resize import depth_to_space, resize, space_to_depth
from minigraph.ops.shape import expand_dims, flip, moveaxis, slice_axis, split, squeeze, stack, swapaxes
from minigraph.ops.tile import repeat, tile
from onnx_ops import Model

GIVEN = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)


def build(function: Callable[[Any], Any], shape: Any = (2, 3, 4), dtype: str = "float32") -> mg.Graph:
    """The graph of a function of x; a tuple gives outputs y0, y1, ..."""
    builder = mg.Builder()
    result = function(builder.input("x", shape, dtype))
    results = result if isinstance(result, tuple) else (result,)
    return builder.build({f"y{i}": y for i, y in enumerate(results)})


def run(function: Callable[[Any], Any], x: np.ndarray, shape: Any = None) -> list[np.ndarray]:
    graph = build(function, x.shape if shape is None else shape)
    return list(mg.compile(graph, mg.State(), backend="numpy")(x=x).values())


def same(function: Callable[[Any], Any], expected: Any, x: np.ndarray = GIVEN, shape: Any = None) -> None:
    """To the last bit: numbers are moved. Declared shapes hold, too: the program checks them."""
    found = run(function, x, shape)
    wanted = expected if isinstance(expected, (list, tuple)) else [expected]
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "key",
    [
        np.s_[::-1],
        np.s_[..., ::-1],
        np.s_[:, None],
        np.s_[None],
        np.s_[...],
        np.s_[None, ..., None],
        np.s_[0, ..., -1],
        np.s_[..., 1, None, ::-2],
        np.s_[1:0:-1, ::-2, -2::-1],
        np.s_[-1, ::-1, 99:-99:-3],
        np.s_[0, 1, 2],
        np.s_[0, 1, 2, ...],
        np.s_[..., 1:1],
        np.s_[:0:-1, 0:2:-1],
    ],
)
def test_indexing_is_numpys(key: Any) -> None:
    same(lambda x: x[key], np.asarray(GIVEN[key]))


@pytest.mark.parametrize("key", [(0, 0, 0, 0), (..., 0, ...), 5, -3, True, "a", 0.5, [0], np.s_[:, ::0]])
def test_indexing_by_anything_else_is_refused(key: Any) -> None:
    with pytest.raises(mg.GraphError):
        build(lambda x: x[key])


@pytest.mark.parametrize("size", [0, 1, 2, 5])
@pytest.mark.parametrize("key", [np.s_[::-1], np.s_[3::-1], np.s_[:0:-1], np.s_[:2:-1], np.s_[4:1:-1], np.s_[4:1:-2]])
def test_backwards_along_an_axis_known_only_at_run_time_is_pythons(key: Any, size: int) -> None:
    given = np.arange(size, dtype=np.float32)
    same(lambda x: x[key], given[key], given, ("N",))


@pytest.mark.parametrize("key", [np.s_[::-1], np.s_[3::-1], np.s_[:0:-1], np.s_[:2:-1], np.s_[4:1:-2]])
def test_its_gradient_puts_everything_back(key: Any) -> None:
    given = np.arange(5, dtype=np.float32)
    expected = np.zeros_like(given)
    expected[key] = 2 * given[key]
    same(lambda x: mg.gradient(mg.sum(x[key] * x[key]), [x])[0], expected, given, ("N",))


@pytest.mark.parametrize("size", [2, 6])
def test_every_other_one_backwards_of_an_even_size(size: int) -> None:
    given = np.arange(size, dtype=np.float32)
    same(lambda x: x[::-2], given[::-2], given, ("2*N",))
    with pytest.raises(mg.GraphError, match="not a polynomial"):
        build(lambda x: x[::-2], ("N",))


@pytest.mark.parametrize("key", [np.s_[-3::-1], np.s_[:-3:-1]])
def test_what_would_be_read_otherwise_for_small_sizes_is_refused(key: Any) -> None:
    """With N = 2, Python's x[-3::-1] is empty and its x[:-3:-1] everything."""
    with pytest.raises(mg.GraphError, match="counted from its beginning"):
        build(lambda x: x[key], ("N",))


def test_reversed_axes_of_unknown_size_print_and_read_back() -> None:
    builder = mg.Builder()
    x = builder.input("x", ("N", "2*M"))
    y = x[::-1, ::-2]
    dx = mg.gradient(mg.sum(y * y * y), [x])[0]
    graph = builder.build(y=y, dx=dx, ddx=mg.gradient(mg.sum(dx), [x])[0])
    assert str(mg.parse(str(graph))) == str(graph)
    assert [v.type.shape for v in graph.bind(N=3, M=2).outputs.values()] == [(3, 2), (3, 4), (3, 4)]
    given = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = np.zeros_like(given)
    expected[:, 1::2] = 6 * given[:, 1::2]
    np.testing.assert_array_equal(mg.compile(graph, mg.State(), backend="numpy")(x=given)["ddx"], expected)


FUNCTIONS: list[tuple[Callable[[Any], Any], Callable[[np.ndarray], Any]]] = [
    (lambda x: expand_dims(x, 0), lambda a: a[None]),
    (lambda x: expand_dims(x, (-1, 1)), lambda a: np.expand_dims(a, (-1, 1))),
    (lambda x: squeeze(expand_dims(x, (0, 2))), lambda a: a),
    (lambda x: squeeze(expand_dims(x, (0, 2)), -3), lambda a: a[None]),
    (lambda x: stack([x, x * 2.0]), lambda a: np.stack([a, a * 2])),
    (lambda x: stack((x, x, x), axis=-1), lambda a: np.stack([a, a, a], -1)),
    (lambda x: stack([x], axis=1), lambda a: np.stack([a], 1)),
    (lambda x: split(x, 2, axis=-1), lambda a: np.split(a, 2, -1)),
    (lambda x: split(x, (1, 0, 2), axis=1), lambda a: np.split(a, (1, 1), 1)),
    (lambda x: split(x, [1, -1], axis=2), lambda a: np.split(a, (1,), 2)),
    (flip, np.flip),
    (lambda x: flip(x, 1), lambda a: np.flip(a, 1)),
    (lambda x: flip(x, (0, -1)), lambda a: np.flip(a, (0, -1))),
    (lambda x: moveaxis(x, 0, -1), lambda a: np.moveaxis(a, 0, -1)),
    (lambda x: moveaxis(x, (0, 2), (1, 0)), lambda a: np.moveaxis(a, (0, 2), (1, 0))),
    (lambda x: swapaxes(x, 0, -1), lambda a: np.swapaxes(a, 0, -1)),
    (lambda x: swapaxes(x, 1, 1), lambda a: a),
    (lambda x: slice_axis(x, 1, -1, None, -1), lambda a: a[:, -1::-1]),
    (lambda x: tile(x, 2), lambda a: np.tile(a, 2)),
    (lambda x: tile(x, (2, 1, 3)), lambda a: np.tile(a, (2, 1, 3))),
    (lambda x: tile(x, (3, 1, 1, 2)), lambda a: np.tile(a, (3, 1, 1, 2))),
    (lambda x: tile(x, (0, 1, 1)), lambda a: np.tile(a, (0, 1, 1))),
    (lambda x: tile(x, ()), lambda a: a),
    (lambda x: repeat(x, 3, 1), lambda a: np.repeat(a, 3, 1)),
    (lambda x: repeat(x, 0, -1), lambda a: np.repeat(a, 0, -1)),
    (lambda x: repeat(x, 1, 0), lambda a: a),
]


@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
def test_functions_are_numpys_also_on_symbols_and_with_a_proved_gradient(number: int) -> None:
    ours, numpys = FUNCTIONS[number]
    expected = numpys(GIVEN)
    same(ours, list(expected) if isinstance(expected, (list, tuple)) else expected)
    same(ours, list(expected) if isinstance(expected, (list, tuple)) else expected, shape=("N", 3, 4))
    proof.prove_gradient(build(ours, dtype="float64"), {"x": Sample((2, 3, 4))})


def test_functions_on_empty_batches_and_bools() -> None:
    empty = np.zeros((0, 3, 4), np.float32)
    for ours, numpys in FUNCTIONS:
        expected = numpys(empty)
        same(ours, list(expected) if isinstance(expected, (list, tuple)) else expected, empty)
    builder = mg.Builder()
    x = builder.input("x", (2, 3), "bool")
    graph = builder.build(y=tile(flip(stack([x, x], 1), 2), (1, 1, 2)))
    given = np.array([[True, False, False], [False, True, True]])
    found = mg.compile(graph, mg.State(), backend="numpy")(x=given)["y"]
    np.testing.assert_array_equal(found, np.tile(np.stack([given, given], 1)[:, :, ::-1], 2))


def test_split_of_a_size_known_only_at_run_time() -> None:
    given = np.arange(6, dtype=np.float32)
    same(lambda x: split(x, 2), np.split(given, 2), given, ("2*N",))
    same(lambda x: split(x, (1, -1, 2)), np.split(given, (1, 4)), given, ("N",))
    same(lambda x: split(x, ("N", "2*N")), np.split(given, (2,)), given, ("3*N",))
    with pytest.raises(mg.GraphError, match="does not divide into 2"):
        build(lambda x: split(x, 2), ("N",))


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: squeeze(x, 1), "has size 3"),
        (lambda x: squeeze(x, 3), "no axis 3"),
        (lambda x: expand_dims(x, (0, 0)), "named twice"),
        (lambda x: expand_dims(x, 4), "no axis 4"),
        (lambda x: stack([]), "at least one"),
        (lambda x: stack([x, x[0]]), "one shape"),
        (lambda x: stack(x), "takes tensors"),
        (lambda x: split(x, 2, axis=1), "does not divide"),
        (lambda x: split(x, 0), "1 or more"),
        (lambda x: split(x, (1, 2)), "do not add up"),
        (lambda x: split(x, (-1, -1)), "do not add up"),
        (lambda x: split(x, (3, -1)), "do not add up"),
        (lambda x: flip(x, (1, -2)), "named twice"),
        (lambda x: moveaxis(x, (0, 1), 2), "cannot go"),
        (lambda x: moveaxis(x, (0, 0), (1, 2)), "cannot go"),
        (lambda x: swapaxes(x, 0, 3), "no axis 3"),
        (lambda x: tile(x, -1), "0 or more"),
        (lambda x: tile(x, (1, 1.5, 1)), "whole numbers"),
        (lambda x: repeat(x, True, 0), "whole numbers"),
        (lambda x: mg.pad(x, ((0, 0),) * 3, mode="mirror"), "one of constant, edge"),
        (lambda x: mg.pad(x, ((-1, 0),) * 3, mode="edge"), "0 or more in mode 'edge'"),
        (lambda x: mg.pad(x, ((1.5, 0),) * 3), "whole number"),
        (lambda x: mg.pad(x, ((-2, -2), (0, 0), (0, 0))), "negative size"),
        (lambda x: mg.pad(x[:0], ((1, 0), (0, 0), (0, 0)), mode="wrap"), "nothing to pad"),
    ],
)
def test_what_does_not_fit_is_said(function: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(mg.GraphError, match=says):
        build(function)


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
def test_padding_an_axis_known_only_at_run_time(mode: Any) -> None:
    given = np.arange(4, dtype=np.float32)
    same(lambda x: mg.pad(x, ((2, 3),), mode=mode), np.pad(given, (2, 3), mode=mode), given, ("N",))
    with pytest.raises(mg.GraphError, match="nothing to pad"):
        run(lambda x: mg.pad(x, ((2, 3),), mode=mode), given[:0], ("N",))


# channels into space and back

BLOCKS = np.arange(2 * 8 * 3 * 5, dtype=np.float32).reshape(2, 8, 3, 5)


@pytest.mark.parametrize("shape", [None, ("N", 8, "H", "W"), (2, "4*C", 3, 5)])
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_is_onnxs_in_both_layouts(mode: Any, shape: Any) -> None:
    model = Model([BLOCKS])
    expected = model.run([model.add("DepthToSpace", "x0", blocksize=2, mode=mode)])[0]
    same(lambda x: depth_to_space(x, 2, mode), expected, BLOCKS, shape)
    last = None if shape is None else (shape[0], *shape[2:], shape[1])
    channels_last = BLOCKS.transpose(0, 2, 3, 1)
    same(lambda x: depth_to_space(x, 2, mode, layout="NHWC"), expected.transpose(0, 2, 3, 1), channels_last, last)


def test_space_to_depth_is_onnxs() -> None:
    given = BLOCKS.reshape(2, 4, 6, 5)[:, :, :, :4].copy()
    model = Model([given])
    expected = model.run([model.add("SpaceToDepth", "x0", blocksize=2)])[0]
    same(lambda x: space_to_depth(x, 2), expected, given)
    same(lambda x: space_to_depth(x, 2), expected, given, ("N", 4, "2*H", "2*W"))
    last = given.transpose(0, 2, 3, 1)
    same(lambda x: space_to_depth(x, 2, layout="NHWC"), expected.transpose(0, 2, 3, 1), last)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, 4), "NCL"),
        ((2, 4, 3), "NLC"),
        ((0, 1, 2, 4), None),
        ((1, 2, 2, 4, 2), "NCDHW"),
        ((1, 4, 2, 2, 3), "NDHWC"),
    ],
)
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_they_are_each_others_inverse_and_gradient(shape: Any, layout: Any, mode: Any) -> None:
    given = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    there_and_back = lambda x: depth_to_space(space_to_depth(x, 2, mode, layout), 2, mode, layout)
    same(there_and_back, given, given)
    proof.prove_gradient(build(lambda x: space_to_depth(x, 2, mode, layout), shape, "float64"), {"x": Sample(shape)})


# resize


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("shape", "attrs"),
    [
        (("N", 2, "H", 4), {"scales": (2, 1.5)}),
        (("N", 2, "3*H", "2*W"), {"scales": (1, 0.5)}),
        (("N", 2, "H", "W"), {"sizes": (5, 1)}),
        (("N", 2, "H", "W"), {"sizes": ("2*H", "W+1")}),
    ],
)
def test_resize_of_sizes_known_only_at_run_time(shape: Any, attrs: Any, mode: Any) -> None:
    """In float64, where both round to the last of 53 bits a few times: 1e-14 of numbers of about 1."""
    given = np.random.default_rng(0).normal(size=(2, 2, 3, 4))
    builder = mg.Builder()
    x = builder.input("x", shape, "float64")
    y = resize(x, mode=mode, **attrs)
    graph = builder.build(y=y, dx=mg.gradient(mg.sum(y * y), [x])[0])
    assert str(mg.parse(str(graph))) == str(graph)
    found = mg.compile(graph, mg.State(), backend="numpy")(x=given)
    known = {"sizes": (6, 5)} if "sizes" in attrs and attrs["sizes"][0] == "2*H" else attrs
    expected = LOOPS["resize"](given, mode=mode, **known)
    np.testing.assert_allclose(found["y"], expected, rtol=0, atol=1e-14)
    wanted = LOOPS["resize_gradient"](2 * expected, extents=(3, 4), mode=mode, **known)
    np.testing.assert_allclose(found["dx"], wanted, rtol=0, atol=1e-13)


def test_no_rounding_error_chooses_a_neighbour() -> None:
    """0.7 of 10 are 7. And "ceil" of i * n / m is computed in integers here: floats a little too large would go on."""
    line = np.arange(10, dtype=np.float32).reshape(1, 1, 10)
    assert build(lambda x: resize(x, scales=0.7), (1, 1, 10)).outputs["y0"].type.shape == (1, 1, 7)
    for n, m in ((10, 7), (3, 49), (7, 9), (10, 100)):
        attrs = {"sizes": m, "coordinate_transformation": "asymmetric", "nearest_mode": "ceil"}
        wanted = [min(-(-i * n // m), n - 1) for i in range(m)]
        same(lambda x: resize(x, **attrs), line[..., wanted], line[..., :n])  # noqa: B023


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: resize(x), "sizes, or scales"),
        (lambda x: resize(x, 4, scales=2), "not both"),
        (lambda x: resize(x, (4, 4)), "2 numbers for 1 spatial axes"),
        (lambda x: resize(x, 0), "1 or more"),
        (lambda x: resize(x, scales=0.1), "leave nothing"),
        (lambda x: resize(x, scales=-1), "above 0"),
        (lambda x: resize(x, scales=float("nan")), "above 0"),
        (lambda x: resize(x, scales="2"), "above 0"),
        (lambda x: resize(x, 4, mode="cubic"), '"nearest" or "linear"'),
        (lambda x: resize(x, 4, coordinate_transformation="corners"), "is half_pixel, "),
        (lambda x: resize(x, 4, nearest_mode="up"), "is round_prefer_floor, "),
        (lambda x: resize(x, 4, layout="NHWC"), "layout of"),
        (lambda x: resize(mg.cast(x, "int32"), 4, mode="linear"), "interpolates floats"),
        (lambda x: resize(x[:, :, :0], 4), "nothing to look at"),
        (lambda x: depth_to_space(x, 2), "axis 1 of .* is not a multiple of 2"),
        (lambda x: space_to_depth(x, 3), "axis 2 of .* is not a multiple of 3"),
        (lambda x: space_to_depth(x, 0), "1 or more"),
        (lambda x: depth_to_space(x, 3, mode="RCD"), '"DCR" or "CRD"'),
    ],
)
def test_what_resizing_cannot_do_is_said(function: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(mg.GraphError, match=says):
        build(function)


def test_a_fraction_of_an_unknown_size_is_refused() -> None:
    with pytest.raises(mg.GraphError, match="not a polynomial"):
        build(lambda x: resize(x, scales=0.5), ("N", 1, "H"))


LAYER: dict[str, Any] = {"window": 1, "bias": False}
WHOLE: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {
    "padding": (lambda x, n: mg.max_pool(x, 2, padding=n), 1),
    "padding in pairs": (lambda x, n: mg.max_pool(x, 2, padding=((n, n),)), 1),
    "window": (mg.max_pool, 2),
    "places of a pool": (mg.adaptive_avg_pool, 2),
    "p of a pool": (lambda x, n: mg.lp_pool(x, 2, p=n), 2),
    "groups of a convolution": (lambda x, n: mg.layers.conv1d(x, 6, groups=n, **LAYER), 3),
    "channels of a convolution": (lambda x, n: mg.layers.conv1d(x, n, **LAYER), 2),
    "groups of a transposed convolution": (lambda x, n: mg.layers.conv_transpose1d(x, 6, groups=n, **LAYER), 3),
    "groups of group_norm": (lambda x, n: mg.layers.group_norm(x, n), 3),
    "size of local_response_norm": (mg.local_response_norm, 2),
    "features": (lambda x, n: mg.layers.linear(x, n, bias=False), 2),
    "one axis": (lambda x, n: mg.sum(x, axes=n), 1),
    "correction": (lambda x, n: mg.var(x, correction=n), 1),
    "repeats": (tile, 2),
    "parts": (lambda x, n: split(x, n, axis=2), 2),
    "widths": (lambda x, n: mg.pad(x, ((0, 0), (0, 0), (n, n))), 1),
    "block": (depth_to_space, 3),
    "k": (mg.topk, 2),
    "batch": (lambda x, n: mg.gather(x, x.builder.constant(np.zeros((2, 2), np.int64)), 1, batch=n), 1),
    "classes": (lambda x, n: mg.one_hot(mg.cast(x, "int64"), n), 3),
    "a bound": (lambda x, n: mg.clip(mg.cast(x, "int64"), n), 1),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_are_those_of_python_and_numpy(name: str) -> None:
    """One rule for all attributes that count: NumPy's integers are numbers, and truths and fractions are not."""
    function, n = WHOLE[name]
    shape = (2, 6, 4) if name != "groups of a transposed convolution" else (2, 3, 4)
    assert str(build(lambda x: function(x, np.int64(n)), shape)) == str(build(lambda x: function(x, n), shape))
    for wrong in (True, n + 0.5, "1"):
        with pytest.raises(mg.GraphError) as caught:
            build(lambda x, wrong=wrong: function(x, wrong), shape)  # type: ignore[misc]
        assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "value", "says"),
    [
        ("uint8", 2.7, "2.7 is not a number of dtype uint8"),
        ("uint8", 300, "300 is not a number of dtype uint8"),
        ("bool", 5, "5 is not a number of dtype bool"),
        ("float16", 1e6, "1000000.0 is too large for float16"),
        ("bfloat16", 3.4e38, "3.4e\\+38 is too large for bfloat16"),
        ("float16", 1e-9, "1e-09 is too small for float16"),
        ("float32", "x", "'x' is not a number of dtype float32"),
    ],
)
def test_what_pads_and_fills_is_a_number_of_the_dtype(dtype: str, value: Any, says: str) -> None:
    attrs = {"value": value, "dtype": dtype}
    for function in (lambda x: mg.pad(x, ((1, 0),), value), lambda x: x.builder.emit(fill, (), attrs)):
        with pytest.raises(mg.GraphError, match=says):
            build(function, (3,), dtype)
