"""Profiles of programs on a GPU: what they count, that they move nothing, and how they print and are drawn.

On a CPU the clock is one that is told how long each kernel takes, where a test is about times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import Kernel, Launched, Processor, Work
from cuda_on_paper import Nvrtc
from cupy_on_cpu import fake_cupy
from test_profile import batch, network, training

import minigraph as mg
from minigraph import GraphError, State
from minigraph.backends.c import cache
from minigraph.backends.cupy import clocks, device, peak
from minigraph.backends.cupy.clocks import Clocks, Times
from minigraph.backends.cupy.compiler import find
from minigraph.backends.cupy.device import Device
from minigraph.backends.cupy.gpu import Gpu
from minigraph.backends.cupy.grid import THREADS, Grid, grid_of
from minigraph.backends.cupy.peak import Peak
from minigraph.backends.cupy.source import of_header
from minigraph.core.rewrite import known_as
from minigraph.driver.profile import Profile, profile_of_launches
from minigraph.tools.blueprint import steps_dot
from minigraph.tools.command import main
from minigraph.tools.dot import dot

KERNEL, GRAPH = 0.002, 0.001  # seconds of a kernel by itself, and in a graph
PEAK = Peak(1e12, 1e11, "Some GPU")


class Told(Processor):
    """Its clock goes on by KERNEL at each launch, and by GRAPH at each of a graph; `late` more at the next launches."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.now, self.late = 0.0, list[float]()
        self.held = list[int]()  # nanoseconds
        self.launched = list[Launched]()

    def launch(self, kernel: Kernel, grid: Grid, addresses: Sequence[int]) -> None:
        super().launch(kernel, grid, addresses)
        if self._graph is None:
            self.launched.append(Launched(kernel, grid, tuple(addresses)))
            self.now += KERNEL + (self.late.pop(0) if self.late else 0.0)
            if kernel.name == "hold":
                self.held.append(int(numbers_at(addresses[0], 1, "int64")[0]))

    def replay(self, graph: tuple[Work, ...]) -> None:
        super().replay(graph)
        self.now += GRAPH * len(graph)

    def mark(self) -> float:
        self._note("mark")
        return self.now


def numbers_at(address: int, n: int, dtype: str) -> np.ndarray:
    kind = np.ctypeslib.as_ctypes_type(dtype)
    return np.ctypeslib.as_array((kind * n).from_address(address)).copy()


