"""Sums. In ONNX a bias is a part of the convolution, or of the matrix product, that it is added to."""

from __future__ import annotations

from minigraph.core.ir import Node, Type, Value
from minigraph.onnx.draft import Draft, writes
from minigraph.onnx.expression import held
from minigraph.ops.pointwise import add


@writes(add)
def write_add(draft: Draft, node: Node, x: str, y: str) -> str:
    one, other = node.inputs
    for name, value, shift, form in ((x, one, y, other.type), (y, other, x, one.type)):
        if value in draft.read_once:
            found = _convolved(draft, name, value.type, shift, form) or _multiplied(draft, name, value, shift, form)
            if found:
                return found
    return held("Add")(draft, one.type.dtype, x, y)


def _convolved(draft: Draft, name: str, image: Type, shift: str, form: Type) -> str:
    """The convolution once more, with one number for each channel as its bias; "" where it is none."""
    maker = draft.maker(name)
    if maker is None or maker.op_type not in ("Conv", "ConvTranspose") or len(maker.input) > 2:
        return ""
    for_channels = (image.shape[1], *(1,) * (image.rank - 2))
    if form.shape not in (for_channels, (1, *for_channels)):
        return ""
    return draft.again(maker, draft.reshape(shift, form.shape, (image.shape[1],)))


def _multiplied(draft: Draft, name: str, value: Value, shift: str, form: Type) -> str:
    """The product of two matrices with one number for each column; "" where it is none."""
    maker, product = draft.maker(name), value.type
    if maker is None or maker.op_type != "MatMul" or product.rank != 2 or form.shape != product.shape[1:]:
        return ""
    x, y = maker.input
    source, order = draft.turned(y, 2)
    if order == (1, 0):
        return str(draft.add("Gemm", x, source, shift, transB=1))
    return str(draft.add("Gemm", x, y, shift))
