"""Programs in C: which backend is taken and what is said of it, state that is written over in place, inputs, errors."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import GraphError, State, layers
from minigraph.backends.c import executable
from minigraph.backends.c.compiler import CompilerError, NoCompiler, compiled
from minigraph.core import state as states
from minigraph.driver import choice

C = pytest.param("c", marks=pytest.mark.compiler)
everywhere = pytest.mark.parametrize("backend", ["numpy", C])
in_c = pytest.mark.parametrize("backend", [C])


def classifier() -> mg.Graph:
    net = mg.Builder("classifier")
    image, label = net.input("image", ("N", 4)), net.input("label", ("N",), "int64")
    h = layers.batch_norm(layers.linear(image, 5, name="body"))
    logits = layers.linear(mg.tanh(h), 3, name="head")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def batch(n: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"image": rng.normal(size=(n, 4)).astype("float32"), "label": rng.integers(0, 3, n)}


def training(state: State, backend: str) -> mg.Program:
    return mg.compile(mg.training_step(classifier(), "loss", mg.optim.Adam(0.02)), state, backend)


def answering(state: State, backend: str) -> mg.Program:
    return mg.compile(mg.inference(classifier(), ["logits"]), state, backend)


def counting(size: int, backend: str) -> tuple[mg.Program, State]:
    """A program that adds x to all numbers of `a` and of `b`, which are equal before and after each step."""
    net = mg.Builder("counting")
    x = net.input("x", ())
    for name in ("a", "b"):
        variable = net.variable(name, (size,), mg.init.zeros)
        net.update(variable, variable + x)
    graph = net.build()
    state = graph.init()
    return mg.compile(graph, state, backend), state


def places(state: State) -> dict[str, int]:
    return {name: state[name].ctypes.data for name in state}


def contents(state: State) -> dict[str, bytes]:
    return {name: state[name].tobytes() for name in state}


def assert_near(found: Any, wanted: Any) -> None:
    assert set(found) == set(wanted)
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype
        # some ten sums of at most six float32 numbers of a size around 1
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


# what a program computes


@in_c
def test_training_in_c_is_training_on_numpy(backend: str) -> None:
    a, b = classifier().init(seed=0), classifier().init(seed=0)
    here, there = training(a, backend), training(b, "numpy")
    for n in (6, 3, 6, 7):
        assert_near(here(**batch(n, seed=n)), there(**batch(n, seed=n)))
        assert_near(a, b)
    assert here.backend == "c"
    assert repr(here) == "<Program 'classifier' on c>"
    assert "on c" in here.report.splitlines()[0]


@in_c
def test_a_program_trains_and_another_answers_in_turn(backend: str) -> None:
    """What the second computes once from the state, and packs, is that of each new step."""
    state = classifier().init(seed=0)
    train, infer = training(state, backend), answering(state, backend)
    image = batch(5, seed=9)["image"]
    for step in range(4):
        now = answering(State(state), "numpy")
        assert_near(infer(image=image), now(image=image))
        assert_near(infer(image=image), now(image=image))
        for _ in range(step):
            train(**batch(seed=step))


@in_c
def test_a_snapshot_program_stays_as_it_was(backend: str) -> None:
    state = classifier().init(seed=0)
    train = training(state, backend)
    still = mg.compile(mg.inference(classifier(), ["logits"]), state, backend, snapshot=True)
    image = batch()["image"]
    first = still(image=image)["logits"]
    train(**batch())
    assert np.array_equal(still(image=image)["logits"], first)
    assert not np.allclose(answering(state, "numpy")(image=image)["logits"], first)


@in_c
def test_inner_values_and_the_first_nan_come_from_the_references(backend: str) -> None:
    state = classifier().init(seed=0)
    train = training(state, backend)
    before = contents(state)
    got = train.values(["body.matmul", "loss"], **batch())
    assert_near({"loss": train(**batch())["loss"]}, {"loss": got["loss"]})
    assert contents(state) != before
    bad = batch()
    bad["image"][1, 2] = np.inf
    found = train.first_not_finite(**bad)
    assert found is not None
    assert "input 'image' has 1 infinite" in found


# state in place


@in_c
def test_state_that_nobody_holds_stays_where_it_lies(backend: str) -> None:
    state = classifier().init(seed=0)
    train = training(state, backend)
    there = places(state)
    before = contents(state)
    for n in (6, 6, 3):
        train(**batch(n))
        assert places(state) == there
    assert contents(state) != before


HOLDERS: dict[str, Callable[[State], Any]] = {
    "array": lambda state: state["a"],
    "view": lambda state: state["a"][3:].reshape(-1, 1),
    "buffer": lambda state: memoryview(state["a"].data),
    "snapshot": lambda state: state.copy(),
    "dict": lambda state: dict(state),
    "twin of a twin": lambda state: state.copy().copy(),
    "broadcast": lambda state: np.broadcast_to(state["a"], (2, state["a"].size)),
}


def numbers_of(held: Any) -> set[float]:
    array = held["a"] if isinstance(held, (State, dict)) else np.asarray(held)
    return set(array.ravel().tolist())


@everywhere
@pytest.mark.parametrize("how", HOLDERS)
def test_who_holds_an_array_keeps_its_numbers(backend: str, how: str) -> None:
    program, state = counting(8, backend)
    program(x=1)
    held = HOLDERS[how](state)
    for step in range(2, 5):
        program(x=1)
        assert numbers_of(held) == {1}
        assert numbers_of(state) == {step}
        assert not state["a"].flags.writeable
    if backend == "c":
        there = places(state)
        del held
        program(x=1)
        assert places(state) == there


@everywhere
def test_a_twin_moves_by_itself(backend: str) -> None:
    program, state = counting(8, backend)
    twin = state.copy()
    other = mg.compile(program.source, twin, backend)
    program(x=1)
    other(x=5)
    program(x=1)
    assert numbers_of(state) == {2}
    assert numbers_of(twin) == {5}


@everywhere
def test_two_programs_write_to_one_state_in_turn(backend: str) -> None:
    program, state = counting(8, backend)
    other = mg.compile(program.source, state, backend)
    there = places(state)
    for _ in range(3):
        program(x=1)
        other(x=10)
    assert numbers_of(state) == {33}
    assert backend != "c" or places(state) == there


@everywhere
def test_an_array_that_was_assigned_or_taken_over_is_used(backend: str) -> None:
    program, state = counting(4, backend)
    program(x=1)
    state["a"] = np.full(4, 7.0)
    program(x=1)
    assert numbers_of(state) == {8}
    large = np.zeros((4, 2), "float32")
    state.replace({"a": large[:, 0]})  # part of another array, which its owner writes to
    program(x=1)
    large[:] = 100
    program(x=1)
    assert numbers_of(state) == {2}
    assert large.min() == 100
    same = np.zeros(4, "float32")
    state.replace({"a": same, "b": same})  # one array under two names
    program(x=1)
    assert state["a"].tolist() == state["b"].tolist() == [1] * 4
    assert same.tolist() == [0] * 4


@everywhere
def test_where_counts_say_nothing_arrays_are_copied(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "COUNTS", False)
    program, state = counting(4, backend)
    held = state["a"]
    program(x=1)
    program(x=1)
    assert numbers_of(held) == {0}
    assert numbers_of(state) == {2}


def test_a_writer_in_the_middle_of_its_step_is_not_disturbed() -> None:
    """A signal handler may run in there."""
    state = State({"a": np.zeros(3)})

    def write(own: State) -> tuple[np.ndarray, State]:
        held, snapshot = state["a"], state.copy()
        own["a"].flags.writeable = True
        own["a"][:] = 1
        own["a"].flags.writeable = False
        with pytest.raises(GraphError, match="is not over"):
            state.in_place(["a"], lambda own: None)
        assert state["a"].tolist() == [1] * 3
        return held, snapshot

    held, snapshot = state.in_place(["a"], write)
    assert held.tolist() == snapshot["a"].tolist() == [0] * 3
    assert state["a"].tolist() == [1] * 3
    with pytest.raises(ZeroDivisionError):
        state.in_place(["a"], lambda own: 1 / 0)
    assert state.in_place(["a"], lambda own: 5) == 5


def test_the_version_tells_whether_arrays_are_others() -> None:
    state = State({"a": np.zeros(3), "b": np.zeros(3)})
    version = state.version
    state.in_place(["a"], lambda own: None)
    assert state.copy().version is state.version is version
    held = state["a"]
    state.in_place(["a"], lambda own: None)
    assert state.version is not version
    assert state["a"] is not held
    for change in (lambda: state.update(a=held), lambda: state.replace({"a": held}), lambda: state.pop("b")):
        version = state.version
        change()
        assert state.version is not version


@everywhere
def test_an_interrupt_comes_before_a_step_or_after(backend: str) -> None:
    program, state = counting(2000, backend)
    program(x=1)
    delays = np.random.default_rng(0).uniform(2e-6, 3e-4, 300)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def until_stopped(delay: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, delay)
        while True:
            program(x=1)

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for delay in delays:
            with pytest.raises(KeyboardInterrupt):
                until_stopped(delay)
            assert numbers_of(state["a"]) == numbers_of(state["b"])
            assert len(numbers_of(state["a"])) == 1
    finally:
        signal.signal(signal.SIGALRM, before)
    there = state["a"][0]
    program(x=1)
    assert numbers_of(state) == {there + 1}


# threads


def running(*works: Callable[[], object]) -> None:
    failures: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures, failures


@everywhere
def test_two_programs_in_two_threads_lose_no_step(backend: str) -> None:
    program, state = counting(5000, backend)
    other = mg.compile(program.source, state, backend)

    running(*(lambda run=run: [run(x=1) for _ in range(200)] for run in (program, other)))
    assert numbers_of(state) == {400}


@everywhere
def test_readers_in_other_threads_see_whole_steps(backend: str) -> None:
    program, state = counting(20_000, backend)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    done = threading.Event()

    def write() -> None:
        try:
            for _ in range(150):
                program(x=1)
        finally:
            done.set()

    def read() -> None:
        while not done.is_set():
            snapshot = state.copy()
            kept.append((snapshot["a"], snapshot["b"]))
            array = state["a"]
            assert array.min() == array.max()
            del kept[:-20]

    running(write, read)
    for a, b in kept:
        assert a.min() == a.max() == b.min() == b.max()


@in_c
def test_a_program_answers_while_another_trains(backend: str) -> None:
    """Each answer belongs to one step, whatever the other thread does in the meantime."""
    net = mg.Builder()
    a, b = (net.variable(name, (3000,), mg.init.zeros) for name in "ab")
    ask = net.build(low=mg.min(a - b), high=mg.max(a - b), first=mg.min(a))
    program, state = counting(3000, backend)
    reader = mg.compile(ask, state, backend)
    seen: list[float] = []

    def read() -> None:
        for _ in range(150):
            found = reader()
            assert found["low"] == found["high"] == 0
            seen.append(float(found["first"]))

    running(lambda: [program(x=1) for _ in range(150)], read)
    assert seen == sorted(seen)


# errors


@everywhere
@pytest.mark.parametrize("label", [3, -1, 2**40])
def test_a_bad_label_leaves_the_state_to_the_byte(backend: str, label: int) -> None:
    state = classifier().init(seed=0)
    train = training(state, backend)
    train(**batch())
    before = contents(state)
    wrong = batch()
    wrong["label"][4] = label
    sentence = rf"(?s)cross_entropy 'cross_entropy'.*label {label} at \[4\] is outside of 0 to 2.*test_c_program.py:\d+"
    for _ in range(2):
        with pytest.raises(GraphError, match=sentence):
            train(**wrong)
        assert contents(state) == before
    train(**batch())
    assert contents(state) != before


@everywhere
def test_sizes_that_a_node_cannot_have_are_refused(backend: str) -> None:
    state = classifier().init()
    train = training(state, backend)
    train(**batch(2))
    before = contents(state)
    with pytest.raises(GraphError, match=r"(?s)one number for each channel.*N = 1.*test_c_program.py:\d+"):
        train(**batch(1))
    assert contents(state) == before


@everywhere
def test_state_that_went_away_or_changed_its_form_is_named(backend: str) -> None:
    program, state = counting(4, backend)
    program(x=1)
    del state["a"]
    with pytest.raises(GraphError, match="no longer has 'a'"):
        program(x=1)
    state["a"] = np.zeros(5, "float32")
    with pytest.raises(GraphError, match=r"state a: float32\[4\] has become float32\[5\]"):
        program(x=1)
    del state["a"]
    state["a"] = np.zeros(4, "float32")
    program(x=1)
    assert state["a"].tolist() == [1] * 4


# inputs and outputs


@in_c
def test_inputs_lie_anywhere(backend: str) -> None:
    infer = answering(classifier().init(seed=0), backend)
    image = batch(6)["image"]
    wanted = infer(image=image)["logits"]
    odd = np.frombuffer(bytearray(1 + image.nbytes), np.uint8)[1:].view("float32").reshape(6, 4)
    odd[:] = image
    assert not odd.flags.aligned
    wide = np.zeros((6, 9), "float32")
    wide[:, 1::2] = image
    read_only = image.copy()
    read_only.flags.writeable = False
    for given in (odd, wide[:, 1::2], np.asfortranarray(image), image.astype("float64"), image.tolist(), read_only):
        assert np.array_equal(infer(image=given)["logits"], wanted)
    assert np.array_equal(infer(image=image.astype(">f4"))["logits"], wanted)


@in_c
def test_an_input_that_was_written_to_is_read_anew(backend: str) -> None:
    """Also where a kernel reads it in another order, which it is brought into first."""
    net = mg.Builder()
    a, b = net.input("a", (40, 30)), net.input("b", (30, 50))
    run = mg.compile(net.build(y=a @ b), State(), backend)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 30)).astype("float32"), rng.normal(size=(30, 50)).astype("float32")
    for _ in range(3):
        np.testing.assert_allclose(run(a=x, b=y)["y"], x @ y, rtol=1e-4, atol=1e-4)
        x[:] = rng.normal(size=x.shape)
        y[:] = rng.normal(size=y.shape)


@everywhere
def test_outputs_are_the_callers_own(backend: str) -> None:
    net = mg.Builder()
    x, w = net.input("x", (2, 2)), net.parameter("w", (2, 2), mg.init.constant(1.0))
    net.update(w, x)
    outputs = {"x": x, "w": w, "flat": mg.reshape(x, (4,)), "again": mg.reshape(x, (4,)), "turned": mg.transpose(w)}
    run = mg.compile(net.build(outputs), state := net.build().init(), backend)
    given = np.arange(4, dtype="float32").reshape(2, 2)
    found = run(x=given)
    arrays = [given, state["w"], *found.values()]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
    for array in found.values():
        array[:] = 99
    assert state["w"].tolist() == [[0, 1], [2, 3]]
    assert found["w"] is not run(x=given)["w"]
    assert run(x=given)["turned"].tolist() == [[0, 2], [1, 3]]


# the choice of a backend


@pytest.fixture
def auto(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MINIGRAPH_BACKEND", raising=False)
    choice._say_once.cache_clear()
    yield
    choice._say_once.cache_clear()


def tiny(backend: str = "auto") -> mg.Program:
    net = mg.Builder()
    return mg.compile(net.build(y=net.input("x", ("N",)) * 2.0), State(), backend)


@in_c
def test_auto_is_c_where_a_compiler_answers(auto: None, backend: str) -> None:
    program = tiny()
    assert program.backend == backend
    assert program(x=[1, 2])["y"].tolist() == [2, 4]
    assert "not on c" not in program.report


@pytest.mark.parametrize("error", [NoCompiler("there is none: install one"), CompilerError("$CC does not work")])
def test_without_a_compiler_auto_is_numpy_and_says_so_once(
    auto: None, error: GraphError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler() -> None:
        raise error

    monkeypatch.setattr(choice, "compiler", no_compiler)
    with caplog.at_level(logging.WARNING, "minigraph"):
        programs = [tiny() for _ in range(3)]
    assert [record.getMessage() for record in caplog.records] == [f"programs run on NumPy, which is slower: {error}"]
    for program in programs:
        assert program.backend == "numpy"
        assert f"not on c: {error}" in program.report
        assert program(x=[3])["y"].tolist() == [6]
    with pytest.raises(type(error), match=str(error).replace("$", r"\$")):
        tiny("c")


WITHOUT = """
import numpy as np
import minigraph as mg
from minigraph.backends.c import compiler
from test_c_program import batch, training, classifier

