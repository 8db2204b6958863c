"""Every op of the registry as CUDA C++, run on a CPU, against its reference."""

from __future__ import annotations

import numpy as np
import pytest
from c_programs import Joined, Joining, outcome
from test_c_ops import CHUNK, CHUNKS, FREE, Draw, hold, joined_gradients
from test_onnx_ops import CASES

from minigraph.backends.cupy.device import Device
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.lower import lower
from minigraph.core.builder import Builder
from minigraph.core.dtypes import FLOATS
from minigraph.core.op import OPS

pytestmark = pytest.mark.cxx


def hold_all(joined: Joined, device: Device) -> None:
    found = outcome(*Executable(lower(joined.graph), device).run({}, joined.arrays))
    hold(joined.graph, joined.arrays, found)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("chunk", CHUNKS, ids=[chunk[0][0] for chunk in CHUNKS])
def test_examples(chunk, dtype, device):
    joining = Joining()
    for label, op, example in chunk:
        joining.example(label, op, example, dtype)
    assert len(joining.refused) < 0.2 * len(chunk), joining.refused
    hold_all(joining.done(), device)


@pytest.mark.parametrize("chunk", CHUNKS, ids=[chunk[0][0] for chunk in CHUNKS])
def test_gradients_of_examples(chunk, device):
    hold_all(joined_gradients(chunk), device)


@pytest.mark.parametrize("start", range(0, len(CASES), CHUNK))
def test_cases_of_other_implementations(start, device):
    """With NaN, infinities and signed zeros among them."""
    joining = Joining()
    for i, case in enumerate(CASES[start : start + CHUNK]):
        dtype = case.dtypes[i % len(case.dtypes)]
        joining.add(f"{i}.{case.op}", OPS[case.op], case.draw(dtype), case.attrs)
    hold_all(joining.done(), device)


@pytest.mark.parametrize("seed", [pytest.param(i, marks=() if i < 2 else pytest.mark.nightly) for i in range(30)])
def test_random_applications(seed, device):
    drawn = Draw(seed)
    for i in range(3):
        for op in FREE:
            drawn.draw(f"{op.name}.{i}", op)
    hold_all(drawn.joining.done(), device)


def test_inputs_may_be_numbers_of_numpy(device: Device) -> None:
    """What NumPy computes without axes is no array: the class of a single row, say."""
    net = Builder("one")
    label = net.input("label", (), "int64")
    graph = net.build({"y": net.emit(OPS["one_hot"], [label], {"classes": 3, "dtype": "float32"})[0]})
    labels = np.array([1, 2])
    found, _ = Executable(lower(graph), device).run({}, {"label": labels.max()})
    assert found["y"].tolist() == [0, 0, 1]
