"""What a pass changed: the nodes that went, those that came, and those that stayed with other inputs or attributes.

Passes keep the names of what they keep, so nodes are the same if they have one name and one op.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from minigraph.core.ir import Graph, Node


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

    A node that reads values of the same names in both has the same inputs, whatever computes these now.
    """
    old, new = _by_name(before), _by_name(after)
    return Changes(
        tuple(node for key, node in old.items() if key not in new),
        tuple(node for key, node in new.items() if key not in old),
        tuple((node, new[key]) for key, node in old.items() if key in new and _content(node) != _content(new[key])),
    )


def _by_name(graph: Graph) -> dict[Hashable, Node]:
    """Nodes by name and op; of several that share these, each by which of them it is."""
    seen: Counter[tuple[str, str]] = Counter()
    found: dict[Hashable, Node] = {}
    for node in graph.nodes:
        key = node.name, node.op.name
        found[(*key, seen[key])] = node
        seen[key] += 1
    return found


def _content(node: Node) -> Hashable:
    """What a node computes, and from what."""
    names, types = tuple(v.name for v in node.inputs), tuple(v.type for v in node.outputs)
    return names, types, tuple(node.attrs.items())
