"""Files that are cut off, wrong or made to harm: each is a GraphError, soon, and takes no memory for what it claims."""

from __future__ import annotations

import functools
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import minigraph as mg
from minigraph.onnx import load
from minigraph.onnx.call import READERS
from onnx_networks import drawn, light

FLOAT = TensorProto.FLOAT


def tensor(name: str, *shape: Any, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    *nodes: onnx.NodeProto, x: Any = ("N", 3, 8, 8), y: str = "y", weights: Any = (), opset: int = 17, **more: Any
) -> onnx.ModelProto:
    """A model from x to y with these weights, which are tensors or arrays by name."""
    held = [w if isinstance(w, TensorProto) else numpy_helper.from_array(*w) for w in weights]
    graph = helper.make_graph(list(nodes), "g", [tensor("x", *x)], [tensor(y)], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **more)


def node(op: str, *inputs: str, to: str = "y", **attrs: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [to], name=f"the_{op}", **attrs)


def refused(tmp_path: Path, given: onnx.ModelProto | bytes, *words: str, values: Any = None) -> None:
    """Held to: a GraphError with these words in it, and no memory taken."""
    path = tmp_path / "model.onnx"
    path.write_bytes(given if isinstance(given, bytes) else given.SerializeToString())
    tracemalloc.start()
    try:
        with pytest.raises(mg.GraphError) as error:
            load(path, values)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(path) in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert peak < 50e6


def zeros(*shape: int) -> tuple[np.ndarray, str]:
    return np.zeros(shape, np.float32), "w"


GOOD = model(node("Conv", "x", "w"), weights=[zeros(4, 3, 3, 3)])


def test_the_good_model_is_one(tmp_path):
    (tmp_path / "good.onnx").write_bytes(GOOD.SerializeToString())
    graph, state = load(tmp_path / "good.onnx")
    assert [str(v.type) for v in graph.outputs.values()] == ["float32[N, 4, 6, 6]"]
    assert list(state) == ["w"]


def test_there_is_no_file(tmp_path):
    with pytest.raises(mg.GraphError, match="there is no file"):
        load(tmp_path / "none.onnx")
    with pytest.raises(mg.GraphError, match="is a folder"):
        load(tmp_path)


def test_truncated(tmp_path):
    data = GOOD.SerializeToString()
    for end in range(len(data)):
        try:
            load(write(tmp_path, data[:end]))
        except mg.GraphError:
            continue
        pytest.fail(f"{end} of {len(data)} bytes were taken for a model")


