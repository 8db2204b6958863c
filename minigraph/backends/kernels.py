"""The kernels that a program calls, as C: those of ops, which are included once for each combination of dtypes, and the
tuned ones, which are called by a function for each shape.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from minigraph.backends.calls import Pack
from minigraph.backends.expressions import COMPUTED, STORED, loaded, stored
from minigraph.backends.loops import block, number_text
from minigraph.core.dtypes import FLOATS
from minigraph.core.ir import Node, Type
from minigraph.core.op import Op


@functools.cache
def header_of(op: Op) -> Path:
    """The file of the op's kernel, beside the file that the op is written in."""
    assert op.kernel is not None
    return Path(inspect.getfile(op.types)).parent / op.kernel.header


class Kernels:
    """The headers of ops that are included, once for each combination of dtypes."""

    def __init__(self) -> None:
        self.included: dict[str, Path] = {}  # by how they are included
        self._shared: dict[tuple[str, str, int, bool], str] = {}  # kernel, shape, pointers, whether it finishes -> name

    def call(self, node: Node, arguments: Sequence[str]) -> str:
        """A call of the node's kernel with its shape as literals."""
        kernel, inputs, outputs = node.op.kernel, [v.type for v in node.inputs], [v.type for v in node.outputs]
        assert kernel is not None
        header, suffix = header_of(node.op), _suffix(inputs, outputs)
        self.included[_included(header, suffix, inputs, outputs)] = header
        fields = kernel.shape(inputs, outputs, **node.attrs)
        shape = ", ".join(f".{name} = {number_text(value)}" for name, value in fields.items())
        fault = ["fault"] if kernel.checks else []
        given = ", ".join([*arguments, f"SHAPE({node.op.name}_shape, {shape})", *fault])
        return f"{node.op.name}_{suffix}({given})"

    def shared(self, kernel: str, pointers: Sequence[str], shape: str, finish: str) -> str:
        """A call of the function that calls a tuned kernel with this shape."""
        name = self._shared.setdefault((kernel, shape, len(pointers), bool(finish)), f"k{len(self._shared)}")
        symbols = [f", {symbol}" for symbol in _symbols(shape)]
        return f"{name}(thread, threads, {', '.join(pointers)}{finish}{''.join(symbols)});"

    def packed(self, pack: Pack, source: str, target: str) -> str:
        """A call that packs an operand."""
        return self.shared(pack.kernel, [source, target], pack.shape, "")

    def functions(self) -> Iterator[str]:
        """Those that call tuned kernels. They take every pointer for one to what may be written."""
        for (kernel, shape, count, finishes), name in self._shared.items():
            pointers = [f"p{i}" for i in range(count)]
            parameters = ["int thread", "int threads", *(f"const float *{p}" for p in pointers)]
            parameters += ["finish_t finish", "const void *with"] if finishes else []
            parameters += [f"idx {symbol}" for symbol in _symbols(shape)]
            arguments = ["thread", "threads", *(f"(float *){p}" for p in pointers), shape]
            arguments += ["finish", "with"] if finishes else []
            yield from block(f"NOINLINE void {name}({', '.join(parameters)})", [f"{kernel}({', '.join(arguments)});"])


def _suffix(inputs: Sequence[Type], outputs: Sequence[Type]) -> str:
    """Of the names of a kernel for these dtypes."""
    return "_".join([*(t.dtype for t in inputs), "to", *(t.dtype for t in outputs)])


def _included(header: Path, suffix: str, inputs: Sequence[Type], outputs: Sequence[Type]) -> str:
    """The lines that include the header of an op's kernel for these dtypes."""
    named = {**{f"X{i}": t.dtype for i, t in enumerate(inputs)}, **{f"Y{i}": t.dtype for i, t in enumerate(outputs)}}
    macros = {name: STORED[dtype] for name, dtype in named.items()}
    macros |= {f"WIDE_{name}": COMPUTED[dtype] for name, dtype in named.items()}
    macros |= {f"FROM_{name}(x)": loaded("(x)", dtype) for name, dtype in named.items()}
    macros |= {f"TO_{name}(x)": stored("(x)", dtype) for name, dtype in named.items()}
    floats = [d for d in named.values() if d in FLOATS]
    macros["A"] = COMPUTED[floats[0]] if floats else "int64_t"
    macros["NAME(f)"] = f"f##_{suffix}"
    lines = [f"#define {name} {text}" for name, text in macros.items()]
    return "\n".join([*lines, f'#include "{header.name}"', *(f"#undef {name.split('(')[0]}" for name in macros)])


def _symbols(shape: str) -> list[str]:
    """The run-time sizes in the text of a shape."""
    return sorted(set(re.findall(r"\bn_\w+", shape)))
