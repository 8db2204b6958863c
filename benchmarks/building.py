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
from minigraph import layers


def resnet18() -> mg.Graph:
    """ResNet-18 (He et al. 2015) on 224 x 224 images, 1000 classes: 11,689,512 parameters."""
    net = mg.Builder("resnet18")
    image, label = net.input("image", ("N", 3, 224, 224)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.conv2d(image, 64, 7, stride=2, padding=3, bias=False)))
    h = mg.max_pool(h, 3, stride=2, padding=1)
    for stage, channels in enumerate((64, 128, 256, 512)):
        for block in range(2):
            with net.scope(f"stage{stage + 1}.block{block + 1}"):
                stride = 2 if stage and not block else 1
                shortcut = h
                if stride == 2:
                    shortcut = layers.batch_norm(layers.conv2d(h, channels, 1, stride=2, bias=False, name="project"))
                h = mg.relu(layers.batch_norm(layers.conv2d(h, channels, 3, stride=stride, padding=1, bias=False)))
                h = layers.batch_norm(layers.conv2d(h, channels, 3, padding=1, bias=False))
                h = mg.relu(h + shortcut)
    logits = layers.linear(mg.global_avg_pool(h), 1000)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


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
