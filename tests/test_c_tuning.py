"""compile(..., tune=True): kernels are chosen by what they take in the program, for the sizes of the first call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.backends.c import tuning
from minigraph.backends.c.executable import Executable, key_of
from minigraph.core.builder import Builder

pytestmark = pytest.mark.compiler

BATCH = 3


def model() -> mg.Graph:
    """A convolution that Winograd's transforms serve by the table, and one of too few channels for them."""
    net = Builder("net")
    h = layers.conv2d(net.input("x", ("N", 3, 9, 9)), 16, 3, padding=1)
    h = mg.relu(layers.conv2d(h, 16, 5, padding=2))
    return net.build(loss=mg.mean(h * h), y=h)


def arrays(batch: int = BATCH) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(size=(batch, 3, 9, 9)).astype("float32")}


def kernels(program: mg.Program) -> list[str]:
    """The names of the kernels of convolutions, in the program's order."""
    found = [key for step in program.plan.steps if (key := _key(step, program.plan))]
    return [text.split("(")[0].split(" ")[0] for text in found if text.startswith(("conv_direct", "winograd"))]


def _key(step: Any, plan: Any) -> str:
    """Of the call of a step, if it is one of a tuned kernel."""
    calls = plan.partition.claims
    return key_of(calls[step.region.call]) if step.region is not None and step.region.call in calls else ""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path))
    return tmp_path


def measured(monkeypatch: pytest.MonkeyPatch, fast: str) -> list[int]:
    """As if kernels whose names begin so took a second, and all others two. A number for each measurement."""
    count: list[int] = []

    def measure(executable: Executable, symbols: Any, *_: Any) -> Any:
        count.append(len(count))
        plan = executable.program(symbols).plan
        seconds = [1.0 if _key(step, plan).startswith(fast) else 2.0 for step in plan.steps]
        return SimpleNamespace(plan=plan, steps=seconds)

    monkeypatch.setattr(tuning, "measure", measure)
    return count


@pytest.mark.parametrize(
    ("fast", "taken"), [("conv_direct", ["conv_direct"] * 2), ("winograd", ["winograd"] * 2), ("pool", None)]
)
def test_the_fastest_kernels_are_taken(monkeypatch: pytest.MonkeyPatch, fast: str, taken: Sequence[str] | None) -> None:
    graph = mg.inference(model(), ["y"])
    usual = mg.compile(graph, graph.init(seed=1), "c")
    measured(monkeypatch, fast)
    tuned = mg.compile(graph, graph.init(seed=1), "c", tune=True)
    want, got = usual(**arrays())["y"], tuned(**arrays())["y"]
    assert kernels(usual) == ["conv_direct", "winograd"]
    assert kernels(tuned) == (taken or kernels(usual))
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(want).max())
    assert tuned(**arrays(5))["y"].shape[0] == 5


def test_what_was_found_is_kept(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    graph, count = mg.inference(model(), ["y"]), measured(monkeypatch, "conv_direct")
    for _ in range(2):
        program = mg.compile(graph, graph.init(seed=1), "c", tune=True)
        program(**arrays())
        assert kernels(program) == ["conv_direct"] * 2
    assert count == [0, 1, 2, 3]  # as it is, and with each of three other kernels
    (file,) = folder.glob("tuned-*.json")
    file.write_text("{ broken")
    mg.compile(graph, graph.init(seed=1), "c", tune=True)(**arrays())
    assert len(count) == 8
    mg.compile(graph, graph.init(seed=1), "c", tune=True)(**arrays(BATCH + 1))  # other sizes are another matter
    assert len(count) == 12


def test_measuring_moves_no_state() -> None:
    """A step of training is measured on copies: the first call moves the state by one step."""
    graph = mg.training_step(model(), "loss", mg.optim.SGD(0.1, momentum=0.9), outputs=["loss"])
    states = [graph.init(seed=1) for _ in range(2)]
    losses = [
        [mg.compile(graph, state, "c", tune=tune)(**arrays())["loss"]] for state, tune in zip(states, (False, True))
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    for name in states[0]:
        np.testing.assert_allclose(states[0][name], states[1][name], rtol=0, atol=1e-5)


def test_it_is_for_programs_in_c() -> None:
    graph = mg.inference(model(), ["y"])
    with pytest.raises(mg.GraphError, match=r"tune=True is for kernels in C, and this runs on numpy"):
        mg.compile(graph, graph.init(seed=1), "numpy", tune=True)
