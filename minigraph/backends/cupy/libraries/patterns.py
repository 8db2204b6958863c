"""What a library is asked to compute: a product and what follows it, in numbers alone.

Equal patterns have equal answers, whatever network and layer they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

WORKSPACE_ALIGNMENT = 256  # bytes
NAMES = {  # what an op reads and gives, of a convolution
    "conv": ("x", "w", "y"),
    "conv_input_gradient": ("y", "w", "x"),
    "conv_weight_gradient": ("x", "y", "w"),
}


@dataclass(frozen=True)
class Array:
    """Numbers in memory. strides: counted in numbers. alignment: bytes, of which the address is a multiple."""

    dtype: str
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    alignment: int


@dataclass(frozen=True)
class Convolution:
    """y = conv(x, w), or the gradient to x or w of it.

    op: "conv", "conv_input_gradient" or "conv_weight_gradient". x: (N, C, *spatial), w: (O, C/groups, *window), y:
    (N, O, *places), wherever their numbers lie. padding: before and behind, along each spatial axis. bias, relu: y is
    relu(conv(x, w) + b), with b (O,) of the dtype of y, or as much of it. tf32: whether products may be of x and w
    rounded to tf32; else float32 is strict.
    """

    op: str
    x: Array
    w: Array
    y: Array
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    bias: bool = False
    relu: bool = False
    tf32: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What it reads, in the order of the addresses, and what it writes, which is last."""
        first, second, result = NAMES[self.op]
        return (first, second, *(["b"] if self.bias else []), result)

    def __str__(self) -> str:
        return " + ".join([self.op, *_followers(self)])


@dataclass(frozen=True)
class Product:
    """y = a b, of so many matrices: a (count, M, K), b (count, K, N), y (count, M, N) in rows.

    bias, relu: y is relu(a b + b'), with b' (N,) of the dtype of y, or as much of it. tf32: as of Convolution.
    """

    a: Array
    b: Array
    y: Array
    bias: bool = False
    relu: bool = False
    tf32: bool = False

    def __str__(self) -> str:
        return " + ".join(["matmul", *_followers(self)])


Pattern = Convolution | Product


def _followers(pattern: Pattern) -> list[str]:
    return [name for name, there in (("bias", pattern.bias), ("relu", pattern.relu)) if there]


class Routine(Protocol):
    """How a library computes a pattern on a GPU: all that takes time or memory to find out is done.

    name: of the library and the pattern. workspace: bytes that it works in.
    """

    @property
    def name(self) -> str: ...

    @property
    def workspace(self) -> int: ...

    def run(self, addresses: Sequence[int]) -> None:
        """Hand it to the stream. addresses: of what it reads, in order, of the result, and of the workspace if it has
        one, which is a multiple of WORKSPACE_ALIGNMENT. Nothing is allocated, and nothing is waited for. Raises Failed.
        """


class Library(Protocol):
    """One for one GPU and stream."""

    def routine(self, pattern: Pattern) -> Routine | None:
        """How it computes the pattern, or None where it does not. The same whenever it is asked."""


class Failed(Exception):
    """A library reports an error where it computes: a sentence of its own."""


class Missing(Exception):
    """A library, or part of it, is not there: a sentence that says what, and what to type."""
