"""A model without the biases that its batch norms take off again, and its state moved there and back.

Training leaves redundant biases as they are, and running means average what comes into the batch norm, bias included.
Here both go: the biases are no longer state, and a running mean is that of x instead of that of x + b,

    batch_norm_inference(x + b, γ, β, μ, v)  =  batch_norm_inference(x, γ, β, μ − b, v)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from minigraph.core.builder import Builder, Tensor
from minigraph.core.frozen import compute
from minigraph.core.ir import Graph, Node, Value, Variable, needed
from minigraph.core.pattern import Bound
from minigraph.core.pipeline import run
from minigraph.core.rewrite import Rule, Walk, rewrite
from minigraph.core.state import State
from minigraph.ops.batch_norm import batch_norm, running_average
from minigraph.passes import drop_beta, drop_bias
from minigraph.passes.freeze import averaged_mean, made_from


@dataclass(frozen=True)
class WithoutBiases:
    """A model in another form, and what takes a state from one form to the other.

    model: the graph. What is left of inputs, outputs and state has the names that it had.
    gone: the biases, and betas of batch norms, that it no longer has.
    stays: for a running mean that still averages a bias why it does, as a sentence.
    """

    model: Graph
    gone: tuple[Variable, ...]
    stays: Mapping[str, str]
    _off: Graph = field(repr=False)  # its updates take off running means what biases add
    _on: Graph = field(repr=False)

    def state(self, state: Mapping[str, np.ndarray]) -> State:
        """The state of the model with biases as that of `model`: evaluation gives the same, and so does training.

        What belongs to neither, as slots of optimizers, is taken over, but for the slots of what is gone.
        """
        gone = [v.name for v in self.gone]
        slots = tuple(f"optimizer.{name}." for name in gone)
        moved = {**state, **_updated(self._off, state)}
        return State({name: array for name, array in moved.items() if name not in gone and not name.startswith(slots)})

    def back(self, state: Mapping[str, np.ndarray]) -> State:
        """A state of `model` as one of the model with biases; these are as they begin, which usually is 0."""
        begun = {v.name: v.initializer.array(0, v.name, *_form(v)) for v in self.gone}
        return State({**state, **begun, **_updated(self._on, {**state, **begun})})


def _form(variable: Variable) -> tuple[tuple[int, ...], str]:
    shape, dtype = variable.value.type.shape, variable.value.type.dtype
    return tuple(int(n) for n in shape), dtype  # type: ignore[arg-type]


def _updated(graph: Graph, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the graph's updates make of a state, computed in float64."""
    known: dict[Value, np.ndarray] = {}
    compute(graph.nodes, state, known)
    return {old.name: known[new].astype(old.type.dtype) for old, new in graph.updates.items()}


def without_biases(model: Graph) -> WithoutBiases:
    """The model without the biases, and betas of batch norms, that a batch norm takes off again.

    A parameter that something else reads stays. Batch norms that share a running mean keep what is before them, unless
    both have the same shift, as a layer that is used twice does.

    The shift of a beta is made with the weights behind it, and moves with them: a running mean that averages it lags
    behind. Without it there is nothing to lag, and evaluation after further training differs by that.
    """
    graph = run((drop_bias.PASS, drop_beta.PASS), model).graph
    shifted, stays = _shifted_means(graph)
    gone = _dead(model, _without(graph, shifted))
    biases = {variable.value for variable in gone}
    useful = {m: found for m, found in shifted.items() if not biases.isdisjoint(made_from(graph, found[0].shifts))}
    names = {variable.name for variable in gone}
    state = tuple(variable for variable in model.state if variable.name not in names)
    moves = [_moving(graph, useful, sign) for sign in (-1, 1)]
    return WithoutBiases(replace(_without(graph, useful), state=state).check(), gone, stays, *moves)


class Average(NamedTuple):
    """A running average of a batch norm's mean and of the shifts that are added to it."""

    node: Node
    mean: Value
    shifts: tuple[Value, ...]


