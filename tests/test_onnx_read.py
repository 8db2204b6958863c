"""What `load` makes of a model: its names and sizes, what is known in it, what of it is state, and what it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import minigraph as mg
from minigraph.core.dtypes import DTYPES
from minigraph.onnx import load
from minigraph.onnx.call import NeedsValue
from minigraph.onnx.file import array_of
from minigraph.onnx.names import Names, Symbols

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
RNG = np.random.default_rng(0)


def node(op: str, inputs: str, outputs: str, **attrs: Any) -> onnx.NodeProto:
    """A node with the names of its inputs and outputs in texts; - is one that is left out."""
    named = lambda text: ["" if name == "-" else name for name in text.split()]
    return helper.make_node(op, named(inputs), named(outputs), **attrs)


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Any],
    outputs: str = "y",
    weights: dict[str, Any] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model; inputs are shapes of floats, or [dtype, shape]."""
    typed = {name: given if isinstance(given, list) else [FLOAT, given] for name, given in inputs.items()}
    declared = [helper.make_tensor_value_info(name, *given) for name, given in typed.items()]
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    ends = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs.split()]
    graph = helper.make_graph(nodes, "g", declared, ends, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def read(folder: Path, made: onnx.ModelProto, values: Any = None) -> tuple[mg.Graph, mg.State]:
    onnx.save(made, folder / "model.onnx")
    return load(folder / "model.onnx", values)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ops(graph: mg.Graph) -> list[str]:
    return [each.op.name for each in graph.nodes]


def agrees(folder: Path, made: onnx.ModelProto, values: Any = None, **given: np.ndarray) -> mg.Graph:
    """The graph, which computes what ONNX's evaluator computes."""
    graph, state = read(folder, made, values)
    program = mg.compile(graph, state)
    results = program(**{value.name: given[value.name] for value in graph.inputs})
    wanted = ReferenceEvaluator(made).run(None, {**given, **(values or {})})
    for got, right in zip(results.values(), wanted, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-6)
    return graph


# names


def test_names_are_kept_where_they_can_be():
    names = Names()
    assert [names.of(n) for n in ("conv1.weight", "/a/b.c-d", "x:0", "x_0", "x:0", "größe", "")] == [
        "conv1.weight",
        "/a/b.c-d",
        "x_0",
        "x_0_2",
        "x_0",
        "größe",
        "unnamed",
    ]
    symbols = Symbols()
    assert [symbols.of(n) for n in ("N", "batch size", "2d", "lambda", "nan", "batch_size")] == [
        "N",
        "batch_size",
        "_2d",
        "lambda_",
        "nan_",
        "batch_size_2",
    ]


def test_inputs_outputs_and_weights_have_the_files_names(tmp_path):
    made = model([node("Conv", "data:0 conv.w conv.b", "out@")], {"data:0": ("batch", 3, 5, 5)}, "out@")
    made.graph.initializer.extend(
        [numpy_helper.from_array(floats(4, 3, 3, 3), "conv.w"), numpy_helper.from_array(floats(4), "conv.b")]
    )
    graph, state = read(tmp_path, made)
    assert [str(v) for v in map(repr, graph.inputs)] == ["data_0: float32[batch, 3, 5, 5]"]
    assert list(graph.outputs) == ["out_"]
    assert list(state) == ["conv.w", "conv.b"]
    assert {variable.kind for variable in graph.state} == {"parameter"}


# sizes


def test_a_batch_stays_open_through_arithmetic_on_its_shape(tmp_path):
    made = model(
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n", axis=0),
            node("Unsqueeze", "n zeros", "m"),
            node("Concat", "m rest", "r", axis=0),
            node("Reshape", "x r", "y"),
        ],
        {"x": ("N", 3, 4)},
        weights={"zero": np.int64(0), "zeros": np.array([0]), "rest": np.array([-1])},
    )
    graph = agrees(tmp_path, made, x=floats(5, 3, 4))
    assert ops(graph) == ["reshape"]
    assert [str(v.type) for v in graph.outputs.values()] == ["float32[N, 12]"]


