"""The C compilers of this machine, and the instructions that its processor has; its compilers for CUDA C++."""

from __future__ import annotations

import functools
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions

from minigraph.backends.c import compiler as module
from minigraph.backends.c.compiler import Compiler, CompilerError, NoCompiler
from minigraph.core.errors import GraphError

SETTINGS = ("CC", "MINIGRAPH_ISA")
CXX20 = "#include <barrier>\nstruct pair { int a, b; };\nint main() { return pair{.a = 0, .b = 1}.a; }\n"
NVRTC = ("cuda-bindings", "cuda-core", "nvidia-cuda-nvrtc")  # wheels
CUDNN = "nvidia-cudnn-frontend"  # a wheel, too


@contextmanager
def told(**settings: str) -> Iterator[None]:
    """Within, the environment has these of SETTINGS, and no others."""
    before = {name: os.environ.pop(name) for name in SETTINGS if name in os.environ}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in SETTINGS:
            os.environ.pop(name, None)
        os.environ.update(before)


@functools.cache
def all_of_them() -> dict[str, Compiler]:
    """Those that work: gcc and clang on the PATH, and zig of the wheel."""
    found = {}
    for command in module._candidates():
        with told(CC=shlex.join(command)):
            try:
                by = module.compiler()
            except (CompilerError, NoCompiler):  # the latter on Windows
                continue
        found["zig" if module._is_zig(command) else command[0]] = by
    return found


@functools.cache
def instructions() -> tuple[str, ...]:
    """What MINIGRAPH_ISA may be on this processor."""
    found = []
    for isa in module.ISAS.get(module.SAME.get(platform.machine(), platform.machine()), {}):
        try:
            module._isa_flags(isa, zig=False)
        except GraphError:
            continue
        found.append(isa)
    return tuple(found)


@functools.cache
def why_none() -> str:
    """Why tests that compile cannot run; empty if they can."""
    try:
        by = module.compiler()
    except NoCompiler as error:
        return str(error)
    return "" if by.has_half else f"{by} does not know float16, which gcc does from 12 on and clang from 15 on"


@functools.cache
def cxx() -> str:
    """The first of g++ and clang++ that compiles C++20 with its library; empty if neither does."""
    for program in filter(shutil.which, ("g++", "clang++")):
        command = [program, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
        if subprocess.run(command, input=CXX20, capture_output=True, text=True).returncode == 0:
            return program
    return ""


def why_no_nvrtc() -> str:
    """Why CUDA C++ cannot be compiled for a GPU; empty if it can."""
    missing = [wheel for wheel in NVRTC if not any(distributions(name=wheel))]
    return f"not installed: {', '.join(missing)}" if missing else ""


@functools.cache
def left_out() -> dict[str, str]:
    """The markers of tests that cannot run here, and why."""
    found = {"compiler": why_none(), "gcc": "" if "gcc" in all_of_them() else "there is no gcc"}
    found["cxx"] = "" if cxx() else "neither g++ nor clang++ is there and knows C++20"
    found["nvrtc"] = why_no_nvrtc()
    found["cudnn"] = "" if any(distributions(name=CUDNN)) else f"not installed: {CUDNN}"
    return {marker: why for marker, why in found.items() if why}


def described() -> list[str]:
    """What there is, and what is left out, in lines."""
    each = [f"{name} ({by.version}{'' if by.has_half else ', no float16'})" for name, by in all_of_them().items()]
    lines = [f"C compilers: {', '.join(each) or 'none'}; instructions: {', '.join(instructions()) or 'not known'}"]
    lines.append(f"CUDA C++: {' and '.join(_for_cuda()) or 'no compiler'}")
    return lines + [f"tests marked {marker!r} are left out: {why}" for marker, why in left_out().items()]


def _for_cuda() -> list[str]:
    return [f"run on the CPU by {cxx()}"] * bool(cxx()) + ["compiled for GPUs by NVRTC"] * (not why_no_nvrtc())
