"""Machine code of CUDA C++, by NVRTC, kept in the user's cache folder beside the programs in C.

CuPy's own way to compile, which RawModule(code=...) takes, makes all numbers below 2^-126 zero (-ftz=true), and knows
what it compiled by the text, whatever has become of the headers.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigraph.backends.c import cache
from minigraph.backends.cupy.source import Source
from minigraph.core.errors import GraphError, expect

FOLDERS = (Path(__file__).parent, Path(__file__).parent.parent / "c")  # of headers
WHEEL = "pip install nvidia-cuda-nvrtc (beside cupy-cuda12x it is nvidia-cuda-nvrtc-cu12)"


def compiled(nvrtc: Any, source: Source, capability: int) -> Path:
    """The file of a program's code for GPUs of this capability: 90 for 9.0. nvrtc: CuPy's.

    A GPU that is newer than NVRTC gets code that its driver completes.
    """
    try:
        version, known = nvrtc.getVersion(), nvrtc.getSupportedArchs()
    except (ImportError, OSError, RuntimeError) as error:
        raise GraphError(f"NVRTC, which compiles kernels, cannot be loaded: {WHEEL} ({error})") from error
    exact, older = capability in known, [n for n in known if n < capability]
    expect(
        exact or older,
        "NVRTC {}.{} compiles for compute capability {} and more, and this GPU has {}: cupy-cuda12x knows older ones",
        *version,
        min(known) / 10,
        capability / 10,
    )
    target = f"sm_{capability}" if exact else f"compute_{max(older)}"
    headers = [*(find(name) for name in source.own), *sorted(source.headers)]
    options = ("-std=c++20", f"-arch={target}")
    parts: list[str | bytes] = [source.text, *(header.read_bytes() for header in headers), *options, str(version)]
    key = cache.key(parts)
    if found := cache.find(key):
        return found
    folders = dict.fromkeys(header.parent for header in headers)
    code = _code(nvrtc, source.text, (*options, *(f"-I{folder}" for folder in folders)), exact)
    made = Path(tempfile.mkdtemp(prefix="minigraph-"))
    (made / cache.SOURCE).write_text(f"// CUDA C++ for {target}\n{source.text}", encoding="utf-8")
    (made / cache.LIBRARY).write_bytes(code)
    kept = cache.keep(key, made, {"compiler": f"NVRTC {version}", "flags": options})
    if kept:
        shutil.rmtree(made, ignore_errors=True)
    return kept or made / cache.LIBRARY


def _code(nvrtc: Any, text: str, options: Sequence[str], exact: bool) -> bytes:
    program = nvrtc.createProgram(text, "program.cu", (), ())
    try:
        try:
            nvrtc.compileProgram(program, tuple(options))
        except nvrtc.NVRTCError as error:
            said = nvrtc.getProgramLog(program)
            raise GraphError(f"NVRTC refuses a program, which is a bug of minigraph or of an op: {said}") from error
        return bytes((nvrtc.getCUBIN if exact else nvrtc.getPTX)(program))
    finally:
        nvrtc.destroyProgram(program)


def find(header: str) -> Path:
    """A header of this backend, or of the C backend, by its name."""
    return next(folder / header for folder in FOLDERS if (folder / header).exists())
