"""Layers: the parameters that they make, what they compute with them, and their errors. And pools made of other ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.core.initial import Constant, Normal
from minigraph.core.ir import Graph
from minigraph.ops.conv import conv_transpose
from minigraph.ops.pool import adaptive_avg_pool, adaptive_max_pool, global_max_pool, lp_pool
from onnx_ops import Model, each, sliding

NAN, INF = float("nan"), float("inf")


def graph_of(layer: Callable[[mg.Tensor], mg.Tensor], shape: Any, dtype: str = "float32") -> Graph:
    net = mg.Builder()
    return net.build(y=layer(net.input("x", shape, dtype)))


def run(layer: Callable[[mg.Tensor], mg.Tensor], x: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A layer's output on x, and its parameters, drawn at random."""
    x = np.asarray(x)
    graph = graph_of(layer, x.shape, x.dtype)
    rng = np.random.default_rng(0)
    state = graph.init(0)
    for variable in graph.state:
        shape: Any = variable.value.type.shape
        state[variable.name] = rng.normal(size=shape)
    return mg.compile(graph, state, backend="numpy")(x=x)["y"], {v.name: state[v.name] for v in graph.state}


Layer = Callable[[mg.Tensor], mg.Tensor]
LAYERS: dict[str, tuple[Layer, tuple[Any, ...], tuple[Any, ...], dict[str, tuple[int, ...]]]] = {
    "conv_transpose1": (
        lambda x: layers.conv_transpose2d(x, 6, (3, 2), stride=2, padding=1, output_padding=1, groups=2),
        ("N", 4, 5, 5),
        ("N", 6, 10, 9),
        {"weight": (4, 3, 3, 2), "bias": (6,)},
    ),
    "up": (
        lambda x: layers.conv_transpose1d(x, 3, 4, stride=2, bias=False, padding="same", layout="NLC", name="up"),
        ("N", "L", 2),
        ("N", "2*L", 3),
        {"weight": (2, 3, 4)},
    ),
    "volume": (
        lambda x: layers.conv_transpose3d(x, 1, 2, dilation=2, name="volume"),
        (1, 2, 2, 3, 4),
        (1, 1, 4, 5, 6),
        {"weight": (2, 1, 2, 2, 2), "bias": (1,)},
    ),
    "depthwise_conv1": (
        lambda x: layers.depthwise_conv2d(x, 3, multiplier=2, padding="same", layout="NHWC"),
        ("N", 4, 5, 3),
        ("N", 4, 5, 6),
        {"weight": (6, 1, 3, 3), "bias": (6,)},
    ),
    "layer_norm1": (
        lambda x: layers.layer_norm(x, axis=-2),
        ("N", 3, 4, 5),
        ("N", 3, 4, 5),
        {"gamma": (4, 5), "beta": (4, 5)},
    ),
    "rms_norm1": (layers.rms_norm, ("N", "T", 5), ("N", "T", 5), {"gamma": (5,)}),
    "group_norm1": (
        lambda x: layers.group_norm(x, 2, beta=False),
        ("N", 4, "H", 3),
        ("N", 4, "H", 3),
        {"gamma": (4,)},
    ),
    "instance_norm1": (
        lambda x: layers.instance_norm(x, axis=-1),
        ("N", 4, 3),
        ("N", 4, 3),
        {"gamma": (3,), "beta": (3,)},
    ),
    "plain": (lambda x: layers.instance_norm(x, gamma=False, beta=False, name="plain"), (2, 4, 3), (2, 4, 3), {}),
    "prelu1": (layers.prelu, ("N", 3, 4), ("N", 3, 4), {"slope": (3,)}),
    "one": (lambda x: layers.prelu(x, shared=True, name="one"), ("N", 3, 4), ("N", 3, 4), {"slope": (1,)}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_has_its_name_its_parameters_and_its_shape(name: str) -> None:
    layer, shape, result, parameters = LAYERS[name]
    graph = graph_of(layer, shape)
    assert tuple(map(str, graph.outputs["y"].type.shape)) == tuple(map(str, result))
    assert {v.name: v.value.type.shape for v in graph.state} == {f"{name}.{p}": s for p, s in parameters.items()}
    assert all(v.kind == "parameter" for v in graph.state)
    assert all(node.origin.scope == name for node in graph.nodes)
    assert all(node.origin.file == __file__ for node in graph.nodes)


def test_layers_of_a_kind_are_numbered() -> None:
    net = mg.Builder()
    x = net.input("x", ("N", 4))
    graph = net.build(y=layers.layer_norm(layers.layer_norm(layers.group_norm(x, 2))))
    names = [v.name for v in graph.state]
    assert names == [
        f"{layer}.{p}" for layer in ("group_norm1", "layer_norm1", "layer_norm2") for p in ("gamma", "beta")
    ]


def test_conv_transpose_adds_its_bias_and_is_the_op() -> None:
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 4))
    y, state = run(lambda x: layers.conv_transpose2d(x, 4, 3, stride=2, name="up", output_padding=(1, 0)), x)
    net = mg.Builder()
    given, w = net.input("x", x.shape, "float64"), net.input("w", (3, 4, 3, 3), "float64")
    graph = net.build(y=conv_transpose(given, w, stride=2, output_padding=(1, 0)))
    plain = mg.compile(graph, mg.State(), backend="numpy")(x=x, w=state["up.weight"])["y"]
    np.testing.assert_array_equal(y, plain + state["up.bias"].reshape(4, 1, 1))


