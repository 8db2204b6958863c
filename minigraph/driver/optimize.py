"""Which passes a graph goes through before it runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from minigraph.core.errors import expect
from minigraph.core.ir import Graph
from minigraph.core.pipeline import Hook, Optimized, Pipeline, debugging, run
from minigraph.passes.pipelines import INFERENCE, TRAINING


def optimize(
    graph: Graph,
    state: Mapping[str, np.ndarray] | None = None,
    *,
    pipeline: Pipeline | None = None,
    without: Collection[str] = (),
    hook: Hook | None = None,
) -> Optimized:
    """The graph after a pipeline of passes: its `graph`, and in `steps` what each pass did and why not more.

    state: numbers that rules may ask for (whether all of a batch norm's scales are positive, say).
    pipeline: passes, or functions from graph to graph. By default passes.pipelines.TRAINING for a graph with updates,
        INFERENCE for others.
    without: names of passes, or of single rules, to leave out. hook: called with each step when it is done.
    """
    expect(isinstance(graph, Graph), "optimize needs a Graph, not a {}", type(graph).__name__)
    if pipeline is None:
        pipeline = TRAINING if graph.updates else INFERENCE
    hooks = [*([hook] if hook else []), *debugging(state)]
    return run(pipeline, graph, state, without, hooks)
