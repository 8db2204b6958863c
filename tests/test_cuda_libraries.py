"""Libraries on a GPU that a CPU plays: what they are asked, what happens where they refuse, and how errors are said.

cuDNN's frontend alone, without the library and without a GPU, holds that each graph that it would be given is one.
"""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import nvidia_on_cpu
import pytest
import test_c_convolutions as convolutions
from c_compilers import cxx
from cuda_on_cpu import Processor
from cupy_on_cpu import fake_cupy
from library_on_cpu import OnCpu
from test_c_ops import hold
from test_cuda_products import IN_ONE_TILE, PRODUCTS, normal, of_all

import minigraph as mg
from minigraph import GraphError, layers
from minigraph.backends.cupy import device as gpu
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.cupy.libraries import cublaslt, cudnn, installed
from minigraph.backends.cupy.libraries.patterns import Array, Convolution, Failed, Missing, Pattern, Product
from minigraph.backends.cupy.peak import Peak
from minigraph.backends.cupy.tuned import claims, laid_out
from minigraph.backends.lower import lower
from minigraph.backends.plan import plan
from minigraph.core.builder import Builder, Tensor
from minigraph.core.ir import Graph
from minigraph.ops.conv import conv, conv_input_gradient, conv_weight_gradient

KINDS = convolutions.KINDS
DTYPES = ("float32", "float16", "bfloat16")


def asked(graph: Graph, library: OnCpu | None = None) -> list[Pattern]:
    """All that a library is asked for a graph without symbols."""
    library = library or OnCpu()
    plan(laid_out(lower(graph)), claims(library.routine), {})
    return library.asked


def patterns(kind: str) -> Iterator[Convolution]:
    """What a kind of convolution asks: forward and backward, as its images lie and channels last, alone and fused."""
    for batch in (1, 3):
        for pattern in asked(convolutions.graph_of(kind).bind(N=batch)):
            assert isinstance(pattern, Convolution)
            for one in (pattern, replace(pattern, x=last(pattern.x), y=last(pattern.y))):
                yield one
                if one.op == "conv":
                    yield replace(one, bias=True)
                    yield replace(one, bias=True, relu=True)
                    yield replace(one, relu=True)


def last(images: Array) -> Array:
    """The same sizes with channels last."""
    _, channels, *spatial = images.sizes
    steps, step = list[int](), channels
    for size in reversed(spatial):
        steps.insert(0, step)
        step *= size
    return replace(images, strides=(step, 1, *steps))


def of_dtype(pattern: Convolution, dtype: str) -> Convolution:
    x, w, y = (replace(array, dtype=dtype) for array in (pattern.x, pattern.w, pattern.y))
    return replace(pattern, x=x, w=w, y=y)


# what cuDNN is given


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Pattern]], list[str]]:
    """What cuDNN's frontend says against graphs: in front of a library that knows its version, and nothing else."""
    folder = tmp_path_factory.mktemp("cudnn")
    (folder / "cudnn.cpp").write_text('extern "C" unsigned long cudnnGetVersion() { return 92800; }')
    flags = ["-shared", "-fPIC", str(folder / "cudnn.cpp"), "-o", str(folder / "libcudnn.so.9")]
    subprocess.run([cxx(), *flags], check=True)

    def said(patterns: list[Pattern]) -> list[str]:
        (folder / "patterns").write_bytes(pickle.dumps(patterns))
        command = [sys.executable, str(Path(__file__).parent / "cudnn_draws.py"), str(folder / "patterns")]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return said


@pytest.mark.cxx
@pytest.mark.cudnn
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_graph_is_one_of_cudnn(validated: Callable[[list[Pattern]], list[str]], dtype: str) -> None:
    """Whether sizes, strides and types fit together, its frontend finds out by itself."""
    all_of_them: list[Pattern] = [of_dtype(pattern, dtype) for kind in KINDS for pattern in patterns(kind)]
    assert len(all_of_them) > 20 * len(KINDS) / 2
    assert validated(all_of_them) == []


