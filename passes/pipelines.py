"""Pipelines: which passes, in which order. They are data: tuples to add to, to cut and to join.

mg.compile(graph, state, pipeline=(*INFERENCE, my_pass))
"""

from __future__ import annotations

from minigraph.passes import fold_after, fold_before, scale_and_shift

BEFORE_AUTODIFF = ()

TRAINING = ()

INFERENCE = (
    scale_and_shift.PASS,
    fold_before.PASS,
    fold_after.PASS,
)
