"""python -m benchmarks: what others are told of a network, how runs are measured, and what is reported."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers as nn
from minigraph.core.initial import Constant

sys.path.append(str(Path(__file__).parent.parent))
told, networks, numbers, command = (  # not for the type checker, which knows examples.networks as networks
    import_module(f"benchmarks.{name}") for name in ("layers", "networks", "numbers", "__main__")
)
also, contenders, files, load, one, ours, race, report, task, workloads = (
    import_module(f"benchmarks.on_cpu.{name}")
    for name in ("also", "contenders", "files", "load", "one", "ours", "race", "report", "task", "workloads")
)
examples = import_module("examples.networks")

SMALL: dict[str, Callable[[], mg.Graph]] = {
    "mlp": partial(networks.mlp_bn, (9, 7), mg.sigmoid),
    "lenet": partial(networks.lenet_bn, (3, 5), 7, 11),
    "resnet20": partial(examples.resnet20, width=2, size=8),
    "densenet": partial(examples.densenet_bc, 10, 4, 10, 8),
    "unet": partial(networks.unet_of_any_size, 11, 6, 2, 2),
    "mobilenet": partial(examples.mobilenet_v2, 10, 32, 0.125, 0.0),
    "cnn1d": partial(examples.cnn1d, length=9, widths=(2, 3, 2)),
}


# what others are told


def rebuilt(layers: Sequence[dict[str, Any]], weights: mg.State, image: mg.Graph) -> mg.Graph:
    """The network for answers, of nothing but what others are told of it."""
    net = mg.Builder("rebuilt")
    values = {value.name: net.input(value.name, value.type.shape) for value in image.inputs}
    find = lambda name: net.parameter(name, weights[name].shape, Constant(0.0))
    for layer in layers:
        x, *others = (values[name] for name in layer["x"])
        kind = layer["kind"]
        settings = {name: given for name, given in layer.items() if name not in NAMES}
        if kind in ("conv", "conv_transpose"):
            y = getattr(mg, kind)(x, find(layer["weight"]), **settings)
            y = y if layer["bias"] is None else y + mg.reshape(find(layer["bias"]), (-1, *[1] * (y.rank - 2)))
        elif kind == "linear":
            y = x @ mg.transpose(find(layer["weight"]))
            y = y if layer["bias"] is None else y + find(layer["bias"])
        elif kind == "batch_norm":
            four = [find(layer[name]) for name in ("gamma", "beta", "running_mean", "running_var")]
            y = mg.batch_norm_inference(x, *four, axis=1, eps=layer["eps"])
        elif kind == "concat":
            y = mg.concat([x, *others], axis=layer["axis"])
        elif kind == "slice":
            y = x[tuple(map(slice, layer["start"], layer["stop"], layer["step"]))]
        else:
            y = getattr(mg, kind)(x, *others, **settings)
        values[layer["y"]] = y
    return net.build(logits=y)


NAMES = ("x", "y", "kind", "weight", "bias")


@pytest.mark.parametrize("name", SMALL)
def test_what_others_are_told_is_the_network(name: str) -> None:
    model, batch = SMALL[name](), 3
    state = numbers.random_statistics(model)
    layers = json.loads(json.dumps(told.layers_of(model, batch)))
    graph = mg.inference(model, ["logits"])
    x = workloads.Workload(name, name, SMALL[name], batch).data()["image"][0]
    answer = lambda graph: mg.compile(graph, state.copy(), "numpy")(**{graph.inputs[0].name: x})["logits"]
    assert numbers.distance(answer(rebuilt(layers, state, graph.bind(N=batch))), answer(graph)) < 1e-6


def test_what_has_no_layer_is_refused() -> None:
    def model(activation: Callable[[mg.Tensor], mg.Tensor], **loss: Any) -> mg.Graph:
        net = mg.Builder("small")
        x, label = net.input("x", ("N", 3)), net.input("label", ("N",), "int64")
        logits = nn.linear(activation(x), 2)
        return net.build(logits=logits, loss=mg.cross_entropy(logits, label, **loss))

    assert [layer["kind"] for layer in told.layers_of(model(mg.relu), 2)] == ["relu", "linear"]
    with pytest.raises(mg.GraphError, match="tanh is no layer"):
        told.layers_of(model(mg.tanh), 2)
    with pytest.raises(mg.GraphError, match="a mean cross entropy"):
        told.layers_of(model(mg.relu, label_smoothing=0.1), 2)


def test_others_can_be_told_of_all_workloads() -> None:
    every = workloads.LISTS["all"]
    assert len({workload.key for workload in every}) == len({workload.name for workload in every}) == len(every)
    for workload in every:
        layers = told.layers_of(workload.make(), workload.batch)
        weights = {layer[name] for layer in layers for name in ("weight", "bias", "gamma") if layer.get(name)}
        assert len(weights) == len(
            [v for v in workload.make().state if not v.value.name.endswith((".beta", "_mean", "_var"))]
        )


# how runs are measured


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, optimizer: Any = None) -> Any:
    """A small workload, as files."""
    workload = workloads.Workload("small", "small", SMALL["mlp"], 5, optimizer)
    monkeypatch.setitem(workloads.LISTS, "all", (workload,))
    files.write(workload, folder)
    return workload


def job(folder: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {"threads": 1, "cores": [0], "seconds": 0.01, "steps": 3, "windows": 2, "others": 0.08}
    return one.Job("ours", "compiled", str(folder), str(folder / "found"), **{**settings, **changes})


@pytest.mark.compiler
@pytest.mark.parametrize("optimizer", [workloads.DECAY, workloads.ADAM, None], ids=["sgd", "adam", "answers"])
def test_our_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: Any) -> None:
    """It computes what NumPy does: the first losses, one batch after the other, or the logits of the first batch."""
    workload = written(tmp_path, monkeypatch, optimizer)
    found, results = one.measured(job(tmp_path))
    given = task.Task.read(tmp_path, 1)
    program = mg.compile(workload.graph(), mg.State(given.weights()), "numpy")
    batches = [dict(zip(("image", "label"), batch)) for batch in given.batches]
    assert [len(batch["image"]) for batch in batches] == [5] * task.BATCHES
    if optimizer:
        right = [program(**batches[i % task.BATCHES])["loss"] for i in range(one.FIRST)]
        assert results.shape == (one.FIRST,)
        assert max(race.apart(results, np.stack(right), training=True)) < 1e-4
    else:
        right = program(image=batches[0]["image"])["logits"]
        assert race.apart(results, right, training=False)[0] < 1e-5
    assert 0 < found["least_ms"] <= found["median_ms"]
    assert found["steps"] >= 3
    assert found["first_s"] > 0


def busy(monkeypatch: pytest.MonkeyPatch, others: Sequence[float | None]) -> None:
    """Windows in which others use so many cores."""
    left = list(others)
    monkeypatch.setattr(one.Watch, "load", lambda self: load.Load(1.0, left.pop(0), 0.0))
    monkeypatch.setattr(ours, "contender", lambda task, mode: lambda image, label: 0.5)


def test_a_window_in_which_others_were_busy_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, monkeypatch)
    busy(monkeypatch, [0.5, 0.01, 0.0])
    found, _ = one.measured(job(tmp_path, windows=3))
    assert (found["others"], found["windows"]) == (0.01, 2)
    busy(monkeypatch, [0.5, 0.3, 0.4])
    found, _ = one.measured(job(tmp_path, windows=3))
    assert (found["others"], found["windows"]) == (0.3, 3)
    busy(monkeypatch, [None])  # a system that does not say
    assert one.measured(job(tmp_path, windows=3))[0]["windows"] == 1


def test_the_load_of_others_is_all_but_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, own, every = iter([10.0, 12.0]), iter([5.0, 7.0]), iter([(100.0, 1.0), (103.0, 1.5)])
    monkeypatch.setattr(load.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(load, "_own", lambda: next(own))
    monkeypatch.setattr(load, "_all", lambda: next(every))
    assert load.Watch().load() == load.Load(own=1.0, others=0.5, stolen=0.25)


def test_runs_are_processes_and_what_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime reads what minigraph wrote, in a process that has no minigraph; of SGD there is no such file."""
    workload = written(tmp_path, monkeypatch)
    settings = race.Settings(rounds=2, threads=1, seconds=0.01, steps=3, windows=1, others=1000.0)
    theirs = contenders.Contender("theirs", "onnxruntime", "in_onnxruntime", "all")
    wrong = contenders.Contender("wrong", "numpy", "in_nothing", "all")
    samples: list[Any] = []
    race.race([workload], [theirs, wrong], settings, samples.append)
    assert [(sample["contender"], sample["round"]) for sample in samples] == [
        ("theirs", 0),
        ("wrong", 0),
        ("theirs", 1),
    ]
    assert samples[0]["discarded"] is False
    assert "No module named 'benchmarks.on_cpu.in_nothing'" in samples[1]["error"]
    assert samples[2]["apart"] == [0.0]


