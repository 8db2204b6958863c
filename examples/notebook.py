"""Run the cells of a notebook and write what they show into it, without Jupyter, as Jupyter would:

python examples/notebook.py examples/step_by_step.ipynb

A cell shows what it prints; then matplotlib's open figures, as PNG; then the value of its last line, unless that is
None or a semicolon follows: as text, and as SVG where it has such a picture. It knows no magics and no widgets.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

Notebook = dict[str, Any]  # nbformat 4


def read(path: Path) -> Notebook:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, notebook: Notebook) -> None:
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def run(notebook: Notebook) -> Notebook:
    """The same notebook with the outputs of a run from its first cell to its last, in names of its own. What a cell
    raises is raised."""
    plt.switch_backend("Agg")  # no window
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            cell = {**cell, "execution_count": count, "outputs": outputs(source(cell), count, names)}
        cells.append(cell)
    return {**notebook, "cells": cells}


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def outputs(code: str, count: int, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a cell in these names, and give what it shows."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        value = evaluated(code, f"cell {count}", names)
    shown: list[dict[str, Any]] = []
    if printed.getvalue():
        shown.append({"output_type": "stream", "name": "stdout", "text": split(printed.getvalue())})
    shown += [{"output_type": "display_data", "metadata": {}, "data": data} for data in open_figures()]
    if value is not None:
        data = representations(value)
        shown.append({"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data})
    return shown


def evaluated(code: str, name: str, names: dict[str, Any]) -> Any:
    """Run the code; the value of its last line, if that is an expression without a semicolon behind it."""
    body = ast.parse(code, name).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), name, "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    value = eval(compile(ast.Expression(last.value), name, "eval"), names)
    return None if code.rstrip().endswith(";") else value


def open_figures() -> list[dict[str, Any]]:
    """matplotlib's figures as PNG; they are closed."""
    found = []
    for number in plt.get_fignums():
        png = io.BytesIO()
        plt.figure(number).savefig(png, format="png", dpi=80)
        found.append({"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": ["<Figure>"]})
    plt.close("all")
    return found


def representations(value: Any) -> dict[str, list[str]]:
    found = {"text/plain": split(repr(value))}
    picture = value._repr_svg_() if hasattr(value, "_repr_svg_") else None
    return found if picture is None else {"image/svg+xml": split(picture), **found}


def split(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        write(Path(argument), run(read(Path(argument))))
