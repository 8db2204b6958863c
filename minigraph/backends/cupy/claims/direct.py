"""Convolutions in groups of few channels, each channel by itself among them, and their gradients."""

from __future__ import annotations

from collections.abc import Mapping

from minigraph.backends.calls import Pointers
from minigraph.backends.cupy.claims.factors import factors
from minigraph.backends.cupy.claims.geometry import Geometry, images, weight_distances, weights
from minigraph.backends.cupy.claims.launched import Launched, numbers, struct
from minigraph.backends.cupy.grid import THREADS, Grid, grid_of
from minigraph.core.ir import Graph, Node

HEADERS = ("tile.cuh", "conv.cuh", "conv_direct.cuh")
FEW = 16  # channels, or results, of a group that are not worth a tile
LANES = 32  # threads at neighbouring channels, at most
HELD = 32  # numbers that a thread keeps, at most
BLOCKS = 1024  # that keep a GPU busy
EACH = 16  # places of a thread, at most; and at least in a gradient to the weight, if there are so many
MOST_CHUNKS = 256


def is_direct(found: Geometry) -> bool:
    return found.groups > 1 and min(found.channels, found.outputs) < FEW


def conv(graph: Graph, node: Node, found: Geometry) -> Launched:
    outputs = found.groups * found.outputs
    return _of_images(graph, node, found, "conv_direct", outputs, found.pixels, found.channels)


def conv_input_gradient(graph: Graph, node: Node, found: Geometry) -> Launched:
    channels, pixels = found.groups * found.channels, found.batch * numbers(found.extents)
    return _of_images(graph, node, found, "conv_direct_inputs", channels, pixels, found.outputs)


def _of_images(
    graph: Graph, node: Node, found: Geometry, kernel: str, columns: int, pixels: int, summed: int
) -> Launched:
    """A convolution, or its gradient to the input. summed: the channels that meet one of the columns."""
    first, second = node.inputs
    of = factors(graph, node)
    x, w = images(of, first), weights(of, second)
    apart = weight_distances(w, second)
    distances = {"w_group": found.outputs * apart["output"], "w_tap": apart["tap"]}
    if kernel == "conv_direct":
        distances.update(w_row=apart["channel"], w_column=apart["output"])
    else:
        distances.update(w_row=apart["output"], w_column=apart["channel"])
    lanes, terms = _lanes(columns), found.taps * summed
    across, high = -(-columns // lanes), THREADS // lanes
    each = max(1, min(EACH, pixels * across // (high * BLOCKS)))
    shape = struct("conv_sizes", found.fields(x, first.type.rank, distances, 0))
    dealt = struct("conv_dealt", {"lanes": lanes, "each": each, "per_chunk": 0})
    held = terms if terms <= HELD else 0

    def phases(p: Pointers) -> list[str]:
        return [f"{kernel}<{held}>({', '.join(map(of.pointer, p.operands))}, {shape}, {dealt}, finish);"]

    grid = Grid(-(-pixels // (high * each)) * across)
    return Launched(node, HEADERS, (x, w), phases, finishes=True, grids=(grid,), columns=columns)


def conv_weight_gradient(graph: Graph, node: Node, found: Geometry) -> Launched:
    x_value, g_value = node.inputs
    of = factors(graph, node)
    x, g = images(of, x_value), of.dense(g_value)
    outputs, columns = found.groups * found.outputs, found.channels * found.taps
    lanes, taps = _lanes(outputs), found.taps if found.taps <= HELD else 1
    high, blocks = THREADS // lanes, -(-outputs // lanes) * found.channels * (found.taps // taps)
    chunks = max(1, min(MOST_CHUNKS, BLOCKS // blocks, found.pixels // (high * EACH)))
    per_chunk = max(1, -(-found.pixels // chunks))
    unused: Mapping[str, int] = {"w_group": 0, "w_tap": 0, "w_row": 0, "w_column": 0}
    shape = struct("conv_sizes", found.fields(x, x_value.type.rank, unused, 0))
    dealt = struct("conv_dealt", {"lanes": lanes, "each": 0, "per_chunk": per_chunk})

    def phases(p: Pointers) -> list[str]:
        put = "finish" if chunks == 1 else f"chunks{{scratch, {columns}}}"
        given = f"{', '.join(map(of.pointer, p.operands))}, {shape}, {dealt}, {put}"
        first = f"conv_direct_weights<{taps}, {THREADS}>({given});"
        adding = f"add_chunks(scratch, {chunks}, {outputs}, {columns}, 1, finish);"
        return [first, *([adding] if chunks > 1 else [])]

    results = outputs * columns
    grids = (Grid(blocks * chunks), *([grid_of(results)] if chunks > 1 else []))
    scratch = results * chunks if chunks > 1 else 0
    return Launched(node, HEADERS, (x, g), phases, scratch=scratch, grids=grids, columns=columns)


def _lanes(channels: int) -> int:
    """The least power of two that is not below the channels, but at most LANES."""
    return min(LANES, 1 << max(0, channels - 1).bit_length())
