"""A page to step through a pipeline: one HTML file with all that each pass did, for any browser, without a network.

What it shows of a pass: the graph before and after as pictures, with what went, what came and what changed; the rules
that fired; why others did not; and the difference between the two graphs as text. page.html is its frame, page.css its
looks, page.js what happens at a key or a click.
"""

from __future__ import annotations

import html
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from difflib import unified_diff
from pathlib import Path
from string import Template

from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph
from minigraph.core.pipeline import Optimized, Step
from minigraph.core.rewrite import Fired, Refused
from minigraph.core.state import write_whole
from minigraph.tools.dot import dot
from minigraph.tools.draw import before_and_after
from minigraph.tools.labels import size_text
from minigraph.tools.outline import count
from minigraph.tools.render import INSTALL, can_render, render_all

HERE = Path(__file__).parent
SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


def page(optimized: Optimized, path: str | os.PathLike[str], *, timeout: float = 60.0) -> Path:
    """Write the page of a pipeline to `path`, an .html file, and return that.

    timeout: seconds after which the layout of one picture is stopped; a sentence then stands in its place, as one does
    in place of all pictures where no Graphviz is installed.
    """
    expect(
        isinstance(optimized, Optimized),
        "a page needs what mg.optimize(...) gives, or program.optimized, not a {}",
        type(optimized).__name__,
    )
    path = Path(path)
    expect(path.suffix.lower() in (".html", ".htm"), "{}: a page is .html, not {!r}", path, path.suffix)
    pictures = _Pictures()
    sections = [_given(optimized.source, pictures), *(_pass(step, pictures) for step in optimized.steps)]
    sections.append(_result(optimized, pictures))
    frame = Template(_read("page.html"))
    text = frame.substitute(
        title=_escaped(f"{optimized.source.name}, pass by pass"),
        style=_read("page.css"),
        script=_read("page.js"),
        summary=f"{_nodes(optimized.source, optimized.graph)} in {len(optimized.steps)} passes, "
        f"{_time(sum(step.seconds for step in optimized.steps))}",
        entries="\n".join(_entries(optimized)),
        sections="\n".join(_section(i, len(sections), section) for i, section in enumerate(sections)),
        pictures="\n".join(pictures.rendered(timeout)),
    )
    write_whole(path, text.encode("utf-8"))
    return path


class _Pictures:
    """The pictures of a page, each kept once however often it is shown."""

    def __init__(self) -> None:
        self._sources: dict[str, int] = {}

    def place(self, source: str) -> str:
        """The element in which the picture of this DOT text is shown."""
        return f'<div data-picture="{self._sources.setdefault(source, len(self._sources))}"></div>'

    def rendered(self, timeout: float) -> Iterable[str]:
        """The elements to be moved to their places."""
        if not can_render("svg"):
            return []
        found = render_all(list(self._sources), timeout)
        shown = [f"<p>{_escaped(p)}</p>" if isinstance(p, GraphError) else _inline(p) for p in found]
        return [f'<div id="picture{i}">{picture}</div>' for i, picture in enumerate(shown)]


def _inline(picture: bytes) -> str:
    """An SVG of Graphviz as a part of a page: without names that would occur twice, its tooltips as titles."""
    root = ET.fromstring(picture)
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        element.attrib.pop("id", None)
        title = element.find(f"{SVG}title")
        if title is not None:  # the name of a place, which means nothing to people
            element.remove(title)
        tooltip = element.attrib.pop(f"{LINK}title", None)
        if tooltip is not None:
            element.tag = "g"
            element.insert(0, ET.Element("title"))
            element[0].text = tooltip
    for name in ("width", "height"):
        del root.attrib[name]
    root.set("role", "img")
    return ET.tostring(root, encoding="unicode")


# what stands in the sections: a heading, and below it the parts


def _given(graph: Graph, pictures: _Pictures) -> tuple[str, str]:
    about = f'<p class="about">The graph as it was given: {size_text(graph)}.</p>'
    return "given", about + _view(pictures.place(dot(graph))) + _whole_text(graph)


def _pass(step: Step, pictures: _Pictures) -> tuple[str, str]:
    fired = f"{len(step.fired)} rule{'s' * (len(step.fired) != 1)} fired"
    facts = f"{_nodes(step.before, step.after)} · {fired} · {_time(step.seconds)}"
    parts = [f'<p class="about">{_escaped(_first_paragraph(step.about))}</p>', f'<p class="facts">{facts}</p>']
    if step.facts:
        names = ", ".join(dict.fromkeys(name for fact in step.facts for name in fact.reads))
        parts.append(f"<p>This rests on what these numbers were: <code>{_escaped(names)}</code></p>")
    reasons = _at_nodes(step.refused, step.after)
    if step.after is step.before:
        parts += ["<p>This pass changed nothing.</p>", _view(pictures.place(dot(step.after, reasons=reasons)))]
    else:
        parts.append(_view(*map(pictures.place, before_and_after(step.before, step.after, reasons))))
    parts += [_fired(step.fired), _refused(step.refused, "Why other rules did not fire")]
    if step.after is not step.before:
        parts.append(_difference(step.before, step.after))
    return step.name, "".join(parts)


