"""The stage right: the tests of CUDA C++ on the GPU, counted."""

from __future__ import annotations

import os
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.on_gpu.report import ROOT, Report

NEEDS = ("pytest", "hypothesis", "onnx")
FIRST = ("test_cuda_products", "test_cuda_ops", "test_cuda_program", "test_cuda_networks")
WORKERS = 6  # processes that compile and launch, where pytest-xdist is installed
COLUMNS = ("part", "passed", "failed", "not_reached", "first_failure", "test_seconds")


def files() -> list[Path]:
    """All that have tests of CUDA C++; the most telling first."""
    found = [*sorted((ROOT / "tests").glob("test_cuda_*.py")), ROOT / "tests" / "test_precision.py"]
    return sorted(found, key=lambda file: FIRST.index(file.stem) if file.stem in FIRST else len(FIRST))


class Counted:
    """A plugin of pytest that notes how tests end in a report, and ends the run when the time is up."""

    def __init__(self, report: Report):
        self.report = report
        self.rows: dict[str, dict[str, Any]] = {}
        self.seen: set[str] = set()
        self.chosen = Counter[str]()
        self.config: Any = None

    def pytest_configure(self, config: Any) -> None:
        self.config = config

    def pytest_collection_finish(self, session: Any) -> None:
        self.chosen.update(file_of(item.nodeid) for item in session.items)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.note(report.nodeid, "failed", report, 0.0)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.row(report.nodeid)["test_seconds"] += report.duration
        if report.when == "call" or report.failed:
            self.note(report.nodeid, report.outcome, report, report.duration)
        if self.report.left < 0:
            self.stop()

    def stop(self) -> None:
        """By pytest's means, and by those of pytest-xdist where its processes run the tests."""
        across = self.config.pluginmanager.getplugin("dsession")
        for session in (across, self.config.pluginmanager.getplugin("session")):
            if session is not None:
                session.shouldstop = "the time of the stage is up"

    def row(self, test: str) -> dict[str, Any]:
        file = file_of(test)
        if file not in self.rows:
            self.rows[file] = {"part": file, "passed": 0, "failed": 0, "test_seconds": 0.0, "failures": []}
            self.report.rows.append(self.rows[file])
        return self.rows[file]

    def note(self, test: str, outcome: str, report: Any, seconds: float) -> None:
        row = self.row(test)
        if test not in self.seen:
            self.seen.add(test)
            row["passed" if outcome == "passed" else "failed"] += 1
        if outcome != "passed":
            why = [line[1:].strip() for line in report.longreprtext.splitlines() if line.startswith("E ")]
            row["failures"].append({"test": test, "why": why[:6] or [report.longreprtext[-300:]], "seconds": seconds})
            row.setdefault("first_failure", test.split("::")[-1])
        self.report.write()

    def finish(self) -> None:
        """Those that are chosen and were not run."""
        for file, row in self.rows.items():
            reached = row["passed"] + row["failed"]
            row["not_reached"] = max(0, self.chosen[file] - reached) if self.chosen else None
        self.report.write()


def file_of(test: str) -> str:
    return Path(test.split("::")[0]).stem


def right(report: Report) -> None:
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        report.add(part="tests", error=f"the tests need {', '.join(missing)}: pip install {' '.join(missing)}")
    if "pytest" not in missing:
        report.part("tests", lambda: tested(report))
    report.show(COLUMNS)


def tested(report: Report) -> dict[str, Any]:
    import pytest

    counted, begin = Counted(report), time.monotonic()
    chosen = [str(file) for file in files()]
    options = [
        "--gpu",
        "-q",
        "--continue-on-collection-errors",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "-W",
        "default",
    ]
    if find_spec("xdist") is not None:
        options += ["-n", str(min(WORKERS, os.cpu_count() or 1))]
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        status = int(pytest.main([*options, *chosen], plugins=[counted]))
    finally:
        os.chdir(before)
        counted.finish()
    return {
        "passed": sum(row["passed"] for row in counted.rows.values()),
        "failed": sum(row["failed"] for row in counted.rows.values()),
        "not_reached": sum(row["not_reached"] or 0 for row in counted.rows.values()),
        "pytest_status": status,
        "test_seconds": time.monotonic() - begin,
    }
