"""The page that steps through a pipeline: what stands in it, and that it needs nothing from outside."""

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from example_networks import networks

import minigraph as mg
from minigraph.core.frozen import Fact
from minigraph.core.pipeline import Optimized
from minigraph.core.rewrite import Fired
from minigraph.tools import render as rendering
from minigraph.tools.page import page
from passes_by_hand import block, pipeline

VOID = {"meta", "link", "img", "br"}


class Element:
    def __init__(self, tag: str, attributes: dict[str, str | None]):
        self.tag, self.attributes = tag, attributes
        self.children: list[Element | str] = []

    def find(self, tag: str, **attributes: str) -> Iterator["Element"]:
        """All elements below it of that tag with these attributes; `class_` is that of class, and "" any tag."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        for child in self.children:
            if isinstance(child, Element):
                if tag in ("", child.tag) and wanted.items() <= child.attributes.items():
                    yield child
                yield from child.find(tag, **attributes)

    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)


class Reader(HTMLParser):
    """Reads a page, and holds that what is opened is closed, in order."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(text)
        self.close()
        assert self.open == [self.root], self.open[-1].tag

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read(path: Path) -> Element:
    return Reader(path.read_text(encoding="utf-8")).root


def sections(root: Element) -> list[Element]:
    return list(root.find("section"))


@pytest.fixture
def no_graphviz(monkeypatch):
    monkeypatch.setattr(rendering, "can_render", lambda format: False)
    monkeypatch.setattr("minigraph.tools.page.can_render", lambda format: False)


def test_each_pass_has_a_section(tmp_path):
    root = read(page(pipeline(), tmp_path / "deep" / "page.html"))
    assert [next(s.find("h2")).text() for s in sections(root)] == ["0 given", "1 look", "2 fold", "3 result"]
    (entries,) = root.find("ol")
    assert [a.text() for a in entries.find("a")] == [
        "0 given3 nodes",
        "1 lookchanged nothing · 0.1\N{NO-BREAK SPACE}ms",
        "2 fold3 → 3 nodes, 0 → 8 on parameters · 1 fired · 1.50\N{NO-BREAK SPACE}s",
        "3 result3 nodes and 8 on parameters",
    ]
    assert [a.attributes["href"] for a in entries.find("a")] == ["#0", "#1", "#2", "#3"]
    back = [[a.attributes["href"] for a in s.find("a", rel="prev")] for s in sections(root)]
    assert back == [[], ["#0"], ["#1"], ["#2"]]
    on = [[a.attributes["href"] for a in s.find("a", rel="next")] for s in sections(root)]
    assert on == [["#1"], ["#2"], ["#3"], []]
    assert mg.page is page


def test_a_section_says_what_the_pass_did(tmp_path):
    _, look, fold, result = sections(read(page(pipeline(), tmp_path / "page.html")))
    assert "Finds nothing to do." in look.text()
    assert "This pass changed nothing." in look.text()
    assert not list(look.find("pre"))
    assert "Batch norms go into the weights." in fold.text()
    rows = [[cell.text() for cell in row.find("td")] for row in fold.find("tr")]
    assert rows == [
        [],
        ["fold", "bn1.batch_norm_inference", "conv1.conv, bn1.batch_norm_inference", "bn1.add2"],
        [],
        ["merge", "relu", "it is <no> sum & has one input"],
        ["merge", "gone", "it is not there"],
    ]
    assert "it is <no> sum" in result.text()  # it is left
    assert "gone" not in result.text()  # the node is not


def test_the_difference_is_of_whole_lines(tmp_path):
    fold = sections(read(page(pipeline(), tmp_path / "page.html")))[2]
    went = [line.text() for line in fold.find("span", class_="went")]
    came = [line.text() for line in fold.find("span", class_="came")]
    before, after = str(block(False)).splitlines(), str(block(True)).splitlines()
    assert went == [f"− {line}" for line in before if line not in after]
    assert came == [f"+ {line}" for line in after if line not in before]


def test_a_picture_is_kept_once(tmp_path):
    if not rendering.can_render("svg"):
        pytest.fail("install Graphviz, or the extra viz")
    root = read(page(pipeline(), tmp_path / "page.html"))
    places = [[p.attributes["data-picture"] for p in s.find("div") if "data-picture" in p.attributes]
              for s in sections(root)]  # fmt: skip
    assert places == [["0"], ["0"], ["1", "2"], ["3"]]
    (kept,) = root.find("div", id="pictures")
    assert [p.attributes["id"] for p in kept.children if isinstance(p, Element)] == [f"picture{i}" for i in range(4)]
    pictures = [picture.text() for picture in kept.find("svg")]
    assert "− bn1" in pictures[1]
    assert "+ bn1" in pictures[2]
    assert "1 relu, not merge: it is <no> sum & has one input" in pictures[3]
    tooltips = [title.text() for title in kept.find("title")]
    assert any(title.startswith("conv1.conv: float32[N, 4, 8, 8] = conv(x, conv1.weight)") for title in tooltips)


