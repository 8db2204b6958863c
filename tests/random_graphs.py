"""Small random graphs of all ops, each known by its number: random_graph(17).

A graph grows from its inputs, step by step; a step reads what is there already, mostly what came last. Steps that the
passes look at are taken more often: convolutions and norms, scales and shifts of channels, constants, what changes
nothing. Sizes are small, so that they often agree by accident. Each graph holds an example of one op of the registry,
in turn; its inputs depend on the rest of the graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

import minigraph as mg
from minigraph import layers
from minigraph.core import trial
from minigraph.core.builder import Builder, Tensor
from minigraph.core.dim import known, symbolic
from minigraph.core.dtypes import FLOATS, NARROW, wide_dtype
from minigraph.core.errors import GraphError
from minigraph.core.initial import Constant
from minigraph.core.ir import Graph, Variable
from minigraph.core.op import OPS, REQUIRED, Example, Op, Sample

T = TypeVar("T")
LAYOUTS = {3: ("NCL", "NLC"), 4: ("NCHW", "NHWC"), 5: ("NCDHW", "NDHWC")}
BOUNDED = ["exp", "expm1", "tan", "asin", "acos", "sinh", "cosh"]  # take numbers between -1 and 1 here
POSITIVE = ["log", "sqrt", "rsqrt", "log1p", "reciprocal"]
PLAIN = [  # take any
    op.name
    for op in OPS.values()
    if op.tensors == 1 and op.expression and (op.gradient or op.expand) and REQUIRED not in op.defaults.values()
    if op.name not in (*BOUNDED, *POSITIVE)
]
NUMBERS = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 0.1)


@dataclass(frozen=True)
class RandomGraph:
    """A graph with one scalar output "loss", and numbers to run it with: sizes of its symbols, inputs and state."""

    seed: int
    graph: Graph
    sizes: Mapping[str, int]
    inputs: Mapping[str, np.ndarray]
    state: Mapping[str, np.ndarray]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Inputs and state by name."""
        return {**self.inputs, **self.state}


def random_graph(seed: int, dtype: str = "") -> RandomGraph:
    """The same graph and numbers for the same seed, on every machine. dtype: of its floats, instead of a drawn one."""
    growth = Growth(seed, dtype)
    growth.grow()
    graph = growth.net.build(growth.outputs())
    for n in (growth.batch, trial.BATCH, 8, 32):
        with suppress(GraphError):  # a maximum of nothing, say, or a window that does not fit into what is left of N
            bound, sizes = trial.bound(graph, dict.fromkeys(graph.symbols & {"N"}, n))
            break
    else:
        raise GraphError(f"no batch fits random_graph({seed})")
    arrays = trial.draw(bound, growth.rng, {}, 1.0)
    for name, below in growth.below.items():
        arrays[name] = growth.rng.integers(0, below, arrays[name].shape).astype(arrays[name].dtype)
    inputs = {value.name: arrays[value.name] for value in graph.inputs}
    return RandomGraph(seed, graph, sizes, inputs, {v.name: growth.numbers(v, arrays[v.name]) for v in graph.state})


