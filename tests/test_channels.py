"""What ops say of factors and summands of channels: it is proved, and what they do not say is refuted."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

import minigraph as mg
from minigraph.core import proof
from minigraph.core.builder import Tensor
from minigraph.core.ir import Graph
from minigraph.core.op import Channels, Example, Op, Sample

DECLARED = [op for op in mg.OPS.values() if op.channels]
Range = tuple[float, float]
ABOVE_ZERO, BELOW_ZERO, BOTH_SIGNS = (0.1, 2.0), (-2.0, -0.1), (-2.0, 2.0)
BY_NAME = "it has several inputs of data or weights: passes know it"
BACKWARD = "it stands in gradients, which are made after the passes that ask"
SILENT = {  # ops through which any factor passes along an axis, and why they do not say so
    "mul": BY_NAME,
    "div": BY_NAME,
    "matmul": BY_NAME,
    "conv": BY_NAME,
    "conv_transpose": BY_NAME,
    "cast": "it rounds",
    "tf32": "it rounds",
    "batch_norm_gradient": BACKWARD,
    "conv_input_gradient": BACKWARD,
    "max_pool_gradient": BACKWARD,
    "max_pool_select": BACKWARD,
    "avg_pool_gradient": BACKWARD,
    "resize_gradient": BACKWARD,
}


class Claim(NamedTuple):
    """What an op says of an axis of the first input of an example."""

    op: Op
    example: Example
    axis: int
    channels: Channels

    def holds(self, scale: Range | None = None, shift: Range | None = None) -> bool:
        return passes_through(self.op, self.example, self.axis, self.channels.axis, scale, shift)


def applied(op: Op, shapes: list[Any], attrs: dict[str, Any]) -> Tensor:
    builder = mg.Builder("applied")
    return builder.emit(op, [builder.input(f"x{i}", *shape) for i, shape in enumerate(shapes)], attrs)[0]


def ask(y: Tensor, axis: int) -> Channels | None:
    """As a pass asks the node that gave y."""
    node = y.builder.nodes[-1]
    return node.op.passes([value.type for value in node.inputs], node.attrs, axis)


def node_of(op: Op, example: Example) -> Tensor:
    return applied(op, [(s.shape, s.in_dtype("float32")) for s in example.inputs], example.attrs)


def is_of_floats(op: Op, example: Example) -> bool:
    return bool(example.inputs) and example.inputs[0].dtype is None and node_of(op, example).value.type.is_float


def claims(op: Op) -> list[Claim]:
    return [
        Claim(op, example, axis, channels)
        for example in op.examples
        if is_of_floats(op, example)
        for axis in range(len(example.inputs[0].shape))
        if (channels := ask(node_of(op, example), axis))
    ]


def passes_through(
    op: Op, example: Example, axis: int, place: int, scale: Range | None = None, shift: Range | None = None
) -> bool:
    """Whether f(s * x + t) = s * f(x) + t, exactly, for s and t in these ranges; without s or t where there is none.

    s and t have a number for each index of `axis` of x, which is `place` of f(x).
    """
    ranges = {"s": scale, "t": shift}
    channels = (example.inputs[0].shape[axis],)
    moving = {name: Sample(channels, None, *range_) for name, range_ in ranges.items() if range_}
    samples = {**{f"x{i}": sample for i, sample in enumerate(example.inputs)}, **moving}

    def graph(before: bool) -> Graph:
        builder = mg.Builder("before" if before else "after")
        given = {name: builder.input(name, s.shape, s.in_dtype("float32")) for name, s in samples.items()}
        x, *others = (given[f"x{i}"] for i in range(len(example.inputs)))
        x = moved(x, given, axis) if before else x
        y = builder.emit(op, [x, *others], example.attrs)[0]
        return builder.build(y=y if before else moved(y, given, place))

    try:
        proof.prove_same(graph(before=True), graph(before=False), samples)
    except proof.Refuted:
        return False
    return True


def moved(x: Tensor, given: dict[str, Tensor], axis: int) -> Tensor:
    """s * x + t, of s and t what is given."""
    sizes = tuple(n if i == axis else 1 for i, n in enumerate(x.shape))
    along = lambda numbers: mg.cast(mg.reshape(numbers, sizes), x.dtype)
    x = x * along(given["s"]) if "s" in given else x
    return x + along(given["t"]) if "t" in given else x


@pytest.mark.parametrize("op", DECLARED, ids=lambda op: op.name)
def test_what_an_op_says_is_proved(op: Op) -> None:
    assert claims(op), f"{op.name} says nothing of any of its examples"
    for claim in claims(op):
        said = claim.channels
        assert said.scale in ("any", "positive", "none")
        assert said.scale != "none" or said.shift, f"{claim} is to be None"
        scale = {"any": BOTH_SIGNS, "positive": ABOVE_ZERO, "none": None}[said.scale]
        shift = BOTH_SIGNS if said.shift else None
        assert claim.holds(scale, shift), claim
        if scale and shift:
            assert claim.holds(scale=scale), claim
            assert claim.holds(shift=shift), claim


@pytest.mark.parametrize("op", DECLARED, ids=lambda op: op.name)
def test_the_channels_are_as_many_in_the_result(op: Op) -> None:
    for claim in claims(op):
        y = node_of(op, claim.example)
        assert y.shape[claim.channels.axis] == claim.example.inputs[0].shape[claim.axis], claim


@pytest.mark.parametrize("op", DECLARED, ids=lambda op: op.name)
def test_what_an_op_does_not_say_is_refuted(op: Op) -> None:
    """By one of its examples: in others it may be true by accident, as any factor passes through the max of one."""
    found = claims(op)
    for wanted, scale, shift in (
        ([c for c in found if c.channels.scale == "positive"], BELOW_ZERO, None),
        ([c for c in found if c.channels.scale == "none"], ABOVE_ZERO, None),
        ([c for c in found if not c.channels.shift], None, BOTH_SIGNS),
    ):
        assert not wanted or not all(c.holds(scale, shift) for c in wanted), f"{op.name} could promise more"


def test_no_other_op_lets_any_factor_pass() -> None:
    """An op that says nothing, and is homogeneous along an axis of each of its examples, has its reason above."""
    silent = {op.name for op in mg.OPS.values() if not op.channels and lets_factors_pass(op)}
    assert silent == SILENT.keys()


def lets_factors_pass(op: Op) -> bool:
    examples = [e for e in op.examples if is_of_floats(op, e) and all(0 not in s.shape for s in e.inputs)]
    examples = [e for e in examples if e.inputs[0].shape]
    return bool(examples) and all(any(passing(op, example)) for example in examples)


def passing(op: Op, example: Example) -> Any:
    """For each axis of the first input and each of the result that is as long: whether any factor passes so."""
    for axis, n in enumerate(example.inputs[0].shape):
        for place, m in enumerate(node_of(op, example).shape):
            if n == m:
                yield passes_through(op, example, axis, place, scale=BOTH_SIGNS)


@pytest.mark.parametrize("op", DECLARED, ids=lambda op: op.name)
def test_of_sizes_that_are_not_known_an_op_says_no_more(op: Op) -> None:
    """With N for the first axis of the first input, and of the others that are as long: the same, or less."""
    for example in op.examples:
        if not is_of_floats(op, example) or not example.inputs[0].shape:
            continue
        first = example.inputs[0].shape[0]
        shapes = [
            (("N", *s.shape[1:]) if s.shape[:1] == (first,) else s.shape, s.in_dtype("float32")) for s in example.inputs
        ]
        try:
            open_ = applied(op, shapes, example.attrs)
        except mg.GraphError:  # the op needs this size, or an attribute names it
            continue
        for axis in range(1, len(example.inputs[0].shape)):
            less, more = ask(open_, axis), ask(node_of(op, example), axis)
            if less:
                assert more, (example, axis)
                assert (less.axis, less.scale) == (more.axis, more.scale), (example, axis)
                assert more.shift or not less.shift, (example, axis)


def said(name: str, x: tuple[Any, ...], axis: int = 1, /, **attrs: Any) -> Channels | None:
    """What an op of one input says of an axis of x, of this shape."""
    return ask(applied(mg.OPS[name], [(x, "float32")], attrs), axis)


def test_padding_lets_no_summand_pass_where_its_zeros_count() -> None:
    image = (2, 3, 4, 4)
    whole, scaled = Channels(1, "any", True), Channels(1, "any", False)
    assert said("avg_pool", image, window=2) == whole
    assert said("avg_pool", image, window=3, stride=1, padding=1) == whole
    assert said("avg_pool", image, window=3, stride=1, padding=1, count_include_pad=True) == scaled
    assert said("avg_pool", image, window=2, count_include_pad=True) == whole  # no padding that could count
    assert said("avg_pool", (2, 3, 5, 5), window=2, count_include_pad=True, ceil_mode=True) == whole
    partial = {"window": 3, "stride": 2, "padding": 1, "count_include_pad": True, "ceil_mode": True}
    assert said("avg_pool", (2, 3, 4, 4), **partial) == scaled
    assert said("max_pool", image, window=3, stride=1, padding=1) == Channels(1, "positive", True)


@pytest.mark.parametrize("attrs", [{"window": 2}, {"sizes": 2}], ids=["pool", "adaptive"])
@pytest.mark.parametrize(("layout", "channel"), [("NCHW", 1), ("NHWC", 3)])
def test_pools_know_where_the_channels_lie(layout: str, channel: int, attrs: dict[str, Any]) -> None:
    prefix = "adaptive_" if "sizes" in attrs else ""
    for axis in range(4):
        for name, scale in ((f"{prefix}avg_pool", "any"), (f"{prefix}max_pool", "positive")):
            expected = Channels(axis, scale, True) if axis in (0, channel) else None
            assert said(name, (4, 4, 4, 4), axis, layout=layout, **attrs) == expected
    assert said("resize", (4, 4, 4, 4), channel, layout=layout, scales=2) == Channels(channel, "any", True)
    assert said("resize", (4, 4, 4, 4), 2, layout=layout, scales=2) is None


def test_a_window_of_nothing_but_padding_cannot_be_built() -> None:
    """So the largest number of a window is one of x, to which the summand was added."""
    with pytest.raises(mg.GraphError, match="nothing"):
        said("max_pool", (1, 2, 4), window=2, padding=2)
    with pytest.raises(mg.GraphError, match="nothing but padding"):
        said("max_pool", (1, 2, 1), window=2, padding=1, dilation=2)


@pytest.mark.parametrize(
    ("shape", "axis", "new", "place"),
    [
        ((2, 3, 4, 5), 1, (2, 12, 5), None),  # the channels are one axis with what is behind them
        ((2, 3, 4, 5), 1, (2, 60), None),
        ((2, 3, 4, 5), 1, (6, 4, 5), None),
        ((2, 3, 4, 5), 1, (2, 3, 20), 1),
        ((2, 3, 4, 5), 1, (1, 2, 3, 5, 4), 2),
        ((2, 3, 4, 5), 3, (6, 4, 5), 2),
        ((2, 6, 4), 1, (2, 4, 6), None),  # not a transposition
        ((2, 6, 6), 1, (2, 6, 6), 1),
        ((2, 6, 6), 2, (2, 6, 6), 2),
        ((2, 6, 6), 1, (6, 2, 6), None),
        ((6, 6, 6), 1, (36, 6), None),
        ((6, 6, 6), 2, (36, 6), 1),
        ((2, 4, 2, 2), 1, (2, 4, 4), 1),  # of two axes of 4, the one with 2 in front of it
        ((2, 4, 2, 2), 1, (4, 2, 4), None),
        ((2, 5, 1, 1), 1, (2, 5), 1),
        ((2, 5), 1, (2, 1, 5, 1), 2),
        ((2, 1, 1, 1), 2, (2, 1, 1, 1), 2),  # one number for all: its own axis, of several that would do
        ((2, 1, 3), 1, (2, 1, 1, 3), 1),
        ((1, 2, 1, 3), 2, (2, 1, 3), 1),
        ((2, 1, 3), 1, (2, 3), None),  # no axis is left for it
        (("N", 3, 4, 5), 1, ("N", 3, 20), 1),
        (("N", 3, 4, 5), 1, ("N", 12, 5), None),
        (("N", 3, 4), 1, ("3*N", 4), None),
        (("N", 3, 4), 2, ("3*N", 4), 1),
        (("N", "T", 4), 1, ("N", "T", 2, 2), 1),
        ((0, 3, 4), 1, (0, 3, 2, 2), 1),
    ],
)
def test_channels_stay_an_axis_when_the_shape_changes(
    shape: tuple[Any, ...], axis: int, new: tuple[Any, ...], place: int | None
) -> None:
    expected = None if place is None else Channels(place, "any", True)
    assert said("reshape", shape, axis, shape=new) == expected
    if place is not None and all(isinstance(n, int) for n in shape):
        example = Example(Sample(shape), shape=new)
        assert passes_through(mg.OPS["reshape"], example, axis, place, BOTH_SIGNS, BOTH_SIGNS)


def test_a_reduction_over_the_channels_leaves_none() -> None:
    image = (2, 3, 4, 5)
    for name, scale, shift in (
        ("mean", "any", True),
        ("sum", "any", False),
        ("max", "positive", True),
        ("min", "positive", True),
        ("logsumexp", "none", True),
    ):
        assert said(name, image, axes=(1, 2)) is None, name
        assert said(name, image, axes=(1,), keepdims=True) is None, name
        assert said(name, image, axes=(0, 2), keepdims=True) == Channels(1, scale, shift)
        assert said(name, image, axes=(0, 2)) == Channels(0, scale, shift)
    assert said("sum", image, axes=(2, 3)) == Channels(1, "any", False)
    assert said("sum", (2, 3, 1, 1), axes=(2, 3)) == Channels(1, "any", True)
    assert said("sum", (2, 3, 0), axes=2) == Channels(1, "any", False)  # 0, whatever is added to nothing
    assert said("sum", ("N", 3), axes=0) == Channels(0, "any", False)
    assert said("mean", ("N", 3, "H"), axes=(0, 2)) == Channels(0, "any", True)


def test_padding_passes_what_x_is_padded_with() -> None:
    wide, cropped = ((0, 0), (0, 0), (1, 1)), ((0, 0), (0, 0), (-1, 0))
    assert said("pad", (2, 3, 4), widths=wide) == Channels(1, "any", False)
    assert said("pad", (2, 3, 4), widths=wide, value=1) is None
    assert said("pad", (2, 3, 4), widths=cropped, value=1) == Channels(1, "any", True)
    assert said("pad", (2, 3, 4), 2, widths=wide) is None
    assert said("pad", (2, 3, 4), 2, widths=cropped) is None
    for mode in ("edge", "reflect", "wrap"):
        assert said("pad", (2, 3, 4), widths=wide, mode=mode) == Channels(1, "any", True)
        assert said("pad", (2, 3, 4), 2, widths=wide, mode=mode) is None


def test_a_slice_takes_the_channels_whole_or_not_at_all() -> None:
    ends: dict[str, Any] = {"start": (None, None, 1), "stop": (None, None, 3)}
    assert said("slice", ("N", 3, 4), **ends) == Channels(1, "any", True)
    assert said("slice", ("N", 3, 4), 0, **ends) == Channels(0, "any", True)
    assert said("slice", ("N", 3, 4), 2, **ends) is None
    assert said("slice", ("N", 3, 4), **ends, step=(1, -1, 1)) is None  # flipped


def test_one_channel_that_is_repeated_is_none() -> None:
    assert said("broadcast_to", (2, 1, 3), 1, shape=(2, 4, 3)) is None
    assert said("broadcast_to", (2, 1, 3), 2, shape=(5, 2, 4, 3)) == Channels(3, "any", True)
    slopes = [((2, 1, 3), "float32"), ((4, 1), "float32")]
    assert ask(applied(mg.OPS["prelu"], slopes, {}), 1) is None
    assert ask(applied(mg.OPS["prelu"], slopes, {}), 2) == Channels(2, "positive", False)


def test_an_op_that_says_nothing_passes_nothing() -> None:
    assert said("sigmoid", (2, 3)) is None
    assert said("relu", (2, 3), -1) == Channels(1, "positive", False)
    with pytest.raises(mg.GraphError, match="no axis 2"):
        said("relu", (2, 3), 2)
