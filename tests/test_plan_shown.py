"""What a plan says of itself: the work of each step, counted by hand, the table and the pictures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import minigraph as mg
from minigraph import GraphError, layers
from minigraph.backends.c.peak import Peak
from minigraph.backends.c.tuned import claim, laid_out
from minigraph.backends.lower import lower
from minigraph.backends.plan import Plan, plan
from minigraph.backends.work import Work, shares
from minigraph.core.table import aligned, begun, duration, milliseconds, quantity, shortened
from minigraph.tools.blueprint import arena_svg, steps_dot
from minigraph.tools.render import can_render

NAMESPACE = "{http://www.w3.org/2000/svg}"


def planned(graph: mg.Graph, **sizes: int) -> Plan:
    return plan(laid_out(lower(graph)), claim, sizes)


def works(graph: mg.Graph, **sizes: int) -> list[tuple[str, Work]]:
    found = planned(graph, **sizes)
    return [(found.kernel(step), found.work(step)) for step in found.steps]


def perceptron() -> mg.Graph:
    net = mg.Builder("perceptron")
    h = mg.relu(layers.linear(net.input("x", ("N", 8)), 5, bias=False))
    return net.build(y=layers.linear(h, 3, bias=False))


def classifier() -> mg.Graph:
    net = mg.Builder("classifier")
    image, label = net.input("image", ("N", 2, 8, 8)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.conv2d(image, 4, 3, padding="same", bias=False)))
    logits = layers.linear(mg.flatten(mg.max_pool(h, 2)), 5)
    model = net.build(loss=mg.cross_entropy(logits, label))
    return mg.training_step(model, "loss", mg.optim.SGD(0.1, momentum=0.9))


# work


def test_a_product_with_what_follows_it() -> None:
    found = works(perceptron(), N=7)
    first = Work(2 * 7 * 8 * 5 + 7 * 5, 4 * (7 * 8 + 8 * 5), 4 * 7 * 5)
    second = Work(2 * 7 * 5 * 3, 4 * (7 * 5 + 5 * 3), 4 * 7 * 3)
    assert found == [("gemm", first), ("gemm", second)]


def test_what_is_read_twice_counts_once() -> None:
    net = mg.Builder("net")
    x, y = net.input("x", (6, 4)), net.input("y", (4,))
    graph = net.build(z=x * mg.exp(x) + y)
    assert works(graph) == [("loop", Work(3 * 24, 4 * (24 + 4), 4 * 24))]


def test_of_a_slice_only_what_is_seen_is_read() -> None:
    net = mg.Builder("net")
    x = net.input("x", (6, 4))
    graph = net.build(z=mg.exp(x[:, 1:3]))
    assert works(graph) == [("loop", Work(12, 4 * 12, 4 * 12))]


def test_of_rows_that_are_gathered_only_those_are_read() -> None:
    net = mg.Builder("net")
    x, rows = net.input("x", (1000, 4)), net.input("rows", (3,), "int64")
    ((_, work),) = works(net.build(z=mg.exp(mg.gather(x, rows))))
    assert (work.read, work.written) == (4 * 12 + 8 * 3, 4 * 12)


def test_totals_read_all_and_write_few() -> None:
    net = mg.Builder("net")
    x = net.input("x", (6, 4))
    assert works(net.build(z=mg.sum(x, axes=0))) == [("totals", Work(24, 4 * 24, 4 * 4))]


def test_a_copy_reads_and_writes() -> None:
    net = mg.Builder("net")
    x = net.variable("x", (6,), mg.init.zeros)
    net.update(x, mg.flip(x, 0))  # which cannot be written over what it reads
    *_, (kernel, work) = works(net.build())
    assert (kernel, work) == ("copy", Work(0, 24, 24))


def test_work_is_that_of_the_sizes_given() -> None:
    found = planned(perceptron(), N=64)
    assert found.work(found.steps[0]).flops == 64 * found.work(found.steps[0], {"N": 1}).flops


def test_a_node_has_the_share_of_its_operations() -> None:
    found = planned(perceptron(), N=7)
    region = found.steps[0].region
    assert region is not None
    by_op = {node.op.name: share for node, share in shares(region, found.partition, {"N": 7}).items()}
    whole = 2 * 7 * 8 * 5 + 7 * 5
    assert by_op["matmul"] == pytest.approx(2 * 7 * 8 * 5 / whole)
    assert by_op["relu"] == pytest.approx(7 * 5 / whole)


def test_shares_add_up_to_one_also_of_empty_batches() -> None:
    found = planned(classifier(), N=4)
    for step in found.steps:
        for n in (4, 0):
            if step.region is not None:
                assert sum(shares(step.region, found.partition, {"N": n}).values()) == pytest.approx(1)


# the table


def test_the_table_has_a_row_for_each_value_that_is_written() -> None:
    found = planned(classifier(), N=4)
    lines = str(found).splitlines()
    total = sum((found.work(step) for step in found.steps), Work())
    assert lines[0] == f"plan of 'classifier': {len(found.steps)} steps, N <= 4"
    assert quantity(total.flops, "FLOP") in lines[1]
    assert quantity(found.arena, "B") in lines[1]
    table = lines[lines.index("") + 1 :]
    assert len(table) == 2 + sum(len(step.writes) for step in found.steps)
    numbers = [int(line[:4]) for line in table[2:] if line[:4].strip()]
    assert numbers == list(range(len(found.steps)))
    assert max(map(len, lines)) < 200


def test_a_row_says_where_and_how_long() -> None:
    found = planned(perceptron(), N=7)
    first, second = str(found).splitlines()[-2:]
    hidden = next(buffer for buffer in found.buffers if buffer.place == "arena")
    assert first.split()[1:4] == ["gemm", "linear1:", "matmul;"]
    assert re.search(rf"700 +… *|{hidden.name} +float32\[N, 5\] +140 B +{hidden.offset} +1$", first)
    assert second.split()[1] == "|"  # it reads what the threads have just written
    assert second.endswith("output y")


def test_numbers_for_people() -> None:
    assert [quantity(n, "B") for n in (0, 7, 999, 1000, 999_600, 1_605_632, 12_345_678, 5 * 10**12)] == [
        "0 B", "7 B", "999 B", "1.00 kB", "1.00 MB", "1.61 MB", "12.3 MB", "5.00 TB",
    ]  # fmt: skip
    assert [duration(s) for s in (0.0123, 0.00012, 4.2e-6, 1.5e-9)] == ["12.3 ms", "0.12 ms", "4.2 µs", "0.00 µs"]
    assert [duration(s) for s in (0.9994, 0.9996, 1.5, 1234.0)] == ["999 ms", "1 s", "1.5 s", "1234 s"]
    assert milliseconds(0.0123456) == "12.346"
    assert shortened("abcdefghij", 5) == "ab…ij"
    assert shortened("abcde", 5) == begun("abcde", 5) == "abcde"
    assert begun("abcdefghij", 5) == "abcd…"
    assert aligned([["a", "n"], ["bbb", "1"], ["c", "22"]]) == ["a     n", "-------", "bbb   1", "c    22"]


# the pictures


def test_the_steps_stand_between_barriers() -> None:
    found = planned(classifier(), N=4)
    text = steps_dot(found)
    boxes = re.findall(r"^\t+(step\d+) \[", text, re.MULTILINE)
    copies = sum(step.region is None for step in found.steps)
    assert 0 < len(boxes) <= len(found.steps)
    assert len(boxes) >= len(found.steps) - copies
    bars = re.findall(r"^\t+(bar\d+) \[", text, re.MULTILINE)
    assert len(bars) == sum(step.barrier for step in found.steps[1:])
    assert "conv1" in text
    assert "reads conv1.weight 288 B" in text


def test_arrows_go_from_who_writes_to_who_reads_soon() -> None:
    found = planned(perceptron(), N=7)
    text = steps_dot(found)
    hidden = next(buffer for buffer in found.buffers if buffer.place == "arena")
    (arrow,) = (line for line in text.splitlines() if "step0 -> step1" in line)
    assert f"{hidden.name} 140 B" in arrow


def test_the_memory_is_a_rectangle_for_each_value() -> None:
    found = planned(classifier(), N=4)
    root = ET.fromstring(arena_svg(found))
    titles = [element.text or "" for element in root.iter(f"{NAMESPACE}title")]
    held = {b for step in found.steps for b in (*step.touched, *step.reads.values()) if b.place == "arena"}
    assert len(titles) == len(held)
    largest = max(held, key=lambda b: b.nbytes)
    wanted = f"{largest.name}: {quantity(largest.nbytes, 'B')} at {largest.offset}, steps {largest.first} to"
    assert any(title.startswith(wanted) for title in titles)


def test_a_plan_without_values_between_its_steps() -> None:
    net = mg.Builder("net")
    found = planned(net.build(y=mg.exp(net.input("x", (3,)))))
    assert found.arena == 0
    assert ET.fromstring(arena_svg(found)).tag == f"{NAMESPACE}svg"
    assert "step0" in steps_dot(found)


def test_draw_takes_a_plan(tmp_path: Path) -> None:
    found = planned(classifier(), N=4)
    if can_render("svg"):  # the wheel has no release for Python 3.10
        text = mg.draw(found, tmp_path / "plan.svg").read_text(encoding="utf-8")
        assert text.count("<svg") == 3  # the steps and the memory, in one
        assert "of memory between the steps" in text
    assert (mg.draw(found, tmp_path / "plan.dot")).read_text(encoding="utf-8").startswith("digraph")
    with pytest.raises(GraphError, match=r"draw needs a Graph, such as program\.graph, not a Plan"):
        mg.draw(found, tmp_path / "plan.svg", after=classifier())
    with pytest.raises(GraphError, match="a plan has steps, and no layers or rules to draw"):
        mg.draw(found, tmp_path / "plan.svg", expand="conv1")


@pytest.mark.compiler
def test_a_profile_colours_the_steps_of_its_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minigraph.driver.program.peak", lambda: Peak(1e11, 1e10, 2))
    graph = perceptron()
    program = mg.compile(graph, graph.init(seed=0), "c")
    profile = program.profile(repeats=1, x=np.ones((7, 8), "float32"))
    text = steps_dot(program.plan, profile)
    assert "#F08028" in text
    assert "a run; the darker" in text
    with pytest.raises(GraphError, match="the profile of 'perceptron' is of another plan"):
        steps_dot(planned(classifier(), N=4), profile)
