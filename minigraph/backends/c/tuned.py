"""Which nodes the tuned float32 kernels compute, and how they are called.

A matrix product reads its right side packed in panels as wide as a few vectors; a convolution lies channels last, its
padding is there physically (lowering made it a node), and its weight is packed. What does not change from step to step
is packed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigraph.backends.c.threads import threads
from minigraph.backends.calls import Call, Operand, Pack, Pointers, dense, operand
from minigraph.backends.layout import channels_last, with_halos
from minigraph.backends.loops import size_text
from minigraph.core.dim import Size, known, product
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import OPS
from minigraph.ops import conv as convolution
from minigraph.ops import pool as pooled
from minigraph.ops.matmul import matmul as matrix_product
from minigraph.ops.window import extents_of

MOST_LANES = 16
HEADERS = ("vector.h", "tile.h", "pack.h")


def claim(graph: Graph, node: Node) -> Call | None:
    """The call of a tuned kernel, or None where there is none for this node."""
    how = CLAIMS.get(node.op)
    floats = all(value.type.dtype == "float32" for value in (*node.inputs, *node.outputs))
    return how(graph, node) if how is not None and floats else None


def serves(node: Node) -> bool:
    """Whether the convolutions here compute it, once its padding is a node."""
    layout = node.attrs["layout"]
    floats = all(value.type.dtype == "float32" for value in (*node.inputs, *node.outputs))
    return floats and layout[-1] == "C" and len(layout) <= 4 and (node.attrs["groups"] == 1 or is_depthwise(node))


def laid_out(graph: Graph) -> Graph:
    """A lowered graph in the layouts that the kernels ask for: channels last, halos around what is convolved."""
    return with_halos(channels_last(graph), serves)


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


def packed(number: int, K: int, C: int, R: int, S: int, apart: Mapping[str, Size]) -> Pack:
    """A weight of K results, C channels and a window R x S, whose numbers lie `apart` along k, c, r and s."""
    width = f"{vectors(K)} * LANES"
    shape = fields("pack_shape", {"K": K, "C": C, "R": R, "S": S, **apart, "width": width})
    return Pack(number, panels(K) * C * R * S, "pack", shape)


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
    packs = {} if as_it_lies else {"weight": packed(1, N, known(K, "K"), 1, 1, _apart(b_column, b_row, 0, 0))}

    def phases(p: Pointers) -> list[str]:
        right = p.operands[1] if as_it_lies else p.packs["weight"]
        return [
            f"gemm(thread, threads, {p.operands[0]}, {right}, {p.result}, {fields('gemm_shape', shape)}{p.finish});"
        ]

    return Call(node, (*HEADERS, "gemm.h"), (a, b), phases, packs, finishes=True)


def _apart(k: Size, c: Size, r: Size, s: Size) -> dict[str, Size]:
    return {"w_k": k, "w_c": c, "w_r": r, "w_s": s}


# convolutions


def _two(numbers: Any, missing: Any) -> tuple[Any, Any]:
    """Height and width of one or two spatial axes."""
    return tuple(numbers) if len(numbers) == 2 else (missing, numbers[0])


def _geometry(x: Value, y: Value, window: Any, attrs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields that convolutions share; None where the kernels do not serve it."""
    layout = attrs["layout"]
    padded = any(n for pair in attrs["padding"] for n in pair)
    if layout[-1] != "C" or len(layout) > 4 or padded:
        return None
    (H, W), (P, Q) = _two(extents_of(x.type, layout), 1), _two(extents_of(y.type, layout), 1)
    if not all(isinstance(n, int) for n in (H, W, P, Q)):
        return None
    (R, S), (sh, sw), (dh, dw) = _two(window, 1), _two(attrs["stride"], 1), _two(attrs["dilation"], 1)
    C, K = x.type.shape[-1], y.type.shape[-1]
    return {
        "batch": x.type.shape[0], "C": C, "K": K, "P": P, "Q": Q, "R": R, "S": S,
        "stride_h": sh, "stride_w": sw, "dilation_h": dh, "dilation_w": dw,
        "x_image": H * W * C, "x_row": W * C, "y_image": P * Q * K, "y_row": Q * K, "y_pixel": K,
        "vectors": vectors(K),
    }  # fmt: skip


def _window_strides(w: Operand, rank: int) -> dict[str, Size]:
    """How far apart the numbers of a weight (K, C, ...) lie."""
    k, c, *window = strides(w, rank)
    r, s = _two(window, 0)
    return _apart(k, c, r, s)


def conv(graph: Graph, node: Node) -> Call | None:
    x, w = node.inputs
    shape = _geometry(x, node.outputs[0], w.type.shape[2:], node.attrs)
    if shape is None or 0 in w.type.shape:
        return None
    if node.attrs["groups"] != 1:
        return _depthwise(graph, node, shape) if is_depthwise(node) else None
    weight = operand(graph, w)
    tile = winograd_tile(node, shape)
    if tile and (turned := _is_turned(weight, shape)) is not None:
        return _winograd(graph, node, shape, tile, weight, turned)
    apart = _window_strides(weight, w.type.rank)
    packs = {"weight": packed(1, shape["K"], shape["C"], shape["R"], shape["S"], apart)}

    def phases(p: Pointers) -> list[str]:
        arguments = f"{p.operands[0]}, {p.packs['weight']}, {p.result}, {fields('conv_direct_shape', shape)}"
        return [f"conv_direct(thread, threads, {arguments}{p.finish});"]

    return Call(node, (*HEADERS, "conv_direct.h"), (dense(graph, x), weight), phases, packs, finishes=True)


