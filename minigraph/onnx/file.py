"""Model files, read and held to be what they say.

A file may be cut off, wrong, or made to harm: whatever it claims (sizes, places in other files, functions that call
each other) is compared with what is there before memory is taken for it. What does not fit is a GraphError.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import AttributeProto, TensorProto, helper, inliner, numpy_helper

from minigraph.core.dtypes import DTYPES
from minigraph.core.errors import GraphError, expect

OLDEST, NEWEST = 7, onnx.defs.onnx_opset_version()
MOST_NODES = 1_000_000  # of a model whose functions are written out
MOST_AXES = 32

# which field holds the numbers of a tensor without raw_data
FIELDS = {
    **dict.fromkeys(DTYPES, "int32_data"),
    "float32": "float_data",
    "float64": "double_data",
    "int64": "int64_data",
    "uint32": "uint64_data",
    "uint64": "uint64_data",
}


class Unsupported(GraphError):
    """What ONNX has and minigraph has not. `what` names it without the node that asks for it."""

    def __init__(self, what: str):
        super().__init__(what)
        self.what = what


def model_of(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model in a file, its functions written out where they are called; external data is read later."""
    path = Path(path)
    expect(not path.is_dir(), "{} is a folder", path)
    expect(path.is_file(), "there is no file {}", path)
    return parsed(path.read_bytes())


def parsed(data: bytes) -> onnx.ModelProto:
    """The model that these bytes are."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise GraphError(f"this is not a whole model of ONNX: {error}") from None
    _check_texts(model)
    expect((model.HasField("graph") and model.graph.node) or model.graph.output, "this is no model of ONNX")
    return _without_functions(model) if model.functions else model


def _check_texts(message: Message) -> None:
    """Raise GraphError for a name that is no text: protobuf hands out its bytes instead."""
    for field, value in message.ListFields():
        if field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE):
            continue
        for each in [value] if isinstance(value, (str, bytes, Message)) else value:
            if isinstance(each, Message):
                _check_texts(each)
            else:
                expect(isinstance(each, str), "{} of the model is no text: {!r}", field.name, each)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators that the model is written in."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    expect(len(versions) <= 1, "the model names the version of its operators {} times", len(versions))
    expect(versions or not any(_is_standard(node) for node in nodes_of(model.graph)), "the model names no opset")
    version = versions[0] if versions else NEWEST
    if version < OLDEST and all(_since(node) <= version for node in nodes_of(model.graph)):
        return OLDEST  # what the model uses of an older opset has not changed up to that
    if not OLDEST <= version <= NEWEST:
        raise Unsupported(f"opset {version}; opsets {OLDEST} to {NEWEST} can be read")
    return version


def _since(node: onnx.NodeProto) -> int:
    """The opset that defined what a node of opset 7 means."""
    schema = schema_of(node.op_type, OLDEST) if _is_standard(node) else None
    return schema.since_version if schema is not None else 0


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")


@functools.lru_cache(1000)
def schema_of(operator: str, opset: int) -> onnx.defs.OpSchema | None:
    """What the standard says of an operator in an opset; None if that has no such operator."""
    return onnx.defs.get_schema(operator, opset) if onnx.defs.has(operator, max_inclusive_version=opset) else None


def check_against_schema(node: onnx.NodeProto, opset: int) -> None:
    """Raise GraphError unless an operator of the standard is in the opset, with as many inputs and such attributes."""
    schema = schema_of(node.op_type, opset)
    expect(schema is not None, "opset {} has no operator {}", opset, node.op_type)
    assert schema is not None
    given = len(node.input)
    fits = schema.min_input <= given <= schema.max_input
    expect(fits, "takes {} to {} inputs, not {}", schema.min_input, schema.max_input, given)
    outputs = len(node.output)
    expect(outputs <= schema.max_output, "has {} outputs, not {}", schema.max_output, outputs)
    strange = [a.name for a in node.attribute if a.name not in schema.attributes]
    expect(not strange, "has no attribute {}; it has {}", ", ".join(strange), ", ".join(schema.attributes) or "none")


def nodes_of(graph: onnx.GraphProto) -> Iterable[onnx.NodeProto]:
    """All nodes, those in branches and loops included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from nodes_of(inner)


