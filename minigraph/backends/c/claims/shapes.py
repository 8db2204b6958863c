"""The structs of sizes that kernels are given, as C, and weights packed in panels as wide as a few vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigraph.backends.calls import Operand, Pack
from minigraph.backends.loops import size_text
from minigraph.core.dim import Size, known, product

MOST_LANES = 16
HEADERS = ("vector.h", "tile.h", "pack.h")


def fields(kind: str, values: Mapping[str, Any]) -> str:
    """A struct as C."""
    return f"({kind}){{{', '.join(f'.{name} = {_text(value)}' for name, value in values.items())}}}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else size_text(value)


def strides(found: Operand, rank: int) -> list[Size]:
    """How far apart neighbours along each axis of an operand lie in memory."""
    return [found.access.stride(axis) for axis in range(rank)]


def vectors(columns: Size) -> str:
    """How many vectors wide a panel is, as C: the width depends on the machine."""
    return f"({size_text(columns)} <= LANES ? 1 : 2)"


def panels(columns: int) -> int:
    """The most numbers that `columns` of them take in whole panels."""
    return -(-columns // (2 * MOST_LANES)) * 2 * MOST_LANES


def packed(number: int, sizes: Mapping[str, Size], apart: Mapping[str, Size], steps: Mapping[str, int] = {}) -> Pack:
    """A weight of groups, K results, C channels and a window T x R x S; see pack_shape.

    apart: how far apart its numbers lie along each of these. steps: of the phases that its taps are sorted by.
    """
    width = f"{vectors(sizes['K'])} * LANES"
    shape = fields("pack_shape", {**sizes, **apart, "width": width, **steps})
    lines = known(product(n for name, n in sizes.items() if name != "K"), "a weight")
    return Pack(number, panels(known(sizes["K"], "a weight")) * lines, "pack", shape)


def up(n: int, step: int) -> int:
    return -(-n // step) * step


def two(numbers: Any, missing: Any) -> tuple[Any, Any]:
    """Height and width of one or two spatial axes."""
    return tuple(numbers) if len(numbers) == 2 else (missing, numbers[0])