def test_each_channel_has_windows_of_its_own() -> None:
    """Output channel c * multiplier + i is made of channel c alone."""
    x = np.random.default_rng(2).normal(size=(2, 3, 4, 5))
    layer = lambda x: layers.depthwise_conv2d(x, (2, 3), multiplier=2, stride=(1, 2), name="dw")
    y, state = run(layer, x)
    for c in range(3):
        for i in range(2):
            w = state["dw.weight"][c * 2 + i, 0]
            part = sum(w[a, b] * x[:, c, a : a + 3, b : b + 3 : 2] for a in range(2) for b in range(3))
            # float64, 6 products of order 1
            np.testing.assert_allclose(y[:, c * 2 + i], part + state["dw.bias"][c * 2 + i], rtol=0, atol=1e-14)


def test_the_fan_of_a_transposed_convolution_counts_what_meets_in_one_output() -> None:
    """8 channels in 2 groups, a window of (4, 3) in steps of (2, 2): 4 channels times 2 x 2 entries meet."""
    graph = graph_of(lambda x: layers.conv_transpose2d(x, 6, (4, 3), stride=2, groups=2), (1, 8, 3, 3))
    weight = graph.variables["conv_transpose1.weight"]
    assert weight.initializer == Normal((2 / 16) ** 0.5)


def test_initial_values() -> None:
    first = lambda layer, name: graph_of(layer, (2, 3, 4)).variables[name].initializer
    assert first(layers.prelu, "prelu1.slope") == Constant(0.25)
    assert first(layers.layer_norm, "layer_norm1.gamma") == Constant(1.0)
    assert first(layers.instance_norm, "instance_norm1.beta") == Constant(0.0)


def test_prelu_by_channel_and_shared() -> None:
    x = np.array([[[-2.0, 3.0], [-1.0, -4.0]]])
    y, state = run(layers.prelu, x)
    a, b = state["prelu1.slope"]
    assert y.tolist() == [[[-2 * a, 3], [-b, -4 * b]]]
    y, state = run(lambda x: layers.prelu(x, axis=-1), x)
    a, b = state["prelu1.slope"]
    assert y.tolist() == [[[-2 * a, 3], [-a, -4 * b]]]
    y, state = run(lambda x: layers.prelu(x, shared=True), x)
    a = state["prelu1.slope"][0]
    assert y.tolist() == [[[-2 * a, 3], [-a, -4 * a]]]


def test_embedding_picks_rows_and_adds_up_their_gradients() -> None:
    net = mg.Builder()
    tokens = net.input("tokens", ("N", "T"), "int64")
    y = layers.embedding(tokens, 5, 3)
    weight = net.tensor("embedding1.weight")
    graph = net.build(y=y, dw=mg.gradient(mg.sum(y), [weight])[0])
    assert graph.variables["embedding1.weight"].initializer == Normal(1.0)
    state = graph.init(0)
    found = mg.compile(graph, state, backend="numpy")(tokens=np.array([[4, 0, 4]]))
    assert np.array_equal(found["y"], state["embedding1.weight"][[[4, 0, 4]]])
    assert found["dw"].tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [2, 2, 2]]


