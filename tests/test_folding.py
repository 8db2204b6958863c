"""What folds and what does not: small graphs with their verdicts, held in float64 and in exact numbers.

Each row is tried in two shapes: with sizes that all differ, and with sizes that agree by accident, where whoever looks
at sizes instead of axes goes wrong. The verdict is what is left between the inputs and the outputs: batch norms, scales
(products with something frozen) and shifts (sums with something frozen; a bias is one), and the sentence that says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.core import trial
from minigraph.core.builder import Builder, Tensor
from minigraph.core.frozen import frozen
from minigraph.core.ir import Graph, Value
from minigraph.core.pipeline import Optimized, run
from minigraph.passes.pipelines import BEFORE_AUTODIFF, INFERENCE
from rules import Ranges, number, numbers, prove

Left = tuple[int, int, int]  # batch norms, scales, shifts


@dataclass(frozen=True)
class Sizes:
    batch: Any
    inputs: int
    outputs: int
    places: Any


DIFFER = Sizes(batch=3, inputs=4, outputs=2, places=5)
AGREE = Sizes(batch=2, inputs=4, outputs=4, places=4)
FEW = Sizes(batch=1, inputs=2, outputs=4, places=3), Sizes(batch=2, inputs=2, outputs=2, places=2)  # for deep ones


class Draft:
    """A graph under construction, in sizes that are not known here."""

    def __init__(self, sizes: Sizes):
        self.net, self.sizes = Builder("folding"), sizes

    def x(
        self, rank: int = 1, last: bool = False, name: str = "x", channels: int = 0, dtype: str = "float32"
    ) -> Tensor:
        """Images with so many spatial axes: (N, C, L, ...), or with the channels last."""
        s, c = self.sizes, channels or self.sizes.inputs
        places = (s.places,) * rank
        return self.net.input(name, (s.batch, *places, c) if last else (s.batch, c, *places), dtype)

    def conv(self, x: Tensor, window: Any = 1, channels: int = 0, **options: Any) -> Tensor:
        options = {"bias": False, **options}
        layer = {3: layers.conv1d, 4: layers.conv2d, 5: layers.conv3d}[x.rank]
        return layer(x, channels or self.sizes.outputs, window, **options)

    def up(self, x: Tensor, window: Any = 1, **options: Any) -> Tensor:
        options = {"bias": False, **options}
        layer = {3: layers.conv_transpose1d, 4: layers.conv_transpose2d}[x.rank]
        return layer(x, self.sizes.outputs, window, **options)

    def linear(self, x: Tensor, features: int = 0, bias: bool = False, **options: Any) -> Tensor:
        return layers.linear(x, features or self.sizes.outputs, bias=bias, **options)

    def weight(self, name: str, *shape: Any) -> Tensor:
        return number(self.net, name, *shape)


def bn(x: Tensor, axis: int = 1, **options: Any) -> Tensor:
    return layers.batch_norm(x, axis=axis, **options)


@dataclass(frozen=True)
class Row:
    """left: in both shapes; a pair of verdicts where they differ. why: what some refusal says.

    fired: rules that have to be among those that fired. frozen=False: as it is, not the graph of inference.
    """

    name: str
    build: Callable[[Draft], Any]
    left: Left
    why: str = ""
    fired: tuple[str, ...] = ()
    ranges: Ranges = field(default_factory=dict)
    sizes: tuple[Sizes, ...] = (DIFFER, AGREE)
    frozen: bool = True
    exact: bool = True


def graph_of(row: Row, sizes: Sizes) -> Graph:
    draft = Draft(sizes)
    built = row.build(draft)
    outputs: Mapping[str, Tensor] = built if isinstance(built, Mapping) else {"y": built}
    return draft.net.build(outputs)


def left(graph: Graph) -> Left:
    still = frozen(graph)
    moves: Callable[[Value], bool] = lambda value: value not in still and value.type.rank > 1
    with_frozen = [n for n in graph.nodes if moves(n.outputs[0]) and any(v in still for v in n.inputs)]
    norms = [n for n in graph.nodes if n.op in (mg.batch_norm, mg.batch_norm_inference)]
    return len(norms), len([n for n in with_frozen if n.op is mg.mul]), len([n for n in with_frozen if n.op is mg.add])


POSITIVE = {"bn1.gamma": (0.5, 2.0), "bn2.gamma": (0.5, 2.0)}
NEGATIVE = {"bn1.gamma": (-2.0, -0.5)}
NO_SHIFT = dict.fromkeys(("bn1.beta", "bn1.running_mean"), (0.0, 0.0))


# into what comes before


def twice(d: Draft) -> Any:
    """One convolution layer, called on two inputs, a batch norm of its own behind each."""
    found = {}
    for name in ("a", "b"):
        x = d.x(name=f"x.{name}")
        with d.net.scope("shared", share=True):
            y = d.conv(x, 2)
        found[name] = bn(y)
    return found


def both_twice(d: Draft) -> Any:
    """Convolution and batch norm, both called on two inputs."""
    found = {}
    for name in ("a", "b"):
        x = d.x(name=f"x.{name}")
        with d.net.scope("shared", share=True):
            found[name] = bn(d.conv(x, 2), frozen=True)
    return found


def two_norms(d: Draft) -> Any:
    y = d.conv(d.x(), 2)
    return {"a": bn(y), "b": mg.tanh(bn(y))}


def shared_weight(d: Draft) -> Any:
    """A weight of two convolutions, one of them without a batch norm."""
    w = d.weight("w", d.sizes.outputs, d.sizes.inputs, 2)
    return {"a": bn(mg.conv(d.x(), w)), "b": mg.conv(d.x(name="z"), w, padding=1)}


def weight_given_out(d: Draft) -> Any:
    w = d.weight("w", d.sizes.outputs, d.sizes.inputs, 2)
    return {"y": bn(mg.conv(d.x(), w)), "decay": mg.sum(w * w), "w": w}


def tied(d: Draft) -> Any:
    """One matrix that goes in and, transposed, out again."""
    w = d.weight("w", d.sizes.inputs, d.sizes.outputs)
    h = mg.tanh(bn(mg.matmul(d.x(0), w)))
    return bn(mg.matmul(h, mg.transpose(w)))


def standardized(d: Draft) -> Any:
    """A weight with mean 0 and deviation 1, computed from what is learned."""
    w = d.weight("w", d.sizes.outputs, d.sizes.inputs, 2)
    centered = w - mg.mean(w, (1, 2), keepdims=True)
    return bn(mg.conv(d.x(), centered / mg.sqrt(mg.mean(centered * centered, (1, 2), keepdims=True) + 0.5)))


def moving_weight(d: Draft) -> Any:
    w = d.weight("w", d.sizes.outputs, d.sizes.inputs, 2)
    d.net.update(w, mg.tanh(w))
    return bn(mg.conv(d.x(), w), frozen=True)


def given_weight(d: Draft) -> Any:
    w = d.net.input("w", (d.sizes.outputs, d.sizes.inputs, 2))
    return bn(mg.conv(d.x(), w))


def left_matmul(d: Draft) -> Any:
    return bn(mg.matmul(d.weight("w", d.sizes.outputs, d.sizes.inputs), d.x()))


def mixed(d: Draft) -> Any:
    """Features become (channels, places): the norm's channels are not those of the product."""
    n = d.sizes.outputs
    y = d.linear(d.x(0), 2 * n)
    return bn(mg.reshape(y, (-1, n, 2)))