def conv_weight_gradient(graph: Graph, node: Node) -> Call | None:
    x, g = node.inputs
    shape = _geometry(x, g, node.attrs["window"], node.attrs)
    if shape is None or 0 in node.outputs[0].type.shape:
        return None
    if node.attrs["groups"] != 1:
        return _depthwise_gradient(graph, node, shape) if is_depthwise(node) else None
    if tile := winograd_tile(node, shape):
        return _winograd_gradient(graph, node, shape, tile)
    C, K, R, S = (shape[name] for name in "CKRS")
    turned = fields("pack_shape", {"K": K, "C": C, "R": R, "S": S, **_apart(C * R * S, R * S, S, 1), "width": K})

    def phases(p: Pointers) -> list[str]:
        sums = f"{p.operands[0]}, {p.operands[1]}, {p.scratch}, {K}, {shape['vectors']} * LANES"
        first = f"conv_direct_weights(thread, threads, {sums}, {fields('conv_direct_shape', shape)}, 0, 0);"
        return [first, f"unpack(thread, threads, {p.scratch}, {p.result}, {turned});"]

    operands = (dense(graph, x), dense(graph, g))
    return Call(node, (*HEADERS, "conv_direct.h"), operands, phases, scratch=R * S * C * K)


# convolutions of each channel by itself


def is_depthwise(node: Node) -> bool:
    """Whether each group of a convolution, or of one of its gradients, has one channel of the input."""
    weight = node.outputs[0] if node.op is convolution.conv_weight_gradient else node.inputs[1]
    return node.attrs["groups"] != 1 and weight.type.shape[1] == 1


