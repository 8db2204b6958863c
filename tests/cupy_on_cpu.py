"""In place of CuPy, as much of it as programs use: a GPU that does nothing until its stream is waited for.

So what is written over too early, or read before it is there, shows. Pinned memory is read when a copy is made; what
lies in other memory of the host may be written over as soon as the call returns. Freed memory stays as it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import re
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from c_compilers import cxx
from cuda_on_cpu import FLAGS, launcher

Work = Callable[[], object]
HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3


class CudaError(RuntimeError):
    """In place of CUDARuntimeError."""


class CompileError(RuntimeError):
    """In place of NVRTCError."""


class Captured:
    """A graph."""

    def __init__(self, work: list[Work]):
        self.work = work

    def launch(self, stream: Stream) -> None:
        stream.add(*self.work)


class Event:
    """Takes place when all that was given to the stream before is done."""

    def __init__(self, stream: Stream):
        self.stream, self.happened = stream, False
        self.time = 0.0

    def happen(self) -> None:
        self.time, self.happened = time.perf_counter(), True

    @property
    def done(self) -> bool:
        return self.happened

    def synchronize(self) -> None:
        self.stream.go_on(self)


class Stream:
    """What it is given waits until somebody synchronizes; with an `eager` GPU, only for the events of other streams."""

    def __init__(self, gpu: FakeGpu):
        self.gpu, self.ptr = gpu, id(self)
        self.waiting: deque[Work | Event] = deque()
        self.captured: list[Work] | None = None
        gpu.all_streams[self.ptr] = self

    def __enter__(self) -> None:
        self.gpu.streams.append(self)

    def __exit__(self, *_: object) -> None:
        assert self.gpu.streams.pop() is self

    def add(self, *work: Work | Event) -> None:
        if self.captured is not None:
            assert not any(isinstance(one, Event) for one in work)
            self.captured.extend(one for one in work if not isinstance(one, Event))
            return
        self.waiting.extend(work)
        for stream in self.gpu.all_streams.values() if self.gpu.eager else ():
            stream.go_on_alone()

    def record(self) -> Event:
        event = Event(self)
        self.add(event.happen)
        return event

    def wait_event(self, event: Event) -> None:
        self.add(event)

    def is_capturing(self) -> bool:
        return self.captured is not None

    def begin_capture(self) -> None:
        self.captured = []

    def end_capture(self) -> Captured:
        captured, self.captured = self.captured, None
        assert captured is not None
        return Captured(captured)

    def synchronize(self) -> None:
        assert not self.is_capturing()
        self.go_on(self.record())

    def go_on(self, until: Event) -> None:
        """Do what comes before an event, and on other streams what that waits for."""
        while not until.happened:
            one = self.waiting.popleft()
            if isinstance(one, Event):
                one.synchronize()
            else:
                one()

    def go_on_alone(self) -> None:
        """Do what waits for nobody."""
        while self.waiting:
            first = self.waiting[0]
            if isinstance(first, Event):
                if not first.happened:
                    return
                self.waiting.popleft()
            else:
                self.waiting.popleft()
                first()


class Nvrtc:
    """Compiles for the CPU: what it makes is a library, kept as the code for GPUs that there never were."""

    NVRTCError = CompileError

    def __init__(self, folder: Path):
        self.folder = folder
        self.getVersion, self.getSupportedArchs = lambda: (13, 5), lambda: (1, 2)

    def createProgram(self, text: str, name: str, headers: Sequence[str], names: Sequence[str]) -> SimpleNamespace:
        return SimpleNamespace(text=text, library=b"", log="")

    def compileProgram(self, program: SimpleNamespace, options: Sequence[str]) -> None:
        assert "-arch=sm_1" in options
        folders = [Path(option[2:]) for option in options if option.startswith("-I")]
        headers = [folder / name for name in re.findall(r'#include "(.+)"', program.text) for folder in folders]
        texts = [program.text, *(header.read_text() for header in headers if header.exists())]
        names = re.findall(r"^KERNEL (\w+)\(", "\n".join(texts), re.MULTILINE)
        text = "\n".join(['#include "cuda_on_cpu.h"', program.text, *map(launcher, names)])
        file = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.cpp"
        file.write_text(text)
        include = [f"-I{folder}" for folder in (*folders, Path(__file__).parent)]
        done = subprocess.run([cxx(), *FLAGS, *include, file, "-o", f"{file}.so"], capture_output=True, text=True)
        if done.returncode:
            program.log = done.stderr
            raise CompileError("NVRTC_ERROR_COMPILATION (6)")
        program.library = Path(f"{file}.so").read_bytes()

    def getProgramLog(self, program: SimpleNamespace) -> str:
        return str(program.log)

    def getCUBIN(self, program: SimpleNamespace) -> bytes:
        return bytes(program.library)

    def destroyProgram(self, program: SimpleNamespace) -> None: ...


class RawModule:
    """Kernels of a file."""

    def __init__(self, gpu: FakeGpu, path: str):
        self.gpu, self.library = gpu, ctypes.CDLL(path)

    def get_function(self, name: str) -> Callable[[tuple[int], tuple[int], tuple[Any, ...]], None]:
        run = self.library[f"launch_{name}"]

        def kernel(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
            assert all(isinstance(argument, np.uint64) for argument in arguments)
            pointers = (ctypes.c_void_p * max(1, len(arguments)))(*map(int, arguments))
            self.gpu.streams[-1].add(lambda: run(*grid, *block, pointers))

        return kernel


class Pointer:
    """To memory of the GPU."""

    def __init__(self, ptr: int):
        self.ptr = ptr

    def __add__(self, offset: int) -> Pointer:
        return Pointer(self.ptr + offset)


class FakeGpu:
    """One GPU, with a gigabyte."""

    whole = 1 << 30

    def __init__(self, folder: Path):
        self.folder, self.used, self.eager = folder, 0, False
        self.kept: list[np.ndarray] = []
        self.pinned: list[np.ndarray] = []
        self.all_streams: dict[int, Stream] = {}
        self.streams: list[Stream] = [Stream(self)]  # the last is the current one

    def alloc(self, nbytes: int) -> Any:
        self.used += nbytes
        self.kept.append(np.full(nbytes + 256, 0xFF, np.uint8))
        start = self.kept[-1].ctypes.data
        return Pointer(start + -start % 256)

    def alloc_pinned(self, nbytes: int) -> np.ndarray:
        self.pinned.append(np.full(nbytes, 0xFF, np.uint8))
        return self.pinned[-1]

    def copy(self, target: int, source: int, nbytes: int, kind: int, stream: int) -> None:
        on = self.all_streams[stream]
        if kind == HOST_TO_DEVICE and not any(0 <= source - p.ctypes.data < p.nbytes for p in self.pinned):
            data = ctypes.string_at(source, nbytes)
            on.add(lambda: ctypes.memmove(target, data, nbytes))
        else:
            on.add(lambda: ctypes.memmove(target, source, nbytes))


def fake_cupy(folder: Path) -> ModuleType:
    """A module that stands for CuPy on a machine with one GPU."""
    gpu = FakeGpu(folder)
    runtime = SimpleNamespace(
        CUDARuntimeError=CudaError,
        getDeviceCount=lambda: 1,
        driverGetVersion=lambda: 13_010,
        runtimeGetVersion=lambda: 13_020,
        getDeviceProperties=lambda number: {"name": b"Fake GPU", "major": 9, "minor": 0},
        memGetInfo=lambda: (gpu.whole - gpu.used, gpu.whole),
        memcpyAsync=gpu.copy,
        memcpyHostToDevice=HOST_TO_DEVICE,
        memcpyDeviceToHost=DEVICE_TO_HOST,
        memcpyDeviceToDevice=DEVICE_TO_DEVICE,
    )
    module: Any = ModuleType("cupy")
    module.gpu = gpu
    module.__version__ = "14.2.0"
    module.cuda = SimpleNamespace(
        runtime=runtime,
        driver=SimpleNamespace(CUDADriverError=CudaError),
        memory=SimpleNamespace(OutOfMemoryError=MemoryError),
        nvrtc=Nvrtc(folder),
        Device=lambda number=0: _Device(number),
        Stream=lambda non_blocking: Stream(gpu),
        get_elapsed_time=lambda first, last: (last.time - first.time) * 1000,
        get_current_stream=lambda: gpu.streams[-1],
        alloc=gpu.alloc,
        alloc_pinned_memory=gpu.alloc_pinned,
    )
    module.ndarray = type("ndarray", (Array,), {"gpu": gpu})
    module.RawModule = lambda path: RawModule(gpu, path)
    module.asarray = _as_array
    module.ascontiguousarray = lambda array: array
    module.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0)
    return module


class Array:
    """In place of cupy.ndarray, for other libraries."""

    gpu: FakeGpu

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, pointer: Pointer):
        self.shape, self.dtype, self.pointer = shape, dtype, pointer

    def __dlpack__(self, stream: int | None = None) -> tuple[int, Any]:
        """The address, when the consumer's stream waits for the current one."""
        if stream is not None:
            self.gpu.all_streams[stream].wait_event(self.gpu.streams[-1].record())
        return self.pointer.ptr, (self.shape, self.dtype)


def _as_array(given: Any) -> Any:
    """An array of another library, where it lies."""
    told = given.__cuda_array_interface__
    shape, dtype = told["shape"], np.dtype(told["typestr"])
    nbytes = dtype.itemsize * int(np.prod(shape))
    lies = {"device": SimpleNamespace(id=0), "data": SimpleNamespace(ptr=told["data"][0])}
    return SimpleNamespace(shape=shape, dtype=dtype, nbytes=nbytes, **lies)


class _Device(contextlib.nullcontext[None]):
    def __init__(self, number: int):
        super().__init__()
        self.id, self.compute_capability = number, "1"
