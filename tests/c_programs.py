"""Many small graphs as one program in C, and how far it may be from the references.

A tolerance is measured: the lowered graph runs in float64 with noise on every value that rounding touches, of SAFE
times as many roundings as the algorithm makes in the dtype of the value, relative to what it adds up. What a result
moves by then, and as much for its own rounding, is what it may differ by. Where that is too little, more is drawn:
Adam divides a gradient by its size, and so the sign of one that is nearly 0 is seen only by a draw that turns it. Where
noise decides, the reference itself may be far off: what is as near to float64 as it may be is right. What only moves,
chooses and compares numbers has no rounding, and has to come out to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from typing import Any

import numpy as np

from minigraph.backends.c.executable import Executable
from minigraph.backends.lower import lower
from minigraph.core import proof, trial
from minigraph.core.builder import Builder
from minigraph.core.dim import product
from minigraph.core.dtypes import epsilon, is_float, least_normal
from minigraph.core.errors import GraphError
from minigraph.core.evaluate import Evaluation
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import Example, Op
from minigraph.core.scalar import Scalar, var

Arrays = Mapping[str, np.ndarray]

FUNCTION = 8  # roundings of a function that is a series, of both sides
SAFE = 4  # times: a few draws are not the worst ones, and less than a rounding of float64 would be none
DRAWS = 2, 16  # of noise: at first, and at most
SELECTS = {"var", "const", "neg", "abs", "sign", "max", "min", "less", "less_equal", "equal", "and", "or", "xor", "not"}
SELECTS |= {"where", "cast", "floor", "ceil", "round", "trunc", "isnan", "isinf"}


# many in one


@dataclass(frozen=True)
class Joined:
    """One graph of many applications of ops, and the numbers to run it with."""

    graph: Graph
    arrays: dict[str, np.ndarray]


class Joining:
    """Collects applications of ops; those that fit no types are left out."""

    def __init__(self, seed: int = 0):
        self.net = Builder("joined")
        self.rng = np.random.default_rng(seed)
        self.arrays: dict[str, np.ndarray] = {}
        self.outputs: dict[str, Any] = {}
        self.refused: list[str] = []

    def add(self, label: str, op: Op, arrays: Sequence[np.ndarray], attrs: Mapping[str, Any], batch: str = "") -> None:
        """One application. batch: the symbol that stands for the first size of each input that has one."""
        inputs = []
        for i, array in enumerate(arrays):
            shape = (batch, *array.shape[1:]) if batch and array.ndim else array.shape
            inputs.append(self.net.input(f"{label}.x{i}", shape, array.dtype.name))
            self.arrays[inputs[-1].name] = array
        try:
            made = self.net.emit(op, inputs, attrs)
        except GraphError:
            self.refused.append(label)
            return
        self.outputs.update({f"{label}.y{i}": tensor for i, tensor in enumerate(made)})

    def example(self, label: str, op: Op, example: Example, dtype: str, batch: int | None = None) -> None:
        """An example in a dtype; with a `batch`, that size is N wherever it comes first, if it may be."""
        attrs = {k: dtype if (k, v) == ("dtype", None) else v for k, v in example.attrs.items()}
        samples = [
            s if batch is None else replace(s, shape=(batch, *s.shape[1:])[: len(s.shape)]) for s in example.inputs
        ]
        arrays = [proof.concrete(s, s.in_dtype(dtype), self.rng) for s in samples]
        self.add(label, op, arrays, attrs, "" if batch is None else "N")

    def done(self) -> Joined:
        graph = self.net.build(self.outputs)
        return Joined(graph, {value.name: self.arrays[value.name] for value in graph.inputs})


# running


def in_c(graph: Graph, arrays: Arrays, symbols: Mapping[str, int] = {}) -> dict[str, np.ndarray]:
    """The outputs, and new state as "-> name"."""
    return outcome(*Executable(lower(graph)).run(symbols, arrays))


def typed(graph: Graph, arrays: Arrays) -> dict[str, np.ndarray]:
    """The arrays in the dtypes that the graph says."""
    given = (*graph.inputs, *(variable.value for variable in graph.state))
    return {value.name: np.asarray(arrays[value.name], value.type.dtype) for value in given}


def outcome(outputs: Arrays, new: Arrays) -> dict[str, np.ndarray]:
    return {**outputs, **{f"-> {name}": array for name, array in new.items()}}


def results(graph: Graph) -> dict[str, Value]:
    return {**graph.outputs, **{f"-> {old.name}": new for old, new in graph.updates.items()}}


def by_references(graph: Graph, arrays: Arrays) -> dict[str, np.ndarray]:
    """The same by the references. The graph has no symbols."""
    given = (*graph.inputs, *(variable.value for variable in graph.state))
    found = Evaluation(graph).run({value: arrays[value.name] for value in given})
    return {name: found[value] for name, value in results(graph).items()}


# how far off


def roundings(node: Node) -> float:
    """How many roundings one number of a node's result may be off by: n of them, up and down, are off by sqrt(n)."""
    op, result = node.op, node.outputs[0]
    if op.expression is not None:
        return _of_expression(op.expression(*(var(str(i)) for i in range(len(node.inputs))), **node.attrs))
    if op.reduction:
        sizes = node.inputs[0].type.shape
        length = product(sizes[axis] for axis in node.attrs["axes"])
        return 1 + sqrt(length) if op.reduction in ("sum", "prod", "moments") and isinstance(length, int) else 0
    flops = op.count([v.type for v in node.inputs], [v.type for v in node.outputs], node.attrs)
    if op.kernel is None or not isinstance(flops, int) or flops == 0:
        return 0
    return FUNCTION + sqrt(flops / max(1, int(result.type.size)))  # type: ignore[arg-type]


