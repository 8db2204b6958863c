"""From C text to a loaded library: which compiler there is, what it is told, and what is said where it fails.

The compiler is $CC, or the first of gcc, clang and the wheel ziglang that makes of a trial a library that runs. It is
told to use the instructions of this machine, or those that MINIGRAPH_ISA names. Each flag that lets it change the
arithmetic is named singly: -ffast-math would make denormals zero for the thread that loads the library.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from minigraph.backends.c import cache
from minigraph.core.errors import GraphError, expect

FLAGS = (
    "-std=gnu11",
    "-O2",
    "-g1",  # lines for debuggers and profilers; costs no time
    "-fPIC",
    "-shared",
    "-fopenmp-simd",
    "-fwrapv",  # whole numbers wrap around, as NumPy's do
    "-fno-math-errno",
    "-fno-trapping-math",
)
LIBRARIES = ("-lm", "-pthread")

# What MINIGRAPH_ISA may say, by machine: -march, and the flags of /proc/cpuinfo that it needs.
ISAS: dict[str, dict[str, tuple[str, set[str]]]] = {
    "x86_64": {
        "avx512": ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
        "avx2": ("x86-64-v3", {"avx2", "fma", "f16c", "bmi2"}),
        "plain": ("x86-64", set()),
    },
    "aarch64": {"neon": ("armv8-a", set()), "plain": ("armv8-a", set())},
}
ZIG_NAMES = {"x86-64-v4": "x86_64_v4", "x86-64-v3": "x86_64_v3", "x86-64": "x86_64", "armv8-a": "generic"}
EMITTED = re.compile("s?sse|avx|fma|f16c|bmi|abm|popcnt|movbe|gfni")  # others compilers use only when they are asked
SAME = {"AMD64": "x86_64", "arm64": "aarch64"}  # what other systems call these machines

# The lines of /proc/cpuinfo that say which processor it is.
PROCESSOR = {"vendor_id", "cpu family", "model", "model name", "stepping", "flags", "features"} | {
    f"cpu {what}" for what in ("implementer", "architecture", "variant", "part", "revision")
}

INSTALL = "install gcc or clang, or `pip install ziglang` (which `pip install 'minigraph[c]'` does)"

TRIAL = """\
// A trial of the compiler.
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

typedef float vector __attribute__((vector_size(16)));

