"""fit and evaluate: what a history says, the order of samples, when training stops, and what its errors say."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.tools.data import Batches
from minigraph.tools.fit import NotFinite

N = 50


def points(n: int = N, seed: int = 3) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    return {"x": x, "label": (x.sum(1) > 0).astype(np.int64)}


def classifier(norm: bool = False) -> mg.Graph:
    net = mg.Builder("classifier")
    x, label = net.input("x", ("N", 4)), net.input("label", ("N",), "int64")
    h = layers.linear(x, 8)
    h = mg.relu(layers.batch_norm(h) if norm else h)
    logits = layers.linear(h, 2)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def programs(rate: float = 1e-2, norm: bool = False, **options: Any) -> tuple[mg.Program, mg.Program]:
    model = classifier(norm)
    state = model.init(0)
    train = mg.compile(mg.training_step(model, loss="loss", optimizer=mg.optim.Adam(rate), **options), state)
    return train, mg.compile(mg.inference(model, ["loss", "accuracy"]), state)


# histories


def test_metrics_are_means_over_samples_short_last_batch_included():
    train, check = programs(rate=0.0)  # the weights stay, so all batches together say what one batch of all says
    run = mg.fit(train, points(), epochs=2, batch_size=16, validation=(check, points(30, seed=4)))
    whole, other = check(**points()), check(**points(30, seed=4))
    assert [entry["epoch"] for entry in run.history] == [1, 2]
    assert list(run.history[0]) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    for entry in run.history:
        # each loss is a float32 mean of up to 50 terms near 1: its rounding is below 50 x 6e-8
        assert entry["loss"] == pytest.approx(float(whole["loss"]), abs=3e-6)
        assert entry["accuracy"] == pytest.approx(float(whole["accuracy"]), abs=1e-6)
        assert entry["val_loss"] == pytest.approx(float(other["loss"]), abs=3e-6)
        assert entry["seconds"] > 0
    assert (run.steps, run.resumed_at, run.best) == (8, 0, None)


def test_training_learns_and_changes_the_state_of_its_program():
    train, check = programs()
    before = mg.evaluate(check, points())
    run = mg.fit(train, points(), epochs=20, batch_size=16)
    after = mg.evaluate(check, points())
    assert after["loss"] < 0.5 * before["loss"]
    assert run.history[-1]["loss"] < run.history[0]["loss"]


def test_evaluate_does_not_depend_on_the_batch_size_but_for_rounding():
    _, check = programs()
    one = mg.evaluate(check, points(), batch_size=N)
    for size in (1, 7, 49, 1000):
        found = mg.evaluate(check, points(), batch_size=size)
        assert found["accuracy"] == pytest.approx(one["accuracy"], abs=1e-6)
        assert found["loss"] == pytest.approx(one["loss"], abs=3e-6)  # as above


def test_evaluate_refuses_a_program_that_trains_and_one_without_scalars():
    train, check = programs()
    with pytest.raises(mg.GraphError, match=r"changes its state at each call.*inference"):
        mg.evaluate(train, points())
    logits = mg.compile(mg.inference(classifier(), ["logits"]), check.state)
    with pytest.raises(mg.GraphError, match="none of the outputs logits is a scalar"):
        mg.evaluate(logits, {"x": points()["x"]})


def test_accumulation_makes_one_step_of_the_optimizer_from_several_batches():
    train, _ = programs(accumulate=4)
    run = mg.fit(train, points(), epochs=2, batch_size=8)  # 7 batches an epoch
    assert run.steps == 14
    assert train.state["optimizer.step"] == 3


# batches


def order_of(seed: int, epochs: int, **options: Any) -> list[list[int]]:
    """The first coordinates of the samples in the order in which fit gives them to the program, epoch by epoch."""
    train, _ = programs()
    x = np.zeros((N, 4), np.float32)
    x[:, 0] = np.arange(N)
    data = {"x": x, "label": np.zeros(N, np.int64)}
    seen: list[int] = []

    def watch(batch, rng):
        seen.extend(batch["x"][:, 0].astype(int))
        return batch

    mg.fit(train, data, epochs=epochs, batch_size=16, seed=seed, augment=watch, **options)
    size = len(seen) // epochs
    return [seen[i * size : (i + 1) * size] for i in range(epochs)]


def test_the_order_of_an_epoch_follows_from_seed_and_epoch_alone():
    first, second, third = order_of(seed=1, epochs=3)
    assert sorted(first) == sorted(second) == list(range(N))
    assert first != second
    assert order_of(seed=2, epochs=1) != [first]
    assert Batches.of(points(), 7, seed=1).order(2).tolist() == third  # whatever ran before, and in other batches


def test_augmentation_draws_from_a_generator_of_its_batch():
    drawn: dict[tuple[int, int], float] = {}
    for epoch in (1, 0):
        for number in (2, 0, 1):
            batches = Batches.of(points(), 20, seed=9, augment=lambda b, rng: {"drawn": rng.random(1), **b})
            drawn[epoch, number] = batches.batch(batches.order(epoch), epoch, number)["drawn"][0]
    assert len(set(drawn.values())) == 6
    again = Batches.of(points(), 20, seed=9, augment=lambda b, rng: {"drawn": rng.random(1), **b})
    assert again.batch(again.order(0), 0, 1)["drawn"][0] == drawn[0, 1]


def test_augmentation_gets_copies():
    data = points()
    before = data["x"].copy()

    def spoil(batch, rng):
        batch["x"] *= 0
        return batch

    mg.fit(programs()[0], data, epochs=1, augment=spoil)
    np.testing.assert_array_equal(data["x"], before)


def test_drop_last_leaves_out_the_short_batch():
    (seen,) = order_of(seed=1, epochs=1, drop_last=True)
    assert len(seen) == len(set(seen)) == 48


def test_a_last_batch_that_batch_norm_refuses_is_known_before_the_first_epoch():
    train, _ = programs(norm=True)
    before = train.state.copy()
    with pytest.raises(
        mg.GraphError, match=r"one number for each channel(.|\n)*Of 49 samples .* last batch has 1: drop_last"
    ):
        mg.fit(train, points(49), epochs=1, batch_size=16)
    assert all(train.state[name] is before[name] for name in before)
    assert mg.fit(train, points(49), epochs=1, batch_size=16, drop_last=True).steps == 3


@pytest.mark.parametrize(
    ("data", "options", "sentence"),
    [
        ({}, {}, "there is no data"),
        ({"x": np.zeros((3, 4)), "label": np.zeros(4)}, {}, "x has 3, label has 4"),
        ({"x": np.float32(1)}, {}, "'x' is one number"),
        (points(0), {}, "0 samples make no batch"),
        (points(5), {"batch_size": 8, "drop_last": True}, "5 samples make no batch of 8 with drop_last=True"),
        (points(), {"batch_size": 0}, "batch_size is a number of 1 or more"),
        (points(), {"seed": -1}, "seed is a number of 0 or more"),
        (points(), {"checkpoint_every": 5}, "needs checkpoint=FILE"),
        (points(), {"patience": 2}, "need best="),
        (points(), {"best": ("loss", "min"), "patience": 0}, "patience is a number of 1 or more"),
        (points(), {"best": ("val_loss", "min")}, "no metric 'val_loss'; there are loss, accuracy$"),
        (points(), {"best": ("loss", "least")}, '"min" or "max"'),
        ({"y": np.zeros((3, 4))}, {}, "'x' is missing; 'label' is missing; 'y' is not one of them"),
    ],
)
def test_what_does_not_fit_is_said(data, options, sentence):
    train, _ = programs()
    with pytest.raises(mg.GraphError, match=sentence):
        mg.fit(train, data, epochs=1, **options)


def test_validation_must_work_and_share_the_state_before_training_begins():
    train, check = programs()
    before = train.state.copy()
    for validation, sentence in [
        ((programs()[1], points()), "another state"),
        ((train, points()), "changes its state"),
        ((check, {"x": points()["x"]}), "'label' is missing"),
        ((check, {**points(), "x": np.zeros((N, 5), np.float32)}), r"input 'x' is float32\[N, 4\]"),
    ]:
        with pytest.raises(mg.GraphError, match=sentence):
            mg.fit(train, points(), epochs=1, validation=validation)
    assert all(train.state[name] is before[name] for name in before)


# the best epoch, and when to stop


@pytest.mark.parametrize(("metric", "mode"), [("val_loss", "min"), ("val_accuracy", "max"), ("loss", "max")])
def test_the_best_epoch_is_kept_in_its_file(tmp_path, metric, mode):
    train, check = programs(rate=0.3)  # so large that the loss goes up and down
    after: list[mg.State] = []
    run = mg.fit(
        train,
        points(),
        epochs=8,
        batch_size=16,
        validation=(check, points(30, seed=4)),
        best=(metric, mode),
        best_file=tmp_path / "best.safetensors",
        on_epoch=lambda entry: after.append(train.state.copy()),
    )
    values = [entry[metric] for entry in run.history]
    wanted = min(values) if mode == "min" else max(values)
    assert run.best is not None
    assert (run.best.value, run.best.epoch) == (wanted, values.index(wanted) + 1)
    assert run.best.file is not None
    train.state.load(run.best.file, strict=False)
    kept = mg.State.read(run.best.file)
    assert set(kept) == set(train.state)
    for name, array in after[run.best.epoch - 1].items():
        np.testing.assert_array_equal(kept[name], array, strict=True)


def test_patience_stops_when_nothing_gets_better(tmp_path):
    train, check = programs(rate=0.0)
    options: dict[str, Any] = {
        "validation": (check, points()),
        "best": ("val_loss", "min"),
        "checkpoint": tmp_path / "checkpoint.safetensors",
    }
    run = mg.fit(train, points(), epochs=50, patience=3, **options)
    assert len(run.history) == 4  # the first, which is the best, and three that are not
    assert run.best is not None
    assert run.best.epoch == 1
    assert len(mg.fit(train, points(), epochs=50, patience=3, **options).history) == 4  # it stays stopped
    assert len(mg.fit(train, points(), epochs=50, patience=5, **options).history) == 6


# what goes wrong on the way


def logarithm() -> mg.Graph:
    net = mg.Builder("logarithm")
    x = net.input("x", ("N", 3))
    h = layers.linear(x, 3, weight_init=mg.init.constant(1.0))
    return net.build(loss=mg.mean(mg.log(h)))  # the line that the report names


def line_of(text: str) -> int:
    return next(n for n, line in enumerate(Path(__file__).read_text(encoding="utf-8").splitlines(), 1) if text in line)


def test_a_loss_that_is_not_finite_names_the_batch_the_node_and_the_line(tmp_path):
    model = logarithm()
    state = model.init(0)
    train = mg.compile(mg.training_step(model, loss="loss", optimizer=mg.optim.SGD(1e-4)), state)
    x = np.ones((40, 3), np.float32)
    x[11] = -1
    after: list[mg.State] = []

    def watch(batch, rng):
        after.append(state.copy())
        return batch

    with pytest.raises(NotFinite) as raised:
        mg.fit(train, {"x": x}, epochs=3, batch_size=8, seed=2, augment=watch, checkpoint=tmp_path / "checkpoint")
    number = Batches.of({"x": x}, 8, seed=2).order(0).tolist().index(11) // 8
    assert number > 0
    message = str(raised.value)
    assert "loss is nan" in message
    assert f"batch {number + 1} of 5 in epoch 1: log 'log' is the first value with 3 NaN of 24 numbers" in message
    assert f"{__file__}:{line_of('# the line that the report names')}" in message
    assert 11 in raised.value.samples
    np.testing.assert_array_equal(raised.value.batch["x"], x[raised.value.samples])
    assert_same(state, after[-1])  # as before that batch


def test_gradients_that_spoil_the_weights_are_found_one_step_later():
    """sqrt at 0 is 0, and its gradient is infinite: the loss of that batch is fine, and the next one's is not."""
    net = mg.Builder("root")
    x = net.input("x", ("N",))
    scale = net.parameter("scale", (), mg.init.constant(1.0))
    model = net.build(loss=mg.mean(mg.sqrt(x * scale)))  # the root that is the cause
    state = model.init(0)
    train = mg.compile(mg.training_step(model, loss="loss", optimizer=mg.optim.SGD(1e-3)), state)
    data = np.ones(12, np.float32)
    data[5] = 0
    batches = Batches.of({"x": data}, 3, seed=1)
    number = batches.order(0).tolist().index(5) // 3
    assert number < 3
    with pytest.raises(NotFinite) as raised:
        mg.fit(train, {"x": data}, epochs=1, batch_size=3, seed=1)
    message = str(raised.value)
    assert re.search(
        rf"loss is nan\. It began with batch {number + 1} of 4 in epoch 1: .*\(backward of sqrt\)", message
    )
    assert f"{__file__}:{line_of('# the root that is the cause')}" in message
    assert 5 in raised.value.samples
    assert np.isfinite(state["scale"])  # as before the batch that spoiled it


