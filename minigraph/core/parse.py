"""Reads back what `text` writes. What it returns is checked; a line that is wrong is named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigraph.core.dim import Dim, shape_of
from minigraph.core.errors import GraphError, expect
from minigraph.core.initial import Initializer
from minigraph.core.ir import KINDS, Graph, Node, Origin, Type, Value, Variable, dtype_of
from minigraph.core.op import OPS, Literal

TYPED = r"\s*([^\s:,()=]+): (\w+)\[([^\]]*)\]"


def parse(text: str) -> Graph:
    """The graph that `str(graph)` has written. Raises GraphError with the number of the line that is wrong."""
    reader = _Reader()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            reader.read(line)
        except GraphError as error:
            raise GraphError(f"line {number}: {error}\n  {line.strip()[:200]}") from None
    return reader.graph()


class _Reader:
    def __init__(self) -> None:
        self.name: str | None = None
        self.values: dict[str, Value] = {}
        self.inputs: list[Value] = []
        self.state: list[Variable] = []
        self.nodes: list[Node] = []
        self.outputs: dict[str, Value] = {}
        self.updates: dict[Value, Value] = {}

    def read(self, line: str) -> None:
        word, _, rest = line.strip().partition(" ")
        if self.name is None:
            expect(word == "graph", 'the first line names the graph: graph "name"')
            self.name = str(attribute(rest))
        elif word == "input":
            self.inputs.append(self.typed(rest))
        elif word in KINDS:
            declaration, _, initializer = rest.partition(" = ")
            self.state.append(Variable(self.typed(declaration), _initializer(initializer), word))
        elif word == "output":
            name, _, value = rest.partition(" = ")
            expect(name not in self.outputs, "there are two outputs {!r}", name)
            self.outputs[name] = self.known(value)
        elif word == "update":
            old, _, new = rest.partition(" <- ")
            self.updates[self.known(old)] = self.known(new)
        else:
            self.node(line)

    def node(self, line: str) -> None:
        body, _, origin = line.partition("   @ ")
        match = re.fullmatch(r"(.*?\]) = (\w+)\((.*)\)\s*", body)
        expect(match, "this is neither an input, a state, a node, an output nor an update")
        assert match is not None
        declared, op_name, inside = match.groups()
        expect(op_name in OPS, "there is no op {!r}", op_name)
        op, inputs, attrs = OPS[op_name], [], {}
        for argument in _split(inside):
            key, equals, value = argument.partition("=")
            if equals:
                attrs[key] = attribute(value)
            else:
                inputs.append(self.known(argument))
        complete, types = op.infer(tuple(value.type for value in inputs), attrs)
        outputs = tuple(self.typed(part) for part in re.findall(TYPED, declared))
        expect(tuple(value.type for value in outputs) == types, "the op infers {}", ", ".join(map(str, types)))
        name = outputs[0].name if len(outputs) == 1 else outputs[0].name.removesuffix(f".{op.outputs[0]}")
        self.nodes.append(Node(op, tuple(inputs), outputs, complete, name, _origin(origin)))

    def typed(self, declaration: Any) -> Value:
        if isinstance(declaration, str):
            match = re.fullmatch(TYPED + r"\s*", declaration)
            expect(match, "a value is declared as name: dtype[sizes], not {!r}", declaration)
            assert match is not None
            declaration = match.groups()
        name, dtype, sizes = declaration
        expect(name not in self.values, "{!r} is defined twice", name)
        value = Value(Type(shape_of(part.strip() for part in sizes.split(",") if part.strip()), dtype_of(dtype)), name)
        self.values[name] = value
        return value

    def known(self, name: str) -> Value:
        expect(name.strip() in self.values, "{!r} is not defined before this line", name.strip())
        return self.values[name.strip()]

    def graph(self) -> Graph:
        expect(self.name is not None, "the text is empty")
        return Graph(
            self.name or "", tuple(self.inputs), tuple(self.state), tuple(self.nodes), self.outputs, self.updates
        ).check()


def _split(inside: str) -> Iterator[str]:
    """Arguments: the parts between commas that are in no bracket and no string."""
    depth, quoted, part = 0, False, ""
    for before, character in zip(" " + inside, inside):
        if character == '"' and before != "\\":
            quoted = not quoted
        if not quoted:
            depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0 and not quoted:
            yield part.strip()
            part = ""
        else:
            part += character
    if part.strip():
        yield part.strip()


def attribute(text: str) -> Any:
    """The value of an attribute as `text.attribute` writes it."""
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise GraphError(f"{text.strip()[:80]!r} is not the value of an attribute") from None


def _value(tree: ast.expr) -> Any:
    if isinstance(tree, ast.Constant):
        return tree.value
    if isinstance(tree, ast.Tuple):
        return tuple(map(_value, tree.elts))
    if isinstance(tree, ast.List):
        return [_value(element) for element in tree.elts]
    if isinstance(tree, ast.Name):
        return float(tree.id) if tree.id in ("nan", "inf") else Dim.symbol(tree.id)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_value(tree.operand)
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, (ast.Add, ast.Sub, ast.Mult)):
        a, b = _value(tree.left), _value(tree.right)
        return a + b if isinstance(tree.op, ast.Add) else a - b if isinstance(tree.op, ast.Sub) else a * b
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "literal":
        dtype, shape, numbers = map(_value, tree.args)
        return Literal(np.array(numbers, dtype_of(dtype)).reshape(shape))
    raise ValueError


def _initializer(text: str) -> Initializer:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
            raise ValueError("it is no call")
        if tree.func.id not in Initializer.known:
            raise ValueError(f"there are {', '.join(Initializer.known)}")
        return Initializer.known[tree.func.id](**{str(word.arg): _value(word.value) for word in tree.keywords})
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise GraphError(f"{text.strip()[:80]!r} is not an initializer: {error}") from None


def _origin(text: str) -> Origin:
    if not text.strip():
        return Origin()
    role, scope, *words = text.split()
    found: dict[str, Any] = {"role": role, "scope": "" if scope == "-" else scope}
    while words:
        word = words.pop(0)
        if word == "of":
            found["forward"] = words.pop(0)
        elif word == "rule":
            found["rule"], found["sources"] = words.pop(0), tuple(words.pop(0).split(",")) if words else ()
        else:
            file, _, line = word.rpartition(":")
            expect(line.isdigit(), "{!r} is not file:line", word)
            found.update(file=file, line=int(line))
    return Origin(**found)
