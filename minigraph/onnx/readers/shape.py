"""Shapes: what they are, and ops that move numbers without computing."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import Size, broadcast, product
from minigraph.core.errors import expect
from minigraph.onnx.call import Call, reads
from minigraph.onnx.file import Unsupported, array_of
from minigraph.onnx.known import Known, backwards
from minigraph.ops import shape as ops
from minigraph.ops.broadcast import broadcast_to
from minigraph.ops.index import iota, tri
from minigraph.ops.pointwise import cast, where
from minigraph.ops.resize import depth_to_space, space_to_depth
from minigraph.ops.tile import tile

FAR = 1 << 31  # a place beyond it is the end of the axis, whatever its size


@reads("Constant")
def constant(call: Call) -> Known:
    """The numbers of the one attribute that it has."""
    given = [name for name in call.attrs if name.startswith("value")] + ["sparse_value"] * (
        "sparse_value" in call.attrs
    )
    expect(len(given) == 1, "has one of value, value_float, value_floats, value_int, value_ints, not {}", given)
    name, found = given[0], call.attrs[given[0]]
    if name == "value":
        expect(hasattr(found, "data_type"), "value is a tensor, not {!r}", found)
        array = array_of(found, None)
    elif name in ("value_float", "value_floats"):
        array = np.asarray(call.floats(name) if name[-1] == "s" else call.real(name), np.float32)
    elif name in ("value_int", "value_ints"):
        array = np.asarray(call.ints(name) if name[-1] == "s" else call.integer(name), np.int64)
    else:
        raise Unsupported(f"Constant with {name}")
    return Known(array, array.dtype.name, learned=True)


@reads("Shape")
def read_shape(call: Call) -> list[Known]:
    shape = call.shape(0)
    start, end = (call.integer("start", 0), call.integer("end", None)) if call.opset >= 15 else (0, None)
    return [Known.sizes(shape[start:end])]


@reads("Size")
def read_size(call: Call) -> list[Known]:
    return [Known.sizes(product(call.shape(0)))]


@reads("Reshape")
def read_reshape(call: Call) -> Tensor:
    """0 is the size that x has there, unless allowzero says that it is 0; -1 is what is left over."""
    x, wanted = call.tensor(0), call.sizes(1)
    if not call.flag("allowzero"):
        expect(all(n != 0 or i < x.rank for i, n in enumerate(wanted)), "shape {} has a 0 beyond {}", wanted, x.value)
        wanted = tuple(x.shape[i] if n == 0 else n for i, n in enumerate(wanted))
    expect(all(not isinstance(n, int) or n >= -1 for n in wanted), "a size of {} is negative", wanted)
    return x if wanted == x.shape else ops.reshape(x, wanted)


@reads("Flatten")
def flatten(call: Call) -> Tensor:
    x, axis = call.tensor(0), call.integer("axis", 1)
    expect(-x.rank <= axis <= x.rank, "axis {} is outside of {}", axis, x.value)
    axis = axis + x.rank if axis < 0 else axis
    return ops.reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))


@reads("Squeeze")
def squeeze(call: Call) -> Tensor:
    x = call.tensor(0)
    return ops.squeeze(x, call.axes(1, x.rank, 13))


@reads("Unsqueeze")
def unsqueeze(call: Call) -> Tensor:
    x = call.tensor(0)
    given = call.ints("axes") if call.opset < 13 else call.array(1).reshape(-1).tolist()
    expect(len(given) < 32, "{} axes are too many", len(given))
    return ops.expand_dims(x, given)


@reads("Transpose")
def transpose(call: Call) -> Tensor:
    return ops.transpose(call.tensor(0), call.ints("perm", None))


@reads("Concat")
def concat(call: Call) -> Tensor:
    return ops.concat(*call.tensors(), axis=call.integer("axis"))


@reads("Split")
def split(call: Call) -> Any:
    """Sizes are an attribute before opset 13, then an input. Without them parts are equal, but for a smaller last."""
    x, axis = call.tensor(0), call.integer("axis", 0)
    expect(-x.rank <= axis < x.rank, "axis {} is outside of {}", axis, x.value)
    sizes = call.ints("split", None) if call.opset < 13 else call.sizes(1) if call.has(1) else None
    if sizes is None:
        parts, total = call.integer("num_outputs", len(call.outputs)), x.shape[axis]
        expect(parts == len(call.outputs), "num_outputs is {}, and there are {}", parts, len(call.outputs))
        if not isinstance(total, int) or total % parts == 0:
            return ops.split(x, parts, axis)
        each = -(-total // parts)
        sizes = (*(each,) * (parts - 1), total - each * (parts - 1))
    return ops.split(x, sizes, axis)


def _place(given: Size) -> Size | None:
    """A place along an axis; None where it lies far outside, at the end or the beginning."""
    return None if isinstance(given, int) and abs(given) >= FAR - 1 else given


@reads("Slice")
def read_slice(call: Call) -> Tensor:
    """Attributes before opset 10, then inputs: starts, ends, axes and steps."""
    x = call.tensor(0)
    if call.opset < 10:
        starts, ends = call.ints("starts"), call.ints("ends")
        axes, steps = call.ints("axes", None), None
    else:
        starts, ends = call.sizes(1), call.sizes(2)
        axes = call.sizes(3) if call.has(3) else None
        steps = call.sizes(4) if call.has(4) else None
    axes = range(len(starts)) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    expect(len(starts) == len(ends) == len(axes) == len(steps), "starts, ends, axes and steps differ in number")
    start: list[Any] = [None] * x.rank
    stop: list[Any] = [None] * x.rank
    step: list[Any] = [None] * x.rank
    for axis, a, b, s in zip(axes, starts, ends, steps):
        expect(isinstance(axis, int) and -x.rank <= axis < x.rank, "axis {} is outside of {}", axis, x.value)
        expect(isinstance(s, int) and s != 0, "a step is a number other than 0, not {}", s)
        n = x.shape[axis]
        if isinstance(n, int):
            both = isinstance(a, int) and isinstance(b, int) and s < 0
            start[axis], stop[axis] = backwards(a, b, n) if both else (a, b)
        else:
            start[axis], stop[axis] = _place(a), _place(b)
        step[axis] = s
    return ops.slice_(x, start, stop, step)


@reads("Expand")
def expand(call: Call) -> Tensor:
    """Both shapes broadcast: a 1 that is wanted takes what x has."""
    x = call.tensor(0)
    shape = broadcast(x.shape, call.sizes(1))
    return x if shape == x.shape else broadcast_to(x, shape)


@reads("Tile")
def read_tile(call: Call) -> Tensor:
    x, repeats = call.tensor(0), call.array(1).reshape(-1).tolist()
    expect(len(repeats) == x.rank, "{} has {} axes, and there are {} repeats", x.value, x.rank, len(repeats))
    return tile(x, repeats)


@reads("Pad")
def pad(call: Call) -> Tensor:
    """Widths are an attribute before opset 11, then an input, with all that is before the axes first."""
    x, mode = call.tensor(0), call.string("mode", "constant")
    if call.opset < 11:
        widths, value, axes = call.ints("pads"), call.real("value", 0.0), range(x.rank)
    else:
        widths = call.array(1).reshape(-1).tolist()
        value = _one(call, 2) if call.has(2) else 0
        axes = (call.axes(3, x.rank, 0) if call.has(3) else None) or range(x.rank)  # type: ignore[assignment]
    count = len(axes)
    expect(len(widths) == 2 * count, "{} widths for {} axes", len(widths), count)
    pairs = [(0, 0)] * x.rank
    for i, axis in enumerate(axes):
        pairs[axis] = (widths[i], widths[count + i])
    if mode != "constant" and any(w < 0 for pair in pairs for w in pair):  # what is taken away goes first
        x = ops.pad(x, [(min(a, 0), min(b, 0)) for a, b in pairs])
        pairs = [(max(a, 0), max(b, 0)) for a, b in pairs]
    if not isinstance(value, Tensor):
        return ops.pad(x, pairs, value, mode)
    inside = ops.pad(call.net.filled(True, x.shape, "bool"), pairs, False)
    return where(inside, ops.pad(x, pairs), value)


def _one(call: Call, index: int) -> Any:
    """An input of one number: the number, or where it is computed a tensor of no axes."""
    return ops.reshape(call.tensor(index), ()) if call.maybe(index) is None else call.number(index)


@reads("DepthToSpace")
def read_depth_to_space(call: Call) -> Tensor:
    return depth_to_space(call.tensor(0), call.integer("blocksize"), call.string("mode", "DCR"))


@reads("SpaceToDepth")
def read_space_to_depth(call: Call) -> Tensor:
    return space_to_depth(call.tensor(0), call.integer("blocksize"), call.string("mode", "DCR"))


@reads("ConstantOfShape")
def constant_of_shape(call: Call) -> Tensor:
    value = call.stored("value") if "value" in call.attrs else np.zeros(1, np.float32)
    expect(value.size == 1, "value is one number, not {}", value.size)
    shape = call.sizes(0)
    expect(all(not isinstance(n, int) or n >= 0 for n in shape), "{} has a negative size", shape)
    return call.net.filled(value.flat[0].item(), shape, value.dtype.name)


@reads("Range")
def range_(call: Call) -> Tensor:
    """start, start + delta, ... before limit; their number must be known."""
    start, limit, delta = (call.array(i).reshape(()) for i in range(3))
    expect(delta != 0, "delta is not 0")
    number = max(0, int(np.ceil((limit.astype(np.float64) - start) / delta)))
    expect(number < 1 << 31, "{} numbers are too many", number)
    steps = call.net.builder.emit(iota, (), {"size": number, "dtype": "int64"})[0]
    dtype = start.dtype.name
    return cast(steps, dtype) * delta.item() + start.item()


@reads("EyeLike")
def eye_like(call: Call) -> Tensor:
    """1 on the k-th diagonal, else 0."""
    x, k = call.tensor(0), call.integer("k", 0)
    expect(x.rank == 2, "needs a matrix, got {}", x.value)
    dtype = call.dtype("dtype", x.dtype)
    rows, columns = x.shape
    return cast(where(tri(x, rows, columns, k - 1), False, tri(x, rows, columns, k)), dtype)


@reads("Trilu")
def trilu(call: Call) -> Tensor:
    """The upper or lower triangle, with zeros beside it."""
    x, k = call.tensor(0), call.whole(1) if call.has(1) else 0
    expect(x.rank >= 2, "a triangle needs two axes, got {}", x.value)
    zero, (rows, columns) = False if x.dtype == "bool" else 0, x.shape[-2:]
    if call.flag("upper", True):
        return where(tri(x, rows, columns, k - 1), zero, x)
    return where(tri(x, rows, columns, k), x, zero)