def test_sizes_are_added_and_multiplied(tmp_path):
    made = model(
        [
            node("Shape", "x", "s", start=0, end=1),
            node("Mul", "s two", "t"),
            node("Add", "t zero", "u"),
            node("Div", "u two", "v"),
            node("Concat", "v four minus", "r", axis=0),
            node("Reshape", "x r", "y"),
            node("Equal", "v minus", "never"),
            node("Where", "never four v", "w"),
            node("Expand", "one w", "z"),
        ],
        {"x": ("N", 4, 3)},
        "y z",
        {
            "two": np.array([2]),
            "zero": np.array([0]),
            "four": np.array([4]),
            "minus": np.array([-1]),
            "one": np.ones(1, np.float32),
        },
    )
    graph = agrees(tmp_path, made, x=floats(2, 4, 3))
    assert ops(graph) == ["reshape", "fill", "broadcast_to"]
    assert [str(v.type) for v in graph.outputs.values()] == ["float32[N, 4, 3]", "float32[N]"]


def test_an_open_size_may_be_computed_with_when_it_runs(tmp_path):
    """x divided by how many images there are; and the shape itself is an output."""
    made = model(
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Cast", "n", "f", to=FLOAT),
            node("Div", "x f", "y"),
        ],
        {"x": ("N", 4)},
        "y s",
        {"zero": np.int64(0)},
    )
    agrees(tmp_path, made, x=floats(7, 4))


def test_sizes_without_names(tmp_path):
    """A first axis is N; others are named after their input."""
    made = model([node("Relu", "x", "y"), node("Relu", "z", "w")], {"x": (None, 3, None), "z": ("?", None)}, "y w")
    graph, _ = read(tmp_path, made)
    assert [str(value.type) for value in graph.inputs] == ["float32[N, 3, x_2]", "float32[N, z_1]"]
    graph, _ = read(tmp_path, made, {"x_2": 8, "N": 2})
    assert [str(value.type) for value in graph.inputs] == ["float32[2, 3, 8]", "float32[2, z_1]"]


def test_a_size_that_must_be_known_is_named(tmp_path):
    made = model([node("MaxPool", "x", "y", kernel_shape=[2], strides=[2])], {"x": ("N", 3, "time steps")})
    with pytest.raises(mg.GraphError, match=r"load\(path, values=\{'time steps': ...\}\)"):
        read(tmp_path, made)
    graph, _ = read(tmp_path, made, {"time steps": 10})
    assert [str(v.type) for v in graph.outputs.values()] == ["float32[N, 3, 5]"]


# values


RESHAPE = model([node("Reshape", "x shape", "y")], {"x": ("N", 6), "shape": [INT64, [2]]})


def test_a_shape_at_run_time_is_asked_for_and_fixed(tmp_path):
    with pytest.raises(NeedsValue, match="'shape': Reshape 'y'") as error:
        read(tmp_path, RESHAPE)
    assert error.value.inputs == ("shape",)
    graph = agrees(tmp_path, RESHAPE, {"shape": np.array([-1, 3])}, x=floats(4, 6))
    assert [value.name for value in graph.inputs] == ["x"]


def test_what_a_needed_value_is_computed_from_is_asked_for(tmp_path):
    made = model(
        [node("Add", "a b", "c"), node("Reshape", "x c", "y")],
        {"x": ("N", 6), "a": [INT64, [2]], "b": [INT64, [2]]},
    )
    with pytest.raises(NeedsValue) as error:
        read(tmp_path, made)
    assert set(error.value.inputs) == {"a", "b"}
    agrees(tmp_path, made, {"a": np.array([-3, 1]), "b": np.array([2, 2])}, x=floats(4, 6))


def test_values_are_held_to_be_those_of_the_model(tmp_path):
    with pytest.raises(mg.GraphError, match="no input and no open size 'form'"):
        read(tmp_path, RESHAPE, {"form": np.array([2]), "shape": np.array([-1, 2])})
    with pytest.raises(mg.GraphError, match="'shape' is int64, not float64"):
        read(tmp_path, RESHAPE, {"shape": np.array([0.5, 2])})
    with pytest.raises(mg.GraphError, match="whole number"):
        read(tmp_path, RESHAPE, {"N": -3, "shape": np.array([-1, 2])})


# state


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_numbers_of_each_dtype(shape, raw):
    for dtype in sorted(DTYPES):
        numbers = RNG.integers(0, 2, shape).astype(dtype)
        stored = numpy_helper.from_array(numbers, "w")
        if not raw:
            code = helper.np_dtype_to_tensor_dtype(numbers.dtype)
            stored = helper.make_tensor("w", code, shape, numbers.reshape(-1).tolist())
        found = array_of(stored, None)
        assert (found.dtype, found.shape) == (numbers.dtype, shape)
        assert found.tolist() == numbers.tolist()
        assert not found.flags.writeable


