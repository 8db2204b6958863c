"""scale-and-shift."""

from __future__ import annotations

from collections.abc import Mapping

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from rules import Case, Near, number


def statistics(net: Builder, channels: int) -> list[Tensor]:
    parameters = [number(net, name, channels) for name in ("gamma", "beta")]
    return [*parameters, *(number(net, name, channels, kind="statistic") for name in ("mean", "var"))]


def half(net: Builder) -> Mapping[str, Tensor]:
    """float16 beside float32: both numbers are cast."""
    return {"y": mg.batch_norm_inference(net.input("x", (2, 2, 3), "float16"), *statistics(net, 3), axis=-1)}


def moving_mean(net: Builder) -> Mapping[str, Tensor]:
    gamma, beta, mean, var = statistics(net, 3)
    net.update(mean, mean * 0.5)
    return {"y": mg.batch_norm_inference(net.input("x", (2, 3)), gamma, beta, mean, var)}


CASES = {
    "scale-and-shift": Case(
        build=half,
        golden="""
            batch_norm_inference.fill: float32[] = fill(value=1e-05)
            batch_norm_inference.add: float32[3] = add(var, batch_norm_inference.fill)
            batch_norm_inference.sqrt: float32[3] = sqrt(batch_norm_inference.add)
            batch_norm_inference.div: float32[3] = div(gamma, batch_norm_inference.sqrt)
            batch_norm_inference.mul: float32[3] = mul(batch_norm_inference.div, mean)
            batch_norm_inference.sub: float32[3] = sub(beta, batch_norm_inference.mul)
            batch_norm_inference.reshape: float32[1, 1, 3] = reshape(batch_norm_inference.div, shape=(1, 1, 3))
            batch_norm_inference.cast: float16[1, 1, 3] = cast(batch_norm_inference.reshape, dtype="float16")
            batch_norm_inference.mul2: float16[2, 2, 3] = mul(x, batch_norm_inference.cast)
            batch_norm_inference.reshape2: float32[1, 1, 3] = reshape(batch_norm_inference.sub, shape=(1, 1, 3))
            batch_norm_inference.cast2: float16[1, 1, 3] = cast(batch_norm_inference.reshape2, dtype="float16")
            batch_norm_inference: float16[2, 2, 3] = add(batch_norm_inference.mul2, batch_norm_inference.cast2)
            output y = batch_norm_inference
            """,
        near={"gamma, beta and the statistics are frozen": Near(moving_mean)},
    ),
}