def _of_expression(expression: object) -> float:
    if not isinstance(expression, Scalar):
        return 0
    own = 0 if expression.op in SELECTS else 1 if expression.op in ("add", "sub", "mul", "div", "sqrt") else FUNCTION
    return own + sum(map(_of_expression, expression.args))


def largest(array: np.ndarray) -> float:
    """The largest finite number, of floats."""
    if not is_float(array.dtype):
        return 0.0
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


class Room:
    """How far each result of a graph may be off. The graph has no symbols."""

    def __init__(self, graph: Graph, arrays: Arrays):
        lowered = lower(graph)
        self.graph = trial.in_float64(lowered)
        self.narrow = dict(zip(_made(self.graph), _made(lowered), strict=True))
        self.arrays = {name: a.astype(np.float64) if is_float(a.dtype) else a for name, a in arrays.items()}
        self.scale: dict[Value, np.ndarray] = {}  # of the noise, one for all numbers of a value or one for each
        self.rounded: set[Value] = set()  # what is computed from what is rounded
        self._seen: dict[Value, np.ndarray] = {}
        self.right = self._run(self._measure)
        self.moved: list[dict[str, np.ndarray]] = []
        while len(self.moved) < DRAWS[0]:
            self.draw()

    def draw(self) -> bool:
        """Look once more how far noise moves the results, if that was not done often enough."""
        if len(self.moved) < DRAWS[1]:
            self.moved.append(self._run(partial(self._noisy, len(self.moved) + 1)))
            return True
        return False

    def _run(self, seen: trial.Seen) -> dict[str, np.ndarray]:
        found = trial.run(self.graph, self.arrays, seen)
        return {name: found[value] for name, value in results(self.graph).items()}

    def _measure(self, value: Value, array: np.ndarray) -> np.ndarray:
        """Note how large an error of a value is: so many roundings of what it adds up."""
        self._seen[value] = array
        node = self.graph.producer.get(value)
        if node is None or not is_float(array.dtype):
            return array
        dtype, own = self.narrow[value].type.dtype, roundings(node)
        if own:
            self.scale[value] = own * epsilon(dtype) / 2 * self._adds_up(value, node, array) + least_normal(dtype)
        if own or not self.rounded.isdisjoint(node.inputs):
            self.rounded.add(value)
        return array

    def _adds_up(self, value: Value, node: Node, array: np.ndarray) -> np.ndarray:
        """The size of the numbers that each number of a value, or the largest one, is made of.

        A single operation is rounded by what comes out, and so are squares that are added up.
        """
        op = node.op
        if op.reduction:
            if op.reduction == "moments" and value is node.outputs[2]:
                return np.abs(array)
            x = np.abs(self._seen[node.inputs[0]])
            axes, keepdims = node.attrs["axes"], node.attrs["keepdims"]
            return np.maximum(np.abs(array), x.max(axes, keepdims=keepdims, initial=0.0, where=np.isfinite(x)))
        if op.expression is not None and roundings(node) == 1:
            return np.abs(array)
        terms = [largest(self._seen[v]) for v in node.inputs if v.type.is_float]
        made_of = float(np.prod(terms)) if terms and op.kernel is not None else 0.0
        return np.asarray(max(largest(array), made_of))

    def _noisy(self, salt: int, value: Value, array: np.ndarray) -> np.ndarray:
        if value not in self.scale:
            return array
        size = SAFE * self.scale[value]
        with np.errstate(all="ignore"):
            draws = np.sin(np.abs(array) * 12.9898 + salt) * 43758.5453
            touched = np.isfinite(array) & (array != 0)  # what is divided by 0 is to stay so
            return np.where(touched, array + (draws - np.floor(draws) - 0.5) * 2 * size, array)

    def of(self, name: str) -> float:
        """inf where noise moves a result from one side of a jump to the other."""
        right, value = self.right[name], results(self.graph)[name]
        own = largest(self.scale.get(value, np.zeros(0)))
        if value in self.rounded and value.type.is_float:
            own = max(own, epsilon(self.narrow[value].type.dtype) / 2 * largest(right))
        return max(distance(right, moved[name]) for moved in self.moved) + SAFE * own


