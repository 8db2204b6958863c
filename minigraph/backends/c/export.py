"""Programs that are taken away: a folder with the C source, a header, the weights and a library, complete in itself.

    program.h              what a C program includes: a struct of inputs and outputs, and four functions
    program.c              these functions; they know where in the file of the weights each array lies
    step.c                 the printed plan, with the headers that it includes beside it; thread_pool.c runs it
    weights.safetensors    state, what was computed from it once, and large constants
    program.so             all of this, compiled for the processors that program.json describes
    program.json           what the folder is, for programs that load it

The names in C begin with that of the folder, so that several programs go into one. A folder is written beside its
place and renamed; one that is there already is replaced only if it is such a folder too, or empty.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from minigraph.backends.c.compiler import Compiler, compiler
from minigraph.backends.c.executable import Executable, Printed, graph_literal
from minigraph.backends.c.exported import FORMAT, HEADER, LIBRARY, MANIFEST, WEIGHTS, build, digest, machine, manifest
from minigraph.backends.expressions import STORED
from minigraph.backends.places import given
from minigraph.backends.plan import Buffer, Plan, as_said, takes_places
from minigraph.core import dim
from minigraph.core.dim import Dim
from minigraph.core.dtypes import NARROW
from minigraph.core.errors import expect
from minigraph.core.ir import Graph, Node, Type
from minigraph.core.state import State

HERE = Path(__file__).parent
OURS = (HERE / "prelude.h", HERE / "scalar.h", HERE / "thread_pool.h", HERE / "weights.h")

KEYWORDS = """
alignas alignof auto bool break case catch char class const continue default delete do double else enum explicit export
extern false float for friend goto if inline int long mutable namespace new operator private protected public register
restrict return short signed sizeof static struct switch template this throw true try typedef typeid typename union
unsigned using virtual void volatile while
"""


@dataclass(frozen=True)
class Array:
    """An input or an output: its name in the graph, the one of its pointer in C, and its place among what is given."""

    name: str
    field: str
    type: Type
    place: int

    @property
    def text(self) -> str:
        """How C and people write its sizes."""
        return f"({', '.join(map(str, self.type.shape))}{',' if self.type.rank == 1 else ''})"


@dataclass(frozen=True)
class Size:
    """A size that is known when the program runs, from 0 to `most`."""

    symbol: str
    field: str
    most: int
    never: frozenset[int]  # those between that the graph does not take

    @property
    def least(self) -> int:
        return next(n for n in range(self.most + 1) if n not in self.never)

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """The first and the last of all that follow one another and are not taken, above the least."""
        least = self.least
        never = sorted(n for n in self.never if n > least)
        return list(zip((n for n in never if n - 1 not in self.never), (n for n in never if n + 1 not in self.never)))

    @property
    def text(self) -> str:
        gaps = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in self.gaps)
        return f"from {self.least} to {self.most}" + (f" without {gaps}" if gaps else "")

    def wrong(self, variable: str) -> str:
        """The condition in C."""
        gaps = [f"{variable} == {a}" if a == b else f"({variable} >= {a} && {variable} <= {b})" for a, b in self.gaps]
        return " || ".join([f"{variable} < {self.least}", f"{variable} > {self.most}", *gaps])


@dataclass(frozen=True)
class Weight:
    """An array of the file of weights: its place among what is given, and in the file."""

    name: str
    type: Type
    place: int
    offset: int


def export(
    folder: str | os.PathLike[str],
    graph: Graph,
    executable: Executable,
    sizes: Mapping[str, int],
    state: Mapping[str, np.ndarray],
) -> Path:
    """Write a program to a folder, whole or not at all; the folder.

    graph: before it was lowered: its ops say which sizes they take. state: all arrays that the program needs and its
    caller does not give, by name. sizes: of all symbols; the batch may be smaller when the program runs. It has memory
    for as many threads as there are now. Raises GraphError for sizes that are missing or not taken and for a folder
    that holds something else, and CompilerError.
    """
    _check_sizes(graph, sizes)
    place = Path(os.path.abspath(folder))
    _check_replaceable(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent))
    try:
        _write(new, place, graph, executable.printed(sizes), sizes, state)
        os.chmod(new, 0o755)
        _rename(new, place)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return place


def _check_sizes(graph: Graph, sizes: Mapping[str, int]) -> None:
    known = ", ".join(sorted(graph.symbols)) or "none"
    for symbol in sorted(graph.symbols):
        expect(symbol in sizes, "no size is given for {}: export(folder, {}=64), say", symbol, symbol)
    for symbol, n in sizes.items():
        expect(symbol in graph.symbols, "{!r} has no size {}; it has {}", graph.name, symbol, known)
        expect(type(n) is int and n > 0, "{} is a whole number above 0, not {!r}", symbol, n)
    graph.bind(**sizes)


def _not_taken(graph: Graph, plan: Plan, sizes: Mapping[str, int], symbol: str) -> frozenset[int]:
    """The sizes below the largest that the graph does not take: the batch norm of a training step needs two images.

    All are tried: x[-10:] needs ten. Pointwise ops take what their inputs are.
    """
    asked = [node for node in graph.nodes if takes_places(node) or node.op.expression is None]
    nodes = _different([*asked, *filter(takes_places, plan.graph.nodes)])
    declared = {n for value in graph.inputs for n in value.type.shape if isinstance(n, Dim)}

    def takes(n: int) -> bool:
        tried = {**sizes, symbol: n}
        return all(size.bind(tried) >= 0 for size in declared) and all(as_said(node, tried) for node in nodes)

    return frozenset(n for n in range(sizes[symbol]) if not takes(n))


def _different(nodes: Sequence[Node]) -> list[Node]:
    """One of each kind, of those whose sizes are known when they run."""
    found: dict[tuple[Any, ...], Node] = {}
    for node in nodes:
        types = tuple(value.type for value in (*node.inputs, *node.outputs))
        if any(map(dim.symbolic, (*(type_.shape for type_ in types), *node.attrs.values()))):
            found[node.op, types, tuple(node.attrs.items())] = node
    return list(found.values())


# the folder


def _check_replaceable(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        ours = not any(place.iterdir()) or manifest(place)
        expect(ours, "{} is there and is no exported program: it stays as it is; name another folder", place)
    else:
        expect(not os.path.lexists(place), "{} is there and is no folder", place)


def _rename(new: Path, place: Path) -> None:
    """Put the new folder into its place, and what was there away."""
    if place.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".old", dir=place.parent))
        os.rename(place, old / "old")
        try:
            os.rename(new, place)
        except OSError:
            os.rename(old / "old", place)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(new, place)


def _write(
    folder: Path,
    place: Path,
    graph: Graph,
    program: Printed,
    symbols: Mapping[str, int],
    state: Mapping[str, np.ndarray],
) -> None:
    by, name, plan = compiler(), identifier(place.name), program.plan
    buffers = given(plan)
    literals = {b.name: np.asarray(graph_literal(plan, b)) for b in buffers if b.place == "literal"}
    kept = {b: b.name for b in buffers if b.place == "literal" or (b.place in ("input", "state") and b.name in state)}
    arrays = State({name: literals[name] if name in literals else state[name] for name in kept.values()})
    arrays.save(folder / WEIGHTS, {"program": name})
    face = _face(name, graph, program, symbols, set(kept))
    weights, file = _weights(folder / WEIGHTS, buffers)
    _text(folder / HEADER, _program_h(face, by))
    _text(folder / "program.c", _program_c(face, weights, file, plan))
    _text(folder / "step.c", _named(program.source.text, name))
    shutil.copyfile(HERE / "thread_pool.c", folder / "thread_pool.c")
    for header in _headers(program):
        expect(not (folder / header.name).exists(), "a header of an op is called {}, as ours is", header.name)
        shutil.copyfile(header, folder / header.name)
    build(folder, folder / LIBRARY, by, named=place)
    about = {
        "minigraph": version("minigraph"),
        "format": FORMAT,
        "name": name,
        "graph": plan.graph.name,
        "system": sys.platform,
        "machine": machine(),
        "needs": by.needs,
        "compiler": str(by),
        "flags": by.flags,
        "threads": face.threads,  # the most
        "sizes": {size.symbol: size.most for size in face.sizes},  # the largest
        "fixed": dict(face.fixed),
        "inputs": [_described(array) for array in face.inputs],
        "outputs": [_described(array) for array in face.outputs],
        "updates": sorted(old.name for old in plan.graph.updates),
        "files": {file.name: digest(file) for file in sorted(folder.iterdir())},
    }
    _text(folder / MANIFEST, json.dumps(about, indent=2) + "\n")


def _text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")


def _named(source: str, name: str) -> str:
    """The printed source, with the program's name before those of its functions that others see."""
    return f"#define step {name}_step\n#define prepare {name}_prepare\n{source}"


