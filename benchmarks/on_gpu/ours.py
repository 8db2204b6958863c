"""Programs of minigraph on the GPU, as they are measured, and a look into them."""

from __future__ import annotations

from typing import Any

import numpy as np

import minigraph as mg
from benchmarks.on_gpu.networks import MOMENTUM, RATE, Case
from minigraph.backends.cupy import device as gpu
from minigraph.backends.cupy.arrays import at_home
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.cupy.program import FAULT, Program


def there(array: np.ndarray) -> Any:
    """The same numbers in the memory of the GPU."""
    import cupy

    return cupy.asarray(array)


def step_of(model: mg.Graph, precision: str) -> mg.Graph:
    """The training step that all are measured with."""
    optimizer = mg.optim.SGD(RATE, momentum=MOMENTUM)
    return mg.training_step(model, "loss", optimizer, precision=asked(precision), outputs=["loss"])


def asked(precision: str) -> str | None:
    """As a step is asked for it: float32 is what the models say."""
    return None if precision == "float32" else precision


class Ours:
    """A program for a case; its inputs lie on the GPU."""

    def __init__(self, case: Case, state: mg.State, precision: str, training: bool):
        model, state = case.model(), state.copy()
        graph = step_of(model, precision) if training else mg.inference(model, ["logits"], precision=asked(precision))
        self.program = mg.compile(graph, state, "cupy")
        data = case.data()
        self.inputs = self.program.put({value.name: data[value.name] for value in graph.inputs})
        (self.first,) = at_home(self.program(**self.inputs)).values()
        self.run(1)

    def run(self, steps: int) -> None:
        """As one calls it. Nobody looks at the outputs before the last."""
        for _ in range(steps):
            self.program(**self.inputs)
        gpu.device().finish()

    def kernels(self, steps: int) -> None:
        """The graph of kernels alone, without inputs that come and outputs that go."""
        made, device = program_of(self.program), gpu.device()
        for _ in range(steps):
            device.replay(made._graph)
        assert made.work is not None
        device.read(made.work.part(made.ends.fault, FAULT), np.empty(FAULT, np.uint8))

    def numbers(self) -> dict[str, Any]:
        """What it is made of."""
        made = program_of(self.program)
        return {
            "launches": len(made.source.launches),
            "kernels": len(made.source.kernels),
            "arena_MB": made.plan.arena / 1e6,
        }


def executable_of(program: mg.Program) -> Executable:
    found = program._executable
    assert isinstance(found, Executable)
    return found


def program_of(program: mg.Program) -> Program:
    """That of the last sizes."""
    return list(executable_of(program)._programs.values())[-1]
