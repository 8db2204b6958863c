"""Examples for the rules: a module for each module of passes, with CASES: {name of the rule: Case}.

    CASES = {
        "merge-scales": Case(
            build=lambda net: {"y": net.input("x", (2, 3)) * number(net, "c", 3) * number(net, "s", 3)},
            golden="",                                          # python -m rules merge-scales, in tests/, fills it in
            near={                                              # for each condition, by what it says, a graph
                "nothing else reads the value in between": Near(read_twice),          # which it alone refuses
            },
        ),
    }

`build` gets an empty builder and returns the outputs by name; `net.update` makes updates. Floats of inputs and state
are drawn between -2 and 2, variances above 0; `ranges` says otherwise, by name: {"s": (0.1, 2)}. Both the numbers that
the rule may ask for and those of the proof are drawn so, the latter as fractions then, since numbers modulo a prime
have no order. A range of one number makes a constant of it.

tests/test_rules.py says what is held of each case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from minigraph.core.errors import GraphError
from minigraph.core.exact import Modular, Rational
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import OPS, REQUIRED, Sample
from minigraph.core.pipeline import with_own_names
from minigraph.core.proof import ORDERED_DRAWS, Kinds, gradient_graph, prove_same
from minigraph.core.text import attribute

Build = Callable[[Builder], Mapping[str, Tensor]]
Ranges = Mapping[str, tuple[float, float]]

WHOLE = 3  # whole numbers are drawn below this
SYMBOL = 2  # what a symbol stands for in proofs


@dataclass(frozen=True)
class Near:
    """A graph that one condition refuses.

    ranges: as in Case. known: whether the numbers of the state are given to the walk.
    fails: for a sound condition, the error with which the rule without it ends, where it can build nothing at all;
        otherwise what it then builds has to be wrong.
    undefined: what it then builds divides by zero, whatever the inputs.
    """

    build: Build
    ranges: Ranges = field(default_factory=dict)
    known: bool = True
    fails: type[Exception] | None = None
    undefined: bool = False


@dataclass(frozen=True)
class Case:
    """An example on which a rule fires.

    golden: the rewritten graph as `text` writes it; indentation does not count.
    near: a near miss for each condition, by what the condition says.
    ranges: of the floats, by the name of the input or state.
    meant: for rules that change the meaning on purpose, such as those of freeze: builds what the outputs are to be;
        otherwise they are to be what they were.
    """

    build: Build
    golden: str
    near: Mapping[str, Near] = field(default_factory=dict)
    ranges: Ranges = field(default_factory=dict)
    meant: Build | None = None


def number(net: Builder, name: str, *shape: Any, dtype: str = "float32", kind: str = "parameter") -> Tensor:
    """State that is frozen where nothing updates it."""
    return net.variable(name, shape, mg.init.zeros, dtype, kind)


def graph_of(build: Build) -> Graph:
    net = Builder("case")
    return net.build(build(net))


def numbers(graph: Graph, ranges: Ranges, seed: int = 0) -> dict[str, np.ndarray]:
    """Random numbers for the state, in their dtypes."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for variable in graph.state:
        low, high = _range(variable.value, ranges)
        shape, dtype = variable.value.type.shape, variable.value.type.dtype
        drawn = rng.uniform(low, high, shape) if variable.value.type.is_float else rng.integers(0, WHOLE, shape)  # type: ignore[arg-type]
        arrays[variable.name] = np.asarray(drawn).astype(dtype)
    return arrays


def _range(value: Value, ranges: Ranges) -> tuple[float, float]:
    return ranges.get(value.name, (0.1, 2.0) if value.name.endswith("var") else (-2.0, 2.0))


def text(graph: Graph) -> str:
    """Nodes, outputs and updates, a line for each. Attributes that are as they are by default are left out."""
    graph, lines = with_own_names(graph), []
    for node in graph.nodes:
        results = ", ".join(f"{value.name}: {value.type}" for value in node.outputs)
        arguments = [value.name for value in node.inputs]
        arguments += [f"{name}={attribute(value)}" for name, value in _told(node).items()]
        lines.append(f"{results} = {node.op.name}({', '.join(arguments)})")
    lines += [f"output {name} = {value.name}" for name, value in graph.outputs.items()]
    lines += [f"update {old.name} <- {new.name}" for old, new in graph.updates.items()]
    return "\n".join(lines)


