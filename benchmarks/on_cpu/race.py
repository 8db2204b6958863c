"""Rounds in which all take turns, each run in a process of its own; no two at a time.

A round runs every contender once; the next one begins with another. Programs and kernels that were compiled in the
first round are found again by the later ones: minigraph's cache and PyTorch's are a folder of this sitting.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import ROOT, cores, said
from benchmarks.numbers import distance
from benchmarks.on_cpu.contenders import OURS, Contender
from benchmarks.on_cpu.files import write
from benchmarks.on_cpu.one import Job
from benchmarks.on_cpu.workloads import Workload

FAR = 2.0  # one of the others that takes so many times as long as their best cannot be it: one round is enough for it
LIMIT = 400  # seconds, after which a process is ended

Sample = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Of a sitting. others: cores that other processes may use; a run in which they used more is discarded."""

    rounds: int = 5
    threads: int = 2
    seconds: float = 2.0
    steps: int = 20
    windows: int = 3
    others: float = 0.08


QUICK = {"rounds": 1, "seconds": 0.3, "steps": 3, "windows": 1}


def race(
    workloads: Sequence[Workload],
    contenders: Sequence[Contender],
    settings: Settings,
    note: Callable[[Sample], None],
) -> None:
    """Run them, one workload after the other. note: is given each sample when it is there."""
    with tempfile.TemporaryDirectory(prefix="minigraph-race-") as kept:
        for number, workload in enumerate(workloads):
            folder = Path(kept) / str(number)
            folder.mkdir()
            write(workload, folder)
            _rounds(workload, contenders, settings, folder, note)


def _rounds(
    workload: Workload,
    contenders: Sequence[Contender],
    settings: Settings,
    folder: Path,
    note: Callable[[Sample], None],
) -> None:
    field = [one for one in contenders if one.takes(workload.optimizer is not None)]
    samples: list[Sample] = []
    right: np.ndarray | None = None
    for number in range(settings.rounds):
        field = [one for one in field if not hopeless(one.name, samples)]
        for one in rotated(field, number):
            found, results = run(one, settings, folder)
            sample = {"workload": workload.name, "contender": one.name, "round": number, **found}
            if results is not None:
                right = results if right is None else right
                sample["apart"] = apart(results, right, workload.optimizer is not None)
                sample["discarded"] = (found["others"] or 0.0) > settings.others
            samples.append(sample)
            note(sample)


def rotated(field: Sequence[Contender], by: int) -> list[Contender]:
    by %= max(1, len(field))
    return [*field[by:], *field[:by]]


def hopeless(name: str, samples: Sequence[Sample]) -> bool:
    """Whether it failed, or is FAR behind the best of the others."""
    mine = [one for one in samples if one["contender"] == name]
    if any("error" in one for one in mine):
        return True
    least = [one["least_ms"] for one in mine if not one["discarded"]]
    theirs = [
        one["median_ms"] for one in samples if one["contender"] != OURS and "error" not in one and not one["discarded"]
    ]
    return name != OURS and bool(least and theirs) and min(least) > FAR * min(theirs)


def apart(found: np.ndarray, right: np.ndarray, training: bool) -> list[float]:
    """How far logits are from the right ones; of losses, how far each is, since rounding grows from step to step."""
    if training:
        return [distance(one, other) for one, other in zip(found, right)]
    return [distance(found, right)]


def run(one: Contender, settings: Settings, folder: Path) -> tuple[Sample, np.ndarray | None]:
    """What a process of its own finds; {"error": why} and None where it fails."""
    to, threads = folder / "found", one.threads or settings.threads
    chosen = cores()[: settings.threads]
    windows = {name: getattr(settings, name) for name in ("seconds", "steps", "windows", "others")}
    job = Job(one.module, one.mode, str(folder), str(to), threads, chosen, **windows)
    (folder / "job.json").write_text(json.dumps(asdict(job)))
    command = [sys.executable, "-m", "benchmarks.on_cpu.one", str(folder / "job.json")]
    environment = {**os.environ, **environment_of(threads, folder.parent), **one.environment}
    for suffix in (".json", ".npz"):
        Path(f"{to}{suffix}").unlink(missing_ok=True)
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {LIMIT} s"}, None
    try:
        with np.load(f"{to}.npz") as file:
            return json.loads(Path(f"{to}.json").read_text()), file["results"]
    except OSError as error:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return {"error": lines[-1] if lines else f"it ended with {done.returncode}: {said(error)}"}, None


def environment_of(threads: int, kept: Path) -> dict[str, str]:
    """The variables by which each framework knows how many threads it has, and where it keeps what it compiles."""
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MINIGRAPH_THREADS", "NPROC")  # NPROC: XLA
    return {
        **dict.fromkeys(counts, str(threads)),
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "MINIGRAPH_CACHE": str(kept / "minigraph"),
        "TORCHINDUCTOR_CACHE_DIR": str(kept / "inductor"),
        "PYTHONWARNINGS": "ignore",
    }
