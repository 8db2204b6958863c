"""The pool of threads: every thread runs, barriers hold, and nothing hangs, whatever happens around it."""

import ctypes
import os
import signal
import statistics
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from minigraph.backends.c.compiler import compiled, compiler
from minigraph.backends.c.threads import HERE, MOST, pool, threads
from minigraph.core.errors import GraphError

pytestmark = pytest.mark.compiler

JOBS = """\
// Jobs for the tests of the pool.
#include "thread_pool.h"
#include <fenv.h>
#include <stdint.h>
#include <time.h>

struct context {
  void (*barrier)(void);
  int64_t rounds, wrong;
  int64_t calls[64], of[64], slots[64][16];
};

// Each thread writes down the round, and after the barrier looks whether all have.
void rounds(struct context *c, int thread, int threads) {
  c->calls[thread]++;
  c->of[thread] = threads;
  for (int64_t round = 1; round <= c->rounds; round++) {
    c->slots[thread][0] = round;
    c->barrier();
    for (int other = 0; other < threads; other++) __atomic_fetch_add(&c->wrong, c->slots[other][0] != round, 0);
    c->barrier();
  }
}

// The same number of barriers, with some microseconds of work before each.
void work(struct context *c, int thread, int threads) {
  for (int64_t round = 0; round < c->rounds; round++) {
    for (volatile int i = 0; i < 5000; i++) {}
    c->barrier();
  }
  c->calls[thread]++;
}

void nap(struct context *c, int thread, int threads) {
  struct timespec time = {0, c->rounds * 1000000};
  nanosleep(&time, 0);
  c->calls[thread]++;
}

void rounding(struct context *c, int thread, int threads) { c->of[thread] = fegetround(); }

int set_rounding(int upward) { return fesetround(upward ? FE_UPWARD : FE_TONEAREST), fegetround(); }

typedef int run_t(pool_job job, void *with, int threads);

struct inner {
  run_t *run;
  struct context *context;
};

void runs_another(struct inner *inner, int thread, int threads) {
  if (thread == threads - 1) inner->run((pool_job)rounds, inner->context, 2);
}
"""

# A program of its own, so that ThreadSanitizer can watch it.
ALONE = """\
#include "thread_pool.h"
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static int slots[8], sums[2];
static void job(void *with, int thread, int threads) {
  int *sum = with;
  for (int round = 0; round < 200; round++) {
    slots[thread] = round;
    if (round % 50 == thread) usleep(300); // long enough for the others to sleep
    pool_barrier();
    if (thread == round % threads)
      for (int other = 0; other < threads; other++) *sum += slots[other] == round;
    pool_barrier();
  }
}
static void *runs(void *with) {
  for (int i = 0; i < 20; i++)
    if (pool_run(job, with, 2 + i % 3)) return 0;
  return 0;
}
int main(void) {
  pthread_t other;
  pthread_create(&other, 0, runs, &sums[0]);
  runs(&sums[1]);
  pthread_join(other, 0);
  printf("%d %d\\n", sums[0], sums[1]);
  return 0;
}
"""
ALONE_SUM = 200 * sum(2 + i % 3 for i in range(20))


class Context(ctypes.Structure):
    _fields_ = (
        ("barrier", ctypes.c_void_p),
        ("rounds", ctypes.c_int64),
        ("wrong", ctypes.c_int64),
        ("calls", ctypes.c_int64 * 64),
        ("of", ctypes.c_int64 * 64),
        ("slots", ctypes.c_int64 * 16 * 64),
    )


class Inner(ctypes.Structure):
    _fields_ = (("run", ctypes.c_void_p), ("context", ctypes.c_void_p))


def jobs():
    return compiled(JOBS, (HERE / "thread_pool.h",))


def run(name, count, rounds=0):
    """The context, after the job of this name has run."""
    context = Context(pool().barrier, rounds)
    start(name, count, context)
    return context


def start(name, count, context):
    pool().run(address(getattr(jobs(), name)), ctypes.addressof(context), count)


def address(function):
    return ctypes.cast(function, ctypes.c_void_p).value


@pytest.mark.parametrize("count", [7, 1, 2, 3, 4])
def test_each_thread_runs_once_and_barriers_hold(count):
    context = run("rounds", count, rounds=300)
    assert list(context.calls[: count + 1]) == [1] * count + [0]
    assert list(context.of[:count]) == [count] * count
    assert context.wrong == 0


def test_many_short_jobs_of_changing_size():
    for i in range(2000):
        context = run("rounds", 1 + i % 4, rounds=1)
        assert sum(context.calls) == 1 + i % 4
        assert context.wrong == 0


@pytest.mark.parametrize("count", [0, -1, MOST + 1])
def test_a_wrong_number_of_threads(count):
    with pytest.raises(GraphError, match=f"{count} threads cannot be had: Invalid argument"):
        run("rounds", count)


