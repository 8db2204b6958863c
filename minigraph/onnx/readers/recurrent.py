"""LSTM, unrolled: each step is nodes of its own, so the length of a sequence must be known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigraph.core.builder import Tensor
from minigraph.core.dim import known
from minigraph.core.errors import expect
from minigraph.onnx.call import Call, reads
from minigraph.ops.matmul import matmul
from minigraph.ops.pointwise import relu, sigmoid, tanh
from minigraph.ops.shape import reshape, slice_axis, split, stack, transpose

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": sigmoid, "tanh": tanh, "relu": relu}
LONGEST = 1000
USUAL = ("Sigmoid", "Tanh", "Tanh")


@reads("LSTM")
def lstm(call: Call) -> Any:
    """x (T, N, I), or (N, T, I) with layout 1, in one direction or both. Gates lie as input, output, forget, cell."""
    if call.real("clip", None) is not None or call.flag("input_forget"):
        raise call.unsupported("with clip or input_forget")
    steps = call.tensor(0).shape[1 if call.flag("layout") else 0]
    if call.has(4) and any(length != steps for length in call.array(4).flat):
        raise call.unsupported("with sequences of several lengths")
    direction, batch_first = call.string("direction", "forward"), call.flag("layout")
    expect(direction in ("forward", "reverse", "bidirectional"), "there is no direction {!r}", direction)
    turns = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[direction]
    names = call.attr("activations", USUAL * len(turns), (tuple,), "a list of names")
    expect(len(names) == 3 * len(turns), "activations are three for each direction, not {}", names)
    if not all(isinstance(name, str) and name.lower() in FUNCTIONS for name in names):
        raise call.unsupported(f"with activations {', '.join(map(str, names))}")
    x = transpose(call.tensor(0), (1, 0, 2)) if batch_first else call.tensor(0)
    every, last, cells = [], [], []
    for index, backwards in enumerate(turns):
        functions = [FUNCTIONS[name.lower()] for name in names[3 * index : 3 * index + 3]]
        outputs, cell = _one_way(call, x, index, backwards, functions, batch_first)
        every.append(stack(outputs, 0))
        last.append(outputs[0 if backwards else -1])
        cells.append(cell)
    if batch_first:  # (N, T, directions, H), (N, directions, H)
        y = transpose(stack(every, 0), (2, 1, 0, 3))
        return y, stack(last, 1), stack(cells, 1)
    return stack(every, 1), stack(last, 0), stack(cells, 0)


def _one_way(
    call: Call, x: Tensor, index: int, backwards: bool, functions: list[Callable[[Tensor], Tensor]], batch_first: bool
) -> tuple[list[Tensor], Tensor]:
    """The outputs in the order of time, and the last cell."""
    part = lambda i, axis=0: _at(call.weight(i), axis, index)
    steps, size = known(x.shape[0], "the length of the sequence"), call.integer("hidden_size")
    expect(0 < steps <= LONGEST, "a sequence has 1 to {} steps, each nodes of its own, not {}", LONGEST, steps)
    w, r = transpose(part(1)), transpose(part(2))
    bias = None
    if call.has(3):
        input_bias, hidden_bias = split(part(3), 2)
        bias = input_bias + hidden_bias
    zeros = lambda: call.net.filled(0.0, (x.shape[1], size), x.dtype)
    h = part(5, 1 if batch_first else 0) if call.has(5) else zeros()
    c = part(6, 1 if batch_first else 0) if call.has(6) else zeros()
    peepholes = split(part(7), 3) if call.has(7) else None
    gate, squash, output = functions
    results: list[Tensor] = []
    for t in reversed(range(steps)) if backwards else range(steps):
        total = matmul(_at(x, 0, t), w) + matmul(h, r)
        i, o, f, g = split(total if bias is None else total + bias, 4, 1)
        if peepholes is not None:
            i, f = i + peepholes[0] * c, f + peepholes[2] * c
        c = gate(f) * c + gate(i) * squash(g)
        o = o if peepholes is None else o + peepholes[1] * c
        h = gate(o) * output(c)
        results.append(h)
    return (results[::-1] if backwards else results), c


def _at(x: Tensor, axis: int, index: int) -> Tensor:
    """Entry `index` along an axis, which is then gone."""
    shape = tuple(n for i, n in enumerate(x.shape) if i != axis)
    return reshape(slice_axis(x, axis, index, index + 1), shape)
