"""Programs in C while threads, forks, exits and interrupts come between: no crash, no hang, and nothing half done.

What is trained counts its steps, and a serial training has written down the state after each: a state is whole if it is
to the bit the one of its count. What may crash or hang runs in a process of its own.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_compile import norm_behind_relu

import minigraph as mg
from minigraph import layers
from minigraph.backends.c.threads import threads as threads_now
from minigraph.driver import program as drivers

pytestmark = [
    pytest.mark.compiler,
    # an interrupt may come between the opening of a file, folder or process and the `with` that closes it
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

STEPS = 30
nightly = pytest.mark.nightly
short_and_long = lambda short, long: pytest.mark.parametrize("times", [short, pytest.param(long, marks=nightly)])
on_threads = pytest.mark.parametrize("threads", ["1", "2"])


@pytest.fixture(autouse=True)
def _one_cache(tmp_path_factory, monkeypatch):
    """What one test compiles the next ones find, in other processes too."""
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path_factory.getbasetemp() / "programs"))


# what is trained


@functools.cache
def network() -> mg.Graph:
    net = mg.Builder("small")
    image, label = net.input("image", ("N", 2, 6, 6)), net.input("label", ("N",), "int64")
    h = layers.conv2d(image, 4, 3, padding="same", bias=False)
    h = mg.max_pool(mg.relu(layers.batch_norm(h)), 2)
    logits = layers.linear(layers.dropout(mg.flatten(h), 0.3), 3)
    count = net.variable("count", (), mg.init.zeros, "int64", "counter")
    net.update(count, count + 1)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), count=count)


def trained(state: mg.State | None = None) -> mg.Program:
    step = mg.training_step(network(), "loss", mg.optim.Adam(1e-2))
    return mg.compile(step, network().init(seed=0) if state is None else state, "c")


def answering(state: mg.State) -> mg.Program:
    return mg.compile(mg.inference(network(), ["logits", "count"]), state, "c")


@functools.cache
def given(number: int) -> Mapping[str, np.ndarray]:
    """The batch of a step; some are shorter."""
    n = (8, 8, 5)[number % 3]
    rng = np.random.default_rng(number)
    return {"image": rng.normal(size=(n, 2, 6, 6)).astype("float32"), "label": rng.integers(0, 3, n)}


def contents(state: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    return {name: state[name].tobytes() for name in state}


@functools.cache
def path(threads: str) -> list[mg.State]:
    """The states after 0, 1, 2, ... steps of a training that nobody disturbs, on so many threads."""
    program = trained()
    states = [program.state.copy()]
    for number in range(STEPS + 5):
        program(**given(number))
        states.append(program.state.copy())
    return states


def count_of(state: Mapping[str, np.ndarray]) -> int:
    return int(state["count"])


def is_whole(state: mg.State) -> bool:
    now = state.copy()
    return contents(now) == contents(path(os.environ["MINIGRAPH_THREADS"])[count_of(now)])


def on(program: mg.Program, steps: int) -> None:
    """So many steps of the path more."""
    for number in range(count_of(program.state), count_of(program.state) + steps):
        program(**given(number))


# Python threads


def together(*works: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(works)) as executor:
        return [future.result() for future in [executor.submit(work) for work in works]]


@on_threads
@short_and_long(1, 60)
def test_programs_of_their_own_states_do_not_disturb_each_other(times, threads, monkeypatch):
    monkeypatch.setenv("MINIGRAPH_THREADS", threads)
    path(threads)
    for _ in range(times):
        programs = [trained() for _ in range(3)]
        together(*(functools.partial(on, program, STEPS) for program in programs))
        assert [count_of(program.state) for program in programs] == [STEPS] * 3
        assert all(is_whole(program.state) for program in programs)


@on_threads
@pytest.mark.parametrize("programs", [1, 2])
@short_and_long(1, 60)
def test_steps_on_one_state_come_one_after_the_other(times, programs, threads, monkeypatch):
    """In whatever order: done again in that order, one by one, they give the same losses and the same state."""
    monkeypatch.setenv("MINIGRAPH_THREADS", threads)

    def steps(program: mg.Program, numbers: range) -> list[tuple[int, int, bytes]]:
        done = []
        for number in numbers:
            found = program(**given(number))
            done.append((int(found["count"]), number, found["loss"].tobytes()))
        return done

    def two(state: mg.State) -> list[mg.Program]:
        first = trained(state)
        return [first, first if programs == 1 else trained(state)]

    for _ in range(times):
        state = network().init(seed=0)
        first, second = two(state)
        mine, others = range(STEPS), range(STEPS, 2 * STEPS)
        done = together(functools.partial(steps, first, mine), functools.partial(steps, second, others))
        order = sorted([*done[0], *done[1]])
        assert [count for count, _, _ in order] == list(range(2 * STEPS))
        again = network().init(seed=0)
        by = two(again)
        for count, number, loss in order:
            assert by[number // STEPS](**given(number))["loss"].tobytes() == loss, count
        assert contents(state) == contents(again)


@on_threads
@short_and_long(1, 40)
def test_an_answer_belongs_to_one_step(times, threads, monkeypatch):
    monkeypatch.setenv("MINIGRAPH_THREADS", threads)
    image = given(100)["image"]
    right = [answering(mg.State(state))(image=image)["logits"].tobytes() for state in path(threads)]
    for _ in range(times):
        program = trained()
        infer, other = answering(program.state), answering(program.state)

        def asks(infer: mg.Program) -> list[int]:
            seen: list[int] = []
            while not seen or seen[-1] < STEPS:
                found = infer(image=image)
                seen.append(int(found["count"]))
                assert found["logits"].tobytes() == right[seen[-1]]
            return seen

        _, *counts = together(
            functools.partial(on, program, STEPS), functools.partial(asks, infer), functools.partial(asks, other)
        )
        assert counts == [sorted(each) for each in counts]


# processes


def process(function: str, threads: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A process that runs a function of this file. One that hangs is ended, and its status is not 0."""
    command = [sys.executable, "-c", f"import test_c_stress as t; t.{function}({', '.join(map(repr, arguments))})"]
    settings = {**os.environ, "MINIGRAPH_THREADS": threads, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=600)


