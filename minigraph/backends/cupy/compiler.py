"""Machine code of CUDA C++, by NVRTC, kept in the user's cache folder beside the programs in C.

The modules of a program are compiled side by side, by as many threads as a program in C would use. CuPy's own way to
compile, which RawModule(code=...) takes, makes all numbers below 2^-126 zero (-ftz=true), and knows what it compiled by
the text, whatever has become of the headers.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

from minigraph.backends.c import cache
from minigraph.backends.c.threads import threads
from minigraph.backends.cupy.source import Module, Source
from minigraph.core.errors import GraphError, expect

FOLDERS = (Path(__file__).parent, Path(__file__).parent.parent / "c")  # of headers
WHEEL = "pip install nvidia-cuda-nvrtc (beside cupy-cuda12x it is nvidia-cuda-nvrtc-cu12)"
PATIENCE = 2.0  # seconds after which it is said what one waits for


def compiled(nvrtc: Any, source: Source, capability: int) -> list[Path]:
    """The files of a program's code, one for each module, for GPUs of this capability: 90 for 9.0. nvrtc: CuPy's.

    A GPU that is newer than NVRTC gets code that its driver completes. What takes long is said on stderr.
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
    options = ("-std=c++20", f"-arch={target}")
    keys = [_key(module, [*options, str(version)]) for module in source.modules]
    files = {key: cache.find(key) for key in keys}
    new = {key: module for key, module in zip(keys, source.modules) if not files[key]}
    codes = _side_by_side(
        [partial(_code, nvrtc, module, options, exact) for module in new.values()],
        f"minigraph: NVRTC compiles {sum(len(module.kernels) for module in new.values())} kernels for this GPU; "
        "the next time they are there already",
    )
    for (key, module), code in zip(new.items(), codes, strict=True):
        files[key] = _kept(key, module, code, target, {"compiler": f"NVRTC {version}", "flags": options})
    if new:
        cache.trim()
    return [file for key in keys if (file := files[key])]


def _key(module: Module, how: Sequence[str]) -> str:
    return cache.key([module.text, *(header.read_bytes() for header in _headers(module)), *how])


def _headers(module: Module) -> list[Path]:
    return [*(find(name) for name in module.own), *sorted(set(module.ops.values()))]


def _kept(key: str, module: Module, code: bytes, target: str, about: dict[str, Any]) -> Path:
    """The file of this code, in the cache if that can be written."""
    made = Path(tempfile.mkdtemp(prefix="minigraph-"))
    count = len(module.kernels)
    title = f"// CUDA C++ for {target}: {count} kernel{'s' * (count != 1)}"
    (made / cache.SOURCE).write_text(f"{title}\n{module.text}", encoding="utf-8")
    (made / cache.LIBRARY).write_bytes(code)
    kept = cache.put(key, made, about)
    if kept:
        shutil.rmtree(made, ignore_errors=True)
    return kept or made / cache.LIBRARY


def _side_by_side(work: Sequence[Callable[[], bytes]], said: str) -> list[bytes]:
    """What each gives. said: what is printed, once, if all take long. The first error ends all."""
    if not work:
        return []
    pool = ThreadPoolExecutor(min(len(work), threads()))
    try:
        waiting = [pool.submit(one) for one in work]
        done, left = wait(waiting, PATIENCE, FIRST_EXCEPTION)
        if left and not any(one.exception() for one in done):
            print(said, file=sys.stderr, flush=True)
        wait(waiting, return_when=FIRST_EXCEPTION)
        return [one.result() for one in waiting if one.done()]
    finally:
        pool.shutdown(cancel_futures=True)


def _code(nvrtc: Any, module: Module, options: Sequence[str], exact: bool) -> bytes:
    program = nvrtc.createProgram(module.text, "program.cu", (), ())
    try:
        try:
            folders = dict.fromkeys(header.parent for header in _headers(module))
            nvrtc.compileProgram(program, (*options, *(f"-I{folder}" for folder in folders)))
        except nvrtc.NVRTCError as error:
            said = nvrtc.getProgramLog(program)
            raise GraphError(f"NVRTC refuses a program, which is a bug of minigraph or of an op: {said}") from error
        return bytes((nvrtc.getCUBIN if exact else nvrtc.getPTX)(program))
    finally:
        nvrtc.destroyProgram(program)


def find(header: str) -> Path:
    """A header of this backend, or of the C backend, by its name."""
    return next(folder / header for folder in FOLDERS if (folder / header).exists())