def _described(array: Array) -> dict[str, Any]:
    shape = [n if isinstance(n, int) else str(n) for n in array.type.shape]
    return {"name": array.name, "dtype": array.type.dtype, "shape": shape}


def _headers(program: Printed) -> list[Path]:
    """All that the sources include in quotes, also by way of one another, and program.c besides."""
    known = {path.name: path for path in (*HERE.glob("*.h"), *program.source.headers)}
    found = {path.name: path for path in OURS}
    texts = [program.source.text]
    while texts:
        for include in re.findall(r'^\s*#\s*include\s+"([^"]+)"', texts.pop(), re.MULTILINE):
            if include not in found:
                found[include] = known[include]
                texts.append(known[include].read_text(encoding="utf-8"))
    return sorted(found.values())


@dataclass(frozen=True)
class Face:
    """What a caller in C sees of a program."""

    name: str
    sizes: Sequence[Size]
    fixed: Mapping[str, int]  # other symbols
    inputs: Sequence[Array]
    outputs: Sequence[Array]
    updates: bool  # whether a run moves the weights
    threads: int  # the most that the program has memory for

    @property
    def arrays(self) -> Sequence[Array]:
        return (*self.inputs, *self.outputs)


def _face(name: str, graph: Graph, program: Printed, symbols: Mapping[str, int], kept: set[Buffer]) -> Face:
    plan, places = program.plan, {buffer.value: i for i, buffer in enumerate(given(program.plan))}
    own = {buffer.value for buffer in kept}
    sizes = sorted(plan.sizes.items())
    inputs = [(v.name, v.type, places[v]) for v in plan.graph.inputs if v not in own]
    outputs = [(name, v.type, places[plan.partition.base(v)]) for name, v in plan.graph.outputs.items()]
    arrays = inputs + outputs
    fields = identifiers([*(symbol for symbol, _ in sizes), *(name for name, _, _ in arrays)])
    made = [Array(name, field, type_, place) for field, (name, type_, place) in zip(fields[len(sizes) :], arrays)]
    return Face(
        name,
        [Size(symbol, field, n, _not_taken(graph, plan, symbols, symbol)) for field, (symbol, n) in zip(fields, sizes)],
        {symbol: n for symbol, n in symbols.items() if symbol not in plan.sizes},
        made[: len(inputs)],
        made[len(inputs) :],
        bool(plan.graph.updates),
        plan.threads,
    )


