"""The references, one after the other: what a graph means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from minigraph.core.errors import GraphError
from minigraph.core.exact import Outside, Undefined
from minigraph.core.ir import Graph, Node, Value, describe


class Evaluation:
    """How to evaluate one graph without symbols: computed once, run often.

    A value is dropped after its last reader, unless it is among `keep`. `peak_bytes` is the most memory that values of
    nodes held at one time in the last run (views of another array are not counted again).
    """

    def __init__(self, graph: Graph, keep: Iterable[Value] = ()):
        self.graph = graph
        self.peak_bytes = 0
        last: dict[Value, Node] = {value: node for node in graph.nodes for value in (*node.outputs, *node.inputs)}
        kept = {*graph.outputs.values(), *graph.updates.values(), *graph.updates, *keep}
        drops: dict[Node, list[Value]] = {}
        for value, node in last.items():
            if value not in kept:
                drops.setdefault(node, []).append(value)
        self._steps = [(node, drops.get(node, ())) for node in graph.nodes]

    def run(
        self, given: Mapping[Value, np.ndarray], done: Callable[[Node], object] = lambda node: None
    ) -> dict[Value, np.ndarray]:
        """Arrays of all inputs and state -> arrays of all outputs, updates and kept values.

        done: called behind each node.
        Arithmetic is IEEE's: infinities and NaNs arise and pass on without a warning.
        """
        arrays = dict(given)
        held: dict[int, tuple[int, int]] = {}  # buffer -> (values that use it, its bytes)
        foreign = {_buffer(array)[0] for array in arrays.values()}
        now = peak = 0
        with np.errstate(all="ignore"):
            for node, drops in self._steps:
                results = apply(node, [arrays[value] for value in node.inputs])
                for value, array in zip(node.outputs, results):
                    arrays[value] = array
                    key, size = _buffer(array)
                    if key not in foreign:
                        users, _ = held.get(key, (0, 0))
                        now += 0 if users else size
                        held[key] = users + 1, size
                peak = max(peak, now)
                for value in drops:
                    key, size = _buffer(arrays.pop(value))
                    if key in held:
                        users, _ = held.pop(key)
                        if users > 1:
                            held[key] = users - 1, size
                        else:
                            now -= size
                done(node)
        self.peak_bytes = peak
        return arrays


def apply(node: Node, inputs: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """One node's reference on arrays, its results held against the types that the op infers."""
    try:
        results = node.op.run(inputs, node.attrs)
    except Outside:
        raise
    except ZeroDivisionError as error:  # machine numbers give NaN instead
        raise Undefined(describe(node, str(error))) from None
    except GraphError as error:
        raise GraphError(describe(node, str(error))) from None
    except Exception as error:
        raise GraphError(describe(node, f"its reference failed: {type(error).__name__}: {error}")) from error
    if any(array.dtype == object for array in inputs):  # NumPy makes plain numbers of some: the sum of nothing is 0
        results = tuple(a.astype(object) if v.type.is_float else a for v, a in zip(node.outputs, results))
    for value, array in zip(node.outputs, results, strict=True):
        if array.shape != value.type.shape or array.dtype.name not in (value.type.dtype, "object"):
            got = f"{array.dtype.name}[{', '.join(map(str, array.shape))}]"
            raise GraphError(describe(node, f"its reference gave {got} for {value}"))
    return results


def evaluate(graph: Graph, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Outputs by name from inputs and state by name. For tests and small things: a Program does this with checks."""
    values = (*graph.inputs, *(variable.value for variable in graph.state))
    found = Evaluation(graph).run({value: np.asarray(arrays[value.name]) for value in values})
    return {name: found[value] for name, value in graph.outputs.items()}


def _buffer(array: np.ndarray) -> tuple[int, int]:
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    return id(base), base.nbytes
