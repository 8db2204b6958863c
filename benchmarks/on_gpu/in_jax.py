"""The networks in JAX: the gradient by JAX, and the whole step under jit."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the others are in the same process

import jax
import jax.numpy as jnp
import numpy as np

import minigraph as mg
from benchmarks.layers import layers_of
from benchmarks.layers_in_jax import Arrays, Network, cross_entropy
from benchmarks.on_gpu.networks import MOMENTUM, RATE, Case

SCALE = 1024.0  # of the loss in float16


def network_of(case: Case, half: bool) -> Network:
    """half: convolutions and products read float16."""
    return Network(layers_of(case.model(), case.batch), narrow=jnp.float16 if half else None)


class Training:
    """A step of SGD with momentum."""

    def __init__(self, case: Case, state: mg.State, precision: str):
        half = precision == "float16"
        network, scale = network_of(case, half), SCALE if half else 1.0
        averaged, data = network.running(), case.data()
        self.data = jnp.asarray(data["image"]), jnp.asarray(data["label"])
        self.weights = {name: jnp.asarray(array) for name, array in state.items() if name not in averaged}
        self.rest = {name: jnp.asarray(array) for name, array in state.items() if name in averaged}
        self.slots = {name: jnp.zeros_like(w) for name, w in self.weights.items()}

        def loss(weights: Arrays, rest: Arrays, data: Any) -> Any:
            logits, moved = network({**weights, **rest}, data[0], training=True)
            return cross_entropy(logits, data[1]) * scale, moved

        def step(weights: Arrays, rest: Arrays, slots: Arrays, data: Any) -> Any:
            (found, moved), gradients = jax.value_and_grad(loss, has_aux=True)(weights, rest, data)
            slots = jax.tree.map(lambda v, g: MOMENTUM * v + g / scale, slots, gradients)
            return found / scale, jax.tree.map(lambda w, v: w - RATE * v, weights, slots), moved, slots

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
        network = network_of(case, precision == "float16")
        weights = {name: jnp.asarray(array) for name, array in state.items()}
        self.image = jnp.asarray(case.data()["image"])
        self.answer = jax.jit(lambda image: network(weights, image, training=False)[0])
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
