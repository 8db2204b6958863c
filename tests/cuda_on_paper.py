"""Devices on which nothing runs: programs are printed for them, and compiled by NVRTC, which needs no GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cuda_on_cpu import OWN, Processor

from minigraph.backends.cupy.executable import Executable
from minigraph.backends.cupy.source import Source
from minigraph.backends.lower import lower
from minigraph.core.ir import Graph


class Nothing:
    """Memory that is never touched."""

    address = 0


class Paper(Processor):
    """Keeps the programs that are loaded."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.programs: list[Source] = []

    def memory(self, nbytes: int) -> Any:
        return Nothing()

    def write(self, memory: Any, array: np.ndarray) -> None: ...

    def load(self, source: Source) -> Mapping[str, Any]:
        self.programs.append(source)
        return {name: name for name in source.kernels}


class Nvrtc(Paper):
    """Compiles the programs that are loaded. arch: for which GPUs, sm_80 for one."""

    def __init__(self, arch: str):
        super().__init__()
        self.arch = arch

    def load(self, source: Source) -> Mapping[str, Any]:
        for module in source.modules:
            self.compile(module.text, tuple(header.parent for header in module.ops.values()))
        return super().load(source)

    def compile(self, text: str, folders: tuple[Path, ...] = ()) -> bytes:
        """Machine code. Raises NVRTCError with what the compiler says."""
        from cuda.core import Program, ProgramOptions

        include = [str(folder) for folder in dict.fromkeys([*OWN, *folders])]
        program = Program(text, "c++", ProgramOptions(arch=self.arch, std="c++20", include_path=include))
        return bytes(program.compile("cubin").code)


def printed(graph: Graph, device: Paper, sizes: Mapping[str, int] = {}) -> Source:
    """The program of a graph that the device has loaded."""
    Executable(lower(graph), device).program(sizes)
    return device.programs[-1]