def test_two_python_threads_take_turns():
    contexts = [Context(pool().barrier, 50) for _ in range(4)]

    def calls(context):
        for _ in range(100):
            start("rounds", 2, context)

    callers = [threading.Thread(target=calls, args=(context,)) for context in contexts]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [list(context.calls[:3]) for context in contexts] == [[100, 100, 0]] * 4
    assert [context.wrong for context in contexts] == [0] * 4


def test_the_gil_is_released():
    ticks = []
    sleeper = threading.Thread(target=run, args=("nap", 2, 200))
    sleeper.start()
    while sleeper.is_alive():
        ticks.append(time.perf_counter())
        time.sleep(0.005)
    assert len(ticks) > 5


def test_a_job_in_a_job_has_one_thread():
    context = Context(pool().barrier, 10)
    inner = Inner(address(pool()._run), ctypes.addressof(context))
    pool().run(address(jobs().runs_another), ctypes.addressof(inner), 3)
    assert list(context.calls[:2]) == [1, 0]
    assert list(context.of[:1]) == [1]


def test_threads_round_as_the_caller_does():
    nearest = jobs().set_rounding(0)
    try:
        upward = jobs().set_rounding(1)
        while_upward = list(run("rounding", 3).of[:3])
    finally:
        jobs().set_rounding(0)
    assert upward != nearest
    assert while_upward == [upward] * 3
    assert list(run("rounding", 3).of[:3]) == [nearest] * 3


def test_a_pool_that_waits_uses_no_core():
    run("rounds", 3, rounds=10)
    time.sleep(0.01)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def test_busy_neighbours():
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    spin = "import os, sys\nif sys.argv[1:]: os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    pinned = [[str(core)] if hasattr(os, "sched_setaffinity") else [] for core in cores]
    busy = [subprocess.Popen([sys.executable, "-c", spin, *core]) for core in pinned]
    try:
        time.sleep(0.2)
        took = []
        for _ in range(25):
            begin = time.perf_counter()
            assert run("rounds", 2, rounds=50).wrong == 0
            took.append(time.perf_counter() - begin)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert statistics.median(took) < 0.05


def script(text):
    """A process that has the jobs of this file, and runs this text."""
    head = "import ctypes, os, signal, sys, threading, time\nimport test_c_pool as t\nfrom test_c_pool import say\n"
    settings = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(text)],
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def say(*values):
    """Print a line in one piece: an unbuffered print() of two processes mixes their words."""
    os.write(1, (" ".join(map(str, values)) + "\n").encode())


def said(process):
    try:
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return out.split()


