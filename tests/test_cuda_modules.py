"""Machine code: compiled in modules side by side, and kept for all programs that have them."""

from __future__ import annotations

import io
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from minigraph import GraphError
from minigraph.backends.cupy import compiler
from minigraph.backends.cupy.compiler import compiled
from minigraph.backends.cupy.source import Module, Source

pytestmark = [pytest.mark.cxx, pytest.mark.usefixtures("on_device")]


class Noted:
    """In place of NVRTC: machine code is what it was asked for."""

    NVRTCError = RuntimeError
    getVersion, getSupportedArchs = staticmethod(lambda: (13, 5)), staticmethod(lambda: (80, 90))

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def createProgram(self, text: str, *given: Any) -> str:
        return text

    def compileProgram(self, text: str, options: tuple[str, ...]) -> None:
        self.asked.append(options)

    def getProgramLog(self, text: str) -> str:
        return "no such word"

    def getCUBIN(self, text: str) -> bytes:
        return b"cubin of " + text.encode()

    def getPTX(self, text: str) -> bytes:
        return b"ptx of " + text.encode()

    def destroyProgram(self, text: str) -> None: ...


def module_of(text: str, header: Path) -> Module:
    return Module(("prelude.cuh",), {f'#include "{header.name}"': header}, {}, {"f": text})


def test_machine_code_is_kept_by_all_that_went_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    nvrtc, header = Noted(), tmp_path / "op.h"
    header.write_text("one")
    module, other = module_of("text", header), module_of("more", header)
    code = lambda modules, capability: compiled(nvrtc, Source(tuple(modules), ()), capability)
    (first,) = code([module], 90)
    assert first.read_bytes() == b"cubin of " + module.text.encode()
    assert code([module], 90) == [first]
    assert len(nvrtc.asked) == 1
    assert {"-std=c++20", "-arch=sm_90", f"-I{tmp_path}"} <= set(nvrtc.asked[0])
    header.write_text("two")
    others = [first, *code([module], 90), *code([other], 90), *code([module], 80), *code([module], 100)]
    assert len(set(others)) == len(others)
    assert others[-1].read_bytes() == b"ptx of " + module.text.encode()
    assert "-arch=compute_90" in nvrtc.asked[-1]
    with pytest.raises(GraphError, match=r"13\.5 compiles for compute capability 8\.0 and more, and this GPU has 7\.0"):
        code([module], 70)
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="compiled programs cannot be kept in"):
        assert code([module], 90)[0].read_bytes() == b"cubin of " + module.text.encode()


def test_modules_that_are_there_are_not_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of another program as well."""
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    nvrtc, header = Noted(), tmp_path / "op.h"
    header.touch()
    modules = [module_of(f"text {i}", header) for i in range(5)]
    first = compiled(nvrtc, Source(tuple(modules[:3]), ()), 90)
    second = compiled(nvrtc, Source(tuple(modules[1:]), ()), 90)
    assert second[:2] == first[1:]
    assert len(nvrtc.asked) == 5
    assert [file.read_bytes() for file in second] == [b"cubin of " + module.text.encode() for module in modules[1:]]


class Together(Noted):
    """Each compilation waits until so many have begun."""

    def __init__(self, count: int):
        super().__init__()
        self.barrier = threading.Barrier(count, timeout=60)

    def compileProgram(self, text: str, options: tuple[str, ...]) -> None:
        self.barrier.wait()


class Waiting(Noted):
    """Each compilation waits until something was said."""

    def __init__(self, said: io.StringIO):
        super().__init__()
        self.said = said

    def compileProgram(self, text: str, options: tuple[str, ...]) -> None:
        while not self.said.getvalue():
            time.sleep(0.001)


def test_modules_are_compiled_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIGRAPH_THREADS", "3")
    header = tmp_path / "op.h"
    header.touch()
    source = Source(tuple(module_of(f"text {i}", header) for i in range(3)), ())
    assert len(compiled(Together(3), source, 90)) == 3
    assert capsys.readouterr().err == ""


def test_what_takes_long_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler, "PATIENCE", 0.0)
    said, header = io.StringIO(), tmp_path / "op.h"
    monkeypatch.setattr(sys, "stderr", said)
    header.touch()
    compiled(Waiting(said), Source(tuple(module_of(f"text {i}", header) for i in range(3)), ()), 90)
    wanted = "minigraph: NVRTC compiles 3 kernels for this GPU; the next time they are there already\n"
    assert said.getvalue() == wanted


def test_a_module_that_is_refused_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIGRAPH_THREADS", "1")

    class Refusing(Noted):
        def compileProgram(self, text: str, options: tuple[str, ...]) -> None:
            super().compileProgram(text, options)
            if "text 1" in text:
                raise self.NVRTCError
            time.sleep(0.1)

    nvrtc, header = Refusing(), tmp_path / "op.h"
    header.touch()
    with pytest.raises(GraphError, match=r"NVRTC refuses a program, .* no such word"):
        compiled(nvrtc, Source(tuple(module_of(f"text {i}", header) for i in range(50)), ()), 90)
    assert len(nvrtc.asked) < 50
