"""The graph under construction: a Builder collects nodes, a Tensor is a value that is being built with."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minigraph.core.dim import Shape, shape_of, symbols_of
from minigraph.core.dtypes import becomes, dtype_of, is_float
from minigraph.core.errors import GraphError, expect
from minigraph.core.initial import Constant, Initializer, RandomSeed
from minigraph.core.ir import Graph, Node, Origin, Type, Value, Variable, explain, needed
from minigraph.core.op import OPS, Op
from minigraph.core.operators import Operators


class Builder:
    """Builds one graph. Layers, ops and operators on its tensors append nodes; `build` closes it.

    >>> net = Builder("net")
    >>> x = net.input("x", ("N", 3))
    >>> graph = net.build(y=x + 1)
    """

    def __init__(self, name: str = "graph"):
        self.name = name
        self.nodes: list[Node] = []
        self._inputs: list[Value] = []
        self._state: dict[str, Variable] = {}
        self._outputs: dict[str, Value] = {}
        self._updates: dict[Value, Value] = {}
        self._reserved: set[str] = set()  # names of inputs and state
        self._names: set[str] = set()  # these, and those of nodes
        self._counts: Counter[str] = Counter()  # of nodes, by full name
        self._scope = ""
        self._layers: dict[str, Counter[str]] = {"": Counter()}  # numbered layers, by the scope they are in
        self._symbols: set[str] = set()
        self._taken: set[str] = set()  # scopes that have state, and those of the graph that this one extends
        self._shared = False
        self._origin: Origin | None = None
        self._streams = 0

    @classmethod
    def extending(cls, graph: Graph) -> Builder:
        """A builder that goes on where `graph` ended.

        Its nodes and values are the graph's own; the graph stays as it is.
        """
        builder = cls(graph.name)
        builder.nodes = list(graph.nodes)
        builder._inputs = list(graph.inputs)
        builder._state = dict(graph.variables)
        builder._symbols = set(graph.symbols)
        builder._outputs = dict(graph.outputs)
        builder._updates = dict(graph.updates)
        builder._reserved = {*graph.variables, *(value.name for value in graph.inputs)}
        builder._names = {*graph.values, *(node.name for node in graph.nodes)}
        for name in builder._names:
            builder._take_scopes(name)
        builder._streams = 1 + max((n.attrs["stream"] for n in graph.nodes if "stream" in n.attrs), default=-1)
        return builder

    # what a graph has

    def input(self, name: str, shape: Any, dtype: Any = "float32") -> Tensor:
        """What is given anew at each step. Sizes known only then are symbols: ("N", 1, 28, 28)."""
        value = Value(_type(name, shape, dtype), self._interface(name))
        self._symbols |= symbols_of(value.type.shape)
        self._inputs.append(value)
        return Tensor(self, value)

    def parameter(self, name: str, shape: Any, initializer: Initializer, dtype: Any = "float32") -> Tensor:
        """What is learned. Its full name is the scope and `name`: "conv1.weight"."""
        return self.variable(name, shape, initializer, dtype, "parameter")

    def variable(
        self, name: str, shape: Any, initializer: Initializer, dtype: Any = "float32", kind: str = "statistic"
    ) -> Tensor:
        """State of any kind (see ir.Variable).

        In a shared scope, the second call of a name gives the first one's variable.
        """
        full = self._scoped(name)
        type_ = _type(full, shape, dtype)
        expect(
            isinstance(initializer, Initializer),
            "{} {!r} begins with an initializer, such as init.he_normal(shape) or init.zeros, not {!r}",
            kind,
            full,
            initializer,
        )
        if self._shared and full in self._state:
            known = self._state[full]
            expect(
                (known.value.type, known.kind) == (type_, kind),
                "{} {!r} is shared and is {}; it cannot also be {}",
                known.kind,
                full,
                known.value.type,
                type_,
            )
            return Tensor(self, known.value)
        expect(
            all(isinstance(n, int) for n in type_.shape),
            "state {!r} has shape {}; its sizes must be known",
            full,
            type_.shape,
        )
        variable = Variable(Value(type_, self._interface(full)), initializer, kind)
        self._state[full] = variable
        return Tensor(self, variable.value)

    def constant(self, given: Any, dtype: Any = None) -> Tensor:
        """A number or an array that never changes, in its own dtype or in `dtype`. Python floats become float32."""
        try:
            array = np.asarray(given)
        except ValueError as error:
            raise GraphError(f"a constant is a number or an array: {error}") from None
        if dtype is None:
            dtype = array.dtype if hasattr(given, "dtype") or not is_float(array.dtype) else "float32"
        dtype = dtype_of(dtype)
        if array.ndim == 0:
            return self.emit(OPS["fill"], (), {"value": array.item(), "dtype": dtype})[0]
        expect(
            becomes(array.dtype, np.dtype(dtype)),
            "an array of {} does not become a constant of {}",
            array.dtype,
            dtype,
        )
        return self.emit(OPS["constant"], (), {"value": array.astype(dtype)})[0]

    def update(self, state: Tensor, new: Tensor) -> None:
        """Say what a state becomes after the step. A later update of the same state replaces an earlier one."""
        expect(
            state.value.name in self._state and self._state[state.value.name].value is state.value,
            "{} is not state of this graph",
            state,
        )
        expect(state.value.type == new.value.type, "state {} cannot become {}", state.value, new.value)
        self._updates[state.value] = new.value

    def latest(self, state: Tensor) -> Tensor:
        """What a state will have become through the updates so far; further updates go on from there."""
        return Tensor(self, self._updates.get(state.value, state.value))

    def random_stream(self) -> tuple[Tensor, Tensor, int]:
        """Seed and step of the graph's random numbers, as state, and the number of a stream of its own.

        The step counts up with each run, so that a stream gives new numbers; seed, stream and step together name them.
        """
        if "random.seed" not in self._state:
            with self.root(), self.scope("random"):
                self.variable("seed", (), RandomSeed(), "int64", "stream")
                step = self.variable("step", (), Constant(0), "int64", "counter")
                with self.origin(role="update"):
                    self.update(step, step + 1)
        self._streams += 1
        return self.tensor("random.seed"), self.tensor("random.step"), self._streams - 1

    def tensor(self, name: str) -> Tensor:
        """The input, state or output of that name."""
        if name in self._outputs:
            return Tensor(self, self._outputs[name])
        for value in (*self._inputs, *(v.value for v in self._state.values())):
            if value.name == name:
                return Tensor(self, value)
        raise GraphError(f"there is no output, input or state {name!r}")

    @property
    def updates(self) -> dict[Value, Value]:
        """What each state becomes, so far."""
        return dict(self._updates)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return tuple(Tensor(self, v.value) for v in self._state.values() if v.kind == "parameter")

    # names and origins

    @contextlib.contextmanager
    def scope(self, name: str, share: bool = False) -> Iterator[str]:
        """Names made inside begin with `name` and a dot.

        With share=True, whoever enters the scope again gets the variables that were made the first time: this is how
        two branches use one set of weights.
        """
        expect(_is_name(name), "a scope is named with letters, digits and any of _ . - /, not {!r}", name)
        before = self._scope, self._shared, self._layers
        self._scope = f"{self._scope}.{name}" if self._scope else name
        self._shared = self._shared or share
        if share:  # numbering begins anew, so that conv1 is conv1 again
            self._layers = {}
        try:
            yield self._scope
        finally:
            self._scope, self._shared, self._layers = before

    @contextlib.contextmanager
    def layer(self, kind: str, name: str | None) -> Iterator[str]:
        """The scope of a layer: its given name, or its kind with a number (conv1). Errors inside name the layer."""
        if name is None:
            counter = self._layers.setdefault(self._scope, Counter())
            while name is None or (self._scoped(name) in self._taken and not self._shared):
                counter[kind] += 1
                name = f"{kind}{counter[kind]}"
        with self.scope(name) as scope:
            try:
                yield scope
            except GraphError as error:
                if "\n" in str(error):  # a node of it has said where
                    raise
                raise GraphError(f"{kind} {scope!r}: {error}\n  at {_users_line(scope).where()}") from None

    @contextlib.contextmanager
    def root(self) -> Iterator[None]:
        """Outside of all scopes, whoever calls."""
        before = self._scope, self._shared, self._layers
        self._scope, self._shared, self._layers = "", False, {}
        try:
            yield
        finally:
            self._scope, self._shared, self._layers = before

    @contextlib.contextmanager
    def origin(self, base: Origin | None = None, **changes: Any) -> Iterator[None]:
        """Nodes made inside carry this origin: `base` (by default the user's line) with `changes`."""
        before = self._origin
        base = base or before or _users_line(self._scope)
        self._origin = replace(base, **changes) if changes else base
        try:
            yield
        finally:
            self._origin = before

    def _scoped(self, name: str) -> str:
        return f"{self._scope}.{name}" if self._scope else name

    def _interface(self, name: str) -> str:
        expect(_is_name(name), "names have letters, digits and any of _ . - /, not {!r}", name)
        expect(name not in self._reserved, "there is already something called {!r} in {!r}", name, self.name)
        self._reserved.add(name)
        self._names.add(name)
        self._take_scopes(name)
        return name

    def _take_scopes(self, name: str) -> None:
        """Those that a name is in: a.b.c is in a.b and in a."""
        scope = name.rpartition(".")[0]
        while scope and scope not in self._taken:
            self._taken.add(scope)
            scope = scope.rpartition(".")[0]

    def _fresh(self, kind: str) -> str:
        """A name for a node that nobody named: relu, relu2, relu3, in the scope."""
        base = self._scoped(kind)
        while True:
            self._counts[base] += 1
            name = base if self._counts[base] == 1 else f"{base}{self._counts[base]}"
            if name not in self._names:
                self._names.add(name)
                return name

    # nodes

    def emit(self, op: Op, tensors: Sequence[Any], attrs: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Append a node. Numbers and arrays among the inputs become constants of the dtype of the tensors."""
        inputs = self._lift(op, tensors)
        origin = self._origin or _users_line(self._scope)
        try:
            complete, types = op.infer(tuple([value.type for value in inputs]), attrs)
            for t in types:
                if strange := symbols_of(t.shape) - self._symbols:
                    raise GraphError(f"no input tells how large {', '.join(strange)} is")
        except GraphError as error:
            raise GraphError(explain(op.name, self._scoped(op.name), str(error), inputs, attrs, origin)) from None
        return tuple([Tensor(self, value) for value in self._add(op, inputs, types, complete, origin)])

    def again(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        """Append the node once more, of other inputs of the same types, under a name of its own; what it gives."""
        origin = self._origin or _users_line(self._scope)
        return self._add(node.op, inputs, [value.type for value in node.outputs], node.attrs, origin)

    def _add(
        self, op: Op, inputs: tuple[Value, ...], types: Sequence[Type], attrs: Mapping[str, Any], origin: Origin
    ) -> tuple[Value, ...]:
        name = self._fresh(op.name)
        if len(types) == 1:
            outputs: tuple[Value, ...] = (Value(types[0], name),)
        else:
            outputs = tuple(Value(t, f"{name}.{o}") for t, o in zip(types, op.outputs, strict=True))
            self._names.update(value.name for value in outputs)
        self.nodes.append(Node(op, inputs, outputs, attrs, name, origin))
        return outputs

    def append(self, node: Node) -> None:
        """Take over a node of another graph as it is."""
        self.nodes.append(node)
        self._names.add(node.name)

    def _lift(self, op: Op, tensors: Sequence[Any]) -> tuple[Value, ...]:
        if all(isinstance(t, Tensor) and t.builder is self for t in tensors):
            return tuple([t.value for t in tensors])
        dtype = next((t.dtype for t in tensors if isinstance(t, Tensor) and t.dtype != "bool"), None)
        values = []
        for given in tensors:
            if isinstance(given, Tensor):
                expect(
                    given.builder is self,
                    "{}: {} belongs to another graph, {!r}",
                    op.name,
                    given.value,
                    given.builder.name,
                )
                values.append(given.value)
            else:
                expect(
                    isinstance(given, (bool, int, float, np.ndarray, np.generic)),
                    "{} takes tensors, numbers and arrays, not {!r}",
                    op.name,
                    given,
                )
                values.append(self.constant(given, "bool" if isinstance(given, bool) else dtype).value)
        return tuple(values)

    def build(self, outputs: Mapping[str, Tensor] | None = None, /, **more: Tensor) -> Graph:
        """The finished graph with these outputs by name; nodes that no output and no update needs are left out."""
        expect(outputs is None or isinstance(outputs, Mapping), "outputs have names: build(y=...), not {!r}", outputs)
        named = {**(outputs or {}), **more}
        for name, tensor in named.items():
            expect(_is_name(name), "outputs have letters, digits and any of _ . - / in their names, not {!r}", name)
            expect(
                isinstance(tensor, Tensor) and tensor.builder is self,
                "output {!r} is not a tensor of {!r}: {!r}",
                name,
                self.name,
                tensor,
            )
        nodes, _ = needed(self.nodes, (*(t.value for t in named.values()), *self._updates.values()))
        return Graph(
            self.name,
            tuple(self._inputs),
            tuple(self._state.values()),
            nodes,
            {name: t.value for name, t in named.items()},
            self._updates,
        ).check()


@dataclass(frozen=True, eq=False, slots=True)
class Tensor(Operators):
    """A value of a graph under construction. Operators build nodes; == is identity (use `equal`)."""

    builder: Builder
    value: Value

    @property
    def shape(self) -> Shape:
        return self.value.type.shape

    @property
    def dtype(self) -> str:
        return self.value.type.dtype

    @property
    def rank(self) -> int:
        return len(self.value.type.shape)

    @property
    def name(self) -> str:
        return self.value.name

    def apply(self, op: Op, tensors: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        outputs = self.builder.emit(op, tensors, attrs)
        return outputs[0] if len(outputs) == 1 else outputs

    def __getitem__(self, key: Any) -> Tensor:
        """x[key] by NumPy's rules, with ints, slices, one `...` for the axes between, and None for a new axis.

        An int removes its axis.
        """
        given = key if isinstance(key, tuple) else (key,)
        for k in given:
            fits = k is None or k is ... or (isinstance(k, (int, slice)) and not isinstance(k, bool))
            expect(fits, "tensors are indexed with ints, slices, ... and None, not {!r}", k)
        dots = [i for i, k in enumerate(given) if k is ...]
        expect(len(dots) <= 1, "an index has one `...` at most, not {}", len(dots))
        at = dots[0] if dots else len(given)
        rest = self.rank - sum(k is not None and k is not ... for k in given)
        expect(rest >= 0, "{} indices for {}", self.rank - rest, self.value)
        full = (*given[:at], *(slice(None),) * rest, *given[at + 1 :])
        keys = [k for k in full if k is not None]
        for k, n in zip(keys, self.shape):
            inside = not isinstance(k, int) or not isinstance(n, int) or -n <= k < n
            expect(inside, "index {} is outside of an axis of {} in {}", k, n, self.value)
        ranges = [k if isinstance(k, slice) else slice(k, None if k == -1 else k + 1) for k in keys]
        start, stop, step = ([getattr(r, end) for r in ranges] for end in ("start", "stop", "step"))
        whole = all(k == slice(None) for k in keys)
        part = self if whole else OPS["slice"](self, start, stop, step)
        if all(isinstance(k, slice) for k in full):
            return part
        sizes = iter(part.shape)
        named = [(k, 1 if k is None else next(sizes)) for k in full]
        return OPS["reshape"](part, tuple(n for k, n in named if not isinstance(k, int)))

    def __iter__(self) -> Iterator[Tensor]:
        raise GraphError(f"{self.value} cannot be iterated over while the graph is built; use split, x[i], or an op")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (bool, int, float, np.ndarray, np.generic)):
            raise GraphError(
                f"== asks whether two tensors are one; to compare the numbers of {self.value} use equal(x, y)"
            )
        return self is other

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise GraphError(f"{self.value} has no truth value while the graph is built; use where(condition, x, y)")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise GraphError(f"{self.value} is part of a graph and holds no numbers yet; compile the graph and run it")

    # NumPy arrays on the left of an operator then ask the tensor
    __array_ufunc__ = None

    def __repr__(self) -> str:
        return f"<Tensor {self.value!r}>"


def _is_name(given: object) -> bool:
    """Whether the text form can hold it as a name."""
    return isinstance(given, str) and re.fullmatch(r"[\w./-]+", given) is not None


def _type(name: str, shape: Any, dtype: Any) -> Type:
    type_ = Type(shape_of(shape), dtype_of(dtype))
    expect(all(not isinstance(n, int) or n >= 0 for n in type_.shape), "{!r} has a negative size: {}", name, type_)
    return type_


def _users_line(scope: str) -> Origin:
    """The innermost line of the call stack that is not minigraph's own (nor contextlib's, which runs our `with`s)."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (
        "minigraph",
        "contextlib",
    ):
        frame = frame.f_back
    return Origin("forward", scope, frame.f_code.co_filename, frame.f_lineno)
