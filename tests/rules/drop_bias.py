"""The rules that take a bias down to a batch norm, and drop it there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from minigraph.ops.constant import count
from rules import Build, Case, Near, number

Outputs = Mapping[str, Tensor]
Op = Callable[[Builder, Tensor], Tensor]

IT_GOES = "the bias gets to batch norms, on all ways"


def norm(net: Builder, y: Tensor, axis: int = 1) -> Outputs:
    """A batch norm whose mean is seen."""
    size = y.shape[axis]
    result, mean, _ = mg.batch_norm(y, number(net, "gamma", size), number(net, "beta", size), axis=axis, eps=0.5)
    return {"y": result, "mean": mean}


def data(net: Builder, name: str = "x") -> Tensor:
    """Three channels and three places: the sizes agree by accident."""
    return net.input(name, (2, 3, 3))


def bias(net: Builder, name: str = "b") -> Tensor:
    """A number for each channel of (N, C, L)."""
    return mg.reshape(number(net, name, 3), (3, 1))


def biased(net: Builder) -> Tensor:
    return data(net) + bias(net)


def biased_places(net: Builder) -> Tensor:
    """A number for each place."""
    return data(net) + number(net, "b", 3)


def read_twice(net: Builder, y: Tensor, behind: Tensor) -> Outputs:
    return {**norm(net, behind), "biased": y}


def two_biases(net: Builder, times: int = 1) -> Outputs:
    y = biased(net)
    return {**norm(net, y + bias(net, "c")), **({"biased": y} if times > 1 else {})}


def of(op: Op, axis: int = 1) -> Build:
    """As `build`: a batch norm of what this function makes of a builder and x + b."""

    def build(net: Builder) -> Outputs:
        return norm(net, op(net, biased(net)), axis)

    return build


def also_read(op: Op) -> Build:
    """The same, with x + b as an output."""

    def build(net: Builder) -> Outputs:
        y = biased(net)
        return read_twice(net, y, op(net, y))

    return build


def pooled_with_zeros(net: Builder, y: Tensor) -> Tensor:
    return mg.avg_pool(y, 2, padding=1, count_include_pad=True)


def residual(net: Builder, y: Tensor) -> Tensor:
    return net.input("z", (2, 3, 3)) + y


def joined(net: Builder, y: Tensor) -> Tensor:
    return mg.concat([net.input("z", (2, 2, 3)), y], axis=1)


def joined_along_places(net: Builder, y: Tensor) -> Tensor:
    return mg.concat([y], axis=2)


def scaled(net: Builder, y: Tensor) -> Tensor:
    return number(net, "c", 3, 1) * y


def divided(net: Builder, y: Tensor) -> Tensor:
    return y / number(net, "c", 3, 1)


def counted(net: Builder, y: Tensor) -> Outputs:
    return {**norm(net, y), "count": count(y, (0, 2))}


def convolved(net: Builder, y: Tensor, padding: int = 0) -> Tensor:
    return mg.conv(y, number(net, "w", 2, 3, 1 + padding), padding=padding)


CASES = {
    "drop-bias": Case(
        build=lambda net: norm(net, biased(net)),
        golden="""
            reshape: float32[3, 1] = reshape(b, shape=(3, 1))
            batch_norm.reshape: float32[3] = reshape(reshape, shape=(3,))
            batch_norm.y: float32[2, 3, 3], batch_norm.mean: float32[3], batch_norm.var: float32[3] = batch_norm(x, gamma, beta, eps=0.5)
            batch_norm.mean~2: float32[3] = add(batch_norm.mean, batch_norm.reshape)
            output y = batch_norm.y
            output mean = batch_norm.mean~2
            """,  # noqa: E501
        near={
            "the batch norm reads x + b itself": Near(
                of(lambda net, y: mg.relu(y)),
                fails=mg.GraphError,  # it would go on for ever: the ReLU stays between
            ),
            "b is one number for each channel of the batch norm": Near(lambda net: norm(net, biased_places(net))),
            IT_GOES: Near(also_read(lambda net, y: y)),
        },
    ),
    "add-the-negative": Case(
        build=lambda net: norm(net, data(net) - bias(net)),
        golden="""
            reshape: float32[3, 1] = reshape(b, shape=(3, 1))
            sub.neg: float32[3, 1] = neg(reshape)
            sub: float32[2, 3, 3] = add(x, sub.neg)
            batch_norm.y: float32[2, 3, 3], batch_norm.mean: float32[3], batch_norm.var: float32[3] = batch_norm(sub, gamma, beta, eps=0.5)
            output y = batch_norm.y
            output mean = batch_norm.mean
            """,  # noqa: E501
        near={"−b gets to batch norms, on all ways": Near(lambda net: norm(net, data(net) - number(net, "b", 3)))},
    ),
    "join-biases": Case(
        build=two_biases,
        golden="""
            reshape: float32[3, 1] = reshape(b, shape=(3, 1))
            reshape2: float32[3, 1] = reshape(c, shape=(3, 1))
            add2.add: float32[3, 1] = add(reshape, reshape2)
            add2: float32[2, 3, 3] = add(x, add2.add)
            batch_norm.y: float32[2, 3, 3], batch_norm.mean: float32[3], batch_norm.var: float32[3] = batch_norm(add2, gamma, beta, eps=0.5)
            output y = batch_norm.y
            output mean = batch_norm.mean
            """,  # noqa: E501
        near={"b + c gets to batch norms, on all ways": Near(lambda net: two_biases(net, times=2))},
    ),
    "bias-past-op": Case(
        build=of(lambda net, y: mg.max_pool(y, 2)),
        golden="""
            reshape: float32[3, 1] = reshape(b, shape=(3, 1))
            max_pool.max_pool: float32[2, 3, 1] = max_pool(x, window=(2,))
            max_pool.reshape: float32[3] = reshape(reshape, shape=(3,))
            max_pool.reshape2: float32[1, 3, 1] = reshape(max_pool.reshape, shape=(1, 3, 1))
            max_pool: float32[2, 3, 1] = add(max_pool.max_pool, max_pool.reshape2)
            batch_norm.y: float32[2, 3, 1], batch_norm.mean: float32[3], batch_norm.var: float32[3] = batch_norm(max_pool, gamma, beta, eps=0.5)
            output y = batch_norm.y
            output mean = batch_norm.mean
            """,  # noqa: E501
        near={
            "the op passes a shift of these channels": Near(of(pooled_with_zeros)),
            IT_GOES: Near(also_read(lambda net, y: mg.max_pool(y, 2))),
        },
    ),
    "bias-past-sum": Case(
        build=of(residual),
        golden="""
            reshape: float32[3, 1] = reshape(b, shape=(3, 1))
            add2.add: float32[2, 3, 3] = add(x, z)
            add2: float32[2, 3, 3] = add(add2.add, reshape)
            batch_norm.y: float32[2, 3, 3], batch_norm.mean: float32[3], batch_norm.var: float32[3] = batch_norm(add2, gamma, beta, eps=0.5)
            output y = batch_norm.y
            output mean = batch_norm.mean
            """,  # noqa: E501
        near={IT_GOES: Near(also_read(residual))},
    ),
    "bias-past-minuend": Case(
        build=of(lambda net, y: y - data(net, "z")),
        golden="""
            reshape: float32[3, 1] = reshape(b, shape=(3, 1))
            sub.sub: float32[2, 3, 3] = sub(x, z)
            sub: float32[2, 3, 3] = add(sub.sub, reshape)
            batch_norm.y: float32[2, 3, 3], batch_norm.mean: float32[3], batch_norm.var: float32[3] = batch_norm(sub, gamma, beta, eps=0.5)
            output y = batch_norm.y
            output mean = batch_norm.mean
            """,  # noqa: E501
        near={IT_GOES: Near(also_read(lambda net, y: y - data(net, "z")))},
    ),
    "bias-past-subtrahend": Case(
        build=of(lambda net, y: data(net, "z") - y),
        golden="""
            reshape: float32[3, 1] = reshape(b, shape=(3, 1))
            sub.sub: float32[2, 3, 3] = sub(z, x)
            sub: float32[2, 3, 3] = sub(sub.sub, reshape)
            batch_norm.y: float32[2, 3, 3], batch_norm.mean: float32[3], batch_norm.var: float32[3] = batch_norm(sub, gamma, beta, eps=0.5)
            output y = batch_norm.y
            output mean = batch_norm.mean
            """,  # noqa: E501
        near={IT_GOES: Near(also_read(lambda net, y: data(net, "z") - y))},
    ),
    "bias-past-concat": Case(
        build=of(joined),
        golden="""
            reshape: float32[3, 1] = reshape(b, shape=(3, 1))
            concat.fill: float32[2] = fill(value=0.0, shape=(2,))
            concat.reshape: float32[3] = reshape(reshape, shape=(3,))
            concat.concat: float32[2, 5, 3] = concat(z, x, axis=1)
            concat.concat2: float32[5] = concat(concat.fill, concat.reshape)
            concat.reshape2: float32[1, 5, 1] = reshape(concat.concat2, shape=(1, 5, 1))
            concat: float32[2, 5, 3] = add(concat.concat, concat.reshape2)
            batch_norm.y: float32[2, 5, 3], batch_norm.mean: float32[5], batch_norm.var: float32[5] = batch_norm(concat, gamma, beta, eps=0.5)
            output y = batch_norm.y
            output mean = batch_norm.mean
            """,  # noqa: E501
        near={
            "it joins channels, or the bias is one for all": Near(of(joined_along_places, axis=2)),
            IT_GOES: Near(also_read(joined)),
        },
    ),
    "bias-past-scale": Case(
        build=of(scaled),
        golden="""
            reshape: float32[3, 1] = reshape(b, shape=(3, 1))
            mul.mul: float32[2, 3, 3] = mul(x, c)
            mul.mul2: float32[3, 1] = mul(reshape, c)
            mul: float32[2, 3, 3] = add(mul.mul, mul.mul2)
            batch_norm.y: float32[2, 3, 3], batch_norm.mean: float32[3], batch_norm.var: float32[3] = batch_norm(mul, gamma, beta, eps=0.5)
            output y = batch_norm.y
            output mean = batch_norm.mean
            """,  # noqa: E501
        near={IT_GOES: Near(also_read(scaled))},
    ),
    "bias-past-divisor": Case(
        build=of(divided),
        golden="""
            reshape: float32[3, 1] = reshape(b, shape=(3, 1))
            div.div: float32[2, 3, 3] = div(x, c)
            div.div2: float32[3, 1] = div(reshape, c)
            div: float32[2, 3, 3] = add(div.div, div.div2)
            batch_norm.y: float32[2, 3, 3], batch_norm.mean: float32[3], batch_norm.var: float32[3] = batch_norm(div, gamma, beta, eps=0.5)
            output y = batch_norm.y
            output mean = batch_norm.mean
            """,  # noqa: E501
        near={IT_GOES: Near(also_read(divided))},
    ),
    "count-without-bias": Case(
        build=lambda net: counted(net, biased(net)),
        golden="""
            reshape: float32[3, 1] = reshape(b, shape=(3, 1))
            add: float32[2, 3, 3] = add(x, reshape)
            batch_norm.y: float32[2, 3, 3], batch_norm.mean: float32[3], batch_norm.var: float32[3] = batch_norm(add, gamma, beta, eps=0.5)
            count: float32[] = count(x, axes=(0, 2))
            output y = batch_norm.y
            output mean = batch_norm.mean
            output count = count
            """,  # noqa: E501
        near={IT_GOES: Near(lambda net: counted(net, biased_places(net)))},
    ),
    "bias-past-weight": Case(
        build=of(convolved),
        golden="""
            reshape: float32[3, 1] = reshape(b, shape=(3, 1))
            conv.reshape: float32[3] = reshape(reshape, shape=(3,))
            conv.reshape2: float32[1, 1, 3] = reshape(conv.reshape, shape=(1, 1, 3))
            conv.broadcast_to: float32[1, 2, 3] = broadcast_to(conv.reshape2, shape=(1, 2, 3))
            conv.reshape3: float32[2, 3, 1] = reshape(conv.broadcast_to, shape=(2, 3, 1))
            conv.mul: float32[2, 3, 1] = mul(w, conv.reshape3)
            conv.sum: float32[2] = sum(conv.mul, axes=(1, 2))
            conv.conv: float32[2, 2, 3] = conv(x, w)
            conv.reshape4: float32[1, 2, 1] = reshape(conv.sum, shape=(1, 2, 1))
            conv: float32[2, 2, 3] = add(conv.conv, conv.reshape4)
            batch_norm.y: float32[2, 2, 3], batch_norm.mean: float32[2], batch_norm.var: float32[2] = batch_norm(conv, gamma, beta, eps=0.5)
            output y = batch_norm.y
            output mean = batch_norm.mean
            """,  # noqa: E501
        near={
            "b is one number for each input channel of the weight": Near(
                lambda net: norm(net, convolved(net, biased_places(net)))
            ),
            "no window reaches into padding": Near(of(lambda net, y: convolved(net, y, padding=1))),
            IT_GOES: Near(also_read(convolved)),
        },
    ),
}
