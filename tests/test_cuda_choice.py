"""Whether programs run on a GPU, and what is said where they cannot."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from cuda_programs import DEVICE

import minigraph as mg
from minigraph import GraphError, State
from minigraph.backends.c.compiler import NoCompiler
from minigraph.backends.cupy import device as gpu
from minigraph.driver import choice

pytestmark = [pytest.mark.cxx, pytest.mark.usefixtures("on_device")]


def told(monkeypatch: pytest.MonkeyPatch, error: GraphError) -> None:
    def none() -> Any:
        raise error

    monkeypatch.setattr(gpu, "device", none)


def small(backend: str) -> mg.Program:
    net = mg.Builder("small")
    return mg.compile(net.build(y=net.input("x", ()) + 1), State(), backend)


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_BACKEND", "auto")
    program = small("auto")
    assert program.backend == "cupy"
    assert repr(program) == "<Program 'small' on cupy>"
    assert "on cupy" in program.report.splitlines()[0]
    assert "not on" not in program.report
    monkeypatch.setenv("MINIGRAPH_BACKEND", "cupy")
    assert small("auto").backend == "cupy"
    told(monkeypatch, gpu.NoGpu("it is in the other machine"))
    with pytest.raises(GraphError, match="in the other machine"):
        small("auto")
    monkeypatch.setenv("MINIGRAPH_BACKEND", "auto")
    program = small("auto")
    assert program.backend == "c"
    assert "not on cupy: it is in the other machine" in program.report
    told(monkeypatch, gpu.NoCupy("is not installed"))
    assert "not on" not in small("auto").report  # somebody who did not ask for CuPy need not hear of it
    monkeypatch.setattr(choice, "compiler", lambda: (_ for _ in ()).throw(NoCompiler("nor is a compiler")))
    program = small("auto")
    assert program.backend == "numpy"
    assert "not on c: nor is a compiler" in program.report


class CudaError(RuntimeError):
    """In place of CuPy's."""


def cupy_with(count: Callable[[], int], driver: int = 12_040, built: int = 13_020) -> Any:
    versions = {"driverGetVersion": lambda: driver, "runtimeGetVersion": lambda: built}
    return SimpleNamespace(
        cuda=SimpleNamespace(runtime=SimpleNamespace(CUDARuntimeError=CudaError, getDeviceCount=count, **versions))
    )


def refused() -> int:
    raise CudaError("cudaErrorInsufficientDriver")


ABSENT = [
    (None, gpu.NoGpu, r"CuPy cannot be loaded|CuPy is not installed: pip install 'minigraph\[cuda13\]'"),
    (cupy_with(lambda: 0), gpu.NoGpu, "no GPU: the driver names none"),
    (cupy_with(refused, driver=0), gpu.NoGpu, "no GPU: there is no NVIDIA driver .*InsufficientDriver"),
    (
        cupy_with(refused),
        gpu.NoGpu,
        r"the driver knows CUDA 12\.4, and this CuPy is built for CUDA 13\.2: .* pip install 'minigraph\[cuda12\]'",
    ),
    (cupy_with(refused, driver=11_080), gpu.NoGpu, r"knows CUDA 11\.8, .* CUDA 13\.2: install a newer driver \("),
    (cupy_with(refused, driver=13_020), gpu.NoGpu, "no GPU: the driver refuses .*InsufficientDriver"),
]


@pytest.mark.parametrize(
    ("cupy", "kind", "says"), ABSENT, ids=["no CuPy", "none", "no driver", "old driver", "older driver", "refused"]
)
def test_what_is_missing_is_said(cupy: Any, kind: type, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "device", DEVICE)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(kind, match=says):
        small("cupy")
