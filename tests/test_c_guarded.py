"""MINIGRAPH_CHECK=1: a kernel that does what it must not is named, with the line of its node; others are left alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_c_networks as networks
from test_c_program import batch, classifier, contents, training
from test_example_networks import BATCH

import minigraph as mg
from minigraph import GraphError, State
from minigraph.backends.c import guarded
from minigraph.backends.c.executable import Executable
from minigraph.backends.lower import lower
from minigraph.core.dtypes import FLOATS
from random_graphs import random_graph

pytestmark = pytest.mark.compiler


@pytest.fixture(autouse=True)
def looked_after(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path_factory.getbasetemp() / "programs"))
    monkeypatch.setenv("MINIGRAPH_CHECK", "1")


# kernels that are wrong

OP = """
import minigraph as mg
from minigraph.core.op import Kernel

def types(x, /):
    return x

op = mg.Op("wrong{number}", types, lambda x: x.copy(), kernel=Kernel(
    "wrong{number}.h", lambda xs, ys: {{"size": xs[0].size}}, lines=lambda xs, ys: 1))
"""
HEADER = """
// Copies its line, wrongly.
typedef struct {{
  idx size;
}} wrong{number}_shape;
INLINE void NAME(wrong{number})(idx line, const X0 *x, Y0 *y, wrong{number}_shape s) {{
  for (idx i = 0; i < s.size; i++) y[i] = x[i];
  {text}
}}
"""
numbers = itertools.count()


@pytest.fixture
def wrong(tmp_path: Path) -> Iterator[Callable[[str], mg.Op]]:
    """Makes an op whose kernel copies its input and then does what it is told in C."""
    made = []

    def make(text: str) -> mg.Op:
        number = next(numbers)
        (tmp_path / f"wrong{number}.h").write_text(HEADER.format(number=number, text=text))
        made.append(f"wrong{number}")
        space: dict[str, Any] = {}
        exec(compile(OP.format(number=number), str(tmp_path / "wrong.py"), "exec"), space)
        return mg.OPS[made[-1]]

    yield make
    for name in made:
        del mg.OPS[name]


WRONG = {
    "y[s.size] = 1;": r"writes 4 bytes behind '{y}'",
    "y[-1] = 1;": r"writes 4 bytes in front of '{y}'",
    "y[s.size + 20] = 1, y[s.size + 21] = 2;": r"writes 8 bytes behind '{y}'",
    "((X0 *)x)[2] = 5;": r"changes '{x}', which it is to read only",
    "((X0 *)x)[s.size] = 5;": r"writes 4 bytes behind '{x}'",
    "memset(y + 3, 0xFF, 8);": r"leaves 2 of the 7 numbers of '{y}' unwritten, or computes",
    "y[3] = 2 * x[s.size] + 1;": r"leaves 1 of the 7 numbers of '{y}' unwritten, or computes them from memory that",
}


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize("between", [False, True], ids=["at the ends", "in the arena"])
def test_a_wrong_kernel_is_named(wrong: Callable[[str], mg.Op], text: str, between: bool) -> None:
    """Where it reads an input and writes an output, and where both lie in the arena."""
    op = wrong(text)
    net = mg.Builder("far")
    x = net.input("x", ("N",))
    y = op(mg.exp(x) if between else x)
    run = mg.compile(net.build(y=mg.exp(y) if between else y), State(), "c")
    wanted = WRONG[text].format(x="exp" if between else "x", y=op.name if between else "y")
    step = rf"'far': step \d of the plan \({op.name} '{op.name}'\)"
    why = r"which is a bug of minigraph or of an op\n  at .*test_c_guarded\.py:\d+"
    with pytest.raises(GraphError, match=f"(?s){step} {wanted}.*, {why}"):
        run(x=np.zeros(7))


def test_what_is_past_a_small_batch_is_not_to_be_written(wrong: Callable[[str], mg.Op]) -> None:
    net = mg.Builder("past")
    y = wrong("if (s.size == 3) y[4] = 1;")(mg.exp(net.input("x", ("N",))))
    run = mg.compile(net.build(y=mg.exp(y)), State(), "c")
    run(x=np.zeros(7))
    with pytest.raises(GraphError, match="writes 4 bytes behind"):
        run(x=np.zeros(3))


def test_the_state_stays_as_it_was(wrong: Callable[[str], mg.Op]) -> None:
    """Also where what is wrong comes after what writes it."""
    net = mg.Builder("state")
    x = net.input("x", (7,))
    first = net.variable("first", (7,), mg.init.zeros)
    net.update(first, first + x)
    y = wrong("y[s.size] = 1;")(mg.exp(x))
    state = State({"first": np.ones(7, "float32")})
    run = mg.compile(net.build(y=mg.exp(y)), state, "c")
    with pytest.raises(GraphError, match="writes 4 bytes"):
        run(x=np.zeros(7))
    assert state["first"].tolist() == [1] * 7


# kernels that are right


def test_a_program_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, watched = (classifier().init(seed=0) for _ in range(2))
    monkeypatch.delenv("MINIGRAPH_CHECK")
    alone = training(plain, "c")
    wanted = [alone(**batch(n, n)) for n in (6, 4, 6)]
    monkeypatch.setenv("MINIGRAPH_CHECK", "1")
    train = training(watched, "c")
    for n, right in zip((6, 4, 6), wanted):
        found = train(**batch(n, n))
        assert all(np.array_equal(found[name], right[name]) for name in right)
    assert contents(watched) == contents(plain)
    offsets = [b.offset for b in train.plan.buffers if b.place == "arena" and b.inside is None]
    assert len(offsets) == len(set(offsets)) > 5


def test_a_wrong_input_is_still_said() -> None:
    state = classifier().init(seed=0)
    train, before = training(state, "c"), contents(state)
    with pytest.raises(GraphError, match=r"(?s)label 3 at \[4\] is outside of 0 to 2"):
        train(**{**batch(), "label": np.array([0, 1, 2, 0, 3, 0])})
    assert contents(state) == before


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_nan_of_the_caller_is_no_garbage(dtype: str) -> None:
    """Even one of the very bytes that garbage has."""
    net = mg.Builder("nan")
    x = net.input("x", (3,), dtype)
    run = mg.compile(net.build(y=x * 2.0 + 1.0, z=mg.exp(x)), State(), "c")
    given = np.frombuffer(b"\xff" * 3 * np.dtype(dtype).itemsize, dtype)
    assert all(np.isnan(array).all() for array in run(x=given).values())


def test_graphs_of_all_kinds() -> None:
    """No false alarm: kernels, views, halos, packed weights, updates, nothing at all."""
    for seed in (3, 7, 11, 18, 25, 30):
        given = random_graph(seed)
        Executable(lower(given.graph)).run(given.sizes, given.arrays)


@pytest.mark.parametrize("name", ["lenet with batch norm", pytest.param("mobilenet_v2", marks=pytest.mark.nightly)])
def test_networks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No false alarm in steps of training, on several threads, of another batch as well."""
    monkeypatch.delenv("MINIGRAPH_CHECK")  # of passes, too
    graph, state = networks.training(name, "momentum")
    arrays = networks.given(graph, name, state)
    monkeypatch.setattr(guarded, "asked_for", lambda: True)
    monkeypatch.setenv("MINIGRAPH_THREADS", "3")
    executable = Executable(lower(graph))
    for n in (BATCH, 2):
        fewer = {**arrays, **{v.name: arrays[v.name][:n] for v in graph.inputs}}
        executable.run({"N": n}, fewer)
