"""verify: rewritten graphs are held against the graphs before them. Every wrong rewriting here is one that was made
somewhere: it keeps all shapes, and most keep the answer of a fresh network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from example_networks import networks

import minigraph as mg
from minigraph import layers
from minigraph.core import numbering, shrink, trial
from minigraph.core.builder import Builder, Tensor
from minigraph.core.equivalence import verify
from minigraph.core.evaluate import evaluate
from minigraph.core.exact import Unknown
from minigraph.core.initial import Constant
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import OPS, Literal
from minigraph.core.sites import Opaque

EPS = 1e-5


# graphs built by hand


def graph_of(make: Callable[[Builder], Any]) -> Graph:
    """The graph of what a function builds: a tensor (output "y"), or tensors by name."""
    net = Builder("net")
    made = make(net)
    return net.build(made if isinstance(made, dict) else {"y": made})


def compared(before: Callable[[Builder], Any], after: Callable[[Builder], Any], **more: Any) -> Any:
    return verify(graph_of(before), graph_of(after), **more)


def rewritten(graph: Graph, replacement: Callable[[Node, Sequence[Tensor]], Any]) -> Graph:
    """The graph with some nodes replaced: `replacement` gives a tensor or several, or None to keep the node."""
    builder = Builder.extending(replace(graph, nodes=(), outputs={}, updates={}))
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        inputs = tuple([new.get(value, value) for value in node.inputs])
        with builder.root(), builder.scope(node.name):
            made = replacement(node, [Tensor(builder, value) for value in inputs])
        if made is not None:
            made = made if isinstance(made, tuple) else (made,)
            new.update((old, tensor.value) for old, tensor in zip(node.outputs, made, strict=True))
        else:
            outputs = tuple([Value(value.type, value.name) for value in node.outputs])
            new.update(zip(node.outputs, outputs))
            builder.append(replace(node, inputs=inputs, outputs=outputs))
    ends = {name: new.get(value, value) for name, value in graph.outputs.items()}
    moved = {old: new.get(value, value) for old, value in graph.updates.items()}
    return Graph(graph.name, graph.inputs, graph.state, tuple(builder.nodes), ends, moved).check()


def expanded(graph: Graph, *names: str) -> Graph:
    """The graph with all nodes of these ops in terms of smaller ones."""

    def expand(node: Node, inputs: Sequence[Tensor]) -> Any:
        return node.op.expand(*inputs, **node.attrs) if node.op.name in names and node.op.expand else None

    return rewritten(graph, expand)


class Norm:
    """The parameters and statistics of a batch norm of so many channels."""

    def __init__(self, net: Builder, channels: int, name: str = "bn"):
        with net.scope(name):
            self.gamma = net.parameter("gamma", (channels,), Constant(1))
            self.beta = net.parameter("beta", (channels,), Constant(0))
            self.mean = net.variable("running_mean", (channels,), Constant(0))
            self.var = net.variable("running_var", (channels,), Constant(1))

    def __call__(self, x: Tensor, axis: int = 1) -> Tensor:
        return mg.batch_norm_inference(x, self.gamma, self.beta, self.mean, self.var, axis=axis)

    def scale(self, eps: float = EPS) -> Tensor:
        return self.gamma / mg.sqrt(self.var + eps)


def along(x: Tensor, axis: int, rank: int) -> Tensor:
    return mg.reshape(x, tuple(-1 if i == axis else 1 for i in range(rank)))


def convolution(
    net: Builder, channels: int = 4, outputs: int = 4, size: Any = 6, **geometry: Any
) -> tuple[Tensor, Tensor, Norm, dict[str, Any]]:
    x = net.input("x", ("N", channels, size, size))
    w = net.parameter("w", (outputs, channels // geometry.get("groups", 1), 3, 3), mg.init.normal(0.3))
    return x, w, Norm(net, outputs), {"padding": 1, **geometry}


def conv_and_norm(net: Builder, **shapes: Any) -> Tensor:
    x, w, norm, geometry = convolution(net, **shapes)
    return mg.relu(norm(mg.conv(x, w, **geometry)))


def folded(
    net: Builder, axis: int = 0, eps: float = EPS, sign: float = 1.0, name: str = "conv", **shapes: Any
) -> Tensor:
    """The scale in the weight, along `axis`; the rest behind."""
    x, w, norm, geometry = convolution(net, **shapes)
    scale = norm.scale(eps)
    with net.scope(name):
        y = mg.conv(x, w * along(scale, axis, 4), **geometry)
    return mg.relu(y + along(norm.beta - sign * scale * norm.mean, 1, 4))


# what is right


def test_a_graph_is_the_same_as_itself_and_nothing_is_run():
    graph = networks.resnet50()
    report = verify(graph, graph_of_text(graph))
    assert report
    assert not report.proved
    assert not report.checked
    assert str(report).startswith("the same function: both graphs compute the same by construction")


def graph_of_text(graph: Graph) -> Graph:
    return mg.parse(str(graph))


def test_a_folded_batch_norm_is_proved_at_one_site():
    report = compared(conv_and_norm, folded)
    assert report.same
    assert not report.checked
    (found,) = report.proved
    assert found.numbers.startswith("numbers modulo")
    assert any(shape.startswith("w (") for shape in found.shapes)
    assert 0 < report.difference < 1e-14  # float64, in another order
    assert "1 site proved in exact numbers" in str(report)
    assert "N = 3" in str(report)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("size", [6, 56])
def test_groups_and_large_images(groups, size):
    report = compared(
        lambda net: conv_and_norm(net, size=size, groups=groups), lambda net: folded(net, size=size, groups=groups)
    )
    assert report.same
    assert len(report.proved) == 1
    assert not report.checked


def test_five_hundred_channels_are_proved_at_a_handful():
    shapes: dict[str, Any] = {"channels": 512, "outputs": 512, "size": 7}
    start = time.perf_counter()
    report = compared(lambda net: conv_and_norm(net, **shapes), lambda net: folded(net, **shapes))
    assert report.same
    (found,) = report.proved
    assert found.shrunken
    assert "made smaller" in str(report)
    assert time.perf_counter() - start < 30  # 0.5 s where it was written, most of it in float64


def test_what_gradients_and_updates_read_is_proved_too():
    step = mg.training_step(networks.lenet(4, size=16, channels=(3, 4), widths=(6,), batch_norm=True), "loss", SGD)
    report = verify(step, expanded(step, "batch_norm", "batch_norm_gradient", "running_average", "cross_entropy"))
    assert report.same
    assert len(report.proved) > 10
    assert not report.checked


SGD = mg.optim.SGD(0.1, momentum=0.9)


def test_an_optimizer_and_dropout_are_proved_as_they_are():
    model = networks.mlp(4, size=4, widths=(6, 5), dropout=0.2)
    step = mg.training_step(model, "loss", mg.optim.AdamW(0.01), clip_norm=1.0)
    report = verify(step, expanded(step, "dropout", "mean", "cross_entropy"))
    assert report.same
    assert not report.checked


def test_what_grows_passes_a_maximum():
    """max(s x) = s max(x) for s > 0, which exact numbers show as fractions."""

    def scaled(first: bool) -> Callable[[Builder], Tensor]:
        def make(net: Builder) -> Tensor:
            x = net.input("x", ("N", 2, 4, 4))
            scale = along(mg.sqrt(Norm(net, 2).var), 1, 4)
            pool = lambda h: mg.relu(mg.max_pool(h, 2))
            return pool(x * scale) if first else pool(x) * scale

        return make

    report = compared(scaled(True), scaled(False))
    assert report.same
    assert [found.numbers for found in report.proved] == ["fractions"]


def test_what_needs_its_upstream_is_proved_with_it():
    """relu(relu(x)) is relu(x), but not relu(y) y."""

    def twice(net: Builder) -> Tensor:
        h = mg.relu(net.input("x", ("N", 3)))
        with net.scope("again"):
            return mg.relu(h) * mg.exp(h)

    def once(net: Builder) -> Tensor:
        h = mg.relu(net.input("x", ("N", 3)))
        return h * mg.exp(h)

    report = compared(twice, once)
    assert report.same
    assert report.proved
    assert not report.checked


def test_state_that_is_not_read_any_more_may_go():
    def idle(net: Builder) -> Tensor:
        x, b = net.input("x", ("N", 3)), net.parameter("b", (3,), Constant(0))
        return x + (b - b)

    report = compared(idle, lambda net: net.input("x", ("N", 3)) * 1.0)
    assert report.same
    assert report.proved


def test_a_constant_that_was_computed_beforehand_is_the_same_but_for_rounding():
    third = float(np.float32(1 / 3) * np.float32(0.1))

    def computed(net: Builder) -> Tensor:
        return mg.exp(net.input("x", ("N", 3)) * (net.constant(0.1) * net.constant(1 / 3)))

    report = compared(computed, lambda net: mg.exp(net.input("x", ("N", 3)) * net.constant(third)))
    assert report.same
    assert [found.numbers for found in report.proved] == ["numbers rounded to float32"]
    assert not compared(computed, lambda net: mg.exp(net.input("x", ("N", 3)) * net.constant(third * 1.0001)))


# what is wrong


def test_a_constant_of_other_constants_may_be_rounded():
    third, seventh = np.float32(1) / np.float32(3), np.float32(1) / np.float32(7)

    def scaled(product: float) -> Any:
        factor = Literal(np.array(product, "float32"))
        return verify(
            graph_of(lambda net: mg.sin(net.input("x", (3,)) * third * seventh)),
            graph_of(lambda net: mg.sin(net.input("x", (3,)) * net.constant(factor.array))),
        )

    product = float(third) * float(seventh)
    assert scaled(product)
    assert not scaled(product * 1.00001)


@pytest.mark.parametrize(("a", "b"), [(1.0787373, 1.4148201), (0.6861056, 0.33709222), (1.4854841, 2.9873095)])
def test_a_product_of_constants_is_off_by_a_rounding_whichever_numbers_they_are(a, b):
    """Of these, draws of noise were small by chance, and less was allowed than the rounding of a * b is."""
    a, b = np.float32(a), np.float32(b)

    def scaled(number: float) -> Any:
        return compared(
            lambda net: mg.sin(net.input("x", (3,)) * a * b),
            lambda net: mg.sin(net.input("x", (3,)) * net.constant(number)),
        )

    product = float(a * b)
    assert scaled(product)
    assert not scaled(product * 1.00001)


def in_advance(made: Callable[[Builder, Tensor], Tensor], dtype: str) -> Any:
    """What a function makes of 0.1 in that dtype, times an input; and the same with the numbers that come of it."""
    net = Builder("constants")
    (number,) = evaluate(net.build({"y": made(net, net.constant(0.1, dtype))}), {}).values()
    return verify(
        graph_of(
            lambda net: mg.sin(
                net.input("x", (3,), "float64") * mg.cast(made(net, net.constant(0.1, dtype)), "float64")
            )
        ),
        graph_of(lambda net: mg.sin(net.input("x", (3,), "float64") * net.constant(number.astype("float64")))),
    )


@pytest.mark.parametrize(
    ("dtype", "made"),
    [
        ("float32", lambda net, c: OPS["tf32"](c)),
        ("float32", lambda net, c: mg.sigmoid(c) + 0.25),
        ("float32", lambda net, c: mg.sin(c + 1000.0) - mg.cos(c + 500.0)),
        ("bfloat16", lambda net, c: c * -3.0),
        ("float16", lambda net, c: mg.exp(c * 3.0) / 7.0),
    ],
)
def test_a_constant_is_what_its_dtype_makes_of_it(dtype, made):
    """Also in a graph of float64, and in TF32, which float64 does not round to."""
    report = in_advance(made, dtype)
    assert report, report
    assert report.difference < 1e-15


def test_a_constant_that_is_one_number_has_any_shape():
    """Where 0.1 and what float32 makes of it are all that differs, an unlucky draw refutes nothing."""

    def computed(number: float, shape: tuple[int, ...]) -> Callable[[Builder], Tensor]:
        def make(net: Builder) -> Tensor:
            fill = net.emit(OPS["fill"], (), {"value": number, "shape": shape, "dtype": "float32"})[0]
            return net.input("x", (1,)) + mg.minimum(fill, net.parameter("p", (1,), mg.init.zeros)) * 0.5

        return make

    assert compared(computed(0.1, (1,)), computed(float(np.float32(0.1)), ()))
    assert not compared(computed(0.1, (1,)), computed(0.1001, ()))


def test_in_bfloat16_a_constant_may_be_off_by_more_than_a_thousandth():
    """(x - 3) * 0.1 is x * 0.1 - 0.3, and 0.3 is 0.30078125 there."""

    def before(net: Builder) -> Tensor:
        return (net.input("x", (3,), "bfloat16") - 3.0) * 0.1

    def after(shift: float) -> Callable[[Builder], Tensor]:
        return lambda net: net.input("x", (3,), "bfloat16") * 0.1 - shift

    report = compared(before, after(0.30078125))
    assert report, report
    assert report.difference > trial.Tolerance.MOST
    assert not compared(before, after(0.32))


@pytest.mark.parametrize(("lost", "allowed"), [(1e3, True), (1e10, True), (1e14, False)])
def test_what_cancellation_loses_is_no_difference(lost, allowed):
    """(x + c) - c is c - c + x, and off by as much as x + c is rounded; when little is left of x, it is refuted."""
    report = compared(
        lambda net: (net.input("x", (64,), "float64") * 0.7 + lost) - lost,
        lambda net: net.input("x", (64,), "float64") * 0.7,
    )
    assert bool(report) is allowed
    assert (report.allowed > 1e-9) is (allowed and lost > 1e6)


@pytest.mark.parametrize("wrong", [{"eps": 0.0}, {"eps": 2e-5}, {"axis": 1}, {"sign": -1.0}])
def test_a_wrong_fold_is_refuted(wrong: dict[str, Any]):
    report = compared(conv_and_norm, lambda net: folded(net, **wrong))
    assert not report
    assert "'y' differs by" in report.why
    assert str(report).startswith("not the same function")


@pytest.mark.parametrize(("padding", "same"), [(0, True), (1, False)])
def test_a_shift_does_not_pass_the_zeros_around_an_image(padding, same):
    def make(net: Builder, first: bool) -> Tensor:
        x, w, norm, _ = convolution(net)
        if first:
            return mg.conv(x + along(norm.beta, 0, 3), w, padding=padding)
        return mg.conv(x, w, padding=padding) + along(mg.sum(w * along(norm.beta, 1, 4), (1, 2, 3)), 0, 3)

    report = compared(lambda net: make(net, True), lambda net: make(net, False))
    assert report.same is same
    assert len(report.proved) == same


def transposed(net: Builder, how: str) -> Tensor:
    """A grouped transposed convolution, (I, O/groups, k): each group has outputs of its own."""
    x, w, norm = net.input("x", ("N", 4, 5)), net.parameter("w", (4, 2, 3), mg.init.normal(0.5)), Norm(net, 4)
    if how == "before":
        return norm(mg.conv_transpose(x, w, stride=2, groups=2))
    scale = norm.scale()
    if how == "right":
        w = mg.reshape(mg.reshape(w, (2, 2, 2, 3)) * mg.reshape(scale, (2, 1, 2, 1)), (4, 2, 3))
    elif how == "inputs":
        w = w * along(scale, 0, 3)
    else:
        w = w * along(mg.slice(scale, [0], [2]), 1, 3)
    return mg.conv_transpose(x, w, stride=2, groups=2) + along(norm.beta - scale * norm.mean, 1, 3)


@pytest.mark.parametrize(("how", "same"), [("right", True), ("inputs", False), ("first group", False)])
def test_a_grouped_transposed_convolution(how, same):
    report = compared(lambda net: transposed(net, "before"), lambda net: transposed(net, how))
    assert report.same is same
    assert len(report.proved) == same
    assert not report.checked


def test_a_dropped_bias_moves_the_running_mean():
    """Training takes the batch's mean off again, so no output sees the bias; the running mean does."""

    def model(net: Builder, bias: bool) -> dict[str, Tensor]:
        x, w = net.input("x", ("N", 3)), net.parameter("w", (3, 4), mg.init.normal(0.5))
        b, norm = net.parameter("b", (4,), Constant(0)), Norm(net, 4)
        y, mean, var = mg.batch_norm(x @ w + b if bias else x @ w, norm.gamma, norm.beta)
        if not bias:
            mean = mean + b * 1.0 if keep else mean
        count, momentum = net.constant(3.0), net.constant(0.1)
        net.update(norm.mean, mg.running_average(norm.mean, mean, count, momentum))
        net.update(norm.var, mg.running_average(norm.var, var, count, momentum))
        return {"y": y}

    for keep in (True, False):
        report = compared(lambda net: model(net, True), lambda net: model(net, False))
        assert report.same is keep
        assert keep or "update of bn.running_mean" in report.why


