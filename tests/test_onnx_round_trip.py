"""What was written is read again, and what was read is written: both compute what they did before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from test_example_networks import TINY
from test_onnx_write import CLOSE, REFUSED, alive, answers, check_close, given_to, normalized, ran
from test_registry import arrays_for

import minigraph as mg
import minigraph.onnx as models
from minigraph.core import proof
from minigraph.core.evaluate import evaluate
from minigraph.core.ir import Graph
from minigraph.core.op import Op
from onnx_networks import LIGHT, classifier, drawn, light, lines_of_text

OPS = [op for op in mg.OPS.values() if op.name not in REFUSED]
NOT_READ = {  # which operators that are written have no reader
    "gather": "GatherND",  # of a batch
    "scatter_add": "ScatterND",
    "pad_gradient": "ScatterND",
    "max_pool_gradient": "ScatterND",
}


def again(tmp_path: Path, graph: Graph, state: mg.State | None) -> tuple[Graph, mg.State]:
    """Written and read."""
    models.save(graph, state, tmp_path / "net.onnx")
    return models.load(tmp_path / "net.onnx")


# written and read


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_op_is_read_again_as_what_it_was(tmp_path: Path, op: Op) -> None:
    for example in op.examples:
        graph, samples = proof.graph_of(op, example)
        arrays = arrays_for(graph, samples)
        try:
            back, state = again(tmp_path, graph, None)
        except mg.GraphError as error:
            if f"{NOT_READ.get(op.name)}: " not in str(error):
                raise
            continue
        found = evaluate(back, {**arrays, **state})
        check_close(found, evaluate(graph, arrays), CLOSE["float32"], f"{op.name} {example}")


@pytest.mark.parametrize("name", TINY)
def test_a_network_is_read_again_with_its_names_and_its_state(tmp_path: Path, name: str) -> None:
    graph = mg.inference(TINY[name](), ["logits"])
    state, inputs = alive(graph), given_to(graph, 3)
    back, kept = again(tmp_path, graph, state)
    assert [str(value) for value in back.inputs] == [str(value) for value in graph.inputs]
    assert list(back.outputs) == list(graph.outputs)
    assert sorted((v.name, v.kind) for v in back.state) == sorted((v.name, v.kind) for v in graph.state)
    for variable in graph.state:
        np.testing.assert_array_equal(kept[variable.name], state[variable.name])
    wanted = answers(graph, {**inputs, **state}, N=3)["logits"]
    found = answers(back, {**inputs, **kept}, N=3)["logits"]
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    if name != "mobilenet_v2":  # whose relu6 is a clip from then on
        assert "by construction" in str(mg.verify(graph, back))


def test_what_the_passes_made_is_read_again_as_a_network_without_batch_norms(tmp_path: Path) -> None:
    graph = mg.inference(normalized(), ["logits"])
    state, inputs = alive(graph), given_to(graph, 3)
    optimized = mg.optimize(graph, state).graph
    back, kept = again(tmp_path, optimized, state)
    assert "batch_norm_inference" not in [node.op.name for node in back.nodes]
    wanted = answers(graph, {**inputs, **state}, N=3)
    check_close(answers(back, {**inputs, **kept}, N=3), wanted, CLOSE["float32"])


def test_it_is_trained_on(tmp_path: Path) -> None:
    """Read again, unfrozen and given a loss, it makes the steps that the network makes."""
    model = normalized()
    state = model.init(1)
    back, kept = again(tmp_path, mg.inference(model, ["logits"]), state)
    net = mg.Builder.extending(mg.unfreeze(back))
    label = net.input("label", ("N",), "int64")
    logits = net.tensor("logits")
    trained = net.build(logits=logits, loss=mg.cross_entropy(logits, label))
    step = lambda graph, state: mg.compile(mg.training_step(graph, "loss", mg.optim.SGD(0.1)), state, backend="numpy")
    one, other = step(model, state), step(trained, kept)
    for number in range(3):
        inputs = given_to(model, 6, number)
        np.testing.assert_allclose(one(**inputs)["loss"], other(**inputs)["loss"], rtol=1e-6)
    for variable in model.state:
        np.testing.assert_allclose(kept[variable.name], state[variable.name], rtol=1e-5, atol=1e-6)


# read and written


def check_written(tmp_path: Path, original: Path, sizes: dict[str, int], inputs: dict[str, np.ndarray]) -> None:
    """ONNX Runtime computes of what was read and written what it computes of the original; so after the passes."""
    graph, state = models.load(original, sizes)
    (wanted,) = ran(original, inputs).values()
    optimized = mg.optimize(mg.inference(graph), state).graph
    for name, one in (("before", graph), ("after", optimized)):
        path = tmp_path / f"{name}.onnx"
        models.save(one, state, path)
        (found,) = ran(path, inputs).values()
        assert np.abs(found - wanted).max() <= 1e-4 * np.ptp(wanted), name
    assert "BatchNormalization" not in [node.op_type for node in onnx.load(tmp_path / "after.onnx").graph.node]


@pytest.mark.classifier
def test_the_classifier_is_read_folded_and_written(tmp_path: Path) -> None:
    check_written(tmp_path, classifier(), {"x_2": 48, "x_3": 192}, {"x": lines_of_text()})


@pytest.mark.nightly
@pytest.mark.parametrize("name", LIGHT)
def test_topologies_are_read_folded_and_written(tmp_path: Path, name: str) -> None:
    model = drawn(light(name))
    path = tmp_path / "original.onnx"
    onnx.save(model, path)
    rng = np.random.default_rng(0)
    given = {v.name for v in model.graph.initializer}
    inputs = {
        v.name: rng.normal(size=[d.dim_value for d in v.type.tensor_type.shape.dim]).astype(np.float32)
        for v in model.graph.input
        if v.name not in given
    }
    check_written(tmp_path, path, {}, inputs)