def test_norms_of_half_precision_have_parameters_in_single() -> None:
    for layer in (layers.layer_norm, layers.rms_norm, layers.instance_norm, lambda x: layers.group_norm(x, 1)):
        graph = graph_of(layer, ("N", 3, 4), "float16")
        assert {v.value.type.dtype for v in graph.state} == {"float32"}
        assert graph.outputs["y"].type.dtype == "float16"


def test_a_small_network_of_them_learns() -> None:
    net = mg.Builder()
    tokens = net.input("tokens", ("N", 4), "int64")
    h = layers.embedding(tokens, 3, 4)
    h = mg.reshape(layers.layer_norm(h), ("N", 4, 2, 2))
    h = layers.prelu(layers.group_norm(layers.conv_transpose2d(h, 4, 2, stride=2), 2))
    h = layers.instance_norm(layers.depthwise_conv2d(h, 3, padding=1))
    loss = mg.mean((h - 1.0) * (h - 1.0))
    model = net.build(loss=loss)
    state = model.init(seed=0)
    train = mg.compile(mg.training_step(model, loss="loss", optimizer=mg.optim.Adam(0.05)), state, backend="numpy")
    batch = np.array([[0, 1, 2, 1], [2, 2, 0, 1]])
    losses = [float(train(tokens=batch)["loss"]) for _ in range(60)]
    assert losses[-1] < 0.1 * losses[0]  # beta alone can bring it to the variance that is left; gamma can take that


# errors


