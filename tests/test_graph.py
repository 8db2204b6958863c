"""The graph: sizes, types, the builder with its names, scopes and origins, and what a finished graph offers."""

import dataclasses
import inspect
from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigraph as mg
from minigraph import GraphError, layers
from minigraph.core import dim
from minigraph.core.dim import Dim, size
from minigraph.core.ir import Graph, Node, Type, Value, Variable

SYMBOLS = ("N", "H", "M")
numbers = st.fixed_dictionaries({symbol: st.integers(0, 9) for symbol in SYMBOLS})
sizes = st.recursive(
    st.one_of(st.integers(-5, 5), st.sampled_from(SYMBOLS).map(Dim.symbol)),
    lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner).map(
        lambda t: t[1] + t[2] if t[0] == "+" else t[1] - t[2] if t[0] == "-" else t[1] * t[2]
    ),
    max_leaves=6,
)


def bound(n, symbols):
    return dim.bind(n, symbols)


def small():
    """A graph with an input, parameters, statistics, an update, two outputs and one dead node."""
    net = mg.Builder("small")
    x = net.input("x", ("N", 3))
    y = layers.batch_norm(layers.linear(x, 4))
    mg.exp(y)  # nobody reads it
    return net.build(y=mg.relu(y), mean=mg.mean(y))


# sizes


@given(sizes, sizes, numbers)
def test_arithmetic_of_sizes_is_arithmetic_of_their_numbers(a, b, symbols):
    x, y = bound(a, symbols), bound(b, symbols)
    assert bound(a + b, symbols) == x + y
    assert bound(a - b, symbols) == x - y
    assert bound(a * b, symbols) == x * y
    assert bound(-a, symbols) == -x


@given(sizes, sizes, sizes)
def test_equal_sizes_have_one_normal_form(a, b, c):
    for left, right in ((a * (b + c), a * b + a * c), (a - a, 0), (a + b, b + a), ((a + b) - b, a)):
        assert left == right
        assert hash(left) == hash(right)
        assert isinstance(left, int) or left.symbols()  # a constant is an int


@given(sizes)
def test_a_size_is_read_back_from_its_text(a):
    assert size(str(a)) == a