def test_fork_after_use():
    process = script("""
        t.run("rounds", 3, rounds=10)
        waits = threading.Thread(target=t.run, args=("nap", 2, 300))
        waits.start()
        time.sleep(0.1)  # the fork is in mid-job
        child = os.fork()
        found = t.run("rounds", 3, rounds=100)
        say(sum(found.calls), found.wrong)
        if child == 0:
            os._exit(0)
        waits.join()
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert said(process) == ["3", "0", "3", "0", "0"]


def test_a_fork_waits_for_a_job_of_one_thread():
    process = script("""
        t.run("nap", 1)
        context = t.Context(t.pool().barrier, 900)
        waits = threading.Thread(target=t.start, args=("nap", 1, context))
        waits.start()
        time.sleep(0.3)  # the fork is in mid-job
        child = os.fork()
        say(context.calls[0], sum(t.run("rounds", 1, rounds=1).calls))
        if child == 0:
            os._exit(0)
        waits.join()
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert said(process) == ["1", "1", "1", "1", "0"]


def test_a_fork_comes_to_its_turn_where_there_is_always_a_job():
    process = script("""
        t.run("nap", 1)
        over = threading.Event()
        def naps(wait):
            time.sleep(wait)
            while not over.is_set():
                t.run("nap", 1, 40)
        threads = [threading.Thread(target=naps, args=(0.02 * i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        begin = time.perf_counter()
        child = os.fork()
        if child == 0:
            os._exit(0)
        print(time.perf_counter() - begin < 5, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        over.set()
        for thread in threads:
            thread.join()
    """)
    assert said(process) == ["True", "0"]


def test_there_is_one_pool_also_where_two_threads_ask_for_it_first(tmp_path):
    """And what is compiled cannot be kept: each would load a library of its own."""
    (tmp_path / "file").touch()
    process = script(f"""
        os.environ["MINIGRAPH_CACHE"] = {str(tmp_path / "file" / "cache")!r}
        pools = []
        threads = [threading.Thread(target=lambda: pools.append(t.pool())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(len(set(map(id, pools))), pools[0] is t.pool())
    """)
    assert said(process) == ["1", "True"]


def test_where_the_system_has_no_more_threads_it_is_said_and_the_pool_goes_on():
    process = script("""
        import resource
        from minigraph import GraphError
        t.run("rounds", 2, rounds=3)
        pages = int(open("/proc/self/statm").read().split()[0])
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (10 << 20), before[1]))
        try:
            t.run("rounds", 40, rounds=3)
        except GraphError as error:
            print(error)
        print(t.run("rounds", 2, rounds=3).wrong)
        resource.setrlimit(resource.RLIMIT_AS, before)
        found = t.run("rounds", 40, rounds=3)
        print(sum(found.calls), found.wrong)
    """)
    sentence = "40 threads cannot be had: Resource temporarily unavailable; MINIGRAPH_THREADS asks for fewer"
    assert said(process) == [*sentence.split(), "0", "40", "0"]


def test_exit_in_mid_job():
    process = script("""
        t.run("rounds", 2)
        forever = t.Context(t.pool().barrier, 1 << 40)
        threading.Thread(target=t.start, args=("work", 2, forever), daemon=True).start()
        time.sleep(0.1)
        print("leaves")
    """)
    assert said(process) == ["leaves"]


def test_interrupt_takes_effect_after_the_job():
    process = script("""
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
        context = t.Context(t.pool().barrier, 700)
        t.run("nap", 2)
        try:
            print("begins", flush=True)
            t.start("nap", 2, context)
            while True:
                time.sleep(0.001)
        except KeyboardInterrupt:
            print(list(context.calls[:2]))
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    time.sleep(0.2)
    begin = time.perf_counter()
    process.send_signal(signal.SIGINT)
    assert said(process)  # the nap of number 0 is cut short, that of the worker is not
    assert time.perf_counter() - begin > 0.2


def build_alone(folder, flags):
    (folder / "alone.c").write_text(ALONE)
    by = compiler()
    program = folder / "alone"
    command = [*by.command, *flags, "-std=gnu11", "-O1", "-g", f"-I{HERE}", str(folder / "alone.c")]
    return program, [*command, str(HERE / "thread_pool.c"), "-o", str(program), "-lm", "-pthread"]


@pytest.mark.parametrize("wait", [(), ("-DPOOL_CONDITIONS",)], ids=["system", "conditions"])
def test_the_pool_in_a_program_without_python(tmp_path, wait):
    """Watched by ThreadSanitizer where the compiler has it: a race ends the program with status 66."""
    program, command = build_alone(tmp_path, (*wait, "-fsanitize=thread"))
    watched = subprocess.run(command, capture_output=True).returncode == 0
    if watched:
        watched = subprocess.run([program], capture_output=True).returncode in (0, 66)  # else it cannot run here
    if not watched:
        program, command = build_alone(tmp_path, wait)
        subprocess.run(command, check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(ALONE_SUM)] * 2


# How many threads


def groups(root, lines, **files):
    """A file system with these control groups."""
    for name, text in {"proc/self/cgroup": "\n".join(lines) + "\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def eight(monkeypatch):
    """A process that may use eight cores."""
    monkeypatch.delenv("MINIGRAPH_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("lines", "files", "count"),
    [
        (["0::/"], {}, 8),
        (["0::/"], {"sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        (["0::/"], {"sys/fs/cgroup/cpu.max": "250000 100000"}, 3),
        (["0::/"], {"sys/fs/cgroup/cpu.max": "1000 100000"}, 1),
        (["0::/"], {"sys/fs/cgroup/cpu.max": "6400000 100000"}, 8),
        (["0::/"], {"sys/fs/cgroup/cpu.max": "not what it was"}, 8),
        (["0::/a/b"], {"sys/fs/cgroup/a/cpu.max": "200000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 2),
        (["0::/not/seen/here"], {"sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        (
            ["5:cpu,cpuacct:/x", "1:memory:/x", "0::/"],
            {
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (["3:cpuset:/x"], {"sys/fs/cgroup/cpuset/x/cpu.cfs_quota_us": "1"}, 8),
    ],
)
def test_threads_follow_the_quota(tmp_path, eight, lines, files, count):
    assert threads(groups(tmp_path, lines, **files)) == count


def test_threads_where_there_are_no_groups(tmp_path, eight):
    assert threads(tmp_path) == 8


def test_threads_follow_affinity(eight, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert threads(tmp_path) == 2


def test_threads_that_are_asked_for(eight, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGRAPH_THREADS", "12")
    assert threads(tmp_path) == 12


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", "1025", "99999999999", "²"])
def test_threads_that_cannot_be(monkeypatch, wrong):
    monkeypatch.setenv("MINIGRAPH_THREADS", wrong)
    with pytest.raises(GraphError, match=f"MINIGRAPH_THREADS is a number from 1 to 1024, not '{wrong}'"):
        threads()