@pytest.mark.parametrize("op", [mg.relu, mg.abs, mg.relu6])
def test_a_scale_of_either_sign_does_not_pass_a_kink(op):
    def make(net: Builder, first: bool) -> Tensor:
        x, gamma = net.input("x", ("N", 2)), net.parameter("gamma", (2,), Constant(1))
        return op(x * gamma) if first else op(x) * gamma

    assert not compared(lambda net: make(net, True), lambda net: make(net, False))


def test_a_threshold_that_few_numbers_reach():
    def make(net: Builder, op: Callable) -> Tensor:
        return op(net.input("x", ("N", 3)) * 0.001)

    report = compared(lambda net: make(net, mg.relu6), lambda net: make(net, mg.relu))
    assert not report
    assert "exact numbers" in report.why


def test_what_differs_only_where_numbers_are_equal():
    """x < 0 and x <= 0 agree on all random floats; exact numbers are drawn from so few that some are 0."""

    def make(net: Builder, op: Callable) -> Tensor:
        x = net.input("x", ("N", 3))
        return mg.where(op(x, 0.0), 0.0, mg.exp(x))

    report = compared(lambda net: make(net, mg.less), lambda net: make(net, mg.less_equal))
    assert not report
    same = compared(
        lambda net: make(net, mg.less_equal), lambda net: make(net, lambda x, y: mg.logical_not(mg.less(y, x)))
    )
    assert same.same
    assert [found.numbers for found in same.proved] == ["fractions"]


