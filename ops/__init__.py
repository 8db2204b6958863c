"""minigraph.ops: the op vocabulary, a file for each family."""

if __name__ != "minigraph.ops":  # under a second name there would be a second registry
    raise ImportError(f"this folder is the package minigraph.ops and was imported as {__name__}: import minigraph.ops")

from minigraph.ops import (  # noqa: F401
    activation,
    batch_norm,
    broadcast,
    constant,
    conv,
    index,
    loss,
    matmul,
    moments,
    norm,
    pointwise,
    pool,
    random,
    reduce,
    resize,
    scan,
    shape,
    softmax,
    tf32,
    tile,
)
