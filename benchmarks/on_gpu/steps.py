"""The stage steps: whether steps of training on the GPU are what they ought to be.

Small networks are compared with NumPy in float64, where rounding is no excuse, and in float32; a curve of ResNet-20 by
means over 20 steps, since training makes a rounding larger from step to step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

import minigraph as mg
from benchmarks.on_gpu.networks import ended, mlp_bn
from benchmarks.on_gpu.ours import asked, distance, executable_of, step_of
from benchmarks.on_gpu.report import Report
from benchmarks.on_gpu.speed import random_statistics
from examples.networks import resnet20
from minigraph import layers
from minigraph.backends.cupy import device as gpu
from minigraph.core import trial

COLUMNS = ("part", "holds", "steps", "differing", "difference", "allowed", "statistics")
REPLAYS, CURVE, WINDOW = 1000, 200, 20
GARBAGE = 0xFF  # in each byte: floats are NaN, and indices -1
CLOSE = {"float64": 1e-11, "float32": 1e-3}  # of the largest number of an array, after 3 steps of SGD
# Of the loss at first, means over WINDOW steps; two C programs differ by 0.005. Factors in TF32 have 11 binary
# digits, as float16 has.
NEAR = {"float32": 0.02, "tf32": 0.05, "float16": 0.05}
SECONDS = 120  # for the curve of the reference


def small(channels: tuple[int, int] = (8, 16), eps: float = 1e-5, dropout: float = 0.25) -> mg.Graph:
    """Two convolutions with batch norm, a residual, pooling and dropout, on 12 x 12 pixels."""
    net = mg.Builder("small")
    image, label = net.input("image", ("N", 3, 12, 12)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.conv2d(image, channels[0], 3, padding=1, bias=False), eps=eps))
    h = mg.max_pool(h, 2)
    h = mg.relu(layers.batch_norm(layers.conv2d(h, channels[1], 3, stride=2, padding=1, bias=False), eps=eps))
    h = mg.relu(layers.batch_norm(layers.conv2d(h, channels[1], 3, padding=1, bias=False), eps=eps) + h)
    h = layers.dropout(mg.flatten(h), dropout) if dropout else mg.flatten(h)
    return ended(net, h, label)


MODELS = {"small": small, "mlp_bn": mlp_bn, "resnet20": resnet20}
LIKE_NUMPY: dict[str, tuple[mg.Graph, int]] = {
    "small": (small(), 16),
    "small odd channels": (small((7, 13)), 6),
    "small channel alone": (small((1, 3)), 6),
    "small eps 1e-12": (small(eps=1e-12), 16),
    "small batch 1": (small(), 1),
}


def steps(report: Report) -> None:
    for name, batch in (("small", 16), ("mlp_bn", 64), ("resnet20", 32)):
        for precision in NEAR:
            report.part(f"captured {name} {precision}", partial(captured, name, batch, precision))
    for name, (model, batch) in LIKE_NUMPY.items():
        for dtype in ("float64", "float32"):
            report.part(f"like NumPy {name} {dtype}", partial(like_numpy, model, batch, dtype))
    for name, batch in (("small", 16), ("mlp_bn", 64), ("resnet20", 32)):
        report.part(f"replays {name}", partial(replays, name, batch))
    for precision in ("tf32", "float16"):
        report.part(f"answers resnet20 {precision}", partial(answers, precision))
    reference = Reference()
    for precision in NEAR:
        report.part(f"curve resnet20 {precision}", partial(curve, reference, precision))
    report.show(COLUMNS)


def batch_of(graph: mg.Graph, n: int, seed: int) -> dict[str, np.ndarray]:
    """Images of ten kinds, which can be told apart, with much noise."""
    rng = np.random.default_rng(seed)
    image = next(value for value in graph.inputs if value.name == "image").type
    label = rng.integers(0, 10, n)
    kinds = np.random.default_rng(0).normal(size=(10, *image.shape[1:]))
    return {"image": (kinds[label] + 2 * rng.normal(size=(n, *image.shape[1:]))).astype(image.dtype), "label": label}


def contents(state: mg.State) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state.items()}


def bits(outputs: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in outputs.items()}


def captured(name: str, batch: int, precision: str) -> dict[str, Any]:
    """Steps of a graph that is replayed, and the same ones launched kernel by kernel: to the bit."""
    graph, found, count = step_of(MODELS[name](), precision), [], 12
    for capture in (True, False):
        state = graph.init(seed=0)
        program = mg.compile(graph, state, "cupy")
        executable_of(program).capture = capture
        outputs = [bits(program(**batch_of(graph, batch, seed))) for seed in range(count)]
        found.append(
            {**contents(state), **{f"{key} {i}": x for i, out in enumerate(outputs) for key, x in out.items()}}
        )
    differing = [key for key in found[0] if found[0][key] != found[1][key]]
    return {"holds": not differing, "steps": count, "differing": len(differing), "which": differing[:20]}


def replays(name: str, batch: int) -> dict[str, Any]:
    """Many replays, with garbage in all memory but the state between them: as without, to the bit."""
    graph, found, device = step_of(MODELS[name](), "float32"), [], gpu.device()
    inputs = batch_of(graph, batch, 0)
    for spoils in (True, False):
        state = graph.init(seed=0)
        program = mg.compile(graph, state, "cupy")
        outputs = program(**inputs)
        work = executable_of(program)._work
        assert work is not None
        garbage = device.memory(work.nbytes)
        device.write(garbage, np.full(work.nbytes, GARBAGE, np.uint8))
        for _ in range(REPLAYS - 1):
            if spoils:
                device.copy(work, garbage)
            outputs = program(**inputs)
        found.append({**contents(state), **bits(outputs)})
    differing = [key for key in found[0] if found[0][key] != found[1][key]]
    finite = bool(np.isfinite(outputs["loss"]))
    return {"holds": not differing and finite, "steps": REPLAYS, "differing": len(differing), "which": differing[:20]}


def like_numpy(model: mg.Graph, batch: int, dtype: str) -> dict[str, Any]:
    """Three steps here and in NumPy: losses and all of the state, running statistics among it."""
    graph = step_of(model, "float32")
    graph = trial.in_float64(graph) if dtype == "float64" else graph
    states = [graph.init(seed=0) for _ in range(2)]
    here, there = (mg.compile(graph, state, backend) for state, backend in zip(states, ("cupy", "numpy")))
    found: dict[str, float] = {}
    for seed in range(3):
        inputs = batch_of(graph, batch, seed)
        ours, right = here(**inputs), there(**inputs)
        found.update({f"{name} {seed}": distance(ours[name], right[name]) for name in right})
    ours, right = states
    found.update({name: distance(ours[name], right[name]) for name in right})
    statistics = max(off for name, off in found.items() if ".running_" in name)
    worst = max(found, key=lambda name: found[name])
    allowed = CLOSE[dtype]
    return {
        "holds": bool(found[worst] <= allowed),
        "steps": 3,
        "difference": found[worst],
        "allowed": allowed,
        "statistics": statistics,
        "worst": worst,
    }


def answers(precision: str) -> dict[str, Any]:
    """Off from float32 by no more than twice what this precision in NumPy is, which rounds at the same places."""
    model = resnet20()
    state = random_statistics(model)
    graphs = {name: mg.inference(model, ["logits"], precision=asked(name)) for name in ("float32", precision)}
    image = batch_of(model, 16, 0)["image"]
    answer = lambda name, backend: mg.compile(graphs[name], state, backend)(image=image)["logits"]
    right = answer("float32", "numpy")
    found, rounding = (distance(answer(precision, backend), right) for backend in ("cupy", "numpy"))
    strict = distance(answer("float32", "cupy"), right)
    return {
        "holds": bool(found <= 2 * rounding and strict <= CLOSE["float32"]),
        "difference": found,
        "allowed": 2 * rounding,
        "in_float32": strict,
    }


class Reference:
    """The losses of ResNet-20 in float32 on the processor, computed when they are first asked for."""

    batch = 32

    def __init__(self) -> None:
        self._losses: list[float] = []
        self.backend = ""

    def losses(self) -> list[float]:
        """Of CURVE steps, or of as many as there was time for."""
        if not self._losses:
            begin, program = time.monotonic(), self._program()
            while len(self._losses) < CURVE and time.monotonic() - begin < SECONDS:
                self._losses.append(float(program(**batch_of(program.source, self.batch, len(self._losses)))["loss"]))
        return self._losses

    def _program(self) -> mg.Program:
        graph = step_of(resnet20(), "float32")
        for self.backend in ("c", "numpy"):
            try:
                program = mg.compile(graph, graph.init(seed=0), self.backend)
                program(**batch_of(graph, self.batch, 0))
                return mg.compile(graph, graph.init(seed=0), self.backend)
            except mg.GraphError:  # there is no compiler
                continue
        raise mg.GraphError("neither C nor NumPy runs ResNet-20")


def curve(reference: Reference, precision: str) -> dict[str, Any]:
    """The losses of training here beside those of the reference."""
    right = np.array(reference.losses())
    graph = step_of(resnet20(), precision)
    program = mg.compile(graph, graph.init(seed=0), "cupy")
    found = np.array([float(program(**batch_of(graph, reference.batch, i))["loss"]) for i in range(len(right))])
    windows = [slice(i, i + WINDOW) for i in range(0, len(right), WINDOW)]
    off = max(abs(found[window].mean() - right[window].mean()) for window in windows) / right[0]
    return {
        "holds": bool(off <= NEAR[precision] and right[-WINDOW:].mean() < 0.7 * right[0]),
        "steps": len(right),
        "difference": float(off),
        "allowed": NEAR[precision],
        "first_step": float(abs(found[0] - right[0]) / right[0]),
        "reference": reference.backend,
        "losses": [round(float(x), 5) for x in found],
        "losses_of_the_reference": [round(float(x), 5) for x in right],
    }
