"""Compilers: which one is taken, what it is told, and the sentence where there is none or it fails."""

import os
import platform
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from minigraph.backends.c import compiler as module
from minigraph.backends.c.compiler import ISAS, SAME, CompilerError, NoCompiler, compiled, compiler
from minigraph.core.errors import GraphError

MACHINE = SAME.get(platform.machine(), platform.machine())
HERE = [name for name in ("gcc", "clang") if shutil.which(name)]


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """A cache of its own, nothing loaded before, and settings that nobody has made."""
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_loaded", {})
    for name in ("CC", "MINIGRAPH_ISA"):
        monkeypatch.delenv(name, raising=False)
    module._found.cache_clear()
    yield
    module._found.cache_clear()


def program(folder, name, text):
    """A program of this name that the shell runs."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def real():
    """The command of a compiler that works."""
    return shlex.join(compiler().command)


def wrapper(folder, name):
    """A compiler under another name that writes down how it was called."""
    log = shlex.quote(str(folder / f"{name}.log"))
    return program(folder, name, f'echo "$@" >> {log}\nexec {real()} "$@"')


def calls(file):
    return Path(f"{file}.log").read_text()


@pytest.mark.compiler
@pytest.mark.parametrize("name", [*HERE, ""])
def test_arithmetic_is_that_of_c(monkeypatch, name):
    """Whole numbers wrap around, NaN is a number like any other, and denormals stay, also in Python."""
    monkeypatch.setenv("CC", name)
    library = compiled("""
        #include <math.h>
        #include <stdint.h>
        int grows(int32_t n) { return n + 1 > n; }
        int is_nan(void) { volatile double zero = 0; double x = zero / zero; return x != x && isnan(x); }
        int is_denormal(void) { volatile float least = 1.17549435e-38f; return least / 2 > 0; }
        int order(void) { volatile float big = 1e8f, one = 1; return (one + big) - big == 0; }
    """)
    assert library.grows(2**31 - 1) == 0
    assert (library.is_nan(), library.is_denormal(), library.order()) == (1, 1, 1)
    assert sys.float_info.min / 2 > 0


@pytest.mark.compiler
def test_it_is_told_what_it_needs(tmp_path, monkeypatch):
    cc = wrapper(tmp_path, "my cc")
    monkeypatch.setenv("CC", shlex.quote(str(cc)) + " -DTWO=2")
    assert compiled("int two(void) { return TWO; }").two() == 2
    told = calls(cc)
    for flag in ("-O2", "-fopenmp-simd", "-fwrapv", "-fno-math-errno", "-fno-trapping-math", "-std=gnu11", "-DTWO=2"):
        assert f" {flag} " in f" {told}"
    assert "-ffast-math" not in told
    assert "-Ofast" not in told
    if MACHINE == "x86_64":
        assert "-march=native -mprefer-vector-width=512" in told


@pytest.mark.parametrize(
    ("cc", "why"),
    [
        ("no-such-compiler", "there is no program 'no-such-compiler'"),
        ("'open", "No closing quotation"),
        ("/a folder/gcc", "there is no program '/a'; a path with spaces needs quotes"),
        ("false", "false --version` ends with status 1[^\\n]*$"),
        ("echo gcc 99", "echo .*makes no library"),
    ],
)
def test_a_wrong_cc_is_said(monkeypatch, cc, why):
    monkeypatch.setenv("CC", cc)
    with pytest.raises(CompilerError, match=f"the compiler that \\$CC names, .*does not work: .*{why}") as error:
        compiler()
    assert not isinstance(error.value, NoCompiler)


@pytest.mark.compiler
def test_a_cc_that_computes_wrongly(tmp_path, monkeypatch):
    change = 'for word; do case "$word" in */source.c) sed -i "s/sqrtf(/-(/" "$word" ;; esac; done'
    monkeypatch.setenv("CC", str(program(tmp_path, "cc", f'{change}\nexec {real()} "$@"')))
    with pytest.raises(CompilerError, match=r"compiles 1 \+ 2 \+ ... \+ 9 \+ 1 to -2116"):
        compiler()


@pytest.mark.compiler
def test_a_broken_gcc_is_passed_over(tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    clang = wrapper(programs, "clang")
    program(programs, "gcc", "echo gcc 1.0; test $1 = --version")
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    assert compiler().command == (str(clang),)


@pytest.mark.compiler
def test_zig_of_the_wheel(tmp_path, monkeypatch):
    """It has other names for the processor, and its folder of object files goes with the build."""
    package = tmp_path / "ziglang"
    under = real()
    log = shlex.quote(str(package / "zig.log"))
    program(
        package,
        "zig",
        f"""test $1 = cc || exit 1
        shift
        echo "$@" "in" $ZIG_LOCAL_CACHE_DIR >> {log}
        for flag; do shift; case $flag in -mcpu=*) ;; *) set -- "$@" "$flag" ;; esac; done
        exec {under} "$@" """,
    )
    (package / "__init__.py").write_text("")
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{tmp_path}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: name if os.path.isabs(name) else None)
    assert compiler().command == (str(package / "zig"), "cc")
    assert compiled("int five(void) { return 5; }").five() == 5
    last = calls(package / "zig").splitlines()[-1]
    assert "-mcpu=native" in last
    assert not Path(last.split(" in ")[1]).exists()


def test_no_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(
        NoCompiler, match=r"there is no C compiler that works; install gcc or clang, or `pip install zigl"
    ):
        compiled("int one(void) { return 1; }")


def test_compilers_that_do_not_work_are_named(tmp_path, monkeypatch):
    program(tmp_path, "gcc", "echo gcc 1.0; test $1 = --version || { echo 'math.h: error: no such file'; exit 1; }")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(NoCompiler, match=r"works; .*gcc \(gcc 1.0\) says: math.h: error: no such file; install gcc"):
        compiler()


def test_windows(monkeypatch):
    with monkeypatch.context() as windows:
        windows.setattr(sys, "platform", "win32")
        with pytest.raises(NoCompiler, match="Windows has backend='numpy'"):
            compiler()


# Instructions


@pytest.mark.compiler
@pytest.mark.parametrize("isa", ["plain", ""])
def test_isa(monkeypatch, isa):
    monkeypatch.setenv("MINIGRAPH_ISA", isa)
    library = compiled("""
        #ifdef __AVX2__
        int avx2(void) { return 1; }
        #else
        int avx2(void) { return 0; }
        #endif
    """)
    assert library.avx2() == (isa == "" and "avx2" in module.processor().split())


def test_an_isa_that_is_not_known(monkeypatch):
    monkeypatch.setenv("MINIGRAPH_ISA", "mmx")
    with pytest.raises(GraphError, match=f"MINIGRAPH_ISA is 'mmx'; on {MACHINE} it is {' or '.join(ISAS[MACHINE])}"):
        compiler()


def test_an_isa_that_theprocessor_has_not(monkeypatch):
    needed = ISAS["x86_64"]["avx2"][1]
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(module, "processor", lambda: "sse2 " + " ".join(needed - {"avx2", "fma"}))
    monkeypatch.setenv("MINIGRAPH_ISA", "avx2")
    with pytest.raises(GraphError, match=r"MINIGRAPH_ISA is 'avx2', and this processor has no avx2, fma"):
        compiler()


@pytest.mark.compiler
def test_another_isa_is_another_library(tmp_path, monkeypatch):
    source = "int one(void) { return 1; }"
    compiled(source)
    before = len(list((tmp_path / "cache").iterdir()))
    monkeypatch.setenv("MINIGRAPH_ISA", "plain")
    compiled(source)
    assert len(list((tmp_path / "cache").iterdir())) == before + 2  # of the trial, too


# Sources and headers


@pytest.mark.compiler
def test_the_same_source_is_the_same_library(tmp_path):
    source = "static int n; int count(void) { return ++n; }"
    assert [compiled(source).count(), compiled(source).count()] == [1, 2]


@pytest.mark.compiler
def test_headers_are_part_of_the_key(tmp_path):
    header = tmp_path / "number.h"
    source = '#include "number.h"\nint number(void) { return NUMBER; }'
    header.write_text("#define NUMBER 1\n")
    assert compiled(source, (header,)).number() == 1
    header.write_text("#define NUMBER 2\n")
    assert compiled(source, (header,)).number() == 2


def test_headers_that_are_not_given(tmp_path):
    header = tmp_path / "number.h"
    header.write_text('#include "other.h"\n')
    with pytest.raises(GraphError, match=r"other\.h is included and is not among the headers: number\.h"):
        compiled('#include "number.h"\n', (header,))


def test_headers_with_one_name(tmp_path):
    headers = (tmp_path / "a" / "pool.h", tmp_path / "b" / "pool.h")
    for header in headers:
        header.parent.mkdir()
        header.write_text("")
    with pytest.raises(GraphError, match=r"two headers have the name pool\.h"):
        compiled("", headers)


@pytest.mark.compiler
def test_a_source_that_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = "int f(void) {\n  int unused;\n  return missing;\n}\n"
    with pytest.raises(CompilerError, match=r"says: .*source\.c:3:.*error: .*missing.*bug of minigraph") as error:
        compiled(source)
    (left,) = tmp_path.glob("minigraph-*")
    assert str(left / "source.c") in str(error.value)
    assert (left / "source.c").read_text() == source
    assert "missing" in (left / "errors.txt").read_text()


@pytest.mark.compiler
def test_a_symbol_that_is_nowhere():
    with pytest.raises(CompilerError, match=r"cannot be loaded: .*nowhere"):
        compiled("int nowhere(void);\nint f(void) { return nowhere(); }")


@pytest.mark.compiler
def test_a_compiler_that_is_killed(tmp_path, monkeypatch):
    good = real()
    stop = tmp_path / "stop"
    program(tmp_path, "cc", f'test -e {shlex.quote(str(stop))} && kill -9 $$\nexec {good} "$@"')
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    compiler()
    stop.touch()
    with pytest.raises(CompilerError, match="was ended by signal 9: is there enough memory"):
        compiled("int one(void) { return 1; }")


@pytest.mark.compiler
def test_debuggers_find_the_source(tmp_path):
    compiled("int one(void) { return 1; }")
    libraries = [file.read_bytes() for file in (tmp_path / "cache").glob("*/library.so")]
    kept = [str(folder).encode() for folder in (tmp_path / "cache").iterdir()]
    assert [sum(folder in library for folder in kept) for library in libraries] == [1] * len(kept)


@pytest.mark.compiler
@pytest.mark.parametrize("name", [*HERE, ""])
def test_half(monkeypatch, name):
    monkeypatch.setenv("CC", name)
    prelude = Path(module.__file__).with_name("prelude.h")
    source = (
        '#include "prelude.h"\n#ifdef __FLT16_MAX__\nhalf one(void) { return 1; }\n#endif\nint two(void) { return 2; }'
    )
    library = compiled(source, (prelude,))
    assert library.two() == 2
    assert hasattr(library, "one") == compiler().has_half


@pytest.mark.compiler
def test_no_half(monkeypatch):
    monkeypatch.setenv("CC", f"{real()} -D_Float16=struct")
    assert not compiler().has_half
