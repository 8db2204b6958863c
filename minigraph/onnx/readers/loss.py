"""Losses of labels."""

from __future__ import annotations

from typing import Any

from minigraph.onnx.call import Call, reads
from minigraph.ops.loss import cross_entropy, nll_loss
from minigraph.ops.pointwise import cast
from minigraph.ops.softmax import log_softmax


def _loss(call: Call, function: Any) -> Any:
    ignored = call.integer("ignore_index", None)
    weights = [call.tensor(2)] if call.has(2) else []
    labels = cast(call.tensor(1), "int64")
    return function(call.tensor(0), labels, *weights, reduction=call.string("reduction", "mean"), ignore_index=ignored)


@reads("SoftmaxCrossEntropyLoss")
def read_cross_entropy(call: Call) -> Any:
    """The second output is log_softmax of the scores."""
    loss = _loss(call, cross_entropy)
    return (loss, log_softmax(call.tensor(0), 1)) if call.wants(1) else loss


@reads("NegativeLogLikelihoodLoss")
def read_nll_loss(call: Call) -> Any:
    return _loss(call, nll_loss)
