"""Layers: ops with parameters of their own, under a name. conv1.weight, bn1.gamma, linear1.bias.

A layer's name is its kind and a number, or what `name=` says. To use the parameters of a layer twice, build it twice
inside `net.scope("...", share=True)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigraph.core.builder import Tensor
from minigraph.core.dim import known
from minigraph.core.errors import expect
from minigraph.core.initial import Constant, Initializer
from minigraph.core.op import axis_of, whole
from minigraph.nn.init import he_normal, normal, ones, zeros
from minigraph.ops import activation, norm
from minigraph.ops import batch_norm as bn
from minigraph.ops import conv as conv_ops
from minigraph.ops.constant import count_along, fill
from minigraph.ops.index import gather
from minigraph.ops.matmul import matmul
from minigraph.ops.pointwise import cast, equal, finite, where
from minigraph.ops.random import dropout as dropout_op
from minigraph.ops.shape import reshape, transpose
from minigraph.ops.window import channel_axis, layout_of, per_axis

Init = Initializer | Callable[[tuple[int, ...]], Initializer]
QUARTER, UNIT_NORMAL = Constant(0.25), normal(1.0)


def _initializer(given: Init, shape: tuple[int, ...]) -> Initializer:
    return given if isinstance(given, Initializer) else given(shape)


def linear(
    x: Tensor,
    features: int,
    *,
    bias: bool = True,
    weight_init: Init = he_normal,
    bias_init: Init = zeros,
    name: str | None = None,
) -> Tensor:
    """x (..., I) times the transpose of weight (features, I), plus bias (features,): (..., features)."""
    with x.builder.layer("linear", name):
        expect(x.rank >= 2, "needs (batch, ..., features), got {}", x.value)
        features = whole(features, "features", 1)
        shape = (features, known(x.shape[-1], "the number of features"))
        weight = x.builder.parameter("weight", shape, _initializer(weight_init, shape), x.dtype)
        y = matmul(x, transpose(weight))
        if bias:
            y = y + x.builder.parameter("bias", (features,), _initializer(bias_init, (features,)), x.dtype)
        return y


def _conv(
    x: Tensor,
    rank: int,
    channels: int,
    window: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    bias: bool,
    layout: str | None,
    weight_init: Init,
    bias_init: Init,
    name: str | None,
) -> Tensor:
    with x.builder.layer("conv", name):
        expect(x.rank == rank + 2, "conv{}d needs {} axes, got {}", rank, rank + 2, x.value)
        layout = layout_of(x.value.type, layout)
        axis = channel_axis(layout)
        inputs = known(x.shape[axis], "the number of channels")
        groups, channels = whole(groups, "groups", 1), whole(channels, "channels", 1)
        expect(inputs % groups == 0, "{} channels do not divide into {} groups", inputs, groups)
        shape = (channels, inputs // groups, *per_axis(window, rank, "window", 1))
        weight = x.builder.parameter("weight", shape, _initializer(weight_init, shape), x.dtype)
        y = conv_ops.conv(x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout)
        return _biased(y, axis, bias_init) if bias else y


def _biased(y: Tensor, axis: int, bias_init: Init) -> Tensor:
    """y plus a parameter for each of its channels."""
    channels = known(y.shape[axis], "the number of channels")
    b = y.builder.parameter("bias", (channels,), _initializer(bias_init, (channels,)), y.dtype)
    return y + reshape(b, tuple(channels if i == axis else 1 for i in range(1, y.rank)))


def conv1d(
    x: Tensor,
    channels: int,
    window: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = True,
    layout: str | None = None,
    weight_init: Init = he_normal,
    bias_init: Init = zeros,
    name: str | None = None,
) -> Tensor:
    """Convolution of x (N, C, L) to (N, channels, L'); see conv."""
    return _conv(x, 1, channels, window, stride, padding, dilation, groups, bias, layout, weight_init, bias_init, name)


def conv2d(
    x: Tensor,
    channels: int,
    window: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = True,
    layout: str | None = None,
    weight_init: Init = he_normal,
    bias_init: Init = zeros,
    name: str | None = None,
) -> Tensor:
    """Convolution of x (N, C, H, W) to (N, channels, H', W'), with a weight (channels, C/groups, kh, kw) and a bias;
    see conv.

    In front of a batch norm the bias does nothing but move the running mean.
    """
    return _conv(x, 2, channels, window, stride, padding, dilation, groups, bias, layout, weight_init, bias_init, name)


def conv3d(
    x: Tensor,
    channels: int,
    window: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = True,
    layout: str | None = None,
    weight_init: Init = he_normal,
    bias_init: Init = zeros,
    name: str | None = None,
) -> Tensor:
    """Convolution of x (N, C, D, H, W) to (N, channels, D', H', W'); see conv."""
    return _conv(x, 3, channels, window, stride, padding, dilation, groups, bias, layout, weight_init, bias_init, name)


def depthwise_conv2d(
    x: Tensor,
    window: Any,
    *,
    multiplier: int = 1,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    bias: bool = True,
    layout: str | None = None,
    weight_init: Init = he_normal,
    bias_init: Init = zeros,
    name: str | None = None,
) -> Tensor:
    """Each of the C channels of x (N, C, H, W) with windows of its own: (N, C * multiplier, H', W').

    Output channel c * multiplier + i is the i-th one of channel c. The weight is (C * multiplier, 1, kh, kw); see conv.
    """
    with x.builder.layer("depthwise_conv", name):
        expect(x.rank == 4, "depthwise_conv2d needs 4 axes, got {}", x.value)
        multiplier = whole(multiplier, "multiplier", 1)
        layout = layout_of(x.value.type, layout)
        axis = channel_axis(layout)
        channels = known(x.shape[axis], "the number of channels")
        shape = (channels * multiplier, 1, *per_axis(window, 2, "window", 1))
        weight = x.builder.parameter("weight", shape, _initializer(weight_init, shape), x.dtype)
        y = conv_ops.conv(x, weight, stride=stride, padding=padding, dilation=dilation, groups=channels, layout=layout)
        return _biased(y, axis, bias_init) if bias else y


def _conv_transpose(
    x: Tensor,
    rank: int,
    channels: int,
    window: Any,
    geometry: dict[str, Any],
    groups: int,
    bias: bool,
    layout: str | None,
    weight_init: Init,
    bias_init: Init,
    name: str | None,
) -> Tensor:
    with x.builder.layer("conv_transpose", name):
        expect(x.rank == rank + 2, "conv_transpose{}d needs {} axes, got {}", rank, rank + 2, x.value)
        layout = layout_of(x.value.type, layout)
        axis = channel_axis(layout)
        inputs = known(x.shape[axis], "the number of channels")
        groups, channels = whole(groups, "groups", 1), whole(channels, "channels", 1)
        for count, what in ((inputs, "channels"), (channels, "output channels")):
            expect(count % groups == 0, "{} {} do not divide into {} groups", count, what, groups)
        window = per_axis(window, rank, "window", 1)
        # the fans are those of the numbers of a window that meet in one output, every stride-th along each axis
        steps = per_axis(geometry["stride"], rank, "stride", 1)
        met = (channels, inputs // groups, *(-(-k // s) for k, s in zip(window, steps)))
        shape = (inputs, channels // groups, *window)
        weight = x.builder.parameter("weight", shape, _initializer(weight_init, met), x.dtype)
        y = conv_ops.conv_transpose(x, weight, **geometry, groups=groups, layout=layout)
        return _biased(y, axis, bias_init) if bias else y


def conv_transpose1d(
    x: Tensor,
    channels: int,
    window: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = True,
    layout: str | None = None,
    weight_init: Init = he_normal,
    bias_init: Init = zeros,
    name: str | None = None,
) -> Tensor:
    """Transposed convolution of x (N, I, L) to (N, channels, L'); see conv_transpose."""
    geometry = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    return _conv_transpose(x, 1, channels, window, geometry, groups, bias, layout, weight_init, bias_init, name)


def conv_transpose2d(
    x: Tensor,
    channels: int,
    window: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = True,
    layout: str | None = None,
    weight_init: Init = he_normal,
    bias_init: Init = zeros,
    name: str | None = None,
) -> Tensor:
    """Transposed convolution of x (N, I, H, W) to (N, channels, H', W'); see conv_transpose."""
    geometry = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    return _conv_transpose(x, 2, channels, window, geometry, groups, bias, layout, weight_init, bias_init, name)


def conv_transpose3d(
    x: Tensor,
    channels: int,
    window: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = True,
    layout: str | None = None,
    weight_init: Init = he_normal,
    bias_init: Init = zeros,
    name: str | None = None,
) -> Tensor:
    """Transposed convolution of x (N, I, D, H, W) to (N, channels, D', H', W'); see conv_transpose."""
    geometry = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    return _conv_transpose(x, 3, channels, window, geometry, groups, bias, layout, weight_init, bias_init, name)


def batch_norm(
    x: Tensor,
    *,
    axis: int = 1,
    eps: float = bn.EPS,
    momentum: float | None = 0.1,
    gamma: bool = True,
    beta: bool = True,
    unbiased: bool = True,
    track: bool = True,
    frozen: bool = False,
    name: str | None = None,
) -> Tensor:
    """Batch normalization of x (N, C, ...) over all axes but `axis`, with learned gamma and beta (C,); see
    ops/batch_norm.py.

    momentum: the weight of a new batch in running_mean and running_var (PyTorch's convention: 0.1 is TensorFlow's 0.9).
        None gives each batch so far the same weight.
    gamma, beta: False leaves them at 1 and 0, without a parameter.
    unbiased: running_var averages the unbiased variance, as PyTorch; False: the biased one, as ONNX.
    track: False keeps no running statistics: evaluation then normalizes by the batch as well.
    frozen: normalizes with running_mean and running_var in training too, and leaves them as they are.
    """
    builder = x.builder
    with builder.layer("bn", name):
        expect(x.rank >= 2, "needs a batch and channels, (N, C, ...), got {}", x.value)
        expect(track or not frozen, "what is frozen needs its running statistics")
        inside = momentum is None or 0 <= finite("momentum", momentum) <= 1
        expect(inside, "momentum, the weight of a new batch, is from 0 to 1 or None, not {!r}", momentum)
        axis = axis_of(axis, x.rank)
        channels, dtype = known(x.shape[axis], "the number of channels"), bn.statistics_dtype(x.value.type)
        scale, shift = _scale(x, gamma, (channels,), dtype), _shift(x, beta, (channels,), dtype)
        if not track:
            return bn.batch_norm(x, scale, shift, axis=axis, eps=eps)[0]
        mean = builder.variable("running_mean", (channels,), zeros, dtype)
        var = builder.variable("running_var", (channels,), ones, dtype)
        if frozen:
            return bn.batch_norm_inference(x, scale, shift, mean, var, axis=axis, eps=eps)
        y, batch_mean, batch_var = bn.batch_norm(x, scale, shift, axis=axis, eps=eps)
        with builder.origin(role="statistic"):
            count = count_along(x, bn.other_axes(x.rank, axis), dtype)
            weight = _cumulative(x, count, dtype) if momentum is None else builder.constant(momentum, dtype)
            for state, batch, correct in ((mean, batch_mean, False), (var, batch_var, unbiased)):
                builder.update(state, bn.running_average(builder.latest(state), batch, count, weight, unbiased=correct))
        return y


def _scale(x: Tensor, learned: bool, shape: tuple[int, ...], dtype: str) -> Tensor:
    """gamma: a parameter, or ones."""
    return x.builder.parameter("gamma", shape, ones, dtype) if learned else _filled(x, 1.0, shape, dtype)


def _shift(x: Tensor, learned: bool, shape: tuple[int, ...], dtype: str) -> Tensor:
    """beta: a parameter, or zeros."""
    return x.builder.parameter("beta", shape, zeros, dtype) if learned else _filled(x, 0.0, shape, dtype)


def _filled(x: Tensor, value: float, shape: tuple[int, ...], dtype: str) -> Tensor:
    return x.builder.emit(fill, (), {"value": value, "shape": shape, "dtype": dtype})[0]


def _cumulative(x: Tensor, count: Tensor, dtype: str) -> Tensor:
    """1 / (how many batches there were, this one included), counting those that were not empty."""
    builder = x.builder
    batches = builder.variable("num_batches", (), Constant(0), "int64", "counter")
    more = cast(where(equal(count, 0.0), builder.constant(0.0, dtype), builder.constant(1.0, dtype)), "int64")
    builder.update(batches, builder.latest(batches) + more)
    return 1.0 / cast(builder.latest(batches), dtype)


def layer_norm(
    x: Tensor,
    *,
    axis: int = -1,
    eps: float = bn.EPS,
    gamma: bool = True,
    beta: bool = True,
    name: str | None = None,
) -> Tensor:
    """Layer normalization over `axis` and all axes behind it, with learned gamma and beta of their shape; see
    ops/norm.py. gamma, beta: False leaves them at 1 and 0."""
    with x.builder.layer("layer_norm", name):
        shape, dtype = _normalized_shape(x, axis), bn.statistics_dtype(x.value.type)
        return norm.layer_norm(x, _scale(x, gamma, shape, dtype), _shift(x, beta, shape, dtype), axis=axis, eps=eps)


def rms_norm(x: Tensor, *, axis: int = -1, eps: float = bn.EPS, gamma: bool = True, name: str | None = None) -> Tensor:
    """RMS normalization over `axis` and all axes behind it, with a learned gamma of their shape; see ops/norm.py."""
    with x.builder.layer("rms_norm", name):
        shape, dtype = _normalized_shape(x, axis), bn.statistics_dtype(x.value.type)
        return norm.rms_norm(x, _scale(x, gamma, shape, dtype), axis=axis, eps=eps)


def _normalized_shape(x: Tensor, axis: int) -> tuple[int, ...]:
    return tuple(known(n, "the size of what is normalized") for n in x.shape[axis_of(axis, x.rank) :])


def group_norm(
    x: Tensor,
    groups: int,
    *,
    axis: int = 1,
    eps: float = bn.EPS,
    gamma: bool = True,
    beta: bool = True,
    name: str | None = None,
) -> Tensor:
    """Group normalization of x (N, C, ...), channels at `axis`, with learned gamma and beta (C,); see ops/norm.py."""
    with x.builder.layer("group_norm", name):
        shape, dtype = _channels_of(x, axis), bn.statistics_dtype(x.value.type)
        scale, shift = _scale(x, gamma, shape, dtype), _shift(x, beta, shape, dtype)
        return norm.group_norm(x, scale, shift, groups=groups, axis=axis, eps=eps)


def instance_norm(
    x: Tensor,
    *,
    axis: int = 1,
    eps: float = bn.EPS,
    gamma: bool = True,
    beta: bool = True,
    name: str | None = None,
) -> Tensor:
    """Normalization of each channel of each image of x (N, C, ...), with learned gamma and beta (C,); see
    ops/norm.py."""
    with x.builder.layer("instance_norm", name):
        shape, dtype = _channels_of(x, axis), bn.statistics_dtype(x.value.type)
        return norm.instance_norm(x, _scale(x, gamma, shape, dtype), _shift(x, beta, shape, dtype), axis=axis, eps=eps)


def _channels_of(x: Tensor, axis: int) -> tuple[int]:
    return (known(x.shape[axis_of(axis, x.rank)], "the number of channels"),)


def prelu(
    x: Tensor, *, axis: int = 1, shared: bool = False, slope_init: Init = QUARTER, name: str | None = None
) -> Tensor:
    """x where it is above 0, else slope * x, with a learned slope for each channel (of `axis`); shared=True: with one
    for all."""
    with x.builder.layer("prelu", name):
        shape = (1,) if shared else _channels_of(x, axis)
        slope = x.builder.parameter("slope", shape, _initializer(slope_init, shape), x.dtype)
        return activation.prelu(x, slope, axis)


def embedding(
    tokens: Tensor,
    count: int,
    features: int,
    *,
    weight_init: Init = UNIT_NORMAL,
    dtype: str = "float32",
    name: str | None = None,
) -> Tensor:
    """A row of weight (count, features) for each of tokens (...), integers from 0 to count - 1: (..., features).

    -1 to -count are rows from the end, as in gather; any other is an error when the graph runs.
    """
    with tokens.builder.layer("embedding", name):
        expect(tokens.dtype in ("int32", "int64"), "tokens are int32 or int64, not {}", tokens.value)
        shape = (whole(count, "count", 1), whole(features, "features", 1))
        return gather(tokens.builder.parameter("weight", shape, _initializer(weight_init, shape), dtype), tokens)


def dropout(x: Tensor, rate: float, *, name: str | None = None) -> Tensor:
    """Sets each number to 0 with probability `rate` and divides the others by 1 - rate. `inference` leaves it out."""
    seed, step, stream = x.builder.random_stream()
    with x.builder.layer("dropout", name):
        return dropout_op(x, seed, step, rate=rate, stream=stream)