def _told(node: Node) -> Mapping[str, Any]:
    """The attributes that are not as they are by default."""
    required = {name: node.attrs[name] for name, default in node.op.defaults.items() if default is REQUIRED}
    try:
        usual, _ = node.op.infer(tuple(value.type for value in node.inputs), required)
    except GraphError:
        return node.attrs
    return {name: value for name, value in node.attrs.items() if name in required or value != usual[name]}


# proofs


def prove(
    before: Graph,
    after: Graph,
    ranges: Ranges,
    ordered: bool = False,
    gradients: bool = True,
    draws: int = ORDERED_DRAWS,
) -> None:
    """Raise Refuted unless outputs, updates and all gradients are the same, exactly.

    Gradients are those of every output and every update, with respect to every input and state; but not to one that
    has a single number for its range: what holds at that number alone says nothing of the slope there.
    ordered: whether the ranges matter, as where `after` rests on facts. draws: how often fractions are drawn.
    """
    kinds: Kinds = ((Rational, draws),) if ordered else ((Modular, 1), (Rational, draws))
    one, other = opened(before, before), opened(after, before)
    samples = {value.name: _sample(value, ranges) for value in one.inputs}
    prove_same(one, other, samples, kinds)
    if gradients and any(value.type.is_float for value in one.outputs.values()):
        fixed = {f"gradient.{name}" for name, (low, high) in ranges.items() if low == high}
        (backward, seeds), (backward_after, _) = gradient_graph(one), gradient_graph(other)
        pair = _all_named(_without(backward, fixed), _without(backward_after, fixed))
        prove_same(*pair, {**samples, **seeds}, kinds)


def _sample(value: Value, ranges: Ranges) -> Sample:
    shape: Any = value.type.shape
    if value.type.is_float:
        low, high = _range(value, ranges)
        return Sample(shape, None, low, high)
    return Sample(shape, value.type.dtype, 0, 2 if value.type.dtype == "bool" else WHOLE)


def opened(graph: Graph, of: Graph) -> Graph:
    """The graph with the state of `of` as inputs and its updates as outputs, and with numbers for its symbols."""
    own = graph.variables
    state = [own[v.name].value if v.name in own else v.value for v in of.state]
    inputs = {value.name: value for value in graph.inputs}
    given = [inputs.get(value.name, value) for value in of.inputs]
    updates = {f"update.{old.name}": new for old, new in graph.updates.items()}
    eps = {n.inputs[4].name: n.attrs["eps"] for n in of.nodes if n.op is OPS["batch_norm_inference"]}
    roots = {v: _root(v, eps[v.name]) for v in state if v.name in eps}
    nodes = tuple(node for _, made in roots.values() for node in made) + graph.nodes
    state = [roots[v][0] if v in roots else v for v in state]
    free = Graph(graph.name, (*given, *state), (), nodes, {**graph.outputs, **updates})
    return free.bind(**dict.fromkeys(free.symbols, SYMBOL))


def _root(var: Value, eps: float) -> tuple[Value, tuple[Node, ...]]:
    """Free numbers r in place of a variance v, and the nodes of v = r·r − ε: √(v + ε) is then a number that is there.

    Else every channel's variance would have to be drawn until all have a root.
    """
    root, square, constant = (Value(var.type, var.name + end) for end in ("", ".square", ".eps"))
    made = (
        Node(OPS["mul"], (root, root), (square,), {}, square.name),
        _filled(constant, eps),
        Node(OPS["sub"], (square, constant), (var,), {}, var.name),
    )
    return root, made


def _filled(value: Value, number: float) -> Node:
    attrs = {"value": number, "shape": value.type.shape, "dtype": value.type.dtype}
    return Node(OPS["fill"], (), (value,), attrs, value.name)


def _without(graph: Graph, names: Collection[str]) -> Graph:
    return replace(graph, outputs={name: value for name, value in graph.outputs.items() if name not in names})


def _all_named(one: Graph, other: Graph) -> tuple[Graph, Graph]:
    """Both graphs of gradients with zeros for what only the other one has."""
    names = {**one.outputs, **other.outputs}
    return _with_zeros(one, names), _with_zeros(other, names)


def _with_zeros(graph: Graph, names: Mapping[str, Value]) -> Graph:
    more = {name: Value(value.type, name) for name, value in names.items() if name not in graph.outputs}
    zeros = tuple(_filled(value, 0.0) for value in more.values())
    return replace(graph, nodes=(*graph.nodes, *zeros), outputs={**graph.outputs, **more})
