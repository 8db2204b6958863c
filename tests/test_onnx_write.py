"""Models that minigraph writes: onnx.checker accepts them, and ONNX Runtime computes what the references do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplemented_
from test_example_networks import TINY
from test_registry import arrays_for, cases, of_any_batch

import minigraph as mg
import minigraph.onnx as models
from minigraph import layers
from minigraph.core import proof
from minigraph.core.builder import Builder, Tensor
from minigraph.core.evaluate import evaluate
from minigraph.core.ir import Graph
from minigraph.core.op import Example, Op, float_dtype, real
from minigraph.onnx import write
from minigraph.onnx.draft import WRITERS
from random_graphs import random_graph

Arrays = Mapping[str, np.ndarray]

REFUSED = {  # what ONNX has not
    "random_bits": "random numbers by counting, bit for bit",
    "dropout": "its mask is made of random_bits",
    "tf32": "rounding to 10 binary digits",
}
NOT_IN_FLOAT64 = {  # in ONNX Runtime, for want of a kernel; the files are right
    *("softplus", "tan", "asin", "acos", "atan", "sinh", "cosh", "erf", "softsign", "mish", "gelu"),
    *("leaky_relu", "thresholded_relu", "hard_sigmoid", "prelu", "elu", "binary_cross_entropy"),
    *("conv", "conv_input_gradient", "conv_weight_gradient", "conv_transpose"),
    *("avg_pool", "avg_pool_gradient", "adaptive_avg_pool"),
}
NEEDS_SIZES = {  # an op and the number of its example: what does not go without them
    ("pad", 10),  # a mirror is wider than the image, which ONNX Runtime refuses
    *(("pad_gradient", number) for number in range(4)),  # which entries are added up is written as numbers
    ("cross_entropy", 3),  # of no labels ONNX Runtime has no loss
}
OLD = onnxruntime.__version__.startswith("1.23.")  # the newest for Python 3.10
CRASHES = {("topk", 4), ("one_hot", 2), ("cross_entropy", 3), ("nll_loss", 3)}  # there: what divides by no lines at all
WITHOUT_KERNEL = {(name, "float64") for name in ("cos", "silu", "resize_gradient")}  # there as well
CLOSE = {"float16": 4e-3, "float32": 4e-6, "float64": 1e-11}  # of the largest number, or of 1
OPS = [op for op in mg.OPS.values() if op.name not in REFUSED]


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def ran(path: Path, arrays: Arrays) -> dict[str, np.ndarray]:
    """The outputs of a model, by name, of those of the arrays that it takes."""
    model = session(path)
    given = {value.name: arrays[value.name] for value in model.get_inputs() if value.name in arrays}
    return dict(zip([value.name for value in model.get_outputs()], model.run(None, given)))


def saved(tmp_path: Path, graph: Graph, state: Arrays | None = None) -> Path:
    path = tmp_path / "net.onnx"
    models.save(graph, state, path)
    return path


def check_close(found: Arrays, wanted: Arrays, close: float, message: str = "") -> None:
    for name, array in wanted.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype), f"{message} {name}"
        wide, other = array.astype(np.float64), found[name].astype(np.float64)
        largest = max(1.0, np.abs(wide[np.isfinite(wide)]).max(initial=0.0))
        np.testing.assert_allclose(other, wide, rtol=close, atol=close * largest, err_msg=f"{message} {name}")


def answers(graph: Graph, arrays: Arrays, **sizes: int) -> dict[str, np.ndarray]:
    """What the references answer."""
    with np.errstate(all="ignore"):
        return evaluate(graph.bind(**sizes), arrays)


def check_example(tmp_path: Path, op: Op, example: Example, dtype: str) -> None:
    if OLD and ((op.name, op.examples.index(example)) in CRASHES or (op.name, dtype) in WITHOUT_KERNEL):
        return
    graph, samples = proof.graph_of(op, example, dtype)
    arrays = arrays_for(graph, samples)
    found = ran(saved(tmp_path, graph), arrays)
    check_close(found, evaluate(graph, arrays), CLOSE[dtype], f"{op.name} {example}")


# each op


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_op_of_the_registry_runs_in_onnx_runtime(tmp_path: Path, op: Op) -> None:
    for example in op.examples:
        check_example(tmp_path, op, example, "float32")


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_so_it_does_in_other_floats(tmp_path: Path, op: Op) -> None:
    for example in op.examples[:2]:
        check_example(tmp_path, op, example, "float16")
        if op.name not in NOT_IN_FLOAT64:
            check_example(tmp_path, op, example, "float64")


@pytest.mark.parametrize("name", sorted(NOT_IN_FLOAT64))
def test_what_onnx_runtime_lacks_in_float64_it_still_lacks(tmp_path: Path, name: str) -> None:
    lacking = 0
    for example in mg.OPS[name].examples:
        path = saved(tmp_path, proof.graph_of(mg.OPS[name], example, "float64")[0])  # which the checker accepts
        try:
            session(path)
        except NotImplemented_:
            lacking += 1
    assert lacking


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_in_bfloat16_the_checker_accepts_it(tmp_path: Path, op: Op) -> None:
    for example in op.examples[:1]:
        graph, _ = proof.graph_of(op, example, "bfloat16")
        saved(tmp_path, graph)


@pytest.mark.parametrize(("op", "example"), cases(lambda op: op.name not in REFUSED))
def test_the_batch_may_be_known_only_at_run_time(tmp_path: Path, op: Op, example: Example) -> None:
    number = op.examples.index(example)
    if (op.name, number) in NEEDS_SIZES or (OLD and (op.name, number) in CRASHES):
        return
    graph = of_any_batch(op, example)
    if graph is None:
        return
    concrete, samples = proof.graph_of(op, example)
    arrays = arrays_for(concrete, samples)
    check_close(ran(saved(tmp_path, graph), arrays), evaluate(concrete, arrays), CLOSE["float32"])


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "uint16", "uint32"])
def test_integers_that_operators_do_not_know_are_computed_in_larger_ones(tmp_path: Path, dtype: str) -> None:
    net = Builder()
    x, y = net.input("x", (4,), dtype), net.input("y", (4,), dtype)
    results = {
        **{
            op.name: op(x, y)
            for op in map(mg.OPS.get, ("add", "sub", "mul", "mod", "fmod", "maximum", "minimum"))
            if op
        },
        **{op.name: op(x, y) for op in map(mg.OPS.get, ("equal", "less", "less_equal")) if op},
        "sum": mg.sum(x),
        "max": mg.max(x),
        "argmin": mg.argmin(x),
        "cumsum": mg.cumsum(x),
        "clip": mg.clip(x, 2, 9),
        "topk": mg.topk(x, 2)[0],
        "sign": mg.sign(x),
        "abs": mg.abs(x),
        "where": mg.where(mg.less(x, y), x, y),
        "pooled": mg.reshape(mg.max_pool(mg.reshape(x, (1, 1, 4)), 3, stride=1, padding=1), (4,)),
    }
    graph = net.build(results)
    arrays = {"x": np.array([100, 7, 3, 0]).astype(dtype), "y": np.array([90, 2, 5, 0]).astype(dtype)}
    with np.errstate(all="ignore"):
        wanted = evaluate(graph, arrays)
    check_close(ran(saved(tmp_path, graph), arrays), wanted, 0.0)


def test_padding_as_wide_as_a_window_with_gaps(tmp_path: Path) -> None:
    net = Builder()
    x = net.input("x", (1, 2, 3))
    wide = {"window": 2, "stride": 1, "padding": 2, "dilation": 2}
    counted = mg.avg_pool(x, **wide, count_include_pad=True)
    graph = net.build(largest=mg.max_pool(x, **wide), mean=mg.avg_pool(x, **wide), counted=counted)
    arrays = given_to(graph, 1)
    check_close(ran(saved(tmp_path, graph), arrays), evaluate(graph, arrays), CLOSE["float32"])
    backward, seeds = proof.gradient_graph(net.build(y=mg.max_pool(x, **wide)))
    assert seeds
    with pytest.raises(mg.GraphError, match="max_pool_gradient: its padding is as wide as its window"):
        saved(tmp_path, backward)


def test_zeros_around_what_a_max_pool_reads_are_numbers_and_no_padding(tmp_path: Path) -> None:
    net = Builder()
    x = net.input("x", (1, 1, 3, 3))
    graph = net.build(y=mg.max_pool(mg.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), 3, stride=1))
    arrays = {"x": np.full((1, 1, 3, 3), -1, "f4")}
    found = ran(saved(tmp_path, graph), arrays)["y"]
    assert found[0, 0].tolist() == [[0, 0, 0], [0, -1, 0], [0, 0, 0]]


def test_nan_and_infinities_are_what_they_were(tmp_path: Path) -> None:
    net = Builder()
    x = net.input("x", (6,))
    ops: list[Any] = [
        mg.relu,
        mg.relu6,
        mg.leaky_relu,
        mg.sigmoid,
        mg.tanh,
        mg.softplus,
        mg.exp,
        mg.log1p,
        mg.expm1,
        mg.sign,
    ]
    ops += [
        mg.elu,
        mg.selu,
        mg.hard_sigmoid,
        mg.isnan,
        mg.isinf,
        mg.trunc,
        mg.isfinite,
    ]  # hard_swish of -inf is NaN there
    results = {op.name if isinstance(op, Op) else op.__name__: op(x) for op in ops}
    results |= {"larger": mg.maximum(x, 0.5), "smaller": mg.minimum(0.5, x), "clipped": mg.clip(x, -1, 1)}
    graph = net.build(results)
    arrays = {"x": np.array([np.nan, np.inf, -np.inf, 0, 1e-20, -3e38], "f4")}
    with np.errstate(all="ignore"):
        wanted = evaluate(graph, arrays)
    check_close(ran(saved(tmp_path, graph), arrays), wanted, CLOSE["float32"])


def test_small_numbers_keep_their_digits(tmp_path: Path) -> None:
    net = Builder()
    x = net.input("x", (5,))
    graph = net.build(a=mg.expm1(x), b=mg.log1p(x))
    arrays = {"x": np.array([1e-7, -1e-5, 3e-3, 0.4, 30.0], "f4")}
    found = ran(saved(tmp_path, graph), {"x": np.abs(arrays["x"])})
    for name, array in evaluate(graph, {"x": np.abs(arrays["x"])}).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-6)


# ops of one's own


def test_an_op_of_ones_own_is_written_by_its_expansion_or_its_expression(tmp_path: Path) -> None:
    def types(x: Any, /) -> Any:
        """x and x again."""
        float_dtype(x)
        return x

    whole = Op("twice_whole", types, lambda x: x + x, examples=(Example(real(2)),))
    parts = Op("twice_in_parts", types, lambda x: x + x, expand=lambda x: mg.relu(x) + mg.relu(x), examples=())
    number = Op("twice_each", types, lambda x: x + x, expression=lambda x: x + x, examples=())
    try:
        net = Builder()
        x = net.input("x", (2,))
        good = net.build(a=parts(x), b=number(x))
        found = ran(saved(tmp_path, good), {"x": np.ones(2, "f4")})
        check_close(found, {"a": np.full(2, 2, "f4"), "b": np.full(2, 2, "f4")}, 0.0)
        bad = net.build(y=whole(whole(x)), z=mg.tf32(x))
        with pytest.raises(mg.GraphError) as error:
            saved(tmp_path, bad)
        assert str(error.value).splitlines() == [
            "'graph' cannot be written for ONNX:",
            "  twice_whole: ONNX has nothing like it (twice_whole, twice_whole2)",
            "  tf32: ONNX has no function tf32 (tf32)",
        ]
    finally:
        for op in (whole, parts, number):
            del mg.OPS[op.name]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_onnx_has_not_is_said(tmp_path: Path, name: str) -> None:
    graph, _ = proof.graph_of(mg.OPS[name], mg.OPS[name].examples[0])
    with pytest.raises(mg.GraphError, match=f"{name}: ONNX has no"):
        saved(tmp_path, graph)
    assert not list(tmp_path.iterdir())


def test_how_many_ops_are_written_in_which_way() -> None:
    """As the README says."""
    ours = [op for op in mg.OPS.values() if op.name not in REFUSED]
    by_writer = [op for op in ours if op in WRITERS]
    by_expansion = [op for op in ours if op not in WRITERS and op.expand]
    by_expression = [op for op in ours if op not in WRITERS and not op.expand]
    counts = len(by_writer), len(by_expression), len(by_expansion), len(REFUSED)
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    said = (
        "{} ops have a writer, {} pointwise ones go by their expressions, {} by their expansions; {} cannot be written"
    )
    assert said.format(*counts) in " ".join(readme.split())


# networks


def given_to(graph: Graph, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs; labels are below 2."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for value in graph.inputs:
        shape: Any = value.type.bind(dict.fromkeys(graph.symbols, batch)).shape
        drawn = rng.normal(size=shape) if value.type.is_float else rng.integers(0, 2, shape)
        found[value.name] = np.asarray(drawn, value.type.dtype)
    return found


def alive(graph: Graph, seed: int = 0) -> mg.State:
    """A state whose running statistics are not those of the beginning."""
    state, rng = graph.init(seed), np.random.default_rng(seed)
    for variable in graph.state:
        if variable.kind == "statistic":
            shape: Any = variable.value.type.shape
            low, high = (0.5, 2.0) if variable.name.endswith("var") else (-0.5, 0.5)
            state[variable.name] = rng.uniform(low, high, shape).astype(variable.value.type.dtype)
    return state


@pytest.mark.parametrize("name", TINY)
def test_the_example_networks_answer_the_same_before_and_after_the_passes(tmp_path: Path, name: str) -> None:
    graph = mg.inference(TINY[name](), ["logits"])
    state, inputs = alive(graph), given_to(graph, 3)
    optimized = mg.optimize(graph, state).graph
    wanted = answers(graph, {**inputs, **state}, N=3)["logits"]
    assert np.abs(wanted).max() > 0
    before, after = saved(tmp_path, graph, state), tmp_path / "after.onnx"
    models.save(optimized, state, after)
    for path in (before, after):
        found = ran(path, inputs)["logits"]
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    operators = [node.op_type for node in onnx.load(after).graph.node]
    if name not in ("wide_resnet", "densenet_bc"):  # whose passes leave a scale and a shift
        assert "BatchNormalization" not in operators
    assert len(operators) <= len(onnx.load(before).graph.node) + (9 if name == "densenet_bc" else 0)


def normalized() -> Graph:
    net = Builder("small")
    x, label = net.input("x", ("N", 2, 4, 4)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.conv2d(x, 3, 3, padding=1, bias=False)))
    logits = layers.linear(mg.flatten(mg.max_pool(h, 2)), 5)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def test_one_model_serves_batches_of_all_sizes(tmp_path: Path) -> None:
    graph = mg.inference(normalized(), ["logits"])
    state = alive(graph)
    path = saved(tmp_path, graph, state)
    for batch in (1, 7):
        inputs = given_to(graph, batch)
        check_close(ran(path, inputs), answers(graph, {**inputs, **state}, N=batch), CLOSE["float32"])


def test_what_a_state_becomes_is_an_output_and_can_be_given_the_next_time(tmp_path: Path) -> None:
    """A whole step of training, forward, backward, running statistics and Adam, in ONNX Runtime."""
    step = mg.training_step(normalized(), "loss", mg.optim.Adam(1e-2))
    state = step.init(0)
    path = saved(tmp_path, step, state)
    model = session(path)
    assert {value.name for value in model.get_outputs()} == {*step.outputs, *(f"{v.name}.next" for v in step.updates)}
    optional = {value.name for value in model.get_overridable_initializers()}
    assert optional == {value.name for value in step.updates}
    program = mg.compile(step, state, backend="numpy")
    moved: dict[str, np.ndarray] = {}
    for number in range(3):
        inputs = given_to(step, 6, number)
        wanted = program(**inputs)
        found = dict(zip([v.name for v in model.get_outputs()], model.run(None, {**inputs, **moved})))
        moved = {value.name: found[f"{value.name}.next"] for value in step.updates}
        np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)
    for name, array in moved.items():
        np.testing.assert_allclose(array, state[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_transposes_that_meet_are_none(tmp_path: Path) -> None:
    """Channels last: one transpose in front of the convolutions and one behind."""
    net = Builder()
    x = net.input("x", ("N", 6, 5, 2))
    h = layers.conv2d(x, 3, 3, bias=False, layout="NHWC")
    h = mg.max_pool(layers.conv2d(h, 4, 1, bias=False, layout="NHWC"), 2, layout="NHWC")
    graph = net.build(y=h, z=mg.transpose(mg.transpose(x, (1, 0, 2, 3)), (1, 0, 2, 3)))
    state, inputs = graph.init(0), given_to(graph, 2)
    path = saved(tmp_path, graph, state)
    check_close(ran(path, inputs), answers(graph, {**inputs, **state}, N=2), CLOSE["float32"])
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators == ["Transpose", "Conv", "Conv", "MaxPool", "Transpose", "Identity"]


SEEDS = [*range(20), *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(20, 400))]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs_compute_the_same(tmp_path: Path, seed: int) -> None:
    """But for those with tensors of no numbers, which ONNX Runtime does not always multiply."""
    one = random_graph(seed, "float32")
    values = [value for node in one.graph.bind(**one.sizes).nodes for value in node.outputs]
    if any(node.op.name in REFUSED for node in one.graph.nodes) or any(0 in value.type.shape for value in values):
        return
    arrays = {v.name: np.asarray(one.arrays[v.name], v.type.dtype) for v in proof.given(one.graph)}
    path = saved(tmp_path, one.graph, arrays)
    found = ran(path, {value.name: arrays[value.name] for value in one.graph.inputs})
    check_close(found, answers(one.graph, arrays, **one.sizes), 1e-3, str(one.graph))


def test_what_is_added_to_each_channel_is_the_bias_of_a_convolution(tmp_path: Path) -> None:
    net = Builder()
    h = layers.conv2d(net.input("x", ("N", 2, 4, 4)), 3, 3)
    both = layers.conv_transpose2d(h, 2, 3)
    bare = layers.conv2d(h, 2, 1, bias=False, name="bare")
    shift = net.parameter("shift", (1, 2, 1, 1), mg.init.normal(1.0))
    one = layers.conv2d(h, 1, 1, bias=False, name="one")
    graph = net.build(y=both, bare=bare, shifted=bare + shift, grown=one + shift)
    state, inputs = {name: array + 0.5 for name, array in graph.init(0).items()}, given_to(graph, 2)
    path = saved(tmp_path, graph, state)
    check_close(ran(path, inputs), answers(graph, {**inputs, **state}, N=2), CLOSE["float32"])
    operators = [(node.op_type, len(node.input)) for node in onnx.load(path).graph.node]
    convolutions = [("Conv", 3), ("ConvTranspose", 3), ("Conv", 2), ("Conv", 2)]
    assert sorted(operators) == sorted([*convolutions, ("Add", 2), ("Add", 2)])


def test_linear_layers_are_gemm(tmp_path: Path) -> None:
    net = Builder()
    x, z = net.input("x", ("N", 3)), net.input("z", ("N", 2, 3))
    w = net.parameter("w", (3, 4), mg.init.normal(1.0))
    flat, rows = layers.linear(x, 5), layers.linear(z, 5, name="rows")
    graph = net.build(
        flat=flat, rows=rows, other=x @ w + net.parameter("b", (4,), mg.init.normal(1.0)), bare=x @ w + x[:, :1]
    )
    state, inputs = graph.init(0), given_to(graph, 2)
    path = saved(tmp_path, graph, state)
    check_close(ran(path, inputs), answers(graph, {**inputs, **state}, N=2), CLOSE["float32"])
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert sorted(operators) == ["Add", "Add", "Gemm", "Gemm", "MatMul", "MatMul", "Slice", "Transpose"]


# names and sizes


def test_names_and_sizes_are_kept(tmp_path: Path) -> None:
    net = Builder("named")
    x = net.input("an/image", ("N", "2*T", 3))
    with net.scope("head"):
        y = x * net.parameter("scale", (3,), mg.init.ones)
    graph = net.build({"y": mg.exp(y), "again": mg.exp(y)})
    model = onnx.load(saved(tmp_path, graph, graph.init(0)))
    assert model.graph.name == "named"
    sizes = lambda value: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
    assert [(v.name, sizes(v)) for v in model.graph.input] == [("an/image", ["N", "2*T", 3])]
    assert [(v.name, sizes(v)) for v in model.graph.output] == [("y", ["N", "2*T", 3]), ("again", ["N", "2*T", 3])]
    assert [tensor.name for tensor in model.graph.initializer] == ["head.scale"]
    assert [node.output[0] for node in model.graph.node] == ["head.mul", "y", "again"]


def sized(*shapes: Sequence[Any]) -> tuple[Builder, list[Tensor]]:
    net = Builder()
    return net, [net.input(f"x{i}", shape) for i, shape in enumerate(shapes)]


def test_sizes_are_computed_from_the_shapes_of_inputs(tmp_path: Path) -> None:
    net, (x, z) = sized(("N", "2*T+1", 3), ("M*N", "T"))
    graph = net.build(
        flat=mg.reshape(x, ("2*N*T+N", 3)),
        table=mg.reshape(z, ("N*M*T",)),
        counted=mg.arange(net, "N*T-1"),
        filled=mg.broadcast_to(net.constant(2.0), ("T", "N")),
        end=x[:, -2:],
        middle=x[1:, :-1],
        mean=mg.mean(x, (0, 1)),
    )
    arrays = {"x0": np.arange(42, dtype="f4").reshape(2, 7, 3), "x1": np.ones((4, 3), "f4")}
    wanted = answers(graph, arrays, N=2, T=3, M=2)
    check_close(ran(saved(tmp_path, graph), arrays), wanted, CLOSE["float32"])


def test_a_place_before_the_beginning_is_the_beginning(tmp_path: Path) -> None:
    net, (x,) = sized(("N",))
    graph = net.build(y=mg.slice(x, ("N-3",), (None,)))
    path = saved(tmp_path, graph)
    for n in (2, 5):
        arrays = {"x0": np.arange(n, dtype="f4")}
        check_close(ran(path, arrays), {"y": arrays["x0"][-3:]}, 0.0)


def test_a_size_that_no_input_tells_is_named(tmp_path: Path) -> None:
    net, (x,) = sized(("N*M",))
    graph = net.build(y=mg.arange(net, "N"), z=x)
    with pytest.raises(mg.GraphError, match="iota: no input has N as a size by itself"):
        saved(tmp_path, graph)


def test_results_may_be_inputs_state_constants_and_one_value_twice(tmp_path: Path) -> None:
    net, (x,) = sized((2,))
    w = net.parameter("w", (2,), mg.init.ones)
    three = net.constant(np.full(2, 3, "f4"))
    graph = net.build(
        {"x0": x, "w": w, "x_too": x, "w_too": w, "three": three, "3.again": three, "y": x + w, "z": x + 1}
    )
    found = ran(saved(tmp_path, graph, graph.init(0)), {"x0": np.array([5, 6], "f4")})
    wanted = {"x0": [5, 6], "w": [1, 1], "x_too": [5, 6], "w_too": [1, 1], "three": [3, 3], "3.again": [3, 3]}
    check_close(found, {k: np.array(v, "f4") for k, v in {**wanted, "y": [6, 7], "z": [6, 7]}.items()}, 0.0)


def test_inner_values_give_way_to_the_names_of_results(tmp_path: Path) -> None:
    net, (x,) = sized((2,))
    graph = net.build({"exp": mg.tanh(mg.exp(x)), "tanh": mg.exp(x)})
    arrays = {"x0": np.array([0.5, -1], "f4")}
    check_close(ran(saved(tmp_path, graph), arrays), evaluate(graph, arrays), CLOSE["float32"])


def test_what_is_computed_of_parameters_is_there_as_numbers(tmp_path: Path) -> None:
    net, (x,) = sized(("N", 3))
    w = net.parameter("w", (4, 3), mg.init.normal(1.0))
    scaled = w / mg.l2_norm(w, 1, keepdims=True)
    graph = net.build(y=x @ mg.transpose(scaled), z=mg.reshape(w, (12,)))
    state, arrays = graph.init(0), {"x0": np.ones((2, 3), "f4")}
    path = saved(tmp_path, graph, state)
    check_close(ran(path, arrays), answers(graph, {**arrays, **state}, N=2), CLOSE["float32"])
    model = onnx.load(path)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Reshape"]
    assert "w" in [tensor.name for tensor in model.graph.initializer]


# files


def test_large_numbers_lie_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "MOST_INSIDE", 400)
    monkeypatch.setattr(write, "LEAST_BESIDE", 100)
    graph = mg.inference(normalized(), ["logits"])
    state, inputs = alive(graph), given_to(graph, 2)
    path = saved(tmp_path, graph, state)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    bare = onnx.load(path, load_external_data=False)
    assert {tensor.name for tensor in bare.graph.initializer if not tensor.raw_data} == {
        "conv1.weight",
        "linear1.weight",
    }
    check_close(ran(path, inputs), answers(graph, {**inputs, **state}, N=2), CLOSE["float32"])


def test_numbers_are_kept_to_the_bit(tmp_path: Path) -> None:
    numbers = {
        "f2": np.array([1.5, np.nan, -0.0], "f2"),
        "f4": np.array([1.1, np.inf, -0.0], "f4"),
        "f8": np.array([[1.1]], "f8"),
        "bf": np.array([1.5, 3e38], ml_dtypes.bfloat16),
        "i1": np.array([-128], "i1"),
        "u8": np.array([2**64 - 1], "u8"),
        "b": np.array([True, False]),
        "none": np.zeros((0, 3), "f4"),
    }
    net = Builder()
    graph = net.build({f"{name}.out": net.constant(array) for name, array in numbers.items()})
    model = onnx.load(saved(tmp_path, graph))
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node, (name, array) in zip(model.graph.node, numbers.items()):
        found = held[node.input[0]]
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes()), name


def test_what_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    graph = mg.inference(normalized(), ["logits"])
    path = saved(tmp_path, graph, graph.init(0))
    before = path.read_bytes()
    state = graph.init(0)
    del state["conv1.weight"]
    for wrong, message in (
        (state, "the state lacks conv1.weight"),
        (None, "the state lacks conv1.weight, bn1.gamma"),
        ({**graph.init(0), "conv1.weight": np.zeros(3, "f4")}, r"conv1.weight is float32\[3, 2, 3, 3\], the state has"),
    ):
        with pytest.raises(mg.GraphError, match=message):
            models.save(graph, wrong, path)
    assert path.read_bytes() == before
    with pytest.raises(mg.GraphError, match=r"a model of ONNX is a \.onnx file, not net\.pb"):
        models.save(graph, graph.init(0), "net.pb")
    with pytest.raises(mg.GraphError, match="needs a Graph, not a str"):
        models.save("net", None, path)  # type: ignore[arg-type]
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(mg.GraphError, match="is a folder"):
        models.save(graph, graph.init(0), tmp_path / "folder.onnx")


def test_who_takes_one_kind_of_file_for_the_other_is_told(tmp_path: Path) -> None:
    graph = mg.inference(normalized(), ["logits"])
    with pytest.raises(mg.GraphError, match=r"net\.onnx is written by minigraph\.onnx\.save\(graph, state, path\)"):
        mg.save("net.onnx", graph, graph.init(0))
    with pytest.raises(mg.GraphError, match=r"net\.onnx is read by minigraph\.onnx\.load\(path\)"):
        mg.load(saved(tmp_path, graph, graph.init(0)))
