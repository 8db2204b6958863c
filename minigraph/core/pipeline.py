"""Pipelines: passes one after the other, and what each of them did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from minigraph.core.ir import Graph


@dataclass(frozen=True)
class Fired:
    """A rule that fired: at which node, which nodes it replaced (`at` among them), which it made. All by name."""

    rule: str
    at: str
    sources: tuple[str, ...]
    made: tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """Why a rule does not fire at a node of the final graph, as a sentence."""

    rule: str
    at: str
    why: str


@dataclass(frozen=True)
class Step:
    """What one pass of a pipeline did."""

    name: str
    about: str
    before: Graph
    after: Graph
    fired: tuple[Fired, ...]
    refused: tuple[Refused, ...]
    seconds: float


@dataclass(frozen=True)
class Optimized:
    """A graph after a pipeline, with the steps that led to it."""

    source: Graph
    graph: Graph
    steps: tuple[Step, ...]
