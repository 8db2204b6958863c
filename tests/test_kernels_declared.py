"""Every op says what it is in C, in one of the ways there are; and what it says of places is what its reference does.

The places of views, parts and orders are held against the references in NumPy. That kernels compute what the references
do is held where they are compiled.
"""

import itertools
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_registry import arrays_for, cases

import minigraph as mg
from minigraph.backends.c.tuned import CLAIMS
from minigraph.backends.lower import lower
from minigraph.core import dim, proof
from minigraph.core.dtypes import DTYPES, FLOATS, largest
from minigraph.core.evaluate import evaluate
from minigraph.core.ir import Node
from minigraph.core.op import Along, Example, Kernel, Op

OPS = Path(__file__).parent.parent / "ops"
OURS = [op for op in mg.OPS.values() if op.types.__module__.startswith("minigraph.ops.")]
REDUCE = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
REDUCE |= {"and": np.logical_and, "or": np.logical_or, "moments": np.add}


def types_of(node: Node) -> tuple[list[mg.Type], list[mg.Type]]:
    return [value.type for value in node.inputs], [value.type for value in node.outputs]


def entries(alongs: tuple[Along, ...], runs: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Where, along each axis that the Alongs are of, lies what stands at each index of an array with sizes `runs`."""
    index = np.indices(runs, sparse=False)
    each = [along.start + along.step * (0 if along.axis is None else index[along.axis]) for along in alongs]
    return tuple(np.broadcast_to(np.asarray(places), runs) for places in each)


def inside(places: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> bool:
    """NumPy would count a negative place from the end; memory does not."""
    return all(((at >= 0) & (at < n)).all() for at, n in zip(places, shape, strict=True))


# which ways an op has


def ways(op: Op) -> list[str]:
    """In which ways C or CUDA is printed for the op. Without inputs it may be an array that is made beforehand."""
    structured = [name for name in ("kernel", "view", "parts", "in_order", "reduction") if getattr(op, name)]
    literal = ["literal"] if op.tensors == 0 and not structured else []
    smaller = [name for name in ("expression", "expand") if getattr(op, name) is not None]
    return structured + literal + smaller


@pytest.mark.parametrize("op", OURS, ids=lambda op: op.name)
def test_an_op_has_a_way_to_c(op: Op) -> None:
    found = ways(op)
    assert found, f"{op.name} has no expression, expansion, view, parts, reduction or kernel, and is not in_order"
    lowest = [way for way in found if way != "expand"]  # what is pointwise may have an expansion for gradients as well
    assert len(lowest) <= 1, f"{op.name} says what it is in more than one way: {found}"


FORMS = {
    "expression": "pointwise, printed from their expressions",
    "expand": "made of other ops",
    "view": "views, or in order",
    "in_order": "views, or in order",
    "parts": "side by side",
    "reduction": "printed sums and other totals",
    "literal": "arrays that are made beforehand",
    "kernel": "functions of a header",
}


def counts() -> Counter[str]:
    """How many ops there are of each form in C, and of how many a tuned kernel computes those that it serves."""
    found = Counter(FORMS[ways(op)[0]] for op in OURS)
    return found + Counter({"have tuned kernels, too": len(CLAIMS)})


def test_the_forms_are_all_of_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    found = counts()
    with capsys.disabled():
        print("\nops in C:", ", ".join(f"{n} {form}" for form, n in found.most_common()))
    assert found.total() - len(CLAIMS) == len(OURS) == len(mg.OPS)
    assert set(CLAIMS) <= set(OURS)


def test_an_op_without_a_form_is_found() -> None:
    mirror = Op("mirror", lambda x, /: x, lambda x: x[::-1].copy())
    try:
        with pytest.raises(AssertionError, match="mirror has no expression, expansion, view, parts, reduction or kern"):
            test_an_op_has_a_way_to_c(mirror)
        net = mg.Builder("net")
        with pytest.raises(mg.GraphError, match="mirror 'mirror': has neither a kernel nor an expansion"):
            lower(net.build(y=mirror(net.input("x", (3,)))))
    finally:
        del mg.OPS["mirror"]


def test_only_literal_arrays_are_made_beforehand() -> None:
    assert [op.name for op in OURS if ways(op) == ["literal"]] == ["constant"]


# kernels and their headers


def structs(text: str) -> dict[str, list[tuple[str, str]]]:
    """The fields of each struct of a header, as (name, what stands in brackets)."""
    found = {}
    for body, name in re.findall(r"typedef struct \{(.*?)\} (\w+);", text, re.DOTALL):
        body = re.sub(r"//.*", "", body)
        declared = [re.match(r"\s*\w+ (.*)", line, re.DOTALL) for line in body.split(";") if line.strip()]
        fields = [field.strip() for line in declared if line for field in line[1].split(",")]
        found[name] = [(field.split("[")[0], field.partition("[")[2].rstrip("]")) for field in fields]
    for old, name in re.findall(r"typedef (\w+) (\w+);", text):
        found[name] = found[old]
    return found


@pytest.mark.parametrize(("op", "example"), cases(lambda op: op.kernel is not None and op in OURS))
def test_the_shape_has_the_fields_of_the_struct(op: Op, example: Example) -> None:
    graph, _ = proof.graph_of(op, example)
    node, kernel = graph.nodes[0], op.kernel
    assert kernel is not None
    text = (OPS / kernel.header).read_text()
    declared = structs(text)[f"{op.name}_shape"]
    given = kernel.shape(*types_of(node), **node.attrs)
    assert list(given) == [name for name, _ in declared]
    for (name, length), value in zip(declared, given.values()):
        assert isinstance(value, tuple) == bool(length), name
        if length.isdigit():
            assert len(value) == int(length), name
    if kernel.lines is not None:
        assert isinstance(kernel.lines(*types_of(node), **node.attrs), int)


@pytest.mark.parametrize("op", [op for op in OURS if op.kernel], ids=lambda op: op.name)
def test_the_header_defines_the_function(op: Op) -> None:
    kernel: Kernel | None = op.kernel
    assert kernel is not None
    assert op.tensors >= 0, "the function has one pointer for each input: an op of any number of them has parts"
    result, first = ("Y0", "idx i") if kernel.lines is None else ("void", "idx line")
    text = (OPS / kernel.header).read_text()
    signature = re.search(rf"^INLINE {result} NAME\({op.name}\)\(({first}.*?)\) \{{", text, re.MULTILINE | re.DOTALL)
    assert signature, f"{kernel.header} has no INLINE {result} NAME({op.name})({first}, ...)"
    inputs, outputs = op.tensors, 0 if kernel.lines is None else len(op.outputs)
    wanted = [r"const X\d \*\w+"] * inputs + [
        rf"Y{i} \*\w+" for i in range(outputs)
    ]  # X0 serves for another of its dtype
    wanted += [rf"{op.name}_shape \w+"] + [r"int \*fault"] * kernel.checks
    given = [" ".join(part.split()) for part in signature[1].split(",")][1:]
    assert len(given) == len(wanted)
    assert all(re.fullmatch(pattern, part) for part, pattern in zip(given, wanted)), given


# views, parts, orders and reductions


@pytest.mark.parametrize(("op", "example"), cases(lambda op: op.view))
def test_a_view_is_the_input_at_other_places(op: Op, example: Example) -> None:
    graph, samples = proof.graph_of(op, example)
    arrays = arrays_for(graph, samples)
    check_view(graph, arrays)


def check_view(graph: mg.Graph, arrays: dict[str, np.ndarray]) -> None:
    node = graph.nodes[0]
    assert node.op.view is not None
    x, want = arrays[node.inputs[0].name], next(iter(evaluate(graph, arrays).values()))
    alongs = tuple(node.op.view(*types_of(node), **node.attrs))
    assert len(alongs) == x.ndim
    places = entries(alongs, want.shape)
    assert inside(places, x.shape)
    np.testing.assert_array_equal(x[places] if x.ndim else np.broadcast_to(x, want.shape), want)


SLICES = [
    {"start": ("N-3", 1), "stop": ("2*N", 4)},
    {"start": ("2*N-1", None), "stop": (None, None), "step": (-1, -1)},
    {"start": ("2*N-1", 3), "stop": (1, 0), "step": (-2, -3)},
    {"start": (None, -1), "stop": ("N-2", None), "step": (1, -2)},
    {"start": (2, 0), "stop": ("2*N", 5), "step": (1, 2)},
]


@pytest.mark.parametrize("attrs", SLICES)
def test_a_view_holds_where_sizes_are_symbols(attrs: dict[str, Any]) -> None:
    """The places are bound to numbers as the types are."""
    builder = mg.Builder("slice")
    x = builder.input("x", ("2*N", 5))
    graph = builder.build({"y": mg.slice(x, **attrs)})
    node = graph.nodes[0]
    assert node.op.view is not None
    for n in (5, 9):
        bound = graph.bind(N=n)
        symbolic = node.op.view(*types_of(node), **node.attrs)
        start = [dim.bind(along.start, {"N": n}) for along in symbolic]
        assert [Along(a.axis, s, a.step) for a, s in zip(symbolic, start)] == list(
            node.op.view(*types_of(bound.nodes[0]), **bound.nodes[0].attrs)
        )
        check_view(bound, {"x": np.arange(10.0 * n, dtype=np.float32).reshape(2 * n, 5)})


@pytest.mark.parametrize(("op", "example"), cases(lambda op: op.parts))
def test_parts_lie_side_by_side(op: Op, example: Example) -> None:
    """Each number of the result comes from one place of one input."""
    graph, samples = proof.graph_of(op, example)
    node, arrays = graph.nodes[0], arrays_for(graph, samples)
    assert op.parts is not None
    want = evaluate(graph, arrays)["y0"]
    found, written = np.zeros_like(want), np.zeros(want.shape, int)
    for value, alongs in zip(node.inputs, op.parts(*types_of(node), **node.attrs), strict=True):
        places = entries(tuple(alongs), arrays[value.name].shape)
        assert inside(places, want.shape)
        found[places] = arrays[value.name]
        np.add.at(written, places, 1)
    assert (written == 1).all()
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize(("op", "example"), cases(lambda op: op.in_order))
def test_the_order_is_kept(op: Op, example: Example) -> None:
    graph, samples = proof.graph_of(op, example)
    arrays = arrays_for(graph, samples)
    np.testing.assert_array_equal(evaluate(graph, arrays)["y0"].reshape(-1), arrays["x0"].reshape(-1))


@pytest.mark.parametrize(("op", "example"), cases(lambda op: op.reduction))
def test_a_reduction_reduces_its_axes(op: Op, example: Example) -> None:
    graph, samples = proof.graph_of(op, example, "float64")
    node, arrays = graph.nodes[0], arrays_for(graph, samples)
    combine: np.ufunc = REDUCE[op.reduction]
    found = combine.reduce(arrays["x0"], axis=node.attrs["axes"], keepdims=node.attrs["keepdims"])
    want = evaluate(graph, arrays)["y0"]
    terms = math.prod(arrays["x0"].shape[axis] for axis in node.attrs["axes"])
    if op.reduction == "moments":  # the first of them is the mean
        found = found / terms if terms else np.full_like(found, np.nan)
    np.testing.assert_allclose(found, want, rtol=0, atol=2 * terms * 2.0**-52)


# numbers in the shapes of kernels


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_numbers_of_every_dtype_are_given_exactly(dtype: str) -> None:
    kernel = mg.OPS["fill"].kernel
    assert kernel is not None
    for value in extremes(dtype):
        given = kernel.shape([], [mg.Type((), dtype)], value=value, shape=(), dtype=dtype)
        number = np.float64(given["real"]) if given["is_float"] else np.int64(given["whole"])
        assert number.astype(dtype) == value


def extremes(dtype: str) -> list[Any]:
    if dtype == "bool":
        return [False, True]
    if dtype in FLOATS:
        return [-largest(dtype), 0, 1, largest(dtype)]
    return [np.iinfo(dtype).min, 0, 1, np.iinfo(dtype).max]


def test_every_slice_of_a_short_axis_is_a_view() -> None:
    bounds = (None, *range(-4, 5))
    x = np.arange(3.0, dtype=np.float32)
    for start, stop, step in itertools.product(bounds, bounds, (-2, -1, 1, 2)):
        builder = mg.Builder("slice")
        y = mg.slice(builder.input("x", (3,)), (start,), (stop,), (step,))
        check_view(builder.build({"y": y}), {"x": x})
