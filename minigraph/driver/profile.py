"""Profiles: where the time of a program goes, step by step of its plan and layer by layer of its graph.

The time of a step is measured. It is divided among the nodes that the step computes by their floating-point operations,
of which a node counts one at least for each number of its results (`work.shares`); so are its bytes. A node of a plan
belongs to the node of the program's graph that it was lowered from. On a GPU the time of a kernel is measured. One that
does the work of several steps is divided among them in the same way.

A step can be no faster than the machine computes its operations, and no faster than memory moves its bytes: the larger
of both times is its *roof*, and a share of the measured peak is that of the roof in the time that was taken. Bytes that
are still in a cache move faster than memory does: shares of memory's peak may be above 100 %.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minigraph.backends.plan import Plan, Step
from minigraph.backends.rates import Rates
from minigraph.backends.work import Work, bytes_of, flops_of, number_of, shares, weights
from minigraph.core.ir import Graph, Node
from minigraph.core.rewrite import known_as
from minigraph.core.table import aligned, begun, milliseconds, quantity

if TYPE_CHECKING:  # what was measured is given; only who measures on a GPU loads its clocks
    from minigraph.backends.c.clocks import Times as ClockedSteps
    from minigraph.backends.c.peak import Peak
    from minigraph.backends.cupy.clocks import Times as ClockedLaunches
    from minigraph.backends.cupy.peak import Peak as PeakOfGpu
    from minigraph.backends.cupy.source import Launch
    from minigraph.backends.numpy.clocks import Times as ClockedNodes

MOST = 25  # rows of a table that is printed
NAMES = 60  # characters of what a row is of
UNDISTURBED = 0.75  # of a whole run, that the least times of all rows make where nobody else computes
CALL = 5e-4  # seconds that a call takes besides


@dataclass(frozen=True)
class Cost:
    """Of one run: seconds, floating-point operations, bytes read and written."""

    seconds: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class Row:
    """A step of the plan (number, kernel, what it computes), a layer (role, name, where it stands), or a launch of a
    kernel (number, kernel, its grid and its steps).
    """

    key: str
    kind: str
    what: str
    cost: Cost


@dataclass(frozen=True)
class Profile:
    """What a run of a program costs. Prints as tables, the dearest rows first.

    steps: of the plan, in order; on the backend numpy the nodes. nodes: by name, of `graph`, which is the program's.
    layers: the nodes by what made them: a layer's forward, its gradient, its update. peak: of the machine; None on
        the backend numpy.
    clocked: seconds of a run with the clocks. plain: of one without them. called: of a call, on a GPU.
    launches: of kernels, on a GPU.
    """

    graph: Graph
    backend: str
    sizes: Mapping[str, int]
    repeats: int
    steps: tuple[Row, ...]
    nodes: Mapping[str, Cost]
    clocked: float
    plain: float
    peak: Peak | PeakOfGpu | None = None
    called: float = 0.0
    launches: tuple[Row, ...] = ()
    layers: tuple[Row, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(_layers(self.graph, self.nodes)))

    @property
    def total(self) -> Cost:
        """All steps together."""
        return sum((row.cost for row in self.steps), Cost())

    def __str__(self) -> str:
        return self.table()

    def table(self, most: int = MOST) -> str:
        """All tables, with at most so many rows of each."""
        steps = "node" if self.backend == "numpy" else "step"
        return "\n".join([
            *self._head(),
            "",
            *self._rows(["", steps, ""], self.steps, most),
            "",
            *self._rows(["", "layer", ""], self.layers, most),
            *(["", *self._rows(["", "kernel", "blocks x threads"], self.launches, most)] if self.launches else []),
        ])  # fmt: skip

    def _head(self) -> list[str]:
        sizes = "".join(f", {name} = {size}" for name, size in self.sizes.items())
        runs = f"the least of {self.repeats} runs" if self.repeats > 1 else "one run"
        lines = [f"profile of {self.graph.name!r} on {self.backend}{sizes}: of each row {runs}", *self._whole()]
        if self.peak is not None:
            machine = "GPU" if self.launches else "machine"
            fewer = ", for tensor cores" if self.launches else ", for Winograd's fewer FLOPs"
            divided = "a kernel among its steps, a step among its nodes" if self.launches else "a step among its nodes"
            lines += [
                f"measured peak of this {machine}: {quantity(self.peak.flops, 'FLOP/s')} in float32, "
                f"{quantity(self.peak.bytes, 'B/s')} of memory",
                f"of peak: of the one that binds the row; above 100% for bytes in caches{fewer}",
                f"divided by FLOPs, at least one for each number of a result: {divided}",
            ]
        rows = f"the rows add up to {milliseconds(self.total.seconds)} ms"
        return [*lines, rows + (": others use this machine, each run was disturbed somewhere" if self._lost else "")]

    def _whole(self) -> list[str]:
        """The time of a whole run, and with clocks."""
        added = f"{self.clocked / self.plain - 1:+.0%}" if self.plain else "0%"
        plain, clocked = milliseconds(self.plain), f"{milliseconds(self.clocked)} ms ({added})"
        if self.peak is None:
            return [f"a run takes {plain} ms; {clocked} with clocks between its nodes"]
        if not self.launches:
            by = self.peak.by
            return [f"a run takes {plain} ms on {by}; {clocked} with clocks between its steps, where all threads wait"]
        return [
            f"a run takes {plain} ms on {self.peak.by}, as a graph; {clocked} with an event after each kernel",
            f"a call takes {milliseconds(self.called)} ms, with inputs on their way there and outputs on theirs back",
        ]

    @property
    def _lost(self) -> bool:
        """Whether no run was as fast as its parts can be."""
        whole = min(self.plain, self.clocked) - CALL
        return self.total.seconds < UNDISTURBED * whole

    def _rows(self, names: Sequence[str], rows: Sequence[Row], most: int) -> list[str]:
        """A table of rows, the dearest first."""
        whole = self.total.seconds
        found = sorted(rows, key=lambda row: -row.cost.seconds)
        table = [["ms", "share", "GFLOP/s", "bytes", "GB/s", *(["of peak", ""] if self.peak else []), *names]]
        for row in found[:most]:
            table.append([*self._numbers(row.cost, whole), row.key, row.kind, begun(row.what, NAMES)])
        rest = found[most:]
        if rest:
            cost = sum((row.cost for row in rest), Cost())
            table.append([*self._numbers(cost, whole), "", "", f"{len(rest)} more"])
        first = 5 + 2 * bool(self.peak)
        return aligned(table, left=(*((6,) if self.peak else ()), first + 1, first + 2))

    def _numbers(self, cost: Cost, whole: float) -> list[str]:
        seconds = cost.seconds
        rates = [f"{amount / seconds / 1e9:.1f}" if seconds and amount else "" for amount in (cost.flops, cost.bytes)]
        cells = [
            milliseconds(seconds),
            f"{seconds / whole if whole else 0:.1%}",
            rates[0],
            quantity(cost.bytes, "B"),
            rates[1],
        ]
        if self.peak:
            roof, name = roof_of(cost, self.peak)
            cells += [f"{roof / seconds:.0%}" if seconds and roof else "", name if roof else ""]
        return cells


def roof_of(cost: Cost, peak: Rates) -> tuple[float, str]:
    """The least seconds that the machine's peak allows, and what binds: "FLOPs" or "memory"."""
    computing, moving = cost.flops / peak.flops, cost.bytes / peak.bytes
    return (computing, "FLOPs") if computing >= moving else (moving, "memory")


