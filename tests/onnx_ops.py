"""What each op must compute, said by others: by ONNX's reference evaluator, and by loops over single numbers.

`ONNX` holds, for each op that has a counterpart there, a function that writes ONNX nodes. `LOOPS` computes from the
definition, one number after the other in float64: the ops that have no counterpart, and those for which the evaluator
is not always right (it pools wrongly along one axis, takes log(softmax) where that is log(0), and fails for a loss of
no images). Both take attributes as a user writes them (padding="same", stride=2), so that their reading is tested too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import exp, fsum, log, prod
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

OPSET = 20


class Model:
    """An ONNX model under construction; values are names. `add` appends a node, `run` evaluates outputs."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self.given = {f"x{i}": array for i, array in enumerate(arrays)}
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, *inputs: str, outputs: int = 1, **attrs: Any) -> Any:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attrs))
        return names[0] if outputs == 1 else tuple(names)

    def array(self, values: Any, dtype: Any = np.int64) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def run(self, outputs: Sequence[str]) -> list[np.ndarray]:
        unknown = lambda name, dtype: helper.make_tensor_value_info(name, dtype, None)
        inputs = [unknown(name, helper.np_dtype_to_tensor_dtype(array.dtype)) for name, array in self.given.items()]
        graph = helper.make_graph(
            self.nodes, "case", inputs, [unknown(name, TensorProto.UNDEFINED) for name in outputs], self.constants
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # NumPy warns of the mean of nothing, which is NaN as it should be
            return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, self.given)]


def by_onnx(op: str, arrays: Sequence[np.ndarray], attrs: dict[str, Any]) -> list[np.ndarray]:
    """The outputs of an op by ONNX's reference evaluator."""
    model = Model(arrays)
    result = ONNX[op](model, *model.given, **attrs)
    return model.run(result if isinstance(result, tuple) else (result,))


def by_loops(op: str, arrays: Sequence[np.ndarray], attrs: dict[str, Any]) -> list[np.ndarray]:
    """The outputs of an op by its definition, in float64."""
    result = LOOPS[op](*arrays, **attrs)
    return list(result) if isinstance(result, tuple) else [result]


# reading attributes


def each(given: Any, rank: int) -> list[int]:
    return [given] * rank if isinstance(given, int) else list(given)


def pairs(given: Any, rank: int) -> list[tuple[int, int]]:
    """Numbers as (before, after) for each axis."""
    return [(p, p) if isinstance(p, int) else tuple(p) for p in ([given] * rank if isinstance(given, int) else given)]