def test_numbers_that_are_weights_are_state_and_others_are_not(tmp_path):
    """Initializers or nodes Constant, through a Transpose or not; a factor of one number is a constant."""
    made = model(
        [
            node("Constant", "", "bias", value=numpy_helper.from_array(floats(4))),
            node("Transpose", "w", "wt"),
            node("MatMul", "x wt", "h"),
            node("Add", "h bias", "i"),
            node("Mul", "i half", "y"),
        ],
        {"x": ("N", 3)},
        weights={"w": floats(4, 3), "half": np.float32(0.5), "unused": floats(9)},
    )
    graph = agrees(tmp_path, made, x=floats(2, 3))
    assert [variable.name for variable in graph.state] == ["w", "bias"]
    assert ops(graph) == ["transpose", "matmul", "add", "fill", "mul"]


def test_initializers_that_are_listed_as_inputs_are_weights(tmp_path):
    made = model([node("Add", "x w", "y")], {"x": ("N", 3), "w": (3,)}, weights={"w": floats(3)})
    graph = agrees(tmp_path, made, x=floats(2, 3))
    assert [value.name for value in graph.inputs] == ["x"]
    graph = agrees(tmp_path, made, {"w": np.ones(3, np.float32)}, x=floats(2, 3))
    assert [variable.name for variable in graph.state] == []


def test_a_weight_that_is_used_twice_is_one(tmp_path):
    made = model(
        [node("Identity", "w", "v"), node("MatMul", "x w", "h"), node("MatMul", "h v", "y")],
        {"x": ("N", 3)},
        weights={"w": floats(3, 3)},
    )
    graph = agrees(tmp_path, made, x=floats(2, 3))
    assert [variable.name for variable in graph.state] == ["w"]


def test_a_network_begins_anew_with_numbers_like_the_files(tmp_path):
    made = model(
        [node("Gemm", "x w b", "h"), node("BatchNormalization", "h b b b v", "y")],
        {"x": ("N", 30)},
        weights={"w": 0.1 * floats(30, 40) + 3, "b": np.zeros(40, np.float32), "v": np.abs(floats(40)) + 1},
    )
    graph, state = read(tmp_path, made)
    anew = graph.init(seed=1)
    assert np.mean(anew["w"]) == pytest.approx(3, abs=0.02)
    assert np.std(anew["w"]) == pytest.approx(0.1, rel=0.1)
    assert not anew["b"].any()
    assert anew["v"] == pytest.approx(np.mean(state["v"]))  # a variance is above 0