def test_who_cannot_be_the_best_runs_once() -> None:
    took = {"minigraph": 90.0, "near": 11.0, "best": 10.0, "far": 21.0}
    samples = [sample("w", who, median=ms, least=ms) for who, ms in took.items()]
    samples += [
        sample("w", "busy", median=50.0, discarded=True),
        {"workload": "w", "contender": "broken", "error": "!"},
    ]
    names = [*took, "busy", "broken"]
    assert [name for name in names if race.hopeless(name, samples)] == ["far", "broken"]
    assert not any(race.hopeless(name, []) for name in names)


def test_rounds_begin_with_another() -> None:
    assert [race.rotated("abc", number) for number in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]


def test_what_is_not_installed_is_named() -> None:
    missing = contenders.Contender("other", "no_such_package", "in_torch", "eager")
    here = contenders.CONTENDERS[0]
    found, (sentence,) = contenders.installed([here, missing, dataclasses.replace(missing, name="another")])
    assert found == [here]
    assert sentence.startswith("no_such_package is not installed")


def test_importing_is_timed_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(found := also.import_seconds(1)) == 1
    assert 0 < found[0] < 600
    monkeypatch.setattr(also, "TIMED", "print(0.25)")
    assert also.import_seconds(2) == [0.25, 0.25]


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise also.NoCompiler("there is no C compiler")

    monkeypatch.setattr(also, "compiler", none)
    assert also.compile_seconds() == {"error": "there is no C compiler"}
    sitting = {**SITTING, "samples": [], "also": {"compiling": also.compile_seconds(), "import_s": []}}
    assert "- compile ResNet-20's training step: there is no C compiler" in report.markdown(sitting)


