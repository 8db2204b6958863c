"""fit on a GPU, which a CPU plays: steps that nobody waits for, data that live there, and all that fit promises."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_checkpoint
import test_fit
from cuda_on_cpu import Processor

import kill_and_resume as small
import minigraph as mg
from minigraph import layers
from minigraph.backends.cupy import device as gpu
from minigraph.backends.cupy.arrays import GpuArray, moved
from minigraph.backends.cupy.resident import Array
from minigraph.backends.cupy.rows import Rows
from minigraph.core.state import read
from minigraph.tools import fit as fitting
from minigraph.tools.data import Batches
from minigraph.tools.fit import NotFinite

pytestmark = pytest.mark.cxx


@pytest.fixture(autouse=True)
def processor(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> Processor:
    """In place of a GPU; and whoever names no backend has it."""
    monkeypatch.setenv("MINIGRAPH_BACKEND", "cupy")
    return processor


# what fit promises elsewhere


PROMISES = [
    test_fit.test_metrics_are_means_over_samples_short_last_batch_included,
    test_fit.test_accumulation_makes_one_step_of_the_optimizer_from_several_batches,
    test_fit.test_drop_last_leaves_out_the_short_batch,
    test_fit.test_gradients_that_spoil_the_weights_are_found_one_step_later,
    test_fit.test_an_error_in_a_step_leaves_the_state_of_the_step_before,
    test_fit.test_what_is_put_into_the_state_between_epochs_is_kept_too,
    test_fit.test_training_learns_and_changes_the_state_of_its_program,
]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__.removeprefix("test_"))
@pytest.mark.parametrize("steps", [1, 3, 64])
def test_what_fit_promises_holds_here(promise: Callable[[], None], steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In windows of so many steps."""
    monkeypatch.setattr(fitting, "STEPS", steps)
    monkeypatch.setattr(fitting, "SECONDS", 1e9)
    promise()


def test_a_loss_that_is_not_finite_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "STEPS", 1)  # of more steps, the last batch that is augmented is not that to blame
    test_fit.test_a_loss_that_is_not_finite_names_the_batch_the_node_and_the_line(tmp_path)
    test_fit.test_a_spoiled_state_is_never_written(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Any:
    """As that of test_checkpoint, on a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        made = Processor(folder)
        patch.setattr(gpu, "device", lambda: made)
        patch.setenv("MINIGRAPH_BACKEND", "cupy")
        there = tmp_path_factory.mktemp("undisturbed")
        program, check = small.programs()
        run = test_checkpoint.fit(program, check, there)
        return run, program.state.copy(), read(there / test_checkpoint.BEST)[0]


@pytest.mark.parametrize("at", [1, 13, 21])
def test_a_training_that_broke_off_ends_with_the_same_bits(at: int, tmp_path: Path, undisturbed: Any) -> None:
    test_checkpoint.test_a_training_that_broke_off_ends_with_the_same_bits(tmp_path, undisturbed, at)


@pytest.mark.parametrize("at", [0, 2, 20])
def test_ctrl_c_leaves_a_checkpoint_of_the_last_whole_step(at: int, tmp_path: Path, undisturbed: Any) -> None:
    test_checkpoint.test_ctrl_c_leaves_a_checkpoint_of_the_last_whole_step(tmp_path, undisturbed, at)


# windows


def points(n: int = 50) -> dict[str, np.ndarray]:
    """Pixels, as files have them, and labels of no more bytes than they need."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (n, 4), np.uint8)
    return {"x": pixels, "label": (pixels.astype(int).sum(1) > 510).astype(np.int32)}


def classifier() -> mg.Graph:
    net = mg.Builder("classifier")
    x, label = net.input("x", ("N", 4), "uint8"), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.linear(mg.cast(x, "float32") / 255, 8)))
    logits = layers.linear(layers.dropout(h, 0.2), 2)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def programs(backend: str = "cupy", rate: float = 1e-2) -> tuple[mg.Program, mg.Program]:
    model = classifier()
    state = model.init(0)
    step = mg.training_step(model, loss="loss", optimizer=mg.optim.Adam(rate))
    return mg.compile(step, state, backend), mg.compile(mg.inference(model, ["loss", "accuracy"]), state, backend)


def trained(backend: str = "cupy", **options: Any) -> tuple[list[dict[str, float]], mg.State]:
    train, check = programs(backend)
    given = {"epochs": 3, "batch_size": 8, "seed": 4, "validation": (check, points(21)), **options}
    run = mg.fit(train, points(), **given)
    return test_checkpoint.metrics(run.history), train.state


def test_a_window_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit. Beside NumPy, losses of three classes' worth of float32 round in the sixth digit."""
    monkeypatch.setattr(fitting, "SECONDS", 1e9)
    runs = []
    for steps in (1, 2, 64):
        monkeypatch.setattr(fitting, "STEPS", steps)
        runs.append(trained())
    for history, state in runs[1:]:
        assert history == runs[0][0]
        test_checkpoint.assert_same(state, runs[0][1])
    there, _ = trained("numpy")
    for entry, wanted in zip(runs[0][0], there, strict=True):
        assert entry == pytest.approx(wanted, abs=1e-4)


