"""What each operator of ONNX means, in minigraph's ops: a file for each family, a function for each operator."""

from minigraph.onnx.readers import (
    control,
    convolution,
    indexing,
    loss,
    normalization,
    pointwise,
    pooling,
    product,
    recurrent,
    reduction,
    resize,
    shape,
)

__all__ = [
    "control",
    "convolution",
    "indexing",
    "loss",
    "normalization",
    "pointwise",
    "pooling",
    "product",
    "recurrent",
    "reduction",
    "resize",
    "shape",
]