def _depthwise_fields(shape: Mapping[str, Any]) -> str:
    found = {name: value for name, value in shape.items() if name not in ("K", "vectors")}
    return fields("conv_depthwise_shape", {**found, "multiplier": shape["K"] // shape["C"], "summed": 1})


def _depthwise(graph: Graph, node: Node, shape: Mapping[str, Any]) -> Call:
    x, weight = dense(graph, node.inputs[0]), operand(graph, node.inputs[1])
    K, R, S = (shape[name] for name in "KRS")
    apart = _window_strides(weight, node.inputs[1].type.rank)
    width = f"({K} + LANES - 1) / LANES * LANES"
    panel = fields("pack_shape", {"K": K, "C": 1, "R": R, "S": S, **apart, "width": width})
    packs = {"weight": Pack(1, _up(K, MOST_LANES) * R * S, "pack", panel)}

    def phases(p: Pointers) -> list[str]:
        arguments = f"{p.operands[0]}, {p.packs['weight']}, {p.result}, {_depthwise_fields(shape)}"
        return [f"conv_depthwise(thread, threads, {arguments}{p.finish});"]

    return Call(node, (*HEADERS, "conv_depthwise.h"), (x, weight), phases, packs, finishes=True)


def _depthwise_gradient(graph: Graph, node: Node, shape: Mapping[str, Any]) -> Call:
    K, R, S = (shape[name] for name in "KRS")
    turned = fields("pack_shape", {"K": K, "C": 1, "R": R, "S": S, **_apart(R * S, R * S, S, 1), "width": K})

    def phases(p: Pointers) -> list[str]:
        arguments = f"{p.operands[0]}, {p.operands[1]}, {p.scratch}, {_depthwise_fields(shape)}, 0, 0"
        first = f"conv_depthwise_weights(thread, threads, {arguments});"
        return [first, f"unpack(thread, threads, {p.scratch}, {p.result}, {turned});"]

    operands = tuple(dense(graph, value) for value in node.inputs)
    return Call(node, (*HEADERS, "conv_depthwise.h"), operands, phases, scratch=R * S * K)


# Winograd's convolutions

BLOCK = 56  # tiles that go through a kernel at a time: their transforms stay in the cache
PARTS = 4  # of the sums over tiles, where there are few channels: so many threads share them


def winograd_tile(node: Node, shape: Mapping[str, Any]) -> int:
    """The results in a row of a tile: 4 or, where images are small, 2, which errs less; 0 where it does not pay."""
    three = (shape["R"], shape["S"]) == (3, 3) and {*node.attrs["stride"], *node.attrs["dilation"]} == {1}
    if not three or min(shape["C"], shape["K"]) < MOST_LANES or min(shape["P"], shape["Q"]) < 4:
        return 0
    return 4 if min(shape["P"], shape["Q"]) >= 8 else 2


def _is_turned(weight: Operand, shape: Mapping[str, Any]) -> bool | None:
    """Whether a weight lies turned by half a turn, inputs and outputs exchanged; None if it lies in another way."""
    C, K = shape["C"], shape["K"]
    apart = strides(weight, 4)
    if apart == [9 * C, 9, 3, 1] and weight.access.offset == 0:
        return False
    return True if apart == [9, 9 * K, -3, -1] and weight.access.offset == 8 else None


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def _winograd_fields(shape: Mapping[str, Any], tile: int) -> dict[str, Any]:
    names = {"batch": "batch", "rows": "P", "columns": "Q", "channels": "C", "outputs": "K"}
    found = {name: shape[source] for name, source in names.items()}
    found.update(x_image=shape["x_image"], x_row=shape["x_row"])
    return {**found, "tile": tile, "vectors": shape["vectors"], "block": BLOCK}


def _winograd_scratch(C: int, K: int, tile: int) -> int:
    """Floats that one thread works in."""
    return (tile + 2) ** 2 * (BLOCK * (_up(C, MOST_LANES) + panels(K)) + 32)


def _winograd(graph: Graph, node: Node, shape: Mapping[str, Any], tile: int, weight: Operand, turned: bool) -> Call:
    C, K = shape["C"], shape["K"]
    weights = {"channels": C, "outputs": K, "tile": tile, "vectors": shape["vectors"], "turned": str(turned).lower()}
    transform = fields("winograd_weights_shape", weights)
    first = -8 if turned else 0  # the operand begins at the tap that is read first; the kernel counts from the last
    packs = {"weight": Pack(1, (tile + 2) ** 2 * panels(K) * C, "winograd_weights", transform, first)}
    each = _winograd_scratch(C, K, tile)
    whole = {**_winograd_fields(shape, tile), "y_image": shape["y_image"], "y_row": shape["y_row"], "scratch": each}
    order = (
        "batch",
        "rows",
        "columns",
        "channels",
        "outputs",
        "x_image",
        "x_row",
        "y_image",
        "y_row",
        "tile",
        "vectors",
    )
    text_of_shape = fields("winograd_shape", {name: whole[name] for name in (*order, "block", "scratch")})

    def phases(p: Pointers) -> list[str]:
        return [p.shared("winograd", [p.operands[0], p.packs["weight"], p.result, p.scratch], text_of_shape, p.finish)]

    operands = (dense(graph, node.inputs[0]), weight)
    return Call(node, (*HEADERS, "winograd.h"), operands, phases, packs, each * threads(), finishes=True)


def _winograd_gradient(graph: Graph, node: Node, shape: Mapping[str, Any], tile: int) -> Call:
    C, K = shape["C"], shape["K"]
    parts = PARTS if max(C, K) <= 64 else 1
    sums = _up(parts * (tile + 2) ** 2 * (_up(C, 16) * panels(K) + 16), 16)
    each = _winograd_scratch(C, K, tile)
    whole = {**_winograd_fields(shape, tile), "dy_image": shape["y_image"], "dy_row": shape["y_row"]}
    whole.update(parts=parts, scratch=each)
    order = (
        "batch",
        "rows",
        "columns",
        "channels",
        "outputs",
        "x_image",
        "x_row",
        "dy_image",
        "dy_row",
        "tile",
        "vectors",
    )
    text_of_shape = fields(
        "winograd_gradient_shape", {name: whole[name] for name in (*order, "block", "parts", "scratch")}
    )

    def phases(p: Pointers) -> list[str]:
        x, g = p.operands
        pointers = [x, g, p.scratch, f"{p.scratch} + {sums}"]
        return [
            p.shared("winograd_gradient", pointers, text_of_shape, ""),
            p.shared("winograd_gradient_finish", [p.scratch, p.result], text_of_shape, ", 0, 0"),
        ]

    operands = (dense(graph, node.inputs[0]), dense(graph, node.inputs[1]))
    headers = (*HEADERS, "winograd.h", "winograd_gradient.h")
    return Call(node, headers, operands, phases, scratch=sums + each * threads())


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
        shape = {"batch": product(sizes[:-1]), "C": 1, "H": 1, "W": sizes[-1], "rows": 1, "columns": larger[-1]}
        shape.update(top=0, left=start[-1], step_h=1, step_w=step[-1])
    elif x.type.rank in (3, 4) and (sizes[0], sizes[-1]) == (larger[0], larger[-1]):
        (H, W), (rows, columns) = _two(sizes[1:-1], 1), _two(larger[1:-1], 1)
        (top, left), (step_h, step_w) = _two(start[1:-1], 0), _two(step[1:-1], 1)
        shape = {"batch": sizes[0], "C": sizes[-1], "H": H, "W": W, "rows": rows, "columns": columns}
        shape.update(top=top, left=left, step_h=step_h, step_w=step_w)
    else:
        return None

    def phases(p: Pointers) -> list[str]:
        return [f"halo(thread, threads, {p.operands[0]}, {p.result}, {fields('halo_shape', shape)});"]

    return Call(node, ("halo.h",), (dense(graph, x),), phases)


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
    convolution.conv_weight_gradient: conv_weight_gradient,
    pooled.max_pool: pool,
    pooled.avg_pool: pool,
    pooled.max_pool_gradient: pool_gradient,
    pooled.avg_pool_gradient: pool_gradient,
}
