"""Exported programs: a folder that C programs and Python use, with neither compiler nor graph, to the same numbers."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_networks import networks

import minigraph as mg
from minigraph import layers
from minigraph.backends.c import export as writing
from minigraph.backends.c.compiler import Compiler, compiler
from minigraph.backends.c.executable import Executable
from minigraph.backends.c.export import Size, identifier, identifiers
from minigraph.backends.c.exported import machine
from minigraph.core.dtypes import NARROW
from minigraph.tools import command

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "export" / "classify.c"


pytestmark = pytest.mark.compiler


rng = np.random.default_rng(0)
IMAGES = rng.normal(size=(11, 1, 28, 28)).astype("float32")
LABELS = rng.integers(0, 10, 11)


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_THREADS", "2")


@pytest.fixture(scope="module")
def infer() -> mg.Program:
    model = networks.lenet(batch_norm=True)
    return mg.compile(mg.inference(model, outputs=["logits"]), model.init(seed=0), backend="c")


@pytest.fixture(scope="module")
def folder(infer: mg.Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported LeNet for batches of up to 8. No test changes it."""
    return infer.export(tmp_path_factory.mktemp("exported") / "lenet", N=8)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "lenet"))


def training() -> mg.Program:
    """A small network that trains on the images."""
    net = mg.Builder("small")
    image, label = net.input("image", ("N", 1, 28, 28)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.linear(mg.flatten(image), 16)))
    logits = layers.linear(h, 10)
    model = net.build(logits=logits, loss=mg.cross_entropy(logits, label))
    return mg.compile(mg.training_step(model, loss="loss", optimizer=mg.optim.Adam(1e-2)), model.init(0), "c")


def doubling() -> mg.Program:
    net = mg.Builder("double")
    return mg.compile(net.build(y=net.input("x", ("N", 3)) * 2.0), mg.State(), "c")


def c_program(main: Path, folder: Path, *more: str) -> Path:
    """The C program compiled with the sources of the folder."""
    by, made = compiler(), folder.parent / main.stem
    flags = [flag for flag in by.flags if flag not in ("-shared", "-fPIC")]
    sources = [main, *sorted(folder.glob("*.c"))]
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-pass-failed"]  # clang's: not vectorized
    call = [*by.command, *flags, *warnings, *more, f"-I{folder.parent}", *map(str, sources)]
    done = subprocess.run([*call, "-o", str(made), "-lm", "-pthread"], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return made


def refused(folder: Path, *weights: Path) -> str:
    with pytest.raises(mg.GraphError) as caught:
        mg.load_program(folder, *weights)
    return str(caught.value)


def test_the_step_is_compiled_once(infer: mg.Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    build, built = Compiler.build, []

    def counting(*given: Any, **more: Any) -> None:
        built.append(given)
        build(*given, **more)

    monkeypatch.setattr(Compiler, "build", counting)
    infer.export(tmp_path / "lenet", N=5)
    assert len(built) == 1


# the same numbers everywhere


def test_any_batch_up_to_the_planned_one(infer: mg.Program, folder: Path) -> None:
    program = mg.load_program(folder)
    infer(image=IMAGES[:8])
    for n in (8, 1, 3, 0, 7):
        got = program(image=IMAGES[:n])["logits"]
        assert got.shape == (n, 10)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, infer(image=IMAGES[:n])["logits"], rtol=1e-5, atol=1e-5)
    first = program(image=IMAGES[:8])["logits"]
    second = program(image=IMAGES[:8])["logits"]
    assert first is not second
    assert first.tobytes() == second.tobytes()


def test_c_and_python_without_a_compiler_agree_to_the_bit(folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "lenet"))
    classify = c_program(EXAMPLE, place)
    environment = {"PATH": "", "CC": "/nowhere/cc", "MINIGRAPH_CACHE": str(tmp_path / "cache")}
    code = f"""
import sys
import numpy as np
import minigraph as mg
program = mg.load_program({str(place)!r})
images = np.frombuffer(sys.stdin.buffer.read(), "float32").reshape(-1, 1, 28, 28)
for start in range(0, len(images), 8):
    for row in program(image=images[start : start + 8])["logits"]:
        print(row.argmax(), "%.9g" % row.max())
"""
    weights = str(place / "weights.safetensors")
    said = []
    for call in ([str(classify), weights], [sys.executable, "-c", code]):
        done = subprocess.run(call, input=IMAGES.tobytes(), env=environment, capture_output=True)
        assert not done.returncode, done.stderr.decode()
        said.append(done.stdout.decode())
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == len(IMAGES)
    assert not (tmp_path / "cache").exists()  # nothing was compiled


