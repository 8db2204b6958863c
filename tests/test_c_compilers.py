"""Every compiler of this machine, for all instructions that its processor has: the tuned kernels, some ops, a network.

The first lines of the report say which compilers and instructions these are. The compiler that is taken where nobody
names one, for all that the processor has, is what all other tests run on.
"""

from __future__ import annotations

import platform
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import test_c_conv_direct
import test_c_gemm
import test_c_halo
import test_c_networks
import test_c_pooling
import test_c_winograd
from c_compilers import all_of_them, instructions, told
from c_kernels import HEADERS, Case, check, results
from c_programs import Joining, Room, by_references, differences, in_c
from test_example_networks import BATCH

from minigraph.backends.c import claims
from minigraph.backends.c.compiler import ISAS, SAME, compiler
from minigraph.core.ir import Graph
from minigraph.core.op import OPS

pytestmark = pytest.mark.compiler

MODULES = (test_c_gemm, test_c_conv_direct, test_c_winograd, test_c_pooling, test_c_halo)
FEW = 2  # cases of each kernel
DEFAULT = next(iter(all_of_them()), ""), next(iter(instructions()), "")
EVERY = [(name, isa) for name in all_of_them() for isa in instructions() if (name, isa) != DEFAULT]


def kernel_of(call: str) -> str:
    return call.split("(")[0]


def few() -> list[Case]:
    """Some cases of each kernel, the first ones."""
    found: dict[str, list[Case]] = {}
    for case in (case for module in MODULES for case in module.CASES):
        found.setdefault(kernel_of(case.calls[-1]), []).append(case)
    return [case for cases in found.values() for case in cases[:FEW]]


@pytest.fixture(params=EVERY, ids=lambda pair: "-".join(pair))
def by(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Tells programs which compiler and which instructions to take; gives the name of the latter."""
    name, isa = request.param
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path))
    with told(CC=shlex.join(all_of_them()[name].command), MINIGRAPH_ISA=isa):
        march = ISAS[SAME.get(platform.machine(), platform.machine())][isa][0]
        assert any(flag.replace("_", "-").endswith(f"={march}") for flag in compiler().flags)
        yield isa


def test_there_is_a_case_of_each_tuned_kernel() -> None:
    """Of all functions of the headers that are called, or named, where nodes are claimed."""
    text = "\n".join(header.read_text() for header in HEADERS.glob("*.h"))
    claiming = "\n".join(file.read_text() for file in Path(claims.__path__[0]).glob("*.py"))
    there = set(re.findall(r"^INLINE void (\w+)\((?:bool \w+, )?int thread, ", text, re.MULTILINE))
    called = {name for name in there if re.search(rf"\b{name}\b", claiming)}
    assert len(called) > 10
    assert called <= {kernel_of(call) for case in few() for call in case.calls}


def test_all_that_the_path_has_is_tried() -> None:
    """A compiler that is there and refuses everything would be missing without a word."""
    assert {name for name in ("gcc", "clang") if shutil.which(name)} <= set(all_of_them())


def test_tuned_kernels(by: str) -> None:
    cases = few()
    got = results(cases, ())
    for case in cases:
        if "pooling" not in case.calls[-1]:
            check(case, got[case.name])
        else:
            test_c_pooling.test_pools(case, got)


def hold(graph: Graph, arrays: dict[str, np.ndarray]) -> None:
    wrong, _ = differences(by_references(graph, arrays), in_c(graph, arrays), Room(graph, arrays))
    assert not wrong, "\n".join(wrong)


def test_plain_kernels_and_functions(by: str) -> None:
    """One example of each op with a header, and of those that are written as a series."""
    joining = Joining()
    for op in OPS.values():
        if op.kernel or op.name in ("exp", "log", "tanh", "sigmoid", "erf", "sin", "softplus", "pow", "sum", "max"):
            joining.example(op.name, op, op.examples[0], "float32")
    joined = joining.done()
    assert len(joined.graph.outputs) > 30
    hold(joined.graph, joined.arrays)


def test_a_step_of_training(by: str) -> None:
    name = "lenet with batch norm"
    graph, state = test_c_networks.training(name, "momentum")
    hold(graph.bind(N=BATCH), test_c_networks.given(graph, name, state))