def _made(graph: Graph) -> list[Value]:
    return [value for node in graph.nodes for value in node.outputs]


def distance(right: np.ndarray, found: np.ndarray) -> float:
    """The largest difference; inf where one is finite and the other is not, or another infinity."""
    if not is_float(right.dtype):
        return 0.0 if np.array_equal(right, found) else np.inf
    finite = np.isfinite(right)
    if not np.array_equal(right[~finite], found[~finite], equal_nan=True) or not np.isfinite(found[finite]).all():
        return np.inf
    with np.errstate(all="ignore"):
        return float(np.abs(right[finite].astype(np.float64) - found[finite]).max(initial=0.0))


def differences(right: Arrays, found: Arrays, room: Room) -> tuple[list[str], int]:
    """What differs, as sentences, and how many results could not be judged.

    These are the ones that noise moves over a jump, or by half of their size and not quite as far as they are off.
    """
    wrong, loose = [], 0
    if right.keys() != found.keys():
        wrong.append(f"there are {', '.join(found)} in place of {', '.join(right)}")
    for name in right.keys() & found.keys():
        a, b = right[name], found[name]
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            wrong.append(f"{name} is {b.dtype}{list(b.shape)} in place of {a.dtype}{list(a.shape)}")
            continue
        allowed, off = room.of(name), distance(a, b)
        while off > allowed and room.draw():
            allowed = room.of(name)
        if off > allowed:
            off = min(off, distance(room.right[name], b))
        drowned = off > allowed > 0.5 * largest(a)
        loose += drowned or allowed == np.inf
        if off > allowed and not drowned:
            wrong.append(f"{name} is off by {off:.1e} of {largest(a):.1e}; {allowed:.1e} is allowed")
    return wrong, loose
