"""Networks whose programs run on a GPU, and what their tests share."""

from __future__ import annotations

import numpy as np

import minigraph as mg
from minigraph import layers
from minigraph.backends.cupy import device as gpu
from minigraph.backends.cupy.executable import Executable
from minigraph.core.dim import known
from minigraph.core.ir import Graph

DEVICE = gpu.device  # of the product
STEP = ["upload", "wait", "copy", "mark", "replay"]  # of a program with inputs that NumPy has


def mlp() -> Graph:
    net = mg.Builder("mlp")
    h, label = net.input("image", ("N", 6)), net.input("label", ("N",), "int64")
    for i in range(2):
        h = mg.relu(layers.batch_norm(layers.linear(h, 8, name=f"body{i}"), name=f"norm{i}"))
    logits = layers.linear(h, 3, name="head")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def cnn() -> Graph:
    net = mg.Builder("cnn")
    image, label = net.input("image", ("N", 2, 8, 8)), net.input("label", ("N",), "int64")
    h = layers.conv2d(image, 4, 3, padding="same")
    h = mg.max_pool(mg.relu(layers.batch_norm(h)), 2)
    h = layers.dropout(mg.flatten(h), 0.3)
    logits = layers.linear(h, 3, name="head")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


NETWORKS = {"mlp": mlp, "cnn": cnn}
OPTIMIZERS = {"momentum": mg.optim.SGD(0.05, momentum=0.9), "Adam": mg.optim.Adam(0.01)}


def step_of(name: str, optimizer: str = "Adam") -> Graph:
    return mg.training_step(NETWORKS[name](), "loss", OPTIMIZERS[optimizer])


def data(graph: Graph, n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = next(value for value in graph.inputs if value.name == "image").type.bind({"N": n})
    drawn = rng.normal(size=known(image.size, "image")).reshape(image.shape)  # type: ignore[arg-type]
    return {"image": drawn.astype(image.dtype), "label": rng.integers(0, 3, n)}


def executable(program: mg.Program) -> Executable:
    found = program._executable
    assert isinstance(found, Executable)
    return found


class Foreign:
    """An array that another library has on the GPU."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "version": 3,
        }
