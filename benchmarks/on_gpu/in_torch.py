"""The networks in PyTorch, channels last: eager and compiled, in TF32 and in float16."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

import minigraph as mg
from benchmarks.layers import layers_of
from benchmarks.layers_in_torch import Network
from benchmarks.on_gpu.networks import MOMENTUM, RATE, Case

DEVICE = "cuda"


class Theirs:
    """A network with the weights of a state, in training or to answer."""

    def __init__(self, case: Case, state: mg.State, precision: str, training: bool, compiled: bool):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        torch.compiler.reset()
        self.half, data = precision == "float16", case.data()
        self.x, self.label = (torch.tensor(data[name], device=DEVICE) for name in ("image", "label"))
        self.module = Network(layers_of(case.model(), case.batch), state).to(DEVICE).train(training)
        if self.x.ndim == 4:
            self.x = self.x.contiguous(memory_format=torch.channels_last)
            self.module = self.module.to(memory_format=torch.channels_last)
        self.run = self.train if training else self.answer
        if training:
            self.optimizer = torch.optim.SGD(self.module.parameters(), RATE, MOMENTUM, fused=True)
            self.scaler = torch.amp.GradScaler(DEVICE, enabled=self.half)
            self.forward = torch.compile(self.loss, mode="reduce-overhead") if compiled else self.loss
        else:
            if self.half:
                self.module, self.x = self.module.half(), self.x.half()
            self.forward = torch.compile(self.module, mode="reduce-overhead") if compiled else self.module
        with torch.set_grad_enabled(training):
            first = self.step() if training else self.forward(self.x)
        self.first = first.float().cpu().numpy()
        self.run(3)

    def loss(self) -> torch.Tensor:
        with torch.autocast(DEVICE, torch.float16, enabled=self.half):
            return nn.functional.cross_entropy(self.module(self.x), self.label)

    def step(self) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach().clone()

    def train(self, steps: int) -> None:
        """Nobody asks for the losses; at the end a weight is read, when all is done."""
        for _ in range(steps):
            self.step()
        next(self.module.parameters()).flatten()[0].item()

    def answer(self, steps: int) -> None:
        with torch.no_grad():
            for _ in range(steps):
                logits = self.forward(self.x)
            logits.flatten()[0].item()


def contenders(case: Case, state: mg.State, precision: str, training: bool) -> dict[str, Callable[[], Theirs]]:
    make = lambda compiled: lambda: Theirs(case, state, precision, training, compiled)
    return {"torch": make(False), "torch_compiled": make(True)}
