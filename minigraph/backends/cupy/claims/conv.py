"""Convolutions and their gradients as products in tiles; direct.py has those in groups of few channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minigraph.backends.calls import Operand, Pointers
from minigraph.backends.cupy.claims import direct
from minigraph.backends.cupy.claims.factors import Factors, factors
from minigraph.backends.cupy.claims.geometry import (
    Geometry,
    deep,
    fours,
    geometry,
    images,
    weight_distances,
    weights,
)
from minigraph.backends.cupy.claims.launched import Launched, in_fours, numbers, reading, struct
from minigraph.backends.cupy.claims.tiles import Division, divided
from minigraph.backends.cupy.grid import Grid, grid_of
from minigraph.core.ir import Graph, Node, Value
from minigraph.ops.window import three

HEADERS = ("tile.cuh", "fragments.cuh", "conv.cuh")
Made = Callable[[Graph, Node, Geometry], Launched]


@dataclass(frozen=True)
class Weight:
    """How a product reads a weight: packed in scratch, unless it has one tap.

    distances: the fields of a conv_sizes. floats: of scratch that it takes.
    """

    reading: str
    distances: dict[str, int]
    kind: str
    packing: str = ""  # the shape of the pack
    numbers: int = 0  # in it
    floats: int = 0

    @property
    def grids(self) -> tuple[Grid, ...]:
        return (grid_of(self.numbers),) if self.packing else ()

    def phases(self, pointer: str) -> list[str]:
        return [f"pack({pointer}, ({self.kind} *)scratch, {self.packing});"] if self.packing else []

    def pointer(self, pointer: str) -> str:
        return f"(const {self.kind} *)scratch" if self.packing else pointer


def _weight(of: Factors, found: Geometry, w: Operand, value: Value, rows: str) -> Weight:
    """rows: what a product sums over beside taps, the channel or the output; the other one are its columns."""
    apart = weight_distances(w, value)
    columns = "output" if rows == "channel" else "channel"
    sizes = {"channel": found.channels, "output": found.outputs}
    group = found.outputs * apart["output"]
    if found.taps == 1:
        distances = {"w_group": group, "w_tap": 0, "w_row": apart[rows], "w_column": apart[columns]}
        across = apart[columns] == 1
        line, step = (sizes[columns], apart[rows]) if across else (sizes[rows], apart[columns])
        whole = in_fours(w, line, (step, group)) and (across or apart[rows] == 1)
        return Weight(reading(not across, whole), distances, of.kind)
    pitch = -(-sizes[columns] // 4) * 4
    distances = {"w_group": found.taps * sizes[rows] * pitch, "w_tap": sizes[rows] * pitch, "w_row": pitch}
    axes = three(found.window, 1)
    steps = [apart["tap"] * numbers(axes[d + 1 :]) for d in range(3)]
    packing = {
        "groups": found.groups, "window": axes, "rows": sizes[rows], "columns": sizes[columns], "pitch": pitch,
        "w_group": group, "w_axis": steps, "w_row": apart[rows], "w_column": apart[columns],
    }  # fmt: skip
    count, shape = found.groups * distances["w_group"], struct("pack_shape", packing)
    floats = -(-count * of.nbytes // 4)
    return Weight(reading(False, True), {**distances, "w_column": 1}, of.kind, shape, count, floats)


def conv(graph: Graph, node: Node) -> Launched | None:
    return _made(graph, node, geometry(node.inputs[0], node.outputs[0], node), direct.conv, _conv)


def conv_input_gradient(graph: Graph, node: Node) -> Launched | None:
    found = geometry(node.outputs[0], node.inputs[0], node)
    return _made(graph, node, found, direct.conv_input_gradient, _conv_input_gradient)


def conv_weight_gradient(graph: Graph, node: Node) -> Launched | None:
    found = geometry(node.inputs[0], node.inputs[1], node)
    return _made(graph, node, found, direct.conv_weight_gradient, _conv_weight_gradient)


def _made(graph: Graph, node: Node, found: Geometry | None, directly: Made, in_tiles: Made) -> Launched | None:
    if found is None:
        return None
    return (directly if direct.is_direct(found) else in_tiles)(graph, node, found)


def _conv(graph: Graph, node: Node, found: Geometry) -> Launched:
    of, terms, columns = factors(graph, node), found.taps * found.channels, found.groups * found.outputs
    division = divided(found.pixels, found.outputs, terms, found.groups, found.pixels * columns, of.kind)
    return _of_images(of, node, found, "conv_forward", division, "channel", columns)


def _conv_input_gradient(graph: Graph, node: Node, found: Geometry) -> Launched:
    pixels, phases, columns = numbers(found.extents), numbers(found.stride), found.groups * found.channels
    rows = found.batch * numbers(-(-n // s) for n, s in zip(found.extents, found.stride))  # of the largest phase
    of, terms, results = factors(graph, node), found.taps * found.outputs, found.batch * pixels * columns
    division = divided(rows, found.channels, terms, found.groups * phases, results, of.kind)
    return _of_images(of, node, found, "conv_inputs", division, "output", columns)


def _of_images(
    of: Factors, node: Node, found: Geometry, kernel: str, division: Division, rows: str, columns: int
) -> Launched:
    """A convolution, or its gradient to the input: images, x or g, times a weight."""
    first, second = node.inputs
    x, w, rank = images(of, first), weights(of, second), first.type.rank
    weight = _weight(of, found, w, second, rows)
    summed = found.channels if rows == "channel" else found.outputs
    shape = struct("conv_sizes", found.fields(x, rank, weight.distances, division.per_chunk))
    types = f"{division.tile}, {reading(deep(x, rank), fours(x, rank, summed))}, {weight.reading}"
    results = division.results // columns

    def phases(p: Pointers) -> list[str]:
        partial = f"(scratch + {weight.floats})"
        put = "finish" if division.chunks == 1 else f"chunks{{{partial}, {columns}}}"
        x, w = map(of.pointer, p.operands)
        product = f"{kernel}<{types}>({x}, {weight.pointer(w)}, {shape}, {put});"
        adding = f"add_chunks({partial}, {division.chunks}, {results}, {columns}, 1, finish);"
        return [*weight.phases(w), product, *([adding] if division.chunks > 1 else [])]

    return Launched(
        node,
        HEADERS,
        (x, w),
        phases,
        scratch=weight.floats + division.scratch,
        finishes=True,
        grids=(*weight.grids, *division.grids),
        columns=columns,
    )


def _conv_weight_gradient(graph: Graph, node: Node, found: Geometry) -> Launched:
    x_value, g_value = node.inputs
    of, rank = factors(graph, node), x_value.type.rank
    x, g = images(of, x_value), of.dense(g_value)
    outputs, columns = found.groups * found.outputs, found.taps * found.channels
    division = divided(found.outputs, columns, found.pixels, found.groups, outputs * columns, of.kind)
    unused = {"w_group": 0, "w_tap": 0, "w_row": 0, "w_column": 0}
    shape = struct("conv_sizes", found.fields(x, rank, unused, division.per_chunk))
    of_g = reading(False, in_fours(g, found.outputs, ()))
    several = division.chunks > 1
    types = f"{division.tile}, {of_g}, {reading(not deep(x, rank), fours(x, rank, found.channels))}"

    def phases(p: Pointers) -> list[str]:
        put = f"chunks{{scratch, {columns}}}" if several else "finish"
        given = f"{', '.join(map(of.pointer, p.operands))}, {shape}, {put}"
        product = f"conv_weights<{types}, {str(several).lower()}>({given});"
        adding = f"add_chunks(scratch, {division.chunks}, {outputs}, {columns}, {found.taps}, finish);"
        return [product, *([adding] if several else [])]

    return Launched(node, HEADERS, (x, g), phases, scratch=division.scratch, grids=division.grids, columns=columns)
