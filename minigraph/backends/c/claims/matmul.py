"""Matrix products. The right side is read packed, or as it lies where it is another at each step."""

from __future__ import annotations

from typing import Any

from minigraph.backends.c.claims.shapes import HEADERS, fields, packed, strides, vectors
from minigraph.backends.calls import Call, Pointers, operand
from minigraph.backends.loops import size_text
from minigraph.core.dim import Size
from minigraph.core.ir import Graph, Node


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
        right = p.operands[1] if as_it_lies else "weight"
        return [
            f"gemm(thread, threads, {p.operands[0]}, {right}, {p.result}, {fields('gemm_shape', shape)}{p.finish});"
        ]

    return Call(node, (*HEADERS, "gemm.h"), (a, b), phases, packs, finishes=True)
