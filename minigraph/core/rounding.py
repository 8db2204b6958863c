"""Two graphs beside each other in float64: where rounding alone makes them differ, and by how much.

Of what is computed all the way rounding is 1e-16, and the results show how it adds up: noise is put on every value.

Constants are another matter. One graph computes sigmoid(0.1) where the other holds the number, rounded to 6e-8. Such
are found by what their own dtypes make of them, which a fold has to the last bit, and are then one constant. Or one
graph multiplies by 0.1 and by 0.3 where the other does by 0.03: then the constants of the first are rounded as its
dtypes do, and those of the other that are new, once more; and what that moves a result by is no difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from minigraph.core import proof, trial
from minigraph.core.dtypes import FLOATS, epsilon
from minigraph.core.ir import Graph, Value

DRAWS = 8  # of signs: in all of them two that move a result by as much hide each other once in 2^8 times
Twin = tuple[Value, np.ndarray]  # a constant and its numbers
_Results = Mapping[Value, np.ndarray]


class Pair:
    """Two graphs without symbols, of the same inputs, and copies in float64: `one` of before, `other` of after."""

    def __init__(self, before: Graph, after: Graph):
        self.constants = same_constants(before, after)
        self.one = trial.Wide(before)
        self.other = trial.Wide(after, {value: array for value, (_, array) in self.constants.items()})
        self.ends = proof.results(self.one.graph), proof.results(self.other.graph)
        self.as_rounded = trial.Wide(before, trial.constants(before))
        new = {value for value in trial.constants(after) if value not in self.constants and value.type.is_float}
        self.roundings = {value: epsilon(old.type.dtype) for value, old in self.other.given.items() if old in new}

    def differences(self, results: _Results, found: _Results) -> Iterator[tuple[str, float]]:
        """By name, how far each result of `other` is off from that of `one`, as a part of its largest number."""
        for name, value in self.ends[0].items():
            yield name, trial.difference(results[value], found[self.ends[1][name]])

    def allowed(self, arrays: Mapping[str, np.ndarray], results: _Results, found: _Results) -> dict[str, float]:
        """How far each may be off: as far as rounding moves it; see trial.Tolerance."""
        one, other = self.ends
        noise = trial.moved_by(self.one, arrays, results, (self._noise(salt) for salt in (1, 2)))
        once = self.as_rounded.run(arrays)
        rounded = proof.results(self.as_rounded.graph)
        draws = range(DRAWS if self.roundings else 0)
        again = trial.moved_by(self.other, arrays, found, (self._rounded(salt) for salt in draws))
        coarse = max(self.roundings.values(), default=0.0)
        most = max(trial.Tolerance.MOST, trial.Tolerance.MOST_ROUNDINGS * coarse)
        moved = {
            name: noise[value] + trial.difference(results[value], once[rounded[name]]) + again[other[name]]
            for name, value in one.items()
        }
        return {name: max(trial.Tolerance.RELATIVE, min(far, most)) for name, far in moved.items()}

    def _noise(self, salt: int) -> trial.Seen:
        made = {value for node in self.one.graph.nodes for value in node.outputs}
        return lambda value, array: trial.with_noise(array, trial.Tolerance.NOISE, salt) if value in made else array

    def _rounded(self, salt: int) -> trial.Seen:
        sizes = {value: trial.Tolerance.ROUNDINGS * e for value, e in self.roundings.items()}
        return lambda value, array: trial.with_roundings(array, sizes[value], salt) if value in sizes else array


def same_constants(before: Graph, after: Graph) -> dict[Value, tuple[Value, np.ndarray]]:
    """For each constant of `after` that `before` has: which it is there, and its numbers in float64, not yet rounded.

    It is the same if it is rounded to the same bits, or in float64 is the same up to two roundings. A constant that is
    one number everywhere is the same in every shape; of the same shape is found first.
    """
    known: dict[str, dict[object, Twin]] = {}
    for value, rounded, array in _constants(before):
        for key in _keys(rounded):
            known.setdefault(value.type.dtype, {}).setdefault(key, (value, array))
    found = {}
    for value, rounded, array in _constants(after):
        twins = known.get(value.type.dtype, {})
        equal = next((twins[key] for key in _keys(rounded) if key in twins), None)
        match = equal or _near(list(twins.values()), array, value.type.dtype)
        if match is not None:
            twin, numbers = match
            found[value] = twin, numbers if numbers.shape == array.shape else np.full(array.shape, numbers.flat[0])
    return found


def _constants(graph: Graph) -> Iterator[tuple[Value, np.ndarray, np.ndarray]]:
    """The constants, as their own dtypes round them and as float64 does."""
    wide = trial.constants(trial.in_float64(graph))
    return ((value, rounded, array) for (value, rounded), array in zip(trial.constants(graph).items(), wide.values()))


def _keys(array: np.ndarray) -> Iterator[object]:
    """What a constant is found by: its shape and numbers; and its number, if it is one everywhere."""
    yield array.shape, array.tobytes()
    if _single(array):
        yield array.reshape(-1)[:1].tobytes()


def _single(array: np.ndarray) -> bool:
    return array.size > 0 and array.tobytes() == array.reshape(-1)[:1].tobytes() * array.size


def _near(twins: Sequence[Twin], array: np.ndarray, dtype: str) -> Twin | None:
    """The constant of these numbers but for rounding, if there is one."""
    if dtype not in FLOATS:
        return None
    off = trial.Tolerance.ROUNDINGS * epsilon(dtype)
    fits = [twin for twin in twins if twin[1].shape == array.shape]
    fits += [twin for twin in twins if twin[1].shape != array.shape and _single(twin[1]) and _single(array)]
    for twin, numbers in fits:
        one, other = (array, numbers) if numbers.shape == array.shape else (array.flat[0], numbers.flat[0])
        if np.allclose(other, one, off, 0.0, equal_nan=True) and np.array_equal(np.signbit(one), np.signbit(other)):
            return twin, numbers
    return None
