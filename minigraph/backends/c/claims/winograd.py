"""Winograd's convolutions: 3x3 and 5x5 windows of stride 1, and their gradients."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from minigraph.backends.access import contiguous
from minigraph.backends.c.claims.geometry import lying_in
from minigraph.backends.c.claims.shapes import HEADERS, MOST_LANES, fields, panels, strides, up
from minigraph.backends.calls import Call, Operand, Pack, Pointers, dense
from minigraph.core.errors import expect
from minigraph.core.ir import Graph, Node
from minigraph.ops.window import three

BLOCK = 56  # tiles that go through a kernel at a time: their transforms stay in the cache
LEAST = {4: 8, 2: 12}  # channels, by the tile: the rest of a vector of 16 is computed for nothing
SEVERAL = 4  # images; unknown numbers of them are several
PARTS = 4  # of the sums over tiles, where there are few channels: so many threads share them


def winograd_tiles(shape: Mapping[str, Any]) -> tuple[int, ...]:
    """How many results in a row of a tile there may be: 2 or 4 of 3x3 windows, 2 of 5x5 windows, and none of others.

    With MINIGRAPH_WINOGRAD=0 there are none at all.
    """
    setting = os.environ.get("MINIGRAPH_WINOGRAD", "").strip()
    expect(setting in ("", "0", "1"), "MINIGRAPH_WINOGRAD is 0 or 1, not {!r}", setting)
    window = shape["R"]
    square = (shape["D"], shape["T"], shape["S"]) == (1, 1, window)
    dense_taps = all(shape[f"{what}_{axis}"] == 1 for what in ("stride", "dilation") for axis in "hw")
    tiles = {3: (4, 2), 5: (2,)}.get(window, ())
    return () if setting == "0" or not square or not dense_taps else tiles


def winograd_tile(shape: Mapping[str, Any]) -> int:
    """The one that is usually taken; 0 where none pays. Of 3x3 windows it is 2 where images are small and few."""
    tiles = winograd_tiles(shape)
    if not tiles or min(shape["P"], shape["Q"]) < 4:
        return 0
    tile = 4 if 4 in tiles and _large(shape) else 2
    return tile if min(shape["C"], shape["K"]) >= LEAST[tile] else 0


def _large(shape: Mapping[str, Any]) -> bool:
    """Whether images are large enough for tiles of 4x4 results. Of smaller ones there must be several: weights for
    tiles of 4x4 are 2.25 times as large as for 2x2, and few tiles take less time than fetching them.
    """
    rows, columns, batch = shape["P"], shape["Q"], shape["batch"]
    products = {m: (m + 2) ** 2 * -(-rows // m) * -(-columns // m) for m in (2, 4)}
    several = not isinstance(batch, int) or batch >= SEVERAL
    return min(rows, columns) >= 8 or (several and 4 * products[4] <= 3 * products[2])


def is_dense(weight: Operand) -> bool:
    """Whether a weight lies in memory as it is."""
    return strides(weight, len(weight.shape)) == list(contiguous(weight.shape)) and weight.access.offset == 0


def _winograd_fields(shape: Mapping[str, Any], tile: int) -> dict[str, Any]:
    names = {
        "batch": "batch",
        "rows": "P",
        "columns": "Q",
        "groups": "groups",
        "channels": "C",
        "outputs": "K",
        "window": "R",
    }
    found = {name: shape[source] for name, source in names.items()}
    found.update(x_image=shape["x_image"], x_row=shape["x_row"])
    return {**found, "tile": tile, "vectors": shape["vectors"], "block": BLOCK}


def _points(shape: Mapping[str, Any], tile: int) -> int:
    """Of a tile."""
    return int((tile + shape["R"] - 1) ** 2)


def _winograd_scratch(shape: Mapping[str, Any], tile: int) -> int:
    """Floats that one thread works in."""
    return _points(shape, tile) * (BLOCK * (up(shape["C"], MOST_LANES) + panels(shape["K"])) + 32)


def winograd(
    graph: Graph, node: Node, shape: Mapping[str, Any], tile: int, weight: Operand, turned: bool = False
) -> Call:
    """turned: for the gradient to the input."""
    groups, C, K = shape["groups"], shape["C"], shape["K"]
    weights = {"groups": groups, "channels": C, "outputs": K, "tile": tile, "window": shape["R"]}
    weights.update(vectors=shape["vectors"], turned=str(turned).lower())
    transform = fields("winograd_weights_shape", weights)
    packs = {"weight": Pack(1, groups * _points(shape, tile) * panels(K) * C, "winograd_weights", transform)}
    (top, _), (left, _) = three(node.attrs["padding"], (0, 0))[1:]
    each = _winograd_scratch(shape, tile)
    whole = {**_winograd_fields(shape, tile), "y_image": shape["y_image"], "y_row": shape["y_row"], "scratch": each}

    def phases(p: Pointers) -> list[str]:
        lying = lying_in(whole, p, 0, -1)
        text = fields("winograd_shape", lying)
        more = shape["R"] - 1  # zeros around that the gradient to x reads
        first = (top - more) * lying["x_row"] + (left - more) * groups * C if turned else 0
        x = f"{p.operands[0]} + {first}" if first else p.operands[0]
        return [p.shared("winograd", [x, "weight", p.result, "scratch"], text, p.finish)]

    headers, operands = (*HEADERS, "winograd.h"), (dense(graph, node.inputs[0]), weight)
    return Call(node, headers, operands, phases, packs, each=each, finishes=True, apart=frozenset({0, -1}))


def winograd_weights(graph: Graph, node: Node, shape: Mapping[str, Any], tile: int) -> Call:
    groups, C, K = shape["groups"], shape["C"], shape["K"]
    parts = PARTS if max(C, K) <= 64 and groups < PARTS else 1
    sums = up(groups * parts * _points(shape, tile) * (up(C, 16) * panels(K) + 16), 16)
    each = _winograd_scratch(shape, tile)
    whole = {**_winograd_fields(shape, tile), "y_image": shape["y_image"], "y_row": shape["y_row"]}
    whole.update(parts=parts, scratch=each)

    def phases(p: Pointers) -> list[str]:
        x, g = p.operands
        text = fields("winograd_gradient_shape", lying_in(whole, p, 0, 1))
        pointers = [x, g, "scratch", f"scratch + {sums}"]
        return [
            p.shared("winograd_gradient", pointers, text, ""),
            p.shared("winograd_gradient_finish", ["scratch", p.result], text, ", 0, 0"),
        ]

    operands = (dense(graph, node.inputs[0]), dense(graph, node.inputs[1]))
    headers = (*HEADERS, "winograd.h", "winograd_gradient.h")
    return Call(node, headers, operands, phases, scratch=sums, each=each, apart=frozenset({0, 1}))