WRONG: dict[str, tuple[str, str, Layer]] = {
    "transposed, axes": (
        "conv_transpose1",
        "conv_transpose1d needs 3 axes",
        lambda x: layers.conv_transpose1d(x, 8, 3),
    ),
    "transposed, groups": (
        "conv_transpose1",
        "6 channels do not",
        lambda x: layers.conv_transpose2d(x, 8, 3, groups=4),
    ),
    "transposed, outputs": ("up", "8 output channels", lambda x: layers.conv_transpose2d(x, 8, 3, groups=3, name="up")),
    "transposed, output_padding": (
        "conv_transpose1",
        "less than the stride",
        lambda x: layers.conv_transpose2d(x, 8, 3, stride=2, output_padding=2),
    ),
    "transposed, same": (
        "conv_transpose1",
        "leaves nothing",
        lambda x: layers.conv_transpose2d(x, 8, 3, stride=2, padding="same", output_padding=1),
    ),
    "transposed, padding": ("conv_transpose1", "cuts off", lambda x: layers.conv_transpose2d(x, 8, 1, padding=3)),
    "transposed, window": ("conv_transpose1", "window is 1", lambda x: layers.conv_transpose2d(x, 8, 0)),
    "multiplier": ("depthwise_conv1", "multiplier is 1", lambda x: layers.depthwise_conv2d(x, 3, multiplier=0)),
    "depthwise, window": ("depthwise_conv1", "does not fit", lambda x: layers.depthwise_conv2d(x, 9)),
    "layer norm, axis": ("layer_norm1", "no axis 4", lambda x: layers.layer_norm(x, axis=4)),
    "layer norm, batch": ("layer_norm1", "must be known", lambda x: layers.layer_norm(x, axis=0)),
    "group norm, groups": ("gn", "6 channels do not", lambda x: layers.group_norm(x, 4, name="gn")),
    "instance norm, eps": ("instance_norm1", "eps is 0 or more", lambda x: layers.instance_norm(x, eps=-1)),
    "rms norm, eps": ("rms_norm1", "eps is 0 or more", lambda x: layers.rms_norm(x, eps=-1)),
    "prelu, channels": ("prelu1", "must be known", lambda x: layers.prelu(x, axis=0)),
    "transposed, channels": ("conv_transpose1", "channels is 1 or more", lambda x: layers.conv_transpose2d(x, 0, 3)),
    "embedding of none": (
        "embedding1",
        "count is 1 or more",
        lambda x: layers.embedding(x.builder.input("tokens", ("N",), "int32"), 0, 3),
    ),
    "embedding of floats": ("embedding1", "tokens are int32 or int64", lambda x: layers.embedding(x, 8, 3)),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_name_the_layer_and_the_line(name: str) -> None:
    layer, message, call = WRONG[name]
    x = mg.Builder().input("x", ("N", 6, 5, 5))
    with pytest.raises(mg.GraphError, match=message) as error:
        call(x)
    line = [entry for entry in error.traceback if str(entry.path) == __file__][-1].lineno + 1
    assert f"'{layer}" in str(error.value)
    assert f"{__file__}:{line}" in str(error.value)


# pools that are made of other ops, and the rules of those that are not


def compute(op: Callable[..., mg.Tensor], x: Any, **attrs: Any) -> tuple[np.ndarray, np.ndarray]:
    """y and the gradient of sum(y)."""
    x = np.asarray(x, np.float64)
    net = mg.Builder()
    given = net.input("x", x.shape, "float64")
    y = op(given, **attrs)
    graph = net.build(y=y, dx=mg.gradient(mg.sum(y), [given])[0])
    found = mg.compile(graph, mg.State(), backend="numpy")(x=x)
    return found["y"], found["dx"]


def test_a_last_window_may_be_partial() -> None:
    line = [[[1.0, 2, 3, 4, 5]]]
    assert compute(mg.max_pool, line, window=2, ceil_mode=True)[0].tolist() == [[[2, 4, 5]]]
    assert compute(mg.avg_pool, line, window=2, ceil_mode=True)[0].tolist() == [[[1.5, 3.5, 5]]]
    y, dx = compute(mg.avg_pool, line, window=3, padding=1, ceil_mode=True, count_include_pad=True)
    np.testing.assert_allclose(y, [[[1, 4]]], rtol=1e-15)  # windows at -1 and 2; a third at 5 would begin behind
    np.testing.assert_allclose(dx, [[[1 / 3] * 5]], rtol=1e-15)


def test_behind_the_padding_nothing_counts() -> None:
    y, _ = compute(
        mg.avg_pool, np.ones((1, 1, 6)), window=3, stride=2, padding=1, ceil_mode=True, count_include_pad=True
    )
    # windows at -1, 1, 3, 5: the last one holds x[5], one zero that counts, and one place that does not
    np.testing.assert_allclose(y, [[[2 / 3, 1, 1, 1 / 2]]], rtol=1e-15)
    dropped, _ = compute(mg.avg_pool, np.ones((1, 1, 4)), window=2, stride=3, padding=1, ceil_mode=True)
    assert dropped.tolist() == [[[1, 1]]]  # a third window would begin behind x


def test_ceil_mode_of_sizes_known_only_at_run_time() -> None:
    net = mg.Builder()
    y = mg.max_pool(net.input("x", ("N", 1, "2*L+1")), 2, ceil_mode=True)
    assert str(y.shape[2]) == "L+1"
    found = mg.compile(net.build(y=y), mg.State(), backend="numpy")(x=np.array([[[1, 3, 2, 0, -1]]]))
    assert found["y"].tolist() == [[[3, 2, -1]]]


@pytest.mark.parametrize("size", [1, 2])
def test_gradients_at_sizes_known_only_at_run_time(size: int) -> None:
    """Partial windows, padding that counts, and a transposed convolution, against the same sizes known."""
    net = mg.Builder()
    x, w = net.input("x", ("N", 2, "2*L+1"), "float64"), net.input("w", (2, 3, 3), "float64")
    y = conv_transpose(x, w, stride=2, padding=1)
    assert str(y.shape[2]) == "4*L+1"
    y = mg.avg_pool(y, 3, stride=2, padding=(1,), ceil_mode=True, count_include_pad=True)
    y = mg.max_pool(y, 2, stride=1, ceil_mode=True)
    graph = net.build(y=y, dx=mg.gradient(mg.sum(y * y), [x])[0])
    rng = np.random.default_rng(0)
    given = {"x": rng.normal(size=(2, 2, 2 * size + 1)), "w": rng.normal(size=(2, 3, 3))}
    found = mg.compile(graph, mg.State(), backend="numpy")(**given)
    fixed = mg.compile(graph.bind(N=2, L=size), mg.State(), backend="numpy")(**given)
    assert found["y"].shape == (2, 3, 2 * size)
    for name in ("y", "dx"):
        np.testing.assert_array_equal(found[name], fixed[name])


def test_no_more_can_count_than_the_padding() -> None:
    x = mg.Builder().input("x", (1, 1, 4))
    for wrong in (((2, 0),), ((0, -1),), ((0, 0), (0, 0)), (1,)):
        with pytest.raises(mg.GraphError):
            mg.avg_pool(x, 2, padding=1, count_include_pad=wrong)


def test_the_first_of_equals_takes_the_gradient_of_adaptive_max_pooling() -> None:
    y, dx = compute(adaptive_max_pool, [[[[5.0, 5, 1], [5, 5, 7]]]], sizes=(1, 2))
    assert y.tolist() == [[[[5, 7]]]]
    assert dx.tolist() == [[[[1, 0, 0], [0, 0, 1]]]]
    _, dx = compute(adaptive_max_pool, [[[[1.0, NAN, NAN], [NAN, 1, 1]]]], sizes=(1, 2))
    assert dx.tolist() == [[[[0, 2, 0], [0, 0, 0]]]]


def test_adaptive_average_of_one_place_takes_any_size() -> None:
    net = mg.Builder()
    x = net.input("x", ("N", 2, "H", "W"))
    graph = net.build(y=adaptive_avg_pool(x, 1))
    given = np.arange(12.0).reshape(1, 2, 2, 3)
    found = mg.compile(graph, mg.State(), backend="numpy")(x=given)["y"]
    assert found.tolist() == [[[[2.5]], [[8.5]]]]
    with pytest.raises(mg.GraphError, match="must be known"):
        adaptive_avg_pool(x, (2, 1))


def test_global_max_pool() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    y, dx = compute(global_max_pool, x)
    assert np.array_equal(y, x.max((2, 3)))
    assert np.array_equal(dx, x == x.max((2, 3), keepdims=True))
    assert np.array_equal(compute(global_max_pool, np.moveaxis(x, 1, -1), layout="NHWC")[0], y)
    assert compute(global_max_pool, x, keepdims=True)[0].shape == (2, 3, 1, 1)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize(
    "attrs",
    [
        {"window": 2},
        {"window": (3, 2), "stride": (2, 1), "padding": ((1, 0), (0, 1))},
        {"window": 2, "stride": 1, "dilation": 2},
    ],
)
def test_lp_pool_is_onnxs(p: int, attrs: dict[str, Any]) -> None:
    x = np.random.default_rng(3).normal(size=(2, 3, 5, 5))
    y, _ = compute(lp_pool, x, p=p, **attrs)
    window = each(attrs["window"], 2)
    model = Model([x])
    geometry = sliding(2, attrs.get("stride", window), attrs.get("padding", 0), attrs.get("dilation", 1))
    name = model.add("LpPool", "x0", p=p, kernel_shape=window, **geometry)
    # float64: 6 terms of up to 30, and a root
    np.testing.assert_allclose(y, model.run([name])[0], rtol=1e-13, atol=1e-13)


def test_a_partial_window_has_the_norm_of_what_is_in_it() -> None:
    y, dx = compute(lp_pool, [[[3.0, 4, -5]]], window=2, ceil_mode=True)
    np.testing.assert_allclose(y, [[[5, 5]]], rtol=1e-15)
    np.testing.assert_allclose(dx, [[[0.6, 0.8, -1]]], rtol=1e-15)


def test_lp_pool_in_half_precision_squares_in_single() -> None:
    net = mg.Builder()
    graph = net.build(y=lp_pool(net.input("x", (1, 1, 2), "float16"), 2))
    found = mg.compile(graph, mg.State(), backend="numpy")(x=np.array([[[300, 400]]], np.float16))["y"]
    assert found.tolist() == [[[500]]]
