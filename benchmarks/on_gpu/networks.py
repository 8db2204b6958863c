"""The networks that are measured, and data of their shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

import minigraph as mg
from benchmarks import networks
from examples.networks import mobilenet_v2, resnet18, resnet20

WIDTHS = (1024, 1024, 1024)


def mlp_bn() -> mg.Graph:
    """784-1024-1024-1024-10 with a batch norm in front of each ReLU."""
    return networks.mlp_bn(WIDTHS)


@dataclass(frozen=True)
class Case:
    """A network at a batch, in some precisions."""

    network: str
    batch: int
    precisions: tuple[str, ...] = ("tf32", "float16")

    @property
    def name(self) -> str:
        return f"{self.network} {self.batch}"

    def model(self) -> mg.Graph:
        return NETWORKS[self.network]()

    def data(self) -> dict[str, np.ndarray]:
        """Random numbers, and labels that the network can have."""
        model, rng = self.model(), np.random.default_rng(0)
        shape = next(value.type.shape for value in model.inputs if value.name == "image")
        classes = model.outputs["logits"].type.shape[1]
        image = rng.normal(size=(self.batch, *shape[1:])).astype(np.float32)
        return {"image": image, "label": rng.integers(0, classes, self.batch)}


NETWORKS: dict[str, Callable[[], mg.Graph]] = {
    "mlp_bn": mlp_bn,
    "resnet20": resnet20,
    "resnet18": resnet18,
    "mobilenet_v2": partial(mobilenet_v2, dropout=0.0),
    "resnet9": networks.resnet9,
}
TRAINING = (  # the most telling first: a stage has little time
    Case("mlp_bn", 64, ("tf32",)),
    Case("resnet20", 128),
    Case("resnet18", 128, ("float16",)),
    Case("mlp_bn", 512, ("tf32",)),
    Case("resnet20", 1024, ("float16", "tf32")),
    Case("mlp_bn", 512, ("float16",)),
    Case("mlp_bn", 64, ("float16",)),
)
INFERENCE = (
    Case("resnet18", 1),
    Case("resnet18", 64),
    Case("mobilenet_v2", 1),
    Case("mobilenet_v2", 64),
)
RESNET9 = (Case("resnet9", 512),)
RATE, MOMENTUM = 0.01, 0.9  # of SGD
