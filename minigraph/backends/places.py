"""Where the buffers of a plan lie, as C."""

from __future__ import annotations

from minigraph.backends.plan import Buffer, Plan


def given(plan: Plan) -> tuple[Buffer, ...]:
    """What is passed to a program by its address, in order: inputs, state, literals, outputs."""
    return tuple(dict.fromkeys(b for b in plan.buffers if b.place != "arena"))


class Places:
    """Where buffers lie, as C: offsets in the arena are in a table, so that the text is one for every batch."""

    def __init__(self, plan: Plan):
        self._texts = {buffer: f"given[{i}]" for i, buffer in enumerate(given(plan))}
        self._texts.update((p.target, f"c->packed[{i}]") for i, p in enumerate(plan.prepared))
        self._texts.update((buffer, f"(arena + at[{i}])") for i, buffer in enumerate(plan.roots))

    def of(self, buffer: Buffer) -> str:
        return self._texts[buffer.root]
