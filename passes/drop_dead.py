"""Nodes and state that no output and no update needs are left out. Updates always stay, and so do inputs."""

from __future__ import annotations

from minigraph.core.pipeline import Pass
from minigraph.core.rewrite import without_dead

PASS = Pass("drop-dead", "What no output and no update needs goes.", function=without_dead)
