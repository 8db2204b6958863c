"""What ops say of the inputs in which they are linear, channel by channel: it is proved, and no other axis would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

import minigraph as mg
from minigraph.core import proof
from minigraph.core.builder import Builder, Tensor
from minigraph.core.op import Example, Op, Sample, Weight, real
from minigraph.core.rewrite import rewrite
from minigraph.passes import fold_after, fold_before
from rules import numbers, prove

DECLARED = [op for op in mg.OPS.values() if op.weights]

# Beside the examples of the ops. All sizes differ, so that a wrong axis does not fit ...
DIFFERENT: dict[str, tuple[Example, ...]] = {
    "conv": (
        Example(real(2, 3, 6), real(4, 3, 2)),
        Example(real(2, 6, 3), real(4, 3, 2), layout="NLC"),
        Example(real(1, 6, 5, 4), real(9, 2, 2, 3), groups=3, stride=(2, 1)),
        Example(real(1, 5, 4, 6), real(9, 2, 2, 3), groups=3, dilation=(2, 1), layout="NHWC"),
        Example(real(2, 3, 4, 5), real(6, 1, 2, 2), groups=3, padding=1),
        Example(real(1, 4, 3, 5, 2), real(6, 2, 2, 1, 2), groups=2),
        Example(real(1, 3, 5, 2, 4), real(6, 2, 2, 1, 2), groups=2, layout="NDHWC"),
    ),
    "conv_transpose": (
        Example(real(2, 3, 5), real(3, 4, 2)),
        Example(real(2, 5, 3), real(3, 4, 2), layout="NLC", stride=2),
        Example(real(1, 6, 3, 4), real(6, 2, 2, 3), groups=3, stride=(2, 1)),
        Example(real(1, 3, 4, 6), real(6, 2, 2, 3), groups=3, padding=1, layout="NHWC"),
        Example(real(2, 3, 4, 5), real(3, 2, 2, 2), groups=3),
        Example(real(1, 4, 3, 5, 2), real(4, 3, 2, 1, 2), groups=2),
        Example(real(1, 3, 5, 2, 4), real(4, 3, 2, 1, 2), groups=2, layout="NDHWC"),
    ),
    "matmul": (
        Example(real(2, 3), real(3, 4)),
        Example(real(5, 2, 3), real(3, 4)),
        Example(real(2, 3), real(5, 3, 4)),
        Example(real(5, 2, 3), real(5, 3, 4)),
        Example(real(6, 1, 2, 3), real(5, 3, 4)),
    ),
}
# ... and all sizes are the same, so that only the numbers tell a wrong axis.
EQUAL: dict[str, tuple[Example, ...]] = {
    "conv": (
        Example(real(2, 2, 2), real(2, 2, 1)),
        Example(real(2, 2, 2, 2), real(2, 2, 1, 1), layout="NHWC"),
        Example(real(4, 4, 4), real(4, 2, 1), groups=2),
    ),
    "conv_transpose": (
        Example(real(2, 2, 2), real(2, 2, 1)),
        Example(real(2, 2, 2, 2), real(2, 2, 1, 1), layout="NHWC"),
        Example(real(4, 4, 4), real(4, 2, 1), groups=2),
    ),
    "matmul": (
        Example(real(2, 2), real(2, 2)),
        Example(real(2, 2, 2), real(2, 2)),
        Example(real(2, 2), real(2, 2, 2)),
        Example(real(2, 2, 2), real(2, 2, 2)),
    ),
}
Side = Callable[["Trial"], Tensor]


class Trial:
    """An application of an op under construction, with numbers for the channels: those of the result, and of the data.

    s: a factor for each channel of the result. r, t: a factor and a summand for each channel of the data.
    """

    def __init__(self, op: Op, example: Example, which: int):
        self.net, self.op, self.example = Builder("trial"), op, example
        self.inputs = [self.net.input(f"x{i}", sample.shape) for i, sample in enumerate(example.inputs)]
        node = self.net.emit(op, self.inputs, example.attrs)[0].builder.nodes[-1]
        self.weight = op.weights(tuple(x.value.type for x in self.inputs), **node.attrs)[which]  # type: ignore[misc]
        self.y = node.outputs[0].type
        self.x, self.w = self.inputs[self.weight.data], self.inputs[self.weight.index]
        self.s = self.net.input("s", (self.y.shape[self.weight.axis],))
        self.r = self.net.input("r", (self.x.shape[self.weight.data_axis],))
        self.t = self.net.input("t", (self.x.shape[self.weight.data_axis],))

    def f(self, x: Tensor, w: Tensor) -> Tensor:
        inputs = list(self.inputs)
        inputs[self.weight.data], inputs[self.weight.index] = x, w
        return self.net.emit(self.op, inputs, self.example.attrs)[0]


def along(numbers: Tensor, rank: int, axis: int) -> Tensor:
    return mg.reshape(numbers, tuple(-1 if i == axis else 1 for i in range(rank)))


class Claim(NamedTuple):
    """What an op says of one of the inputs of an example."""

    op: Op
    example: Example
    which: int

    @property
    def weight(self) -> Weight:
        return Trial(*self).weight

    def holds(self, one: Side, other: Side) -> bool:
        """Whether the two are the same tensor, in exact numbers."""
        a, b = Trial(*self), Trial(*self)
        samples = {f"x{i}": sample for i, sample in enumerate(self.example.inputs)}
        samples |= {name: Sample(getattr(a, name).shape) for name in "srt"}
        try:
            proof.prove_same(a.net.build(y=one(a)), b.net.build(y=other(b)), samples)
        except proof.Refuted:
            return False
        return True

    def scales_outputs(self, axis: int | None = None) -> bool:
        """f(x, w * outputs(s)) = s * f(x, w)"""
        at = self.weight.axis if axis is None else axis
        return self.holds(
            lambda a: a.f(a.x, a.w * a.weight.outputs(a.s)),
            lambda a: along(a.s, a.y.rank, at) * a.f(a.x, a.w),
        )

    def scales_inputs(self, axis: int | None = None) -> bool:
        """f(x, w * inputs(r)) = f(r * x, w)"""
        at = self.weight.data_axis if axis is None else axis
        return self.holds(
            lambda a: a.f(a.x, a.w * a.weight.inputs(a.r)),
            lambda a: a.f(along(a.r, a.x.rank, at) * a.x, a.w),
        )

    def shifts(self, axis: int | None = None) -> bool:
        """f(x + t, w) = f(x, w) + shifts(w, t)"""
        at = self.weight.data_axis if axis is None else axis
        return self.holds(
            lambda a: a.f(a.x + along(a.t, a.x.rank, at), a.w),
            lambda a: a.f(a.x, a.w) + along(a.weight.shifts(a.w, a.t), a.y.rank, a.weight.axis),
        )


def claims(op: Op, examples: tuple[Example, ...]) -> Iterator[Claim]:
    for example in examples:
        inputs = [mg.Type(sample.shape, "float32") for sample in example.inputs]
        attrs, _ = op.infer(tuple(inputs), example.attrs)
        for which in range(len(op.weights(tuple(inputs), **attrs))):  # type: ignore[misc]
            yield Claim(op, example, which)


def everything(op: Op) -> list[Claim]:
    return list(claims(op, (*op.examples, *DIFFERENT[op.name], *EQUAL[op.name])))


def test_every_op_with_weights_is_tried_on_sizes_that_differ_and_that_agree() -> None:
    assert {op.name for op in DECLARED} == DIFFERENT.keys() == EQUAL.keys()


@pytest.mark.parametrize("op", DECLARED, ids=lambda op: op.name)
def test_what_an_op_says_is_proved(op: Op) -> None:
    for claim in everything(op):
        assert claim.scales_outputs(), claim
        assert claim.scales_inputs(), claim
        assert not claim.weight.even or claim.shifts(), claim


@pytest.mark.parametrize("op", DECLARED, ids=lambda op: op.name)
def test_a_weight_that_is_not_even_has_shifts_that_are_not_one_number_for_each_channel(op: Op) -> None:
    """In one of the examples at least: in others it may be so by accident, as with an empty batch."""
    uneven = [claim for claim in everything(op) if not claim.weight.even]
    assert uneven
    assert not all(shifts_if_it_fits(claim) for claim in uneven), f"{op.name} could promise more"


def shifts_if_it_fits(claim: Claim) -> bool:
    try:
        return claim.shifts()
    except mg.GraphError:  # a weight with axes in front does not even give so many numbers
        return False


@pytest.mark.parametrize("op", DECLARED, ids=lambda op: op.name)
def test_channels_lie_on_no_other_axis(op: Op) -> None:
    """Not even where it has as many indices."""
    for claim in claims(op, EQUAL[op.name]):
        weight, trial = claim.weight, Trial(*claim)
        for axis in set(range(trial.y.rank)) - {weight.axis}:
            assert not claim.scales_outputs(axis), (claim, axis)
        for axis in set(range(trial.x.rank)) - {weight.data_axis}:
            assert not claim.scales_inputs(axis), (claim, axis)
            assert not weight.even or not claim.shifts(axis), (claim, axis)


@pytest.mark.parametrize("op", DECLARED, ids=lambda op: op.name)
def test_the_channels_of_the_data_are_not_those_of_the_result(op: Op) -> None:
    for claim in claims(op, EQUAL[op.name]):
        assert not claim.holds(
            lambda a: a.f(a.x, a.w * a.weight.inputs(a.s)),
            lambda a: along(a.s, a.y.rank, a.weight.axis) * a.f(a.x, a.w),
        ), claim
        assert not claim.holds(
            lambda a: a.f(a.x, a.w * a.weight.outputs(a.r)),
            lambda a: a.f(along(a.r, a.x.rank, a.weight.data_axis) * a.x, a.w),
        ), claim


@pytest.mark.parametrize("op", DECLARED, ids=lambda op: op.name)
@pytest.mark.parametrize("one_for_all", [False, True], ids=["for each channel", "one for all"])
def test_scales_and_shifts_around_it_are_folded(op: Op, one_for_all: bool) -> None:
    for claim in everything(op):
        graph = surrounded(claim, one_for_all)
        state = numbers(graph, {})
        after = rewrite(graph, (*fold_before.PASS.rules, *fold_after.PASS.rules), state).check()
        applied = next(node for node in after.nodes if node.op is op and after.inputs[0] in node.inputs)
        assert applied.inputs[claim.weight.data] is after.inputs[0], claim
        behind = [node for node in after.nodes if node.op is mg.OPS["mul"] and applied.outputs[0] in node.inputs]
        assert not behind, claim
        prove(graph, after, {}, gradients=False)


def surrounded(claim: Claim, one_for_all: bool) -> mg.Graph:
    """s * f(r * x + t, w), where all but x is state."""
    trial, net = Trial(*claim), Builder("surrounded")

    def number(name: str, like: Tensor, rank: int, axis: int) -> Tensor:
        if one_for_all:
            return net.parameter(name, (), mg.init.zeros)
        return along(net.parameter(name, like.shape, mg.init.zeros), rank, axis)

    weight = trial.weight
    x = net.input("x", trial.x.shape)
    w = net.parameter("w", trial.w.shape, mg.init.zeros)
    r, t = (number(n, getattr(trial, n), trial.x.rank, weight.data_axis) for n in "rt")
    inputs = [x, x]
    inputs[weight.data], inputs[weight.index] = x * r + t, w
    y = net.emit(claim.op, inputs, claim.example.attrs)[0]
    return net.build(y=y * number("s", trial.s, trial.y.rank, weight.axis))