compiler.find_spec = lambda name: None  # nor is there a wheel
state = classifier().init(seed=0)
train = training(state, "auto")
for n in (6, 3):
    print(train(**batch(n))["loss"].tobytes().hex())
print(train.backend)
print(train.report)
"""


def test_on_a_machine_without_a_compiler_all_runs_on_numpy(tmp_path: Path) -> None:
    """To the same numbers, and the report says why in one sentence."""
    unset = ("CC", "MINIGRAPH_BACKEND", "MINIGRAPH_ISA")
    settings = {name: value for name, value in os.environ.items() if name not in unset}
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    settings.update(PATH=str(tmp_path), MINIGRAPH_CACHE=str(tmp_path), PYTHONPATH=os.pathsep.join(folders))
    done = subprocess.run([sys.executable, "-c", WITHOUT], env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second, backend, *report = done.stdout.splitlines()
    train = training(classifier().init(seed=0), "numpy")
    assert [train(**batch(n))["loss"].tobytes().hex() for n in (6, 3)] == [first, second]
    assert backend == "numpy"
    why = "there is no C compiler that works; install gcc or clang, or `pip install ziglang`"
    assert [line.startswith(f"not on c: {why}") for line in report if "not on c" in line] == [True]
    assert done.stderr.count(why) == 1


@in_c
def test_an_op_without_a_kernel_runs_on_numpy(auto: None, backend: str) -> None:
    mirror = mg.Op("mirror", lambda x, /: x, lambda x: x[::-1].copy())
    try:
        net = mg.Builder()
        graph = net.build(y=mirror(net.input("x", (3,))))
        program = mg.compile(graph, State())
        assert program.backend == "numpy"
        assert program(x=[1, 2, 3])["y"].tolist() == [3, 2, 1]
        assert "not on c: mirror 'mirror': has neither a kernel nor an expansion" in program.report
        with pytest.raises(GraphError, match="mirror 'mirror': has neither a kernel nor an expansion"):
            mg.compile(graph, State(), backend)
    finally:
        del mg.OPS["mirror"]


def test_the_environment_says_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_BACKEND", "numpy")
    assert tiny().backend == "numpy"
    monkeypatch.setenv("MINIGRAPH_BACKEND", "abacus")
    with pytest.raises(GraphError, match="MINIGRAPH_BACKEND is one of auto, cupy, c, numpy, not 'abacus'"):
        tiny()
    assert tiny("numpy").backend == "numpy"


@in_c
def test_the_plan_is_that_of_the_last_call(backend: str) -> None:
    state = classifier().init()
    train = training(state, backend)
    with pytest.raises(GraphError, match="call the program first"):
        _ = train.plan
    train(**batch(6))
    assert "plan of 'classifier'" in str(train.plan)
    assert "N <= 6" in str(train.plan)
    assert train.peak_bytes == train.plan.arena > 0
    train(**batch(4))
    assert "N <= 6" in str(train.plan)


def test_numpy_has_no_plan() -> None:
    with pytest.raises(GraphError, match="NumPy computes node by node"):
        _ = tiny("numpy").plan


# larger and larger batches


@in_c
def test_a_larger_batch_takes_memory_for_it_and_the_same_library(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []

    def counting(text: str, headers: Sequence[Path]) -> ctypes.CDLL:
        texts.append(text)
        return compiled(text, headers)

    monkeypatch.setattr(executable, "compiled", counting)
    programs = {name: training(classifier().init(), name) for name in ("numpy", backend)}
    for n in (32, 40, 64, 33, 100, 1000, 7):
        found = {name: program(**batch(n)) for name, program in programs.items()}
        np.testing.assert_allclose(found[backend]["loss"], found["numpy"]["loss"], rtol=1e-4)
    assert len(texts) == 1
    arenas = []
    for n in (32, 64, 1000):
        alone = training(classifier().init(), backend)
        alone(**batch(n))
        arenas.append(alone.peak_bytes)
    assert arenas[0] < arenas[1] < arenas[2] == programs[backend].peak_bytes


@in_c
def test_one_number_of_much_work_is_written_once(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is computed from the number that it is written over, which a second thread would find changed."""
    monkeypatch.setenv("MINIGRAPH_THREADS", "4")
    net = mg.Builder("added up")
    x, y = net.input("x", (1, 5000), "float64"), net.input("y", (5000, 1), "float64")
    total = net.variable("total", (1, 1), mg.init.zeros, "float64")
    net.update(total, total + mg.matmul(x, y))
    graph = net.build()
    state = graph.init()
    program = mg.compile(graph, state, backend)
    for _ in range(100):
        program(x=np.ones((1, 5000)), y=np.ones((5000, 1)))
    assert state["total"].item() == 500_000
