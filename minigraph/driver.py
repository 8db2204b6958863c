"""From a model to programs: the training step, the inference graph, and what runs them.

step = training_step(model, loss="loss", optimizer=Adam(1e-3))       Graph -> Graph
train = compile(step, state)                                         Graph, State -> Program
outputs = train(image=..., label=...)                                moves the state by one step
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np

from minigraph.backends.numpy import Executable
from minigraph.core import dim
from minigraph.core.autodiff import gradient
from minigraph.core.builder import Builder, Tensor
from minigraph.core.collector import paused
from minigraph.core.errors import GraphError, expect
from minigraph.core.evaluate import apply
from minigraph.core.frozen import split
from minigraph.core.ir import Graph, Node, Type, Value, needed
from minigraph.core.pipeline import Hook, Optimized, Pipeline, debugging, report, run
from minigraph.core.state import State
from minigraph.nn import optim
from minigraph.passes.freeze import freeze
from minigraph.passes.pipelines import BEFORE_AUTODIFF, INFERENCE, TRAINING

Patterns = str | Sequence[str]
BACKENDS = {"numpy": Executable}
MADE = ("slot", "counter", "stream")  # the kinds of state that compile adds where they are missing


@paused()
def training_step(
    model: Graph,
    loss: str,
    optimizer: optim.Optimizer,
    *,
    trainable: Patterns = "*",
    clip_norm: float | None = None,
    accumulate: int = 1,
    outputs: Iterable[str] | None = None,
    without: Collection[str] = (),
) -> Graph:
    """The whole step as one graph: forward, loss, backward, running statistics, and the optimizer's updates.

    Biases and βs that a batch norm takes off again have no effect on the loss: they stay as they are, without gradient
    and slot.

    loss: the output that is made smaller, a float scalar.
    trainable: patterns over names of parameters ("*", "head.*"); one that begins with "!" takes out again. The others
        get no gradient and no slot.
    clip_norm: gradients are scaled down together where their joint norm is above it.
    accumulate: so many runs make one step of the optimizer, with the mean of their gradients. A batch norm normalizes
        each of these batches by itself: accumulation does not make its batch larger.
    outputs: what a step returns; all outputs of the model by default.
    without: names of passes of BEFORE_AUTODIFF to leave out.
    """
    expect(isinstance(optimizer, optim.Optimizer), "the optimizer is one such as optim.Adam(1e-3), not {!r}", optimizer)
    expect(
        loss in model.outputs,
        "there is no output {!r} to be made smaller; there are {}",
        loss,
        ", ".join(model.outputs),
    )
    expect(isinstance(accumulate, int) and accumulate >= 1, "accumulate is a number of 1 or more, not {!r}", accumulate)
    builder = Builder.extending(model)
    chosen = _chosen(builder.parameters, trainable)
    expect("optimizer.step" not in model.variables, "{!r} is a training step already", model.name)
    _check_reached(builder, loss, chosen)
    builder, chosen = _without_redundant(model, loss, chosen, without)
    gradients = gradient(builder.tensor(loss), chosen)
    with optim.updating(builder):
        if accumulate > 1:
            gradients, last = optim.accumulate(builder, chosen, gradients, accumulate)
        if clip_norm is not None:
            gradients = optim.clip_by_norm(gradients, clip_norm)
        before = builder.updates
        optimizer.apply(builder, chosen, gradients)
        if accumulate > 1:
            optim.only_if(builder, last, before)
    expect(not isinstance(outputs, str), "outputs is a list of names, not {!r}", outputs)
    names = list(model.outputs if outputs is None else outputs)
    return builder.build({name: builder.tensor(name) for name in names})


def _chosen(parameters: Sequence[Tensor], patterns: Patterns) -> list[Tensor]:
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if patterns and all(pattern.startswith("!") for pattern in patterns):
        patterns.insert(0, "*")
    chosen: dict[str, Tensor] = {}
    for pattern in patterns:
        named = [p for p in parameters if fnmatchcase(p.name, pattern.removeprefix("!"))]
        expect(
            named,
            "no parameter is called like {!r}; there are {}",
            pattern,
            ", ".join(p.name for p in parameters) or "none",
        )
        for parameter in named:
            if pattern.startswith("!"):
                chosen.pop(parameter.name, None)
            else:
                chosen[parameter.name] = parameter
    expect(chosen, "nothing is trainable")
    return [p for p in parameters if p.name in chosen]


def _check_reached(builder: Builder, loss: str, parameters: Sequence[Tensor]) -> None:
    """Raise GraphError for parameters that the loss does not depend on."""
    value = builder.tensor(loss).value
    expect(value.type.is_float, "{!r} has no gradient: it is not a float but {}", loss, value.type)
    _, live = needed(builder.nodes, [value])
    idle = [p.name for p in parameters if p.value not in live]
    expect(
        not idle,
        "{!r} does not depend on {}; leave them out with trainable=[{}]",
        loss,
        ", ".join(idle),
        ", ".join(f'"!{name}"' for name in idle),
    )


def _without_redundant(
    model: Graph, loss: str, parameters: Sequence[Tensor], without: Collection[str]
) -> tuple[Builder, list[Tensor]]:
    """The model after BEFORE_AUTODIFF, with all of its state, and those of the parameters that still have an effect."""
    builder = Builder.extending(replace(run(BEFORE_AUTODIFF, model, without=without).graph, state=model.state))
    _, live = needed(builder.nodes, [builder.tensor(loss).value])
    chosen = [builder.tensor(p.name) for p in parameters if p.value in live]
    expect(
        chosen,
        "nothing is trainable: a batch norm takes off again what {} add",
        ", ".join(p.name for p in parameters),
    )
    return builder, chosen


def inference(model: Graph, outputs: Iterable[str] | None = None) -> Graph:
    """The graph that answers: batch norm with running statistics, no dropout, no updates, and only what `outputs` need.

    With outputs=["loss"] it is the evaluation loss, which leaves the running statistics alone.
    """
    return freeze(model.prune(outputs))


def optimize(
    graph: Graph,
    state: Mapping[str, np.ndarray] | None = None,
    *,
    pipeline: Pipeline | None = None,
    without: Collection[str] = (),
    hook: Hook | None = None,
) -> Optimized:
    """The graph after a pipeline of passes: its `graph`, and in `steps` what each pass did and why not more.

    state: numbers that rules may ask for (whether all of a batch norm's scales are positive, say).
    pipeline: passes, or functions from graph to graph. By default passes.pipelines.TRAINING for a graph with updates,
        INFERENCE for others.
    without: names of passes, or of single rules, to leave out. hook: called with each step when it is done.
    """
    expect(isinstance(graph, Graph), "optimize needs a Graph, not a {}", type(graph).__name__)
    if pipeline is None:
        pipeline = TRAINING if graph.updates else INFERENCE
    hooks = [*([hook] if hook else []), *debugging(state)]
    return run(pipeline, graph, state, without, hooks)


def compile(
    graph: Graph,
    state: State,
    backend: str = "auto",
    *,
    pipeline: Pipeline | None = None,
    without: Collection[str] = (),
    snapshot: bool = False,
) -> Program:
    """A program that runs the graph on a state, after the passes of a pipeline (see optimize).

    Slots, counters and random streams that the state lacks are created in it (`program.created`); a missing parameter
    or statistic, and one of another shape or dtype, is an error.
    What depends on fixed parameters alone, such as weights with a batch norm folded into them, is computed once; when
    the state has moved on, the next call computes it anew. With snapshot=True it stays as it was at first.
    backend: "numpy", or "auto" for the fastest that answers.
    """
    expect(
        isinstance(graph, Graph), "compile needs a Graph, as net.build(...) makes it, not a {}", type(graph).__name__
    )
    expect(isinstance(state, State), "compile needs a State, as model.init() makes it, not a {}", type(state).__name__)
    expect(
        backend == "auto" or backend in BACKENDS,
        "there is no backend {!r}; there are auto, {}",
        backend,
        ", ".join(BACKENDS),
    )
    plan = partial(optimize, graph, pipeline=pipeline, without=without)
    return Program(graph, state, "numpy" if backend == "auto" else backend, plan, snapshot)


class Program:
    """A compiled graph and its state. Calling it with the inputs by name runs one step and returns the outputs by name.

    The state moves all at once at the end of a step: an error or an interrupt leaves it as it was before. Outputs are
    the caller's own. One call runs at a time; other threads wait.
    """

    def __init__(
        self,
        source: Graph,
        state: State,
        backend: str,
        plan: Callable[[Mapping[str, np.ndarray]], Optimized],
        snapshot: bool = False,
    ):
        self.source, self.state, self.backend, self.snapshot = source, state, backend, snapshot
        self.created = _complete(source, state)
        self._plan = plan
        self._lock = threading.Lock()
        self._prepare(state.copy())

    def _prepare(self, state: State) -> None:
        """Optimize the graph for this state, and compute what is frozen."""
        self.optimized = self._plan(state)
        self.graph = self.optimized.graph
        self._prologue, rest = split(self.graph)
        self._executable = BACKENDS[self.backend](rest)
        self._compute(state)

    def _compute(self, state: State) -> None:
        self._early = self._prologue.run(state)
        names = {*self._prologue.reads, *(name for fact in self.optimized.facts for name in fact.reads)}
        self._seen = {name: state[name] for name in names}
        if self.snapshot:  # what is not computed early stays as it was as well
            fixed = [v.name for v in self.graph.state if v.value not in self.graph.updates]
            self._early.update((name, state[name]) for name in fixed)

    def refresh(self) -> None:
        """Compute anew what was computed once from the state. Calls do this by themselves if the state has moved on.

        Where the optimized graph rests on what the numbers were and no longer are, the graph is optimized anew.
        """
        with self._lock:
            self._refresh(self.state.copy())

    def _refresh(self, state: State) -> None:
        if all(fact.holds(state) for fact in self.optimized.facts):
            self._compute(state)
        else:
            self._prepare(state)

    @property
    def report(self) -> str:
        """What was compiled, on what, what each pass did and why not more, and what was added to the state."""
        once = len(self._prologue.nodes)
        lines = [f"{self.graph!r} on {self.backend}" + (f", {once} of them computed once" if once else "")]
        lines += report(self.optimized)
        if self.created:
            lines.append("created in the state: " + ", ".join(self.created))
        return "\n".join(lines)

    @property
    def peak_bytes(self) -> int:
        """The most bytes that values between inputs and outputs took at one time in the last run.

        State is not counted.
        """
        return self._executable.peak_bytes

    def __call__(self, /, **inputs: Any) -> dict[str, np.ndarray]:
        with self._lock, self.state.lock if self.graph.updates else nullcontext():
            state = self.state.copy()
            symbols, arrays = self._given(state, inputs)
            if not self.snapshot and any(state[name] is not array for name, array in self._seen.items()):
                self._refresh(state)
            outputs, new, _ = self._executable.run(symbols, {**arrays, **self._early})
            self.state.replace(new)
            return outputs

    def values(self, names: Sequence[str], /, **inputs: Any) -> dict[str, np.ndarray]:
        """Values between inputs and outputs for these inputs, by their names in the graph as it was given.

        The state does not move.
        """
        expect(not isinstance(names, str), "values takes a list of names, not {!r}", names)
        for name in names:
            self.source.value(name)
        with self._lock:
            symbols, arrays = self._given(self.state.copy(), inputs)
            return BACKENDS[self.backend](self.source, names).run(symbols, arrays)[2]

    def first_not_finite(self, /, **inputs: Any) -> str | None:
        """Where NaN or infinity first appears for these inputs.

        An input, a state, or a node with its line. None if nowhere.
        """
        with self._lock:
            symbols, arrays = self._given(self.state.copy(), inputs)
            graph = self.source.bind(**symbols)
        known: dict[Value, np.ndarray] = {}
        for kind, value in [("input", v) for v in graph.inputs] + [("state", s.value) for s in graph.state]:
            known[value] = arrays[value.name]
            if not _finite(known[value]):
                return f"{kind} {value.name!r} has {_count_not_finite(known[value])}"
        with np.errstate(all="ignore"):
            for node in graph.nodes:
                for value, array in zip(node.outputs, apply(node, [known[v] for v in node.inputs])):
                    known[value] = array
                    if not _finite(array):
                        return _blame(node, value, array)
        return None

    def _given(self, state: State, inputs: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, np.ndarray]]:
        """The sizes of symbols, and all arrays by name: inputs in their dtypes, and the state."""
        wanted = {value.name: value for value in self.source.inputs}
        missing = [name for name in wanted if name not in inputs]
        strange = [name for name in inputs if name not in wanted]
        expect(
            not missing and not strange,
            "{!r} takes the inputs {}; {}",
            self.source.name,
            ", ".join(wanted) or "none",
            "; ".join([f"{n!r} is missing" for n in missing] + [f"{n!r} is not one of them" for n in strange]),
        )
        arrays = {name: _array(value, inputs[name]) for name, value in wanted.items()}
        symbols = _solve(wanted.values(), arrays)
        for variable in self.source.state:
            expect(variable.name in state, "the state no longer has {!r}", variable.name)
            found = _type(state[variable.name])
            expect(found == variable.value.type, "state {} has become {}", variable.value, found)
            arrays[variable.name] = state[variable.name]
        return symbols, arrays

    def __repr__(self) -> str:
        return f"<Program {self.graph.name!r} on {self.backend}>"


def _array(value: Value, given: Any) -> np.ndarray:
    """An input as an array of the declared dtype.

    Integers become floats and float64 becomes float32, but floats do not become integers, and integers must fit.
    """
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise GraphError(f"input {value.name!r} is {value.type}; got what is no array: {error}") from None
    dtype = np.dtype(value.type.dtype)
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        fits = not array.size or (array.min() >= limits.min and array.max() <= limits.max)
        expect(
            fits, "input {!r} is {}; got numbers outside of {} to {}", value.name, value.type, limits.min, limits.max
        )
    else:
        fits = not array.size or (array.dtype.kind in "biuf" and np.can_cast(array.dtype, dtype, "same_kind"))
        expect(fits, "input {!r} is {}; got {}", value.name, value.type, array.dtype)
    with np.errstate(over="ignore"):
        converted = array.astype(dtype, copy=False)
    fits = array.dtype.itemsize <= dtype.itemsize or np.isfinite(converted).sum() == np.isfinite(array).sum()
    expect(fits, "input {!r} is {}; got numbers that are too large for it", value.name, value.type)
    return converted


def _solve(inputs: Iterable[Value], arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The sizes of the symbols; GraphError if an array does not have the shape of its input."""
    symbols: dict[str, int] = {}
    waiting = list(inputs)
    while waiting:  # an input such as (N*M,) waits for one that tells N or M
        left = [v for v in waiting if not dim.solve(v.type.shape, arrays[v.name].shape, symbols)]
        if len(left) == len(waiting):
            raise GraphError(_misfit(left[0], arrays[left[0].name].shape, symbols))
        waiting = left
    return symbols


def _misfit(value: Value, shape: tuple[int, ...], symbols: Mapping[str, int]) -> str:
    """What was expected and what came, with the sizes that other inputs gave to the axes that disagree."""
    wrong = [
        n
        for n, got in zip(value.type.shape, shape)
        if dim.symbols_of((n,)) <= symbols.keys() and dim.bind(n, symbols) != got
    ]
    known = ", ".join(f"{name} = {symbols[name]}" for name in sorted(dim.symbols_of(tuple(wrong))))
    return f"input {value.name!r} is {value.type}{' with ' + known if known else ''}; got shape {shape}"


def _type(array: np.ndarray) -> Type:
    return Type(array.shape, array.dtype.name)


def _complete(graph: Graph, state: State) -> tuple[str, ...]:
    """Create what may be created; raise GraphError for what is missing or does not fit. Returns the names created."""
    missing, other, made = [], [], {}
    for variable in graph.state:
        wanted = variable.value.type
        if variable.name in state:
            found = _type(state[variable.name])
            if found != wanted:
                other.append(f"{variable.name} is {wanted}, the state has {found}")
        elif variable.kind in MADE:
            made[variable.name] = variable.initializer.array(
                0, variable.name, tuple(dim.known(n, variable.name) for n in wanted.shape), wanted.dtype
            )
        else:
            missing.append(variable.name)
    problems = ([f"the state lacks {', '.join(missing)}"] if missing else []) + other
    expect(not problems, "{!r} does not fit its state: {}", graph.name, "; ".join(problems))
    for name, array in made.items():
        state[name] = array
    return tuple(made)


def _finite(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _count_not_finite(array: np.ndarray) -> str:
    nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    parts = ([f"{nan} NaN"] if nan else []) + ([f"{infinite} infinite"] if infinite else [])
    return f"{' and '.join(parts)} of {array.size} numbers, the first at {list(first)}"


def _blame(node: Node, value: Value, array: np.ndarray) -> str:
    where = f", at {node.origin.where()}" if node.origin.file else ""
    of = f" (backward of {node.origin.forward})" if node.origin.forward else ""
    return f"{node.op.name} {value.name!r}{of} is the first value with {_count_not_finite(array)}{where}"