def mixed_back(d: Draft) -> Any:
    """(N, C, L) is read as (N, L, C): no transposition, and the channels are mixed."""
    y = d.conv(d.x(), 1)
    return bn(mg.reshape(y, (y.shape[0], y.shape[2], y.shape[1])), axis=2)


def split_rows(d: Draft) -> Any:
    """(N·L, F) becomes (N, L, F): the features stay an axis of their own."""
    s = d.sizes
    y = d.linear(d.net.input("x", (s.batch * s.places, s.inputs)))
    return bn(mg.reshape(y, (s.batch, s.places, s.outputs)), axis=-1)


def joined(d: Draft, *widths: int, axis: int = 1) -> Tensor:
    x = d.x()
    return mg.concat([d.conv(x, 2, width) for width in widths], axis=axis)


def joined_with_input(d: Draft) -> Any:
    x = d.x()
    return bn(mg.concat([d.conv(x, 1), x], axis=1))


def residual_branch(d: Draft) -> Any:
    x = d.x()
    return mg.relu(bn(d.conv(x, 1, d.sizes.inputs)) + x)


def residual_block(d: Draft) -> Any:
    """Two convolutions and a projection, each with a batch norm."""
    x = d.x(2)
    h = mg.relu(bn(d.conv(x, 3, padding=1)))
    return mg.relu(bn(d.conv(h, 3, padding=1)) + bn(d.conv(x, 1)))


def norm_behind_sum(d: Draft) -> Any:
    x = d.x()
    return bn(d.conv(x, 2) + d.conv(x, 2))


def norm_behind_sum_with_input(d: Draft) -> Any:
    x = d.x()
    return bn(d.conv(x, 1, d.sizes.inputs) + x)


def activated(op: Callable[[Tensor], Tensor], **options: Any) -> Callable[[Draft], Any]:
    return lambda d: bn(op(d.conv(d.x(), 2, **options)))


def read_elsewhere(d: Draft) -> Any:
    y = d.conv(d.x(), 2)
    return {"y": bn(y), "z": y}


def gated(d: Draft) -> Any:
    """Squeeze and excite: a product of two things that move."""
    y = d.conv(d.x(), 2)
    return bn(y * mg.sigmoid(mg.mean(y, 2, keepdims=True)))


def attention(d: Draft) -> Any:
    x = d.x()
    return bn(mg.matmul(mg.transpose(x, (0, 2, 1)), x))


def pieces(d: Draft) -> Any:
    """Half of the channels each for two batch norms."""
    y = d.conv(d.x(), 2)
    half = d.sizes.outputs // 2
    return {"a": bn(y[:, :half]), "b": bn(y[:, half:])}


def flattened(d: Draft) -> Any:
    y = d.conv(d.x(), 2)
    return bn(mg.reshape(y, (y.shape[0], -1)))


def scaled_places(d: Draft) -> Any:
    """A learned number for each place, and then for each channel."""
    y = d.conv(d.x(), 1)
    return bn(y * d.weight("map", d.sizes.places))


def typed(dtype: str) -> Callable[[Draft], Any]:
    return lambda d: mg.relu(bn(d.conv(d.x(2, dtype=dtype), 3, padding=1, bias=True)))


def mobile(d: Draft) -> Any:
    """Expansion, depthwise, projection, and the way around."""
    x = d.x(2)
    h = mg.relu6(bn(d.conv(x, 1)))
    h = mg.relu6(bn(layers.depthwise_conv2d(h, 3, padding=1, bias=False)))
    return bn(d.conv(h, 1, d.sizes.inputs)) + x


def dropped(d: Draft) -> Any:
    return bn(layers.dropout(d.conv(d.x(), 2), 0.5))


