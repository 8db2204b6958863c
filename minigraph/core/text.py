"""A graph as text that a person can read; `parse` reads it back.

    graph "mlp"
    input image: float32[N, 784]
    parameter linear1.weight: float32[10, 784] = Uniform(low=-0.1, high=0.1)
    linear1.transpose: float32[784, 10] = transpose(linear1.weight, axes=(1, 0))   @ forward linear1 "net.py":7
    linear1.matmul: float32[N, 10] = matmul(image, linear1.transpose)   @ forward linear1 "net.py":7
    output logits = linear1.matmul

A line for each input, variable and node, in order; then the outputs, and `update state <- value`. Behind `@` stands the
origin: role, scope, line of the user's file, `of` the forward node, `rule` and what it replaced; names in quotes where
they have blanks, commas or quotes in them.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from minigraph.core.dim import Dim

if TYPE_CHECKING:
    from minigraph.core.initial import Initializer
    from minigraph.core.ir import Graph, Node, Origin, Value


def write(graph: Graph) -> str:
    names = _unique_names(graph)
    typed = lambda value: f"{names[value]}: {value.type}"
    lines = [f"graph {_quoted(graph.name)}"]
    lines += [f"input {typed(value)}" for value in graph.inputs]
    lines += [
        f"{variable.kind} {typed(variable.value)} = {_initializer(variable.initializer)}" for variable in graph.state
    ]
    lines += [
        f"{', '.join(map(typed, node.outputs))} = {_call(node, names)}{_origin(node.origin)}" for node in graph.nodes
    ]
    lines += [f"output {name} = {names[value]}" for name, value in graph.outputs.items()]
    lines += [f"update {names[old]} <- {names[new]}" for old, new in graph.updates.items()]
    return "\n".join(lines) + "\n"


def attribute(value: Any) -> str:
    """An attribute as it is read back: sizes that are not numbers stand as N, strings in quotes."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(attribute, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, str):
        return _quoted(value)
    return str(value) if isinstance(value, Dim) else repr(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _unique_names(graph: Graph) -> dict[Value, str]:
    """Names as they are, but for inner values that share one: those get a number."""
    names = {value: value.name for value in (*graph.inputs, *(v.value for v in graph.state))}
    taken = set(names.values())
    for node in graph.nodes:
        for value in node.outputs:
            name, count = value.name, 1
            while name in taken:
                count += 1
                name = f"{value.name}~{count}"
            taken.add(name)
            names[value] = name
    return names


def _call(node: Node, names: dict[Value, str]) -> str:
    arguments = [names[value] for value in node.inputs]
    arguments += [f"{key}={attribute(value)}" for key, value in node.attrs.items()]
    return f"{node.op.name}({', '.join(arguments)})"


def _initializer(initializer: Initializer) -> str:
    values = {f.name: getattr(initializer, f.name) for f in fields(initializer)}  # type: ignore[arg-type]
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return f"{type(initializer).__name__}({', '.join(f'{name}={value!r}' for name, value in plain.items())})"


def _origin(origin: Origin) -> str:
    words = [origin.role, _word(origin.scope) if origin.scope else "-"]
    if origin.file:
        words.append(f"{_quoted(os.path.basename(origin.file))}:{origin.line}")
    if origin.forward:
        words.append(f"of {_word(origin.forward)}")
    if origin.rule:
        words.append(f"rule {_word(origin.rule)} {','.join(map(_word, origin.sources))}")
    return "   @ " + " ".join(words)


def _word(name: str) -> str:
    """A name in an origin, where blanks and commas part them, and "-" is none."""
    return name if re.fullmatch(r'[^\s",]+', name) and name != "-" else _quoted(name)