def _shifted_means(graph: Graph) -> tuple[dict[Value, list[Average]], dict[str, str]]:
    """By the states of running means: their averages, where these are of shifted means; and why some have to stay."""
    averages: dict[Value, Average] = {}  # by what a running average makes
    for node in graph.nodes:
        if node.op is batch_norm:
            value, shifts = averaged_mean(graph, node)
            for reader in graph.readers.get(value, ()):
                if reader.op is running_average and reader.inputs[1] is value:
                    averages[reader.outputs[0]] = Average(reader, node.outputs[1], shifts)
    found, stays = {}, {}
    formulas, ends = _formulas(graph), _ends(graph)
    for variable in graph.state:
        chain, end = _chain(graph, variable.value, averages, ends)
        if any(average.shifts for average in chain):
            if len({tuple(formulas[v] for v in average.shifts) for average in chain}) > 1:
                stays[variable.name] = f"{variable.name} averages what {len(chain)} batch norms see, with other biases"
            elif end:
                stays[variable.name] = end
            else:
                found[variable.value] = chain
    return found, stays


Ends = Mapping[Value, Sequence[tuple["Value | None", str]]]


def _ends(graph: Graph) -> Ends:
    """The outputs and updates that are a value: the state that it becomes, None of an output, and both in words."""
    found: dict[Value, list[tuple[Value | None, str]]] = {}
    for name, value in graph.outputs.items():
        found.setdefault(value, []).append((None, f"output {name!r}"))
    for state, value in graph.updates.items():
        found.setdefault(value, []).append((state, f"the update of {state.name}"))
    return found


def _chain(graph: Graph, state: Value, averages: Mapping[Value, Average], ends: Ends) -> tuple[list[Average], str]:
    """The averages that take a state up, each going on from the one before; and a sentence if others do, too."""
    chain: list[Average] = []
    why, value = "", state
    while True:
        readers = graph.readers.get(value, ())
        following = [r for r in readers if r.outputs[0] in averages and r.inputs[0] is value]
        others = [r.name for r in readers if r not in following] + [r.name for r in following[1:]]
        others += [said for old, said in ends.get(value, ()) if old is not state]
        why = why or (f"{value.name} is also read by {' and '.join(others)}" if others else "")
        chain += [averages[r.outputs[0]] for r in following]
        if len(following) != 1:
            becomes = graph.updates.get(state) is value
            return chain, why or ("" if becomes else f"{state.name} does not become {value.name}")
        value = following[0].outputs[0]


def _formulas(graph: Graph) -> dict[Value, object]:
    """A number for each formula: the same for values that are computed in the same way."""
    known: dict[Value, object] = {}
    numbers: dict[object, int] = {}
    for node in graph.nodes:
        inputs = tuple(known.get(value, value) for value in node.inputs)
        key = node.op, inputs, tuple(node.attrs.items())
        for i, value in enumerate(node.outputs):
            known[value] = numbers.setdefault((key, i), len(numbers))
    return known


def _without(graph: Graph, means: Mapping[Value, Sequence[Average]]) -> Graph:
    """The graph in which these running means average the batch norms' own means."""
    own = {average.node.outputs[0]: average.mean for chain in means.values() for average in chain}

    def shifted(walk: Walk, node: Node) -> Bound | None:
        for value in walk.originals(node.outputs[0]):
            if value in own and walk.now(own[value]) is not node.inputs[1]:
                return {"mean": walk.now(own[value])}
        return None

    rule = Rule(
        "average-without-bias",
        "running_average(μ, mean + b) = running_average(μ − b, mean) + b",
        shifted,
        lambda match, mean: match.again(
            match.node, match.tensor(match.node.inputs[0]), mean, *map(match.tensor, match.node.inputs[2:])
        ),
    )
    return rewrite(graph, (rule,))


def _dead(model: Graph, graph: Graph) -> tuple[Variable, ...]:
    """The parameters of the model that the graph has no use for."""
    before, after = (needed(g.nodes, (*g.outputs.values(), *g.updates.values()))[1] for g in (model, graph))
    gone = before - after
    return tuple(v for v in model.state if v.kind == "parameter" and v.value in gone)


def _moving(graph: Graph, means: Mapping[Value, Sequence[Average]], sign: int) -> Graph:
    """The graph whose updates take the shifts off the running means, or put them on."""
    builder = Builder.extending(replace(graph, outputs={}, updates={}))
    for mean, (first, *_) in means.items():
        moved = Tensor(builder, mean)
        for shift in first.shifts:
            moved = moved + Tensor(builder, shift) if sign > 0 else moved - Tensor(builder, shift)
        builder.update(Tensor(builder, mean), moved)
    return builder.build({}).prune()
