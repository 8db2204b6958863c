"""Convolutions and their gradients, by the direct kernels; depthwise.py and winograd.py have those that are faster.

The padding is there physically (lowering made it a node), and the weight is packed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from minigraph.backends.c.claims.depthwise import depthwise, depthwise_inputs, depthwise_weights, is_depthwise
from minigraph.backends.c.claims.geometry import (
    Axes,
    axes_of,
    geometry,
    is_padded,
    lying_in,
    of_phase,
    sizes_of,
    steps_of,
    taps_apart,
)
from minigraph.backends.c.claims.shapes import HEADERS, fields, packed
from minigraph.backends.c.claims.winograd import (
    is_dense,
    winograd,
    winograd_tile,
    winograd_tiles,
    winograd_weights,
)
from minigraph.backends.calls import Call, Operand, Pointers, dense, operand
from minigraph.backends.layout import gradient_halo
from minigraph.core.ir import Graph, Node

DIRECT = (*HEADERS, "conv_phase.h", "conv_direct.h")


def conv(graph: Graph, node: Node) -> Call | None:
    x, w = node.inputs
    shape = None if is_padded(node) else geometry(x, node.outputs[0], node)
    if shape is None:
        return None
    if is_depthwise(node):
        return depthwise(graph, node, shape)
    weight = operand(graph, w)
    ways = {0: partial(_direct, graph, node, shape, weight)}
    if is_dense(weight):
        ways |= {tile: partial(winograd, graph, node, shape, tile, weight) for tile in winograd_tiles(shape)}
    return _usual(ways, shape)


def _usual(ways: Mapping[int, Callable[[], Call]], shape: Mapping[str, Any]) -> Call:
    """The way that is usually taken of direct convolution, 0, and Winograd's tiles; and the others by name."""
    chosen = winograd_tile(shape)
    chosen = chosen if chosen in ways else 0
    names = {tile: f"winograd {tile}" if tile else "direct" for tile in ways}
    return replace(ways[chosen](), others={names[tile]: way for tile, way in ways.items() if tile != chosen})


def _direct(graph: Graph, node: Node, shape: Mapping[str, Any], weight: Operand) -> Call:
    x, w = node.inputs
    packs = {"weight": packed(1, sizes_of(shape), taps_apart(weight, w.type.rank, shape["groups"]))}

    def phases(p: Pointers) -> list[str]:
        lying = fields("conv_direct_shape", lying_in(shape, p, 0, -1))
        arguments = f"{p.operands[0]}, weight, {p.result}, {lying}"
        return [f"conv_direct(thread, threads, {arguments}{p.finish});"]

    return Call(node, DIRECT, (dense(graph, x), weight), phases, packs, finishes=True, apart=frozenset({0, -1}))


def conv_input_gradient(graph: Graph, node: Node) -> Call | None:
    """Of g with all the zeros around it that are read: a convolution of stride 1 for each phase of the stride."""
    g, w = node.inputs
    shape, lacks = geometry(g, node.outputs[0], node), gradient_halo(node)
    if shape is None or lacks is None or any(map(any, lacks)):
        return None
    axes = axes_of(shape, node)
    if is_depthwise(node):
        return depthwise_inputs(graph, node, shape, axes)
    weight = operand(graph, w)
    ways = {0: partial(_direct_inputs, graph, node, shape, axes, weight)}
    if is_dense(weight):
        ways |= {t: partial(winograd, graph, node, shape, t, weight, turned=True) for t in winograd_tiles(shape)}
    return _usual(ways, shape)


def _direct_inputs(graph: Graph, node: Node, shape: Mapping[str, Any], axes: Axes, weight: Operand) -> Call:
    g, w = node.inputs
    apart = taps_apart(weight, w.type.rank, shape["groups"])
    apart["w_k"], apart["w_c"] = apart["w_c"], apart["w_k"]  # what it gives are the channels of x
    packs = {"weight": packed(1, sizes_of(shape), apart, steps_of(axes))}
    text = {name: fields("conv_axis", axis) for name, axis in axes.items()}

    def phases(p: Pointers) -> list[str]:
        one = fields("conv_direct_shape", of_phase(lying_in(shape, p, 0, -1), axes))
        lying = fields("conv_direct_inputs_shape", {**text, "one": one})
        arguments = f"{p.operands[0]}, weight, {p.result}, {lying}"
        return [f"conv_direct_inputs(thread, threads, {arguments}{p.finish});"]

    return Call(node, DIRECT, (dense(graph, g), weight), phases, packs, finishes=True, apart=frozenset({0, -1}))


def conv_weight_gradient(graph: Graph, node: Node) -> Call | None:
    x, g = node.inputs
    shape = None if is_padded(node) else geometry(x, g, node)
    if shape is None:
        return None
    if is_depthwise(node):
        return depthwise_weights(graph, node, shape)
    ways = {0: partial(_direct_weights, graph, node, shape)}
    ways |= {tile: partial(winograd_weights, graph, node, shape, tile) for tile in winograd_tiles(shape)}
    return _usual(ways, shape)


def _direct_weights(graph: Graph, node: Node, shape: Mapping[str, Any]) -> Call:
    x, g = node.inputs
    groups, K, C, T, R, S = (shape[name] for name in ("groups", "K", "C", "T", "R", "S"))
    taps = T * R * S
    sizes = {"K": groups * K, "C": C, "T": T, "R": R, "S": S, "width": groups * K}
    turned = fields("pack_shape", {**sizes, "w_k": C * taps, "w_c": taps, "w_t": R * S, "w_r": S, "w_s": 1})

    def phases(p: Pointers) -> list[str]:
        sums = f"{p.operands[0]}, {p.operands[1]}, scratch, {groups * K}, {shape['vectors']} * LANES"
        lying = fields("conv_direct_shape", lying_in(shape, p, 0, 1))
        first = f"conv_direct_weights(thread, threads, {sums}, {lying}, 0, 0);"
        return [first, f"unpack(thread, threads, scratch, {p.result}, {turned});"]

    operands = (dense(graph, x), dense(graph, g))
    return Call(node, DIRECT, operands, phases, scratch=taps * C * groups * K, apart=frozenset({0, 1}))
