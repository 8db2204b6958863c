"""What the folder of an exported program has in it, for those who read it: nothing here needs a graph.

program.json has the version of its form, for which system and processor program.so is, the names, types and shapes of
inputs and outputs in the order of the C struct, behind the sizes that are known when it runs, and the SHA-256 of every
other file.
"""

from __future__ import annotations

import json
import platform
from hashlib import sha256
from pathlib import Path
from typing import Any

from minigraph.backends.c.compiler import SAME, Compiler

FORMAT = 1
MANIFEST, LIBRARY, WEIGHTS, HEADER = "program.json", "program.so", "weights.safetensors", "program.h"
SOURCES = ("program.c", "step.c", "thread_pool.c")


def manifest(folder: Path) -> dict[str, Any]:
    """What the folder says of itself; {} if that is nothing that can be read."""
    try:
        about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    ours = isinstance(about, dict) and "minigraph" in about and isinstance(about.get("format"), int)
    return about if ours else {}


def build(folder: Path, library: Path, by: Compiler, named: Path | None = None) -> None:
    """Compile the sources of an exported folder. CompilerError says the first error.

    named: the folder in which debuggers will look for them.
    """
    first, *others = (folder / name for name in SOURCES)
    by.build(first, library, named=named, others=others)


def digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


def machine() -> str:
    """The kind of processor, by its usual name."""
    return SAME.get(platform.machine(), platform.machine())
