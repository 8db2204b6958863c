"""What a pass changed: the nodes that went, those that came, and those that stayed with other inputs or attributes.

Passes keep the names of what they keep, so nodes are the same if they have one name and one op. A node that a rule made
in place of one of the same op, a convolution with another weight, is that node with other inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from minigraph.core.ir import Graph, Node
from minigraph.tools.outline import is_number


@dataclass(frozen=True)
class Changes:
    """went: nodes of the graph before. came: nodes of the graph after. changed: pairs, the node before and after.

    All in the order of their graphs.
    """

    went: tuple[Node, ...]
    came: tuple[Node, ...]
    changed: tuple[tuple[Node, Node], ...]

    @property
    def before(self) -> Mapping[Node, str]:
        """For the nodes of the graph before that did not stay as they were: "went" or "changed"."""
        return {**dict.fromkeys(self.went, "went"), **dict.fromkeys((old for old, _ in self.changed), "changed")}

    @property
    def after(self) -> Mapping[Node, str]:
        """For the nodes of the graph after that were not there, or not so: "came" or "changed"."""
        return {**dict.fromkeys(self.came, "came"), **dict.fromkeys((new for _, new in self.changed), "changed")}

    def __bool__(self) -> bool:
        return bool(self.went or self.came or self.changed)


def changes(before: Graph, after: Graph) -> Changes:
    """What the graph `after` has other than `before`.

    A node that reads values of the same names, or the same numbers, has the same inputs, whatever computes these now.
    """
    old, new = _by_name(before), _by_name(after)
    gone = [node for key, node in old.items() if key not in new]
    made = [node for key, node in new.items() if key not in old]
    replaced = _replaced(gone, made)
    kept = {
        node: new[key]
        for key, node in old.items()
        if key in new and _content(before, node) != _content(after, new[key])
    }
    changed, new_ones = {**kept, **replaced}, set(replaced.values())
    return Changes(
        tuple(node for node in gone if node not in replaced),
        tuple(node for node in made if node not in new_ones),
        tuple((node, changed[node]) for node in before.nodes if node in changed),
    )


def _replaced(gone: Sequence[Node], made: Sequence[Node]) -> dict[Node, Node]:
    """For nodes that are gone the one that a rule made of them, if both are alone of their op in what it did."""
    by_name: dict[str, list[Node]] = {}
    for node in gone:
        by_name.setdefault(node.name, []).append(node)
    rivals = Counter((node.op.name, node.origin.sources) for node in made)
    found: dict[Node, Node] = {}
    for node in made:
        sources = node.origin.sources
        like = [old for name in sources for old in by_name.get(name, ()) if old.op is node.op and old not in found]
        if len(like) == 1 and rivals[node.op.name, sources] == 1:
            found[like[0]] = node
    return found


def _by_name(graph: Graph) -> dict[Hashable, Node]:
    """Nodes by name and op; of several that share these, each by which of them it is."""
    seen: Counter[tuple[str, str]] = Counter()
    found: dict[Hashable, Node] = {}
    for node in graph.nodes:
        key = node.name, node.op.name
        found[(*key, seen[key])] = node
        seen[key] += 1
    return found


def _content(graph: Graph, node: Node) -> Hashable:
    """What a node computes, and from what: values by name, and numbers by themselves, whatever node holds them."""
    makers = [graph.producer.get(value) for value in node.inputs]
    read = [m.attrs["value"] if m is not None and is_number(m) else v.name for m, v in zip(makers, node.inputs)]
    return tuple(read), tuple(v.type for v in node.outputs), tuple(node.attrs.items())
