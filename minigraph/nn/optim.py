"""Optimizers and learning-rate schedules, as nodes.

An optimizer is a recipe. `apply` puts its update nodes into a graph: slots (momentum and the like) are state with the
layout of their parameter, the step counter is state, schedules are computed from it. Names of slots begin with
"optimizer.": optimizer.step, optimizer.conv1.weight.velocity.

The learning rate is a number, a schedule (any function from the step, a float64 scalar that begins at 0, to a tensor of
that dtype), or a string: the name of an input that is given at each step.

Weight decay leaves alone what has fewer than two axes: biases, and gamma and beta of norms. `decay` names others
by pattern ("*.weight").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import KW_ONLY, dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from minigraph.core.builder import Builder, Tensor
from minigraph.core.dtypes import wide_dtype
from minigraph.core.errors import expect
from minigraph.core.initial import Constant
from minigraph.core.ir import Value
from minigraph.ops import broadcast
from minigraph.ops.pointwise import cast, cos, equal, exp, less, maximum, sqrt, where

Schedule = Callable[[Tensor], Tensor]
Rate = float | str | Schedule
PREFIX = "optimizer"


# schedules


def constant(rate: float) -> Schedule:
    return lambda step: step.builder.constant(rate, step.dtype)


def exponential(rate: float, factor: float, every: int = 1) -> Schedule:
    """rate * factor^(step / every)."""
    expect(factor > 0 and every > 0, "factor and every are above 0, not {} and {}", factor, every)
    return lambda step: rate * exp(step * (math.log(factor) / every))


def piecewise(rates: Sequence[float], boundaries: Sequence[int]) -> Schedule:
    """rates[0] before step boundaries[0], rates[1] before boundaries[1], ..., the last rate from then on."""
    expect(
        len(rates) == len(boundaries) + 1 and list(boundaries) == sorted(boundaries),
        "n rates need n - 1 boundaries in order, got {} and {}",
        list(rates),
        list(boundaries),
    )

    def schedule(step: Tensor) -> Tensor:
        value = step.builder.constant(rates[-1], step.dtype)
        for rate, boundary in reversed(list(zip(rates, boundaries))):
            value = where(less(step, float(boundary)), rate, value)
        return value

    return schedule


def cosine(rate: float, steps: int, *, final: float = 0.0) -> Schedule:
    """Half a cosine from `rate` at step 0 to `final` at `steps`, and `final` after that."""
    expect(steps > 0, "steps is above 0, not {}", steps)

    def schedule(step: Tensor) -> Tensor:
        part = where(less(step, float(steps)), step * (1 / steps), 1.0)
        return final + (rate - final) * 0.5 * (1.0 + cos(part * math.pi))

    return schedule


def warmup(steps: int, then: Rate) -> Schedule:
    """A linear rise over `steps` steps to what `then` gives at its own step 0.

    `then` counts from the end of the rise.
    """
    expect(
        steps > 0 and not isinstance(then, str), "warmup takes a number of steps above 0, and a number or a schedule"
    )
    schedule = then if callable(then) else constant(float(then))

    def risen(step: Tensor) -> Tensor:
        after = where(less(step, float(steps)), 0.0, step - float(steps))
        return schedule(after) * where(less(step, float(steps)), (step + 1.0) * (1 / steps), 1.0)

    return risen


# optimizers


def updating(builder: Builder) -> AbstractContextManager[object]:
    """Nodes made inside belong to the update, and their names begin with "optimizer."."""
    stack = ExitStack()
    stack.enter_context(builder.root())
    stack.enter_context(builder.scope(PREFIX))
    stack.enter_context(builder.origin(role="update", scope=PREFIX))
    return stack


def slot(builder: Builder, name: str, parameter: Tensor) -> Tensor:
    """State of the parameter's shape and dtype that begins at 0."""
    return builder.variable(name, parameter.shape, Constant(0.0), parameter.dtype, "slot")