def explicit(padding: Any, extents: Any, window: Any, stride: Any, dilation: Any) -> list[tuple[int, int]]:
    """Padding as (before, after). "same" makes ceil(x / stride) places, and puts an odd zero behind."""
    if padding == "same":
        totals = [
            max((-(-x // s) - 1) * s + d * (k - 1) + 1 - x, 0) for x, k, s, d in zip(extents, window, stride, dilation)
        ]
        return [(total // 2, total - total // 2) for total in totals]
    return pairs(0 if padding == "valid" else padding, len(window))


def sliding(rank: int, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> dict[str, Any]:
    """Attributes of ONNX's Conv and pools."""
    attrs: dict[str, Any] = {"strides": each(stride, rank), "dilations": each(dilation, rank)}
    if isinstance(padding, str):
        return {**attrs, "auto_pad": {"same": "SAME_UPPER", "valid": "VALID"}[padding]}
    widths = pairs(padding, rank)
    return {**attrs, "pads": [a for a, _ in widths] + [b for _, b in widths]}


def is_last(layout: str | None) -> bool:
    return layout is not None and layout[-1] == "C"


def moved(model: Model, x: str, rank: int, source: int, target: int) -> str:
    axes = [axis for axis in range(rank) if axis != source % rank]
    axes.insert(target % rank, source % rank)
    return x if axes == sorted(axes) else model.add("Transpose", x, perm=axes)


# by ONNX


def _same_name(onnx_name: str) -> Callable[..., str]:
    return lambda model, *inputs: model.add(onnx_name, *inputs)


def _reduce(onnx_name: str) -> Callable[..., str]:
    def write(model: Model, x: str, axes: Any = None, keepdims: bool = False) -> str:
        axes = [axes] if isinstance(axes, int) else axes
        if axes is None:
            return model.add(onnx_name, x, keepdims=int(keepdims))
        return model.add(onnx_name, x, model.array(axes), keepdims=int(keepdims), noop_with_empty_axes=1)

    return write


def _slice(model: Model, x: str, start: Any, stop: Any, step: Any = None) -> str:
    axes = range(len(start))
    starts = [0 if n is None else n for n in start]
    stops = [2**62 if n is None else n for n in stop]
    steps = [1 if n is None else n for n in step] if step else [1 for _ in axes]
    return model.add("Slice", x, *map(model.array, (starts, stops, axes, steps)))


def _pad(model: Model, x: str, widths: Any, value: float = 0.0) -> str:
    pads = [a for a, _ in widths] + [b for _, b in widths]
    return model.add("Pad", x, model.array(pads), model.array(value, model.given[x].dtype))


def _cast(model: Model, x: str, dtype: str) -> str:
    return model.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _fill(model: Model, value: Any, shape: Any = (), dtype: str = "float32") -> str:
    number = numpy_helper.from_array(np.array([value], dtype))
    return model.add("ConstantOfShape", model.array(np.array(shape, np.int64)), value=number)


def _count(model: Model, x: str, axes: Any, dtype: str = "float32") -> str:
    sizes = model.add("Gather", model.add("Shape", x), model.array(np.array(axes, np.int64)))
    return _cast(model, model.add("ReduceProd", sizes, keepdims=0), dtype)


def _one_hot(model: Model, labels: str, classes: int, axis: int = -1, dtype: str = "float32") -> str:
    y = model.add(
        "OneHot", labels, model.array(classes), model.array([0, 1], "int8" if dtype == "bool" else dtype), axis=axis
    )
    return _cast(model, y, dtype)  # the evaluator subtracts its two values, which bools cannot


def _cross_entropy(model: Model, logits: str, labels: str, axis: int = 1, reduction: str = "mean") -> str:
    logits = moved(model, logits, model.given[logits].ndim, axis, 1)
    return model.add("SoftmaxCrossEntropyLoss", logits, labels, reduction=reduction)


def _batch_norm(model: Model, x: str, gamma: str, beta: str, axis: int = 1, eps: float = 1e-5) -> tuple[str, ...]:
    # ONNX's momentum is the weight of the old: with 0 its running statistics are those of the batch, var the biased one
    rank, old = model.given[x].ndim, model.array(np.zeros(model.given[gamma].shape), np.float64)
    y, mean, var = model.add(
        "BatchNormalization",
        moved(model, x, rank, axis, 1),
        gamma,
        beta,
        old,
        old,
        outputs=3,
        training_mode=1,
        momentum=0.0,
        epsilon=eps,
    )
    return moved(model, y, rank, 1, axis), mean, var


def _batch_norm_inference(model: Model, x: str, *parameters: str, axis: int = 1, eps: float = 1e-5) -> str:
    rank = model.given[x].ndim
    y = model.add("BatchNormalization", moved(model, x, rank, axis, 1), *parameters, epsilon=eps)
    return moved(model, y, rank, 1, axis)


def _conv(model: Model, x: str, w: str, groups: int = 1, layout: str | None = None, **attrs: Any) -> str:
    rank, last = model.given[x].ndim, is_last(layout)
    first = moved(model, x, rank, -1, 1) if last else x
    y = model.add("Conv", first, w, group=groups, kernel_shape=model.given[w].shape[2:], **sliding(rank - 2, **attrs))
    return moved(model, y, rank, 1, -1) if last else y


def _conv_input_gradient(
    model: Model,
    g: str,
    w: str,
    extents: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str | None = None,
) -> str:
    """ConvTranspose. Group by group, because the evaluator's own groups are right only for one channel in each."""
    rank, last, window = len(extents), is_last(layout), model.given[w].shape[2:]
    stride, dilation = each(stride, rank), each(dilation, rank)
    widths = explicit(padding, extents, window, stride, dilation)
    places = [n for i, n in enumerate(model.given[g].shape) if i not in (0, rank + 1 if last else 1)]
    rest = [
        x - ((p - 1) * s + d * (k - 1) + 1 - a - b)  # what the stride left unread
        for x, p, k, s, d, (a, b) in zip(extents, places, window, stride, dilation, widths)
    ]
    g = moved(model, g, rank + 2, -1, 1) if last else g
    part = model.array([0])
    results = []
    outputs = model.given[w].shape[0] // groups
    for group in range(groups):
        start, stop, axis = model.array([group * outputs]), model.array([(group + 1) * outputs]), model.array([1])
        results.append(
            model.add(
                "ConvTranspose",
                model.add("Slice", g, start, stop, axis),
                model.add("Slice", w, start, stop, part),
                group=1,
                strides=stride,
                dilations=dilation,
                output_padding=rest,
                pads=[a for a, _ in widths] + [b for _, b in widths],
            )
        )
    x = model.add("Concat", *results, axis=1)
    return moved(model, x, rank + 2, 1, -1) if last else x


def _pool(onnx_name: str) -> Callable[..., str]:
    def write(
        model: Model,
        x: str,
        window: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        layout: str | None = None,
        **attrs: Any,
    ) -> str:
        rank, last = model.given[x].ndim, is_last(layout)
        window = each(window, rank - 2)
        first = moved(model, x, rank, -1, 1) if last else x
        geometry = sliding(rank - 2, window if stride is None else stride, padding, dilation)
        y = model.add(
            onnx_name, first, kernel_shape=window, **geometry, **{key: int(value) for key, value in attrs.items()}
        )
        return moved(model, y, rank, 1, -1) if last else y

    return write


ONNX: dict[str, Callable[..., Any]] = {
    **{
        name: _same_name(onnx_name)
        for name, onnx_name in {
            "add": "Add",
            "sub": "Sub",
            "mul": "Mul",
            "div": "Div",
            "neg": "Neg",
            "exp": "Exp",
            "log": "Log",
            "sqrt": "Sqrt",
            "tanh": "Tanh",
            "sigmoid": "Sigmoid",
            "sin": "Sin",
            "cos": "Cos",
            "relu": "Relu",
            "equal": "Equal",
            "less": "Less",
            "less_equal": "LessOrEqual",
            "logical_and": "And",
            "logical_or": "Or",
            "logical_not": "Not",
            "where": "Where",
            "matmul": "MatMul",
            "stop_gradient": "Identity",
        }.items()
    },
    "sum": _reduce("ReduceSum"),
    "mean": _reduce("ReduceMean"),
    "max": _reduce("ReduceMax"),
    "argmax": lambda model, x, axis=-1, keepdims=False: model.add("ArgMax", x, axis=axis, keepdims=int(keepdims)),
    "softmax": lambda model, x, axis=-1: model.add("Softmax", x, axis=axis),
    "log_softmax": lambda model, x, axis=-1: model.add("LogSoftmax", x, axis=axis),
    "one_hot": _one_hot,
    "cross_entropy": _cross_entropy,
    "reshape": lambda model, x, shape: model.add("Reshape", x, model.array(shape), allowzero=int(0 in shape)),
    "transpose": lambda model, x, axes=None: (
        model.add("Transpose", x, perm=[a % model.given[x].ndim for a in axes]) if axes else model.add("Transpose", x)
    ),
    "broadcast_to": lambda model, x, shape: model.add("Expand", x, model.array(shape)),
    "concat": lambda model, *xs, axis=0: model.add("Concat", *xs, axis=axis),
    "slice": _slice,
    "pad": _pad,
    "cast": _cast,
    "fill": _fill,
    "constant": lambda model, value: model.add("Constant", value=numpy_helper.from_array(np.asarray(value))),
    "count": _count,
    "batch_norm": _batch_norm,
    "batch_norm_inference": _batch_norm_inference,
    "conv": _conv,
    "conv_input_gradient": _conv_input_gradient,
    "max_pool": _pool("MaxPool"),
    "avg_pool": _pool("AveragePool"),
}


# by loops, for what ONNX does not have


Index = tuple[int, ...]


def visits(
    extents: Index, window: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1
) -> Iterator[tuple[Index, list[tuple[Index, Index]]]]:
    """Each place of a sliding window, with (place in the window, place in x) of the entries that lie in x, in order."""
    rank = len(extents)
    window, dilation = each(window, rank), each(dilation, rank)
    stride = window if stride is None else each(stride, rank)
    widths = explicit(padding, extents, window, stride, dilation)
    places = [
        range((a + x + b - d * (k - 1) - 1) // s + 1)
        for x, k, s, d, (a, b) in zip(extents, window, stride, dilation, widths)
    ]
    for place in product(*places):
        entries = []
        for inner in product(*map(range, window)):
            at = tuple(p * s + i * d - a for p, s, i, d, (a, _) in zip(place, stride, inner, dilation, widths))
            if all(0 <= n < x for n, x in zip(at, extents)):
                entries.append((inner, at))
        yield place, entries


def first(x: np.ndarray, layout: str | None) -> np.ndarray:
    """Channels first."""
    return np.moveaxis(x, -1, 1) if is_last(layout) else x


def back(x: np.ndarray, layout: str | None) -> np.ndarray:
    return np.moveaxis(x, 1, -1) if is_last(layout) else x


def conv_weight_gradient(
    x: np.ndarray,
    g: np.ndarray,
    window: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str | None = None,
) -> np.ndarray:
    """dw[o, c, k] = sum over n, p of g[n, o, p] x[n, c, p*stride + k*dilation - padding]."""
    x, g = first(x, layout), first(g, layout)
    window = each(window, x.ndim - 2)
    inputs, outputs = x.shape[1] // groups, g.shape[1] // groups
    w = np.zeros((g.shape[1], inputs, *window))
    for place, entries in visits(x.shape[2:], window, stride, padding, dilation):
        for inner, at in entries:
            for n, o, c in product(range(len(x)), range(g.shape[1]), range(inputs)):
                w[(o, c, *inner)] += float(g[(n, o, *place)]) * float(x[(n, o // outputs * inputs + c, *at)])
    return w


def largest(x: np.ndarray, entries: list[tuple[Index, Index]]) -> Index:
    """The place of the first NaN, else of the first largest number."""
    best = entries[0][1]
    for _, at in entries:
        if x[best] == x[best] and (x[at] != x[at] or x[at] > x[best]):
            best = at
    return best


def max_pool(x: np.ndarray, **attrs: Any) -> np.ndarray:
    return max_pool_select(x, x, **attrs)


def avg_pool(x: np.ndarray, count_include_pad: bool = False, layout: str | None = None, **attrs: Any) -> np.ndarray:
    x = first(x, layout)
    places = list(visits(x.shape[2:], **attrs))
    y = np.zeros((*x.shape[:2], *(n + 1 for n in places[-1][0])))
    size = prod(each(attrs["window"], x.ndim - 2))
    for n, c in np.ndindex(*x.shape[:2]):
        for place, entries in places:
            y[(n, c, *place)] = sum(x[(n, c, *at)] for _, at in entries) / (size if count_include_pad else len(entries))
    return back(y, layout)


def max_pool_select(h: np.ndarray, x: np.ndarray, layout: str | None = None, **attrs: Any) -> np.ndarray:
    h, x = first(h, layout), first(x, layout)
    places = list(visits(x.shape[2:], **attrs))
    y = np.zeros((*x.shape[:2], *(n + 1 for n in places[-1][0])))
    for n, c in np.ndindex(*x.shape[:2]):
        for place, entries in places:
            y[(n, c, *place)] = h[n, c][largest(x[n, c], entries)]
    return back(y, layout)


def max_pool_gradient(g: np.ndarray, x: np.ndarray, layout: str | None = None, **attrs: Any) -> np.ndarray:
    g, x = first(g, layout), first(x, layout)
    dx = np.zeros(x.shape)
    for n, c in np.ndindex(*x.shape[:2]):
        for place, entries in visits(x.shape[2:], **attrs):
            dx[n, c][largest(x[n, c], entries)] += g[(n, c, *place)]
    return back(dx, layout)


def avg_pool_gradient(
    g: np.ndarray, extents: Any, count_include_pad: bool = False, layout: str | None = None, **attrs: Any
) -> np.ndarray:
    g = first(g, layout)
    dx = np.zeros((*g.shape[:2], *extents))
    size = prod(each(attrs["window"], len(extents)))
    for n, c in np.ndindex(*g.shape[:2]):
        for place, entries in visits(tuple(extents), **attrs):
            for _, at in entries:
                dx[(n, c, *at)] += g[(n, c, *place)] / (size if count_include_pad else len(entries))
    return back(dx, layout)


def log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """x - log(sum(e^x)) along an axis, one line after the other. The sum is at least 1, so its logarithm exists."""
    lines = np.moveaxis(x, axis, -1)
    y = np.zeros(lines.shape)
    for at in np.ndindex(*lines.shape[:-1]):
        most = max(lines[at])
        y[at] = [n - most - log(fsum(exp(m - most) for m in lines[at])) for n in lines[at]]
    return np.moveaxis(y, -1, axis)


def cross_entropy(logits: np.ndarray, labels: np.ndarray, axis: int = 1, reduction: str = "mean") -> np.ndarray:
    lines = np.moveaxis(log_softmax(logits, axis), axis, -1)
    each_one = np.zeros(labels.shape)
    for at in np.ndindex(*labels.shape):
        each_one[at] = -lines[at][labels[at]]
    total = fsum(each_one.flat)
    mean = total / labels.size if labels.size else float("nan")
    return each_one if reduction == "none" else np.array(total if reduction == "sum" else mean)


def unslice(g: np.ndarray, shape: Any, start: Any, step: Any) -> np.ndarray:
    x = np.zeros(shape)
    for at in np.ndindex(*g.shape):
        x[tuple(a + i * s for a, i, s in zip(start, at, step))] = g[at]
    return x


def running_average(
    running: np.ndarray, batch: np.ndarray, count: np.ndarray, momentum: np.ndarray, unbiased: bool = False
) -> np.ndarray:
    """PyTorch's convention: new = (1 - momentum) * old + momentum * batch."""
    n, m = float(count), float(momentum)
    if n == 0:
        return running
    return np.array(
        [(1 - m) * float(old) + m * float(new) * (n / (n - 1) if unbiased else 1) for old, new in zip(running, batch)]
    )


def batch_norm_gradient(
    g: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray, axis: int = 1, eps: float = 1e-5
) -> tuple[np.ndarray, ...]:
    """Central differences of sum(g * y), y from the definition. `mean` and `var` are computed anew."""
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    shape = [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]

    def value(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> float:
        centered = x - x.mean(others, keepdims=True)
        y = centered / np.sqrt((centered**2).mean(others, keepdims=True) + eps)
        return float((g * (y * gamma.reshape(shape) + beta.reshape(shape))).sum())

    return tuple(differences(value, [x, gamma, np.zeros_like(gamma)]))


def differences(value: Callable[..., float], arrays: Sequence[np.ndarray], step: float = 1e-5) -> list[np.ndarray]:
    """The gradient of a scalar function with respect to each array, by central differences in float64."""
    arrays = [np.array(array, np.float64) for array in arrays]
    gradients = []
    for array in arrays:
        slope = np.zeros(array.shape)
        for at in np.ndindex(*array.shape):
            middle = array[at]
            array[at] = middle + step
            above = value(*arrays)
            array[at] = middle - step
            below = value(*arrays)
            array[at] = middle
            slope[at] = (above - below) / (2 * step)
        gradients.append(slope)
    return gradients


LOOPS: dict[str, Callable[..., Any]] = {
    "conv_weight_gradient": conv_weight_gradient,
    "log_softmax": log_softmax,
    "cross_entropy": cross_entropy,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "max_pool_select": max_pool_select,
    "max_pool_gradient": max_pool_gradient,
    "avg_pool_gradient": avg_pool_gradient,
    "unslice": unslice,
    "running_average": running_average,
    "batch_norm_gradient": batch_norm_gradient,
}
