"""Random numbers by counting, and dropout on them: against Philox in Python integers, and by counting what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigraph as mg
from minigraph import layers
from minigraph.core.dtypes import FLOATS, epsilon
from minigraph.ops.random import philox

WORD = 0xFFFFFFFF


def philox_block(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Philox 4x32-10 as the paper defines it: ten rounds, and the key raised by the Weyl constants between them."""
    (a, b, c, d), (k, m) = counter, key
    for i in range(10):
        low, high = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (high >> 32) ^ b ^ k, high & WORD, (low >> 32) ^ d ^ m, low & WORD
        if i < 9:
            k, m = (k + 0x9E3779B9) & WORD, (m + 0xBB67AE85) & WORD
    return a, b, c, d


# The known answers of the authors' library Random123 (its file kat_vectors): counter, key, result.
KNOWN = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], result: tuple[int, ...]) -> None:
    assert philox_block(counter, key) == result
    words = philox(tuple(np.array([n], np.uint64) for n in counter), key)
    assert tuple(int(word[0]) for word in words) == result


def bits(shape: Any, stream: int, seed: int, step: int, n: int | None = None) -> np.ndarray:
    net = mg.Builder()
    x = net.input("x", ("N",))
    shape = tuple(x.shape[0] if size == "N" else size for size in shape)
    y = mg.random_bits(net.constant(seed, "int64"), net.constant(step, "int64"), shape=shape, stream=stream)
    program = mg.compile(net.build(y=y, same=x), mg.State())
    return program(x=np.zeros(n or 0))["y"]


