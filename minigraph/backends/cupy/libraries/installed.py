"""Which libraries are asked: all that are there, or those that MINIGRAPH_GPU_LIBRARIES names.

MINIGRAPH_GPU_LIBRARIES=none             own kernels alone
MINIGRAPH_GPU_LIBRARIES=cudnn            cuDNN; an error if it is not there
MINIGRAPH_GPU_LIBRARIES=cudnn,cublaslt   both
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minigraph.backends.cupy.libraries import cublaslt, cudnn
from minigraph.backends.cupy.libraries.patterns import Library, Missing, Pattern, Routine
from minigraph.core.errors import expect

VARIABLE = "MINIGRAPH_GPU_LIBRARIES"
INSTALL = "pip install 'minigraph[libraries13]', or 'minigraph[libraries12]' for a driver of CUDA 12"


@dataclass(frozen=True)
class Known:
    """title: as it is written. serves: what it computes. begin: for a stream of the current GPU."""

    title: str
    serves: str
    version: Callable[[], str]
    begin: Callable[[int], Library]


LIBRARIES = {
    "cudnn": Known("cuDNN", "convolutions", cudnn.version, cudnn.Cudnn),
    "cublaslt": Known("cublasLt", "matrix products", cublaslt.version, cublaslt.CublasLt),
}


def asked_for() -> tuple[str, ...] | None:
    """The names that are set; None where all that are there are asked."""
    setting = os.environ.get(VARIABLE, "").strip()
    if not setting:
        return None
    names = () if setting == "none" else tuple(dict.fromkeys(name.strip() for name in setting.split(",")))
    known = all(name in LIBRARIES for name in names)
    expect(known, "{} is none, or some of {} with commas between, not {!r}", VARIABLE, ", ".join(LIBRARIES), setting)
    return names


class Libraries:
    """Those that are there, for a stream of the current GPU: each is begun when it is first asked."""

    def __init__(self, stream: int):
        self.stream = stream
        self._begun: dict[str, Library | Missing] = {}

    def routine(self, pattern: Pattern) -> Routine | None:
        """How the first of those that are asked computes a pattern, if one does.

        Raises GraphError for one that MINIGRAPH_GPU_LIBRARIES names, and that is not there.
        """
        names = asked_for()
        for name in LIBRARIES if names is None else names:
            library = self._library(name)
            if isinstance(library, Missing):
                expect(names is None, "{} asks for {}: {}; {}", VARIABLE, LIBRARIES[name].title, library, INSTALL)
            elif (routine := library.routine(pattern)) is not None:
                return routine
        return None

    def _library(self, name: str) -> Library | Missing:
        if name not in self._begun:
            try:
                self._begun[name] = LIBRARIES[name].begin(self.stream)
            except Missing as error:
                self._begun[name] = error
        return self._begun[name]


def described() -> Iterator[str]:
    """A line for each library: its version, or what is missing."""
    names = asked_for()
    for name, library in LIBRARIES.items():
        try:
            there = f"{library.title} {library.version()}: {library.serves}"
        except Missing as error:
            yield f"{library.title} is not there, own kernels compute {library.serves}: {error}; {INSTALL}"
            continue
        yield there if names is None or name in names else f"{there}, but {VARIABLE} leaves it out"
