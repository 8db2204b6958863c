"""Which backend runs a graph, and why not a faster one."""

from __future__ import annotations

import functools
import os
from dataclasses import replace

from minigraph.backends.c.compiler import CompilerError, NoCompiler, compiler
from minigraph.backends.c.tuned import laid_out
from minigraph.backends.cupy import device as gpu
from minigraph.backends.lower import lower
from minigraph.core.collector import paused
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph
from minigraph.core.pipeline import applied, debugging
from minigraph.passes.pipelines import LOWERED

BACKENDS = ("cupy", "c", "numpy")


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
    """The backend that runs this graph, the graph as it wants it, and why it is not a faster one, as a sentence
    ("not on c: ..."; empty if there is none).

    "auto" takes CuPy where it reaches a GPU, else C where a compiler is, else NumPy, which also runs what the others
    cannot. For "cupy" and "c" alone, GraphError says why they cannot: NoGpu, NoCompiler, or an op that only NumPy has.
    """
    if backend == "numpy":
        return "numpy", graph, ""
    if backend == "c":
        return "c", _for_c(graph), ""
    why = ""
    try:
        gpu.device()
        return "cupy", _for_gpu(graph), ""
    except (gpu.NoGpu, Unfit) as error:
        if backend == "cupy":
            raise
        why = "" if isinstance(error, gpu.NoCupy) else f"not on cupy: {error}"
    try:
        return "c", _for_c(graph), why
    except (NoCompiler, CompilerError) as error:
        _say_once(str(error))
        return "numpy", graph, f"not on c: {error}"
    except Unfit as error:
        return "numpy", graph, f"not on c: {error}"


class Unfit(GraphError):
    """The compiled backends cannot run a graph."""


def _for_gpu(graph: Graph) -> Graph:
    """In kernels, tidy, with channels last. Raises Unfit for an op that has none."""
    from minigraph.backends.cupy.tuned import laid_out  # here: with the kernels for GPUs

    return laid_out(_tidy(_in_kernels(_signed(graph)))).check()


def _for_c(graph: Graph) -> Graph:
    """In kernels, tidy, in the layouts that those in C ask for. Raises NoCompiler, CompilerError or Unfit."""
    signed, by = _signed(graph), compiler()
    half = next((v for node in signed.nodes for v in (*node.inputs, *node.outputs) if v.type.dtype == "float16"), None)
    if half is not None and not by.has_half:
        raise Unfit(f"{half} is float16, which {by} does not know: gcc does from 12 on, clang from 15 on")
    return laid_out(_tidy(_in_kernels(signed))).check()


def _tidy(graph: Graph) -> Graph:
    return applied(LOWERED, graph, hooks=debugging(None))


def _signed(graph: Graph) -> Graph:
    """The graph with the name of each node among its origin, where whatever it is lowered to keeps it."""
    sign = lambda node: replace(node, origin=replace(node.origin, sources=(node.name,)))
    return replace(graph, nodes=tuple(map(sign, graph.nodes)))


def _in_kernels(graph: Graph) -> Graph:
    try:
        return lower(graph)
    except GraphError as error:
        raise Unfit(str(error)) from None


@functools.cache  # once in a process
def _say_once(why: str) -> None:
    import logging  # here: it is seldom needed

    logging.getLogger("minigraph").warning("programs run on NumPy, which is slower: %s", why)
