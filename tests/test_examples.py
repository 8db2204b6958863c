"""The examples run as their readers run them, and say in a sentence what they lack."""

import gzip
import hashlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph.tools import command

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str, *options: object, **environment: str) -> subprocess.CompletedProcess[str]:
    # where no Graphviz can draw, the picture is its text, and a warning says so: "wrote model.dot instead"
    command = [sys.executable, "-W", "error", "-W", "ignore:wrote", str(EXAMPLES / f"{name}.py"), *map(str, options)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def module(name: str) -> dict[str, Any]:
    """What an example defines, without running it as a program."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return runpy.run_path(str(EXAMPLES / f"{name}.py"))
    finally:
        sys.path.remove(str(EXAMPLES))


def leaves(out: Path) -> set[str]:
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    return {path.name for path in out.iterdir()}


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> tuple[str, Path]:
    """What train_digits.py prints, and its folder."""
    out = tmp_path_factory.mktemp("digits")
    done = example("train_digits", "--epochs", 5, "--out", out)
    assert done.returncode == 0, done.stderr
    return done.stdout, out


def test_train_digits_learns_and_leaves_weights_curves_and_a_picture(shown):
    text, out = shown
    found = re.search(r"360 held-out images: ([\d.]+)% right", text)
    assert found, text
    assert float(found[1]) > 90  # after 5 epochs of its 20; a tenth would be luck
    assert len(re.findall(r"^epoch +\d+: loss .* validation: ", text, re.MULTILINE)) == 5
    assert {"best.safetensors", "curves.png"} < leaves(out)
    assert leaves(out) & {"model.svg", "model.dot"}
    assert "checkpoint.safetensors" not in leaves(out)  # a complete training is not gone on with


def test_train_digits_learns_in_half_precision(tmp_path):
    done = example("train_digits", "--epochs", 1, "--precision", "float16", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.search(r"held-out images: ([\d.]+)% right", done.stdout)
    assert found, done.stdout
    assert float(found[1]) > 50


def test_the_weights_that_train_digits_leaves_fit_its_network(shown):
    model = module("train_digits")["network"]()
    state = model.init(0)
    difference = state.load(shown[1] / "best.safetensors", strict=False)
    assert not difference.missing
    assert not difference.other_form


def test_the_network_that_train_digits_leaves_is_that_of_the_command_lines_help(shown):
    folder, _, name = command.DEMO.rpartition("/")
    assert folder in (EXAMPLES / "train_digits.py").read_text()
    graph, state = mg.load(shown[1] / name)
    assert state is not None
    logits = mg.compile(graph, state)(image=np.zeros((2, 1, 8, 8)))["logits"]
    assert logits.shape == (2, 10)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("module", ["sklearn", "matplotlib"])
def test_train_digits_names_the_extra_that_is_missing(tmp_path, module):
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError('no {module}', name='{module}')")
    done = example("train_digits", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "type  pip install '.[examples]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_option_ends_in_a_sentence(tmp_path):
    done = example("train_digits", "--backend", "abacus", "--out", tmp_path)
    assert done.returncode == 1
    assert "there is no backend 'abacus'" in done.stderr
    assert "Traceback" not in done.stderr


# Fashion-MNIST, with few images made up in its format


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder of the four files. An image is brighter in the row that its label names."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part, count in (("train", 600), ("t10k", 100)):
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        images = rng.integers(0, 100, (count, 28, 28), dtype=np.uint8)
        images[np.arange(count), 2 * labels + 4] += 150
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))  # not packed: both are read
    return folder


@pytest.fixture(scope="module")
def fashion() -> dict[str, Any]:
    return module("fashion_mnist")


def test_train_fashion_mnist_learns_from_files_of_its_format(tmp_path, data):
    done = example("train_fashion_mnist", "--data", data, "--epochs", 4, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.search(r"100 test images: ([\d.]+)% right", done.stdout)
    assert found, done.stdout
    assert float(found[1]) > 60
    assert {"best.safetensors", "curves.png"} < leaves(tmp_path)
    assert leaves(tmp_path) & {"model.svg", "model.dot"}


def test_train_fashion_mnist_says_where_data_come_from(tmp_path):
    done = example("train_fashion_mnist", "--data", tmp_path, "--out", tmp_path)
    assert done.returncode == 1
    for part in ("lacks train-images-idx3-ubyte", "--download", "--data", "package dataset-fashion-mnist"):
        assert part in done.stderr


def test_a_file_that_is_no_idx_file_is_refused(tmp_path, fashion):
    whole = idx(np.zeros((3, 4), np.uint8))
    path = tmp_path / "train-labels-idx1-ubyte"
    for content in (whole[:-1], b"", b"\0\0", b"PNG" + whole[3:], whole[:5]):
        path.write_bytes(content)
        with pytest.raises(mg.GraphError, match="train-labels-idx1-ubyte is not an IDX file"):
            fashion["read_idx"](path)
    path.write_bytes(whole)
    assert fashion["read_idx"](path).shape == (3, 4)


def test_download_keeps_what_has_the_right_checksum_only(tmp_path, data, fashion, monkeypatch):
    server, target = tmp_path / "server", tmp_path / "target"
    server.mkdir()
    digests = {}
    for name in fashion["FILES"]:
        packed = data / f"{name}.gz"
        content = gzip.decompress(packed.read_bytes()) if packed.exists() else (data / name).read_bytes()
        (server / f"{name}.gz").write_bytes(gzip.compress(content))
        digests[name] = hashlib.sha256(content).hexdigest()
    settings = fashion["download"].__globals__
    monkeypatch.setitem(settings, "ADDRESS", server.as_uri())
    monkeypatch.setitem(settings, "FILES", digests)
    fashion["download"](target)
    assert {path.name for path in target.iterdir()} == {f"{name}.gz" for name in digests}
    (server / "t10k-labels-idx1-ubyte.gz").unlink()
    fashion["download"](target)  # nothing is fetched twice

    last = "t10k-labels-idx1-ubyte"
    (target / f"{last}.gz").unlink()
    for content in (gzip.compress(b"something else"), gzip.compress(b"something else")[:-9], b"<html>", b""):
        (server / f"{last}.gz").write_bytes(content)
        with pytest.raises(mg.GraphError, match=f"{last} .* not {digests[last]}"):
            fashion["download"](target)
        assert not (target / f"{last}.gz").exists()
    (server / f"{last}.gz").unlink()
    with pytest.raises(mg.GraphError, match=f"{last}.*cannot be fetched"):
        fashion["download"](target)
