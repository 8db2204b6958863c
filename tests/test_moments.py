"""Mean and variance in one pass over channels that are made to be hard, held against fractions on every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
import pytest

import minigraph as mg
from minigraph.backends.c.executable import Executable as InC
from minigraph.backends.cupy import tuned
from minigraph.backends.cupy.device import Device
from minigraph.backends.cupy.executable import Executable as InCuda
from minigraph.backends.cupy.totals import shares
from minigraph.backends.lower import lower
from minigraph.backends.plan import plan
from minigraph.core.evaluate import evaluate
from minigraph.core.ir import Graph
from minigraph.core.pipeline import applied
from minigraph.nn import layers
from minigraph.ops.moments import moments
from minigraph.passes.pipelines import LOWERED

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Graph, Arrays], Arrays]

N = 1536
EPS = 2.0**-24  # half a unit of float32


def normal(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=N)


def with_numbers(x: np.ndarray, places: slice | int, number: float) -> np.ndarray:
    y = x.copy()
    y[places] = number
    return y


CHANNELS = {
    "plain": normal(0),
    "far from 0": 1e4 + 0.1 * normal(1),
    "on a coarse grid": 2.0**24 - 8 + np.round(normal(2)),
    "an outlier first": with_numbers(normal(3), 0, 1e4),
    "a far outlier first": with_numbers(normal(4), 0, -1e18),
    "an outlier last": with_numbers(normal(5), -1, 1e4),
    "an outlier in each 64": with_numbers(normal(6), slice(0, None, 64), 1e6),
    "all but one alike": with_numbers(np.full(N, 3.0), 0, 1e9),
    "two neighbours": with_numbers(np.full(N, 1.0), slice(0, None, 3), 1 + 2.0**-23),
    "on both sides": np.where(np.arange(N) % 2, 1e6, -1e6) + normal(7),
    "small": 1e-15 * normal(8),
    "large": 1e15 * normal(9),
    "one number": np.full(N, 1e10),
    "one number that is no float64": np.full(N, 0.1),
}
X = np.stack([*CHANNELS.values()], axis=1).astype(np.float32)


def exact(x: np.ndarray) -> tuple[Fraction, Fraction]:
    numbers = [Fraction(float(number)) for number in x]
    mean = sum(numbers, Fraction(0)) / len(numbers)
    return mean, sum(((number - mean) ** 2 for number in numbers), Fraction(0)) / len(numbers)


EXACT = [exact(channel) for channel in X.T]

# where the channels lie: how they are given, and the axes of the numbers of one
LAYOUTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[int, ...]]] = {
    "last": (lambda x: x, (0,)),
    "first": (lambda x: np.ascontiguousarray(x.T), (1,)),
    "between": (lambda x: np.ascontiguousarray(x.reshape(3, N // 3, -1).transpose(0, 2, 1)), (0, 2)),
    "last, of images": (lambda x: x.reshape(4, 16, N // 64, -1), (0, 1, 2)),
}


def graph_of(shape: tuple[object, ...], axes: tuple[int, ...], dtype: str = "float32") -> Graph:
    net = mg.Builder("moments")
    mean, rest, var = moments(net.input("x", shape, dtype), axes=axes)
    return net.build(mean=mean, rest=rest, var=var)


def by_numpy(graph: Graph, arrays: Arrays) -> Arrays:
    return evaluate(graph, dict(arrays))


def in_c(graph: Graph, arrays: Arrays) -> Arrays:
    return InC(lower(graph)).run({}, arrays)[0]


def hold(run: Run, layout: str) -> None:
    """Right to a few units of the deviation, and of the variance."""
    laid, axes = LAYOUTS[layout]
    x = laid(X)
    found = run(graph_of(x.shape, axes), {"x": x})
    for number, (name, (mean, var)) in enumerate(zip(CHANNELS, EXACT)):
        got = {key: Fraction(float(array[number])) for key, array in found.items()}
        deviation = float(var) ** 0.5
        assert abs(got["mean"] + got["rest"] - mean) <= 2 * EPS * deviation, name
        assert abs(got["rest"]) <= EPS * (abs(mean) + 2 * deviation), name
        assert abs(got["var"] - var) <= 8 * EPS * var, name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hard_channels_by_numpy(layout: str) -> None:
    hold(by_numpy, layout)


@pytest.mark.compiler
@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_hard_channels_in_c(layout: str, threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_THREADS", threads)
    hold(in_c, layout)


@pytest.mark.cxx
@pytest.mark.parametrize("layout", LAYOUTS)
def test_hard_channels_in_cuda(layout: str, device: Device) -> None:
    hold(lambda graph, arrays: InCuda(lower(graph), device).run({}, arrays)[0], layout)


NAN, INF = np.nan, np.inf
ODD = np.array([[INF, 1, -INF, NAN, 1, 0], [1, INF, 1, 1, -INF, 0], [2, 2, INF, 1, 3, 0]], np.float32)


def hold_odd(run: Run) -> None:
    """The mean of what holds an infinity is infinite, and NaN if it holds both; all else is NaN."""
    found = run(graph_of(ODD.shape, (0,)), {"x": ODD})
    np.testing.assert_array_equal(found["mean"], np.array([INF, INF, NAN, NAN, -INF, 0], np.float32))
    for name in ("rest", "var"):
        np.testing.assert_array_equal(found[name], np.array([NAN] * 5 + [0], np.float32))
    empty = np.zeros((0, 2), np.float32)
    for array in run(graph_of(empty.shape, (0,)), {"x": empty}).values():
        np.testing.assert_array_equal(array, np.array([NAN, NAN], np.float32))


def test_what_is_not_finite_by_numpy() -> None:
    hold_odd(by_numpy)


@pytest.mark.compiler
def test_what_is_not_finite_in_c() -> None:
    hold_odd(in_c)


@pytest.mark.cxx
def test_what_is_not_finite_in_cuda(device: Device) -> None:
    hold_odd(lambda graph, arrays: InCuda(lower(graph), device).run({}, arrays)[0])


@pytest.mark.compiler
def test_a_batch_that_is_empty_only_when_it_is_run() -> None:
    """Its first number is not read: there is none."""
    program = InC(lower(graph_of(("N", 4), (0,))))
    for n in (64, 1, 0, 8):
        x = np.arange(4 * n, dtype=np.float32).reshape(n, 4)
        found, _ = program.run({"N": n}, {"x": x})
        wanted = by_numpy(graph_of((n, 4), (0,)), {"x": x})
        for name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.compiler
def test_in_float64_the_rest_is_small_beside_float64() -> None:
    x = 1e12 + 0.25 * np.round(4 * normal(10))
    found = in_c(graph_of((N,), (0,), "float64"), {"x": x})
    mean, var = exact(x)
    assert abs(Fraction(float(found["mean"])) + Fraction(float(found["rest"])) - mean) <= 2.0**-50 * float(var) ** 0.5
    assert abs(Fraction(float(found["var"])) - var) <= 2.0**-48 * var


def test_narrow_floats_are_to_be_cast() -> None:
    with pytest.raises(mg.GraphError, match="float32 or float64"):
        moments(mg.Builder().input("x", (3,), "float16"))


# what is read and written


def test_the_first_number_is_read_before_anything_is_written_over_it() -> None:
    """`y` is computed beside the moments of h, and h is read no more: but each chunk of it reads h[0]."""
    net = mg.Builder("beside")
    h = mg.exp(net.input("x", (64, 8)))
    y = mg.tanh(h * mg.sum(h))
    _, _, var = moments(h, axes=(0,))
    graph = net.build(y=y / mg.sum(y), var=var)
    planned = plan(lower(graph), lambda graph, node: None, {}, 2)
    (step,) = [step for step in planned.steps if any(v.name.startswith("tanh") for v in step.writes)]
    assert step.region is not None
    assert [v.name for v in step.region.totals if "var" in v.name]
    assert [buffer.inside for buffer in step.writes.values()] == [None] * len(step.writes)


@pytest.mark.parametrize("shortcut", [False, True])
def test_a_block_moves_its_images_no_more_often_than_it_must(shortcut: bool) -> None:
    """conv, batch norm, perhaps a sum, relu, conv: for each loop, how often it reads and writes images.

    The statistics read them once. To normalize reads them once more, with the shortcut, and writes the result. Backward
    the sums read x and the gradient, which what computes it has masked, and so does what makes the gradient of x.
    """
    net = mg.Builder("block")
    x, other = (net.input(name, (16, 8, 8, 16)) for name in ("x", "other"))
    conv = lambda h, name: layers.conv2d(h, 16, 3, padding=1, layout="NHWC", bias=False, name=name)
    h = layers.batch_norm(conv(x, "first"), axis=-1)
    h = mg.relu(h + other if shortcut else h)
    loss = mg.sum(mg.square(conv(h, "second")))
    wrt = [x, *([other] if shortcut else []), *net.parameters]
    graph = net.build({f"d{i}": d for i, d in enumerate(mg.gradient(loss, wrt))})
    lowered = tuned.laid_out(applied(LOWERED, lower(graph)))
    planned = plan(lowered, tuned.claim, {}, chunks=lambda region, sizes: shares(region).chunks)
    size = x.value.type.size
    moved = []
    for step in planned.steps:
        if step.region is not None and step.region.call is None:
            moved.append(tuple(sum(v.type.size == size for v in values) for values in (step.reads, step.writes)))
    wanted = [(1, 0), (2 if shortcut else 1, 1), (2, 0), (2, 1)]
    assert [images for images in moved if any(images)] == wanted