def write(folder: Path, data: bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(data)
    return path


def changed(change: Callable[[onnx.ModelProto], object], start: onnx.ModelProto = GOOD) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(start)
    change(copy)
    return copy


def short(*shape: int, dtype: int = FLOAT, **fields: Any) -> onnx.TensorProto:
    """A weight that says it is of a shape, with whatever numbers."""
    made = TensorProto(dims=shape, data_type=dtype, name="w", **fields)
    return made


def external(location: str, **entries: Any) -> onnx.TensorProto:
    made = short(4, 3, 3, 3, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        made.external_data.add(key=key, value=str(value))
    return made


def conv(weight: onnx.TensorProto) -> onnx.ModelProto:
    return model(node("Conv", "x", "w"), weights=[weight])


CASES: dict[str, tuple[Any, ...]] = {
    "no model at all": (b"not a model", "not a whole model"),
    "nothing": (b"", "no model of ONNX"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(1000), "not a whole model"),
    # numbers
    "fewer bytes than the shape says": (conv(short(4, 3, 3, 3, raw_data=bytes(12))), "has 12 bytes"),
    "more bytes than the shape says": (conv(short(1, 3, 1, 1, raw_data=bytes(999))), "999 bytes"),
    "fewer numbers than the shape says": (conv(short(4, 3, 3, 3, float_data=[1.0])), "has 1 numbers, not 108"),
    "numbers of another kind": (conv(short(1, 3, 1, 1, int64_data=[1, 2, 3])), "has 0 numbers"),
    "a huge weight": (conv(short(1 << 40, 1 << 20, raw_data=bytes(8))), "has 8 bytes"),
    "a weight whose size overflows": (conv(short(1 << 32, 1 << 32, raw_data=b"")), "has 0 bytes"),
    "a weight of a negative size": (conv(short(-4, -27, raw_data=bytes(432))), "negative size"),
    "a weight of a thousand axes": (conv(short(*(1,) * 1000, raw_data=bytes(4))), "1000 axes"),
    "no dtype": (conv(short(1, dtype=0, raw_data=bytes(4))), "dtype"),
    "a dtype that there is not": (conv(short(1, dtype=999, raw_data=bytes(4))), "dtype 999"),
    "a weight in segments": (
        changed(lambda m: m.graph.initializer[0].segment.MergeFrom(TensorProto.Segment(begin=0, end=9))),
        "segments",
    ),
    # shapes
    "a huge input": (model(node("Relu", "x"), x=(1 << 50,)), "cannot have size"),
    "an input that is large along each axis": (model(node("Relu", "x"), x=(1 << 20,) * 8), "too large"),
    "an input of a negative size": (model(node("Relu", "x"), x=(-5, 3)), "cannot have size -5"),
    "an input without a shape": (
        changed(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")),
        "has no shape",
    ),
    "an input without a type": (changed(lambda m: m.graph.input[0].ClearField("type")), "values of type unknown"),
    "a huge constant": (
        model(node("ConstantOfShape", "s"), weights=[(np.full(4, 1 << 40), "s")]),
        "too large",
    ),
    "a constant of a negative size": (
        model(node("ConstantOfShape", "s"), weights=[(np.array([-3]), "s")]),
        "negative size",
    ),
    "a huge range": (
        model(node("Range", "a", "b", "c"), weights=[(np.int64(n), k) for k, n in zip("abc", (0, 1 << 62, 1))]),
        "too many",
    ),
    "a huge tile": (
        model(node("Tile", "x", "r"), x=(2,), weights=[(np.array([1 << 60]), "r")]),
        "too large",
    ),
    "a huge expansion": (model(node("Expand", "x", "r"), x=(1,), weights=[(np.array([1 << 62]), "r")]), "too large"),
    "a huge padding": (
        model(node("Pad", "x", "r"), x=(2,), weights=[(np.array([1 << 60, 1 << 60]), "r")]),
        "too large",
    ),
    "a huge split": (
        model(node("Split", "x", num_outputs=1 << 40), x=(2,), opset=18),
        "num_outputs",
    ),
    "a reshape that overflows": (
        model(node("Reshape", "x", "r"), x=(2,), weights=[(np.array([1 << 32, 1 << 32]), "r")]),
        "cannot take shape",
    ),
    "a huge window": (model(node("MaxPool", "x", kernel_shape=[1 << 40, 1 << 40])), "does not fit"),
    "a huge number of axes": (
        model(node("Unsqueeze", "x", "a"), weights=[(np.arange(100_000), "a")]),
        "too many",
    ),
    "a step of 0": (
        model(
            node("Slice", "x", "a", "b", "a", "c"),
            x=(9,),
            weights=[(np.array([n]), k) for k, n in zip("abc", (0, 9, 0))],
        ),
        "other than 0",
    ),
    # nodes
    "a cycle": (model(node("Relu", "z"), node("Relu", "y", to="z")), "reads 'z' before it is defined"),
    "a node that reads itself": (model(node("Add", "x", "y")), "reads 'y' before it is defined"),
    "what nobody makes": (model(node("Relu", "x", to="z")), "nothing defines the output 'y'"),
    "one name twice": (model(node("Relu", "x"), node("Relu", "x")), "two values of the model are called 'y'"),
    "an operator that there is not": (model(node("Frobnicate", "x")), "Frobnicate: 1 x (the_Frobnicate)"),
    "a foreign operator": (model(node("Relu", "x", domain="com.example")), "com.example.Relu"),
    "no input": (model(node("Relu")), "takes 1 to 1 inputs, not 0"),
    "too many inputs": (model(node("Relu", "x", "x", "x")), "takes 1 to 1 inputs, not 3"),
    "too many outputs": (model(helper.make_node("Relu", ["x"], ["y", "z"])), "has 1 outputs, not 2"),
    "an attribute that there is not": (model(node("Relu", "x", color=3)), "has no attribute color"),
    "an operator of another opset": (model(node("Gelu", "x"), opset=9), "opset 9 has no operator Gelu"),
    "too few inputs": (model(node("Conv", "x")), "takes 2 to 3 inputs, not 1"),
    "an attribute of another type": (model(node("Softmax", "x", axis="last")), "axis is a whole number"),
    "a list for a number": (model(node("Softmax", "x", axis=[1, 2])), "axis is a whole number"),
    "a number for a tensor": (model(node("Constant", value=3)), "value is a tensor"),
    "an axis outside": (model(node("Softmax", "x", axis=9)), "axis 9"),
    "no attribute": (model(node("Concat", "x", "x")), "needs the attribute axis"),
    "a stride of 0": (model(node("MaxPool", "x", kernel_shape=[2, 2], strides=[0, 0])), "stride"),
    "too many strides": (model(node("MaxPool", "x", kernel_shape=[2, 2], strides=[1, 1, 1])), "3 numbers"),
    "groups that do not divide": (
        model(node("Conv", "x", "w", group=2), weights=[zeros(4, 3, 3, 3)]),
        "groups",
    ),
    "another opset": (model(node("Relu", "x"), opset=9999), "opset 9999"),
    "a long sequence": (
        model(
            node("LSTM", "x", "w", "r", hidden_size=1),
            x=(1 << 30, 1, 1),
            weights=[zeros(1, 4, 1), (zeros(1, 4, 1)[0], "r")],
        ),
        "1 to 1000 steps",
    ),
    "a high power": (model(node("LpPool", "x", kernel_shape=[2, 2], p=1 << 40)), "p is from 1 to 16"),
    "many neighbours": (model(node("LRN", "x", size=1 << 40)), "size is from 1 to 1000"),
    "many windows": (
        model(node("MaxPool", "x", kernel_shape=[3], dilations=[2], pads=[1, 1]), x=(1, 1, 1 << 39)),
        "too long",
    ),
    "a division by zero of sizes": (
        model(
            node("Shape", "x", to="s"),
            node("Div", "s", "z", to="d"),
            node("Reshape", "x", "d"),
            weights=[(np.zeros(4, np.int64), "z")],
        ),
        "Reshape",
    ),
    # other files
    "data outside of the folder": (conv(external("../../../etc/passwd")), "outside of the folder"),
    "data at an absolute path": (conv(external("/etc/passwd")), "outside of the folder"),
    "data in no file": (conv(external("none.bin")), "there is no such file"),
    "data that is not named": (conv(external("")), "not named"),
    "data in the folder itself": (conv(external(".")), "there is no such file"),
    "data beyond the end": (conv(external("model.onnx", offset=1 << 60)), "lies beyond"),
    "data before the beginning": (conv(external("model.onnx", offset=-5)), "lies beyond"),
    "data at no place": (conv(external("model.onnx", offset="here")), "no place"),
    "data of another length": (conv(external("model.onnx", length=7)), "has 7 bytes"),
}


@pytest.mark.parametrize("what", CASES)
def test_a_harmful_file_is_refused(tmp_path, what):
    given, *words = CASES[what]
    refused(tmp_path, given, *words)


def ones(shape: str, to: str) -> onnx.NodeProto:
    return node("ConstantOfShape", shape, to=to)


def test_what_could_be_computed_at_once_and_is_too_much_is_left_for_later(tmp_path):
    """A convolution of a million by half a million, and a thousand times a million zeros."""
    long, window = np.array([1, 1, 1 << 20]), np.array([1, 1, 1 << 19])
    convolution = model(
        ones("l", "a"),
        ones("k", "b"),
        node("Conv", "a", "b", to="c"),
        node("Add", "x", "c"),
        weights=[(long, "l"), (window, "k")],
    )
    several = model(
        *(ones("l", f"a{i}") for i in range(1000)),
        node("Sum", "x", *(f"a{i}" for i in range(1000))),
        x=("N", 1, 1 << 20),
        weights=[(long, "l")],
    )
    for made in (changed(lambda m: m.graph.input[0].CopyFrom(tensor("x", 1, 1, 1)), convolution), several):
        path = write(tmp_path, made.SerializeToString())
        tracemalloc.start()
        graph, _ = load(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 300e6
        assert graph.nodes


def test_weights_behind_many_nodes(tmp_path):
    steps = [node("Neg", f"w{i}", to=f"w{i + 1}") for i in range(500)]
    made = model(*steps, node("Conv", "x", "w500"), weights=[(np.zeros((4, 3, 3, 3), np.float32), "w0")])
    graph, _ = load(write(tmp_path, made.SerializeToString()))
    assert len(graph.nodes) == 501


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(432))
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "data").symlink_to(tmp_path / "secret")
    refused(tmp_path / "inside", conv(external("data")), "outside of the folder")


def recursive(*bodies: list[str], times: int = 1) -> onnx.ModelProto:
    """A model whose functions f0, f1, ... each call others so many times, by name."""
    functions = []
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    for i, body in enumerate(bodies):
        names = ["a", *(f"t{k}" for k in range(times * len(body) - 1)), "b"]
        called = zip(body * times, names, names[1:])
        nodes = [helper.make_node(op, [a], [b], domain="f" if op[0] == "f" else "") for op, a, b in called]
        functions.append(helper.make_function("f", f"f{i}", ["a"], ["b"], nodes, opsets))
    made = model(helper.make_node("f0", ["x"], ["y"], domain="f"), functions=functions)
    made.opset_import.append(helper.make_opsetid("f", 1))
    return made


def test_functions(tmp_path):
    path = write(tmp_path, recursive(["f1", "Relu"], ["Neg"]).SerializeToString())
    graph, _ = load(path)
    assert [n.op.name for n in graph.nodes] == ["neg", "relu"]
    refused(tmp_path, recursive(["f0"]), "calls itself")
    refused(tmp_path, recursive(["f1"], ["f2"], ["f0"]), "calls itself")
    refused(tmp_path, recursive(*([f"f{i + 1}"] for i in range(12)), ["Relu"], times=10), "more than 1000000 nodes")


# random changes


@functools.cache
def seeds() -> list[bytes]:
    """Small models of many kinds, which are changed."""
    part = drawn(light("shufflenet"))
    del part.graph.node[12:]
    part.graph.output[0].name = part.graph.node[-1].output[0]
    used = {name for each in part.graph.node for name in each.input}
    kept = [held for held in part.graph.initializer if held.name in used]
    del part.graph.initializer[:]
    part.graph.initializer.extend(kept)
    arithmetic = model(
        node("Shape", "x", to="s"),
        node("Gather", "s", "zero", to="n"),
        node("Unsqueeze", "n", "zeros", to="m"),
        node("Concat", "m", "rest", to="r", axis=0),
        node("Reshape", "x", "r"),
        weights=[(np.int64(0), "zero"), (np.array([0]), "zeros"), (np.array([-1]), "rest")],
    )
    several = model(
        node("Constant", to="c", value_floats=[0.5, 1.5, 2.5]),
        node("Split", "x", to="a", axis=1, num_outputs=1),
        node("Pad", "a", "p", to="b", mode="reflect"),
        node("Slice", "b", "zeros", "ends", to="d"),
        node("MaxPool", "d", to="e", kernel_shape=[2, 2], ceil_mode=1, auto_pad="SAME_UPPER"),
        node("ReduceMean", "e", "axes", to="f"),
        node("LSTM", "l", "lw", "lr", to="g", hidden_size=2),
        node("Resize", "e", "", "scales", to="h", mode="linear"),
        node("Clip", "h"),
        opset=18,
        weights=[
            (np.array([0, 0, 1, 1, 0, 0, 1, 1]), "p"),
            (np.zeros(4, np.int64), "zeros"),
            (np.array([9, 9, 9, 9]), "ends"),
            (np.array([2, 3]), "axes"),
            (np.array([1, 1, 2, 2], np.float32), "scales"),
            (np.zeros((3, 1, 2), np.float32), "l"),
            (np.zeros((1, 8, 2), np.float32), "lw"),
            (np.zeros((1, 8, 2), np.float32), "lr"),
        ],
    )
    functions = recursive(["f1", "Relu"], ["Neg"])
    return [made.SerializeToString() for made in (GOOD, part, arithmetic, several, functions)]


NUMBERS = (0, 1, -1, 2, 3, 7, 64, 255, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63))


def mutated(seed: int) -> bytes:
    """One of the models with some of its bytes, or of its fields, changed."""
    rng = np.random.default_rng(seed)
    data = seeds()[int(rng.integers(len(seeds())))]
    times = int(rng.integers(1, 4))
    if rng.random() < 0.4:
        for _ in range(times):
            data = other_bytes(rng, data)
        return data
    made = onnx.ModelProto()
    made.ParseFromString(data)
    for _ in range(times):
        other_fields(rng, made)
    return made.SerializeToString()


def other_bytes(rng: np.random.Generator, data: bytes) -> bytes:
    at, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 4))
    match int(rng.integers(4)):
        case 0:
            return data[:at] + rng.bytes(length) + data[at + length :]
        case 1:
            return data[:at] + data[at + length :]
        case 2:
            return data[:at] + rng.bytes(length) + data[at:]
    return data[:at]


