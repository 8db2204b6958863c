"""Where numbers stop being finite."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minigraph.core.dtypes import is_float
from minigraph.core.evaluate import apply
from minigraph.core.ir import Graph, Node, Value


def first_not_finite(graph: Graph, arrays: Mapping[str, np.ndarray]) -> str | None:
    """The first input, state or node, with its line, that holds NaN or infinity, as a sentence. None if none does."""
    known: dict[Value, np.ndarray] = {}
    for kind, value in [("input", v) for v in graph.inputs] + [("state", s.value) for s in graph.state]:
        known[value] = arrays[value.name]
        if not _finite(known[value]):
            return f"{kind} {value.name!r} has {_count_not_finite(known[value])}"
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            for value, array in zip(node.outputs, apply(node, [known[v] for v in node.inputs])):
                known[value] = array
                if not _finite(array):
                    return _blame(node, value, array)
    return None


def _finite(array: np.ndarray) -> bool:
    return not is_float(array.dtype) or bool(np.isfinite(array).all())


def _count_not_finite(array: np.ndarray) -> str:
    nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    parts = ([f"{nan} NaN"] if nan else []) + ([f"{infinite} infinite"] if infinite else [])
    return f"{' and '.join(parts)} of {array.size} numbers, the first at {list(first)}"


def _blame(node: Node, value: Value, array: np.ndarray) -> str:
    where = f", at {node.origin.where()}" if node.origin.file else ""
    of = f" (backward of {node.origin.forward})" if node.origin.forward else ""
    return f"{node.op.name} {value.name!r}{of} is the first value with {_count_not_finite(array)}{where}"
