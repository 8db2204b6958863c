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
import onnxruntime
from onnx import numpy_helper
from PIL import Image, ImageDraw, ImageFont

TEXTS = (
    "Invoice 2031",
    "Batch norm",
    "convolution",
    "Total: 48.50",
    "Page 7 of 9",
    "gradient",
    "No smoking",
    "Departure",
    "Room 212",
    "Handle with",
    "Flight AB 19",
    "Main Street",
    "weights",
    "July 1998",
    "Open daily",
    "Exit only",
    "Monday 8:30",
    "Library",
    "Ticket 552",
    "Please ring",
)
LIGHT = ("resnet50", "densenet121", "inception_v2", "shufflenet", "squeezenet")


def classifier() -> Path:
    """The file of the classifier."""
    return folder_of("rapidocr_onnxruntime") / "models" / "ch_ppocr_mobile_v2.0_cls_infer.onnx"


def folder_of(package: str) -> Path:
    """Where a package is installed. It is not imported: it may want others that are not there."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def light(name: str) -> onnx.ModelProto:
    """A topology as the package has it, of opset 9, its weights nodes ConstantOfShape."""
    return onnx.load(folder_of("onnx") / "backend" / "test" / "data" / "light" / f"light_{name}.onnx")


def drawn(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """The model with random weights in the place of its constants, and with logits for its output, before any softmax.

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
    last = result.graph.node[-1]
    if last.op_type == "Softmax":
        result.graph.output[0].name = last.input[0]
        del result.graph.node[-1]
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


def by_onnxruntime(model: bytes, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime computes, of a model with one input and one output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def lines_of_text() -> np.ndarray:
    """20 pictures of lines of text, and then the same upside down: (40, 3, 48, 192), as the classifier takes them.

    A line is as high as the picture; what is left over behind it is grey, 0. Numbers are from -1 to 1.
    """
    rng = np.random.default_rng(0)
    font = ImageFont.truetype(folder_of("matplotlib") / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", 34)
    upright: list[np.ndarray] = []
    turned: list[np.ndarray] = []
    for text in TEXTS:
        width = min(192, int(font.getlength(text)) + 8)
        paper, ink = int(rng.integers(200, 256)), int(rng.integers(0, 80))
        picture = Image.new("RGB", (width, 48), (paper, paper, paper))
        ImageDraw.Draw(picture).text((4, 3), text, fill=(ink, ink, ink), font=font)
        for pictures, one in ((upright, picture), (turned, picture.rotate(180))):
            pictures.append(np.pad(np.asarray(one, np.float32) / 127.5 - 1, ((0, 0), (0, 192 - width), (0, 0))))
    return np.ascontiguousarray(np.stack(upright + turned).transpose(0, 3, 1, 2))


def numbers(rng: np.random.Generator, role: str, shape: tuple[int, ...]) -> np.ndarray:
    match role:
        case "weight":
            return (rng.normal(size=shape) * math.sqrt(2 / math.prod(shape[1:]))).astype(np.float32)
        case "scale":
            return rng.uniform(0.7, 1.3, shape).astype(np.float32)
    return (0.1 * rng.normal(size=shape)).astype(np.float32)
