"""Which nodes the tuned float32 kernels compute, and how they are called.

A matrix product reads its right side packed in panels as wide as a few vectors; a convolution lies channels last, its
padding is there physically (lowering made it a node), and its weight is packed. What does not change from step to step
is packed once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import gcd
from typing import Any

from minigraph.backends.access import contiguous
from minigraph.backends.c.threads import threads
from minigraph.backends.calls import Call, Operand, Pack, Pointers, dense, operand
from minigraph.backends.groups import regrouped, weight_of
from minigraph.backends.layout import channels_last, gradient_halo, with_halos
from minigraph.backends.loops import size_text
from minigraph.core.dim import Size, known, product
from minigraph.core.errors import expect
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import OPS
from minigraph.ops import conv as convolution
from minigraph.ops import pool as pooled
from minigraph.ops.matmul import matmul as matrix_product
from minigraph.ops.window import extents_of, three

MOST_LANES = 16
HEADERS = ("vector.h", "tile.h", "pack.h")
DIRECT = (*HEADERS, "conv_phase.h", "conv_direct.h")
DEPTHWISE = (*HEADERS, "conv_phase.h", "conv_depthwise.h")


def claim(graph: Graph, node: Node) -> Call | None:
    """The call of a tuned kernel, or None where there is none for this node."""
    how = CLAIMS.get(node.op)
    floats = all(value.type.dtype == "float32" for value in (*node.inputs, *node.outputs))
    return how(graph, node) if how is not None and floats else None


def serves(node: Node) -> bool:
    """Whether the convolutions here compute it, once its padding is a node."""
    floats = all(value.type.dtype == "float32" for value in (*node.inputs, *node.outputs))
    return floats and node.attrs["layout"][-1] == "C"


def laid_out(graph: Graph) -> Graph:
    """A lowered graph in the form that the kernels ask for: channels last, in large groups, with halos."""
    return with_halos(regrouped(channels_last(graph), serves, MOST_LANES), serves)


def fields(kind: str, values: Mapping[str, Any]) -> str:
    """A struct as C."""
    return f"({kind}){{{', '.join(f'.{name} = {_text(value)}' for name, value in values.items())}}}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else size_text(value)


def strides(found: Operand, rank: int) -> list[Size]:
    """How far apart neighbours along each axis of an operand lie in memory."""
    return [found.access.stride(axis) for axis in range(rank)]


# panels


def vectors(columns: Size) -> str:
    """How many vectors wide a panel is, as C: the width depends on the machine."""
    return f"({size_text(columns)} <= LANES ? 1 : 2)"


def panels(columns: int) -> int:
    """The most numbers that `columns` of them take in whole panels."""
    return -(-columns // (2 * MOST_LANES)) * 2 * MOST_LANES


def packed(number: int, sizes: Mapping[str, Size], apart: Mapping[str, Size], steps: Mapping[str, int] = {}) -> Pack:
    """A weight of groups, K results, C channels and a window T x R x S; see pack_shape.

    apart: how far apart its numbers lie along each of these. steps: of the phases that its taps are sorted by.
    """
    width = f"{vectors(sizes['K'])} * LANES"
    shape = fields("pack_shape", {**sizes, **apart, "width": width, **steps})
    lines = known(product(n for name, n in sizes.items() if name != "K"), "a weight")
    return Pack(number, panels(known(sizes["K"], "a weight")) * lines, "pack", shape)


# matrix products


def matmul(graph: Graph, node: Node) -> Call | None:
    a, b = (operand(graph, value) for value in node.inputs)
    if any(value.type.rank != 2 for value in node.inputs):
        return None
    (M, K), N = node.inputs[0].type.shape, node.inputs[1].type.shape[1]
    if not isinstance(N, int):
        return None
    a_row, a_column = strides(a, 2)
    b_row, b_column = strides(b, 2)
    as_it_lies = b.moves and b_column == 1
    if not as_it_lies and not isinstance(K, int):
        return None
    width = f"{vectors(N)} * LANES"
    shape: dict[str, Any] = {"M": M, "N": N, "K": K, "a_row": a_row, "a_column": a_column}
    shape["b_row"], shape["b_panel"] = (b_row, width) if as_it_lies else (width, f"{size_text(K)} * {width}")
    shape.update(y_row=N, y_panel=width, vectors=vectors(N), b_padded="false" if as_it_lies else "true")
    sizes: dict[str, Size] = {"groups": 1, "K": N, "C": K, "T": 1, "R": 1, "S": 1}
    packs = {} if as_it_lies else {"weight": packed(1, sizes, {"w_k": b_column, "w_c": b_row})}

    def phases(p: Pointers) -> list[str]:
        right = p.operands[1] if as_it_lies else p.packs["weight"]
        return [
            f"gemm(thread, threads, {p.operands[0]}, {right}, {p.result}, {fields('gemm_shape', shape)}{p.finish});"
        ]

    return Call(node, (*HEADERS, "gemm.h"), (a, b), phases, packs, finishes=True)


# convolutions


def _geometry(x: Value, y: Value, node: Node) -> dict[str, Any] | None:
    """The fields that convolutions share, of the one that gives y from x; None where the kernels do not serve it."""
    attrs, layout, weight = node.attrs, node.attrs["layout"], weight_of(node)
    small, large = extents_of(y.type, layout), extents_of(x.type, layout)
    if layout[-1] != "C" or 0 in weight.type.shape or not all(isinstance(n, int) for n in (*small, *large)):
        return None
    (depth, H, W), (D, P, Q), (T, R, S) = three(large, 1), three(small, 1), three(weight.type.shape[2:], 1)
    groups, (sd, sh, sw), (dd, dh, dw) = attrs["groups"], three(attrs["stride"], 1), three(attrs["dilation"], 1)
    batch, channels, outputs = x.type.shape[0], x.type.shape[-1], y.type.shape[-1]
    if depth == D and T == sd == 1:  # slices are images
        batch, depth, D = batch * D, 1, 1
    return {
        "batch": batch, "groups": groups, "C": channels // groups, "K": outputs // groups,
        "D": D, "P": P, "Q": Q, "T": T, "R": R, "S": S,
        "stride_d": sd, "stride_h": sh, "stride_w": sw, "dilation_d": dd, "dilation_h": dh, "dilation_w": dw,
        "x_image": depth * H * W * channels, "x_slice": H * W * channels, "x_row": W * channels,
        "y_image": D * P * Q * outputs, "y_slice": P * Q * outputs, "y_row": Q * outputs, "y_pixel": outputs,
        "vectors": vectors(outputs // groups),
    }  # fmt: skip


def _padded(node: Node) -> bool:
    return any(n for pair in node.attrs["padding"] for n in pair)


def _apart(w: Operand, rank: int, groups: int) -> dict[str, Size]:
    """How far apart the numbers of a weight (groups K, C, ...) lie."""
    k, c, *window = strides(w, rank)
    t, r, s = three(window, 0)
    rows = known(w.shape[0], "the number of outputs") // groups
    return {"w_group": rows * k, "w_k": k, "w_c": c, "w_t": t, "w_r": r, "w_s": s}


def _sizes(shape: Mapping[str, Any]) -> dict[str, Size]:
    return {name: shape[name] for name in ("groups", "K", "C", "T", "R", "S")}


def _lying(shape: Mapping[str, Any], p: Pointers, x: int | None, y: int | None) -> dict[str, Any]:
    """The fields, with the places of the operands, or the result (-1), that lie in the middle of others."""
    found = dict(shape)
    for name, number in (("x", x), ("y", y)):
        if number is not None and (rows := p.rows(number)) is not None:
            found[f"{name}_image"], found[f"{name}_row"] = rows
    return found


def conv(graph: Graph, node: Node) -> Call | None:
    x, w = node.inputs
    shape = None if _padded(node) else _geometry(x, node.outputs[0], node)
    if shape is None:
        return None
    if is_depthwise(node):
        return _depthwise(graph, node, shape)
    weight = operand(graph, w)
    tile = winograd_tile(shape)
    if tile and _is_dense(weight):
        return _winograd(graph, node, shape, tile, weight)
    packs = {"weight": packed(1, _sizes(shape), _apart(weight, w.type.rank, shape["groups"]))}

    def phases(p: Pointers) -> list[str]:
        lying = fields("conv_direct_shape", _lying(shape, p, 0, -1))
        arguments = f"{p.operands[0]}, {p.packs['weight']}, {p.result}, {lying}"
        return [f"conv_direct(thread, threads, {arguments}{p.finish});"]

    return Call(node, DIRECT, (dense(graph, x), weight), phases, packs, finishes=True, apart=frozenset({0, -1}))


def conv_input_gradient(graph: Graph, node: Node) -> Call | None:
    """Of g with all the zeros around it that are read: a convolution of stride 1 for each phase of the stride."""
    g, w = node.inputs
    shape, lacks = _geometry(g, node.outputs[0], node), gradient_halo(node)
    if shape is None or lacks is None or any(map(any, lacks)):
        return None
    axes = _axes(shape, node)
    if is_depthwise(node):
        return _depthwise_inputs(graph, node, shape, axes)
    weight = operand(graph, w)
    tile = winograd_tile(shape)
    if tile and _is_dense(weight):
        return _winograd(graph, node, shape, tile, weight, turned=True)
    apart = _apart(weight, w.type.rank, shape["groups"])
    apart["w_k"], apart["w_c"] = apart["w_c"], apart["w_k"]  # what it gives are the channels of x
    packs = {"weight": packed(1, _sizes(shape), apart, _steps(axes))}
    text = {name: fields("conv_axis", axis) for name, axis in axes.items()}

    def phases(p: Pointers) -> list[str]:
        one = fields("conv_direct_shape", _of_phase(_lying(shape, p, 0, -1), axes))
        lying = fields("conv_direct_inputs_shape", {**text, "one": one})
        arguments = f"{p.operands[0]}, {p.packs['weight']}, {p.result}, {lying}"
        return [f"conv_direct_inputs(thread, threads, {arguments}{p.finish});"]

    return Call(node, DIRECT, (dense(graph, g), weight), phases, packs, finishes=True, apart=frozenset({0, -1}))


Axes = Mapping[str, dict[str, int]]


def _axes(shape: Mapping[str, Any], node: Node) -> Axes:
    """What a gradient to the input reads along each axis: see conv_phase.h."""
    before = three([before for before, _ in node.attrs["padding"]], 0)
    found = {}
    for name, size, window, letter, front in zip(("depth", "height", "width"), "DPQ", "TRS", "dhw", before):
        stride, dilation = shape[f"stride_{letter}"], shape[f"dilation_{letter}"]
        found[name] = {"size": shape[size], "window": shape[window], "front": front}
        found[name].update(stride=stride, dilation=dilation, step=stride // gcd(stride, dilation))
    return found


def _steps(axes: Axes) -> dict[str, int]:
    """By which the taps of a weight are sorted."""
    return {f"step_{letter}": axis["step"] for letter, axis in zip("trs", axes.values())}


def _of_phase(shape: Mapping[str, Any], axes: Axes) -> dict[str, Any]:
    """The fields of the convolution that a phase of a gradient to the input is."""
    found = dict(shape)
    for letter, far, axis in zip("dhw", ("y_slice", "y_row", "y_pixel"), axes.values()):
        found[f"stride_{letter}"], found[f"dilation_{letter}"] = 1, axis["dilation"] * axis["step"] // axis["stride"]
        found[far] *= axis["stride"]
    return found


def conv_weight_gradient(graph: Graph, node: Node) -> Call | None:
    x, g = node.inputs
    shape = None if _padded(node) else _geometry(x, g, node)
    if shape is None:
        return None
    if is_depthwise(node):
        return _depthwise_weights(graph, node, shape)
    if tile := winograd_tile(shape):
        return _winograd_gradient(graph, node, shape, tile)
    groups, K, C, T, R, S = (shape[name] for name in ("groups", "K", "C", "T", "R", "S"))
    taps = T * R * S
    sizes = {"K": groups * K, "C": C, "T": T, "R": R, "S": S, "width": groups * K}
    turned = fields("pack_shape", {**sizes, "w_k": C * taps, "w_c": taps, "w_t": R * S, "w_r": S, "w_s": 1})

    def phases(p: Pointers) -> list[str]:
        sums = f"{p.operands[0]}, {p.operands[1]}, {p.scratch}, {groups * K}, {shape['vectors']} * LANES"
        lying = fields("conv_direct_shape", _lying(shape, p, 0, 1))
        first = f"conv_direct_weights(thread, threads, {sums}, {lying}, 0, 0);"
        return [first, f"unpack(thread, threads, {p.scratch}, {p.result}, {turned});"]

    operands = (dense(graph, x), dense(graph, g))
    return Call(node, DIRECT, operands, phases, scratch=taps * C * groups * K, apart=frozenset({0, 1}))


# convolutions of each channel by itself


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
    panel = fields("pack_shape", {**sizes, **_apart(weight, rank, 1), **steps})
    return Pack(1, _up(C, MOST_LANES) * T * R * S, "pack", panel)


def _depthwise(graph: Graph, node: Node, shape: Mapping[str, Any]) -> Call:
    x, weight = dense(graph, node.inputs[0]), operand(graph, node.inputs[1])
    packs = {"weight": _depthwise_pack(weight, node.inputs[1].type.rank, shape)}

    def phases(p: Pointers) -> list[str]:
        lying = _depthwise_shape(_lying(shape, p, 0, -1))
        arguments = f"{p.operands[0]}, {p.packs['weight']}, {p.result}, {lying}"
        return [f"conv_depthwise(thread, threads, {arguments}{p.finish});"]

    return Call(node, DEPTHWISE, (x, weight), phases, packs, finishes=True, apart=frozenset({0, -1}))


def _depthwise_inputs(graph: Graph, node: Node, shape: Mapping[str, Any], axes: Axes) -> Call:
    g, weight = dense(graph, node.inputs[0]), operand(graph, node.inputs[1])
    packs = {"weight": _depthwise_pack(weight, node.inputs[1].type.rank, shape, _steps(axes))}
    text = {name: fields("conv_axis", axis) for name, axis in axes.items()}

    def phases(p: Pointers) -> list[str]:
        one = _depthwise_shape(_of_phase(_lying(shape, p, 0, -1), axes))
        lying = fields("conv_depthwise_inputs_shape", {**text, "one": one})
        arguments = f"{p.operands[0]}, {p.packs['weight']}, {p.result}, {lying}"
        return [f"conv_depthwise_inputs(thread, threads, {arguments}{p.finish});"]

    return Call(node, DEPTHWISE, (g, weight), phases, packs, finishes=True, apart=frozenset({0, -1}))


def _depthwise_weights(graph: Graph, node: Node, shape: Mapping[str, Any]) -> Call:
    C, T, R, S = (shape[name] for name in ("groups", "T", "R", "S"))
    sizes = {"K": C, "C": 1, "T": T, "R": R, "S": S, "width": C}
    turned = fields("pack_shape", {**sizes, "w_k": T * R * S, "w_c": T * R * S, "w_t": R * S, "w_r": S, "w_s": 1})

    def phases(p: Pointers) -> list[str]:
        arguments = f"{p.operands[0]}, {p.operands[1]}, {p.scratch}, {_depthwise_shape(_lying(shape, p, 0, 1))}, 0, 0"
        first = f"conv_depthwise_weights(thread, threads, {arguments});"
        return [first, f"unpack(thread, threads, {p.scratch}, {p.result}, {turned});"]

    operands = tuple(dense(graph, value) for value in node.inputs)
    return Call(node, DEPTHWISE, operands, phases, scratch=T * R * S * C, apart=frozenset({0, 1}))


# Winograd's convolutions

BLOCK = 56  # tiles that go through a kernel at a time: their transforms stay in the cache
PARTS = 4  # of the sums over tiles, where there are few channels: so many threads share them


def winograd_tile(shape: Mapping[str, Any]) -> int:
    """The results in a row of a tile: 4 or, where images are small, 2, which errs less; 0 where it does not pay.

    With MINIGRAPH_WINOGRAD=0 it is 0 everywhere.
    """
    setting = os.environ.get("MINIGRAPH_WINOGRAD", "").strip()
    expect(setting in ("", "0", "1"), "MINIGRAPH_WINOGRAD is 0 or 1, not {!r}", setting)
    three_by_three = (shape["D"], shape["T"], shape["R"], shape["S"]) == (1, 1, 3, 3)
    dense_taps = all(shape[f"{what}_{axis}"] == 1 for what in ("stride", "dilation") for axis in "hw")
    if setting == "0" or not three_by_three or not dense_taps:
        return 0
    if min(shape["C"], shape["K"]) < MOST_LANES or min(shape["P"], shape["Q"]) < 4:
        return 0
    return 4 if min(shape["P"], shape["Q"]) >= 8 else 2


def _is_dense(weight: Operand) -> bool:
    """Whether a weight lies in memory as it is."""
    return strides(weight, len(weight.shape)) == list(contiguous(weight.shape)) and weight.access.offset == 0


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def _winograd_fields(shape: Mapping[str, Any], tile: int) -> dict[str, Any]:
    names = {"batch": "batch", "rows": "P", "columns": "Q", "groups": "groups", "channels": "C", "outputs": "K"}
    found = {name: shape[source] for name, source in names.items()}
    found.update(x_image=shape["x_image"], x_row=shape["x_row"])
    return {**found, "tile": tile, "vectors": shape["vectors"], "block": BLOCK}


def _winograd_scratch(C: int, K: int, tile: int) -> int:
    """Floats that one thread works in."""
    return (tile + 2) ** 2 * (BLOCK * (_up(C, MOST_LANES) + panels(K)) + 32)


def _winograd(
    graph: Graph, node: Node, shape: Mapping[str, Any], tile: int, weight: Operand, turned: bool = False
) -> Call:
    """turned: for the gradient to the input."""
    groups, C, K = shape["groups"], shape["C"], shape["K"]
    weights = {"groups": groups, "channels": C, "outputs": K, "tile": tile, "vectors": shape["vectors"]}
    transform = fields("winograd_weights_shape", {**weights, "turned": str(turned).lower()})
    packs = {"weight": Pack(1, groups * (tile + 2) ** 2 * panels(K) * C, "winograd_weights", transform)}
    (top, _), (left, _) = three(node.attrs["padding"], (0, 0))[1:]
    each = _winograd_scratch(C, K, tile)
    whole = {**_winograd_fields(shape, tile), "y_image": shape["y_image"], "y_row": shape["y_row"], "scratch": each}
    order = (
        "batch",
        "rows",
        "columns",
        "groups",
        "channels",
        "outputs",
        "x_image",
        "x_row",
        "y_image",
        "y_row",
        "tile",
        "vectors",
    )

    def phases(p: Pointers) -> list[str]:
        lying = _lying(whole, p, 0, -1)
        text = fields("winograd_shape", {name: lying[name] for name in (*order, "block", "scratch")})
        first = (top - 2) * lying["x_row"] + (left - 2) * groups * C if turned else 0  # what the first result reads
        x = f"{p.operands[0]} + {first}" if first else p.operands[0]
        return [p.shared("winograd", [x, p.packs["weight"], p.result, p.scratch], text, p.finish)]

    headers, operands = (*HEADERS, "winograd.h"), (dense(graph, node.inputs[0]), weight)
    scratch, apart = each * threads(), frozenset({0, -1})
    return Call(node, headers, operands, phases, packs, scratch, finishes=True, apart=apart)


def _winograd_gradient(graph: Graph, node: Node, shape: Mapping[str, Any], tile: int) -> Call:
    groups, C, K = shape["groups"], shape["C"], shape["K"]
    parts = PARTS if max(C, K) <= 64 and groups < PARTS else 1
    sums = _up(groups * parts * (tile + 2) ** 2 * (_up(C, 16) * panels(K) + 16), 16)
    each = _winograd_scratch(C, K, tile)
    whole = {**_winograd_fields(shape, tile), "y_image": shape["y_image"], "y_row": shape["y_row"]}
    whole.update(parts=parts, scratch=each)
    order = (
        "batch",
        "rows",
        "columns",
        "groups",
        "channels",
        "outputs",
        "x_image",
        "x_row",
        "dy_image",
        "dy_row",
        "tile",
        "vectors",
    )

    def phases(p: Pointers) -> list[str]:
        x, g = p.operands
        lying = _lying(whole, p, 0, 1)
        lying.update(dy_image=lying["y_image"], dy_row=lying["y_row"])
        names = (*order, "block", "parts", "scratch")
        text_of_shape = fields("winograd_gradient_shape", {name: lying[name] for name in names})
        pointers = [x, g, p.scratch, f"{p.scratch} + {sums}"]
        return [
            p.shared("winograd_gradient", pointers, text_of_shape, ""),
            p.shared("winograd_gradient_finish", [p.scratch, p.result], text_of_shape, ", 0, 0"),
        ]

    operands = (dense(graph, node.inputs[0]), dense(graph, node.inputs[1]))
    headers = (*HEADERS, "winograd.h", "winograd_gradient.h")
    return Call(node, headers, operands, phases, scratch=sums + each * threads(), apart=frozenset({0, 1}))


# height and width


def _two(numbers: Any, missing: Any) -> tuple[Any, Any]:
    """Height and width of one or two spatial axes."""
    return tuple(numbers) if len(numbers) == 2 else (missing, numbers[0])


# halos


def pad(graph: Graph, node: Node) -> Call | None:
    widths, zeros = node.attrs["widths"], node.attrs["value"] == 0 and node.attrs["mode"] == "constant"
    inside = all(n >= 0 for pair in widths for n in pair)
    return _halo(graph, node, [before for before, _ in widths], [1] * len(widths)) if zeros and inside else None


def unslice(graph: Graph, node: Node) -> Call | None:
    return _halo(graph, node, node.attrs["start"], node.attrs["step"])


def _halo(graph: Graph, node: Node, start: Any, step: Any) -> Call | None:
    """Zeros around x, along the spatial axes of images with channels last or along the last axis alone."""
    (x,), y = node.inputs, node.outputs[0]
    sizes, larger = x.type.shape, y.type.shape
    if x.type.rank < 2 or not all(isinstance(n, int) for n in (*start, *sizes[1:], *larger[1:])):
        return None
    if any(n < 0 for n in start) or any(n <= 0 for n in step):
        return None
    shape: dict[str, Any]
    if sizes[:-1] == larger[:-1]:
        shape = {"batch": product(sizes[:-1]), "C": 1, "D": 1, "H": 1, "W": sizes[-1]}
        shape.update(slices=1, rows=1, columns=larger[-1])
        shape.update(front=0, top=0, left=start[-1], step_d=1, step_h=1, step_w=step[-1])
    elif x.type.rank in (3, 4, 5) and (sizes[0], sizes[-1]) == (larger[0], larger[-1]):
        shape = {"batch": sizes[0], "C": sizes[-1]}
        shape.update(zip("DHW", three(sizes[1:-1], 1)))
        shape.update(zip(("slices", "rows", "columns"), three(larger[1:-1], 1)))
        shape.update(zip(("front", "top", "left"), three(start[1:-1], 0)))
        shape.update(zip(("step_d", "step_h", "step_w"), three(step[1:-1], 1)))
    else:
        return None

    shape["x_row"] = shape["W"] * shape["C"]
    shape["x_slice"] = shape["H"] * shape["x_row"]
    shape["x_image"] = shape["D"] * shape["x_slice"]

    def phases(p: Pointers) -> list[str]:
        return [
            f"halo(thread, threads, {p.operands[0]}, {p.result}, {fields('halo_shape', _lying(shape, p, 0, None))});"
        ]

    def border(result: str) -> str:
        return f"halo_border(thread, threads, {result}, {fields('halo_shape', shape)});"

    images = x.type.rank in (3, 4) and sizes[0] == larger[0] and sizes[-1] == larger[-1]
    apart = frozenset({0} if images else ())
    framing = border if images and node.op is OPS["pad"] else None
    return Call(node, ("halo.h",), (dense(graph, x),), phases, apart=apart, border=framing)


# pooling


def _pooling(node: Node, small: Value, large: Value) -> dict[str, Any] | None:
    """The fields of pooling `large` to `small`; None where the kernels do not serve it."""
    attrs, layout = node.attrs, node.attrs["layout"]
    sizes = (*small.type.shape[1:], *large.type.shape[1:])
    if layout[-1] != "C" or len(layout) > 4 or not all(isinstance(n, int) for n in sizes):
        return None
    (H, W), (P, Q) = _two(extents_of(large.type, layout), 1), _two(extents_of(small.type, layout), 1)
    (R, S), (sh, sw), (dh, dw) = (_two(attrs[name], 1) for name in ("window", "stride", "dilation"))
    (top, _), (left, _) = _two(attrs["padding"], (0, 0))
    counting = attrs.get("count_include_pad", False)
    if not isinstance(counting, tuple):
        counting = attrs["padding"] if counting else ((0, 0),) * len(attrs["padding"])
    (counted_top, counted_bottom), (counted_left, counted_right) = _two(counting, (0, 0))
    return {
        "batch": large.type.shape[0], "C": large.type.shape[-1], "H": H, "W": W, "P": P, "Q": Q, "R": R, "S": S,
        "stride_h": sh, "stride_w": sw, "dilation_h": dh, "dilation_w": dw, "top": top, "left": left,
        "counted_top": counted_top, "counted_left": counted_left,
        "counted_bottom": counted_bottom, "counted_right": counted_right,
    }  # fmt: skip


def pool(graph: Graph, node: Node) -> Call | None:
    (x,), largest = node.inputs, str(node.op is pooled.max_pool).lower()
    shape = _pooling(node, node.outputs[0], x)
    if shape is None:
        return None

    def phases(p: Pointers) -> list[str]:
        arguments = f"{largest}, thread, threads, {p.operands[0]}, {p.result}, {fields('pooling_shape', shape)}"
        return [f"pooling({arguments}{p.finish});"]

    return Call(node, (*HEADERS, "pooling.h"), (dense(graph, x),), phases, finishes=True)


def pool_gradient(graph: Graph, node: Node) -> Call | None:
    """Of max pooling, from g and x; of average pooling, from g."""
    shape = _pooling(node, node.inputs[0], node.outputs[0])
    if shape is None:
        return None

    def phases(p: Pointers) -> list[str]:
        x = p.operands[1] if len(p.operands) == 2 else "0"
        arguments = f"{x}, {p.operands[0]}, {p.result}, {fields('pooling_shape', shape)}"
        return [f"pooling_gradient(thread, threads, {arguments}{p.finish});"]

    operands = tuple(dense(graph, value) for value in node.inputs)
    return Call(node, (*HEADERS, "pooling.h"), operands, phases, finishes=True)


CLAIMS = {
    OPS["pad"]: pad,
    OPS["unslice"]: unslice,
    matrix_product: matmul,
    convolution.conv: conv,
    convolution.conv_input_gradient: conv_input_gradient,
    convolution.conv_weight_gradient: conv_weight_gradient,
    pooled.max_pool: pool,
    pooled.avg_pool: pool,
    pooled.max_pool_gradient: pool_gradient,
    pooled.avg_pool_gradient: pool_gradient,
}
