"""Programs under AddressSanitizer and UBSan, and under ThreadSanitizer, in processes of their own.

All arrays are as large as what they hold, so that a number read or written beside one of them is seen. Tuned kernels
are sanitized one by one, at odd sizes, in the tests of each of them.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from c_compilers import all_of_them
from test_example_networks import tiny

import minigraph as mg
from minigraph.backends import source
from minigraph.backends.c.compiler import Compiler
from minigraph.core.op import OPS

pytestmark = [pytest.mark.compiler, pytest.mark.gcc]

EXAMPLES = sum(len(op.examples) for op in OPS.values())
CHUNK = 100
OPTIONS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-w")

PROGRAM = """
import sys
import numpy as np
from c_programs import Joining, in_c, typed
from minigraph.core.op import OPS
from minigraph.backends import source
from random_graphs import random_graph

source.SMALL = 2  # two numbers are enough for several threads
kind, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if kind == "headers":  # every op with a kernel once, in what it is computed in
    joining = Joining()
    for op in OPS.values():
        if op.kernel:
            for dtype in ("float32", "float64"):
                largest = max(op.examples, key=lambda example: sum(np.prod(x.shape) for x in example.inputs))
                joining.example(f"{op.name}.{dtype}", op, largest, dtype)
    joined = joining.done()
    assert len(joining.refused) < 5, joining.refused
    in_c(joined.graph, joined.arrays)
elif kind == "examples":
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
def gcc() -> Compiler:
    return all_of_them()["gcc"]


def preloaded(library: str) -> str:
    """A library of gcc that a process loads first."""
    said = subprocess.run([*gcc().command, f"-print-file-name={library}"], capture_output=True, text=True, check=True)
    found = Path(said.stdout.strip())
    assert found.is_absolute(), f"gcc has no {library}"
    return str(found.resolve())


def run(folder: Path, kind: str, first: int = 0, last: int = 0) -> None:
    settings = {
        **os.environ,
        "CC": shlex.join([*gcc().command, *OPTIONS]),
        "MINIGRAPH_CACHE": str(folder),
        "MINIGRAPH_THREADS": "3",
        "LD_PRELOAD": preloaded("libasan.so"),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    arguments = [sys.executable, "-c", PROGRAM, kind, str(first), str(last)]
    done = subprocess.run(arguments, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "done\n"
    assert "runtime error" not in done.stderr, done.stderr[-3000:]


def test_every_plain_kernel(tmp_path: Path) -> None:
    run(tmp_path, "headers")


@pytest.mark.nightly
@pytest.mark.parametrize("chunk", range(-(-EXAMPLES // CHUNK)))
def test_examples(chunk: int, tmp_path: Path) -> None:
    run(tmp_path, "examples", chunk * CHUNK, (chunk + 1) * CHUNK)


@pytest.mark.nightly
@pytest.mark.parametrize("start", range(0, 60, 20))
def test_random_graphs(start: int, tmp_path: Path) -> None:
    run(tmp_path, "random graphs", start, start + 20)


def test_a_number_beside_an_array_is_seen(tmp_path: Path) -> None:
    """That the sanitizers watch at all."""
    source = tmp_path / "beside.c"
    source.write_text("#include <stdlib.h>\nint main(int n, char **v) { float *x = malloc(4 * n); return x[n] > 0; }\n")
    command = [*gcc().command, *OPTIONS, str(source), "-o", str(tmp_path / "beside")]
    subprocess.run(command, check=True)
    done = subprocess.run([tmp_path / "beside"], capture_output=True, text=True)
    assert "heap-buffer-overflow" in done.stderr


# races

MAIN = """
#include <stdio.h>
#include "net/program.h"

static float image[NET_N * 16 * 16], logits[NET_N * 4], loss, accuracy;
static int64_t label[NET_N];

int main(int count, char **arguments) {
  for (int i = 0; i < NET_N * 16 * 16; i++) image[i] = (float)(i * 37 % 101) / 50 - 1;
  for (int i = 0; i < NET_N; i++) label[i] = i % 4;
  net_arrays arrays = {.image = image, .label = label, .logits = logits, .loss = &loss, .accuracy = &accuracy};
  net_program *net;
  const char *wrong = net_create(&net, arguments[1], 3);
  for (int step = 0; !wrong && step < 12; step++) {
    arrays.N = step % 3 ? NET_N : 3;
    wrong = net_run(net, &arrays);
  }
  if (wrong) return fprintf(stderr, "%s\\n", wrong);
  net_free(net);
  printf("%g\\n", loss);
  return 0;
}
"""


@pytest.mark.parametrize("barriers", [True, False], ids=["whole", "without barriers"])
def test_threads_of_a_training_program_do_not_race(
    barriers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ThreadSanitizer knows the atomics that our barrier is made of. Without the barriers it must find races."""
    monkeypatch.setenv("MINIGRAPH_THREADS", "3")
    monkeypatch.setattr(source, "SMALL", 2)
    model = tiny("lenet with batch norm")
    step = mg.training_step(model, "loss", mg.optim.Adam(0.01))
    folder = mg.compile(step, model.init(seed=1), "c").export(tmp_path / "net", N=6)
    if not barriers:
        text = (folder / "step.c").read_text()
        (folder / "step.c").write_text(text.replace("c->barrier();", ""))
    (tmp_path / "main.c").write_text(MAIN)
    flags = [flag for flag in gcc().flags if flag not in ("-shared", "-fPIC", "-O2")]
    sources = map(str, [tmp_path / "main.c", *sorted(folder.glob("*.c"))])
    command = [*gcc().command, *flags, "-fsanitize=thread", "-O1", "-w", f"-I{tmp_path}", *sources, "-lm", "-pthread"]
    subprocess.run([*command, "-o", str(tmp_path / "main")], check=True)
    settings = {**os.environ, "TSAN_OPTIONS": "exitcode=66"}
    arguments = [str(tmp_path / "main"), str(folder / "weights.safetensors")]
    done = subprocess.run(arguments, env=settings, capture_output=True, text=True)
    assert (done.returncode == 0) == barriers, done.stderr[:3000]
    assert ("data race" in done.stderr) != barriers
