"""A list of layers (benchmarks/layers.py) in jax.numpy. Nothing of minigraph is loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Layer = Mapping[str, Any]
Arrays = Mapping[str, jax.Array]


class Network:
    """What the layers compute, as pure functions of weights.

    last: channels are the last axis inside; inputs come with the channels first all the same.
    narrow: the dtype that convolutions and products read; the dtype of their inputs where it is None.
    """

    def __init__(self, layers: Sequence[Layer], last: bool = False, narrow: Any = None):
        self.layers, self.last, self.narrow = layers, last, narrow

    def weights(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As this network reads them: with the channels last, weights of convolutions are HWIO, and others turned."""
        if not self.last:
            return dict(given)
        kinds = {layer["weight"]: layer["kind"] for layer in self.layers if "weight" in layer}
        return {name: self._turned(array, kinds.get(name)) for name, array in given.items()}

    def _turned(self, array: np.ndarray, kind: str | None) -> np.ndarray:
        if kind == "linear":
            return np.ascontiguousarray(array.T)
        if kind in ("conv", "conv_transpose"):
            return np.ascontiguousarray(np.moveaxis(array, (0, 1), (-1, -2)))
        return array

    def running(self) -> set[str]:
        """The names of what batch norms average."""
        norms = [layer for layer in self.layers if layer["kind"] == "batch_norm"]
        return {norm[name] for norm in norms for name in ("running_mean", "running_var")}

    def __call__(self, weights: Arrays, x: jax.Array, training: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The logits; and what the running statistics become."""
        moved: dict[str, jax.Array] = {}
        values = {self.layers[0]["x"][0]: jnp.moveaxis(x, 1, -1) if self.last else x}
        for layer in self.layers:
            inputs = [values[name] for name in layer["x"]]
            if layer["kind"] == "batch_norm":
                made = self._norm(layer, weights, inputs[0], moved if training else None)
            else:
                make: Callable[..., jax.Array] = getattr(self, f"_{layer['kind']}")
                made = make(layer, weights, *inputs)
            values[layer["y"]] = made
        return jnp.moveaxis(made, -1, 1) if self.last else made, moved

    def _axis(self, x: jax.Array, axis: int) -> int:
        """Where an axis of the graph is here."""
        if not self.last or axis == 0:
            return axis
        return x.ndim - 1 if axis == 1 else axis - 1

    def _along(self, x: jax.Array, given: Sequence[Any]) -> list[Any]:
        """Settings of all axes in the order of the axes here."""
        found: list[Any] = [None] * x.ndim
        for axis, setting in enumerate(given):
            found[self._axis(x, axis)] = setting
        return found

    def _pixels(self, x: jax.Array, given: Sequence[Any], other: Any) -> tuple[Any, ...]:
        """Settings of the axes of pixels, and another one for batch and channels."""
        return tuple(self._along(x, [other, other, *given]))

    def _shaped(self, x: jax.Array, channels: jax.Array) -> jax.Array:
        return channels.reshape(self._along(x, [1, -1, *[1] * (x.ndim - 2)]))

    def _norm(self, layer: Layer, weights: Arrays, x: jax.Array, moved: dict[str, jax.Array] | None) -> jax.Array:
        mean, var = weights[layer["running_mean"]], weights[layer["running_var"]]
        if moved is not None:
            others = tuple(i for i in range(x.ndim) if i != self._axis(x, 1))
            wide, count = x.astype(jnp.float32), x.size // mean.size
            momentum, before = layer["momentum"], (mean, var)
            mean, var = wide.mean(others), wide.var(others)
            for name, old, new in zip(("running_mean", "running_var"), before, (mean, var * (count / (count - 1)))):
                moved[layer[name]] = old + momentum * (new - old)
        scale = weights[layer["gamma"]] * lax.rsqrt(var + layer["eps"])
        shift = weights[layer["beta"]] - mean * scale
        return (x * self._shaped(x, scale) + self._shaped(x, shift)).astype(x.dtype)

    def _factors(self, x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        return (x, w) if self.narrow is None else (x.astype(self.narrow), w.astype(self.narrow))

    def _biased(self, layer: Layer, weights: Arrays, x: jax.Array) -> jax.Array:
        return x if layer["bias"] is None else x + self._shaped(x, weights[layer["bias"]])

    def _conv(self, layer: Layer, weights: Arrays, x: jax.Array) -> jax.Array:
        x, w = self._factors(x, weights[layer["weight"]])
        return self._biased(layer, weights, self._convolved(layer, x, w, layer["stride"], layer["padding"], None))

    def _convolved(
        self, layer: Layer, x: jax.Array, w: jax.Array, stride: Sequence[int], padding: Any, apart: Any
    ) -> jax.Array:
        pixels = "DHW"[-(x.ndim - 2) :]
        names = (f"N{pixels}C", f"{pixels}IO", f"N{pixels}C") if self.last else (f"NC{pixels}", f"OI{pixels}") * 2
        return lax.conv_general_dilated(
            x,
            w,
            stride,
            padding,
            lhs_dilation=apart,
            rhs_dilation=layer["dilation"],
            dimension_numbers=names[:3] if self.last else (names[0], names[1], names[0]),
            feature_group_count=layer["groups"],
        )

    def _conv_transpose(self, layer: Layer, weights: Arrays, x: jax.Array) -> jax.Array:
        """A convolution of the input with zeros between its pixels, and of the weight turned round."""
        assert layer["groups"] == 1
        x, w = self._factors(x, weights[layer["weight"]])
        pixels = range(x.ndim - 2) if self.last else range(2, x.ndim)
        w = jnp.flip(w.swapaxes(-1, -2) if self.last else w.swapaxes(0, 1), tuple(pixels))
        reach = [d * (w.shape[i] - 1) for d, i in zip(layer["dilation"], pixels)]
        ends = zip(reach, layer["padding"], layer["output_padding"])
        padding = [(r - before, r - after + more) for r, (before, after), more in ends]
        return self._biased(layer, weights, self._convolved(layer, x, w, [1] * len(reach), padding, layer["stride"]))

    def _linear(self, layer: Layer, weights: Arrays, x: jax.Array) -> jax.Array:
        x, w = self._factors(x, weights[layer["weight"]])
        return self._biased(layer, weights, x @ (w if self.last else w.T))

    def _max_pool(self, layer: Layer, weights: Arrays, x: jax.Array) -> jax.Array:
        pixels = self._pixels(x, layer["window"], 1)
        tiled = layer["window"] == layer["stride"] and all(size % by == 0 for size, by in zip(x.shape, pixels))
        if tiled and not np.any(layer["padding"]) and set(layer["dilation"]) == {1}:  # its gradient is cheap
            parts = [part for size, by in zip(x.shape, pixels) for part in (size // by, by)]
            return x.reshape(parts).max(tuple(range(1, len(parts), 2)))
        least = np.array(-np.inf, x.dtype)  # a constant, by which JAX knows the gradient
        return self._windows(layer, x, least, lax.max)

    def _avg_pool(self, layer: Layer, weights: Arrays, x: jax.Array) -> jax.Array:
        zero = np.array(0, x.dtype)
        sums = self._windows(layer, x, zero, lax.add)
        if layer["count_include_pad"] or not np.any(layer["padding"]):
            return sums / np.prod(layer["window"]).astype(x.dtype)
        return sums / self._windows(layer, jnp.ones_like(x), zero, lax.add)

    def _windows(self, layer: Layer, x: jax.Array, first: np.ndarray, join: Any) -> jax.Array:
        windows, strides, dilations = (self._pixels(x, layer[name], 1) for name in ("window", "stride", "dilation"))
        padding = self._pixels(x, list(map(tuple, layer["padding"])), (0, 0))
        return lax.reduce_window(x, first, join, windows, strides, padding, None, dilations)

    def _add(self, layer: Layer, weights: Arrays, x: jax.Array, y: jax.Array) -> jax.Array:
        return x + y

    def _relu(self, layer: Layer, weights: Arrays, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x)

    def _relu6(self, layer: Layer, weights: Arrays, x: jax.Array) -> jax.Array:
        return jax.nn.relu6(x)

    def _sigmoid(self, layer: Layer, weights: Arrays, x: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(x)

    def _concat(self, layer: Layer, weights: Arrays, *xs: jax.Array) -> jax.Array:
        return jnp.concatenate(xs, self._axis(xs[0], layer["axis"]))

    def _pad(self, layer: Layer, weights: Arrays, x: jax.Array) -> jax.Array:
        assert layer["mode"] == "constant"
        return jnp.pad(x, self._along(x, layer["widths"]), constant_values=layer["value"])

    def _slice(self, layer: Layer, weights: Arrays, x: jax.Array) -> jax.Array:
        return x[tuple(self._along(x, list(map(slice, layer["start"], layer["stop"], layer["step"]))))]

    def _flatten(self, layer: Layer, weights: Arrays, x: jax.Array) -> jax.Array:
        """In the order that the weights behind it know: channels first."""
        return (jnp.moveaxis(x, -1, 1) if self.last else x).reshape(len(x), -1)

    def _global_avg_pool(self, layer: Layer, weights: Arrays, x: jax.Array) -> jax.Array:
        pixels = tuple(self._axis(x, axis) for axis in range(2, x.ndim))
        return x.astype(jnp.float32).mean(pixels).astype(x.dtype)


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """The mean over the batch, and over the pixels where there are any; classes are axis 1."""
    wide = jax.nn.log_softmax(logits.astype(jnp.float32), 1)
    return -jnp.take_along_axis(wide, jnp.expand_dims(label, 1), 1).mean()