def auxiliary(d: Draft) -> Any:
    """A chain, and an output in the middle of it."""
    h = mg.relu(bn(d.conv(d.x(), 2)))
    return {"middle": h, "y": bn(d.conv(h, 2))}


BIAS, BARE, KEPT = (0, 0, 1), (0, 0, 0), (0, 1, 1)
ODD = Sizes(batch=3, inputs=2, outputs=4, places=7)
EMPTY = Sizes(batch=0, inputs=2, outputs=4, places=5)
SYMBOLS = Sizes(batch="N", inputs=2, outputs=4, places="L")
BATCH = Sizes(batch="N", inputs=2, outputs=4, places=3)

BEFORE = [
    Row("1-D convolution", lambda d: bn(d.conv(d.x(1), 2)), BIAS, fired=("scale-and-shift", "scale-into-weight")),
    Row("2-D convolution", lambda d: bn(d.conv(d.x(2), 2)), BIAS),
    Row("3-D convolution", lambda d: bn(d.conv(d.x(3), (1, 2, 1), stride=2)), BIAS),
    Row("convolution with a bias", lambda d: bn(d.conv(d.x(), 2, bias=True)), BIAS, fired=("merge-shifts",)),
    Row("grouped", lambda d: bn(d.conv(d.x(2), 2, groups=2)), BIAS),
    Row("depthwise", lambda d: bn(layers.depthwise_conv2d(d.x(2), 2, bias=False)), BIAS),
    Row("depthwise, two each", lambda d: bn(layers.depthwise_conv2d(d.x(2), 2, multiplier=2)), BIAS),
    Row("dilated", lambda d: bn(d.conv(d.x(2), 2, dilation=(2, 3))), BIAS),
    Row("strided", lambda d: bn(d.conv(d.x(2), 3, stride=2, padding=1)), BIAS),
    Row("padded", lambda d: bn(d.conv(d.x(2), 3, padding=1)), BIAS),
    Row("padded on one side", lambda d: bn(d.conv(d.x(2), 2, padding=((1, 0), (0, 1)))), BIAS),
    Row("channels last, 1-D", lambda d: bn(d.conv(d.x(1, last=True), 2, layout="NLC"), -1), BIAS),
    Row("channels last, 2-D", lambda d: bn(d.conv(d.x(2, last=True), 2, layout="NHWC", bias=True), 3), BIAS),
    Row("channels last, 3-D", lambda d: bn(d.conv(d.x(3, last=True), (1, 1, 2), stride=2, layout="NDHWC"), 4), BIAS),
    Row("channels last, grouped", lambda d: bn(d.conv(d.x(2, last=True), 2, layout="NHWC", groups=2), 3), BIAS),
    Row("transposed", lambda d: bn(d.up(d.x(2), 2)), BIAS),
    Row("transposed and grouped", lambda d: bn(d.up(d.x(2), 2, groups=2)), BIAS),
    Row(
        "transposed, grouped, strided, with a bias", lambda d: bn(d.up(d.x(1), 3, groups=2, stride=2, bias=True)), BIAS
    ),
    Row("transposed, channels last", lambda d: bn(d.up(d.x(2, last=True), 2, groups=2, layout="NHWC"), 3), BIAS),
    Row("linear", lambda d: bn(d.linear(d.x(0))), BIAS),
    Row("linear with a bias", lambda d: bn(d.linear(d.x(0), bias=True)), BIAS),
    Row("linear on rows", lambda d: bn(d.linear(d.x(1, last=True)), -1), BIAS),
    Row("weight on the left", left_matmul, BIAS),
    Row(
        "norm of the rows of a linear layer",
        lambda d: bn(d.linear(d.x(1, last=True)), 1),
        KEPT,
        "not the output channels",
    ),
    Row("norm of the places", lambda d: bn(d.conv(d.x(), 1), 2), KEPT, "not the output channels of conv1"),
    Row(
        "norm of the rows, channels last", lambda d: bn(d.conv(d.x(2, last=True), 1, layout="NHWC"), 1), KEPT, "axis 3"
    ),
    Row("reshape that mixes the channels", mixed, KEPT, "reshape"),
    Row("reshape that is no transposition", mixed_back, KEPT, "channels|reshape"),
    Row("reshape that keeps the features", split_rows, BIAS),
    Row("flattened", flattened, KEPT, "reshape"),
    Row("transposed channels", lambda d: bn(mg.transpose(d.conv(d.x(2), 2), (0, 2, 3, 1)), -1), BIAS),
    Row("two norms in a row", lambda d: bn(bn(d.conv(d.x(), 2))), BIAS),
    Row("three norms in a row", lambda d: bn(bn(bn(d.conv(d.x(), 2, bias=True)))), BIAS),
    Row("chain", lambda d: mg.relu(bn(d.conv(mg.relu(bn(d.conv(d.x(), 2))), 2))), (0, 0, 2)),
    Row("output in the middle of a chain", auxiliary, (0, 0, 2)),
    Row("concatenation of two", lambda d: bn(joined(d, 1, 3)), (0, 0, 2), fired=("scale-each-branch",)),
    Row("concatenation of three", lambda d: bn(joined(d, 2, 1, 3)), (0, 0, 3)),
    Row("concatenation of places", lambda d: bn(joined(d, 4, 4, axis=2)), (0, 0, 2)),
    Row("concatenation with an input", joined_with_input, KEPT, "x is an input, with no weight before it"),
    Row("branch of a residual sum", residual_branch, BIAS),
    Row("residual block", residual_block, (0, 0, 3), sizes=FEW),
    Row("behind a sum of convolutions", norm_behind_sum, BIAS, fired=("scale-both-branches",)),
    Row("behind a sum with an input", norm_behind_sum_with_input, KEPT, "x is an input"),
    Row("max pool, positive", activated(lambda y: mg.max_pool(y, 2)), BIAS, ranges=POSITIVE),
    Row("max pool, negative", activated(lambda y: mg.max_pool(y, 2)), KEPT, "only positive scales", ranges=NEGATIVE),
    Row(
        "max pool, of both signs",
        activated(lambda y: mg.max_pool(y, 2)),
        KEPT,
        "only positive scales pass through max_",
        sizes=(AGREE,),
    ),
    Row("ReLU, positive", activated(mg.relu), BIAS, ranges=POSITIVE, fired=("scale-through",)),
    Row("ReLU, positive, with a bias", activated(mg.relu, bias=True), (0, 0, 2), ranges=POSITIVE),
    Row("ReLU, negative", activated(mg.relu), KEPT, "only positive scales pass through relu", ranges=NEGATIVE),
    Row("leaky ReLU, positive", activated(lambda y: mg.leaky_relu(y, 0.25)), BIAS, ranges=POSITIVE),
    Row("relu6", activated(mg.relu6), KEPT, "through which no scale passes", ranges=POSITIVE),
    Row("tanh", activated(mg.tanh), KEPT, r"tanh.*through which no scale passes", ranges=POSITIVE),
    Row("softmax", activated(lambda y: mg.softmax(y, 1)), KEPT, "no scale passes", exact=False),
    Row("average pool", activated(lambda y: mg.avg_pool(y, 2)), BIAS),
    Row("average pool with padding", activated(lambda y: mg.avg_pool(y, 3, padding=1)), BIAS),
    Row(
        "average pool that counts padding",
        activated(lambda y: mg.avg_pool(y, 3, padding=1, count_include_pad=True)),
        BIAS,
        "no shift of axis 1 passes through avg_pool",
    ),
    Row("global average", lambda d: bn(mg.mean(d.conv(d.x(2), 2), (2, 3))), BIAS),
    Row("average over the channels", lambda d: bn(mg.mean(d.conv(d.x(2), 2), 1)), KEPT),
    Row("zero padding", activated(lambda y: mg.pad(y, ((0, 0), (0, 0), (1, 1)))), BIAS),
    Row("padding with ones", activated(lambda y: mg.pad(y, ((0, 0), (0, 0), (1, 1)), value=1.0)), KEPT),
    Row("enlarged", lambda d: bn(mg.resize(d.conv(d.x(), 1), 2 * d.sizes.places, mode="nearest")), BIAS),
    Row("first places", activated(lambda y: y[:, :, :2]), BIAS),
    Row("dropout, which is gone", dropped, BIAS),
    Row("scaled by a number", activated(lambda y: y * 3.0), BIAS),
    Row("shifted by a number", activated(lambda y: y + 3.0), BIAS),
    Row("scaled for each place", scaled_places, KEPT),
    Row("gated by itself", gated, KEPT, "product of two values that are not frozen"),
    Row("product of two inputs", attention, KEPT, "no factor of matmul"),
    Row("halves of the channels", pieces, (0, 2, 2), "slice"),
    Row("gamma absent", lambda d: bn(d.conv(d.x(), 2), gamma=False), BIAS),
    Row("beta absent", lambda d: bn(d.conv(d.x(), 2), beta=False), BIAS),
    Row("gamma and beta absent", lambda d: bn(d.conv(d.x(), 2), gamma=False, beta=False), BIAS),
    Row("gamma zero", lambda d: bn(d.conv(d.x(), 2)), BIAS, ranges={"bn1.gamma": (0, 0)}),
    Row("gamma negative", lambda d: bn(d.conv(d.x(), 2)), BIAS, ranges=NEGATIVE),
    Row("variance zero", lambda d: bn(d.conv(d.x(), 2)), BIAS, ranges={"bn1.running_var": (0, 0)}),
    Row("eps large", lambda d: bn(d.conv(d.x(), 2), eps=1e3), BIAS),
    Row("eps tiny", lambda d: bn(d.conv(d.x(), 2), eps=1e-12), BIAS),
    Row("norm of an input", lambda d: bn(d.x()), KEPT, "x is an input, with no weight before it"),
    Row("one convolution read by two norms", two_norms, (0, 2, 2), "is read by"),
    Row("a convolution called twice", twice, (0, 0, 2)),
    Row("convolution and norm called twice", both_twice, (0, 0, 2)),
    Row("a weight of two convolutions", shared_weight, BIAS),
    Row("a weight that is given out", weight_given_out, BIAS),
    Row("tied weights", tied, (0, 0, 2)),
    Row("a weight that is computed", standardized, BIAS),
    Row("a weight that is learned", moving_weight, KEPT, "no factor of conv .*is frozen", frozen=False),
    Row("a weight that is an input", given_weight, KEPT, "no factor of conv .*is frozen"),
    Row("read elsewhere", read_elsewhere, KEPT, "is read by .*output 'z'"),
    Row("statistics of the batch", lambda d: bn(d.conv(d.x(), 2, bias=True)), (1, 0, 1), frozen=False),
    Row("no running statistics", lambda d: bn(d.conv(d.x(), 2), track=False), (1, 0, 0)),
    Row("layer norm", lambda d: layers.layer_norm(d.linear(d.x(0))), BARE),
    Row("group norm", lambda d: layers.group_norm(d.conv(d.x(), 2), 2), BARE),
    Row("float16", typed("float16"), BIAS, sizes=FEW),
    Row("float64", typed("float64"), BIAS, sizes=FEW),
    Row("inverted residual", mobile, (0, 0, 3), sizes=FEW),
    Row("empty batch", residual_block, (0, 0, 3), sizes=(EMPTY,)),
    Row("odd sizes", lambda d: bn(d.conv(d.x(2), 3, stride=(3, 2), padding=((2, 0), (1, 1)))), BIAS, sizes=(ODD,)),
    Row("sizes that are not known", lambda d: mg.relu(bn(d.conv(d.x(2), 3, padding=1))), BIAS, sizes=(SYMBOLS,)),
    Row("batch that is not known", lambda d: mg.relu(bn(d.conv(d.x(2), 3, padding=1))), BIAS, sizes=(BATCH,)),
]


