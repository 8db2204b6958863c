"""Networks from elsewhere, with pictures to show them: a trained classifier, and topologies with random weights.

The classifier is in the wheel rapidocr-onnxruntime: whether a line of text stands upright or upside down. The
topologies are those that the package onnx brings, whose weights are one constant each: `drawn` draws random ones.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

LIGHT = ("resnet50", "densenet121", "inception_v2", "shufflenet", "squeezenet")


def classifier() -> Path:
    """The file of the classifier."""
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "models" / "ch_ppocr_mobile_v2.0_cls_infer.onnx"


def light(name: str) -> onnx.ModelProto:
    """A topology as the package has it, of opset 9, its weights nodes ConstantOfShape."""
    spec = importlib.util.find_spec("onnx")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "backend" / "test" / "data" / "light"
    return onnx.load(folder / f"light_{name}.onnx")


def drawn(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """The model with random weights in the place of its constants, which keep activations of size 1.

    Weights of convolutions and products deviate by sqrt(2 / inputs), as He et al. propose; scales and variances lie
    about 1, shifts and means about 0. Sums of branches grow from block to block, which the next norm takes back.
    """
    rng = np.random.default_rng(seed)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    made = {n.output[0]: shapes[n.input[0]] for n in model.graph.node if n.op_type == "ConstantOfShape"}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.ir_version = 4  # initializers need not be inputs any more
    del result.graph.initializer[:], result.graph.node[:], result.graph.input[:]
    result.graph.node.extend(n for n in model.graph.node if n.op_type != "ConstantOfShape")
    roles = {name: role for node in result.graph.node for name, role in zip(node.input, roles_of(node))}
    arrays = {
        name: (numbers(rng, roles[name], tuple(map(int, shape)))) for name, shape in made.items() if name in roles
    }
    arrays.update((name, array) for name, array in shapes.items() if name in roles)
    result.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    result.graph.input.extend(value for value in model.graph.input if value.name not in shapes)
    return result


def roles_of(node: onnx.NodeProto) -> list[str]:
    """What each input of a node is."""
    match node.op_type:
        case "Conv" | "Gemm":
            return ["data", "weight", "shift"]
        case "BatchNormalization":
            return ["data", "scale", "shift", "shift", "scale"]
        case "Unsqueeze":  # in front of the products and sums that follow a norm
            return ["scale"]
    return ["data"] * len(node.input)


def numbers(rng: np.random.Generator, role: str, shape: tuple[int, ...]) -> np.ndarray:
    match role:
        case "weight":
            return (rng.normal(size=shape) * math.sqrt(2 / math.prod(shape[1:]))).astype(np.float32)
        case "scale":
            return rng.uniform(0.7, 1.3, shape).astype(np.float32)
    return (0.1 * rng.normal(size=shape)).astype(np.float32)
