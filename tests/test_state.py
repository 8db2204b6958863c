"""State: a dict of read-only arrays, its files, and how it begins."""

import os

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import minigraph as mg
from minigraph import GraphError, State, layers


@pytest.fixture
def state():
    return State(
        {
            "w": np.arange(6, dtype="float32").reshape(2, 3),
            "b": np.ones(3, "float64"),
            "step": np.array(7),
            "flag": np.array([True]),
            "half": np.zeros((0, 2), "float16"),
        }
    )


def same(a, b):
    return list(a) == list(b) and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in zip(a.values(), b.values())
    )


# a dict


def test_a_state_is_a_mapping(state):
    assert list(state) == ["w", "b", "step", "flag", "half"]
    assert len(state) == 5
    assert "w" in state
    assert "v" not in state
    assert state.get("v") is None
    assert state["step"] == 7
    del state["w"]
    assert "w" not in state
    assert state.pop("b").tolist() == [1, 1, 1]
    assert {**state}.keys() == {"step", "flag", "half"}
    assert "3 arrays" in repr(state)


def test_a_missing_name_is_a_key_error_that_says_what_there_is(state):
    with pytest.raises(KeyError, match="no state 'v'; there are w, b"):
        state["v"]
    with pytest.raises(KeyError):
        del state["v"]
    with pytest.raises(KeyError, match="none"):
        State()["v"]


def test_arrays_are_read_only(state):
    for array in state.values():
        assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        state["w"][0, 0] = 1


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a[:],
        lambda a: a.T,
        lambda a: np.broadcast_to(a, a.shape),
        lambda a: np.asarray(memoryview(a)),
        lambda a: np.frombuffer(memoryview(a).toreadonly(), a.dtype).reshape(a.shape),
    ],
    ids=["array", "view", "transpose", "read-only view", "memory", "read-only memory"],
)
@pytest.mark.parametrize("put", [lambda a: State({"w": a}), lambda a: put_later(a)], ids=["made", "assigned"])
def test_a_state_does_not_follow_the_array_it_was_given(view, put):
    source = np.arange(4.0).reshape(2, 2)
    given_array = view(source)
    wanted = given_array.copy()
    state = put(given_array)
    source[:] = 99
    np.testing.assert_array_equal(state["w"], wanted)
    assert source.flags.writeable


def put_later(array):
    state = State({"w": np.zeros((2, 2))})
    state["w"] = array
    return state


