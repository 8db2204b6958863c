"""Pictures: what they show, where they go, and what happens without Graphviz."""

import importlib.util
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

import minigraph as mg
from minigraph import layers
from minigraph.core.dim import size
from minigraph.core.initial import Constant
from minigraph.core.ir import Node, Origin, Type, Value, Variable
from minigraph.core.rewrite import Refused
from minigraph.tools import render as rendering
from minigraph.tools.dot import dot
from minigraph.tools.draw import before_and_after, draw, svg
from minigraph.tools.labels import formula
from minigraph.tools.outline import count, outline
from minigraph.tools.repeats import repeats
from minigraph.tools.sketch import Sketch
from passes_by_hand import block as bn_block
from passes_by_hand import tower


def lenet() -> mg.Graph:
    net = mg.Builder("lenet")
    image, label = net.input("image", ("N", 1, 28, 28)), net.input("label", ("N",), "int64")
    h = image
    for channels in (32, 64):
        h = layers.conv2d(h, channels, 5, padding="same")
        h = mg.max_pool(mg.relu(layers.batch_norm(h)), 2)
    logits = layers.linear(mg.flatten(h), 10)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def mlp(depth: int) -> mg.Graph:
    net = mg.Builder("mlp")
    h = net.input("x", ("N", 8))
    for _ in range(depth):
        h = mg.relu(layers.linear(h, 8))
    return net.build(loss=mg.mean(h))


def block(x: mg.Tensor, channels: int, stride: int) -> mg.Tensor:
    y = layers.conv2d(x, channels, 3, stride=stride, padding=1, bias=False)
    y = layers.conv2d(mg.relu(layers.batch_norm(y)), channels, 3, padding=1, bias=False)
    if stride > 1:
        x = layers.batch_norm(layers.conv2d(x, channels, 1, stride=stride, bias=False))
    return mg.relu(layers.batch_norm(y) + x)


def resnet(name: str, blocks: int, stages: tuple[int, ...]) -> mg.Graph:
    """A ResNet of basic blocks: ResNet-20 is three stages of three, ResNet-18 four of two."""
    net = mg.Builder(name)
    image, label = net.input("image", ("N", 3, 32, 32)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.conv2d(image, stages[0], 3, padding=1, bias=False)))
    for i, channels in enumerate(stages):
        for j in range(blocks):
            with net.scope(f"stage{i + 1}.block{j + 1}"):
                h = block(h, channels, 2 if i and not j else 1)
    logits = layers.linear(mg.global_avg_pool(h), 10)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def step(model: mg.Graph) -> mg.Graph:
    return mg.training_step(model, "loss", mg.optim.SGD(0.1, momentum=0.9))


def names(graph: mg.Graph) -> list[str]:
    return [layer.name for layer in outline(graph).layers]


def sketch(graph: mg.Graph) -> Sketch:
    whole = outline(graph)
    return Sketch(whole, (), repeats(whole))


def shown(graph: mg.Graph, path: Path, **options: Any) -> list[str]:
    """The words of a picture; where no Graphviz is installed, those of its text."""
    if rendering.can_render("svg"):
        return words(draw(graph, path, **options).read_bytes())
    with pytest.warns(UserWarning, match="to have that, install"):
        text = draw(graph, path, **options).read_text(encoding="utf-8")
    labels = [quoted or bare for quoted, bare in re.findall(r'label=(?:"((?:[^"\\]|\\.)*)"|(\w+))', text)]
    lines = [line for label in labels for line in re.split(r"(?<!\\)\\[nl]", label)]
    return [re.sub(r"\\(.)", r"\1", line).replace("&amp;", "&").strip() for line in lines if line]


def words(picture: str | bytes) -> list[str]:
    found = ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")
    return [(text.text or "").replace("\N{NO-BREAK SPACE}", " ").strip() for text in found]


