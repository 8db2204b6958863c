"""Layouts, as nodes: images with their channels last, products as they are read, zero halos around what is convolved.

`channels_last` turns every op that has a layout, and all that is computed from its result number by number, by sums or
side by side. A transpose stands only where something else reads a turned value, or where an image comes in; transposes
are views, so that most of them cost nothing.

`as_read` makes a product of matrices in the order in which it is read.

`with_halos` makes the padding of convolutions a node. The gradient to the input of a convolution gets a halo around the
output's gradient, so that it may be read wherever a window would have reached beyond the input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from minigraph.core.builder import Builder, Tensor
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import OPS
from minigraph.core.rewrite import without_dead
from minigraph.ops import shape
from minigraph.ops.constant import count
from minigraph.ops.conv import conv, conv_input_gradient, conv_weight_gradient
from minigraph.ops.matmul import matmul
from minigraph.ops.window import extents_of


def to_last(rank: int) -> tuple[int, ...]:
    """The permutation that moves the channels behind the spatial axes."""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> tuple[int, ...]:
    return (0, rank - 1, *range(1, rank - 1))


class Rewriting:
    """A graph under reconstruction: nodes are kept or replaced in order."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.builder = Builder.extending(graph)
        self.builder.nodes = []
        self.now: dict[Value, Value] = {}

    def value(self, value: Value) -> Value:
        """What the value has become."""
        return self.now.get(value, value)

    def tensor(self, value: Value) -> Tensor:
        """The same, to build with."""
        return Tensor(self.builder, self.value(value))

    def keep(self, node: Node) -> None:
        """The node as it is, reading what its inputs have become."""
        inputs = tuple([self.value(value) for value in node.inputs])
        self.builder.append(node if inputs == node.inputs else node.reading(inputs))

    def result(self) -> Graph:
        if self.builder.nodes == list(self.graph.nodes):
            return self.graph
        ends = {name: self.value(value) for name, value in self.graph.outputs.items()}
        moved = {old: self.value(value) for old, value in self.graph.updates.items()}
        return without_dead(replace(self.graph, nodes=tuple(self.builder.nodes), outputs=ends, updates=moved))


# channels last


def channels_last(graph: Graph) -> Graph:
    """The graph with channels last wherever there are images; inputs, outputs and state stay as they are."""
    return _ChannelsLast(graph).run()


