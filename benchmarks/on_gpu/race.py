"""Times of several programs for the same work: they take turns, so that what the machine does besides meets all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from benchmarks.machine import said

ROUNDS, ROUND = 9, 0.15  # how many, and about how many seconds each of a program has
Run = Callable[[int], None]  # so many steps, all of which are done when it returns


def race(runs: Mapping[str, Run], errors: dict[str, str]) -> dict[str, list[float]]:
    """Seconds a step of each, a number for each round. One that fails is left out, and `errors` says why."""
    counts, times = {}, {}
    for name, run in runs.items():
        try:
            counts[name], times[name] = steps_of_a_round(run), []
        except Exception as error:
            errors[name] = said(error)
    for _ in range(ROUNDS):
        for name in list(times):
            try:
                times[name].append(timed(runs[name], counts[name]))
            except Exception as error:
                errors[name] = said(error)
                del times[name]
    return times


def steps_of_a_round(run: Run) -> int:
    run(3)
    return max(1, round(ROUND / timed(run, 3)))


def timed(run: Run, steps: int) -> float:
    """Seconds of one of so many steps."""
    begin = time.perf_counter()
    run(steps)
    return (time.perf_counter() - begin) / steps


def summary(times: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Milliseconds: the median of the rounds, the least and the most."""
    return {
        name: {"median": 1e3 * statistics.median(found), "least": 1e3 * min(found), "most": 1e3 * max(found)}
        for name, found in times.items()
    }
