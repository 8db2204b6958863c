"""The networks in PyTorch, channels last: eager and compiled, in TF32 and in float16."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

import minigraph as mg
from benchmarks.agreement import MobileNetV2, ResNet18, conv_bn, hold, numbered, twin
from benchmarks.on_gpu.networks import MOMENTUM, RATE, WIDTHS, Case

DEVICE = "cuda"
CLASSES = 10


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inputs = 784
        for i, width in enumerate(WIDTHS, 1):
            self.add_module(f"linear{i}", nn.Linear(inputs, width, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm1d(width))
            inputs = width
        self.pairs = [(getattr(self, f"linear{i}"), getattr(self, f"bn{i}")) for i in range(1, len(WIDTHS) + 1)]
        self.classifier = nn.Linear(inputs, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for linear, bn in self.pairs:
            x = bn(linear(x)).relu()
        return self.classifier(x)


class Plain(nn.Module):
    """A block of ResNet-20, whose shortcut has no weights."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        hold(self, conv_bn(inputs, outputs, 3, outputs // inputs), conv_bn(outputs, outputs, 3))
        self.more = outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        if self.more:
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more))
        return (y + x).relu()


class ResNet20(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        hold(self, conv_bn(3, 16, 3))
        self.blocks, inputs = [], 16
        for stage, outputs in enumerate((16, 32, 64), 1):
            blocks = [Plain(inputs, outputs), Plain(outputs, outputs), Plain(outputs, outputs)]
            self.add_module(f"stage{stage}", numbered(blocks))
            self.blocks += blocks
            inputs = outputs
        self.classifier = nn.Linear(64, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for block in self.blocks:
            x = block(x)
        return self.classifier(x.mean((2, 3)))


class Twice(nn.Module):
    """x and two convolutions of it."""

    def __init__(self, channels: int):
        super().__init__()
        hold(self, conv_bn(channels, channels, 3), conv_bn(channels, channels, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        return x + self.bn2(self.conv2(y)).relu()


class ResNet9(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        hold(self, conv_bn(3, 64, 3), conv_bn(64, 128, 3), conv_bn(128, 256, 3), conv_bn(256, 512, 3))
        self.residual1, self.residual2 = Twice(128), Twice(512)
        self.classifier = nn.Linear(512, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pool = nn.functional.max_pool2d
        x = self.bn1(self.conv1(x)).relu()
        x = self.residual1(pool(self.bn2(self.conv2(x)).relu(), 2))
        x = pool(self.bn3(self.conv3(x)).relu(), 2)
        x = self.residual2(pool(self.bn4(self.conv4(x)).relu(), 2))
        return self.classifier(pool(x, 4).flatten(1))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "mlp_bn": MLP,
    "resnet20": ResNet20,
    "resnet18": ResNet18,
    "mobilenet_v2": MobileNetV2,
    "resnet9": ResNet9,
}


class Theirs:
    """A network with the weights of a state, in training or to answer."""

    def __init__(self, case: Case, state: mg.State, precision: str, training: bool, compiled: bool):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        torch.compiler.reset()
        self.half, data = precision == "float16", case.data()
        self.x, self.label = (torch.tensor(data[name], device=DEVICE) for name in ("image", "label"))
        self.module = twin(MODULES[case.network], state).to(DEVICE).train(training)
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
