"""The time of each step of a program in C, by clocks between the steps.

The clocks are in a library of their own, of the program's text and one more function, which calls the steps one by one:
before each, and behind the last, all threads wait for each other, and the first of them reads the clock. It works in
the program's memory. The program as it is otherwise run has fewer waits and no clocks; its time is measured beside.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigraph.backends.c import guarded
from minigraph.backends.c.compiler import compiled
from minigraph.backends.c.executable import Executable
from minigraph.backends.loops import block
from minigraph.backends.plan import Plan, first_write_to_state
from minigraph.backends.source import Source
from minigraph.core.errors import expect
from minigraph.core.turn import Turn

REST = 2e-4  # seconds before each run, after which the other threads sleep: both kinds of runs have to wake them
CLOCKS = Path(__file__).with_name("clocks.h")

_turn = Turn()  # the times lie in the library, which programs of one text share


@dataclass(frozen=True)
class Times:
    """Seconds, each the least of all runs.

    steps: of each step of the plan. clocked: of a whole run with the clocks. plain: of one without, as it is called.
    """

    plan: Plan
    steps: tuple[float, ...]
    clocked: float
    plain: float


def measure(
    executable: Executable,
    symbols: Mapping[str, int],
    inputs: Mapping[str, np.ndarray],
    kept: Mapping[str, np.ndarray],
    repeats: int,
) -> Times:
    """Run a program so many times with clocks, and as many without, in turns.

    kept: the state and the inputs that stay; the program writes over the state. WrongInput as from a step.
    """
    expect(
        not guarded.asked_for(), "a profile is of programs as they run: unset MINIGRAPH_CHECK, whose guards take time"
    )
    program, version = executable.program(symbols), object()
    library = _with_clocks(program.plan, program.source)
    clocked_run = ctypes.cast(library.clocked, ctypes.c_void_p).value or 0
    count = len(program.plan.steps)
    noted = (ctypes.c_double * (count + 1)).in_dll(library, "clock_readings")
    steps, clocked, plain = np.full(count, np.inf), np.inf, np.inf
    inputs = {name: np.require(array, requirements=["C", "ALIGNED"]) for name, array in inputs.items()}
    executable.step(symbols, inputs, lambda: kept, version)  # what is done once is done
    with _turn.lock:
        for _ in range(repeats):
            time.sleep(REST)
            start = time.perf_counter()
            outputs = executable.step(symbols, inputs, lambda: kept, version)
            plain = min(plain, time.perf_counter() - start)
            time.sleep(REST)
            start = time.perf_counter()
            program.call(clocked_run)  # which writes over these outputs
            clocked = min(clocked, time.perf_counter() - start)
            steps = np.minimum(steps, np.diff(noted))
            del outputs
    return Times(program.plan, tuple(steps.tolist()), clocked, plain)


def _with_clocks(plan: Plan, source: Source) -> ctypes.CDLL:
    text = "\n".join([source.text, *source.steps, "", f'#include "{CLOCKS.name}"', *_clocked(plan)])
    return compiled(text, [CLOCKS, *(CLOCKS.with_name(name) for name in source.own), *sorted(source.headers)])


def _clocked(plan: Plan) -> Sequence[str]:
    """The function that runs the steps, and where it leaves the times: before each step, and behind the last."""
    first, lines = first_write_to_state(plan), []
    for number in range(len(plan.steps) + 1):
        lines += ["c->barrier();", f"if (thread == 0) clock_readings[{number}] = seconds();"]
        if number == first:
            lines.append("if (c->fault) return;")
        if number < len(plan.steps):
            lines.append(f"step_{number}(c, thread, threads);")
    declared = f"double clock_readings[{len(plan.steps) + 1}];"
    return [declared, *block("void clocked(struct context *c, int thread, int threads)", lines)]
