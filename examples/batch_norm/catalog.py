"""All experiments, by name, in the order of the page."""

from __future__ import annotations

from . import (
    batch_sizes,
    faster,
    folding,
    identity,
    learning_rates,
    optimizers,
    placement,
    redundant_bias,
    regularization,
    smoothness,
    weight_scales,
)
from .experiment import Experiment

ORDER = (
    faster,
    learning_rates,
    weight_scales,
    batch_sizes,
    placement,
    optimizers,
    redundant_bias,
    regularization,
    identity,
    folding,
    smoothness,
)
EXPERIMENTS: dict[str, Experiment] = {module.EXPERIMENT.name: module.EXPERIMENT for module in ORDER}
