"""Saved graphs: what is written is read back whole, and a file that is damaged or does not fit is a GraphError."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save as write_arrays
from test_text import ARRAYS, model, structure

import minigraph as mg
from minigraph import GraphError, layers
from minigraph.core import initial, op
from minigraph.core.ir import Graph, Node, Origin, Value
from minigraph.tools import saved

GRAPHS = {
    "model": model,
    "training": lambda: mg.training_step(
        model(), "loss", mg.optim.AdamW(mg.optim.warmup(3, mg.optim.cosine(0.1, 9))), clip_norm=1.0
    ),
    "accumulate": lambda: mg.training_step(model(), "loss", mg.optim.SGD("rate", momentum=0.9), accumulate=2),
    "inference": lambda: mg.inference(model()),
    "bound": lambda: model().bind(N=2),
    "pruned": lambda: model().prune(["loss"]),
    "empty": lambda: mg.Builder("empty").build(),
}


def small():
    """A graph of one line for each kind of thing, whose file is short enough to be damaged at every place."""
    net = mg.Builder("small")
    x = net.input("x", ("N", 3))
    y = mg.relu(layers.batch_norm(layers.linear(x, 2, bias=False)))
    return net.build(y=y)


def goes_round(path, graph, state=None):
    mg.save(path, graph, state)
    again, arrays = mg.load(path)
    assert str(again) == str(graph)
    assert structure(again) == structure(graph)
    return again, arrays


def same_arrays(a, b):
    assert list(a) == list(b)
    for name in a:
        assert (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape)
        assert a[name].tobytes() == b[name].tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


# what is written is read back


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_and_its_state_are_read_back_whole(path, name):
    graph = GRAPHS[name]()
    state = graph.init(seed=1)
    _, again = goes_round(path, graph, state)
    same_arrays(state, again)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_alone_is_read_back_without_a_state(path, name):
    graph = GRAPHS[name]()
    _, state = goes_round(path, graph)
    if name == "empty":
        assert len(state) == 0
    else:
        assert state is None


def test_what_compile_makes_by_itself_need_not_be_there(path):
    net = mg.Builder()
    graph = net.build(y=layers.dropout(net.input("x", (3,)), 0.5))
    assert {variable.kind for variable in graph.state} <= {"counter", "stream"}
    assert graph.state
    again, state = goes_round(path, graph)
    assert len(state) == 0
    assert mg.compile(again, state).created


def test_a_trained_network_answers_the_same_from_its_file(path):
    graph = mg.training_step(model(), "loss", mg.optim.Adam(0.01))
    state = graph.init(seed=3)
    rng = np.random.default_rng(0)
    batch = {"image": rng.normal(size=(4, 2, 6, 6)), "label": rng.integers(0, 5, 4)}
    train = mg.compile(graph, state)
    train(**batch)
    again, copy = goes_round(path, graph, state)
    same_arrays(state, copy)
    first, second = train(**batch), mg.compile(again, copy)(**batch)
    same_arrays(first, second)
    same_arrays(state, copy)


def test_what_the_graph_does_not_have_stays_away(path):
    step = mg.training_step(model(), "loss", mg.optim.Adam(0.01))
    answer = mg.inference(model(), ["logits"])
    mg.save(path, answer, step.init())
    _, state = mg.load(path)
    assert state is not None
    assert set(state) == set(answer.variables)


@pytest.mark.parametrize(
    "initializer",
    [
        *(initial.Constant(value) for value in (0.0, -1, True, float("inf"), -float("inf"), float("nan"))),
        initial.Normal(1e-300, -2.5),
        initial.TruncatedNormal(0.1),
        initial.Uniform(-0.1, 1 / 3),
        initial.Orthogonal(2**0.5),
        initial.RandomSeed(),
    ],
    ids=repr,
)
def test_every_initializer_is_read_back(path, initializer):
    net = mg.Builder()
    net.parameter("w", (2, 3), initializer)
    again, _ = goes_round(path, net.build())
    assert repr(again.state[0].initializer) == repr(initializer)


@pytest.mark.parametrize("number", [np.float64(0.1), np.sqrt(2), np.float64("inf")], ids=repr)
def test_numbers_of_numpy_in_initializers_are_read_back(path, number):
    net = mg.Builder()
    net.parameter("w", (2, 3), initial.Constant(number))
    graph = net.build()
    mg.save(path, graph)
    again, _ = mg.load(path)
    assert again.state[0].initializer == initial.Constant(number)
    same_arrays(graph.init(seed=4), again.init(seed=4))


def test_every_initializer_is_tried_above():
    tried = {"Constant", "Normal", "TruncatedNormal", "Uniform", "Orthogonal", "RandomSeed"}
    assert {name for name, cls in initial.Initializer.known.items() if cls.__module__.startswith("minigraph.")} == tried


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_literals_and_states_are_read_back_to_the_bit(path, array):
    net = mg.Builder()
    net.variable("s", array.shape, initial.Constant(0), array.dtype.name, "statistic")
    graph = net.build(y=net.emit(op.OPS["constant"], (), {"value": array})[0])
    again, state = goes_round(path, graph, mg.State({"s": array}))
    assert again.nodes[0].attrs["value"].array.tobytes() == array.tobytes()
    same_arrays(state, mg.State({"s": array}))


@given(st.floats(width=64), st.text(st.characters(codec="utf-8")))
def test_numbers_and_names_are_read_back(tmp_path_factory, number, name):
    path = tmp_path_factory.mktemp("saved") / "net.safetensors"
    net = mg.Builder(name)
    goes_round(path, net.build(y=net.constant(number, "float64")))


def test_origins_and_symbols_are_read_back(path):
    net = mg.Builder("g")
    x = net.input("x", ("N", "2*H", "H*N - 1"))
    with net.origin(Origin("backward", "s.t", "somewhere/my net.py", 7, "conv", "fold", ("a", "b"))):
        y = mg.relu(x)
    again, _ = goes_round(path, net.build(y=y))
    assert again.nodes[0].origin == Origin("backward", "s.t", "my net.py", 7, "conv", "fold", ("a", "b"))
    assert again.symbols == {"N", "H"}


NAMES = [
    "fold",
    "two words",
    "a,b",
    'say "x"',
    "-",
    "of x",
    "rule r s",
    "   @ forward - ",
    "é中",
    "back\\slash",
    "new\nline",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_in_origins_are_read_back_whatever_they_are(path, name):
    for origin in (
        Origin(scope=name, rule=name, sources=(name, "b", name), forward=name, role="backward", file="net.py", line=3),
        Origin(rule=name),
        Origin(scope=name),
        Origin(forward=name),
        Origin(rule="fold", sources=(name,)),
        Origin(scope=name, rule="of", sources=("rule", name)),
    ):
        net = mg.Builder("g")
        with net.origin(origin):
            y = mg.relu(net.input("x", (2,)))
        again, _ = goes_round(path, net.build(y=y))
        assert again.nodes[0].origin == origin


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=3))
def test_any_name_in_an_origin_is_read_back(names):
    scope, rule, *sources = names
    net = mg.Builder("g")
    with net.origin(Origin(scope=scope, rule=rule, sources=tuple(sources), forward=rule)):
        y = mg.relu(net.input("x", (2,)))
    graph = net.build(y=y)
    assert mg.parse(str(graph)).nodes[0].origin == graph.nodes[0].origin


def test_the_arrays_are_a_state_file_too(path):
    graph = small()
    state = graph.init(seed=2)
    mg.save(path, graph, state)
    same_arrays(mg.State.read(path), mg.State(dict(sorted(state.items()))))
    assert not graph.init(seed=5).load(path)


# what is refused before anything is written


def refused_to_save(path, graph, state=None):
    with pytest.raises(GraphError) as caught:
        mg.save(path, graph, state)
    assert not path.exists()
    assert list(path.parent.iterdir()) == []
    return str(caught.value)


def test_a_state_that_lacks_a_parameter_is_not_saved(path):
    state = small().init()
    del state["linear1.weight"]
    assert "the state lacks linear1.weight" in refused_to_save(path, small(), state)


def test_a_state_of_another_shape_is_not_saved(path):
    graph = small()
    state = mg.State({**graph.init(), "linear1.weight": np.zeros((2, 4), "float32")})
    message = refused_to_save(path, graph, state)
    assert "linear1.weight is float32[2, 3], the state has float32[2, 4]" in message


@pytest.mark.parametrize("name", ["net.txt", "net", "net.npz", "net.safetensors.bak"])
def test_another_ending_is_refused(tmp_path, name):
    message = refused_to_save(tmp_path / name, small())
    assert "a saved graph is a .safetensors file" in message


def test_names_that_are_no_text_are_refused(path):
    assert "no text" in refused_to_save(path, mg.Builder("\ud800").build())


def test_a_graph_whose_text_cannot_be_read_back_is_refused(path):
    net = mg.Builder("net")
    x = net.input("x", (2,)).value
    y = Value(x.type, "two words")
    node = Node(mg.OPS["relu"], (x,), (y,), {}, "two words")
    message = refused_to_save(path, Graph("net", (x,), (), (node,), {"y": y}).check())
    assert "would not be read back: line 3" in message


def test_text_that_is_too_long_is_refused(path, monkeypatch):
    monkeypatch.setattr(saved, "ROOM", 100)
    assert "make parameters of its large constants" in refused_to_save(path, small())


def test_a_failure_leaves_the_old_file(path, monkeypatch):
    mg.save(path, small())
    before = path.read_bytes()

    def fails(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(OSError, match="full"):
        mg.save(path, model())
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_only_graphs_are_saved(tmp_path):
    given = mg.compile(model(), model().init())
    with pytest.raises(GraphError, match=r"save\(path, graph, state\) needs a Graph, not a Program"):
        mg.save(tmp_path / "net.safetensors", given)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="needs a Graph, not a State"):
        mg.save(given.graph, given.state)  # type: ignore[arg-type]


# files that are none, or not whole


def refused(path):
    """The sentence with which a file is refused."""
    with pytest.raises(GraphError) as caught:
        mg.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def written(path, metadata, arrays=None):
    path.write_bytes(write_arrays(arrays or {}, metadata))
    return path


def record(text, version="1"):
    """Metadata as `save` writes them."""
    return {"minigraph": version, "graph": text, "sha256": saved._digest(text)}


def test_a_missing_file_is_said(path):
    assert "there is no file" in refused(path)


def test_a_folder_is_said(path):
    path.mkdir()
    assert "is a folder" in refused(path)


def test_an_empty_file_is_said(path):
    path.touch()
    assert "is empty" in refused(path)


@pytest.mark.parametrize(
    "content", [b"\0", b"graph", b"\x89PNG\r\n" * 40, b"\0" * 100, b"\xff" * 100, str(small()).encode()]
)
def test_a_file_of_another_kind_is_said(path, content):
    path.write_bytes(content)
    assert "is not a whole safetensors file" in refused(path)


def test_a_file_of_arrays_alone_says_what_to_do(path):
    small().init().save(path)
    message = refused(path)
    assert "holds no graph, only arrays" in message
    assert "State.read(path)" in message


@pytest.mark.parametrize("version", ["2", "10", "999999999"])
def test_a_newer_version_is_refused(path, version):
    written(path, record(str(small()), version))
    assert f"written by a newer minigraph: it has format {version}, this minigraph reads 1" in refused(path)


@pytest.mark.parametrize("version", ["", "0", "-1", "1.0", "one", "²", "1 ", "9" * 5000])
def test_a_version_that_is_none_is_damage(path, version):
    written(path, record(str(small()), version))
    assert "is damaged: its version is" in refused(path)


@pytest.mark.parametrize("key", ["graph", "sha256"])
def test_metadata_that_lack_something_are_damage(path, key):
    metadata = record(str(small()))
    del metadata[key]
    written(path, metadata)
    assert f"it says nothing of {key!r}" in refused(path)


def test_text_that_was_changed_is_damage(path):
    metadata = record(str(small()))
    metadata["graph"] = metadata["graph"].replace("eps=1e-05", "eps=1e-06")
    written(path, metadata)
    assert "not as it was written" in refused(path)


def test_text_that_is_no_graph_is_refused_with_its_line(path):
    written(path, record('graph "g"\ninput x: float32[2]\nnonsense\n'))
    message = refused(path)
    assert "line 3: this is neither an input" in message


def test_an_op_that_is_not_known_here_says_what_to_do(path):
    written(path, record('graph "g"\ninput x: float32[2]\ny: float32[2] = foo(x)\noutput y = y\n'))
    assert "op 'foo' is not known: import the module that defines it first" in refused(path)


def test_an_initializer_that_is_not_known_here_says_what_to_do(path):
    written(path, record('graph "g"\nparameter w: float32[2] = Foo(x=1)\n'))
    message = refused(path)
    assert "Foo(x=1)" in message
    assert "import the module that defines it first" in message


def test_a_state_that_lacks_a_parameter_is_refused(path):
    graph = small()
    arrays = dict(graph.init())
    del arrays["linear1.weight"], arrays["bn1.gamma"]
    written(path, record(str(graph)), arrays)
    assert "the state lacks linear1.weight, bn1.gamma" in refused(path)


def test_a_state_of_another_shape_or_dtype_is_refused(path):
    graph = small()
    arrays = {**graph.init(), "linear1.weight": np.zeros((3, 2), "float32"), "bn1.gamma": np.ones(2, "float64")}
    written(path, record(str(graph)), arrays)
    message = refused(path)
    assert "linear1.weight is float32[2, 3], the state has float32[3, 2]" in message
    assert "bn1.gamma is float32[2], the state has float64[2]" in message


def test_arrays_that_are_not_of_the_graph_are_refused(path):
    graph = small()
    written(path, record(str(graph)), {**graph.init(), "stranger": np.zeros(2)})
    assert "the graph has no stranger" in refused(path)


def test_loading_runs_no_code(path, tmp_path):
    target = tmp_path / "made"
    for line in (
        f"parameter w: float32[2] = Constant(value=open({str(target)!r}, 'w'))",
        f"y: float32[] = fill(value=open({str(target)!r}, 'w'))",
        f"parameter w: float32[2] = __import__('os').mkdir({str(target)!r})",
    ):
        written(path, record(f'graph "g"\n{line}\n'))
        assert "line 2" in refused(path)
    assert not target.exists()


# damage at every place


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The bytes of a file, and a place to put damaged ones."""
    path = tmp_path_factory.mktemp("damage") / "net.safetensors"
    graph = small()
    mg.save(path, graph, graph.init())
    return path.read_bytes(), path


