"""Branches, of which the one that is taken is known."""

from __future__ import annotations

from typing import Any

from minigraph.core.errors import expect
from minigraph.onnx.call import Call, reads


@reads("If")
def branch(call: Call) -> Any:
    """The nodes of the one branch in the place of the node. The condition must be known when the model is read."""
    condition = call.array(0)
    expect(condition.size == 1, "the condition is one bool, not {} of them", condition.size)
    return call.net.inline(call.graph("then_branch" if condition.all() else "else_branch"))
