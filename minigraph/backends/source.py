"""A plan as C: a function for each distinct region, and the one function of the step that calls them in order.

Functions whose texts agree are one function.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from minigraph.backends.function import Function, Printer
from minigraph.backends.kernels import Kernels
from minigraph.backends.likeness import likeness
from minigraph.backends.loops import block, offset_text
from minigraph.backends.places import Places
from minigraph.backends.plan import Plan, Step, first_write_to_state
from minigraph.backends.work import flops_of, number_of
from minigraph.core.collector import paused
from minigraph.core.dim import product
from minigraph.core.ir import Value


@dataclass(frozen=True)
class Source:
    """C text of a whole plan: `step` runs it."""

    text: str
    own: tuple[str, ...]  # the names of the backend's headers that it includes
    headers: frozenset[Path]  # those of ops
    steps: tuple[str, ...]  # not in the text: functions step_0, step_1, ..., each of one step of the plan by itself


class _Functions:
    """The functions of a plan: each is printed for the first of the steps that are alike."""

    def __init__(self, plan: Plan, kernels: Kernels):
        self.plan, self.kernels = plan, kernels
        self.names: dict[str, str] = {}  # by text
        self._first: dict[Hashable, tuple[Function, tuple[Value, ...]]] = {}

    def of(self, step: Step) -> tuple[str, Function, list[Value]]:
        """The name of a step's function, the function, and the values that it reads for this step."""
        like, values = likeness(self.plan, step)
        if like not in self._first:
            self._first[like] = Printer(self.plan, step, self.kernels).function(), values
        function, first = self._first[like]
        own = dict(zip(first, values))
        name = self.names.setdefault(function.text, f"f{len(self.names)}")
        return name, function, [own[value] for value in function.reads]


@paused()
def print_program(plan: Plan) -> Source:
    kernels, places = Kernels(), Places(plan)
    functions = _Functions(plan, kernels)
    calls: list[str] = []
    steps: list[list[str]] = []
    first = first_write_to_state(plan)
    for number, step in enumerate(plan.steps):
        if step.barrier or number == first:
            calls.append("c->barrier();")
        if number == first:
            calls.append("if (c->fault) return;  // the state stays as it was")
        if step.region is None:
            steps.append(_copies(step, places))
        else:
            name, function, reads = functions.of(step)
            alone = is_small(plan, step)
            who = ["0", "1"] if alone else ["thread", "threads"]
            arguments = function.arguments(step, reads, places, "alone" if alone else "c->barrier")
            call = f"{name}({', '.join([*who, *arguments])});"
            comment = ", ".join(dict.fromkeys(node.name for node in step.nodes))
            steps.append([f"// {number}: {comment}", f"if (thread == 0) {call}" if alone else call])
        calls += steps[-1]
    symbols = [f"const idx n_{name} = c->sizes[{i}];" for i, name in enumerate(sorted(plan.sizes))]
    start = ["char *const arena = c->arena;", "const idx *const at = c->offsets;"]
    start += ["void *const *const given = c->given;", *symbols]
    unused = ["(void)arena, (void)at, (void)given, (void)thread, (void)threads;"]
    step_text = block("void step(struct context *c, int thread, int threads)", [*start, *unused, *calls])
    each = [
        block(f"void step_{number}(struct context *c, int thread, int threads)", [*start, *unused, *lines])
        for number, lines in enumerate(steps)
    ]
    printed = [text.replace("FUNCTION", name) for text, name in functions.names.items()]
    tuned = dict.fromkeys(name for call in plan.partition.claims.values() for name in call.headers)
    own = ("prelude.h", "scalar.h", *tuned)
    includes = [f'#include "{name}"' for name in own]
    prepare = _prepare(plan, kernels, places)
    shared = list(kernels.functions())
    parts = [*includes, "", *kernels.included, "", *shared, "", *printed, "", *prepare, "", *step_text, ""]
    headers = frozenset(kernels.included.values())
    return Source("\n".join(parts), own, headers, tuple("\n".join(lines) for lines in each))


SMALL = 1 << 12  # operations that are not worth waking other threads for


def is_small(plan: Plan, step: Step) -> bool:
    """Whether one thread does it: a few operations, one number, or one total, which is added up in one order."""
    region = step.region
    assert region is not None
    number = partial(number_of, sizes=plan.expected)
    if region.call is None and step.scratch is None and number(product(size for _, size in region.kept)) == 1:
        return True  # no loop to share: all would do it, and one may read what another has written already
    return number(product(region.domain)) < SMALL and all(flops_of(n, plan.expected) < SMALL for n in step.nodes)


def _prepare(plan: Plan, kernels: Kernels, places: Places) -> list[str]:
    """The function that packs what does not move."""
    lines = ["void *const *const given = c->given;", "(void)given, (void)thread, (void)threads;"]
    for prepared in plan.prepared:
        source = f"(const float *){places.of(prepared.source)}{offset_text(prepared.operand.access)}"
        lines.append(f"// {prepared.target.name}")
        lines.append(kernels.packed(prepared.pack, source, f"(float *){places.of(prepared.target)}"))
    return block("void prepare(struct context *c, int thread, int threads)", lines)


def _copies(step: Step, places: Places) -> list[str]:
    lines = []
    for value, state in step.writes.items():
        (source,) = step.reads.values()
        lines.append(f"// {value.name} becomes {state.name}")
        lines.append(f"if (thread == 0) memcpy({places.of(state)}, {places.of(source)}, {state.nbytes});")
    return lines