def test_the_example_is_short() -> None:
    lines = EXAMPLE.read_text().split("\n\n", 2)[2].splitlines()
    assert len(lines) <= 22
    header = EXAMPLE.read_text().split("\n#")[0]
    assert "lenet/*.c" in header


def test_the_example_says_what_is_wrong(copied: Path) -> None:
    classify = c_program(EXAMPLE, copied)
    (copied / "other").write_bytes(b"x" * (copied / "weights.safetensors").stat().st_size)
    for weights, sentence in (
        (copied / "nowhere", "the file of the weights cannot be opened"),
        (copied / "program.c", "the file of the weights has another size than those of this program"),
        (copied / "other", "the file holds other arrays than the weights of this program"),
    ):
        done = subprocess.run([classify, weights], input=IMAGES.tobytes(), capture_output=True)
        assert done.returncode == 1
        assert done.stderr.decode() == f"classify: {sentence}\n"


TWO = """\
#include <stdio.h>
#include "one/program.h"
#include "two/program.h"
int main(int argc, char **argv) {
  float x[3] = {1, 2, 3}, y[3], z[3];
  one_program *one;
  two_program *two;
  if (argc != 3 || one_create(&one, argv[1], 2) || two_create(&two, argv[2], 1)) return 1;
  if (one_run(one, &(one_arrays){.N = 1, .x = x, .y = y})) return 2;
  if (two_run(two, &(two_arrays){.N = 1, .x = y, .y = z})) return 3;
  printf("%g %g %g\\n", z[0], z[1], z[2]);
  one_free(one), two_free(two);
}
"""


def test_two_programs_in_one(tmp_path: Path) -> None:
    one, two = (doubling().export(tmp_path / name, N=7) for name in ("one", "two"))
    (tmp_path / "main.c").write_text(TWO)
    main = c_program(tmp_path / "main.c", one, str(two / "program.c"), str(two / "step.c"))
    call = [main, one / "weights.safetensors", two / "weights.safetensors"]
    assert subprocess.run(call, capture_output=True, text=True).stdout == "4 8 12\n"


def test_a_header_of_cpp(folder: Path, tmp_path: Path) -> None:
    """C++ programs include it too, and link the library."""
    plus = shutil.which("g++") or shutil.which("clang++")
    (tmp_path / "main.cpp").write_text('#include "lenet/program.h"\nint main() { lenet_free(nullptr); }\n')
    if plus:
        call = [plus, "-Wall", "-Werror", "main.cpp", str(folder / "program.so"), f"-I{folder.parent}", "-o", "main"]
        subprocess.run(call, cwd=tmp_path, check=True)
        subprocess.run([tmp_path / "main"], check=True)
    assert 'extern "C"' in (folder / "program.h").read_text()


# training


def test_training_goes_on(tmp_path: Path) -> None:
    train = training()
    program = mg.load_program(train.export(tmp_path / "train", N=11))
    for step in range(3):
        batch = {"image": IMAGES[: 11 - step], "label": LABELS[: 11 - step]}
        theirs, ours = train(**batch), program(**batch)
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    program.save(tmp_path / "saved.safetensors")
    saved = mg.State.read(tmp_path / "saved.safetensors")
    assert saved["optimizer.step"] == 3
    for name in program.updates:
        np.testing.assert_allclose(saved[name], train.state[name], rtol=1e-3, atol=1e-4)
    other = mg.load_program(tmp_path / "train", tmp_path / "saved.safetensors")
    batch = {"image": IMAGES, "label": LABELS}
    assert other(**batch)["loss"].tobytes() == program(**batch)["loss"].tobytes()
    fresh = mg.load_program(tmp_path / "train")
    assert fresh(**batch)["loss"] != program(**batch)["loss"]


