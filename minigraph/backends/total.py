"""How one total is added up, as C: from which number on, by which operator, and how exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigraph.backends.expressions import COMPUTED, rounded
from minigraph.backends.loops import number_text
from minigraph.core.dtypes import FLOATS, NARROW

OPERATORS = {"sum": "+", "prod": "*", "and": "&&", "or": "||"}


@dataclass(frozen=True)
class Total:
    """number: among those of its region. operand: what is added, in C. name: the variable of the total."""

    number: int
    reduction: str
    dtype: str
    operand: str
    name: str

    @property
    def narrow(self) -> bool:
        """Whether numbers of its type are not exact enough for sums of very many."""
        return self.reduction == "sum" and self.dtype in (*NARROW, "float32")

    @property
    def wide(self) -> str:
        return "double" if self.narrow else COMPUTED[self.dtype]

    def start(self) -> str:
        floats = {"sum": "0", "prod": "1", "max": "-INFINITY", "min": "INFINITY", "and": "true", "or": "false"}
        if self.reduction in ("max", "min") and self.dtype not in FLOATS:
            limits = np.iinfo(self.dtype)
            return number_text(int(limits.min if self.reduction == "max" else limits.max))
        return floats[self.reduction]

    def combined(self, a: str, b: str, kind: str) -> str:
        how = self.reduction
        if how in OPERATORS:
            return f"{a} {OPERATORS[how]} {b}"
        return f"{how}_{kind}({a}, {b})"

    def chunk(self, chunks: int, size: str, chunk: str, point: str) -> str:
        """The place of the sum of one chunk at one of `size` points, in the memory that the region works in."""
        before = f"scratch + {2 * self.number * chunks} * {size}"
        return f"(({self.wide} *)({before}))[{chunk} * {size} + {point}]"

    def declared(self, place: str) -> str:
        """The total, rounded to its type."""
        return f"const {COMPUTED[self.dtype]} {self.name} = {rounded(place, self.dtype)};"
