"""The networks in JAX: each op of the model in jax.numpy, the gradient by JAX, the whole step under jit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the others are in the same process

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import minigraph as mg
from benchmarks.on_gpu.networks import MOMENTUM, RATE, Case

SCALE = 1024.0  # of the loss in float16
Arrays = Mapping[str, jax.Array]


def conv(x, w, *, stride, padding, dilation, groups, layout):
    assert layout == "NCHW"
    return lax.conv_general_dilated(x, w, stride, padding, rhs_dilation=dilation, feature_group_count=groups)


def batch_norm(x, gamma, beta, *, axis, eps):
    wide = x.astype(jnp.float32)
    others = tuple(i for i in range(x.ndim) if i != axis)
    mean, var = wide.mean(others), wide.var(others)
    return normalized(x, gamma, beta, mean, var, axis, eps), mean, var


def normalized(x, gamma, beta, mean, var, axis, eps):
    scale = gamma * lax.rsqrt(var + eps)
    shape = tuple(-1 if i == axis else 1 for i in range(x.ndim))
    return (x * scale.reshape(shape) + (beta - mean * scale).reshape(shape)).astype(x.dtype)


def max_pool(x, *, window, stride, padding, dilation, layout):
    assert layout == "NCHW"
    windows, strides, dilations = ((1, 1, *given) for given in (window, stride, dilation))
    least = np.array(-np.inf, x.dtype)  # a constant, by which JAX knows the gradient
    return lax.reduce_window(x, least, lax.max, windows, strides, ((0, 0), (0, 0), *padding), None, dilations)


def cross_entropy(logits, label, **attrs):
    wide = logits.astype(jnp.float32)
    return -jnp.take_along_axis(jax.nn.log_softmax(wide), label[:, None], 1).mean()


def running_average(running, batch, count, momentum, *, unbiased):
    return running + momentum * ((batch * (count / (count - 1)) if unbiased else batch) - running)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "argmax": lambda x, axis, keepdims: x.argmax(axis),
    "batch_norm": batch_norm,
    "batch_norm_inference": lambda x, gamma, beta, mean, var, axis, eps: normalized(
        x, gamma, beta, mean, var, axis, eps
    ),
    "conv": conv,
    "count": lambda x, axes, dtype: jnp.array(math.prod(x.shape[i] for i in axes), dtype),
    "cross_entropy": cross_entropy,
    "fill": lambda shape, value, dtype: jnp.full(shape, value, dtype),
    "matmul": lambda x, y: x @ y,
    "max_pool": max_pool,
    "mean": lambda x, axes, keepdims: x.astype(jnp.float32).mean(axes).astype(x.dtype),
    "pad": lambda x, widths, mode, value: jnp.pad(x, widths, constant_values=value),
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "reshape": lambda x, shape: x.reshape(shape),
    "running_average": running_average,
    "slice": lambda x, start, stop, step: x[tuple(map(slice, start, stop, step))],
    "transpose": lambda x, axes: x.transpose(axes),
}


def values(graph: mg.Graph, given: Arrays, half: bool) -> dict[Any, Any]:
    """All values of a graph. half: convolutions and products read float16."""
    found: dict[Any, Any] = {}
    for value in (*graph.inputs, *(variable.value for variable in graph.state)):
        found[value] = given[value.name]
    for node in graph.nodes:
        inputs = [found[value] for value in node.inputs]
        if half and node.op.name in ("conv", "matmul"):
            inputs = [x.astype(jnp.float16) for x in inputs]
        made = FUNCTIONS[node.op.name](*inputs, **node.attrs)
        found.update(zip(node.outputs, made if isinstance(made, tuple) else (made,)))
    return found


class Training:
    """A step of SGD with momentum."""

    def __init__(self, case: Case, state: mg.State, precision: str):
        graph, self.half = case.model().prune(["loss"]).bind(N=case.batch), precision == "float16"
        moves = {old.name: new for old, new in graph.updates.items()}
        self.data = {name: jnp.asarray(array) for name, array in case.data().items()}
        weights = {v.name for v in graph.state if v.kind == "parameter"}
        self.weights = {name: jnp.asarray(array) for name, array in state.items() if name in weights}
        self.rest = {name: jnp.asarray(array) for name, array in state.items() if name not in weights}
        self.slots = {name: jnp.zeros_like(w) for name, w in self.weights.items()}
        scale = SCALE if self.half else 1.0

        def loss(weights: Arrays, rest: Arrays, data: Arrays) -> Any:
            found = values(graph, {**weights, **rest, **data}, self.half)
            return found[graph.outputs["loss"]] * scale, {name: found[new] for name, new in moves.items()}

        def step(weights: Arrays, rest: Arrays, slots: Arrays, data: Arrays) -> Any:
            (found, moved), gradients = jax.value_and_grad(loss, has_aux=True)(weights, rest, data)
            slots = jax.tree.map(lambda v, g: MOMENTUM * v + g / scale, slots, gradients)
            return found / scale, jax.tree.map(lambda w, v: w - RATE * v, weights, slots), {**rest, **moved}, slots

        self.step = jax.jit(step, donate_argnums=(0, 1, 2))
        self.first = np.asarray(self.take())
        self.run(2)

    def take(self) -> jax.Array:
        found, self.weights, self.rest, self.slots = self.step(self.weights, self.rest, self.slots, self.data)
        return found

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.take()
        jax.block_until_ready(self.weights)


class Answering:
    """Logits, with the weights as constants of the program."""

    def __init__(self, case: Case, state: mg.State, precision: str):
        graph, half = mg.inference(case.model(), ["logits"]).bind(N=case.batch), precision == "float16"
        weights = {name: jnp.asarray(array) for name, array in state.items()}
        self.image = jnp.asarray(case.data()["image"])
        self.answer = jax.jit(lambda image: values(graph, {**weights, "image": image}, half)[graph.outputs["logits"]])
        self.first = np.asarray(self.answer(self.image))
        self.run(2)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            logits = self.answer(self.image)
        jax.block_until_ready(logits)


def contenders(case: Case, state: mg.State, precision: str, training: bool) -> dict[str, Callable[[], Any]]:
    if jax.default_backend() == "cpu":
        raise RuntimeError("JAX reaches no GPU (pip install 'jax[cuda13]')")
    return {"jax": partial(Training if training else Answering, case, state, precision)}
