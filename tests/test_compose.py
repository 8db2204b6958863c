"""Chains and residual blocks: what they compute, how their parts are called, and how they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.nn.compose import residual, sequential


def conv_bn(channels: int, window: int, stride: int = 1) -> Callable[[mg.Tensor], mg.Tensor]:
    padding = window // 2

    def layer(h: mg.Tensor) -> mg.Tensor:
        return layers.batch_norm(layers.conv2d(h, channels, window, stride=stride, padding=padding, bias=False))

    return layer


def basic_block(x: mg.Tensor, channels: int, stride: int = 1) -> mg.Tensor:
    """Of ResNet-18."""
    return residual(
        x,
        lambda h: conv_bn(channels, 3)(mg.relu(conv_bn(channels, 3, stride)(h))),
        shortcut=None if stride == 1 and x.shape[1] == channels else conv_bn(channels, 1, stride),
        activation=mg.relu,
    )


def test_a_resnet_reads_well() -> None:
    net = mg.Builder("resnet")
    h = net.input("image", ("N", 3, 8, 8))
    h = sequential(h, conv_bn(4, 3), mg.relu, name="stem")
    for stage, channels in enumerate((4, 8), 1):
        with net.scope(f"stage{stage}"):
            for i in range(2):
                h = basic_block(h, channels, stride=2 if stage > 1 and i == 0 else 1)
    logits = layers.linear(mg.global_avg_pool(h), 10, name="head")
    graph = net.build(logits=logits)
    assert str(logits.value.type) == "float32[N, 10]"
    weights = [variable.value.name for variable in graph.state if variable.value.name.endswith("weight")]
    assert weights == [
        "stem.conv1.weight",
        "stage1.residual1.conv1.weight",
        "stage1.residual1.conv2.weight",
        "stage1.residual2.conv1.weight",
        "stage1.residual2.conv2.weight",
        "stage2.residual1.conv1.weight",
        "stage2.residual1.conv2.weight",
        "stage2.residual1.shortcut.conv1.weight",
        "stage2.residual2.conv1.weight",
        "stage2.residual2.conv2.weight",
        "head.weight",
    ]
    assert "stage2.residual1.shortcut.bn1.gamma" in [variable.value.name for variable in graph.state]
    scopes = {node.name: node.origin.scope for node in graph.nodes}
    assert scopes["stage2.residual1.add"] == "stage2.residual1"
    assert {node.origin.file for node in graph.nodes} == {__file__}  # the lines are the user's, not compose's
    assert str(mg.parse(str(graph))) == str(graph)


def run(build: Callable[[mg.Tensor], mg.Tensor], x: np.ndarray) -> np.ndarray:
    net = mg.Builder()
    graph = net.build(y=build(net.input("x", ("N", *x.shape[1:]), "float64")))
    return mg.compile(graph, graph.init(seed=0))(x=x)["y"]


X = np.array([[1.0, -2.0, 3.0], [0.0, 0.5, -1.0]])


@pytest.mark.parametrize(
    ("build", "wanted"),
    [
        (lambda x: sequential(x), X),
        (lambda x: sequential(x, mg.relu), np.maximum(X, 0)),
        (lambda x: sequential(x, lambda h: h * 2.0, lambda h: h + 1.0), 2 * X + 1),
        (lambda x: residual(x, lambda h: h * 2.0), 3 * X),
        (lambda x: residual(x, lambda h: h * 2.0, activation=mg.relu), np.maximum(3 * X, 0)),
        (lambda x: residual(x, mg.relu, shortcut=lambda h: -h), np.maximum(X, 0) - X),
        (
            lambda x: residual(x, lambda h: mg.reshape(h, (-1, 3, 1)), shortcut=lambda h: mg.reshape(h, (-1, 3, 1))),
            2 * X[:, :, None],
        ),
    ],
)
def test_what_they_compute(build: Any, wanted: np.ndarray) -> None:
    np.testing.assert_array_equal(run(build, X), wanted)


def names(build: Callable[[mg.Tensor], Any]) -> list[str]:
    net = mg.Builder()
    build(net.input("x", ("N", 3)))
    return [parameter.value.name for parameter in net.parameters if parameter.value.name.endswith("weight")]


def dense(h: mg.Tensor) -> mg.Tensor:
    return layers.linear(h, 3)


def test_names_are_kind_and_number_or_given() -> None:
    assert names(lambda x: sequential(sequential(x, dense, mg.relu, dense, name="stem"), dense)) == [
        "stem.linear1.weight",
        "stem.linear2.weight",
        "linear1.weight",
    ]
    chain = lambda h: sequential(h, dense, mg.relu, dense)
    assert names(lambda x: residual(residual(x, chain), chain)) == [
        f"residual{block}.linear{layer}.weight" for block in (1, 2) for layer in (1, 2)
    ]
    assert names(lambda x: residual(x, lambda h: sequential(h, dense, name="body"), shortcut=dense, name="first")) == [
        "first.body.linear1.weight",
        "first.shortcut.linear1.weight",
    ]


def test_two_branches_can_share_them() -> None:
    def both(x: mg.Tensor) -> None:
        for _ in range(2):
            with x.builder.scope("tower", share=True):
                residual(x, dense)

    assert names(both) == ["tower.residual1.linear1.weight"]


def test_they_train() -> None:
    net = mg.Builder()
    x, label = net.input("x", ("N", 3)), net.input("label", ("N",), "int64")
    logits = residual(x, lambda h: sequential(h, dense, mg.tanh, dense))
    model = net.build(loss=mg.cross_entropy(logits, label))
    state = model.init(seed=0)
    step = mg.compile(mg.training_step(model, "loss", mg.optim.SGD(0.1)), state)
    losses = [float(step(x=X, label=np.array([1, 2]))["loss"]) for _ in range(30)]
    assert losses[-1] < losses[0] / 2


def image(dtype: str = "float32") -> mg.Tensor:
    return mg.Builder().input("image", ("N", 3, 8, 8), dtype)


def call(compose: Any, *arguments: Any, **more: Any) -> Any:
    """What a type checker would not let pass."""
    return compose(*arguments, **more)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: residual(image(), lambda h: layers.conv2d(h, 6, 3, stride=2, padding=1)),
            r"residual 'residual1': the body gives .*float32\[N, 6, 4, 4\] and the shortcut .*float32\[N, 3, 8, 8\]; "
            r"they differ in axis 1, 2, 3. shortcut= takes a projection",
        ),
        (  # what broadcasts is no residual either
            lambda: residual(image(), lambda h: mg.mean(h, (2, 3), keepdims=True)),
            "they differ in axis 2, 3",
        ),
        (
            lambda: residual(image(), lambda h: h, shortcut=lambda h: layers.conv2d(h, 6, 1)),
            "differ in axis 1. give the shortcut the body's channels and strides",
        ),
        (lambda: residual(image(), mg.flatten), "differ in the number of axes"),
        (lambda: residual(image("float16"), lambda h: mg.cast(h, "float32")), "cast one of them"),
        (lambda: call(residual, image(), lambda h: (h, h)), r"the body gives a tensor of this graph, not \("),
        (lambda: call(residual, image(), mg.relu, shortcut=3), "the shortcut is a function of a tensor, .* not 3"),
        (
            lambda: call(sequential, x := image(), mg.relu, layers.conv2d(x, 4, 3)),
            "layer 2 of 2 in sequential is a function of a tensor, .* not <Tensor",
        ),
        (
            lambda: sequential(image(), mg.relu, lambda h: image(), name="stem"),
            "'stem': layer 2 of 2 in sequential gives a",
        ),
        (  # an error of a layer inside is that layer's
            lambda: sequential(image(), lambda h: layers.conv2d(h, 4, 9)),
            r"conv 'conv1\.conv'",
        ),
    ],
)
def test_mistakes(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(mg.GraphError, match=message):
        build()


def test_a_mistake_in_a_block_names_it_and_the_users_line() -> None:
    with pytest.raises(mg.GraphError, match="residual 'last'") as caught:
        residual(image(), mg.flatten, name="last")
    assert __file__ in str(caught.value)
