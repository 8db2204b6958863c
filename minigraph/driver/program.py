"""Programs: a graph that is optimized and made ready to run, with the state that it moves.

train = compile(step, state)
outputs = train(image=..., label=...)        moves the state by one step
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from minigraph.backends.numpy import Executable
from minigraph.core.errors import expect
from minigraph.core.frozen import split
from minigraph.core.ir import Graph
from minigraph.core.pipeline import Hook, Optimized, Pass, Pipeline, Step, debugging, report, run
from minigraph.core.state import State
from minigraph.driver.finite import first_not_finite
from minigraph.driver.given import arrays_of, complete, solve, type_of
from minigraph.passes.pipelines import INFERENCE, TRAINING

BACKENDS = {"numpy": Executable}
TURNS = 8  # of the default passes: in nearly all graphs the second finds nothing more to do


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
    pipeline: passes, or functions from graph to graph, each of which comes once. By default passes.pipelines.TRAINING
        for a graph with updates and INFERENCE for others, until none of their rules fires any more.
    without: names of passes, or of single rules, to leave out. hook: called with each step when it is done.

    Raises GraphError for a pass that gives other outputs, or needs other inputs or state.
    """
    expect(isinstance(graph, Graph), "optimize needs a Graph, not a {}", type(graph).__name__)
    turns = 1
    if pipeline is None:
        pipeline, turns = TRAINING if graph.updates else INFERENCE, TURNS
    _check_passes(pipeline)
    hooks = [_check_ends, *([hook] if hook else []), *debugging(state)]
    return run(pipeline, graph, state, without, hooks, turns)


def _check_passes(pipeline: Pipeline) -> None:
    expect(
        isinstance(pipeline, (tuple, list)),
        "a pipeline is a tuple of passes, such as (*INFERENCE, my_pass), not a {}",
        type(pipeline).__name__,
    )
    for p in pipeline:
        expect(
            isinstance(p, Pass) or hasattr(p, "__name__"),
            "a pass is a Pass, or a function from graph to graph that has a name, not a {}",
            type(p).__name__,
        )


def _check_ends(step: Step) -> None:
    """A pass may change what is between the ends of a graph; whoever calls the program knows the ends."""
    before, after = step.before, step.after
    if after is before:
        return
    old, new = (sorted(f"{name}: {value.type}" for name, value in g.outputs.items()) for g in (before, after))
    expect(
        new == old,
        "the pass {} turns the outputs {} into {}",
        step.name,
        ", ".join(old) or "none",
        ", ".join(new) or "none",
    )
    for what, has, needs in (
        ("inputs", before.inputs, after.inputs),
        ("state", [v.value for v in before.state], [v.value for v in after.state]),
    ):
        known = {str(value) for value in has}
        strange = [str(value) for value in needs if str(value) not in known]
        expect(not strange, "the pass {} needs {} that nobody gives: {}", step.name, what, ", ".join(strange))


def compile(
    graph: Graph,
    state: State,
    backend: str = "auto",
    *,
    pipeline: Pipeline | None = None,
    without: Collection[str] = (),
    hook: Hook | None = None,
    snapshot: bool = False,
) -> Program:
    """A program that runs the graph on a state, after the passes of a pipeline (see optimize).

    Slots, counters and random streams that the state lacks are created in it (`program.created`); a missing parameter
    or statistic, and one of another shape or dtype, is an error.
    What depends on fixed parameters alone, such as weights with a batch norm folded into them, is computed once; when
    the state has moved on, the next call computes it anew. With snapshot=True it stays as it was at first.
    hook: called with each step of the pipeline when it is done, and once more where the graph is optimized anew.
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
    plan = partial(optimize, graph, pipeline=pipeline, without=without, hook=hook)
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
        self.created = complete(source, state)
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
        fixed = [v.name for v in self.source.state if v.value not in self.source.updates] if self.snapshot else []
        self._fixed = {name: state[name] for name in fixed}

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
        return first_not_finite(graph, arrays)

    def _given(self, state: State, inputs: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, np.ndarray]]:
        """The sizes of symbols, and all arrays by name: inputs in their dtypes, and the state."""
        arrays = arrays_of(self.source.inputs, inputs, self.source.name)
        symbols = solve(self.source.inputs, arrays)
        for variable in self.source.state:
            expect(variable.name in state, "the state no longer has {!r}", variable.name)
            found = type_of(state[variable.name])
            expect(found == variable.value.type, "state {} has become {}", variable.value, found)
            arrays[variable.name] = state[variable.name]
        return symbols, {**arrays, **self._fixed}

    def __repr__(self) -> str:
        return f"<Program {self.graph.name!r} on {self.backend}>"
