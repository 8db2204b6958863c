"""Networks that nobody here made: they are read, folded, and compute what ONNX Runtime says that they compute."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import pytest

import minigraph as mg
from minigraph.backends.cupy.device import Device
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.cupy.tuned import laid_out
from minigraph.backends.lower import lower
from minigraph.core.frozen import split
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.pipeline import Optimized
from minigraph.onnx import load
from minigraph.onnx.read import graph_of
from onnx_networks import LIGHT, by_onnxruntime, classifier, drawn, light, lines_of_text

TOLERANCE = 1e-4  # of the range of the logits


@functools.cache
def topology(name: str) -> tuple[onnx.ModelProto, Graph, mg.State]:
    model = drawn(light(name))
    return model, *graph_of(model, None, {})


@functools.cache
def text_direction() -> tuple[Graph, mg.State]:
    """The classifier with the size of its pictures; the batch stays open."""
    return load(classifier(), {"x_2": 48, "x_3": 192})


@functools.cache
def logits_of_the_classifier() -> tuple[np.ndarray, np.ndarray]:
    """The pictures, and what ONNX Runtime finds for them before its softmax."""
    model = onnx.load(classifier())
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    model.graph.output[0].name = softmax.input[0]
    pictures = lines_of_text()
    return pictures, by_onnxruntime(model.SerializeToString(), pictures)


def logits(graph: Graph) -> Graph:
    """The classifier without its softmax."""
    (softmax,) = (node for node in graph.nodes if node.op.name == "softmax")
    return Graph(graph.name, graph.inputs, graph.state, graph.nodes, {"logits": softmax.inputs[0]}).prune()


def error(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, in parts of the range."""
    assert got.shape == wanted.shape
    return float(np.abs(got - wanted).max() / np.ptp(wanted))


BACKENDS = ("numpy", pytest.param("c", marks=pytest.mark.compiler))


@pytest.mark.classifier
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_classifier_reads_pictures_both_ways_up(backend):
    graph, state = text_direction()
    pictures, wanted = logits_of_the_classifier()
    program = mg.compile(mg.inference(logits(graph)), state, backend=backend)
    got = program(x=pictures)["logits"]
    assert error(got, wanted) < TOLERANCE
    assert list(got.argmax(1)) == list(wanted.argmax(1))
    upside_down = np.arange(40) >= 20
    assert np.mean(got.argmax(1) == upside_down) >= 0.9  # it was trained, and well


@pytest.mark.classifier
def test_the_classifier_has_its_weights_as_state():
    graph, state = text_direction()
    kinds = [variable.kind for variable in graph.state]
    assert kinds.count("statistic") == 2 * 35  # its batch norms' numbers are nodes Constant
    assert kinds.count("parameter") + 2 * 35 == len(kinds)
    assert state["conv1_weights"].shape == (8, 3, 3, 3)
    assert [str(value.type) for value in graph.inputs] == ["float32[N, 3, 48, 192]"]


def some(name: str) -> list[np.ndarray]:
    shape: Any = topology(name)[1].inputs[0].type.shape
    return [np.random.default_rng(1).normal(size=shape).astype(np.float32)]


def check(name: str, backend: str) -> None:
    model, graph, state = topology(name)
    (x,) = some(name)
    wanted = by_onnxruntime(model.SerializeToString(), x)
    assert np.isfinite(wanted).all()
    assert np.std(wanted) > 1e-3  # activations are alive
    (got,) = mg.compile(mg.inference(graph), state, backend=backend)(**{graph.inputs[0].name: x}).values()
    assert error(got, wanted) < TOLERANCE


@pytest.mark.parametrize("name", LIGHT)
def test_topologies_compute_what_onnxruntime_computes(name):
    check(name, "numpy")


@pytest.mark.compiler
@pytest.mark.nightly
@pytest.mark.parametrize("name", LIGHT)
def test_topologies_compute_it_in_c(name):
    check(name, "c")


# as CUDA C++, on a GPU or on a CPU that plays one


