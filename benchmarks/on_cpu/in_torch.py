"""PyTorch: eager, with the channels last and a fused optimizer, folded, compiled, and frozen."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.layers_in_torch import Network
from benchmarks.on_cpu.task import Step, Task


def contender(task: Task, mode: str) -> Step:
    """mode, for training and answers: "eager"; "tuned": channels last, a fused optimizer, or batch norms folded;
    "compiled": the same by torch.compile, with its freezing. For answers also "folded", with the channels first, and
    "optimized": traced, frozen, and torch.jit.optimize_for_inference.
    """
    torch.set_num_threads(task.threads)
    image, _ = task.batches[0]
    last = image.ndim == 4 and (mode == "tuned" or (mode == "compiled" and task.optimizer is not None))
    module: nn.Module = Network(task.layers, task.weights())
    if task.optimizer is not None:
        return trained(task, module.train(), last, mode)
    module = module.eval().requires_grad_(False)
    if mode in ("tuned", "folded"):
        from torch.fx.experimental.optimization import fuse

        module = fuse(module)
    if last:
        module = module.to(memory_format=torch.channels_last)
    return answering(made(module, mode, given(image, last)), last)


def given(image: np.ndarray, last: bool) -> torch.Tensor:
    x = torch.from_numpy(image)
    return x.contiguous(memory_format=torch.channels_last) if last else x


def made(module: nn.Module, mode: str, example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    if mode == "compiled":
        import torch._inductor.config as settings

        settings.freezing = True
        return torch.compile(module)
    if mode == "optimized":
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is not developed any further
            return torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(module, example)))
    return module


def answering(module: Callable[[torch.Tensor], torch.Tensor], last: bool) -> Step:
    def step(image: np.ndarray, label: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(given(image, last)).numpy()

    return step


def trained(task: Task, module: nn.Module, last: bool, mode: str) -> Step:
    if last:
        module = module.to(memory_format=torch.channels_last)
    optimizer = optimizer_of(task, module, fused=mode != "eager")

    def loss(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(module(x), label)

    forward = torch.compile(loss) if mode == "compiled" else loss

    def step(image: np.ndarray, label: np.ndarray) -> float:
        optimizer.zero_grad(set_to_none=True)
        found = forward(given(image, last), torch.from_numpy(label))
        found.backward()
        optimizer.step()
        return found.item()

    return step


def optimizer_of(task: Task, module: nn.Module, fused: bool) -> torch.optim.Optimizer:
    assert task.optimizer is not None
    settings = {"lr": task.optimizer["rate"], "weight_decay": task.optimizer["weight_decay"], "fused": fused or None}
    if task.optimizer["kind"] == "adam":
        return torch.optim.Adam(module.parameters(), **settings)
    return torch.optim.SGD(module.parameters(), momentum=task.optimizer["momentum"], **settings)