def _without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its own functions written out, unless they call themselves or grow beyond all bounds."""
    functions = {(f.domain, f.name, getattr(f, "overload", "")): f for f in model.functions}
    expect(len(functions) == len(model.functions), "two functions of the model have one name")
    sizes: dict[Any, int] = {}

    def count(nodes: Sequence[onnx.NodeProto], inside: tuple[Any, ...]) -> int:
        total = 0
        for node in nodes:
            key = node.domain, node.op_type, getattr(node, "overload", "")
            expect(key not in inside, "the function {} of the model calls itself", node.op_type)
            expect(len(inside) <= 50, "functions of the model call each other more than 50 deep")
            if key in functions and key not in sizes:
                sizes[key] = count(functions[key].node, (*inside, key))
            total += sizes.get(key, 1)
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    total += count(graph.node, (*inside, "graph"))
        expect(total <= MOST_NODES, "the functions of the model, written out, are more than {} nodes", MOST_NODES)
        return total

    count(model.graph.node, ())
    for key, function in functions.items():
        count(function.node, (key,))
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # of the C++ library, which raises what it likes
        raise GraphError(f"the functions of the model cannot be written out: {error}") from None


# numbers


def dtype_of_code(code: int) -> str:
    """minigraph's name of a dtype of ONNX."""
    try:
        name = helper.tensor_dtype_to_np_dtype(code).name
    except (KeyError, TypeError, ValueError):
        raise GraphError(f"there is no dtype {code}") from None
    if code == TensorProto.STRING or name not in DTYPES:
        raise Unsupported(f"dtype {TensorProto.DataType.Name(code).lower()}")
    return name


def array_of(tensor: onnx.TensorProto, folder: Path | None) -> np.ndarray:
    """The numbers of a tensor in the file, or in another one in its folder. Read-only."""
    what = f"the tensor {tensor.name!r}"
    dtype = np.dtype(dtype_of_code(tensor.data_type))
    shape = tuple(tensor.dims)
    expect(len(shape) <= MOST_AXES, "{} has {} axes, more than {}", what, len(shape), MOST_AXES)
    expect(all(n >= 0 for n in shape), "{} has a negative size: {}", what, shape)
    expect(not tensor.HasField("segment"), "{} is in segments, which nobody reads", what)
    size = math.prod(shape)
    if tensor.data_location == TensorProto.EXTERNAL:
        data = _external(tensor, folder, size * dtype.itemsize, what)
    elif tensor.HasField("raw_data"):
        data = tensor.raw_data
    else:
        there = len(getattr(tensor, FIELDS[dtype.name]))
        expect(there == size, "{} of shape {} has {} numbers, not {}", what, shape, there, size)
        array = np.asarray(numpy_helper.to_array(tensor))
        array.flags.writeable = False
        return array
    expect(len(data) == size * dtype.itemsize, "{} of shape {} has {} bytes of data", what, shape, len(data))
    if dtype.kind == "b":  # of bytes other than 0 and 1 NumPy would make bools that are neither
        array = np.frombuffer(data, np.uint8).astype(bool).reshape(shape)
    else:
        array = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
    array.flags.writeable = False
    return array


def _external(tensor: onnx.TensorProto, folder: Path | None, size: int, what: str) -> bytes:
    """`size` bytes of another file, which lies in the folder of the model or in one below."""
    expect(folder is not None, "{} lies in another file, and the model has no folder", what)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    expect(location and "\0" not in location, "{} lies in another file that is not named", what)
    home = folder.resolve()  # type: ignore[union-attr]
    path = (home / location).resolve()
    inside = not os.path.isabs(location) and path.is_relative_to(home)
    expect(inside, "{} lies in {}, outside of the folder of the model", what, location)
    expect(path.is_file(), "{} lies in {}, and there is no such file", what, location)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        raise GraphError(f"{what} lies at {entries.get('offset')!r}, which is no place in a file") from None
    whole = path.stat().st_size
    expect(length == size, "{} has {} bytes of data, not {}", what, length, size)
    expect(0 <= offset <= whole - size, "{} lies beyond the {} bytes of {}", what, whole, location)
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


# attributes

PLAIN = {
    AttributeProto.INT: lambda a: int(a.i),
    AttributeProto.FLOAT: lambda a: as_written(a.f),
    AttributeProto.INTS: lambda a: tuple(map(int, a.ints)),
    AttributeProto.FLOATS: lambda a: tuple(map(as_written, a.floats)),
    AttributeProto.STRING: lambda a: text(a.s, a.name),
    AttributeProto.STRINGS: lambda a: tuple(text(s, a.name) for s in a.strings),
}


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node: numbers, texts and tuples of them; tensors and graphs as they are in the file."""
    found: dict[str, Any] = {}
    for a in node.attribute:
        expect(a.name not in found, "the attribute {} is given twice", a.name)
        expect(not a.ref_attr_name, "the attribute {} refers to one of a function, and there is none", a.name)
        if a.type in PLAIN:
            found[a.name] = PLAIN[a.type](a)
        elif a.type == AttributeProto.TENSOR:
            found[a.name] = a.t
        elif a.type == AttributeProto.GRAPH:
            found[a.name] = a.g
        else:
            found[a.name] = a
    return found


def as_written(number: float) -> float:
    """The shortest decimal that the file's float32 stands for: 1e-05, and not 9.999999747378752e-06."""
    return float(str(np.float32(number)))


def text(given: bytes, name: str) -> str:
    try:
        return given.decode()
    except UnicodeDecodeError:
        raise GraphError(f"the attribute {name} is no text: {given!r}") from None
