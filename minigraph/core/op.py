"""Ops: what a node computes, how its types are inferred, what it means in NumPy, how it is differentiated.

An op is declared once, in one file, by making an `Op`; it is then in the registry, prints and reads back, and every
test over the registry takes it up. Calling it on tensors builds a node.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from minigraph.core import dim
from minigraph.core.dtypes import is_narrow, wide_dtype
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Type
from minigraph.core.scalar import Scalar, var

OPS: dict[str, Op] = {}


@dataclass(frozen=True)
class Sample:
    """One input of an example: random numbers of a shape, between low and high (integers: below high).

    dtype None is the float that the example is tried in; a `wide` one is float32 when that is narrow.
    """

    shape: tuple[int, ...]
    dtype: str | None = None
    low: float = -2.0
    high: float = 2.0
    wide: bool = False

    def in_dtype(self, dtype: str) -> str:
        """The dtype of this input in an example tried in `dtype`."""
        return self.dtype or (wide_dtype(dtype) if self.wide else dtype)


def real(*shape: int) -> Sample:
    """Floats of both signs, in the dtype of the trial."""
    return Sample(shape)


def positive(*shape: int) -> Sample:
    """Floats from 0.1 on: for logarithms, roots and divisors."""
    return Sample(shape, low=0.1)


def statistic(*shape: int, low: float = -2.0) -> Sample:
    """Floats that are float32 where the example is tried in narrow ones, as statistics and parameters of norms are."""
    return Sample(shape, low=low, wide=True)


def integers(*shape: int, below: int, dtype: str = "int64") -> Sample:
    """Whole numbers from 0 on: labels, indices."""
    return Sample(shape, dtype, 0, below)


def booleans(*shape: int) -> Sample:
    """Truths, for masks."""
    return Sample(shape, "bool", 0, 2)


class Example:
    """Inputs and attributes on which the tests of the registry try an op: Example(real(2, 3), real(3, 4))."""

    def __init__(self, *inputs: Sample, **attrs: Any):
        self.inputs, self.attrs = inputs, attrs

    def __repr__(self) -> str:
        parts = [f"{s.dtype or 'float'}{list(s.shape)}" for s in self.inputs] + [
            f"{k}={v}" for k, v in self.attrs.items()
        ]
        return f"Example({', '.join(parts)})"


@dataclass(frozen=True)
class Weight:
    """An input w in which an op f(x, w) is linear for each output channel, as it is in each channel of its data x.

    index, data: which inputs w and x are.
    axis, data_axis: where the channels of the result lie, and those of x.
    outputs, inputs: a tensor with one number for each channel (of the result, of x) -> the factor of w that scales
        these channels: f(x, w * outputs(s)) = s * f(x, w), and f(x, w * inputs(s)) = f(s * x, w).
    shifts: (w, a tensor t with one number for each channel of x) -> f(t, w), one for each channel of the result: where
        the op is even. It is not where windows reach into padding: what is near it gets less of the shift.
    """

    index: int
    data: int
    axis: int
    data_axis: int
    outputs: Callable[[Any], Any]
    inputs: Callable[[Any], Any]
    shifts: Callable[[Any, Any], Any]
    even: bool


Gradient = Callable[..., Sequence[Any]]


@dataclass(frozen=True)
class Channels:
    """How one number for each channel passes through an op: f(s * x) = s * f(x), f(x + t) = f(x) + t.

    axis: where the channels of x lie in the result.
    scale: which scales pass: "any", "positive" (all numbers > 0), or "none".
    shift: whether shifts pass.
    """

    axis: int
    scale: str
    shift: bool


@dataclass(frozen=True)
class Kernel:
    """What an op is in C and in CUDA: a function of the op's name, in a header beside the op's file.

    It computes one number of the result, or one line, from pointers to whole inputs, and reads what it needs (gather
    form): no number is written by two. The header is included once for each combination of dtypes, under the macros

        NAME(f)          the function's name for these dtypes
        X0, X1, ..., Y0  the types of what inputs and outputs hold
        FROM_X0(x)       a number that X0 holds, in the type that computes it, WIDE_X0: a narrow one as a float
        TO_Y0(x)         a number as Y0 holds it
        A                the type to add up in: float for narrow floats, int64_t for whole numbers and bools, else X0

    An element kernel is  Y0 NAME(op)(idx i, const X0 *x0, ..., op_shape s),  of the result's i-th number;
    a line kernel is      void NAME(op)(idx line, const X0 *x0, ..., Y0 *y0, ..., op_shape s).

    Macros of inputs and outputs that the op does not have are undefined: a header of several ops asks for them where
    these differ in their numbers. An op of any number of inputs has `parts` instead, and no kernel.

    header: the file's name, "conv.h". shape: (input types, output types, **attributes) -> the fields of `op_shape`, as
        numbers, sizes and tuples of these, in the order in which the header declares them.
    lines: (input types, output types, **attributes) -> how many lines there are, of a line kernel.
    light: whether a number costs about as much as reading one, so that it is computed where it is read.
    checks: whether inputs may be wrong (an index out of range). The function then has a last parameter, `int *fault`,
        which it sets to 1; what it gives is void.
    """

    header: str
    shape: Callable[..., Mapping[str, Any]]
    lines: Callable[..., dim.Size] | None = None
    light: bool = False
    checks: bool = False


@dataclass(frozen=True)
class Along:
    """Where along one axis of an input the numbers of a result lie: at start + step * (index along `axis`).

    axis: of the result; None: always at `start`.
    """

    axis: int | None
    start: dim.Size = 0
    step: int = 1


@dataclass(frozen=True)
class Half:
    """How an op takes part in mixed precision, where a narrow float stands in for some of a network's float32.

    seeks: whether its time goes into inner products, for whose sake all this is done. Others go along: what they make
        is about as large as what they read, and no more wrong.
    inputs: which of its inputs may be narrow while the others stay float32; None: all floats are of one dtype.
    """

    seeks: bool = False
    inputs: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Op:
    """name: how it is called in graphs. The rest are functions:

    types: (types of the inputs, *, attributes) -> Type or tuple of Types. Its positional-only parameters are the
        tensors (`*xs`: any number), its others the attributes with their defaults. Raises GraphError for what does not
        fit. Its docstring is the op's.
    reference: (arrays, *, attributes) -> array or tuple of arrays: the meaning of the op, in NumPy. Must serve float32,
        float64 and arrays of exact numbers (dtype object), where the op is not about dtypes or bits. `run`
        computes what narrow floats mean: in float32, rounded once.
    gradient: (gradients of the outputs, inputs, outputs, *, attributes) -> for each input a tensor, or None for zero;
        in terms of ops. The gradient of an output that nobody reads is None.
    expand: (tensors, *, attributes) -> tensor or tuple of tensors: the same in terms of smaller ops, for composites.
        Where `gradient` is absent, the gradient of this one serves.
    canonical: (types, *, attributes) -> dict: attributes in their one form (stride 2 is stride (2, 2)).
    flops: (input types, output types, attributes) -> floating-point operations. By default one for each output number.
    expression: of pointwise ops: numbers -> number, serving arrays and `Scalar`s alike.
    commutative: whether the two inputs may change places.
    weights: (types of the inputs, *, attributes) -> the inputs in which it is linear, channel by channel; see Weight.
    channels: (types of the inputs, axis, *, attributes) -> Channels, or None where nothing passes: how a factor and a
        summand of the first input, one number for each index of its `axis`, pass to the one output, while the other
        inputs stay as they are. May promise too little, never too much.
    kernel: of what is neither pointwise nor composite: what it is in C and CUDA.
    view: of ops whose result holds numbers of the input elsewhere: (input types, output types, **attributes) -> where
        they lie, an Along for each axis of the input.
    parts: of ops whose result is its inputs side by side: (input types, output types, **attributes) -> for each input
        where its numbers lie in the result, an Along for each axis of the result; each runs along an axis of the input.
    images: of ops with an attribute `layout`: the numbers of the inputs that lie in it; -1 stands for the result.
    in_order: whether the result holds the numbers of the input in the same order.
    reduction: of ops that reduce `axes`: "sum", "prod", "max", "min", "and", "or" or "moments".
    half: how it takes part in mixed precision. None, it stays float32: what adds up or multiplies many numbers, losses,
        statistics, and functions such as exp, log and 1 / x, which leave the range of float16 or make much of little.
    outputs: the names of the outputs.
    layer: of ops that people seldom call themselves: what makes their other tensors from the first.
    examples: what the tests try it on, empty batches and odd sizes included.
    """

    name: str
    types: Callable[..., Any]
    reference: Callable[..., Any]
    gradient: Gradient | None = None
    expand: Callable[..., Any] | None = None
    canonical: Callable[..., dict[str, Any]] | None = None
    flops: Callable[[Sequence[Type], Sequence[Type], Mapping[str, Any]], dim.Size] | None = None
    expression: Callable[..., Any] | None = None
    commutative: bool = False
    weights: Callable[..., Sequence[Weight]] | None = None
    channels: Callable[..., Channels | None] | None = None
    kernel: Kernel | None = None
    view: Callable[..., Sequence[Along]] | None = None
    parts: Callable[..., Sequence[Sequence[Along]]] | None = None
    images: tuple[int, ...] = ()
    in_order: bool = False
    reduction: str = ""
    half: Half | None = None
    outputs: tuple[str, ...] = ("",)
    layer: str = ""
    examples: tuple[Example, ...] = ()
    tensors: int = field(init=False)  # how many inputs; -1 for any number
    defaults: Mapping[str, Any] = field(init=False)  # each attribute's default, or REQUIRED
    __signature__: inspect.Signature = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.name in OPS:
            raise GraphError(f"there is already an op {self.name!r}")
        signature = inspect.signature(self.types)
        parameters = signature.parameters.values()
        variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        count = sum(p.kind is p.POSITIONAL_ONLY for p in parameters)
        attrs = {p.name: p.default for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        set_ = lambda name, value: object.__setattr__(self, name, value)
        set_("tensors", -1 if variadic else count)
        set_("defaults", MappingProxyType(attrs))
        set_("__signature__", signature)
        set_("__doc__", self.types.__doc__ or f"The op {self.name}.")
        OPS[self.name] = self

    def infer(self, types: tuple[Type, ...], given: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[Type, ...]]:
        """The canonical attributes, and the types of the outputs. Raises GraphError for what does not fit."""
        if self.tensors >= 0 and len(types) != self.tensors:
            names = [p.name for p in self.__signature__.parameters.values() if p.kind is p.POSITIONAL_ONLY]
            hint = f"; {self.layer} makes the others" if self.layer and len(types) < self.tensors else ""
            raise GraphError(f"takes {self.tensors} tensors ({', '.join(names)}), got {len(types)}{hint}")
        attrs = {**self.defaults, **given}
        for name, value in attrs.items():
            if value is REQUIRED:
                raise GraphError(f"needs the attribute {name!r}")
            if name not in self.defaults:
                raise GraphError(f"has no attribute {name!r}; it has {', '.join(self.defaults) or 'none'}")
        try:
            if self.canonical is not None:
                attrs = self.canonical(*types, **attrs)
            attrs = {name: plain(value) for name, value in attrs.items()}
            result = self.types(*types, **attrs)
        except GraphError:
            raise
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise GraphError(f"cannot take these attributes: {error}") from error
        outputs = result if isinstance(result, tuple) else (result,)
        for output in outputs:
            for n in output.shape:
                if type(n) is int and n < 0:
                    raise GraphError(f"would have a negative size: {output}")
        return MappingProxyType(attrs), outputs

    def run(self, arrays: Sequence[np.ndarray], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        """The reference on arrays, its results as a tuple. Of narrow floats it is of float32, and rounded once."""
        narrow = any(is_narrow(array.dtype) for array in arrays)
        given = [array.astype(wide_dtype(array.dtype.name), copy=False) for array in arrays] if narrow else arrays
        result = self.reference(*given, **attrs)
        found = tuple(map(np.asarray, result)) if isinstance(result, tuple) else (np.asarray(result),)
        if not narrow:
            return found
        _, types = self.infer(tuple(Type(array.shape, array.dtype.name) for array in arrays), attrs)
        return tuple(array.astype(type_.dtype, copy=False) for array, type_ in zip(found, types, strict=True))

    def count(self, inputs: Sequence[Type], outputs: Sequence[Type], attrs: Mapping[str, Any]) -> dim.Size:
        """Floating-point operations of one application."""
        if self.flops is not None:
            return self.flops(inputs, outputs, attrs)
        if self.expression is not None:
            expression = self.expression(*(var(str(i)) for i in range(len(inputs))), **attrs)
            each = expression.operations() if isinstance(expression, Scalar) else 0
            return outputs[0].size * each
        return sum((t.size for t in outputs if t.is_float), 0)

    def passes(self, types: Sequence[Type], attrs: Mapping[str, Any], axis: int) -> Channels | None:
        """How one number for each index of `axis` of the first input passes to the result; None where it does not."""
        if self.channels is None:
            return None
        return self.channels(tuple(types), axis_of(axis, types[0].rank), **attrs)

    def __call__(self, *arguments: Any, **attrs: Any) -> Any:
        """Build a node. Tensors come first; then attributes, in the order of the signature or by name."""
        if self.tensors < 0:
            inputs = (
                tuple(arguments[0]) if len(arguments) == 1 and isinstance(arguments[0], (tuple, list)) else arguments
            )
        else:
            inputs, rest = arguments[: self.tensors], arguments[self.tensors :]
            expect(
                len(rest) <= len(self.defaults),
                "{} takes at most {} arguments, got {}",
                self.name,
                self.tensors + len(self.defaults),
                len(arguments),
            )
            for name, value in zip(self.defaults, rest):
                expect(name not in attrs, "{} got {!r} twice", self.name, name)
                attrs[name] = value
        for argument in inputs:
            if hasattr(argument, "apply"):  # a Tensor builds a node
                return argument.apply(self, inputs, attrs)
        if inputs and isinstance(inputs[0], (tuple, list)):
            attribute = next(iter(self.defaults), "attribute")
            raise GraphError(f"{self.name} takes its attributes by name: {self.name}([x, y], {attribute}=...)")
        raise GraphError(
            f"{self.name} needs a tensor to know which graph it builds; got {', '.join(map(repr, inputs)) or 'nothing'}"
        )

    def __repr__(self) -> str:
        return f"<op {self.name}>"


REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True, eq=False)
class Literal:
    """An array as an attribute: read-only, compared and hashed by its content."""

    array: np.ndarray

    def __post_init__(self) -> None:
        array = np.array(self.array, order="C")
        array.flags.writeable = False
        object.__setattr__(self, "array", array)

    def _key(self) -> tuple[Any, ...]:
        return self.array.dtype.name, self.array.shape, self.array.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"literal({self.array.dtype.name!r}, {self.array.shape}, {self.array.reshape(-1).tolist()})"


def plain(value: Any) -> Any:
    """An attribute as hashable plain data: lists become tuples, NumPy scalars numbers, NaNs one NaN."""
    if type(value) in (int, str, bool, type(None)):
        return value
    if type(value) is float:
        return value if value == value else NAN
    if type(value) in (tuple, list):
        return tuple(map(plain, value))
    if isinstance(value, np.ndarray):
        return Literal(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    expect(
        isinstance(value, (dim.Dim, Literal)),
        "an attribute is a number, a string, a size, an array or a tuple of these, not {!r}",
        value,
    )
    return value


NAN = float("nan")


def no_flops(*_: Any) -> int:
    """As `flops`: it moves numbers and computes none."""
    return 0


def per_number(operations: int) -> Callable[[Sequence[Type], Sequence[Type], Mapping[str, Any]], dim.Size]:
    """As `flops`: so many operations for each number of the first input."""
    return lambda inputs, outputs, attrs: operations * inputs[0].size


def each_number(scale: str, shift: bool = False) -> Callable[..., Channels]:
    """As `channels`: of an op that keeps the shape of its first input and computes each number from one of it."""
    return lambda types, axis, **attrs: Channels(axis, scale, shift)


def same_dtype(*types: Type) -> str:
    """The one dtype of all inputs; GraphError if they differ."""
    first = types[0].dtype
    for t in types:
        if t.dtype != first:
            found = " and ".join(u.dtype for u in types)
            raise GraphError(f"inputs have dtypes {found}; convert one with cast(x, dtype)")
    return first


def float_dtype(*types: Type) -> str:
    """The one float dtype of all inputs; GraphError if they differ or are not floats."""
    dtype = same_dtype(*types)
    expect(types[0].is_float, "needs floats, got {}", types[0])
    return dtype


def whole(value: Any, what: str, least: int | None = None) -> int:
    """A whole number, of Python or NumPy, that is not below `least`; GraphError with `what` it is for others."""
    number = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if least is None:
        expect(number, "{} is a whole number, not {!r}", what, value)
    else:
        expect(number and value >= least, "{} is {} or more, in whole numbers, not {!r}", what, least, value)
    return int(value)


def axis_of(axis: Any, rank: int) -> int:
    """An axis counted from the front; -1 is the last one."""
    axis = whole(axis, "an axis")
    expect(-rank <= axis < rank, "there is no axis {} in {} dimensions", axis, rank)
    return axis % rank
