"""What stands in boxes and on edges: types, attributes and lists of ops, short enough for a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from minigraph.core import text
from minigraph.core.dim import show
from minigraph.core.errors import GraphError
from minigraph.core.ir import Graph, Node, Type, Value, needed
from minigraph.core.op import REQUIRED, Literal, no_flops
from minigraph.tools.outline import count, is_number

WIDTH = 30  # characters in a line of a box
LONGEST = 100  # characters of a formula
PARTS = (100, 40, 32, 24, 16, 8, 1)  # of its parts: where the whole is too long, longer ones become "…"
SIGNS = {"add": (" + ", 1), "sub": (" − ", 1), "mul": (" × ", 2), "div": (" / ", 2)}  # and how tightly they bind


def type_text(type_: Type) -> str:
    """N×32×28×28; a scalar is "scalar"; a dtype other than float32 stands behind."""
    sizes = [f"({n})" if any(c in str(n) for c in "+-") else str(n) for n in type_.shape]
    return ("×".join(sizes) or "scalar") + ("" if type_.dtype == "float32" else f" {type_.dtype}")


def size_text(graph: Graph) -> str:
    """74 nodes and 152 on parameters."""
    nodes, frozen = count(graph)
    return f"{nodes} node{'s' * (nodes != 1)}" + (f" and {frozen} on parameters" if frozen else "")


def attributes_text(node: Node) -> str:
    """The attributes that are not as they are by default and that the output's type does not show."""
    types = tuple(value.type for value in node.inputs)
    required = {name: node.attrs[name] for name, default in node.op.defaults.items() if default is REQUIRED}
    try:
        default, _ = node.op.infer(types, required)
    except GraphError:  # the defaults alone do not fit these inputs
        default = required
    shown = {
        name: value
        for name, value in node.attrs.items()
        if (name in required or default.get(name) != value)
        and value not in (node.outputs[0].type.shape, node.outputs[0].type.dtype)
    }
    return ", ".join(f"{name} {_attribute(value)}" for name, value in shown.items())


def _attribute(value: Any) -> str:
    if isinstance(value, Literal):
        return f"{value.array.dtype}{list(value.array.shape)}"
    if isinstance(value, tuple):
        flat = _flat(value)
        return _attribute(flat[0]) if flat and len(set(flat)) == 1 else show(value)
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else text.attribute(value)


def _flat(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in _flat(part)] if isinstance(value, tuple) else [value]


def call_lines(graph: Graph, node: Node) -> list[str]:
    """An op with the numbers among its inputs ("mul 0.9"; "div 1, ·" where the tensor is the second), and its
    attributes.
    """
    makers = [graph.producer.get(value) for value in node.inputs]
    written = [_attribute(m.attrs["value"]) if m is not None and is_number(m) else None for m in makers]
    numbers = [w or "·" for w in written] if written and written[0] else [w for w in written if w]
    return [" ".join([node.op.name, ", ".join(numbers)]).strip(), *wrapped(attributes_text(node).split(", "), ", ")]


def ops_lines(
    graph: Graph,
    nodes: Sequence[Node],
    attributes: bool | None = None,
    signs: Mapping[Node, str] = MappingProxyType({}),
) -> list[str]:
    """The ops of a layer, several in a line: with their attributes, or only each with how often it occurs.

    By default the forward has attributes. What only rearranges one state (a weight's transpose) is left out. signs:
    what stands before a node's op.
    """
    states = {variable.value for variable in graph.state}
    shown = [node for node in nodes if len(nodes) == 1 or not (len(node.inputs) == 1 and node.inputs[0] in states)]
    if nodes[0].origin.role == "forward" if attributes is None else attributes:
        called = [f"{signs.get(node, '')}{node.op.name} {attributes_text(node)}".strip() for node in shown]
        return wrapped(called, " · ")
    counts = Counter((signs.get(node, ""), node.op.name) for node in shown)
    called = [f"{sign}{count} {name}" if count > 1 else f"{sign}{name}" for (sign, name), count in counts.items()]
    return wrapped(called, " · ", 3)


def wrapped(words: Iterable[str], separator: str, lines: int = 4, width: int = WIDTH) -> list[str]:
    """Words in lines of about `width` characters, and how many did not find room."""
    words, found = list(words), [""]
    for i, word in enumerate(words):
        if found[-1] and len(found[-1]) + len(separator) + len(word) > width:
            if len(found) == lines:
                found[-1] += f" + {len(words) - i} more"
                break
            found.append("")
        found[-1] += (separator if found[-1] else "") + word
    return [line for line in found if line]


def moves_only(node: Node) -> bool:
    """Whether a node only lays out one tensor anew: its numbers stay what they are."""
    return node.op.flops is no_flops and len(node.inputs) == 1


def formula(graph: Graph, value: Value, names: Mapping[Value, str]) -> str:
    """How a value is computed, as a line: "weight × gamma / √(var + 1e-05)". names: of the values that it begins with.

    What only lays out a tensor anew is not written.
    """
    texts = (_formula(graph, value, names, part) for part in PARTS)
    return next((text for text in texts if len(text) <= LONGEST), "…")


def _formula(graph: Graph, value: Value, names: Mapping[Value, str], longest: int) -> str:
    """The formula of a value, "…" in it for each part with more than `longest` characters that is not a name."""
    known: dict[Value, tuple[str, int]] = {}  # a text, and how tightly it is bound: a sum 1, a product 2, others 3

    def inside(value: Value, binding: int) -> str:
        if value not in known:
            known[value] = written(value)
            if len(known[value][0]) > longest and value in graph.producer:
                known[value] = "…", 3
        text, bound = known[value]
        return text if bound >= binding else f"({text})"

    def written(value: Value) -> tuple[str, int]:
        node = graph.producer.get(value)
        if node is None or value in names:
            return names.get(value, value.name), 3
        if moves_only(node):
            text = inside(node.inputs[0], 0)
            return text, known[node.inputs[0]][1]
        if is_number(node):
            return _attribute(node.attrs["value"]), 3
        if node.op.name in SIGNS:
            sign, binding = SIGNS[node.op.name]
            left, right = node.inputs
            return inside(left, binding) + sign + inside(right, binding + (node.op.name in ("sub", "div"))), binding
        name = "√" if node.op.name == "sqrt" else node.op.name
        return f"{name}({', '.join(inside(v, 0) for v in node.inputs)})", 3

    for node in needed(graph.nodes, [value])[0]:  # in order, so that what a node reads is known
        for made in node.outputs:
            inside(made, 0)
    return written(value)[0]