class _ChannelsLast(Rewriting):
    def __init__(self, graph: Graph):
        super().__init__(graph)
        self.turned: dict[Value, Tensor] = {}  # values whose own form is the one with channels last
        self._lasts: dict[tuple[Value, int], Tensor] = {}  # of others, for those of a rank

    def run(self) -> Graph:
        for node in self.graph.nodes:
            if node.op.images or any(value in self.turned for value in node.inputs):
                with self.builder.origin(node.origin):
                    if not self._turns(node):
                        self.keep(node)
            else:
                self.keep(node)
        return self.result()

    def value(self, value: Value) -> Value:
        """The value as it was, turned back where it is turned."""
        if value in self.turned and value not in self.now:
            back = shape.transpose(self.turned[value], to_first(value.type.rank))
            self.now[value] = back.value
        return super().value(value)

    def last(self, value: Value, rank: int) -> Tensor:
        """The value with channels last, among values of this rank; smaller ones are broadcast against them."""
        if value in self.turned:
            return self.turned[value]
        if (value, rank) not in self._lasts:
            tensor = self.tensor(value)
            if 0 < tensor.rank < rank:
                tensor = shape.reshape(tensor, (*(1,) * (rank - tensor.rank), *tensor.shape))
            self._lasts[value, rank] = shape.transpose(tensor, to_last(rank)) if tensor.shape else tensor
        return self._lasts[value, rank]

    def _turns(self, node: Node) -> bool:
        """Whether the node, of images or of what is turned, was replaced by one that computes it with channels last."""
        rank = node.outputs[0].type.rank
        if node.op.images:
            return self._turn_images(node)
        if node.op is count:
            axes = tuple(to_last(node.inputs[0].type.rank).index(axis) for axis in node.attrs["axes"])
            counted = count(self.turned[node.inputs[0]], **{**node.attrs, "axes": axes})
            self.now[node.outputs[0]] = counted.value
            return True
        if node.op.expression is not None and rank >= 3 and self._same_rank(node, rank):
            self.turned[node.outputs[0]] = node.op(*(self.last(v, rank) for v in node.inputs), **node.attrs)
            return True
        if node.op.reduction:
            return self._turn_reduction(node)
        if node.op in PER_AXIS and rank >= 3:
            attrs = {name: tuple(node.attrs[name][axis] for axis in to_last(rank)) for name in PER_AXIS[node.op]}
            self.turned[node.outputs[0]] = node.op(self.turned[node.inputs[0]], **{**node.attrs, **attrs})
            return True
        if node.op.parts is not None and all(v in self.turned for v in node.inputs):
            axis = to_last(rank).index(node.attrs["axis"])
            self.turned[node.outputs[0]] = node.op(
                *(self.turned[v] for v in node.inputs), **{**node.attrs, "axis": axis}
            )
            return True
        return False

    def _same_rank(self, node: Node, rank: int) -> bool:
        """Whether those that are turned are of the rank of the result."""
        return all(value.type.rank == rank for value in node.inputs if value in self.turned)

    def _turn_images(self, node: Node) -> bool:
        layout = node.attrs["layout"]
        if layout[-1] == "C":
            return False
        rank = len(layout)
        attrs = {**node.attrs, "layout": f"N{layout[2:]}C"}
        images = node.op.images
        inputs = [self.last(v, rank) if i in images else self.tensor(v) for i, v in enumerate(node.inputs)]
        result = node.op(*inputs, **attrs)
        if -1 in images:
            self.turned[node.outputs[0]] = result
        else:
            self.now[node.outputs[0]] = result.value
        return True

    def _turn_reduction(self, node: Node) -> bool:
        (x,) = node.inputs
        axes, keepdims = node.attrs["axes"], node.attrs["keepdims"]
        order = to_last(x.type.rank)
        made = node.op(self.turned[x], axes=tuple(order.index(axis) for axis in axes), keepdims=keepdims)
        results = dict(zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True))
        if keepdims:
            self.turned.update(results)
            return True
        left = [axis for axis in order if axis not in axes]  # where the axes of the result come from
        back = tuple(left.index(axis) for axis in sorted(left))
        for output, result in results.items():
            turned = result if back == tuple(range(len(back))) else shape.transpose(result, back)
            self.now[output] = turned.value
        return True


# Ops with attributes that have an entry for each axis.
PER_AXIS = {
    OPS["slice"]: ("start", "stop", "step"),
    OPS["unslice"]: ("shape", "start", "step"),
    OPS["pad"]: ("widths",),
}


# products


def as_read(graph: Graph) -> Graph:
    """The graph with products that are only read turned made turned: transpose(x y) = transpose(y) transpose(x).

    The gradient to the weight of a linear layer is one. What lies as the weight does, an optimizer reads by rows.
    """
    readers = Counter([value for node in graph.nodes for value in node.inputs])
    readers.update([*graph.outputs.values(), *graph.updates.values()])
    rewriting = Rewriting(graph)
    for node in graph.nodes:
        product = graph.producer.get(node.inputs[0]) if _swaps(node) else None
        if product is None or product.op is not matmul or readers[node.inputs[0]] > 1:
            rewriting.keep(node)
            continue
        with rewriting.builder.origin(product.origin):
            x, y = (_swapped(rewriting, graph, value) for value in product.inputs)
            rewriting.now[node.outputs[0]] = matmul(y, x).value
    return rewriting.result()


def _swaps(node: Node) -> bool:
    """Whether it turns matrices: exchanges the last two axes."""
    rank = node.outputs[0].type.rank
    return node.op is shape.transpose and rank >= 2 and node.attrs["axes"] == (*range(rank - 2), rank - 1, rank - 2)