# into what comes after


def two_readers(d: Draft) -> Any:
    y = bn(d.x())
    return {"a": d.conv(y, 2), "b": mg.tanh(d.conv(y, 1))}


def also_around(d: Draft) -> Any:
    y = bn(d.x())
    return d.conv(y, 1, d.sizes.inputs) + y


def given_out(d: Draft) -> Any:
    y = bn(d.x())
    return {"y": d.conv(y, 2), "normal": y}


def dense_head(d: Draft) -> Any:
    return d.linear(mg.mean(bn(d.x(2)), (2, 3)))


def preactivation(d: Draft) -> Any:
    """norm, relu, conv, twice, and around: the first norm of a residual network that normalizes first."""
    x = d.x()
    h = d.conv(mg.relu(bn(x)), 1)
    return d.conv(mg.relu(bn(h)), 1, d.sizes.inputs) + x


def shared_behind(d: Draft) -> Any:
    """A weight of two convolutions, one behind a norm."""
    x, w = d.x(), d.weight("w", d.sizes.outputs, d.sizes.inputs, 2)
    return {"a": mg.conv(bn(x), w), "b": mg.conv(x, w)}


def sum_of_norms(d: Draft) -> Any:
    return d.conv(bn(d.x()) + bn(d.x(name="z")), 2)


