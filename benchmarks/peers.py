"""What README.md's table says of PyTorch, JAX and ONNX Runtime, tried with what is installed of them.

    python -m benchmarks.peers

Needs torch, jax, onnx and onnxruntime, which minigraph itself does not. Prints a line for each, with what was found.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

import minigraph as mg
from minigraph import layers, onnx

try:
    import jax
    import onnxruntime
    import torch
    from packaging.requirements import Requirement
    from torch.fx.experimental.proxy_tensor import make_fx
except ImportError as missing:
    sys.exit(f"This compares with PyTorch, JAX and ONNX Runtime: install torch, jax and onnxruntime ({missing}).")

RATE, STEPS = 1e-3, 100


def megabytes(name: str) -> str:
    """Of the package and all that it needs, installed, without compiled Python."""
    sizes: dict[str, int] = {}

    def add(each: str) -> None:
        found = distribution(each)
        if found.metadata["Name"] in sizes:
            return
        paths = [Path(str(file.locate())) for file in found.files or [] if "__pycache__" not in str(file)]
        sizes[found.metadata["Name"]] = sum(path.stat().st_size for path in paths if path.exists())
        for needed in map(Requirement, found.requires or []):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                add(needed.name)

    try:
        add(name)
    except PackageNotFoundError as absent:
        return f"{absent} is not installed"
    return f"{sum(sizes.values()) / 1e6:.0f} MB in {len(sizes)} packages"


def small() -> tuple[mg.Graph, mg.State]:
    net = mg.Builder("small")
    image, label = net.input("image", ("N", 1, 8, 8)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.conv2d(image, 4, 3, name="conv1")))
    logits = layers.linear(mg.flatten(h), 10)
    model = net.build(logits=logits, loss=mg.cross_entropy(logits, label))
    return model, model.init(0)


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((32, 1, 8, 8), np.float32), rng.integers(0, 10, 32)


def our_bias() -> str:
    """The bias of a convolution in front of a training batch norm, after steps of Adam: how far it has moved."""
    (model, state), (x, y) = small(), batch()
    train = mg.compile(mg.training_step(model, "loss", mg.optim.Adam(RATE)), state)
    for _ in range(STEPS):
        train(image=x, label=y)
    return f"moved by {np.abs(state['conv1.bias']).max() / RATE:.3g} learning rates"


def torchs_bias() -> str:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(1, 4, 3)
    model = torch.nn.Sequential(
        conv, torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
    )
    before, optimizer = conv.bias.detach().clone(), torch.optim.Adam(model.parameters(), RATE)
    x, y = map(torch.from_numpy, batch())
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return f"moved by {(conv.bias - before).abs().max().item() / RATE:.3g} learning rates"


def our_folding() -> str:
    model, state = small()
    graph = mg.compile(mg.inference(model, outputs=["logits"]), state).graph
    return f"{sum(node.op.name == 'batch_norm' for node in graph.nodes)} batch norms left"


def torchs_folding() -> str:
    conv, norm = torch.nn.Conv2d(1, 4, 3).eval(), torch.nn.BatchNorm2d(4).eval()
    x = torch.from_numpy(batch()[0])
    apart = (torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)(x) - norm(conv(x))).abs().max().item()
    return f"fuse_conv_bn_eval gives one convolution, {apart:.1g} apart"


def runtimes_folding() -> str:
    model, state = small()
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save(mg.inference(model, outputs=["logits"]), state, before)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(after)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        onnxruntime.InferenceSession(before, options, providers=["CPUExecutionProvider"])
        read = importlib.import_module("onnx").load
        left = [
            Counter(node.op_type for node in read(path).graph.node)["BatchNormalization"] for path in (before, after)
        ]
    return f"{left[0]} batch norms before it loads the model, {left[1]} after"


def our_backward() -> str:
    model, _ = small()
    roles = Counter(node.origin.role for node in mg.training_step(model, "loss", mg.optim.SGD(RATE)).nodes)
    return ", ".join(f"{count} {role}" for role, count in roles.items()) + " nodes in one graph"


def torchs_backward() -> str:
    traced = make_fx(torch.func.grad(lambda w: (w.tanh() ** 2).sum()))(torch.ones(3))
    return f"make_fx gives a graph of {len(traced.graph.nodes)} nodes"


def jaxs_backward() -> str:
    made = jax.make_jaxpr(jax.grad(lambda w: (jax.numpy.tanh(w) ** 2).sum()))(np.ones(3, np.float32))
    return f"make_jaxpr gives {len(made.eqns)} equations"


def runtimes_training() -> str:
    try:
        importlib.import_module("onnxruntime.training.api")
    except ImportError as absent:
        return f"not in this package ({absent})"
    return "in this package"


TRIED: dict[str, dict[str, Callable[[], str]]] = {
    "installed": {name: lambda name=name: megabytes(name) for name in ("minigraph", "torch", "jax", "onnxruntime")},
    "training": {"onnxruntime": runtimes_training},
    "the backward pass": {"minigraph": our_backward, "torch": torchs_backward, "jax": jaxs_backward},
    "folding": {"minigraph": our_folding, "torch": torchs_folding, "onnxruntime": runtimes_folding},
    "the redundant bias": {"minigraph": our_bias, "torch": torchs_bias},
}


def main() -> None:
    print(", ".join(f"{module.__name__} {module.__version__}" for module in (torch, jax, onnxruntime)))
    for what, each in TRIED.items():
        for name, tried in each.items():
            print(f"{what:20} {name:12} {tried()}", flush=True)


if __name__ == "__main__":
    main()
