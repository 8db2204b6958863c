"""What was measured where: versions of what is installed, and the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import minigraph as mg

ROOT = Path(__file__).parent.parent


def versions(packages: Sequence[str]) -> str:
    """Of minigraph, Python, and what is installed of these packages, as their names begin. Nothing is loaded for it."""
    found = {f"{one.metadata['Name']} {one.version}" for one in distributions()}
    named = sorted(one for one in found if one.startswith(tuple(packages)))
    return ", ".join([f"minigraph {mg.__version__}{_commit()}", f"Python {platform.python_version()}", *named])


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        return f" ({subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()})"
    except (OSError, subprocess.CalledProcessError):
        return ""


def processor() -> str:
    """The name of the processor, as Linux or Python knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def cores() -> list[int]:
    """Those that this process may use, by their numbers."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def said(error: BaseException) -> str:
    """In one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def write_json(file: Path, found: Mapping[str, Any]) -> None:
    """Whole or not at all: a process that dies leaves what was there before."""
    draft = file.with_suffix(".part")
    draft.write_text(json.dumps(found, indent=1, default=str) + "\n")
    draft.replace(file)
