"""What a stage finds: rows that are written to a JSON file as they come, and printed as a table at its end."""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.machine import processor, said, versions, write_json
from minigraph.backends.cupy.libraries.installed import described
from minigraph.core.table import aligned, begun

OF_NVIDIA = ("cupy", "nvidia-cuda-nvrtc", "nvidia-cudnn", "nvidia-cublas", "nvmath-python")
PACKAGES = ("numpy ", *OF_NVIDIA, "torch ", "triton ", "jax")  # as their names begin
LONG = 160  # characters of an error in the table

Row = dict[str, Any]


class Report:
    """The rows of a stage. Each part of it is run by itself: where one fails, its row says why, and the next begins.

    seconds: after so many no further part begins.
    """

    def __init__(self, stage: str, folder: Path, only: Sequence[str] = (), seconds: float = 420):
        self.stage, self.file, self.only = stage, folder / f"{'-'.join([stage, *only])}.json", only
        self.rows: list[Row] = []
        self.facts = {"stage": stage, "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), **machine()}
        self._begin, self._seconds = time.monotonic(), seconds
        folder.mkdir(parents=True, exist_ok=True)
        self.write()

    @property
    def left(self) -> float:
        """Seconds in which parts may begin."""
        return self._seconds - (time.monotonic() - self._begin)

    @property
    def wrong(self) -> bool:
        """Whether something does not hold, or fails."""
        return any(row.get("holds") is False or row.get("failed") or row.get("error") for row in self.rows)

    def wants(self, name: str) -> bool:
        """Whether this part is asked for."""
        return not self.only or any(word in name for word in self.only)

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        """Whole or not at all: a process that dies leaves the rows before."""
        seconds = round(time.monotonic() - self._begin, 1)
        write_json(self.file, {**self.facts, "seconds": seconds, "rows": self.rows})

    def part(self, name: str, work: Callable[[], Mapping[str, Any] | None]) -> None:
        """Run a part, if it is asked for. What it returns is its row; None leaves none."""
        if not self.wants(name):
            return
        if self.left < 0:
            self.add(part=name, error="not reached: the time of the stage was up")
            return
        print(f"{self.stage}: {name} ...", file=sys.stderr, flush=True)
        begin = time.monotonic()
        try:
            found = work()
        except Exception as error:
            traceback.print_exc()
            found = {"error": said(error)}
        if found is not None:
            self.add(part=name, **found, seconds=round(time.monotonic() - begin, 1))

    def show(self, columns: Sequence[str]) -> None:
        """The rows, and below them what went wrong."""
        facts = self.facts
        print(f"\n{self.stage} on {facts['device']}; {facts['versions']}\n")
        cells = [[written(row.get(column)) for column in columns] for row in self.rows]
        print("\n".join(aligned([[column.replace("_", " ") for column in columns], *cells])))
        for row in self.rows:
            for what, error in {"": row.get("error"), **row.get("errors", {})}.items():
                if error:
                    print(f"{row['part']}{', ' if what else ''}{what}: {begun(str(error), LONG)}")
        print(f"\nAll figures are in {self.file}.")


def written(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:,.3f}" if 0.001 <= abs(value) < 1e6 or value == 0 else f"{value:.2e}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def machine() -> dict[str, Any]:
    """The device, and the versions of what is installed."""
    found = {"processor": processor(), "libraries": [*described()], "versions": versions(PACKAGES)}
    return {"device": _gpu(), **found}


def _gpu() -> str:
    """What CuPy says of the GPU."""
    try:
        return _described(importlib.import_module("cupy"))
    except Exception as error:  # of whatever kind: the rows say what it means
        return f"a GPU that CuPy does not describe ({said(error)})"


def _described(cupy: Any) -> str:
    runtime = cupy.cuda.runtime
    told = runtime.getDeviceProperties(cupy.cuda.Device().id)
    driver, built = (f"{v // 1000}.{v % 1000 // 10}" for v in (runtime.driverGetVersion(), runtime.runtimeGetVersion()))
    size = f"sm_{told['major']}{told['minor']}, {told['totalGlobalMem'] / 2**30:.0f} GiB"
    name, processors = told["name"].decode(), told["multiProcessorCount"]
    return f"{name} ({size}, {processors} multiprocessors), CUDA {built}, the driver's CUDA {driver}"
