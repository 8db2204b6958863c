"""Whether networks compute what the same networks compute in PyTorch, weight for weight.

    python -m benchmarks.agreement

VGG-small, ResNet-18 and MobileNetV2 with random weights, gammas, betas and running statistics: logits of evaluation
and of training, the loss, the running statistics after a step, and VGG-small's gradients. Differences are relative to
the range of what is compared. Needs torch, which minigraph itself does not.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping

import numpy as np

import minigraph as mg
from examples.networks import mobilenet_v2, resnet18, vgg_small
from examples.networks.mobilenet_v2 import STAGES

try:
    import torch
    from torch import nn
except ImportError:
    sys.exit("This compares with PyTorch, which is not there: install torch.")

# Two ways of adding up float32 differ by some 1e-7 in each layer, here by 5e-6 in all. A wrong padding, activation or
# momentum was tried, and differs by 1e-2 and more; an eps of 1e-4 for 1e-5 by 2e-4. Gradients agree as well only where
# rounding puts no activation on the other side of its ReLU's kink: among the millions of the larger networks one often
# is (of torch's in float32 and in float64, too), which moves gradients by 1e-2. So theirs are not compared.
LIMIT = 1e-4
CLASSES = 1000


# The same networks of torch's layers. Attributes are called as minigraph calls layers, so names of weights agree.


def conv_bn(inputs: int, outputs: int, window: int, stride: int = 1, groups: int = 1) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, window, stride, window // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(outputs)


def hold(module: nn.Module, *pairs: tuple[nn.Module, nn.Module]) -> nn.Module:
    """The module with these pairs as its conv1, bn1, conv2, bn2, ..."""
    for i, (conv, bn) in enumerate(pairs, 1):
        module.add_module(f"conv{i}", conv)
        module.add_module(f"bn{i}", bn)
    return module


def numbered(blocks: list[nn.Module]) -> nn.Module:
    holder = nn.Module()
    for i, block in enumerate(blocks, 1):
        holder.add_module(f"block{i}", block)
    return holder


class VGGSmall(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = (3, 128, 256, 512)
        for stage in (1, 2, 3):
            first, second = conv_bn(widths[stage - 1], widths[stage], 3), conv_bn(widths[stage], widths[stage], 3)
            self.add_module(f"stage{stage}", hold(nn.Module(), first, second))
        self.classifier = nn.Linear(512 * 4 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in (1, 2, 3):
            block = getattr(self, f"stage{stage}")
            x = block.bn1(block.conv1(x)).relu()
            x = nn.functional.max_pool2d(block.bn2(block.conv2(x)).relu(), 2)
        return self.classifier(x.flatten(1))


class Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        hold(self, conv_bn(inputs, outputs, 3, stride), conv_bn(outputs, outputs, 3))
        self.changes = stride > 1
        if self.changes:
            self.shortcut_conv, self.shortcut_bn = conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        return (y + (self.shortcut_bn(self.shortcut_conv(x)) if self.changes else x)).relu()


class ResNet18(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        hold(self, conv_bn(3, 64, 7, 2))
        self.stages = []
        inputs = 64
        for stage, outputs in enumerate((64, 128, 256, 512)):
            blocks = [Basic(inputs, outputs, 2 if stage else 1), Basic(outputs, outputs, 1)]
            self.add_module(f"stage{stage + 1}", numbered(blocks))
            self.stages += blocks
            inputs = outputs
        self.classifier = nn.Linear(512, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for block in self.stages:
            x = block(x)
        return self.classifier(x.mean((2, 3)))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int):
        super().__init__()
        hidden = inputs * expansion
        parts = [conv_bn(inputs, hidden, 1)] if expansion > 1 else []
        parts += [conv_bn(hidden, hidden, 3, stride, groups=hidden), conv_bn(hidden, outputs, 1)]
        hold(self, *parts)
        self.count, self.adds = len(parts), inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.count:
                y = nn.functional.relu6(y)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        hold(self, conv_bn(3, 32, 3, 2), conv_bn(320, 1280, 1))
        self.stages = []
        inputs = 32
        for stage, (expansion, outputs, count, stride) in enumerate(STAGES):
            blocks = [
                InvertedResidual(outputs if i else inputs, outputs, expansion, 1 if i else stride) for i in range(count)
            ]
            self.add_module(f"stage{stage + 1}", numbered(blocks))
            self.stages += blocks
            inputs = outputs
        self.classifier = nn.Linear(1280, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(self.bn1(self.conv1(x)))
        for block in self.stages:
            x = block(x)
        x = nn.functional.relu6(self.bn2(self.conv2(x)))
        return self.classifier(x.mean((2, 3)))


def torch_name(name: str) -> str:
    return name.replace(".gamma", ".weight").replace(".beta", ".bias")


# what is compared


def random_state(model: mg.Graph, rng: np.random.Generator) -> mg.State:
    """Initial weights, and statistics, gammas, betas and biases that no layer can mistake for 0 or 1."""
    state = model.init(seed=0)
    for name, array in state.items():
        if name.endswith((".gamma", ".running_var")):
            state[name] = rng.uniform(0.5, 1.5, array.shape)
        elif name.endswith((".beta", ".running_mean", ".bias")):
            state[name] = rng.normal(0, 0.2, array.shape)
    return state


def twin(make: Callable[[], nn.Module], state: mg.State) -> nn.Module:
    """The torch module with the weights of `state`: no name may be missing or left over but torch's counters."""
    module = make()
    weights = {torch_name(name): torch.tensor(array) for name, array in state.items()}
    missing, strange = module.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.endswith(".num_batches_tracked")]
    if missing or strange:
        sys.exit(f"the networks differ: torch's lacks {strange}, minigraph's lacks {missing}")
    return module


