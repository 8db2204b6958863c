"""Pictures of graphs: `draw` writes one to a file, `svg` gives it to a notebook.

Two things make a picture of a large network readable. A layer is one box: conv1 with its bias, bn1 whatever its op was
lowered to. And layers that repeat, such as the blocks of a ResNet, are drawn once, in a dashed frame that says how
often. Repeated are runs of layers that follow each other and are equal in all but names: ops, attributes, types,
connections. What is computed from parameters alone is a formula in a small box.

With two graphs, before a pass and after it, the picture shows both side by side, and what went and what came.

A plan is drawn as its steps, and beside them the memory that its values share.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from minigraph.backends.plan import Plan
from minigraph.core.errors import expect
from minigraph.core.ir import Graph
from minigraph.core.rewrite import Refused
from minigraph.core.state import write_whole
from minigraph.driver.profile import Profile
from minigraph.tools.blueprint import arena_svg, steps_dot
from minigraph.tools.changes import changes
from minigraph.tools.dot import check_expand, dot
from minigraph.tools.render import FORMATS, INSTALL, can_render, render

GAP = 24  # points between two pictures side by side

# Graphviz writes every line of a box in one font; in SVG the first line can stand out as the title that it is.
_STYLE = (
    "<style>.minigraph-layer text:first-of-type, .minigraph-port text { font-weight: bold }"
    " .minigraph-layer text:not(:first-of-type) { font-size: 9px; fill: #333333 }</style>"
)


def draw(
    graph: Graph | Plan,
    path: str | os.PathLike[str],
    *,
    after: Graph | None = None,
    reasons: Iterable[Refused] = (),
    collapse: bool = True,
    expand: str | Sequence[str] = (),
    profile: Profile | None = None,
    timeout: float = 60.0,
) -> Path:
    """Write a picture of the graph to `path`: .svg, .png or .pdf, or .dot for its text in the language of Graphviz.

    graph: or a plan (`program.plan`): its steps and, in SVG, its memory; it takes a profile, and nothing to leave out.
    after: what `graph` became: both are drawn, side by side. Marked are the nodes that went, those that came, and those
        that have other inputs or attributes; nodes are the same by name and op.
    reasons: why rules were refused (of a `Step`): a number at the node, in the graph after, and the sentence below.
    collapse: draw layers that repeat once. False draws each.
    expand: patterns over names of layers ("conv1", "layer2.*", "*"): their nodes are drawn one by one. A pattern that
        names none is a GraphError.
    profile: of a program (`program.profile(...)`), whose graph this is, or the one that it was compiled from: each box
        has its time and speed, and is the darker the more of the time it takes. A repeat is drawn with the time of all.
    timeout: seconds after which Graphviz is stopped, with a GraphError.

    Returns the path written. Where the installed Graphviz cannot write that format, it is the best one that it can (the
    wheel of the extra `viz` writes SVG only), else .dot, beside `path`; a warning says so, and what to install.
    """
    _check(graph, after, profile)
    path = Path(path)
    format = path.suffix.removeprefix(".").lower()
    expect(format in (*FORMATS, "dot"), "{}: a picture is .svg, .png, .pdf or .dot, not {!r}", path, path.suffix)
    expect(after is None or format in ("svg", "dot"), "{}: two graphs are drawn as .svg or .dot, not .{}", path, format)
    if isinstance(graph, Plan):
        expect(not expand and not reasons, "a plan has steps, and no layers or rules to draw")
        sources = [steps_dot(graph, profile)]
    else:
        expand = (expand,) if isinstance(expand, str) else expand
        sources = _sources(graph, after, reasons, collapse, expand, profile)
    written = format if format == "dot" or can_render(format) else "svg" if can_render("svg") else "dot"
    target = path if written == format else path.with_suffix(f".{written}")
    pictures = [_data(source, written, timeout) for source in sources]
    if isinstance(graph, Plan) and written == "svg":
        pictures.append(arena_svg(graph).encode("utf-8"))
    write_whole(target, _beside(pictures) if written == "svg" and len(pictures) > 1 else b"\n".join(pictures))
    if written != format:
        warnings.warn(f"wrote {target} instead of .{format}; to have that, {INSTALL}", stacklevel=2)
    return target


def _check(graph: object, after: object, profile: object) -> None:
    """Raise GraphError for what cannot be drawn."""
    for given in (graph, *([] if after is None else [after])):
        known = isinstance(given, Graph) or (isinstance(given, Plan) and after is None)
        expect(known, "draw needs a Graph, such as program.graph, not a {}", type(given).__name__)
    expect(
        profile is None or isinstance(profile, Profile),
        "a profile is program.profile(...), not a {}",
        type(profile).__name__,
    )


def _sources(
    graph: Graph,
    after: Graph | None,
    reasons: Iterable[Refused],
    collapse: bool,
    expand: Sequence[str],
    profile: Profile | None,
) -> list[str]:
    """The DOT text of a graph; of two, where there is one after it."""
    check_expand(expand, graph, *([after] if after else []))
    if after is None:
        return [dot(graph, collapse, expand, reasons=reasons, profile=profile)]
    expect(profile is None, "a profile is of one graph: draw it without `after`")
    return list(before_and_after(graph, after, reasons, collapse, expand))


def before_and_after(
    before: Graph, after: Graph, reasons: Iterable[Refused] = (), collapse: bool = True, expand: Sequence[str] = ()
) -> tuple[str, str]:
    """The DOT texts of two graphs, with what went, what came and what changed."""
    found = changes(before, after)
    return (
        dot(before, collapse, expand, title="before", marks=found.before),
        dot(after, collapse, expand, title="after", marks=found.after, reasons=reasons),
    )


def svg(graph: Graph) -> str | None:
    """The picture as SVG, for notebooks; None where no Graphviz is installed. GraphError after 20 seconds."""
    return _data(dot(graph), "svg", 20.0).decode("utf-8") if can_render("svg") else None


def _data(source: str, format: str, timeout: float) -> bytes:
    if format == "dot":
        return source.encode("utf-8")
    data = render(source, format, timeout)
    if format == "svg":
        end = data.index(b">", data.index(b"<svg")) + 1
        data = data[:end] + b"\n" + _STYLE.encode() + data[end:]
    return data


def _beside(pictures: Sequence[bytes]) -> bytes:
    """SVGs next to each other in one, with a gap and their tops at one height. Their sizes are in points."""
    parts: list[str] = []
    right = bottom = 0.0
    for picture in pictures:
        text = picture[picture.index(b"<svg") :].decode("utf-8")
        size = re.match(r'<svg width="([\d.]+)pt" height="([\d.]+)pt"', text)
        assert size is not None
        left, width, height = right + (GAP if parts else 0), float(size[1]), float(size[2])
        parts.append(f'<svg x="{left:g}" width="{width:g}" height="{height:g}"{text[size.end() :]}')
        right, bottom = left + width, max(bottom, height)
    size_of_all = f'width="{right:g}pt" height="{bottom:g}pt" viewBox="0 0 {right:g} {bottom:g}"'
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return "\n".join([f"<svg {size_of_all} {names}>", *parts, "</svg>\n"]).encode("utf-8")