# from times to a profile


def profile_of_steps(graph: Graph, sizes: Mapping[str, int], times: ClockedSteps, repeats: int, peak: Peak) -> Profile:
    """Of a program in C. graph: the program's, whose nodes those of the plan come from."""
    rows, nodes = _by_steps(graph, times.plan, times.steps, sizes)
    return Profile(graph, "c", sizes, repeats, rows, nodes, times.clocked, times.plain, peak)


def _by_steps(
    graph: Graph, plan: Plan, times: Sequence[float], sizes: Mapping[str, int]
) -> tuple[tuple[Row, ...], dict[str, Cost]]:
    """The rows of the steps of a plan, and the costs of the nodes of its program's graph. times: of each step."""
    rows, nodes = [], {node.name: Cost() for node in graph.nodes}
    for number, (step, seconds) in enumerate(zip(plan.steps, times)):
        work = plan.work(step, sizes)
        rows.append(Row(str(number), plan.kernel(step), step.title, Cost(seconds, work.flops, work.bytes)))
        for name, cost in _divided(plan, step, seconds, work, sizes):
            nodes[name] = nodes.get(name, Cost()) + cost
    return tuple(rows), nodes


def _divided(
    plan: Plan, step: Step, seconds: float, work: Work, sizes: Mapping[str, int]
) -> Iterable[tuple[str, Cost]]:
    """What a step costs, by the names of the nodes that it is for."""
    if step.region is None:  # a copy is for whoever has made the value
        for value in step.writes:
            maker = plan.graph.producer.get(value)
            yield known_as(maker) if maker is not None else value.name, Cost(seconds, 0, work.bytes)
        return
    for node, share in shares(step.region, plan.partition, sizes).items():
        yield known_as(node), Cost(seconds * share, flops_of(node, sizes), work.bytes * share)


