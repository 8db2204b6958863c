"""What the reader of an operator gets: one node of the file, its attributes and what it is applied to.

A reader asks for an input as a tensor, which may be anything; as a weight, which training moves where the file holds
its numbers; or as an array or sizes, which must then be known while the model is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from minigraph.core.builder import Builder, Tensor
from minigraph.core.dim import Dim, Shape, Size
from minigraph.core.dtypes import FLOATS
from minigraph.core.errors import GraphError, expect
from minigraph.core.evaluate import Evaluation
from minigraph.core.initial import Constant, Initializer, Normal
from minigraph.core.ir import needed
from minigraph.onnx.file import Unsupported, array_of, dtype_of_code
from minigraph.onnx.known import MOST, Known
from minigraph.onnx.names import Names
from minigraph.ops.constant import count, fill
from minigraph.ops.pointwise import cast
from minigraph.ops.shape import concat, reshape

Reader = Callable[["Call"], Any]
READERS: dict[str, Reader] = {}
REQUIRED: Any = object()
MOST_DEEP = 50  # nodes on top of each other that are put off
MOST_WORK = 1 << 26  # floating-point operations of a node that is computed while a model is read


def reads(*operators: str) -> Callable[[Reader], Reader]:
    """Declare the function that reads these operators."""

    def declare(reader: Reader) -> Reader:
        for operator in operators:
            expect(operator not in READERS, "{} has two readers", operator)
            READERS[operator] = reader
        return reader

    return declare


class NeedsValue(GraphError):
    """Something must be known while the model is read. `inputs` names the inputs of the graph that it is."""

    def __init__(self, message: str, inputs: Sequence[str]):
        super().__init__(message)
        self.inputs = tuple(inputs)


class TooMuch(GraphError):
    """What is known is too large to be computed while the model is read."""


@dataclass(frozen=True, eq=False)
class Deferred:
    """An output of a node on nothing but what is known, weights among it: computed, or built, when somebody asks."""

    call: Call
    index: int
    depth: int


Operand = Tensor | Known | Deferred


@dataclass
class Net:
    """The graph that operands become tensors of, and the numbers of its state."""

    builder: Builder
    names: Names
    inputs: list[Tensor] = field(default_factory=list)
    inline: Callable[[onnx.GraphProto], list[Operand]] = lambda graph: []  # what the outputs of a branch stand for
    learns: bool = True  # False where arithmetic on weights is only computed: they are constants then
    state: dict[str, np.ndarray] = field(default_factory=dict)
    _tensors: dict[Any, Tensor] = field(default_factory=dict)
    _folded: dict[Call, list[np.ndarray]] = field(default_factory=dict)
    _room: list[int] = field(default_factory=lambda: [16 * MOST])  # how many numbers may still be computed

    def tensor(self, operand: Operand, kind: str = "") -> Tensor:
        """The operand in the graph. kind: of the state that it becomes if it is a weight; "" where numbers may stay."""
        if isinstance(operand, Tensor):
            return operand
        key = (operand.call, operand.index) if isinstance(operand, Deferred) else operand
        if key not in self._tensors:
            self._tensors[key] = self._made(operand, kind)
        return self._tensors[key]

    def _made(self, operand: Known | Deferred, kind: str) -> Tensor:
        if isinstance(operand, Deferred):
            for index, result in enumerate(operand.call.read(self)):
                self._tensors[operand.call, index] = self.tensor(result, kind)
            return self._tensors[operand.call, operand.index]
        if operand.open:
            return self._at_run_time(operand)
        weight = operand.dtype in FLOATS and (kind or (operand.learned and operand.array.size > 1))
        array = operand.array
        if not weight or not self.learns:
            one = array.size == 1 and array.ndim > 0  # as one number it is written where it is read
            return self.filled(array.item(), array.shape, operand.dtype) if one else self.builder.constant(array)
        name = self.names.of(operand.name)
        self.state[name] = array
        start = like(array, kind == "statistic")
        with self.builder.root():
            return self.builder.variable(name, array.shape, start, operand.dtype, kind or "parameter")

    def made_from(self, tensor: Tensor) -> list[str]:
        """The inputs that a tensor is computed from, by their names in the file."""
        _, live = needed(self.builder.nodes, [tensor.value])
        by_name = {name: given for given, name in self.names.given().items()}
        return [by_name[t.name] for t in self.inputs if t.value in live]

    def is_state(self, tensor: Tensor) -> bool:
        """Whether a tensor is state of the graph, as it is in the file."""
        return tensor.name in self.state and self.builder.tensor(tensor.name).value is tensor.value

    def filled(self, value: Any, shape: Shape, dtype: str) -> Tensor:
        """One number in every place of a shape, which may be open."""
        return self.builder.emit(fill, (), {"value": value, "shape": shape, "dtype": dtype})[0]

    def _at_run_time(self, operand: Known) -> Tensor:
        """Open sizes as a tensor, from the sizes of inputs."""
        numbers = [self._size(n, operand.dtype) for n in operand.array.flat]
        rank1 = concat(*(reshape(n, (1,)) for n in numbers), axis=0)
        return reshape(rank1, operand.array.shape)

    def _size(self, size: Any, dtype: str) -> Tensor:
        if not isinstance(size, Dim):
            return self.builder.constant(np.asarray(size, dtype))
        total: Any = None
        for monomial, factor in size.terms:
            term: Any = self.builder.constant(np.asarray(factor, dtype))
            for symbol in monomial:
                term = term * self._symbol(symbol, dtype)
            total = term if total is None else total + term
        return total

    def _symbol(self, symbol: str, dtype: str) -> Tensor:
        for tensor in self.inputs:
            if Dim.symbol(symbol) in tensor.shape:
                return cast(count(tensor, (tensor.shape.index(Dim.symbol(symbol)),), "int64"), dtype)
        raise GraphError(f"no input is as large as {symbol} along one of its axes")

    def array(self, operand: Operand) -> np.ndarray | None:
        """The numbers of an operand, if they are known; of sizes, an array of objects."""
        return None if isinstance(operand, Tensor) else self.settled(operand).array

    def settled(self, operand: Known | Deferred) -> Known:
        """An operand as what is known of it."""
        if isinstance(operand, Known):
            return operand
        array = self.folded(operand.call)[operand.index]
        return Known(array, array.dtype.name)

    def folded(self, call: Call) -> list[np.ndarray]:
        """What a node on known inputs gives, computed now. GraphError if that is large, or random."""
        if call not in self._folded:
            inner = Net(Builder("known"), Names(), learns=False, _folded=self._folded, _room=self._room)
            results = [inner.tensor(result) for result in call.read(inner)]
            graph = inner.builder.build({f"y{i}": t for i, t in enumerate(results)})
            expect(not graph.state, "{} does not give the same numbers each time", call.op)
            size = sum(value.type.size for node in graph.nodes for value in node.outputs)
            work = sum(
                n.op.count([v.type for v in n.inputs], [v.type for v in n.outputs], n.attrs) for n in graph.nodes
            )
            if not isinstance(size, int) or size > min(MOST, self._room[0]) or work > MOST_WORK:
                raise TooMuch(f"{call.op} gives {size} numbers, by {work} operations")
            self._room[0] -= size
            arrays = Evaluation(graph).run({})
            self._folded[call] = [arrays[graph.outputs[f"y{i}"]] for i in range(len(results))]
        return self._folded[call]


def like(array: np.ndarray, constant: bool) -> Initializer:
    """How a weight begins where somebody trains a network of this form anew: with the file's mean and deviation."""
    if array.size == 0:
        return Constant(0.0)
    mean, std = float(array.mean(dtype=np.float64)), float(array.std(dtype=np.float64))
    if not (math.isfinite(mean) and math.isfinite(std)):
        return Constant(0.0)
    return Constant(mean) if constant or std == 0 else Normal(std, mean)


