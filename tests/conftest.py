"""What all tests share.

The long ones wait for --nightly, and random ones repeat themselves unless it is given. Those that compile C are left
out where no compiler can: the first lines of the report say which there are, and what is left out for want of one.
--gpu runs those of CUDA C++ on the GPU, and no others.
"""

import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import c_compilers
import pytest
from cuda_on_cpu import Processor
from cuda_programs import DEVICE
from cupy_on_cpu import fake_cupy
from hypothesis import HealthCheck, settings

from minigraph.backends.cupy import device as gpu
from minigraph.core.op import OPS, Op

# Where a test names no backend, the references compute: thousands of small programs, each met once, would be compiled.
os.environ.setdefault("MINIGRAPH_BACKEND", "numpy")
# On a GPU the tests are of own kernels, but for those of libraries, which ask for them.
os.environ.setdefault("MINIGRAPH_GPU_LIBRARIES", "none")

# A failure in CI must be there again on the next machine: no seed, no memory, no clock. The nightly run explores.
settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="also the tests that take minutes; more random examples")
    parser.addoption("--gpu", action="store_true", help="the tests that a GPU can run, on the GPU, and no others")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("nightly" if config.getoption("nightly") else "ci")
    if config.getoption("gpu"):
        try:
            gpu.device()
        except gpu.NoGpu as error:
            raise pytest.UsageError(f"--gpu: {error}") from None


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kernels lie that are compiled for a CPU."""
    return tmp_path_factory.mktemp("cuda")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest, folder: Path) -> gpu.Device:
    """Where tests of CUDA C++ run: on a CPU that plays a GPU; with --gpu, on the GPU."""
    return gpu.device() if request.config.getoption("gpu") else Processor(folder)


@pytest.fixture
def on_device(device: gpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are compiled for a GPU run there."""
    monkeypatch.setattr(gpu, "device", lambda: device)


@pytest.fixture
def processor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Processor:
    """A CPU that plays a GPU, for tests that look into it: programs run on it."""
    made = Processor(folder)
    monkeypatch.setattr(gpu, "device", lambda: made)
    return made


@pytest.fixture
def cupy(processor: Processor, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """In place of CuPy. Tests of it are no tests of a GPU: they take the processor."""
    module = fake_cupy(folder)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setenv("MINIGRAPH_CACHE", str(folder))
    monkeypatch.setattr(gpu, "device", DEVICE)
    gpu._gpu.cache_clear()
    yield module
    gpu._gpu.cache_clear()


@pytest.fixture
def register() -> Iterator[Callable[..., Op]]:
    """Registers ops for one test, and takes them out of the registry again."""
    names: list[str] = []

    def make(name: str, *args: Any, **more: Any) -> Op:
        names.append(name)
        return Op(name, *args, **more)

    yield make
    for name in names:
        del OPS[name]


def runs_on_gpu(item: pytest.Item) -> bool:
    """Whether a test takes any device, and not the one that is a CPU, into which it looks."""
    fixtures = getattr(item, "fixturenames", ())
    return "device" in fixtures and "processor" not in fixtures


def pytest_report_header() -> list[str]:
    waiting = ["tests marked 'classifier' are left out: not installed: rapidocr-onnxruntime"] * (not has_classifier())
    return c_compilers.described() + waiting


def has_classifier() -> bool:
    """Whether the wheel is there in which the trained network lies."""
    return find_spec("rapidocr_onnxruntime") is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = set() if config.getoption("nightly") else {"nightly"}
    left_out.update(c_compilers.left_out(), () if has_classifier() else ("classifier",))
    on_gpu = config.getoption("gpu")
    if on_gpu:
        left_out.discard("cxx")
    waits = lambda item: any(item.get_closest_marker(name) for name in left_out) or (on_gpu and not runs_on_gpu(item))
    if waiting := [item for item in items if waits(item)]:
        config.hook.pytest_deselected(items=waiting)
        items[:] = [item for item in items if not waits(item)]
