"""Trials: a graph run on random machine numbers, with float64 in place of every float.

What rounds to 1e-16 in each step shows a difference between two graphs that float32 would hide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from minigraph.core import dim
from minigraph.core.dtypes import FLOATS, is_float
from minigraph.core.errors import GraphError, expect
from minigraph.core.evaluate import apply
from minigraph.core.initial import Constant
from minigraph.core.ir import Graph, Node, Type, Value, Variable
from minigraph.core.op import OPS, Literal

BATCH = 3  # what a symbol stands for that is the first size of an input
OTHERS = (4, 8, 16, 32, 64, 7)  # and what others do: the first with which all windows and strides fit
Seen = Callable[[Value, np.ndarray], np.ndarray]
WHOLE = 5  # whole numbers are drawn below this, where nothing says more


def bound(graph: Graph, sizes: Mapping[str, int], least: int = BATCH) -> tuple[Graph, dict[str, int]]:
    """The graph with numbers for its symbols, the given ones and small ones for the rest; and which these are."""
    unknown = set(sizes) - graph.symbols
    expect(not unknown, "there is no size {} in {!r}", ", ".join(sorted(unknown)), graph.name)
    open_ = sorted(graph.symbols - set(sizes))
    firsts = {str(v.type.shape[0]) for v in graph.inputs if v.type.shape}
    failed: GraphError | None = None
    for other in OTHERS:
        # two spatial sizes that differ: what exchanges them is seen
        rest = [name for name in open_ if name not in firsts]
        found = {**dict.fromkeys(open_, least), **{name: other * (1 + i) for i, name in enumerate(rest)}, **sizes}
        try:
            return graph.bind(**found), found
        except GraphError as error:
            failed = error
        if not rest:
            break
    raise GraphError(f"no sizes were found that fit {graph.name!r}; give them as sizes={{...}}: {failed}")


def counted(graph: Graph) -> Graph:
    """The graph with a number for what counts elements along axes of known sizes (the op `count`)."""
    new: dict[Value, Value] = {}
    nodes = []
    for node in graph.nodes:
        inputs = tuple([new.get(value, value) for value in node.inputs])
        if node.op.name == "count" and not dim.symbolic(sizes := _along_axes(node)):
            value = np.asarray(math.prod(sizes)).astype(node.attrs["dtype"]).item()
            attrs, _ = OPS["fill"].infer((), {"value": value, "shape": (), "dtype": node.attrs["dtype"]})
            node = replace(node, op=OPS["fill"], inputs=(), attrs=attrs)
        elif inputs != node.inputs:
            outputs = tuple([Value(value.type, value.name) for value in node.outputs])
            new.update(zip(node.outputs, outputs))
            node = replace(node, inputs=inputs, outputs=outputs)
        nodes.append(node)
    ends = {name: new.get(value, value) for name, value in graph.outputs.items()}
    moved = {old: new.get(value, value) for old, value in graph.updates.items()}
    return Graph(graph.name, graph.inputs, graph.state, tuple(nodes), ends, moved)


def _along_axes(node: Node) -> tuple[Any, ...]:
    """The sizes of what a node reads along its axes."""
    return tuple(node.inputs[0].type.shape[axis] for axis in node.attrs["axes"])


def constants(graph: Graph) -> dict[Value, np.ndarray]:
    """What a graph without symbols makes of constants alone, in its dtypes, as a fold beforehand computes it."""
    found: dict[Value, np.ndarray] = {}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if all(value in found for value in node.inputs):
                found.update(zip(node.outputs, apply(node, [found[value] for value in node.inputs])))
    return found


def in_float64(graph: Graph) -> Graph:
    """The same graph with float64 for every float, of inputs, state, literals and attributes."""
    return graph.retyped(lambda given: Type(given.shape, _wide(given.dtype)), _wide, "in float64")


def _wide(attribute: Any) -> Any:
    if isinstance(attribute, str) and attribute in FLOATS:
        return "float64"
    if isinstance(attribute, Literal) and attribute.array.dtype.name in FLOATS:
        return Literal(attribute.array.astype(np.float64))
    return attribute


def draw(
    graph: Graph, rng: np.random.Generator, state: Mapping[str, np.ndarray], scale: float, below: int | None = None
) -> dict[str, np.ndarray]:
    """Arrays for inputs and state by name; what `state` holds is taken from there.

    scale: the deviation of float inputs. below: the bound of whole inputs, instead of what their readers tell.
    """
    arrays = {}
    for value in graph.inputs:
        shape, dtype = value.type.shape, value.type.dtype
        if value.type.is_float:
            arrays[value.name] = rng.normal(0.0, scale, shape)  # type: ignore[arg-type]
        else:
            high = 2 if dtype == "bool" else limit(graph, value) if below is None else below
            arrays[value.name] = rng.integers(0, high, shape).astype(dtype)  # type: ignore[arg-type]
    for variable in graph.state:
        value = variable.value
        given = state.get(variable.name)
        arrays[value.name] = (_fresh(variable, rng) if given is None else np.asarray(given)).astype(value.type.dtype)
        expect(
            arrays[value.name].shape == value.type.shape,
            "state {} has shape {} in `state`",
            value,
            arrays[value.name].shape,
        )
    return arrays


def _fresh(variable: Variable, rng: np.random.Generator) -> np.ndarray:
    """Numbers as training may have left them: biases and means are not 0, scales are not 1 and of both signs.

    What an optimizer keeps may be a sum of squares, and is drawn above 0, as are statistics that begin above 0.
    """
    shape: tuple[int, ...] = variable.value.type.shape  # type: ignore[assignment]
    begins = variable.initializer
    if variable.kind == "counter":
        return rng.integers(1, 9, shape)
    if variable.kind == "stream" or not variable.value.type.is_float:
        return begins.array(int(rng.integers(2**31)), variable.name, shape, variable.value.type.dtype)
    if variable.kind == "slot":  # of all sizes: what is added to a small one is seen
        return 10.0 ** rng.uniform(-8.0, 0.0, shape)
    if not isinstance(begins, Constant):
        return begins.array(int(rng.integers(2**31)), variable.name, shape, "float64")
    sizes = rng.uniform(0.5, 1.5, shape)
    signs = rng.choice((-1.0, 1.0), shape) if variable.kind == "parameter" or begins.value == 0 else 1.0
    return sizes * signs * (begins.value or 0.3)


def limit(graph: Graph, value: Value) -> int:
    """Whole numbers below this fit what reads them: classes are counted by logits, indices by what they point into."""
    if value.type.dtype == "bool":
        return 2
    return _told(graph, value) or (256 if value.type.dtype == "uint8" else WHOLE)


def _told(graph: Graph, value: Value) -> int:
    """The bound that the readers of whole numbers tell, or 0."""
    found: list[Any] = []
    for node in graph.readers.get(value, ()):
        if "classes" in node.attrs or "size" in node.attrs:
            found.append(node.attrs.get("classes", node.attrs.get("size")))
        elif value is not node.inputs[0]:
            found.append(_along(node))
        if node.op.name == "cast":
            found.append(_told(graph, node.outputs[0]))
        # compared with the place of a maximum, which is below the number of places
        found.extend(_along(graph.producer[v]) for v in node.inputs if v is not value and v in graph.producer)
    return min((n for n in found if isinstance(n, int) and n > 0), default=0)


def _along(node: Node) -> Any:
    """The size of what a node reads along its axis, or 0."""
    axis = node.attrs.get("axis")
    shape = node.inputs[0].type.shape if node.inputs else ()
    return shape[axis] if isinstance(axis, int) and axis < len(shape) else 0


def run(
    graph: Graph,
    arrays: Mapping[str, np.ndarray],
    seen: Seen = lambda value, array: array,
) -> dict[Value, np.ndarray]:
    """Outputs and updates by value. `seen` is shown every array, and what it returns is computed with."""
    last: dict[Value, Node] = {value: node for node in graph.nodes for value in (*node.inputs, *node.outputs)}
    kept = {*graph.outputs.values(), *graph.updates.values()}
    given = (*graph.inputs, *(variable.value for variable in graph.state))
    found = {value: seen(value, arrays[value.name]) for value in given}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            for value, array in zip(node.outputs, apply(node, [found[v] for v in node.inputs])):
                found[value] = seen(value, array)
            for value in (*node.inputs, *node.outputs):
                if last[value] is node and value not in kept:
                    found.pop(value, None)
    return found


class Wide:
    """A graph without symbols in float64. instead: numbers for some of its constants."""

    def __init__(self, given: Graph, instead: Mapping[Value, np.ndarray] | None = None):
        self.graph = in_float64(given)
        self.given = dict(zip(_values(self.graph), _values(given), strict=True))
        """The values of this graph, and which of the graph given they are."""
        numbers = instead or {}
        self._numbers = {value: widened(numbers[old]) for value, old in self.given.items() if old in numbers}

    def run(self, arrays: Mapping[str, np.ndarray], seen: Seen = lambda value, array: array) -> dict[Value, np.ndarray]:
        """Outputs and updates of `graph` by value; see run."""
        return run(self.graph, arrays, lambda value, array: seen(value, self._numbers.get(value, array)))


def widened(array: np.ndarray) -> np.ndarray:
    """The array, in float64 if it holds floats."""
    return array.astype(np.float64, copy=False) if is_float(array.dtype) else array


def _values(graph: Graph) -> list[Value]:
    given = (*graph.inputs, *(variable.value for variable in graph.state))
    return [*given, *(value for node in graph.nodes for value in node.outputs)]


class Tolerance:
    """How far float64 may be off between two orders of the same sums.

    A sum of n numbers is off by sqrt(n) roundings of 1.1e-16, and a network carries what its layers are off by on to
    its end. With 1e5 numbers in a sum, a hundred layers, and a loss of a factor of a thousand to cancellation, that is
    1.1e-16 * 300 * 10 * 1e3 = 3e-10; 1e-9 of the largest number of a tensor is held. Tensors below 1e-3 are held to
    the tolerance of 1e-3: gradients that are 0 come out as what rounding left of them.

    A graph that loses more to cancellation shows it: NOISE, of 500 roundings, on all that it computes moves its results
    by more. By as much they may differ; what differs by more than MOST is not the same.

    A constant that was made of others beforehand is off by half an epsilon of its dtype for each operation. ROUNDINGS
    of a whole epsilon are put on it, and what they move a result by is allowed, up to MOST or MOST_ROUNDINGS of an
    epsilon, whichever is more: in bfloat16 half an epsilon is 4e-3.
    """

    RELATIVE = 1e-9
    SMALL = 1e-3
    NOISE = 2.0**-44
    ROUNDINGS = 2
    MOST = 1e-3
    MOST_ROUNDINGS = 8


def with_noise(array: np.ndarray, size: float, salt: int, zeros: bool = False) -> np.ndarray:
    """The array with noise on it, of `size` times its largest number; zeros: on those that are 0 as well.

    The noise is a function of the size of a number: what is equal stays equal.
    """
    if not is_float(array.dtype) or not array.size:
        return array
    finite = np.isfinite(array)
    most = np.abs(array[finite]).max(initial=1.0 if zeros else 0.0)
    touched = finite if zeros else finite & (array != 0)
    with np.errstate(all="ignore"):
        draws = np.sin(np.abs(array) * 12.9898 + salt) * 43758.5453
        noise = (draws - np.floor(draws) - 0.5) * (2 * size * most)
        return np.where(touched, array + noise, array)


def with_roundings(array: np.ndarray, size: float, salt: int) -> np.ndarray:
    """The array with its numbers, but zeros, off by `size` times the largest of them, up or down.

    All are off by as much: what a single number moves is the most that rounding it can.
    """
    if not is_float(array.dtype) or not array.size:
        return array
    with np.errstate(all="ignore"):
        up = np.sin(np.abs(array) * 12.9898 + salt * 78.233) * 43758.5453
        most = np.abs(array[np.isfinite(array)]).max(initial=0.0)
        return np.where(array != 0, array + np.where(up - np.floor(up) < 0.5, -size, size) * most, array)


def moved_by(
    wide: Wide,
    arrays: Mapping[str, np.ndarray],
    results: Mapping[Value, np.ndarray],
    changes: Iterable[Seen],
) -> dict[Value, float]:
    """How far such changes of values of a graph move each result, as a part of its largest number: the most of all."""
    moved = dict.fromkeys(results, 0.0)
    for change in changes:
        found = wide.run(arrays, change)
        moved = {value: max(most, difference(results[value], found[value])) for value, most in moved.items()}
    return moved


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, relative to the largest finite number of both; inf where one is finite and one is not."""
    if a.shape != b.shape:
        return float("inf")
    if a.size == 0:
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        finite = np.isfinite(a) & np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return float("inf")
        a, b = a[finite], b[finite]
        scale = max(Tolerance.SMALL, np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0))
        return float(np.abs(a - b).max(initial=0.0) / scale)