@pytest.mark.cxx
@pytest.mark.cudnn
def test_what_is_no_graph_is_found(validated: Callable[[list[Pattern]], list[str]]) -> None:
    right = next(patterns("3x3"))
    wrong = replace(right, w=replace(right.w, strides=right.w.strides[:2]))
    assert validated([right]) == []
    (said,) = validated([right, wrong])
    assert said.startswith("1 conv: ")


# what they compute


@pytest.fixture
def served(device: gpu.Device, monkeypatch: pytest.MonkeyPatch) -> gpu.Device:
    """A device with a library; with --gpu, the GPU with all that are installed."""
    monkeypatch.delenv(installed.VARIABLE, raising=False)
    return with_library(device, OnCpu()) if isinstance(device, Processor) else device


def with_library(device: Processor, library: OnCpu) -> Processor:
    made = Processor(device.folder)
    made.library = library
    return made


def calls(executable: Executable) -> list[str]:
    """What libraries compute of the program that ran last, without their names."""
    launches = executable.program({}).source.launches
    return [launch.kernel.partition(": ")[2] for launch in launches if launch.routine is not None]


def hold_called(executable: Executable, library: str, count: int) -> None:
    """So many calls on a CPU. A GPU may refuse some, but not all, if it has the library."""
    if isinstance(executable.device, Processor):
        assert len(calls(executable)) == count
        return
    try:
        installed.LIBRARIES[library].version()
    except Missing:
        return
    assert any(launch.kernel.startswith(f"{library}: ") for launch in executable.program({}).source.launches)


