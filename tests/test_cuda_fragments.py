"""Fragments of tensor cores: where words lie in shared memory, and what compiles for which GPU.

That products of fragments are right is seen in test_cuda_products.py, where lanes hold them as the manual of PTX says
(cuda_fragments.h).
"""

from __future__ import annotations

import ctypes
import itertools
import subprocess
from pathlib import Path

import pytest
from c_compilers import cxx
from cuda_on_cpu import FLAGS, OWN
from cuda_on_paper import Nvrtc, printed
from test_example_networks import BATCH, tiny

import minigraph as mg
from minigraph.backends.cupy.claims.tiles import ON_TENSOR_CORES, PER_WORD
from minigraph.backends.cupy.tuned import laid_out
from minigraph.backends.lower import lower

BANKS = 32
HEADERS = "".join(
    f'#include "{name}"\n' for name in ("prelude.cuh", "scalar.h", "tile.cuh", "fragments.cuh", "gemm.cuh")
)
PLACES = """
#include "cuda_on_cpu.h"
{headers}
extern "C" int place(int lines, int word, int line) {{
  {cases}
  return -1;
}}
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """place(lines, word, line): of a word in shared memory, as fragments.cuh has it."""
    folder = tmp_path_factory.mktemp("places")
    cases = " ".join(f"if (lines == {n}) return place_of_word<{n}>(word, line);" for n in LINES)
    (folder / "places.cpp").write_text(PLACES.format(headers=HEADERS, cases=cases))
    include = [f"-I{path}" for path in (Path(__file__).parent, *OWN)]
    command = [cxx(), *FLAGS, *include, str(folder / "places.cpp"), "-o", str(folder / "places.so")]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(folder / "places.so"))


LINES = sorted({lines for tile in ON_TENSOR_CORES for lines in (tile.rows, tile.columns)})
DEPTH = 16


@pytest.mark.cxx
@pytest.mark.parametrize("lines", LINES)
def test_each_word_has_a_place_of_its_own(lines: int, places: ctypes.CDLL) -> None:
    found = [places.place(lines, word, line) for word in range(DEPTH) for line in range(lines)]
    assert len(set(found)) == len(found)
    assert 0 <= min(found) <= max(found) < DEPTH * (lines + 8) + DEPTH // 4 * 8
    assert all(place % 4 == 0 for place in found[::4])  # four of a line are put at once


@pytest.mark.cxx
@pytest.mark.parametrize("lines", LINES)
def test_the_lanes_of_a_warp_read_different_banks(lines: int, places: ctypes.CDLL) -> None:
    for first in range(0, DEPTH, 4):
        banks = [places.place(lines, first + lane % 4, lane // 4) % BANKS for lane in range(32)]
        assert len(set(banks)) == 32


@pytest.mark.cxx
@pytest.mark.parametrize("lines", LINES)
def test_threads_that_bring_four_words_of_a_line_write_to_different_banks(lines: int, places: ctypes.CDLL) -> None:
    """Of TF32: neighbours have the words of one line, 4 of them 16, and 8 lines."""
    for j in range(4):
        banks = [places.place(lines, lane % 4 * 4 + j, lane // 4) % BANKS for lane in range(32)]
        assert len(set(banks)) == 32


def products() -> str:
    """In every tile, in turn of each kind of factors, read in fours and one by one."""
    lines = [HEADERS]
    for number, (tile, kind) in enumerate(zip(ON_TENSOR_CORES, itertools.cycle(PER_WORD))):
        a, b = (f"reading<{deep}, {4 if number % 2 else 1}>" for deep in ("true", "false"))
        given = f"const {kind} *a, const {kind} *b, float *y, gemm_shape s"
        lines.append(f"KERNEL k{number}({given}) {{ gemm<{tile}, {a}, {b}>(a, b, s, chunks{{y, s.N}}); }}")
    return "\n".join(lines)


@pytest.mark.nvrtc
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
def test_products_of_fragments_compile(arch: str) -> None:
    """GPUs before 8.0 get no instruction that they do not have, which the assembler would refuse."""
    Nvrtc(arch).compile(products())


@pytest.mark.nvrtc
@pytest.mark.parametrize(
    ("precision", "arch"),
    [
        ("tf32", "sm_90"),
        *(pytest.param(*pair, marks=pytest.mark.nightly) for pair in (("tf32", "sm_80"), ("float16", "sm_90"))),
        *(pytest.param("bfloat16", arch, marks=pytest.mark.nightly) for arch in ("sm_80", "sm_90")),
    ],
)
def test_steps_of_training_compile(precision: str, arch: str) -> None:
    step = mg.training_step(tiny("lenet with batch norm"), "loss", mg.optim.SGD(0.1), precision=precision)
    assert "conv_weights<warps<" in printed(laid_out(lower(step)), Nvrtc(arch), {"N": BATCH}).text
