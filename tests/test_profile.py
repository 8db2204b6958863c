"""Profiles: what they count, that they move nothing, how they print and how they are drawn. No test is about speed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import GraphError, State, layers
from minigraph.backends.c import cache
from minigraph.backends.c import peak as peaks
from minigraph.backends.c.clocks import measure
from minigraph.backends.c.executable import Executable
from minigraph.backends.c.peak import Peak
from minigraph.backends.lower import lower
from minigraph.core.rewrite import known_as
from minigraph.driver.profile import Cost, Profile, Row, roof_of
from minigraph.tools.dot import dot
from minigraph.tools.heat import HOT, Heat

C = pytest.param("c", marks=pytest.mark.compiler)
everywhere = pytest.mark.parametrize("backend", ["numpy", C])
in_c = pytest.mark.parametrize("backend", [C])


def network() -> mg.Graph:
    net = mg.Builder("net")
    image, label = net.input("image", ("N", 2, 6, 6)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.conv2d(image, 4, 3, padding="same", bias=False)))
    logits = layers.linear(mg.flatten(mg.max_pool(h, 2)), 5)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def batch(n: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    return {"image": rng.normal(size=(n, 2, 6, 6)).astype("float32"), "label": rng.integers(0, 5, n)}


def training(state: State, backend: str) -> mg.Program:
    return mg.compile(mg.training_step(network(), "loss", mg.optim.Adam(0.01)), state, backend)


def answering(backend: str) -> mg.Program:
    return mg.compile(mg.inference(network(), ["logits"]), network().init(seed=0), backend)


@pytest.fixture(autouse=True)
def quick_peak(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is measured by the tests that are about it, and by no other."""
    if "peak" not in request.node.name:
        monkeypatch.setattr("minigraph.driver.program.peak", lambda: Peak(1e11, 1e10, 2))


# what is measured


@everywhere
def test_the_state_does_not_move(backend: str) -> None:
    state, twin = network().init(seed=1), network().init(seed=1)
    program, other = training(state, backend), training(twin, backend)
    before = {name: state[name].tobytes() for name in state}
    program.profile(repeats=3, **batch())
    assert {name: state[name].tobytes() for name in state} == before
    for _ in range(2):  # and the program goes on as if nothing had been
        mine, its = program(**batch()), other(**batch())
        assert all(np.array_equal(mine[name], its[name]) for name in its)
    assert all(np.array_equal(state[name], twin[name]) for name in twin)


@everywhere
def test_rows_nodes_and_layers_add_up_to_the_same(backend: str) -> None:
    program = training(network().init(seed=1), backend)
    profile = program.profile(repeats=2, **batch())
    assert profile.backend == backend
    assert profile.sizes == {"N": 8}
    assert all(row.cost.seconds >= 0 for row in profile.steps)
    assert 0 < profile.total.seconds <= profile.clocked  # the least of each row, and of the whole
    assert profile.plain > 0
    for costs in (list(profile.nodes.values()), [row.cost for row in profile.layers]):
        for part in ("seconds", "flops", "bytes"):
            whole = sum(getattr(cost, part) for cost in costs)
            assert whole == pytest.approx(getattr(profile.total, part), rel=1e-9), part
    assert len({(row.key, row.kind) for row in profile.layers}) == len(profile.layers)


def test_numpy_counts_what_the_summary_counts() -> None:
    program = training(network().init(seed=1), "numpy")
    profile = program.profile(repeats=1, **batch())
    counted = mg.summary(program.graph, N=8)
    assert profile.total.flops == sum(counted.flops.values())
    found = {(row.key, row.kind): row.cost.flops for row in profile.layers}
    (conv,) = (row for row in counted.rows if row.name == "conv1")
    assert found["forward", "conv1"] == conv.flops["forward"] == 2 * 8 * 4 * 6 * 6 * 2 * 3 * 3
    assert found["backward", "conv1"] == conv.flops["backward"]


@in_c
def test_c_counts_the_operations_of_convolutions_and_products_as_the_summary_does(backend: str) -> None:
    program = training(network().init(seed=1), backend)
    found = {(row.key, row.kind): row.cost.flops for row in program.profile(repeats=1, **batch()).layers}
    counted = {row.name: row.flops for row in mg.summary(program.graph, N=8).rows}
    for layer in ("conv1", "linear1"):
        for role in ("forward", "backward"):
            assert found[role, layer] == counted[layer][role], (layer, role)


@in_c
def test_each_step_has_the_work_of_its_plan_at_the_sizes_given(backend: str) -> None:
    program = training(network().init(seed=1), backend)
    program(**batch(16))
    profile = program.profile(repeats=1, **batch(8))  # in the program for 16
    plan = program.plan
    assert plan.sizes == {"N": 16}
    assert [row.kind for row in profile.steps] == [plan.kernel(step) for step in plan.steps]
    for row, step in zip(profile.steps, plan.steps):
        work = plan.work(step, {"N": 8})
        assert (row.cost.flops, row.cost.bytes) == (work.flops, work.bytes)