def test_what_differs_where_numbers_are_equal_is_not_proved_further_up():
    """Behind a product, 0 is so rare that no draw has it."""

    def make(net: Builder, op: Callable) -> Tensor:
        x, w = net.input("x", ("N", 3)), net.parameter("w", (3, 4), mg.init.normal(0.5))
        return mg.where(op(mg.sin(x @ w + 0.1), 0.0), 0.0, mg.exp(x @ w))

    report = compared(lambda net: make(net, mg.less), lambda net: make(net, mg.less_equal))
    assert not report.proved
    assert not report or "some of them are equal" in report.checked[0].why


def test_what_an_optimizer_adds_to_a_small_number_is_seen():
    step = mg.training_step(networks.mlp(4, size=4, widths=(6, 5)), "loss", mg.optim.Adam(0.01))
    adds = [n for n in step.nodes if n.op.name == "add" and n.name.startswith("optimizer.classifier.weight")]

    def without(node: Node, inputs: Sequence[Tensor]) -> Any:
        return mg.reshape(inputs[0], node.outputs[0].type.shape) if node is adds[-1] else None

    report = verify(step, rewritten(step, without))
    assert not report
    assert "update of classifier.weight" in report.why


def called(graph: Graph, op: str, name: str) -> Graph:
    """The graph with what nodes of this op make under another name."""
    new: dict[Value, Value] = {}
    nodes = []
    for node in graph.nodes:
        outputs = tuple([Value(v.type, name if node.op.name == op else v.name) for v in node.outputs])
        nodes.append(replace(node, inputs=tuple([new.get(v, v) for v in node.inputs]), outputs=outputs))
        new.update(zip(node.outputs, outputs))
    return replace(graph, nodes=tuple(nodes), outputs={k: new[v] for k, v in graph.outputs.items()}).check()