AFTER = [
    Row("then a convolution", lambda d: d.conv(bn(d.x()), 2), BIAS, fired=("scale-into-next-weight",)),
    Row("then one with a bias", lambda d: d.conv(bn(d.x(2)), 2, bias=True), BIAS),
    Row("then 3-D", lambda d: d.conv(bn(d.x(3)), (1, 1, 2), stride=2), BIAS),
    Row("then grouped", lambda d: d.conv(bn(d.x(2)), 2, groups=2), BIAS),
    Row("then depthwise", lambda d: layers.depthwise_conv2d(bn(d.x(2)), 2, bias=False), BIAS),
    Row("then depthwise, two each", lambda d: layers.depthwise_conv2d(bn(d.x(2)), 2, multiplier=2), BIAS),
    Row("then dilated and strided", lambda d: d.conv(bn(d.x(2)), 2, dilation=2, stride=2), BIAS),
    Row("then channels last", lambda d: d.conv(bn(d.x(2, last=True), -1), 2, layout="NHWC", groups=2), BIAS),
    Row("then padded", lambda d: d.conv(bn(d.x(2)), 3, padding=1), BIAS),
    Row("then padded and grouped", lambda d: d.conv(bn(d.x(2)), 3, padding=1, groups=2), BIAS),
    Row("then padded, shift zero", lambda d: d.conv(bn(d.x(2)), 3, padding=1), BARE, ranges=NO_SHIFT, sizes=FEW),
    Row(
        "then padded, size not known",  # the scale goes, and a shift stays
        lambda d: d.conv(bn(d.x(2)), 3, padding=1),
        BIAS,
        "pads an image whose size is not known",
        sizes=(SYMBOLS,),
    ),
    Row("then a convolution, size not known", lambda d: d.conv(bn(d.x(2)), 2), BIAS, sizes=(SYMBOLS,)),
    Row("then transposed", lambda d: d.up(bn(d.x(2)), 2), BIAS),
    Row("then transposed, grouped, strided", lambda d: d.up(bn(d.x(1)), 3, groups=2, stride=2), BIAS),
    Row("then linear", lambda d: d.linear(bn(d.x(0))), BIAS),
    Row("then linear on rows", lambda d: d.linear(bn(d.x(1, last=True), -1)), BIAS),
    Row("norm of rows, then linear", lambda d: d.linear(bn(d.x(1, last=True), 1)), KEPT, "input channels"),
    Row("norm of places, then a convolution", lambda d: d.conv(bn(d.x(), 2), 1), KEPT, "input channels"),
    Row("then flattened, then linear", lambda d: d.linear(mg.reshape(bn(d.x()), (d.sizes.batch, -1))), BIAS),
    Row("then a global average, then linear", dense_head, BIAS),
    Row("then ReLU, then a convolution", lambda d: d.conv(mg.relu(bn(d.x())), 2), KEPT),
    Row("normalizes first", preactivation, (0, 1, 2)),
    Row("read by two convolutions", two_readers, (0, 0, 2)),
    Row("also read around it", also_around, KEPT, "which does not take it up"),
    Row("also given out", given_out, KEPT, "output 'normal'"),
    Row("weight shared with another input", shared_behind, BIAS),
    Row("then max pool, positive", lambda d: d.conv(mg.max_pool(bn(d.x()), 2), 1), BIAS, ranges=POSITIVE),
    Row("then max pool, negative", lambda d: d.conv(mg.max_pool(bn(d.x()), 2), 1), KEPT, ranges=NEGATIVE),
    Row("between two convolutions", lambda d: d.conv(bn(d.conv(d.x(), 1)), 2), BIAS),
    Row("gamma zero, then a convolution", lambda d: d.conv(bn(d.x()), 2), BIAS, ranges={"bn1.gamma": (0, 0)}),
    Row("float16, then a convolution", lambda d: d.conv(bn(d.x(dtype="float16")), 2), BIAS),
    Row("empty batch, then a convolution", lambda d: d.conv(bn(d.x()), 2), BIAS, sizes=(EMPTY,)),
]


