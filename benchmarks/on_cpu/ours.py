"""minigraph, in C."""

from __future__ import annotations

import numpy as np

import minigraph as mg
from benchmarks.on_cpu.task import Step, Task
from benchmarks.on_cpu.workloads import LISTS


def contender(task: Task, mode: str) -> Step:
    graph = next(workload for workload in LISTS["all"] if workload.name == task.name).graph()
    program = mg.compile(graph, mg.State(task.weights()), "c")
    (image_name, *_), (output,) = [value.name for value in graph.inputs if value.type.is_float], graph.outputs
    if task.optimizer is None:
        return lambda image, label: program(**{image_name: image})[output]

    def step(image: np.ndarray, label: np.ndarray) -> float:
        return float(program(**{image_name: image, "label": label})[output])

    return step