def on_device(graph: Graph, state: mg.State, x: np.ndarray, device: Device) -> np.ndarray:
    """The one output of the optimized graph."""
    early, late = split(optimized(graph, state).graph)
    held = {variable.name: state[variable.name] for variable in late.state}
    arrays = {**early.run(state), **held, graph.inputs[0].name: x}
    (output,) = Executable(laid_out(lower(late)), device).run({"N": len(x)}, arrays)[0].values()
    return output


@pytest.mark.cxx
@pytest.mark.classifier
def test_the_classifier_reads_pictures_in_cuda(device: Device) -> None:
    graph, state = text_direction()
    pictures, wanted = logits_of_the_classifier()
    got = on_device(logits(graph), state, pictures[18:22], device)
    assert error(got, wanted[18:22]) < TOLERANCE


@pytest.mark.cxx
@pytest.mark.nightly
@pytest.mark.parametrize("name", LIGHT)
def test_topologies_compute_it_in_cuda(name: str, device: Device) -> None:
    model, graph, state = topology(name)
    (x,) = some(name)
    assert error(on_device(graph, state, x, device), by_onnxruntime(model.SerializeToString(), x)) < TOLERANCE


# what folding leaves


def optimized(graph: Graph, state: mg.State) -> Optimized:
    return mg.optimize(mg.inference(graph), state)


def norms_left(result: Optimized) -> list[Node]:
    """Nodes of a run that are batch norms, or multiply by what the prologue computed: scales made from them."""
    prologue, run = split(result.graph)
    early: set[Value] = {*prologue.values, *(variable.value for variable in run.state)}
    scales = [node for node in run.nodes if node.op.name in ("mul", "div", "sub") and early.intersection(node.inputs)]
    return [node for node in run.nodes if "batch_norm" in node.op.name] + scales


@pytest.mark.classifier
def test_no_batch_norm_is_left_of_the_classifier():
    assert norms_left(optimized(*text_direction())) == []


@pytest.mark.parametrize("name", ["resnet50", "inception_v2", "shufflenet"])
def test_no_batch_norm_is_left(name):
    assert norms_left(optimized(*topology(name)[1:])) == []


def test_each_scale_that_is_left_of_densenet_has_its_sentence():
    """A norm in front of a convolution's relu, of what several convolutions read, has nowhere to go."""
    result = optimized(*topology("densenet121")[1:])
    left = norms_left(result)
    assert len(left) == 62
    reasons = {reason.at: reason.why for reason in result.refused}
    for node in left:
        assert node.name in reasons, node


# it takes part in what there is


@pytest.mark.classifier
def test_the_classifier_is_seen_checked_kept_and_trained_on(tmp_path):
    graph, state = text_direction()
    assert str(mg.parse(str(graph))) == str(graph)
    assert "Conv_0" in str(mg.summary(graph, N=1))
    mg.draw(graph, tmp_path / "classifier.svg")
    mg.page(optimized(graph, state), tmp_path / "classifier.html")
    mg.save(tmp_path / "classifier.safetensors", graph, state)
    assert str(mg.load(tmp_path / "classifier.safetensors")[0]) == str(graph)
    assert mg.verify(graph, optimized(graph, state).graph)

    pictures = lines_of_text()[15:25]
    direction = np.arange(10) // 5
    net = mg.Builder.extending(mg.unfreeze(logits(graph)))
    loss = mg.cross_entropy(net.tensor("logits"), net.input("direction", ("N",), "int64"))
    model = net.build(logits=net.tensor("logits"), loss=loss)
    trained = mg.State(dict(state))
    step = mg.compile(mg.training_step(model, loss="loss", optimizer=mg.optim.Adam(1e-3)), trained)
    assert len(mg.doctor(model, trained, {"x": pictures, "direction": direction}).checkups) == 35
    losses = [float(step(x=pictures, direction=direction)["loss"]) for _ in range(4)]
    assert losses[-1] < 0.5 * losses[0]
    assert not np.array_equal(trained["conv1_weights"], state["conv1_weights"])