TRAIN = """\
#include <stdio.h>
#include <stdlib.h>
#include "train/program.h"
static void expect(const char *wrong) { if (wrong) { puts(wrong); exit(1); } }
int main(int argc, char **argv) {
  static float image[11][784], logits[11][10], loss;
  static int64_t label[11];
  train_program *p;
  (void)argc;
  if (fread(image, 1, sizeof image, stdin) != sizeof image) return 2;
  if (fread(label, 1, sizeof label, stdin) != sizeof label) return 2;
  expect(train_create(&p, argv[1], 2));
  train_arrays a = {.N = 11, .image = image[0], .label = label, .logits = logits[0], .loss = &loss};
  for (int step = 0; step < 3; step++) expect(train_run(p, &a));
  printf("%.9g\\n", loss);
  label[3] = 10;
  puts(train_run(p, &a));
  a.N = 12;
  puts(train_run(p, &a));
  a.N = 11, a.loss = 0;
  puts(train_run(p, &a));
  train_program *q;
  puts(train_create(&q, argv[1], -1));
  expect(train_save(p, argv[2]));
  puts(train_save(p, "/nowhere/at/all"));
  train_free(p);
  return 0;
}
"""


def test_a_c_program_trains_and_saves(tmp_path: Path) -> None:
    """With the sanitizers looking on."""
    place = training().export(tmp_path / "train", N=11)
    (tmp_path / "main.c").write_text(TRAIN)
    sanitized = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O0"] if is_gcc() else []
    main = c_program(tmp_path / "main.c", place, *sanitized)
    call = [main, place / "weights.safetensors", tmp_path / "saved"]
    done = subprocess.run(call, input=IMAGES.tobytes() + LABELS.tobytes(), capture_output=True)
    assert not done.returncode, done.stdout.decode() + done.stderr.decode()
    loss, *sentences = done.stdout.decode().splitlines()
    assert sentences == [
        "a number of an input is out of range",
        "N is not from 0 to 11 without 1",
        "loss is a null pointer",
        "the number of threads is not from 0 to 2",
        "the file of the weights cannot be written",
    ]
    program = mg.load_program(place)
    losses = [program(image=IMAGES, label=LABELS)["loss"] for _ in range(3)]
    np.testing.assert_allclose(float(loss), losses[-1], rtol=1e-5)
    program.save(tmp_path / "ours")
    theirs, ours = mg.State.read(tmp_path / "saved"), mg.State.read(tmp_path / "ours")
    for name in program.updates:
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-3, atol=1e-4)
    assert not list(tmp_path.glob("*.partial"))


def is_gcc() -> bool:
    return "gcc" in Path(compiler().command[0]).name


# every form


@pytest.mark.parametrize("dtype", NARROW)
def test_names_types_and_sizes_of_all_kinds(dtype: str, tmp_path: Path) -> None:
    """Names that C has not, a size that is not the batch, narrow floats, bool, a table, a folder called like C's."""
    if dtype == "float16" and not compiler().has_half:
        dtype = "float32"
    kind = "float" if dtype == "float32" else "uint16_t"
    net = mg.Builder("odd")
    a, half = net.input("int", ("N", "M")), net.input("a.b", ("N",), dtype)
    mask, whole = net.input("a/b", ("N",), "bool"), net.input("3", (2, 3), "int64")
    table = net.constant(np.arange(6.0, dtype="float32").reshape(2, 3))
    scale = net.parameter("scale", (3,), mg.init.normal(1.0))
    graph = net.build(
        {
            "N": mg.sum(a, axes=1),
            "a_b": half * 2.0,
            "not": mg.logical_not(mask),
            "table": mg.matmul(mg.cast(whole, dtype="float32"), mg.transpose(table)) + mg.sum(scale * scale),
        }
    )
    state = graph.init(seed=1)
    place = mg.compile(graph, state, backend="c").export(tmp_path / "exp", N=5, M=4)
    program = mg.load_program(place)
    given = {
        "int": rng.normal(size=(3, 4)).astype("float32"),
        "a.b": np.array([1, 0.1, 1e4], dtype),
        "a/b": np.array([True, False, True]),
        "3": np.arange(6).reshape(2, 3)[:, ::-1],
    }
    got, expected = program(**given), mg.compile(graph, state, backend="numpy")(**given)
    assert list(got) == list(expected)
    for name in expected:
        assert (got[name].dtype, got[name].shape) == (expected[name].dtype, expected[name].shape)
        np.testing.assert_allclose(got[name].astype(float), expected[name].astype(float), rtol=1e-3)
    text = (place / "program.h").read_text()
    for line in ("const float *int_;  // int (N, 4)", f"const {kind} *a_b;", "const bool *a_b_2;", f"{kind} *a_b_3;"):
        assert line in text
    assert "// M is 4." in text
    with pytest.raises(mg.GraphError, match=re.escape("input 'int' is float32[N, 4]")):
        program(**{**given, "int": np.zeros((3, 5), "float32")})


