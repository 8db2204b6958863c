"""A program in C asks for no memory while it runs: malloc and mmap are counted over 1,000 steps of training.

Counted is whatever a thread does between the entry and the return of pool_run, and whatever the pool's threads do at
all, in any library: see count_memory.c. That is in a process of its own, into which the counting library is loaded
first. What the first step does once (compiling, starting threads) is not among the 1,000.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.backends.c.compiler import compiler
from minigraph.backends.c.threads import pool

HERE = Path(__file__).parent
STEPS = 1000
ASKED = {  # what `asks` of count_memory.c does on each thread
    **dict.fromkeys(["malloc", "realloc", "calloc", "reallocarray", "posix_memalign", "aligned_alloc", "memalign"], 1),
    **dict.fromkeys(["valloc", "mmap", "mremap", "mmap64", "sbrk", "brk"], 1),
    "free": 6,
    "munmap": 2,
}


def network() -> mg.Graph:
    net = mg.Builder("small")
    image, label = net.input("image", ("N", 1, 12, 12)), net.input("label", ("N",), "int64")
    h = image
    for channels in (4, 8):
        h = layers.conv2d(h, channels, 3, padding="same", bias=False)
        h = mg.max_pool(mg.relu(layers.batch_norm(h)), 2)
    logits = layers.linear(layers.dropout(mg.flatten(h), 0.3), 4)
    return net.build(loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def batches() -> list[dict[str, np.ndarray]]:
    """Of two sizes: both are served by one program."""
    rng = np.random.default_rng(0)
    return [
        {"image": rng.normal(size=(n, 1, 12, 12)).astype("float32"), "label": rng.integers(0, 4, n)}
        for n in (16, 16, 9)
    ]


class Counts:
    """The counting library, which this process was started with."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(None)
        self.library.function_name.restype = ctypes.c_char_p
        self.library.calls_of_all.restype = self.library.calls_of_programs.restype = ctypes.c_long
        self.library.blocks_there.restype = ctypes.c_long
        self.names = [self.library.function_name(i).decode() for i in range(self.library.functions())]

    def watch(self) -> None:
        """From now on the pool is called by way of watched_run."""
        runs, watched = pool()._run, self.library.watched_run
        self.library.watch(ctypes.cast(runs, ctypes.c_void_p))
        watched.argtypes, watched.restype = runs.argtypes, runs.restype
        pool()._run = watched

    def of_programs(self) -> dict[str, int]:
        return {name: self.library.calls_of_programs(i) for i, name in enumerate(self.names)}

    def of_all(self) -> dict[str, int]:
        return {name: self.library.calls_of_all(i) for i, name in enumerate(self.names)}


def since(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    return {name: n - before[name] for name, n in now.items() if n != before[name]}


def resident() -> int:
    """The bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def trains() -> None:
    """In the process of its own: writes what was counted."""
    model = network()
    state = model.init(seed=0)
    train = mg.compile(mg.training_step(model, "loss", mg.optim.Adam(1e-3)), state, "c")
    given = batches()
    losses = [float(train(**given[0])["loss"])]
    counts = Counts()
    counts.watch()
    memory = []
    gc.collect()
    gc.disable()  # what it frees, and when, has nothing to do with a step
    programs, everything = counts.of_programs(), counts.of_all()
    for step in range(STEPS):
        if step in (STEPS // 10, STEPS - 1):
            memory.append((resident(), counts.library.blocks_there()))
        losses.append(float(train(**given[step % len(given)])["loss"]))
    found: dict[str, Any] = {
        "programs": since(programs, counts.of_programs()),
        "everything": since(everything, counts.of_all()),
    }
    programs = counts.of_programs()
    pool().run(ctypes.cast(counts.library.asks, ctypes.c_void_p).value or 0, 0, 2)
    found |= {"asked": since(programs, counts.of_programs()), "memory": memory, "losses": losses}
    found |= {"steps": int(state["optimizer.step"]), "backend": train.backend}
    print(json.dumps(found))


def where_libraries_can_be_put_first(test: Callable[[Path], None]) -> Callable[[Path], None] | None:
    return test if sys.platform == "linux" else None


@where_libraries_can_be_put_first
@pytest.mark.compiler
def test_a_thousand_steps_of_training_ask_for_no_memory(tmp_path: Path) -> None:
    library = tmp_path / "count_memory.so"
    compiler().build(HERE / "count_memory.c", library)
    settings = {**os.environ, "LD_PRELOAD": str(library), "MINIGRAPH_THREADS": "2", "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-c", "import test_c_memory; test_c_memory.trains()"]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["backend"] == "c"
    assert found["steps"] == STEPS + 1
    assert found["losses"][-1] < found["losses"][0] / 2  # it is a training that learns
    assert found["programs"] == {}
    for name, n in ASKED.items():  # had there been a call, it would have been counted, on each thread
        assert found["asked"].get(name, 0) >= 2 * n, name
    assert found["everything"]["malloc"] > 0
    (early, early_blocks), (late, late_blocks) = found["memory"]
    assert late - early < 1 << 20
    assert late_blocks - early_blocks < 10  # no step leaves one behind