# away, before the gradient is taken


def biased(d: Draft, rank: int = 1, **options: Any) -> Tensor:
    return d.conv(d.x(rank), 2, bias=True, **options)


def bias_of_two(d: Draft) -> Any:
    """One bias, before a batch norm and elsewhere."""
    x, b = d.x(0), d.weight("b", d.sizes.outputs)
    return {"y": bn(d.linear(x) + b), "z": d.linear(x) + b}


def residual_with_biases(d: Draft) -> Any:
    x = d.x()
    return bn(d.conv(x, 2, bias=True) + d.conv(x, 2, bias=True))


def concat_with_biases(d: Draft) -> Any:
    x = d.x()
    return bn(mg.concat([d.conv(x, 2, 1, bias=True), d.conv(x, 2, 3, bias=True)], axis=1))


def bias_read_elsewhere(d: Draft) -> Any:
    y = biased(d)
    return {"y": bn(y), "z": mg.tanh(y)}


def bias_given_out(d: Draft) -> Any:
    y = biased(d)
    return {"y": bn(y), "z": y}


def bias_of_two_norms(d: Draft) -> Any:
    y = biased(d)
    return {"a": bn(y), "b": bn(y)}


def norm_twice(d: Draft) -> Any:
    """One batch norm on two inputs: its running mean moves twice."""
    found = {}
    for name in ("a", "b"):
        x = d.x(name=f"x.{name}")
        with d.net.scope("shared", share=True):
            found[name] = bn(d.conv(x, 2, bias=True))
    return found


def kept(d: Draft) -> Tensor:
    """(N, C, L, L) as (N, C, L·L)."""
    y = biased(d, 2)
    return mg.reshape(y, (*y.shape[:2], -1))


GONE = (1, 0, 0)
STAYS = (1, 0, 1)
AWAY = [
    Row("bias of a 1-D convolution", lambda d: bn(biased(d)), GONE, fired=("drop-bias",)),
    Row("bias of a 2-D convolution", lambda d: bn(biased(d, 2, padding=1)), GONE),
    Row("bias of a 3-D convolution", lambda d: bn(d.conv(d.x(3), (1, 1, 2), stride=2, bias=True)), GONE),
    Row("bias, channels last", lambda d: bn(d.conv(d.x(2, last=True), 2, layout="NHWC", bias=True), -1), GONE),
    Row("bias of a depthwise one", lambda d: bn(layers.depthwise_conv2d(d.x(2), 2)), GONE),
    Row("bias of a transposed one", lambda d: bn(d.up(d.x(2), 2, groups=2, bias=True)), GONE),
    Row("bias of a linear layer", lambda d: bn(d.linear(d.x(0), bias=True)), GONE),
    Row("bias of a linear layer on rows", lambda d: bn(d.linear(d.x(1, last=True), bias=True), -1), GONE),
    Row("features and norm of rows", lambda d: bn(d.linear(d.x(1, last=True), bias=True), 1), STAYS, "axis"),
    Row("bias, norm of places", lambda d: bn(d.conv(d.x(), 1, bias=True), 2), STAYS, "axis"),
    Row("biases of a sum", residual_with_biases, GONE),
    Row("biases of a concatenation", concat_with_biases, GONE),
    Row("bias, max pool", lambda d: bn(mg.max_pool(biased(d), 2)), GONE),
    Row("bias, average pool", lambda d: bn(mg.avg_pool(biased(d), 2)), GONE),
    Row("bias, average pool with padding", lambda d: bn(mg.avg_pool(biased(d), 3, padding=1)), GONE),
    Row(
        "bias, average pool that counts padding",
        lambda d: bn(mg.avg_pool(biased(d), 3, padding=1, count_include_pad=True)),
        STAYS,
        "padding",
    ),
    Row("bias, scaled channels", lambda d: bn(biased(d) * d.weight("s", d.sizes.outputs, 1)), (1, 1, 0)),
    Row("bias, scaled places", lambda d: bn(d.conv(d.x(), 1, bias=True) * d.weight("s", d.sizes.places)), (1, 1, 1)),
    Row("bias, reshape that keeps the channels", lambda d: bn(kept(d)), GONE),
    Row("bias, transposed channels", lambda d: bn(mg.transpose(biased(d, 2), (0, 2, 3, 1)), -1), GONE),
    Row("bias, ReLU", lambda d: bn(mg.relu(biased(d))), STAYS, "relu"),
    Row("bias, dropout", lambda d: bn(layers.dropout(biased(d), 0.5)), STAYS, "dropout"),
    Row("bias, zero padding", lambda d: bn(mg.pad(biased(d), ((0, 0), (0, 0), (1, 0)))), STAYS, "pad"),
    Row("bias read elsewhere", bias_read_elsewhere, STAYS, "tanh"),
    Row("bias given out", bias_given_out, STAYS, "output 'z'"),
    Row("bias of two norms", bias_of_two_norms, (2, 0, 0)),
    Row("one norm, two convolutions", norm_twice, (2, 0, 0)),
    Row("bias shared with another layer", bias_of_two, STAYS),
    Row("bias, running statistics", lambda d: bn(biased(d), frozen=True), STAYS),
    Row("bias, layer norm", lambda d: layers.layer_norm(d.linear(d.x(0), bias=True)), BIAS),
    Row("bias, group norm", lambda d: layers.group_norm(biased(d), 2), BIAS),
    Row("bias, instance norm", lambda d: layers.instance_norm(d.conv(d.x(2), 2, bias=True)), BIAS),
    Row("bias, no running statistics", lambda d: bn(biased(d), track=False), GONE),
    Row("bias, cumulative statistics", lambda d: bn(biased(d), momentum=None), GONE, exact=False),
    Row("bias, float16", lambda d: bn(d.conv(d.x(dtype="float16"), 2, bias=True)), GONE),
    Row("beta, convolution, norm", lambda d: bn(d.conv(bn(d.x()), 2)), (2, 0, 0), fired=("beta-is-a-bias",)),
    Row("beta, padded convolution, norm", lambda d: bn(d.conv(bn(d.x()), 3, padding=1)), (2, 0, 0), "padding"),
    Row("beta, ReLU, convolution, norm", lambda d: bn(d.conv(mg.relu(bn(d.x())), 2)), (2, 0, 0)),
    Row("bias, two batches unlike", lambda d: bn(biased(d)), GONE, sizes=(BATCH,)),
]