@pytest.fixture(autouse=True)
def quick_peak(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU is measured by the tests that are about it, and by no other."""
    if "peak" not in request.node.name:
        monkeypatch.setattr("minigraph.driver.on_gpu.peak", lambda device: PEAK)


@pytest.fixture
def on(device: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    """Where programs run."""
    return runs_on(device, monkeypatch)


@pytest.fixture
def told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return runs_on(Told(folder), monkeypatch)


def runs_on(it: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(device, "device", lambda: it)
    return it


def small() -> mg.Graph:
    net = mg.Builder("small")
    x = net.input("x", ("N", 4))
    h = mg.layers.linear(x, 32, name="first")
    return net.build(loss=mg.mean(mg.layers.linear(h * h, 1, bias=False, name="last")))


def trained(repeats: int = 2) -> tuple[mg.Program, Profile]:
    graph = small()
    program = mg.compile(mg.training_step(graph, "loss", mg.optim.SGD(0.1)), graph.init(seed=0), "cupy")
    return program, program.profile(repeats=repeats, x=np.ones((6, 4), "float32"))


def bytes_of(state: State) -> dict[str, bytes]:
    return {name: state[name].tobytes() for name in state}


# what is measured


@pytest.mark.cxx
def test_the_state_does_not_move(on: Device) -> None:
    state, twin = network().init(seed=1), network().init(seed=1)
    program, other = training(state, "cupy"), training(twin, "cupy")
    before = bytes_of(state)
    program.profile(repeats=3, **batch())
    assert bytes_of(state) == before
    for _ in range(3):  # and the program goes on as if nothing had been
        mine, its = program(**batch()), other(**batch())
        assert all(np.array_equal(mine[name], its[name]) for name in its)
        now = bytes_of(state)
        program.profile(repeats=1, **batch(4))
        assert bytes_of(state) == now
    assert bytes_of(state) == bytes_of(twin)


@pytest.mark.cxx
def test_all_tables_add_up_to_the_same(on: Device) -> None:
    program = training(network().init(seed=1), "cupy")
    profile = program.profile(repeats=2, **batch())
    assert profile.backend == "cupy"
    assert profile.sizes == {"N": 8}
    assert 0 < profile.total.seconds <= profile.clocked
    assert profile.plain > 0
    assert profile.called > 0
    costs = [list(profile.nodes.values()), [r.cost for r in profile.layers], [r.cost for r in profile.launches]]
    for found in costs:
        for part in ("seconds", "flops", "bytes"):
            whole = sum(getattr(cost, part) for cost in found)
            assert whole == pytest.approx(getattr(profile.total, part), rel=1e-9), part


@pytest.mark.cxx
def test_each_step_has_the_work_of_its_plan_and_each_node_its_name(on: Device) -> None:
    program = training(network().init(seed=1), "cupy")
    program(**batch(16))
    profile = program.profile(repeats=1, **batch(8))
    plan = program.plan
    assert [row.kind for row in profile.steps] == [plan.kernel(step) for step in plan.steps]
    for row, step in zip(profile.steps, plan.steps, strict=True):
        work = plan.work(step)
        assert (row.cost.flops, row.cost.bytes) == (work.flops, work.bytes)
    names = {node.name for node in program.graph.nodes}
    assert {known_as(node) for step in plan.steps for node in step.nodes} <= names == set(profile.nodes)
    layers_of = {(row.key, row.kind) for row in profile.layers}
    assert {("forward", "bn1"), ("backward", "bn1"), ("statistic", "bn1"), ("update", "conv1.weight")} <= layers_of
    found = {(row.key, row.kind): row.cost.flops for row in profile.layers}
    counted = {row.name: row.flops for row in mg.summary(program.graph, N=8).rows}
    for layer in ("conv1", "linear1"):
        for role in ("forward", "backward"):
            assert found[role, layer] == counted[layer][role], (layer, role)


@pytest.mark.cxx
def test_each_kernel_is_timed_by_itself(told: Told) -> None:
    _, profile = trained()
    n = len(profile.launches)
    assert [row.cost.seconds for row in profile.launches] == pytest.approx([KERNEL] * n)
    assert profile.clocked == pytest.approx(KERNEL * n)  # without the time for which the GPU was held
    assert profile.plain == pytest.approx(GRAPH * n)
    assert profile.total.seconds == pytest.approx(KERNEL * n)


@pytest.mark.cxx
def test_the_least_of_all_runs_counts_but_for_the_first(told: Told) -> None:
    program, profile = trained()
    n = len(profile.launches)
    hold, quick, slow, worse = [0.0], [-KERNEL] * n, [0.5] * n, [0.25] * (n - 1) + [0.75]
    warm_up = [0.0] * n
    told.late = [*warm_up, *hold, *quick, 0.0, *hold, *slow, 0.0, *hold, *worse]  # one hold more for each whole graph
    profile = program.profile(repeats=2, x=np.ones((6, 4), "float32"))
    assert not told.late
    assert [row.cost.seconds for row in profile.launches] == pytest.approx([0.252] * (n - 1) + [0.502])
    assert profile.clocked == pytest.approx(min(0.502 * n, 0.252 * (n - 1) + 0.752))


@pytest.mark.cxx
def test_a_kernel_for_several_steps_is_divided_by_their_work(told: Told) -> None:
    net = mg.Builder("apart")
    long, short = net.input("long", ("N",)), net.input("short", ("M",))
    program = mg.compile(net.build(a=long * long + 1.0, b=short + 1.0), State(), "cupy")
    profile = program.profile(repeats=1, long=np.ones(600, "float32"), short=np.ones(300, "float32"))
    (kernel,) = profile.launches
    assert kernel.what == "5 x 256: steps 0, 1"
    assert kernel.cost.seconds == pytest.approx(KERNEL)
    assert sorted(row.cost.seconds for row in profile.steps) == pytest.approx([KERNEL / 5, KERNEL * 4 / 5])
    assert kernel.cost.bytes == sum(row.cost.bytes for row in profile.steps) == 2 * 4 * 900


@pytest.mark.cxx
def test_a_step_of_several_kernels_has_the_time_of_all(told: Told) -> None:
    net = mg.Builder("long")
    program = mg.compile(net.build(y=mg.sum(net.input("x", ("N",)))), State(), "cupy")
    profile = program.profile(repeats=1, x=np.ones(1 << 16, "float32"))
    (step,) = profile.steps
    assert len(profile.launches) == 2
    assert step.cost.seconds == pytest.approx(2 * KERNEL)
    assert [row.cost.flops for row in profile.launches] == pytest.approx([step.cost.flops / 2] * 2)


@pytest.mark.cxx
def test_runs_without_time_are_divided_as_well(told: Told) -> None:
    program, profile = trained()
    plan, launches = program.plan, executable_launches(program)
    nothing = Times(plan, launches, (0.0,) * len(launches), 0.0, 0.0, 0.0)
    found = profile_of_launches(program.graph, {"N": 6}, nothing, 1, PEAK)
    assert sum(row.cost.flops for row in found.launches) == pytest.approx(profile.total.flops)


def executable_launches(program: mg.Program) -> Any:
    executable: Any = program._executable
    return executable.program({"N": 6}).source.launches


@pytest.mark.cxx
def test_a_wrong_input_is_an_error_as_in_a_call(on: Device) -> None:
    program = training(network().init(seed=1), "cupy")
    before = bytes_of(program.state)
    wrong: dict[str, Any] = {**batch(), "label": np.full(8, 9)}
    with pytest.raises(GraphError) as called:
        program(**wrong)
    with pytest.raises(GraphError) as profiled:
        program.profile(**wrong)
    assert str(profiled.value) == str(called.value)
    assert bytes_of(program.state) == before
    assert program.profile(repeats=1, **batch()).total.seconds > 0


@pytest.mark.cxx
def test_guarded_programs_are_not_profiled(on: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CHECK", "1")
    with pytest.raises(GraphError, match="unset MINIGRAPH_CHECK"):
        trained()


@pytest.mark.cxx
def test_a_fixed_weight_that_moved_on_is_profiled_as_it_is(on: Device) -> None:
    program = mg.compile(mg.inference(network(), ["logits"]), network().init(seed=0), "cupy")
    image = {"image": batch()["image"]}
    before = program(**image)["logits"]
    program.state["conv1.weight"] = 2 * program.state["conv1.weight"] + 1
    program.profile(repeats=1, **image)
    assert not np.array_equal(program(**image)["logits"], before)


@pytest.mark.cxx
def test_an_empty_batch(on: Device) -> None:
    program = mg.compile(mg.inference(network(), ["logits"]), network().init(seed=0), "cupy")
    profile = program.profile(repeats=1, image=np.zeros((0, 2, 6, 6), "float32"))
    assert profile.total.flops == 0
    assert str(profile)


@pytest.mark.cxx
def test_copies_are_given_back(told: Told) -> None:
    program, _ = trained()
    before = told.used
    program.profile(repeats=1, x=np.ones((6, 4), "float32"))
    assert told.used == before


# the clock


@pytest.mark.cxx
def test_the_gpu_is_held_for_twice_the_time_of_handing_over(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = count(0.0, 0.010)  # seconds: 10 ms from one look at the clock to the next
    monkeypatch.setattr(clocks, "perf_counter", lambda: next(hosts))
    monkeypatch.setattr(clocks, "TOGETHER", 3)
    done = []

    def work(i: int) -> Callable[[], None]:
        def run() -> None:
            done.append(i)
            told.now += 2.0**i

        return run

    clock = Clocks(told, [work(i) for i in range(5)])
    for _ in range(2):
        assert clock.run() == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0])
    assert done == [0, 1, 2, 3, 4] * 2
    assert told.held == pytest.approx([0, 0, 20e6, 20e6], abs=1)
    monkeypatch.setattr(clocks, "LONGEST", 0.005)
    clock.run()
    assert told.held[4:] == [5_000_000] * 2


@pytest.mark.cxx
def test_events_of_cupy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = fake_cupy(tmp_path)
    gpu = Gpu(cupy, 0)
    assert gpu.name == "Fake GPU"
    first = gpu.mark()
    last = gpu.mark()
    assert 0 < gpu.seconds(first, last) < 1
    seconds = Clocks(gpu, [lambda: None] * 3).run()
    assert len(seconds) == 3
    assert min(seconds) > 0
    with pytest.raises(GraphError, match="is being captured"):
        gpu.capture(lambda: gpu.mark())


# the GPU


def test_the_peak_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    asked = []

    def measured(device: Device) -> Peak:
        asked.append(device.name)
        return Peak(3e13, 2e12, device.name)

    monkeypatch.setattr(peak, "measured", measured)
    gpu = Processor(tmp_path)
    assert peak.peak(gpu) == peak.peak(gpu) == Peak(3e13, 2e12, "a CPU")
    gpu.name = "another"
    assert peak.peak(gpu).device == "another"
    assert asked == ["a CPU", "another"]
    assert len(list((tmp_path / "cache").glob("peak-*.json"))) == 2
    cache.clear()
    assert list((tmp_path / "cache").glob("peak-*.json")) == []


@pytest.mark.cxx
def test_a_peak_is_what_is_done_in_the_time_of_a_kernel(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "BLOCKS", 2)
    monkeypatch.setattr(peak, "COPIED", 100_000)
    monkeypatch.setattr(peak, "TURNS", 3)
    found = peak.measured(told)
    own = dict(re.findall(r"(CHAINS|ROUNDS) = (\d+)", find("peak.cuh").read_text()))
    assert found.flops == pytest.approx(2 * int(own["CHAINS"]) * int(own["ROUNDS"]) * 3 * 2 * THREADS / KERNEL)
    assert found.bytes == pytest.approx(2 * 100_000 / KERNEL)
    assert found.device == "a CPU"
    last = told.launched[-1]
    assert last.kernel.name == "copies"
    assert last.grid == grid_of(6250)
    told.capacity = told.used + 80_000
    assert peak.measured(told).bytes == pytest.approx(2 * 20_000 / KERNEL)  # what there is room for


@pytest.mark.cxx
def test_a_peak_is_a_number_of_operations_and_of_bytes(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "BLOCKS", 4)
    monkeypatch.setattr(peak, "COPIED", 1 << 20)
    monkeypatch.setattr(peak, "TURNS", 2)
    found = peak.measured(device)
    assert 1e7 < found.flops < 1e15
    assert 1e8 < found.bytes < 1e14


@pytest.mark.cxx
def test_what_the_kernels_of_a_peak_compute(device: Device) -> None:
    kernels = device.load(of_header("peak.cuh", "multiply_adds", "copies"))
    memory = device.memory(1 << 16)
    sizes, factors, found = (memory.part(256 * i, 256) for i in range(3))
    start, end = memory.part(1 << 14, 1 << 14), memory.part(1 << 15, 1 << 14)
    numbers = np.random.default_rng(0).integers(0, 1 << 32, 1 << 12, np.uint32)
    device.write(sizes, np.array([3, 1000], np.int64))
    device.write(factors, np.array([0.5, 0.25, 4.0], np.float32))  # each of eight sums comes to 0.5
    device.write(found, np.zeros(1, np.float32))
    device.write(start, numbers)
    device.write(end, np.zeros_like(numbers))
    device.launch(kernels["multiply_adds"], Grid(2, 8), [sizes.address, factors.address, found.address])
    device.launch(kernels["copies"], Grid(3, 64), [sizes.address + 8, start.address, end.address])
    sums, copied = np.zeros(1, np.float32), np.zeros_like(numbers)
    device.read(found, sums)
    device.read(end, copied)
    assert sums == [4.0]
    assert np.array_equal(copied[:4000], numbers[:4000])
    assert not copied[4000:].any()


@pytest.mark.nvrtc
@pytest.mark.parametrize("header", ["peak.cuh", "clocks.cuh", "rows.cuh"])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_what_measures_compiles(arch: str, header: str) -> None:
    Nvrtc(arch).compile(of_header(header).text)


# how it prints and is drawn


@pytest.mark.cxx
def test_the_table(told: Told) -> None:
    _, profile = trained()
    lines = str(profile).splitlines()
    n = len(profile.launches)
    assert lines[0] == "profile of 'small' on cupy, N = 6: of each row the least of 2 runs"
    assert lines[1].startswith(f"a run takes {n:.3f} ms on Some GPU, as a graph; {2 * n:.3f} ms (+100%) with an event")
    assert lines[2].startswith("a call takes ")
    assert lines[3] == "measured peak of this GPU: 1.00 TFLOP/s in float32, 100 GB/s of memory"
    assert f"the rows add up to {2 * n:.3f} ms" in lines
    heads = [line for line in lines if line.lstrip().startswith("ms  share")]
    assert [head.split()[-1] for head in heads] == ["step", "layer", "threads"]
    kernel = profile.launches[0]
    (row,) = (line for line in lines if line.endswith(kernel.what))
    assert row.split()[:2] == ["2.000", f"{1 / n:.1%}"]
    assert kernel.kind in row.split()
    assert re.fullmatch(r"\d+ x 256: step \d+", kernel.what)
    assert max(map(len, lines[:8])) <= 120


@pytest.mark.cxx
def test_pictures_have_the_times(told: Told) -> None:
    program, profile = trained()
    drawn = dot(program.graph, profile=profile)
    whole = f"{2 * len(profile.launches)} ms a run; the darker, the more of it"
    assert whole in drawn
    assert whole in steps_dot(program.plan, profile)


@pytest.mark.cxx
def test_the_command_line(
    on: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    graph = small()
    mg.save("small.safetensors", graph, graph.init(seed=0))
    main(["profile", "small.safetensors", "--backend", "cupy", "--batch", "5", "--repeats", "1", "-o", "times.dot"])
    said = capsys.readouterr().out
    assert said.startswith("profile of 'small' on cupy, N = 5: of each row one run\n")
    assert "a run; the darker" in Path("times.dot").read_text()
