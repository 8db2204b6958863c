"""Python's operators as ops, for whatever ops can be called on: tensors build nodes, patterns describe them."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigraph.core.op import OPS


class Operators:
    """+ - * / @ ** % & | ~ and comparisons. == is identity (use `equal`)."""

    __slots__ = ()

    # fmt: off
    def __add__(self, other: Any) -> Any:
        return OPS["add"](self, other)
    def __radd__(self, other: Any) -> Any: return OPS["add"](other, self)
    def __sub__(self, other: Any) -> Any: return OPS["sub"](self, other)
    def __rsub__(self, other: Any) -> Any: return OPS["sub"](other, self)
    def __mul__(self, other: Any) -> Any: return OPS["mul"](self, other)
    def __rmul__(self, other: Any) -> Any: return OPS["mul"](other, self)
    def __truediv__(self, other: Any) -> Any: return OPS["div"](self, other)
    def __rtruediv__(self, other: Any) -> Any: return OPS["div"](other, self)
    def __matmul__(self, other: Any) -> Any: return OPS["matmul"](self, other)
    def __neg__(self) -> Any: return OPS["neg"](self)
    def __rpow__(self, other: Any) -> Any: return OPS["pow"](other, self)
    def __mod__(self, other: Any) -> Any: return OPS["mod"](self, other)
    def __rmod__(self, other: Any) -> Any: return OPS["mod"](other, self)
    def __abs__(self) -> Any: return OPS["abs"](self)
    def __and__(self, other: Any) -> Any: return OPS["logical_and"](self, other)
    def __rand__(self, other: Any) -> Any: return OPS["logical_and"](other, self)
    def __or__(self, other: Any) -> Any: return OPS["logical_or"](self, other)
    def __ror__(self, other: Any) -> Any: return OPS["logical_or"](other, self)
    def __invert__(self) -> Any: return OPS["logical_not"](self)
    def __lt__(self, other: Any) -> Any: return OPS["less"](self, other)
    def __le__(self, other: Any) -> Any: return OPS["less_equal"](self, other)
    def __gt__(self, other: Any) -> Any: return OPS["less"](other, self)
    def __ge__(self, other: Any) -> Any: return OPS["less_equal"](other, self)

    # fmt: on

    def __pow__(self, other: Any) -> Any:
        is_number = isinstance(other, (int, float, np.integer, np.floating))
        return OPS["power"](self, exponent=other) if is_number else OPS["pow"](self, other)
