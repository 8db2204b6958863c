"""Checkpoints of a training: one safetensors file, written whole, from which `fit` goes on as if nothing had happened.

The arrays are the whole state: parameters, statistics, slots, counters, random streams. The metadata hold, as JSON, how
far the training had come and what must be the same for it to go on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minigraph.core.errors import GraphError, expect
from minigraph.core.state import State
from minigraph.core.state import read as read_arrays
from minigraph.tools.data import form

KEY, VERSION = "minigraph.training", 1
PARTIAL = r"\.{name}\.[0-9a-f]{{8}}\.partial"  # what core.state.write_whole leaves where it is killed


@dataclass(frozen=True)
class Progress:
    """How far a training has come. It is replaced and never changed, as arrays of a state are."""

    history: tuple[Mapping[str, float], ...] = ()  # of the epochs that are complete
    batch: int = 0  # batches done of the epoch after them
    samples: int = 0  # samples in these
    sums: Mapping[str, float] = field(default_factory=dict)  # of each metric, times the samples of its batch
    seconds: float = 0.0  # spent on them

    @property
    def epoch(self) -> int:
        return len(self.history)

    def means(self) -> dict[str, float]:
        """The metrics of the current epoch's batches."""
        return {name: total / self.samples for name, total in self.sums.items()}

    def after(self, metrics: Mapping[str, float], samples: int, seconds: float) -> Progress:
        """One batch further."""
        sums = {name: self.sums.get(name, 0.0) + value * samples for name, value in metrics.items()}
        return Progress(self.history, self.batch + 1, self.samples + samples, sums, self.seconds + seconds)


def save(path: Path, state: State, progress: Progress, identity: Mapping[str, Any]) -> None:
    """Write a checkpoint. identity: what must agree with the training that goes on, as JSON has it."""
    state.save(path, {KEY: json.dumps({"version": VERSION, "progress": asdict(progress), "identity": identity})})


def load(path: Path, state: State, identity: Mapping[str, Any]) -> Progress:
    """Put the state of a checkpoint into `state`. GraphError, and nothing changed, if it is not of this training."""
    advice = "Delete it, give another path, or pass resume=False to begin anew and overwrite it"
    try:
        arrays, metadata = read_arrays(path)
    except GraphError as error:
        raise GraphError(f"{error}. {advice}") from None
    expect(KEY in metadata, "{} is not a checkpoint of fit: it has no record of a training. {}", path, advice)
    try:
        record = json.loads(metadata[KEY])
        expect(
            record["version"] == VERSION,
            "{} is a checkpoint of version {}; this is version {}. {}",
            path,
            record["version"],
            VERSION,
            advice,
        )
        progress, there = Progress(**record["progress"]), dict(record["identity"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise GraphError(f"{path}: its record of a training cannot be read: {error!r}. {advice}") from None
    there["state"] = {name: form(array) for name, array in arrays.items()}
    differences = _differences(there, {**identity, "state": {name: form(array) for name, array in state.items()}})
    expect(not differences, "{} is a checkpoint of another training:\n  {}\n{}", path, "\n  ".join(differences), advice)
    state.replace(arrays)
    return Progress(tuple(progress.history), progress.batch, progress.samples, progress.sums, progress.seconds)


def remove_partial(path: Path) -> None:
    """Remove what a killed process left of files that it was writing at this place."""
    pattern = re.compile(PARTIAL.format(name=re.escape(path.name)))
    if path.parent.is_dir():
        for left in path.parent.iterdir():
            if pattern.fullmatch(left.name):
                left.unlink(missing_ok=True)


def _differences(there: Any, here: Any, name: str = "") -> list[str]:
    """What differs between the file and this training, a sentence for each."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*there, *(key for key in here if key not in there)]
        return [line for key in keys for line in _differences(there.get(key), here.get(key), f"{name} {key}".strip())]
    if there == here:
        return []
    return [f"{name}: {_show(there)} there, {_show(here)} here"]


def _show(value: Any) -> str:
    return "none" if value is None else str(value)
