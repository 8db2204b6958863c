"""The stages training, inference and resnet9: milliseconds beside PyTorch and JAX, as far as they are installed."""

from __future__ import annotations

import gc
import importlib
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from benchmarks.machine import said
from benchmarks.numbers import distance, random_statistics
from benchmarks.on_gpu.networks import Case
from benchmarks.on_gpu.ours import Ours
from benchmarks.on_gpu.race import race, summary
from benchmarks.on_gpu.report import Report

OTHERS = {"torch": "benchmarks.on_gpu.in_torch", "jax": "benchmarks.on_gpu.in_jax"}
NEEDED = {"torch": 10, "torch_compiled": 60, "jax": 30}  # seconds that must be left where a program is begun
KEPT = 20  # seconds that are kept for each row to come: for minigraph, and PyTorch as it is
COLUMNS = ("part", "minigraph", "kernels_alone", "torch", "torch_compiled", "jax", "ratio", "images_a_second", "apart")


def measure(report: Report, cases: Sequence[Case], training: bool) -> None:
    """A row for each network, batch and precision: milliseconds a step, medians of rounds in which all take turns.

    The first rows have all programs. So that the last are reached as well, they go without those that compile for long.

    kernels_alone: the same step of minigraph without what comes in and goes out. ratio: the best of the others' time
    by that of minigraph; above 1, minigraph is faster. apart: by how much the first loss, or the logits, differ.
    """
    rows = [(case, precision) for case in cases for precision in case.precisions]
    rows = [(case, precision) for case, precision in rows if report.wants(f"{case.name} {precision}")]
    for number, (case, precision) in enumerate(rows, 1):
        kept = KEPT * (len(rows) - number)
        report.part(f"{case.name} {precision}", partial(measured, report, case, precision, training, kept))
        gc.collect()
    report.show(COLUMNS)


def measured(report: Report, case: Case, precision: str, training: bool, kept: float) -> dict[str, Any]:
    """One row. kept: seconds of the stage that are for the rows to come."""
    state, errors = random_statistics(case.model()), dict[str, str]()
    makers: dict[str, Callable[[], Any]] = {"minigraph": partial(Ours, case, state, precision, training)}
    for name, module in OTHERS.items():
        if find_spec(name) is None:
            errors[name] = "is not installed"
            continue
        try:
            makers.update(importlib.import_module(module).contenders(case, state, precision, training))
        except Exception as error:
            errors[name] = said(error)
    made = prepared(makers, errors, lambda: report.left - kept)
    runs = {name: program.run for name, program in made.items()}
    if "minigraph" in made:
        runs["kernels_alone"] = made["minigraph"].kernels
    times = summary(race(runs, errors))
    medians = {name: found["median"] for name, found in times.items()}
    others = [ms for name, ms in medians.items() if name not in ("minigraph", "kernels_alone")]
    row: dict[str, Any] = {"network": case.network, "batch": case.batch, "precision": precision, **medians}
    if "minigraph" in medians:
        row["images_a_second"] = round(1e3 * case.batch / medians["minigraph"])
        row["ratio"] = min(others) / medians["minigraph"] if others else None
        row.update(made["minigraph"].numbers())
    apart = differences(made)
    row["apart"] = max(apart.values()) if apart else None
    return {**row, "rounds": times, "differences": apart, "errors": errors}


def prepared(
    makers: Mapping[str, Callable[[], Any]], errors: dict[str, str], left: Callable[[], float]
) -> dict[str, Any]:
    """The programs, compiled, that could be made. left: gives the seconds that there are for them."""
    made = {}
    for name, make in makers.items():
        if left() < NEEDED.get(name, -math.inf):
            errors[name] = "not reached: the time of the stage was up"
            continue
        try:
            made[name] = make()
        except Exception as error:
            traceback.print_exc()
            errors[name] = said(error)
    return made


def differences(made: Mapping[str, Any]) -> dict[str, float]:
    """Of the others' first losses or logits from those of minigraph: it is the same network, but for rounding."""
    ours = made.get("minigraph")
    if ours is None:
        return {}
    return {name: distance(program.first, ours.first) for name, program in made.items() if program is not ours}
