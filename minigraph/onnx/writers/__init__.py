"""How each op is said in ONNX: a file for each family, a function for each op that has a writer."""

from minigraph.onnx.writers import (
    activation,
    bias,
    constant,
    convolution,
    indexing,
    loss,
    normalization,
    pooling,
    product,
    reduction,
    resize,
    shape,
)

__all__ = [
    "activation",
    "bias",
    "constant",
    "convolution",
    "indexing",
    "loss",
    "normalization",
    "pooling",
    "product",
    "reduction",
    "resize",
    "shape",
]
