"""How all figures look: Okabe and Ito's colours, with a line style and a marker each, so that grey print is enough.

A line is the median of the seeds, and the band from the least to the greatest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#000000", "linestyle": ":", "marker": "D"},
    {"color": "#CC79A7", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": "#E69F00", "linestyle": (0, (1, 1)), "marker": "X"},
)


def panels(title: str, count: int, *, height: float = 4.0) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes side by side, and a title above them."""
    figure = Figure(figsize=(5.0 * count, height), layout="constrained")  # no window: it draws with Agg
    figure.suptitle(title, fontsize=12)
    found = np.atleast_1d(np.asarray(figure.subplots(1, count), dtype=object))
    for axes in found:
        axes.grid(alpha=0.3)
    return figure, list(found)


def lines(axes: Axes, x: Sequence[float], arms: Mapping[str, Any]) -> None:
    """For each arm, whose numbers are (seeds, len(x)), the median over the seeds at each x, and the band between the
    least and the greatest."""
    for i, (arm, seeds) in enumerate(arms.items()):
        values = np.asarray(seeds, float)
        style = STYLES[i % len(STYLES)]
        every = max(1, len(x) // 8)
        axes.plot(x, np.median(values, axis=0), label=arm, markevery=every, markersize=5, linewidth=1.6, **style)
        axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.18, linewidth=0)


def dots(axes: Axes, groups: Mapping[str, Sequence[float]]) -> None:
    """A column for each group: a mark for each seed, and a bar at their median with its number."""
    for place, values in enumerate(groups.values()):
        style = STYLES[place % len(STYLES)]
        spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(place + spread, values, linestyle="none", marker=style["marker"], color=style["color"], markersize=7)
        middle = float(np.median(values))
        axes.plot([place - 0.28, place + 0.28], [middle, middle], color="black", linewidth=1.2)
        axes.annotate(f"{middle:.3g}", (place + 0.3, middle), fontsize=9, va="center")
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_xlim(-0.6, len(groups) - 0.25)


def series(records: Mapping[str, Sequence[Mapping[str, Any]]], what: str, arms: Sequence[str]) -> dict[str, Any]:
    """What the arms measured, by arm: a list for each seed."""
    return {arm: [m[what] for m in records[arm]] for arm in arms}
