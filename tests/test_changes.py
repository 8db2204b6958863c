"""What a pass changed is found by names."""

from dataclasses import replace

import minigraph as mg
from minigraph.core.ir import Graph, Node
from minigraph.tools.changes import changes
from passes_by_hand import block, tower


def names(nodes: tuple[Node, ...]) -> list[str]:
    return [node.name for node in nodes]


def test_what_went_came_and_changed():
    before, after = block(False), block(True)
    found = changes(before, after)
    assert names(found.went) == ["bn1.batch_norm_inference"]
    assert names(found.came) == [
        "bn1.fill", "bn1.add", "bn1.sqrt", "bn1.div", "bn1.reshape", "bn1.mul", "bn1.mul2", "bn1.sub", "bn1.reshape2",
        "bn1.add2",
    ]  # fmt: skip
    assert [(old.name, new.name) for old, new in found.changed] == [("conv1.conv", "conv1.conv"), ("relu", "relu")]
    assert {node.name: mark for node, mark in found.before.items()} == {
        "bn1.batch_norm_inference": "went", "conv1.conv": "changed", "relu": "changed"
    }  # fmt: skip
    assert set(found.before) <= set(before.nodes)
    assert set(found.after) <= set(after.nodes)
    assert sorted(found.after.values()) == ["came"] * 10 + ["changed"] * 2


def test_copies_are_no_change():
    found = changes(block(False), block(False))
    assert not found
    assert not found.before
    assert changes(block(False), block(True))


def test_a_number_is_itself_whatever_node_holds_it():
    def scaled(name: str, number: float) -> Graph:
        net = mg.Builder("scaled")
        with net.scope(name):
            factor = net.constant(number)
        return net.build(y=net.input("x", ("N", 3)) * factor)

    assert not changes(scaled("a", 2.0), scaled("b", 2.0)).changed
    assert changes(scaled("a", 2.0), scaled("b", 3.0)).changed


def test_a_name_with_another_op_is_another_node():
    before = tower(1)
    relu = before.nodes[-1]
    after = Graph("tower", before.inputs, before.state, (*before.nodes[:-1], replace(relu, op=mg.OPS["tanh"])), {})
    found = changes(before, after)
    assert [node.op.name for node in found.went] == ["relu"]
    assert [node.op.name for node in found.came] == ["tanh"]


def test_what_a_rule_made_of_one_of_the_same_op_is_changed():
    before = block(False)
    conv, norm, relu = before.nodes
    origin = replace(conv.origin, rule="fold", sources=("conv1.conv", "bn1.batch_norm_inference"))
    made = replace(conv, name="bn1.conv", origin=origin)
    found = changes(before, Graph("small", before.inputs, before.state, (made, relu), {}))
    assert found.changed == ((conv, made),)
    assert found.went == (norm,)
    assert not found.came
    # of two that it made, nobody can say which one it is
    two = (made, replace(made, name="bn1.conv2"), relu)
    found = changes(before, Graph("small", before.inputs, before.state, two, {}))
    assert found.went == (conv, norm)
    assert found.came == two[:2]


def test_nodes_of_one_name_are_told_apart_by_their_order():
    before = tower(2)
    alike = [replace(node, name="same") if node.op.name == "relu" else node for node in before.nodes]
    first = Graph("tower", before.inputs, before.state, tuple(alike), {})
    second = Graph("tower", before.inputs, before.state, tuple(alike[:-1]), {})
    assert changes(first, second).went == (alike[-1],)
    assert changes(second, first).came == (alike[-1],)
