"""JAX under jit, with the channels last: a step that takes over the arrays of the one before, or an answer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.layers_in_jax import Arrays, Network, cross_entropy
from benchmarks.on_cpu.task import Step, Task

EPS = 1e-8  # of Adam
BETA1, BETA2 = 0.9, 0.999


def contender(task: Task, mode: str) -> Step:
    """mode: "jit"; for answers also "constant": the weights are constants of the program, and folded."""
    network = Network(task.layers, last=True)
    weights = {name: jnp.asarray(array) for name, array in network.weights(task.weights()).items()}
    if task.optimizer is not None:
        return trained(network, weights, task.optimizer)
    if mode == "constant":
        constant = jax.jit(lambda image: network(weights, image, training=False)[0])
        return lambda image, label: np.asarray(constant(image))
    answer = jax.jit(lambda weights, image: network(weights, image, training=False)[0])
    return lambda image, label: np.asarray(answer(weights, image))


def trained(network: Network, weights: Arrays, settings: dict[str, Any]) -> Step:
    averaged = network.running()
    running = {name: array for name, array in weights.items() if name in averaged}
    moving = {name: array for name, array in weights.items() if name not in averaged}
    slots = slots_of(settings, moving)

    def loss(moving: Arrays, running: Arrays, image: jax.Array, label: jax.Array) -> Any:
        logits, moved = network({**moving, **running}, image, training=True)
        return cross_entropy(logits, label), moved

    def whole(moving: Arrays, running: Arrays, slots: Any, image: jax.Array, label: jax.Array) -> Any:
        (found, moved), gradients = jax.value_and_grad(loss, has_aux=True)(moving, running, image, label)
        return found, *updated(settings, moving, gradients, slots), moved

    compiled = jax.jit(whole, donate_argnums=(0, 1, 2))
    state = [moving, running, slots]

    def step(image: np.ndarray, label: np.ndarray) -> float:
        found, moving, slots, running = compiled(*state, image, label.astype(np.int32))
        state[:] = [moving, running, slots]
        jax.block_until_ready(state)
        return float(found)

    return step


def slots_of(settings: dict[str, Any], weights: Arrays) -> Any:
    zeros = lambda: {name: jnp.zeros_like(array) for name, array in weights.items()}
    if settings["kind"] == "adam":
        return zeros(), zeros(), jnp.zeros((), jnp.float32)
    return zeros() if settings["momentum"] else None


def updated(settings: dict[str, Any], weights: Arrays, gradients: Arrays, slots: Any) -> tuple[Any, Any]:
    """Weights and slots after the step."""
    rate, decay, momentum = (settings[name] for name in ("rate", "weight_decay", "momentum"))
    if decay:
        gradients = jax.tree.map(lambda g, w: g + decay * w, gradients, weights)
    if settings["kind"] == "adam":
        first, second, time = slots
        time = time + 1
        first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, gradients)
        second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, gradients)
        size, root = rate / (1 - BETA1**time), jnp.sqrt(1 - BETA2**time)
        move = lambda w, m, v: w - size * m / (jnp.sqrt(v) / root + EPS)
        return jax.tree.map(move, weights, first, second), (first, second, time)
    if momentum:
        gradients = slots = jax.tree.map(lambda v, g: momentum * v + g, slots, gradients)
    return jax.tree.map(lambda w, g: w - rate * g, weights, gradients), slots
