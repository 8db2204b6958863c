"""Convolutions of every kind and their gradients as programs in C: tuned kernels serve them, right to a bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from c_kernels import EPS

import minigraph as mg
from minigraph import layers
from minigraph.backends.c.executable import Executable
from minigraph.backends.c.tuned import claim, laid_out
from minigraph.backends.lower import lower
from minigraph.core import trial
from minigraph.core.builder import Builder
from minigraph.core.dim import known
from minigraph.core.evaluate import evaluate
from minigraph.core.ir import Graph, Node
from minigraph.ops.conv import conv, conv_input_gradient, conv_weight_gradient

pytestmark = pytest.mark.compiler

# channels, results, spatial sizes, window, attributes
KINDS: dict[str, tuple[int, int, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3x3": (20, 18, (9, 10), (3, 3), {"padding": 1}),
    "3x3 of small images": (16, 33, (5, 7), (3, 3), {"padding": 1}),
    "3x3, more padding than it reaches": (17, 16, (9, 8), (3, 3), {"padding": (3, 4)}),
    "3x3, stride 2": (10, 18, (9, 8), (3, 3), {"padding": 1, "stride": 2}),
    "5x5": (9, 10, (8, 9), (5, 5), {"padding": 2}),
    "1x1, stride 2": (9, 18, (9, 8), (1, 1), {"stride": 2}),
    "7x7, stride 2": (3, 17, (15, 16), (7, 7), {"padding": 3, "stride": 2}),
    "patches": (3, 20, (13, 12), (4, 4), {"stride": 4}),
    "strides that jump over numbers": (5, 6, (11, 9), (1, 2), {"stride": (2, 4)}),
    "even, asymmetric": (8, 9, (7, 9), (4, 2), {"padding": ((2, 1), (0, 1)), "stride": (2, 1)}),
    "same": (5, 8, (7, 10), (2, 3), {"padding": "same", "stride": (2, 3)}),
    "dilated": (6, 9, (11, 12), (3, 2), {"padding": (2, 1), "dilation": (2, 3)}),
    "dilated, strided": (6, 9, (11, 12), (3, 3), {"padding": 2, "dilation": (3, 2), "stride": (2, 2)}),
    "1-D": (12, 18, (37,), (9,), {"padding": 4}),
    "1-D, causal": (5, 8, (21,), (3,), {"padding": ((8, 0),), "dilation": 4}),
    "1-D, stride 4": (9, 8, (33,), (7,), {"padding": 3, "stride": 4}),
    "1-D, groups": (24, 16, (17,), (5,), {"padding": 2, "stride": 2, "groups": 4}),
    "3-D": (6, 18, (5, 6, 7), (3, 3, 3), {"padding": 1}),
    "3-D, stride 2": (5, 8, (6, 7, 5), (3, 3, 3), {"padding": 1, "stride": 2}),
    "3-D, of slices": (16, 17, (3, 9, 8), (1, 3, 3), {"padding": (0, 1, 1)}),
    "3-D, of depths": (7, 9, (8, 4, 5), (3, 1, 1), {"padding": (2, 0, 0), "dilation": (2, 1, 1)}),
    "3-D, groups": (6, 9, (4, 6, 5), (2, 3, 3), {"padding": (0, 1, 1), "stride": (1, 2, 1), "groups": 3}),
    "3-D, several of each": (4, 8, (4, 3, 5), (2, 3, 1), {"stride": (2, 1, 1), "groups": 4}),
    "3-D, depthwise": (7, 7, (4, 5, 6), (3, 3, 3), {"padding": 1, "groups": 7}),
    "groups of 2": (16, 24, (9, 8), (3, 3), {"padding": 1, "groups": 8}),
    "groups of 3 and 5": (12, 20, (9, 8), (3, 3), {"padding": 1, "groups": 4}),
    "large groups": (40, 36, (9, 8), (3, 3), {"padding": 1, "groups": 2}),
    "large groups of small images": (48, 51, (5, 7), (3, 3), {"padding": 1, "groups": 3}),
    "groups, stride 2": (24, 16, (9, 8), (3, 3), {"padding": 1, "stride": 2, "groups": 4}),
    "groups, 1x1": (36, 24, (5, 8), (1, 1), {"groups": 3}),
    "groups of one result": (12, 4, (6, 5), (3, 3), {"padding": 1, "groups": 4}),
    "depthwise": (40, 40, (9, 8), (3, 3), {"padding": 1, "groups": 40}),
    "depthwise, stride 2": (24, 24, (9, 12), (3, 3), {"padding": 1, "stride": 2, "groups": 24}),
    "depthwise, wide": (5, 5, (7, 9), (2, 5), {"padding": ((1, 0), (2, 2)), "stride": (1, 3), "groups": 5}),
    "depthwise, dilated": (7, 7, (9, 9), (3, 3), {"padding": 2, "dilation": 2, "groups": 7}),
    "depthwise, 1-D": (18, 18, (21,), (5,), {"padding": 2, "stride": 2, "groups": 18}),
    "several of each": (6, 18, (8, 8), (3, 3), {"padding": 1, "groups": 6}),
    "several of each, stride 2": (6, 18, (8, 8), (3, 3), {"padding": 1, "stride": 2, "groups": 6}),
}
BATCH = 3
STATED = 2e-5  # of the largest result: how far Winograd's convolutions may be off


@cache
def graph_of(kind: str, least: str = "N") -> Graph:
    """A convolution and its two gradients, each of inputs of its own."""
    C, K, sizes, window, attrs = KINDS[kind]
    net = Builder("convolutions")
    batch = net.input("x", (least, C, *sizes))
    w = net.input("w", (K, C // attrs.get("groups", 1), *window))
    y = conv(batch, w, **attrs)
    g = net.input("g", y.shape)
    to_x = conv_input_gradient(g, w, extents=sizes, **attrs)
    return net.build(y=y, to_x=to_x, to_w=conv_weight_gradient(batch, g, window=window, **attrs))


@cache
def in_kernels(kind: str) -> Graph:
    return laid_out(lower(graph_of(kind)))


def convolutions(graph: Graph) -> Iterator[Node]:
    return (node for node in graph.nodes if node.op.name.startswith("conv"))


def numbers(graph: Graph, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    shapes = {v.name: [batch if i == 0 and v.name != "w" else known(n, "a size") for i, n in enumerate(v.type.shape)]
              for v in graph.inputs}  # fmt: skip
    return {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def hold(graph: Graph, arrays: dict[str, np.ndarray], got: dict[str, np.ndarray], transforms: float) -> None:
    """Each sum errs by a rounding for each of its terms, as far as it does not go through Winograd's transforms."""
    exact = {name: array.astype("float64") for name, array in arrays.items()}
    graph = trial.in_float64(graph.bind(N=len(arrays["x"])))
    want = evaluate(graph, exact)
    sizes = evaluate(graph, {name: np.abs(array) for name, array in exact.items()})
    (K, each, *window), pixels = arrays["w"].shape, arrays["g"][:, 0].size
    terms = {"y": each * np.prod(window), "to_x": K * np.prod(window), "to_w": pixels}
    for name, array in want.items():
        most = np.abs(array).max(initial=0)
        assert (np.abs(got[name] - array) <= (terms[name] + 2) * EPS * sizes[name] + transforms * most).all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_tuned_kernels_serve_them(kind: str) -> None:
    after = in_kernels(kind)
    assert [node for node in convolutions(after) if claim(after, node) is None] == []
    assert [node.op for node in convolutions(after)] == [conv, conv_input_gradient, conv_weight_gradient]
    assert mg.verify(graph_of(kind), after)


