"""What is measured: networks, batches and optimizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

import minigraph as mg
from benchmarks.networks import lenet_bn, mlp_bn, unet_of_any_size
from benchmarks.on_cpu.task import BATCHES
from examples.networks import cnn1d, densenet_bc, mobilenet_v2, resnet18, resnet20, vgg_small, wide_resnet


@dataclass(frozen=True)
class Optimizer:
    """SGD or Adam, as all frameworks have them. Weight decay takes hold of all parameters."""

    kind: str
    rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def ours(self) -> mg.optim.Optimizer:
        if self.kind == "adam":
            return mg.optim.Adam(self.rate, weight_decay=self.weight_decay, decay="*")
        return mg.optim.SGD(self.rate, momentum=self.momentum, weight_decay=self.weight_decay, decay="*")


@dataclass(frozen=True)
class Workload:
    """A step of training, or an answer where there is no optimizer.

    key: its short name. least, aim: how many times as fast as the best of the others minigraph is to be.
    """

    key: str
    name: str
    make: Callable[[], mg.Graph]
    batch: int
    optimizer: Optimizer | None = None
    least: float | None = None
    aim: float | None = None

    def graph(self) -> mg.Graph:
        """What minigraph compiles."""
        model = self.make()
        if self.optimizer is None:
            return mg.inference(model, ["logits"])
        return mg.training_step(model, "loss", self.optimizer.ours(), outputs=["loss"])

    def data(self) -> dict[str, np.ndarray]:
        """Some batches, one behind the other: random numbers, and labels that the network can have."""
        model, rng = self.make(), np.random.default_rng(0)
        classes, count = model.outputs["logits"].type.shape[1], BATCHES * self.batch
        found = {}
        for value in model.inputs:
            shape = (count, *value.type.shape[1:])
            if value.type.is_float:
                found["image"] = rng.standard_normal(shape, dtype=np.float32)
            else:
                found["label"] = rng.integers(0, classes, shape)
        return {name: x.reshape(BATCHES, self.batch, *x.shape[1:]) for name, x in found.items()}


SGD = Optimizer("sgd", 0.1)
MOMENTUM = Optimizer("sgd", 0.01, momentum=0.9)
DECAY = Optimizer("sgd", 0.1, momentum=0.9, weight_decay=1e-4)
ADAM = Optimizer("adam", 1e-3)
SIGMOID, WIDE = partial(mlp_bn, (100,) * 3, mg.sigmoid), partial(mlp_bn, (1024,) * 2)
MOBILE = partial(mobilenet_v2, dropout=0.0)
UNET = partial(unet_of_any_size, 97, 61)

TABLE = (
    Workload("mlp", "MLP 784-100-100-100-10, sigmoid: training, batch 60", SIGMOID, 60, SGD, 2.5, 3.5),
    Workload("mlp-wide", "MLP 784-1024-1024-10: training, batch 256, Adam", WIDE, 256, ADAM, 1.3, 1.6),
    Workload("lenet", "LeNet with BN: training, batch 64", lenet_bn, 64, MOMENTUM, 2.2, 3.0),
    Workload("resnet20", "ResNet-20: training, batch 128", resnet20, 128, DECAY, 1.45, 2.0),
    Workload("resnet20-1", "ResNet-20: inference, batch 1", resnet20, 1, None, 1.6, 2.1),
    Workload("resnet20-128", "ResNet-20: inference, batch 128", resnet20, 128, None, 1.5, 2.2),
    Workload("resnet18-1", "ResNet-18: inference, batch 1", resnet18, 1, None, 1.25, 1.6),
    Workload("resnet18-8", "ResNet-18: inference, batch 8", resnet18, 8, None, 1.5, 2.0),
    Workload("mobilenet-1", "MobileNetV2: inference, batch 1", MOBILE, 1, None, 1.15, 1.4),
)
BESIDES = (  # networks with other sizes, widths, batches and windows: what helps the table is to help these, too
    Workload("mlp-odd", "MLP 784-300-77-10: training, batch 33", partial(mlp_bn, (300, 77)), 33, MOMENTUM),
    Workload("lenet-7x7", "LeNet of 24 and 48, 7x7: training, batch 37", partial(lenet_bn, (24, 48), 7, 200), 37, ADAM),
    Workload("resnet20-wider", "ResNet-20 of width 20: training, batch 50", partial(resnet20, width=20), 50, MOMENTUM),
    Workload("densenet", "DenseNet-BC 40: training, batch 32", partial(densenet_bc, 40), 32, MOMENTUM),
    Workload("unet", "U-Net 97x61: training, batch 4", UNET, 4, ADAM),
    Workload("mobilenet", "MobileNetV2 96x96: training, batch 16", partial(MOBILE, 10, 96), 16, MOMENTUM),
    Workload("densenet-1", "DenseNet-BC 100: inference, batch 1", densenet_bc, 1),
    Workload("densenet-16", "DenseNet-BC 100: inference, batch 16", densenet_bc, 16),
    Workload("unet-1", "U-Net 97x61: inference, batch 1", UNET, 1),
    Workload("resnet18-3", "ResNet-18 193x193: inference, batch 3", partial(resnet18, size=193), 3),
    Workload("mobilenet-4", "MobileNetV2 x 0.75, 160x160: inference, batch 4", partial(MOBILE, 1000, 160, 0.75), 4),
    Workload("wide-5", "WRN-16-4: inference, batch 5", partial(wide_resnet, 16, 4), 5),
    Workload("vgg-7", "VGG for 32x32: inference, batch 7", vgg_small, 7),
    Workload("cnn1d-16", "1-D CNN of 301: inference, batch 16", partial(cnn1d, length=301), 16),
)
LISTS = {"table": TABLE, "besides": BESIDES, "all": TABLE + BESIDES}
