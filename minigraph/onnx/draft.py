"""A model of ONNX under construction: nodes, the numbers beside them, and the names of both.

Writers append nodes by `add` and get names, which are placeholders: a value's own name goes to what stands for it in
the end, and what nobody reads is left out. Sizes that are known only at run time are computed from the shapes of the
model's inputs. Transposes that meet are one, or none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from minigraph.core.dim import Dim, Shape, Size
from minigraph.core.errors import GraphError
from minigraph.core.ir import Value
from minigraph.core.op import Op
from minigraph.onnx.names import Names

Writer = Callable[..., Any]  # (draft, node, *names of its inputs) -> the name of its output, or a tuple of names
WRITERS: dict[Op, Writer] = {}


def writes(*ops: Op) -> Callable[[Writer], Writer]:
    """Declare the function that writes these ops."""

    def declare(writer: Writer) -> Writer:
        WRITERS.update(dict.fromkeys(ops, writer))
        return writer

    return declare


class Unwritable(GraphError):
    """What minigraph has and ONNX has not; the message says why, without the node that asks for it."""


def code_of(dtype: str) -> int:
    """ONNX's number of a dtype."""
    return int(TensorProto.DataType.Value({"float32": "FLOAT", "float64": "DOUBLE"}.get(dtype, dtype.upper())))


def tensor_of(name: str, array: np.ndarray) -> TensorProto:
    """The numbers of an array, byte for byte."""
    little = array if sys.byteorder == "little" or array.dtype.itemsize == 1 else array.byteswap()
    return TensorProto(name=name, data_type=code_of(array.dtype.name), dims=array.shape, raw_data=little.tobytes())


def holds(dtype: str, *numbers: float) -> bool:
    """Whether these numbers may be attributes, which are float32: who computes in float32 sees no difference."""
    return dtype != "float64" or all(float(np.float32(n)) == n for n in numbers)