@given(
    shape=st.lists(st.integers(0, 4), max_size=3),
    stream=st.integers(0, 2**32 - 1),
    seed=st.integers(-(2**63), 2**63 - 1),
    step=st.integers(0, 2**63 - 1),
)
def test_each_element_is_a_word_of_its_block(shape: list[int], stream: int, seed: int, step: int) -> None:
    """Element i is word i % 4 of the block (i // 4, stream, step), keyed by the seed; 64-bit numbers are two words."""
    found = bits(shape, stream, seed, step)
    assert (found.dtype.name, found.shape) == ("uint32", tuple(shape))
    key = seed & WORD, seed >> 32 & WORD
    for i, word in enumerate(found.flat):
        assert word == philox_block((i // 4, stream, step & WORD, step >> 32), key)[i % 4]


def test_a_longer_batch_begins_like_a_shorter_one() -> None:
    """An element's bits hang on its index alone, so a last short batch is drawn from the same numbers."""
    short, long = (bits(("N", 3), 5, 17, 2, n) for n in (3, 7))
    assert np.array_equal(short, long[:3])


def dropped(rate: float, shape: Any = ("N",), **options: Any) -> mg.Graph:
    net = mg.Builder("dropped")
    x = net.input("x", shape, **options)
    y = layers.dropout(x, rate)
    return net.build(y=y, dx=mg.gradient(mg.sum(y), [x])[0])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", FLOATS)
def test_rate_scale_and_expectation(rate: float, dtype: str) -> None:
    n = 40_000
    graph = dropped(rate, dtype=dtype)
    found = mg.compile(graph, graph.init(1))(x=np.ones(n))
    assert found["y"].dtype == dtype
    kept = found["y"] != 0
    # every kept number is 1 / (1 - rate): that factor and its product are rounded once each
    np.testing.assert_allclose(found["y"][kept].astype(float), 1 / (1 - rate), rtol=2 * epsilon(dtype))
    assert np.array_equal(found["y"], found["dx"])  # the backward pass has the same mask and scale
    # binomial: the kept share deviates by sqrt(rate (1 - rate) / n), and 5 deviations come once in 3 million seeds
    assert abs(kept.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / n)


def test_bits_are_kept_from_the_threshold_on() -> None:
    """rate * 2^32 of the 2^32 words are dropped: those below it."""
    graph = dropped(0.25, (8, 5))
    state = graph.init(1)
    seed, stream = int(state["random.seed"]), next(n.attrs["stream"] for n in graph.nodes if n.op.name == "dropout")
    y = mg.compile(graph, state)(x=np.ones((8, 5)))["y"]
    words = [philox_block((i // 4, stream, 0, 0), (seed & WORD, seed >> 32))[i % 4] for i in range(40)]
    assert ((y != 0).reshape(-1) == [word >= 2**30 for word in words]).all()


def test_the_next_step_has_another_mask_and_a_saved_state_the_same_again(tmp_path: Path) -> None:
    graph = dropped(0.5)
    state = graph.init(4)
    program = mg.compile(graph, state)
    first = program(x=np.ones(100))["y"]
    assert state["random.step"] == 1
    state.save(tmp_path / "state.safetensors")
    second, third = (program(x=np.ones(100))["y"] for _ in range(2))
    # 100 fair coins agree everywhere once in 2^100
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)

    other = graph.init(5)  # another seed, which the file replaces
    other.load(tmp_path / "state.safetensors")
    again = mg.compile(graph, other)
    assert np.array_equal(again(x=np.ones(100))["y"], second)
    assert np.array_equal(again(x=np.ones(100))["y"], third)
    unlike = mg.compile(graph, graph.init(5))
    assert not np.array_equal(unlike(x=np.ones(100))["y"], first)


def test_an_error_does_not_move_the_step() -> None:
    graph = dropped(0.5, ("N", 2))
    state = graph.init(4)
    program = mg.compile(graph, state)
    with pytest.raises(mg.GraphError):
        program(x=np.ones((2, 3)))
    assert state["random.step"] == 0


def two_layers() -> mg.Graph:
    net = mg.Builder("two")
    x = net.input("x", ("N",))
    return net.build(a=layers.dropout(x, 0.5), b=layers.dropout(x, 0.5))


def test_every_layer_has_a_stream_of_its_own() -> None:
    graph = two_layers()
    assert sorted(variable.name for variable in graph.state) == ["random.seed", "random.step"]
    found = mg.compile(graph, graph.init(0))(x=np.ones(100))
    assert not np.array_equal(found["a"], found["b"])


@pytest.mark.parametrize("kept", ["a", "b"])
def test_pruning_a_dropout_away_does_not_move_another(kept: str) -> None:
    whole = two_layers()
    pruned = whole.prune([kept])
    assert sum(node.op.name == "dropout" for node in pruned.nodes) == 1
    programs = [mg.compile(graph, graph.init(0)) for graph in (whole, pruned)]
    for _ in range(3):
        first, second = (program(x=np.ones(100))[kept] for program in programs)
        assert np.array_equal(first, second)


def test_a_training_step_has_the_masks_of_its_model() -> None:
    net = mg.Builder()
    x = net.input("x", ("N", 4))
    y = layers.dropout(layers.linear(layers.dropout(x, 0.5), 3), 0.5)
    model = net.build(y=y, loss=mg.mean(y * y))
    step = mg.training_step(model, "loss", mg.optim.SGD(0.125))
    forward, trained = model.init(2), step.init(2)
    a = mg.compile(model, forward)(x=np.ones((50, 4)))
    b = mg.compile(step, trained)(x=np.ones((50, 4)))
    assert np.array_equal(a["y"], b["y"])
    assert trained["random.step"] == 1


def test_the_gradient_of_a_step_uses_the_mask_of_that_step() -> None:
    """y = w * dropout(x) with x = 1: the gradient of sum(y) by w is the sum of that step's kept numbers."""
    net = mg.Builder()
    x = net.input("x", ("N",))
    w = net.parameter("w", (), mg.init.ones)
    y = layers.dropout(x, 0.5) * w
    step = mg.training_step(net.build(y=y, loss=mg.sum(y)), "loss", mg.optim.SGD(1.0))
    state = step.init(0)
    program = mg.compile(step, state)
    for _ in range(3):
        before = float(state["w"])
        y_now = program(x=np.ones(64))["y"]
        kept = 2 * np.count_nonzero(y_now)  # exact in float32: small whole numbers
        assert float(state["w"]) == before - kept


def test_second_derivative_uses_the_same_mask() -> None:
    net = mg.Builder()
    x = net.input("x", (64,))
    y = layers.dropout(x, 0.5)
    dx = mg.gradient(mg.sum(y * y * y), [x])[0]
    program = mg.compile(graph := net.build(y=y, second=mg.gradient(mg.sum(dx), [x])[0]), graph.init(0))
    found = program(x=np.full(64, 3.0))
    # y = 2x or 0: (8 x^3)'' = 48 x, exactly
    assert found["second"].tolist() == np.where(found["y"] != 0, 48 * 3.0, 0).tolist()
    assert 0 < np.count_nonzero(found["y"]) < 64


def test_rate_zero_changes_nothing() -> None:
    graph = dropped(0.0)
    x = np.linspace(-2, 2, 33, dtype=np.float32)
    found = mg.compile(graph, graph.init(0))(x=x)
    assert np.array_equal(found["y"], x)
    assert np.array_equal(found["dx"], np.ones(33))


def test_empty_batch() -> None:
    graph = dropped(0.5, ("N", 3))
    assert mg.compile(graph, graph.init(0))(x=np.zeros((0, 3)))["y"].shape == (0, 3)


def test_dropped_numbers_are_zero_whatever_they_were() -> None:
    graph = dropped(0.5, (64,))
    x = np.full(64, np.inf)
    x[::2] = np.nan
    y = mg.compile(graph, graph.init(0))(x=x)["y"]
    assert 0 < (y == 0).sum() < 64
    assert not np.isfinite(y[y != 0]).any()


def test_inference_leaves_dropout_out() -> None:
    net = mg.Builder()
    x = net.input("x", ("N",))
    graph = mg.inference(net.build(y=layers.dropout(layers.dropout(x, 0.5) * 3.0, 0.9)))
    assert [node.op.name for node in graph.nodes if node.op.name != "fill"] == ["mul"]
    assert not graph.state  # no seed and no step are needed
    assert mg.compile(graph, mg.State())(x=[1, 2])["y"].tolist() == [3, 6]


@pytest.mark.parametrize("rate", [1.0, 1.5, -0.1, float("nan")])
def test_rates_outside_are_refused(rate: float) -> None:
    with pytest.raises(mg.GraphError, match="rate"):
        dropped(rate)


def test_integers_are_refused() -> None:
    with pytest.raises(mg.GraphError, match="float"):
        dropped(0.5, dtype="int64")
