"""A look at the GPU that programs would run on: what there is, and what is missing, with what to type."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import distributions
from typing import Any

import numpy as np

from minigraph.backends import numpy as reference
from minigraph.backends.cupy.compiler import WHEEL
from minigraph.backends.cupy.device import Device, device
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.cupy.libraries.installed import described
from minigraph.backends.cupy.tuned import claims, laid_out
from minigraph.backends.lower import lower
from minigraph.backends.plan import plan
from minigraph.core.builder import Builder
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph
from minigraph.core.table import quantity
from minigraph.ops.conv import conv
from minigraph.ops.pointwise import exp, relu
from minigraph.ops.reduce import mean
from minigraph.ops.shape import reshape, transpose

ROUNDING = 1e-5  # of numbers near 1: a hundred roundings of float32
ROWS, COLUMNS = 300, 70


def examined() -> Iterator[str]:
    """What is found, line by line. Raises GraphError for the first thing that is missing or wrong."""
    wheels = _wheels()
    expect(len(wheels) < 2, "installed over each other: {0}; pip uninstall {0}, then install one", " ".join(wheels))
    gpu = device()
    import cupy

    yield f"CuPy {cupy.__version__}{f' ({wheels[0]})' if wheels else ''}"
    try:
        yield _versions(cupy)
        yield _properties(cupy)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise GraphError(f"the GPU reports {error}: `nvidia-smi` says how it is, and who else is on it") from error
    yield from described()
    graph = _trial()
    Executable(graph, gpu).program({})
    yield "NVRTC compiles kernels for it"
    _run(graph, gpu, capture=False)
    yield "kernels compute what NumPy does"
    _run(graph, gpu, capture=True)
    graph = _products()
    if libraries := _asked(graph, gpu):
        _run(graph, gpu, capture=True)
        yield f"so do the routines of {' and '.join(libraries)}"
    yield 'so does a graph of kernels that is replayed: backend="cupy" is ready'


def _wheels() -> list[str]:
    """The packages of CuPy that are installed."""
    names = {found.metadata["Name"] or "" for found in distributions()}
    return sorted(name for name in names if name == "cupy" or name.startswith("cupy-cuda"))


def _versions(cupy: Any) -> str:
    try:
        nvrtc = ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
    except (ImportError, OSError, RuntimeError) as error:
        raise GraphError(f"NVRTC, which compiles kernels, cannot be loaded: {WHEEL} ({error})") from error
    runtime = cupy.cuda.runtime
    driver, own = (f"{v // 1000}.{v % 1000 // 10}" for v in (runtime.driverGetVersion(), runtime.runtimeGetVersion()))
    return f"CUDA {driver} of the driver, {own} of CuPy, {nvrtc} of NVRTC"


def _properties(cupy: Any) -> str:
    runtime, number = cupy.cuda.runtime, cupy.cuda.Device().id
    found, (free, whole) = runtime.getDeviceProperties(number), runtime.memGetInfo()
    capability = f"compute capability {found['major']}.{found['minor']}"
    memory = f"{quantity(whole, 'B')} of memory, {quantity(free, 'B')} of it free"
    count = runtime.getDeviceCount()
    others = f" (of {count}: CUDA_VISIBLE_DEVICES chooses)" if count > 1 else ""
    return f"GPU {number}{others}: {found['name'].decode()}, {capability}, {memory}"


def _trial() -> Graph:
    """Numbers one by one, totals of rows, and one of all."""
    net = Builder("trial")
    x = net.input("x", (ROWS, COLUMNS))
    rows = mean(exp(x), axes=1)
    return lower(net.build(y=x * 2.0 + 1.0, rows=rows, all=mean(rows * rows)))


def _products() -> Graph:
    """A convolution with what follows it, and a matrix product."""
    net = Builder("products")
    x = net.input("x", (ROWS, COLUMNS))
    images = reshape(x, (ROWS // 3, 3, 7, COLUMNS // 7))
    weights, bias = (net.constant(np.linspace(-0.1, 0.1, n, dtype="float32")) for n in (8 * 27, 8))
    h = relu(conv(images, reshape(weights, (8, 3, 3, 3)), padding=1) + reshape(bias, (8, 1, 1)))
    y = transpose(x * (1 / ROWS)) @ x
    return laid_out(lower(net.build(h=h, y=y)))


def _asked(graph: Graph, gpu: Device) -> list[str]:
    """The libraries that compute something of it."""
    made = plan(graph, claims(gpu.routine), {})
    return sorted({call.by for call in made.partition.claims.values() if call.by})


def _run(graph: Graph, gpu: Device, capture: bool) -> None:
    """Twice: the second time what was captured is there already."""
    arrays = {"x": np.random.default_rng(0).uniform(-1, 1, (ROWS, COLUMNS)).astype("float32")}
    right, _, _ = reference.Executable(graph).run({}, arrays)
    executable = Executable(graph, gpu, capture=capture)
    for _ in range(2):
        found, _ = executable.run({}, arrays)
        wrong = [name for name in right if not np.allclose(found[name], right[name], ROUNDING, ROUNDING)]
        expect(
            not wrong,
            "kernels {} do not compute what NumPy does ({}): another driver may help, and `nvidia-smi -q` says whether"
            " the memory has errors",
            "in a graph" if capture else "that are launched one by one",
            ", ".join(wrong),
        )