def with_gradients(model: mg.Graph) -> mg.Graph:
    net = mg.Builder.extending(model)
    gradients = mg.gradient(net.tensor("loss"), net.parameters)
    outputs = {name: net.tensor(name) for name in ("logits", "loss")}
    return net.build({**outputs, **{f"gradient.{p.name}": g for p, g in zip(net.parameters, gradients)}})


def difference(ours: np.ndarray, theirs: torch.Tensor) -> float:
    """The largest difference, relative to the range of theirs (a single number: to its size)."""
    wanted = theirs.detach().numpy()
    scale = np.ptp(wanted) if wanted.size > 1 else np.abs(wanted)
    return float(np.abs(ours - wanted).max() / scale)


def compare(model: mg.Graph, make: Callable[[], nn.Module], batch: int, gradients: bool) -> Mapping[str, float]:
    rng = np.random.default_rng(1)
    state = random_state(model, rng)
    module = twin(make, state)
    image = rng.normal(size=(batch, *model.inputs[0].type.shape[1:])).astype(np.float32)
    label = rng.integers(0, 10, batch)
    x, t = torch.tensor(image), torch.tensor(label)

    answer = mg.compile(mg.inference(model, ["logits"]), state)(image=image)["logits"]
    with torch.no_grad():
        found = {"evaluation": difference(answer, module.eval()(x))}

    got = mg.compile(with_gradients(model) if gradients else model, state)(image=image, label=label)
    logits = module.train()(x)
    loss = nn.functional.cross_entropy(logits, t)
    found["training"] = difference(got["logits"], logits)
    found["loss"] = difference(got["loss"], loss)
    buffers = dict(module.named_buffers())
    found["statistics"] = max(difference(state[n], buffers[n]) for n in state if ".running_" in n)
    if gradients:
        loss.backward()
        weights = dict(module.named_parameters())
        found["gradients"] = max(
            difference(array, weights[torch_name(name.removeprefix("gradient."))].grad)
            for name, array in got.items()
            if name.startswith("gradient.")
        )
    return found


def main() -> None:
    print(
        f"minigraph {mg.__version__}, torch {torch.__version__}, NumPy {np.__version__},"
        f" Python {platform.python_version()}; differences relative to the range, in float32"
    )
    worst = 0.0
    for name, model, make, batch, gradients in (
        ("VGG-small, 32 x 32", vgg_small(), VGGSmall, 4, True),
        ("ResNet-18, 224 x 224", resnet18(), ResNet18, 2, False),
        ("MobileNetV2, 224 x 224", mobilenet_v2(dropout=0.0), MobileNetV2, 2, False),
    ):
        found = compare(model, make, batch, gradients)
        print(f"{name}, batch {batch}: " + ", ".join(f"{what} {value:.1e}" for what, value in found.items()))
        worst = max(worst, *found.values())
    if not worst <= LIMIT:
        sys.exit(f"the largest difference is {worst:.1e}, above {LIMIT:.0e}")
    print(f"the largest difference is {worst:.1e}, within {LIMIT:.0e}")


if __name__ == "__main__":
    main()
