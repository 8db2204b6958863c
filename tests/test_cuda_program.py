"""Programs on a GPU, which a CPU plays: steps that are captured once, state that lives there, inputs, errors."""

from __future__ import annotations

import copy
import ctypes
import io
import os
import pickle
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import test_c_program as in_c
from cuda_on_cpu import GARBAGE, Launched, Processor
from cupy_on_cpu import Stream, fake_cupy
from test_c_program import answering, assert_near, batch, classifier, contents, counting, numbers_of, training

import minigraph as mg
from minigraph import GraphError, State, layers
from minigraph.backends.c.compiler import NoCompiler
from minigraph.backends.cupy import compiler
from minigraph.backends.cupy import device as gpu
from minigraph.backends.cupy.arrays import GpuArray, moved
from minigraph.backends.cupy.checks import indices
from minigraph.backends.cupy.compiler import compiled
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.cupy.program import Program
from minigraph.backends.cupy.resident import Array
from minigraph.backends.cupy.source import Module, Source
from minigraph.backends.lower import lower
from minigraph.backends.plan import Buffer
from minigraph.core import trial
from minigraph.core.dim import known
from minigraph.core.ir import Graph, Value
from minigraph.driver import choice
from minigraph.tools import fit as fitting

pytestmark = pytest.mark.cxx

DEVICE = gpu.device  # of the product


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cuda")


