"""Matrix products, convolutions and their gradients in CUDA C++, run on a CPU: right to a bound, in every tile.

Sums in float32 err by a rounding for each of their terms at most; what follows them is held as in test_c_ops.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest
import test_c_convolutions as convolutions
from c_programs import outcome
from cuda_on_cpu import Processor
from test_c_ops import hold

import minigraph as mg
from minigraph import layers
from minigraph.backends.cupy.claims import direct, tiles
from minigraph.backends.cupy.claims.tiles import ON_TENSOR_CORES, TILES, Division, Tile, divided
from minigraph.backends.cupy.device import Device
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.cupy.tuned import claim, laid_out
from minigraph.backends.lower import lower
from minigraph.core import scalar
from minigraph.core.builder import Builder, Tensor
from minigraph.core.dim import known
from minigraph.core.dtypes import NARROW
from minigraph.core.ir import Graph, Value
from minigraph.ops.constant import fill
from minigraph.ops.conv import conv, conv_input_gradient, conv_weight_gradient
from minigraph.ops.matmul import matmul as matrix_product
from minigraph.ops.matmul import swap
from minigraph.passes.mixed_precision import in_narrow
from minigraph.passes.tensor_float import in_tf32

compiles = pytest.mark.cxx


def shape_of(value: Value) -> list[int]:
    return [known(n, "a size") for n in value.type.shape]


def normal(graph: Graph) -> dict[str, np.ndarray]:
    """Numbers for a graph without symbols."""
    rng = np.random.default_rng(len(graph.inputs))
    given = (*graph.inputs, *(variable.value for variable in graph.state))
    return {value.name: rng.normal(size=shape_of(value)).astype(value.type.dtype) for value in given}


def products_of(graph: Graph) -> list[str]:
    """The products of a graph that tuned kernels do not serve, by the names of their nodes."""
    found = [node for node in graph.nodes if node.op.name == "matmul" or node.op.name.startswith("conv")]
    assert found
    return [node.name for node in found if claim(graph, node) is None]


def hold_twice(graph: Graph, device: Device) -> Executable:
    """Right, and the same to the bit whatever the memory held before."""
    arrays, executable = normal(graph), Executable(laid_out(lower(graph)), device)
    assert products_of(executable.graph) == []
    found = outcome(*executable.run({}, arrays))
    hold(graph, arrays, found)
    again = outcome(*executable.run({}, arrays))
    assert [array.tobytes() for array in again.values()] == [array.tobytes() for array in found.values()]
    return executable


# matrix products


def transposed(x: Tensor, y: Tensor) -> Tensor:
    """(K, M) and (N, K)."""
    return mg.transpose(x) @ mg.transpose(y)


def sliced(x: Tensor, y: Tensor) -> Tensor:
    """Every second column of x, and the rows of y from the last one on."""
    return x[:, 1::2] @ y[::-1]


def followed(x: Tensor, y: Tensor) -> Tensor:
    """A bias, a scale, a residual and a cut: all in one kernel."""
    (rows, _), (_, columns) = x.shape, y.shape
    given = lambda name, shape: x.builder.input(f"{x.value.name}.{name}", shape, x.value.type.dtype)
    bias, scale, residual = given("bias", (columns,)), given("scale", (columns,)), given("residual", (rows, columns))
    return mg.relu((x @ y + bias) * scale + residual)


Product = Callable[[Tensor, Tensor], Tensor]
matmul: Product = lambda x, y: x @ y
PRODUCTS: list[tuple[Product, tuple[int, ...], tuple[int, ...]]] = [
    (followed, (132, 36), (36, 68)),  # four numbers at a time, and the last tiles in part
    (followed, (33, 9), (9, 29)),
    (followed, (5, 703), (703, 6)),  # in chunks
    (transposed, (20, 33), (18, 20)),
    (transposed, (24, 36), (20, 24)),
    (sliced, (7, 11), (5, 6)),
]
IN_ONE_TILE: list[tuple[Product, tuple[int, ...], tuple[int, ...]]] = [
    (matmul, (1, 1), (1, 1)),
    (matmul, (1, 70), (70, 9)),
    (matmul, (9, 70), (70, 1)),
    (followed, (0, 3), (3, 4)),
    (followed, (3, 0), (0, 4)),
    (matmul, (2, 3, 5, 6), (3, 6, 7)),
    (matmul, (3, 1, 5, 8), (4, 8, 12)),
    (matmul, (2, 3, 5, 8), (8, 12)),  # one matrix of 30 rows
    (matmul, (5, 8), (3, 8, 4)),
    (matmul, (0, 5, 8), (8, 4)),
    (matmul, (1, 7, 700), (1, 700, 3)),
    (lambda x, y: swap(x) @ y, (2, 6, 5), (2, 6, 4)),
    (lambda x, y: mg.broadcast_to(x, (7, 9)) @ y, (7, 1), (9, 4)),
    (lambda x, y: mg.transpose(x, (1, 0, 2)) @ y, (4, 3, 8), (3, 8, 4)),
    (lambda x, y: mg.concat([x @ y, x @ y], axis=1), (6, 8), (8, 12)),
    (lambda x, y: mg.reshape(x @ y, (3, 14)) * 2.0, (6, 8), (8, 7)),
]


def of_all(products: list[tuple[Product, tuple[int, ...], tuple[int, ...]]], kind: str = "float32") -> Graph:
    """kind: the dtype of all inputs; or "tf32": factors of float32 that are rounded."""
    net = Builder("products")

    def given(name: str, shape: tuple[int, ...]) -> Tensor:
        return mg.tf32(net.input(name, shape)) if kind == "tf32" else net.input(name, shape, kind)

    return net.build({f"y{i}": how(given(f"a{i}", x), given(f"b{i}", y)) for i, (how, x, y) in enumerate(products)})


@compiles
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_products_in_every_tile(tile: Tile, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILES", (tile,))
    program = hold_twice(of_all(PRODUCTS), device).program({})
    assert len(program.plan.steps) == len(PRODUCTS)  # what follows is done in the same kernel
    assert str(tile) in program.source.text


@compiles
@pytest.mark.parametrize("tile", ON_TENSOR_CORES, ids=str)
def test_products_in_every_tile_on_tensor_cores(tile: Tile, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of float16, and of float32 that is rounded to TF32 as it is read: what is rounded lies nowhere."""
    monkeypatch.setattr(tiles, "ON_TENSOR_CORES", (tile,))
    for kind in ("float16", "tf32"):
        program = hold_twice(of_all(PRODUCTS, kind), device).program({})
        assert len(program.plan.steps) == len(PRODUCTS)
        assert str(tile) in program.source.text