int trial(int n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < n; i++) sum += (float)i;
  vector all = {sum, sum, sum, sum};
  all = all + 1;
  return (int)sqrtf(all[3] * all[3]);
}
"""

HALF_TRIAL = """\
// A trial of the compiler: has it float16?
int trial(int n) {
  volatile _Float16 third = (_Float16)((float)n / 3);
  return (int)((float)third * 3);
}
"""


class NoCompiler(GraphError):
    """There is none; the sentence says what to install."""


class CompilerError(GraphError):
    """A compiler does not work, or refuses a source. `said` is all that it said."""

    def __init__(self, why: str, said: str = ""):
        super().__init__(why)
        self.said = said


@dataclass(frozen=True)
class Compiler:
    """A compiler that works, and what it is told on this machine."""

    command: tuple[str, ...]
    version: str
    flags: tuple[str, ...]
    cpu: str  # which processor the flags mean by "native"; empty where they name the instructions themselves

    def __str__(self) -> str:
        return f"{shlex.join(self.command)} ({self.version})"

    def build(
        self,
        source: Path,
        library: Path,
        headers: Sequence[Path] = (),
        named: Path | None = None,
        others: Sequence[Path] = (),
    ) -> None:
        """Compile one source, and `others` that belong to it, to a shared library.

        `named` is the folder in which debuggers will look for the source. CompilerError says the first error.
        """
        arguments = [f"-I{folder}" for folder in dict.fromkeys(header.absolute().parent for header in headers)]
        if named:
            arguments.append(f"-fdebug-prefix-map={source.parent}={named}")
        settings = {**os.environ, "LC_ALL": "C"}
        if _is_zig(self.command):
            settings |= _zig_folders(library.parent)
        status, said = _run(
            [*self.command, *self.flags, *arguments, *map(str, (source, *others)), "-o", str(library), *LIBRARIES],
            settings,
        )
        if status < 0:
            raise CompilerError(f"{self} was ended by signal {-status}: is there enough memory?", said)
        if status:
            raise CompilerError(f"{self} says: {_first_error(said) or f'nothing, but its status is {status}'}", said)
        if not library.exists():
            raise CompilerError(f"{self} makes no library", said)

    def load(self, source: str, headers: Sequence[Path] = ()) -> ctypes.CDLL:
        """The library of this source, from the cache if it is there. CompilerError as for `build`."""
        parts: list[str | bytes] = [source, *self.command, self.version, *self.flags, *LIBRARIES]
        parts += [platform.machine(), self.cpu]
        for header in headers:
            parts += [header.name, header.read_bytes()]
        key = cache.key(parts)
        if key not in _loaded:
            _loaded[key] = _load_kept(key) or self._load_new(key, source, headers)
        return _loaded[key]

    def _load_new(self, key: str, source: str, headers: Sequence[Path]) -> ctypes.CDLL:
        with tempfile.TemporaryDirectory(prefix="minigraph-") as name:  # a loaded library needs its file no longer
            folder = Path(name)
            (folder / cache.SOURCE).write_text(source, encoding="utf-8")
            self.build(folder / cache.SOURCE, folder / cache.LIBRARY, headers, named=cache.where() / key)
            kept = cache.keep(key, folder, {"compiler": str(self), "flags": self.flags})
            for library in (kept, folder / cache.LIBRARY):  # the first may lie where nothing may be run
                if library:
                    try:
                        return ctypes.CDLL(str(library))
                    except OSError as error:
                        why = str(error)
        raise CompilerError(f"what {self} makes cannot be loaded: {why}")

    @functools.cached_property
    def has_half(self) -> bool:
        """Whether it knows _Float16: gcc does from 12 on, clang from 15 on."""
        try:
            return self.load(HALF_TRIAL).trial(3) == 3
        except CompilerError:
            return False

    @functools.cached_property
    def needs(self) -> tuple[str, ...]:
        """What a processor must have to run the libraries: see `lacking`.

        Those are the instructions that the compiler says it uses. Where these have other names than the system gives
        them, it is a processor of the same description.
        """
        words = processor().split()
        if SAME.get(platform.machine(), platform.machine()) != "x86_64":
            return tuple(sorted(set(words))) if self.cpu else ()
        _, said = _run([*self.command, *self.flags, "-dM", "-E", "-x", "c", os.devnull], os.environ)
        macros = {_plain(name) for name in re.findall(r"#define __(\w+?)__ ", said)}
        return tuple(sorted({word for word in words if EMITTED.match(word) and _plain(word) in macros}))


def _plain(word: str) -> str:
    """The name of an instruction set, which compilers and systems write in their own ways."""
    word = word.lower().replace("_", "")
    return {"bmi": "bmi1", "lzcnt": "abm"}.get(word, word)


def lacking(needs: Sequence[str]) -> list[str]:
    """Which of them this machine's processor has not. Nothing where the system does not say what it has."""
    there = set(processor().split())
    return [word for word in needs if word not in there] if there else []


_loaded: dict[str, ctypes.CDLL] = {}


def compiled(source: str, headers: Sequence[Path] = ()) -> ctypes.CDLL:
    """The library that a C source makes, compiled if it is not in the cache.

    `headers` are all that it includes in quotes, also by way of one another. Where the compiler refuses the source, it
    is left in a folder that the error names.
    """
    _check_includes(source, headers)
    by = compiler()
    try:
        return by.load(source, headers)
    except CompilerError as error:
        left = Path(tempfile.mkdtemp(prefix="minigraph-refused-"))
        (left / cache.SOURCE).write_text(source, encoding="utf-8")
        (left / "errors.txt").write_text(error.said, encoding="utf-8")
        raise CompilerError(
            f"{error}. The C source is minigraph's own, so this is a bug of minigraph or of the compiler; "
            f"it lies in {left / cache.SOURCE}",
            error.said,
        ) from None


def compiler() -> Compiler:
    """The compiler of this machine.

    NoCompiler if there is none; CompilerError if the one that $CC names does not work, or if MINIGRAPH_ISA names
    instructions that are not known or that the processor has not.
    """
    if sys.platform == "win32":
        raise NoCompiler("programs are compiled on Linux and macOS only: Windows has backend='numpy'")
    return _found(os.environ.get("CC", "").strip(), os.environ.get("MINIGRAPH_ISA", ""), os.environ.get("PATH", ""))


@functools.cache  # by what it depends on
def _found(cc: str, isa: str, path: str) -> Compiler:
    _isa_flags(isa, zig=False)  # a wrong name is no compiler's fault
    if cc:
        try:
            return _tried(shlex.split(cc), isa)
        except ValueError as error:  # CompilerError, too
            raise CompilerError(f"the compiler that $CC names, {cc!r}, does not work: {error}") from None
    refused = []
    for command in _candidates():
        try:
            return _tried(command, isa)
        except CompilerError as error:
            refused.append(str(error))
    raise NoCompiler("; ".join(["there is no C compiler that works", *refused, INSTALL]))


def _candidates() -> Iterator[list[str]]:
    yield from ([name] for name in ("gcc", "clang") if shutil.which(name))
    wheel = find_spec("ziglang")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        yield [str(Path(folder) / "zig"), "cc"]