@in_c
def test_what_is_lowered_belongs_to_the_node_that_it_was(backend: str) -> None:
    program = training(network().init(seed=1), backend)
    program(**batch())
    names = {node.name for node in program.graph.nodes}
    made = [node for step in program.plan.steps for node in step.nodes]
    assert {known_as(node) for node in made} <= names
    profile = program.profile(repeats=1, **batch())
    assert set(profile.nodes) == names
    layers_of = {(row.key, row.kind) for row in profile.layers}
    assert {("forward", "bn1"), ("backward", "bn1"), ("statistic", "bn1"), ("update", "conv1.weight")} <= layers_of


@everywhere
def test_a_fixed_weight_that_moved_on_is_profiled_as_it_is(backend: str) -> None:
    program = answering(backend)
    image = {"image": batch()["image"]}
    before = program(**image)["logits"]
    program.state["conv1.weight"] = 2 * program.state["conv1.weight"] + 1
    program.profile(repeats=1, **image)
    assert not np.array_equal(program(**image)["logits"], before)


@everywhere
def test_an_input_that_is_wrong_is_an_error_as_in_a_call(backend: str) -> None:
    program = training(network().init(seed=1), backend)
    before = {name: array.tobytes() for name, array in program.state.items()}
    wrong: dict[str, Any] = {**batch(), "label": np.full(8, 9)}
    with pytest.raises(GraphError) as called:
        program(**wrong)
    with pytest.raises(GraphError) as profiled:
        program.profile(**wrong)
    assert str(profiled.value) == str(called.value)
    assert {name: array.tobytes() for name, array in program.state.items()} == before
    with pytest.raises(GraphError, match="the number of runs is 1 or more"):
        program.profile(repeats=0, **batch())


@in_c
def test_guarded_programs_are_not_profiled(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CHECK", "1")
    with pytest.raises(GraphError, match="unset MINIGRAPH_CHECK"):
        answering(backend).profile(image=batch()["image"])


@everywhere
def test_an_input_that_does_not_lie_in_order(backend: str) -> None:
    program = answering(backend)
    turned = np.asfortranarray(batch()["image"])
    assert program.profile(repeats=2, image=turned).total.seconds > 0


@everywhere
def test_an_empty_batch(backend: str) -> None:
    profile = answering(backend).profile(repeats=1, image=np.zeros((0, 2, 6, 6), "float32"))
    assert profile.total.flops == 0
    assert profile.total.seconds == pytest.approx(sum(cost.seconds for cost in profile.nodes.values()))


@pytest.mark.compiler
def test_a_run_with_clocks_is_a_whole_run() -> None:
    """Of the runs that are measured each moves the state as a call does: the first, and two of each kind."""
    graph = mg.training_step(network(), "loss", mg.optim.SGD(0.1, momentum=0.9))
    state = State(network().init(seed=1))
    mg.compile(graph, state, "numpy")  # adds what the optimizer keeps
    inputs, executable = batch(), Executable(lower(graph))
    measured = {name: state[name].copy() for name in state}
    times = measure(executable, {"N": 8}, inputs, measured, repeats=2)
    arrays = dict(state)
    for _ in range(5):
        _, new = executable.run({"N": 8}, {**arrays, **inputs})
        arrays.update(new)
    assert all(np.array_equal(measured[name], arrays[name]) for name in arrays)
    assert len(times.steps) == len(times.plan.steps)


# the machine


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.compiler
def test_the_peak_is_measured_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measured(count: int) -> Peak:
        asked.append(count)
        return Peak(3e11, 2e10, count)

    monkeypatch.setattr(peaks, "measured", measured)
    monkeypatch.setenv("MINIGRAPH_THREADS", "2")
    assert peaks.peak() == peaks.peak() == Peak(3e11, 2e10, 2)
    assert asked == [2]
    (file,) = folder.glob("peak-*.json")
    file.write_text("{", encoding="utf-8")  # damaged
    assert peaks.peak() == Peak(3e11, 2e10, 2)
    monkeypatch.setenv("MINIGRAPH_THREADS", "1")  # another machine, as it were
    assert peaks.peak() == Peak(3e11, 2e10, 1)
    assert asked == [2, 2, 1]
    other = folder / "peak-mine.json"
    other.write_text("not ours", encoding="utf-8")
    cache.clear()
    assert list(folder.glob("*.json")) == [other]


@pytest.mark.compiler
def test_a_peak_is_a_number_of_operations_and_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "COUNT", 1 << 16)
    monkeypatch.setattr(peaks, "TURNS", 2000)
    found = peaks.measured(2)
    assert found.threads == 2
    assert 1e8 < found.flops < 1e14
    assert 1e8 < found.bytes < 1e14


def test_the_roof_is_the_later_of_computing_and_moving() -> None:
    peak = Peak(flops=100.0, bytes=10.0, threads=1)
    assert roof_of(Cost(9.0, flops=400.0, bytes=20.0), peak) == (4.0, "FLOPs")
    assert roof_of(Cost(9.0, flops=100.0, bytes=20.0), peak) == (2.0, "memory")
    assert roof_of(Cost(9.0, flops=0.0, bytes=0.0), peak)[0] == 0.0