def _result(optimized: Optimized, pictures: _Pictures) -> tuple[str, str]:
    graph, reasons = optimized.graph, optimized.refused
    about = f'<p class="about">The graph after all passes: {size_text(graph)}.</p>'
    picture = _view(pictures.place(dot(graph, reasons=_at_nodes(reasons, graph))))
    return "result", about + picture + _refused(reasons, "Reasons that are left") + _whole_text(graph)


def _view(*places: str) -> str:
    if not can_render("svg"):
        return f"<p><strong>There are no pictures here.</strong> To have them, {_escaped(INSTALL)}.</p>"
    buttons = (("0", "Fit to width"), ("0.8", "− Smaller"), ("1.25", "+ Larger"))
    zoom = "".join(f'<button type="button" data-factor="{factor}">{label}</button>' for factor, label in buttons)
    if len(places) > 1:
        zoom += '<button type="button" data-stack>Stack / side by side</button>'
    return f'<div class="zoom">{zoom}</div><div class="view" tabindex="0">{"".join(places)}</div>'


def _fired(fired: Sequence[Fired]) -> str:
    if not fired:
        return ""
    rows = [(f.rule, f.at, ", ".join(f.sources), ", ".join(f.made)) for f in fired]
    return "<h3>Rules that fired</h3>" + _table(("rule", "at", "replaced", "made"), rows)


def _refused(refused: Sequence[Refused], title: str) -> str:
    if not refused:
        return ""
    rows = [(r.rule, r.at, r.why) for r in refused]
    return f"<h3>{title}</h3>" + _table(("rule", "at", "why not"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f'<th scope="col">{name}</th>' for name in head)
    words = {i for i, name in enumerate(head) if name == "why not"}
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=words' if i in words else ''}>{_escaped(text)}</td>" for i, text in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f'<div class="table" tabindex="0"><table><tr>{cells}</tr>{body}</table></div>'


def _difference(before: Graph, after: Graph) -> str:
    """The lines of the text that went and came, with two others around them."""
    lines = []
    for line in list(unified_diff(str(before).splitlines(), str(after).splitlines(), lineterm="", n=2))[2:]:
        sign, text = {"-": "− ", "+": "+ ", " ": "  ", "@": ""}[line[0]], line[1:]
        kind = {"-": "went", "+": "came", " ": "same", "@": "gap"}[line[0]]
        lines.append(f'<span class="{kind}">{sign}{"⋯" if kind == "gap" else _line(text)}</span>')
    return f'<h3>The difference as text</h3><pre tabindex="0">{"".join(lines)}</pre>' if lines else ""


def _whole_text(graph: Graph) -> str:
    lines = "".join(f"<span>{_line(line)}</span>" for line in str(graph).splitlines())
    return f'<h3>As text</h3><pre tabindex="0">{lines}</pre>'


def _line(line: str) -> str:
    """A line of a graph's text, with what stands behind its @ paler."""
    call, at, origin = line.partition("   @ ")
    return _escaped(call) + (f"<i>{_escaped(at + origin)}</i>" if at else "")


# the frame


def _entries(optimized: Optimized) -> list[str]:
    """What the list on the left says of each section."""
    entries = [("given", size_text(optimized.source), "")]
    for step in optimized.steps:
        done = f"{_nodes(step.before, step.after)} · {len(step.fired)} fired"
        done = "changed nothing" if step.after is step.before else done
        idle = ' class="idle"' if step.after is step.before else ""
        entries.append((step.name, f"{done} · {_time(step.seconds)}", idle))
    entries.append(("result", size_text(optimized.graph), ""))
    return [
        f'<li><a href="#{i}"{kind}>{i} {_escaped(name)}<small>{facts}</small></a></li>'
        for i, (name, facts, kind) in enumerate(entries)
    ]


def _section(number: int, count: int, section: tuple[str, str]) -> str:
    name, body = section
    back = f'<a href="#{number - 1}" rel="prev">← previous</a>' if number else "<span>← previous</span>"
    on = f'<a href="#{number + 1}" rel="next">next →</a>' if number + 1 < count else "<span>next →</span>"
    return f"<section><header><h2>{number} {_escaped(name)}</h2>{back}{on}</header>{body}</section>"


def _at_nodes(reasons: Iterable[Refused], graph: Graph) -> list[Refused]:
    names = {node.name for node in graph.nodes}
    return [reason for reason in reasons if reason.at in names]


def _first_paragraph(text: str) -> str:
    """All that a docstring says first; its other paragraphs are for those who call the function."""
    return " ".join(text.strip().partition("\n\n")[0].split())


def _nodes(before: Graph, after: Graph) -> str:
    """How many nodes there were, and are; those on parameters apart."""
    (seen, frozen), (sees, freezes) = count(before), count(after)
    return f"{seen} → {sees} nodes" + (f", {frozen} → {freezes} on parameters" if frozen != freezes else "")


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}\u00a0ms" if seconds < 1 else f"{seconds:.2f}\u00a0s"


def _escaped(text: object) -> str:
    return html.escape(str(text))


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
