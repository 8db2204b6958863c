"""Convolutions of each channel by itself, and their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigraph.backends.c.claims.geometry import Axes, lying_in, of_phase, steps_of, taps_apart
from minigraph.backends.c.claims.shapes import HEADERS, MOST_LANES, fields, up
from minigraph.backends.calls import Call, Operand, Pack, Pointers, dense, operand
from minigraph.backends.groups import weight_of
from minigraph.core.ir import Graph, Node

DEPTHWISE = (*HEADERS, "conv_phase.h", "conv_depthwise.h")


def is_depthwise(node: Node) -> bool:
    """Whether each group of a convolution, or of one of its gradients, has one channel and one result."""
    groups = node.attrs["groups"]
    return groups != 1 and weight_of(node).type.shape[:2] == (groups, 1)


def _depthwise_shape(shape: Mapping[str, Any]) -> str:
    found = {name: value for name, value in shape.items() if name not in ("groups", "K", "vectors")}
    return fields("conv_depthwise_shape", {**found, "C": shape["groups"]})


def _depthwise_pack(weight: Operand, rank: int, shape: Mapping[str, Any], steps: Mapping[str, int] = {}) -> Pack:
    C, T, R, S = (shape[name] for name in ("groups", "T", "R", "S"))
    sizes = {"groups": 1, "K": C, "C": 1, "T": T, "R": R, "S": S, "width": f"({C} + LANES - 1) / LANES * LANES"}
    panel = fields("pack_shape", {**sizes, **taps_apart(weight, rank, 1), **steps})
    return Pack(1, up(C, MOST_LANES) * T * R * S, "pack", panel)


def depthwise(graph: Graph, node: Node, shape: Mapping[str, Any]) -> Call:
    x, weight = dense(graph, node.inputs[0]), operand(graph, node.inputs[1])
    packs = {"weight": _depthwise_pack(weight, node.inputs[1].type.rank, shape)}

    def phases(p: Pointers) -> list[str]:
        lying = _depthwise_shape(lying_in(shape, p, 0, -1))
        arguments = f"{p.operands[0]}, weight, {p.result}, {lying}"
        return [f"conv_depthwise(thread, threads, {arguments}{p.finish});"]

    return Call(node, DEPTHWISE, (x, weight), phases, packs, finishes=True, apart=frozenset({0, -1}))


def depthwise_inputs(graph: Graph, node: Node, shape: Mapping[str, Any], axes: Axes) -> Call:
    g, weight = dense(graph, node.inputs[0]), operand(graph, node.inputs[1])
    packs = {"weight": _depthwise_pack(weight, node.inputs[1].type.rank, shape, steps_of(axes))}
    text = {name: fields("conv_axis", axis) for name, axis in axes.items()}

    def phases(p: Pointers) -> list[str]:
        one = _depthwise_shape(of_phase(lying_in(shape, p, 0, -1), axes))
        lying = fields("conv_depthwise_inputs_shape", {**text, "one": one})
        arguments = f"{p.operands[0]}, weight, {p.result}, {lying}"
        return [f"conv_depthwise_inputs(thread, threads, {arguments}{p.finish});"]

    return Call(node, DEPTHWISE, (g, weight), phases, packs, finishes=True, apart=frozenset({0, -1}))


def depthwise_weights(graph: Graph, node: Node, shape: Mapping[str, Any]) -> Call:
    C, T, R, S = (shape[name] for name in ("groups", "T", "R", "S"))
    sizes = {"K": C, "C": 1, "T": T, "R": R, "S": S, "width": C}
    turned = fields("pack_shape", {**sizes, "w_k": T * R * S, "w_c": T * R * S, "w_t": R * S, "w_r": S, "w_s": 1})

    def phases(p: Pointers) -> list[str]:
        arguments = f"{p.operands[0]}, {p.operands[1]}, scratch, {_depthwise_shape(lying_in(shape, p, 0, 1))}, 0, 0"
        first = f"conv_depthwise_weights(thread, threads, {arguments});"
        return [first, f"unpack(thread, threads, scratch, {p.result}, {turned});"]

    operands = tuple(dense(graph, value) for value in node.inputs)
    return Call(node, DEPTHWISE, operands, phases, scratch=T * R * S * C, apart=frozenset({0, 1}))
