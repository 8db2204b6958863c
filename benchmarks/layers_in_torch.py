"""A list of layers (benchmarks/layers.py) as a module of PyTorch. Nothing of minigraph is loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

Layer = Mapping[str, Any]
Weights = Mapping[str, np.ndarray]
CONVOLUTIONS = {
    ("conv", 1): nn.Conv1d,
    ("conv", 2): nn.Conv2d,
    ("conv", 3): nn.Conv3d,
    ("conv_transpose", 1): nn.ConvTranspose1d,
    ("conv_transpose", 2): nn.ConvTranspose2d,
    ("conv_transpose", 3): nn.ConvTranspose3d,
}
NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEANS = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


class Network(nn.Module):
    """The layers, each a module or a function. A value is let go when its last reader has it."""

    def __init__(self, layers: Sequence[Layer], weights: Weights):
        super().__init__()
        ranks = _ranks(layers, weights)
        reads = [name for layer in layers for name in layer["x"]]
        makers = {layer["y"]: layer["kind"] for layer in layers}
        last = {name: number for number, layer in enumerate(layers) for name in layer["x"]}
        self.steps: list[tuple[Callable[..., torch.Tensor], list[str], str, list[str]]] = []
        for number, layer in enumerate(layers):
            x = layer["x"][0]
            # relu may write over what nobody else reads, and the layer before it needs no more for its gradient
            over = reads.count(x) == 1 and makers.get(x) in ("batch_norm", "add", "conv", "linear")
            call = _call(layer, weights, ranks.get(x, 4), over)
            if isinstance(call, nn.Module):
                self.add_module(f"layer{number}", call)
            dead = [name for name in dict.fromkeys(layer["x"]) if last[name] == number]
            self.steps.append((call, list(layer["x"]), layer["y"], dead))
        self.input = layers[0]["x"][0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {self.input: x}
        for call, reads, name, dead in self.steps:
            x = call(*[values[read] for read in reads])
            for read in dead:
                del values[read]
            values[name] = x
        return x


def _ranks(layers: Sequence[Layer], weights: Weights) -> dict[str, int]:
    """The number of axes of each value."""
    ranks: dict[str, int] = {}
    for layer in layers:
        x, y, kind = layer["x"][0], layer["y"], layer["kind"]
        if kind in ("conv", "conv_transpose"):
            ranks[x] = ranks[y] = weights[layer["weight"]].ndim
        elif kind in ("flatten", "global_avg_pool", "linear"):
            ranks[y] = 2
        else:
            ranks[y] = ranks[x]
    return ranks


def _call(layer: Layer, weights: Weights, rank: int, over: bool) -> Callable[..., torch.Tensor]:
    kind = layer["kind"]
    if kind in ("conv", "conv_transpose"):
        return _convolution(layer, weights, rank - 2)
    if kind == "linear":
        weight, bias = weights[layer["weight"]], layer["bias"]
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        return _filled(linear, weight=weight, bias=weights.get(bias))
    if kind == "batch_norm":
        gamma, beta = weights[layer["gamma"]], weights[layer["beta"]]
        norm = NORMS[rank](len(gamma), eps=layer["eps"], momentum=layer["momentum"])
        mean, var = weights[layer["running_mean"]], weights[layer["running_var"]]
        return _filled(norm, weight=gamma, bias=beta, running_mean=mean, running_var=var)
    if kind in ("max_pool", "avg_pool"):
        return _pool(layer)
    return {
        "add": lambda: torch.add,
        "concat": lambda: lambda *xs: torch.cat(xs, layer["axis"]),
        "flatten": lambda: nn.Flatten(),
        "global_avg_pool": lambda: lambda x: x.mean(tuple(range(2, rank))),
        "pad": lambda: _pad(layer),
        "relu": lambda: nn.ReLU(inplace=over),
        "relu6": lambda: nn.ReLU6(inplace=over),
        "sigmoid": lambda: nn.Sigmoid(),
        "slice": lambda: _slice(layer),
    }[kind]()


def _filled(module: nn.Module, **arrays: np.ndarray | None) -> nn.Module:
    with torch.no_grad():
        for name, array in arrays.items():
            if array is not None:
                getattr(module, name).copy_(torch.tensor(array))
    return module


def _convolution(layer: Layer, weights: Weights, axes: int) -> nn.Module:
    weight, bias, turned = weights[layer["weight"]], layer["bias"], layer["kind"] == "conv_transpose"
    groups, padding = layer["groups"], [before for before, _ in layer["padding"]]
    given = {
        "stride": tuple(layer["stride"]),
        "padding": tuple(padding),
        "dilation": tuple(layer["dilation"]),
        "groups": groups,
        "bias": bias is not None,
    }
    if turned:
        given["output_padding"] = tuple(layer["output_padding"])
    make = CONVOLUTIONS[layer["kind"], axes]
    inputs, outputs = (weight.shape[0], weight.shape[1] * groups) if turned else (weight.shape[1] * groups, len(weight))
    module = _filled(make(inputs, outputs, weight.shape[2:], **given), weight=weight, bias=weights.get(bias))
    more = [after - before for before, after in layer["padding"]]
    if not any(more):
        return module
    if turned:
        raise ValueError(f"{layer['y']}: PyTorch pads both sides of a transposed convolution alike")
    return nn.Sequential(_Padded(more), module)


class _Padded(nn.Module):
    """More zeros behind than before: so many."""

    def __init__(self, more: Sequence[int]):
        super().__init__()
        self.widths = [width for after in reversed(more) for width in (0, after)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x, self.widths)


def _pool(layer: Layer) -> nn.Module:
    axes, padding = len(layer["window"]), [before for before, _ in layer["padding"]]
    if any(before != after for before, after in layer["padding"]):
        raise ValueError(f"{layer['y']}: PyTorch pads both sides of a pooling alike")
    window, stride = tuple(layer["window"]), tuple(layer["stride"])
    if layer["kind"] == "max_pool":
        return POOLS[axes](window, stride, tuple(padding), tuple(layer["dilation"]))
    if any(step != 1 for step in layer["dilation"]):
        raise ValueError(f"{layer['y']}: PyTorch has no mean of a dilated window")
    return MEANS[axes](window, stride, tuple(padding), count_include_pad=layer["count_include_pad"])


def _pad(layer: Layer) -> Callable[[torch.Tensor], torch.Tensor]:
    if layer["mode"] != "constant":
        raise ValueError(f"{layer['y']}: it is padded by {layer['mode']}")
    widths = [width for pair in reversed(layer["widths"]) for width in pair]
    while widths[-2:] == [0, 0]:  # axes in front that are not padded need no mention
        widths = widths[:-2]
    return lambda x: nn.functional.pad(x, widths, value=layer["value"])


def _slice(layer: Layer) -> Callable[[torch.Tensor], torch.Tensor]:
    where = tuple(map(slice, layer["start"], layer["stop"], layer["step"]))
    return lambda x: x[where]
