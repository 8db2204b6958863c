"""A plugin of pytest: how tests end, as rows of a report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.on_gpu.report import Report


class Counted:
    """Notes how tests end, file by file, and ends the run when the time of the report is up."""

    def __init__(self, report: Report):
        self.report = report
        self.rows: dict[str, dict[str, Any]] = {}
        self.seen: set[str] = set()
        self.chosen = Counter[str]()
        self.config: Any = None

    def pytest_configure(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:
            self.chosen = Counter(file_of(item.nodeid) for item in session.items)

    @pytest.hookimpl(optionalhook=True)  # of pytest-xdist, whose processes all collect the same
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.chosen = Counter(map(file_of, ids))

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
        for file in {**self.chosen, **self.rows}:
            row = self.row(file)
            reached = row["passed"] + row["failed"]
            row["not_reached"] = max(0, self.chosen[file] - reached) if self.chosen else None
        self.report.write()


def file_of(test: str) -> str:
    return Path(test.split("::")[0]).stem
