"""All experiments, by name, in the order of the page."""

from __future__ import annotations

from . import faster
from .experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {module.EXPERIMENT.name: module.EXPERIMENT for module in (faster,)}