def test_a_name_does_not_make_two_values_one():
    """The folded convolution has the name of the one before, and other numbers."""
    before, after = (called(graph_of(make), "conv", "h") for make in (conv_and_norm, folded))
    report = verify(before, after)
    assert report.same
    assert len(report.proved) == 1
    assert not report.checked

    def sum_of(net: Builder, how: Callable) -> Tensor:
        return mg.exp(how(net.input("x", ("N", 3)), 1.0))

    more = called(graph_of(lambda net: sum_of(net, mg.add)), "add", "h")
    less = called(graph_of(lambda net: sum_of(net, mg.sub)), "sub", "h")
    assert not verify(more, less)


def test_names_are_not_needed():
    """Every inner value is called alike; what belongs together is found by its numbers."""
    graph = networks.lenet(4, size=16, channels=(3, 4), widths=(6,), batch_norm=True)
    graph = mg.inference(graph, ["logits"])
    after = expanded(graph, "batch_norm_inference")
    for op in {node.op.name for node in after.nodes}:
        after = called(after, op, "v")
    report = verify(graph, after)
    assert report.same
    assert len(report.proved) == 2
    assert not report.checked


def test_a_batch_size_that_was_written_down_is_seen():
    def mean(net: Builder, n: float | None) -> Tensor:
        total = mg.sum(net.input("x", ("N", 2)))
        return total / n if n else total / OPS["count"](net.tensor("x"), axes=(0, 1))

    report = compared(lambda net: mean(net, None), lambda net: mean(net, 6.0))
    assert not report
    assert "N = 5" in report.why
    assert compared(lambda net: mean(net, None), lambda net: mean(net, 6.0), sizes={"N": 3})  # where it was asked for