@given(sizes, st.integers(1, 6), st.integers(-9, 9), numbers)
def test_floor_division_is_exact_or_refused(a, divisor, rest, symbols):
    total = a * divisor + rest
    assert bound(total // divisor, symbols) == bound(total, symbols) // divisor


@given(sizes, st.one_of(st.integers(1, 6), st.sampled_from(SYMBOLS).map(Dim.symbol)))
def test_divide_undoes_multiplication(a, b):
    assert dim.divide(a * b, b) == a


@pytest.mark.parametrize(
    ("total", "part"),
    [
        ("N", 2),
        ("N + 1", "N"),
        (7, 2),
        (3, 0),
        ("N", "M"),
        ("2*N", "4*N"),
        ("N*M", "N+M"),
    ],
)
def test_divide_refuses_what_does_not_divide(total, part):
    with pytest.raises(GraphError, match="cannot divide"):
        dim.divide(size(total), size(part))


def test_sizes_know_their_form():
    n = Dim.symbol("N")
    assert (2 * (n + 1), n * 0, (n + 3) - n, (2 * n - 1) // 2) == (n + n + 2, 0, 3, n - 1)
    assert str(size("1 + N*49")) == "49*N+1"
    assert str(size("H*N - N - 3")) == "H*N-N-3"
    assert size(np.int32(4)) == 4
    assert type(size(np.int32(4))) is int


@pytest.mark.parametrize(
    "given_size",
    [
        "",
        "N +",
        "N/2",
        "2.5",
        "N**2",
        "f(N)",
        "N[0]",
        "True",
        "None",
        "1e3",
        "(" * 500,
        2.5,
        None,
        True,
    ],
)
def test_what_is_no_size_is_refused(given_size):
    with pytest.raises(GraphError):
        size(given_size)


def test_a_symbolic_size_has_no_order_and_needs_its_number():
    n = Dim.symbol("N")
    with pytest.raises(GraphError, match="known only at run time"):
        n < 3  # noqa: B015
    with pytest.raises(GraphError, match="no input tells how large N is"):
        n.bind({"M": 3})
    with pytest.raises(GraphError, match="not a polynomial"):
        n // 2


@given(st.lists(st.sampled_from([1, 2, 3]), max_size=4), st.lists(st.sampled_from([1, 2, 3]), max_size=4))
def test_broadcasting_is_numpys(a, b):
    try:
        wanted = np.broadcast_shapes(tuple(a), tuple(b))
    except ValueError:
        with pytest.raises(GraphError, match="do not broadcast"):
            dim.broadcast(tuple(a), tuple(b))
    else:
        assert dim.broadcast(tuple(a), tuple(b)) == wanted


def test_a_symbol_broadcasts_with_itself_and_one_only():
    n = Dim.symbol("N")
    assert dim.broadcast((n, 3), (1,), (n, 1)) == (n, 3)
    for other in (2, Dim.symbol("M"), n + 1):
        with pytest.raises(GraphError, match="do not broadcast"):
            dim.broadcast((n,), (other,))


@pytest.mark.parametrize(
    ("declared", "actual", "symbols"),
    [
        (("N", 3), (5, 3), {"N": 5}),
        (("2*N + 1",), (7,), {"N": 3}),
        (("N", "M", "N*M"), (2, 3, 6), {"N": 2, "M": 3}),
        ((), (), {}),
        (("N",), (0,), {"N": 0}),
        (("N", "N + M"), (2, 5), {"N": 2, "M": 3}),
    ],
)
def test_solve_learns_symbols(declared, actual, symbols):
    found: dict = {}
    assert dim.solve(dim.shape_of(declared), actual, found)
    assert found == symbols


@pytest.mark.parametrize(
    ("declared", "actual"),
    [
        (("N", 3), (5, 4)),
        (("2*N",), (7,)),
        (("N", "N"), (2, 3)),
        (("N",), ()),
        (("N + 3",), (2,)),
        ((3,), (3, 1)),
    ],
)
def test_solve_refuses_what_does_not_fit(declared, actual):
    assert not dim.solve(dim.shape_of(declared), actual, {})


# types


def test_types_compare_by_content_and_print():
    assert Type((2, Dim.symbol("N")), "int8") == Type((2, Dim.symbol("N")), "int8")
    assert Type((2,)) != Type((2,), "float64")
    assert str(Type((2, size("N+1")), "bool")) == "bool[2, N+1]"
    assert str(Type(())) == "float32[]"
    assert (Type((2, 3)).rank, Type((2, 3)).size, Type(()).size) == (2, 6, 1)


@pytest.mark.parametrize("dtype", ["float8", "object", "complex64", np.complex64, "str"])
def test_unknown_dtypes_are_refused(dtype):
    with pytest.raises(GraphError, match="is not one of"):
        mg.Builder().input("x", (2,), dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", np.float64, np.dtype("int8"), "bool", bool, float])
def test_dtypes_are_named_as_numpy_names_them(dtype):
    assert mg.Builder().input("x", (2,), dtype).dtype == np.dtype(dtype).name


@pytest.mark.parametrize("shape", [(-2,), ("N", -1), (2, -3)])
def test_a_negative_size_is_refused(shape):
    with pytest.raises(GraphError):
        mg.Builder().input("x", shape)


# the builder: names, scopes, origins


def test_names_of_nodes_count_up_within_their_scope():
    net = mg.Builder()
    x = net.input("x", (2,))
    assert [mg.relu(x).name, mg.relu(x).name] == ["relu", "relu2"]
    with net.scope("block"):
        assert [mg.relu(x).name, mg.relu(x).name] == ["block.relu", "block.relu2"]
        with net.scope("inner"):
            assert mg.relu(x).name == "block.inner.relu"
    assert mg.relu(x).name == "relu3"


def test_layers_are_numbered_or_named():
    net = mg.Builder()
    h = net.input("x", ("N", 3))
    for name in (None, None, "head"):
        h = layers.linear(h, 3, name=name)
    with net.scope("block"):
        layers.linear(h, 2)
    assert [p.name for p in net.parameters] == [
        f"{layer}.{name}" for layer in ("linear1", "linear2", "head", "block.linear1") for name in ("weight", "bias")
    ]


def test_interface_names_are_unique():
    net = mg.Builder("net")
    net.input("x", (2,))
    net.parameter("w", (2,), mg.init.zeros)
    for make in (
        lambda: net.input("x", (3,)),
        lambda: net.input("w", (3,)),
        lambda: net.parameter("x", (2,), mg.init.zeros),
        lambda: net.variable("w", (2,), mg.init.zeros),
    ):
        with pytest.raises(GraphError, match=r"already something called '[xw]' in 'net'"):
            make()


def test_a_node_never_takes_the_name_of_an_input():
    net = mg.Builder()
    x = net.input("relu", (2,))
    y = mg.relu(x)
    assert y.name == "relu2"
    graph = net.build(y=y)
    assert graph.value("relu") is graph.inputs[0]


def test_an_input_may_have_the_name_of_an_inner_node():
    net = mg.Builder()
    y = mg.relu(net.input("x", (2,)))
    graph = net.build(y=y + net.input("relu", (2,)))
    assert graph.value("relu") is graph.inputs[1]
    again = mg.parse(str(graph))
    found = mg.compile(again, mg.State())(x=[-1, 2], relu=[10, 20])["y"]
    assert found.tolist() == [10, 22]


def test_an_output_has_no_name_of_another_value():
    net = mg.Builder()
    x, w = net.input("x", ("N", 2)), net.parameter("w", (2,), mg.init.zeros)
    for name in ("x", "w"):
        with pytest.raises(GraphError, match=f"output '{name}' is not the input or state of that name"):
            net.build({name: x * w})
    assert net.build(x=x).outputs["x"] is x.value


def test_values_of_a_node_keep_their_names_from_inputs():
    net = mg.Builder()
    values, _ = mg.topk(net.input("x", ("N", 3)), 2)
    other = net.input("topk.values", ("N", 2))
    graph = net.build(loss=mg.sum(values * other))
    assert graph.value("topk.values") is other.value
    again = mg.Builder.extending(mg.parse(str(graph)))
    mg.gradient(again.tensor("loss"), [again.tensor("x")])


def test_a_number_passes_by_a_name_that_was_given():
    net = mg.Builder()
    x = net.input("x", ("N", 2))
    layers.linear(x, 2, name="linear1")
    layers.linear(x, 2)
    assert [p.name for p in net.parameters] == ["linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"]


def test_a_symbol_may_be_called_self():
    net = mg.Builder()
    graph = net.build(y=net.input("x", ("self",)) + 1)
    assert graph.bind(self=3).outputs["y"].type.shape == (3,)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a,b",
        "a:b",
        "a=b",
        "f(x)",
        "a@b",
        "a~2",
        "a\nb",
        "a\tb",
        'a"b',
        "a[0]",
        "\N{NO-BREAK SPACE}",
    ],
)
def test_names_that_the_text_form_could_not_hold_are_refused(name):
    net = mg.Builder()
    with pytest.raises(GraphError, match="names have letters, digits"):
        net.input(name, (2,))
    with pytest.raises(GraphError, match="a scope is named"), net.scope(name):
        pass


def test_a_shared_scope_gives_the_same_variables_again():
    net = mg.Builder()
    x = net.input("x", ("N", 3))
    branches = []
    for _ in range(2):
        with net.scope("twin", share=True):
            branches.append(layers.batch_norm(layers.linear(x, 3)))
    graph = net.build(a=branches[0], b=branches[1])
    assert [v.name for v in graph.state] == [
        f"twin.{name}"
        for name in ("linear1.weight", "linear1.bias", "bn1.gamma", "bn1.beta", "bn1.running_mean", "bn1.running_var")
    ]
    # statistics of a batch norm used twice move twice, in order
    mean = graph.variables["twin.bn1.running_mean"].value
    second = graph.producer[graph.updates[mean]]
    first = graph.producer[second.inputs[0]]
    assert (first.op.name, second.op.name) == ("running_average", "running_average")
    assert first.inputs[0] is mean


def test_a_shared_variable_of_another_type_is_refused():
    net = mg.Builder()
    with net.scope("s", share=True):
        net.parameter("w", (2,), mg.init.zeros)
    with net.scope("s", share=True), pytest.raises(GraphError, match=r"'s.w' is shared .*float32\[2\].*float32\[3\]"):
        net.parameter("w", (3,), mg.init.zeros)


def test_a_scope_that_fails_is_left():
    net = mg.Builder()
    with pytest.raises(ZeroDivisionError), net.scope("s"):
        raise ZeroDivisionError
    assert mg.relu(net.input("x", (2,))).name == "relu"


def test_a_node_knows_the_line_that_made_it():
    net = mg.Builder()
    x = net.input("x", ("N", 3))
    frame = inspect.currentframe()
    assert frame is not None
    line = frame.f_lineno + 2
    with net.scope("tower"):
        y = layers.batch_norm(x)  # many nodes, all from this line
    graph = net.build(y=y)
    assert {(node.origin.file, node.origin.line) for node in graph.nodes} == {(__file__, line)}
    assert {node.origin.scope for node in graph.nodes} == {"tower.bn1"}
    assert {node.origin.role for node in graph.nodes} == {"forward", "statistic"}


def test_an_error_names_the_op_the_inputs_the_attributes_and_the_line():
    net = mg.Builder()
    x, w = net.input("x", ("N", 3, 8, 8)), net.input("w", (4, 2, 3, 3))
    frame = inspect.currentframe()
    assert frame is not None
    line = frame.f_lineno + 2
    with pytest.raises(GraphError) as caught:
        mg.conv(x, w, padding=1)
    parts = "conv", "x: float32[N, 3, 8, 8]", "w: float32[4, 2, 3, 3]", "3 channels", "padding=1", f"{__file__}:{line}"
    assert [part for part in parts if part not in str(caught.value)] == []


def test_backward_and_update_nodes_say_what_they_belong_to():
    net = mg.Builder()
    loss = mg.mean(layers.linear(net.input("x", ("N", 3)), 2, name="head"))
    model = net.build(loss=loss)
    step = mg.training_step(model, "loss", mg.optim.SGD(0.1, momentum=0.9))
    forward = {node.name for node in model.nodes}
    roles = {role: [n for n in step.nodes if n.origin.role == role] for role in ("forward", "backward", "update")}
    assert all(roles.values())
    seeds = [node for node in roles["backward"] if not node.origin.forward]  # the gradient of the loss by itself
    assert [node.op.name for node in seeds] in ([], ["fill"])
    assert {node.origin.forward for node in roles["backward"] if node not in seeds} <= forward
    assert all(node.origin.file == __file__ for node in roles["backward"])
    assert {node.origin.scope.split(".")[0] for node in roles["update"]} == {"optimizer"}


# operators and constants


def test_operators_build_ops_on_either_side():
    net = mg.Builder()
    x = net.input("x", (2, 2))
    built: dict[str, list[Any]] = {
        "add": [x + 1, 1 + x, np.float64(1) + x, np.ones(2) + x],
        "sub": [x - 1, 1 - x],
        "mul": [x * 2, 2 * x],
        "neg": [-x],
        "div": [x / 2, 2 / x],
        "matmul": [x @ x],
        "less": [x < 1, x > 1],
        "less_equal": [x <= 1, x >= 1],
    }
    made = {node.outputs[0]: node.op.name for node in net.nodes}
    for name, tensors in built.items():
        assert [made[t.value] for t in tensors] == [name] * len(tensors)
    assert (1 - x).dtype == "float32"


def test_operands_stay_in_order():
    net = mg.Builder()
    x = net.input("x", ())
    graph = net.build(a=1 - x, b=x - 1, c=2 / x, d=x / 2, e=x < 3, f=x > 3, g=x >= 4, h=np.float32(8) - x)
    got = mg.compile(graph, mg.State())(x=4.0)
    assert [got[name].item() for name in "abcdefgh"] == [-3, 3, 0.5, 2, False, True, True, 4]


def test_numbers_take_the_dtype_of_the_tensor():
    net = mg.Builder()
    for dtype in ("float16", "bfloat16", "float64", "int32"):
        x = net.input(f"x_{dtype}", (2,), dtype)
        assert (x + 2).dtype == dtype
        assert mg.where(x < 1, x, 0).dtype == dtype


@pytest.mark.parametrize("number", [1.5, np.float64(1.5), np.array([1.5]), np.array([1.5, 2.0]), float("nan"), True])
def test_numbers_that_the_dtype_cannot_hold_are_refused(number):
    x = mg.Builder().input("x", (2,), "int64")
    with pytest.raises(GraphError):
        x + number


@pytest.mark.parametrize(("dtype", "number"), [("uint8", 300), ("uint8", -1), ("int8", 128), ("int64", 2**63)])
def test_integers_out_of_range_are_refused_when_the_node_is_built(dtype, number):
    x = mg.Builder().input("x", (2,), dtype)
    with pytest.raises(GraphError):
        x + number


def test_mixed_dtypes_are_refused_with_a_way_out():
    net = mg.Builder()
    with pytest.raises(GraphError, match=r"float32 and float64; convert one with cast"):
        net.input("x", (2,)) + net.input("y", (2,), "float64")


def test_tensors_have_no_truth_value_and_no_numbers():
    x = mg.Builder().input("x", (2,))
    with pytest.raises(GraphError, match="no truth value"):
        bool(x < 1)
    with pytest.raises(GraphError, match="holds no numbers yet"):
        np.asarray(x)


def test_tensors_of_two_graphs_do_not_mix():
    x, y = mg.Builder("one").input("x", (2,)), mg.Builder("two").input("y", (2,))
    with pytest.raises(GraphError, match="another graph"):
        x + y
    with pytest.raises(GraphError, match="not a tensor of 'one'"):
        x.builder.build(y=y)


def test_ops_say_what_they_need():
    x = mg.Builder().input("x", (2, 3))
    with pytest.raises(GraphError, match="no attribute 'strid'"):
        mg.conv(x, x, strid=2)
    with pytest.raises(GraphError, match="needs the attribute 'shape'"):
        mg.reshape(x)
    with pytest.raises(GraphError, match="needs a tensor"):
        mg.relu(3.0)
    with pytest.raises(GraphError, match=r"takes 2 tensors \(x, y\), got 1\n"):
        mg.matmul(x)
    with pytest.raises(GraphError, match=r"takes 3 tensors \(x, seed, step\), got 2; layers.dropout makes the others"):
        mg.dropout(x, 0.5)
    with pytest.raises(GraphError, match="takes tensors, numbers and arrays"):
        mg.add(x, "one")


@pytest.mark.parametrize(
    "build",
    [
        lambda x: mg.transpose(x, 3),
        lambda x: mg.reshape(x, None),
        lambda x: mg.reshape(x, 1.5),
        lambda x: mg.sum(x, 1.5),
        lambda x: mg.sum(x, "0"),
        lambda x: mg.pad(x, 3),
        lambda x: mg.pad(x, ((1,), (1,))),
        lambda x: mg.slice(x, 1, 2),
        lambda x: mg.slice(x, ("a", 1), (2, 2)),
        lambda x: mg.concat([x, x], axis="0"),
        lambda x: mg.cast(x, 7),
        lambda x: mg.reshape(x, "a b"),
        lambda x: mg.broadcast_to(x, None),
        lambda x: mg.softmax(x, 0.5),
        lambda x: mg.max_pool(mg.reshape(x, (1, 1, 6)), None),
        lambda x: mg.batch_norm(x, np.ones(3), np.zeros(3), eps="small"),
        lambda x: mg.one_hot(mg.cast(x, "int64"), "3"),
        lambda x: mg.sum(x, (0, 0)),
        lambda x: mg.transpose(x, ("a", "b")),
    ],
)
def test_attributes_of_a_wrong_kind_are_graph_errors(build):
    with pytest.raises(GraphError):
        build(mg.Builder().input("x", (2, 3)))


# state and updates


def test_updates_need_state_and_the_same_type():
    net = mg.Builder()
    x, s = net.input("x", (2,)), net.variable("s", (2,), mg.init.zeros)
    with pytest.raises(GraphError, match="is not state"):
        net.update(x, s)
    with pytest.raises(GraphError, match=r"cannot become .*int64\[2\]"):
        net.update(s, mg.cast(x, "int64"))
    with pytest.raises(GraphError, match="cannot become"):
        net.update(s, mg.reshape(x, (2, 1)))


def test_updates_are_simultaneous():
    net = mg.Builder()
    a, b = net.variable("a", (), mg.init.constant(1.0)), net.variable("b", (), mg.init.constant(2.0))
    net.update(a, b)
    net.update(b, a)
    graph = net.build(sum=a + 10 * b)
    state = graph.init()
    program = mg.compile(graph, state)
    assert [program()["sum"] for _ in range(3)] == [21, 12, 21]
    assert [state["a"], state["b"]] == [2, 1]


def test_latest_goes_on_from_the_update_before():
    net = mg.Builder()
    a = net.variable("a", (), mg.init.zeros)
    for _ in range(3):
        net.update(a, net.latest(a) + 1)
    graph = net.build()
    state = graph.init()
    mg.compile(graph, state)()
    assert state["a"] == 3


def test_state_of_unknown_size_is_refused():
    with pytest.raises(GraphError, match="its sizes must be known"):
        mg.Builder().parameter("w", ("N", 2), mg.init.zeros)


# the finished graph


def test_build_leaves_out_what_nobody_needs_and_keeps_updates():
    graph = small()
    ops = [node.op.name for node in graph.nodes]
    assert "exp" not in ops
    assert ops.count("running_average") == 2
    assert {old.name for old in graph.updates} == {"bn1.running_mean", "bn1.running_var"}


def test_prune_keeps_running_statistics_unless_told():
    graph = small()
    pruned = graph.prune(["mean"])
    assert list(pruned.outputs) == ["mean"]
    assert len(pruned.updates) == 2
    assert "relu" not in [node.op.name for node in pruned.nodes]
    still = graph.prune(["mean"], updates=False)
    assert not still.updates
    assert [v.name for v in still.state] == ["linear1.weight", "linear1.bias", "bn1.gamma", "bn1.beta"]
    for g in (pruned, still):
        assert g.check() is g
        assert set(g.nodes) <= set(graph.nodes)
    with pytest.raises(GraphError, match="no output 'loss'; there are y, mean"):
        graph.prune(["loss"])


def test_prune_drops_inputs_that_nobody_reads():
    net = mg.Builder()
    x, label = net.input("x", ("N", 3)), net.input("label", ("N",), "int64")
    graph = net.build(y=x + 1, loss=mg.cross_entropy(x, label))
    assert [v.name for v in graph.prune(["y"]).inputs] == ["x"]


def test_bind_puts_numbers_in_and_infers_anew():
    graph = small()
    bound_graph = graph.bind(N=5)
    assert bound_graph.check() is bound_graph
    assert bound_graph.inputs[0].type == Type((5, 3))
    assert bound_graph.outputs["y"].type == Type((5, 4))
    assert not bound_graph.symbols
    assert graph.symbols == {"N"}
    assert [n.name for n in bound_graph.nodes] == [n.name for n in graph.nodes]
    with pytest.raises(GraphError, match="no size is given for N"):
        graph.bind(M=3)


def test_bind_finds_what_only_some_sizes_break():
    graph = small()
    with pytest.raises(GraphError, match=r"(?s)'bn1.batch_norm': .*one number for each channel.*N = 1.*test_graph.py"):
        graph.bind(N=1)


def test_views_of_a_graph():
    graph = small()
    for node in graph.nodes:
        for value in node.outputs:
            assert graph.producer[value] is node
        for value in node.inputs:
            assert node in graph.readers[value]
    x = graph.inputs[0]
    assert x not in graph.producer
    assert graph.value("y") is graph.outputs["y"]
    assert graph.value("linear1.weight") is graph.variables["linear1.weight"].value
    with pytest.raises(GraphError, match="no value 'z'"):
        graph.value("z")


def test_readers_count_each_time():
    net = mg.Builder()
    x = net.input("x", (2,))
    graph = net.build(y=x * x)
    assert len(graph.readers[graph.inputs[0]]) == 2


def test_extending_goes_on_and_leaves_the_graph():
    graph = small()
    before = str(graph)
    net = mg.Builder.extending(graph)
    more = net.build(y=mg.relu(net.tensor("y")), z=net.tensor("mean") * 2)
    assert str(graph) == before
    assert more.nodes[: len(graph.nodes) - 1][0] is graph.nodes[0]
    assert set(net.nodes) >= set(graph.nodes)
    names = [value.name for node in more.nodes for value in node.outputs]
    assert len(names) == len(set(names))


def test_layers_can_be_added_to_an_extended_graph():
    net = mg.Builder.extending(small())
    layers.linear(net.tensor("y"), 2)
    assert [p.name for p in net.parameters][-2:] == ["linear2.weight", "linear2.bias"]


def test_random_streams_stay_apart_when_a_graph_is_extended():
    net = mg.Builder()
    x = net.input("x", (8,))
    net = mg.Builder.extending(net.build(y=layers.dropout(x, 0.5)))
    graph = net.build(z=layers.dropout(net.tensor("y"), 0.5, name="more"))
    assert [n.attrs["stream"] for n in graph.nodes if n.op.name == "dropout"] == [0, 1]


def test_to_networkx_holds_every_vertex_and_every_value():
    graph = small()
    found = graph.to_networkx()
    assert set(found) == {*graph.inputs, *graph.state, *graph.nodes}
    assert networkx.is_directed_acyclic_graph(found)
    carried = sorted(value.name for *_, values in found.edges(data="values") for value in values)
    assert carried == sorted(value.name for node in graph.nodes for value in node.inputs)
    product = next(n for n in graph.nodes if n.op.name == "matmul")
    assert {v.name for v in networkx.ancestors(found, product)} == {"x", "linear1.weight", "linear1.transpose"}
    assert graph.inputs[0] in found
    assert found.edges[graph.variables["bn1.gamma"], graph.producer[graph.value("bn1.batch_norm.y")]]["values"] == (
        graph.variables["bn1.gamma"].value,
    )


def test_a_value_read_twice_is_carried_twice():
    net = mg.Builder()
    x = net.input("x", (2,))
    graph = net.build(y=x * x)
    edges: list[Any] = list(graph.to_networkx().edges(data="values"))
    assert [edge[2] for edge in edges] == [(x.value, x.value)]


# frozenness


def test_nothing_in_a_graph_can_be_changed():
    graph = small()
    node = graph.nodes[0]
    for thing, name in (
        (graph, "nodes"),
        (node, "inputs"),
        (node.outputs[0], "name"),
        (graph.state[0], "kind"),
        (node.origin, "role"),
        (node.outputs[0].type, "shape"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, None)
    mappings: list[Any] = [graph.outputs, graph.updates, node.attrs]
    for mapping in mappings:
        with pytest.raises(TypeError):
            mapping["new"] = None
    literal = mg.Builder().constant(np.arange(3.0))
    array = literal.builder.nodes[0].attrs["value"].array
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_a_literal_does_not_follow_its_source():
    source = np.arange(3.0)
    net = mg.Builder()
    graph = net.build(y=net.constant(source))
    source[0] = 99
    assert mg.compile(graph, mg.State())()["y"].tolist() == [0, 1, 2]


def test_attributes_are_canonical_and_hashable():
    net = mg.Builder()
    x, w = net.input("x", (1, 2, 5, 5)), net.input("w", (2, 2, 3, 3))
    y = mg.conv(x, w, stride=2, padding=[1, 1])
    z = mg.conv(x, w, stride=(2, 2), padding=((1, 1), (1, 1)), layout="NCHW")
    graph = net.build(y=y, z=z)
    a, b = (graph.producer[graph.outputs[name]].attrs for name in "yz")
    assert a == b
    assert hash(tuple(a.items())) == hash(tuple(b.items()))


# check


def test_check_passes_a_right_graph():
    graph = small()
    assert graph.check() is graph


def test_check_finds_a_node_before_what_it_reads():
    graph = small()
    with pytest.raises(GraphError, match=r"reads .* before it is defined"):
        dataclasses.replace(graph, nodes=tuple(reversed(graph.nodes))).check()


def test_check_finds_a_value_that_is_defined_twice():
    graph = small()
    with pytest.raises(GraphError, match="defined twice"):
        dataclasses.replace(graph, nodes=(*graph.nodes, graph.nodes[-1])).check()


def test_check_finds_a_wrong_type():
    graph = small()
    node = graph.nodes[-1]
    wrong = dataclasses.replace(node, outputs=(Value(Type((7,)), "y"),))
    with pytest.raises(GraphError, match="its op infers"):
        dataclasses.replace(graph, nodes=(*graph.nodes[:-1], wrong), outputs={}).check()


def test_check_finds_attributes_that_are_not_canonical():
    net = mg.Builder()
    graph = net.build(y=mg.sum(net.input("x", (2, 3)), 0))
    wrong = dataclasses.replace(graph.nodes[0], attrs={"axes": 0, "keepdims": False})
    with pytest.raises(GraphError, match="canonical form"):
        dataclasses.replace(graph, nodes=(wrong,)).check()


def test_check_finds_undefined_outputs_and_wrong_updates():
    x = Value(Type((2,)), "x")
    with pytest.raises(GraphError, match="output 'y' is not defined"):
        Graph("g", (), (), (), {"y": x}).check()
    with pytest.raises(GraphError, match="is updated but is not state"):
        Graph("g", (x,), (), (), {}, {x: x}).check()
    state = Variable(Value(Type((3,)), "s"), mg.init.zeros)
    with pytest.raises(GraphError, match="is updated with"):
        Graph("g", (x,), (state,), (), {}, {state.value: x}).check()
    with pytest.raises(GraphError, match="two inputs or states are called 'x'"):
        Graph("g", (x, Value(x.type, "x")), (), (), {}).check()
    with pytest.raises(GraphError, match="unknown kind 'weight'"):
        Graph("g", (), (Variable(Value(Type((3,)), "s"), mg.init.zeros, "weight"),), (), {}).check()


def test_values_and_nodes_are_compared_by_identity():
    a, b = Value(Type((2,)), "x"), Value(Type((2,)), "x")
    assert a != b
    assert len({a, b}) == 2
    node = small().nodes[0]
    assert dataclasses.replace(node) != node
    assert isinstance(node, Node)


def test_a_tensor_is_no_sequence_and_no_number():
    x = mg.Builder().input("x", ("N", 2))
    with pytest.raises(GraphError, match="cannot be iterated"):
        list(x)
    with pytest.raises(GraphError, match="use equal"):
        x == 0  # noqa: B015
    assert x == x
    assert x != mg.relu(x)


def test_outputs_without_names_are_refused():
    net = mg.Builder()
    with pytest.raises(GraphError, match="outputs have names"):
        net.build([net.input("x", ())])  # type: ignore[arg-type]