def test_they_serve_images_of_any_size_and_transposed_convolutions() -> None:
    net = Builder("net")
    x = net.input("x", ("N", 8, "H", "W"))
    h = mg.relu(layers.conv2d(x, 16, 3, padding=1))
    h = layers.conv2d(layers.conv2d(h, 16, 3, padding=1, groups=2), 8, 3, padding=1)
    up = layers.conv_transpose2d(h, 8, 4, stride=2, padding=1)
    step = mg.training_step(net.build(loss=mg.mean(up * up)), loss="loss", optimizer=mg.optim.SGD(0.1))
    after = laid_out(lower(step)).bind(N=BATCH, H=12, W=10)
    assert [node for node in convolutions(after) if claim(after, node) is None] == []
    assert len(list(convolutions(after))) == 11  # the first has no gradient to its input


def uses_winograd(graph: Graph) -> bool:
    calls = [claim(graph, node) for node in convolutions(graph)]
    return any("winograd.h" in call.headers for call in calls if call is not None)


def rightly(kind: str, batches: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """What a program gives for each of these batches, the largest first; it is held to what is right."""
    graph, after = graph_of(kind), in_kernels(kind)
    transforms = STATED if uses_winograd(after) else 0
    program, found = Executable(after), []
    for batch in batches:
        arrays = numbers(graph, batch)
        found.append(program.run({"N": batch}, arrays)[0])
        hold(graph, arrays, found[-1], transforms)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_right(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any batch, on any number of threads, which do not change a bit."""
    monkeypatch.setenv("MINIGRAPH_THREADS", "3")
    on_three = rightly(kind, (BATCH, 2, 0))
    monkeypatch.setenv("MINIGRAPH_THREADS", "1")
    on_one = rightly(kind, (BATCH,))
    for name, array in on_one[0].items():
        assert array.tobytes() == on_three[0][name].tobytes()


@pytest.mark.parametrize("kind", ["3x3", "3x3, stride 2", "3-D", "groups of 2", "depthwise, stride 2"])
def test_a_batch_of_one_has_a_program_of_its_own(kind: str) -> None:
    rightly(kind, (1,))


@pytest.mark.parametrize("window", [3, 5])
def test_the_error_that_the_readme_states(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    """Of the largest result, in a layer of 512 channels: by Winograd's transforms, and term by term."""
    net, rng = Builder("layer"), np.random.default_rng(0)
    x, taps = np.maximum(rng.normal(size=(1, 14, 14, 512)), 0), window * window
    w = rng.normal(size=(512, 512, window, window)) * (2 / (512 * taps)) ** 0.5
    arrays = {"x": x.astype("float32"), "w": w.astype("float32")}
    y = conv(net.input("x", x.shape), net.input("w", w.shape), padding=window // 2, layout="NHWC")
    graph = net.build(y=y)
    want = evaluate(trial.in_float64(graph), {name: array.astype("float64") for name, array in arrays.items()})["y"]
    transformed, summed = (STATED, 3e-6) if window == 3 else (STATED / 2, 4e-6)
    for setting, stated in (("1", transformed), ("0", summed)):
        monkeypatch.setenv("MINIGRAPH_WINOGRAD", setting)
        got, _ = Executable(laid_out(lower(graph))).run({}, arrays)
        assert np.abs(got["y"] - want).max() <= stated * np.abs(want).max()


def test_winograd_may_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a 3x3 convolution errs as the others do, a rounding for each term."""
    monkeypatch.setenv("MINIGRAPH_WINOGRAD", "0")
    for kind in ("3x3", "large groups"):
        assert not uses_winograd(in_kernels(kind))
        rightly(kind, (BATCH,))
    monkeypatch.setenv("MINIGRAPH_WINOGRAD", "1")
    assert uses_winograd(in_kernels("3x3"))
    monkeypatch.setenv("MINIGRAPH_WINOGRAD", "no")
    with pytest.raises(mg.GraphError, match=r"MINIGRAPH_WINOGRAD is 0 or 1, not 'no'"):
        uses_winograd(in_kernels("3x3"))


def test_inputs_are_packed_at_each_step_and_what_stays_once() -> None:
    graph, after = graph_of("5x5"), in_kernels("5x5")
    moving, still = Executable(after), Executable(after, ["w"])
    first = numbers(graph, BATCH)
    for version, arrays in enumerate((first, {**first, "w": first["w"] + 1})):
        for program in (moving, still):
            hold(graph, arrays, program.step({"N": BATCH}, arrays, partial(dict, arrays), version), 0)
    assert moving.plan is not None
    assert still.plan is not None
    assert moving.plan.prepared == ()
    assert {prepared.source.name for prepared in still.plan.prepared} == {"w"}
    assert [value.name for value in still.graph.inputs] == ["x", "g"]


@pytest.mark.parametrize("channels", [1, 16, 24, 40])
def test_what_follows_goes_by_vectors_as_number_by_number(channels: int) -> None:
    """Whole vectors and what is left of them; a NaN passes both limits, as it does with NumPy."""
    net = Builder("limits")
    x, w, b = net.input("x", (2, 5, 7, 3)), net.input("w", (channels, 3, 1, 1)), net.input("b", (channels,))
    y = mg.minimum(mg.maximum(conv(x, w, layout="NHWC") + b, 0.0), 6.0)
    graph, rng = net.build(y=y), np.random.default_rng(channels)
    shapes = {v.name: [known(n, "a size") for n in v.type.shape] for v in graph.inputs}
    arrays = {name: rng.normal(scale=4, size=shape).astype("float32") for name, shape in shapes.items()}
    arrays["x"][1, 2, 3, 0], arrays["b"][-1] = np.nan, np.inf
    got, want = Executable(laid_out(lower(graph))).run({}, arrays)[0]["y"], evaluate(graph, arrays)["y"]
    assert np.isnan(want).sum() == channels
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