def test_a_new_array_takes_the_old_ones_dtype(state):
    state["w"] = np.full((2, 3), 0.1)
    assert state["w"].dtype == np.float32
    assert state["w"][0, 0] == np.float32(0.1)
    state["step"] = 8
    assert state["step"].dtype == np.int64
    state["b"] = [1, 2, 3]
    assert state["b"].dtype == np.float64
    state["new"] = [1.0]
    assert state["new"].tolist() == [1]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("w", np.zeros((3, 2)), r"'w' has shape \(2, 3\); the new array has \(3, 2\)"),
        ("w", 0.0, "has shape"),
        ("step", [1], "has shape"),
        ("step", 1.5, "'step' is int64; the new array is float64"),
        ("flag", [1], "is bool; the new array is int64"),
        ("w", np.zeros((2, 3), complex), "float32"),
        ("w", None, "w"),
        ("w", "weights", "w"),
        ("b", [[1], [2, 3]], "b"),
        ("b", ["x", "y", "z"], "b"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_and_nothing_changes(state, name, array, message):
    before = state.copy()
    with pytest.raises(GraphError, match=message):
        state[name] = array
    assert same(state, before)


@pytest.mark.parametrize("array", [None, "text", [[1], [2, 3]], np.array([object()]), 1j])
def test_what_no_file_could_hold_is_refused(array):
    with pytest.raises(GraphError):
        State({"w": array})
    state = State()
    with pytest.raises(GraphError):
        state["w"] = array


def test_a_snapshot_stays_as_it_was(state):
    before = state.copy()
    state["w"] = np.zeros((2, 3))
    state["more"] = np.zeros(1)
    del state["b"]
    assert before["w"][1, 2] == 5
    assert "more" not in before
    assert "b" in before
    before["w"] = np.ones((2, 3))
    assert state["w"].sum() == 0


def test_a_snapshot_of_a_training_run_can_be_gone_back_to():
    net = mg.Builder()
    loss = mg.mean(layers.batch_norm(layers.linear(net.input("x", ("N", 3)), 2)) * np.array([1.0, 2.0]) + 1.0)
    model = net.build(loss=loss * loss)
    state = model.init(seed=1)
    train = mg.compile(mg.training_step(model, "loss", mg.optim.Adam(0.1)), state)
    x = np.random.default_rng(0).normal(size=(5, 3))
    train(x=x)
    snapshot = state.copy()
    first = [train(x=x)["loss"] for _ in range(3)]
    state.update(snapshot)
    assert [train(x=x)["loss"] for _ in range(3)] == first


# files


def test_a_file_holds_everything_to_the_bit(state, tmp_path):
    state.save(tmp_path / "s.safetensors")
    again = State.read(tmp_path / "s.safetensors")
    assert same({name: again[name] for name in state}, state)
    assert set(again) == set(state)


def test_what_was_saved_loads_strictly(state, tmp_path):
    state.save(tmp_path / "s.safetensors")
    other = State({name: np.zeros_like(array) for name, array in state.items()})
    assert not other.load(tmp_path / "s.safetensors")
    assert same(other, state)
    assert all(not array.flags.writeable for array in other.values())


def test_a_training_state_is_saved_and_loaded(tmp_path):
    net = mg.Builder()
    x = net.input("x", ("N", 3))
    model = net.build(loss=mg.mean(layers.dropout(layers.batch_norm(layers.linear(x, 4), momentum=None), 0.5)))
    step = mg.training_step(model, "loss", mg.optim.Adam(0.1))
    batch = np.random.default_rng(0).normal(size=(6, 3))
    runs: list = []
    for _ in range(2):
        state = model.init(seed=0)
        train = mg.compile(step, state)
        losses = [train(x=batch)["loss"] for _ in range(2)]
        if runs:
            state.save(tmp_path / "state")
            state = step.init(seed=5)
            state.load(tmp_path / "state")
            train = mg.compile(step, state)
            assert train.created == ()
        runs.append(losses + [train(x=batch)["loss"] for _ in range(2)])
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.array(True),
        np.array(2**40),
        np.zeros((0,)),
        np.zeros((2, 0, 3), "int8"),
        np.array([np.nan, -0.0, np.inf], "float16"),
        np.array([1.5, -0.0, np.inf, 3e38], ml_dtypes.bfloat16),
        np.arange(6).reshape(2, 3).T,
    ],
)
def test_every_shape_and_dtype_survives_a_file(array, tmp_path):
    State({"a": array}).save(tmp_path / "a")
    got = State.read(tmp_path / "a")["a"]
    assert (got.shape, got.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("metadata", [None, {}, {"epoch": "3"}])
def test_a_state_without_arrays_survives_a_file(metadata, tmp_path):
    State().save(tmp_path / "s.safetensors", metadata)
    assert len(State.read(tmp_path / "s.safetensors")) == 0


def test_files_are_safetensors_with_metadata(state, tmp_path):
    path = tmp_path / "s.safetensors"
    state.save(path, {"epoch": "3"})
    assert set(safetensors.numpy.load_file(path)) == set(state)
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"epoch": "3"}


def test_a_file_made_elsewhere_is_read(tmp_path):
    safetensors.numpy.save_file({"w": np.ones((2, 2), "float32")}, tmp_path / "other.safetensors")
    state = State({"w": np.zeros((2, 2), "float32")})
    state.load(tmp_path / "other.safetensors")
    assert state["w"].sum() == 4


def test_folders_are_made_and_paths_may_be_text(state, tmp_path):
    state.save(str(tmp_path / "runs" / "one" / "s"))
    assert State.read(str(tmp_path / "runs" / "one" / "s"))["step"].item() == 7
    assert os.listdir(tmp_path / "runs" / "one") == ["s"]