def ended(child: int, seconds: float = 30) -> int:
    """The exit status of a child, which is killed if it takes longer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def child(work: Callable[[], bool]) -> int:
    """Fork a child whose status is 0 if the work gives True."""
    made = os.fork()
    if made == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return made


def goes_on(program: mg.Program, infer: mg.Program) -> bool:
    """Whether the state is whole, and the programs work."""
    whole = is_whole(program.state)
    on(program, 3)
    again = trained()
    on(again, 2)
    answers = infer(image=given(0)["image"])["logits"].shape == (8, 3)
    return whole and answers and is_whole(program.state) and is_whole(again.state)


def forks_after_use() -> None:
    program = trained()
    infer = answering(program.state)
    on(program, 5)
    children = [child(lambda: goes_on(program, infer)) for _ in range(2)]
    assert goes_on(program, infer)  # at the same time
    assert [ended(each) for each in children] == [0, 0]


def forks_in_mid_step(times: int) -> None:
    program = trained()
    infer = answering(program.state)
    path(os.environ["MINIGRAPH_THREADS"])
    goes_on(program, infer)  # now all is compiled
    over = threading.Event()

    def trains() -> None:
        start = program.state.copy()
        while not over.is_set():
            on(program, 1)
            if count_of(program.state) >= STEPS:
                program.state.replace(dict(start))

    def asks() -> None:
        while not over.is_set():
            infer(image=given(1)["image"])

    works = [threading.Thread(target=work) for work in (trains, asks)]
    for work in works:
        work.start()
    rng = random.Random(0)
    failed = []
    for number in range(times):
        time.sleep(rng.uniform(0, 0.003))
        goes = functools.partial(goes_on, program, infer)
        in_new_thread = lambda goes=goes: together(goes)[0]  # which may have the number of one that is not there
        failed.append(ended(child(in_new_thread if number % 2 else goes)))
    over.set()
    for work in works:
        work.join()
    assert failed == [0] * times, failed
    assert is_whole(program.state)


def test_a_child_that_was_forked_after_use_trains():
    done = process("forks_after_use", "2")
    assert done.returncode == 0, done.stderr


@on_threads
@short_and_long(8, 200)
def test_a_child_that_was_forked_in_mid_step_has_a_whole_state_and_trains(times, threads):
    """Other threads are in the middle of a step of training, and of an answer: the child does not have them."""
    done = process("forks_in_mid_step", threads, times)
    assert done.returncode == 0, done.stderr


def forks_while_an_exported_program_runs(folder: str) -> None:
    net = mg.Builder("far")
    mg.compile(net.build(y=mg.tanh(net.input("x", (100_000,)))), mg.State(), "c").export(folder)
    program = mg.load_program(folder)
    x = np.linspace(-1, 1, 100_000)
    right = program(x=x)["y"].tobytes()
    over = threading.Event()

    def runs() -> None:
        while not over.is_set():
            program(x=x)

    running = threading.Thread(target=runs)
    running.start()
    statuses = [ended(child(lambda: program(x=x)["y"].tobytes() == right)) for _ in range(8)]
    over.set()
    running.join()
    assert statuses == [0] * 8, statuses


@on_threads
def test_a_child_that_was_forked_in_the_middle_of_an_exported_program_runs_it(threads, tmp_path):
    done = process("forks_while_an_exported_program_runs", threads, str(tmp_path / "far"))
    assert done.returncode == 0, done.stderr


def trains_and_tells(steps: int) -> dict[str, bytes]:
    program = trained()
    on(program, steps)
    return contents(program.state)


def works_in_processes(how: str) -> None:
    mine = trains_and_tells(4)
    with multiprocessing.get_context(how).Pool(2) as pool:
        theirs = pool.map(trains_and_tells, [4, 4, 4], chunksize=1)
    assert theirs == [mine] * 3


@pytest.mark.parametrize(("how", "threads"), [("fork", "2"), ("spawn", "1")])
def test_processes_of_multiprocessing_train(how, threads):
    done = process("works_in_processes", threads, how)
    assert done.returncode == 0, done.stderr


# the end of the interpreter


def leaves(times: int) -> None:
    """Children come to their end in the ordinary way, all at other moments, while a thread of theirs trains."""
    program = trained()
    on(program, 1)
    rng = random.Random(1)
    statuses = []
    for number in range(times):
        delay, how = rng.uniform(0, 0.004), ("daemon", "awaited", "at exit")[number % 3]
        made = os.fork()
        if made == 0:
            break
        statuses.append(ended(made))
    else:
        assert statuses == [3] * times, statuses
        return
    if how == "at exit":
        atexit.register(on, program, 2)
    steps = 20 if how == "awaited" else 10**9
    threading.Thread(target=on, args=(program, steps), daemon=how != "awaited").start()
    time.sleep(delay)
    sys.exit(3)


@on_threads
@short_and_long(9, 300)
def test_the_interpreter_ends_in_mid_step(times, threads):
    """The thread that trains is a daemon, or one that is awaited, or there is more to do at exit."""
    done = process("leaves", threads, times)
    assert (done.returncode, done.stderr) == (0, "")


# Ctrl-C


@pytest.fixture
def interrupt() -> Iterator[Callable[[float, Callable[[], Any]], None]]:
    """Does some work again and again until Ctrl-C comes, after so many seconds."""

    def until_stopped(delay: float, work: Callable[[], Any]) -> None:
        signal.setitimer(signal.ITIMER_REAL, delay)
        while True:
            work()

    def stop(delay: float, work: Callable[[], Any]) -> None:
        with pytest.raises(KeyboardInterrupt):
            until_stopped(delay, work)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield stop
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@on_threads
@short_and_long(40, 4000)
def test_ctrl_c_leaves_the_state_of_a_step(times, threads, interrupt, monkeypatch):
    monkeypatch.setenv("MINIGRAPH_THREADS", threads)
    program = trained()
    start = path(threads)[0]
    infer = answering(program.state)
    on(program, 1)
    rng = np.random.default_rng(times)

    def work() -> None:
        if count_of(program.state) >= STEPS:
            program.state.replace(dict(start))
        on(program, 1)
        infer(image=given(0)["image"])

    counts = set()
    for delay in rng.uniform(2e-6, 3e-3, times):
        interrupt(delay, work)
        assert is_whole(program.state)
        counts.add(count_of(program.state))
    assert len(counts) > 10  # they came in many steps
    on(program, 2)
    assert is_whole(program.state)


@pytest.mark.parametrize("where", ["choose", "split"])
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_ctrl_c_while_a_graph_is_optimized_anew(backend, where, monkeypatch):
    """For numbers that the old graph does not hold for: nothing is taken over half."""
    graph = norm_behind_relu()
    state = graph.init(seed=0)
    infer = mg.compile(graph, state, backend)
    image = np.random.default_rng(0).normal(size=(3, 2, 5, 5))
    infer(image=image)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    state["bn1.gamma"] = [1.0, -1.0, 2.0]  # a negative scale does not pass through the ReLU
    with monkeypatch.context() as stopping:
        stopping.setattr(drivers, where, stop)
        with pytest.raises(KeyboardInterrupt):
            infer(image=image)
    right = mg.compile(graph, mg.State(state), backend)(image=image)["y"]
    assert np.array_equal(infer(image=image)["y"], right)


@short_and_long(8, 200)
def test_ctrl_c_while_a_program_is_compiled(times, interrupt, monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path))
    rng = np.random.default_rng(0)

    def made(number: int) -> mg.Program:
        net = mg.Builder()
        return mg.compile(net.build(y=net.input("x", ("N",)) * (2.5 + number)), mg.State(), "c")

    for number, delay in enumerate(rng.uniform(1e-3, 0.15, times)):
        program = made(number)
        interrupt(delay, functools.partial(program, x=[1, 2]))
        assert program(x=[1, 2])["y"].tolist() == [2.5 + number, 5 + 2 * number]
        assert made(number)(x=[4])["y"].tolist() == [10 + 4 * number]


def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(9)
    return {"image": rng.normal(size=(60, 2, 6, 6)).astype("float32"), "label": rng.integers(0, 3, 60)}


def fit(checkpoint: Path | None) -> mg.Program:
    """Three epochs of eight steps, of the state as it is in the file."""
    program = trained()
    every = None if checkpoint is None else 3
    mg.fit(program, data(), epochs=3, batch_size=8, seed=2, checkpoint=checkpoint, checkpoint_every=every)
    return program


@on_threads
@short_and_long(1, 30)
def test_a_run_that_was_interrupted_again_and_again_ends_with_the_same_bits(
    times, threads, interrupt, monkeypatch, tmp_path
):
    monkeypatch.setenv("MINIGRAPH_THREADS", threads)
    begin = time.perf_counter()
    alone = contents(fit(None).state)
    took = time.perf_counter() - begin
    rng = np.random.default_rng(times)
    for number in range(times):
        file = tmp_path / f"{number}.safetensors"
        for delay in rng.uniform(0, took, 8):
            interrupt(delay, functools.partial(fit, file))
        assert contents(fit(file).state) == alone


def fits_until_stopped(checkpoint: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it
    begins = lambda entry: print(entry["epoch"], flush=True)
    mg.fit(trained(), data(), epochs=10**6, batch_size=8, seed=2, checkpoint=checkpoint, on_epoch=begins)


def test_ctrl_c_ends_the_process_and_its_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGRAPH_THREADS", "2")
    file = tmp_path / "checkpoint.safetensors"
    command = [sys.executable, "-c", f"import test_c_stress as t; t.fits_until_stopped({str(file)!r})"]
    settings = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert f"the same call goes on from {file}" in errors
    epochs = 1 + int(errors.partition("stopped in epoch ")[2].split()[0])
    programs = [trained(), trained()]
    for program, checkpoint in zip(programs, [file, None]):
        mg.fit(program, data(), epochs=epochs, batch_size=8, seed=2, checkpoint=checkpoint)
    assert contents(programs[0].state) == contents(programs[1].state)


@on_threads
def test_a_signal_handler_may_look_at_the_state_and_may_not_begin_another_step(threads, monkeypatch):
    monkeypatch.setenv("MINIGRAPH_THREADS", threads)
    program = trained()
    infer = answering(program.state)
    on(program, 1)
    looked: list[bool] = []
    refused: list[str] = []

    def look(*_: object) -> None:
        looked.append(is_whole(program.state))
        for each in (program, infer):
            try:
                each(**given(0)) if each is program else each(image=given(0)["image"])
            except mg.GraphError as error:
                refused.append(str(error))

    path(threads)
    before = signal.signal(signal.SIGALRM, look)
    rng = np.random.default_rng(0)
    try:
        while len(refused) < 20:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 2e-3))
            program.state.replace(dict(path(threads)[0]))
            infer(image=given(0)["image"])
            on(program, 3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all(looked)
    assert {sentence.split(",")[0] for sentence in refused} <= {
        "a call of 'small' is not over",
        "a step that moves this state is not over",
    }


# numbers of threads


@pytest.mark.parametrize("threads", ["1", "3", "33"])
def test_any_number_of_threads_also_more_than_there_are_cores(threads, monkeypatch):
    first = network().init(seed=0)
    monkeypatch.setenv("MINIGRAPH_THREADS", "1")
    alone = trained(first)(**given(0))["loss"]
    monkeypatch.setenv("MINIGRAPH_THREADS", threads)
    runs = []
    for _ in range(2):
        program = trained()
        losses = [program(**given(number))["loss"] for number in range(6)]
        # sums of at most 8 x 36 float32 in another order, each of numbers around 1: 6e-8 * 17 for each of five layers
        assert abs(losses[0] - alone) <= 1e-5
        runs.append(([loss.tobytes() for loss in losses], contents(program.state)))
    assert runs[0] == runs[1]


def all_on_one_core() -> None:
    program = trained()
    on(program, 3)
    core = min(os.sched_getaffinity(0))
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})
    on(program, 10)
    assert is_whole(program.state)
    del os.environ["MINIGRAPH_THREADS"]
    assert threads_now() == 1
    fewer = trained()
    on(fewer, 3)
    os.environ["MINIGRAPH_THREADS"] = "1"
    path.cache_clear()
    assert is_whole(fewer.state)


def is_stopped_again_and_again() -> None:
    program = trained()
    on(program, 1)
    path(os.environ["MINIGRAPH_THREADS"])

    def stops() -> bool:
        rng = random.Random(2)
        for _ in range(15):
            time.sleep(rng.uniform(0, 0.004))
            os.kill(os.getppid(), signal.SIGSTOP)
            time.sleep(rng.uniform(0, 0.002))
            os.kill(os.getppid(), signal.SIGCONT)
        return True

    stopping = child(stops)
    begin = program.state.copy()
    found = 0
    while not found:
        program.state.replace(dict(begin))
        on(program, STEPS - 1)
        assert is_whole(program.state)
        found, status = os.waitpid(stopping, os.WNOHANG)
    assert status == 0


def where_linux(test: Callable[..., None]) -> Callable[..., None] | None:
    return test if sys.platform == "linux" else None


@where_linux
def test_all_threads_on_one_core():
    """As `taskset` does it to a process that runs."""
    done = process("all_on_one_core", "2")
    assert done.returncode == 0, done.stderr


@where_linux
@on_threads
def test_a_process_that_is_stopped_again_and_again_computes_the_same(threads):
    """As a quota of a control group does it."""
    done = process("is_stopped_again_and_again", threads)
    assert done.returncode == 0, done.stderr
