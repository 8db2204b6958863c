"""Kernels in CUDA C++ whose threads are threads of the machine, under ThreadSanitizer.

What two threads of a block do to one place, without a __syncthreads between, is found; where blocks are concerned,
they run one after the other.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_compilers import cxx
from cuda_on_cpu import FLAGS, OWN, Kernel, Launched, Processor

import minigraph as mg
from minigraph.backends.cupy import totals
from minigraph.backends.cupy.device import ALIGNMENT, Memory
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.cupy.grid import Grid
from minigraph.backends.cupy.source import Source
from minigraph.backends.lower import lower
from minigraph.core.builder import Tensor

pytestmark = [pytest.mark.cxx, pytest.mark.nightly]

MEMORY = 1 << 22
RACE = 66  # the exit status

MAIN = """
#include <stdio.h>
alignas({alignment}) static char memory[{nbytes}];
int main(int count, char **arguments) {{
  FILE *file = fopen(arguments[1], "rb");
  if (!file || fread(memory, 1, sizeof memory, file) != sizeof memory) return 1;
  fclose(file);
{launches}
  file = fopen(arguments[1], "wb");
  return fwrite(memory, 1, sizeof memory, file) != sizeof memory || fclose(file);
}}
"""


class Noted(Processor):
    """All its memory is one piece; notes what is launched, and how the memory was before that and behind it."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.all, self.taken = super().memory(MEMORY), 0
        self.before = self.after = b""
        self.programs: list[Source] = []
        self.launched: list[Launched] = []

    def memory(self, nbytes: int) -> Memory:
        offset = self.taken
        self.taken += -(-nbytes // ALIGNMENT) * ALIGNMENT
        assert self.taken <= MEMORY
        return self.all.part(offset, nbytes)

    def now(self) -> bytes:
        whole = np.empty(MEMORY, np.uint8)
        self.read(self.all, whole)
        return whole.tobytes()

    def load(self, source: Source) -> Mapping[str, Any]:
        self.programs.append(source)
        return super().load(source)

    def launch(self, kernel: Kernel, grid: Grid, addresses: Sequence[int]) -> None:
        self.before = self.before or self.now()
        self.launched.append(Launched(kernel, grid, tuple(addresses)))
        super().launch(kernel, grid, addresses)
        self.after = self.now()

    def main(self) -> str:
        """A program that launches the same, in memory that it reads from a file, and writes there again."""
        lines = []
        for number, launched in enumerate(self.launched):
            places = ", ".join(f"memory + {address - self.all.address}" for address in launched.addresses)
            lines.append(f"  void *a{number}[] = {{{places}}};")
            grid = f"{launched.grid.blocks}, {launched.grid.threads}"
            lines.append(f"  launch({launched.kernel.name}, {grid}, a{number});")
        return MAIN.format(alignment=ALIGNMENT, nbytes=MEMORY, launches="\n".join(lines))


def rows(x: Tensor) -> list[Tensor]:
    return [mg.sum(x, 1), mg.max(x, 1), mg.softmax(x)]


def columns(x: Tensor) -> list[Tensor]:
    return [mg.sum(x, 0), mg.mean(x * x, 0)]


def chunks(x: Tensor) -> list[Tensor]:
    return [mg.sum(mg.exp(x)), mg.min(x)]


def norm(x: Tensor) -> list[Tensor]:
    net = x.builder
    gamma, beta = (net.input(name, (x.shape[1],)) for name in ("gamma", "beta"))
    y, mean, var = mg.batch_norm(x, gamma, beta)
    return [y, mean, var, *mg.gradient(mg.sum(y * y), [x, gamma, beta])]


def products(x: Tensor) -> list[Tensor]:
    w = x.builder.input("w", (x.shape[1], 21))
    return [mg.matmul(x, w), *mg.gradient(mg.sum(mg.square(mg.matmul(x, w))), [x, w])]


def convolutions(x: Tensor) -> list[Tensor]:
    """By products in tiles, in chunks; and of each channel by itself."""
    images = mg.reshape(x, (2, 9, 8, 12))
    w, each = x.builder.input("w", (18, 12, 3, 3)), x.builder.input("each", (12, 1, 3, 3))
    y = mg.conv(mg.conv(images, each, padding=1, groups=12, layout="NHWC"), w, stride=2, padding=1, layout="NHWC")
    return [y, *mg.gradient(mg.sum(mg.square(y)), [x, w, each])]


def on_tensor_cores(x: Tensor) -> list[Tensor]:
    """In TF32 and in half precision: products in several steps, and convolutions."""
    w, v = (x.builder.input(name, shape) for name, shape in (("w", (96, 21)), ("v", (18, 12, 3, 3))))
    images = mg.reshape(x, (2, 9, 8, 12))
    half = lambda y: mg.cast(y, "float16")
    conv = partial(mg.conv, stride=2, padding=1, layout="NHWC")
    pairs = [(mg.tf32(a), mg.tf32(b)) for a, b in ((x, w), (images, v))]
    pairs += [(half(a), half(b)) for a, b in ((x, w), (images, v))]
    makers: list[Callable[[Tensor, Tensor], Tensor]] = [mg.matmul, conv]
    made = [mg.cast(make(a, b), "float32") for make, (a, b) in zip(makers * 2, pairs)]
    return [*made, *mg.gradient(mg.sum(mg.square(made[1])) + mg.sum(made[3]), [v])]


KERNELS: dict[str, tuple[Callable[[Tensor], list[Tensor]], tuple[int, ...]]] = {
    "rows": (rows, (5, 700)),
    "columns": (columns, (300, 50)),
    "chunks": (chunks, (130, 100)),
    "norm": (norm, (40, 3)),
    "products": (products, (70, 130)),
    "convolutions": (convolutions, (18, 96)),
    "on tensor cores": (on_tensor_cores, (18, 96)),
}


def noted(name: str, folder: Path) -> Noted:
    """A program that has run, and what it was."""
    make, shape = KERNELS[name]
    net = mg.Builder(name)
    graph = net.build({f"y{i}": y for i, y in enumerate(make(net.input("x", shape)))})
    rng = np.random.default_rng(0)
    arrays = {v.name: rng.normal(size=v.type.shape).astype("float32") for v in graph.inputs}  # type: ignore[arg-type]
    device = Noted(folder)
    Executable(lower(graph), device, capture=False).run({}, arrays)
    return device


def sanitized(device: Noted, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """The same launches of the same kernels, by threads of the machine. flags: of the compiler, besides."""
    (source,) = device.programs
    file, image = folder / "kernels.cpp", folder / "memory"
    file.write_text("\n".join(['#include "cuda_with_threads.h"', source.text, device.main()]))
    image.write_bytes(device.before)
    folders = dict.fromkeys([Path(__file__).parent, *OWN, *(header.parent for header in source.headers)])
    command = [cxx(), *(flag for flag in FLAGS if flag not in ("-shared", "-fPIC")), *flags]
    command += ["-g1", "-fsanitize=thread", "-pthread", *(f"-I{f}" for f in folders), str(file)]
    subprocess.run([*command, "-o", str(folder / "kernels")], check=True)
    settings = {**os.environ, "TSAN_OPTIONS": f"exitcode={RACE}:halt_on_error=1"}
    return subprocess.run([folder / "kernels", image], env=settings, capture_output=True, text=True)


@pytest.mark.parametrize("name", KERNELS)
def test_threads_of_a_block_do_not_race(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leave the same bytes behind as they do one after the other."""
    monkeypatch.setattr(totals, "MOST_CHUNKS", 3)
    device = noted(name, tmp_path)
    done = sanitized(device, tmp_path)
    assert done.returncode == 0, done.stderr[:3000]
    assert (tmp_path / "memory").read_bytes() == device.after


@pytest.mark.parametrize("wait", [0, 1])
@pytest.mark.parametrize("name", KERNELS)
def test_a_barrier_that_is_missing_is_found(
    name: str, wait: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of each block, or the second."""
    monkeypatch.setattr(totals, "MOST_CHUNKS", 3)
    done = sanitized(noted(name, tmp_path), tmp_path, f"-DLEFT_OUT={wait}")
    assert done.returncode == RACE
    assert "data race" in done.stderr
