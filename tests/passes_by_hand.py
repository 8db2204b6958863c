"""Small graphs before and after a pass, made by hand, so that what shows passes is tested without any."""

from __future__ import annotations

import minigraph as mg
from minigraph import layers
from minigraph.core.pipeline import Optimized, Step
from minigraph.core.rewrite import Fired, Refused


def block(folded: bool, name: str = "small") -> mg.Graph:
    """relu(bn1(conv1(x))) with a frozen batch norm; folded, this is arithmetic on parameters around conv1."""
    net = mg.Builder(name)
    x = net.input("x", ("N", 3, 8, 8))
    with net.scope("conv1", share=True):
        weight = net.parameter("weight", (4, 3, 3, 3), mg.init.zeros)
    with net.scope("bn1", share=True):
        gamma, beta = net.parameter("gamma", (4,), mg.init.ones), net.parameter("beta", (4,), mg.init.zeros)
        mean, var = (net.variable(name, (4,), mg.init.zeros) for name in ("running_mean", "running_var"))
        if folded:
            scale = gamma / mg.sqrt(var + 1e-5)
            weight = weight * mg.reshape(scale, (4, 1, 1, 1))
            shift = mg.reshape(beta - scale * mean, (4, 1, 1))
    with net.scope("conv1", share=True):
        h = mg.conv(x, weight, padding=1)
    with net.scope("bn1", share=True):
        h = h + shift if folded else mg.batch_norm_inference(h, gamma, beta, mean, var)
    return net.build(y=mg.relu(h))


def tower(depth: int) -> mg.Graph:
    """Linear layers with relus between them, in training mode."""
    net = mg.Builder("tower")
    h = net.input("x", ("N", 8))
    for _ in range(depth):
        h = mg.relu(layers.linear(h, 8))
    return net.build(y=h)


def pipeline(name: str = "small") -> Optimized:
    """Two passes: one that finds nothing, and one that folds."""
    before, after = block(False, name), block(True, name)
    fired = Fired("fold", "bn1.batch_norm_inference", ("conv1.conv", "bn1.batch_norm_inference"), ("bn1.add2",))
    reasons = (Refused("merge", "relu", "it is <no> sum & has one input"), Refused("merge", "gone", "it is not there"))
    return Optimized(
        before,
        after,
        (
            Step("look", "Finds nothing to do.", before, before, (), (), 0.0001),
            Step("fold", "Batch norms go into the weights.", before, after, (fired,), reasons, 1.5),
        ),
        reasons[:1],
    )