ROWS = [(INFERENCE, row) for row in (*BEFORE, *AFTER)] + [(BEFORE_AUTODIFF, row) for row in AWAY]
TRIED = [
    pytest.param(pipeline, row, sizes, id=f"{row.name}-{'agree' if sizes.inputs == sizes.places else 'differ'}")
    for pipeline, row in ROWS
    for sizes in row.sizes
]


def optimized(pipeline: Any, row: Row, sizes: Sizes) -> tuple[Optimized, dict[str, np.ndarray]]:
    graph = graph_of(row, sizes)
    if pipeline is INFERENCE and row.frozen:
        graph = mg.inference(graph)
    state = numbers(graph, row.ranges)
    return run(pipeline, graph, state), state


def test_there_are_enough_rows_and_no_name_stands_twice() -> None:
    assert len(ROWS) >= 80
    assert len({row.name for _, row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("pipeline", "row", "sizes"), TRIED)
def test_the_verdict(pipeline: Any, row: Row, sizes: Sizes) -> None:
    found, _ = optimized(pipeline, row, sizes)
    assert left(found.graph) == row.left, "\n".join(map(str, [*found.refused, found.graph]))
    assert set(row.fired) <= {fired.rule for step in found.steps for fired in step.fired}
    if row.why:
        assert matching(row.why, [refused.why for refused in found.refused])


def matching(pattern: str, sentences: list[str]) -> bool:
    return any(re.search(pattern, sentence) for sentence in sentences)


@pytest.mark.parametrize(("pipeline", "row", "sizes"), TRIED)
def test_it_is_exact(pipeline: Any, row: Row, sizes: Sizes) -> None:
    """Outputs, running statistics, and the gradients of both."""
    found, _ = optimized(pipeline, row, sizes)
    if row.exact and found.graph is not found.source:
        ordered = any(fact.answer for fact in found.facts)
        prove(found.source, found.graph, row.ranges, ordered, draws=3)  # each rule alone is proved with more


@pytest.mark.parametrize(("pipeline", "row", "sizes"), TRIED)
def test_it_agrees_in_float64(pipeline: Any, row: Row, sizes: Sizes) -> None:
    found, state = optimized(pipeline, row, sizes)
    pairs = [trial.in_float64(trial.bound(graph, {})[0]) for graph in (found.source, found.graph)]
    arrays = trial.draw(pairs[0], np.random.default_rng(1), state, 1.0)
    one, other = (trial.run(graph, arrays) for graph in pairs)
    for a, b in zip(ends(pairs[0]), ends(pairs[1]), strict=True):
        assert trial.difference(one[a], other[b]) < trial.Tolerance.RELATIVE


def ends(graph: Graph) -> list[Value]:
    return [*graph.outputs.values(), *graph.updates.values()]


@pytest.mark.parametrize(("pipeline", "row", "sizes"), TRIED)
def test_a_second_time_changes_nothing_and_what_was_given_stays(pipeline: Any, row: Row, sizes: Sizes) -> None:
    graph = graph_of(row, sizes)
    if pipeline is INFERENCE and row.frozen:
        graph = mg.inference(graph)
    state = numbers(graph, row.ranges)
    text, bytes_ = str(graph), {name: array.tobytes() for name, array in state.items()}
    found = run(pipeline, graph, state)
    assert str(graph) == text
    assert {name: array.tobytes() for name, array in state.items()} == bytes_
    assert list(found.graph.outputs) == list(graph.outputs)
    assert list(found.graph.updates) == list(graph.updates)
    assert found.graph.inputs == graph.inputs
    assert run(pipeline, found.graph, state).graph is found.graph


# what numbers of a machine do


def answers(graph: Graph, state: Mapping[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As it is written, and optimized."""
    as_written, folded = (mg.compile(graph, mg.State(state), pipeline=pipeline) for pipeline in ((), None))
    return as_written(x=x)["y"], folded(x=x)["y"]


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_integers_wrap_around_and_so_nothing_passes_a_maximum(dtype: str) -> None:
    net = Builder("net")
    c, t = (net.variable(name, (3, 1, 1), mg.init.zeros, dtype) for name in "ct")
    graph = net.build(y=mg.max_pool(net.input("x", (2, 3, 4, 4), dtype) + c, 2) + t)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = np.random.default_rng(0).integers(low, high, (2, 3, 4, 4), dtype)
    one, other = answers(graph, {"c": np.full((3, 1, 1), 9, dtype), "t": np.full((3, 1, 1), high // 2, dtype)}, x)
    assert np.array_equal(one, other)


def test_integers_wrap_around_and_so_no_scale_passes_their_sizes() -> None:
    net = Builder("net")
    table, s = (net.variable(name, shape, mg.init.zeros, "int8") for name, shape in (("T", (5, 3)), ("s", (3,))))
    graph = net.build(y=mg.abs(mg.gather(table, net.input("x", (4,), "int64"), axis=0)) * s)
    rows = np.arange(-105, 105, 14).astype("int8").reshape(5, 3)
    one, other = answers(graph, {"T": rows, "s": np.array([2, 3, 5], "int8")}, np.array([0, 1, 3, 4]))
    assert np.array_equal(one, other)


@pytest.mark.parametrize(("dtype", "tiny"), [("float16", 1e-5), ("float32", 1e-40), ("float64", 1e-310)])
def test_no_shift_is_divided_by_a_scale_that_is_almost_zero(dtype: str, tiny: float) -> None:
    """As weight decay leaves the scales of channels that do nothing."""
    net = Builder("net")
    s, t, w = (number(net, n, *shape, dtype=dtype) for n, shape in (("s", (2, 1)), ("t", (2, 1)), ("w", (3, 2, 3))))
    graph = net.build(y=mg.conv(mg.relu(net.input("x", (1, 2, "L"), dtype)) * s + t, w, padding=1))
    state = {"s": np.array([[1], [tiny]], dtype), "t": np.ones((2, 1), dtype), "w": np.ones((3, 2, 3), dtype)}
    one, other = answers(graph, state, np.ones((1, 2, 5), dtype))
    assert np.array_equal(one, other)
    assert matching("far enough from zero", [r.why for r in mg.optimize(graph, state).refused])
    state["s"] = np.array([[1], [0.25]], dtype)
    assert not matching("far enough", [r.why for r in mg.optimize(graph, state).refused])


def test_a_reshape_of_nothing_into_more_columns() -> None:
    net = Builder("net")
    s, w = number(net, "s", 3), number(net, "w", 5, 2)
    graph = net.build(y=mg.reshape(net.input("x", (0, 3)) * s, (0, 5)) @ w)
    one, other = answers(graph, numbers(graph, {}), np.zeros((0, 3)))
    assert one.shape == other.shape == (0, 2)


def test_of_two_casts_in_one_the_users_rounding_is_left() -> None:
    net = Builder("rounded")
    w = mg.cast(mg.cast(net.parameter("w", (3,), mg.init.ones), "float64"), "float16")
    graph = net.build(y=net.input("x", (3,)) * mg.cast(w, "float32"))
    state = mg.State({"w": np.array([0.1, 1.23456, -3.3333], "float32")})
    program = mg.compile(graph, state)
    assert len([node for node in program.graph.nodes if node.op.name == "cast"]) == 2
    assert program(x=np.ones(3))["y"].tolist() == state["w"].astype("float16").tolist()


def one_for_all(net: Builder, op: Callable[[Tensor, float], Tensor]) -> Graph:
    y = layers.conv2d(net.input("x", (2, 3, 6, 6)), 4, 3, name="conv")
    return net.build(y=op(mg.relu(mg.max_pool(y, 2)) if op is mg.mul else mg.max_pool(y, 2), 0.5))


@pytest.mark.parametrize("op", [mg.mul, mg.add], ids=lambda op: op.name)
def test_one_number_for_all_channels_passes_a_pool(op: Callable[[Tensor, float], Tensor]) -> None:
    """It passes the pool as one number for each channel, though not as one for each place."""
    graph = one_for_all(Builder("net"), op)
    found = mg.optimize(graph, numbers(graph, {}))
    assert left(found.graph) == (0, 0, 1), found.graph
    assert found.refused == ()
    prove(graph, found.graph, {}, ordered=True, gradients=False)


def test_a_long_sum_is_no_deep_recursion() -> None:
    net = Builder("net")
    y = mg.sin(net.input("x", (2, 3)))
    for i in range(2000):
        y = y + mg.sin(net.input(f"x{i}", (2, 3)))
    graph = net.build(y=y + number(net, "t", 3))
    assert mg.optimize(graph, numbers(graph, {})).graph is graph


def test_a_shift_of_branches_of_which_one_is_frozen() -> None:
    net = Builder("net")
    y = mg.concat([layers.linear(net.input("x", (2, 3)), 4), number(net, "p", 2, 2)], axis=1)
    graph = net.build(y=y + number(net, "t", 6))
    found = mg.optimize(graph, numbers(graph, {}))
    assert left(found.graph) == (0, 0, 1), found.graph
    prove(graph, found.graph, {})


def test_passes_take_turns_until_none_finds_work() -> None:
    """Two equal products read a convolution, and become one behind the folding: then that one can be folded."""
    net = Builder("net")
    y, s = layers.conv1d(net.input("x", (2, 3, 6)), 4, 3, bias=False), number(net, "s", 4, 1)
    graph = net.build(y=mg.sin(y * s) + mg.exp(y * s))
    state = numbers(graph, {})
    found = mg.optimize(graph, state)
    assert left(found.graph) == (0, 0, 0), found.graph
    assert mg.optimize(found.graph, state).graph is found.graph
    prove(graph, found.graph, {})
