"""beta-is-a-bias. The other rules of the pass are those of drop_bias."""

from __future__ import annotations

from collections.abc import Mapping

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from rules import Case, Near, number


def two_norms(net: Builder, times: int = 1) -> Mapping[str, Tensor]:
    """With a dense layer in between, in float16 as the parameters are not."""
    y, _, _ = mg.batch_norm(net.input("x", (3, 2), "float16"), number(net, "gamma", 2), number(net, "beta", 2), eps=0.5)
    z = y @ number(net, "w", 2, 2, dtype="float16")
    result, mean, _ = mg.batch_norm(z, number(net, "delta", 2), number(net, "epsilon", 2), eps=0.5)
    return {"result": result, "mean": mean, **({"y": y} if times > 1 else {})}


CASES = {
    "beta-is-a-bias": Case(
        build=two_norms,
        golden="""
            batch_norm.fill: float32[2] = fill(value=0.0, shape=(2,))
            batch_norm.y: float16[3, 2], batch_norm.mean: float32[2], batch_norm.var: float32[2] = batch_norm(x, gamma, batch_norm.fill, eps=0.5)
            batch_norm.reshape: float32[1, 2] = reshape(beta, shape=(1, 2))
            batch_norm.cast: float16[1, 2] = cast(batch_norm.reshape, dtype="float16")
            batch_norm.y~2: float16[3, 2] = add(batch_norm.y, batch_norm.cast)
            matmul: float16[3, 2] = matmul(batch_norm.y~2, w)
            batch_norm2.y: float16[3, 2], batch_norm2.mean: float32[2], batch_norm2.var: float32[2] = batch_norm(matmul, delta, epsilon, eps=0.5)
            output result = batch_norm2.y
            output mean = batch_norm2.mean
            """,  # noqa: E501
        near={"β gets to other batch norms, on all ways": Near(lambda net: two_norms(net, times=2))},
    ),
}
