"""Which kernel computes a convolution and its two gradients, and how fast, for every kind of convolution.

    python -m benchmarks.convolutions [PATTERN]

Each is a program of its own, with channels last. Two numbers: GFLOP/s of the kernel, and of all steps, padding and what
groups need included; the FLOPs are those of the convolution as it is written, whatever the kernel does. Times are the
shortest of a few runs.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np

from minigraph.backends.c.clocks import measure
from minigraph.backends.c.executable import Executable
from minigraph.backends.c.tuned import claim, laid_out
from minigraph.backends.lower import lower
from minigraph.core.builder import Builder
from minigraph.core.dim import known
from minigraph.core.ir import Graph
from minigraph.ops.conv import conv, conv_input_gradient, conv_weight_gradient

RUNS = 8

# images, channels, sizes, results, window, attributes
KINDS: dict[str, tuple[int, int, tuple[int, ...], int, tuple[int, ...], dict[str, Any]]] = {
    "3x3, 64": (8, 64, (56, 56), 64, (3, 3), {"padding": 1}),
    "3x3, 64 to 128, stride 2": (8, 64, (56, 56), 128, (3, 3), {"padding": 1, "stride": 2}),
    "3x3, 256 to 512, stride 2": (8, 256, (14, 14), 512, (3, 3), {"padding": 1, "stride": 2}),
    "1x1, 64 to 256": (8, 64, (56, 56), 256, (1, 1), {}),
    "1x1, 256 to 512, stride 2": (8, 256, (56, 56), 512, (1, 1), {"stride": 2}),
    "7x7, 3 to 64, stride 2": (4, 3, (224, 224), 64, (7, 7), {"padding": 3, "stride": 2}),
    "4x4, 3 to 96, stride 4": (4, 3, (224, 224), 96, (4, 4), {"stride": 4}),
    "4x4, 64 to 128, stride 2": (8, 64, (32, 32), 128, (4, 4), {"padding": 1, "stride": 2}),
    "5x5, 32": (8, 32, (28, 28), 32, (5, 5), {"padding": 2}),
    "3x3, 64, dilation 2": (8, 64, (28, 28), 64, (3, 3), {"padding": 2, "dilation": 2}),
    "3x3, 128, 32 groups": (8, 128, (56, 56), 128, (3, 3), {"padding": 1, "groups": 32}),
    "3x3, 256, 32 groups, stride 2": (8, 256, (56, 56), 256, (3, 3), {"padding": 1, "groups": 32, "stride": 2}),
    "3x3, 1024, 32 groups": (8, 1024, (7, 7), 1024, (3, 3), {"padding": 1, "groups": 32}),
    "1x1, 240, 3 groups": (8, 240, (28, 28), 240, (1, 1), {"groups": 3}),
    "depthwise 3x3, 96": (8, 96, (56, 56), 96, (3, 3), {"padding": 1, "groups": 96}),
    "depthwise 3x3, 96, stride 2": (8, 96, (56, 56), 96, (3, 3), {"padding": 1, "groups": 96, "stride": 2}),
    "depthwise 3x3, 64 to 128": (8, 64, (28, 28), 128, (3, 3), {"padding": 1, "groups": 64}),
    "9, 64 to 128": (8, 64, (1024,), 128, (9,), {"padding": 4}),
    "9, 64 to 128, stride 4": (8, 64, (1024,), 128, (9,), {"padding": 4, "stride": 4}),
    "3x3x3, 32": (2, 32, (16, 28, 28), 32, (3, 3, 3), {"padding": 1}),
    "3x3x3, 32 to 64, stride 2": (2, 32, (16, 28, 28), 64, (3, 3, 3), {"padding": 1, "stride": 2}),
    "1x3x3, 64": (2, 64, (16, 14, 14), 64, (1, 3, 3), {"padding": (0, 1, 1)}),
    "depthwise 3x3x3, 32": (2, 32, (16, 28, 28), 32, (3, 3, 3), {"padding": 1, "groups": 32}),
}


def graphs(kind: str) -> list[Graph]:
    """The convolution, its gradient to the input, and that to the weight."""
    batch, C, sizes, K, window, attrs = KINDS[kind]
    attrs = {**attrs, "layout": ("NLC", "NHWC", "NDHWC")[len(sizes) - 1]}
    images, weight = (batch, *sizes, C), (K, C // attrs.get("groups", 1), *window)
    nets = [Builder(name) for name in ("forward", "to_input", "to_weight")]
    y = conv(nets[0].input("x", images), nets[0].input("w", weight), **attrs)
    g = [net.input("g", y.shape) for net in nets[1:]]
    to_input = conv_input_gradient(g[0], nets[1].input("w", weight), extents=sizes, **attrs)
    to_weight = conv_weight_gradient(nets[2].input("x", images), g[1], window=window, **attrs)
    return [net.build(result=result) for net, result in zip(nets, (y, to_input, to_weight))]


def kernel(graph: Graph) -> str:
    """The header of the kernel that computes the convolution of a lowered graph."""
    calls = [claim(graph, node) for node in graph.nodes if node.op.name.startswith("conv")]
    return ", ".join("none" if call is None else call.headers[-1].removesuffix(".h") for call in calls)


def speed(graph: Graph) -> str:
    after, (node,) = laid_out(lower(graph)), graph.nodes
    flops = known(node.op.count([v.type for v in node.inputs], [v.type for v in node.outputs], node.attrs), "FLOPs")
    rng = np.random.default_rng(0)
    shapes = {v.name: [known(n, "a size") for n in v.type.shape] for v in graph.inputs}
    arrays = {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    steps = measure(Executable(after), {}, arrays, {}, RUNS).steps
    return f"{kernel(after):>18} {flops / max(steps) / 1e9:5.0f} {flops / sum(steps) / 1e9:5.0f}"


def main() -> None:
    pattern = sys.argv[1] if len(sys.argv) > 1 else ""
    print("GFLOP/s of a kernel and of all: the convolution | its gradient to the input | to the weight")
    for kind in KINDS:
        if re.search(pattern, kind):
            print(f"{kind:30}", " | ".join(map(speed, graphs(kind))), flush=True)


if __name__ == "__main__":
    main()