@pytest.fixture(autouse=True)
def _taken(device: gpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs run on a GPU that a CPU plays; with --gpu, on the GPU."""
    monkeypatch.setattr(gpu, "device", lambda: device)


@pytest.fixture
def processor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Processor:
    """A CPU that plays a GPU, for tests that look into it."""
    made = Processor(folder)
    monkeypatch.setattr(gpu, "device", lambda: made)
    return made


def executable(program: mg.Program) -> Executable:
    found = program._executable
    assert isinstance(found, Executable)
    return found


# networks


def mlp() -> Graph:
    net = mg.Builder("mlp")
    h, label = net.input("image", ("N", 6)), net.input("label", ("N",), "int64")
    for i in range(2):
        h = mg.relu(layers.batch_norm(layers.linear(h, 8, name=f"body{i}"), name=f"norm{i}"))
    logits = layers.linear(h, 3, name="head")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def cnn() -> Graph:
    net = mg.Builder("cnn")
    image, label = net.input("image", ("N", 2, 8, 8)), net.input("label", ("N",), "int64")
    h = layers.conv2d(image, 4, 3, padding="same")
    h = mg.max_pool(mg.relu(layers.batch_norm(h)), 2)
    h = layers.dropout(mg.flatten(h), 0.3)
    logits = layers.linear(h, 3, name="head")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


NETWORKS = {"mlp": mlp, "cnn": cnn}
OPTIMIZERS = {"momentum": mg.optim.SGD(0.05, momentum=0.9), "Adam": mg.optim.Adam(0.01)}


def step_of(name: str, optimizer: str = "Adam") -> Graph:
    return mg.training_step(NETWORKS[name](), "loss", OPTIMIZERS[optimizer])


def data(graph: Graph, n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = next(value for value in graph.inputs if value.name == "image").type.bind({"N": n})
    drawn = rng.normal(size=known(image.size, "image")).reshape(image.shape)  # type: ignore[arg-type]
    return {"image": drawn.astype(image.dtype), "label": rng.integers(0, 3, n)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_twenty_steps_are_those_of_numpy(name: str, optimizer: str) -> None:
    """In float64, in which 20 steps of sums of some 100 numbers round by less than 1e-12 of numbers around 1.

    Adam divides gradients by their sizes, and those of 1e-4 have 1e4 times the rounding.
    """
    graph = trial.in_float64(step_of(name, optimizer))
    a, b = graph.init(seed=0), graph.init(seed=0)
    here, there = mg.compile(graph, a, "cupy"), mg.compile(graph, b, "numpy")
    for step in range(20):
        inputs = data(graph, 6, step)
        found, wanted = here(**inputs), there(**inputs)
        for key in wanted:
            np.testing.assert_allclose(found[key], wanted[key], rtol=1e-8, atol=1e-8, err_msg=key)
    assert here.backend == "cupy"
    assert any("running_var" in key for key in b)
    for key in b:
        np.testing.assert_allclose(a[key], b[key], rtol=1e-8, atol=1e-8, err_msg=key)


# capturing

STEP = ["upload", "wait", "copy", "mark", "replay"]  # of a program with inputs that NumPy has


def test_a_step_is_captured_once_and_replayed(processor: Processor) -> None:
    program, state = counting(8, "cupy")
    program(x=1)
    assert processor.events.count("capture") == 1
    first = processor.events.index("capture")
    assert "memory" not in processor.events[first:]
    processor.events.clear()
    for _ in range(3):
        program(x=1)
    assert processor.events == STEP * 3
    assert numbers_of(state) == {4}


@pytest.mark.parametrize("name", NETWORKS)
def test_replayed_steps_are_those_that_are_launched_one_by_one(name: str) -> None:
    """To the bit."""
    graph = step_of(name)
    runs = []
    for capture in (True, False):
        state = graph.init(seed=0)
        program = mg.compile(graph, state, "cupy")
        executable(program).capture = capture
        found = [program(**data(graph, n, i)) for i, n in enumerate((6, 6, 4, 6, 4))]
        runs.append((contents(state), [{k: v.tobytes() for k, v in one.items()} for one in found]))
    assert runs[0] == runs[1]


def poison(program: mg.Program) -> None:
    """Garbage in all of its memory but the state."""
    work = executable(program)._work
    assert work is not None
    executable(program).device.write(work, np.full(work.nbytes, GARBAGE, np.uint8))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_thousand_replays_do_not_read_what_nobody_wrote(name: str) -> None:
    graph = step_of(name)
    runs = []
    for poisoned in (True, False):
        state = graph.init(seed=0)
        program = mg.compile(graph, state, "cupy")
        inputs = data(graph, 4, 0)
        for _ in range(1000):
            found = program(**inputs)
            if poisoned:
                poison(program)
        runs.append((contents(state), {key: array.tobytes() for key, array in found.items()}))
    assert runs[0] == runs[1]


def test_warming_up_advances_nothing(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running statistics, counters and random streams: what is captured, and then not replayed, is no step."""
    graph = step_of("cnn")
    state = graph.init(seed=0)
    program = mg.compile(graph, state, "cupy")
    before = contents(state)
    kinds = {variable.kind for variable in graph.state if variable.value in graph.updates}
    assert kinds >= {"parameter", "statistic", "slot", "counter"}
    with monkeypatch.context() as patch:
        patch.setattr(processor, "replay", lambda graph: None)
        program(**data(graph, 5, 0))
    assert processor.events.count("launch") > 10
    assert contents(state) == before
    other = graph.init(seed=0)
    wanted = mg.compile(graph, other, "numpy")(**data(graph, 5, 0))
    assert_near(program(**data(graph, 5, 0)), wanted)
    assert_near(state, other)


def test_an_interrupt_while_a_step_is_captured_leaves_the_state_and_the_device_as_they_were(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, state = counting(8, "cupy")
    launch, count = processor.launch, 0

    def interrupted(*given: Any) -> None:
        nonlocal count
        count += 1
        if processor._graph is not None:
            raise KeyboardInterrupt
        launch(*given)

    with monkeypatch.context() as patch:
        patch.setattr(processor, "launch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            program(x=1)
    assert count > 1
    assert numbers_of(state) == {0}
    program(x=1)
    assert numbers_of(state) == {1}


# what a CPU can see of a GPU's program


def launched(program: mg.Program) -> tuple[Program, tuple[Launched, ...]]:
    (found,) = executable(program)._programs.values()
    assert isinstance(found, Program)
    return found, found._graph


@pytest.mark.parametrize("name", NETWORKS)
def test_all_that_kernels_touch_begins_at_a_multiple_of_256_bytes(name: str, processor: Processor) -> None:
    graph = step_of(name)
    program = mg.compile(graph, graph.init(seed=0), "cupy")
    program(**data(graph, 6, 0))
    made, captured = launched(program)
    assert any(buffer.place == "arena" and buffer.nbytes % 256 for buffer in made.where)
    assert {memory.address % 256 for memory in made.where.values()} == {0}
    assert {address % 256 for launch in captured for address in launch.addresses} == {0}


class Contents:
    """Which value lies in the memory of each buffer: known by the addresses with which kernels were launched."""

    def __init__(self, program: Program):
        self.program = program
        self.value: dict[Buffer, Value] = {}
        for buffer in program.plan.buffers:
            if buffer.place in ("input", "state", "literal"):
                self.value[buffer.root] = buffer.value

    def write(self, buffer: Buffer, value: Value | None) -> None:
        """Whatever lay in these bytes is gone."""
        where = self.program.where
        start, end = where[buffer].address, where[buffer].address + where[buffer].nbytes
        for other in list(self.value):
            if start < where[other].address + where[other].nbytes and where[other].address < end:
                del self.value[other]
        if value is not None:
            self.value[buffer] = value


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_find_what_was_computed_for_them(name: str, processor: Processor) -> None:
    """Launches are in the order of what is computed from what, and buffers that are needed at a time do not overlap."""
    graph = step_of(name)
    program = mg.compile(graph, graph.init(seed=0), "cupy")
    program(**data(graph, 6, 0))
    made, captured = launched(program)
    plan, lies = made.plan, Contents(made)
    begun: set[int] = set()
    checked = 0
    for launch, seen in zip(made.source.launches, captured, strict=True):
        assert list(seen.addresses[: len(launch.arguments)]) == [made.where[b.root].address for b in launch.arguments]
        new = [number for number in launch.steps if number not in begun]
        for number in new:
            for value, buffer in plan.steps[number].reads.items():
                if buffer.nbytes:
                    assert lies.value.get(buffer.root) is value, f"step {number} does not find {value}"
                    checked += 1
        for number in new:
            for buffer in plan.steps[number].touched:
                lies.write(buffer.root, None)
            begun.add(number)
        for number in launch.steps:
            for value, buffer in plan.steps[number].writes.items():
                lies.write(buffer.root, value)
    assert begun == set(range(len(plan.steps)))
    assert checked > 50
    for old, new_value in plan.graph.updates.items():
        (home,) = (buffer for buffer in plan.buffers if buffer.value is old)
        assert lies.value[home] in (plan.partition.base(new_value), old)


# state


PROMISES = [
    in_c.test_a_program_trains_and_another_answers_in_turn,
    in_c.test_a_snapshot_program_stays_as_it_was,
    in_c.test_inner_values_and_the_first_nan_come_from_the_references,
    in_c.test_a_twin_moves_by_itself,
    in_c.test_two_programs_write_to_one_state_in_turn,
    in_c.test_an_array_that_was_assigned_or_taken_over_is_used,
    in_c.test_an_interrupt_comes_before_a_step_or_after,
    in_c.test_two_programs_in_two_threads_lose_no_step,
    in_c.test_readers_in_other_threads_see_whole_steps,
    in_c.test_a_program_answers_while_another_trains,
    in_c.test_sizes_that_a_node_cannot_have_are_refused,
    in_c.test_state_that_went_away_or_changed_its_form_is_named,
    in_c.test_inputs_lie_anywhere,
    in_c.test_an_input_that_was_written_to_is_read_anew,
    in_c.test_outputs_are_the_callers_own,
]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__.removeprefix("test_"))
def test_what_holds_of_programs_in_c_holds_here(promise: Callable[[str], None]) -> None:
    promise("cupy")


@pytest.mark.parametrize("how", in_c.HOLDERS)
def test_who_holds_an_array_keeps_its_numbers(how: str) -> None:
    in_c.test_who_holds_an_array_keeps_its_numbers("cupy", how)


@pytest.mark.parametrize("label", [3, -1, 2**40])
def test_a_bad_label_leaves_the_state_to_the_byte(label: int) -> None:
    in_c.test_a_bad_label_leaves_the_state_to_the_byte("cupy", label)


def test_where_counts_say_nothing_arrays_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    in_c.test_where_counts_say_nothing_arrays_are_copied("cupy", monkeypatch)


def test_state_moves_there_once_and_stays(processor: Processor) -> None:
    state = classifier().init(seed=0)
    train = training(state, "cupy")
    version = state.version
    train(**batch())
    assert state.version is not version
    assert not any(isinstance(state.held(name), np.ndarray) for name in executable(train).graph.variables)
    version, events = state.version, len(processor.events)
    for _ in range(3):
        train(**batch())
    assert state.version is version
    assert processor.events[events:] == [*STEP[:-1], "copy", "replay", "copy"] * 3  # no fault before, outputs after
    used = processor.used
    snapshot = state.copy()
    held = contents(snapshot)
    train(**batch())  # which gives the snapshot memory of its own
    assert contents(snapshot) == held != contents(state)
    assert processor.used > used
    del snapshot
    assert processor.used == used
    assert processor.events.count("capture") == 1


def address(state: State, name: str) -> int:
    array = state.held(name)
    assert isinstance(array, Array)
    return array.memory.address


def test_programs_of_several_batches_share_the_memory_of_the_state() -> None:
    graph = step_of("mlp")
    a, b = graph.init(seed=0), graph.init(seed=0)
    here, there = mg.compile(graph, a, "cupy"), mg.compile(graph, b, "numpy")
    answer = mg.compile(mg.inference(mlp(), ["logits"]), a, "cupy")
    there_too = mg.compile(mg.inference(mlp(), ["logits"]), b, "numpy")
    here(**data(graph, 5, 0)), there(**data(graph, 5, 0))
    homes = {name: address(a, name) for name in a}
    for i, n in enumerate((8, 5, 3, 8, 5)):
        assert_near(here(**data(graph, n, i)), there(**data(graph, n, i)))
        image = data(graph, 4, i)["image"]
        assert_near(answer(image=image), there_too(image=image))
    assert_near(a, b)
    here(**data(graph, 5, 0))
    assert {name: address(a, name) for name in a} == homes


def test_programs_on_other_backends_go_on_from_there() -> None:
    """And each sees the steps of the others."""
    graph = step_of("mlp")
    mixed, alone = graph.init(seed=0), graph.init(seed=0)
    programs = [mg.compile(graph, mixed, backend) for backend in ("cupy", "numpy", "cupy", "c")]
    reference = mg.compile(graph, alone, "numpy")
    for step in range(8):
        inputs = data(graph, 5, step)
        assert_near(programs[step % 4](**inputs), reference(**inputs))
        assert_near(mixed, alone)


def test_state_is_read_written_saved_and_loaded_between_steps(tmp_path: Path, processor: Processor) -> None:
    graph = step_of("cnn")
    a, b = graph.init(seed=0), graph.init(seed=0)
    here, there = mg.compile(graph, a, "cupy"), mg.compile(graph, b, "numpy")
    inputs = data(graph, 5, 0)

    def both(do: Callable[[State], object]) -> None:
        for state in (a, b):
            do(state)
        for _ in range(2):
            assert_near(here(**inputs), there(**inputs))
        assert_near(a, b)

    both(lambda state: None)
    a.save(tmp_path / "a.safetensors")
    both(lambda state: state.update({"head.weight": np.full_like(state["head.weight"], 0.25)}))
    both(lambda state: state.replace({"head.bias": np.ones(3, "float32")}))
    kept = {name: a[name] for name in a}
    both(lambda state: state.load(tmp_path / "a.safetensors"))
    assert not np.array_equal(kept["head.weight"], a["head.weight"])
    assert not a["head.weight"].flags.writeable
    assert State.read(tmp_path / "a.safetensors")["head.weight"].shape == a["head.weight"].shape
    assert processor.events.count("capture") == 1


def test_a_handler_in_the_middle_of_a_step_reads_the_state(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, state = counting(4, "cupy")
    other = mg.compile(program.source, State(state), "cupy")
    program(x=1)
    seen: list[Any] = []
    replay = processor.replay

    def handled(graph: Any) -> None:
        replay(graph)
        seen.append(numbers_of(state.copy()) | numbers_of(state["a"]))
        with pytest.raises(GraphError, match="is not over"):
            other(x=1)
        with pytest.raises(GraphError, match="is not over"):
            state.come_home()

    monkeypatch.setattr(processor, "replay", handled)
    program(x=1)
    assert seen == [{2}]


# through CuPy, whose work is done when somebody waits for it


@pytest.fixture
def cupy(processor: Processor, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """In place of CuPy. Tests of it are no tests of a GPU: they take the processor."""
    module = fake_cupy(folder)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setenv("MINIGRAPH_CACHE", str(folder))
    monkeypatch.setattr(gpu, "device", DEVICE)
    gpu._gpu.cache_clear()
    yield module
    gpu._gpu.cache_clear()


def test_steps_through_cupy_are_those_of_numpy(cupy: Any) -> None:
    graph = step_of("cnn")
    a, b = graph.init(seed=0), graph.init(seed=0)
    here, there = mg.compile(graph, a, "cupy"), mg.compile(graph, b, "numpy")
    snapshots = []
    for step, n in enumerate((5, 5, 3, 5, 3)):
        inputs = data(graph, n, step)
        found = here(**inputs)
        for array in inputs.values():
            array[:] = 0  # the caller's own again
        assert_near(found, there(**data(graph, n, step)))
        snapshots.append((a.copy(), b.copy()))
        a["head.bias"] = b["head.bias"] = np.full(3, 0.1 * step, "float32")
    for one, other in snapshots:
        assert_near(one, other)


@pytest.mark.parametrize("augment", [None, lambda batch, rng: {**batch, "image": 0.5 * batch["image"]}])
@pytest.mark.parametrize("eager", [False, True])
def test_a_training_through_cupy_is_that_of_the_other_device(
    eager: bool, augment: Any, cupy: Any, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: with data that live there, and with batches that are uploaded, in windows of many steps."""
    cupy.gpu.eager = eager
    monkeypatch.setattr(fitting, "SECONDS", 1e9)
    graph, states = step_of("mlp"), []
    given = data(graph, 50, 0)
    for device in (DEVICE(), processor):
        monkeypatch.setattr(gpu, "device", lambda device=device: device)
        state = graph.init(seed=0)
        mg.fit(mg.compile(graph, state, "cupy"), given, epochs=2, batch_size=8, drop_last=True, augment=augment)
        states.append(contents(state))
    assert states[0] == states[1]


def test_an_array_on_the_gpu_goes_through_cupy(cupy: Any) -> None:
    infer, image = answering(classifier().init(seed=0), "cupy"), batch()["image"]
    wanted = infer(image=image)["logits"]
    for given in (image, image.astype("float64")):
        assert np.array_equal(infer(image=Foreign(given))["logits"], wanted)


@pytest.mark.parametrize("eager", [False, True])
def test_uploads_keep_in_step(eager: bool, cupy: Any) -> None:
    """Nothing is uploaded over what was not yet taken, nor put where an upload still reads, however the streams run."""
    cupy.gpu.eager = eager
    program, state = counting(4, "cupy")
    for x in range(20):
        program(x=2**x)
    assert numbers_of(state) == {2**20 - 1}


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("eager", [False, True])
def test_a_step_that_was_interrupted_spoils_none_after_it(
    eager: bool, at: int, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload may have begun of which nobody knows when it ends."""
    cupy.gpu.eager = eager
    program, state = counting(4, "cupy")
    program(x=1)
    calls = iter(range(100))

    def stopping(do: Callable[..., Any]) -> Callable[..., Any]:
        def call(stream: Stream, *given: Any) -> Any:
            found = do(stream, *given)
            if stream is not cupy.gpu.streams[0] and next(calls) == at:
                raise KeyboardInterrupt
            return found

        return call

    with monkeypatch.context() as patch:
        for name in ("record", "wait_event"):
            patch.setattr(Stream, name, stopping(getattr(Stream, name)))
        with pytest.raises(KeyboardInterrupt):
            program(x=10)
    for power in range(2, 7):
        program(x=10**power)
    assert numbers_of(state) == {1_111_101}


# outputs


def test_a_call_waits_for_nothing_until_an_output_is_looked_at(cupy: Any) -> None:
    infer, image = answering(classifier().init(seed=0), "cupy"), batch()["image"]
    wanted = answering(classifier().init(seed=0), "numpy")
    infer(image=image)  # which is compiled, and captured
    stream = cupy.gpu.all_streams[DEVICE().stream]
    stream.synchronize()
    found = [infer(image=k * image)["logits"] for k in range(2)]
    assert stream.waiting
    for k, logits in enumerate(found):
        np.testing.assert_allclose(logits, wanted(image=k * image)["logits"], rtol=1e-4, atol=1e-5)
    assert not stream.waiting


def test_outputs_stay_as_they_are(cupy: Any) -> None:
    """Also where their memory was others' before, and while nobody looks at them."""
    net = mg.Builder("doubled")
    x = net.input("x", ("N",))
    run = mg.compile(net.build(few=mg.sum(x), same=mg.sum(x), many=2 * x), State(), "cupy")
    many = np.arange(3000, dtype="float32")
    found = [run(x=many[:n] + n) for n in (3000, 2000, 3000, 10) * 40]
    for n, outputs in zip((3000, 2000, 3000, 10) * 40, found):
        right = many[:n] + n
        assert np.array_equal(outputs["many"], 2 * right)
        assert outputs["few"] == outputs["same"] == pytest.approx(right.sum(dtype="float64"), rel=1e-5)
        outputs["few"][...] = 7
        assert (float(outputs["few"]), float(outputs["same"])) != (7, 7)


def array(numbers: Any, dtype: str = "float32") -> GpuArray:
    return moved(gpu.device(), np.asarray(numbers, dtype))


def test_an_array_on_the_gpu_is_numpys_to_who_looks_at_it(device: gpu.Device) -> None:
    x, right = array([[1, 2, 3], [4, 5, 6]]), np.array([[1, 2, 3], [4, 5, 6]], "float32")
    assert (x.shape, x.dtype.name, x.ndim, x.size, x.nbytes, len(x)) == ((2, 3), "float32", 2, 6, 24, 2)
    assert type(np.asarray(x)) is np.ndarray
    assert np.asarray(x, "int64").tolist() == right.tolist()
    assert (x.argmax(axis=1) == [2, 2]).all()
    assert x.T.shape == (3, 2)
    for found, wanted in [
        (x + 1, right + 1),
        (1 - x, 1 - right),
        (x @ right.T, right @ right.T),
        (right * x, right * right),
        (np.exp(x), np.exp(right)),
        (np.add.reduce(x), right.sum(0)),
        (np.stack([x, x]), np.stack([right, right])),
        (x[1, ::2], right[1, ::2]),
        (list(x), list(right)),
        (pickle.loads(pickle.dumps(x)), right),
        (copy.deepcopy(x), right),
    ]:
        np.testing.assert_array_equal(found, wanted, strict=not isinstance(found, list))
    assert 3 in x
    assert str(x) == str(right)
    assert repr(x) == f"Gpu{right!r}"
    one = array(2)
    assert (float(one), int(one), bool(one), f"{one:.2f}") == (2.0, 2, True, "2.00")
    assert [5, 6, 7][array(1, "int64")] == 6
    with pytest.raises(TypeError, match="no length"):
        len(one)
    with pytest.raises(AttributeError, match="no 'spin'"):
        x.spin()
    with pytest.raises(ValueError, match="by a copy"):
        np.array(x, copy=False)


def test_an_array_on_the_gpu_is_written_to_there_or_not_at_all(device: gpu.Device) -> None:
    x = array([1, 2, 3])
    x[1:] = 7
    assert x.tolist() == [1, 7, 7]
    before = x
    x += array([1, 1, 1])
    assert x is before
    assert x.tolist() == [2, 8, 8]
    x *= 2
    assert x.tolist() == [4, 16, 16]
    host = np.zeros(3, "float32")
    assert np.add(x, x, out=host) is host
    assert host.tolist() == [8, 32, 32]
    for change in (x.sort, lambda: x.fill(0)):
        with pytest.raises(ValueError, match="read-only"):
            change()


def test_other_libraries_take_an_array_where_it_lies(processor: Processor) -> None:
    x = array([[1, 2], [3, 4]])
    taken = np.from_dlpack(x)
    taken[0, 0] = 9
    assert x.tolist() == [[9, 2], [3, 4]]
    told = x.__cuda_array_interface__
    assert told["data"] == (taken.ctypes.data, False)
    assert (told["shape"], told["typestr"], told["version"]) == ((2, 2), "<f4", 3)


@pytest.mark.parametrize("how", ["__dlpack__", "__cuda_array_interface__"])
def test_the_stream_of_another_library_waits_for_what_it_takes(how: str, cupy: Any) -> None:
    infer, image = answering(classifier().init(seed=0), "cupy"), batch()["image"]
    wanted = np.asarray(infer(image=image)["logits"])
    logits, theirs = infer(image=image)["logits"], cupy.gpu.streams[0]
    if how == "__dlpack__":
        address, form = logits.__dlpack__(stream=theirs.ptr)
        assert form == (wanted.shape, wanted.dtype)
        assert logits.__dlpack_device__() == (2, 0)
    else:
        address, _ = logits.__cuda_array_interface__["data"]
    theirs.synchronize()
    assert ctypes.string_at(address, wanted.nbytes) == wanted.tobytes()


def test_an_output_becomes_an_input(cupy: Any) -> None:
    """On the GPU, and on other backends."""
    net = mg.Builder("doubled")
    graph = net.build(y=2 * net.input("x", (3,)))
    here, there = mg.compile(graph, State(), "cupy"), mg.compile(graph, State(), "numpy")
    y = np.ones(3, "float32")
    for _ in range(5):
        y = here(x=y)["y"]
    assert y.tolist() == there(x=np.full(3, 16, "float32"))["y"].tolist() == [32] * 3
    assert there(x=y)["y"].tolist() == [64] * 3


def test_a_step_waits_for_what_the_caller_has_begun_on_the_gpu(cupy: Any) -> None:
    """Whose kernels may still read an output that is already given up."""
    infer, image = answering(classifier().init(seed=0), "cupy"), batch()["image"]
    infer(image=image)
    done: list[int] = []
    cupy.gpu.streams[-1].add(lambda: done.append(1))
    np.asarray(infer(image=image)["logits"])
    assert done == [1]


@pytest.mark.parametrize("eager", [False, True])
def test_the_caller_may_write_to_an_input_when_the_call_has_returned(eager: bool, cupy: Any) -> None:
    """On a stream of its own, which does not wait for the call by itself; or give it back, and be given it anew."""
    cupy.gpu.eager = eager
    infer, image = answering(classifier().init(seed=0), "cupy"), batch()["image"]
    wanted = np.asarray(infer(image=image)["logits"])
    theirs, numbers = cupy.gpu.streams[0], image.copy()
    found = infer(image=Foreign(numbers))["logits"]
    theirs.add(lambda: numbers.fill(0))
    theirs.synchronize()
    assert not numbers.any()
    assert np.array_equal(found, wanted)


def test_pinned_memory_is_held_until_it_was_read(cupy: Any) -> None:
    """Also where the program is gone by then."""
    program, _ = counting(4, "cupy")
    program(x=5)
    device = DEVICE()
    device.finish()
    program(x=6)
    uploading = device._uploading  # type: ignore[attr-defined]
    del program
    assert [moment.done for moment, _ in uploading] == [False]
    device.finish()
    other, _ = counting(4, "cupy")
    other(x=1)
    assert len(uploading) == 1


# indices


def test_a_call_whose_labels_fit_waits_for_no_verdict(processor: Processor) -> None:
    state = classifier().init(seed=0)
    train, given = training(state, "cupy"), batch()
    on_gpu = {name: moved(processor, x) for name, x in given.items()}
    foreign = {name: Foreign(x) for name, x in given.items()}
    train(**given)
    for inputs, waits in ((given, 0), (on_gpu, 0), (foreign, 1)):
        processor.events.clear()
        train(**inputs)
        assert processor.events.count("read") == waits
    on_gpu["label"].__cuda_array_interface__  # noqa: B018 (somebody may write to it from now on)
    processor.events.clear()
    train(**on_gpu)
    assert processor.events.count("read") == 1


def places(graph: Graph, **sizes: int) -> Any:
    return indices(lower(graph.bind(**sizes) if sizes else graph))


def test_which_inputs_are_indices_and_of_what() -> None:
    assert places(step_of("mlp"), N=4) == {"label": (0, 2)}
    net = mg.Builder("picked")
    table, tokens, n = net.input("table", (7, 3)), net.input("tokens", ("N", 2), "int32"), net.input("n", (4,), "int64")
    fixed = net.constant(np.array([0, -7]))
    turned = mg.gather(table, mg.transpose(tokens))
    assert places(net.build(y=turned), N=5) == {"tokens": (-7, 6)}
    assert places(net.build(y=turned, z=mg.one_hot(tokens, 5)), N=5) == {"tokens": (0, 4)}
    assert places(net.build(y=mg.gather(table, fixed))) == {}
    assert places(net.build(y=mg.gather(table, n + 1))) is None
    assert places(net.build(y=mg.exp(table))) == {}


class Noted:
    """In place of NVRTC: machine code is what it was asked for."""

    NVRTCError = RuntimeError
    getVersion, getSupportedArchs = staticmethod(lambda: (13, 5)), staticmethod(lambda: (80, 90))

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def createProgram(self, text: str, *given: Any) -> str:
        return text

    def compileProgram(self, text: str, options: tuple[str, ...]) -> None:
        self.asked.append(options)

    def getProgramLog(self, text: str) -> str:
        return "no such word"

    def getCUBIN(self, text: str) -> bytes:
        return b"cubin of " + text.encode()

    def getPTX(self, text: str) -> bytes:
        return b"ptx of " + text.encode()

    def destroyProgram(self, text: str) -> None: ...


def module_of(text: str, header: Path) -> Module:
    return Module(("prelude.cuh",), {f'#include "{header.name}"': header}, {}, {"f": text})


def test_machine_code_is_kept_by_all_that_went_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    nvrtc, header = Noted(), tmp_path / "op.h"
    header.write_text("one")
    module, other = module_of("text", header), module_of("more", header)
    code = lambda modules, capability: compiled(nvrtc, Source(tuple(modules), ()), capability)
    (first,) = code([module], 90)
    assert first.read_bytes() == b"cubin of " + module.text.encode()
    assert code([module], 90) == [first]
    assert len(nvrtc.asked) == 1
    assert {"-std=c++20", "-arch=sm_90", f"-I{tmp_path}"} <= set(nvrtc.asked[0])
    header.write_text("two")
    others = [first, *code([module], 90), *code([other], 90), *code([module], 80), *code([module], 100)]
    assert len(set(others)) == len(others)
    assert others[-1].read_bytes() == b"ptx of " + module.text.encode()
    assert "-arch=compute_90" in nvrtc.asked[-1]
    with pytest.raises(GraphError, match=r"13\.5 compiles for compute capability 8\.0 and more, and this GPU has 7\.0"):
        code([module], 70)
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="compiled programs cannot be kept in"):
        assert code([module], 90)[0].read_bytes() == b"cubin of " + module.text.encode()


def test_modules_that_are_there_are_not_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of another program as well."""
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    nvrtc, header = Noted(), tmp_path / "op.h"
    header.touch()
    modules = [module_of(f"text {i}", header) for i in range(5)]
    first = compiled(nvrtc, Source(tuple(modules[:3]), ()), 90)
    second = compiled(nvrtc, Source(tuple(modules[1:]), ()), 90)
    assert second[:2] == first[1:]
    assert len(nvrtc.asked) == 5
    assert [file.read_bytes() for file in second] == [b"cubin of " + module.text.encode() for module in modules[1:]]


class Together(Noted):
    """Each compilation waits until so many have begun."""

    def __init__(self, count: int):
        super().__init__()
        self.barrier = threading.Barrier(count, timeout=60)

    def compileProgram(self, text: str, options: tuple[str, ...]) -> None:
        self.barrier.wait()


class Waiting(Noted):
    """Each compilation waits until something was said."""

    def __init__(self, said: io.StringIO):
        super().__init__()
        self.said = said

    def compileProgram(self, text: str, options: tuple[str, ...]) -> None:
        while not self.said.getvalue():
            time.sleep(0.001)


def test_modules_are_compiled_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIGRAPH_THREADS", "3")
    header = tmp_path / "op.h"
    header.touch()
    source = Source(tuple(module_of(f"text {i}", header) for i in range(3)), ())
    assert len(compiled(Together(3), source, 90)) == 3
    assert capsys.readouterr().err == ""


def test_what_takes_long_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler, "PATIENCE", 0.0)
    said, header = io.StringIO(), tmp_path / "op.h"
    monkeypatch.setattr(sys, "stderr", said)
    header.touch()
    compiled(Waiting(said), Source(tuple(module_of(f"text {i}", header) for i in range(3)), ()), 90)
    wanted = "minigraph: NVRTC compiles 3 kernels for this GPU; the next time they are there already\n"
    assert said.getvalue() == wanted


def test_a_module_that_is_refused_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIGRAPH_THREADS", "1")

    class Refusing(Noted):
        def compileProgram(self, text: str, options: tuple[str, ...]) -> None:
            super().compileProgram(text, options)
            if "text 1" in text:
                raise self.NVRTCError
            time.sleep(0.1)

    nvrtc, header = Refusing(), tmp_path / "op.h"
    header.touch()
    with pytest.raises(GraphError, match=r"NVRTC refuses a program, .* no such word"):
        compiled(nvrtc, Source(tuple(module_of(f"text {i}", header) for i in range(50)), ()), 90)
    assert len(nvrtc.asked) < 50


def test_a_fork_does_not_reach_the_gpu(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program, state = counting(4, "cupy")
    program(x=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        for use in (lambda: state["a"], lambda: program(x=1)):
            with pytest.raises(GraphError, match="a process that was forked reaches no GPU"):
                use()
    program(x=1)
    assert numbers_of(state) == {2}


# inputs


class Foreign:
    """An array that another library has on the GPU."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "version": 3,
        }


def test_what_lies_on_the_gpu_stays_there(processor: Processor) -> None:
    state = classifier().init(seed=0)
    infer = answering(state, "cupy")
    image = batch()["image"]
    wanted = np.asarray(infer(image=image)["logits"])
    processor.events.clear()
    assert np.array_equal(infer(image=Foreign(image))["logits"], wanted)
    assert processor.events == ["copy", "replay", "copy", "read"]
    assert np.array_equal(infer(image=Foreign(image.astype("float64")))["logits"], wanted)
    with pytest.raises(GraphError, match=r"input 'image' is float32\[N, 4\].*; got shape \(6, 3\)"):
        infer(image=Foreign(np.ascontiguousarray(image[:, :3])))
    assert np.allclose(infer.values(["logits"], image=Foreign(image))["logits"], wanted, atol=1e-5)
    assert infer.first_not_finite(image=Foreign(image)) is None
    with pytest.raises(GraphError, match="input 'image' lies on a GPU, where this program does not run"):
        answering(state, "numpy")(image=Foreign(image))
    train = training(state, "cupy")
    with pytest.raises(GraphError, match=r"label 7 at \[4\] is outside of 0 to 2"):
        train(image=Foreign(image), label=Foreign(np.array([0, 1, 2, 0, 7, 1])))


def test_bfloat16_of_other_libraries_has_no_name(processor: Processor) -> None:
    """They call it two bytes, of which the declared dtype tells what they are."""
    net = mg.Builder("doubled")
    graph, x = net.build(y=2 * net.input("x", (3,), "bfloat16")), np.array([1, -0.5, 3e38], "bfloat16")
    program = mg.compile(graph, State(), "cupy")
    wanted = np.asarray(program(x=x)["y"])
    assert (wanted.dtype, wanted.tolist()) == (x.dtype, [2, -1, np.inf])
    processor.events.clear()
    assert np.asarray(program(x=Foreign(x))["y"]).tobytes() == wanted.tobytes()
    assert processor.events == ["copy", "replay", "copy", "read"]
    single = mg.compile(mg.parse(str(graph).replace("bfloat16", "float32")), State(), "cupy")
    with pytest.raises(GraphError, match=r"input 'x' is float32\[3\]; got \|V2"):
        single(x=Foreign(x))


# MINIGRAPH_CHECK=1


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_are_checked_one_by_one(name: str, processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = step_of(name)
    states = []
    for check in ("1", "0"):
        monkeypatch.setenv("MINIGRAPH_CHECK", check)
        processor.events.clear()
        states.append(state := graph.init(seed=0))
        program = mg.compile(graph, state, "cupy", pipeline=())
        outputs = [program(**data(graph, 5, step)) for step in range(2)]
        assert ("capture" in processor.events) == (check == "0")
        assert np.isfinite(outputs[1]["loss"])
    assert contents(states[0]) == contents(states[1])


def test_a_wrong_input_is_found_in_checked_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CHECK", "1")
    in_c.test_a_bad_label_leaves_the_state_to_the_byte("cupy", 3)


def pointed() -> mg.Program:
    net = mg.Builder("pointed")
    x = net.input("x", (8,))
    return mg.compile(net.build(y=mg.exp(x)), State(), "cupy")


def nothing(launch: Callable[..., None], *given: Any) -> None:
    """A kernel that does nothing."""


def beyond(launch: Callable[..., None], kernel: Any, grid: Any, addresses: list[int]) -> None:
    """A kernel that writes a number more."""
    launch(kernel, grid, addresses)
    ctypes.memset(addresses[-1] + 32, 0, 4)


def back(launch: Callable[..., None], kernel: Any, grid: Any, addresses: list[int]) -> None:
    """A kernel that writes to what it reads."""
    launch(kernel, grid, addresses)
    ctypes.memset(addresses[0], 0x11, 4)


BREAKS = [
    (nothing, "leaves 8 of the 8 numbers of 'y' unwritten"),
    (beyond, "writes 4 bytes behind 'y'"),
    (back, "changes 'x', which it is not to write"),
]


@pytest.mark.parametrize(("breaks", "says"), BREAKS, ids=lambda what: getattr(what, "__name__", ""))
def test_a_kernel_that_does_what_it_must_not_is_named(
    breaks: Callable[..., None], says: str, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIGRAPH_CHECK", "1")
    program = pointed()
    x = np.linspace(0, 1, 8, dtype="float32")
    np.testing.assert_allclose(program(x=x)["y"], np.exp(x), rtol=1e-5)
    monkeypatch.setattr(processor, "launch", partial(breaks, processor.launch))
    where = rf"'pointed': step 0 of the plan \(exp 'exp'\) {says}(?s:.)*test_cuda_program.py:\d+"
    with pytest.raises(GraphError, match=where):
        program(x=x)


# which backend


def told(monkeypatch: pytest.MonkeyPatch, error: GraphError) -> None:
    def none() -> Any:
        raise error

    monkeypatch.setattr(gpu, "device", none)


def small(backend: str) -> mg.Program:
    net = mg.Builder("small")
    return mg.compile(net.build(y=net.input("x", ()) + 1), State(), backend)


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_BACKEND", "auto")
    program = small("auto")
    assert program.backend == "cupy"
    assert repr(program) == "<Program 'small' on cupy>"
    assert "on cupy" in program.report.splitlines()[0]
    assert "not on" not in program.report
    monkeypatch.setenv("MINIGRAPH_BACKEND", "cupy")
    assert small("auto").backend == "cupy"
    told(monkeypatch, gpu.NoGpu("it is in the other machine"))
    with pytest.raises(GraphError, match="in the other machine"):
        small("auto")
    monkeypatch.setenv("MINIGRAPH_BACKEND", "auto")
    program = small("auto")
    assert program.backend == "c"
    assert "not on cupy: it is in the other machine" in program.report
    told(monkeypatch, gpu.NoCupy("is not installed"))
    assert "not on" not in small("auto").report  # somebody who did not ask for CuPy need not hear of it
    monkeypatch.setattr(choice, "compiler", lambda: (_ for _ in ()).throw(NoCompiler("nor is a compiler")))
    program = small("auto")
    assert program.backend == "numpy"
    assert "not on c: nor is a compiler" in program.report


def test_a_plan_is_that_of_the_last_call() -> None:
    program = training(classifier().init(), "cupy")
    with pytest.raises(GraphError, match="call the program first"):
        _ = program.plan
    program(**batch(6))
    assert "plan of 'classifier'" in str(program.plan)
    assert program.peak_bytes == program.plan.arena > 0


# errors


class CudaError(RuntimeError):
    """In place of CuPy's."""


def cupy_with(count: Callable[[], int], driver: int = 12_040, built: int = 13_020) -> Any:
    versions = {"driverGetVersion": lambda: driver, "runtimeGetVersion": lambda: built}
    return SimpleNamespace(
        cuda=SimpleNamespace(runtime=SimpleNamespace(CUDARuntimeError=CudaError, getDeviceCount=count, **versions))
    )


def refused() -> int:
    raise CudaError("cudaErrorInsufficientDriver")


ABSENT = [
    (None, gpu.NoGpu, r"CuPy cannot be loaded|CuPy is not installed: pip install 'minigraph\[cuda13\]'"),
    (cupy_with(lambda: 0), gpu.NoGpu, "no GPU: the driver names none"),
    (cupy_with(refused, driver=0), gpu.NoGpu, "no GPU: there is no NVIDIA driver .*InsufficientDriver"),
    (
        cupy_with(refused),
        gpu.NoGpu,
        r"the driver knows CUDA 12\.4, and this CuPy is built for CUDA 13\.2: .* pip install 'minigraph\[cuda12\]'",
    ),
    (cupy_with(refused, driver=11_080), gpu.NoGpu, r"knows CUDA 11\.8, .* CUDA 13\.2: install a newer driver \("),
    (cupy_with(refused, driver=13_020), gpu.NoGpu, "no GPU: the driver refuses .*InsufficientDriver"),
]


@pytest.mark.parametrize(
    ("cupy", "kind", "says"), ABSENT, ids=["no CuPy", "none", "no driver", "old driver", "older driver", "refused"]
)
def test_what_is_missing_is_said(cupy: Any, kind: type, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "device", DEVICE)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(kind, match=says):
        small("cupy")


def test_too_little_memory_is_said_with_the_batch_that_fits(
    processor: Processor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = Processor(folder, capacity=200_000)
    monkeypatch.setattr(gpu, "device", lambda: tight)
    graph = step_of("mlp")
    state = graph.init(seed=0)
    program = mg.compile(graph, state, "cupy")
    program(**data(graph, 4, 0))
    before = contents(state)
    says = r"'mlp' needs [\d.]+ MB of the GPU's memory for N = 20000, and 1\d\d kB are free; N = (\d+) fits"
    with pytest.raises(GraphError, match=says) as caught:
        program(**data(graph, 20_000, 0))
    assert contents(state) == before
    match = re.search(says, str(caught.value))
    assert match is not None
    fits = int(match[1])
    assert 100 < fits < 2000
    program(**data(graph, fits, 0))
    full = Processor(folder, capacity=1000)
    monkeypatch.setattr(gpu, "device", lambda: full)
    with pytest.raises(GraphError, match=r"of the GPU's memory are needed, and 1\.00 kB are free"):
        mg.compile(graph, graph.init(seed=0), "cupy")(**data(graph, 4, 0))
