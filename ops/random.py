"""Random numbers by counting: Philox 4x32-10 (Salmon, Moraes, Dror and Shaw, 2011), and dropout on it.

A number is a function of (seed, stream, step, index of the element), and of nothing else: the backward pass computes
the same mask again, and neither the order of execution nor the backend nor a neighbour that was removed changes it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import shape_of
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Example, Half, Kernel, Op, Sample, each_number, float_dtype, integers, no_flops, real
from minigraph.ops.pointwise import where

MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL = 0x9E3779B9, 0xBB67AE85
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox(counter: tuple[np.ndarray, ...], key: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Ten rounds over arrays of four 32-bit words (held in uint64): four random words for each counter."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        p, q = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b, c, d = (q >> HALF) ^ b ^ np.uint64(k0), q & LOW, (p >> HALF) ^ d ^ np.uint64(k1), p & LOW
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return a, b, c, d


def random_bits_types(seed: Type, step: Type, /, *, shape: Any, stream: int) -> Type:
    """32 random bits for each element of `shape`, as uint32. seed, step: int64 scalars; see Builder.random_stream."""
    for name, t in (("seed", seed), ("step", step)):
        expect(t == Type((), "int64"), "{} is a scalar int64, not {}", name, t)
    return Type(shape, "uint32")


def random_bits_reference(seed: np.ndarray, step: np.ndarray, shape: tuple[int, ...], stream: int) -> np.ndarray:
    """Element i is word i % 4 of the block whose counter is (i // 4, stream, step, step >> 32)."""
    total, (s, t) = math.prod(shape), (int(seed), int(step))
    block = np.arange((total + 3) // 4, dtype=np.uint64)
    word = lambda n: np.uint64(n & 0xFFFFFFFF)
    counter = block, np.full_like(block, word(stream)), np.full_like(block, word(t)), np.full_like(block, word(t >> 32))
    words = philox(counter, (s & 0xFFFFFFFF, (s >> 32) & 0xFFFFFFFF))
    return np.stack(words, 1).astype(np.uint32).reshape(-1)[:total].reshape(shape)


random_bits = Op(
    "random_bits",
    random_bits_types,
    random_bits_reference,
    flops=no_flops,
    gradient=lambda gs, xs, ys, **_: (None, None),
    kernel=Kernel("random.h", lambda ins, outs, shape, stream: {"stream": stream & 0xFFFFFFFF}),
    canonical=lambda seed, step, shape, stream: {"shape": shape_of(shape), "stream": int(stream)},
    examples=(
        Example(integers(below=1 << 40), integers(below=99), shape=(2, 3), stream=0),
        Example(integers(below=9), integers(below=9), shape=(0, 3), stream=1),
        Example(Sample((), "int64", -(2**63), 2**63 - 1), integers(below=1 << 50), shape=(13,), stream=2**32 - 1),
    ),
)


def dropout_types(x: Type, seed: Type, step: Type, /, *, rate: float, stream: int) -> Type:
    """Each number of x with probability 1 - rate, times 1 / (1 - rate); else 0. So the expectation is x."""
    float_dtype(x)
    random_bits_types(seed, step, shape=x.shape, stream=stream)
    return x


def dropout_canonical(x: Type, seed: Type, step: Type, rate: Any, stream: Any) -> dict[str, Any]:
    expect(0 <= float(rate) < 1, "the rate is at least 0 and less than 1, not {}", rate)
    return {"rate": float(rate), "stream": int(stream)}


def _threshold(rate: float) -> int:
    """Bits below this are dropped."""
    return min(round(rate * 2**32), 2**32 - 1)


def dropout_reference(x: np.ndarray, seed: np.ndarray, step: np.ndarray, rate: float, stream: int) -> np.ndarray:
    kept = random_bits_reference(seed, step, x.shape, stream) >= _threshold(rate)
    return np.where(kept, x * (1 / (1 - rate)), 0)


def dropout_expand(x: Tensor, seed: Tensor, step: Tensor, rate: float, stream: int) -> Tensor:
    kept = random_bits(seed, step, shape=x.shape, stream=stream) >= x.builder.constant(_threshold(rate), "uint32")
    return where(kept, x * (1 / (1 - rate)), 0.0)


STEP = Sample((), "int64", 0, 9)

dropout: Op = Op(
    "dropout",
    dropout_types,
    dropout_reference,
    expand=dropout_expand,
    canonical=dropout_canonical,
    channels=each_number("any"),
    gradient=lambda gs, xs, ys, **attrs: (dropout(gs[0], xs[1], xs[2], **attrs), None, None),
    layer="layers.dropout",
    half=Half(),
    examples=(
        Example(real(3, 5), STEP, STEP, rate=0.5, stream=0),
        Example(real(7), STEP, STEP, rate=0.1, stream=3),
        Example(real(2, 1), STEP, STEP, rate=0.0, stream=0),
        Example(real(0, 2), STEP, STEP, rate=0.2, stream=0),
    ),
)