def _swapped(rewriting: Rewriting, graph: Graph, value: Value) -> Tensor:
    """The matrices, turned: as they were before, if they are turned."""
    node = graph.producer.get(value)
    if node is not None and _swaps(node):
        return rewriting.tensor(node.inputs[0])
    rank = value.type.rank
    return shape.transpose(rewriting.tensor(value), (*range(rank - 2), rank - 1, rank - 2))


# halos


def with_halos(graph: Graph, serves: Callable[[Node], bool]) -> Graph:
    """The graph with physical padding for the convolutions that a backend's kernels serve so."""
    rewriting = _Halos(graph)
    for node in graph.nodes:
        if node.op not in HALOS or not serves(node):
            rewriting.keep(node)
            continue
        with rewriting.builder.origin(node.origin):
            if not HALOS[node.op](rewriting, node):
                rewriting.keep(node)
    return rewriting.result()


class _Halos(Rewriting):
    def __init__(self, graph: Graph):
        super().__init__(graph)
        self._padded: dict[
            tuple[Value, tuple[tuple[int, int], ...]], Tensor
        ] = {}  # a convolution and its gradient share

    def padded(self, x: Tensor, padding: Any, layout: str) -> Tensor:
        """x with zeros around its spatial axes."""
        if not any(map(any, padding)):
            return x
        pairs = iter(padding)
        widths = tuple((0, 0) if axis in "NC" else next(pairs) for axis in layout)
        if (x.value, widths) not in self._padded:
            self._padded[x.value, widths] = OPS["pad"](x, widths=widths)
        return self._padded[x.value, widths]


def _of_padded(rewriting: _Halos, node: Node) -> bool:
    """A convolution, or its gradient to the weight, of x with the padding around it."""
    x, other = map(rewriting.tensor, node.inputs)
    padding, layout = node.attrs["padding"], node.attrs["layout"]
    if not any(map(any, padding)):
        return False
    padded = node.op(rewriting.padded(x, padding, layout), other, **{**node.attrs, "padding": 0})
    rewriting.now[node.outputs[0]] = padded.value
    return True


def _conv_input_gradient(rewriting: _Halos, node: Node) -> bool:
    """With zeros around g, as if x had been padded further, and the windows there had got a gradient of zero."""
    g, w = map(rewriting.tensor, node.inputs)
    attrs, layout = node.attrs, node.attrs["layout"]
    pairs = gradient_halo(node)
    if pairs is None or not any(map(any, pairs)):
        return False
    padding = [(a + m * s, b + n * s) for (a, b), (m, n), s in zip(attrs["padding"], pairs, attrs["stride"])]
    padded = conv_input_gradient(rewriting.padded(g, pairs, layout), w, **{**attrs, "padding": tuple(padding)})
    rewriting.now[node.outputs[0]] = padded.value
    return True


def gradient_halo(node: Node) -> list[tuple[int, int]] | None:
    """How many zeros a gradient to the input lacks before and behind g, along each spatial axis: 0 where it has them.

    dx[h] reads g[(h + before - r * dilation) / stride] for each tap r where that is a whole number. None where the
    sizes are not known so far.
    """
    g, w = node.inputs
    attrs, found = node.attrs, []
    places, extents = extents_of(g.type, attrs["layout"]), attrs["extents"]
    for n, extent, k, s, d, (before, behind) in zip(
        places, extents, w.type.shape[2:], attrs["stride"], attrs["dilation"], attrs["padding"]
    ):
        rest = before + extent + behind - d * (k - 1) - 1 - s * (n - 1)  # what the last window leaves over
        if not isinstance(rest, int):
            return None
        first = [h + before for h in range(s)]
        last = [rest - behind + d * (k - 1) - h for h in range(s)]  # counted from the last window on
        front = max([-(at - r * d) // s for at in first for r in range(k) if (at - r * d) % s == 0], default=0)
        back = max([(at - r * d) // s for at in last for r in range(k) if (at - r * d) % s == 0], default=0)
        found.append((max(0, front), max(0, back)))
    return found


HALOS = {conv: _of_padded, conv_weight_gradient: _of_padded, conv_input_gradient: _conv_input_gradient}
