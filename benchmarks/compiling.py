"""How long it takes to make training steps ready to run in C, and where the time goes.

    python -m benchmarks.compiling

ResNet-20's and ResNet-50's training step, batches of up to 128, with each of gcc, clang and zig that is there, and with
$CC: once with an empty cache, once more with what that left in it. Each row is a process of its own. Times are seconds
of the processor, which other work on the machine hardly changes: passes over the graph, lowering and layouts, planning,
printing, and the library, which is compiled and loaded, or found and loaded. Last, all of it by the clock. That the
compiler is found and tried is not counted.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import minigraph as mg
from examples import networks
from minigraph.backends.c.compiler import CompilerError, NoCompiler, compiled, compiler
from minigraph.backends.c.executable import HERE
from minigraph.backends.c.tuned import claim
from minigraph.backends.plan import plan
from minigraph.backends.source import print_program
from minigraph.core.frozen import split
from minigraph.driver.choice import choose
from minigraph.driver.given import complete
from minigraph.driver.program import optimize

NETWORKS = ("resnet20", "resnet50")
BATCH = 128
COLUMNS = ("passes", "lower", "plan", "print", "library", "all", "clock")


def stages(name: str) -> Iterator[str]:
    """Make a network's training step ready; the name of each stage when it is done, "" when they begin."""
    step = mg.training_step(getattr(networks, name)(), "loss", mg.optim.SGD(0.1, momentum=0.9))
    state = step.init(0)
    complete(step, state)
    compiler()
    yield ""
    graph = optimize(step, state).graph
    yield "passes"
    _, ready, _ = choose("c", graph)
    _, rest = split(ready)
    yield "lower"
    planned = plan(rest, claim, {"N": BATCH})
    yield "plan"
    source = print_program(planned)
    yield "print"
    compiled(source.text, [*(HERE / own for own in source.own), *sorted(source.headers)])
    yield "library"


def measured(name: str) -> dict[str, float]:
    """Seconds of each stage, of all, and by the clock."""
    times = {}
    begin = before = clock = 0.0
    for stage in stages(name):
        if stage:
            times[stage] = _busy() - before
        else:
            begin, clock = _busy(), time.perf_counter()
        before = _busy()
    return {**times, "all": before - begin, "clock": time.perf_counter() - clock}


def _busy() -> float:
    """Processor time of this process, and of those that it has started."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def in_a_process(name: str, command: str, cache: str) -> dict[str, float] | None:
    """What `measured` finds in a process of its own; None where the compiler does not work."""
    settings = {**os.environ, "CC": command, "MINIGRAPH_CACHE": cache}
    arguments = [sys.executable, "-m", "benchmarks.compiling", name]
    said = subprocess.run(arguments, env=settings, stdout=subprocess.PIPE, check=True).stdout
    found: dict[str, float] | None = json.loads(said)
    return found


def main() -> None:
    commands = {"gcc": "gcc", "clang": "clang", "zig": f"{sys.executable} -m ziglang cc"}
    if os.environ.get("CC"):
        commands["$CC"] = os.environ["CC"]
    print(f"{'':24}", *(f"{column:>8}" for column in COLUMNS))
    for name in NETWORKS:
        for title, command in commands.items():
            with tempfile.TemporaryDirectory(prefix="minigraph-") as cache:
                for kind in ("cold", "cached"):
                    times = in_a_process(name, command, cache)
                    if times is None:
                        break
                    row = " ".join(f"{times[column]:8.2f}" for column in COLUMNS)
                    print(f"{name:10} {title:6} {kind:6} {row}", flush=True)


def one(name: str) -> None:
    """For in_a_process."""
    try:
        print(json.dumps(measured(name)))
    except (NoCompiler, CompilerError):
        print("null")


if __name__ == "__main__":
    if sys.argv[1:]:
        one(sys.argv[1])
    else:
        main()