def test_losses_are_read_once_in_a_window(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SECONDS", 1e9)
    train, _ = programs()
    counts = []
    for epochs in (1, 4):
        processor.events.clear()
        mg.fit(train, points(64), epochs=epochs, batch_size=8)
        counts.append((processor.events.count("read"), processor.events.count("upload")))
    warming_up = first = 1  # the first step, with which the data are not there yet, is read by itself
    assert counts == [(warming_up + first + 1, first), (first + 4, first)]


def interrupted_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at so many calls of the device from now on."""
    device = gpu.device()
    assert isinstance(device, Processor)
    note, calls = device._note, iter(range(10**9))

    def noted(event: str) -> None:
        note(event)
        if next(calls) == moment:
            raise KeyboardInterrupt

    monkeypatch.setattr(device, "_note", noted)


@pytest.mark.parametrize("moment", range(40, 400, 23))
def test_ctrl_c_at_any_moment_of_a_window_is_made_good(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that were begun count, and one that the interrupt came into does not."""
    monkeypatch.setattr(fitting, "SECONDS", 1e9)
    monkeypatch.setattr(fitting, "STEPS", 4)
    wanted, state = trained(validation=None)
    train, _ = programs()
    options: dict[str, Any] = {"epochs": 3, "batch_size": 8, "seed": 4, "checkpoint": tmp_path / "checkpoint"}
    with monkeypatch.context() as patch:
        interrupted_at(moment, patch)
        with pytest.raises(
            KeyboardInterrupt, match=r"stopped in epoch \d after \d of 7 batches; the same call goes on"
        ):
            mg.fit(train, points(), **options)
    step = int(train.state["optimizer.step"])
    train, _ = programs()
    run = mg.fit(train, points(), **options)
    assert run.resumed_at == step
    assert test_checkpoint.metrics(run.history) == wanted
    test_checkpoint.assert_same(train.state, state)


@pytest.mark.parametrize("moment", range(0, 60, 7))
def test_what_was_put_into_the_state_between_epochs_outlives_ctrl_c(
    moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SECONDS", 1e9)
    train, _ = programs()
    alone, _ = programs()
    name = next(name for name in train.state if name.endswith(".bias"))

    def put(state: mg.State) -> None:
        state[name] = np.full_like(state[name], 0.25)

    def put_and_stop(entry: dict[str, float]) -> None:
        put(train.state)
        interrupted_at(moment, patch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as stopped:
        mg.fit(train, points(), epochs=2, batch_size=8, seed=4, on_epoch=put_and_stop)
    mg.fit(alone, points(), epochs=1, batch_size=8, seed=4)
    put(alone.state)
    found = re.search(r"epoch 2 after (\d) of 7", str(stopped.value))
    assert found
    batches = Batches.of(points(), 8, 4)
    for number in range(int(found[1])):
        alone(**batches.batch(batches.order(1), 1, number))
    test_checkpoint.assert_same(train.state, alone.state)


@pytest.mark.parametrize("steps", [2, 64])
@pytest.mark.parametrize("spoiled", [1, 9, 16])
def test_the_batch_to_blame_is_found_in_a_window(steps: int, spoiled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the state is as it was before it, though the steps behind it were begun."""
    monkeypatch.setattr(fitting, "SECONDS", 1e9)
    monkeypatch.setattr(fitting, "STEPS", steps)
    model = test_fit.logarithm()
    data = {"x": np.random.default_rng(0).uniform(1, 2, (40, 3)).astype("float32")}
    batches = Batches.of(data, 2, seed=3)
    sample = batches.order(0)[2 * spoiled]
    data["x"][sample] = -1
    step = mg.training_step(model, loss="loss", optimizer=mg.optim.SGD(1e-4))
    train, alone = (mg.compile(step, model.init(0), "cupy") for _ in range(2))
    with pytest.raises(NotFinite, match=rf"batch {spoiled + 1} of 20 in epoch 1: log 'log' is the first") as raised:
        mg.fit(train, data, epochs=1, batch_size=2, seed=3)
    assert sample in raised.value.samples
    np.testing.assert_array_equal(raised.value.batch["x"], data["x"][raised.value.samples])
    for number in range(spoiled):
        alone(**batches.batch(batches.order(0), 0, number))
    test_checkpoint.assert_same(train.state, alone.state)


def test_where_the_gpu_has_no_room_the_state_is_kept_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, state = trained(validation=None)

    def full(array: Array) -> Array:
        raise gpu.OutOfMemory(array.nbytes, 0)

    monkeypatch.setattr(Array, "empty", full)
    found, here = trained(validation=None)
    assert found == wanted
    test_checkpoint.assert_same(here, state)


# data that live there


def test_data_go_there_once_in_the_dtypes_of_the_inputs(processor: Processor) -> None:
    train, _ = programs()
    data = points()
    there = train.put(data)
    assert all(isinstance(array, GpuArray) for array in there.values())
    assert {name: str(array.dtype) for name, array in there.items()} == {"x": "uint8", "label": "int64"}
    assert there["label"].limits == (0, 1)
    assert train.put(there)["x"] is there["x"]
    for name in data:
        np.testing.assert_array_equal(there[name], data[name])
    with pytest.raises(mg.GraphError, match=r"input 'x' is uint8\[N, 4\]; got float64"):
        train.put({**data, "x": data["x"] / 2})
    for backend in ("c", "numpy"):
        assert programs(backend)[0].put(data) == data


def test_data_that_take_more_than_half_of_the_memory_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tight = Processor(folder, capacity=1_000_000)
    monkeypatch.setattr(gpu, "device", lambda: tight)
    train, _ = programs()
    data = points(60_000)  # 12 bytes each
    half = tight.free() // 2
    fits = half // 12
    assert all(isinstance(x, GpuArray) for x in train.put({name: x[:fits] for name, x in data.items()}).values())
    assert all(type(x) is np.ndarray for x in train.put({name: x[: fits + 200] for name, x in data.items()}).values())
    tight.events.clear()
    assert mg.fit(train, data, epochs=1, batch_size=1000).steps == 60
    assert tight.events.count("upload") >= 60


@pytest.mark.parametrize(("shape", "dtype"), [((3,), "uint8"), ((4,), "uint8"), ((), "float64"), ((2, 8), "float16")])
def test_rows_are_gathered_as_numpy_picks_them(shape: tuple[int, ...], dtype: str, processor: Processor) -> None:
    rng = np.random.default_rng(0)
    host = rng.integers(0, 200, (50, *shape)).astype(dtype)
    order = rng.permutation(50)
    array, numbers = moved(processor, host), moved(processor, order)
    for start, stop in ((0, 8), (13, 50), (7, 7)):
        rows = Rows(array, numbers, start, stop)
        assert rows.shape == (stop - start, *shape)
        np.testing.assert_array_equal(np.asarray(rows), host[order[start:stop]], strict=True)
    assert np.asarray(Rows(array, numbers, 0, 4), "float32").dtype == np.float32
    net = mg.Builder("same")
    run = mg.compile(net.build(y=mg.reshape(net.input("x", (6, *shape), dtype), (6, *shape))), mg.State(), "cupy")
    processor.events.clear()
    found = run(x=Rows(array, numbers, 11, 17))["y"]
    assert "upload" not in processor.events
    np.testing.assert_array_equal(found, host[order[11:17]])


def test_rows_of_another_device_or_dtype_are_fetched(processor: Processor, folder: Path) -> None:
    other, net = Processor(folder), mg.Builder("twice")
    graph = net.build(y=2 * net.input("x", (3,)))
    host = np.arange(10, dtype="float32")
    for backend, rows in (
        ("cupy", Rows(moved(other, host), moved(other, np.arange(10)), 2, 5)),
        ("cupy", Rows(moved(processor, host.astype("float64")), moved(processor, np.arange(10)), 2, 5)),
        ("numpy", Rows(moved(processor, host), moved(processor, np.arange(10)), 2, 5)),
    ):
        assert mg.compile(graph, mg.State(), backend)(x=rows)["y"].tolist() == [4, 6, 8]


def test_data_on_the_gpu_are_given_to_fit(processor: Processor) -> None:
    wanted, state = trained(validation=None)
    train, _ = programs()
    run = mg.fit(train, train.put(points()), epochs=3, batch_size=8, seed=4)
    assert test_checkpoint.metrics(run.history) == wanted
    test_checkpoint.assert_same(train.state, state)


class Foreign:
    """An array that another library has on the GPU."""

    def __init__(self, array: np.ndarray):
        self.array, self.shape = array, array.shape
        data = (array.ctypes.data, False)
        self.__cuda_array_interface__ = {"shape": array.shape, "typestr": array.dtype.str, "data": data, "version": 3}


def test_data_of_other_libraries_on_the_gpu_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, state = trained()
    given = points()
    foreign, held_out = ({name: Foreign(array) for name, array in data.items()} for data in (given, points(21)))
    train, check = programs()
    options: dict[str, Any] = {"epochs": 3, "batch_size": 8, "seed": 4, "validation": (check, held_out)}
    run = mg.fit(train, foreign, **options)
    assert test_checkpoint.metrics(run.history) == wanted
    test_checkpoint.assert_same(train.state, state)
    assert mg.evaluate(check, foreign) == mg.evaluate(check, given)
    says = r"data 'x' lie on a GPU that has no room for a copy, or on no GPU of the program's"
    with pytest.raises(mg.GraphError, match=says):
        mg.evaluate(programs("numpy")[1], foreign)
    monkeypatch.setattr(gpu, "device", lambda: Processor(folder, capacity=100))
    with pytest.raises(mg.GraphError, match=says):
        mg.fit(programs()[0], foreign, epochs=1)


def test_evaluate_waits_for_nothing_before_the_end(processor: Processor) -> None:
    _, check = programs()
    wanted = mg.evaluate(programs("numpy")[1], points(), 8)
    mg.evaluate(check, points(), 8)
    processor.events.clear()
    assert mg.evaluate(check, points(), 8) == pytest.approx(wanted, abs=1e-5)
    assert processor.events.count("read") == 1