# how it prints


def by_hand() -> Profile:
    """Of the network: a convolution that takes three quarters of the time, and a pool."""
    graph = mg.inference(network(), ["logits"])
    conv = next(node.name for node in graph.nodes if node.op.name == "conv")
    costs = {conv: Cost(0.003, 6e8, 3e6), "max_pool": Cost(0.001, 1e6, 1e7)}
    steps = tuple(Row(str(i), "kernel", name, cost) for i, (name, cost) in enumerate(costs.items()))
    peak = Peak(flops=400e9, bytes=20e9, threads=2)
    return Profile(graph, "c", {"N": 8}, 5, steps, costs, clocked=0.0044, plain=0.0040, peak=peak)


def test_the_table() -> None:
    lines = str(by_hand()).splitlines()
    assert lines[0] == "profile of 'net' on c, N = 8: of each row the least of 5 runs"
    assert "a run takes 4.000 ms on 2 threads; 4.400 ms (+10%) with clocks" in lines[1]
    assert "400 GFLOP/s in float32, 20.0 GB/s of memory" in lines[2]
    rows = [line.split() for line in lines if line.startswith(("3.000", "1.000"))]
    step, pool, layer, _ = rows
    assert step == ["3.000", "75.0%", "200.0", "3.00", "MB", "1.0", "50%", "FLOPs", "0", "kernel", "conv1.conv"]
    assert pool == ["1.000", "25.0%", "1.0", "10.0", "MB", "10.0", "50%", "memory", "1", "kernel", "max_pool"]
    assert layer[8:10] == ["forward", "conv1"]
    assert layer[10].startswith("test_profile.py:")
    assert "the rows add up to 4.000 ms" in lines
    assert max(map(len, lines)) <= 120


def test_runs_that_others_disturbed_are_said_to_be() -> None:
    disturbed = replace(by_hand(), plain=0.012, clocked=0.020)
    assert "the rows add up to 4.000 ms: others use this machine" in str(disturbed)


def test_the_rows_that_are_left_out_are_one() -> None:
    rows = [line for line in by_hand().table(1).splitlines() if line.startswith("1.000")]
    assert [row.split()[:2] for row in rows] == [["1.000", "25.0%"]] * 2
    assert rows[0].endswith("1 more")


def test_numpy_says_nothing_of_a_peak() -> None:
    text = str(answering("numpy").profile(repeats=1, image=batch()["image"]))
    assert "peak" not in text
    assert "clocks between its nodes" in text
    assert "max_pool" in text


# how it is drawn


def test_boxes_have_their_times_and_colours() -> None:
    profile = by_hand()
    drawn = dot(profile.graph, profile=profile)
    hot = "#" + "".join(f"{part:02X}" for part in HOT)
    (conv,) = (line for line in drawn.splitlines() if "3 ms, 75%, 200 GFLOP/s" in line)
    assert f'fillcolor="{hot}"' in conv
    (pool,) = (line for line in drawn.splitlines() if "1 ms, 25%, 1 GFLOP/s" in line)
    assert hot not in pool
    assert 'fillcolor="#FFFFFF"' not in pool
    assert "4 ms a run; the darker, the more of it" in drawn
    assert dot(profile.graph) == dot(profile.graph, profile=None)


def test_a_repeat_has_the_time_of_all_its_runs() -> None:
    net = mg.Builder("deep")
    h = net.input("x", ("N", 8))
    for _ in range(4):
        h = mg.relu(layers.linear(h, 8))
    graph = net.build(y=mg.mean(h))
    costs = {node.name: Cost(0.001, 1e6, 0) for node in graph.nodes if node.op.name == "relu"}
    profile = Profile(graph, "numpy", {}, 1, (Row("0", "", "", Cost(0.004)),), costs, 0.004, 0.004)
    once = dot(graph, profile=profile)
    assert "a dashed frame has the time of all its repeats" in once
    assert ("1 ms, 25%" in once, "3 ms, 75%" in once) == (True, True)  # the first stands alone: it reads the input
    assert dot(graph, collapse=False, profile=profile).count("1 ms, 25%") == 4


def test_time_that_is_not_in_the_picture_is_said() -> None:
    heat = Heat([("a", Cost(0.001))], 0.004)
    assert heat.legend == "4 ms a run; the darker, the more of it; 75% at what is not in this picture"
    assert heat.line("b") == ""
    assert Heat([("a", Cost(2e-6))], 0.001).line("a") == "2 µs, < 1%"


def test_a_profile_of_another_graph_is_refused(tmp_path: Path) -> None:
    net = mg.Builder("other")
    graph = net.build(y=mg.tanh(net.input("x", ("N",))))
    with pytest.raises(GraphError, match="the profile is of 'net', of whose nodes 'other' has none"):
        mg.draw(graph, tmp_path / "net.dot", profile=by_hand())
    with pytest.raises(GraphError, match="a profile is of one graph"):
        mg.draw(network(), tmp_path / "net.dot", after=network(), profile=by_hand())
