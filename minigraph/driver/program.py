"""Programs: a graph that is optimized and made ready to run, with the state that it moves.

train = compile(step, state)
outputs = train(image=..., label=...)        moves the state by one step
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from minigraph.backends import numpy as references
from minigraph.backends.c.clocks import measure as measure_steps
from minigraph.backends.c.executable import Executable, WrongInput
from minigraph.backends.c.peak import peak
from minigraph.backends.c.tuning import tuned
from minigraph.backends.numpy.clocks import measure as measure_nodes
from minigraph.backends.plan import Plan
from minigraph.core.errors import GraphError, expect
from minigraph.core.frozen import split
from minigraph.core.ir import Graph
from minigraph.core.op import whole
from minigraph.core.pipeline import Hook, Optimized, Pass, Pipeline, Step, debugging, report, run
from minigraph.core.state import State
from minigraph.core.turn import Turn
from minigraph.driver.choice import asked_for, choose
from minigraph.driver.finite import first_not_finite
from minigraph.driver.given import arrays_of, complete, solve, type_of
from minigraph.driver.profile import Profile, profile_of_nodes, profile_of_steps
from minigraph.passes.pipelines import INFERENCE, TRAINING, TURNS

if TYPE_CHECKING:  # a program that runs on a GPU loads it
    from minigraph.backends.cupy.executable import Call
    from minigraph.backends.cupy.executable import Executable as ExecutableOnGpu
    from minigraph.backends.cupy.feed import Given
    from minigraph.driver.on_gpu import OnGpu

T = TypeVar("T")

SIZES = 1000  # sets of input shapes that a program remembers


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
    tune: bool = False,
) -> Program:
    """A program that runs the graph on a state, after the passes of a pipeline (see optimize).

    Slots, counters and random streams that the state lacks are created in it (`program.created`); a missing parameter
    or statistic, and one of another shape or dtype, is an error.
    What depends on fixed parameters alone, such as weights with a batch norm folded into them, is computed once; when
    the state has moved on, the next call computes it anew. With snapshot=True it stays as it was at first.
    hook: called with each step of the pipeline when it is done, and once more where the graph is optimized anew.
    backend: "cupy", on a GPU, compiled at the first call with sizes that are new; "c", compiled for this machine, too,
        but for most sizes of the batch (README); "numpy", node by node; or "auto": the first of these that there is,
        a GPU or a compiler, if the graph has no op that only NumPy has. MINIGRAPH_BACKEND says what auto means.
    tune: in C, measure at the first call which kernels are the fastest for its sizes, direct convolutions or
        Winograd's; else a table says. It takes a few compilations, once: what was found is kept in the cache folder.
        Kernels round differently, and so the results are not the same on all machines to the last bit. What is
        exported is by the table.
    """
    expect(
        isinstance(graph, Graph), "compile needs a Graph, as net.build(...) makes it, not a {}", type(graph).__name__
    )
    expect(isinstance(state, State), "compile needs a State, as model.init() makes it, not a {}", type(state).__name__)
    backend = asked_for(backend)
    plan = partial(optimize, graph, pipeline=pipeline, without=without, hook=hook)
    return Program(graph, state, backend, plan, snapshot, tune)


class Program:
    """A compiled graph and its state. Calling it with the inputs by name runs one step and returns the outputs by name.

    The state moves all at once at the end of a step: an error leaves it as it was before, an interrupt as it was or as
    it is after the step. Outputs are the caller's own. One call runs at a time; other threads wait, and a call inside
    of a call, from a signal handler, is an error. A process may fork at any moment: the child has the state as it was
    between two steps, and goes on by itself; but what lies on a GPU is out of its reach.

    On a GPU a call begins its step and returns: the outputs are arrays there (see GpuArray), and whoever looks at one
    of them, or at the state, waits for it. An input that is wrong is the error of its own call all the same. Where an
    index may lie out of range, such as a label that lies on the GPU already, the call waits until that is known.
    """

    def __init__(
        self,
        source: Graph,
        state: State,
        backend: str,
        plan: Callable[[Mapping[str, np.ndarray]], Optimized],
        snapshot: bool = False,
        tune: bool = False,
    ):
        self.source, self.state, self.snapshot, self._tune = source, state, snapshot, tune
        self.created = complete(source, state)
        self._asked, self._optimize = backend, plan
        self._turn = Turn()  # busy while a call runs
        self._prepare(state.copy())

    def _prepare(self, state: State) -> None:
        """Optimize the graph for this state, and compute what is frozen."""
        self._whole = False
        self.optimized = self._optimize(state)
        self.graph = self.optimized.graph
        self.backend, ready, self._why = choose(self._asked, self.graph)
        expect(
            not self._tune or self.backend == "c", "tune=True is for kernels in C, and this runs on {}", self.backend
        )
        self._prologue, rest = split(ready)
        early = [value.name for value in self._prologue.values]
        self._there: OnGpu | None = None
        self._executable: Executable | ExecutableOnGpu | references.Executable
        if self.backend == "cupy":
            from minigraph.driver.on_gpu import OnGpu

            self._there = OnGpu(self.source, rest, [*early, *self._fixed_names])
            self._executable = self._there.executable
        else:
            self._executable = Executable(rest, early) if self.backend == "c" else references.Executable(rest)
        self._to_tune = (rest, early) if self._tune else None
        self._moves = [old.name for old in rest.updates]
        self._symbols: dict[tuple[tuple[int, ...], ...], dict[str, int]] = {}  # by the shapes of all inputs
        self._compute(state)

    def _compute(self, state: State) -> None:
        self._whole = False
        self._early = self._prologue.run(state)
        names = {*self._prologue.reads, *(name for fact in self.optimized.facts for name in fact.reads)}
        self._seen = {name: state.held(name) for name in names}
        self._fixed = {name: state[name] for name in self._fixed_names}
        self._computed, self._version = object(), state.version
        self._whole = True

    @property
    def _fixed_names(self) -> list[str]:
        """The state that stays as it was at first."""
        return [v.name for v in self.source.state if v.value not in self.source.updates] if self.snapshot else []

    def refresh(self) -> None:
        """Compute anew what was computed once from the state. Calls do this by themselves if the state has moved on.

        Where the optimized graph rests on what the numbers were and no longer are, the graph is optimized anew.
        """
        self._alone(lambda: self._refresh(self.state.copy()))

    def _refresh(self, state: State) -> None:
        if self._whole and all(fact.holds(state) for fact in self.optimized.facts):
            self._compute(state)
        else:
            self._prepare(state)

    @property
    def report(self) -> str:
        """What was compiled, on what, what each pass did and why not more, and what was added to the state."""
        once = len(self._prologue.nodes)
        lines = [f"{self.graph!r} on {self.backend}" + (f", {once} of them computed once" if once else "")]
        if self._why:
            lines.append(self._why)
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

    @property
    def plan(self) -> Plan:
        """What the last call computed in which order, and where each value lay. Its `str` is a table.

        Raises GraphError before the first call, whose sizes it is made for, and where NumPy computes node by node.
        """
        if isinstance(self._executable, references.Executable):
            raise GraphError("there is no plan: NumPy computes node by node")
        if self._executable.plan is None:
            raise GraphError("the plan is made for the sizes of the inputs: call the program first")
        return self._executable.plan

    def __call__(self, /, **inputs: Any) -> dict[str, Any]:
        return self._alone(lambda: self._call(inputs))

    def _alone(self, work: Callable[[], T]) -> T:
        """What `work` returns, into which nothing comes of this program, not even from a signal handler."""
        with self._turn.lock:
            busy = self._turn.busy
            expect(not busy, "a call of {!r} is not over, and another one cannot begin inside of it", self.source.name)
            try:
                self._turn.busy = True
                return work()
            finally:
                self._turn.busy = False

    def _call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if self._there is not None:
            return self._call_on_gpu(self._there, inputs)
        given = arrays_of(self.source.inputs, inputs, self.source.name)
        symbols = self._sizes(given)
        if not self._moves:
            state = self._followed()
            if isinstance(self._executable, references.Executable):
                return self._run_in_numpy(self._executable, symbols, given, state)[0]
            return self._run_in_c(symbols, given, state)
        with self.state.lock:
            self._follow()  # and keeps no copy: nobody but self.state holds what is written over
            if isinstance(self._executable, references.Executable):
                outputs, new = self._run_in_numpy(self._executable, symbols, given, self.state.copy())
                self.state.replace(new)
                return outputs
            return self.state.in_place(self._moves, lambda own: self._run_in_c(symbols, given, own))

    def _run_in_numpy(
        self,
        executable: references.Executable,
        symbols: Mapping[str, int],
        given: Mapping[str, np.ndarray],
        state: State,
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Outputs, and new state."""
        outputs, new, _ = executable.run(symbols, {**given, **self._arrays(state), **self._early})
        return outputs, new

    def _run_in_c(
        self, symbols: Mapping[str, int], given: Mapping[str, np.ndarray], state: State
    ) -> dict[str, np.ndarray]:
        assert isinstance(self._executable, Executable)
        self._version = state.version  # what was copied for this step lies elsewhere, and is otherwise the same
        kept = lambda: {**{v.name: state[v.name] for v in self.graph.state}, **self._fixed, **self._early}
        try:
            if self._to_tune is not None:
                self._executable, self._to_tune = tuned(*self._to_tune, symbols, given, kept()), None
            return self._executable.step(symbols, given, kept, (state.version, self._computed))
        except WrongInput as error:
            sentence = str(error)
        everything = {**given, **self._arrays(state)}
        references.Executable(self.graph).run(symbols, everything)  # raises what says where it is wrong
        raise WrongInput(sentence)

    def _call_on_gpu(self, there: OnGpu, inputs: Mapping[str, Any]) -> dict[str, Any]:
        given = there.given(inputs)
        symbols = self._sizes(given)
        with self.state.lock:
            there = self._settled()
            if not self._moves:
                return self._run_on_gpu(there, symbols, given, self.state)
            return self.state.in_place(self._moves, lambda own: self._run_on_gpu(there, symbols, given, own))

    def _settled(self) -> OnGpu:
        """What runs on the GPU, with the state in its place there."""
        self._followed()
        there = self._there  # after that: it may be another one
        assert there is not None
        there.settle(self.state)
        return there

    def _run_on_gpu(
        self, there: OnGpu, symbols: Mapping[str, int], given: Mapping[str, Given], state: State
    ) -> dict[str, Any]:
        call = self._call_of(there, symbols, given)
        return self._explained(there, call, state, lambda: there.executable.step(call))

    def _call_of(self, there: OnGpu, symbols: Mapping[str, int], given: Mapping[str, Given]) -> Call:
        return there.call(symbols, given, lambda: {**self._fixed, **self._early}, self._computed)

    def _explained(self, there: OnGpu, call: Call, state: State, work: Callable[[], T]) -> T:
        """What `work` returns. Where it finds an input wrong, the references say where."""
        self._version = state.version  # what was brought to the GPU for this step is otherwise the same
        try:
            return work()
        except WrongInput as error:
            sentence = str(error)
        everything = {**there.fetched(call.inputs), **self._arrays(state)}
        references.Executable(self.graph).run(call.symbols, everything)  # raises what says where it is wrong
        raise WrongInput(sentence)

    def _followed(self) -> State:
        """The state as it is now, held against the graph. What was computed from other numbers is computed anew."""
        with self.state.lock:
            if self.backend == "c" and self.state.version is not self._version:
                self.state.come_home()  # where its arrays have addresses
            state = self.state.copy()
        if state.version is not self._version or not self._whole:
            self._check(state)
            moved = not self.snapshot and any(state.held(name) is not array for name, array in self._seen.items())
            if moved or not self._whole:  # the second where an interrupt came into a refresh
                self._refresh(state)
            self._version = state.version
        return state

    def _follow(self) -> None:
        """The same, for who works on the state itself and holds its lock."""
        if self.state.version is not self._version or not self._whole:
            self._followed()

    def export(self, folder: str | os.PathLike[str], /, **sizes: int) -> Path:
        """Write the program, compiled for this machine, to a folder that needs neither a compiler nor Python; its path.

        It has the C source, a header, the weights as they are now, and a library, for `load_program` and for programs
        in C, whose names begin with that of the folder: see program.h in it. sizes: of all symbols, N=64; a batch may
        be smaller when the program runs, if program.h says so. A folder is written whole or not at all; one that is
        there is replaced if it is an export, too. Raises GraphError where there is no compiler, or an op that only
        NumPy has, and inside of a call.
        """
        return self._alone(lambda: self._export(folder, sizes))

    def _export(self, folder: str | os.PathLike[str], sizes: Mapping[str, int]) -> Path:
        from minigraph.backends.c.export import export  # here: few programs are written to a folder

        state = self._followed()
        _, ready, _ = choose("c", self.graph)
        prologue, rest = split(ready)
        early = prologue.run(state)
        return export(folder, self.graph, Executable(rest, early), sizes, {**self._arrays(state), **early})

    def profile(self, /, repeats: int = 10, **inputs: Any) -> Profile:
        """Where the time goes, for these inputs: of each step of the plan, and of each layer. Its `str` is a table.

        Each time is the least of so many runs. The state does not move: the runs are on a copy of it. On the backend
        numpy a row is a node; on cupy there are rows of the kernels, too.
        Raises GraphError as a call does, and for less than one run.
        """
        repeats = whole(repeats, "the number of runs", 1)
        return self._alone(lambda: self._profile(repeats, inputs))

    def _profile(self, repeats: int, inputs: Mapping[str, Any]) -> Profile:
        if self._there is not None:
            return self._profile_on_gpu(self._there, repeats, inputs)
        given = arrays_of(self.source.inputs, inputs, self.source.name)
        symbols = self._sizes(given)
        state = self._followed()
        if isinstance(self._executable, references.Executable):
            arrays = {**given, **self._arrays(state), **self._early}
            nodes = measure_nodes(self._executable.graph, symbols, arrays, repeats)
            return profile_of_nodes(self.graph, symbols, nodes, repeats)
        own = State(state)  # new arrays
        self._run_in_c(symbols, given, own)  # raises what says where an input is wrong
        kept = {**own, **self._fixed, **self._early}
        assert isinstance(self._executable, Executable)
        steps = measure_steps(self._executable, symbols, given, kept, repeats)
        return profile_of_steps(self.graph, symbols, steps, repeats, peak())

    def _profile_on_gpu(self, there: OnGpu, repeats: int, inputs: Mapping[str, Any]) -> Profile:
        given = there.given(inputs)
        symbols = self._sizes(given)
        with self.state.lock:
            there = self._settled()
            call = self._call_of(there, symbols, given)
            times = self._explained(there, call, self.state, lambda: there.measured(call, repeats))
        return there.profile(self.graph, call, times, repeats)

    def put(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Data of many samples, by the names of inputs, where batches are taken from them fastest: on the GPU.

        They go there, as `GpuArray`s in the dtypes of the inputs, if all of them take no more than half of the memory
        that is free, which is best asked after a first step. Else, and on other backends, they are what they were.
        `fit` calls this by itself. Arrays of other libraries on the GPU are copied, so that nobody else writes to them.
        Raises GraphError for what does not fit the dtype of its input.
        """
        return self._alone(lambda: self._put(data))

    def _put(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return dict(data) if self._there is None else self._there.put(data)

    def values(self, names: Sequence[str], /, **inputs: Any) -> dict[str, np.ndarray]:
        """Values between inputs and outputs for these inputs, by their names in the graph as it was given.

        The state does not move.
        """
        expect(not isinstance(names, str), "values takes a list of names, not {!r}", names)
        for name in names:
            self.source.value(name)
        with self._turn.lock:
            symbols, arrays = self._given(inputs)
            return references.Executable(self.source, names).run(symbols, arrays)[2]

    def first_not_finite(self, /, **inputs: Any) -> str | None:
        """Where NaN or infinity first appears for these inputs.

        An input, a state, or a node with its line. None if nowhere.
        """
        with self._turn.lock:
            symbols, arrays = self._given(inputs)
            graph = self.source.bind(**symbols)
        return first_not_finite(graph, arrays)

    def _given(self, inputs: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, np.ndarray]]:
        """The sizes of symbols, and all arrays by name: inputs in their dtypes, and the state."""
        if self._there is not None:
            given = self._there.fetched(self._there.given(inputs))
        else:
            given = arrays_of(self.source.inputs, inputs, self.source.name)
        return solve(self.source.inputs, given), {**given, **self._arrays(self.state.copy())}

    def _sizes(self, given: Mapping[str, Given]) -> dict[str, int]:
        """The sizes of symbols. What is compiled for any batch does not check them: this does, once for each."""
        shapes = tuple(array.shape for array in given.values())
        if shapes not in self._symbols:
            symbols = solve(self.source.inputs, given)
            if self.backend != "numpy" and symbols:
                self.graph.bind(**symbols)
            if len(self._symbols) >= SIZES:
                self._symbols.clear()
            self._symbols[shapes] = symbols
        return self._symbols[shapes]

    def _arrays(self, state: State) -> dict[str, np.ndarray]:
        """The state by name, in the shapes and dtypes that the graph declares."""
        self._check(state)
        return {**{variable.name: state[variable.name] for variable in self.source.state}, **self._fixed}

    def _check(self, state: State) -> None:
        """Raise GraphError for a state that is not as the graph declares it."""
        for variable in self.source.state:
            expect(variable.name in state, "the state no longer has {!r}", variable.name)
            found = type_of(state.held(variable.name))
            expect(found == variable.value.type, "state {} has become {}", variable.value, found)

    def __repr__(self) -> str:
        return f"<Program {self.graph.name!r} on {self.backend}>"
