"""What the passes of a pipeline did to a graph, and why they did not do more, as text.

Nodes are counted that a run computes: what depends on constants and on frozen state alone is computed once, before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from minigraph.core.errors import expect
from minigraph.core.frozen import split
from minigraph.core.ir import Graph
from minigraph.core.pipeline import Optimized, Step
from minigraph.core.rewrite import Refused

LISTED = 4  # names of nodes that are written out


def table(optimized: Optimized) -> str:
    """A line for each pass: how often its rules fired, the nodes of a run before and after, milliseconds."""
    width = max((len(step.name) for step in optimized.steps), default=4)
    lines = [f"{'pass':{width}}  fired  nodes of a run    ms"]
    for step in optimized.steps:
        nodes = f"{nodes_of_a_run(step.before)} -> {nodes_of_a_run(step.after)}"
        lines.append(f"{step.name:{width}}  {len(step.fired):5}  {nodes:14}  {1000 * step.seconds:4.0f}")
    facts = dict.fromkeys(fact.value.name for fact in optimized.facts)
    if facts:
        lines.append(f"right as long as the numbers of the state stay as they are: {', '.join(facts)}")
    return "\n".join(lines)


def explanation(optimized: Optimized, node: str = "") -> str:
    """For each pass the rules that fired, with the nodes they replaced and made, and why others were refused.

    node: only what concerns the node of that name, or the nodes of that layer: "bn3" is bn3 and every bn3.*. What came
        from a node concerns it. GraphError if no graph of the pipeline has one.
    """
    graphs = [optimized.source, *(step.after for step in optimized.steps)]
    if node:
        names = dict.fromkeys(n.name for graph in graphs for n in graph.nodes)
        known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
        expect(any(_concerns(name, node) for name in names), "no node is called {!r}; there are {}", node, known)
    before, after = nodes_of_a_run(optimized.source), nodes_of_a_run(optimized.graph)
    passes = f"{len(optimized.steps)} pass{'' if len(optimized.steps) == 1 else 'es'}"
    lines = [f"{optimized.source.name}: a run computes {before} nodes, {after} after {passes}"]
    for step in optimized.steps:
        lines_of_step = _lines(step, optimized.refused)
        found = [line for line, concerned in lines_of_step if not node or any(_concerns(n, node) for n in concerned)]
        if found or not node:
            lines += ["", f"{step.name}: {step.about}", *(found or ["  nothing to do"])]
    if node and len(lines) == 1:
        lines.append(f"no pass has anything to do with {node}")
    return "\n".join(lines)


def nodes_of_a_run(graph: Graph) -> int:
    """How many nodes compute something at each run."""
    return sum(bool(node.inputs) for node in split(graph)[1].nodes)


def _lines(step: Step, refused: Collection[Refused]) -> Iterable[tuple[str, tuple[str, ...]]]:
    """What there is to say of a pass, each line with the names of the nodes that it concerns."""
    for fired in step.fired:
        became = f"{_listed(fired.sources)} -> {_listed(fired.made)}"
        yield f"  did: {fired.rule} at {fired.at}: {became}", (fired.at, *fired.sources, *fired.made)
    nodes = {node.name: node for node in step.after.nodes}
    for reason in step.refused:
        if reason in refused:  # a later pass has not taken the node away
            sources = nodes[reason.at].origin.sources
            yield f"  not: {reason.rule} at {reason.at}: {reason.why}", (reason.at, *sources)


def _listed(names: Sequence[str]) -> str:
    more = [f"and {len(names) - LISTED} more"] if len(names) > LISTED else []
    return ", ".join([*names[:LISTED], *more]) or "nothing"


def _concerns(name: str, node: str) -> bool:
    return name == node or name.startswith(f"{node}.")