def other_fields(rng: np.random.Generator, made: onnx.ModelProto) -> None:
    graph = made.graph
    pick = lambda things: things[int(rng.integers(len(things)))]
    number = int(pick(NUMBERS))
    if not graph.node:
        return
    chosen = pick(graph.node)
    match int(rng.integers(9)):
        case 0 if graph.initializer:
            held = pick(graph.initializer)
            held.dims[:] = [*held.dims[:-1], number] if rng.random() < 0.5 else [*held.dims, number]
        case 1 if graph.initializer:
            pick(graph.initializer).data_type = abs(number) % 30
        case 2 if chosen.attribute:
            change_attribute(rng, pick(chosen.attribute), number)
        case 3:
            chosen.op_type = pick(sorted(READERS))
        case 4 if chosen.input:
            chosen.input[int(rng.integers(len(chosen.input)))] = pick(["", "x", *chosen.output, *graph.node[-1].output])
        case 5:
            graph.node.remove(chosen)
        case 6:
            graph.node.insert(0, chosen)
        case 7 if graph.initializer and graph.initializer[0].raw_data:
            held = pick(graph.initializer)
            held.raw_data = np.asarray([number], np.int64).tobytes() * max(1, len(held.raw_data) // 8)
        case _:
            shape = graph.input[0].type.tensor_type.shape
            pick(shape.dim).dim_value = number


def change_attribute(rng: np.random.Generator, attribute: onnx.AttributeProto, number: int) -> None:
    if attribute.ints and rng.random() < 0.7:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = number
    elif rng.random() < 0.5:
        attribute.i = number
    else:
        attribute.type = int(rng.integers(0, 15))  # type: ignore[assignment]


def try_to_load(seed: int, folder: Path) -> str:
    """What comes of a changed model: whatever is not a GraphError is raised."""
    try:
        load(write(folder, mutated(seed)))
    except mg.GraphError as error:
        return str(error)
    return ""


# In a process of its own, with 4 GB and a minute for each model: what ends it is an error of the one it named last.
WORKER = """
import faulthandler, pathlib, resource, sys, tempfile
sys.path.insert(0, sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from test_onnx_hostile import try_to_load
with tempfile.TemporaryDirectory() as folder:
    for seed in range(int(sys.argv[2]), int(sys.argv[3])):
        faulthandler.dump_traceback_later(60, exit=True)
        print(seed, flush=True)
        try_to_load(seed, pathlib.Path(folder))
print("done")
"""


def all_are_refused_or_read(start: int, end: int) -> None:
    command = [sys.executable, "-c", WORKER, str(Path(__file__).parent), str(start), str(end)]
    done = subprocess.run(command, capture_output=True, text=True)
    last = done.stdout.split()[-1] if done.stdout else "none"
    assert last == "done", f"the model of seed {last}: {done.stderr[-3000:]}"


def test_changed_models_are_refused_or_read():
    all_are_refused_or_read(0, 1000)


@pytest.mark.nightly
def test_many_changed_models_are_refused_or_read():
    all_are_refused_or_read(1000, 30_000)


def test_some_changed_models_are_read_and_most_are_refused(tmp_path):
    """Otherwise the changes would try nothing."""
    found = [try_to_load(seed, tmp_path) for seed in range(100)]
    assert 5 <= found.count("") <= 50
    assert len(set(found)) >= 30
