"""What a program is given: inputs in the declared dtypes, the sizes of symbols, and a complete state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minigraph.backends.cupy.arrays import GpuArray
from minigraph.backends.cupy.device import lies_on_gpu
from minigraph.core import dim
from minigraph.core.dtypes import becomes, holds, is_number
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph, Type, Value
from minigraph.core.state import Held, State

if TYPE_CHECKING:  # most programs run where there is no GPU
    from minigraph.backends.cupy.feed import Given

MADE = ("slot", "counter", "stream")  # the kinds of state that compile adds where they are missing


def arrays_of(inputs: Sequence[Value], given: Mapping[str, Any], program: str) -> dict[str, np.ndarray]:
    """The inputs as arrays of the declared dtypes, by name: all of them and no other."""
    check_names(inputs, given, program)
    return {value.name: array_of(value, given[value.name]) for value in inputs}


def check_names(inputs: Sequence[Value], given: Mapping[str, Any], program: str) -> None:
    """Raise GraphError unless these are the names of the inputs."""
    wanted = {value.name: value for value in inputs}
    if given.keys() != wanted.keys():
        missing = [f"{name!r} is missing" for name in wanted if name not in given]
        strange = [f"{name!r} is not one of them" for name in given if name not in wanted]
        names = ", ".join(wanted) or "none"
        raise GraphError(f"{program!r} takes the inputs {names}; {'; '.join(missing + strange)}")


def array_of(value: Value, given: Any) -> np.ndarray:
    """An input as an array of the declared dtype.

    Integers become floats and float64 becomes float32, but floats do not become integers, and integers must fit.
    """
    dtype = np.dtype(value.type.dtype)
    if type(given) is np.ndarray and given.dtype == dtype:
        return given
    here = isinstance(given, GpuArray) or not lies_on_gpu(given)
    expect(here, "input {!r} lies on a GPU, where this program does not run: give it as a NumPy array", value.name)
    try:
        array = np.asarray(given)
    except (TypeError, ValueError) as error:
        raise GraphError(f"input {value.name!r} is {value.type}; got what is no array: {error}") from None
    array = array.view(dtype) if holds(array.dtype, value.type.dtype) else array
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        fits = not array.size or (array.min() >= limits.min and array.max() <= limits.max)
        expect(
            fits, "input {!r} is {}; got numbers outside of {} to {}", value.name, value.type, limits.min, limits.max
        )
    else:
        fits = not array.size or (is_number(array.dtype) and becomes(array.dtype, dtype))
        expect(fits, "input {!r} is {}; got {}", value.name, value.type, array.dtype)
    with np.errstate(over="ignore"):
        converted = array.astype(dtype, copy=False)
    fits = array.dtype.itemsize <= dtype.itemsize or np.isfinite(converted).sum() == np.isfinite(array).sum()
    expect(fits, "input {!r} is {}; got numbers that are too large for it", value.name, value.type)
    return converted


def solve(inputs: Iterable[Value], arrays: Mapping[str, Given]) -> dict[str, int]:
    """The sizes of the symbols; GraphError if an array does not have the shape of its input."""
    symbols: dict[str, int] = {}
    waiting = list(inputs)
    while waiting:  # an input such as (N*M,) waits for one that tells N or M
        left = [v for v in waiting if not dim.solve(v.type.shape, arrays[v.name].shape, symbols)]
        if len(left) == len(waiting):
            raise GraphError(_misfit(left[0], arrays[left[0].name].shape, symbols))
        waiting = left
    return symbols


def _misfit(value: Value, shape: tuple[int, ...], symbols: Mapping[str, int]) -> str:
    """What was expected and what came, with the sizes that other inputs gave to the axes that disagree."""
    wrong = [
        n
        for n, got in zip(value.type.shape, shape)
        if dim.symbols_of((n,)) <= symbols.keys() and dim.bind(n, symbols) != got
    ]
    known = ", ".join(f"{name} = {symbols[name]}" for name in sorted(dim.symbols_of(tuple(wrong))))
    return f"input {value.name!r} is {value.type}{' with ' + known if known else ''}; got shape {shape}"


def type_of(array: Held) -> Type:
    return Type(array.shape, array.dtype.name)


def complete(graph: Graph, state: State) -> tuple[str, ...]:
    """Create what may be created; raise GraphError for what is missing or does not fit. Returns the names created."""
    missing, other, made = [], [], {}
    for variable in graph.state:
        wanted = variable.value.type
        if variable.name in state:
            found = type_of(state.held(variable.name))
            if found != wanted:
                other.append(f"{variable.name} is {wanted}, the state has {found}")
        elif variable.kind in MADE:
            made[variable.name] = variable.initializer.array(
                0, variable.name, tuple(dim.known(n, variable.name) for n in wanted.shape), wanted.dtype
            )
        else:
            missing.append(variable.name)
    problems = ([f"the state lacks {', '.join(missing)}"] if missing else []) + other
    expect(not problems, "{!r} does not fit its state: {}", graph.name, "; ".join(problems))
    for name, array in made.items():
        state[name] = array
    return tuple(made)