# what is reported


def sample(workload: str, who: str, round: int = 0, **changes: Any) -> dict[str, Any]:
    median, least = changes.pop("median", 10.0), changes.pop("least", 9.0)
    settled = {"first_s": 3.0, "import_s": 0.5, "peak_MB": 100.0, "others": 0.01, "apart": [1e-7], "discarded": False}
    head = {"workload": workload, "contender": who, "round": round, "median_ms": median, "least_ms": least}
    return {**head, **settled, **changes}


LENET, RESNET = (
    {"name": "LeNet", "training": True, "least": 2.2, "aim": 3.0},
    {"name": "ResNet", "training": False, "least": 1.6, "aim": 2.1},
)
SAMPLES = [
    sample("LeNet", "minigraph", median=5.0, least=4.0, peak_MB=120.0),
    sample("LeNet", "minigraph", 1, median=7.0, least=4.5, first_s=0.2),
    sample("LeNet", "minigraph", 2, median=6.0, least=5.0, first_s=0.3),
    sample("LeNet", "minigraph", 3, median=90.0, least=1.0, discarded=True),
    sample("LeNet", "torch", median=18.0, least=17.0),
    sample("LeNet", "torch tuned", median=15.0, least=14.5),
    sample("LeNet", "jax", median=1.0, least=0.9, apart=[1e-7, 0.3]),
    {"workload": "LeNet", "contender": "torch compiled", "round": 0, "error": "no compiler"},
    sample("ResNet", "minigraph", median=1.0, least=0.9, peak_MB=149.0),
    sample("ResNet", "onnxruntime", median=1.5, least=1.4),
    sample("ResNet", "openvino", median=3.0, discarded=True),
]
SITTING = {
    "date": "2026-01-01",
    "processor": "a processor",
    "cores": 2,
    "load": 0.1,
    "versions": "minigraph 0",
    "missing": ["jax is not installed"],
    "settings": {"rounds": 4, "threads": 2, "others": 0.08},
    "workloads": [LENET, RESNET, {"name": "not run", "training": True, "least": None, "aim": None}],
    "samples": SAMPLES,
    "also": {"compiling": {"cold": 6.0, "cached": 0.25}, "import_s": [0.1, 0.2, 0.12]},
}