def _tried(command: Sequence[str], isa: str) -> Compiler:
    """The compiler, after a trial. CompilerError if it does not work."""
    program = shutil.which(command[0])
    if program is None:
        quote = "; a path with spaces needs quotes inside of $CC" if "/" in command[0] and len(command) > 1 else ""
        raise CompilerError(f"there is no program {command[0]!r}{quote}")
    command = (program, *command[1:])
    flags, cpu = _isa_flags(isa, _is_zig(command))
    with tempfile.TemporaryDirectory(prefix="minigraph-") as folder:  # zig wants its folders even for this
        more = _zig_folders(Path(folder)) if _is_zig(command) else {}
        status, said = _run([*command, "--version"], {**os.environ, **more})
    if status or not said.strip():
        first = f": {_first_error(said)}" if said.strip() else ""
        raise CompilerError(f"`{shlex.join(command)} --version` ends with status {status}{first}", said)
    found = Compiler(command, said.strip().splitlines()[0], (*FLAGS, *flags), cpu)
    answer = found.load(TRIAL).trial(10)
    if answer != 46:
        raise CompilerError(f"{found} compiles 1 + 2 + ... + 9 + 1 to {answer}")
    return found


def _isa_flags(isa: str, zig: bool) -> tuple[tuple[str, ...], str]:
    """What tells a compiler the instructions to use, and what "native" means if that is among it."""
    machine = SAME.get(platform.machine(), platform.machine())
    known = ISAS.get(machine, {})
    expect(
        not isa or isa in known, "MINIGRAPH_ISA is {!r}; on {} it is {}", isa, machine, " or ".join(known) or "not used"
    )
    wide = ("-mprefer-vector-width=512",) if machine == "x86_64" else ()  # where there are vectors so wide
    if not isa:
        option = "-mcpu" if zig or machine == "aarch64" else "-march"
        return ((f"{option}=native", *wide) if known else wide), processor()
    march, needed = known[isa]
    there = set(processor().split())
    missing = sorted(needed - there) if sys.platform == "linux" else ()
    expect(not missing, "MINIGRAPH_ISA is {!r}, and this processor has no {}", isa, ", ".join(missing))
    if zig:
        return (f"-mcpu={ZIG_NAMES[march]}", *wide), ""
    return (f"-march={march}", *wide), ""


@functools.cache
def processor() -> str:
    """All that is known of the processor, as far as it stays the same from boot to boot."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.split(":")[0].strip().lower() in PROCESSOR)
    if sys.platform == "darwin":
        return _run(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], os.environ)[1]
    return platform.processor()


def _load_kept(key: str) -> ctypes.CDLL | None:
    """The library of the cache, if there is one that this system can load."""
    library = cache.find(key)
    if library is None:
        return None
    try:
        return ctypes.CDLL(str(library))
    except OSError:  # it has just been removed, or a system that has the same home made it
        cache.forget(key)
        return None


def _run(command: Sequence[str], settings: Mapping[str, str]) -> tuple[int, str]:
    """The exit status, and all that the command said."""
    try:
        done = subprocess.run(
            command, env=settings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise CompilerError(f"{command[0]} cannot be run: {error.strerror}") from None
    return done.returncode, done.stdout.decode(errors="replace")


def _first_error(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if re.search(r"\berror\b|undefined", line, re.IGNORECASE)), "".join(lines[:1]))


def _is_zig(command: Sequence[str]) -> bool:
    return any(Path(word).stem in ("zig", "ziglang") for word in command)


def _zig_folders(build: Path) -> dict[str, str]:
    """zig keeps each object file for ever: not ours. What it compiles once, for all, it keeps in the user's folder."""
    folders = {"ZIG_LOCAL_CACHE_DIR": str(build)}
    ours = cache.user_caches() / "zig"
    if "ZIG_GLOBAL_CACHE_DIR" not in os.environ:
        try:
            ours.mkdir(parents=True, exist_ok=True)
        except OSError:
            ours = build / "zig"
        folders["ZIG_GLOBAL_CACHE_DIR"] = str(ours if os.access(ours, os.W_OK) else build / "zig")
    return folders


def _check_includes(source: str, headers: Sequence[Path]) -> None:
    """The cache looks at the headers that are given: one that is not could change unseen."""
    names = [header.name for header in headers]
    twice = sorted({name for name in names if names.count(name) > 1})
    expect(not twice, "two headers have the name {}", ", ".join(twice))
    texts = [source, *(header.read_text(encoding="utf-8") for header in headers)]
    included = {name for text in texts for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.MULTILINE)}
    unknown = sorted(included - set(names))
    expect(
        not unknown, "{} is included and is not among the headers: {}", ", ".join(unknown), ", ".join(names) or "none"
    )
