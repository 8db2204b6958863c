"""What else is measured of minigraph: how long it is imported, and how long a training step is compiled."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.compiling import in_a_process
from benchmarks.machine import ROOT
from minigraph.backends.c.compiler import CompilerError, NoCompiler, compiler

TIMED = "import time; begin = time.perf_counter(); import minigraph; print(time.perf_counter() - begin)"
NETWORK = "resnet20"
BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}  # is written, and read by the next process


def import_seconds(rounds: int) -> list[float]:
    """Of `import minigraph`, by the clock, in processes of their own.

    One more goes before them, for the disk, and for the bytecode that an installation has.
    """
    command, environment = [sys.executable, "-c", TIMED], {**os.environ, **BYTECODE}
    one = lambda: subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True).stdout
    times = [one() for _ in range(rounds + 1)]
    return [float(time) for time in times[1:]]


def compile_seconds() -> dict[str, Any]:
    """Of the training step of ResNet-20, by the clock: with an empty cache, and with what that left in it."""
    try:
        command = shlex.join(compiler().command)
    except (CompilerError, NoCompiler) as error:
        return {"error": str(error)}
    found: dict[str, Any] = {"compiler": command}
    with tempfile.TemporaryDirectory(prefix="minigraph-") as cache:
        for kind in ("cold", "cached"):
            times = in_a_process(NETWORK, command, cache)
            found[kind] = times and times["clock"]
    return found
