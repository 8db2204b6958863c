"""Proofs of sites: that two small graphs of the same inputs give the same answer, at small shapes, in exact numbers.

A proof is tried in the cheapest way first: one run modulo a prime, in which a square root is an unknown function. Where
that does not do, roots are roots, and where there is an order, numbers are fractions: drawn several times, small and
large, and from so few that some are equal.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from minigraph.core import proof, trial
from minigraph.core.dtypes import FLOATS
from minigraph.core.errors import GraphError
from minigraph.core.exact import Modular, Number, Outside, Rational, Unknown
from minigraph.core.ir import Graph, Value
from minigraph.core.op import Literal, Sample
from minigraph.core.rounding import Pair
from minigraph.core.scalar import Scalar, var
from minigraph.core.shrink import cost, shrunken

BUDGET = 100_000  # operations of one run in exact numbers, at about 2 µs: a fifth of a second
REPEATED = 6_000  # where a proof takes many runs, or fractions, which are ten times slower
HIDDEN = 16.0  # ops that are no expressions may compare with numbers up to this
TIES = "they differ where some numbers are equal"


class Opaque(Modular):
    """Modular numbers in which a square root is an unknown function, too: one exists for each number.

    What is equal for any function in its place is equal for the root.
    """

    __slots__ = ()

    def _root(self) -> int:
        return int(self._unknown("sqrt"))


class Coarse(Rational):
    """Fractions that are drawn from a few: some are equal, some are 0, and some lie on a threshold."""

    __slots__ = ()

    @classmethod
    def draw(cls, world: Unknown, low: float, high: float) -> Fraction:
        return Fraction(low) + Fraction(high - low) * Fraction(world.random.randrange(17), 16)


KINDS = {Opaque: "numbers modulo 2^61 - 1", Modular: "numbers modulo 2^61 - 1", Rational: "fractions"}


@dataclass(frozen=True)
class Outcome:
    """What came of a claim: a proof, in these numbers and with these inputs, a counterexample, or neither, and why."""

    numbers: str = ""
    inputs: tuple[Value, ...] = ()
    shrunken: bool = False
    false: bool = False
    ties: bool = False  # a counterexample was found, but only among numbers of which some are equal
    why: str = ""

    @property
    def proved(self) -> bool:
        return bool(self.numbers)


def prove(before: Graph, after: Graph, positive: Iterable[str], thorough: bool, refutable: bool) -> Outcome:
    """Whether two graphs of the same inputs give the same "y", whatever the inputs are; `positive` ones are above 0.

    thorough: not in one run, in which roots are unknown and there is no order, but in many, at smaller shapes.
    refutable: whether a counterexample at the real shapes counts, if it is one in float64 as well: exact numbers also
        tell 0.1 * 0.3 from the constant 0.03.
    """
    if not thorough and (_discrete(before) or _discrete(after)):
        return Outcome()
    why, ties = "", False
    positive = frozenset(positive)
    for pair in itertools.islice(shrunken(before, after, REPEATED if thorough else BUDGET), 3):
        shapes = ", ".join(trial.shape_text(value) for value in pair[0].inputs)
        real = pair[0] is before
        try:
            kind = _in_many(*pair, positive) if thorough else _in_one(*pair, positive)
        except proof.Refuted as error:
            if thorough and real and refutable and _differ(before, after, positive):
                return Outcome(false=True, why=f"in exact numbers and in float64, of {shapes}")
            ties = ties or str(error) == TIES
            equal = " and some of them are equal" if str(error) == TIES else ""
            why = why or f"exact numbers differ where {shapes} are free to be anything{equal}"
        except (GraphError, Outside) as error:
            why = why or f"exact numbers cannot compute it: {str(error).splitlines()[0]}"
        else:
            return Outcome(KINDS[kind], pair[0].inputs, not real)
    operations = cost(before) + cost(after)
    return Outcome(
        ties=ties, why=why or f"it takes {operations:,} operations, and no smaller shapes were found that fit"
    )


def _discrete(graph: Graph) -> bool:
    """Whether floats are compared in it, or become whole numbers."""
    floats = ((any(v.type.is_float for v in node.inputs), node.outputs) for node in graph.nodes)
    return any(read and not v.type.is_float for read, made in floats for v in made)


def _in_one(before: Graph, after: Graph, positive: frozenset[str]) -> type[Number]:
    """Prove with roots that are unknown functions and without order, in one draw."""
    return proof.prove_same(before, after, _samples(before, after, positive), ((Opaque, _draws(before)),))


def _in_many(before: Graph, after: Graph, positive: frozenset[str]) -> type[Number]:
    """Prove with roots that are roots, or with numbers in an order; and what is discrete with ties among them."""
    samples, ordered = _samples(before, after, positive), False
    try:
        proof.prove_same(before, after, samples, ((Modular, _draws(before)),))
    except GraphError:
        ordered = True
    if ordered:
        for ranges in _ranges(samples, _scales(before, after)):
            proof.prove_same(before, after, ranges, ((Rational, proof.ORDERED_DRAWS),))
    if ordered or _discrete(before) or _discrete(after):
        try:
            proof.prove_same(before, after, samples, ((Coarse, proof.ORDERED_DRAWS),))
        except proof.Refuted:
            raise proof.Refuted(TIES) from None
    return Rational if ordered else Modular


def _draws(graph: Graph) -> int:
    """How many draws show all cases where there is no order: labels and masks have some."""
    return 1 if all(value.type.is_float for value in graph.inputs) else proof.ORDERED_DRAWS


def _ranges(samples: dict[str, Sample], scales: tuple[float, ...]) -> Iterator[dict[str, Sample]]:
    """The samples; with each input at a scale of its own, twice; and with all at the largest."""
    rng = np.random.default_rng(0)
    for which in (lambda: 0, lambda: rng.integers(len(scales)), lambda: rng.integers(len(scales)), lambda: -1):
        found = {name: (sample, 1.0 if sample.dtype else scales[which()]) for name, sample in samples.items()}
        yield {name: replace(s, low=s.low * scale, high=s.high * scale) for name, (s, scale) in found.items()}


def _samples(before: Graph, after: Graph, positive: frozenset[str]) -> dict[str, Sample]:
    samples = {}
    for value, twin in zip(before.inputs, after.inputs, strict=True):
        shape: tuple[int, ...] = value.type.shape  # type: ignore[assignment]
        if value.type.is_float:
            samples[value.name] = Sample(shape, low=0.1 if value.name in positive else -2.0)
        else:
            high = min(trial.limit(graph, v) for graph, v in ((before, value), (after, twin)))
            samples[value.name] = Sample(shape, value.type.dtype, 0, high)
    return samples


def _scales(*graphs: Graph) -> tuple[float, ...]:
    """How large numbers are drawn where there is an order: some reach beyond every threshold.

    relu6(x / 1000) is relu(x / 1000) up to 6000, which is the largest constant over the smallest.
    """
    found = [1.0, HIDDEN]
    for node in (node for graph in graphs for node in graph.nodes):
        for attribute in node.attrs.values():
            if isinstance(attribute, float):
                found.append(abs(attribute))
            elif isinstance(attribute, Literal) and attribute.array.dtype.name in FLOATS:
                found.extend(np.abs(attribute.array.reshape(-1)[:1000]).tolist())
        if node.op.expression is not None:
            found.extend(_numbers(node.op.expression(*map(var, map(str, range(len(node.inputs)))), **node.attrs)))
    constants = [c for c in found if 1e-12 < c < 1e12]
    reach = max(constants) / min(constants)
    return 1.0, math.sqrt(reach), reach


def _numbers(expression: object) -> Iterator[float]:
    """The sizes of the constants in an expression."""
    if isinstance(expression, Scalar):
        for argument in expression.args:
            if isinstance(argument, (int, float)) and expression.op == "const":
                yield abs(float(argument))
            yield from _numbers(argument)


def _differ(before: Graph, after: Graph, positive: frozenset[str]) -> bool:
    """Whether two graphs differ in float64, beyond rounding, on some of several draws."""
    samples, rng, pair = _samples(before, after, positive), np.random.default_rng(0), Pair(before, after)
    for scale, ties in itertools.product(_scales(before, after) * proof.ORDERED_DRAWS, (False, True)):
        inputs = pair.one.graph.inputs
        arrays = {v.name: proof.concrete(samples[v.name], v.type.dtype, rng) for v in inputs}
        for value in inputs:
            if value.type.is_float and ties and value.name not in positive:
                arrays[value.name] = np.round(4 * arrays[value.name]) / 4
            if value.type.is_float:
                arrays[value.name] = arrays[value.name] * scale
        try:
            results, found = pair.one.run(arrays), pair.other.run(arrays)
        except (GraphError, Outside):
            continue
        ((name, off),) = pair.differences(results, found)
        if off > trial.Tolerance.RELATIVE and off > pair.allowed(arrays, results, found)[name]:
            return True
    return False
