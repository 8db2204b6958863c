"""The batch-norm doctor: each sickness is found where it is, and in healthy networks none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.tools.doctor import CHANCE, Checkup, Finding, Severity, doctor
from minigraph.tools.norms import score

C = 4  # channels


def one_norm(shape: Any = ("N", C), dtype: str = "float32", relu: bool = False, **options: Any) -> mg.Graph:
    net = mg.Builder("norm")
    y = layers.batch_norm(net.input("x", shape, dtype), name="bn", **options)
    return net.build(y=mg.relu(y) if relu else y)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape or (64, C))


def examine(model: mg.Graph, x: np.ndarray, axis: int = 1, **arrays: Any) -> Checkup:
    """Of one_norm on x, with the running statistics of x unless others are given, by their names behind "bn."."""
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    state = model.init()
    with np.errstate(invalid="ignore"):
        arrays = {"running_mean": x.mean(others), "running_var": x.var(others, ddof=1), **arrays}
    for name, array in arrays.items():
        if f"bn.{name}" in state:
            state[f"bn.{name}"] = np.asarray(array)
    return doctor(model, state, {"x": x})["bn"]


def only(checkup: Checkup) -> Finding:
    assert [finding.kind for finding in checkup.findings] == [checkup.findings[0].kind]
    return checkup.findings[0]


# what is measured


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"), [((32, C), 1), ((32, C, 5, 3), 1), ((32, 5, 3, C), -1), ((C, 32, 5), 0), ((2, C, 9), 1)]
)
def test_measures_are_those_of_numpy(shape: tuple[int, ...], axis: int, frozen: bool) -> None:
    x = 3.0 * normal(*shape) + 2.0
    m = examine(one_norm(shape, "float64", axis=axis, frozen=frozen), x, axis, running_mean=np.ones(C)).measured
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    mean, var = x.mean(others), x.var(others, ddof=1)
    assert (m.mode, m.channels, m.values) == ("frozen" if frozen else "tracked", C, x.size // C)
    assert m.samples == shape[others[0]]
    np.testing.assert_allclose(m.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(m.var, var, rtol=1e-12)
    np.testing.assert_allclose(m.offset, np.abs(mean) / np.sqrt(var), rtol=1e-12)
    np.testing.assert_allclose(m.over_eps, var / 1e-5, rtol=1e-12)
    np.testing.assert_allclose(m.shift, (mean - 1) / np.sqrt(var + 1e-5), rtol=1e-12)
    np.testing.assert_allclose(m.spread, 0, atol=1e-12)
    samples = np.moveaxis(x, axis, -1)
    inner = tuple(range(1, x.ndim - 1))
    error = samples.mean(inner).std(0, ddof=1) / np.sqrt(m.samples)
    np.testing.assert_allclose(m.mean_error, error, rtol=1e-12)


def test_a_healthy_layer_has_no_findings() -> None:
    report = doctor(one_norm(track=False), one_norm(track=False).init(), {"x": normal()})
    assert report.healthy
    assert report["bn"].measured.mode == "untracked"
    assert str(report).splitlines()[4].split()[-1] == "-"
    for seed in range(20):
        for model in (one_norm(), one_norm(relu=True), one_norm(frozen=True)):
            assert examine(model, 2.0 * normal(seed=seed) - 1.0).findings == ()


def test_it_measures_with_dropout_off_and_batch_norm_on() -> None:
    net = mg.Builder()
    h = layers.batch_norm(net.input("x", ("N", C)), name="first", track=False)
    model = net.build(y=layers.batch_norm(layers.dropout(3.0 + h, 0.5), name="second"))
    second = doctor(model, model.init(), {"x": 7.0 * normal()})["second"].measured
    np.testing.assert_allclose(second.mean, 3.0, atol=1e-5)
    np.testing.assert_allclose(second.var, 64 / 63, rtol=1e-3)


def test_the_state_does_not_change_and_slots_need_not_be_there() -> None:
    net = mg.Builder()
    x, label = net.input("x", ("N", C)), net.input("label", ("N",), "int64")
    h = layers.dropout(layers.batch_norm(layers.linear(x, 8)), 0.5)
    model = net.build(loss=mg.cross_entropy(layers.batch_norm(h), label))
    step = mg.training_step(model, "loss", mg.optim.Adam("rate"))
    state = model.init()
    before = dict(state)
    found = doctor(step, state, {"x": normal()})  # neither the label nor the rate
    assert [checkup.name for checkup in found.checkups] == ["bn1", "bn2"]
    whole = doctor(model, state, {"x": normal(), "label": np.zeros(64, int)})
    for name in ("bn1", "bn2"):
        np.testing.assert_allclose(whole[name].measured.var, found[name].measured.var, rtol=1e-5)
        assert whole[name].findings == found[name].findings
    assert list(state) == list(before)
    assert all(state[name] is before[name] for name in before)


# sicknesses


def test_a_large_offset() -> None:
    x = normal() + np.array([0.0, 1000.0, -5000.0, 3.0])
    found = only(examine(one_norm(), x))
    assert (found.kind, found.severity, found.channels) == ("offset", Severity.WARNING, (1, 2))
    assert "5." in found.what
    assert "bias=False" in found.advice


def test_an_offset_that_rounding_cannot_bear_is_serious() -> None:
    x = normal() + np.array([0.0, 1e6, 0.0, 0.0])
    found = only(examine(one_norm(), x))
    assert (found.severity, found.channels) == (Severity.SERIOUS, (1,))
    assert "rounding alone" in found.what
    assert only(examine(one_norm(dtype="float16"), normal() + np.array([0, 50, 0, 0]))).severity == Severity.SERIOUS
    assert only(examine(one_norm(dtype="float64"), x)).severity == Severity.WARNING


def test_a_variance_near_eps_is_damped() -> None:
    x = normal() * np.array([1.0, 1e-3, 1.0, 6e-3])
    found = only(examine(one_norm(), x))
    assert (found.kind, found.channels) == ("damped", (1, 3))
    assert "lower eps" in found.advice
    assert examine(one_norm(eps=1e-9), x).findings == ()
    # what a frozen layer divides by is the running variance
    assert only(examine(one_norm(frozen=True, eps=1e-2), normal() * 0.2, running_var=np.full(C, 0.04))).channels == (
        0, 1, 2, 3,
    )  # fmt: skip


@pytest.mark.parametrize("value", [0.0, 0.1, -3e4])
def test_a_constant_channel(value: float) -> None:
    x = normal(64, C, 3)
    x[:, 2] = value
    found = only(examine(one_norm(("N", C, 3)), x))
    assert (found.kind, found.severity, found.channels) == ("constant", Severity.WARNING, (2,))
    assert "prune" in found.advice
    assert only(examine(one_norm(("N", C, 3), eps=0.0), x)).severity == Severity.SERIOUS


def test_dead_gammas() -> None:
    gamma = np.array([1.0, -0.7, 1e-5, 0.0])
    found = only(examine(one_norm(), normal(), gamma=gamma))
    assert (found.kind, found.channels) == ("dead gamma", (2, 3))
    assert "relu" not in found.what
    assert examine(one_norm(), normal(), gamma=-np.ones(C)).findings == ()
    assert examine(one_norm(), normal(), gamma=np.full(C, 1e-9)).findings == ()  # the next layer can make up for it


def test_a_dead_gamma_with_a_relu_behind_never_comes_back() -> None:
    gamma, beta = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.0, -1.0, 0.5, -0.5])
    found = only(examine(one_norm(relu=True), normal(), gamma=gamma, beta=beta))
    assert found.channels == (2, 3)
    assert "makes 0 of 1 of them for good" in found.what


def test_gammas_that_are_all_0_are_a_note_unless_a_relu_closes_the_layer() -> None:
    assert only(examine(one_norm(), normal(), gamma=np.zeros(C))).severity == Severity.NOTE
    found = only(examine(one_norm(relu=True), normal(), gamma=np.zeros(C)))
    assert found.severity == Severity.SERIOUS


def test_a_relu_that_is_not_all_that_reads_does_not_cut() -> None:
    net = mg.Builder()
    y = layers.batch_norm(net.input("x", ("N", C)), name="bn")
    model = net.build(y=mg.relu(y) + y)
    assert only(examine(model, normal(), gamma=np.zeros(C))).severity == Severity.NOTE


def test_a_shifted_running_mean_and_a_wrong_running_variance() -> None:
    x = normal()
    mean, var = x.mean(0), x.var(0, ddof=1)
    found = only(examine(one_norm(), x, running_mean=mean + np.array([0.0, 5.0, 0.0, 0.0])))
    assert (found.kind, found.severity, found.channels) == ("gap", Severity.SERIOUS, (1,))
    assert "up to 5.5 deviations away" in found.what  # 5 / the deviation of channel 1, 0.91
    assert "variance" not in found.what
    assert "precise_bn" in found.advice
    found = only(examine(one_norm(), x, running_var=var * np.array([3.5, 1.0, 1 / 3.5, 1.0])))
    assert (found.kind, found.severity, found.channels) == ("gap", Severity.WARNING, (0, 2))
    found = only(examine(one_norm(frozen=True), x, running_mean=mean + 5.0))
    assert found.kind == "gap"
    assert "frozen=False" in found.advice


def test_a_gap_that_does_not_matter_is_none_however_certain() -> None:
    x = normal(100_000, C)
    checkup = examine(one_norm(), x, running_mean=x.mean(0) + 0.1)
    assert checkup.findings == ()


@pytest.mark.parametrize("shape", [(8, 64), (16, 64), (64, 64), (8, 64, 4, 4)])
def test_chance_alone_makes_no_gap(shape: tuple[int, ...]) -> None:
    """True statistics against those of a batch, over 20 * 64 channels. In images the pixels go together."""
    model = one_norm(("N", *shape[1:]))
    worst = 0.0
    for seed in range(20):
        x = normal(*shape, seed=seed)
        if len(shape) > 2:
            x = 0.5**0.5 * (x + normal(*shape[:2], 1, 1, seed=seed + 100))
        checkup = examine(model, x, running_mean=np.zeros(64), running_var=np.full(64, 1 + 1e-6))
        assert "gap" not in [finding.kind for finding in checkup.findings]
        worst = max(worst, float(np.abs(checkup.measured.shift).max()))
    assert worst > 5 / np.sqrt(np.prod(shape) / 64) or len(shape) == 2  # counted as independent, pixels would alarm


@pytest.mark.parametrize(
    ("skewed", "mean", "var"),
    [
        (lambda z: z**3, 0.0, 15.0),
        (lambda z: np.exp(z), np.exp(0.5), (np.e - 1) * np.e),
        (lambda z: np.maximum(z - 1, 0.0), 0.08332, 0.06842),
    ],
)
def test_chance_alone_makes_hardly_any_gap_where_large_numbers_are_rare(skewed: Any, mean: float, var: float) -> None:
    """A batch without one looks more certain than it is."""
    alarms = 0
    for seed in range(20):
        x = skewed(normal(32, 64, seed=seed))
        found = examine(one_norm(("N", 64)), x, running_mean=np.full(64, mean), running_var=np.full(64, var)).findings
        alarms += sum(len(finding.channels) for finding in found if finding.kind == "gap")
    assert alarms <= 3


def test_of_one_sample_no_gap_is_claimed() -> None:
    checkup = examine(one_norm(("N", C, 9)), normal(1, C, 9), running_mean=np.full(C, 3.0))
    assert [finding.kind for finding in checkup.findings] == ["few values"]


def test_few_values() -> None:
    found = only(examine(one_norm(), normal(8, C)))
    assert (found.kind, found.severity) == ("few values", Severity.WARNING)
    assert "8 values" in found.what
    assert "uncertain by 35% of a deviation and the variance by 50%" in found.what
    assert "frozen=True" in found.advice
    assert examine(one_norm(("N", C, 2)), normal(8, C, 2)).findings == ()
    assert examine(one_norm(frozen=True), normal(8, C)).findings == ()


@pytest.mark.parametrize(("frozen", "advice"), [(False, "precise_bn"), (True, "load the statistics")])
def test_running_statistics_that_were_never_updated(frozen: bool, advice: str) -> None:
    model = one_norm(frozen=frozen)
    found = only(examine(model, 5.0 + normal(), running_mean=np.zeros(C), running_var=np.ones(C)))
    assert (found.kind, found.severity) == ("never updated", Severity.SERIOUS)
    assert advice in found.advice


@pytest.mark.parametrize(
    ("arrays", "advice"),
    [
        ({"running_var": [1.0, np.nan, 1.0, 1.0]}, "precise_bn"),
        ({"running_var": [1.0, -1.0, 1.0, 1.0]}, "precise_bn"),
        ({"gamma": [1.0, np.inf, 1.0, 1.0]}, "first_not_finite"),
    ],
)
def test_not_finite_state(arrays: dict[str, Any], advice: str) -> None:
    found = only(examine(one_norm(), normal(), **arrays))
    assert (found.kind, found.severity, found.channels) == ("not finite", Severity.SERIOUS, (1,))
    assert advice in found.advice


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_data(value: float) -> None:
    x = normal()
    x[3, 2] = value
    checkup = examine(one_norm(), x, running_mean=x[4:].mean(0), running_var=x[4:].var(0))
    assert only(checkup).channels == (2,)
    assert "mean and variance not finite" in only(checkup).what


def test_a_training_step_that_dropped_a_bias_has_the_gap_of_its_model() -> None:
    net = mg.Builder()
    y = layers.batch_norm(layers.linear(net.input("x", ("N", C)), C), name="bn")
    model = net.build(loss=mg.mean(mg.square(y - 1.0)))
    step = mg.training_step(model, "loss", mg.optim.SGD(0.1))
    state = model.init()
    state["linear1.bias"] = np.array([0.0, 5.0, 0.0, 0.0], "float32")
    mg.precise_bn(model, state, [{"x": normal(256, C)}])
    assert doctor(step, state, {"x": normal(64, C, seed=1)}).healthy
    state["bn.running_mean"] = state["bn.running_mean"] - state["linear1.bias"]
    for graph in (model, step):
        assert only(doctor(graph, state, {"x": normal(64, C, seed=1)})["bn"]).channels == (1,)


# errors


def test_a_graph_without_batch_norm_is_an_error() -> None:
    net = mg.Builder("plain")
    model = net.build(y=layers.linear(net.input("x", ("N", 3)), 2))
    with pytest.raises(mg.GraphError, match="'plain' has no batch norm; those that were folded"):
        doctor(model, model.init(), {"x": normal(4, 3)})


def test_inputs_are_checked() -> None:
    model = one_norm()
    with pytest.raises(mg.GraphError, match="'x' is missing"):
        doctor(model, model.init(), {})
    with pytest.raises(mg.GraphError, match="'z' is not one of them"):
        doctor(model, model.init(), {"x": normal(), "z": normal()})
    with pytest.raises(mg.GraphError, match="the batch is empty"):
        doctor(model, model.init(), {"x": normal(0, C)})
    with pytest.raises(mg.GraphError, match=r"the batch is a dict .*, not a ndarray"):
        doctor(model, model.init(), normal())  # type: ignore[arg-type]
    with pytest.raises(mg.GraphError, match="needs a Graph"):
        doctor("model", model.init(), {})  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="no batch norm 'bn2'; there are bn"):
        doctor(model, model.init(), {"x": normal()})["bn2"]


# reports


def test_the_report_is_a_table_and_findings_with_the_most_serious_first() -> None:
    net = mg.Builder("two")
    x = net.input("x", ("N", C))
    h = mg.relu(layers.batch_norm(x, name="first"))
    model = net.build(y=layers.batch_norm(h, name="second"))
    state = model.init()
    state["first.running_mean"], state["first.running_var"] = normal(8, C).mean(0), normal(8, C).var(0, ddof=1)
    text = str(doctor(model, state, {"x": normal(8, C)}))
    lines = text.splitlines()
    assert lines[0] == "two: 2 batch norms, 3 findings"
    assert lines[2].split() == [
        "batch",
        "norm",
        "mode",
        "channels",
        "values",
        "|mean|/dev",
        "var/eps",
        "dead",
        "gammas",
        "gap",
    ]
    assert lines[4].split()[:4] == ["first", "tracked", "4", "8"]
    assert lines[5].split()[:4] == ["second", "tracked", "4", "8"]
    assert lines[7] == "second"
    assert lines[8].startswith("  serious, never updated: all channels: ")
    assert [line for line in lines if line and not line.startswith(" ")][-2:] == ["second", "first"]
    assert max(map(len, lines)) <= 110


def test_names_of_channels_are_cut_short() -> None:
    x = normal(64, 40)
    x[:, ::2] = 0.0
    found = only(examine(one_norm(("N", 40)), x))
    assert len(found.channels) == 20
    assert found.what.startswith("channels 0, 2, 4, 6, 8, 10, ... (20 of 40): ")


def test_a_shared_batch_norm_and_one_by_hand_have_names() -> None:
    net = mg.Builder()
    x = net.input("x", ("N", C))
    for tensor in (x, 2.0 * x):
        with net.scope("both", share=True):
            layers.batch_norm(tensor, name="bn")
            y = layers.batch_norm(tensor, name="bn")
    y, _, _ = mg.batch_norm(y, net.constant(np.ones(C, "float32")), net.constant(np.zeros(C, "float32")))
    model = net.build(y=y)
    names = [checkup.name for checkup in doctor(model, model.init(), {"x": normal()}).checkups]
    assert len(set(names)) == len(names)
    assert names[0].startswith("both.bn")
    assert names[-1] == "batch_norm"


# a whole story


def small_cnn() -> mg.Graph:
    net = mg.Builder("cnn")
    image, label = net.input("image", ("N", 1, 8, 8)), net.input("label", ("N",), "int64")
    h = image
    for channels in (4, 8):
        h = layers.conv2d(h, channels, 3, padding="same", bias=False)
        h = mg.relu(layers.batch_norm(h, momentum=0.01))
    logits = layers.linear(mg.global_avg_pool(h), 3)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def test_running_statistics_that_lag_behind_are_found_and_healed() -> None:
    model = small_cnn()
    step = mg.training_step(model, "loss", mg.optim.Adam(1e-2))
    state = model.init(0)
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 192)
    image = rng.normal(size=(192, 1, 8, 8)) + 0.5 * label.reshape(-1, 1, 1, 1)
    batches = [{"image": image[i : i + 32], "label": label[i : i + 32]} for i in range(0, 160, 32)]
    held_out = {"image": image[160:], "label": label[160:]}
    assert {f.kind for c in doctor(step, state, held_out).checkups for f in c.findings} == {"never updated"}
    train = mg.compile(step, state)
    for batch in batches:
        train(**batch)
    sick = doctor(step, state, held_out)
    assert [only(checkup).kind for checkup in sick.checkups] == ["gap", "gap"]
    loss = mg.compile(mg.inference(model, ["loss"]), state)
    before = loss(**held_out)["loss"]
    mg.precise_bn(model, state, batches)
    assert doctor(step, state, held_out).healthy
    assert doctor(mg.inference(model), state, held_out).healthy
    assert loss(**held_out)["loss"] < before


def test_dropout_in_front_is_found_and_healed() -> None:
    """Trained statistics have dropout's variance in them, which inference does not see."""
    net = mg.Builder()
    model = net.build(y=layers.batch_norm(layers.dropout(net.input("x", ("N", C)), 0.5), momentum=None, name="bn"))
    state = model.init()
    train = mg.compile(model, state)
    x = 1.0 + 0.2 * normal(512, C)
    for _ in range(20):
        train(x=x)
    sick = only(doctor(model, state, {"x": x})["bn"])
    assert (sick.kind, sick.severity) == ("gap", Severity.SERIOUS)
    mg.precise_bn(model, state, [{"x": x}])
    assert doctor(model, state, {"x": x}).healthy


def test_the_score_is_normal_for_any_number_of_samples() -> None:
    """Student's t, whose tails are wide, comes out as a normal deviation: 3 of them are met as often, or less."""
    rng = np.random.default_rng(0)
    for samples, least in ((2, 0.0), (4, 0.0020), (32, 0.0024)):
        x = rng.normal(size=(samples, 200_000))
        found = score(x.mean(0), x.std(0, ddof=1) / np.sqrt(samples), samples)
        assert least < (found > 3).mean() < 0.0030
    assert score(np.ones(3), np.ones(3), 1).tolist() == [0, 0, 0]
    assert CHANCE > 4
