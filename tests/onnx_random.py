"""Random nodes of ONNX: an operator with attributes and inputs, in an opset, for others to say what it computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

Rng = np.random.Generator


@dataclass(frozen=True)
class Drawn:
    """A model of one node. `known` are those inputs that must be known when it is read."""

    model: onnx.ModelProto
    given: dict[str, np.ndarray]
    known: dict[str, np.ndarray]

    def __str__(self) -> str:
        (node,) = self.model.graph.node
        attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        shapes = {name: array.shape for name, array in self.given.items()}
        known = {name: array.tolist() for name, array in self.known.items()}
        return f"{node.op_type}, opset {self.model.opset_import[0].version}: {attrs} of {shapes} and {known}"


class Draw:
    """One random node."""

    def __init__(self, rng: Rng):
        self.rng = rng

    def whole(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def several(self, low: int, high: int, number: int) -> list[int]:
        return [self.whole(low, high) for _ in range(number)]

    def one(self, *things: Any) -> Any:
        return things[self.whole(0, len(things) - 1)]

    def floats(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape).astype(np.float32)

    def shape(self, low: int = 1, high: int = 4) -> list[int]:
        return self.several(1, 5, self.whole(low, high))

    def axis(self, rank: int) -> int:
        return self.whole(-rank, rank - 1)

    def axes(self, rank: int) -> list[int]:
        """Some axes, each once, counted from either end."""
        chosen = self.rng.permutation(rank)[: self.whole(1, rank)]
        return [int(axis) - rank * self.whole(0, 1) for axis in chosen]

    def make(
        self,
        op: str,
        opset: int,
        given: dict[str, Any],
        known: dict[str, Any] | None = None,
        outputs: int = 1,
        **attrs: Any,
    ) -> Drawn:
        """Inputs that are computed, and behind them those that are known; None is one that is left out."""
        known = known or {}
        inputs = {**given, **known}
        arrays = {name: np.asarray(value) for name, value in inputs.items() if value is not None}
        declared = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in arrays.items()
        ]
        names = [name if value is not None else "" for name, value in inputs.items()]
        kept = {name: value for name, value in attrs.items() if value is not None}
        node = helper.make_node(op, names, [f"y{i}" for i in range(outputs)], **kept)
        ends = [onnx.ValueInfoProto(name=name) for name in node.output]
        graph = helper.make_graph([node], "g", declared, ends)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        part = lambda names: {name: arrays[name] for name in names if name in arrays}
        return Drawn(model, part(given), part(known))

    # windows

    def padding(self, rank: int, most: list[int]) -> dict[str, Any]:
        """pads, or auto_pad."""
        auto = self.one("NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
        if auto == "NOTSET":
            pads = [self.whole(0, max(0, n)) for n in most * 2]
            return {"pads": pads} if self.whole(0, 3) else {}
        return {"auto_pad": auto}

    def conv(self) -> Drawn:
        rank, groups = self.whole(1, 3), self.whole(1, 2)
        window = self.several(1, 3, rank)
        inputs, outputs = groups * self.whole(1, 3), groups * self.whole(1, 3)
        dilation = self.several(1, 2, rank)
        auto = self.padding(rank, window)
        if auto.get("auto_pad", "").startswith("SAME"):
            dilation = [1] * rank  # ONNX Runtime has no other there
        x = self.floats(self.whole(1, 2), inputs, *self.several(5, 8, rank))
        w = self.floats(outputs, inputs // groups, *window)
        b = self.floats(outputs) if self.whole(0, 1) else None
        given = {"x": x, "w": w} if b is None else {"x": x, "w": w, "b": b}
        attrs = {"group": groups, "strides": self.several(1, 3, rank), "dilations": dilation, **auto}
        return self.make("Conv", self.one(7, 11, 17, 22), given, **attrs)

    def conv_transpose(self) -> Drawn:
        rank, groups = self.whole(1, 2), self.whole(1, 2)
        window, strides = self.several(1, 4, rank), self.several(1, 3, rank)
        inputs, outputs = groups * self.whole(1, 2), self.whole(1, 3)
        x = self.floats(self.whole(1, 2), inputs, *self.several(2, 5, rank))
        w = self.floats(inputs, outputs, *window)
        given = {"x": x, "w": w} if self.whole(0, 1) else {"x": x, "w": w, "b": self.floats(outputs * groups)}
        attrs: dict[str, Any] = {"group": groups, "strides": strides, "dilations": self.several(1, 2, rank)}
        match self.whole(0, 2):
            case 0:
                attrs["pads"] = [self.whole(0, (k - 1) // 2) for k in window * 2]
                attrs["output_padding"] = [self.whole(0, s - 1) for s in strides]
            case 1:  # with a stride beyond the window ONNX Runtime gives less than stride * x
                attrs["auto_pad"], attrs["dilations"] = self.one("SAME_UPPER", "SAME_LOWER", "VALID"), [1] * rank
                attrs["strides"] = [min(s, k) for s, k in zip(strides, window)]
            case 2:
                geometry = zip(x.shape[2:], strides, attrs["dilations"], window)
                sizes = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in geometry]
                attrs["output_shape"] = [max(1, n - self.whole(0, 2)) for n in sizes]
                attrs["auto_pad"] = self.one("NOTSET", "SAME_UPPER", "SAME_LOWER")
        return self.make("ConvTranspose", self.one(7, 11, 22), given, **attrs)

    def pool(self) -> Drawn:
        op, rank = self.one("MaxPool", "AveragePool", "LpPool"), self.whole(1, 3)
        opset = self.one(*{"MaxPool": (10, 11, 12, 19), "AveragePool": (11, 19), "LpPool": (11, 18)}[op], 22)
        window = self.several(1, 3, rank)
        auto = self.padding(rank, [k - 1 for k in window])
        strides = [self.whole(1, k if "auto_pad" in auto else 3) for k in window]  # beyond it ONNX Runtime pads by -1
        attrs: dict[str, Any] = {"kernel_shape": window, "strides": strides, **auto}
        if "auto_pad" not in auto:
            if op != "LpPool" or opset >= 18:
                attrs["ceil_mode"] = self.whole(0, 1)
            if op == "MaxPool" or opset >= 19:
                attrs["dilations"] = self.several(1, 2, rank)
        if op == "AveragePool":
            attrs["count_include_pad"] = self.whole(0, 1)
        if op == "LpPool":
            attrs["p"] = self.whole(1, 3)
        indices = op == "MaxPool" and self.whole(0, 1) == 1
        x = self.floats(self.whole(1, 2), self.whole(1, 3), *self.several(5, 8, rank))
        return self.make(op, opset, {"x": x}, outputs=1 + indices, **attrs)

    def resize(self) -> Drawn:
        opset, rank = self.one(11, 13, 18, 19), self.whole(1, 2)
        x = self.floats(self.whole(1, 2), self.whole(1, 2), *self.several(2, 6, rank))
        mode = self.one("nearest", "linear")
        how = self.one("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
        attrs: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": how}
        if mode == "nearest":
            attrs["nearest_mode"] = self.one("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        roi = None if opset >= 13 else np.zeros(0, np.float32)
        sizes = np.array([*x.shape[:2], *self.several(1, 9, rank)])
        if opset >= 18 and mode == "nearest" and how != "align_corners" and self.whole(0, 1):
            attrs["axes"] = list(range(2, 2 + rank))
            attrs["keep_aspect_ratio_policy"] = self.one("not_larger", "not_smaller")
            known = {"roi": None, "scales": None, "sizes": sizes[2:]}
            return self.make("Resize", opset, {"x": x}, known, **attrs)
        known = {"roi": roi, "scales": None if opset >= 13 else np.zeros(0, np.float32), "sizes": sizes}
        if self.whole(0, 1):
            factors = [1.0, 1.0, *(self.one(0.5, 1.0, 1.5, 2.0, 3.0) for _ in range(rank))]
            whole = all(float(n * f).is_integer() and n * f >= 1 for n, f in zip(x.shape, factors))
            if whole:
                known = {"roi": roi, "scales": np.array(factors, np.float32)}
        return self.make("Resize", opset, {"x": x}, known, **attrs)

    # shapes

    def pad(self) -> Drawn:
        x = self.floats(*self.several(2, 5, self.whole(1, 4)))
        opset, mode = self.one(11, 13, 18, 19), self.one("constant", "edge", "reflect")
        mode = self.one(mode, "wrap") if opset >= 19 else mode
        low = -1 if mode == "constant" else 0
        axes = self.axes(x.ndim) if opset >= 18 and self.whole(0, 1) else None
        rank = x.ndim if axes is None else len(axes)
        most = 1 if mode == "reflect" else 2
        known: dict[str, Any] = {"pads": np.array([self.whole(low, most) for _ in range(2 * rank)])}
        if mode == "constant" or axes is not None:
            known["value"] = np.float32(0.5)
        if axes is not None:
            known["axes"] = np.array(axes)
        return self.make("Pad", opset, {"x": x}, known, mode=mode)

    def slice(self) -> Drawn:
        x = self.floats(*self.several(1, 6, self.whole(1, 4)))
        axes = self.axes(x.ndim)
        starts, ends = (self.several(-8, 8, len(axes)) for _ in range(2))
        if self.whole(0, 1):
            return self.make("Slice", 9, {"x": x}, starts=starts, ends=ends, axes=axes)
        steps = [self.one(-3, -2, -1, 1, 2, 3) for _ in axes]
        ends = [self.one(n, n, (1 << 31) - 1 if s > 0 else -(1 << 31)) for n, s in zip(ends, steps)]
        parts = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
        known = {name: np.array(part, np.int64) for name, part in parts.items()}
        return self.make("Slice", self.one(10, 11, 13), {"x": x}, known)

    def split(self) -> Drawn:
        x = self.floats(*self.several(2, 6, self.whole(1, 3)))
        axis = self.axis(x.ndim)
        if self.whole(0, 1):
            n = x.shape[axis]
            parts = self.one(*(m for m in range(1, n + 1) if -(-n // m) * (m - 1) < n))  # none is empty
            return self.make("Split", 18, {"x": x}, outputs=parts, axis=axis, num_outputs=parts)
        first = self.whole(0, x.shape[axis])
        sizes = [first, x.shape[axis] - first]
        if self.whole(0, 1):
            return self.make("Split", 11, {"x": x}, outputs=2, axis=axis, split=sizes)
        return self.make("Split", self.one(13, 18), {"x": x}, {"split": np.array(sizes)}, 2, axis=axis)

    def gather(self) -> Drawn:
        x = self.floats(*self.several(2, 5, self.whole(1, 3)))
        axis, opset = self.axis(x.ndim), self.one(11, 13)
        n = x.shape[axis]
        if self.whole(0, 1):
            places = self.rng.integers(-n, n, self.several(1, 3, self.whole(0, 2)))
            return self.make("Gather", opset, {"x": x, "i": places}, axis=axis)
        shape = [self.whole(1, m) for m in x.shape]
        return self.make("GatherElements", opset, {"x": x, "i": self.rng.integers(-n, n, shape)}, axis=axis)

    def one_hot(self) -> Drawn:
        labels = self.rng.integers(-6, 6, self.several(1, 4, self.whole(1, 3)))
        axis = self.whole(-labels.ndim - 1, labels.ndim)
        values = self.floats(2)
        return self.make("OneHot", 11, {"i": labels}, {"depth": np.int64(self.whole(2, 5)), "v": values}, axis=axis)

    def moved(self) -> Drawn:
        """What changes the places of numbers, in short."""
        x = self.floats(*self.shape(2, 4))
        match self.whole(0, 6):
            case 0:
                return self.make("Transpose", 13, {"x": x}, perm=[int(a) for a in self.rng.permutation(x.ndim)])
            case 1:
                return self.make("Tile", 13, {"x": x}, {"r": np.array(self.several(0, 3, x.ndim))})
            case 2:
                extra = self.several(1, 2, self.whole(0, 2))
                shape = [*extra, *(n if n > 1 else self.whole(1, 4) for n in x.shape)]
                return self.make("Expand", 13, {"x": x}, {"s": np.array(shape)})
            case 3:
                return self.make("Trilu", 14, {"x": x}, {"k": np.int64(self.whole(-3, 3))}, upper=self.whole(0, 1))
            case 4:
                return self.make("Flatten", 13, {"x": x}, axis=self.whole(-x.ndim, x.ndim))
            case 5:
                block = self.whole(1, 3)
                images = self.floats(1, block * block * self.whole(1, 2), *self.several(1, 3, 2))
                mode = self.one("DCR", "CRD")
                return self.make("DepthToSpace", self.one(11, 13), {"x": images}, blocksize=block, mode=mode)
        block = self.whole(1, 3)
        images = self.floats(1, self.whole(1, 2), *(block * n for n in self.several(1, 3, 2)))
        return self.make("SpaceToDepth", 13, {"x": images}, blocksize=block)

    # reductions and products

    def reduction(self) -> Drawn:
        x = np.abs(self.floats(*self.shape(1, 4))) + np.float32(0.1)
        op = self.one("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
        axes, keepdims = self.axes(x.ndim), self.whole(0, 1)
        if self.whole(0, 1):
            return self.make(f"Reduce{op}", 11, {"x": x}, axes=axes, keepdims=keepdims)
        known = {"axes": np.array(axes)} if self.whole(0, 2) else {"axes": np.zeros(0, np.int64)}
        noop = self.whole(0, 1) if op == "Sum" else 0  # what |x| or x^2 of each would be, the standard leaves open
        return self.make(f"Reduce{op}", 18, {"x": x}, known, keepdims=keepdims, noop_with_empty_axes=noop)

    def along(self) -> Drawn:
        """What goes along one axis."""
        x = self.floats(*self.shape(1, 4))
        axis = self.axis(x.ndim)
        match self.whole(0, 4):
            case 0:
                op = self.one("Softmax", "LogSoftmax", "Hardmax")
                return self.make(op, self.one(9, 11, 13), {"x": x}, axis=abs(axis) % x.ndim)
            case 1:
                equal = np.round(x)  # with ties
                last = self.whole(0, 1)
                op = self.one("ArgMax", "ArgMin")
                return self.make(op, 13, {"x": equal}, axis=axis, keepdims=self.whole(0, 1), select_last_index=last)
            case 2:
                flags = {"exclusive": self.whole(0, 1), "reverse": self.whole(0, 1)}
                return self.make("CumSum", 14, {"x": x}, {"axis": np.int64(axis)}, **flags)
            case 3:
                k = np.array([self.whole(1, x.shape[axis])])
                return self.make("TopK", 11, {"x": x}, {"k": k}, 2, axis=axis, largest=self.whole(0, 1))
        return self.make("LpNormalization", 11, {"x": x}, axis=axis, p=self.whole(1, 2))

    def gemm(self) -> Drawn:
        m, k, n = self.several(1, 4, 3)
        transposed = self.several(0, 1, 2)
        a, b = self.floats(*((k, m) if transposed[0] else (m, k))), self.floats(*((n, k) if transposed[1] else (k, n)))
        c = self.floats(*self.one((), (1,), (n,), (m, 1), (1, n), (m, n)))
        given = {"a": a, "b": b, "c": c} if self.whole(0, 2) else {"a": a, "b": b}
        scale = {"alpha": self.one(1.0, 0.5), "beta": self.one(1.0, 0.25, 0.0)}
        return self.make("Gemm", self.one(11, 13), given, transA=transposed[0], transB=transposed[1], **scale)

    def matmul(self) -> Drawn:
        m, k, n = self.several(1, 4, 3)
        front = self.several(1, 3, self.whole(0, 2))
        left = self.one((k,), (m, k), (*front, m, k))
        right = self.one((k,), (k, n), (*front, k, n))
        return self.make("MatMul", 13, {"a": self.floats(*left), "b": self.floats(*right)})

    # norms

    def norm(self) -> Drawn:
        channels = self.whole(1, 4)
        x = self.floats(self.whole(1, 3), channels, *self.several(2, 4, self.whole(1, 3)))
        per_channel = lambda: self.floats(channels)
        eps = self.one(1e-2, 1e-1)  # ONNX Runtime takes E[x^2] - E[x]^2, in float32, for a variance, which may be 0
        match self.whole(0, 5):
            case 0:
                given = {"x": x, "s": per_channel(), "b": per_channel(), "m": per_channel(), "v": np.abs(per_channel())}
                return self.make("BatchNormalization", self.one(7, 9, 14, 15), given, epsilon=eps)
            case 1:
                given = {"x": x, "s": per_channel(), "b": per_channel(), "m": per_channel(), "v": np.abs(per_channel())}
                attrs = {"epsilon": eps, "training_mode": 1, "momentum": self.one(0.9, 0.3)}
                return self.make("BatchNormalization", 15, given, None, 3, **attrs)
            case 2:
                given = {"x": x, "s": per_channel(), "b": per_channel()}
                return self.make("InstanceNormalization", self.one(7, 22), given, epsilon=eps)
            case 3:
                axis = self.axis(x.ndim)
                shape = x.shape[axis:]
                given = {"x": x, "s": self.floats(*shape), "b": self.floats(*shape)}
                return self.make("LayerNormalization", 17, given, axis=axis, epsilon=eps)
            case 4:
                groups = self.one(*(n for n in range(1, channels + 1) if channels % n == 0))
                given = {"x": x, "s": per_channel(), "b": per_channel()}
                return self.make("GroupNormalization", 21, given, num_groups=groups, epsilon=eps)
        images = self.floats(2, self.whole(1, 6), 3, 3)
        size = self.one(1, 3, 5)  # ONNX Runtime wants odd ones
        return self.make("LRN", 13, {"x": images}, size=size, alpha=0.5, beta=0.6, bias=1.5)


KINDS: tuple[Callable[[Draw], Drawn], ...] = (
    Draw.conv,
    Draw.conv_transpose,
    Draw.pool,
    Draw.resize,
    Draw.pad,
    Draw.slice,
    Draw.split,
    Draw.gather,
    Draw.one_hot,
    Draw.moved,
    Draw.reduction,
    Draw.along,
    Draw.gemm,
    Draw.matmul,
    Draw.norm,
)
