"""Names of a model file as names of a graph.

ONNX takes any text as a name. Names of a graph have letters, digits and any of _ . - / in them, and its symbols (sizes
that are known only at run time) are written like variables. Each name is kept where it can be; other characters become
an underscore, and what then is taken gets a number.
"""

from __future__ import annotations

import re
from keyword import iskeyword


class Names:
    """Of each name of a file, one name that no other of them has."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._known: dict[str, str] = {}

    def of(self, given: str) -> str:
        if given not in self._known:
            self._known[given] = self.fresh(self._clean(given))
        return self._known[given]

    def fresh(self, wanted: str) -> str:
        """`wanted`, or with a number behind it where that is taken."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name

    def given(self) -> dict[str, str]:
        """Name of the file -> name of the graph, of all that were asked for."""
        return dict(self._known)

    def _clean(self, given: str) -> str:
        return cleaned(given) or "unnamed"


class Symbols(Names):
    """The same for the names of sizes."""

    def _clean(self, given: str) -> str:
        name = re.sub(r"\W", "_", given) or "size"
        name = f"_{name}" if name[0].isdigit() else name
        return f"{name}_" if iskeyword(name) or name in ("nan", "inf") or not name.isidentifier() else name


def cleaned(given: str) -> str:
    """The text with an underscore for each character that a graph's names do not take."""
    return re.sub(r"[^\w./-]", "_", given)
