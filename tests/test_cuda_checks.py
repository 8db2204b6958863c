"""Kernels that are checked one by one, with MINIGRAPH_CHECK=1."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import test_c_program as in_c
from cuda_on_cpu import Processor
from cuda_programs import NETWORKS, data, step_of
from test_c_program import contents

import minigraph as mg
from minigraph import GraphError, State

pytestmark = [pytest.mark.cxx, pytest.mark.usefixtures("on_device")]


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_are_checked_one_by_one(name: str, processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = step_of(name)
    states = []
    for check in ("1", "0"):
        monkeypatch.setenv("MINIGRAPH_CHECK", check)
        processor.events.clear()
        states.append(state := graph.init(seed=0))
        program = mg.compile(graph, state, "cupy", pipeline=())
        outputs = [program(**data(graph, 5, step)) for step in range(2)]
        assert ("capture" in processor.events) == (check == "0")
        assert np.isfinite(outputs[1]["loss"])
    assert contents(states[0]) == contents(states[1])


def test_a_wrong_input_is_found_in_checked_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CHECK", "1")
    in_c.test_a_bad_label_leaves_the_state_to_the_byte("cupy", 3)


def pointed() -> mg.Program:
    net = mg.Builder("pointed")
    x = net.input("x", (8,))
    return mg.compile(net.build(y=mg.exp(x)), State(), "cupy")


def nothing(launch: Callable[..., None], *given: Any) -> None:
    """A kernel that does nothing."""


def beyond(launch: Callable[..., None], kernel: Any, grid: Any, addresses: list[int]) -> None:
    """A kernel that writes a number more."""
    launch(kernel, grid, addresses)
    ctypes.memset(addresses[-1] + 32, 0, 4)


def back(launch: Callable[..., None], kernel: Any, grid: Any, addresses: list[int]) -> None:
    """A kernel that writes to what it reads."""
    launch(kernel, grid, addresses)
    ctypes.memset(addresses[0], 0x11, 4)


BREAKS = [
    (nothing, "leaves 8 of the 8 numbers of 'y' unwritten"),
    (beyond, "writes 4 bytes behind 'y'"),
    (back, "changes 'x', which it is not to write"),
]


@pytest.mark.parametrize(("breaks", "says"), BREAKS, ids=lambda what: getattr(what, "__name__", ""))
def test_a_kernel_that_does_what_it_must_not_is_named(
    breaks: Callable[..., None], says: str, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIGRAPH_CHECK", "1")
    program = pointed()
    x = np.linspace(0, 1, 8, dtype="float32")
    np.testing.assert_allclose(program(x=x)["y"], np.exp(x), rtol=1e-5)
    monkeypatch.setattr(processor, "launch", partial(breaks, processor.launch))
    where = rf"'pointed': step 0 of the plan \(exp 'exp'\) {says}(?s:.)*test_cuda_checks.py:\d+"
    with pytest.raises(GraphError, match=where):
        program(x=x)