def test_an_input_that_a_kernel_reads_packed(tmp_path: Path) -> None:
    """What is packed once must not be what the caller gives anew."""
    net = mg.Builder("product")
    graph = net.build(y=mg.matmul(net.input("a", ("N", 32)), net.input("b", (32, 48))))
    program = mg.load_program(mg.compile(graph, mg.State(), backend="c").export(tmp_path / "product", N=16))
    for _ in range(2):
        a, b = rng.normal(size=(16, 32)).astype("float32"), rng.normal(size=(32, 48)).astype("float32")
        np.testing.assert_allclose(program(a=a, b=b)["y"], a @ b, rtol=1e-4, atol=1e-4)


def test_names_in_c() -> None:
    assert identifiers(["x", "x", "a.b", "a/b", "for", "3", "é"]) == ["x", "x_2", "a_b", "a_b_2", "for_", "_3", "_"]
    assert [identifier(name) for name in ("lenet", "le-net 2", "2", "_x", "é")] == [
        "lenet",
        "le_net_2",
        "p_2",
        "p__x",
        "p__",
    ]


# which sizes are taken


def exported(graph: mg.Graph, folder: Path, n: int) -> tuple[mg.ExportedProgram, str]:
    """The graph for batches of up to n, and what its header says of the batch, if it says anything."""
    place = mg.compile(graph, mg.State(), "c").export(folder, N=n)
    return mg.load_program(place), "".join(re.findall(r"int64_t N;  // (.*)", (place / "program.h").read_text()))


def from_the_end(x: mg.Tensor) -> mg.Tensor:
    return x[-10:] * 2.0


def in_windows(x: mg.Tensor) -> mg.Tensor:
    lines = mg.reshape(mg.transpose(x), (1, 4, -1, 1))
    return mg.sum(mg.max_pool(lines, (12, 1), stride=1), axes=2)


@pytest.mark.parametrize(("tail", "least"), [(from_the_end, 10), (in_windows, 12)])
def test_the_least_batch(tail: Any, least: int, tmp_path: Path) -> None:
    net = mg.Builder("tail")
    graph = net.build(y=tail(net.input("x", ("N", 4))))
    program, says = exported(graph, tmp_path / "tail", 20)
    assert says == f"from {least} to 20"
    infer = mg.compile(graph, mg.State(), "numpy")
    for n in range(21):
        x = np.random.default_rng(n).normal(size=(n, 4)).astype("float32")
        if n >= least:
            np.testing.assert_allclose(program(x=x)["y"], infer(x=x)["y"], rtol=1e-5)
        else:
            with pytest.raises(mg.GraphError, match=f"N is not from {least} to 20"):
                program(x=x)


def test_what_is_larger_for_a_smaller_batch_is_exported_for_one(tmp_path: Path) -> None:
    net = mg.Builder("rest")
    h, p = net.input("h", ("N", 4)), net.input("p", (40, 4))
    program, says = exported(net.build(rest=mg.exp(p[h.shape[0] :]), twice=h * 2.0), tmp_path / "rest", 30)
    assert not says
    assert "// N is 30." in (tmp_path / "rest" / "program.h").read_text()
    numbers = rng.normal(size=(40, 4)).astype("float32")
    np.testing.assert_allclose(program(h=np.ones((30, 4)), p=numbers)["rest"], np.exp(numbers[30:]), rtol=1e-5)
    with pytest.raises(mg.GraphError, match=re.escape("input 'h' is float32[30, 4]; got shape (20, 4)")):
        program(h=np.ones((20, 4)), p=numbers)


def test_sizes_in_words_and_in_c() -> None:
    for never, text, wrong in (
        ((), "from 0 to 9", "n < 0 || n > 9"),
        ((0, 1), "from 2 to 9", "n < 2 || n > 9"),
        ((1,), "from 0 to 9 without 1", "n < 0 || n > 9 || n == 1"),
        (
            (0, 2, 4, 5, 6, 8),
            "from 1 to 9 without 2, 4 to 6, 8",
            "n < 1 || n > 9 || n == 2 || (n >= 4 && n <= 6) || n == 8",
        ),
    ):
        size = Size("N", "N", 9, frozenset(never))
        assert (size.text, size.wrong("n")) == (text, wrong)


