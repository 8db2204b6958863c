"""What is known of dtypes, and how float32 becomes a narrow float on each backend: all numbers there are, and what lies
between two of them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from c_programs import in_c, outcome
from test_registry import CASES, arrays_for

import minigraph as mg
from minigraph.backends.cupy.device import Device
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.lower import lower
from minigraph.core import dtypes, proof
from minigraph.core.dtypes import FLOATS, NARROW
from minigraph.core.evaluate import evaluate
from minigraph.core.op import Example, Op

# what is known


@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_of_a_float(dtype: str) -> None:
    """By the numbers themselves: which are there, and which are not."""
    of = np.dtype(dtype).type
    one, eps, most, least = of(1), dtypes.epsilon(dtype), dtypes.largest(dtype), dtypes.least_normal(dtype)
    assert eps == 2.0 ** (1 - dtypes.digits(dtype))
    assert of(float(one) + eps) > one
    assert of(float(one) + eps / 4) == one
    assert np.isfinite(of(most))
    with np.errstate(over="ignore"):
        assert float(np.nextafter(of(most), of(np.inf))) == np.inf
    # below the least normal number the next one is as far away as above it, and so farther for its size
    below, above = (float(np.nextafter(of(least), of(end))) for end in (0, np.inf))
    assert least - below == above - least == least * eps


def test_what_dtypes_are() -> None:
    names = ["bool", "int8", "uint64", *FLOATS]
    assert [name for name in names if dtypes.is_float(np.dtype(name))] == list(FLOATS)
    assert all(dtypes.is_number(np.dtype(name)) for name in names)
    assert not any(dtypes.is_number(np.dtype(name)) for name in ("V2", "complex64", "object", "datetime64[s]", "<U3"))
    assert [name for name in names if dtypes.is_narrow(np.dtype(name))] == list(NARROW)
    assert [dtypes.wide_dtype(name) for name in FLOATS] == ["float32"] * 3 + ["float64"]


@pytest.mark.parametrize(
    ("old", "new", "may"),
    [
        ("bfloat16", "float16", True),
        ("float16", "bfloat16", True),
        ("float64", "bfloat16", True),
        ("bfloat16", "float32", True),
        ("int64", "bfloat16", True),
        ("bool", "bfloat16", True),
        ("bfloat16", "int64", False),
        ("bfloat16", "bool", False),
        ("float32", "int8", False),
        ("int32", "int8", True),
    ],
)
def test_what_becomes_what(old: str, new: str, may: bool) -> None:
    assert dtypes.becomes(np.dtype(old), np.dtype(new)) is may


# narrow floats in NumPy


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(("op", "example"), CASES)
def test_narrow_floats_are_computed_in_float32_and_rounded_once(op: Op, example: Example, dtype: str) -> None:
    graph, samples = proof.graph_of(op, example, dtype)
    single, _ = proof.graph_of(op, example, "float32")
    arrays = arrays_for(graph, samples)
    found = evaluate(graph, arrays)
    wide = evaluate(single, {v.name: arrays[v.name].astype(v.type.dtype) for v in single.inputs})
    for name, array in found.items():
        assert array.tobytes() == wide[name].astype(array.dtype).tobytes()


# there and back


def numbers(dtype: str) -> np.ndarray:
    """All that there are."""
    return np.arange(2**16, dtype=np.uint16).view(dtype)


@np.errstate(all="ignore")
def between(dtype: str) -> np.ndarray:
    """Floats of float32 at, around and in the middle of neighbours, and others."""
    finite = np.sort(numbers(dtype)[np.isfinite(numbers(dtype))].astype(np.float32))
    middle = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(np.float32)
    near = [np.nextafter(middle, np.float32(end), dtype=np.float32) for end in (-np.inf, np.inf)]
    most = np.float32(dtypes.largest(dtype))
    ends = np.array([most * (1 + dtypes.epsilon(dtype) / 8 * i) for i in range(8)] + [np.inf, np.nan], np.float32)
    drawn = np.random.default_rng(0).integers(0, 2**32, 2**16, np.uint32).view(np.float32)
    return np.concatenate([finite, middle, *near, ends, -ends, drawn])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path_factory.getbasetemp() / "programs"))


@pytest.mark.compiler
@pytest.mark.cxx
@pytest.mark.parametrize("dtype", NARROW)
def test_every_number_there_and_back(dtype: str, device: Device) -> None:
    with np.errstate(all="ignore"):
        narrow, single = numbers(dtype), between(dtype)
        net = mg.Builder("there_and_back")
        x, y = net.input("x", narrow.shape, dtype), net.input("y", single.shape)
        graph = net.build(wide=mg.cast(x, "float32"), narrow=mg.cast(y, dtype))
        wanted = {"wide": narrow.astype(np.float32), "narrow": single.astype(dtype)}
    arrays = {"x": narrow, "y": single}
    for found in (in_c(graph, arrays), outcome(*Executable(lower(graph), device).run({}, arrays))):
        for name, array in wanted.items():
            assert found[name].dtype == array.dtype
            number = ~np.isnan(array)
            assert np.isnan(found[name][~number]).all()
            assert found[name][number].tobytes() == array[number].tobytes()


def test_the_reference_rounds_to_the_nearest_and_to_even() -> None:
    """By the bits, since ml_dtypes is what rounds."""
    bits = between("bfloat16").view(np.uint32).astype(np.int64)
    low, rest = bits & ~0xFFFF, bits & 0xFFFF
    up = (rest > 0x8000) | ((rest == 0x8000) & (low >> 16 & 1 == 1))
    wanted = ((low >> 16) + up).astype(np.uint16)
    with np.errstate(all="ignore"):
        found = between("bfloat16").astype(ml_dtypes.bfloat16)
    number = ~np.isnan(between("bfloat16"))
    np.testing.assert_array_equal(found.view(np.uint16)[number], wanted[number])
