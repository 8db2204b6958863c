"""Is a rewritten graph the same function as the one before? For a user's passes as for ours.

    report = verify(before, after)

Both graphs are run in float64 at their real shapes, on random inputs and state: what differs there beyond rounding is
refuted. Then they are proved equal as formulas, as circuits are (combinational equivalence with cut points): values
with one value number are equal by construction; an inner value that agrees in float64 with one of the graph before is
claimed to be equal, and the claim is proved in exact numbers, with the values nearest below that are known to be equal
in the place of inputs. Once proved, both have one number, and the next claim ends there. So a proof runs site by site,
at shapes made small, however large the network is.

What exact numbers say holds for formulas, and not for what machine numbers round them to: a detour through float16 is
the same formula.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from minigraph.core import proof, trial
from minigraph.core.collector import paused
from minigraph.core.errors import GraphError, expect
from minigraph.core.exact import Outside
from minigraph.core.ir import Graph, Type, Value, needed
from minigraph.core.numbering import Cone, Numbering, alike, cone, site
from minigraph.core.rounding import Pair
from minigraph.core.shrink import cost
from minigraph.core.sites import Outcome, prove

MANY = 400  # nodes in a cone that is still worth a try
MORE = 24  # trials where something could not be proved, in so many operations and with these deviations of the inputs
MORE_OPERATIONS = 10**10
MORE_SCALES = (1.0, 8.0, 0.1)
TRIALS = ((trial.BATCH, 1.0), (trial.BATCH + 2, 8.0))  # sizes of the batch, and deviations of the inputs


@dataclass(frozen=True)
class Proved:
    """A value of `after` that was proved to be one of `before`: in which numbers, and at which shapes of what it reads.

    shrunken: whether these are smaller than the graph's.
    """

    name: str
    numbers: str
    shapes: tuple[str, ...]
    shrunken: bool

    def __str__(self) -> str:
        smaller = ", made smaller" if self.shrunken else ""
        return f"{self.name}: in {self.numbers}, of {', '.join(self.shapes) or 'constants'}{smaller}"


SITES_TOLD = 5  # in a report; `proved` has all of them


@dataclass(frozen=True)
class Checked:
    """A value that agrees in float64 and could not be proved, and why."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


@dataclass(frozen=True)
class Verification:
    """What `verify` found. True unless the graphs differ.

    why: what differs, as a sentence; "" if nothing was found.
    proved, checked: the sites at which the graphs are not the same by construction.
    difference, at, allowed: the largest difference of outputs and updates in float64, as a part of the largest number
        of its tensor; which this is; and what it may be there: 1e-9, or more where rounding itself moves a result by
        more.
    sizes: what the symbols stood for.
    """

    same: bool
    why: str = ""
    proved: tuple[Proved, ...] = ()
    checked: tuple[Checked, ...] = ()
    difference: float = 0.0
    at: str = ""
    allowed: float = trial.Tolerance.RELATIVE
    sizes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.same

    def __str__(self) -> str:
        if not self.same:
            return f"not the same function: {self.why}"
        if not self.at:
            return "the same function: both graphs compute the same by construction; nothing had to be proved"
        lines = ["the same function, as far as float64 shows:" if self.checked else "the same function:"]
        lines.append(f"  {_count(len(self.proved), 'site')} proved in exact numbers")
        lines += [f"    {site}" for site in self.proved[:SITES_TOLD]]
        if len(self.proved) > SITES_TOLD:
            lines.append(f"    and {len(self.proved) - SITES_TOLD} more")
        if self.checked:
            lines.append(f"  {_count(len(self.checked), 'site')} only checked in float64")
            lines += [f"    {site}" for site in self.checked]
        with_sizes = f" (with {'; then with '.join(self.sizes)})" if any(self.sizes) else ""
        lines.append(
            f"  run in float64{with_sizes}, outputs and updates differ by at most {self.difference:.1e} of the largest "
            f"number of a tensor, at {self.at!r}; {self.allowed:.0e} is allowed"
        )
        return "\n".join(lines)


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


