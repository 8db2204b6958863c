"""`minigraph doctor --gpu`: what it says where all is there, and one sentence where something is missing.

CuPy is one that runs kernels on a CPU, late: what programs ask of CuPy is held here as well.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import nvidia_on_cpu
import pytest
from cuda_on_cpu import Processor
from cupy_on_cpu import CudaError, fake_cupy
from test_c_networks import given, training
from test_example_networks import BATCH

from minigraph.backends.cupy import compiler
from minigraph.backends.cupy import device as devices
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.lower import lower
from minigraph.tools import command, gpu


@pytest.fixture
def cupy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """In place of CuPy."""
    fake = fake_cupy(tmp_path)
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(devices, "_gpu", functools.cache(devices._gpu.__wrapped__))
    monkeypatch.setattr(compiler, "PATIENCE", 600.0)  # on a busy machine it would say what one waits for
    monkeypatch.setattr(gpu, "_wheels", lambda: ["cupy-cuda13x"])
    monkeypatch.setattr(gpu, "described", lambda: ["cuDNN 9.28.0, frontend 1.28.0: convolutions"])
    return fake


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    def what() -> str:
        assert command.main(["doctor", "--gpu"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("minigraph: ")
        assert error.count("\n") == 1
        return error

    return what


@pytest.mark.cxx
def test_all_is_there(cupy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["doctor", "--gpu"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "CuPy 14.2.0 (cupy-cuda13x)",
        "CUDA 13.1 of the driver, 13.2 of CuPy, 13.5 of NVRTC",
        "GPU 0: Fake GPU, compute capability 9.0, 1.07 GB of memory, 1.07 GB of it free",
        "cuDNN 9.28.0, frontend 1.28.0: convolutions",
        "NVRTC compiles kernels for it",
        "kernels compute what NumPy does",
        'so does a graph of kernels that is replayed: backend="cupy" is ready',
    ]


@pytest.mark.cxx
def test_libraries_are_tried(cupy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("MINIGRAPH_GPU_LIBRARIES")
    for name, module in nvidia_on_cpu.modules(cupy.cuda.get_current_stream).items():
        monkeypatch.setitem(sys.modules, name, module)
    assert command.main(["doctor", "--gpu"]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "kernels compute what NumPy does",
        "so do the routines of cublaslt and cudnn",
        'so does a graph of kernels that is replayed: backend="cupy" is ready',
    ]


def test_one_of_several_gpus_is_named(cupy: Any) -> None:
    cupy.cuda.runtime.getDeviceCount = lambda: 4
    assert gpu._properties(cupy).startswith("GPU 0 (of 4: CUDA_VISIBLE_DEVICES chooses): Fake GPU, ")


def test_no_cupy(monkeypatch: pytest.MonkeyPatch, refuses: Callable[[], str]) -> None:
    monkeypatch.setattr(gpu, "_wheels", list)
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "cupy" in refuses().lower()


def test_two_wheels(cupy: Any, monkeypatch: pytest.MonkeyPatch, refuses: Callable[[], str]) -> None:
    names = ["cupy-cuda12x", "numpy", "cupy-cuda13x", "cupyx-friend", None]
    monkeypatch.undo()
    monkeypatch.setattr(gpu, "distributions", lambda: [SimpleNamespace(metadata={"Name": name}) for name in names])
    assert "pip uninstall cupy-cuda12x cupy-cuda13x, then install one" in refuses()


def raising(error: Exception) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> Any:
        raise error

    return call


def test_no_driver(cupy: Any, refuses: Callable[[], str]) -> None:
    cupy.cuda.runtime.getDeviceCount = raising(CudaError("cudaErrorInsufficientDriver"))
    cupy.cuda.runtime.driverGetVersion = lambda: 0
    assert "there is no NVIDIA driver" in refuses()


def test_no_nvrtc(cupy: Any, refuses: Callable[[], str]) -> None:
    cupy.cuda.nvrtc.getVersion = raising(RuntimeError("no libnvrtc.so.13"))
    assert "NVRTC, which compiles kernels, cannot be loaded: pip install nvidia-cuda-nvrtc" in refuses()


def test_a_gpu_that_is_taken(cupy: Any, refuses: Callable[[], str]) -> None:
    cupy.cuda.runtime.memGetInfo = raising(CudaError("cudaErrorDevicesUnavailable"))
    assert "the GPU reports cudaErrorDevicesUnavailable: `nvidia-smi` says" in refuses()


@pytest.mark.cxx
def test_a_program_that_does_not_compile(cupy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    whole = cupy.cuda.nvrtc.createProgram
    cupy.cuda.nvrtc.createProgram = lambda text, *given: whole(text + "\n#error unknown architecture\n", *given)
    assert command.main(["doctor", "--gpu"]) == 1
    assert "unknown architecture" in capsys.readouterr().err


@pytest.mark.cxx
@pytest.mark.parametrize(("capture", "how"), [(False, "that are launched one by one"), (True, "in a graph")])
def test_wrong_numbers(
    capture: bool, how: str, cupy: Any, monkeypatch: pytest.MonkeyPatch, refuses: Callable[[], str]
) -> None:
    run = Executable.run

    def wrong(self: Executable, *arguments: Any) -> Any:
        outputs, new = run(self, *arguments)
        return ({**outputs, "rows": outputs["rows"] + 1} if self.capture == capture else outputs), new

    monkeypatch.setattr(Executable, "run", wrong)
    assert f"kernels {how} do not compute what NumPy does (rows)" in refuses()


@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "net.safetensors", "--gpu"]])
def test_either_a_file_or_the_gpu(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    assert "give either FILE or --gpu" in capsys.readouterr().err


# programs through CuPy


@pytest.mark.cxx
def test_steps_of_training_are_those_of_the_other_device(cupy: Any, tmp_path: Path) -> None:
    """To the bit, though each kernel and each copy waits until somebody waits for the stream."""
    graph, state = training("lenet with batch norm", "momentum")
    lowered, arrays = lower(graph), given(graph, "lenet with batch norm", state)
    right, found = arrays, dict(arrays)
    on_cpu, late = Executable(lowered, Processor(tmp_path)), Executable(lowered, devices.device())
    for _ in range(4):
        outputs, new = on_cpu.run({"N": BATCH}, right)
        others, moved = late.run({"N": BATCH}, found)
        assert all(np.array_equal(outputs[name], others[name]) for name in outputs)
        right, found = {**right, **new}, {**found, **moved}
    assert [name for name in right if not np.array_equal(right[name], found[name])] == []
    assert not np.array_equal(right["conv1.weight"], arrays["conv1.weight"])