@pytest.fixture
def differing(tmp_path):
    path = tmp_path / "differing"
    safetensors.numpy.save_file(
        {"same": np.full(2, 5, "float32"), "shape": np.ones(4, "float32"), "dtype": np.ones(2), "extra": np.ones(1)},
        path,
    )
    ours = State({name: np.zeros(2, "float32") for name in ("same", "shape", "dtype", "absent", "gone")})
    return path, ours


def test_a_strict_load_lists_everything_and_changes_nothing(differing):
    path, state = differing
    before = state.copy()
    with pytest.raises(GraphError) as caught:
        state.load(path)
    message = str(caught.value)
    for part in (
        str(path),
        "missing in the file: absent, gone",
        "only in the file: extra",
        "shape: expected float32[2], the file has float32[4]",
        "dtype: expected float32[2], the file has float64[2]",
        "strict=False",
    ):
        assert part in message
    assert same(state, before)


def test_a_partial_load_takes_what_fits_and_says_what_does_not(differing):
    path, state = differing
    difference = state.load(path, strict=False)
    assert difference
    assert difference.missing == ("absent", "gone")
    assert difference.superfluous == ("extra",)
    assert difference.other_form == {"shape": ("float32[2]", "float32[4]"), "dtype": ("float32[2]", "float64[2]")}
    assert state["same"].tolist() == [5, 5]
    assert all(state[name].tolist() == [0, 0] for name in ("shape", "dtype", "absent", "gone"))
    assert "extra" not in state
    assert "missing in the file: absent, gone" in str(difference)


@pytest.mark.parametrize(
    "load", [State.read, lambda path: State({"w": np.zeros(2)}).load(path, strict=False)], ids=["read", "load"]
)
class TestWhatIsNoFile:
    def test_a_missing_file(self, load, tmp_path):
        with pytest.raises(GraphError, match=r"there is no file .*nothing"):
            load(tmp_path / "nothing")

    def test_a_directory(self, load, tmp_path):
        (tmp_path / "runs").mkdir()
        with pytest.raises(GraphError, match=r"runs is a (directory|folder)"):
            load(tmp_path / "runs")

    @pytest.mark.parametrize(
        "content",
        [b"", b"\0" * 8, b"PK\x03\x04 a zip file", b"\x93NUMPY\x01\x00", b"\xff" * 100, b"{}", b"text\n" * 50],
    )
    def test_a_foreign_file(self, load, tmp_path, content):
        path = tmp_path / "foreign"
        path.write_bytes(content)
        with pytest.raises(GraphError, match="foreign is not a whole safetensors file"):
            load(path)


@given(st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(tmp_path_factory, part):
    folder = tmp_path_factory.mktemp("cut")
    state = State({"w": np.arange(50.0), "b": np.arange(3)})
    state.save(folder / "whole")
    data = (folder / "whole").read_bytes()
    (folder / "cut").write_bytes(data[: int(part * len(data))])
    before = state.copy()
    with pytest.raises(GraphError, match="is not a whole safetensors file"):
        state.load(folder / "cut", strict=False)
    assert same(state, before)


# writing: the old file or the new one, whole


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), MemoryError()], ids=repr)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(state, tmp_path, monkeypatch, error, call):
    path = tmp_path / "s"
    state.save(path)
    old = path.read_bytes()
    state["w"] = np.zeros((2, 3))

    def fail(*_):
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)):
        state.save(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["s"]


def test_a_directory_is_not_overwritten(state, tmp_path):
    (tmp_path / "s").mkdir()
    with pytest.raises(GraphError, match=r"/s is a folder"):
        state.save(tmp_path / "s")
    assert os.listdir(tmp_path) == ["s"]
    assert not os.listdir(tmp_path / "s")


def test_a_file_is_no_folder(state, tmp_path):
    (tmp_path / "s").touch()
    with pytest.raises(GraphError, match=r"/s/w cannot be written: .*/s is a file, not a folder"):
        state.save(tmp_path / "s" / "w")


def test_what_the_system_refuses_is_said_of_the_path_that_was_given(state, tmp_path, monkeypatch):
    def refuse(beside, path):
        raise PermissionError(13, "Permission denied", beside, None, path)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError) as refused:
        state.save(tmp_path / "s")
    assert (refused.value.filename, refused.value.filename2) == (str(tmp_path / "s"), None)


