"""A frozen batch norm is one scale and one shift for each channel.

batch_norm_inference(x, γ, β, μ, v)  =  x · s + t,    s = γ / √(v + ε),    t = β − s · μ
"""

from __future__ import annotations

from minigraph.core.builder import Tensor
from minigraph.core.pattern import values
from minigraph.core.pipeline import Pass
from minigraph.core.rewrite import Condition, Match, Rule
from minigraph.ops.batch_norm import batch_norm_inference
from minigraph.ops.pointwise import cast, sqrt
from minigraph.passes.per_channel import meeting


def scaled_and_shifted(match: Match, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    axis, eps = match.node.attrs["axis"], match.node.attrs["eps"]
    scale = gamma / sqrt(var + eps)
    shift = beta - scale * mean
    return x * cast(meeting(scale, x.rank, axis), x.dtype) + cast(meeting(shift, x.rank, axis), x.dtype)


def trained(match: Match) -> str:
    for name in ("gamma", "beta", "mean", "var"):
        if not match.walk.is_frozen(match[name]):
            return f"its {name}, {match[name].name}, is not frozen"
    return ""


x, gamma, beta, mean, var = values("x gamma beta mean var")

RULES = (
    Rule(
        "scale-and-shift",
        "batch_norm_inference(x, γ, β, μ, v) = x·s + t, with s = γ/√(v + ε) and t = β − s·μ",
        batch_norm_inference(x, gamma, beta, mean, var),
        scaled_and_shifted,
        pays=(Condition("gamma, beta and the statistics are frozen", trained),),
    ),
)

PASS = Pass("scale-and-shift", "A frozen batch norm becomes one scale and one shift for each channel.", RULES)
