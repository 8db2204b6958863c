"""Biases before batch norms: which go, which stay and why, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from example_networks import networks

import minigraph as mg
from minigraph import layers
from minigraph.core.builder import Builder, Tensor
from minigraph.core.ir import Graph, needed
from minigraph.core.pipeline import Optimized, run
from minigraph.passes import drop_bias
from minigraph.passes.freeze import averaged_mean
from minigraph.passes.pipelines import BEFORE_AUTODIFF
from rules import number, prove

Build = Callable[[Builder], Mapping[str, Tensor]]


def graph(build: Build) -> Graph:
    net = Builder("net")
    return net.build(build(net))


def dropped(before: Graph) -> Optimized:
    text = str(before)
    done = run((drop_bias.PASS,), before)
    assert str(before) == text
    assert run((drop_bias.PASS,), done.graph).graph is done.graph, "the second time something changed"
    return done


def biases(model: Graph) -> set[str]:
    """The biases on which the outputs depend."""
    _, live = needed(model.nodes, model.outputs.values())
    return {v.name for v in model.state if v.value in live and v.name.endswith(("bias", "b", "c"))}


def check(build: Build, gone: set[str], ranges: Mapping[str, tuple[float, float]] | None = None) -> Optimized:
    """These biases go, and outputs, updates and all gradients stay what they were, in exact numbers."""
    before = graph(build)
    done = dropped(before)
    assert biases(before) - biases(done.graph) == gone
    assert list(done.graph.outputs) == list(before.outputs)
    assert [v.name for v in done.graph.updates] == [v.name for v in before.updates]
    prove(before, done.graph, ranges or {}, ordered=ranges is not None)
    return done


def bn(x: Tensor, axis: int = 1, name: str = "bn") -> Tensor:
    return layers.batch_norm(x, axis=axis, eps=0.5, name=name)


def conv(x: Tensor, channels: int = 2, window: int = 1, name: str = "conv", **options: Any) -> Tensor:
    build = {3: layers.conv1d, 4: layers.conv2d, 5: layers.conv3d}[x.rank]
    return build(x, channels, window, name=name, **options)


def image(net: Builder, *shape: int) -> Tensor:
    return net.input("x", shape or (2, 2, 3))


# ways through, each proved; in those of all the same size, whoever looks at sizes instead of axes goes wrong

WAYS: dict[str, Build] = {
    "conv1d": lambda net: {"y": bn(conv(image(net), 3, 2))},
    "conv1d, three of all": lambda net: {"y": bn(conv(image(net, 3, 3, 3), 3))},
    "conv2d": lambda net: {"y": bn(conv(image(net, 1, 1, 3, 2), 2, 2))},
    "conv2d with padding": lambda net: {"y": bn(conv(image(net, 1, 1, 2, 2), 2, 3, padding=1))},
    "conv2d, channels last": lambda net: {"y": bn(conv(image(net, 1, 2, 2, 1), 2, layout="NHWC"), axis=-1)},
    "conv2d, two of all": lambda net: {"y": bn(conv(image(net, 2, 2, 2, 2), 2, layout="NHWC"), axis=-1)},
    "conv3d": lambda net: {"y": bn(conv(image(net, 1, 1, 2, 2, 1), 2))},
    "depthwise": lambda net: {"y": bn(layers.depthwise_conv2d(image(net, 2, 2, 2, 1), 1, name="conv"))},
    "transposed, grouped": lambda net: {
        "y": bn(layers.conv_transpose1d(image(net, 1, 4, 2), 6, 2, groups=2, stride=2, name="conv"))
    },
    "transposed, channels last": lambda net: {
        "y": bn(layers.conv_transpose1d(image(net, 1, 2, 2), 3, 2, layout="NLC", name="conv"), axis=2)
    },
    "dense": lambda net: {"y": bn(layers.linear(image(net, 3, 2), 4, name="conv"))},
    "dense over places": lambda net: {"y": bn(layers.linear(image(net, 2, 2, 2), 3, name="conv"), axis=-1)},
    "dense, L = F": lambda net: {"y": bn(layers.linear(image(net, 2, 3, 2), 3, name="conv"), axis=-1)},
    "without gamma": lambda net: {"y": layers.batch_norm(conv(image(net)), gamma=False, eps=0.5)},
    "without beta": lambda net: {"y": layers.batch_norm(conv(image(net)), beta=False, eps=0.5)},
    "not tracked": lambda net: {"y": layers.batch_norm(conv(image(net)), track=False, eps=0.5)},
    "two batch norms": lambda net: two_norms(net),
    "shared statistics": lambda net: shared_norm(net),
    "global average": lambda net: {"y": bn(mg.global_avg_pool(conv(image(net), 3, 2)))},
    "average pool": lambda net: {"y": bn(mg.avg_pool(conv(image(net, 2, 1, 5)), 3, stride=2, padding=1))},
    "padding at the edge": lambda net: {"y": bn(mg.pad(conv(image(net)), ((0, 0), (0, 0), (1, 1)), mode="edge"))},
    "half of the places": lambda net: {"y": bn(conv(image(net, 2, 1, 4))[:, :, ::2])},
    "transpose": lambda net: {"y": bn(mg.transpose(conv(image(net)), (0, 2, 1)), axis=2)},
    "transpose, two of all": lambda net: {"y": bn(mg.transpose(conv(image(net, 2, 2, 2)), (2, 1, 0)))},
    "reshape": lambda net: {"y": bn(mg.reshape(conv(image(net, 1, 1, 2, 3)), (1, 2, 6)))},
    "mean of places": lambda net: {"y": bn(mg.mean(conv(image(net, 3, 2, 2)), 2))},
    "residual": lambda net: {"y": bn(conv(image(net, 2, 2, 2)) + net.input("z", (2, 2, 2)))},
    "residual that repeats": lambda net: {"y": bn(conv(image(net, 2, 2, 1)) + net.input("z", (2, 2, 2)))},
    "difference": lambda net: {"y": bn(net.input("z", (2, 2, 2)) - conv(image(net, 2, 2, 2)))},
    "twice the same": lambda net: {"y": bn(twice(conv(image(net))))},
    "scaled": lambda net: {"y": bn(conv(image(net)) * number(net, "s", 2, 1))},
    "scaled by one for all": lambda net: {"y": bn(0.5 * conv(image(net)) / 3.0)},
    "two layers": lambda net: {"y": bn(conv(conv(image(net), name="first"), 3))},
    "two dense layers": lambda net: {"y": bn(layers.linear(layers.linear(image(net, 3, 2), 2), 3))},
    "subtracted": lambda net: {"y": bn(image(net) - mg.reshape(number(net, "b", 2), (2, 1)))},
    "computed": lambda net: {"y": bn(image(net) + mg.exp(mg.reshape(number(net, "b", 2), (1, 2, 1))))},
    "one for all": lambda net: {"y": bn(image(net) + number(net, "b"))},
    "one for all, of more axes": lambda net: {"y": bn(mg.mean(image(net) + number(net, "b", 1, 1, 1), 2))},
    "one for all, joined": lambda net: {"y": bn(mg.concat([(x := image(net)) + number(net, "b"), x], axis=1))},
}


def twice(x: Tensor) -> Tensor:
    return x + x


def two_norms(net: Builder) -> Mapping[str, Tensor]:
    """One biased convolution is read by two batch norms."""
    y = conv(image(net))
    return {"a": bn(y, name="bn1"), "b": bn(y, name="bn2")}


def shared_norm(net: Builder) -> Mapping[str, Tensor]:
    """One batch norm on two layers: its running mean averages both, each with its own bias."""
    x, outputs = image(net), {}
    for name in ("conv1", "conv2"):
        with net.scope("shared", share=True):
            outputs[name] = bn(conv(x, name=name))
    return outputs


@pytest.mark.parametrize("name", WAYS)
def test_it_goes(name: str) -> None:
    before = graph(WAYS[name])
    check(WAYS[name], biases(before))


def joined(net: Builder) -> Mapping[str, Tensor]:
    """Three branches: biased, not biased, biased."""
    x = image(net)
    parts = [conv(x, 1, name="conv1"), conv(x, 2, name="conv2", bias=False), conv(x, 2, name="conv3")]
    return {"y": bn(mg.concat(parts, axis=1))}


def test_branches_of_a_concatenation() -> None:
    done = check(joined, {"conv1.bias", "conv3.bias"})
    assert [f.rule for f in done.steps[0].fired] == ["bias-past-concat", "drop-bias"]


def chain(net: Builder) -> Mapping[str, Tensor]:
    h = mg.max_pool(conv(image(net, 2, 1, 4, 2), 3), (2, 1))  # (2, 3, 2, 2)
    h = mg.reshape(mg.transpose(h, (0, 2, 3, 1)), (2, 4, 3))
    return {"y": bn(h, axis=2)}


def test_a_chain_of_pool_transpose_and_reshape() -> None:
    done = check(chain, {"conv.bias"}, ranges={})
    assert done.refused == ()


def half_stuck(net: Builder) -> Mapping[str, Tensor]:
    """Of two biases that meet, the first one stays: it is one number for each place."""
    x = image(net, 2, 2, 2)
    return {"y": bn((x + number(net, "p", 2)) + (mg.tanh(x) + mg.reshape(number(net, "b", 2), (2, 1))))}


def test_of_two_biases_that_meet_one_goes() -> None:
    done = check(half_stuck, {"b"})
    assert {r.why.removeprefix("add keeps its bias: ") for r in done.refused} == {
        "its channels, axis 2, are not those of bn.batch_norm, axis 1"
    }


def test_two_biases_of_one_sum_do_not_change_places_for_ever() -> None:
    before = graph(lambda net: {"y": bn(conv(image(net)) + mg.reshape(number(net, "b", 2), (2, 1)))})
    done = run((drop_bias.PASS,), before, without=["join-biases"])
    assert biases(before) - biases(done.graph) == {"conv.bias", "b"}
    prove(before, done.graph, {})


def pre_activation(net: Builder) -> Mapping[str, Tensor]:
    """Each sum is read by a batch norm and by the next sum: all biases go down to the last one."""
    h = conv(image(net), name="conv0")
    for i in (1, 2):
        h = h + conv(mg.tanh(bn(h, name=f"bn{i}")), name=f"conv{i}")
    return {"y": bn(h, name="last")}


def test_sums_of_blocks_that_normalize_first() -> None:
    check(pre_activation, {"conv0.bias", "conv1.bias", "conv2.bias"})


def test_the_running_mean_gets_the_bias_back() -> None:
    model = graph(lambda net: {"y": bn(conv(net.input("x", ("N", 2, 3), "float64"), 3))})
    state, x = model.init(), np.random.default_rng(0).normal(size=(4, 2, 3))
    state["conv.bias"] = np.array([5.0, 6.0, -7.0])
    found = []
    for g in (model, dropped(model).graph):
        mine = state.copy()
        y = mg.compile(g, mine, pipeline=())(x=x)["y"]
        found.append((y, mine["bn.running_mean"], mine["bn.running_var"]))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    assert abs(found[1][1][0]) > 0.3


# what stays, and the sentence


def also_read(net: Builder) -> Mapping[str, Tensor]:
    y = conv(image(net))
    return {"y": bn(y) + mg.relu(y)}


def shared_bias(net: Builder) -> Mapping[str, Tensor]:
    """The bias of one layer is that of another, too, which has no batch norm: it still gets a gradient from there."""
    b, x = number(net, "b", 2, 1), image(net)
    return {"y": bn(conv(x, bias=False) + b), "z": mg.tanh(conv(x, name="other", bias=False) + b)}


def layer_norm(net: Builder) -> Mapping[str, Tensor]:
    y = conv(image(net))
    return {"y": layers.layer_norm(y), "z": bn(y)}


STAYS: dict[str, tuple[Build, str]] = {
    "relu": (lambda net: {"y": bn(mg.relu(conv(image(net))))}, "no shift passes through relu"),
    "dropout": (
        lambda net: {"y": bn(layers.dropout(conv(image(net)), 0.5))},
        "no shift passes through dropout1.dropout",
    ),
    "average of zeros": (
        lambda net: {"y": bn(mg.avg_pool(conv(image(net)), 2, padding=1, count_include_pad=True))},
        "no shift passes through avg_pool: the zeros of its padding count",
    ),
    "zero padding": (
        lambda net: {"y": bn(mg.pad(conv(image(net)), ((0, 0), (0, 0), (1, 1))))},
        "no shift passes through pad: what it pads with stays as it is",
    ),
    "padded convolution": (
        lambda net: {"y": bn(conv(conv(image(net)), window=3, padding=1, bias=False, name="next"))},
        "windows of next.conv reach into padding",
    ),
    "transposed convolution": (
        lambda net: {"y": bn(layers.conv_transpose1d(conv(image(net)), 2, 2, bias=False))},
        "one shift comes out of conv_transpose1.conv_transpose as several",
    ),
    "also read": (also_read, "conv.add is also read by relu, and no shift passes through relu"),
    "an output": (lambda net: {"y": bn(biased := conv(image(net))), "z": biased}, "conv.add is output 'z'"),
    "running statistics": (
        lambda net: {"y": layers.batch_norm(y := conv(image(net)), frozen=True, name="fixed"), "z": bn(y)},
        "conv.add is also read by fixed.batch_norm_inference, and fixed.batch_norm_inference uses running statistics",
    ),
    "layer norm": (
        layer_norm,
        "conv.add is also read by layer_norm1.layer_norm, and layer_norm1.layer_norm is no batch norm",
    ),
    "other channels": (
        lambda net: {"y": bn(layers.linear(image(net, 2, 3, 2), 3, name="dense"))},
        "its channels, axis 2, are not those of bn.batch_norm, axis 1",
    ),
    "channels mixed": (
        lambda net: {"y": bn(mg.reshape(layers.linear(image(net, 4, 2), 2, name="dense"), (2, 2, 2)))},
        "its channels, axis 2, are not those of bn.batch_norm, axis 1",
    ),
    "flat": (
        lambda net: {"y": bn(mg.flatten(conv(image(net))))},
        "no shift passes through reshape",
    ),
    "joined elsewhere": (
        lambda net: {"y": bn(mg.concat([conv(x := image(net)), x], axis=2))},
        "concat joins along axis 2, and its channels are axis 1",
    ),
    "stopped gradient": (
        lambda net: {"y": bn(mg.stop_gradient(conv(image(net))))},
        "stop_gradient stops the gradient, which a shift behind it would get",
    ),
    "gate": (
        lambda net: {"y": bn(conv(image(net)) * net.input("gate", (2, 2, 1)))},
        "the other operand of mul, gate, is not frozen",
    ),
    "scaled places": (
        lambda net: {"y": bn(conv(image(net, 2, 2, 2)) * number(net, "s", 2))},
        "s is not one number for each channel of conv.add",
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_it_stays(name: str) -> None:
    build, why = STAYS[name]
    before = graph(build)
    done = dropped(before)
    assert done.graph is before, [f.rule for f in done.steps[0].fired]
    assert done.refused
    assert all(refused.why.endswith(why) for refused in done.refused), done.refused


def test_a_bias_of_another_layer_stays_there() -> None:
    before = graph(shared_bias)
    after = dropped(before).graph
    assert biases(after) == {"b"}
    prove(before, after, {})
    assert sum("b" in [v.name for v in n.inputs] for n in after.nodes if n.op.name == "add") == 1


def test_a_matrix_instead_of_a_bias_stays() -> None:
    before = graph(lambda net: {"y": bn(image(net) + number(net, "b", 2, 3))})
    assert dropped(before).graph is before


def test_what_moves_is_no_bias() -> None:
    before = graph(lambda net: {"y": bn(image(net) + net.input("b", (2, 1)))})
    assert dropped(before).graph is before


def test_where_there_is_no_bias_there_is_nothing_to_say() -> None:
    def build(net: Builder) -> Mapping[str, Tensor]:
        h = mg.relu(bn(conv(image(net), bias=False)))
        h = layers.linear(mg.max_pool(mg.relu(conv(h, name="conv2")), 2), 3)  # no batch norm follows
        return {"y": h}

    assert dropped(graph(build)).refused == ()


def test_it_takes_time_in_proportion_to_the_graph() -> None:
    """Each of 300 biases goes down through all sums behind it, joined to theirs: a rule fires a few times a node."""

    def build(net: Builder) -> Mapping[str, Tensor]:
        h = image(net)
        for i in range(300):
            h = h + mg.relu(bn(h, name=f"bn{i}")) + mg.reshape(number(net, f"b{i}.bias", 2), (2, 1))
        return {"y": bn(h)}

    before = graph(build)
    done = dropped(before)
    assert biases(done.graph) == set()
    assert len(done.steps[0].fired) <= 5 * 300
    assert len(done.graph.nodes) <= 3 * len(before.nodes)


# in training


def cnn(dtype: str = "float64") -> Graph:
    """Residual, concatenation and pools, with biases that go and some that stay."""
    net = Builder("cnn")
    x, label = net.input("x", ("N", 2, 8, 8), dtype), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(mg.max_pool(layers.conv2d(x, 4, 3, padding=1), 2)))
    h = mg.relu(layers.batch_norm(h + layers.conv2d(h, 4, 3, padding=1)))
    parts = [layers.conv2d(h, 2, 1), mg.avg_pool(layers.conv2d(h, 3, 3), 1), layers.conv2d(h, 2, 3, bias=False)]
    h = layers.batch_norm(mg.concat([parts[0][:, :, 1:-1, 1:-1], *parts[1:]], axis=1))
    h = layers.batch_norm(layers.conv2d(h, 4, 1))
    logits = layers.linear(mg.global_avg_pool(mg.relu(h)), 3, name="head")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


GONE = {"conv1.bias", "conv2.bias", "conv3.bias", "conv4.bias", "bn3.beta", "conv6.bias"}


def batches(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(6, 2, 8, 8)), "label": rng.integers(0, 3, 6)} for _ in range(count)]


def test_the_loss_curve_and_the_evaluation_agree_over_200_steps() -> None:
    model, fresh = cnn(), cnn().init(seed=3)
    rng = np.random.default_rng(1)
    for name in fresh:
        if name.endswith("bias") or name == "bn3.beta":
            fresh[name] = rng.normal(size=fresh[name].shape)
    curves, answers = [], []
    for without in (("drop-bias", "drop-beta"), ()):
        state = fresh.copy()
        step = mg.training_step(model, "loss", mg.optim.SGD(0.05, momentum=0.9), without=without)
        assert set(fresh) - {old.name for old in step.updates} == (set() if without else GONE)
        train = mg.compile(step, state)
        curves.append([train(**given)["loss"] for given in batches(200)])
        evaluate = mg.compile(mg.inference(model, ["logits"]), state)
        answers.append([evaluate(x=given["x"])["logits"] for given in batches(3, seed=9)])
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-9)
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-9, atol=1e-11)
    assert curves[0][-1] != curves[0][0]


def test_what_is_dropped_has_no_gradient_and_no_slot() -> None:
    step = mg.training_step(cnn(), "loss", mg.optim.Adam(0.1))
    trained = {name.removeprefix("optimizer.").removesuffix(".m") for name in step.variables if name.endswith(".m")}
    assert trained == {v.name for v in cnn().state if v.kind == "parameter"} - GONE
    assert step.variables.keys() >= cnn().variables.keys()


def test_only_what_has_no_effect_cannot_be_trained() -> None:
    with pytest.raises(mg.GraphError, match=r"takes off again what conv1\.bias add"):
        mg.training_step(cnn(), "loss", mg.optim.SGD(0.1), trainable="conv1.bias")


def test_a_bias_that_a_loss_reads_through_the_batch_s_mean_is_trained() -> None:
    net = Builder("net")
    y = conv(net.input("x", (3, 2, 2)))
    _, mean, _ = mg.batch_norm(y, number(net, "gamma", 2), number(net, "beta", 2))
    step = mg.training_step(net.build(loss=mg.sum(mean * mean)), "loss", mg.optim.SGD(0.1), trainable="conv.*")
    assert {old.name for old in step.updates} >= {"conv.weight", "conv.bias"}


def test_evaluation_of_a_training_step_is_that_of_the_model() -> None:
    """Its running means average x + b, and what they normalize is x."""
    model = cnn()
    state = model.init(seed=0)
    for name in state:
        state[name] = np.random.default_rng(0).uniform(0.5, 1.5, state[name].shape)
    step = mg.training_step(model, "loss", mg.optim.SGD(0.1))
    x = batches(1)[0]["x"]
    a, b = (mg.compile(mg.inference(g, ["logits"]), state)(x=x)["logits"] for g in (model, step))
    np.testing.assert_allclose(a, b, rtol=1e-9)


def averaged(net: Builder, more: bool = False) -> Mapping[str, Tensor]:
    """A running mean by hand; more: of the mean and something else of the batch."""
    x = image(net, 3, 2, 2)
    y, mean, var = mg.batch_norm(conv(x), number(net, "gamma", 2), number(net, "beta", 2), eps=0.5)
    for name, new in (("mean", mean + mg.mean(x) if more else mean), ("running_var", var)):
        state = number(net, name, 2, kind="statistic")
        count, momentum = net.constant(6.0), net.constant(0.5)
        net.update(state, mg.running_average(state, new, count, momentum))
    return {"y": y, "seen": mean}


def test_the_frozen_graph_knows_the_bias_in_a_running_mean() -> None:
    model = graph(averaged)
    prove(mg.freeze(model), mg.freeze(dropped(model).graph), {})


def test_the_bias_in_a_running_mean_may_be_computed_behind_the_norm() -> None:
    model = dropped(graph(averaged)).graph
    norm = next(node for node in model.nodes if node.op is mg.batch_norm)
    shift, _ = needed(model.nodes, averaged_mean(model, norm)[1])
    assert shift
    others = [node for node in model.nodes if node not in shift]
    at = others.index(norm) + 1
    later = replace(model, nodes=(*others[:at], *shift, *others[at:])).check()
    prove(mg.freeze(model), mg.freeze(later).check(), {})


def test_another_number_for_each_batch_is_no_bias_in_a_running_mean() -> None:
    frozen = mg.freeze(graph(lambda net: averaged(net, more=True)))
    assert "batch_norm" in [node.op.name for node in frozen.nodes]


# networks


def with_biases(model: Graph) -> Graph:
    """The model with a bias behind each convolution."""
    net = Builder(model.name)
    new = {v: net.input(v.name, v.type.shape, v.type.dtype).value for v in model.inputs}
    for v in model.state:
        made = net.variable(v.name, v.value.type.shape, v.initializer, v.value.type.dtype, v.kind)
        new[v.value] = made.value
    for node in model.nodes:
        outputs = net.emit(node.op, [Tensor(net, new[v]) for v in node.inputs], node.attrs)
        if node.op.name == "conv":
            channels = outputs[0].shape[1]
            b = number(net, f"{node.name}.bias", channels)
            outputs = (outputs[0] + mg.reshape(b, (channels, 1, 1)),)
        new.update(zip(node.outputs, (y.value for y in outputs), strict=True))
    for old, value in model.updates.items():
        net.update(Tensor(net, new[old]), Tensor(net, new[value]))
    return net.build({name: Tensor(net, new[value]) for name, value in model.outputs.items()})


# small ones: how many convolutions there are, each with a batch norm somewhere behind it, and how many betas go
NETWORKS: dict[str, tuple[Callable[[], Graph], int, int]] = {
    "lenet": (lambda: networks.lenet(classes=3, batch_norm=True), 2, 0),
    "vgg_small": (lambda: networks.vgg_small(classes=3, width=4), 6, 0),
    "resnet18": (lambda: networks.resnet18(classes=3, size=32, width=4), 20, 0),
    "resnet50": (lambda: networks.resnet50(classes=3, size=32, width=4), 53, 0),
    "mobilenet_v2": (lambda: networks.mobilenet_v2(classes=3, size=32, width=0.25), 52, 17),
    "densenet_bc": (lambda: networks.densenet_bc(depth=16, growth=4, classes=3), 15, 0),
    "wide_resnet": (lambda: networks.wide_resnet(depth=10, widen=1, classes=3), 9, 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_biases_of_convolutions_before_batch_norms_go(name: str) -> None:
    build, count, betas = NETWORKS[name]
    model = with_biases(build())
    after = run(BEFORE_AUTODIFF, model).graph
    _, live = needed(after.nodes, after.outputs.values())
    gone = [v.name for v in model.state if v.kind == "parameter" and v.value not in live]
    assert sum(name.endswith(".conv.bias") for name in gone) == sum(n.op.name == "conv" for n in model.nodes) == count
    assert sum(name.endswith(".beta") for name in gone) == betas
    assert len(gone) == count + betas
    assert run(BEFORE_AUTODIFF, after).graph is after
