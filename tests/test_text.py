"""The text form: what is printed is read back, and damaged text is a GraphError that names the line."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigraph as mg
from minigraph import GraphError, layers
from minigraph.core import initial, ir, op
from minigraph.core.dtypes import FLOATS, is_float
from minigraph.core.ir import Origin

HEAD = 'graph "g"\ninput x: float32[2, 3]\n'


def model():
    """A bit of everything: conv, batch norm, dropout, literals, symbols, statistics, integers."""
    net = mg.Builder("model")
    x, label = net.input("image", ("N", 2, 6, 6)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.conv2d(x, 3, 3, stride=2, padding=1), momentum=None))
    h = layers.dropout(mg.flatten(mg.max_pool(h, 2, stride=1)), 0.25) * np.arange(12.0)
    logits = layers.linear(h, 5)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def reads_back(graph):
    again = mg.parse(str(graph))
    assert str(again) == str(graph)
    return again


def structure(graph):
    """What two equal graphs share: everything but the identity of the objects, names of nodes, and folders of files."""
    number = {value: i for i, value in enumerate((*graph.inputs, *(s.value for s in graph.state)))}
    for node in graph.nodes:
        number.update((value, len(number)) for value in node.outputs)
    origin = lambda o: (o.role, o.scope, o.file.rpartition("/")[2], o.line, o.forward, o.rule, o.sources)
    return (
        graph.name,
        [(v.name, v.type) for v in graph.inputs],
        [(s.name, s.value.type, repr(s.initializer), s.kind) for s in graph.state],
        [
            (
                n.op.name,
                [number[v] for v in n.inputs],
                [v.type for v in n.outputs],
                repr(dict(n.attrs)),
                origin(n.origin),
            )
            for n in graph.nodes
        ],
        {name: number[v] for name, v in graph.outputs.items()},
        {number[a]: number[b] for a, b in graph.updates.items()},
    )


# round trips


@pytest.mark.parametrize(
    "make",
    [
        model,
        lambda: mg.training_step(
            model(), "loss", mg.optim.AdamW(mg.optim.warmup(3, mg.optim.cosine(0.1, 9))), clip_norm=1.0
        ),
        lambda: mg.inference(model()),
        lambda: mg.training_step(model(), "loss", mg.optim.SGD("rate", momentum=0.9), accumulate=2),
        lambda: model().bind(N=2),
        lambda: model().prune(["loss"]),
        lambda: mg.Builder("empty").build(),
    ],
    ids=["model", "training", "inference", "accumulate", "bound", "pruned", "empty"],
)
def test_graphs_are_read_back_whole(make):
    graph = make()
    assert structure(reads_back(graph)) == structure(graph)


def test_a_graph_read_back_computes_the_same():
    graph = mg.training_step(model(), "loss", mg.optim.Adam(0.01))
    rng = np.random.default_rng(0)
    batch = {"image": rng.normal(size=(4, 2, 6, 6)), "label": rng.integers(0, 5, 4)}
    states = []
    for g in (graph, mg.parse(str(graph))):
        state = g.init(seed=3)
        program = mg.compile(g, state)
        for _ in range(2):
            outputs = program(**batch)
        states.append({**state, **outputs})
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_origins_are_read_back():
    again = reads_back(mg.inference(mg.training_step(model(), "loss", mg.optim.SGD(0.1)), ["loss"]))
    rewritten = [n for n in again.nodes if n.origin.rule]
    assert {n.origin.rule for n in rewritten} == {"take-running-statistics", "drop-bias"}
    assert {n.origin.sources for n in rewritten} >= {("bn1.batch_norm",)}
    backward = [
        n for n in reads_back(mg.training_step(model(), "loss", mg.optim.SGD(0.1))).nodes if n.origin.role == "backward"
    ]
    assert {"conv1.conv", "linear1.matmul"} <= {n.origin.forward for n in backward}
    assert all(n.origin.file == "test_text.py" and n.origin.line > 0 for n in backward)


@pytest.mark.parametrize(
    "file", ["my net.py", "<stdin>", "<ipython-input-1 of cell>", "net:3.py", "rule.py", "a, b.py", "é.py"]
)
def test_files_of_any_name_are_read_back(file):
    net = mg.Builder()
    x = net.input("x", (2,))
    with net.origin(Origin(file=f"somewhere/{file}", line=7)):
        y = mg.relu(x)
    (node,) = reads_back(net.build(y=y)).nodes
    assert (node.origin.file, node.origin.line) == (file, 7)


def test_a_rule_without_sources_is_read_back():
    net = mg.Builder()
    with net.origin(Origin(rule="fold", sources=())):
        y = mg.relu(net.input("x", (2,)))
    with net.origin(Origin(rule="fold", sources=("a", "b"), forward="conv", role="backward", scope="s.t")):
        z = mg.relu(y)
    first, second = reads_back(net.build(z=z)).nodes
    assert (first.origin.rule, first.origin.sources) == ("fold", ())
    assert second.origin == Origin("backward", "s.t", "", 0, "conv", "fold", ("a", "b"))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "net",
        "two words",
        'a "quoted" name',
        "back\\slash",
        "ends in\\",
        "new\nline",
        "tab\t",
        "é",
        "中",
        "\U0001f600",
        "\x00",
        "\x7f",
    ],
)
def test_any_graph_name_is_read_back(name):
    assert reads_back(mg.Builder(name).build()).name == name


@given(st.text())
def test_any_text_is_a_graph_name(name):
    assert mg.parse(str(mg.Builder(name).build())).name == name


@pytest.mark.parametrize(
    "name",
    ["y", "x", "loss.mean", "a b", "a = b", "a\nb", "", " a", "a ", "update", "graph", "a <- b", "é", '"', "a\u2028b"],
)
def test_an_output_name_is_refused_or_read_back(name):
    net = mg.Builder()
    x = net.input("x", (2,))
    try:
        graph = net.build({name: x + 1})
    except GraphError:
        return
    assert list(reads_back(graph).outputs) == [name]


@pytest.mark.parametrize(
    "name", ["é", "3", "a-b", "a/b", "a'b", "update", "output", "graph", "inf", "nan", "literal", "a<-b"]
)
def test_an_input_name_is_refused_or_read_back(name):
    net = mg.Builder()
    try:
        x = net.input(name, (2,))
    except GraphError:
        return
    assert reads_back(net.build(y=mg.relu(x))).inputs[0].name == name


@pytest.mark.parametrize(
    "initializer",
    [
        initial.Constant(0.0),
        initial.Constant(-1),
        initial.Constant(True),
        initial.Constant(float("inf")),
        initial.Constant(-float("inf")),
        initial.Constant(float("nan")),
        initial.Normal(1e-300, -2.5),
        initial.Uniform(-0.1, 1 / 3),
        initial.RandomSeed(),
    ],
    ids=repr,
)
def test_initializers_are_read_back(initializer):
    net = mg.Builder()
    net.parameter("w", (2, 3), initializer)
    (variable,) = reads_back(net.build()).state
    assert repr(variable.initializer) == repr(initializer)
    assert type(variable.initializer) is type(initializer)


@pytest.mark.parametrize("kind", ir.KINDS)
def test_kinds_of_state_are_read_back(kind):
    net = mg.Builder()
    s = net.variable("s", (2,), initial.Constant(0.5), "float64", kind)
    net.update(s, s + 1)
    again = reads_back(net.build())
    assert again.state[0].kind == kind
    assert [(a.name, b.name) for a, b in again.updates.items()] == [("s", "add")]


ARRAYS = [np.array([1.5, -0.0, np.nan, np.inf, -np.inf], dtype) for dtype in FLOATS] + [
    np.array(7, "int8"),
    np.zeros((0, 3), "float32"),
    np.array([[True, False]]),
    np.array([2**63 - 1, -(2**63)]),
    np.array([2**64 - 1], "uint64"),
    np.array([1 / 3, 5e-324, 1.7976931348623157e308]),
    np.array([1 / 3, 1e-45], "float32"),
    np.zeros((2, 0, 1)),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_literals_are_read_back_to_the_bit(array):
    net = mg.Builder()
    graph = net.build(y=net.emit(op.OPS["constant"], (), {"value": array})[0])
    got = reads_back(graph).nodes[0].attrs["value"].array
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    wide = np.float64 if is_float(array.dtype) else array.dtype  # bfloat16 with NaN is never equal
    np.testing.assert_array_equal(got.astype(wide), array.astype(wide))
    if is_float(array.dtype):
        np.testing.assert_array_equal(np.signbit(got), np.signbit(array))


@given(st.floats(width=64))
def test_numbers_among_attributes_are_read_back_to_the_bit(number):
    net = mg.Builder()
    graph = net.build(y=net.constant(number, "float64"))
    got = reads_back(graph).nodes[0].attrs["value"]
    assert got == number or (math.isnan(got) and math.isnan(number))
    assert math.copysign(1, got) == math.copysign(1, number) or math.isnan(number)


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_among_attributes_are_read_back(number):
    net = mg.Builder()
    assert reads_back(net.build(y=net.constant(number))).nodes[0].attrs["value"] == number


def test_symbolic_sizes_are_read_back():
    net = mg.Builder()
    x = net.input("x", ("N", "2*H", "H*N - 1"))
    y = mg.reshape(mg.pad(mg.slice(x, (0, 2, None), ("N", "2*H", 1)), ((0, 0), (1, 1), (0, 0))), (-1,))
    again = reads_back(net.build(y=y))
    assert [str(v.type) for v in again.inputs] == ["float32[N, 2*H, H*N-1]"]
    assert again.outputs["y"].type == y.value.type
    assert str(y.value.type) == "float32[2*H*N]"


def test_inner_names_that_meet_are_told_apart():
    net = mg.Builder()
    a = mg.relu(net.input("x", (2,)))
    b = mg.relu(a)
    renamed = {value: ir.Value(value.type, "h") for value in (a.value, b.value)}
    nodes = tuple(
        ir.Node(n.op, tuple(renamed.get(v, v) for v in n.inputs), tuple(renamed[v] for v in n.outputs), n.attrs, "h")
        for n in net.nodes
    )
    graph = ir.Graph(
        "g", (net.tensor("x").value,), (), nodes, {"first": renamed[a.value], "second": renamed[b.value]}
    ).check()
    again = reads_back(graph)
    assert structure(again) == structure(graph)
    assert again.outputs["first"].name != again.outputs["second"].name


def test_an_output_may_be_an_input_or_a_state():
    net = mg.Builder()
    x, s = net.input("x", (2,)), net.variable("s", (3,), mg.init.zeros)
    again = reads_back(net.build(x=x, s=s, twice=x))
    assert (again.outputs["x"], again.outputs["s"], again.outputs["twice"]) == (
        again.inputs[0],
        again.state[0].value,
        again.inputs[0],
    )


@pytest.fixture
def tagged():
    """An op with a string attribute, which leaves the registry again."""
    yield op.Op("tagged", lambda x, /, *, tag="", more=(): x, lambda x, tag, more: x)
    del op.OPS["tagged"]


@pytest.mark.parametrize(
    "tag",
    ["", "NCHW", 'say "a, b"', "a\\", '\\"', "a, b=c)", "new\nline", "\U0001f600", "   @ forward - f.py:3", "(", "'"],
)
def test_string_attributes_are_read_back(tagged, tag):
    x = mg.Builder().input("x", (2,))
    graph = x.builder.build(y=tagged(x, tag=tag, more=(tag, 1, (tag, None, -1.5, True), ())))
    assert reads_back(graph).nodes[0].attrs == graph.nodes[0].attrs


@given(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3).map(tuple),
        max_leaves=5,
    ),
)
def test_any_attribute_is_read_back(tag, more):
    tagged = op.Op("tagged", lambda x, /, *, tag="", more=(): x, lambda x, tag, more: x)
    try:
        x = mg.Builder().input("x", (2,))
        graph = x.builder.build(y=tagged(x, tag=tag, more=more))
        assert reads_back(graph).nodes[0].attrs == graph.nodes[0].attrs
    finally:
        del op.OPS["tagged"]


def test_a_registered_initializer_is_read_back():
    net = mg.Builder()
    net.parameter("w", (4, 3), mg.init.he_normal((4, 3)))
    assert reads_back(net.build()).state[0].initializer == initial.Normal(math.sqrt(2 / 3))


def test_blank_lines_and_indentation_do_not_matter():
    text = str(model())
    assert str(mg.parse("\n\n" + text.replace("\n", "\n\n  "))) == text


# damage: a GraphError with the number of the line, never anything else


def refused(text, line):
    with pytest.raises(GraphError) as caught:
        mg.parse(text)
    found = re.match(r"line (\d+): ", str(caught.value))
    assert found, f"no line number in: {caught.value}"
    assert int(found[1]) == line
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", "   "])
def test_empty_text_is_refused(text):
    with pytest.raises(GraphError, match="empty"):
        mg.parse(text)


@pytest.mark.parametrize(
    "first",
    ["nonsense", "input x: float32[2]", "graph", 'graph "open', "graph 3", 'graph ("a", "b")', 'graph "a" "b" c'],
)
def test_a_wrong_first_line_is_refused(first):
    refused(first + "\ninput x: float32[2]\n", 1)


NODE = "y: float32[2, 3] = relu(x)"


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        'graph "again"',
        "input",
        "input z",
        "input z: float32",
        "input z: float32[2",
        "input z: float32[2]]",
        "input z float32[2]",
        "input z: float33[2]",
        "input z: float32[a b]",
        "input z: float32[1.5]",
        "input z: float32[N/2]",
        "input z: float32[-2]",
        "input x: float32[2]",
        "input : float32[2]",
        "input a b: float32[2]",
        "parameter",
        "parameter w: float32[2]",
        "parameter w: float32[2] = ",
        "parameter w: float32[2] = Constant",
        "parameter w: float32[2] = Constant(",
        "parameter w: float32[2] = Constant()",
        "parameter w: float32[2] = Constant(0.0)",
        "parameter w: float32[2] = Constant(valu=1)",
        "parameter w: float32[2] = Constant(value=open)",
        "parameter w: float32[2] = Constant(value=None)",
        "parameter w: float32[2] = Nonsense(value=1)",
        "parameter w: float32[2] = Constant(**{})",
        "parameter w: float32[2] = Normal(std='a')",
        "parameter w: float32[2] = 3",
        "parameter w: float32[N] = Constant(value=0.0)",
        "parameter x: float32[2] = Constant(value=0.0)",
        "parameter w: float32[2] = Constant(value=0.0) and more",
        "x: float32[2, 3] = relu(x)",
        "y: float32[2, 4] = relu(x)",
        "y: float64[2, 3] = relu(x)",
        "y, z: float32[2, 3] = relu(x)",
        "y: float32[2, 3], z: float32[2, 3] = relu(x)",
        "y: float32[2, 3] = relu(z)",
        "y: float32[2, 3] = relu(y)",
        "y: float32[2, 3] = rel(x)",
        "y: float32[2, 3] = relu()",
        "y: float32[2, 3] = relu(x, x)",
        "y: float32[2, 3] = relu(x",
        "y: float32[2, 3] = relu x",
        "y: float32[2, 3] relu(x)",
        "y: float32[2, 3] = relu(x, slope=1)",
        "y: float32[2, 3] = relu(x) more",
        "what is y: float32[2, 3] = relu(x)",
        "y: float32[2, 3] = relu(x,,)",
        "y: float32[3, 2] = transpose(x, axes=3)",
        "y: float32[3, 2] = transpose(x, axes=(1, 1))",
        "y: float32[3, 2] = transpose(x, axes=(1, 0)",
        "y: float32[3, 2] = transpose(x, axes=(1, ))",
        "y: float32[3, 2] = transpose(x, axes=1, 0)",
        "y: float32[3, 2] = transpose(x, axes=(1, 0), axes=(1, 0))",
        "y: float32[3, 2] = transpose(x, axes=('a', 'b'))",
        "y: float32[3, 2] = transpose(x, axes=)",
        "y: float32[3, 2] = transpose(x, =(1, 0))",
        "y: float32[6] = reshape(x, shape=None)",
        "y: float32[6] = reshape(x, shape=(6.0,))",
        "y: float32[6] = reshape(x, shape=())",
        "y: float32[] = sum(x, axes=1.5)",
        "y: float32[] = sum(x, axes=(0, 0))",
        "y: float32[4, 3] = pad(x, widths=2)",
        "y: float32[2] = slice(x, start=0, stop=1)",
        "y: float32[2, 3] = cast(x, dtype=7)",
        'y: float32[2, 3] = cast(x, dtype="float9")',
        "y: float32[2, 3] = cast(x, dtype=None)",
        "y: float32[] = fill(value=())",
        'y: float32[] = fill(value="a")',
        "y: float32[] = fill(value=1, shape=(-1,))",
        'y: uint8[] = fill(value=300, dtype="uint8")',
        "y: uint8[1] = constant(value=literal('uint8', (1,), [300]))",
        "y: float32[1] = constant(value=literal('float32', (2,), [1.0]))",
        "y: float32[1] = constant(value=literal('float32', (1,)))",
        "y: float32[1] = constant(value=literal('float32', (1,), [[1], [1, 2]]))",
        "y: float32[1] = constant(value=literal('object', (1,), [1]))",
        "y: float32[1] = constant(value=literal(*x))",
        "y: float32[1] = constant(value=__import__('os'))",
        "y: float32[2, 3] = dropout(x, x, x, rate=0.5, stream=0)",
        "y: float32[1, 3] = max_pool(x, window=2)",
        "y: float32[2, 3] = softmax(x, axis=7)",
        NODE + "   @ forward",
        NODE + "   @ nonsense -",
        NODE + "   @ forward - a.py",
        NODE + "   @ forward - a.py:",
        NODE + "   @ forward - a.py:x",
        NODE + "   @ forward - a.py:²",
        NODE + "   @ forward - of",
        NODE + "   @ forward - rule",
        NODE + "   @ forward - a.py:1 b.py:2",
        "output",
        "output y",
        "output y =",
        "output = x",
        "output y = z",
        "output y x",
        "output y = x = x",
        "output y = x\noutput y = x",
        "update",
        "update x",
        "update x <-",
        "update x <- x",
        "update z <- x",
        "update x <- z",
        "update x = x",
    ],
)
def test_a_damaged_line_is_refused(line):
    text = HEAD + line + "\noutput x = x\n"
    refused(text, 2 + len(line.split("\n")))


@pytest.mark.parametrize("update", ["w <- v", "w <- c", "w <- x", "v <- w\nupdate v <- v"])
def test_a_wrong_update_is_refused(update):
    text = (
        HEAD + "parameter w: float32[2] = Constant(value=0.0)\nparameter v: float32[3] = Constant(value=0.0)\n"
        f"counter c: int64[2] = Constant(value=0)\nupdate {update}\n"
    )
    refused(text, 6)


def test_a_state_is_updated_at_most_once():
    text = HEAD + "parameter w: float32[2] = Constant(value=0.0)\nupdate w <- w\nupdate w <- w\n"
    refused(text, 5)


def test_an_error_shows_the_line_and_what_was_expected():
    message = refused(HEAD + "\n\ny: float32[2, 4] = relu(x)   @ forward - net.py:7\n", 5)
    assert "float32[2, 3]" in message
    assert "y: float32[2, 4] = relu(x)" in message


def test_reading_runs_no_code(tmp_path):
    target = tmp_path / "made"
    for value in (
        f"open({str(target)!r}, 'w')",
        f"[open({str(target)!r}, 'w') for _ in (1,)]",
        f"(lambda: open({str(target)!r}, 'w'))()",
    ):
        refused(HEAD + f"y: float32[] = fill(value={value})\n", 3)
        refused(HEAD + f"parameter w: float32[2] = Constant(value={value})\n", 3)
    assert not target.exists()


TEXT = str(mg.training_step(model(), "loss", mg.optim.SGD(0.1, momentum=0.9)))
LINES = TEXT.splitlines()
GRAINS = [
    "",
    " ",
    ",",
    "(",
    ")",
    "[",
    "]",
    "=",
    ":",
    '"',
    "'",
    "@",
    "-",
    "<-",
    "~2",
    "\\",
    "\x00",
    "\n",
    "é",
    "²",
    "0",
    "1",
    "9" * 30,
    "1e999",
    "None",
    "nan",
    "True",
    "x",
    "N",
    "image",
    "()",
    "(1,)",
    "[1]",
    "{}",
    "lambda: 0",
    "float32",
    "int64",
    "of",
    "rule",
    " = ",
    "*",
    "**",
    "\u2028",
    "\U0001f600",
]


def only_graph_errors(text):
    try:
        graph = mg.parse(text)
    except GraphError:
        return
    reads_back(graph)  # what was accepted is a graph


@given(st.data())
def test_random_damage_is_a_graph_error_or_another_graph(data):
    number = data.draw(st.integers(0, len(LINES) - 1))
    line = LINES[number]
    start = data.draw(st.integers(0, len(line)))
    stop = min(len(line), start + data.draw(st.integers(0, 6)))
    damaged = line[:start] + data.draw(st.sampled_from(GRAINS)) + line[stop:]
    only_graph_errors("\n".join([*LINES[:number], damaged, *LINES[number + 1 :]]))


@given(st.data())
def test_words_in_wrong_places_are_a_graph_error_or_another_graph(data):
    number = data.draw(st.integers(0, len(LINES) - 1))
    words = re.split(r"(\W)", LINES[number])
    place = data.draw(st.integers(0, len(words) - 1))
    other = data.draw(st.sampled_from(sorted(set(re.split(r"(\W)", TEXT))) + GRAINS))
    only_graph_errors(
        "\n".join([*LINES[:number], "".join([*words[:place], other, *words[place + 1 :]]), *LINES[number + 1 :]])
    )


@given(st.integers(0, len(TEXT)))
def test_text_that_ends_early_is_a_graph_error_or_another_graph(end):
    only_graph_errors(TEXT[:end])


@given(st.lists(st.integers(0, len(LINES) - 1), min_size=1, max_size=3), st.data())
def test_lines_that_are_lost_or_moved_are_a_graph_error_or_another_graph(lost, data):
    lines = [line for i, line in enumerate(LINES) if i not in lost]
    lines.insert(data.draw(st.integers(0, len(lines))), LINES[data.draw(st.sampled_from(lost))])
    only_graph_errors("\n".join(lines))


@given(st.text())
def test_any_text_is_a_graph_error_or_a_graph(text):
    only_graph_errors(text)
    only_graph_errors(HEAD + text)
    only_graph_errors(HEAD + f"y: float32[2, 3] = pad(x, widths={text})")