def test_ids_are_unique(tmp_path):
    root = read(page(pipeline(), tmp_path / "page.html"))
    ids = [element.attributes["id"] for element in root.find("") if "id" in element.attributes]
    assert len(ids) == len(set(ids))


def test_it_needs_nothing_from_outside(tmp_path):
    text = page(pipeline(), tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.findall(r"https?://|\bsrc=|<link|@import|url\(|fetch\(|import\(", text)
    assert text.count("<script>") == text.count("</script>") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


NASTY = """</script><script>alert(1)</script><b a="x" c='y'>&amp;$style ${title}"""


def test_names_are_shown_as_they_are(tmp_path):
    before = replace(block(False), name=NASTY)
    nodes = (*before.nodes[:-1], replace(before.nodes[-1], name=NASTY))
    after = replace(before, nodes=nodes)
    step = replace(pipeline().steps[1], name=NASTY, about=NASTY, before=before, after=after)
    step = replace(step, fired=(Fired(NASTY, NASTY, (NASTY,), (NASTY,)),))
    path = page(Optimized(before, after, (step,)), tmp_path / "page.html")
    root = read(path)
    assert len(list(root.find("script"))) == 1
    assert not list(root.find("b"))
    fold = sections(root)[1]
    assert next(fold.find("h2")).text() == f"1 {NASTY}"
    assert next(fold.find("p", class_="about")).text() == NASTY
    assert [cell.text() for cell in fold.find("td")][:4] == [NASTY] * 4
    assert next(root.find("h1")).text() == f"{NASTY}, pass by pass"


def test_of_a_docstring_the_first_paragraph_is_shown(tmp_path):
    step = replace(pipeline().steps[0], about="It does\n    this.\n\n    Raises an error.\n    ")
    given = pipeline().source
    section = sections(read(page(Optimized(given, given, (step,)), tmp_path / "page.html")))[1]
    assert next(section.find("p", class_="about")).text() == "It does this."


def test_a_pass_says_which_numbers_it_rests_on(tmp_path):
    step = pipeline().steps[1]
    values = step.before.values
    facts = tuple(Fact(values[name], (), lambda array: True, True) for name in ("bn1.gamma", "bn1.beta", "bn1.gamma"))
    optimized = Optimized(step.before, step.after, (replace(step, facts=facts),))
    section = sections(read(page(optimized, tmp_path / "page.html")))[1]
    assert "This rests on what these numbers were: bn1.gamma, bn1.beta" in section.text()


def test_a_pipeline_of_nothing_has_a_page(tmp_path):
    graph = mg.Builder("nothing").build()
    root = read(page(Optimized(graph, graph, ()), tmp_path / "page.html"))
    assert [next(s.find("h2")).text() for s in sections(root)] == ["0 given", "1 result"]


def test_without_graphviz_there_are_text_and_reasons(tmp_path, no_graphviz):
    root = read(page(pipeline(), tmp_path / "page.html"))
    assert not list(root.find("svg"))
    fold = sections(root)[2]
    assert "There are no pictures here. To have them, install Graphviz" in fold.text()
    assert "it is <no> sum" in fold.text()
    assert list(fold.find("span", class_="came"))


def test_a_picture_that_takes_too_long_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "dot").write_text(f"#!{sys.executable}\nimport time; time.sleep(60)")
    (tmp_path / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (kept,) = read(page(pipeline(), tmp_path / "page.html", timeout=0.2)).find("div", id="pictures")
    assert "Graphviz did not lay out the picture within 0.2 s" in kept.text()


def test_a_page_is_html(tmp_path):
    with pytest.raises(mg.GraphError, match=r"gives, or program\.optimized, not a Graph"):
        page(pipeline().source, tmp_path / "page.html")  # type: ignore[arg-type]
    with pytest.raises(mg.GraphError, match=r"a page is \.html, not '\.svg'"):
        page(pipeline(), tmp_path / "page.svg")


def test_the_page_of_a_resnet_takes_seconds(tmp_path):
    model = networks.resnet20()
    frozen = mg.inference(model, ["logits"])
    step = replace(pipeline().steps[1], before=model, after=frozen, fired=(), refused=())
    start = time.monotonic()
    path = page(Optimized(model, frozen, (step,) * 3), tmp_path / "page.html")
    assert time.monotonic() - start < 20  # measured: 0.2 s with dot, 2 s with the wheel
    assert len(list(next(read(path).find("div", id="pictures")).find("svg"))) == 4
