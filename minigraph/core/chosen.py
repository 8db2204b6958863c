"""What a user chooses by patterns over names: parameters to train, batch norms to thaw."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from minigraph.core.errors import expect

Patterns = str | Sequence[str]
T = TypeVar("T", bound=Hashable)


def chosen(what: str, found: Sequence[T], patterns: Patterns, names: Callable[[T], Sequence[str]]) -> list[T]:
    """Those of the found that the patterns name, in the order in which they were found.

    what: they are, in the words of an error: "parameter".
    patterns: one ("*", "head.*"), or several, from the first to the last. One that begins with "!" takes out again what
        it names: of all, where every pattern does.
    names: by which one is known; errors tell the first.

    Raises GraphError for a pattern that names none.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if patterns and all(pattern.startswith("!") for pattern in patterns):
        patterns.insert(0, "*")
    known = ", ".join(names(one)[0] for one in found) or "none"
    taken: set[T] = set()
    for pattern in patterns:
        fitting = {one for one in found if any(fnmatchcase(name, pattern.removeprefix("!")) for name in names(one))}
        expect(fitting, "no {} is called like {!r}; there are {}", what, pattern, known)
        taken = taken - fitting if pattern.startswith("!") else taken | fitting
    return [one for one in found if one in taken]