@paused()
def verify(
    before: Graph,
    after: Graph,
    state: Mapping[str, np.ndarray] | None = None,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Verification:
    """Whether `after` computes what `before` does: the same outputs and updates from the same inputs and state.

    state: numbers to run with in float64, instead of random ones; the question is then about this state. What an
        optimizer would add to it is drawn.
    sizes: what symbols stand for, {"N": 3}. By default small numbers with which all shapes fit.
    seed: of the random numbers; with one seed, one answer.

    The graphs may differ in everything but the names and types of inputs, outputs and updates; state that `after` does
    not read may be missing in it. Raises GraphError for what is no graph, and where no sizes are found that fit.
    """
    for graph in (before, after):
        expect(isinstance(graph, Graph), "verify takes two graphs, not a {}", type(graph).__name__)
        graph.check()
    why = interface(before, after)
    if why:
        return Verification(False, why)
    numbering = Numbering()
    one, other = numbering.all(before), numbering.all(after)
    ends = proof.results(after)
    if all(one[value] == other[ends[name]] for name, value in proof.results(before).items()):
        return Verification(True)
    return _compared(before, after, state or {}, sizes or {}, seed)


def interface(before: Graph, after: Graph) -> str:
    """What differs in inputs, state, outputs and updates, by name and type, as a sentence; "" where nothing does."""
    types = lambda values: {value.name: value.type for value in values}
    named = lambda values: {name: value.type for name, value in values.items()}
    states, left = (types(variable.value for variable in graph.state) for graph in (before, after))
    moved, moving = (types(graph.updates) for graph in (before, after))
    return (
        _unlike("input", types(before.inputs), types(after.inputs))
        or _unlike("state", {name: states[name] for name in left if name in states}, left)
        or _unlike("output", named(before.outputs), named(after.outputs))
        or _unlike("update of state", moved, moving)
    )


def _unlike(what: str, before: Mapping[str, Type], after: Mapping[str, Type]) -> str:
    for name in [*before, *after]:
        if name not in after:
            return f"the {what} {name!r} is missing after"
        if name not in before:
            return f"the {what} {name!r} is new after"
        if before[name] != after[name]:
            return f"the {what} {name!r} is {before[name]} before and {after[name]} after"
    return ""


def _compared(
    before: Graph, after: Graph, state: Mapping[str, np.ndarray], sizes: Mapping[str, int], seed: int
) -> Verification:
    """The trials in float64, and the proofs if they agree. With a second size, a number that stands for one is seen."""
    runs: list[_Run] = []
    for number, (least, scale) in enumerate(TRIALS):
        one, found = trial.bound(before, sizes, least)
        text = trial.symbols_text(found)
        try:
            other = after.bind(**found)
        except GraphError as error:
            return Verification(False, f"with {text}, the graph after does not fit: {error}")
        runs.append(_Run(one, other, text))
        why = runs[-1].try_out(np.random.default_rng((seed, number)), state, scale, note=number == 0)
        if why:
            return Verification(False, why)
    exact = max(run.worst for run in runs)[2] == trial.Tolerance.RELATIVE
    report = _Proof(runs[0], free=exact and not state).result()
    if report.checked:  # what was not proved is looked at once more
        for number in range(min(MORE, MORE_OPERATIONS // max(1, cost(runs[0].before)))):
            why = runs[0].try_out(np.random.default_rng((seed, len(TRIALS) + number)), state, MORE_SCALES[number % 3])
            if why:
                return Verification(False, why)
    difference, at, allowed = max(run.worst for run in runs)
    sizes_run = tuple(dict.fromkeys(run.sizes for run in runs))
    return replace(report, difference=difference, at=at, allowed=allowed, sizes=sizes_run)


_Results = Mapping[Value, np.ndarray]


class _Run:
    """Both graphs without symbols, and what a run of them in float64 showed."""

    def __init__(self, before: Graph, after: Graph, sizes: str):
        self.before, self.after, self.sizes = trial.counted(before), trial.counted(after), sizes
        self.pair = Pair(self.before, self.after)
        self.prints: dict[Value, tuple[float, float, float]] = {}  # of values of both graphs
        self.worst = 0.0, "", trial.Tolerance.RELATIVE  # difference, of which result, and what is allowed

    def try_out(
        self, rng: np.random.Generator, state: Mapping[str, np.ndarray], scale: float, note: bool = False
    ) -> str:
        """Run both; what differs, as a sentence, or "". `note`: take the fingerprints of all values."""
        one, other = self.pair.one, self.pair.other
        arrays, results = _first_that_runs(one, rng, state, scale, self._watch(one, note))
        try:
            found = other.run(arrays, self._watch(other, note))
        except (GraphError, Outside) as error:
            return f"the graph after cannot be computed: {error}"
        return self._differs(arrays, results, found)

    def _watch(self, wide: trial.Wide, note: bool) -> trial.Seen:
        """Notes the fingerprint of each value while a graph is run in float64."""

        def seen(value: Value, array: np.ndarray) -> np.ndarray:
            if note:
                self.prints[wide.given[value]] = trial.fingerprint(array)
            return array

        return seen

    def _differs(self, arrays: Mapping[str, np.ndarray], results: _Results, found: _Results) -> str:
        """Which result differs beyond rounding, as a sentence, or ""."""
        moved: Mapping[str, float] = {}
        for name, off in self.pair.differences(results, found):
            allowed = trial.Tolerance.RELATIVE
            if off > allowed:
                moved = moved or self.pair.allowed(arrays, results, found)
                allowed = moved[name]
            if off > allowed:
                sizes = f" with {self.sizes}" if self.sizes else ""
                return (
                    f"{name!r} differs by {off:.1e} of its largest number, in float64{sizes}; {allowed:.1e} is allowed"
                )
            self.worst = max(self.worst, (off, name, allowed))
        return ""


def _first_that_runs(
    wide: trial.Wide, rng: np.random.Generator, state: Mapping[str, np.ndarray], scale: float, seen: trial.Seen
) -> tuple[dict[str, np.ndarray], dict[Value, np.ndarray]]:
    """Arrays on which a graph can be run, and its results: labels may have to be smaller than was thought."""
    below: int | None
    for below in (None, 2, 1):
        arrays = trial.draw(wide.graph, rng, state, scale, below)
        try:
            return arrays, wide.run(arrays, seen)
        except (GraphError, Outside) as error:
            failed = error
    raise GraphError(f"{wide.graph.name!r} could not be run in float64: {failed}")


class _Proof:
    """The claims about one pair of graphs, in the order of the graph after.

    free: whether a difference in exact numbers, on any state, counts; it does not where the question is about one
        state, or where the graphs agree as far as rounding goes and no further.
    """

    def __init__(self, run: _Run, free: bool):
        self.before, self.after, self.free = run.before, run.after, free
        self.prints, self.constants = run.prints, run.pair.constants
        self.numbering = Numbering()
        self.old = self.numbering.all(run.before)
        self.fresh = len(self.numbering.formulas)  # numbers from here on are formulas that only `after` has
        self.shared: set[int] = set()  # numbers of values of both graphs
        self.resolved: dict[int, int] = {}  # a number of `after` -> the one of `before` that it was found to be
        self.proved: list[Proved] = []
        self.checked: list[Checked] = []
        self._outcomes: dict[object, Outcome] = {}  # of sites that look alike
        self._named: dict[str, Value] = {}
        self._printed: dict[object, Value] = {}
        for node in run.before.nodes:
            for value in node.outputs:
                self._named.setdefault(value.name, value)
                self._printed.setdefault(self._key(value), value)

    def result(self) -> Verification:
        """What was proved and what was not; or what was refuted."""
        new = self.numbering.given(self.after)
        self.shared.update(new.values())
        nodes, _ = needed(self.after.nodes, proof.results(self.after).values())
        for node in nodes:
            numbers, _ = self.numbering.node(node, tuple([new[v] for v in node.inputs]))
            for value, number in zip(node.outputs, numbers):
                new[value] = self._resolve(value, number)
                if new[value] < self.fresh:
                    self.shared.add(new[value])
        ends = proof.results(self.after)
        for name, value in proof.results(self.before).items():
            one, other = self.old[value], new[ends[name]]
            if one != other:
                outcome = self._decide(name, one, other)
                if outcome.false:
                    return Verification(False, f"{name!r} differs: {outcome.why}")
                self._note(name, outcome)
        return Verification(True, proved=tuple(self.proved), checked=tuple(self.checked))

    def _resolve(self, value: Value, number: int) -> int:
        """The number of `before` that a value of `after` has, or its own."""
        if number < self.fresh:
            return number
        if number not in self.resolved:
            self.resolved[number] = self._claim(value, number)
        return self.resolved[number]

    def _claim(self, value: Value, number: int) -> int:
        twin, _ = self.constants.get(value, (None, None))
        if twin is not None and twin.type == value.type:
            self.proved.append(Proved(value.name, f"numbers rounded to {value.type.dtype}", (), False))
            return self.old[twin]
        named, printed = self._named.get(value.name), self._printed.get(self._key(value))
        if named is not None and named.type == value.type and self._agree(named, value):
            outcome = self._decide(value.name, self.old[named], number)
            if not outcome.false:
                self._note(value.name, outcome)
                return self.old[named]
        elif printed is not None and self._agree(printed, value):
            outcome = self._decide(value.name, self.old[printed], number)
            if outcome.proved:
                self._note(value.name, outcome)
                return self.old[printed]
        return number

    def _note(self, name: str, outcome: Outcome) -> None:
        if outcome.proved:
            shapes = tuple(trial.shape_text(value) for value in outcome.inputs)
            self.proved.append(Proved(name, outcome.numbers, shapes, outcome.shrunken))
        else:
            self.checked.append(Checked(name, outcome.why))

    def _key(self, value: Value) -> object:
        """By which values that agree are found, if they are of any size."""
        size, first, _ = self.prints.get(value, (0.0, 0.0, 0.0))
        return (value.type, f"{size:.6e}", f"{first:.4e}") if 0 < size < math.inf else value

    def _agree(self, one: Value, other: Value) -> bool:
        return trial.agree(self.prints[one], self.prints[other])

    def _decide(self, name: str, one: int, other: int) -> Outcome:
        """Whether two numbers are equal, from cones that reach further and further down.

        Where they differ if some numbers are equal, a longer cone makes such numbers rarer, and proves nothing.
        """
        why, ties = "", False
        pairs = list(self._cones(one, other))
        for thorough, (before, after) in itertools.product((False, True), pairs):
            whole = all(self.numbering.formulas[n].node is None for n in before.cuts | after.cuts)
            outcome = self._compare(before, after, thorough, whole)
            ties = ties or outcome.ties
            if outcome.false or (outcome.proved and not ties):
                return outcome
            why = outcome.why if thorough and not why else why
        return Outcome(why=why or "the part of the graph that it would have to be proved with is too large")

    def _cones(self, one: int, other: int) -> Iterator[tuple[Cone, Cone]]:
        """Pairs of cones that reach further and further down.

        To the nearest values of both graphs; to those at which both sides are cut; one step further; to the inputs.
        """
        opened: set[int] = set()
        seen: set[tuple[Cone, Cone]] = set()

        def pair() -> tuple[Cone, Cone]:
            cut = lambda n: n in self.shared and n not in opened and not self._scalar(n)
            return cone(self.numbering, one, cut), cone(self.numbering, other, cut)

        def fits(cones: tuple[Cone, Cone]) -> bool:
            known = cones in seen
            seen.add(cones)
            return not known and len(cones[0].inner) + len(cones[1].inner) <= MANY

        cones = pair()
        if fits(cones):
            yield cones
        for _ in range(16):
            uneven = {n for n in cones[0].cuts ^ cones[1].cuts if self.numbering.formulas[n].node is not None}
            if not uneven or len(cones[0].inner) > MANY:
                break
            opened |= uneven
            cones = pair()
        if fits(cones):
            yield cones
        opened |= cones[0].cuts | cones[1].cuts
        cones = pair()
        if fits(cones):
            yield cones
        cones = cone(self.numbering, one, lambda n: False), cone(self.numbering, other, lambda n: False)
        if fits(cones):
            yield cones

    def _scalar(self, number: int) -> bool:
        """Whether it is one known number, whose value a proof may need."""
        formula = self.numbering.formulas[number]
        return formula.constant and formula.value.type.size == 1

    def _compare(self, before: Cone, after: Cone, thorough: bool, whole: bool) -> Outcome:
        one, other, leaves = site(self.numbering, before, after)
        positive = frozenset(name for name, number in leaves.items() if self.numbering.positive(number))
        key = alike((one, other)), tuple(v.name in positive for v in one.inputs), thorough, whole
        if key not in self._outcomes:
            self._outcomes[key] = prove(one, other, positive, thorough, whole and self.free)
        outcome = self._outcomes[key]
        # of sites that look alike, each with the names that it has
        inputs = tuple(Value(small.type, v.name) for small, v in zip(outcome.inputs, one.inputs))
        return replace(outcome, inputs=inputs)
