"""Which nodes the tuned kernels compute, in float32 or narrow floats, and the form of a graph that they ask for."""

from __future__ import annotations

from minigraph.backends.calls import Call, Claim
from minigraph.backends.cupy.claims.called import Ask, called
from minigraph.backends.cupy.claims.conv import conv, conv_input_gradient, conv_weight_gradient
from minigraph.backends.cupy.claims.matmul import matmul
from minigraph.backends.layout import as_read, channels_last
from minigraph.core.dtypes import NARROW
from minigraph.core.ir import Graph, Node
from minigraph.ops import conv as convolution
from minigraph.ops.matmul import matmul as matrix_product

SERVED = ("float32", *NARROW)


def claim(graph: Graph, node: Node) -> Call | None:
    """The call of tuned kernels, or None where there are none for this node."""
    how = CLAIMS.get(node.op)
    served = {value.type.dtype for value in (*node.inputs, *node.outputs)} in ({dtype} for dtype in SERVED)
    call = how(graph, node) if how is not None and served else None
    return call if call is not None and call.is_countable else None


def claims(ask: Ask) -> Claim:
    """The same, after libraries were asked."""

    def of_either(graph: Graph, node: Node) -> Call | None:
        return called(graph, node, ask) or claim(graph, node)

    return of_either


def laid_out(graph: Graph) -> Graph:
    """A lowered graph in the form that the kernels ask for: channels last."""
    return as_read(channels_last(graph))


CLAIMS = {
    matrix_product: matmul,
    convolution.conv: conv,
    convolution.conv_input_gradient: conv_input_gradient,
    convolution.conv_weight_gradient: conv_weight_gradient,
}