def test_no_export_begins_in_the_middle_of_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler would replace what the call reads."""
    double, step = doubling(), Executable.step

    def interrupted(*given: Any) -> dict[str, np.ndarray]:
        with pytest.raises(mg.GraphError, match="a call of 'double' is not over"):
            double.export(tmp_path / "double", N=2)
        return step(*given)

    monkeypatch.setattr(Executable, "step", interrupted)
    assert double(x=np.ones((2, 3)))["y"].tolist() == [[2.0] * 3] * 2
    assert not list(tmp_path.iterdir())


# what is refused


def test_wrong_inputs(folder: Path) -> None:
    program = mg.load_program(folder)
    for inputs, sentence in (
        ({}, "'lenet' takes the inputs image; 'image' is missing"),
        ({"image": IMAGES[:1], "x": 1}, "'x' is not one of them"),
        ({"image": IMAGES[:1, 0]}, "input 'image' is float32[N, 1, 28, 28]; got shape (1, 28, 28)"),
        ({"image": IMAGES[:1].astype(complex)}, "input 'image' is float32[N, 1, 28, 28]; got complex128"),
        ({"image": IMAGES[:9]}, "N is 9, and 'lenet' was exported for 8 at most"),
    ):
        with pytest.raises(mg.GraphError, match=re.escape(sentence)):
            program(**inputs)
    with pytest.raises(mg.GraphError, match="has no updates"):
        program.save(folder / "saved")
    view = np.repeat(IMAGES[:2], 2, axis=3)[..., ::2]  # not contiguous
    assert program(image=view)["logits"].tobytes() == program(image=IMAGES[:2])["logits"].tobytes()


def test_an_index_out_of_range_moves_nothing(tmp_path: Path) -> None:
    program = mg.load_program(training().export(tmp_path / "train", N=4))
    good, wrong = {"image": IMAGES[:4], "label": LABELS[:4]}, {"image": IMAGES[:4], "label": [0, 1, 2, 10]}
    program.save(tmp_path / "before")
    with pytest.raises(mg.GraphError, match="a number of an input is out of range"):
        program(**wrong)
    program.save(tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
    program(**good)
    with pytest.raises(mg.GraphError, match="N is not from 0 to 4 without 1"):  # a batch norm has no variance then
        program(image=IMAGES[:1], label=LABELS[:1])
    assert np.isnan(program(image=IMAGES[:0], label=LABELS[:0])["loss"])


@pytest.mark.parametrize("name", ["program.so", "weights.safetensors", "program.json"])
@pytest.mark.parametrize("how", ["missing", "short", "changed"])
def test_a_damaged_folder(copied: Path, name: str, how: str) -> None:
    file = copied / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(data if how == "changed" else data[: len(data) // 2])
    said = refused(copied)
    assert name in said
    assert str(copied) in said


def test_threads_that_it_has_no_memory_for(infer: mg.Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_THREADS", "1")
    place = infer.export(tmp_path / "one", N=8)
    expected = mg.load_program(place)(image=IMAGES[:8])["logits"]
    monkeypatch.setenv("MINIGRAPH_THREADS", "3")
    assert mg.load_program(place)(image=IMAGES[:8])["logits"].tobytes() == expected.tobytes()
    assert "threads > 1)" in (place / "program.c").read_text()
    assert "so many threads, 1 at most" in (place / "program.h").read_text()


def test_a_manifest_that_lacks_something(copied: Path) -> None:
    file = copied / "program.json"
    about = json.loads(file.read_text())
    for key in about.keys() - {"compiler", "flags", "fixed"}:
        file.write_text(json.dumps({k: v for k, v in about.items() if k != key}))
        assert str(copied) in refused(copied)
    file.write_text(json.dumps({**about, "format": 2}))
    assert "was written by a newer minigraph: it has format 2, this minigraph reads 1" in refused(copied)


def test_what_is_no_export(tmp_path: Path, folder: Path) -> None:
    assert refused(tmp_path / "nowhere") == f"there is no folder {tmp_path / 'nowhere'}"
    assert "is no exported program" in refused(tmp_path)
    (tmp_path / "weights").write_bytes(b"1")
    assert "has another size" in refused(folder, tmp_path / "weights")
    assert "cannot be opened" in refused(folder, tmp_path / "nowhere")


# other machines


def test_another_processor_compiles_the_sources(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = mg.load_program(copied)(image=IMAGES[:8])["logits"]
    file = copied / "program.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, "needs": [*about["needs"], "avx1024"]}))
    (copied / "program.so").unlink()  # it is not looked at
    assert mg.load_program(copied)(image=IMAGES[:8])["logits"].tobytes() == expected.tobytes()
    monkeypatch.setenv("CC", "/nowhere/cc")
    assert "needs a processor with avx1024, which this one has not; its sources cannot be compiled" in refused(copied)
    file.write_text(json.dumps({**about, "machine": "pdp11"}))
    assert f"is for pdp11 on {sys.platform}" in refused(copied)
    monkeypatch.delenv("CC")
    (copied / "step.c").write_text("")
    assert "step.c is not as it was written" in refused(copied)


def test_what_a_library_needs_is_what_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_ISA", "plain")
    assert not [word for word in compiler().needs if word.startswith("avx")]
    assert ("sse2" in compiler().needs) == (machine() == "x86_64")


# the folder


def test_the_folder_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double = doubling()
    place = double.export(tmp_path / "double", N=2)
    before = (place / "program.h").read_text()
    monkeypatch.setattr(writing, "build", stop)
    with pytest.raises(KeyboardInterrupt):
        double.export(place, N=4)
    assert (place / "program.h").read_text() == before
    monkeypatch.undo()
    old = mg.load_program(place)
    double.export(place, N=4)
    new = mg.load_program(place)
    assert (old.sizes, new.sizes) == ({"N": 2}, {"N": 4})
    for program, n in ((old, 2), (new, 4)):  # both libraries are loaded
        assert program(x=np.ones((n, 3)))["y"].tolist() == [[2.0] * 3] * n
    assert os.listdir(tmp_path) == ["double"]


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_other_folders_stay(tmp_path: Path) -> None:
    double = doubling()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    with pytest.raises(mg.GraphError, match="is no exported program: it stays as it is"):
        double.export(tmp_path / "mine", N=2)
    with pytest.raises(mg.GraphError, match="is there and is no folder"):
        double.export(tmp_path / "mine" / "file", N=2)
    assert (tmp_path / "mine" / "file").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    double.export(tmp_path / "empty", N=2)


def test_sizes(tmp_path: Path) -> None:
    for sizes, sentence in (
        ({}, "no size is given for N: export(folder, N=64), say"),
        ({"N": 2, "M": 3}, "'double' has no size M; it has N"),
        ({"N": 0}, "N is a whole number above 0, not 0"),
        ({"N": 2.5}, "N is a whole number above 0, not 2.5"),
    ):
        with pytest.raises(mg.GraphError, match=re.escape(sentence)):
            doubling().export(tmp_path / "double", **sizes)
    assert not list(tmp_path.iterdir())
    one = mg.load_program(doubling().export(tmp_path / "double", N=1))  # a batch of one has a program of its own
    assert one(x=[[1, 2, 3]])["y"].tolist() == [[2, 4, 6]]
    with pytest.raises(mg.GraphError, match=re.escape("input 'x' is float32[1, 3]; got shape (2, 3)")):
        one(x=np.ones((2, 3)))


# what the README says, and the command line


def test_the_readme(infer: mg.Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```py\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "load_program" in block]
    exec(code, {"mg": mg, "infer": infer, "batch": {"image": IMAGES}})
    expected = infer(image=IMAGES)["logits"].argmax(axis=1)
    assert capsys.readouterr().out == f"{expected}\n"


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    train = training()
    mg.save("step.safetensors", train.source, train.state)
    assert command.main(["export", "step.safetensors", "N=2", "--out", "small", "--outputs", "logits"]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'small'}: image -> logits\n"
    assert not mg.load_program("small").updates
    assert command.main(["export", "step.safetensors", "N=2", "--training", "--out", "small"]) == 0
    assert "optimizer.step" in mg.load_program("small").updates
    assert command.main(["export", "step.safetensors", "--out", "small"]) == 1
    assert "no size is given for N" in capsys.readouterr().err


def test_the_folder_compiles_alone(copied: Path) -> None:
    """Each header that a source includes lies beside it, and debuggers find the sources where they are."""
    names = {file.name for file in copied.iterdir()}
    for file in copied.glob("*.[ch]"):
        included = re.findall(r'^\s*#\s*include\s+"([^"]+)"', file.read_text(), re.MULTILINE)
        assert set(included) <= names
    text = (copied / "program.h").read_text()
    (command,) = re.findall(r"^//   (cc .*)$", text, re.MULTILINE)
    assert shlex.split(command)[-3:] == ["lenet/*.c", "-lm", "-pthread"]


def test_loading_is_light(folder: Path) -> None:
    code = f"import sys, minigraph as mg; mg.load_program({str(folder)!r}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "minigraph.driver.exported" in loaded
    assert not {"safetensors", "networkx"} & set(loaded)
