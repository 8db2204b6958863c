"""How long the inference pipeline takes on ResNet-50, and how that and others grow with the length of a network.

    python -m benchmarks.passes

Chains of n links, for n from 250 to 2,000: the ratio of the time for twice as many links is 2 where the work is linear.
Times are seconds of this process, the shortest of some rounds.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import minigraph as mg
from examples.networks import densenet_bc, mobilenet_v2, resnet50
from minigraph import layers

LENGTHS = (250, 500, 1000, 2000)


def convolutions(length: int) -> mg.Graph:
    """conv, batch norm and ReLU, one behind the other: each batch norm goes into its weight."""
    net = mg.Builder("convolutions")
    h = net.input("image", ("N", 4, 8, 8))
    for _ in range(length):
        h = mg.relu(layers.batch_norm(layers.conv2d(h, 4, 3, padding=1, bias=False), frozen=True))
    return net.build(y=h)


def norms(length: int) -> mg.Graph:
    """A convolution, and batch norms behind it: all of them go into its weight."""
    net = mg.Builder("norms")
    h = layers.conv2d(net.input("image", ("N", 4, 8, 8)), 4, 3, bias=False)
    for _ in range(length):
        h = layers.batch_norm(h, frozen=True)
    return net.build(y=h)


def activations(length: int) -> mg.Graph:
    """A convolution, ReLUs behind it, and a batch norm whose scale goes up through all of them."""
    net = mg.Builder("activations")
    h = layers.conv2d(net.input("image", ("N", 4, 8, 8)), 4, 3, bias=False)
    for _ in range(length):
        h = mg.relu(h)
    return net.build(y=layers.batch_norm(h, frozen=True))


def norms_behind_relu(length: int) -> mg.Graph:
    """conv, ReLU and batch norm: each scale goes up through a ReLU, which takes a look at its numbers."""
    net = mg.Builder("norms_behind_relu")
    h = net.input("image", ("N", 4, 8, 8))
    for _ in range(length):
        h = layers.batch_norm(mg.relu(layers.conv2d(h, 4, 3, padding=1, bias=False)), frozen=True)
    return net.build(y=h)


def residuals(length: int) -> mg.Graph:
    """Blocks of a residual network that normalizes first: no batch norm can go anywhere."""
    net = mg.Builder("residuals")
    h = layers.conv2d(net.input("image", ("N", 4, 8, 8)), 4, 3, bias=False)
    for _ in range(length):
        h = h + layers.conv2d(mg.relu(layers.batch_norm(h, frozen=True)), 4, 3, padding=1, bias=False)
    return net.build(y=layers.batch_norm(h, frozen=True))


def norms_without_weights(length: int) -> mg.Graph:
    """ReLUs and batch norms only. Each scale looks in vain for a weight up all of the chain: that is quadratic."""
    net = mg.Builder("norms_without_weights")
    h = net.input("image", ("N", 4, 8, 8))
    for _ in range(length):
        h = layers.batch_norm(mg.relu(h), frozen=True)
    return net.build(y=h)


def biased(length: int) -> mg.Graph:
    """conv with a bias, batch norm and ReLU, as they are trained: each running mean averages the bias."""
    net = mg.Builder("biased")
    h = net.input("image", ("N", 4, 8, 8))
    for _ in range(length):
        h = mg.relu(layers.batch_norm(layers.conv2d(h, 4, 3, padding=1)))
    return net.build(y=h)


CHAINS = {
    convolutions: LENGTHS,
    norms: LENGTHS,
    activations: LENGTHS,
    norms_behind_relu: LENGTHS,
    residuals: LENGTHS,
    norms_without_weights: (100, 200, 400),
}


def shortest(work: Callable[[], object], rounds: int = 3) -> float:
    best = math.inf
    for _ in range(rounds):
        gc.collect()
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


def main() -> None:
    for make in (resnet50, mobilenet_v2, densenet_bc):
        graph = mg.inference(make(), ["logits"])
        state = graph.init()
        seconds = shortest(lambda graph=graph: mg.optimize(graph))
        whole = shortest(lambda graph=graph, state=state: mg.compile(graph, state))
        print(f"{graph.name}, {len(graph.nodes)} nodes: passes {seconds:.2f} s, with the arithmetic {whole:.2f} s")
    for chain, lengths in CHAINS.items():
        times = []
        for length in lengths:
            graph = chain(length)
            state = graph.init()
            times.append(shortest(lambda graph=graph, state=state: mg.optimize(graph, state), rounds=2))
        say(f"{chain.__name__} x {lengths}", times)
    for work in (mg.without_biases, mg.inference, mg.precise_statistics):
        graphs = [biased(length) for length in LENGTHS]
        say(f"{work.__name__} of biased x {LENGTHS}", [shortest(partial(work, g), rounds=2) for g in graphs])


def say(what: str, times: Sequence[float]) -> None:
    ratios = ", ".join(f"{b / a:.2f}" for a, b in pairwise(times))
    print(f"{what}: {', '.join(f'{t:.2f}' for t in times)} s; ratios {ratios}")


if __name__ == "__main__":
    main()
