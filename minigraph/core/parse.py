"""Reads back what `text` writes. What it returns is checked; a line that is wrong is named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigraph.core.dim import Dim, shape_of, symbolic
from minigraph.core.dtypes import dtype_of
from minigraph.core.errors import GraphError, expect
from minigraph.core.initial import Initializer
from minigraph.core.ir import KINDS, ROLES, Graph, Node, Origin, Type, Value, Variable
from minigraph.core.op import OPS, Literal

STRING = r'"(?:[^"\\]|\\.)*"'
TYPED = r"([^\s:,()=\"]+): (\w+)\[([^\]\"]*)\]"
LINE = re.compile(rf'((?:[^"@]|{STRING})*?)(?:\s+@ (.*))?')
NODE = re.compile(rf"({TYPED}(?:, {TYPED})*) = (\w+)\((.*)\)")
TOKEN = re.compile(rf'{STRING}|[()\[\],]|[^"()\[\],]+')
WORD = rf'(?:{STRING}|[^\s",]+)'
ORIGIN = re.compile(
    rf"(\w+) ({WORD})(?: ({STRING}):([0-9]+))?(?: of ({WORD}))?(?: rule ({WORD})(?: ({WORD}(?:,{WORD})*))?)?"
)


def parse(text: str) -> Graph:
    """The graph that `str(graph)` has written. Raises GraphError with the number of the line that is wrong."""
    reader = _Reader()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            reader.read(line.strip())
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
        word, _, rest = line.partition(" ")
        if self.name is None:
            name = attribute(rest) if word == "graph" else None
            expect(isinstance(name, str), 'the first line names the graph: graph "name"')
            self.name = name
        elif word == "input":
            self.inputs.append(self.typed(rest))
        elif word in KINDS:
            declaration, _, initializer = rest.partition(" = ")
            value = self.typed(declaration)
            expect(not symbolic(value.type.shape), "the sizes of a state are numbers, not {}", value.type)
            self.state.append(Variable(value, _initializer(initializer), word))
        elif word == "output":
            name, _, source = rest.partition(" = ")
            expect(name not in self.outputs, "there are two outputs {!r}", name)
            self.outputs[name] = self.known(source)
        elif word == "update":
            self.update(*map(self.known, rest.split(" <- ", 1) if " <- " in rest else (rest, "")))
        else:
            self.node(line)

    def update(self, old: Value, new: Value) -> None:
        expect(any(variable.value is old for variable in self.state), "{} is not state", old)
        expect(old not in self.updates, "{} is updated twice", old)
        expect(old.type == new.type, "{} cannot become {}", old, new)
        self.updates[old] = new

    def node(self, line: str) -> None:
        parts = LINE.fullmatch(line)
        match = NODE.fullmatch(parts.group(1)) if parts else None
        if parts is None or match is None:
            raise GraphError("this is neither an input, a state, a node, an output nor an update")
        declared, op_name, inside = match[1], match.groups()[-2], match.groups()[-1]
        expect(op_name in OPS, "op {!r} is not known: import the module that defines it first", op_name)
        op, inputs, attrs = OPS[op_name], [], {}
        for argument in _split(inside):
            key, equals, value = argument.partition("=")
            if equals and not key.startswith('"'):
                expect(key not in attrs, "the attribute {!r} is given twice", key)
                attrs[key] = attribute(value)
            else:
                inputs.append(self.known(argument))
        complete, types = op.infer(tuple(value.type for value in inputs), attrs)
        outputs = tuple(self.typed(part.group()) for part in re.finditer(TYPED, declared))
        expect(tuple(value.type for value in outputs) == types, "the op infers {}", ", ".join(map(str, types)))
        name = outputs[0].name if len(outputs) == 1 else outputs[0].name.removesuffix(f".{op.outputs[0]}")
        self.nodes.append(Node(op, tuple(inputs), outputs, complete, name, _origin(parts.group(2))))

    def typed(self, declaration: str) -> Value:
        match = re.fullmatch(TYPED, declaration)
        if match is None:
            raise GraphError(f"a value is declared as name: dtype[sizes], not {declaration!r}")
        name, dtype, sizes = match.groups()
        expect(name not in self.values, "{!r} is defined twice", name)
        type_ = Type(shape_of(part.strip() for part in sizes.split(",")) if sizes.strip() else (), dtype_of(dtype))
        expect(all(not isinstance(n, int) or n >= 0 for n in type_.shape), "{!r} has a negative size: {}", name, type_)
        self.values[name] = Value(type_, name)
        return self.values[name]

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
    depth, part = 0, ""
    for token in TOKEN.findall(inside):
        depth += (token in ("(", "[")) - (token in (")", "]"))
        if token == "," and depth == 0:
            yield part.strip()
            part = ""
        else:
            part += token
    if part.strip():
        yield part.strip()


def attribute(text: str) -> Any:
    """The value of an attribute as `text.attribute` writes it."""
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, OverflowError, RecursionError, MemoryError):
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
            known = ", ".join(Initializer.known)
            raise ValueError(f"known are {known}; if it is your own, import the module that defines it first")
        return Initializer.known[tree.func.id](**{str(word.arg): _value(word.value) for word in tree.keywords})
    except (SyntaxError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise GraphError(f"{text.strip()[:80]!r} is not an initializer: {error}") from None


def _origin(text: str | None) -> Origin:
    if text is None:
        return Origin()
    match = ORIGIN.fullmatch(text.strip())
    if match is None:
        raise GraphError(f'an origin is: role scope "file":line of node rule name sources, not {text.strip()!r}')
    role, scope, file, line, forward, rule, sources = match.groups()
    expect(role in ROLES, "the role of a node is one of {}, not {!r}", ", ".join(ROLES), role)
    return Origin(
        role,
        "" if scope == "-" else _word(scope),
        attribute(file) if file else "",
        int(line or 0),
        _word(forward or ""),
        _word(rule or ""),
        tuple(map(_word, re.findall(WORD, sources or ""))),
    )


def _word(name: str) -> str:
    """A name as `text` writes it: in quotes where it is not one word."""
    return attribute(name) if name.startswith('"') else name
