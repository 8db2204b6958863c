"""Which backend runs a graph, and why not a faster one."""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import replace

from minigraph.backends.c.compiler import CompilerError, NoCompiler, compiler
from minigraph.backends.c.tuned import laid_out
from minigraph.backends.lower import lower
from minigraph.core.collector import paused
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph
from minigraph.core.pipeline import applied, debugging
from minigraph.passes.pipelines import LOWERED

BACKENDS = ("c", "numpy")


def asked_for(backend: str) -> str:
    """The backend of this name. What "auto" means, MINIGRAPH_BACKEND may say."""
    known = ("auto", *BACKENDS)
    expect(backend in known, "there is no backend {!r}; there are {}", backend, ", ".join(known))
    if backend != "auto":
        return backend
    setting = os.environ.get("MINIGRAPH_BACKEND", "").strip() or "auto"
    expect(setting in known, "MINIGRAPH_BACKEND is one of {}, not {!r}", ", ".join(known), setting)
    return setting


@paused()
def choose(backend: str, graph: Graph) -> tuple[str, Graph, str]:
    """The backend that runs this graph, the graph as it wants it, and why it is not the fastest ("" if it is).

    "auto" takes C where it can run the graph. For "c" alone, GraphError says why it cannot: NoCompiler, or an op that
    only NumPy has.
    """
    if backend == "numpy":
        return "numpy", graph, ""
    try:
        ready = _in_kernels(_signed(graph))
    except (NoCompiler, CompilerError) as error:
        if backend == "c":
            raise
        _say_once(str(error))
        return "numpy", graph, str(error)
    except Unfit as error:
        if backend == "c":
            raise
        return "numpy", graph, str(error)
    tidy = applied(LOWERED, ready, hooks=debugging(None))
    return "c", laid_out(tidy).check(), ""


class Unfit(GraphError):
    """The compiled backend cannot run a graph."""


def _signed(graph: Graph) -> Graph:
    """The graph with the name of each node among its origin, where whatever it is lowered to keeps it."""
    sign = lambda node: replace(node, origin=replace(node.origin, sources=(node.name,)))
    return replace(graph, nodes=tuple(map(sign, graph.nodes)))


def _in_kernels(graph: Graph) -> Graph:
    by = compiler()
    half = next((v for node in graph.nodes for v in (*node.inputs, *node.outputs) if v.type.dtype == "float16"), None)
    if half is not None and not by.has_half:
        raise Unfit(f"{half} is float16, which {by} does not know: gcc does from 12 on, clang from 15 on")
    try:
        return lower(graph)
    except GraphError as error:
        raise Unfit(str(error)) from None


@functools.cache  # once in a process
def _say_once(why: str) -> None:
    logging.getLogger("minigraph").warning("programs run on NumPy, which is slower: %s", why)
