"""OpenVINO, in float32 and for short waits, on the file that minigraph writes of a model."""

from __future__ import annotations

import openvino

from benchmarks.on_cpu.task import Step, Task


def contender(task: Task, mode: str) -> Step:
    core = openvino.Core()
    model = core.read_model(task.folder / "model.onnx")
    model.reshape(list(task.batches[0][0].shape))  # of the batch that is asked for, and no other
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": task.threads,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda image, label: request.infer([image], share_inputs=True, share_outputs=True)[0]