def test_the_median_of_the_medians_and_the_shortest_step_of_the_runs_that_are_kept() -> None:
    found = report.summary([one for one in SAMPLES if (one["workload"], one["contender"]) == ("LeNet", "minigraph")])
    assert (found["median_ms"], found["least_ms"], found["runs"], found["discarded"]) == (6.0, 4.0, 3, 1)
    assert (found["first_cold_s"], found["first_cached_s"], found["peak_MB"]) == (3.0, 0.2, 120.0)
    assert report.summary([sample("w", "x", discarded=True)]) is None


def test_the_ratio_is_to_the_best_of_those_that_compute_the_same() -> None:
    lenet, resnet = report.rows(SITTING["workloads"], SAMPLES)
    assert (lenet["best"], lenet["ratio"], lenet["ratio_of_least"]) == ("torch tuned", 2.5, 14.5 / 4.0)
    assert lenet["holds"]
    assert lenet["differ"] == ["jax"]
    assert lenet["errors"] == {"torch compiled": "no compiler"}
    assert (lenet["memory"], lenet["memory_holds"]) == (1.2, False)
    assert (resnet["best"], resnet["ratio"], resnet["holds"], resnet["lost"]) == (
        "onnxruntime",
        1.5,
        False,
        ["openvino"],
    )
    assert (resnet["memory"], resnet["memory_holds"]) == (1.49, True)
    assert report.wrong([lenet])
    assert not report.wrong([resnet])


def test_tables_and_picture_of_a_recorded_sitting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sitting.json"
    command.write_json(file, SITTING)
    assert json.loads(file.read_text()) == SITTING
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--show", str(file)])
    command.main()
    text = file.with_suffix(".md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    assert "| LeNet | 6.00 (4.00) | torch tuned | 15.0 (14.5) | 2.50 | 3.62 | 2.20 | 3.00 | yes |" in text
    assert "| ResNet | 1.00 (0.900) | onnxruntime | 1.50 (1.40) | 1.50 | 1.56 | 1.60 | 2.10 | NO |" in text
    assert "| LeNet | 120 | torch | 100 | 1.20 | 1.00 | NO |" in text
    assert "| compile ResNet-20's training step, cold | 6.000 | 5.00 | NO |" in text
    assert "| import minigraph | 0.120 | 0.15 | yes |" in text
    assert "| LeNet | minigraph | 6.00 | 4.00 | 3 (and 1 discarded) | 3.00 | 0.200 | 0.500 | 120 | 1e-07 |" in text
    for remark in (
        "- jax is not installed",
        "- LeNet, torch compiled: no compiler",
        "- ResNet, openvino: all runs were discarded",
        "- LeNet, jax: does not compute what minigraph does",
    ):
        assert remark in text
    assert "not run" not in text
    assert "<svg" in file.with_suffix(".svg").read_text()


def test_workloads_and_contenders_are_chosen_by_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [one.key for one in workloads.LISTS["table"]]
    assert [key for key in keys if command.named(key, ["resnet20"])] == ["resnet20"]
    assert [key for key in keys if command.named(key, ["resnet20-*", "mlp"])] == ["mlp", "resnet20-1", "resnet20-128"]
    assert all(command.named(key, []) for key in keys)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "resnet"])
    with pytest.raises(SystemExit, match=r"no such workload, but mlp, mlp-wide, lenet, "):
        command.main()


def test_the_readme_has_the_kept_sittings() -> None:
    root = Path(__file__).parent.parent
    kept = sorted((root / "benchmarks" / "on_cpu" / "results").glob("*.json"))
    sittings = [json.loads(file.read_text()) for file in kept]
    assert len(kept) >= 2
    assert report.sittings(sittings) in (root / "README.md").read_text()
    for file, sitting in zip(kept, sittings):
        assert file.with_suffix(".md").read_text() == report.markdown(sitting)