def test_a_spoiled_state_is_never_written(tmp_path):
    net = mg.Builder("root")
    x = net.input("x", ("N",))
    scale = net.parameter("scale", (), mg.init.constant(1.0))
    model = net.build(loss=mg.mean(mg.sqrt(x * scale)))
    train = mg.compile(mg.training_step(model, loss="loss", optimizer=mg.optim.SGD(1e-3)), model.init(0))
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(NotFinite, match=r"state scale became NaN or infinite\. It began with batch 1 of 1 in epoch 1"):
        mg.fit(train, {"x": np.zeros(3, np.float32)}, epochs=1, best=("loss", "min"), best_file=path, checkpoint=path)
    assert not path.exists()


def test_an_error_in_a_step_leaves_the_state_of_the_step_before():
    train, _ = programs()
    data = points()
    data["label"][17] = 2  # there are classes 0 and 1
    with pytest.raises(mg.GraphError, match=r"label 2 at .* is outside of 0 to 1"):
        mg.fit(train, data, epochs=1, batch_size=8, seed=0)
    number = Batches.of(data, 8, seed=0).order(0).tolist().index(17) // 8
    assert train.state["optimizer.step"] == number


def assert_same(a: mg.State, b: mg.State) -> None:
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name, strict=True)


# what fit keeps of a state, to go back to