def test_another_stream_of_random_numbers_is_another_function():
    step = graph_of(lambda net: layers.dropout(net.input("x", ("N", 40)), 0.5))
    other = rewritten(
        step, lambda node, xs: OPS["dropout"](*xs, rate=0.5, stream=7) if node.op.name == "dropout" else None
    )
    report = verify(step, other)
    assert not report
    assert verify(step, expanded(step, "dropout"))


def test_a_state_that_is_given_is_what_the_question_is_about():
    """|w| x is w x for these weights, and not for all."""

    def make(net: Builder, op: Callable) -> Tensor:
        return net.input("x", ("N", 3)) * op(net.parameter("w", (3,), mg.init.normal(0.5)))

    before, after = graph_of(lambda net: make(net, mg.abs)), graph_of(lambda net: make(net, lambda w: w * 1.0))
    assert not verify(before, after)
    report = verify(before, after, state={"w": np.array([1.0, 2.0, 3.0], "float32")})
    assert report.same
    assert report.checked  # and not proved
    assert not verify(before, after, state={"w": np.array([1.0, -2.0, 3.0], "float32")})
    with pytest.raises(mg.GraphError, match="has shape"):
        verify(before, after, state={"w": np.ones(2)})


# the interface


def test_what_goes_in_and_out_is_compared_by_name_and_type():
    def make(net: Builder, x: str = "x", w: str = "w", y: str = "y", moved: bool = True, dtype: str = "float32") -> Any:
        given = net.input(x, ("N", 3), dtype)
        weight = net.parameter(w, (3,), Constant(1), dtype)
        if moved:
            net.update(weight, weight * 0.5)
        return {y: given * weight}

    before = graph_of(make)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"x": "z"}, "the input 'x' is missing after"),
        ({"w": "v"}, "the state 'v' is new after"),
        ({"y": "z"}, "the output 'y' is missing after"),
        ({"moved": False}, "the update of state 'w' is missing after"),
        ({"dtype": "float64"}, "the input 'x' is float32[N, 3] before and float64[N, 3] after"),
    ]
    for changes, why in wrong:
        report = verify(before, graph_of(partial(make, **changes)))
        assert not report
        assert report.why == why
    report = verify(graph_of(lambda net: make(net, moved=False)), before)
    assert report.why == "the update of state 'w' is new after"


