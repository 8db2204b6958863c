"""From a model file to a graph and its state.

The nodes are walked over in order, each handed to the reader of its operator (readers/). What is known (the numbers of
the file, and sizes computed from shapes) stays outside of the graph until a reader asks for it as a tensor.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from minigraph.core.builder import Builder, Tensor
from minigraph.core.dim import Dim, Size
from minigraph.core.dtypes import becomes, is_float, is_number
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph
from minigraph.core.state import State
from minigraph.onnx import readers
from minigraph.onnx.call import MOST_DEEP, READERS, Call, Deferred, NeedsValue, Net, Operand, TooMuch
from minigraph.onnx.file import (
    Unsupported,
    array_of,
    attributes_of,
    check_against_schema,
    dtype_of_code,
    model_of,
    opset_of,
)
from minigraph.onnx.known import Known, of_sizes, settled
from minigraph.onnx.names import Names, Symbols, cleaned

DIRECT = {"Constant", "Identity", "If", "Shape", "Size"}  # read at once, whatever they are applied to
LARGEST = 1 << 40  # numbers in one value
NAMELESS = ("?", "-1", "None")
NAMED = 8  # nodes that are named of each thing that is not supported

assert readers


def load(path: str | os.PathLike[str], values: Mapping[str, Any] | None = None) -> tuple[Graph, State]:
    """The graph of a model file of ONNX, opset 7 or newer, and its state.

    The graph computes what the file computes, under its names of inputs, outputs and weights. Numbers that an operator
    takes as weights are state: mean and variance of a BatchNormalization of kind "statistic", others of kind
    "parameter". Sizes that the file leaves open are symbols, by the file's names; a first axis without a name is "N".

    values: numbers of inputs that must be known before anything runs (a shape, axes), by their names, and numbers for
        open sizes, by theirs: {"shape": [2, -1], "height": 48}. They are then no longer inputs, and no longer open.

    Batch norms in inference mode stay so; those in training mode have ONNX's running averages as their outputs, and
    update them where they are state. GraphError for what is not a whole model; it lists all that is not supported.
    """
    path = Path(path)
    try:
        return graph_of(model_of(path), path.parent, values or {})
    except GraphError as error:
        error.args = (f"{path}: {error}",)
        raise


def graph_of(model: onnx.ModelProto, folder: Path | None, values: Mapping[str, Any]) -> tuple[Graph, State]:
    """The same of a model in memory. folder: where its external data lie."""
    walk = Walk(model, folder, dict(values))
    walk.take_initializers(model.graph)
    walk.take_inputs()
    for node in model.graph.node:
        walk.take(node)
    walk.raise_problems()
    return walk.finish()


class Blocked:
    """Stands for a value that cannot be made, since something before it is not supported."""


class Walk:
    """The model that is read, and what each name of a value stands for so far."""

    def __init__(self, model: onnx.ModelProto, folder: Path | None, values: dict[str, Any]):
        self.model, self.folder, self.values = model, folder, values
        self.opset = opset_of(model)
        self.names, self.symbols = Names(), Symbols()
        for taken in ("random.seed", "random.step"):  # by the builder, for dropout
            self.names.fresh(taken)
        self.net = Net(Builder(cleaned(model.graph.name) or "model"), self.names, inline=self.inline)
        self.known: dict[str, Operand | Blocked] = {}
        self.unsupported: dict[str, list[str]] = defaultdict(list)
        self.needed: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self._note_operators(model.graph)

    def _note_operators(self, graph: onnx.GraphProto) -> None:
        """Those without readers."""
        for node in graph.node:
            if reader_name(node) not in READERS:
                self.unsupported[reader_name(node)].append(node.name or ", ".join(node.output))

    # what a graph begins with

    def take_initializers(self, graph: onnx.GraphProto) -> None:
        if graph.sparse_initializer:
            self.unsupported["sparse initializers"] += [sparse.values.name for sparse in graph.sparse_initializer]
            for sparse in graph.sparse_initializer:
                self.define(sparse.values.name, Blocked())
        for tensor in graph.initializer:
            if tensor.name in self.values and tensor.name in {value.name for value in graph.input}:
                continue
            try:
                array = array_of(tensor, self.folder)
                self.define(tensor.name, Known(array, array.dtype.name, tensor.name, learned=True))
            except Unsupported as error:
                self.unsupported[error.what].append(tensor.name)
                self.define(tensor.name, Blocked())

    def take_inputs(self) -> None:
        self._fix_sizes()
        for value in self.model.graph.input:
            if value.name in self.known:
                continue
            try:
                self.define(value.name, self._input(value))
            except Unsupported as error:
                self.unsupported[error.what].append(f"input {value.name}")
                self.define(value.name, Blocked())
        expect(not self.values, "the model has no input and no open size {}", ", ".join(map(repr, self.values)))

    def _fix_sizes(self) -> None:
        """Take the numbers of open sizes out of `values`."""
        for value in self.model.graph.input:
            for axis, size in enumerate(value.type.tensor_type.shape.dim):
                name = open_size(value.name, axis, size)
                for given in {name, self.symbols.of(name)} if name else ():
                    if given in self.values and given not in {v.name for v in self.model.graph.input}:
                        number = self.values.pop(given)
                        whole = isinstance(number, (int, np.integer)) and not isinstance(number, bool) and number >= 0
                        expect(whole, "the size {} is a whole number, not {!r}", given, number)
                        self.sizes[name] = int(number)

    def _input(self, value: onnx.ValueInfoProto) -> Operand:
        if value.type.WhichOneof("value") != "tensor_type":
            raise Unsupported(f"values of type {value.type.WhichOneof('value') or 'unknown'}")
        declared = value.type.tensor_type
        dtype = dtype_of_code(declared.elem_type)
        if value.name in self.values:
            array = np.asarray(self.values.pop(value.name))
            fits = is_number(array.dtype) and becomes(array.dtype, np.dtype(dtype))
            expect(fits, "{!r} is {}, not {}", value.name, dtype, array.dtype)
            return Known(array.astype(dtype), dtype, value.name)
        expect(declared.HasField("shape"), "the input {!r} has no shape", value.name)
        shape = [self._size(value.name, axis, size) for axis, size in enumerate(declared.shape.dim)]
        tensor = self.net.builder.input(self.names.of(value.name), tuple(shape), dtype)
        self.net.inputs.append(tensor)
        return tensor

    def _size(self, value: str, axis: int, size: Any) -> Size:
        name = open_size(value, axis, size)
        if not name:
            expect(0 <= size.dim_value < LARGEST, "axis {} of {!r} cannot have size {}", axis, value, size.dim_value)
            return size.dim_value
        return self.sizes[name] if name in self.sizes else Dim.symbol(self.symbols.of(name))

    def define(self, name: str, operand: Operand | Blocked) -> None:
        expect(name not in self.known, "two values of the model are called {!r}", name)
        expect(name, "a value of the model has no name")
        self.known[name] = operand

    # nodes

    def inline(self, branch: onnx.GraphProto) -> list[Operand]:
        """What the outputs of a branch stand for. Its nodes are taken; names of its own are then free again."""
        outside = set(self.known)
        self._note_operators(branch)
        self.take_initializers(branch)
        for node in branch.node:
            self.take(node)
        results = []
        for value in branch.output:
            expect(value.name in self.known, "nothing defines {!r}, an output of a branch", value.name)
            results.append(self.known[value.name])
        for name in self.known.keys() - outside:
            del self.known[name]
        if any(isinstance(result, Blocked) for result in results):
            if self.needed:
                raise NeedsValue("a branch needs them", tuple(self.needed))
            raise Unsupported("If with such nodes in its branch")
        return results  # type: ignore[return-value]

    def take(self, node: onnx.NodeProto) -> None:
        """Define what a node gives."""
        operands: list[Operand | Blocked | None] = []
        for name in node.input:
            before = not name or name in self.known
            expect(before, "{} reads {!r} before it is defined", described(node), name)
            operands.append(self.known[name] if name else None)
        while operands and operands[-1] is None:
            operands.pop()
        results: list[Any] = []
        if reader_name(node) in READERS and not any(isinstance(operand, Blocked) for operand in operands):
            results = self._read(node, operands)  # type: ignore[arg-type]
        for index, name in enumerate(node.output):
            if name:
                self.define(name, results[index] if index < len(results) else Blocked())

    def _read(self, node: onnx.NodeProto, operands: list[Operand | None]) -> list[Any]:
        """The outputs; none where something is not supported, or must be known."""
        try:
            check_against_schema(node, self.opset)
            call = self._call(node, operands)
            results = self._results(call)
            missing = [name for name in node.output[len(results) :] if name]
            if missing:
                raise call.unsupported(f"with the output {missing[0]!r}")
            return results
        except Unsupported as error:
            self.unsupported[error.what].append(node.name or ", ".join(node.output))
        except NeedsValue as error:
            self.needed.update(dict.fromkeys(error.inputs, f"{described(node)}: {error}"))
            if not error.inputs:
                self.raise_problems()
                raise NeedsValue(f"{described(node)}: {error}{self._hint(error)}", ()) from None
        except GraphError as error:
            self.raise_problems()
            raise GraphError(f"{described(node)}: {error}{self._hint(error)}") from None
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            self.raise_problems()  # nodes may hold what no reader expects
            raise GraphError(f"{described(node)} cannot be read: {error}") from error
        return []

    def _call(self, node: onnx.NodeProto, operands: list[Operand | None]) -> Call:
        attrs = attributes_of(node)
        outputs, name = tuple(node.output), cleaned(node.name).strip("./")
        return Call(node.op_type, name, self.opset, attrs, operands, outputs, READERS[node.op_type], self.net)

    def _results(self, call: Call) -> list[Operand]:
        given = [operand for operand in call.operands if operand is not None]
        known = [operand for operand in given if not isinstance(operand, Tensor)]
        if len(known) < len(given) or not given or call.op in DIRECT:
            return self._named(call, call.read(self.net))
        if any(isinstance(operand, Known) and operand.open for operand in known):
            return self._of_sizes(call, known)
        depth = 1 + max(operand.depth if isinstance(operand, Deferred) else 0 for operand in known)
        if any(isinstance(operand, Deferred) or is_weight(operand) for operand in known):
            deep = depth >= MOST_DEEP
            return call.read(self.net) if deep else [Deferred(call, i, depth) for i in range(len(call.outputs))]
        try:
            return self._named(call, [Known(array, array.dtype.name) for array in self.net.folded(call)])
        except TooMuch:
            return call.read(self.net)

    def _of_sizes(self, call: Call, known: list[Known | Deferred]) -> list[Operand]:
        """Of an operator on open sizes: its result by arithmetic, or else by nodes."""
        sizes = [self.net.settled(operand) for operand in known]
        array = of_sizes(call.op, sizes, call.attrs, call.opset) if len(known) == len(call.operands) else None
        if array is None:
            return call.read(self.net)
        dtype = sizes[1 if call.op == "Where" else 0].dtype
        dtype = "bool" if call.op == "Equal" else call.dtype("to", dtype) if call.op == "Cast" else dtype
        return self._named(call, [Known(settled(array, dtype), dtype)])

    def _named(self, call: Call, results: list[Operand]) -> list[Operand]:
        """Known results under the names of the outputs."""
        named: list[Operand] = []
        for index, result in enumerate(results):
            if isinstance(result, Known) and not result.name and index < len(call.outputs):
                result = Known(result.array, result.dtype, call.outputs[index], result.learned)
            named.append(result)
        return named

    def _hint(self, error: GraphError) -> str:
        """How the open sizes that an error is about are fixed."""
        words = set(re.findall(r"\w+", str(error).partition("\n")[0]))
        free = [given for given, symbol in self.symbols.given().items() if symbol in words]
        return f"\n  open sizes are fixed by load(path, values={{{free[0]!r}: ...}})" if free else ""

    # the end

    def raise_problems(self) -> None:
        """Raise one error for all that is not supported, or one for all that must be known."""
        if self.unsupported:
            lines = [f"  {what}: {len(nodes)} x ({some(nodes)})" for what, nodes in sorted(self.unsupported.items())]
            raise Unsupported("\n".join(["minigraph does not support, of this model:", *lines]))
        if self.needed:
            lines = [f"  {name!r}: {why}" for name, why in self.needed.items()]
            message = "these inputs must be known when the model is read, load(path, values={name: numbers}):"
            raise NeedsValue("\n".join([message, *lines]), tuple(self.needed))

    def finish(self) -> tuple[Graph, State]:
        outputs = {}
        for value in self.model.graph.output:
            expect(value.name in self.known, "nothing defines the output {!r}", value.name)
            expect(self.names.of(value.name) not in outputs, "two outputs are called {!r}", value.name)
            outputs[self.names.of(value.name)] = self.net.tensor(self.known[value.name])  # type: ignore[arg-type]
        graph = self.net.builder.build(outputs)
        for made in graph.values.values():
            size = made.type.size
            expect(not isinstance(size, int) or size < LARGEST, "{} is too large", made)
        random = replace(graph, state=tuple(v for v in graph.state if v.name not in self.net.state))
        state = {**self.net.state, **Graph.init(random)}
        return graph, State({variable.name: state[variable.name] for variable in graph.state})


def reader_name(node: onnx.NodeProto) -> str:
    """The operator, with its domain if that is not the standard one."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def open_size(value: str, axis: int, size: Any) -> str:
    """The name of an axis whose size the file leaves open, as some do with -1 or "?"; "" for one that is a number."""
    if size.HasField("dim_value") and size.dim_value != -1:
        return ""
    named = size.dim_param and size.dim_param not in NAMELESS
    return size.dim_param if named else "N" if axis == 0 else f"{value}_{axis}"


def is_weight(operand: Known | Deferred) -> bool:
    return isinstance(operand, Known) and operand.learned and operand.array.size > 1 and is_float(operand.array.dtype)


def described(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or ', '.join(node.output)!r}"


def some(nodes: list[str]) -> str:
    return ", ".join(nodes[:NAMED]) + (", ..." if len(nodes) > NAMED else "")
