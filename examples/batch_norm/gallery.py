"""What a run leaves: for each experiment a figure and its measurements, and a page that shows them all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .experiment import At, Experiment, Records

RESULTS = "results"
HEAD = """# Batch norm, shown

What is said of batch normalization, tried. Each experiment states claims, measures them with several seeds, and
computes a verdict from the measurements, by one rule: a claim *holds* if the first arm is ahead of the second by
the margin in every seed, it *does not hold* if it is behind by the margin in every seed, and is *undecided* otherwise:
the difference is smaller than the margin, or the seeds disagree. With the two arms swapped, what holds does not hold,
and the other way round, which is tested. Lines are medians over the seeds, and bands go from the least to the greatest.

This page is written by `python -m examples.batch_norm`, from what was measured, on a virtual machine with two cores,
which had other work as well. The quick runs are on scikit-learn's digits, the full ones on Fashion-MNIST.
"""


def keep(folder: Path, experiment: Experiment, at: At, records: Records, seconds: float) -> None:
    """NAME.png and NAME.json in the folder's results/."""
    (folder / RESULTS).mkdir(parents=True, exist_ok=True)
    experiment.draw(records).savefig(folder / RESULTS / f"{experiment.name}.png", dpi=110)
    kept = {
        "run": at.size,
        "setting": experiment.setting(at),
        "seconds": round(seconds, 1),
        "records": shortened(records),
    }
    text = json.dumps(kept, separators=(",", ":"))
    (folder / RESULTS / f"{experiment.name}.json").write_text(text + "\n", encoding="utf-8")


def shortened(given: Any) -> Any:
    """The same with floats of five digits."""
    if isinstance(given, float):
        return float(f"{given:.5g}")
    if isinstance(given, dict):
        return {name: shortened(each) for name, each in given.items()}
    return [shortened(each) for each in given] if isinstance(given, list) else given


def kept(folder: Path, name: str) -> dict[str, Any] | None:
    """What `keep` wrote for the experiment of that name, if it did."""
    path = folder / RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def page(folder: Path, experiments: Iterable[Experiment]) -> str:
    """The page of the figures in the folder, as Markdown. What another version left there, with other arms, is not on
    it."""
    every = [(experiment, kept(folder, experiment.name)) for experiment in experiments]
    found = [
        (experiment, measured) for experiment, measured in every if measured and experiment.fits(measured["records"])
    ]
    text = HEAD + "\n| experiment | claim | verdict | run |\n|---|---|---|---|\n"
    for experiment, measured in found:
        for claim, verdict in zip(experiment.claims, experiment.verdicts(measured["records"])):
            link = f"[{experiment.title}](#{anchor(experiment.title)})"
            text += f"| {link} | {claim.says} | {verdict.word} | {measured['run']} |\n"
    return text + "".join(section(experiment, measured) for experiment, measured in found)


def anchor(title: str) -> str:
    """What GitHub makes of a heading."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")


def section(experiment: Experiment, measured: dict[str, Any]) -> str:
    records = measured["records"]
    command = f"python -m examples.batch_norm {'--quick ' * (measured['run'] == 'quick')}{experiment.name}"
    figure = f"![{experiment.title}]({RESULTS}/{experiment.name}.png)"
    text = f"\n## {experiment.title}\n\nAfter {experiment.source}.\n\n{figure}\n\n"
    for claim, verdict in zip(experiment.claims, experiment.verdicts(records)):
        text += f"- **{verdict.word}**: {claim.says} {verdict.line}.\n"
    seeds, run = len(next(iter(records.values()))), measured["run"]
    setting = measured["setting"][0].upper() + measured["setting"][1:]
    return text + f"\n{setting} {seeds} seeds, {measured['seconds']:.0f} s, the {run} run: `{command}`\n"