def test_only_graphs_and_sizes_that_fit():
    graph = graph_of(conv_and_norm)
    with pytest.raises(mg.GraphError, match="verify takes two graphs, not a str"):
        verify(graph, str(graph))  # type: ignore[arg-type]
    other = graph_of(folded)
    with pytest.raises(mg.GraphError, match="there is no size B"):
        verify(graph, other, sizes={"B": 3})
    fits = graph_of(lambda net: mg.avg_pool(net.input("x", ("N", 1, "L")), 200, stride=1) * 2.0)
    doubled = graph_of(lambda net: mg.avg_pool(net.input("x", ("N", 1, "L")) * 2.0, 200, stride=1))
    with pytest.raises(mg.GraphError, match="give them as sizes"):
        verify(fits, doubled)
    assert verify(fits, doubled, sizes={"N": 2, "L": 203}).sizes == ("L = 203, N = 2",)


def test_spatial_sizes_are_found_and_are_not_the_same():
    def make(net: Builder, first: bool) -> Tensor:
        x = net.input("x", ("N", 2, "4*H", "4*W"))
        return mg.max_pool(mg.relu(x) if first else x, 2) if first else mg.relu(mg.max_pool(x, 2))

    report = compared(lambda net: make(net, True), lambda net: make(net, False))
    assert report.same
    assert report.sizes[0] == "H = 4, N = 3, W = 8"
    assert report.proved
    assert not report.checked


