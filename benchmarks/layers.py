"""A network as a list of layers that other frameworks have, too: what they are told of a graph.

A layer is a dict of strings, numbers and lists, as JSON has them: its kind, the names of the values that it reads
("x", a list), the one that it makes ("y"), the names of its weights, and its settings. A convolution and a matrix
product have their bias, a batch norm its running statistics. Shapes are those of one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import minigraph as mg
from minigraph.core.errors import expect
from minigraph.core.ir import Node, Value

Layer = dict[str, Any]
OUTPUT = "logits"
SAME = {"relu", "relu6", "sigmoid", "add", "concat", "pad", "slice"}  # those that are told as they are


def layers_of(model: mg.Graph, batch: int) -> list[Layer]:
    """The layers that make the logits of a model, in order; the last one makes them, and the first reads the input.

    The loss is the mean cross entropy of the logits; GraphError where it is not, and for an op that has no layer here.
    """
    graph = model.bind(N=batch)
    loss = graph.producer[graph.outputs["loss"]]
    plain = loss.op.name == "cross_entropy" and loss.inputs[0] is graph.outputs[OUTPUT]
    settings = (loss.attrs.get("reduction"), loss.attrs.get("ignore_index"), loss.attrs.get("label_smoothing"))
    expect(plain and settings == ("mean", None, 0.0), "others are told of a mean cross entropy, not of {}", loss)
    return _Told(graph.prune([OUTPUT])).layers()


class _Told:
    """names: what a value is called, which is the layer's name where one layer stands for several nodes."""

    def __init__(self, graph: mg.Graph):
        self.graph = graph
        self.parameters = {variable.value for variable in graph.state}
        self.names: dict[Value, str] = {value: value.name for value in graph.inputs}
        self.told: dict[str, Layer] = {}

    def layers(self) -> list[Layer]:
        for node in self.graph.nodes:
            name = node.op.name
            if name in ("count", "fill", "running_average") or self._parameter(node.outputs[0]):
                continue  # they belong to a batch norm, or turn a weight round
            if name == "add" and self._is_bias(node):
                continue
            special: Callable[[Node], Layer] | None = getattr(self, f"_{name}", None)
            expect(special is not None or name in SAME, "{} is no layer that others are told of", name)
            self._tell(node, special(node) if special else {"kind": name, **node.attrs})
        return list(self.told.values())

    def _tell(self, node: Node, layer: Layer) -> None:
        read = [value for value in node.inputs if value in self.names]
        name = self.names[node.outputs[0]] = node.outputs[0].name
        self.told[name] = {**layer, "x": [self.names[value] for value in read], "y": name}

    def _parameter(self, value: Value) -> str | None:
        """The name of the parameter that this value is, or that it is but for its shape."""
        while value in self.graph.producer and self.graph.producer[value].op.name in ("reshape", "transpose"):
            value = self.graph.producer[value].inputs[0]
        return value.name if value in self.parameters else None

    def _is_bias(self, node: Node) -> bool:
        """Whether a parameter is added to what a layer made that takes one and has none yet; then it has it."""
        x, bias = node.inputs[0], self._parameter(node.inputs[1])
        layer = self.told.get(self.names.get(x, ""))
        takes = layer is not None and layer.get("bias", "") is None and len(self.graph.readers[x]) == 1
        if not (takes and layer is not None and bias):
            return False
        layer["bias"] = bias
        self.names[node.outputs[0]] = self.names[x]
        return True

    def _conv(self, node: Node) -> Layer:
        return {"kind": node.op.name, "weight": node.inputs[1].name, "bias": None, **_channels_first(node)}

    _conv_transpose = _conv

    def _max_pool(self, node: Node) -> Layer:
        return {"kind": node.op.name, **_channels_first(node)}

    _avg_pool = _max_pool

    def _matmul(self, node: Node) -> Layer:
        weight = self._parameter(node.inputs[1])
        expect(weight is not None, "{} is no linear layer: its second factor is no parameter", node)
        return {"kind": "linear", "weight": weight, "bias": None}

    def _batch_norm(self, node: Node) -> Layer:
        expect(node.attrs["axis"] == 1, "{} has its channels along another axis than 1", node)
        running = {}
        for old, new in self.graph.updates.items():
            average = self.graph.producer[new]
            if average.op.name == "running_average" and average.inputs[1] in node.outputs:
                running[("running_mean", "running_var")[node.outputs.index(average.inputs[1]) - 1]] = old.name
                momentum = self.graph.producer[average.inputs[3]].attrs["value"]
        gamma, beta = (value.name for value in node.inputs[1:])
        eps = node.attrs["eps"]
        return {"kind": "batch_norm", "gamma": gamma, "beta": beta, **running, "eps": eps, "momentum": momentum}

    def _mean(self, node: Node) -> Layer:
        pixels = tuple(range(2, node.inputs[0].type.rank))
        plain = tuple(node.attrs["axes"]) == pixels and not node.attrs["keepdims"]
        expect(plain, "{} is no mean over the pixels", node)
        return {"kind": "global_avg_pool"}

    def _reshape(self, node: Node) -> Layer:
        x, y = node.inputs[0].type, node.outputs[0].type
        expect(y.rank == 2 and x.shape[0] == y.shape[0], "{} does not flatten", node)
        return {"kind": "flatten"}


def _channels_first(node: Node) -> Layer:
    expect(node.attrs["layout"].startswith("NC"), "{} is not channels first", node)
    return {name: value for name, value in node.attrs.items() if name != "layout"}
