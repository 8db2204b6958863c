"""How long it takes to build, differentiate and check a training step, and how that grows with the network.

    python -m benchmarks.building

ResNet-18's training step, and chains of conv, batch norm and ReLU of 2,500 to 20,000 nodes; the slope of time over
nodes on log-log axes is 1 where the work is linear.
"""

from __future__ import annotations

import gc
import math
import time

import minigraph as mg
from examples.networks import resnet18
from minigraph import layers


def chain(nodes: int) -> mg.Graph:
    """conv, batch norm and ReLU, one behind the other, until the forward graph has so many nodes."""
    net = mg.Builder("chain")
    h = net.input("image", ("N", 8, 8, 8))
    while len(net.nodes) < nodes:
        h = mg.relu(layers.batch_norm(layers.conv2d(h, 8, 3, padding=1, bias=False)))
    return net.build(loss=mg.mean(h))


def timed(build: object, rounds: int = 3) -> tuple[float, mg.Graph]:
    """The shortest of some rounds, in seconds of this process (others do not count), and the training step."""
    best = math.inf
    for _ in range(rounds):
        gc.collect()
        begin = time.process_time()
        model = build()  # type: ignore[operator]
        step = mg.training_step(model, "loss", mg.optim.SGD(0.1, momentum=0.9))
        step.check()
        best = min(best, time.process_time() - begin)
    return best, step


def slope(points: list[tuple[int, float]]) -> float:
    """Least squares of log time over log nodes."""
    xs, ys = [math.log(n) for n, _ in points], [math.log(t) for _, t in points]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys)) / sum((a - x) ** 2 for a in xs)


def main() -> None:
    seconds, step = timed(resnet18)
    print(f"ResNet-18's training step: {len(step.nodes)} nodes, {seconds:.3f} s")
    points = []
    for nodes in (2500, 5000, 10000, 20000):
        seconds, step = timed(lambda n=nodes: chain(n))
        points.append((nodes, seconds))
        print(f"chain of {nodes} nodes, {len(step.nodes)} with its training step: {seconds:.3f} s")
    print(f"slope of time over nodes: {slope(points):.3f}")


if __name__ == "__main__":
    main()