def _weights(file: Path, buffers: Sequence[Buffer]) -> tuple[list[Weight], tuple[int, int, int]]:
    """Where in the file each array lies; the bytes of the file, of its header, and the hash of that."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    offsets = {name: start + about["data_offsets"][0] for name, about in header.items() if name != "__metadata__"}
    weights = [  # the format puts wider numbers first, so that each lies at a multiple of its size
        Weight(b.name, b.type, place, offsets[b.name])
        for place, b in enumerate(buffers)
        if b.place != "output" and b.name in offsets
    ]
    return weights, (len(data), start, _hash(data[:start]))


def _hash(data: bytes) -> int:
    """FNV-1a of 64 bits, as weights.h has it."""
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return found


# names


def identifier(name: str) -> str:
    """The name as C can write it."""
    word = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"p_{word}" if not word or word[0].isdigit() or word[0] == "_" else word


def identifiers(names: Sequence[str]) -> list[str]:
    """The names as C can write them, each another."""
    found: list[str] = []
    for name in names:
        word = re.sub(r"[^A-Za-z0-9_]", "_", name)
        word = f"_{word}" if word[0].isdigit() else f"{word}_" if word in KEYWORDS.split() else word
        again = 2
        unique = word
        while unique in found:
            unique, again = f"{word}_{again}", again + 1
        found.append(unique)
    return found


# C


def _kind(dtype: str) -> str:
    """The type of a number for a C program; not every C compiler knows narrow floats."""
    return "uint16_t" if dtype in NARROW else STORED[dtype]


def _field(array: Array, const: str) -> str:
    bits = f", the bits of {array.type.dtype}" if array.type.dtype in NARROW else ""
    other = f"{array.name} " if array.name != array.field else ""
    return f"{const}{_kind(array.type.dtype)} *{array.field};  // {other}{array.text}{bits}"


def _filled(template: str, face: Face, **lines: Sequence[str]) -> str:
    texts = {key: "\n  ".join(value) for key, value in lines.items()}
    text = Template(template).substitute(name=face.name, threads=face.threads, **texts)
    return re.sub(r"\n +(?=\n)", "", text)  # lines of which none came


def _program_h(face: Face, by: Compiler) -> str:
    upper = face.name.upper()
    flags = " ".join(flag for flag in by.flags if flag not in ("-shared", "-fPIC", "-g1"))
    sizes = [f"#define {upper}_{size.field} {size.most}  // the largest {size.symbol}" for size in face.sizes]
    sizes += [f"// {symbol} is {n}." for symbol, n in face.fixed.items()]
    fields = [f"int64_t {size.field};  // {size.text}" for size in face.sizes]
    fields += [_field(a, "const ") for a in face.inputs] + [_field(a, "") for a in face.outputs]
    does = "Runs one step, which moves the weights" if face.updates else "Computes the outputs"
    text = _filled(HEAD, face, guard=[f"{upper}_PROGRAM"], flags=[flags], does=[does], fields=fields, sizes=["SIZES"])
    text = text.replace("SIZES\n\n", "".join(f"{line}\n" for line in sizes) + "\n" * bool(sizes))
    return text.replace("SAVE\n", _filled(SAVE, face) if face.updates else "")


HEAD = """\
// A program that minigraph has exported. Compile its sources with yours, by gcc, clang or zig cc:
//
//   cc $flags main.c $name/*.c -lm -pthread
//
// or link $name/program.so, which runs on processors like the one that it was made on. Several exported programs need
// thread_pool.c once.
// Every function returns 0, or a sentence that says what is wrong.
#ifndef $guard
#define $guard