class Growth:
    """A graph that grows."""

    def __init__(self, seed: int, dtype: str = ""):
        self.rng = np.random.default_rng(seed)
        self.example_of = list(OPS.values())[seed % len(OPS)]
        self.net = Builder(f"random{seed}")
        drawn = self.one_of(["float64"] * 14 + ["float32"] * 5 + [NARROW[seed % 2]])
        self.dtype = dtype or drawn
        self.batch = self.one_of([2, 3, 3, 4, 2, 3, 3, 4, 2, 0])
        self.channels_last = self.yes()
        self.last = self.one_of([0.5, 0.9])  # how often a step reads what came last
        self.found: list[Tensor] = []  # what steps may read
        self.below: dict[str, int] = {}  # of inputs of whole numbers
        self.weights: list[Tensor] = []
        self.numbers_of_names = itertools.count()
        self.shared = 0  # scopes with a batch norm that others may share

    # choices

    def one_of(self, choices: Sequence[T]) -> T:
        if not choices:
            raise GraphError("there is nothing to choose from")
        return choices[int(self.rng.integers(len(choices)))]

    def number(self, low: int, high: int) -> int:
        if low > high:
            raise GraphError(f"there is no number from {low} to {high}")
        return int(self.rng.integers(low, high + 1))

    def yes(self, probability: float = 0.5) -> bool:
        return bool(self.rng.random() < probability)

    def eighths(self, shape: Sequence[Any]) -> np.ndarray:
        """Numbers that every float holds exactly."""
        return self.rng.integers(-16, 17, tuple(shape)) / 8.0

    def pick(self, *ranks: int) -> Tensor:
        """A tensor of floats, of one of these ranks: mostly the last one."""
        fits = [t for t in self.found if t.dtype in FLOATS and (not ranks or t.rank in ranks)]
        return self.one_of(fits[-1:] if self.yes(self.last) else fits)

    def axis(self, x: Tensor) -> int:
        """An axis of known size: mostly that of the channels."""
        fits = [i for i in range(x.rank) if isinstance(x.shape[i], int)]
        likely = x.rank - 1 if self.channels_last else 1
        return likely if likely in fits and self.yes(0.75) else self.one_of(fits)

    def layout(self, x: Tensor) -> str:
        """That of the graph, mostly."""
        return LAYOUTS[x.rank][self.channels_last != self.yes(0.15)]

    # growing

    def grow(self) -> None:
        self.image()
        count = self.number(3, 10)
        at = self.number(0, count - 1)
        kinds = [step for weight, step in STEPS for _ in range(weight)]
        for i in range(count):
            if i == at:
                self.step(lambda growth: growth.example(growth.example_of))
            self.step(self.one_of(kinds))

    def step(self, kind: Callable[[Growth], Any]) -> None:
        """One step; what does not fit is left out."""
        try:
            made = kind(self)
        except GraphError:
            return
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            self.found.append(tensor)

    def image(self) -> None:
        rank = self.one_of([2, 3, 4, 4, 4, 5])
        channels, most = self.number(1, 4), {2: 4, 3: 7, 4: 6, 5: 3}[rank]
        places: list[Any] = [self.number(2, most) for _ in range(rank - 2)]
        if self.yes(0.3):
            places = [channels] * (rank - 2)
        if places and self.yes(0.1):
            places[-1] = "L"
        batch = "N" if self.yes(0.6) else self.number(2, 4)
        shape = (batch, *places, channels) if self.channels_last else (batch, channels, *places)
        for name in ("x", "x2")[: 2 if self.yes(0.3) else 1]:
            self.found.insert(0, self.net.input(name, shape, self.dtype))

    def parameter(self, shape: Sequence[Any], dtype: str, kind: str = "parameter") -> Tensor:
        initializer = self.one_of([mg.init.normal(0.7), mg.init.ones, mg.init.zeros])
        return self.net.variable(f"{kind[0]}{next(self.numbers_of_names)}", tuple(shape), initializer, dtype, kind)

    # what steps are made of

    def fixed(self, shape: Sequence[Any], dtype: str) -> Tensor:
        """Something that may be frozen, or is constant."""
        if self.yes(0.3):
            return self.net.emit(OPS["fill"], (), {"value": self.one_of(NUMBERS), "shape": shape, "dtype": dtype})[0]
        if self.yes(0.2):
            return self.net.constant(self.eighths(shape), dtype)
        return self.parameter(shape, dtype, "statistic" if self.yes(0.1) else "parameter")

    def per_channel(self, x: Tensor, axis: int) -> Tensor:
        """One number for each channel, in a shape that meets x."""
        n = known(x.shape[axis], "channels")
        shape = [n if i == axis else 1 for i in range(x.rank)][0 if self.yes(0.2) else axis :]
        if self.yes(0.3):
            return mg.reshape(self.fixed((n,), x.dtype), shape)
        return self.fixed(shape, x.dtype)

    def weight(self, shape: Sequence[Any], dtype: str) -> Tensor:
        """A parameter; one that is there already, if its type is the same."""
        if 0 in shape:
            raise GraphError("there is nothing to weigh")
        same = [w for w in self.weights if w.shape == tuple(shape) and w.dtype == dtype]
        if same and self.yes():
            return self.one_of(same)
        if self.yes(0.05):
            return self.net.constant(self.eighths(shape), dtype)
        self.weights.append(
            self.net.parameter(f"w{next(self.numbers_of_names)}", tuple(shape), mg.init.he_normal(tuple(shape)), dtype)
        )
        return self.weights[-1] * self.one_of(NUMBERS[2:]) if self.yes(0.05) else self.weights[-1]

    def biased(self, y: Tensor, axis: int) -> Tensor:
        return y + self.per_channel(y, axis) if self.yes(0.4) else y

    def bounded(self, x: Tensor) -> Tensor:
        return self.one_of([mg.tanh, mg.sin])(x) * 0.875

    def positive(self, x: Tensor) -> Tensor:
        return mg.sigmoid(x) + 0.25 if self.yes() else mg.square(x) + 0.5

    def geometry(self, x: Tensor, layout: str) -> tuple[int, dict[str, Any]]:
        if 0 in x.shape:
            raise GraphError("there is nothing to look at")
        rank = x.rank - 2
        places = [x.shape[i] for i, letter in enumerate(layout) if letter not in "NC"]
        window = [self.number(1, min(3, n) if isinstance(n, int) else 2) or 1 for n in places]
        if self.yes(0.2):
            window = [1] * rank
        padding: Any = self.one_of(
            [0, 0, "same", 1, [(self.number(0, k - 1), self.number(0, k - 1)) for k in window]],
        )
        stride = [self.one_of([1, 1, 2]) for _ in window]
        dilation = [self.one_of([1, 1, 2]) if k > 1 else 1 for k in window]
        return layout.index("C"), {
            "window": window,
            "padding": padding,
            "stride": stride,
            "dilation": dilation,
            "layout": layout,
        }

    # steps

    def conv(self, transposed: bool = False) -> Tensor:
        x = self.pick(3, 4, 5)
        axis, geometry = self.geometry(x, self.layout(x))
        channels, window = known(x.shape[axis], "channels"), geometry.pop("window")
        groups = self.one_of([n for n in (1, 1, 2, 3, channels) if n and channels % n == 0] or [1])
        outputs = channels if channels % groups == 0 and self.yes(0.3) else groups * self.number(1, 3)
        shape = (channels, outputs // groups) if transposed else (outputs, channels // groups)
        op = mg.conv_transpose if transposed else mg.conv
        if transposed and geometry["padding"] != "same" and self.yes(0.3):
            geometry["output_padding"] = [s - 1 for s in geometry["stride"]]
        y = op(x, self.weight((*shape, *window), x.dtype), groups=groups, **geometry)
        return self.biased(y, axis)

    def conv_transpose(self) -> Tensor:
        return self.conv(transposed=True)

    def linear(self) -> Tensor:
        x = self.pick(2, 3, 4)
        inputs, features = known(x.shape[-1], "features"), self.number(1, 4)
        kind = self.number(0, 3)
        if kind == 0:
            rows = known(x.shape[-2], "rows")
            return self.biased(mg.matmul(self.weight((features, rows), x.dtype), x), x.rank - 2)
        if kind == 1:
            return self.biased(mg.matmul(x, self.weight((inputs, features), x.dtype)), x.rank - 1)
        return self.biased(mg.matmul(x, mg.transpose(self.weight((features, inputs), x.dtype))), x.rank - 1)

    def layer(self) -> Tensor:
        x = self.pick()
        if x.rank == 4 and self.yes(0.7):
            if self.yes(0.3):
                return layers.depthwise_conv2d(
                    x, 2, multiplier=self.number(1, 2), bias=self.yes(), padding=self.number(0, 1)
                )
            return layers.conv2d(x, self.number(1, 4), self.number(1, 3), padding=self.number(0, 1), bias=self.yes())
        return layers.linear(x, self.number(1, 4), bias=self.yes())

    def batch_norm(self) -> Tensor | tuple[Tensor, ...]:
        x = self.pick(2, 3, 4, 5)
        axis, eps = self.axis(x), self.one_of([1e-5, 1e-3, 0.1])
        if self.yes(0.1):
            c, dtype = known(x.shape[axis], "channels"), wide_dtype(x.dtype)
            return OPS["batch_norm"](x, self.fixed((c,), dtype), self.fixed((c,), dtype), axis=axis, eps=eps)
        track = self.yes(0.85)
        options = {
            "axis": axis,
            "eps": eps,
            "momentum": self.one_of([0.1, 0.5, 1.0, None]),
            "gamma": self.yes(0.7),
            "beta": self.yes(0.7),
            "unbiased": self.yes(),
            "track": track,
            "frozen": track and self.yes(0.3),
        }
        if self.yes(0.7):
            return layers.batch_norm(x, **options)  # type: ignore[arg-type]
        if self.shared == 0 or self.yes():
            self.shared += 1
        with self.net.scope(f"shared{self.number(1, self.shared)}", share=True):
            return layers.batch_norm(x, **options, name=f"bn{x.shape[axis]}.{x.dtype}")  # type: ignore[arg-type]

    def scale(self) -> Tensor:
        x = self.pick()
        s = self.per_channel(x, self.axis(x)) if x.rank and self.yes(0.8) else self.fixed((), x.dtype)
        return x * s if self.yes() else s * x

    def shift(self) -> Tensor:
        x = self.pick()
        t = self.per_channel(x, self.axis(x)) if x.rank and self.yes(0.8) else self.fixed((), x.dtype)
        return self.one_of([lambda: x + t, lambda: t + x, lambda: x - t, lambda: t - x])()

    def block(self) -> tuple[()]:
        """A layer with weights and a norm, a scale or a shift, one behind the other, and what may lie between them."""
        before, self.last = self.last, 1.0
        weight = self.one_of([Growth.conv, Growth.conv, Growth.linear, Growth.branches, Growth.conv_transpose])
        norm = self.one_of([Growth.batch_norm, Growth.batch_norm, Growth.scale, Growth.shift])
        between = [self.one_of(BETWEEN) for _ in range(self.number(0, 2))]
        for kind in [weight, *between, norm] if self.yes(0.6) else [norm, *between, weight]:
            self.step(kind)
        self.last = before
        return ()

    def relu(self) -> Tensor:
        return mg.relu(self.pick())

    def unary(self) -> Tensor:
        x, kind = self.pick(), self.number(0, 3)
        if kind == 0:
            return OPS[self.one_of(BOUNDED)](self.bounded(x))
        if kind == 1:
            return OPS[self.one_of(POSITIVE)](self.positive(x))
        return OPS[self.one_of(PLAIN)](x)

    def binary(self) -> Tensor:
        x = self.pick()
        same = [t for t in self.found if t.value.type == x.value.type]
        y = (
            self.one_of(same)
            if self.yes(0.7)
            else self.fixed([n if isinstance(n, int) else 1 for n in x.shape], x.dtype)
        )
        kind = self.one_of(["add", "add", "sub", "mul", "maximum", "minimum", "div", "mod", "fmod", "pow", "prelu"])
        if kind == "pow":
            return mg.pow(self.positive(self.bounded(x)), self.bounded(y))
        return OPS[kind](x, self.positive(y) if kind in ("div", "mod", "fmod") else y)

    def residual(self) -> Tensor:
        """x + f(x), where f keeps the shape."""
        x = self.pick(2, 3, 4)
        c = known(x.shape[1], "channels")
        y = x
        if x.rank > 2:
            w = self.weight((c, c, *(1,) * (x.rank - 2)), x.dtype)
            y = self.biased(mg.conv(y, w), 1)
        else:
            y = self.biased(mg.matmul(y, self.weight((c, c), x.dtype)), 1)
        if self.yes():
            y = layers.batch_norm(y, frozen=self.yes(0.3))
        return x + y if self.yes() else y + x

    def branches(self) -> Tensor:
        """Two layers that read one value and meet again."""
        x = self.pick(2, 3, 4)
        axis = self.axis(x) if x.rank == 2 else self.one_of([1, x.rank - 1])
        inputs, outputs = known(x.shape[axis], "channels"), self.number(1, 4)
        layout = None if x.rank == 2 else LAYOUTS[x.rank][axis != 1]

        def branch() -> Tensor:
            if layout is None:
                return self.biased(mg.matmul(x, self.weight((inputs, outputs), x.dtype)), 1)
            w = self.weight((outputs, inputs, *(1,) * (x.rank - 2)), x.dtype)
            return self.biased(mg.conv(x, w, layout=layout), axis)

        a, b = branch(), branch()
        ways: list[Callable[[], Tensor]] = [
            lambda: a + b,
            lambda: a - b,
            lambda: mg.concat([a, b], axis=axis),
            lambda: mg.concat([a, x, b], axis=axis),
            lambda: a / self.positive(self.per_channel(b, axis)),
            lambda: self.per_channel(a, axis) - a,
            lambda: a * self.per_channel(a, axis),
            lambda: mg.matmul(mg.reshape(a, (a.shape[0], outputs, -1)), self.weight((3, 2), x.dtype)),
        ]
        y = self.one_of(ways)()
        after = self.number(0, 3) if y.rank == x.rank else 3
        if after == 0:
            return layers.batch_norm(y, axis=axis, frozen=self.yes())
        return y * self.per_channel(y, axis) if after == 1 else y

    def concat(self) -> Tensor:
        x = self.pick()
        axis = self.axis(x)
        fits = [
            t
            for t in self.found
            if t.dtype == x.dtype
            and t.rank == x.rank
            and all(i == axis or a == b for i, (a, b) in enumerate(zip(t.shape, x.shape)))
        ]
        return mg.concat([x, *(self.one_of(fits) for _ in range(self.number(0, 2)))], axis=axis)

    def pool(self) -> Tensor:
        x = self.pick(3, 4, 5)
        _, geometry = self.geometry(x, self.layout(x))
        if geometry["padding"] == 1 or geometry["padding"] == "same":
            geometry["padding"] = [
                (k // 2, k // 2) if d == 1 else (0, 0) for k, d in zip(geometry["window"], geometry["dilation"])
            ]
        if self.yes(0.2):
            return mg.global_avg_pool(x, layout=geometry["layout"], keepdims=self.yes())
        if self.yes():
            return mg.max_pool(x, **geometry, ceil_mode=self.yes(0.2))
        return mg.avg_pool(x, **geometry, count_include_pad=self.yes(0.3))

    def pad(self) -> Tensor:
        x = self.pick(2, 3, 4, 5)
        widths = [
            (0, 0) if i in (0, 1) and self.yes(0.9) else (self.number(0, 1), self.number(0, 2)) for i in range(x.rank)
        ]
        y = mg.pad(x, widths, value=self.one_of([0.0, 0.0, 0.0, 0.5]))
        if y.rank > 2 and self.yes():
            layout = self.layout(x)
            c = known(y.shape[layout.index("C")], "channels")
            w = self.weight((self.number(1, 3), c, *(self.number(1, 2) for _ in range(x.rank - 2))), x.dtype)
            return mg.conv(y, w, padding=self.number(0, 1), layout=layout)
        return y

    def reshape(self) -> Tensor:
        x = self.pick(2, 3, 4, 5)
        kind = self.number(0, 4)
        if kind == 0:
            return mg.flatten(x)
        if kind == 1:
            return mg.reshape(x, (x.shape[0], -1, x.shape[-1]))
        if kind == 2:
            return mg.reshape(mg.flatten(x), x.shape)
        if kind == 3:
            return mg.reshape(x, (*x.shape[:1], 1, *x.shape[1:]))
        return mg.reshape(x, (*x.shape[:-2], x.shape[-1], x.shape[-2]))

    def transpose(self) -> Tensor:
        x = self.pick(2, 3, 4, 5)
        axes = [int(i) for i in self.rng.permutation(x.rank)]
        if self.batch == 0:  # a window needs something to look at
            axes = [0, *(i for i in axes if i)]
        if self.yes(0.4):
            axes = [0, *range(2, x.rank), 1] if self.yes() else [0, x.rank - 1, *range(1, x.rank - 1)]
        y = mg.transpose(x, axes)
        return mg.transpose(y, [int(i) for i in np.argsort(axes)]) if self.yes(0.3) else y

    def dropout(self) -> Tensor:
        return layers.dropout(self.pick(), self.one_of([0.0, 0.3, 0.5]))

    def slice(self) -> Tensor:
        x = self.pick(2, 3, 4, 5)
        axis = self.axis(x)
        if self.yes(0.3):
            return mg.flip(x, axis)
        n = known(x.shape[axis], "size")
        start = self.number(0, n - 1)
        return OPS["slice"](
            x,
            start=[start if i == axis else None for i in range(x.rank)],
            stop=[self.number(start + 1, n) if i == axis else None for i in range(x.rank)],
        )

    def reduce(self) -> Tensor:
        x = self.pick(1, 2, 3, 4)
        op = OPS[self.one_of(["sum", "mean", "max", "min", "logsumexp", "var", "std", "prod"])]
        axes = [i for i in range(x.rank) if self.yes()] or None
        if op.name == "prod":  # its gradient needs to know how many factors there are
            return op(self.bounded(x), axes=self.axis(x), keepdims=self.yes())
        return op(x, axes=axes, keepdims=self.yes())

    def choose(self) -> Tensor:
        x = self.pick()
        mask = OPS[self.one_of(["less", "less_equal", "equal"])](x, self.fixed((), x.dtype))
        if self.yes(0.3):
            mask = mg.logical_not(mask) if self.yes() else mg.logical_and(mask, mg.less(mg.sin(x), 0.5))
        if self.yes(0.2):
            return mg.cast(mask, x.dtype)
        return mg.where(mask, x, self.one_of([t for t in self.found if t.value.type == x.value.type]))

    def cast(self) -> Tensor:
        x = self.pick()
        other = self.one_of(["float64", "float32", "float64", "int32"])
        return mg.cast(mg.cast(x, other), x.dtype if self.yes(0.9) else self.one_of(FLOATS))

    def normalize(self) -> Tensor:
        x = self.pick(2, 3, 4)
        kind = self.number(0, 5)
        if kind == 0:
            return layers.layer_norm(x, axis=-1, beta=self.yes())
        if kind == 1:
            return layers.group_norm(x, self.one_of([1, 1, 2]), axis=self.axis(x), gamma=self.yes())
        if kind == 2:
            return layers.rms_norm(x)
        if kind == 3:
            return layers.prelu(x, axis=self.axis(x))
        return (mg.softmax if kind == 4 else mg.log_softmax)(x, axis=self.axis(x))

    def nothing(self) -> Tensor:
        """What changes nothing, or nearly: to be taken out."""
        x = self.pick()
        one, zero = self.one_of(NUMBERS), self.net.constant(0.0, x.dtype)
        ways: list[Callable[[], Tensor]] = [
            lambda: x * 1.0,
            lambda: x + 0.0,
            lambda: x - 0.0,
            lambda: x / 1.0,
            lambda: 0.0 - x,
            lambda: mg.neg(mg.neg(x)),
            lambda: x * -1.0,
            lambda: x * 0.0,
            lambda: x - x,
            lambda: mg.maximum(x, x),
            lambda: mg.power(x, 1),
            lambda: mg.power(x, 2),
            lambda: x * one * self.one_of(NUMBERS),
            lambda: x + one + self.one_of(NUMBERS),
            lambda: (x + one) * self.one_of(NUMBERS),
            lambda: mg.cast((mg.cast(x, "int32") + 3 + 4) * self.one_of([1, 2]) * 5, x.dtype),
            lambda: x * 2.0 * 4.0,
            lambda: mg.relu(mg.relu(x)),
            lambda: mg.relu(mg.abs(x)),
            lambda: mg.stop_gradient(x) + x,
            lambda: mg.where(mg.less(zero, zero + 1.0), x, -x),
            lambda: mg.where(mg.logical_not(mg.logical_not(mg.less(x, zero))), x, one),
            lambda: mg.broadcast_to(x, x.shape),
            lambda: mg.broadcast_to(mg.broadcast_to(x, (2, *x.shape)), (3, 2, *x.shape)),
            lambda: mg.sum(x, axes=()),
            lambda: mg.concat([x]),
            lambda: mg.pad(mg.pad(y := self.pick(2, 3, 4), [(0, 1)] * y.rank), [(1, 0)] * y.rank),
            lambda: mg.reshape(mg.expand_dims(x, 0), x.shape),
            lambda: mg.clip(mg.clip(x, low=-1.0), high=one),
            lambda: mg.mean(mg.broadcast_to(x, (2, *x.shape)), 0),
        ]
        return self.one_of(ways)()

    def again(self) -> Tensor:
        """What is there already, computed once more."""
        node = self.one_of([n for n in self.net.nodes if n.outputs[0].type.is_float])
        return self.net.emit(node.op, [Tensor(self.net, v) for v in node.inputs], node.attrs)[0]

    def any_op(self) -> Any:
        return self.example(self.one_of(list(OPS.values())))

    def example(self, op: Op) -> Any:
        """An example of the op, whose inputs depend on what is there."""
        if op.name == "dropout":
            return layers.dropout(self.pick(), 0.4)
        if op.name == "random_bits":
            seed, step, stream = self.net.random_stream()
            return op(seed, step, shape=(2, 3), stream=stream)
        filled = [e for e in op.examples if all(0 not in s.shape for s in e.inputs)]
        example: Example = self.one_of(filled if filled and self.yes(0.9) else op.examples)
        inputs = [self.sample(s) for s in example.inputs]
        made = self.net.emit(op, inputs, example.attrs)
        return made[: self.number(1, len(made))]

    def sample(self, sample: Sample) -> Tensor:
        dtype, shape = sample.in_dtype(self.dtype), sample.shape
        if dtype in FLOATS:
            y = self.fixed(shape, dtype)
            if self.yes(0.7):
                y = y + mg.sum(mg.sin(mg.cast(self.pick(), dtype)) * 0.25)
            if (sample.low, sample.high) == (-2.0, 2.0):
                return y
            return mg.sigmoid(y) * (sample.high - sample.low) + sample.low
        if dtype == "bool":
            return mg.less(self.fixed(shape, self.dtype), self.parameter((), self.dtype))
        if self.yes(0.3):
            name = f"i{next(self.numbers_of_names)}"
            self.below[name] = int(sample.high)
            return self.net.input(name, shape, dtype)
        return self.net.constant(self.rng.integers(int(sample.low), int(sample.high), shape).astype(dtype))

    # the end

    def outputs(self) -> dict[str, Tensor]:
        """The loss, in which all floats meet that nothing reads; sometimes these as well, and what lies in between."""
        read = {v for node in self.net.nodes for v in node.inputs}
        ends = [t for t in dict.fromkeys(self.found) if t.value not in read]
        floats = [t for t in ends if t.dtype in FLOATS] or [self.found[0]]
        others = [t for t in ends if t.dtype not in FLOATS]
        shown = [*others, *(floats if self.yes() else ())]
        if self.yes(0.3):
            shown.append(self.one_of(self.found))
        loss = self.net.constant(0.0, self.dtype)
        for t in floats:
            shape = [1 if symbolic((n,)) else n for n in t.shape]
            each = t * self.net.constant(self.eighths(shape), t.dtype) + mg.square(t) * 0.125
            loss = loss + mg.cast(mg.sum(each), self.dtype)
        return {"loss": loss, **{f"y{i}": t for i, t in enumerate(shown)}}

    def numbers(self, variable: Variable, drawn: np.ndarray) -> np.ndarray:
        """The numbers of a state: signs and zeros in them decide what passes may do."""
        if variable.kind not in ("parameter", "statistic"):
            return drawn
        array, begins = np.array(drawn), variable.initializer
        if variable.kind == "statistic" and isinstance(begins, Constant) and begins.value == 1:
            return np.abs(array)  # a variance
        kind = self.rng.random()
        if kind < 0.1:
            array[self.rng.random(array.shape) < 0.4] = 0
        elif kind < 0.35:
            array = np.abs(array)
        elif kind < 0.4:
            array = np.zeros_like(array)
        elif kind < 0.45:
            array = np.ones_like(array)
        return array


BETWEEN: tuple[Callable[[Growth], Any], ...] = (
    Growth.scale,
    Growth.shift,
    Growth.relu,
    Growth.pool,
    Growth.concat,
    Growth.reshape,
    Growth.transpose,
    Growth.pad,
    Growth.binary,
    Growth.dropout,
)
STEPS: tuple[tuple[int, Callable[[Growth], Any]], ...] = (
    (12, Growth.block),
    (6, Growth.conv),
    (2, Growth.conv_transpose),
    (3, Growth.linear),
    (4, Growth.layer),
    (6, Growth.batch_norm),
    (5, Growth.scale),
    (5, Growth.shift),
    (4, Growth.relu),
    (3, Growth.unary),
    (3, Growth.binary),
    (3, Growth.residual),
    (5, Growth.branches),
    (3, Growth.concat),
    (3, Growth.pool),
    (3, Growth.pad),
    (3, Growth.reshape),
    (3, Growth.transpose),
    (2, Growth.dropout),
    (1, Growth.slice),
    (1, Growth.reduce),
    (1, Growth.choose),
    (1, Growth.cast),
    (1, Growth.normalize),
    (4, Growth.nothing),
    (2, Growth.again),
    (1, Growth.any_op),
)
