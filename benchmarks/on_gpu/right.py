"""The stage right: the tests of CUDA C++ on the GPU, counted."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.on_gpu.report import Report

NEEDS = ("pytest", "hypothesis", "onnx")
FIRST = ("test_cuda_products", "test_cuda_ops", "test_cuda_program", "test_cuda_networks")
WORKERS = 8  # processes that compile and launch, where pytest-xdist is installed
COLUMNS = ("part", "passed", "failed", "not_reached", "first_failure", "test_seconds")


def files() -> list[Path]:
    """All that have tests of CUDA C++; the most telling first."""
    found = sorted((ROOT / "tests").glob("test_cuda_*.py"))
    found += [ROOT / "tests" / f"{name}.py" for name in ("test_precision", "test_tf32")]
    return sorted(found, key=lambda file: FIRST.index(file.stem) if file.stem in FIRST else len(FIRST))


def right(report: Report) -> None:
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        report.add(part="tests", error=f"the tests need {', '.join(missing)}: pip install {' '.join(missing)}")
    if "pytest" not in missing:
        report.part("tests", lambda: tested(report))
    report.show(COLUMNS)


def tested(report: Report) -> dict[str, Any]:
    import pytest

    from benchmarks.on_gpu.counted import Counted  # which needs pytest, too

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
