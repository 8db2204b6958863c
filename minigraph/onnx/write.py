"""Graphs as ONNX models.

Each op is written by its writer (see writers/); without one by its expansion into smaller ops, or, where it is
pointwise, by its expression. What can be written in none of these ways is listed in one error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from minigraph.core.errors import GraphError, expect
from minigraph.core.frozen import compute, frozen, leaves
from minigraph.core.ir import Graph, Value, needed
from minigraph.core.state import State, write_whole
from minigraph.driver.given import complete
from minigraph.onnx import writers
from minigraph.onnx.draft import Draft, Unwritable, code_of, tensor_of
from minigraph.onnx.nodes import node_written
from minigraph.ops.broadcast import broadcast_to
from minigraph.ops.pointwise import stop_gradient
from minigraph.ops.shape import concat, reshape, slice_, transpose

assert writers  # each declares what it writes
OPSET, IR_VERSION = 21, 10  # what ONNX Runtime knows since version 1.18
MOST_INSIDE = 2**31 - 2**26  # bytes of numbers; a file of ONNX ends at 2 GiB, in which the graph must have a place
LEAST_BESIDE = 1024  # bytes: shapes and single numbers stay in the model, where the checker reads them
ALIGNED = 4096  # bytes: numbers beside the model begin at multiples, so that they can be mapped into memory
SHOWN = 5


def save(graph: Graph, state: Mapping[str, np.ndarray] | None, path: str | os.PathLike[str]) -> None:
    """Write a graph and its state as an ONNX model that onnx.checker accepts, whole or not at all.

    Inputs, outputs and state keep their names and types, symbols of sizes their names. A node that computes one value
    has its name; where one becomes several, theirs begin with it. What is computed of parameters alone, as folded
    weights are, is in the file as the numbers that it gives.

    A graph for inference, mg.inference(model), is what others expect in such a file. ONNX has no state that moves: of a
    graph with updates, what a state becomes is one more output, "bn1.running_mean.next", and the state an input that
    need not be given, with its numbers as default. Whoever runs the model gives it there the next time. Of no numbers,
    as in an empty batch, ONNX says little: in ONNX Runtime their mean is 0, and not NaN, and some losses are refused.

    state: None is for a graph without state. Slots and counters that it lacks begin anew.
    path: a .onnx file. Where the numbers are more than 2 GiB, they lie beside it, in a file called path + ".data".
    Raises GraphError where the state does not fit, and for what ONNX cannot say, all of it at once: random bits among
    it, and with them dropout, which mg.inference leaves out.
    """
    expect(isinstance(graph, Graph), "save(graph, state, path) needs a Graph, not a {}", type(graph).__name__)
    path = Path(path)
    expect(path.suffix == ".onnx", "a model of ONNX is a .onnx file, not {}", path)
    model, tensors = model_of(graph, state)
    if sum(array.nbytes for array in tensors.values()) <= MOST_INSIDE:
        model.graph.initializer.extend(tensor_of(name, array) for name, array in tensors.items())
        _check(model)
        write_whole(path, model.SerializeToString())
    else:
        _with_data_beside(model, tensors, path)


def model_of(graph: Graph, state: Mapping[str, np.ndarray] | None) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model of a graph, and the numbers that belong into it, by name."""
    numbers = State() if state is None else state.copy() if isinstance(state, State) else State(state)
    complete(graph, numbers)
    interface = dict.fromkeys([value.name for value in (*graph.inputs, *(v.value for v in graph.state))])
    draft = Draft(graph.inputs, [*interface, *(name for name in graph.outputs if name not in interface)])
    names = written(draft, graph, computed(graph, numbers))
    results = {name: (names[value], value) for name, value in graph.outputs.items()}
    for old, new in graph.updates.items():
        results[draft.fresh(f"{old.name}.next")] = names[new], new
    ends = [_end(draft, name, found) for name, (found, _) in results.items()]
    for value, found in names.items():
        if draft.is_open(found):
            draft.claim(found, draft.fresh(value.name))
    nodes, constants = draft.finished(ends)
    read = {name for node in nodes for name in node.input} | results.keys()
    tensors = {v.name: numbers[v.name] for v in graph.state if v.name in read}
    given = [*graph.inputs, *(v.value for v in graph.state if v.value in graph.updates and v.name in read)]
    body = helper.make_graph(
        nodes,
        graph.name,
        [_info(value.name, value) for value in given],
        [_info(name, value) for name, (_, value) in results.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION, producer_name="minigraph")
    return model, {**tensors, **constants}


def written(draft: Draft, graph: Graph, known: Mapping[Value, np.ndarray]) -> dict[Value, str]:
    """Write the nodes of a graph, but those whose numbers are known; the name of each value.

    Raises GraphError for all that cannot be written, at once.
    """
    names = {value: value.name for value in (*graph.inputs, *(v.value for v in graph.state))}
    names.update((value, draft.array(array, value.type.dtype)) for value, array in known.items())
    refused: dict[str, list[str]] = {}
    ends = (*graph.outputs.values(), *graph.updates.values())
    draft.read_once = {value for value, readers in graph.readers.items() if len(readers) == 1} - set(ends)
    unknown = [node for node in graph.nodes if known.keys().isdisjoint(node.outputs)]
    for node in needed(unknown, ends)[0]:
        draft.at = node.name
        try:
            found = node_written(draft, node, [names[value] for value in node.inputs])
        except Unwritable as error:
            refused.setdefault(f"{node.op.name}: {error}", []).append(node.name)
            found = [""] * len(node.outputs)  # what reads it is looked at as well
        names.update(zip(node.outputs, found))
    expect(not refused, "{!r} cannot be written for ONNX:\n{}", graph.name, "\n".join(map(_told, refused.items())))
    return names


MOVES = (reshape, transpose, broadcast_to, slice_, concat, stop_gradient)  # a parameter stays one behind them


def computed(graph: Graph, numbers: Mapping[str, np.ndarray]) -> dict[Value, np.ndarray]:
    """What is computed of parameters alone, and more than moves them: in float64, and rounded once."""
    still, parameters = frozen(graph), leaves(graph)
    found: set[Value] = set()
    made = set(parameters)  # of parameters
    for node in graph.nodes:
        if node.inputs and node.outputs[0] in still and not made.isdisjoint(node.inputs):
            made.update(node.outputs)
            if node.op not in MOVES or not found.isdisjoint(node.inputs):
                found.update(node.outputs)
    ends = {*graph.outputs.values(), *graph.updates.values()}
    read = ends.union(*(node.inputs for node in graph.nodes if node.outputs[0] not in found))
    values = [value for node in graph.nodes for value in node.outputs if value in found and value in read]
    known: dict[Value, np.ndarray] = {}
    compute(needed(graph.nodes, values)[0], numbers, known)
    with np.errstate(all="ignore"):
        return {value: known[value].astype(value.type.dtype) for value in values}


def _told(refused: tuple[str, list[str]]) -> str:
    why, nodes = refused
    more = f" and {len(nodes) - SHOWN} more" if len(nodes) > SHOWN else ""
    return f"  {why} ({', '.join(nodes[:SHOWN])}{more})"


def _end(draft: Draft, name: str, found: str) -> str:
    """Have a result of the graph under its name; what stands for it so far."""
    if found == name:  # an input, or state
        return found
    if not draft.is_open(found) or found in draft.tensors:
        found = draft.add("Identity", found)
    draft.claim(found, name)
    return found


def _info(name: str, value: Value) -> onnx.ValueInfoProto:
    sizes = [n if isinstance(n, int) else str(n) for n in value.type.shape]
    return helper.make_tensor_value_info(name, code_of(value.type.dtype), sizes)


# files


def _check(model: onnx.ModelProto | str) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"onnx.checker does not accept the model: {error}") from None


def _with_data_beside(model: onnx.ModelProto, tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Write the numbers into a file of their own, and then the model, which says where each of them lies in it."""
    beside = path.with_name(path.name + ".data")
    place, parts = 0, []
    for name, array in tensors.items():
        tensor = tensor_of(name, array)
        model.graph.initializer.append(tensor)
        if array.nbytes < LEAST_BESIDE:
            continue
        tensor = model.graph.initializer[-1]
        data, gap = tensor.raw_data, -place % ALIGNED
        parts += [bytes(gap), data]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, entry in (("location", beside.name), ("offset", place + gap), ("length", len(data))):
            tensor.external_data.add(key=key, value=str(entry))
        place += gap + len(data)
    write_whole(beside, b"".join(parts))
    write_whole(path, model.SerializeToString())
    _check(str(path))
