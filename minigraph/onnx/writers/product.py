"""Matrix products."""

from __future__ import annotations

from minigraph.core.ir import Node
from minigraph.onnx.draft import Draft, writes
from minigraph.ops.matmul import matmul


@writes(matmul)
def write_matmul(draft: Draft, node: Node, x: str, y: str) -> str:
    return draft.add("MatMul", x, y)