def test_external_data(tmp_path):
    made = model([node("Gemm", "x w b", "y", transB=1)], {"x": ("N", 3)}, weights={"w": floats(4, 3), "b": floats(4)})
    right: Any = ReferenceEvaluator(made).run(None, {"x": np.ones((2, 3), np.float32)})
    onnx.save(made, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert not made.graph.initializer[0].raw_data
    graph, state = load(tmp_path / "m.onnx")
    np.testing.assert_allclose(mg.compile(graph, state)(x=np.ones((2, 3)))["y"], right[0], rtol=1e-6)


# what is not supported


def test_all_that_is_not_supported_is_listed_at_once(tmp_path):
    made = model(
        [
            node("Det", "x", "a", name="first"),
            node("Det", "x", "b", name="second"),
            node("Resize", "x - - s", "c", name="third", mode="cubic"),
            node("Einsum", "c", "y", name="fourth", equation="ij->ji"),
        ],
        {"x": (3, 3)},
        "a b y",
        {"s": np.array([6, 6])},
    )
    with pytest.raises(mg.GraphError) as error:
        read(tmp_path, made)
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
        "Det: 2 x (first, second)",
        "Einsum: 1 x (fourth)",
        "Resize with mode cubic and half_pixel: 1 x (third)",
    ]


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch):
    import importlib
    import sys

    for name in [name for name in sys.modules if name.startswith("minigraph.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'minigraph\[onnx\]'"):
        importlib.import_module("minigraph.onnx")


def test_the_branch_that_is_known_to_be_taken_is(tmp_path):
    """Whether x has one column, which is then squeezed away."""

    def branch(*nodes: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph(list(nodes), "branch", [], [helper.make_tensor_value_info("b", FLOAT, None)])

    choice = node(
        "If", "c", "y", then_branch=branch(node("Squeeze", "x axis", "b")), else_branch=branch(node("Neg", "x", "b"))
    )
    steps = [node("Shape", "x", "s"), node("Gather", "s axis", "n"), node("Equal", "n axis", "c"), choice]
    for columns, op in ((1, "reshape"), (2, "neg")):
        made = model(steps, {"x": ("N", columns)}, weights={"axis": np.array([1])})
        assert ops(agrees(tmp_path, made, x=floats(3, columns))) == [op]
    made = model([choice], {"x": ("N", 1), "c": [TensorProto.BOOL, [1]]}, weights={"axis": np.array([1])})
    with pytest.raises(NeedsValue):
        read(tmp_path, made)
    agrees(tmp_path, made, {"c": np.array([False])}, x=floats(3, 1))


# opsets


def test_softmax_before_opset_13_takes_all_axes_behind_its_own_as_one(tmp_path):
    x = floats(2, 3, 4)
    for opset, axes in ((11, (1, 2)), (13, (1,))):
        made = model([node("Softmax", "x", "y", axis=1)], {"x": (2, 3, 4)}, opset=opset)
        graph, state = read(tmp_path, made)
        e = np.exp(x)
        np.testing.assert_allclose(mg.compile(graph, state)(x=x)["y"], e / e.sum(axes, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize(
    ("op", "attrs", "inputs"),
    [
        ("Squeeze", {"axes": [1]}, {"axes": np.array([1])}),
        ("ReduceSum", {"axes": [2], "keepdims": 0}, {"axes": np.array([2])}),
        ("Unsqueeze", {"axes": [0, 3]}, {"axes": np.array([0, 3])}),
    ],
)
def test_axes_are_an_attribute_and_then_an_input(tmp_path, op, attrs, inputs):
    x = floats(2, 1, 3)
    agrees(tmp_path, model([node(op, "x", "y", **attrs)], {"x": x.shape}, opset=11), x=x)
    rest = {name: value for name, value in attrs.items() if name not in inputs}
    agrees(tmp_path, model([node(op, "x axes", "y", **rest)], {"x": x.shape}, weights=inputs, opset=13), x=x)


def test_slice_pad_clip_and_upsample_of_old_opsets(tmp_path):
    x = floats(2, 3, 4, 4)
    steps = [
        node("Slice", "x", "a", starts=[0, 1], ends=[9, -1], axes=[0, 2]),
        node("Pad", "a", "b", pads=[0, 0, 1, 0, 0, 0, 0, 2], value=0.5),
        node("Clip", "b", "c", min=-0.5),
        node("Upsample", "c", "y", scales=[1.0, 1.0, 2.0, 3.0], mode="nearest"),
    ]
    graph, state = read(tmp_path, model(steps, {"x": x.shape}, opset=7))
    right = np.maximum(np.pad(x[:, :, 1:3], [(0, 0), (0, 0), (1, 0), (0, 2)], constant_values=0.5), -0.5)
    np.testing.assert_array_equal(mg.compile(graph, state)(x=x)["y"], right.repeat(2, 2).repeat(3, 3))


# batch norm


def norm(training: int, outputs: str) -> onnx.ModelProto:
    statistics = {"gamma": floats(3), "beta": floats(3), "mean": floats(3), "var": np.abs(floats(3)) + 1}
    attrs = {"training_mode": 1, "momentum": 0.8} if training else {}
    made = node("BatchNormalization", "x gamma beta mean var", outputs, epsilon=1e-3, **attrs)
    return model([made], {"x": ("N", 3, 4)}, outputs, statistics)


def test_batch_norm_in_inference_mode(tmp_path):
    graph = agrees(tmp_path, norm(0, "y"), x=floats(5, 3, 4))
    kinds = {variable.name: variable.kind for variable in graph.state}
    assert kinds == {"gamma": "parameter", "beta": "parameter", "mean": "statistic", "var": "statistic"}


def test_batch_norm_in_training_mode_gives_its_averages_and_keeps_them(tmp_path):
    made, x = norm(1, "y m v"), floats(5, 3, 4)
    graph = agrees(tmp_path, made, x=x)
    state = load(tmp_path / "model.onnx")[1]
    right: Any = ReferenceEvaluator(made).run(None, {"x": x})
    mg.compile(graph, state)(x=x)
    np.testing.assert_allclose(state["mean"], right[1], rtol=1e-5)
    np.testing.assert_allclose(state["var"], right[2], rtol=1e-5)
    frozen = mg.inference(graph, outputs=["y"])
    assert ops(frozen) == ["batch_norm_inference"]


def test_a_network_that_was_read_is_trained_on(tmp_path):
    """Two classes that lie apart: a frozen batch norm, a layer, a loss, all of the file."""
    made = model(
        [
            node("BatchNormalization", "x g b m v", "h"),
            node("Gemm", "h w c", "scores"),
            node("SoftmaxCrossEntropyLoss", "scores labels", "loss"),
        ],
        {"x": ("N", 2), "labels": [INT64, ["N"]]},
        "loss",
        {
            "g": np.ones(2, np.float32),
            "b": np.zeros(2, np.float32),
            "m": np.zeros(2, np.float32),
            "v": np.ones(2, np.float32),
            "w": floats(2, 2),
            "c": np.zeros(2, np.float32),
        },
    )
    graph, state = read(tmp_path, made)
    labels = RNG.integers(0, 2, 64)
    x = floats(64, 2) + np.where(labels == 1, 2, -2)[:, None].astype(np.float32)
    train = mg.compile(mg.training_step(graph, loss="loss", optimizer=mg.optim.SGD(0.5)), state)
    losses = [float(train(x=x, labels=labels)["loss"]) for _ in range(30)]
    assert losses[-1] < 0.1 * losses[0]


# in pieces that no test of ONNX's has


def test_whole_numbers_divide_towards_zero_however_large(tmp_path):
    x = np.array([7, -7, 7, -7, (1 << 62) + 3, -(1 << 62) - 3, (1 << 63) - 1, 9007199254740993])
    y = np.array([2, 2, -2, -2, 7, 7, 1, 1])
    made = model([node("Div", "x y", "z")], {"x": [INT64, [8]], "y": [INT64, [8]]}, "z")
    graph, state = read(tmp_path, made)
    right = [int(abs(int(a)) // abs(int(b))) * (1 if (a < 0) == (b < 0) else -1) for a, b in zip(x, y)]
    assert mg.compile(graph, state)(x=x, y=y)["z"].tolist() == right


def test_the_places_of_the_largest_numbers_with_an_open_batch(tmp_path):
    made = model([node("MaxPool", "x", "y i", kernel_shape=[2, 2], strides=[2, 2])], {"x": ("N", 2, 4, 4)}, "y i")
    agrees(tmp_path, made, x=floats(3, 2, 4, 4))


def test_an_lstm_in_both_directions(tmp_path):
    made = model(
        [node("LSTM", "x w r b", "y h c", hidden_size=4, direction="bidirectional")],
        {"x": (5, "N", 3)},
        "y h c",
        {"w": floats(2, 16, 3), "r": floats(2, 16, 4), "b": floats(2, 32)},
    )
    graph, state = read(tmp_path, made)
    assert [str(value.type) for value in graph.outputs.values()] == [
        "float32[5, 2, N, 4]",
        "float32[2, N, 4]",
        "float32[2, N, 4]",
    ]
    assert [variable.name for variable in graph.state] == ["w", "r", "b"]
    x = floats(5, 2, 3)
    results = mg.compile(graph, state)(x=x)
    wanted = unrolled(x, state["w"][1], state["r"][1], state["b"][1], range(4, -1, -1))
    np.testing.assert_allclose(results["y"][:, 1], wanted, rtol=1e-4, atol=1e-5)
    wanted = unrolled(x, state["w"][0], state["r"][0], state["b"][0], range(5))
    np.testing.assert_allclose(results["h"][0], wanted[-1], rtol=1e-4, atol=1e-5)


def unrolled(x: np.ndarray, w: np.ndarray, r: np.ndarray, b: np.ndarray, steps: range) -> np.ndarray:
    """One direction of an LSTM: gates lie as input, output, forget, cell."""
    size = r.shape[1]
    h, c = np.zeros((x.shape[1], size)), np.zeros((x.shape[1], size))
    y = np.zeros((len(x), x.shape[1], size))
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    for t in steps:
        i, o, f, g = np.split(x[t] @ w.T + h @ r.T + b[: 4 * size] + b[4 * size :], 4, 1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        y[t] = h
    return y
