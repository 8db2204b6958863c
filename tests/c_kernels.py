"""Run tuned C kernels on arrays, in a program of their own, so that sanitizers can watch them.

A case is a few calls, each made by all threads at once, one after the other, and the arrays they work on. Every array
is given at an address that is aligned to no more than a float, and ends exactly where its memory ends.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from c_compilers import why_none

from minigraph.backends.c import compiler as c_compiler

HEADERS = Path(c_compiler.__file__).parent
THREADS = (1, 2, 3, 4)
EPS = 2.0**-24
UNTOUCHED = 99.0  # what lies in an array before a kernel writes to it

# Sanitized, the kernels are ordinary functions, compiled once for all shapes: inlined and optimized it takes minutes.
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O0", "-DNOT_INLINED")

PROGRAM = """\
#include "prelude.h"
#ifdef NOT_INLINED
#undef INLINE
#define INLINE static __attribute__((unused))
#endif
#include "vector.h"
#include "tile.h"
#include "gemm.h"
#include "conv_phase.h"
#include "conv_direct.h"
#include "conv_depthwise.h"
#include "pooling.h"
#include "halo.h"
#include "pack.h"
#include "winograd.h"
#include "winograd_gradient.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

typedef void (*call_t)(int thread, int threads, float *const *p);
typedef struct {{ call_t call; int thread, threads; float **p; }} job_t;

// A number that the compiler does not know.
static idx run_time(idx n) {{ volatile idx hidden = n; return hidden; }}

// An epilogue that shows if it is called other than once for a number.
INLINE void twice_plus_one(idx begin, idx rows, idx apart, idx columns, const void *y) {{
  for (idx row = 0; row < rows; row++) {{
    for (idx i = 0; i < columns; i++) {{
      float *number = (float *)y + begin + row * apart + i;
      *number = 2 * *number + 1;
    }}
  }}
}}

{functions}
static const call_t cases[][{most} + 1] = {{
{table}
}};

static void *run_job(void *with) {{
  job_t *job = with;
  job->call(job->thread, job->threads, job->p);
  return 0;
}}

static void run(call_t call, int threads, float **p) {{
  pthread_t started[8];
  job_t jobs[8];
  for (int i = 0; i < threads; i++) {{
    jobs[i] = (job_t){{call, i, threads, p}};
    if (pthread_create(&started[i], 0, run_job, &jobs[i])) exit(3);
  }}
  for (int i = 0; i < threads; i++) pthread_join(started[i], 0);
}}

// argv: what to read and to write. A case is given as the number of arrays, and the size and the content of each; its
// result is the last array, once for each number of threads.
int main(int argc, char **argv) {{
  FILE *in = fopen(argv[argc - 2], "rb"), *out = fopen(argv[argc - 1], "wb");
  if (!in || !out) return 2;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {{
    int64_t arrays, sizes[16];
    float *given[16], *memory[16], *p[16];
    if (fread(&arrays, 8, 1, in) != 1) return 2;
    for (int64_t a = 0; a < arrays; a++) {{
      if (fread(&sizes[a], 8, 1, in) != 1) return 2;
      given[a] = malloc(sizes[a] * 4 + 4);
      if (fread(given[a], 4, sizes[a], in) != (size_t)sizes[a]) return 2;
    }}
    const int threads[] = {{{threads}}};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {{
      for (int64_t a = 0; a < arrays; a++) {{
        memory[a] = malloc(sizes[a] * 4 + 4);
        p[a] = memory[a] + 1;
        memcpy(p[a], given[a], sizes[a] * 4);
      }}
      for (int c = 0; cases[i][c]; c++) run(cases[i][c], threads[t], p);
      if (fwrite(p[arrays - 1], 4, sizes[arrays - 1], out) != (size_t)sizes[arrays - 1]) return 2;
      for (int64_t a = 0; a < arrays; a++) free(memory[a]);
    }}
    for (int64_t a = 0; a < arrays; a++) free(given[a]);
  }}
  return fclose(out);
}}
"""


@dataclass(frozen=True, eq=False)
class Case:
    """Calls in C, of thread, threads and arrays p[0], p[1], ...; the last array is the result.

    `want` is what should come, in float64; `within` how far from it each number may be (0: not at all).
    """

    name: str
    calls: Sequence[str]
    arrays: Sequence[np.ndarray]
    want: np.ndarray
    within: np.ndarray

    def __str__(self) -> str:
        return self.name


def untouched(*shape: int) -> np.ndarray:
    return np.full(shape, UNTOUCHED, np.float32)


def literal(kind: str, **fields: int | str) -> str:
    """A C struct, written out."""
    return f"({kind}){{" + ", ".join(f".{name} = {value}" for name, value in fields.items()) + "}"


@functools.cache
def builds() -> tuple[tuple[str, ...], ...]:
    """What the compiler is told beside its flags: nothing, and to sanitize, where it can."""
    if why_none():
        return ((),)
    try:
        _program("int main(void) { return 0; }", SANITIZED)
    except subprocess.CalledProcessError:
        return ((),)
    return ((), SANITIZED)


def _program(source: str, extra: Sequence[str], folder: Path | None = None) -> None:
    """Compile a program to `folder`/program, and run it if there is no folder."""
    if folder is None:
        with tempfile.TemporaryDirectory() as name:
            _program(source, extra, Path(name))
            subprocess.run([f"{name}/program"], check=True, capture_output=True)
        return
    (folder / "program.c").write_text(source)
    by = c_compiler.compiler()
    flags = [flag for flag in by.flags if flag != "-shared"]
    command = [*by.command, *flags, "-Wall", "-Wextra", *extra, f"-I{HEADERS}", "program.c", "-o", "program"]
    done = subprocess.run([*command, *c_compiler.LIBRARIES], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    assert not done.stderr, done.stderr  # no warning


def results(cases: Sequence[Case], extra: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """What each case gives, on each number of threads."""
    functions, table = [], []
    for i, case in enumerate(cases):
        names = [f"call_{i}_{j}" for j in range(len(case.calls))]
        functions += [
            f"static void {name}(int thread, int threads, float *const *p) {{ {call}; }}"
            for name, call in zip(names, case.calls)
        ]
        table.append("  {" + ", ".join([*names, "0"]) + "},  // " + case.name)
    source = PROGRAM.format(
        functions="\n".join(functions),
        table="\n".join(table),
        most=max(len(case.calls) for case in cases),
        threads=", ".join(map(str, THREADS)),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _program(source, extra, folder)
        with (folder / "in").open("wb") as file:
            for case in cases:
                file.write(np.int64(len(case.arrays)).tobytes())
                for array in case.arrays:
                    file.write(np.int64(array.size).tobytes() + np.ascontiguousarray(array, np.float32).tobytes())
        done = subprocess.run([folder / "program", folder / "in", folder / "out"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        out = np.fromfile(folder / "out", np.float32)
    got = {}
    for case in cases:
        size = case.arrays[-1].size
        got[case.name] = [out[t * size : (t + 1) * size].reshape(case.want.shape) for t in range(len(THREADS))]
        out = out[len(THREADS) * size :]
    assert out.size == 0
    return got


def check(case: Case, got: Sequence[np.ndarray]) -> None:
    """Each number is within its bound, and no number of threads gives other bits."""
    for other in got[1:]:
        assert other.tobytes() == got[0].tobytes()
    assert not np.isnan(got[0]).any()
    worst = np.abs(got[0] - case.want) - case.within
    assert worst.size == 0 or worst.max() <= 0, np.unravel_index(worst.argmax(), worst.shape)