@compiles
def test_products_in_tf32_of_any_shape(device: Device) -> None:
    program = hold_twice(of_all(IN_ONE_TILE, "tf32"), device).program({})
    assert "gemm<warps<" in program.source.text


@compiles
@pytest.mark.parametrize("kind", ["float16", "tf32"])
def test_products_on_gpus_without_tensor_cores(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same words, number by number."""
    monkeypatch.setattr(cuda_on_cpu, "FLAGS", [*cuda_on_cpu.FLAGS, "-D__CUDA_ARCH__=750"])
    for tile in ON_TENSOR_CORES[3:5]:
        monkeypatch.setattr(tiles, "ON_TENSOR_CORES", (tile,))
        hold_twice(of_all(PRODUCTS[:4], kind), Processor(tmp_path))


@compiles
def test_one_rounded_factor_is_not_enough(device: Device) -> None:
    """Such a product is one of float32, of a number that was rounded."""
    net = Builder("mixed")
    x, w = net.input("x", (20, 30)), net.input("w", (30, 10))
    program = hold_twice(net.build(a=mg.tf32(x) @ w, b=x @ mg.tf32(w), c=mg.tf32(x) @ mg.tf32(w)), device).program({})
    assert program.source.text.count("gemm<warps<") == 1
    assert program.source.text.count("gemm<tile<") == 1  # a and b are one kernel


@compiles
def test_views_of_rounded_factors(device: Device) -> None:
    """They are read where the numbers lie that were rounded."""
    net = Builder("views")
    x, w = net.input("x", (20, 33)), net.input("w", (18, 20))
    both = mg.transpose(mg.tf32(x))[1::2] @ mg.transpose(mg.tf32(w)[::-1])
    program = hold_twice(net.build(y=both), device).program({})
    assert len(program.plan.steps) == 1
    assert "gemm<warps<" in program.source.text


@compiles
def test_products_of_any_shape(device: Device) -> None:
    hold_twice(of_all(IN_ONE_TILE), device)


@compiles
@pytest.mark.parametrize("dtype", NARROW)
def test_products_of_narrow_floats(dtype: str, device: Device) -> None:
    """Added up in float32, and rounded once."""
    program = hold_twice(of_all([*PRODUCTS, *IN_ONE_TILE[5:7]], dtype), device).program({})
    assert "gemm<" in program.source.text


@compiles
def test_what_follows_a_product_along_any_axes(device: Device) -> None:
    """A number for each row of many matrices: rows lie along several axes, one behind the other."""
    net = Builder("followed")
    x, w = net.input("x", (3, 2)), net.input("w", (3, 2, 2, 2))
    (each_row,) = net.emit(fill, (), {"value": 0.5, "shape": (3, 1), "dtype": "float32"})
    hold_twice(net.build(y=mg.square(x @ w + each_row)), device)


@compiles
def test_gradients_of_a_dense_layer(device: Device) -> None:
    net = Builder("layer")
    x, w, b = net.input("x", (9, 20)), net.input("w", (20, 12)), net.input("b", (12,))
    y = mg.sum(mg.square(mg.relu(x @ w + b)))
    hold_twice(net.build(dict(zip(("y", "to_x", "to_w", "to_b"), (y, *mg.gradient(y, [x, w, b]))))), device)


# convolutions

KINDS: dict[str, Any] = {
    **convolutions.KINDS,
    "one channel": (1, 5, (9, 8), (3, 3), {"padding": 1}),
    "one result": (6, 1, (9, 8), (3, 3), {"padding": 1, "stride": 2}),
    "stride 3, window 2": (4, 8, (10, 11), (2, 2), {"stride": 3}),
    "stride 4, dilation 6": (4, 4, (21, 9), (3, 1), {"stride": (4, 1), "dilation": (6, 1), "padding": (5, 0)}),
    "depthwise, long": (5, 5, (50,), (37,), {"padding": 18, "groups": 5}),
    "depthwise, many places": (4, 4, (40, 30), (3, 3), {"padding": 1, "groups": 4}),
}
DAILY = {"3x3", "7x7, stride 2", "3-D, stride 2", "1-D, causal", "large groups", "groups, 1x1", "groups of 3 and 5"}
DAILY |= {"depthwise, stride 2", "depthwise, long", "depthwise, many places", "stride 4, dilation 6"}
BATCH = 3
SOME = [pytest.param(kind, marks=() if kind in DAILY else pytest.mark.nightly) for kind in KINDS]


@pytest.fixture
def all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "KINDS", KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("all_kinds")
def test_tuned_kernels_serve_convolutions(kind: str) -> None:
    after = laid_out(lower(convolutions.graph_of(kind))).bind(N=BATCH)
    assert products_of(after) == []


@compiles
@pytest.mark.parametrize("kind", SOME)
@pytest.mark.usefixtures("all_kinds")
def test_convolutions(kind: str, device: Device) -> None:
    graph = convolutions.graph_of(kind)
    program = Executable(laid_out(lower(graph)), device)
    for batch in (BATCH, 0):
        arrays = convolutions.numbers(graph, batch)
        found = program.run({"N": batch}, arrays)[0]
        convolutions.hold(graph, arrays, found, 0)
        again = program.run({"N": batch}, arrays)[0]
        assert all(again[name].tobytes() == array.tobytes() for name, array in found.items())


@compiles
@pytest.mark.parametrize("kind", SOME)
@pytest.mark.usefixtures("all_kinds")
def test_convolutions_in_tf32(kind: str, device: Device) -> None:
    """As exact as in float32, of the rounded numbers: the product of two has 22 bits."""
    graph = in_tf32(convolutions.graph_of(kind))
    program, arrays = Executable(laid_out(lower(graph)), device), convolutions.numbers(graph, BATCH)
    found = program.run({"N": BATCH}, arrays)[0]
    convolutions.hold(graph, {name: scalar.tf32(array) for name, array in arrays.items()}, found, 0)
    again = program.run({"N": BATCH}, arrays)[0]
    assert all(again[name].tobytes() == array.tobytes() for name, array in found.items())
    made = {value for step in program.program({"N": BATCH}).plan.steps for value in step.writes}
    assert not [node.name for node in program.graph.nodes if node.op is mg.tf32 and made & set(node.outputs)]


@compiles
@pytest.mark.parametrize("kind", ["3x3", "groups of 3 and 5", "3-D, stride 2"])
@pytest.mark.usefixtures("all_kinds")
def test_convolutions_in_one_chunk(kind: str, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there are many results: the kernel that multiplies finishes itself."""
    monkeypatch.setattr(tiles, "MOST_CHUNKS", 1)
    monkeypatch.setattr(direct, "MOST_CHUNKS", 1)
    graph = convolutions.graph_of(kind)
    arrays, program = convolutions.numbers(graph, BATCH), Executable(laid_out(lower(graph)), device)
    convolutions.hold(graph, arrays, program.run({"N": BATCH}, arrays)[0], 0)
    assert "add_chunks" not in program.program({"N": BATCH}).source.text


@compiles
@pytest.mark.parametrize("groups", [1, 2, 10], ids=["one group", "few channels", "depthwise"])
def test_what_follows_a_convolution_is_done_by_its_kernel(groups: int, device: Device) -> None:
    net = Builder("block")
    x, w = net.input("x", (2, 9, 8, 10)), net.input("w", (20 if groups < 10 else 10, 10 // groups, 3, 3))
    y = conv(x, w, padding=1, groups=groups, layout="NHWC")
    scale, shift = (net.input(name, y.shape[-1:]) for name in ("scale", "shift"))
    h = mg.relu(y * scale + shift + net.input("residual", y.shape))
    program = hold_twice(net.build({"h": h, "y": y}), device).program({})
    assert len(program.plan.steps) == 1


@compiles
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("groups", [1, 4, 8], ids=["one group", "few channels", "depthwise"])
def test_convolutions_of_narrow_floats(groups: int, dtype: str, device: Device) -> None:
    net, attrs = Builder("half"), {"padding": 1, "stride": 2, "groups": groups, "layout": "NHWC"}
    given = lambda name, shape: net.input(name, shape, dtype)
    x, w = given("x", (2, 9, 8, 8)), given("w", (24, 8 // groups, 3, 3))
    y = mg.relu(conv(x, w, **attrs))
    g = given("g", y.shape)
    to_x, to_w = conv_input_gradient(g, w, extents=(9, 8), **attrs), conv_weight_gradient(x, g, window=(3, 3), **attrs)
    alone = conv(x, given("v", (5, 8, 1, 1)), layout="NHWC")
    hold_twice(net.build(y=y, to_x=to_x, to_w=to_w, alone=alone), device)


@compiles
@pytest.mark.parametrize("kind", ["3x3", "7x7, stride 2", "3-D, stride 2", "1-D, causal", "large groups"])
@pytest.mark.usefixtures("all_kinds")
def test_convolutions_of_each_kind_in_half_precision(kind: str, device: Device) -> None:
    graph = in_narrow(convolutions.graph_of(kind), "float16").bind(N=BATCH)
    assert "<warps<" in hold_twice(graph, device).program({}).source.text


@compiles
@pytest.mark.parametrize("groups", [1, 4], ids=["one group", "few channels"])
@pytest.mark.parametrize("which", ["w", "g", "x"])
@pytest.mark.parametrize("worst", [np.inf, np.nan])
def test_padding_is_zeros_in_x_and_nowhere_in_g(worst: float, which: str, groups: int, device: Device) -> None:
    """One number is infinite: times zeros around an image it is NaN, and what is not there is not multiplied."""
    net, rng = Builder("infinite"), np.random.default_rng(0)
    shapes = [
        ((2, 7, 6, 8), 3, 1, 1, 1),
        ((1, 9, 8, 8), 3, 2, 1, 1),
        ((2, 6, 6, 8), 1, 2, 1, 1),
        ((1, 9, 9, 8), 3, 1, 2, 2),
    ]
    arrays: dict[str, np.ndarray] = {}

    def given(name: str, shape: Any) -> Tensor:
        arrays[name] = rng.normal(size=shape).astype("float32")
        if name.startswith(which):
            arrays[name].flat[arrays[name].size // 2] = worst
        return net.input(name, shape)

    outputs = {}
    for i, (shape, window, stride, padding, dilation) in enumerate(shapes):
        geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "layout": "NHWC"}
        x, w = given(f"x{i}", shape), given(f"w{i}", (12, 8 // groups, window, window))
        y = conv(x, w, **geometry)
        g = given(f"g{i}", y.shape)
        to_x = conv_input_gradient(g, w, extents=shape[1:3], **geometry)
        to_w = conv_weight_gradient(x, g, window=(window, window), **geometry)
        outputs.update({f"y{i}": y, f"to_x{i}": to_x, f"to_w{i}": to_w})
    graph = net.build(outputs)
    found, _ = Executable(lower(graph), device).run({}, arrays)
    with np.errstate(invalid="ignore"):
        right = mg.compile(graph, mg.State(), "numpy")(**arrays)
    wrong = {name: np.flatnonzero(np.isnan(found[name]) != np.isnan(right[name])).size for name in right}
    assert wrong == dict.fromkeys(right, 0)
    assert any(0 < np.isfinite(array).sum() < array.size for array in right.values())
    for name in right:
        np.testing.assert_allclose(found[name], right[name], rtol=1e-4, atol=1e-4, err_msg=name)


@compiles
def test_images_are_read_where_they_lie(device: Device) -> None:
    """Of few channels, channels first, and a part of them; so are weights that are turned around."""
    net = Builder("views")
    x, w = net.input("x", (2, 5, 12, 11)), net.input("w", (3, 6, 3, 2))
    turned = mg.transpose(w, (1, 0, 2, 3))[:, :, ::-1]
    part = mg.transpose(x, (0, 2, 3, 1))[:, 1:, ::2, 1:4]
    y = conv(part, turned, layout="NHWC", stride=2)
    to_w = conv_weight_gradient(part, mg.transpose(net.input("g", (2, 6, 5, 2)), (0, 2, 3, 1)), window=(3, 4),
                                layout="NHWC", stride=2)  # fmt: skip
    flipped = mg.transpose(net.input("v", (2, 3, 3, 6)), (3, 2, 0, 1))  # taps that lie apart
    z = conv(part, flipped, layout="NHWC")
    program = hold_twice(net.build(y=y, to_w=to_w, z=z), device).program({})
    copied = [step.title for step in program.plan.steps if step.region is not None and step.region.call is None]
    assert len(copied) == 2  # g, and the weight whose taps lie apart


@compiles
def test_a_step_of_a_network(device: Device) -> None:
    """Trained for one step: batch norm, a residual, groups, strides and a dense layer, in the layout of the kernels."""
    net = Builder("net")
    x, label = net.input("x", (4, 3, 9, 10)), net.input("label", (4,), "int64")
    h = mg.relu(layers.batch_norm(layers.conv2d(x, 12, 3, padding=1, bias=False)))
    h = mg.relu(layers.batch_norm(layers.conv2d(h, 12, 3, padding=1, groups=12, bias=False)) + h)
    h = mg.relu(layers.conv2d(h, 17, 3, stride=2))
    logits = layers.linear(mg.mean(h, (2, 3)), 5)
    model = net.build(loss=mg.cross_entropy(logits, label))
    graph = mg.training_step(model, loss="loss", optimizer=mg.optim.SGD(0.1, momentum=0.9))
    arrays = {name: np.asarray(array) for name, array in graph.init(0).items()}
    rng = np.random.default_rng(0)
    arrays.update(x=rng.normal(size=(4, 3, 9, 10)).astype("float32"), label=rng.integers(0, 5, 4))
    after = laid_out(lower(graph))
    assert products_of(after) == []
    hold(graph, arrays, outcome(*Executable(after, device).run({}, arrays)))


# which nodes, and how they are divided


def test_what_no_tuned_kernel_serves() -> None:
    """Double precision, channels first, and more numbers than 32 bits count."""
    net = Builder("others")
    mg.matmul(net.input("a", (3, 4), "float64"), net.input("b", (4, 5), "float64"))
    mg.matmul(net.input("large", (1 << 20, 1 << 11)), net.input("small", (1 << 11, 2)))
    mg.matmul(net.input("larger", (1 << 20, 1 << 12))[:2], net.input("smaller", (1 << 12, 2)))
    conv(net.input("x", (2, 3, 5, 5)), net.input("w", (4, 3, 3, 3)))
    graph = replace(of_all([]), nodes=tuple(net.nodes))
    made = [node for node in graph.nodes if node.op in (matrix_product, conv)]
    assert [claim(graph, node) for node in made] == [None] * 4


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_tiles_fit(tile: Tile) -> None:
    """Into a block's threads and its shared memory, and into warps that are as wide as the kernel takes them."""
    wide, high = tile.columns // tile.own_columns, tile.rows // tile.own_rows
    warp = min(8, wide)
    assert tile.threads == 256
    assert wide % warp == 0
    assert high % (32 // warp) == 0
    assert 2 * 4 * tile.depth * (tile.rows + tile.columns + 8) <= 48 << 10


@pytest.mark.parametrize("tile", ON_TENSOR_CORES, ids=str)
def test_tiles_on_tensor_cores_fit(tile: Tile) -> None:
    """Into a block's threads and its shared memory; a warp's rows and columns are whole fragments."""
    assert tile.threads == 256
    assert (tile.own_rows % 16, tile.own_columns % 8, tile.depth % 8) == (0, 0, 0)
    assert (tile.rows % tile.own_rows, tile.columns % tile.own_columns) == (0, 0)
    words = sum(tile.depth * (lines + 8) + tile.depth * 2 for lines in (tile.rows, tile.columns))
    assert 2 * 4 * words <= 48 << 10
    assert 4 * tile.rows // tile.own_rows * 16 * (tile.columns + 8) <= 48 << 10  # what it puts at a time


@pytest.mark.parametrize("rows", [1, 64, 5000])
@pytest.mark.parametrize("columns", [1, 100, 3000])
@pytest.mark.parametrize("terms", [0, 1, 63, 1000, 200_000])
@pytest.mark.parametrize(("kind", "per_word"), [("float", 1), ("tf32", 1), ("half", 2)])
def test_chunks_have_all_terms(kind: str, per_word: int, rows: int, columns: int, terms: int) -> None:
    division = divided(rows, columns, terms, 3, 3 * rows * columns, kind)
    assert (division.chunks - 1) * division.per_chunk < max(1, terms) <= division.chunks * division.per_chunk
    assert division.per_chunk % (division.tile.depth * per_word) == 0
    assert (division.tile in ON_TENSOR_CORES) == (kind != "float")
    assert division.scratch == (3 * rows * columns * division.chunks if division.chunks > 1 else 0)


def test_terms_are_divided_where_results_are_few() -> None:
    of = partial(divided, products=1)
    few: Division = of(64, 576, 400_000, results=64 * 576)
    assert few.blocks > 200
    assert few.chunks > 10
    many: Division = of(4096, 4096, 4096, results=4096 * 4096)
    assert (many.chunks, str(many.tile)) == (1, "tile<128, 128, 8, 8, 8>")
    assert of(100_000, 16, 144, results=1_600_000).tile.columns == 16
    assert str(of(4096, 4096, 4096, results=4096 * 4096, kind="half").tile) == "warps<128, 128, 16, 64, 32>"
