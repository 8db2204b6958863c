"""Which regions are alike: those for which the same function is printed, of other values.

Layers repeat, and so do the updates of their parameters. A likeness has all that the text of a function depends on; the
values of the region are numbers in it, in the order in which one comes upon them.
"""

from __future__ import annotations

from collections.abc import Hashable

from minigraph.backends.plan import Plan, Step
from minigraph.core.ir import Value
from minigraph.core.numbering import exactly


def likeness(plan: Plan, step: Step) -> tuple[Hashable, tuple[Value, ...]]:
    """What two steps have in common if their functions do, and the values that are numbers in it.

    A call of a kernel is like no other.
    """
    region = step.region
    assert region is not None
    if region.call is not None or region.padded:
        return step, tuple(step.reads)
    seen = _Seen(plan, step)
    parts = [tuple(map(seen.number, values)) for values in (region.body, region.totals, region.tail, step.writes)]
    what = region.domain, region.reduced, step.scratch is not None, *parts, tuple(seen.made)
    return what, tuple(seen.numbers)


class _Seen:
    """The values of one region by their numbers, and how each is made."""

    def __init__(self, plan: Plan, step: Step):
        assert step.region is not None
        self.partition = plan.partition
        self.members = set(step.region.members)
        self.numbers: dict[Value, int] = {}
        self.made: list[Hashable] = []

    def number(self, value: Value) -> int:
        if value not in self.numbers:
            made = self._made(value)
            self.numbers[value] = len(self.numbers)
            self.made.append(made)
        return self.numbers[value]

    def _made(self, value: Value) -> Hashable:
        """What the value is computed from, or that it is read; and where it lies, if in the middle of another."""
        partition = self.partition
        frame = partition.memory.frames.get(value)
        where = (frame.attrs["widths"], frame.outputs[0].type) if frame is not None else None
        if value not in self.members and (value in partition.region_of or value not in partition.virtual):
            return value.type, where
        node = partition.graph.producer[value]
        return node.op, exactly(tuple(node.attrs.items())), tuple(map(self.number, node.inputs)), where
