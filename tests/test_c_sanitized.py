"""Programs under AddressSanitizer and UBSan, in a process of their own, where the compiler has them.

All arrays are as large as what they hold, so that a number read or written beside one of them is seen.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minigraph.backends.c.compiler import NoCompiler, compiler
from minigraph.core.op import OPS

EXAMPLES = sum(len(op.examples) for op in OPS.values())
CHUNK = 100
CI = (2,)  # the chunk with convolutions; the others nightly
OPTIONS = "-fsanitize=address,undefined -fno-sanitize-recover=all -O1 -w"

PROGRAM = """
import sys
import numpy as np
from c_programs import Joining, in_c, typed
from minigraph.core.op import OPS
from minigraph.backends import source
from random_graphs import random_graph

source.SMALL = 2  # two numbers are enough for several threads
kind, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if kind == "examples":
    joining = Joining()
    examples = [(op, example) for op in OPS.values() for example in op.examples]
    for i, (op, example) in enumerate(examples[first:last]):
        joining.example(str(i), op, example, "float32")
    joined = joining.done()
    in_c(joined.graph, joined.arrays)
else:
    for seed in range(first, last):
        given = random_graph(seed)
        in_c(given.graph, typed(given.graph, given.arrays), given.sizes)
print("done")
"""


@functools.cache
def sanitizer() -> str:
    """The library that a process loads first; empty where gcc has none."""
    try:
        command = compiler().command
    except NoCompiler:
        return ""
    if "gcc" not in Path(command[0]).name:
        return ""
    said = subprocess.run([*command, "-print-file-name=libasan.so"], capture_output=True, text=True)
    found = Path(said.stdout.strip())
    return str(found.resolve()) if found.is_absolute() and found.exists() else ""


def run(folder: Path, kind: str, first: int, last: int) -> None:
    command = compiler().command
    settings = {
        **os.environ,
        "CC": " ".join([*command, OPTIONS]),
        "MINIGRAPH_CACHE": str(folder),
        "MINIGRAPH_THREADS": "3",
        "LD_PRELOAD": sanitizer(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    arguments = [sys.executable, "-c", PROGRAM, kind, str(first), str(last)]
    done = subprocess.run(arguments, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "done\n"
    assert "runtime error" not in done.stderr, done.stderr[-3000:]


if sanitizer():

    @pytest.mark.parametrize(
        "chunk", [pytest.param(i, marks=() if i in CI else pytest.mark.nightly) for i in range(-(-EXAMPLES // CHUNK))]
    )
    def test_examples(chunk, tmp_path):
        run(tmp_path, "examples", chunk * CHUNK, (chunk + 1) * CHUNK)

    @pytest.mark.nightly
    @pytest.mark.parametrize("start", range(0, 60, 20))
    def test_random_graphs(start, tmp_path):
        run(tmp_path, "random graphs", start, start + 20)
