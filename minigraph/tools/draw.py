"""Pictures of graphs: `draw` writes one to a file, `svg` gives it to a notebook.

Two things make a picture of a large network readable. A layer is one box: conv1 with its bias, bn1 whatever its op was
lowered to. And layers that repeat, such as the blocks of a ResNet, are drawn once, in a dashed frame that says how
often. Repeated are runs of layers that follow each other and are equal in all but names: ops, attributes, types,
connections.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from minigraph.core.errors import expect
from minigraph.core.ir import Graph
from minigraph.core.state import write_whole
from minigraph.tools.dot import dot
from minigraph.tools.render import FORMATS, INSTALL, can_render, render

# Graphviz writes every line of a box in one font; in SVG the first line can stand out as the title that it is.
_STYLE = (
    "<style>.minigraph-layer text:first-of-type, .minigraph-port text { font-weight: bold }"
    " .minigraph-layer text:not(:first-of-type) { font-size: 9px; fill: #333333 }</style>"
)


def draw(
    graph: Graph,
    path: str | os.PathLike[str],
    *,
    collapse: bool = True,
    expand: str | Sequence[str] = (),
    timeout: float = 60.0,
) -> Path:
    """Write a picture of the graph to `path`: .svg, .png or .pdf, or .dot for its text in the language of Graphviz.

    collapse: draw layers that repeat once. False draws each.
    expand: patterns over names of layers ("conv1", "layer2.*", "*"): their nodes are drawn one by one. A pattern that
        names none is a GraphError.
    timeout: seconds after which Graphviz is stopped, with a GraphError.

    Returns the path written. Where the installed Graphviz cannot write that format, it is the best one that it can (the
    wheel of the extra `viz` writes SVG only), else .dot, beside `path`; a warning says so, and what to install.
    """
    path = Path(path)
    format = path.suffix.removeprefix(".").lower()
    expect(format in (*FORMATS, "dot"), "{}: a picture is .svg, .png, .pdf or .dot, not {!r}", path, path.suffix)
    source = dot(graph, collapse, (expand,) if isinstance(expand, str) else expand)
    written = format if format == "dot" or can_render(format) else "svg" if can_render("svg") else "dot"
    target = path if written == format else path.with_suffix(f".{written}")
    write_whole(target, _data(source, written, timeout))
    if written != format:
        warnings.warn(f"wrote {target} instead of .{format}; to have that, {INSTALL}", stacklevel=2)
    return target


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