def fingerprint(array: np.ndarray) -> tuple[float, float, float]:
    """The size of an array, and two random sums of it, relative to it: of arrays that agree, these agree."""
    flat = array.reshape(-1).astype(np.float64)
    if not flat.size:
        return 0.0, 0.0, 0.0
    with np.errstate(all="ignore"):
        size = float(np.sqrt(np.mean(flat * flat)))
        if not np.isfinite(size) or size == 0:
            return size, 0.0, 0.0
        sums = [_weighted(flat, weights) / flat.size**0.5 / size for weights in _WEIGHTS]
    return size, sums[0], sums[1]


def _weighted(flat: np.ndarray, weights: np.ndarray) -> float:
    """The sum of the numbers times weights that repeat."""
    whole = flat.size // weights.size * weights.size
    rest = flat[whole:]
    rows = flat[:whole].reshape(-1, weights.size).sum(0)
    return float((rows * weights).sum() + (rest * weights[: rest.size]).sum())


# two lengths without a common factor: a number that moves within an array meets another weight in one of them
_WEIGHTS = tuple(np.random.default_rng(n).normal(size=n) for n in (1009, 997))


def agree(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Whether two arrays with these fingerprints agree to rounding."""
    size = max(one[0], other[0], Tolerance.SMALL)
    if not np.isfinite(size) or one[0] == 0 or other[0] == 0:
        return one[0] == other[0]
    off = Tolerance.RELATIVE * size
    return abs(one[0] - other[0]) <= off and all(
        abs(a * one[0] - b * other[0]) <= 10 * off for a, b in zip(one[1:], other[1:])
    )


def symbols_text(sizes: Mapping[str, int]) -> str:
    """How sizes are written in a report: N = 3, H = 8."""
    return ", ".join(f"{name} = {n}" for name, n in sorted(sizes.items()))


def shape_text(value: Value) -> str:
    """A value with its shape, as in a report: conv1.weight (4, 3, 3, 3)."""
    return f"{value.name} {dim.show(value.type.shape)}"
