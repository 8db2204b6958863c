"""One contender and one workload, in this process.

    python -m benchmarks.on_cpu.one JOB

JOB is a JSON file: what to do, and where the result goes. benchmarks.on_cpu.race writes it.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.on_cpu.load import Watch
from benchmarks.on_cpu.task import Step, Task

FIRST = 6  # calls whose results are kept, to be compared


@dataclass(frozen=True)
class Job:
    """seconds, steps: a window takes at least so long, and has at least so many. others: cores that other processes
    may use in a window; where they used more, there is another one, up to `windows`.
    """

    module: str
    mode: str
    folder: str
    to: str
    threads: int
    cores: list[int]
    seconds: float
    steps: int
    windows: int
    others: float


def main() -> None:
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.cores)
    found, results = measured(job)
    np.savez(f"{job.to}.npz", results=results)
    Path(f"{job.to}.json").write_text(json.dumps(found))


def measured(job: Job) -> tuple[dict[str, Any], np.ndarray]:
    """Times of the window in which others used the least; and the first losses, or the first logits."""
    task = Task.read(Path(job.folder), job.threads)
    batches, clock = task.batches, time.perf_counter
    begin = clock()
    module = import_module(f"benchmarks.on_cpu.{job.module}")
    imported = clock() - begin
    begin = clock()
    step: Step = module.contender(task, job.mode)
    results = [np.array(step(*batches[0]))]  # a copy: it may be written over
    first = clock() - begin
    results += [np.array(step(*batches[i % len(batches)])) for i in range(1, FIRST)]
    window(step, batches, job.seconds / 4, 2)
    windows: list[dict[str, Any]] = []
    while len(windows) < job.windows:
        watch = Watch()
        times = window(step, batches, job.seconds, job.steps)
        load = watch.load()
        spread = {"median_ms": 1e3 * statistics.median(times), "least_ms": 1e3 * min(times), "steps": len(times)}
        windows.append({**spread, **asdict(load)})
        if (load.others or 0.0) <= job.others:
            break
    best = min(windows, key=lambda one: one["others"] or 0.0)
    found = {**best, "windows": len(windows), "import_s": imported, "first_s": first, "peak_MB": peak()}
    return found, np.stack(results) if task.optimizer else results[0]


def window(step: Step, batches: list[tuple[np.ndarray, np.ndarray]], seconds: float, steps: int) -> list[float]:
    """Seconds of each of some steps."""
    clock, times, begin = time.perf_counter, list[float](), time.perf_counter()
    while len(times) < steps or clock() - begin < seconds:
        image, label = batches[len(times) % len(batches)]
        before = clock()
        step(image, label)
        times.append(clock() - before)
    return times


def peak() -> float | None:
    """The most memory that this process has had, in MB of 10^6 bytes. What getrusage says would be that of the process
    that started it, if that was larger.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # threads of some frameworks outlive the interpreter, and fail