def test_safetensors_keeps_one_name_for_itself(tmp_path):
    with pytest.raises(GraphError, match="takes no array that is called '__metadata__'"):
        State({"__metadata__": np.ones(3)}).save(tmp_path / "s")
    assert not os.listdir(tmp_path)


def test_a_file_is_replaced_while_it_is_read(state, tmp_path):
    path = tmp_path / "s"
    state.save(path)
    with open(path, "rb") as reader:
        state["w"] = np.zeros((2, 3))
        state.save(path)
        safetensors.numpy.load(reader.read())  # the old one, whole
    assert State.read(path)["w"].sum() == 0


# how state begins


def network(*widths, name="net"):
    net = mg.Builder(name)
    h = net.input("x", ("N", 3))
    for i, width in enumerate(widths):
        h = layers.linear(layers.batch_norm(h), width, name=f"layer{i}")
    return net.build(y=h)


def test_one_seed_gives_one_state():
    assert same(network(4, 5).init(seed=7), network(4, 5).init(seed=7))
    assert not np.array_equal(network(4).init(seed=7)["layer0.weight"], network(4).init(seed=8)["layer0.weight"])
    assert same(network(4).init(), network(4).init(seed=0))


def test_the_same_name_begins_the_same_whatever_else_there_is():
    alone, among = network(4, name="a").init(seed=3), network(4, 5, 6, name="b").init(seed=3)
    assert all(np.array_equal(among[name], alone[name]) for name in alone)
    assert not np.array_equal(among["layer1.weight"][:, :3], among["layer0.weight"][:, :3].repeat(2, 0)[:5])


def test_the_order_of_variables_does_not_matter():
    states = []
    for names in (("a", "b"), ("b", "a")):
        net = mg.Builder()
        for name in names:
            net.parameter(name, (3,), mg.init.normal(1.0))
        states.append(net.build().init(seed=1))
    assert np.array_equal(states[0]["a"], states[1]["a"])
    assert not np.array_equal(states[0]["a"], states[0]["b"])


@pytest.mark.parametrize(
    ("make", "mean", "deviation"),
    [
        (mg.init.he_normal, 0, (2 / 300) ** 0.5),
        (mg.init.he_uniform, 0, (2 / 300) ** 0.5),
        (mg.init.xavier_normal, 0, (2 / 500) ** 0.5),
        (mg.init.xavier_uniform, 0, (2 / 500) ** 0.5),
        (lambda shape: mg.init.normal(0.5, 2.0), 2, 0.5),
        (lambda shape: mg.init.uniform(-1, 3), 1, 4 / 12**0.5),
    ],
    ids=["he_normal", "he_uniform", "xavier_normal", "xavier_uniform", "normal", "uniform"],
)
def test_distributions_have_their_mean_and_deviation(make, mean, deviation):
    net = mg.Builder()
    net.parameter("w", (200, 300), make((200, 300)), "float64")
    w = net.build().init(seed=0)["w"]
    # 60000 numbers: the mean is known to deviation/245, the deviation to 1/346 of it; four of these
    assert abs(w.mean() - mean) < 4 * deviation / 245
    assert abs(w.std() / deviation - 1) < 4 / 346


def test_the_fan_of_a_convolution_counts_its_window():
    assert mg.init.he_normal((8, 3, 5, 5)) == mg.init.normal((2 / 75) ** 0.5)
    assert mg.init.xavier_uniform((8, 3, 5)) == mg.init.uniform(-((6 / 55) ** 0.5), (6 / 55) ** 0.5)
    with pytest.raises(GraphError, match="at least two axes"):
        mg.init.he_normal((8,))


def test_constants_and_dtypes_of_state():
    net = mg.Builder()
    net.parameter("h", (2,), mg.init.constant(0.1), "float16")
    net.variable("n", (), mg.init.constant(3), "int64", "counter")
    state = net.build().init()
    assert state["h"].dtype == np.float16
    assert state["n"].shape == ()
    assert state["n"].dtype == np.int64
    assert state["n"] == 3
