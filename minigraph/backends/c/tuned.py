"""Which nodes the tuned float32 kernels compute, and the form of a graph that they ask for."""

from __future__ import annotations

from minigraph.backends.c.claims.conv import conv, conv_input_gradient, conv_weight_gradient
from minigraph.backends.c.claims.halo import pad, unslice
from minigraph.backends.c.claims.matmul import matmul
from minigraph.backends.c.claims.pool import pool, pool_gradient
from minigraph.backends.c.claims.shapes import MOST_LANES
from minigraph.backends.calls import Call
from minigraph.backends.groups import regrouped
from minigraph.backends.layout import as_read, channels_last, with_halos
from minigraph.core.ir import Graph, Node
from minigraph.core.op import OPS
from minigraph.ops import conv as convolution
from minigraph.ops import pool as pooled
from minigraph.ops.matmul import matmul as matrix_product


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
    return with_halos(regrouped(as_read(channels_last(graph)), serves, MOST_LANES), serves)


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
