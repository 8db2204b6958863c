"""The notebook runs from its first cell to its last, and shows what it was kept with."""

from __future__ import annotations

import html
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from minigraph.tools import render

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def _module(name: str) -> Any:
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


notebook = _module("notebook")
KEPT = notebook.read(EXAMPLES / "step_by_step.ipynb")


@pytest.fixture(scope="module")
def ran() -> Any:
    return notebook.run(KEPT)


def shown(of: Any) -> list[dict[str, Any]]:
    return [output for cell in of["cells"] if cell["cell_type"] == "code" for output in cell["outputs"]]


def printed(of: Any) -> str:
    return "".join("".join(output["text"]) for output in shown(of) if output["output_type"] == "stream")


def pictures(of: Any) -> list[list[str]]:
    """The words of each picture of a graph, sorted."""
    svgs = [
        "".join(output["data"]["image/svg+xml"]) for output in shown(of) if "image/svg+xml" in output.get("data", {})
    ]
    return [sorted(html.unescape(word) for word in re.findall(r"<text[^>]*>([^<]*)</text>", svg)) for svg in svgs]


def test_it_shows_what_it_was_kept_with(ran: Any) -> None:
    if not render.can_render("svg"):  # a graph is a line of text then
        assert len(shown(ran)) == len(shown(KEPT))
        return
    kinds = [(output["output_type"], sorted(output.get("data", {}))) for output in shown(ran)]
    assert kinds == [(output["output_type"], sorted(output.get("data", {}))) for output in shown(KEPT)]
    assert pictures(ran) == pictures(KEPT)
    assert len(pictures(KEPT)) == 6


def test_its_network_learns_and_is_folded(ran: Any) -> None:
    text = printed(ran)
    found = re.search(r"([\d.]+)% of 360 are right", text)
    assert found, text
    assert float(found[1]) > 90
    assert "2 batch norms, no findings" in text
    assert "the same function" in text
    assert "differ in more than axis 1" in text


def test_it_is_a_notebook_of_format_4_5() -> None:
    assert (KEPT["nbformat"], KEPT["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in KEPT["cells"]]
    assert len(set(names)) == len(names)
    assert [cell["execution_count"] for cell in KEPT["cells"] if cell["cell_type"] == "code"] == list(range(1, 17))


def test_links_lead_somewhere() -> None:
    for cell in KEPT["cells"]:
        for target in re.findall(r"\]\(([^)]+)\)", notebook.source(cell) if cell["cell_type"] == "markdown" else ""):
            assert (EXAMPLES / target).exists(), target


@pytest.mark.parametrize(
    ("code", "value"),
    [("x = 3\nx + 1", 4), ("3;", None), ("x = 3", None), ("", None), ("def f():\n    return 1\nf()", 1)],
)
def test_a_cell_shows_its_last_line(code: str, value: Any) -> None:
    assert notebook.evaluated(code, "cell 1", {}) == value


def test_what_a_cell_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        notebook.run({"cells": [{"cell_type": "code", "source": ["1 / 0"]}]})


def test_cells_share_their_names_and_what_they_print_is_kept() -> None:
    cells = [{"cell_type": "code", "source": [line]} for line in ("x = 3", "print(x)", "x")]
    found = notebook.run({"cells": cells})["cells"]
    assert [len(cell["outputs"]) for cell in found] == [0, 1, 1]
    assert found[1]["outputs"][0]["text"] == ["3\n"]
    assert found[2]["outputs"][0]["data"] == {"text/plain": ["3"]}