def of_kinds(kinds: list[str], dtype: str) -> Graph:
    """Convolutions of these kinds, and their gradients."""
    net, outputs = Builder("kinds"), {}
    for number, kind in enumerate(kinds):
        C, K, sizes, window, attrs = KINDS[kind]
        x = net.input(f"x{number}", (2, C, *sizes), dtype)
        w = net.input(f"w{number}", (K, C // attrs.get("groups", 1), *window), dtype)
        y = conv(x, w, **attrs)
        g = net.input(f"g{number}", y.shape, dtype)
        to_x = conv_input_gradient(g, w, extents=sizes, **attrs)
        to_w = conv_weight_gradient(x, g, window=window, **attrs)
        outputs.update({f"y{number}": y, f"to_x{number}": to_x, f"to_w{number}": to_w})
    return net.build(outputs)


def run_twice(graph: Graph, device: gpu.Device) -> Executable:
    """Right, and the same to the bit whatever the memory held before."""
    arrays, executable = normal(graph), Executable(laid_out(lower(graph)), device)
    found, _ = executable.run({}, arrays)
    hold(graph, arrays, found)
    again, _ = executable.run({}, arrays)
    assert [array.tobytes() for array in again.values()] == [array.tobytes() for array in found.values()]
    return executable


@pytest.mark.cxx
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_convolutions_and_their_gradients(served: gpu.Device, dtype: str) -> None:
    executable = run_twice(of_kinds([*KINDS], dtype), served)
    hold_called(executable, "cudnn", 3 * len(KINDS))


@pytest.mark.cxx
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_products(served: gpu.Device, dtype: str) -> None:
    executable = run_twice(of_all([*PRODUCTS, *IN_ONE_TILE], dtype), served)
    products = [node for node in executable.graph.nodes if node.op.name == "matmul"]
    hold_called(executable, "cublaslt", len(products) - 5)  # three are empty, two have several axes in front


def followed(dtype: str = "float32") -> Graph:
    """Two convolutions and a product, the first and the last with a bias and relu that nobody else reads."""
    net = Builder("followed")
    given = lambda name, *shape: net.input(name, shape, dtype)
    h = conv(given("x", 2, 5, 6, 7), given("w", 8, 5, 3, 3), padding=1)
    h = mg.relu(h + mg.reshape(given("b", 8), (8, 1, 1)))
    h = conv(h, given("v", 2, 8, 1, 1))
    return net.build(h=h, rows=mg.relu(mg.flatten(h) @ given("m", 84, 4) + given("c", 4)))


FUSED = ["conv + bias + relu", "conv", "matmul + bias + relu"]


REFUSALS: dict[str, tuple[Callable[[Pattern], bool], list[str]]] = {
    "nothing": (lambda one: False, FUSED),
    "relu": (lambda one: one.relu, ["conv", "conv", "matmul"]),  # the sum is computed with relu, by own kernels
    "what follows": (lambda one: one.bias or one.relu, ["conv", "conv", "matmul"]),
    "convolutions": (lambda one: isinstance(one, Convolution), FUSED[2:]),
    "images as they lie": (lambda one: isinstance(one, Convolution) and one.x.strides[1] != 1, FUSED),
    "all": (lambda one: True, []),
}


@pytest.mark.cxx
@pytest.mark.parametrize("refused", REFUSALS)
def test_what_is_refused_is_computed_by_own_kernels(processor: Processor, refused: str) -> None:
    refuses, wanted = REFUSALS[refused]
    processor.library = library = OnCpu(refuses)
    assert calls(run_twice(followed(), processor)) == wanted
    assert [one for one in library.called if refuses(one)] == []


@pytest.fixture
def processor(device: gpu.Device) -> Processor:
    """A CPU that plays a GPU, for tests that look into it."""
    assert isinstance(device, Processor)
    return Processor(device.folder)


@pytest.mark.cxx
def test_relu_keeps_nan(served: gpu.Device) -> None:
    graph = followed()
    arrays = normal(graph)
    arrays["x"][0, 0, 0, 0] = np.nan
    found, _ = Executable(laid_out(lower(graph)), served).run({}, arrays)
    assert np.isnan(found["h"][0, :, :2, :2]).all()
    assert not np.isnan(found["h"][0, :, 2:, 2:]).any()
    assert np.isnan(found["rows"][0]).all()
    assert not np.isnan(found["rows"][1]).any()


def network() -> Graph:
    net = Builder("network")
    image, label = net.input("image", ("N", 3, 8, 8)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.conv2d(image, 8, 3, padding="same"))
    h = mg.relu(layers.batch_norm(layers.conv2d(h, 8, 3, padding=1, stride=2, groups=2)))
    h = mg.relu(layers.linear(mg.flatten(h), 16))
    logits = layers.linear(h, 3)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def hold_step(here: mg.Program, there: mg.Program, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = {"image": rng.normal(size=(6, 3, 8, 8)).astype("float32"), "label": rng.integers(0, 3, 6)}
    found, wanted = here(**inputs), there(**inputs)
    for key in wanted:
        np.testing.assert_allclose(found[key], wanted[key], rtol=2e-4, atol=2e-5, err_msg=f"{seed} {key}")


def some_refused(pattern: Pattern) -> bool:
    """Gradients to weights, and what relu follows."""
    return pattern.relu or (isinstance(pattern, Convolution) and pattern.op == "conv_weight_gradient")


@pytest.mark.cxx
@pytest.mark.parametrize("refuses", [lambda one: False, some_refused], ids=["all", "some"])
def test_training_steps_are_those_of_numpy(
    processor: Processor, monkeypatch: pytest.MonkeyPatch, refuses: Callable[[Pattern], bool]
) -> None:
    """Captured and replayed: after the first step nothing is asked, and nothing allocated."""
    processor.library = library = OnCpu(refuses)
    monkeypatch.setattr(gpu, "device", lambda: processor)
    graph = mg.training_step(network(), "loss", mg.optim.SGD(0.05, momentum=0.9))
    a, b = graph.init(seed=0), graph.init(seed=0)
    here, there = mg.compile(graph, a, "cupy"), mg.compile(graph, b, "numpy")
    for step in range(4):
        hold_step(here, there, step)
        if step == 0:
            asked, begun = len(library.asked), len(library.called)
            assert asked
            assert begun
            processor.events.clear()
    assert len(library.asked) == asked
    assert processor.events.count("replay") == 3
    assert "capture" not in processor.events
    for key in b:
        np.testing.assert_allclose(a[key], b[key], rtol=2e-4, atol=2e-5, err_msg=key)


@pytest.mark.cxx
def test_checked_steps_call_them_one_by_one(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    processor.library = library = OnCpu()
    monkeypatch.setenv("MINIGRAPH_CHECK", "1")
    graph = followed()
    arrays = normal(graph)
    found, _ = Executable(laid_out(lower(graph)), processor).run({}, arrays)
    hold(graph, arrays, found)
    assert [str(pattern) for pattern in library.called] == FUSED
    assert processor.events.count("call") == len(FUSED)


@pytest.mark.cxx
def test_the_profile_names_them(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    processor.library = OnCpu()
    monkeypatch.setattr(gpu, "device", lambda: processor)
    monkeypatch.setattr("minigraph.driver.on_gpu.peak", lambda device: Peak(1e13, 1e12, "a CPU"))
    program = mg.compile(followed(), mg.State({}), "cupy")
    profile = program.profile(repeats=1, **normal(program.graph))
    called = [row for row in profile.launches if row.kind == "on a CPU: conv + bias + relu"]
    assert [row.what for row in called] == ["step 0"]
    assert "on a CPU: matmul + bias + relu" in str(profile)


# through their modules


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gpu.Device:
    """A GPU by CuPy, with cudnn and nvmath, all of which a CPU plays."""
    fake = fake_cupy(tmp_path)
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path))
    monkeypatch.delenv(installed.VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    for name, module in nvidia_on_cpu.modules(fake.cuda.get_current_stream).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(gpu, "_gpu", functools.cache(gpu._gpu.__wrapped__))
    return gpu.device()


@pytest.mark.cxx
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_convolutions_through_the_module(real: gpu.Device, dtype: str) -> None:
    found = calls(run_twice(of_kinds([*KINDS], dtype), real))
    assert len(found) == 3 * len(KINDS)


@pytest.mark.cxx
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_products_through_the_module(real: gpu.Device, dtype: str) -> None:
    found = calls(run_twice(of_all([*PRODUCTS, *IN_ONE_TILE], dtype), real))
    assert found.count("matmul") + found.count("matmul + bias") == len(found) > len(PRODUCTS)


@pytest.mark.cxx
def test_what_follows_through_the_modules(real: gpu.Device) -> None:
    """Of cublasLt it is the bias alone."""
    assert calls(run_twice(followed(), real)) == ["conv + bias + relu", "conv", "matmul"]
    net = Builder("biased")
    x, w, b = net.input("x", (9, 6)), net.input("w", (6, 5)), net.input("b", (5,))
    assert calls(run_twice(net.build(y=x @ w + b), real)) == ["matmul + bias"]


@pytest.mark.cxx
def test_training_through_the_modules(real: gpu.Device) -> None:
    graph = mg.training_step(network(), "loss", mg.optim.SGD(0.05, momentum=0.9))
    a, b = graph.init(seed=0), graph.init(seed=0)
    here, there = mg.compile(graph, a, "cupy"), mg.compile(graph, b, "numpy")
    for step in range(3):
        hold_step(here, there, step)
    for key in b:
        np.testing.assert_allclose(a[key], b[key], rtol=2e-4, atol=2e-5, err_msg=key)


def test_nothing_is_asked_while_a_step_is_captured(real: gpu.Device) -> None:
    def ask() -> None:
        real.routine(PATTERN)

    ask()
    with pytest.raises(GraphError, match="is being captured"):
        real.capture(ask)


def test_what_a_library_reports_is_said(real: gpu.Device) -> None:
    def fails(addresses: object) -> None:
        raise Failed("CUDNN_STATUS_EXECUTION_FAILED")

    with pytest.raises(GraphError, match=r"^cudnn: conv reports CUDNN_STATUS_EXECUTION_FAILED$"):
        real.call(SimpleNamespace(name="cudnn: conv", workspace=0, run=fails), [])


def test_the_versions_are_those_of_the_modules(real: gpu.Device) -> None:
    assert [*installed.described()] == [
        "cuDNN 9.28.0, frontend 1.28.0: convolutions",
        "cublasLt 13.1.0, nvmath-python 1.0.0: matrix products",
    ]


# what they are asked


def test_a_state_is_written_by_own_kernels_alone() -> None:
    """A library does not know whether an input was found wrong."""
    net = Builder("net")
    x, old = net.input("x", (4, 4)), net.variable("old", (4, 4), mg.init.ones)
    net.update(old, x @ x)
    graph, library = laid_out(lower(net.build(y=x + 1.0))), OnCpu()
    made = plan(graph, claims(library.routine), {})
    assert library.asked == []
    assert [made.kernel(step) for step in made.steps if step.region and step.region.call] == ["gemm"]
    assert len(asked(net.build(y=x @ x))) == 1  # which is not the one that is written


def test_the_plan_names_the_library() -> None:
    graph = laid_out(lower(followed()))
    made = plan(graph, claims(OnCpu().routine), {})
    assert [made.kernel(step) for step in made.steps if step.region and step.region.call] == ["on a CPU"] * 3


def product_of(how: Callable[[Tensor, Tensor], Tensor], a: tuple[int, ...], b: tuple[int, ...]) -> Product:
    net = Builder("net")
    (found,) = asked(net.build(y=how(net.input("a", a), net.input("b", b))))
    assert isinstance(found, Product)
    return found


def test_products_are_asked_as_they_lie() -> None:
    plain = product_of(lambda a, b: a @ b, (5, 6), (6, 7))
    assert (plain.a.sizes, plain.a.strides) == ((1, 5, 6), (0, 6, 1))
    turned = product_of(lambda a, b: mg.transpose(a) @ b, (6, 5), (6, 7))
    assert (turned.a.sizes, turned.a.strides) == ((1, 5, 6), (0, 1, 5))
    several = product_of(lambda a, b: a @ b, (3, 5, 6), (3, 6, 7))
    assert (several.b.sizes, several.b.strides) == ((3, 6, 7), (42, 7, 1))
    same = product_of(lambda a, b: a @ b, (2, 3, 5, 8), (8, 12))
    assert (same.a.sizes, same.y.sizes) == ((1, 30, 8), (1, 30, 12))
    heads = product_of(lambda a, b: a @ b, (2, 3, 5, 8), (2, 3, 8, 5))
    assert (heads.a.sizes, heads.a.strides) == ((6, 5, 8), (40, 8, 1))
    assert product_of(lambda a, b: a[1:] @ b, (6, 5), (5, 7)).a.alignment == 4  # the second row of five floats


def test_products_of_numbers_rounded_to_tf32_may_be_those_of_tensor_cores() -> None:
    net = Builder("net")
    a, b = net.input("a", (5, 6)), net.input("b", (6, 7))
    tf32 = mg.tf32
    assert [one.tf32 for one in asked(net.build(y=tf32(a) @ tf32(b)))] == [True]
    assert [one.tf32 for one in asked(net.build(y=tf32(a) @ b))] == [False]


NOTES = {name: name for name in (*cudnn.INEXACT, "TENSOR_CORE", "STRICT_NAN_PROP")}


def test_engines_that_do_not_repeat_or_are_not_exact_are_refused() -> None:
    module = SimpleNamespace(numerical_note=SimpleNamespace(**NOTES))
    pattern = next(patterns("3x3"))
    assert "NONDETERMINISTIC" in cudnn.refused(module, pattern)
    assert "TENSOR_CORE" in cudnn.refused(module, pattern)
    assert "TENSOR_CORE" not in cudnn.refused(module, replace(pattern, tf32=True))
    assert "TENSOR_CORE" not in cudnn.refused(module, of_dtype(pattern, "float16"))


def test_cublaslt_sees_matrices_in_columns() -> None:
    of = lambda sizes, strides: cublaslt.Matrices.of(Array("float32", sizes, strides, 64))
    assert of((1, 5, 6), (0, 6, 1)) == cublaslt.Matrices("float32", 6, 5, 6, False, 1, 0)
    assert of((1, 5, 6), (0, 1, 5)) == cublaslt.Matrices("float32", 5, 6, 5, True, 1, 0)
    assert of((2, 5, 6), (90, 18, 1)) == cublaslt.Matrices("float32", 6, 5, 18, False, 2, 90)
    assert of((1, 1, 6), (0, 6, 1)) == cublaslt.Matrices("float32", 6, 1, 6, False, 1, 0)
    assert of((1, 5, 1), (0, 1, 1)) == cublaslt.Matrices("float32", 1, 5, 1, False, 1, 0)
    assert of((1, 5, 6), (0, 12, 2)) is None


# which are there


def lacking(stream: int = 0) -> Any:
    raise Missing("it is not here")


@pytest.fixture
def one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN is missing, cublasLt is there."""
    there = installed.Known("cublasLt", "matrix products", lambda: "13.1", lambda stream: OnCpu())
    known = {"cudnn": installed.Known("cuDNN", "convolutions", lacking, lacking), "cublaslt": there}
    monkeypatch.setattr(installed, "LIBRARIES", known)
    monkeypatch.delenv(installed.VARIABLE, raising=False)


ONE = Array("float32", (1, 1, 1), (1, 1, 1), 64)
PATTERN = Product(ONE, ONE, ONE)


@pytest.mark.usefixtures("one_of_two")
def test_those_that_are_there_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = installed.Libraries(7)
    assert libraries.routine(PATTERN) is not None
    monkeypatch.setenv(installed.VARIABLE, "none")
    assert libraries.routine(PATTERN) is None
    monkeypatch.setenv(installed.VARIABLE, "cublaslt")
    assert libraries.routine(PATTERN) is not None


@pytest.mark.usefixtures("one_of_two")
def test_one_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(installed.VARIABLE, "cublaslt, cudnn")
    assert installed.asked_for() == ("cublaslt", "cudnn")
    monkeypatch.setenv(installed.VARIABLE, "cudnn")
    with pytest.raises(GraphError, match="asks for cuDNN: it is not here; pip install 'minigraph"):
        installed.Libraries(0).routine(PATTERN)
    monkeypatch.setenv(installed.VARIABLE, "cudnn,cutensor")
    with pytest.raises(GraphError, match=r"is none, or some of cudnn, cublaslt .* not 'cudnn,cutensor'"):
        installed.asked_for()


@pytest.mark.usefixtures("one_of_two")
def test_the_doctor_says_which_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = installed.described()
    assert first.startswith("cuDNN is not there, own kernels compute convolutions: it is not here; pip install ")
    assert second == "cublasLt 13.1: matrix products"
    monkeypatch.setenv(installed.VARIABLE, "none")
    assert [*installed.described()][1] == "cublasLt 13.1: matrix products, but MINIGRAPH_GPU_LIBRARIES leaves it out"


@pytest.mark.parametrize(("module", "name"), [(cudnn, "nvidia-cudnn-frontend"), (cublaslt, "nvmath-python")])
def test_a_package_that_is_missing_is_named(module: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cudnn", None)
    monkeypatch.setitem(sys.modules, "nvmath", None)
    with pytest.raises(Missing, match=f"^{name} is not installed"):
        module.version()


def test_a_frontend_without_its_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def version() -> int:
        raise RuntimeError("no symbol")

    monkeypatch.setitem(sys.modules, "cudnn", SimpleNamespace(backend_version=version))
    with pytest.raises(Missing, match=r"^nvidia-cudnn-frontend finds no libcudnn\.so\.9 \(no symbol\)"):
        cudnn.version()
