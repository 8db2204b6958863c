"""Which of several kernels computes a node fastest on this machine, measured inside of the program that it stands in.

A kernel by itself is another thing: its weights lie in a cache, and nobody else's data do. So the whole program is
compiled once for each other kernel that any of its nodes may have, and the clocks between its steps decide, node by
node. Nodes that are called alike are timed together, by the fastest of them. What was found is kept in the cache
folder.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np

from minigraph.backends.c import cache
from minigraph.backends.c.clocks import measure
from minigraph.backends.c.executable import Executable, key_of
from minigraph.backends.c.peak import fingerprint
from minigraph.backends.c.threads import threads
from minigraph.backends.c.tuned import claim
from minigraph.backends.calls import Call
from minigraph.core.ir import Graph
from minigraph.core.state import write_whole

REPEATS = 12  # runs of each program
GAIN = 0.97  # of its time at most has to be left, where another kernel than the usual one is taken


def tuned(
    graph: Graph,
    still: Collection[str],
    symbols: Mapping[str, int],
    inputs: Mapping[str, np.ndarray],
    kept: Mapping[str, np.ndarray],
) -> Executable:
    """The graph with the fastest kernels for these sizes and numbers. still: see Executable.

    kept: the state and the inputs that stay, which are not written to. Raises WrongInput as a step does.
    """
    usual = Executable(graph, still)
    program = usual.program(symbols)
    calls = {key_of(call): call for call in program.plan.partition.claims.values() if call.others}
    known = _read(symbols)
    if not calls.keys() <= known.keys():
        known.update(_measured(graph, still, symbols, inputs, kept, calls))
        _write(symbols, known)
    chosen = {key: known[key] for key in calls if known[key] in calls[key].others}
    return Executable(graph, still, chosen)


def _measured(
    graph: Graph,
    still: Collection[str],
    symbols: Mapping[str, int],
    inputs: Mapping[str, np.ndarray],
    kept: Mapping[str, np.ndarray],
    calls: Mapping[str, Call],
) -> dict[str, str]:
    """The name of the fastest kernel for each key, "" for the usual one."""

    def seconds(chosen: Mapping[str, str]) -> dict[str, float]:
        own = {name: np.array(array, order="C") for name, array in kept.items()}  # steps write over the state
        times = measure(Executable(graph, still, chosen), symbols, inputs, own, REPEATS)
        found: dict[str, float] = {}
        for step, taken in zip(times.plan.steps, times.steps):
            node = step.region.call if step.region is not None else None
            if node is not None and node in times.plan.partition.claims:
                usual = claim(times.plan.graph, node)
                assert usual is not None
                found[key_of(usual)] = min(taken, found.get(key_of(usual), np.inf))
        return found

    least, best = seconds({}), dict.fromkeys(calls, "")
    for name in dict.fromkeys(chain.from_iterable(call.others for call in calls.values())):
        having = {key: name for key, call in calls.items() if name in call.others}
        for key, taken in seconds(having).items():
            if key in having and taken < GAIN * least[key]:
                least[key], best[key] = taken, name
    return best


def _read(symbols: Mapping[str, int]) -> dict[str, str]:
    with suppress(OSError, ValueError):
        found = json.loads(_file(symbols).read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(isinstance(name, str) for name in found.values()):
            return found
    return {}


def _write(symbols: Mapping[str, int], known: Mapping[str, str]) -> None:
    file = _file(symbols)
    with suppress(OSError):  # a folder that cannot be written: the next process measures again
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(file, json.dumps(known, indent=1).encode())


def _file(symbols: Mapping[str, int]) -> Path:
    sizes = " ".join(f"{name}={size}" for name, size in sorted(symbols.items()))
    return cache.where() / cache.TUNED.format(cache.key([fingerprint(threads()), sizes]))