def program(folder: Path, code: str) -> None:
    """A dot that runs this code."""
    (folder / "dot").write_text(f"#!{sys.executable}\n{code}\n")
    (folder / "dot").chmod(0o755)


@pytest.fixture
def no_dot(monkeypatch, tmp_path):
    """A PATH on which there is no dot."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def nothing(no_dot, monkeypatch):
    """Neither dot nor the wheel."""
    monkeypatch.setattr(rendering, "find_spec", lambda name: None)


# layers


def test_a_layer_is_one_thing_in_every_role():
    whole = outline(step(lenet()))
    assert [layer.name for layer in whole.layers] == [
        "conv1", "bn1", "relu", "max_pool", "conv2", "bn2", "relu2", "max_pool2", "reshape", "linear1", "cross_entropy",
        "optimizer",
    ]  # fmt: skip
    bn = whole.layers[1]
    assert [node.op.name for node in bn.nodes["forward"]] == ["batch_norm"]
    assert [node.op.name for node in bn.nodes["backward"]] == ["batch_norm_gradient"]
    assert {node.op.name for node in bn.nodes["statistic"]} >= {"count", "running_average"}
    assert bn.nodes["update"]
    assert {v.name for v in bn.state} == {
        "bn1.gamma", "bn1.beta", "bn1.running_mean", "bn1.running_var", "optimizer.bn1.gamma.velocity",
        "optimizer.bn1.beta.velocity",
    }  # fmt: skip


@pytest.mark.parametrize("clip", [None, 1.0])
def test_every_node_but_numbers_is_in_one_layer(clip):
    optimizer = mg.optim.AdamW(mg.optim.warmup(5, 0.1))
    graph = mg.training_step(lenet(), "loss", optimizer, clip_norm=clip, accumulate=2)
    found = [node for layer in outline(graph).layers for nodes in layer.nodes.values() for node in nodes]
    wanted = [node for node in graph.nodes if not (node.op.name == "fill" and node.outputs[0].type.shape == ())]
    assert len(found) == len(wanted)
    assert set(found) == set(wanted)


def test_shared_weights_are_two_uses():
    net = mg.Builder("twins")
    ends = []
    for side in ("left", "right"):
        x = net.input(side, ("N", 4))
        with net.scope("tower", share=True):
            ends.append(layers.batch_norm(mg.relu(layers.linear(x, 4))))
    graph = net.build(y=ends[0] - ends[1])
    assert names(graph) == [
        "tower.linear1", "tower.relu", "tower.bn1", "tower.linear1 (use 2)", "tower.relu2", "tower.bn1 (use 2)", "sub",
    ]  # fmt: skip
    bn, again = outline(graph).layers[2], outline(graph).layers[5]
    assert len(bn.nodes["statistic"]) == len(again.nodes["statistic"]) == 3  # count, mean and variance
    assert sketch(graph).notes["forward3"] == {"linear1.weight": None, "linear1.bias": None}


SIDE = """graph "side"
input x: float32[N, 4]
parameter a.w: float32[4] = Constant(value=1.0)
parameter a.b: float32[4] = Constant(value=1.0)
statistic s: float32[4] = Constant(value=0.0)
a.mul: float32[4] = mul(a.b, a.w)   @ forward a
a.add: float32[4] = add(a.mul, a.b)   @ forward a
a.mul2: float32[N, 4] = mul(x, a.w)   @ forward a
s.add: float32[4] = add(s, a.add)   @ statistic a
relu: float32[N, 4] = relu(a.mul2)   @ forward -
output y = relu
update s <- s.add
"""


def test_what_is_computed_for_statistics_alone_is_no_layer():
    whole = outline(mg.parse(SIDE))
    assert [layer.name for layer in whole.layers] == ["a", "relu"]
    assert [node.name for node in whole.layers[0].nodes["forward"]] == ["a.mul", "a.add", "a.mul2"]
    assert [node.name for node in whole.layers[0].nodes["statistic"]] == ["s.add"]


# repeats


def test_blocks_of_a_resnet_are_drawn_once():
    whole = outline(step(resnet("resnet20", 3, (16, 32, 64))))
    found = [(whole.layers[r.start].name, r.length, r.times) for r in repeats(whole)]
    assert found == [("stage1.block1.conv1", 7, 3), ("stage2.block2.conv1", 7, 2), ("stage3.block2.conv1", 7, 2)]
    text = dot(whole.graph)
    assert "3 ×  stage1.block1, stage1.block2, stage1.block3" in text
    assert "stage2.block1" in text  # it halves the image, and is like no other
    assert dot(whole.graph, collapse=False).count("cluster_0") == 9


def test_repeats_need_no_scopes():
    whole = outline(mlp(8))
    (repeat,) = repeats(whole)
    assert (repeat.start, repeat.length, repeat.times) == (
        2,
        2,
        7,
    )  # the first reads an input
    assert "7 ×  (linear2 to relu2), (linear3 to relu3), … , (linear8 to relu8)" in dot(mlp(8))


def test_a_repeat_ends_where_something_differs():
    net = mg.Builder("skip")
    x = net.input("x", ("N", 8))
    ends = []
    for features in (8, 8, 8, 16, 16):
        ends.append(x := mg.relu(layers.linear(x, features)))
    whole = outline(net.build(y=x))
    assert [(r.start, r.length, r.times) for r in repeats(whole)] == [(2, 2, 2)]
    # Where the end of the first run is read behind the second, one cannot stand for both.
    read = outline(net.build(y=x, z=ends[4] + layers.linear(ends[1], 16)))
    assert [(r.start, r.length, r.times) for r in repeats(read)] == [(1, 2, 2)]


# what is drawn


def test_forward_values_that_the_backward_reads_are_notes():
    found = sketch(step(lenet()))
    assert found.notes["backward4"] == {"max_pool": None}  # conv2's gradient
    assert set(found.notes["backward1"]) == {"conv1", "bn1.mean", "bn1.var"}
    assert not any(a.startswith("forward") and b.startswith("backward") for a, b in found.edges)


def test_shapes_stand_on_edges():
    found = sketch(step(lenet()))
    assert list(found.edges["forward0", "forward1"].labels) == ["N×32×28×28"]
    assert list(found.edges["backward5", "backward4"].labels) == ["N×64×14×14"]
    assert list(found.edges["input1", "forward10"].labels) == ["N int64"]


def test_numbers_are_written_into_the_node_that_reads_them():
    net = mg.Builder("numbers")
    x = net.input("x", ("N", 3))
    text = dot(net.build(y=1.0 / (x * 0.25)), expand=["*"])
    assert "mul 0.25" in text
    assert "div 1, ·" in text
    assert 'label="fill' not in text


def test_roles_have_their_colours_and_words():
    text = dot(step(lenet()))
    for look, word in (("#DCEBF7", "conv1"), ("#FCE4D4", "conv1 gradient"), ("#F5E6F0", "bn1 statistics"),
                       ("#D9F0E6", "conv1 update")):  # fmt: skip
        assert any(look in line and f'label="{word}' in line for line in text.splitlines()), word
    assert "cylinder" in text


def test_expanding_shows_the_nodes_of_a_layer():
    text = dot(lenet(), expand=["conv2"])
    assert "conv padding 2 · add" in text  # conv1 stays as it was
    assert 'label="conv\\npadding 2"' in text
    assert text.count("[label=reshape ") == 2  # that of conv2's bias, and the layer


def test_expanding_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(mg.GraphError, match=r"no layer is called like 'conv9\*'; there are conv1, bn1, relu, "):
        draw(lenet(), tmp_path / "net.svg", expand=["conv1", "conv9*"])


# what is computed from parameters alone


def test_arithmetic_on_parameters_belongs_to_the_layer_that_reads_it():
    whole = outline(bn_block(True))
    assert [layer.name for layer in whole.layers] == ["conv1", "bn1", "relu"]
    conv, bn, _ = whole.layers
    assert [node.name for node in conv.frozen] == ["bn1.reshape", "bn1.mul"]
    assert [node.op.name for node in conv.nodes["forward"]] == ["conv"]
    assert [node.op.name for node in bn.frozen] == ["add", "sqrt", "div", "mul", "sub", "reshape"]
    assert [v.name for v in conv.state] == ["conv1.weight"]
    assert [v.name for v in bn.state] == ["bn1.gamma", "bn1.beta", "bn1.running_mean", "bn1.running_var"]
    assert count(whole.graph) == (3, 8)


def test_arithmetic_on_parameters_is_a_formula():
    found = sketch(bn_block(True))
    assert list(found.formulas.values()) == [
        ("weight × bn1.gamma / √(bn1.running_var + 1e-05)",),
        ("beta − gamma / √(running_var + 1e-05) × running_mean",),
    ]
    assert [len([n for n in nodes if n.op.name != "fill"]) for nodes in found.frozen.values()] == [5, 6]
    text = dot(found.graph)
    assert "(5 ops on parameters)" in text
    assert "label=mul " not in text
    assert "label=mul " in dot(found.graph, expand=["conv1"])  # node by node, where that is asked for


def test_parameters_that_are_trained_are_not_frozen():
    assert count(step(lenet()))[1] == 0
    assert count(lenet())[1] == 3  # two reshapes of biases and a transpose: what only lays out anew is no formula
    assert not sketch(lenet()).formulas
    assert dot(lenet()).count("cylinder") == 7


def test_formulas_have_the_brackets_they_need():
    net = mg.Builder("formula")
    a, b = net.parameter("a", (3,), mg.init.ones), net.parameter("b", (3,), mg.init.ones)
    for built, text in (
        (a - (b - a), "a − (b − a)"),
        (a - b - a, "a − b − a"),
        ((a + b) * a, "(a + b) × a"),
        (a / (b * a), "a / (b × a)"),
        (mg.reshape(a + b, (3, 1)) * 2.0, "(a + b) × 2"),
        (mg.exp(a + b), "exp(a + b)"),
    ):
        assert formula(net.build(y=built), built.value, {}) == text
    for _ in range(12):
        a = a * b + a
    assert formula(net.build(y=a), a.value, {}).count("…") > 1
    for _ in range(2000):
        a = mg.exp(a)
    assert len(formula(net.build(y=a), a.value, {})) <= 100


# a pass


def test_a_pass_is_shown_by_what_went_came_and_changed(tmp_path):
    found = shown(bn_block(False), tmp_path / "fold.svg", after=bn_block(True))
    assert {"− bn1", "+ bn1", "≠ conv1", "≠ relu"} <= set(found)
    assert {"before: 3 nodes, 5 states", "after: 3 nodes and 8 on parameters, 5 states"} <= set(found)
    legend = ("− went (red, dashed),", "+ came (green, bold),", "≠ changed in place (yellow, double)")
    assert all(any(words in line for line in found) for words in legend)


def test_colour_is_not_the_only_sign():
    before, after = before_and_after(bn_block(False), bn_block(True))
    (went,) = [line for line in before.splitlines() if 'label="− bn1' in line]
    (came,) = [line for line in after.splitlines() if 'label="+ bn1' in line]
    (changed,) = [line for line in after.splitlines() if 'label="≠ relu' in line]
    assert "dashed" in went
    assert "penwidth=2.6" in came
    assert "peripheries=2" in changed


def test_in_a_box_that_changed_in_part_the_ops_have_signs():
    net = mg.Builder("twice")
    with net.scope("layer"):
        x = net.input("x", ("N", 3)) * net.parameter("w", (3,), mg.init.ones)
        one = net.build(y=x)
        two = net.build(y=x + 1.0)
    before, after = before_and_after(one, two)
    assert 'label="layer\\nmul"' in before
    assert 'label="≠ layer\\nmul · + add"' in after


def test_what_is_only_laid_out_anew_has_no_say_in_the_mark_of_arithmetic():
    def with_bias(scaled: bool) -> mg.Graph:
        net = mg.Builder("bias")
        x = net.input("x", ("N", 3, 4, 4))
        with net.scope("layer"):
            b = mg.reshape(net.parameter("b", (3,), mg.init.ones), (3, 1, 1))
            return net.build(y=x + (b * b if scaled else b))

    assert 'label="+ b × b\\n(2 ops on parameters)"' in before_and_after(with_bias(False), with_bias(True))[1]


def test_repeats_end_where_the_marks_do():
    graph = tower(6)
    whole = outline(graph)
    assert [r.times for r in repeats(whole)] == [5]
    marks = {whole.layers[6].nodes["forward"][0]: "changed"}
    assert [(r.start, r.stop) for r in repeats(whole, frozenset(), marks)] == [(2, 6), (7, 11)]  # none holds 6
    assert "≠ linear4" in dot(graph, marks=marks)


def test_reasons_have_a_number_and_a_sentence(tmp_path):
    reasons = [
        Refused("fold", "conv1.conv", "its output is also read by relu"),
        Refused("fuse", "relu", "it is an output"),
        Refused("fuse", "conv1.conv", "it has no bias"),
    ]
    found = shown(bn_block(False), tmp_path / "net.svg", reasons=reasons)
    assert {"conv1 ¹ ³", "relu ²", "1 conv1.conv, not fold: its output is also read by relu"} <= set(found)
    found = shown(bn_block(False), tmp_path / "net.svg", after=bn_block(True), reasons=reasons)
    assert {"≠ conv1 ¹ ³", "2 relu, not fuse: it is an output"} <= set(found)


def test_reasons_that_are_alike_share_a_number():
    reasons = [Refused("fuse", f"linear{i}.matmul", f"the bias of linear{i} moves") for i in (2, 3, 4)]
    found = Sketch(outline(tower(4)), (), repeats(outline(tower(4))), reasons=reasons)
    assert found.sentences == ["linear2.matmul, not fuse: the bias of linear2 moves (and at 2 more like it)"]


def test_a_reason_at_no_node_is_an_error(tmp_path):
    with pytest.raises(mg.GraphError, match="fuse was refused at 'gone', which is no node"):
        draw(lenet(), tmp_path / "net.svg", reasons=[Refused("fuse", "gone", "")])


def test_layers_of_either_graph_can_be_expanded(tmp_path):
    net = mg.Builder("other")
    with net.scope("new"):
        other = net.build(y=mg.tanh(net.input("x", (3,))))
    assert "+ new" in "".join(shown(lenet(), tmp_path / "net.svg", after=other, expand="new"))
    with pytest.raises(mg.GraphError, match=r"no layer is called like 'newer'; there are conv1, .*, new"):
        draw(lenet(), tmp_path / "net.svg", after=other, expand="newer")


def test_two_graphs_are_svg_or_dot(tmp_path, nothing):
    with pytest.raises(mg.GraphError, match=r"two graphs are drawn as \.svg or \.dot, not \.png"):
        draw(lenet(), tmp_path / "net.png", after=lenet())
    text = draw(lenet(), tmp_path / "net.dot", after=lenet()).read_text(encoding="utf-8")
    assert text.count("digraph minigraph {") == 2


def test_two_pictures_are_one_document(tmp_path):
    if rendering.can_render("svg"):
        root = ET.parse(draw(bn_block(False), tmp_path / "net.svg", after=bn_block(True))).getroot()
        left, right = root.findall("{http://www.w3.org/2000/svg}svg")
        assert float(right.attrib["x"]) > float(left.attrib["width"])
        assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(
            float(right.attrib["x"]) + float(right.attrib["width"]), abs=0.1
        )


# rendering


def test_a_picture_shows_every_layer(tmp_path):
    found = shown(step(lenet()), tmp_path / "deep" / "lenet.svg")
    assert {"conv1", "bn2 gradient", "linear1 update", "image", "logits", "loss", "N×32×28×28"} <= set(found)
    assert len(list((tmp_path / "deep").iterdir())) == 1  # nothing half written is left
    assert mg.draw is draw


def test_notebooks_show_the_picture():
    picture = lenet()._repr_svg_()  # type: ignore[attr-defined]
    assert "cross_entropy" in words(picture) if rendering.can_render("svg") else picture is None


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_without_dot_the_wheel_writes_svg(tmp_path, no_dot, suffix):
    best = ".svg" if rendering.can_render("svg") else ".dot"  # the wheel has no release for Python 3.10
    if suffix == best:
        path = draw(lenet(), tmp_path / f"net{suffix}")
    else:
        with pytest.warns(UserWarning, match=rf"net\{best} instead of \{suffix}; to have that, install Graphviz"):
            path = draw(lenet(), tmp_path / f"net{suffix}")
    assert path == tmp_path / f"net{best}"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert b"linear1" in path.read_bytes()


@pytest.mark.parametrize("dot_is_there", [True, False])
def test_several_pictures_at_once_one_of_them_wrong(dot_is_there, tmp_path, monkeypatch):
    if not dot_is_there:
        monkeypatch.setenv("PATH", str(tmp_path))
    if rendering.can_render("svg"):
        first, wrong, last = rendering.render_all(["digraph {first}", "digraph {", "digraph {last}"], 60)
        assert isinstance(first, bytes)
        assert "first" in words(first)
        assert isinstance(wrong, mg.GraphError)
        assert isinstance(last, bytes)
        assert "last" in words(last)


def test_dot_is_asked_for_the_format_of_the_suffix(tmp_path, monkeypatch):
    program(tmp_path, "import sys; open(sys.argv[3], 'w').write(sys.argv[1] + sys.stdin.read()[:7])")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert draw(lenet(), tmp_path / "net.png").read_text() == "-Tpngdigraph"
    assert draw(lenet(), tmp_path / "net.pdf").read_text() == "-Tpdfdigraph"


def test_without_graphviz_there_is_the_text_and_a_sentence(tmp_path, nothing):
    with pytest.warns(UserWarning, match=r"net\.dot instead of \.svg; .*pip install 'minigraph\[viz\]'"):
        path = draw(lenet(), tmp_path / "net.svg")
    assert path == tmp_path / "net.dot"
    assert path.read_text(encoding="utf-8") == dot(lenet())
    assert svg(lenet()) is None


def test_the_text_is_always_to_be_had(tmp_path, nothing):
    assert draw(lenet(), tmp_path / "net.dot").read_text(encoding="utf-8").startswith("digraph")


def test_a_format_that_nobody_writes_is_an_error(tmp_path):
    with pytest.raises(mg.GraphError, match=r"a picture is \.svg, \.png, \.pdf or \.dot, not '\.gif'"):
        draw(lenet(), tmp_path / "net.gif")


def test_only_graphs_are_drawn(tmp_path):
    program = mg.compile(lenet(), lenet().init())
    with pytest.raises(mg.GraphError, match=r"draw needs a Graph, such as program\.graph, not a Program"):
        draw(program, tmp_path / "net.svg")  # type: ignore[arg-type]
    with pytest.raises(mg.GraphError, match="not a Optimized"):
        draw(lenet(), tmp_path / "net.svg", after=program.optimized)  # type: ignore[arg-type]


def test_a_layout_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    program(tmp_path, "import time; time.sleep(60)")
    monkeypatch.setenv("PATH", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(mg.GraphError, match=r"did not lay out the picture within 0\.2 s: give it more time"):
        draw(lenet(), tmp_path / "net.svg", timeout=0.2)
    assert time.monotonic() - start < 30
    assert not (tmp_path / "net.svg").exists()


def test_an_error_of_graphviz_is_told_and_leaves_the_old_picture(tmp_path, monkeypatch):
    (tmp_path / "net.svg").write_text("the old one")
    program(tmp_path, "import sys; sys.exit('syntax error in line 1')")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(mg.GraphError, match="Graphviz could not draw the picture: syntax error in line 1"):
        draw(lenet(), tmp_path / "net.svg")
    assert (tmp_path / "net.svg").read_text() == "the old one"
    assert {p.name for p in tmp_path.iterdir()} == {"dot", "net.svg"}


ODD = 'a"b\\N<x>&amp;|{}\\n\n<>'


def odd() -> mg.Graph:
    """A graph whose names mean something to Graphviz. Builders refuse such names; graphs made by hand may have them."""
    x, w = Value(Type((size("N"), 3)), ODD), Value(Type((3,)), f"{ODD}w")
    y = Value(Type((size("N"), 3)), "\\l&lt;")
    node = Node(mg.OPS["add"], (x, w), (y,), {}, "<b>", Origin(scope='s"<'))
    return mg.Graph(ODD, (x,), (Variable(w, Constant(0.0)),), (node,), {"<i>\\T</i>": y})


@pytest.mark.parametrize("expand", [(), ("*",)])
def test_names_are_shown_as_they_are(tmp_path, expand):
    found = shown(odd(), tmp_path / "odd.svg", expand=expand)
    odd_line = ODD.replace("\n", "\N{REPLACEMENT CHARACTER}")
    assert {odd_line, "<i>\\T</i>", f"{odd_line}w  3"} <= set(found)


def test_a_graph_of_nothing_is_drawn(tmp_path):
    assert shown(mg.Builder("nothing").build(), tmp_path / "net.svg") == ["nothing: 0 nodes, 0 states"]


def test_outputs_need_no_nodes(tmp_path):
    net = mg.Builder("identity")
    x, w = net.input("x", (3,)), net.parameter("w", (3,), mg.init.zeros)
    graph = net.build(same=x, weight=w, two=net.constant(2.0))
    assert {"same", "weight", "= w", "two", "= 2"} <= set(shown(graph, tmp_path / "net.svg"))


def test_a_large_training_step_is_drawn_in_seconds(tmp_path):
    graph = step(resnet("resnet18", 2, (64, 128, 256, 512)))
    assert len(graph.nodes) > 500
    start = time.monotonic()
    shown(graph, tmp_path / "net.svg", timeout=30)
    shown(graph, tmp_path / "nodes.svg", expand="*", collapse=False, timeout=30)
    assert time.monotonic() - start < 30  # measured: 0.7 s with dot, 5 s with the wheel


def test_pictures_do_not_depend_on_the_process():
    """Sets of values have no order of their own: none may leak into the text."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_draw as t; print(t.dot(t.step(t.lenet())));"
        "print(*t.before_and_after(t.bn_block(False), t.bn_block(True)))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    found = {subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
             for seed in ("1", "2")}  # fmt: skip
    assert len(found) == 1


def test_the_pictures_that_are_kept_show_what_is_drawn_today():
    folder = Path(__file__).parent.parent / "examples" / "pictures"
    specification = importlib.util.spec_from_file_location("pictures", folder / "draw.py")
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    lenet = mg.inference(script.lenet(), ["logits"])
    optimized = mg.optimize(lenet, lenet.init(0)).graph
    graphs = {"lenet_training": step(script.lenet()), "resnet20": script.resnet20()}
    graphs |= {"lenet_inference": lenet, "lenet_optimized": optimized}
    for name, graph in graphs.items():
        kept = {word.lstrip("−+≠ ") for word in words((folder / f"{name}.svg").read_bytes())}
        titles = {layer.title for layer in sketch(graph).layers}
        assert titles <= kept, f"draw {name} anew: python examples/pictures/draw.py"
