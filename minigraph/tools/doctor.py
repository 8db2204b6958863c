"""The batch-norm doctor: what is wrong with each batch norm of a graph, on one batch, and what to do about it.

A gap between the batch and the running statistics is a finding only if it matters, and if chance does not explain it:
see `score` in norms.py.
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from minigraph.core.errors import expect
from minigraph.core.ir import Graph
from minigraph.core.state import State
from minigraph.core.table import aligned
from minigraph.tools.norms import Measured, measure

# |mean| / deviation from which a channel is mostly offset. Weights and a relu in front make up to 10; from 100 on, a
# variance as E[x^2] - E[x]^2, as other programs compute it, has lost 4 of the 7 digits of float32.
OFFSET = 100.0
# Rounding of what comes in, in deviations, from which it is too coarse, whatever program normalizes it.
COARSE = 0.01
# Variance / eps up to which a channel counts as damped: at 10, its deviation becomes 0.95 in the place of 1.
DAMPED = 10.0
# |gamma| / the layer's largest up to which it is dead: at a thousandth, what comes in is not to be seen behind it.
DEAD_GAMMA = 1e-3
# Normalized numbers are hardly ever larger: where beta is below -4 |gamma|, a relu behind lets nothing through.
REACH = 4.0
# Values for each channel under which batch statistics are mostly noise: at 16 the variance is uncertain by 35 %.
FEW_VALUES = 16
# A gap is more than chance from 5 deviations on. One normal channel of two million has that by itself.
CHANCE = 5.0
# A gap that is no chance, but too small to matter: in the mean (deviations), and in the variance (log of the ratio).
SMALL_SHIFT, SMALL_SPREAD = 0.25, math.log(1.5)
# A gap with which inference is another function than training.
LARGE_SHIFT, LARGE_SPREAD = 1.0, math.log(4.0)
SHOWN_CHANNELS = 6  # of those a finding is about, in its text
WIDTH = 110  # of the text, in letters

PRECISE = "run minigraph.precise_bn(model, state, batches) over the training data"


class Severity(IntEnum):
    NOTE = 0
    WARNING = 1
    SERIOUS = 2


@dataclass(frozen=True)
class Finding:
    """What is wrong with a batch norm, in which channels, and what to do about it.

    kind: "not finite", "never updated", "gap", "offset", "constant", "damped", "dead gamma" or "few values".
    """

    kind: str
    severity: Severity
    channels: tuple[int, ...]
    what: str
    advice: str


@dataclass(frozen=True, eq=False)
class Checkup:
    """A batch norm as it was measured, and what was found, the most serious first."""

    measured: Measured
    findings: tuple[Finding, ...]

    @property
    def name(self) -> str:
        return self.measured.name


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """All batch norms of a graph, in its order. Prints as a table with the findings below, the most serious first."""

    graph: str
    checkups: tuple[Checkup, ...]

    @property
    def healthy(self) -> bool:
        return not any(checkup.findings for checkup in self.checkups)

    def __getitem__(self, name: str) -> Checkup:
        """The checkup of a batch norm, by its name in the table."""
        for checkup in self.checkups:
            if checkup.name == name:
                return checkup
        raise KeyError(f"no batch norm {name!r}; there are {', '.join(checkup.name for checkup in self.checkups)}")

    def __str__(self) -> str:
        ill = sorted((c for c in self.checkups if c.findings), key=lambda c: -c.findings[0].severity)
        count = sum(len(checkup.findings) for checkup in ill)
        title = f"{self.graph}: {_plural(len(self.checkups), 'batch norm')}, {_plural(count, 'finding')}"
        lines = [title, "", *_table([checkup.measured for checkup in self.checkups])]
        for checkup in ill:
            lines += ["", checkup.name]
            for finding in checkup.findings:
                lines += _wrapped(f"  {finding.severity.name.lower()}, {finding.kind}: {finding.what}.")
                lines += _wrapped(f"      {finding.advice[0].upper()}{finding.advice[1:]}.")
        return "\n".join(lines)


def doctor(graph: Graph, state: State, batch: Mapping[str, Any]) -> Diagnosis:
    """Examine every batch norm of a model or a training step on one batch; `print` shows what was found.

    batch: inputs by name, as a Program takes them; those that no batch norm depends on may be left out. It should be as
    large as those of training, and of the same data. The state stays as it is. Raises GraphError if there is no batch
    norm, as in a graph whose batch norms were folded into convolutions, and if the batch has no samples.
    """
    expect(isinstance(graph, Graph), "the doctor needs a Graph, as net.build(...) makes it, not {!r}", graph)
    expect(
        isinstance(batch, Mapping),
        "the batch is a dict from the names of inputs to arrays, not a {}",
        type(batch).__name__,
    )
    checkups = []
    for measured in measure(graph, state, batch):
        findings = sorted(_findings(measured), key=lambda finding: -finding.severity)
        checkups.append(Checkup(measured, tuple(findings)))
    return Diagnosis(graph.name, tuple(checkups))


# judging


def _findings(m: Measured) -> Iterator[Finding]:
    yield from _not_finite(m)
    yield from _never_updated(m) or _gap(m)
    yield from _offset(m)
    yield from _constant(m)
    yield from _damped(m)
    yield from _dead_gamma(m)
    yield from _few_values(m)


def _not_finite(m: Measured) -> list[Finding]:
    if not m.broken.any():
        return []
    wrong = [name for name, array in m.named.items() if not np.isfinite(array).all()]
    what = f"{' and '.join(wrong)} not finite" if wrong else "running variance below 0"
    if not all(name.startswith("running") for name in wrong):
        advice = (
            "Program.first_not_finite says where it begins; go back to an earlier state, with a lower learning rate"
        )
    else:
        advice = f"a running average never gets rid of it: {PRECISE}"
    return [_finding(m, "not finite", Severity.SERIOUS, m.broken, what, advice)]


def _never_updated(m: Measured) -> list[Finding]:
    if m.updated:
        return []
    what = "the running mean is 0 and the running variance 1: they were never updated"
    if m.mode == "frozen":
        advice = "load the statistics that belong to the weights, or train the layer with frozen=False first"
    else:
        advice = f"train, or {PRECISE}, before inference uses them"
    return [_finding(m, "never updated", Severity.SERIOUS, np.ones(m.channels, bool), what, advice)]


def _gap(m: Measured) -> list[Finding]:
    shifted = (m.shift_score > CHANCE) & (np.abs(m.shift) > SMALL_SHIFT)
    spread_out = (m.spread_score > CHANCE) & (np.abs(m.spread) > SMALL_SPREAD)
    sick = (shifted | spread_out) & ~m.constant & ~m.broken  # of a constant channel, chance is not to be told
    if not sick.any():
        return []
    shift, spread = _largest(m.shift[sick]), _largest(m.spread[sick])
    large = abs(shift) > LARGE_SHIFT or abs(spread) > LARGE_SPREAD
    parts = []
    if abs(shift) > SMALL_SHIFT:
        parts.append(f"the mean is up to {abs(shift):.2g} deviations away from the running one")
    if abs(spread) > SMALL_SPREAD:
        parts.append(f"the variance is {'up' if spread > 0 else 'down'} to {_factor(spread):.2g} times the running one")
    what = f"{', '.join(parts)}, which is more than chance"
    advice = f"if the batch is of the data that inference will see, {PRECISE}"
    advice += ", with frozen=False for this layer" if m.mode == "frozen" else "; a larger momentum follows faster"
    return [_finding(m, "gap", Severity.SERIOUS if large else Severity.WARNING, sick, what, advice)]


def _offset(m: Measured) -> list[Finding]:
    with np.errstate(invalid="ignore"):
        coarse = m.offset * m.rounding > COARSE
        sick = ((m.offset > OFFSET) | coarse) & ~m.broken
    if not sick.any():
        return []
    worst, median = float(np.nanmax(m.offset[sick])), float(np.nanmedian(m.offset))
    what = f"|mean| / deviation is up to {worst:,.3g} (the median channel has {median:.2g})"
    if (coarse & sick).any():
        what += f"; rounding alone is {worst * m.rounding:.1%} of a deviation there"
    advice = "center the data, or leave out the bias in front (bias=False): the batch norm takes an offset off again"
    return [_finding(m, "offset", Severity.SERIOUS if (coarse & sick).any() else Severity.WARNING, sick, what, advice)]


def _constant(m: Measured) -> list[Finding]:
    sick = m.constant & ~m.broken
    if not sick.any():
        return []
    what = "what comes in is the same number everywhere: what goes out is "
    what += "a constant" if m.eps else "NaN, since eps is 0"
    advice = "if other batches agree, prune these channels; look in front for weights of 0 and relus that never open"
    return [_finding(m, "constant", Severity.WARNING if m.eps else Severity.SERIOUS, sick, what, advice)]


def _damped(m: Measured) -> list[Finding]:
    sick = (m.over_eps < DAMPED) & ~m.constant & ~m.broken
    if not sick.any():
        return []
    least = float(m.over_eps[sick].min())
    reached = math.sqrt(least / (least + 1))
    what = f"the variance is down to {least:.2g} times eps ({m.eps:g}): the deviation becomes {reached:.2g}, not 1"
    advice = (
        f"lower eps to {least * m.eps / 100:.0e} or less, or make what comes in larger: scale the data, larger weights"
    )
    return [_finding(m, "damped", Severity.WARNING, sick, what, advice)]


def _dead(m: Measured) -> np.ndarray:
    """Channels whose gamma is next to nothing."""
    size = np.abs(m.gamma)
    return size <= DEAD_GAMMA * size.max(initial=0.0, where=np.isfinite(size))


def _dead_gamma(m: Measured) -> list[Finding]:
    sick = _dead(m) & ~m.broken
    if not sick.any():
        return []
    forever = sick & (m.beta <= -REACH * np.abs(m.gamma)) & m.cut
    what = "gamma is next to 0: what goes out is beta, whatever comes in"
    if forever.any():
        what += f"; the relu behind makes 0 of {'it' if forever.all() else f'{forever.sum()} of them'} for good"
    if not m.gamma.any():
        severity = Severity.SERIOUS if forever.all() else Severity.NOTE
        advice = "right before training at the end of a residual block; anywhere else let gamma begin at 1"
    else:
        severity = Severity.WARNING
        advice = "prune these channels (beta goes into what reads them), or set their gamma to 1 to train them again"
    return [_finding(m, "dead gamma", severity, sick, what, advice)]


def _few_values(m: Measured) -> list[Finding]:
    if m.mode == "frozen" or m.values >= FEW_VALUES:
        return []
    mean_noise, var_noise = 1 / math.sqrt(m.values), math.sqrt(2 / m.values)
    what = f"of {_plural(m.values, 'value')} each, the mean is uncertain by {mean_noise:.0%} of a deviation and the "
    what += f"variance by {var_noise:.0%}"
    advice = "train with a larger batch, with frozen=True, or with group_norm, which needs no batch"
    return [_finding(m, "few values", Severity.WARNING, np.ones(m.channels, bool), what, advice)]


def _finding(m: Measured, kind: str, severity: Severity, sick: np.ndarray, what: str, advice: str) -> Finding:
    channels = tuple(int(i) for i in np.flatnonzero(sick))
    return Finding(kind, severity, channels, f"{_named(channels, m.channels)}: {what}", advice)


# words and the table


def _named(channels: Sequence[int], of: int) -> str:
    if len(channels) == of:
        return "all channels" if of > 1 else "its channel"
    shown = ", ".join(map(str, channels[:SHOWN_CHANNELS]))
    more = f", ... ({len(channels)} of {of})" if len(channels) > SHOWN_CHANNELS else ""
    return f"{'channel' if len(channels) == 1 else 'channels'} {shown}{more}"


def _plural(count: int, noun: str) -> str:
    return f"{f'{count:,}' if count else 'no'} {noun}{'' if count == 1 else 's'}"


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * 6, break_long_words=False)


def _largest(numbers: np.ndarray) -> float:
    """The number that is farthest from 0."""
    return float(numbers[np.abs(numbers).argmax()])


def _factor(log: float) -> float:
    """What it is the logarithm of, or the largest number that there is."""
    return math.exp(min(log, math.log(sys.float_info.max)))


def _extreme(numbers: np.ndarray, largest: bool) -> str:
    finite = numbers[~np.isnan(numbers)]
    return "-" if not finite.size else f"{float(finite.max() if largest else finite.min()):.2g}"


def _gap_text(m: Measured) -> str:
    if m.mode == "untracked":
        return "-"
    if not (np.isfinite(m.shift) & np.isfinite(m.spread)).all():
        return "not finite"
    return f"{abs(_largest(m.shift)):.2g} dev, x{_factor(_largest(m.spread)):.2g}"


def _table(rows: Sequence[Measured]) -> list[str]:
    """One line for each batch norm: the name and the mode to the left, numbers to the right."""
    table = [["batch norm", "mode", "channels", "values", "|mean|/dev", "var/eps", "dead gammas", "gap"]]
    for m in rows:
        worst, least = _extreme(m.offset, largest=True), _extreme(m.over_eps, largest=False)
        dead = f"{int(_dead(m).sum()):,}"
        table.append([m.name, m.mode, f"{m.channels:,}", f"{m.values:,}", worst, least, dead, _gap_text(m)])
    return aligned(table, left=(0, 1))