@dataclass
class Draft:
    """inputs: what the symbols are read from. The names in `taken` are the interface's, which nothing else gets."""

    inputs: Sequence[Value]
    taken: Sequence[str]
    nodes: list[tuple[str, NodeProto]] = field(default_factory=list)  # with the node of the graph that each is for
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    at: str = ""  # the node of the graph that is written
    read_once: Collection[Value] = ()  # values of the graph that one node alone reads
    _arrays: dict[tuple[Any, ...], str] = field(default_factory=dict)
    _sizes: dict[Size, str] = field(default_factory=dict)
    _makers: dict[str, NodeProto] = field(default_factory=dict)
    _shaped: dict[str, tuple[str, Shape]] = field(default_factory=dict)  # result of a reshape -> of what, and its shape
    _turned: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)  # result -> (of what, order of axes)
    _turns: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)
    _claims: dict[str, str] = field(default_factory=dict)  # placeholder -> the name that it gets
    _count: int = 0

    def __post_init__(self) -> None:
        self._names = Names()
        for name in self.taken:
            self._names.fresh(name)

    # nodes

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attrs: Any) -> Any:
        """Append a node of ONNX; the name of its output, or a tuple of names. Attributes that are None are left out."""
        names = [self._placeholder() for _ in range(outputs)]
        given = {key: value for key, value in attrs.items() if value is not None}
        node = helper.make_node(operator, list(inputs), names, **given)
        self.nodes.append((self.at, node))
        self._makers.update(dict.fromkeys(names, node))
        return names[0] if outputs == 1 else tuple(names)

    def maker(self, name: str) -> NodeProto | None:
        """The node that makes a value; inputs, state and numbers have none."""
        return self._makers.get(name)

    def again(self, node: NodeProto, *more: str) -> str:
        """Append a node of one output once more, with more inputs; the name of its output."""
        found: str = self.add(node.op_type, *node.input, *more)
        self._makers[found].attribute.extend(node.attribute)
        return found

    def _placeholder(self) -> str:
        self._count += 1
        return f"%{self._count}"

    def array(self, numbers: Any, dtype: str = "int64") -> str:
        """Numbers as a tensor of the model; the same numbers are there once."""
        array = np.asarray(numbers, dtype)
        key = array.dtype.name, array.shape, sha256(array.tobytes()).digest()
        if key not in self._arrays:
            self._arrays[key] = self._placeholder()
            self.tensors[self._arrays[key]] = array
        return self._arrays[key]

    def cast(self, x: str, before: str, after: str) -> str:
        """x of dtype `before` in dtype `after`."""
        return x if before == after else self.add("Cast", x, to=code_of(after))

    def transpose(self, x: str, axes: Sequence[int]) -> str:
        """Axis i of the result is axis axes[i] of x. A transpose of a transpose is one, or none at all."""
        source, order = self.turned(x, len(axes))
        order = tuple(order[axis] for axis in axes)
        if order == tuple(range(len(order))):
            return source
        if (source, order) not in self._turns:
            self._turns[source, order] = self.add("Transpose", source, perm=order)
            self._turned[self._turns[source, order]] = source, order
        return self._turns[source, order]

    def turned(self, x: str, rank: int) -> tuple[str, tuple[int, ...]]:
        """What x is a transpose of, and the order of its axes; x itself where it is none."""
        return self._turned.get(x, (x, tuple(range(rank))))

    def move(self, x: str, rank: int, source: int, target: int) -> str:
        """x with one axis at another place, the others in order."""
        axes = [axis for axis in range(rank) if axis != source]
        axes.insert(target, source)
        return self.transpose(x, axes)

    # sizes

    def reshape(self, x: str, before: Shape, after: Shape) -> str:
        """x, of shape `before`, in another shape. The way back is none, and numbers are reshaped here."""
        if before == after:
            return x
        if x in self._shaped and self._shaped[x][1] == after:
            return self._shaped[x][0]
        if x in self.tensors:
            return self.array(self.tensors[x].reshape(after), self.tensors[x].dtype.name)
        found = self._reshaped(x, after)
        self._shaped[found] = x, before
        return found

    def _reshaped(self, x: str, after: Shape) -> str:
        open_ = [axis for axis, n in enumerate(after) if isinstance(n, Dim)]
        if len(open_) == 1 and 0 not in after:
            sizes = self.array([-1 if axis in open_ else n for axis, n in enumerate(after)])
            return str(self.add("Reshape", x, sizes))
        return str(self.add("Reshape", x, self.shape(after), allowzero=1))

    def shape(self, sizes: Sequence[Size]) -> str:
        """Sizes as a tensor int64[axes]."""
        if not any(isinstance(n, Dim) for n in sizes):
            return self.array(np.array(sizes, np.int64))
        parts = [self.size(n) for n in sizes]
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=0)

    def size(self, n: Size) -> str:
        """A size as a tensor int64[1]."""
        if not isinstance(n, Dim):
            return self.array([n])
        if n not in self._sizes:
            terms = [self._term(symbols, factor) for symbols, factor in n.terms]
            total = terms[0]
            for term in terms[1:]:
                total = self.add("Add", total, term)
            self._sizes[n] = total
        return self._sizes[n]

    def _term(self, symbols: Sequence[str], factor: int) -> str:
        if not symbols:
            return self.array([factor])
        product = self._symbol(symbols[0])
        for symbol in symbols[1:]:
            product = self.add("Mul", product, self._symbol(symbol))
        return product if factor == 1 else self.add("Mul", product, self.array([factor]))

    def _symbol(self, symbol: str) -> str:
        """A symbol's number, from an input whose size along some axis is that symbol, or a * symbol + b."""
        key = Dim.symbol(symbol)
        if key not in self._sizes:
            x, axis, factor, rest = self._source(symbol)
            found = self.add("Shape", x, start=axis, end=axis + 1)
            found = found if rest == 0 else self.add("Sub", found, self.array([rest]))
            self._sizes[key] = found if factor == 1 else self.add("Div", found, self.array([factor]))
        return self._sizes[key]

    def _source(self, symbol: str) -> tuple[str, int, int, int]:
        found = []
        for value in self.inputs:
            for axis, n in enumerate(value.type.shape):
                if isinstance(n, Dim) and n.symbols() == {symbol} and all(len(names) <= 1 for names, _ in n.terms):
                    terms = dict(n.terms)
                    found.append((value.name, axis, terms[(symbol,)], terms.get((), 0)))
        if not found:
            raise Unwritable(f"no input has {symbol} as a size by itself, from which a model could tell it")
        return min(found, key=lambda source: source[2:] != (1, 0))

    # names

    def is_open(self, name: str) -> bool:
        """Whether it is a placeholder whose name is still to be given."""
        return name.startswith("%") and name not in self._claims

    def claim(self, placeholder: str, name: str) -> None:
        """Say under which name the model will have what a placeholder stands for."""
        self._claims[placeholder] = name

    def fresh(self, name: str) -> str:
        """The name, or one like it that nothing else has."""
        return self._names.fresh(name)

    def finished(self, outputs: Sequence[str]) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
        """The nodes that these outputs need, in order, and the numbers beside them, all under their final names."""
        live = set(outputs)
        kept = []
        for scope, node in reversed(self.nodes):
            if not live.isdisjoint(node.output):
                live.update(node.input)
                kept.append((scope, node))
        final: dict[str, str] = {}
        for placeholder in self.tensors:
            if placeholder in live:
                final[placeholder] = self._claims.get(placeholder) or self.fresh("constant")
        for scope, node in reversed(kept):
            for name in node.output:
                final[name] = self._claims.get(name) or self.fresh(f"{scope}/{node.op_type}")
        nodes = [_renamed(node, final) for _, node in reversed(kept)]
        return nodes, {final[name]: array for name, array in self.tensors.items() if name in live}


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    final = lambda given: [names.get(name, name) for name in given]
    outputs = final(node.output)
    return NodeProto(
        op_type=node.op_type, name=outputs[0], input=final(node.input), output=outputs, attribute=node.attribute
    )
