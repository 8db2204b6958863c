"""Pipelines: which passes, in which order. They are data: tuples to add to, to cut and to join.

mg.compile(graph, state, pipeline=(*INFERENCE, my_pass))
"""

from __future__ import annotations

from minigraph.core.pipeline import Pass
from minigraph.passes import (
    count_inputs,
    drop_beta,
    drop_bias,
    drop_dead,
    fold_after,
    fold_before,
    fold_constants,
    merge_equal,
    merge_scales,
    pad_into_conv,
    reassociate,
    scale_and_shift,
    simplify,
)

# Rules that make work for each other go in one walk: what they look at lies before them, so after it none has work.
EXACT = (
    *fold_constants.RULES,
    *count_inputs.RULES,
    *simplify.RULES,
    *simplify.AFTER_AUTODIFF,
    *pad_into_conv.RULES,
    *reassociate.RULES,
)
CLEAR = Pass("clear", "Constants are computed, and what changes nothing goes.", EXACT)
TIDY = Pass(
    "tidy",
    "Constants are computed, what changes nothing goes, and what is computed twice is computed once.",
    (*EXACT, *simplify.AFTER_FOLDING, *merge_equal.RULES),
)

TURNS = 8  # of INFERENCE, TRAINING and LOWERED: in nearly all graphs the second finds nothing more to do

BEFORE_AUTODIFF = (drop_bias.PASS, drop_beta.PASS)

TRAINING = (
    TIDY,
    drop_dead.PASS,
)

# Equal nodes become one only behind the folding: a convolution that two norms read takes up neither. And where the
# folding left one reader of two, scales and shifts may meet.
INFERENCE = (
    CLEAR,
    scale_and_shift.PASS,
    fold_before.PASS,
    fold_after.PASS,
    Pass(TIDY.name, TIDY.about, (*TIDY.rules, *merge_scales.RULES)),
    drop_dead.PASS,
)

# What lowering leaves: the insides of composite ops are in nobody's way before.
LOWERED = TRAINING
