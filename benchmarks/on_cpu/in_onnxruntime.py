"""ONNX Runtime, with all optimizations of the graph, on the file that minigraph writes of a model."""

from __future__ import annotations

import onnxruntime

from benchmarks.on_cpu.task import Step, Task


def contender(task: Task, mode: str) -> Step:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = task.threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_free_dimension_override_by_name("N", len(task.batches[0][0]))
    path = str(task.folder / "model.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = [value.name for value in session.get_inputs()]
    return lambda image, label: session.run(None, {name: image})[0]