def header_length(data):
    return 8 + struct.unpack("<Q", data[:8])[0]


def test_a_file_that_ends_early_is_refused(file):
    data, path = file
    for end in {*range(0, len(data), 37), *range(20), header_length(data), len(data) - 1}:
        path.write_bytes(data[:end])
        refused(path)


def test_a_file_that_goes_on_is_refused(file):
    data, path = file
    path.write_bytes(data + b"\0")
    refused(path)


def test_one_wrong_bit_before_the_arrays_is_refused(file):
    """Every byte but the blanks behind the header, and every bit of its length."""
    data, path = file
    end = 8 + len(data[8 : header_length(data)].rstrip())
    for place in range(end):
        for bit in range(8) if place < 16 else [place % 8]:
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            path.write_bytes(bytes(damaged))
            refused(path)


@given(st.data())
def test_random_damage_before_the_arrays_is_refused(file, data):
    whole, path = file
    end = header_length(whole)
    start = data.draw(st.integers(0, end - 1))
    stop = min(end, start + data.draw(st.integers(0, 5)))
    put = data.draw(st.binary(max_size=5))
    damaged = whole[:start] + put + whole[stop:]
    path.write_bytes(damaged)
    try:
        graph, state = mg.load(path)
    except GraphError:
        return
    assert str(graph) == str(small())  # what was changed was blank
    same_arrays(state, small().init())


def test_the_header_is_what_the_docstring_says(path):
    graph = small()
    mg.save(path, graph)
    data = path.read_bytes()
    assert json.loads(data[8 : header_length(data)])["__metadata__"] == record(str(graph))