#include <stdbool.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

$sizes

typedef struct ${name}_program ${name}_program;

// Inputs and outputs lie in memory of the caller, C-contiguous. An output overlaps no other array.
typedef struct {
  $fields
} ${name}_arrays;

// Reads the weights and makes what a program needs. It runs on so many threads, $threads at most;
// 0: one for each core of the process.
const char *${name}_create(${name}_program **made, const char *weights_file, int threads);

// $does. One call at a time. After an error the weights are as they were.
const char *${name}_run(${name}_program *program, const ${name}_arrays *arrays);

SAVE
void ${name}_free(${name}_program *program);

#ifdef __cplusplus
}
#endif
#endif
"""
SAVE = """\
// Writes the weights as they are now, whole or not at all, to a file that ${name}_create reads.
const char *${name}_save(const ${name}_program *program, const char *weights_file);

"""


def _program_c(face: Face, weights: Sequence[Weight], file: tuple[int, int, int], plan: Plan) -> str:
    """file: bytes, bytes of the header, hash of the header."""
    places = [f"p->given[{w.place}] = p->weights + {w.offset};  // {w.name}: {w.type}" for w in weights]
    bytes_ = [prepared.target.nbytes for prepared in plan.prepared]
    packed = [f"if (!(p->packed[{i}] = weights_memory({n}))) return NO_MEMORY;" for i, n in enumerate(bytes_)]
    prepare = "if (pool_run(prepare, &c, p->threads)) return NO_THREADS;"
    checks = [f'if ({s.wrong(f"a->{s.field}")}) return "{s.field} is not {s.text}";' for s in face.sizes]
    checks += [f'if (!a->{array.field}) return "{array.field} is a null pointer";' for array in face.arrays]
    given_here = [f"p->sizes[{i}] = a->{size.field};" for i, size in enumerate(face.sizes)]
    given_here += [f"p->given[{array.place}] = (void *)a->{array.field};" for array in face.arrays]
    return _filled(
        BODY + (SAVING if face.updates else ""),
        face,
        file=[f"{{{file[0]}, {file[1]}, {file[2]:#x}u}}"],
        given_count=[str(max(1, len(given(plan))))],
        sizes_count=[str(max(1, len(face.sizes)))],
        packed_count=[str(max(1, len(plan.prepared)))],
        packed=packed,
        at_first=["struct context c = context_of(p);", prepare],
        arena=[str(plan.arena)],
        offsets=[", ".join(str(root.offset) for root in plan.roots) or "0"],
        places=places,
        checks=checks,
        given=given_here,
    )


BODY = """\
// The functions of program.h: memory, the file of the weights, and calls of the step on a pool of threads.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "program.h"