@pytest.mark.compiler
def test_the_state_stays_where_it_lies():
    """What fit keeps are copies, so that each step of a program in C goes on in the same arrays."""
    model = classifier(norm=True)
    train = mg.compile(mg.training_step(model, loss="loss", optimizer=mg.optim.Adam(1e-2)), model.init(0), "c")
    places: list[list[int]] = []

    def watch(batch, rng):
        places.append([train.state[name].ctypes.data for name in train.state])
        return batch

    mg.fit(train, points(), epochs=2, batch_size=16, drop_last=True, augment=watch)
    assert len(places) == 6
    assert places == places[:1] * 6


def test_what_is_put_into_the_state_between_epochs_is_kept_too():
    train, _ = programs()
    alone, _ = programs()
    calls = iter(range(100))

    def stop(batch, rng):
        if next(calls) == 6:
            raise KeyboardInterrupt
        return batch

    def put(entry):
        train.state["mine"] = np.full(2, 7.0)
        train.state["linear1.bias"] = np.zeros(8)

    def put_alone(entry):
        alone.state["linear1.bias"] = np.zeros(8)

    with pytest.raises(KeyboardInterrupt, match="stopped in epoch 2 after 2 of 4 batches"):
        mg.fit(train, points(), epochs=2, batch_size=16, augment=stop, on_epoch=put)
    mg.fit(alone, points(), epochs=1, batch_size=16, on_epoch=put_alone)
    batches = Batches.of(points(), 16, 0)
    for number in (0, 1):
        alone(**batches.batch(batches.order(1), 1, number))
    assert train.state["mine"].tolist() == [7, 7]
    del train.state["mine"]
    assert_same(train.state, alone.state)


# the bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_shows_metrics_speed_and_time_left_on_a_terminal_only(monkeypatch):
    for stream, progress, wanted in [
        (Terminal(), True, True),
        (Terminal(), False, False),
        (io.StringIO(), True, False),
    ]:
        monkeypatch.setattr("sys.stderr", stream)
        mg.fit(programs()[0], points(), epochs=2, batch_size=16, progress=progress)
        shown = stream.getvalue()
        assert bool(shown) == wanted
        if wanted:
            for part in ("epoch 1/2", "epoch 2/2", "50/50", "samples/s", "loss=0.", "accuracy=0.", "<00:00"):
                assert part in shown
