"""The stages training, inference and resnet9: milliseconds beside PyTorch and JAX, as far as they are installed."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

import minigraph as mg
from benchmarks.on_gpu.networks import Case
from benchmarks.on_gpu.ours import Ours
from benchmarks.on_gpu.race import race, summary
from benchmarks.on_gpu.report import Report, said

OTHERS = {"torch": "benchmarks.on_gpu.in_torch", "jax": "benchmarks.on_gpu.in_jax"}
ENOUGH = 60  # seconds that a program of others may take to be compiled
COLUMNS = ("part", "minigraph", "kernels_alone", "torch", "torch_compiled", "jax", "ratio", "images_a_second")


def measure(report: Report, cases: Sequence[Case], training: bool) -> None:
    """A row for each network, batch and precision: milliseconds a step, medians of rounds in which all take turns.

    kernels_alone: the same step of minigraph without what comes in and goes out. ratio: the best of the others' time
    by that of minigraph; above 1, minigraph is faster.
    """
    for case in cases:
        for precision in case.precisions:
            report.part(f"{case.name} {precision}", partial(measured, report, case, precision, training))
            gc.collect()
    report.show(COLUMNS)


def measured(report: Report, case: Case, precision: str, training: bool) -> dict[str, Any]:
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
    made = prepared(report, makers, errors)
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
    return {**row, "rounds": times, "losses": losses(made), "errors": errors}


def prepared(report: Report, makers: Mapping[str, Callable[[], Any]], errors: dict[str, str]) -> dict[str, Any]:
    """The programs, compiled, that could be made."""
    made = {}
    for name, make in makers.items():
        if name != "minigraph" and report.left < ENOUGH / 2:
            errors[name] = "not reached: the time of the stage was up"
            continue
        try:
            made[name] = make()
        except Exception as error:
            errors[name] = said(error)
    return made


def losses(made: Mapping[str, Any]) -> dict[str, float]:
    """Of the first step: the same network has the same one, but for rounding."""
    found = {}
    for name, program in made.items():
        first = program.first
        if isinstance(first, dict):
            first = first.get("loss")
        if first is not None:
            found[name] = float(first)
    return found


def random_statistics(model: mg.Graph) -> mg.State:
    """Initial weights, and running statistics that no layer can mistake for 0 or 1."""
    state, rng = model.init(seed=0), np.random.default_rng(0)
    for name, array in state.items():
        if name.endswith(".running_var"):
            state[name] = rng.uniform(0.5, 1.5, array.shape)
        elif name.endswith(".running_mean"):
            state[name] = rng.normal(0, 0.2, array.shape)
    return state
