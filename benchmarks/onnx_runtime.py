"""Networks that the package onnx brings, with random weights, beside ONNX Runtime: one picture at a time, on the CPU.

    python -m benchmarks.onnx_runtime [name of a network ...]

ResNet-50 and DenseNet-121 by default; names as in tests/onnx_networks.py. The two take turns, each turn a process of
its own, since threads that wait for work take time from others. Both use all processors. Milliseconds of the fastest
run of all turns, which other work on the machine disturbs least, and of the middle one; and how many times as fast
minigraph is, by the fastest and by the middle ones.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import onnxruntime

import minigraph as mg
from minigraph.onnx.read import graph_of
from tests.onnx_networks import drawn, light

NETWORKS = ("resnet50", "densenet121")
TURNS, RUNS, WARM = 5, 30, 3


def by_onnxruntime(name: str) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    model = drawn(light(name)).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    x = np.random.default_rng(1).normal(size=given.shape).astype(np.float32)
    return lambda: session.run(None, {given.name: x})


def by_minigraph(name: str) -> Callable[[], object]:
    graph, state = graph_of(drawn(light(name)), None, {})
    program = mg.compile(mg.inference(graph), state, backend="c")
    (given,) = graph.inputs
    x = np.random.default_rng(1).normal(size=given.type.shape).astype(np.float32)
    return lambda: program(**{given.name: x})


BY = {"onnxruntime": by_onnxruntime, "minigraph": by_minigraph}


def times(run: Callable[[], object]) -> list[float]:
    """Milliseconds of each run, but the first ones."""
    found = []
    for _ in range(WARM + RUNS):
        begin = time.perf_counter()
        run()
        found.append(1e3 * (time.perf_counter() - begin))
    return found[WARM:]


def turn(who: str, name: str) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.onnx_runtime", "--turn", who, name]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(names: list[str]) -> None:
    print(f"{'':14}{'ONNX Runtime':>18}{'minigraph':>18}   times as fast")
    for name in names or NETWORKS:
        found: dict[str, list[float]] = {who: [] for who in BY}
        for _ in range(TURNS):
            for who in BY:
                found[who] += turn(who, name)
        least, middle = ([measure(found[who]) for who in BY] for measure in (min, statistics.median))
        shown = "".join(f"{a:9.2f}{b:9.2f}" for a, b in zip(least, middle))
        print(f"{name:14}{shown}   {least[0] / least[1]:.2f} {middle[0] / middle[1]:.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--turn"]:
        print(json.dumps(times(BY[sys.argv[2]](sys.argv[3]))))
    else:
        main(sys.argv[1:])