@dataclass(frozen=True)
class Optimizer:
    """What all have: `apply`, which adds the update of each parameter. Subclasses say how one parameter moves.

    A subclass defines `step(builder, parameter, gradient, rate, time)`: inside the parameter's scope it makes its slots
    with `slot`, updates them, and returns what is taken from the parameter. `time` is the number of this step, from 1,
    a float64 scalar. The others have the parameter's dtype, but float32 where that is narrow: the smallest number of
    float16 is larger than the eps of some, and bfloat16 has few digits.

    weight_decay: adds weight_decay * w to the gradient (an L2 penalty). decay: a pattern over the names of parameters.
    """

    decoupled: ClassVar[bool] = False  # weight decay goes past the gradient
    rate: Rate
    _: KW_ONLY
    weight_decay: float = 0.0
    decay: str | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.rate, (int, float)) and math.isfinite(self.rate) and self.rate >= 0
        name = isinstance(self.rate, str) and not self.rate[:1].isdigit()
        fits = number or name or callable(self.rate)
        expect(fits, "a learning rate is 0 or more, a schedule or the name of an input, not {!r}", self.rate)
        expect(self.weight_decay >= 0, "weight_decay is 0 or more, not {}", self.weight_decay)

    def step(self, builder: Builder, parameter: Tensor, gradient: Tensor, rate: Tensor, time: Tensor) -> Tensor:
        raise NotImplementedError

    def decays(self, parameter: Tensor) -> bool:
        """Whether weight decay takes hold: of what the pattern names, else of what has two axes or more."""
        if not self.weight_decay:
            return False
        return parameter.rank >= 2 if self.decay is None else fnmatchcase(parameter.name, self.decay)

    def apply(self, builder: Builder, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Add the update of each parameter by its gradient."""
        named = self.decay is None or any(map(self.decays, parameters)) or not self.weight_decay
        expect(named, "weight decay is for {!r}, and no parameter that is trained is called so", self.decay)
        with updating(builder):
            counter = builder.variable("step", (), Constant(0), "int64", "counter")
            builder.update(counter, counter + 1)
            now = cast(counter, "float64")
            rates, time = self._rates(builder, now, dict.fromkeys(wide_dtype(p.dtype) for p in parameters)), now + 1.0
            for parameter, gradient in zip(parameters, gradients, strict=True):
                free = builder.latest(parameter).value is parameter.value
                expect(free, "{} is updated by the model itself; leave it out with trainable=", parameter.value)
                with builder.scope(parameter.name):
                    dtype = wide_dtype(parameter.dtype)
                    rate, w, g = rates[dtype], cast(parameter, dtype), cast(gradient, dtype)
                    decays = self.decays(parameter)
                    if decays and not self.decoupled:
                        g = g + w * self.weight_decay
                    moved = self.step(builder, w, g, rate, time)
                    if decays and self.decoupled:
                        moved = moved + w * (rate * self.weight_decay)
                    builder.update(parameter, cast(w - moved, parameter.dtype))

    def _rates(self, builder: Builder, now: Tensor, dtypes: Iterable[str]) -> dict[str, Tensor]:
        """The learning rate of this step, in each dtype."""
        if isinstance(self.rate, (int, float)):
            return {dtype: builder.constant(float(self.rate), dtype) for dtype in dtypes}
        if isinstance(self.rate, str):
            with builder.root():
                rate = builder.input(self.rate, (), "float64")
        else:
            rate = self.rate(now)
            expect(isinstance(rate, Tensor), "a schedule makes a tensor of its step, not {!r}", rate)
        return {dtype: cast(rate, dtype) for dtype in dtypes}


@dataclass(frozen=True)
class SGD(Optimizer):
    """w - rate * g. With momentum v = momentum * v + g, and w - rate * v; Nesterov: w - rate * (g + momentum * v)."""

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 <= self.momentum < 1, "momentum is at least 0 and less than 1, not {}", self.momentum)
        expect(self.momentum > 0 or not self.nesterov, "Nesterov's method needs a momentum above 0")

    def step(self, builder: Builder, parameter: Tensor, gradient: Tensor, rate: Tensor, time: Tensor) -> Tensor:
        if not self.momentum:
            return gradient * rate
        velocity = slot(builder, "velocity", parameter)
        new = velocity * self.momentum + gradient
        builder.update(velocity, new)
        return (gradient + new * self.momentum if self.nesterov else new) * rate


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """s = rho * s + (1 - rho) * g^2, and w - rate * g / (sqrt(s) + eps) (Tieleman and Hinton 2012).

    With momentum, v = momentum * v + g / (sqrt(s) + eps), and w - rate * v.
    """

    rho: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 <= self.rho < 1, "rho is at least 0 and less than 1, not {}", self.rho)
        expect(0 <= self.momentum < 1, "momentum is at least 0 and less than 1, not {}", self.momentum)
        expect(self.eps >= 0, "eps is 0 or more, not {}", self.eps)

    def step(self, builder: Builder, parameter: Tensor, gradient: Tensor, rate: Tensor, time: Tensor) -> Tensor:
        square = slot(builder, "square", parameter)
        new = square * self.rho + gradient * gradient * (1 - self.rho)
        builder.update(square, new)
        direction = gradient / (sqrt(new) + self.eps)
        if not self.momentum:
            return direction * rate
        velocity = slot(builder, "velocity", parameter)
        moved = velocity * self.momentum + direction
        builder.update(velocity, moved)
        return moved * rate


@dataclass(frozen=True)
class Adam(Optimizer):
    """Kingma and Ba 2015: averages m of g and v of g^2, corrected for their beginning at 0.

    w - rate * m^ / (sqrt(v^) + eps). The penalty of weight_decay passes through the averages; AdamW's does not.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        betas = 0 < self.beta1 < 1 and 0 < self.beta2 < 1
        expect(betas, "betas lie between 0 and 1, not {} and {}", self.beta1, self.beta2)
        expect(self.eps >= 0, "eps is 0 or more, not {}", self.eps)

    def step(self, builder: Builder, parameter: Tensor, gradient: Tensor, rate: Tensor, time: Tensor) -> Tensor:
        m, v = slot(builder, "m", parameter), slot(builder, "v", parameter)
        new_m = m * self.beta1 + gradient * (1 - self.beta1)
        new_v = v * self.beta2 + gradient * gradient * (1 - self.beta2)
        builder.update(m, new_m)
        builder.update(v, new_v)
        # in float64, since 1 - beta^t is a small difference
        size1, size2 = (cast(1.0 - exp(time * math.log(beta)), parameter.dtype) for beta in (self.beta1, self.beta2))
        return new_m * (rate / size1) / (sqrt(new_v) / sqrt(size2) + self.eps)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): w also loses rate * weight_decay * w."""

    decoupled: ClassVar[bool] = True
    _: KW_ONLY
    weight_decay: float = 0.01


# around the optimizer


def accumulate(
    builder: Builder, parameters: Sequence[Tensor], gradients: Sequence[Tensor], steps: int
) -> tuple[list[Tensor], Tensor]:
    """The means of the gradients over `steps` runs, and whether this run is the last of them.

    Batch norm still sees each of these smaller batches by itself: its statistics, and its noise, are those of the small
    batch.
    """
    part = builder.variable("part", (), Constant(0), "int64", "counter")
    last = equal(part, steps - 1)
    builder.update(part, where(last, 0, part + 1))
    means = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        with builder.scope(parameter.name):
            total = slot(builder, "accumulated", parameter)
            mean = total + gradient * (1 / steps)
            builder.update(total, where(last, 0.0, mean))
            means.append(mean)
    return means, last


def only_if(builder: Builder, condition: Tensor, before: Mapping[Value, Value]) -> None:
    """Every update that is not among those `before` happens only where the condition holds."""
    for state, new in builder.updates.items():
        if before.get(state) is not new:
            old = Tensor(builder, state)
            builder.update(old, where(condition, Tensor(builder, new), old))


def clip_by_norm(gradients: Sequence[Tensor], limit: float) -> list[Tensor]:
    """All gradients scaled down together where their joint Euclidean norm, in float64, is above `limit`."""
    expect(limit > 0, "the limit is above 0, not {}", limit)
    total = gradients[0].builder.constant(0.0, "float64")
    for g in gradients:
        total = total + cast(broadcast.sum(g * g), "float64")
    norm = sqrt(total)
    scale = limit / maximum(norm, limit)  # 1 below the limit; a NaN stays one, and is seen
    return [g * cast(scale, g.dtype) for g in gradients]
