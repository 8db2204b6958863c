"""What an experiment is: claims, arms that are measured, and verdicts that are computed from the measurements.

An arm is a configuration; two arms that a claim compares differ in one thing. Each is measured with several seeds, and
those of one seed begin with the same weights and see the same batches. A claim compares one number of two arms, seed
by seed, and has a margin. The rule is the same for all:

    holds            the first arm is ahead by the margin or more, in every seed
    does not hold    it is behind by the margin or more, in every seed
    undecided        anything else: a difference smaller than the margin, or seeds that disagree

So with the two arms swapped what holds does not hold, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import minigraph as mg

from .data import Data

Measurement = Mapping[str, Any]  # numbers, strings and lists of them: what JSON keeps
Records = Mapping[str, Sequence[Measurement]]  # by arm, one of each seed

LEAST_SEEDS = 3
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"


@dataclass(frozen=True)
class At:
    """How large a run is: the data, and "tiny" (a test's), "quick" or "full"."""

    size: str
    data: Data

    def of(self, tiny: Any, quick: Any, full: Any) -> Any:
        return {"tiny": tiny, "quick": quick, "full": full}[self.size]


@dataclass(frozen=True)
class Claim:
    """`says`, a sentence, on the number that `score` takes of a measurement: the arm `first` is ahead of `second`.

    less: ahead means smaller. unit: of the number, as it is printed. margin: what counts as ahead, a difference in that
    unit, or, with times=True, a factor above 1 (scores are above 0 then).
    """

    says: str
    first: str
    second: str
    score: Callable[[Measurement], float]
    margin: float
    unit: str
    less: bool = False
    times: bool = False

    def leads(self, records: Records) -> np.ndarray:
        """By how much the first arm is ahead, for each seed: as a difference, or as a factor."""
        ours, theirs = (np.array([self.score(m) for m in records[arm]], float) for arm in (self.first, self.second))
        if len(ours) != len(theirs) or len(ours) < LEAST_SEEDS:
            raise mg.GraphError(f"a claim needs both arms with {LEAST_SEEDS} seeds, not {len(ours)} and {len(theirs)}")
        if not np.isfinite([ours, theirs]).all():
            raise mg.GraphError(f"what is compared is finite, not {ours} and {theirs}")
        ahead, behind = (theirs, ours) if self.less else (ours, theirs)
        return ahead / behind if self.times else ahead - behind


@dataclass(frozen=True)
class Verdict:
    word: str  # HOLDS, FAILS or UNDECIDED
    line: str  # with the numbers it was computed from


def judge(claim: Claim, records: Records) -> Verdict:
    """The rule of this module's docstring."""
    leads = claim.leads(records)
    ahead, behind = leads >= claim.margin, leads <= (1 / claim.margin if claim.times else -claim.margin)
    word = HOLDS if ahead.all() else FAILS if behind.all() else UNDECIDED
    medians = [float(np.median([claim.score(m) for m in records[arm]])) for arm in (claim.first, claim.second)]
    spread = f"{number(leads.min())} to {number(leads.max())}"
    lead = f"{spread} times {'less' if claim.less else 'more'}" if claim.times else f"ahead by {spread}"
    margin = f"{number(claim.margin)}{' times' if claim.times else ''}"
    return Verdict(
        word,
        f"{claim.first}: {number(medians[0])}, {claim.second}: {number(medians[1])} {claim.unit} (medians);"
        f" {lead} in {len(leads)} seeds, and the margin is {margin}",
    )


def swapped(claim: Claim, records: Records) -> Records:
    """The negative control: each of the claim's two arms with the other's measurements."""
    return {**records, claim.first: records[claim.second], claim.second: records[claim.first]}


@dataclass(frozen=True)
class Experiment:
    """name: of its file. measure(seed, at): a measurement of each arm. draw(records): the figure.

    setting(at): what was the same in all arms, as a sentence.
    """

    name: str
    title: str
    source: str
    claims: Sequence[Claim]
    measure: Callable[[int, At], Mapping[str, Measurement]]
    draw: Callable[[Records], Figure]
    setting: Callable[[At], str]

    def run(self, seeds: Sequence[int], at: At) -> Records:
        each = [self.measure(seed, at) for seed in seeds]
        return {arm: [measured[arm] for measured in each] for arm in each[0]}

    def fits(self, records: Records) -> bool:
        """Whether these are measurements of all arms that the claims compare: those of another version may not be."""
        return {arm for claim in self.claims for arm in (claim.first, claim.second)} <= set(records)

    def verdicts(self, records: Records) -> list[Verdict]:
        return [judge(claim, records) for claim in self.claims]


def number(x: float) -> str:
    """Three digits: 0.0123, 4.57, 120, 3.2e-07."""
    if x == 0 or 1e-3 <= abs(x) < 1e5:
        return f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"
    return f"{x:.1e}"
