"""Every op of the registry in CUDA C++ compiles for GPUs: at three shapes and more, in each dtype that it takes.

NVRTC compiles without a GPU. Many applications are one program, as in test_cuda_ops.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from c_programs import Joining
from cuda_on_paper import Nvrtc, Paper, printed
from test_c_networks import some, training
from test_c_ops import CHUNKS, EXAMPLES, joined_gradients
from test_example_networks import BATCH

import minigraph as mg
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.cupy.tuned import laid_out
from minigraph.backends.lower import lower
from minigraph.core import proof
from minigraph.core.dtypes import DTYPES, FLOATS, INTEGERS
from minigraph.core.ir import Graph
from minigraph.core.op import OPS, Example, Op, Sample, real

ARCHITECTURES = ("sm_80", "sm_90")
LONG = 300  # in place of a first size: more than the threads of a block
Chosen = tuple[str, Op, Example, "int | None"]  # the last: what stands in place of a first size
ALL: list[Chosen] = [(label, op, example, n) for n in (None, LONG, 1) for label, op, example in EXAMPLES]
CHUNK = 250  # applications in one program


def retyped(sample: Sample, dtype: str) -> str:
    """The dtype of an input in a trial of a dtype: whole numbers that an example names may be others."""
    return dtype if sample.dtype in INTEGERS and dtype in INTEGERS else sample.in_dtype(dtype)


def resized(sample: Sample, first: int | None) -> Sample:
    return sample if first is None or not sample.shape else replace(sample, shape=(first, *sample.shape[1:]))


@dataclass
class Tried:
    """Applications of ops in one graph; of each op the shapes and the dtypes, of inputs and results."""

    graph: Graph
    shapes: dict[str, set[Any]] = field(default_factory=lambda: defaultdict(set))
    dtypes: dict[str, set[Any]] = field(default_factory=lambda: defaultdict(set))


def applied(chosen: Sequence[Chosen], dtype: str) -> Tried:
    """Those that the ops take, in a dtype."""
    joining = Joining()
    for label, op, example, first in chosen:
        samples = [resized(sample, first) for sample in example.inputs]
        arrays = [np.empty(s.shape, retyped(s, dtype)) for s in samples]
        attrs = {k: v.astype(dtype) if isinstance(v, np.ndarray) else v for k, v in example.attrs.items()}
        attrs = {**({"dtype": dtype} if "dtype" in op.defaults else {}), **attrs}
        joining.add(f"{label}.{first}", op, arrays, attrs)
    tried = Tried(joining.done().graph)
    for node in tried.graph.nodes:
        types = [value.type for value in (*node.inputs, *node.outputs)]
        tried.shapes[node.op.name].add(tuple(t.shape for t in types))
        tried.dtypes[node.op.name].add(tuple(t.dtype for t in types))
    return tried


# what there is to compile


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_an_op_has_a_form_in_cuda(op: Op) -> None:
    """A kernel writes each of its results, which an array that is made beforehand is copied to as well."""
    for example in op.examples:
        graph, _ = proof.graph_of(op, example)
        device = Paper()
        program = Executable(lower(graph), device).program({})
        written = {buffer for launch in device.programs[0].launches for buffer in launch.arguments}
        left = [b.name for b in program.plan.buffers if b.place == "output" and b.nbytes and b not in written]
        assert not left, f"no kernel writes {', '.join(left)} of {example}"


def test_an_op_without_a_form_is_found() -> None:
    mirror = Op("mirror", lambda x, /: x, lambda x: x[::-1].copy(), examples=(Example(real(3)),))
    try:
        with pytest.raises(mg.GraphError, match="mirror 'mirror': has neither a kernel nor an expansion"):
            test_an_op_has_a_form_in_cuda(mirror)
    finally:
        del mg.OPS["mirror"]


def test_three_shapes_and_each_dtype_are_tried(capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers of what is compiled nightly. An op that takes floats takes all of them, with one exception."""
    shapes, dtypes = defaultdict[str, set[Any]](set), defaultdict[str, set[Any]](set)
    kernels = launches = 0
    for dtype in sorted(DTYPES):
        tried = applied(ALL, dtype)
        program = printed(tried.graph, Paper())
        kernels, launches = kernels + len(program.kernels), launches + len(program.launches)
        for name in tried.shapes:
            shapes[name] |= tried.shapes[name]
            dtypes[name] |= tried.dtypes[name]
    with capsys.disabled():
        print(
            f"\nCUDA C++: {len(shapes)} ops at {sum(map(len, shapes.values()))} shapes, in"
            f" {sum(map(len, dtypes.values()))} combinations of dtypes; {kernels} kernels, {launches} launches"
        )
    assert shapes.keys() == OPS.keys()
    assert {name: found for name, found in shapes.items() if len(found) < 3} == {}
    inputs = {name: {dtype for found in dtypes[name] for dtype in found} for name in dtypes}
    floats = {name: found & set(FLOATS) for name, found in inputs.items()}
    some = {name: found for name, found in floats.items() if 0 < len(found) < len(FLOATS)}
    assert some == {"moments": {"float32", "float64"}}  # whose readers cast what is narrower: see ops/moments.py
    assert kernels > 3000


# compiling


def largest(op: Op) -> Chosen:
    size = lambda example: sum(np.prod(sample.shape) for sample in example.inputs)
    return op.name, op, max(op.examples, key=size), None


IN_EVERY_RUN = [("sm_80", "float16"), ("sm_80", "bfloat16"), ("sm_90", "float32"), ("sm_80", "int8")]


@pytest.mark.nvrtc
@pytest.mark.parametrize(("arch", "dtype"), IN_EVERY_RUN)
def test_the_largest_example_of_each_op(arch: str, dtype: str) -> None:
    printed(applied([largest(op) for op in OPS.values()], dtype).graph, Nvrtc(arch))


def test_every_run_compiles_each_op() -> None:
    tried = [applied([largest(op) for op in OPS.values()], dtype) for _, dtype in IN_EVERY_RUN]
    assert set().union(*(found.shapes for found in tried)) == set(OPS)


@pytest.mark.nvrtc
@pytest.mark.nightly
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("start", range(0, len(ALL), CHUNK))
def test_all_examples(start: int, dtype: str, arch: str) -> None:
    printed(applied(ALL[start : start + CHUNK], dtype).graph, Nvrtc(arch))


@pytest.mark.nvrtc
@pytest.mark.nightly
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("chunk", CHUNKS, ids=[chunk[0][0] for chunk in CHUNKS])
def test_gradients(chunk: Any, arch: str) -> None:
    printed(joined_gradients(chunk).graph, Nvrtc(arch))


@pytest.mark.nvrtc
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", some(["lenet with batch norm"]))
def test_steps_of_training(name: str, arch: str) -> None:
    graph, _ = training(name, "momentum")
    printed(laid_out(lower(graph)), Nvrtc(arch), {"N": BATCH})


@pytest.mark.nvrtc
def test_what_does_not_compile_is_found() -> None:
    """A name that there is not, and C that is no C++."""
    compiler = Nvrtc("sm_90")
    compiler.compile('#include "prelude.cuh"\nKERNEL f(float *x) { x[first_point()] = NAN; }')
    for line in ("y[0] = 1;", "x[0] = ((struct p){.a = 1}).a;"):
        with pytest.raises(Exception, match="error"):
            compiler.compile(f'#include "prelude.cuh"\nstruct p {{ float a; }};\nKERNEL f(float *x) {{ {line} }}')