#include <sched.h>
#include <unistd.h>

#include "prelude.h"
#include "thread_pool.h"
#include "weights.h"

static const struct weights file = $file;  // bytes, bytes of the header, hash of the header
static const idx offsets[] = {$offsets};  // of what lies in the arena

struct ${name}_program {
  char *arena, *weights;
  void *given[$given_count], *packed[$packed_count];
  idx sizes[$sizes_count];
  int threads;
};

void ${name}_prepare(struct context *c, int thread, int threads);
void ${name}_step(struct context *c, int thread, int threads);

static void prepare(void *with, int thread, int threads) { ${name}_prepare(with, thread, threads); }
static void step(void *with, int thread, int threads) { ${name}_step(with, thread, threads); }

static int cores(void) {
#ifdef __linux__
  cpu_set_t allowed;
  if (!sched_getaffinity(0, sizeof allowed, &allowed)) return CPU_COUNT(&allowed);
#endif
  const long found = sysconf(_SC_NPROCESSORS_ONLN);
  return found < 1 ? 1 : (int)found;
}

#define NO_MEMORY "there is not enough memory"
#define NO_THREADS "so many threads cannot be had"

static struct context context_of(${name}_program *p) {
  return (struct context){
      .arena = p->arena,
      .offsets = offsets,
      .given = p->given,
      .packed = p->packed,
      .sizes = p->sizes,
      .barrier = pool_barrier};
}

void ${name}_free(${name}_program *p) {
  if (!p) return;
  for (size_t i = 0; i < sizeof p->packed / sizeof *p->packed; i++) free(p->packed[i]);
  free(p->arena);
  free(p->weights);
  free(p);
}

static const char *fill(${name}_program *p, const char *weights_file) {
  if (!(p->arena = weights_memory($arena))) return NO_MEMORY;
  if (!(p->weights = weights_memory(file.bytes))) return NO_MEMORY;
  $packed
  const char *wrong = weights_read(weights_file, p->weights, file);
  if (wrong) return wrong;
  $places
  $at_first
  return 0;
}

const char *${name}_create(${name}_program **made, const char *weights_file, int threads) {
  *made = 0;
  if (threads < 0 || threads > $threads) return "the number of threads is not from 0 to $threads";
  ${name}_program *p = calloc(1, sizeof *p);
  if (!p) return NO_MEMORY;
  p->threads = threads ? threads : cores() < $threads ? cores() : $threads;
  const char *wrong = fill(p, weights_file);
  if (wrong) {
    ${name}_free(p);
    return wrong;
  }
  *made = p;
  return 0;
}

const char *${name}_run(${name}_program *p, const ${name}_arrays *a) {
  $checks
  $given
  struct context c = context_of(p);
  if (pool_run(step, &c, p->threads)) return NO_THREADS;
  return c.fault ? "a number of an input is out of range" : 0;
}
"""
SAVING = """
const char *${name}_save(const ${name}_program *p, const char *weights_file) {
  return weights_write(weights_file, p->weights, file);
}
"""