@dataclass(eq=False)
class Call:
    """A node of the file. Inputs are numbered; one that is left out is None."""

    op: str
    name: str
    opset: int
    attrs: Mapping[str, Any]
    operands: Sequence[Operand | None]
    outputs: tuple[str, ...]
    reader: Reader
    net: Net

    def read(self, net: Net) -> list[Operand]:
        """What the reader makes of it in a graph, as one operand for each output."""
        inside = self.within(net)
        with net.builder.scope(self.name) if self.name else nullcontext():
            result = self.reader(inside)
        listed = list(result) if isinstance(result, (tuple, list)) else [result]
        return [made if isinstance(made, (Tensor, Known, Deferred)) else inside.known(made) for made in listed]

    def within(self, net: Net) -> Call:
        """The same node in another graph."""
        if net is self.net:
            return self
        return Call(self.op, self.name, self.opset, self.attrs, self.operands, self.outputs, self.reader, net)

    # inputs

    def has(self, index: int) -> bool:
        """Whether that input is given."""
        return index < len(self.operands) and self.operands[index] is not None

    def wants(self, index: int) -> bool:
        """Whether somebody may read that output."""
        return index < len(self.outputs) and self.outputs[index] != ""

    def operand(self, index: int) -> Operand:
        found = self.operands[index] if index < len(self.operands) else None
        expect(found is not None, "needs input {}", index)
        return found  # type: ignore[return-value]

    def tensor(self, index: int) -> Tensor:
        return self.net.tensor(self.operand(index))

    def tensors(self) -> list[Tensor]:
        """All inputs."""
        expect(self.operands, "needs an input")
        return [self.tensor(index) for index in range(len(self.operands))]

    def weight(self, index: int, kind: str = "parameter") -> Tensor:
        """An input that is state where the file has its numbers, also where that is one number."""
        return self.net.tensor(self.operand(index), kind)

    def maybe(self, index: int) -> np.ndarray | None:
        """The numbers of an input, if they are known; None where it is computed, or has open sizes."""
        array = self.net.array(self.operand(index))
        return None if array is None or array.dtype == object else array

    def array(self, index: int) -> np.ndarray:
        """The numbers of an input. NeedsValue where they are not known."""
        array = self._known(index)
        if array.dtype == object:
            sizes = ", ".join(map(str, array.flat))
            raise NeedsValue(f"input {index} is the numbers {sizes}, which must be known when the model is read", ())
        return array

    def sizes(self, index: int) -> tuple[Size, ...]:
        """An input that is sizes, or places along axes: whole numbers, some of which may be open."""
        array = self._known(index)
        expect(
            array.dtype == object or array.dtype.kind in "iu", "input {} is whole numbers, not {}", index, array.dtype
        )
        expect(array.ndim <= 1, "input {} is a list of numbers, not of shape {}", index, array.shape)
        return tuple(n if isinstance(n, Dim) else int(n) for n in array.flat)

    def shape(self, index: int) -> Shape:
        """The shape of an input."""
        operand = self.operand(index)
        return operand.array.shape if isinstance(operand, Known) else self.tensor(index).shape

    def whole(self, index: int) -> int:
        """An input that is one whole number."""
        array = self.array(index)
        expect(array.size == 1 and array.dtype.kind in "iu", "input {} is one whole number, not {}", index, array)
        return int(array.flat[0])

    def number(self, index: int) -> Any:
        """An input that is one number."""
        array = self.array(index)
        expect(array.size == 1, "input {} is one number, not {} of them", index, array.size)
        return array.flat[0].item()

    def _known(self, index: int) -> np.ndarray:
        operand = self.operand(index)
        array = self.net.array(operand)
        if array is None:
            assert isinstance(operand, Tensor)
            raise NeedsValue(
                f"input {index}, {operand.value}, must be known when the model is read", self.net.made_from(operand)
            )
        return array

    # what it gives

    def known(self, made: Any) -> Known:
        """An array, or a list of sizes, as an output."""
        if isinstance(made, np.ndarray):
            return Known(made, made.dtype.name)
        return Known.sizes(made)

    # attributes

    def attr(self, name: str, default: Any, kinds: tuple[type, ...], what: str) -> Any:
        found = self.attrs.get(name, default)
        expect(found is not REQUIRED, "needs the attribute {}", name)
        if name not in self.attrs:
            return found
        expect(isinstance(found, kinds), "the attribute {} is {}, not {!r}", name, what, found)
        return found

    def integer(self, name: str, default: Any = REQUIRED) -> Any:
        return self.attr(name, default, (int,), "a whole number")

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.attr(name, default, (int,), "0 or 1"))

    def real(self, name: str, default: Any = REQUIRED) -> Any:
        return self.attr(name, default, (float,), "a float")

    def string(self, name: str, default: str) -> str:
        return self.attr(name, default, (str,), "a text")

    def ints(self, name: str, default: Any = REQUIRED) -> Any:
        found = self.attr(name, default, (tuple,), "a list of whole numbers")
        expect(name not in self.attrs or all(isinstance(n, int) for n in found), "{} holds {}", name, found)
        return found

    def floats(self, name: str, default: Any = REQUIRED) -> Any:
        found = self.attr(name, default, (tuple,), "a list of floats")
        expect(name not in self.attrs or all(isinstance(n, (float, int)) for n in found), "{} holds {}", name, found)
        return found

    def dtype(self, name: str, default: str) -> str:
        """An attribute that is a dtype, by minigraph's name."""
        return dtype_of_code(self.integer(name)) if name in self.attrs else default

    def graph(self, name: str) -> onnx.GraphProto:
        """An attribute that is a graph."""
        return self.attr(name, REQUIRED, (onnx.GraphProto,), "a graph")

    def stored(self, name: str) -> np.ndarray:
        """An attribute that is a tensor."""
        found = self.attrs.get(name)
        expect(hasattr(found, "data_type"), "the attribute {} is a tensor", name)
        return array_of(found, None)  # type: ignore[arg-type]

    def axes(self, index: int, rank: int, since: int, name: str = "axes") -> tuple[int, ...] | None:
        """Axes, which became input `index` with opset `since` and were an attribute before; None where not given."""
        as_input = self.sizes(index) if self.opset >= since and self.has(index) else None
        given: Any = self.ints(name, None) if self.opset < since else as_input
        if given is None:
            return None
        for axis in given:
            expect(isinstance(axis, int) and -rank <= axis < rank, "axis {} is outside of {} axes", axis, rank)
        return tuple(axis % rank for axis in given)

    def unsupported(self, what: str) -> Unsupported:
        """The error for a use of the operator that minigraph does not have."""
        return Unsupported(f"{self.op} {what}")
