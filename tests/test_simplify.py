"""Algebra: rules keep every float, infinities and NaNs included; what only looks like algebra stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from minigraph.core.dtypes import is_float
from minigraph.core.evaluate import evaluate
from minigraph.core.ir import Graph
from minigraph.core.op import OPS
from minigraph.core.rewrite import Rule, rewrite
from minigraph.passes import fold_constants, merge_equal, pad_into_conv, reassociate, simplify
from rules import fold_constants as fold_constants_cases
from rules import graph_of
from rules import merge_equal as merge_equal_cases
from rules import pad_into_conv as pad_into_conv_cases
from rules import reassociate as reassociate_cases
from rules import simplify as simplify_cases

MODULES = (
    (simplify, simplify_cases),
    (fold_constants, fold_constants_cases),
    (merge_equal, merge_equal_cases),
    (pad_into_conv, pad_into_conv_cases),
    (reassociate, reassociate_cases),
)
RULES = {rule.name: rule for passes, _ in MODULES for rule in passes.PASS.rules}
CASES = {name: case for _, cases in MODULES for name, case in cases.CASES.items() if name in RULES}
ODD = (0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 1e-45, -3e-39, 3.4e38, 0.1, -7e-8)  # some are subnormal


def odd_floats(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.resize(np.array(ODD), shape).astype(dtype)


def odd_numbers(graph: Graph) -> dict[str, np.ndarray]:
    """Arrays for inputs and state that hold what makes algebra of floats hard; all integers of small ones."""
    rng, arrays = np.random.default_rng(0), {}
    for value in (*graph.inputs, *(variable.value for variable in graph.state)):
        shape: Any = value.type.shape
        if value.type.is_float:
            arrays[value.name] = odd_floats(shape, value.type.dtype)
        else:
            arrays[value.name] = rng.integers(-(2**40), 2**40, shape).astype(value.type.dtype)
    return arrays


def same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name], equal_nan=is_float(a[name].dtype))
        for name in a
    )


@pytest.mark.parametrize("name", CASES)
def test_every_float_stays(name: str) -> None:
    """At another size than the proof's, so that NumPy's loops for many numbers run as well."""
    before = graph_of(CASES[name].build)
    after = rewrite(before, (RULES[name],))
    assert after is not before
    before, after = (g.bind(**dict.fromkeys(g.symbols, 24)) for g in (before, after))
    arrays = odd_numbers(before)
    assert same(evaluate(before, arrays), evaluate(after, arrays))


def simplified(op: Callable[[Tensor], Tensor], dtype: str = "float32", rules: tuple[Rule, ...] = ()) -> list[str]:
    """The ops that are left of y = op(x), x of ("N", 4)."""
    net = Builder("net")
    graph = net.build(y=op(net.input("x", ("N", 4), dtype)))
    return [node.op.name for node in rewrite(graph, rules or simplify.PASS.rules).nodes if node.inputs]


@pytest.mark.parametrize(
    ("op", "left"),
    [
        (lambda x: x * 0.0, ["mul"]),
        (lambda x: x - x, ["sub"]),
        (lambda x: x / x, ["div"]),
        (lambda x: 1.0 / x, ["div"]),
        (lambda x: x / 3.0, ["div"]),
        (lambda x: x / 0.0, ["div"]),
        (lambda x: x / float("inf"), ["div"]),
        (lambda x: x / 2.0**127, ["div"]),  # its reciprocal is subnormal, and some machines take that for 0
        (lambda x: x / 2.0**126, ["mul"]),
        (lambda x: x / 2.0**-126, ["mul"]),
        (lambda x: x / 2.0**-127, ["div"]),
        (lambda x: 1.0 - x, ["sub"]),
        (lambda x: mg.relu(mg.abs(x)), ["abs", "relu"]),
        (lambda x: mg.relu(mg.tanh(mg.relu(x))), ["relu", "tanh", "relu"]),
        (lambda x: mg.sin(mg.sin(x)), ["sin", "sin"]),
        (lambda x: mg.maximum(x, -x), ["neg", "maximum"]),
        (lambda x: mg.transpose(x), ["transpose"]),
        (lambda x: mg.pad(x, [(0, 0), (1, -1)]), ["pad"]),
        (lambda x: mg.slice(x, (0, 0), (None, 4), (1, -1))[:, ::-1], ["slice", "slice"]),
        (lambda x: mg.sum(x, 1, keepdims=True) + x, ["sum", "add"]),
        (lambda x: mg.transpose(mg.transpose(x)), []),
        (lambda x: (x + 0) * 1 / 1 - 0, []),
        (lambda x: 0 - (0 - (x * -1) * -1), []),
        (lambda x: mg.reshape(mg.reshape(x, (-1,)), x.shape), []),
        (lambda x: mg.cast(mg.cast(x, "float64"), "float32"), []),
    ],
)
def test_what_is_left_of_floats(op: Callable[[Tensor], Tensor], left: list[str]) -> None:
    assert simplified(op) == left


@pytest.mark.parametrize(
    ("dtype", "through", "to", "lossless"),
    [
        ("float32", "float64", "float16", True),
        ("float16", "float64", "float32", True),
        ("float32", "float16", "float32", False),
        ("bfloat16", "float32", "float16", True),
        ("bfloat16", "float16", "bfloat16", False),
        ("float16", "bfloat16", "float16", False),
        ("int8", "bfloat16", "int8", True),
        ("int16", "bfloat16", "float32", False),
        ("float32", "int32", "float32", False),
        ("int8", "int32", "uint8", True),
        ("int8", "uint8", "int32", False),
        ("int64", "int8", "int64", False),
        ("bool", "int8", "bool", True),
        ("int32", "bool", "int32", False),
        ("int32", "float64", "float16", True),
        ("int32", "float32", "float64", False),
        ("int64", "float64", "int64", False),  # safe to NumPy, though 2^53 + 1 is lost
        ("uint64", "float64", "float32", False),
        ("uint32", "float64", "uint32", True),
        ("float32", "float64", "bool", True),
        ("float32", "float64", "int8", False),  # what is too large for int8 differs
        ("uint32", "float64", "int32", False),  # 3e9 wraps around, and as a float it is too large
        ("int16", "float32", "int32", True),
    ],
)
def test_a_cast_goes_where_it_loses_nothing(dtype: str, through: str, to: str, lossless: bool) -> None:
    left = simplified(lambda x: mg.cast(mg.cast(x, through), to), dtype)
    assert left == ((["cast"] if dtype != to else []) if lossless else ["cast", "cast"])


def test_division_by_a_power_of_two_is_exact_in_every_float() -> None:
    for dtype, exponents in (("float16", range(-16, 16)), ("float32", range(-140, 128, 5))):
        bits = np.arange(2**16, dtype=np.uint16)
        x = bits.view(np.float16) if dtype == "float16" else (bits.astype(np.uint32) << 16 | bits[::-1]).view("f4")
        for exponent in exponents:
            net = Builder("net")
            before = net.build(y=net.input("x", x.shape, dtype) / 2.0**exponent)
            after = rewrite(before, simplify.RULES)
            with np.errstate(all="ignore"):
                assert same(evaluate(before, {"x": x}), evaluate(after, {"x": x})), (dtype, exponent)


def test_gradient_stops_stay_before_autodiff() -> None:
    assert simplified(lambda x: mg.stop_gradient(x) * x, rules=simplify.RULES) == ["stop_gradient", "mul"]
    assert simplified(lambda x: mg.stop_gradient(x) * x) == ["mul"]


def test_a_mask_that_makes_x_grow_stays() -> None:
    ones = np.ones((3, 4), np.float32)
    assert simplified(lambda x: mg.reshape(x, (-1, 1, 4)) * ones) == ["reshape", "mul"]


def test_what_is_as_it_should_be_is_the_same_object() -> None:
    net = Builder("net")
    x = net.input("x", ("N", 4))
    clean = net.build(y=mg.relu(x) * 2.0)
    assert rewrite(clean, simplify.PASS.rules) is clean


def test_nodes_before_a_change_are_the_same_objects_and_names_stay() -> None:
    net = Builder("net")
    x = net.input("x", ("N", 4))
    before = mg.tanh(x)
    graph = net.build(y=mg.exp(before * 1.0), z=before)
    after = rewrite(graph, simplify.PASS.rules)
    tanh, exp = after.nodes
    assert tanh is graph.nodes[0]
    assert (exp.name, exp.inputs) == ("exp", (tanh.outputs[0],))
    assert list(after.outputs) == ["y", "z"]
    assert len(graph.nodes) == 4, "the graph given is as it was"


def test_state_may_become_other_state_or_an_input() -> None:
    net = Builder("net")
    x = net.input("x", (2,))
    a, b = (net.variable(name, (2,), mg.init.constant(value)) for name, value in (("a", 1.0), ("b", 2.0)))
    net.update(a, b * 1.0)
    net.update(b, a + 0.0)
    graph = net.build(y=x * 1.0, a_before=a / 1.0)
    state = graph.init()
    program = mg.compile(graph, state)
    assert not program.graph.nodes
    given = np.array([3.0, 4.0], np.float32)
    outputs = program(x=given)
    assert outputs["a_before"].tolist() == [1.0, 1.0]
    assert (state["a"].tolist(), state["b"].tolist()) == ([2.0, 2.0], [1.0, 1.0])
    outputs["y"][:] = 0
    assert given.tolist() == [3.0, 4.0]
    program(x=given)
    assert (state["a"].tolist(), state["b"].tolist()) == ([1.0, 1.0], [2.0, 2.0])


def test_a_scale_that_was_left_out_goes() -> None:
    """A norm without gamma has ones, and without beta zeros, in an array."""
    net = Builder("net")
    x = net.input("x", ("N", 4))
    ones, zeros = (
        net.emit(OPS["fill"], (), {"value": value, "shape": (4,), "dtype": "float32"})[0] for value in (1.0, 0.0)
    )
    graph = net.build(y=mg.tanh(x) * ones + zeros)
    assert [node.op.name for node in rewrite(graph, simplify.PASS.rules).nodes] == ["tanh"]
