"""Plans without a compiler: regions in their planned order, by the references, in the planned memory.

A plan is taken by its word. A step reads what it says that it reads, from where that lies, and memory that nobody has
written yet holds garbage. What is written over a value that the same step reads may need of it no number but the one
that it replaces: the step is tried with others in place of those.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minigraph.backends.calls import Claim
from minigraph.backends.plan import Buffer, Plan, Step, plan, split_sizes, with_numbers
from minigraph.core import dim
from minigraph.core.dtypes import is_float
from minigraph.core.errors import expect
from minigraph.core.evaluate import apply
from minigraph.core.ir import Graph, Value

GARBAGE = 0xFF  # in every byte: NaN in floats, -1 in whole numbers
Arrays = Mapping[str, np.ndarray]


class Executable:
    """One lowered graph, planned for the largest batch so far, ready to run at any sizes of its symbols.

    claim: the nodes that a backend computes by tuned kernels, which plan for them as that backend does.
    """

    def __init__(self, graph: Graph, claim: Claim):
        self.graph, self.claim = graph, claim
        self.peak_bytes = 0
        self._plans: dict[tuple[tuple[str, int], ...], Plan] = {}

    def run(self, symbols: Mapping[str, int], arrays: Arrays) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Inputs and state by name -> outputs, and new state: new arrays. GraphError where a plan breaks its word."""
        planned = self._plan(symbols)
        self.peak_bytes = planned.arena
        return Run(planned, symbols, arrays).outcome()

    def _plan(self, symbols: Mapping[str, int]) -> Plan:
        """As the C backend plans: for any batch up to the largest so far, and for what is not such a batch alone."""
        batch, fixed = split_sizes(self.graph, symbols)
        key = tuple(sorted(fixed.items()))
        found = self._plans.get(key)
        if found is None or any(n > found.sizes[s] for s, n in batch.items()):
            self._plans[key] = found = plan(with_numbers(self.graph, batch, fixed), self.claim, batch)
        return found


class Run:
    """One run of a plan, at sizes that are known."""

    def __init__(self, planned: Plan, symbols: Mapping[str, int], arrays: Arrays):
        self.plan = planned
        graph = planned.graph
        bound = graph.bind(**symbols) if graph.symbols else graph
        self.nodes = dict(zip(graph.nodes, bound.nodes, strict=True))
        self.bound = {old: new for node in graph.nodes for old, new in zip(node.outputs, self.nodes[node].outputs)}
        self.bound.update(zip(graph.inputs, bound.inputs))
        self.bound.update((old.value, new.value) for old, new in zip(graph.state, bound.state))
        self.arena = np.full(planned.arena, GARBAGE, np.uint8)
        self.memory = {buffer: self._begun(buffer, arrays) for buffer in planned.buffers}
        for number, step in enumerate(planned.steps):
            self._step(number, step)

    def outcome(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        graph, homes = self.plan.graph, {buffer.value: buffer for buffer in self.plan.buffers}
        base = self.plan.partition.base
        outputs = {name: self._read(value, homes[base(value)]) for name, value in graph.outputs.items()}
        return outputs, {old.name: self._read(old, homes[old]) for old in graph.updates}

    # memory

    def _begun(self, buffer: Buffer, arrays: Arrays) -> np.ndarray:
        """The bytes of a buffer before the first step."""
        if buffer.place == "arena":
            return self.arena[buffer.offset : buffer.offset + self._bytes(buffer.value)]
        if buffer.place == "output":
            return np.full(self._bytes(buffer.value), GARBAGE, np.uint8)
        if buffer.place == "literal":
            (array,) = apply(self.nodes[self.plan.graph.producer[buffer.value]], [])
        else:
            array = arrays[buffer.name]
        return np.array(array, order="C").reshape(-1).view(np.uint8)

    def _bytes(self, value: Value) -> int:
        type_ = self.bound[value].type
        return dim.known(type_.size, "a size") * np.dtype(type_.dtype).itemsize

    def _lying(self, value: Value, buffer: Buffer) -> np.ndarray:
        """The memory of this value, which may lie in the middle of a padded one."""
        frame = self.plan.partition.memory.frames.get(value)
        type_ = self.bound[value if frame is None else frame.outputs[0]].type
        array: np.ndarray = self.memory[buffer].view(type_.dtype).reshape(type_.shape)  # type: ignore[arg-type]
        if frame is None:
            return array
        return array[tuple(slice(first, n - last) for (first, last), n in zip(frame.attrs["widths"], array.shape))]

    def _read(self, value: Value, buffer: Buffer) -> np.ndarray:
        """What lies there now, as this value."""
        return self._lying(value, buffer).copy()

    # steps

    def _step(self, number: int, step: Step) -> None:
        given = {value: self._read(value, buffer) for value, buffer in step.reads.items()}
        results = self._computed(step, given)
        for value, target in step.writes.items():
            for source, buffer in step.reads.items():
                if np.shares_memory(self.memory[target], self.memory[buffer]):
                    self._try_in_place(number, step, given, source, value, results[value])
        for value, buffer in step.writes.items():
            self._lying(value, buffer)[...] = results[value]

    def _computed(self, step: Step, given: Mapping[Value, np.ndarray]) -> dict[Value, np.ndarray]:
        """What the step writes, from what it reads."""
        if step.region is None:
            return {value: next(iter(given.values())) for value in step.writes}
        members, producer = set(step.region.members), self.plan.graph.producer
        found: dict[Value, np.ndarray] = {}

        def of(value: Value) -> np.ndarray:
            if value in given and value not in members:
                return given[value]
            if value not in found:
                node = producer.get(value)
                allowed = node is not None and (value in members or value in self.plan.partition.virtual)
                expect(allowed, "{} reads {!r}, and does not say so", step.nodes, value)
                assert node is not None
                found.update(zip(node.outputs, apply(self.nodes[node], [of(v) for v in node.inputs])))
            return found[value]

        with np.errstate(all="ignore"):
            return {value: of(value) for value in step.writes}

    def _try_in_place(
        self, number: int, step: Step, given: Mapping[Value, np.ndarray], old: Value, new: Value, result: np.ndarray
    ) -> None:
        """Raise unless each number of `new` stays what it is when others of `old` change."""
        what = f"step {number} writes {new!r} over {old!r}"
        expect(given[old].nbytes == result.nbytes and given[old].size == result.size, "{}, which is larger", what)
        flat = given[old].reshape(-1)
        some = np.random.default_rng(number).random(flat.size) < 0.5
        for changed in (some, ~some):
            other = np.where(changed, np.roll(flat, 1), flat).reshape(given[old].shape)
            again = self._computed(step, {**given, old: other})[new].reshape(-1)
            same = np.array_equal(again[~changed], result.reshape(-1)[~changed], equal_nan=is_float(result.dtype))
            expect(same, "{}, and needs another number of it", what)