def profile_of_launches(
    graph: Graph, sizes: Mapping[str, int], times: ClockedLaunches, repeats: int, peak: PeakOfGpu
) -> Profile:
    """Of a program on a GPU. graph: as of profile_of_steps."""
    plan = times.plan
    seconds, parts = [0.0] * len(plan.steps), [_of_steps(plan, launch, sizes) for launch in times.launches]
    for part, whole in zip(parts, times.kernels):
        for number, share in part.items():
            seconds[number] += share * whole
    rows, nodes = _by_steps(graph, plan, seconds, sizes)
    count = [sum(number in part for part in parts) for number in range(len(rows))]
    launches = list[Row]()
    for launch, part, whole in zip(times.launches, parts, times.kernels):
        cost = Cost(whole)
        for number, share in part.items():  # the kernels of one step have its work by their times
            done, all_ = rows[number].cost, seconds[number]
            of_step = share * whole / all_ if all_ else 1 / count[number]
            cost += Cost(0.0, of_step * done.flops, of_step * done.bytes)
        launches.append(Row(str(len(launches)), launch.kernel, _of_launch(launch), cost))
    clocked, plain, called = times.clocked, times.plain, times.called
    return Profile(graph, "cupy", sizes, repeats, rows, nodes, clocked, plain, peak, called, tuple(launches))


def _of_steps(plan: Plan, launch: Launch, sizes: Mapping[str, int]) -> dict[int, float]:
    """How a kernel's time is divided among the steps that it is for: the shares add up to 1."""
    found = {}
    for number in launch.steps:
        step = plan.steps[number]
        if step.region is None:
            found[number] = sum(number_of(value.type.size, sizes) for value in step.writes)
        else:
            found[number] = sum(weights(step.region, plan.partition, sizes).values())
    total = sum(found.values())
    return {number: weight / total if total else 1 / len(found) for number, weight in found.items()}


def _of_launch(launch: Launch) -> str:
    steps = f"step{'s' * (len(launch.steps) > 1)} {', '.join(map(str, launch.steps))}"
    return f"{launch.grid.blocks} x {launch.grid.threads}: {steps}" if launch.grid else steps


def profile_of_nodes(graph: Graph, sizes: Mapping[str, int], times: ClockedNodes, repeats: int) -> Profile:
    """Of the references. graph: the program's; that of the times is the same with its sizes, as far as it runs."""
    rows, nodes = [], {node.name: Cost() for node in graph.nodes}
    for number, (node, seconds) in enumerate(zip(times.graph.nodes, times.nodes)):
        nodes[node.name] = Cost(seconds, flops_of(node, {}), _bytes_of_node(node))
        rows.append(Row(str(number), node.op.name, node.name, nodes[node.name]))
    return Profile(graph, "numpy", sizes, repeats, tuple(rows), nodes, times.clocked, times.plain)


def _bytes_of_node(node: Node) -> int:
    if node.op.view is not None or node.op.in_order:
        return 0  # the same numbers at other addresses
    return sum(bytes_of(value.type, {}) for value in (*dict.fromkeys(node.inputs), *node.outputs))


# layers


def _layers(graph: Graph, nodes: Mapping[str, Cost]) -> Iterable[Row]:
    """The costs of nodes added up by their origin; without those that cost nothing."""
    by_name = {node.name: node for node in graph.nodes}
    owning = {variable.name.rpartition(".")[0] for variable in graph.state}
    found: dict[tuple[str, str], Cost] = {}
    lines: dict[tuple[str, str], dict[str, None]] = {}
    for name, cost in nodes.items():
        if cost == Cost():
            continue
        node = by_name.get(name)
        key = ("", name) if node is None else (node.origin.role, _layer(node, by_name, owning))
        found[key] = found.get(key, Cost()) + cost
        if node is not None and node.origin.file:
            where = f"{os.path.basename(node.origin.file)}:{node.origin.line}"
            lines.setdefault(key, {})[where] = None
    for (role, layer), cost in found.items():
        yield Row(role, layer, ", ".join(lines.get((role, layer), ())), cost)


def _layer(node: Node, by_name: Mapping[str, Node], owning: Set[str]) -> str:
    """The scope around a node, if that owns state, or the node itself: "conv1", "relu"; of an update, what it moves."""
    origin = node.origin
    if origin.role == "update":
        return node.name.rpartition(".")[0].removeprefix(f"{origin.scope}.") or node.name
    if origin.role == "backward" and origin.forward in by_name:
        return _layer(by_name[origin.forward], by_name, owning)
    return origin.scope if origin.scope in owning else origin.forward or node.name
