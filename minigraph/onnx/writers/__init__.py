"""Writers: how each op is said in ONNX, a file for each family."""

from __future__ import annotations

from minigraph.onnx.writers import (  # noqa: F401
    activation,
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