def test_one_seed_gives_one_answer():
    reports = [str(compared(conv_and_norm, folded, seed=3)) for _ in range(2)]
    assert reports[0] == reports[1]
    assert str(compared(conv_and_norm, folded, seed=4)) != reports[0]


# what cannot be proved


def test_an_op_that_exact_numbers_cannot_compute_is_checked_in_float64_only():
    def sorted_types(x: Any, /) -> Any:
        """Numbers in order."""
        return x

    op = mg.Op("sorted_for_test", sorted_types, lambda x: np.sort(x.astype(np.float64)).astype(x.dtype))
    try:
        make = lambda net, first: op(net.input("x", ("N", 3)) * 2.0) if first else op(net.input("x", ("N", 3))) * 2.0
        report = compared(lambda net: make(net, True), lambda net: make(net, False))
        assert report.same
        assert not report.proved
        (found,) = report.checked
        assert "exact numbers cannot compute it" in found.why
        assert "1 site only checked in float64" in str(report)
        wrong = compared(lambda net: make(net, True), lambda net: op(net.input("x", ("N", 3))) * -2.0)
        assert not wrong
    finally:
        del OPS["sorted_for_test"]


# whole networks


@cache
def frozen(name: str) -> Graph:
    sizes = {"size": 96} if name == "mobilenet_v2" else {}  # 224 takes ten times as long, in float64
    return mg.inference(getattr(networks, name)(**sizes), ["logits"])


@pytest.mark.parametrize(("name", "sites"), [("resnet20", 19), ("mobilenet_v2", 52)])
def test_every_batch_norm_of_a_network_is_proved(name, sites):
    start = time.perf_counter()
    graph = frozen(name)
    report = verify(graph, expanded(graph, "batch_norm_inference"))
    assert report.same
    assert len(report.proved) == sites
    assert not report.checked
    assert time.perf_counter() - start < 60  # 0.2 s and 0.7 s where it was written


def test_one_wrong_site_among_many_is_found():
    graph = frozen("resnet20")
    norms = [node for node in graph.nodes if node.op.name == "batch_norm_inference"]

    def wrong(node: Node, inputs: Sequence[Tensor]) -> Any:
        if node is norms[9]:
            return OPS["batch_norm_inference"](*inputs, axis=1, eps=2e-5)
        return None

    report = verify(graph, rewritten(graph, wrong))
    assert not report
    assert "logits" in report.why


# the parts


