"""The stage steps: whether steps of training on the GPU are what they ought to be.

Small networks are compared with NumPy in float64; a curve of ResNet-20 with that of a program in C, by means over 20
steps, since training makes a rounding larger from step to step.

How far results may be off is measured: the same steps run once more from weights and data with noise of SAFE roundings.
What a result moves by then, or what NumPy in the same dtype is off by, that SAFE times it may be off by. Where that is
too little, more noise is drawn: a number that is nearly 0 before a relu is seen only by a draw that turns it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

import minigraph as mg
from benchmarks.networks import ended
from benchmarks.numbers import distance, random_statistics
from benchmarks.on_gpu.networks import mlp_bn
from benchmarks.on_gpu.ours import asked, executable_of, step_of
from benchmarks.on_gpu.report import Report
from examples.networks import resnet20
from minigraph import layers
from minigraph.backends.cupy import device as gpu
from minigraph.core import trial
from minigraph.core.dtypes import is_float

COLUMNS = ("part", "holds", "steps", "differing", "difference", "allowed", "statistics")
REPLAYS, CURVE, WINDOW = 1000, 200, 20
GARBAGE = 0xFF  # in each byte: floats are NaN, and indices -1
SAFE = 8  # times: a few draws are not the worst ones, and sums round more often than what they add
DRAWS = 2, 16  # of noise: at first, and at most
ROUNDING = {  # relative, at most
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "tf32": 2.0**-11,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
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
        for precision in PRECISIONS:
            report.part(f"captured {name} {precision}", partial(captured, name, batch, precision))
    for name, (model, batch) in LIKE_NUMPY.items():
        for dtype in ("float64", "float32"):
            report.part(f"like NumPy {name} {dtype}", partial(like_numpy, model, batch, dtype))
    for name, batch in (("small", 16), ("mlp_bn", 64), ("resnet20", 32)):
        report.part(f"replays {name}", partial(replays, name, batch))
    for precision in ("tf32", "float16", "bfloat16"):
        report.part(f"answers resnet20 {precision}", partial(answers, precision))
    reference = Reference()
    for precision in PRECISIONS:
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
    """Three steps here and by NumPy in float64: losses and all of the state, running statistics among it."""
    graph = step_of(model, "float32")
    wide, rounding = trial.in_float64(graph), ROUNDING[dtype]
    state, data = dict(graph.init(seed=0)), [batch_of(graph, batch, seed) for seed in range(3)]
    run = lambda how, backend, *noise: trained(how, backend, state, data, Noise(*noise))
    right, own = run(wide, "numpy"), wide if dtype == "float64" else graph
    found, itself = (
        {name: distance(x[name], right[name]) for name in right} for x in (run(own, "cupy"), run(own, "numpy"))
    )
    allowed = {name: SAFE * max(off, rounding) for name, off in itself.items()}

    def draw(seed: int) -> bool:
        noisy = run(wide, "numpy", SAFE * rounding, seed)
        for name in right:
            allowed[name] = max(allowed[name], SAFE * distance(noisy[name], right[name]))
        return all(found[name] <= allowed[name] for name in right)

    holds, draws = drawn(draw)
    worst = max(found, key=lambda name: found[name] / allowed[name])
    return {
        "holds": holds,
        "steps": len(data),
        "difference": found[worst],
        "allowed": allowed[worst],
        "statistics": max(off for name, off in found.items() if ".running_" in name),
        "worst": worst,
        "draws": draws,
    }


class Noise:
    """Numbers are multiplied by 1, and up to so much more or less. Without a size they stay as they are."""

    def __init__(self, size: float = 0.0, seed: int = 0):
        self.size, self.rng = size, np.random.default_rng(seed)

    def on(self, arrays: Mapping[str, np.ndarray], graph: mg.Graph) -> dict[str, np.ndarray]:
        """Those that the graph has, in its dtypes."""
        values = (*graph.inputs, *(variable.value for variable in graph.state))
        given = {v.name: np.asarray(arrays[v.name], v.type.dtype) for v in values if v.name in arrays}
        return {name: self._near(array) if is_float(array.dtype) else array for name, array in given.items()}

    def _near(self, array: np.ndarray) -> np.ndarray:
        factor = 1 + self.size * self.rng.uniform(-1, 1, array.shape) if self.size else 1
        return (array * factor).astype(array.dtype)


def drawn(draw: Callable[[int], bool]) -> tuple[bool, int]:
    """Whether a draw of noise, which is given its number, finds all within what is allowed; and how many there were."""
    least, most = DRAWS
    for number in range(most):
        holds = draw(number)
        if holds and number + 1 >= least:
            break
    return holds, number + 1


def trained(
    graph: mg.Graph,
    backend: str,
    state: Mapping[str, np.ndarray],
    data: Sequence[Mapping[str, np.ndarray]],
    noise: Noise,
) -> dict[str, np.ndarray]:
    """A step for each batch: the outputs of each, and the state at the end."""
    moving = mg.State(noise.on(state, graph))
    program, found = mg.compile(graph, moving, backend), dict[str, np.ndarray]()
    for number, batch in enumerate(data):
        outputs = program(**noise.on(batch, graph))
        found.update({f"{name} {number}": np.asarray(array) for name, array in outputs.items()})
    return {**found, **{name: np.asarray(array) for name, array in moving.items()}}


def answers(precision: str) -> dict[str, Any]:
    """Off from NumPy in float64 by no more than twice what NumPy in this precision is, which rounds where this does."""
    model = resnet20()
    state, image = dict(random_statistics(model)), batch_of(model, 16, 0)["image"]
    graphs = {name: mg.inference(model, ["logits"], precision=asked(name)) for name in ("float32", precision)}
    graphs["float64"] = trial.in_float64(graphs["float32"])
    answer = lambda name, backend: trained(graphs[name], backend, state, [{"image": image}], Noise())["logits 0"]
    right = answer("float64", "numpy")
    (found, rounding), (strict, narrow) = (
        [distance(answer(name, backend), right) for backend in ("cupy", "numpy")] for name in (precision, "float32")
    )
    return {
        "holds": bool(found <= 2 * rounding and strict <= SAFE * narrow),
        "difference": found,
        "allowed": 2 * rounding,
        "in_float32": strict,
        "allowed_in_float32": SAFE * narrow,
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
    """The losses of training here beside those of the reference, and beside those of weights with noise."""
    right, graph = np.array(reference.losses()), step_of(resnet20(), precision)
    state, rounding = dict(graph.init(seed=0)), ROUNDING[precision]
    data = [batch_of(graph, reference.batch, i) for i in range(len(right))]

    def losses(how: mg.Graph, noise: Noise) -> np.ndarray:
        found = trained(how, "cupy", noise.on(state, how), data, Noise())
        return np.array([float(found[f"loss {i}"]) for i in range(len(data))])

    strict = step_of(resnet20(), "float32")
    found, exact = losses(graph, Noise()), losses(strict, Noise())
    off, allowed = apart(found, right), [0.0]

    def draw(seed: int) -> bool:
        allowed.append(SAFE * apart(losses(strict, Noise(SAFE * rounding, seed)), exact))
        return off <= max(allowed)

    holds, draws = drawn(draw)
    return {
        "holds": bool(holds and right[-WINDOW:].mean() < 0.7 * right[0]),
        "steps": len(right),
        "difference": off,
        "allowed": max(allowed),
        "draws": draws,
        "first_step": float(abs(found[0] - right[0]) / right[0]),
        "reference": reference.backend,
        "losses": [round(float(x), 5) for x in found],
        "losses_of_the_reference": [round(float(x), 5) for x in right],
    }


def apart(found: np.ndarray, right: np.ndarray) -> float:
    """How far two curves are apart, by means over WINDOW steps, relative to where they begin."""
    windows = [slice(i, i + WINDOW) for i in range(0, len(right), WINDOW)]
    return float(max(abs(found[window].mean() - right[window].mean()) for window in windows) / right[0])