def test_attributes_that_are_equal_in_python_are_not_the_same():
    values = [0.0, -0.0, False, 0, 1, 1.0, True, (1, 2), (1.0, 2), (True, 2), "1", None, float("nan"), float("inf")]
    keys = [numbering.exactly(value) for value in values]
    assert len(set(keys)) == len(values)
    assert numbering.exactly(float("nan")) == numbering.exactly(float("nan"))
    zeros = [numbering.exactly(Literal(np.array([sign * 0.0]))) for sign in (1, -1)]
    assert zeros[0] != zeros[1]

    def make(net: Builder, zero: float) -> Tensor:
        return 1.0 / (net.input("x", (2,)) * 0.0 + zero)

    report = compared(lambda net: make(net, 0.0), lambda net: make(net, -0.0))
    assert not report  # inf, and where x is below 0 -inf


def test_what_is_known_to_be_positive():
    def make(net: Builder) -> dict[str, Tensor]:
        norm = Norm(net, 3)
        x = net.input("x", ("N", 3))
        return {
            "yes": mg.sqrt(norm.var + EPS),
            "yes2": mg.reshape(mg.exp(x), (-1,)),
            "no": mg.exp(x) - 1.0,
            "no2": norm.var + norm.mean,
            "no3": norm.gamma * norm.var,
            "no4": mg.relu(x),
        }

    graph = graph_of(make)
    table = numbering.Numbering()
    numbers = table.all(graph)
    for name, value in graph.outputs.items():
        assert table.positive(numbers[value]) is name.startswith("yes"), name


def test_shapes_are_made_small_and_stay_apart():
    shapes: dict[str, Any] = {"channels": 512, "outputs": 256, "size": 28}
    before, after = graph_of(lambda net: conv_and_norm(net, **shapes)), graph_of(lambda net: folded(net, **shapes))
    before, after = before.bind(N=3), after.bind(N=3)
    table = numbering.Numbering()
    ends = [table.all(graph)[graph.outputs["y"]] for graph in (before, after)]
    pair = numbering.site(table, *(numbering.cone(table, end, lambda n: False) for end in ends))[:2]
    small = next(shrink.shrunken(*pair, 50_000))
    now = {value.name: value.type.shape for value in small[0].inputs}
    assert sum(map(shrink.cost, small)) <= 50_000
    outputs, channels, *_ = now["w"]
    assert outputs != channels
    assert now["x"][:2] == (3, channels)
    assert now["bn.gamma"] == (outputs,)


def test_reshapes_and_counts_shrink_with_their_shapes():
    def make(net: Builder) -> Tensor:
        x = net.input("x", (3, 64, 14, 14))
        flat = mg.reshape(x, (3, 64 * 14 * 14))
        groups = mg.reshape(x, (3, 4, 16, 14 * 14))
        return mg.sum(flat, 1) / (64.0 * 14 * 14) + mg.sum(mg.reshape(groups, (3, 64 * 14 * 14)), 1)

    graph = graph_of(make)
    small, _ = next(shrink.shrunken(graph, graph, 5_000))
    (x,) = small.inputs
    size: Any = x.type.size // 3
    assert size < 1_000
    assert [n.attrs["value"] for n in small.nodes if n.op.name == "fill"] == [float(size)]


def test_unknown_roots_are_one_for_each_number():
    world = Unknown(0)
    a, b = Opaque(3, 0, world), Opaque(5, 0, world)
    assert a.sqrt() == Opaque(3, 0, world).sqrt()
    assert a.sqrt() != b.sqrt()


def test_the_trial_draws_numbers_that_training_could_have_left():
    graph = mg.training_step(networks.lenet(4, size=16, channels=(3, 4), batch_norm=True), "loss", SGD).bind(N=3)
    arrays = trial.draw(graph, np.random.default_rng(0), {}, 1.0)
    for variable in graph.state:
        array = arrays[variable.name]
        assert array.shape == variable.value.type.shape
        if variable.value.type.is_float:
            assert not np.isin(array, (0.0, 1.0)).any(), variable.name
        if variable.name.endswith("running_var"):
            assert (array > 0).all()
    assert arrays["label"].max() < 4
