"""Regions as C: a function for each distinct loop nest, and the one function of the step that calls them in order.

Everything is computed in the type of its dtype, half precision in float and rounded after each op. A statement stands
in the outermost loop in which all that it reads is known. Axes of a domain that lie behind one another in every value
that is read and written are one loop. Functions whose texts agree are one function.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from minigraph.backends.access import Access, Index, access, place, reshaped
from minigraph.backends.calls import Pack, Pointers
from minigraph.backends.expressions import COMPUTED, print_c
from minigraph.backends.loops import (
    STORED,
    Loop,
    Nest,
    Statement,
    block,
    for_,
    index_text,
    merged,
    number_text,
    shared_loop,
    size_text,
)
from minigraph.backends.plan import Buffer, Plan, Step, may_fail, results
from minigraph.backends.regions import Partition, Region
from minigraph.backends.totals import Sums, Total
from minigraph.backends.work import flops_of, number_of
from minigraph.core.dim import Size, product
from minigraph.core.ir import Node, Type, Value
from minigraph.core.op import Along, Op
from minigraph.core.scalar import var

# the body of a loop nest


@dataclass(eq=False)
class Body:
    """The statements that compute values of one region at a point of its domain, or of the axes that are kept."""

    partition: Partition
    region: Region
    pointers: dict[Value, str]  # of what is read, as parameters of the function
    kernels: Kernels
    statements: list[Statement] = field(default_factory=list)
    known: dict[tuple[Value, Index], tuple[str, frozenset[int]]] = field(default_factory=dict)
    heavy: bool = False  # whether a statement is itself a loop
    checks: bool = False  # whether a statement may find an input wrong

    def member(self, value: Value, axes: Sequence[tuple[int, Size]]) -> tuple[str, frozenset[int]]:
        """The variable that holds a member of the region."""
        index = place(value.type.shape, axes)
        assert index is not None
        if (value, index) not in self.known:
            node = self.partition.graph.producer[value]
            self.known[value, index] = self._computed(node, index)
        return self.known[value, index]

    def value(self, value: Value, index: Index) -> tuple[str, frozenset[int]]:
        """The variable that holds the value at an index."""
        if (value, index) not in self.known:
            partition = self.partition
            if value in partition.virtual and value not in partition.region_of:
                self.known[value, index] = self._computed(partition.graph.producer[value], index)
            else:
                self.known[value, index] = self._loaded(value, value.type, partition.memory.access(value, index))
        return self.known[value, index]

    def store(self, value: Value, axes: Sequence[tuple[int, Size]], pointer: str) -> Statement:
        name, _ = self.member(value, axes)
        index = place(value.type.shape, axes)
        assert index is not None
        kind = STORED[value.type.dtype]
        every = frozenset(axis for axis, _ in axes)
        return Statement(f"{pointer}[@] = ({kind}){name};", every, self.partition.memory.access(value, index))

    def _computed(self, node: Node, index: Index) -> tuple[str, frozenset[int]]:
        op, result = node.op, node.outputs[0]
        if op.kernel is not None:
            return self._called(node, index)
        if op.in_order:
            inner = reshaped(node.inputs[0], result, index)
            if inner is None:
                return self._loaded(self.partition.base(result), result.type, access(index, result.type.shape))
            return self.value(node.inputs[0], inner)
        operands = [self.value(v, inner) for v, inner in self.partition.operands(node, index) if inner is not None]
        if op.view is not None:
            return operands[0]
        expression = op.expression(*(var(str(i)) for i in range(len(operands))), **node.attrs)  # type: ignore[misc]
        names = {str(i): name for i, (name, _) in enumerate(operands)}
        dtypes = {str(i): v.type.dtype for i, v in enumerate(node.inputs)}
        text = print_c(expression, names, dtypes, result.type.dtype)
        return self._set(result.type.dtype, text, frozenset().union(*(axes for _, axes in operands)), None)

    def _loaded(self, value: Value, type_: Type, where: Access) -> tuple[str, frozenset[int]]:
        pointer = self.pointer(value)
        if type_.dtype == "bool":  # gcc 12 does not vectorize a loop that chooses by a bool from memory
            pointer = f"((const uint8_t *){pointer})"
        return self._set(type_.dtype, f"{pointer}[@]", _axes(where), where, rounded=True)

    def _called(self, node: Node, index: Index) -> tuple[str, frozenset[int]]:
        kernel, result = node.op.kernel, node.outputs[0]
        assert kernel is not None
        self.heavy = self.heavy or not kernel.light
        self.checks = self.checks or kernel.checks
        where = access(index, result.type.shape)
        pointers = [self.pointer(self.partition.base(v)) for v in node.inputs]
        text = self.kernels.call(node, ["@", *pointers])
        return self._set(result.type.dtype, text, _axes(where), where, rounded=True)

    def pointer(self, value: Value) -> str:
        return self.pointers.setdefault(value, f"x{len(self.pointers)}")

    def _set(
        self, dtype: str, text: str, axes: frozenset[int], where: Access | None, rounded: bool = False
    ) -> tuple[str, frozenset[int]]:
        name = f"v{len(self.known)}_{len(self.statements)}"
        if dtype == "float16":
            text = f"(float){text}" if rounded else f"(float)(half)({text})"
        self.statements.append(Statement(f"const {COMPUTED[dtype]} {name} = {text};", axes, where))
        return name, axes


def _axes(where: Access) -> frozenset[int]:
    return frozenset(axis for axis, stride in where.strides if stride != 0)


def header_of(op: Op) -> Path:
    """The file of the op's kernel, beside the file that the op is written in."""
    assert op.kernel is not None
    return Path(inspect.getfile(op.types)).parent / op.kernel.header


class Kernels:
    """The headers of ops that are included, once for each combination of dtypes."""

    def __init__(self) -> None:
        self.included: dict[tuple[Path, tuple[str, ...], tuple[str, ...]], int] = {}
        self._shared: dict[tuple[str, str, int, bool], str] = {}  # kernel, shape, pointers, whether it finishes -> name

    def call(self, node: Node, arguments: Sequence[str]) -> str:
        """A call of the node's kernel with its shape as literals."""
        kernel, inputs, outputs = node.op.kernel, [v.type for v in node.inputs], [v.type for v in node.outputs]
        assert kernel is not None
        key = header_of(node.op), tuple(t.dtype for t in inputs), tuple(t.dtype for t in outputs)
        number = self.included.setdefault(key, len(self.included))
        fields = kernel.shape(inputs, outputs, **node.attrs)
        shape = ", ".join(f".{name} = {number_text(value)}" for name, value in fields.items())
        fault = ["fault"] if kernel.checks else []
        return f"{node.op.name}_{number}({', '.join([*arguments, f'({node.op.name}_shape){{{shape}}}', *fault])})"

    def shared(self, kernel: str, pointers: Sequence[str], shape: str, finish: str) -> str:
        """A call of the function that calls a tuned kernel with this shape."""
        name = self._shared.setdefault((kernel, shape, len(pointers), bool(finish)), f"k{len(self._shared)}")
        symbols = [f", {symbol}" for symbol in _symbols(shape)]
        return f"{name}(thread, threads, {', '.join(pointers)}{finish}{''.join(symbols)});"

    def packed(self, pack: Pack, source: str, target: str) -> str:
        """A call that packs an operand."""
        return self.shared(pack.kernel, [source, target], pack.shape, "")

    def functions(self) -> Iterator[str]:
        """Those that call tuned kernels. They take every pointer for one to what may be written."""
        for (kernel, shape, count, finishes), name in self._shared.items():
            pointers = [f"p{i}" for i in range(count)]
            parameters = ["int thread", "int threads", *(f"const float *{p}" for p in pointers)]
            parameters += ["finish_t finish", "const void *with"] if finishes else []
            parameters += [f"idx {symbol}" for symbol in _symbols(shape)]
            arguments = ["thread", "threads", *(f"(float *){p}" for p in pointers), shape]
            arguments += ["finish", "with"] if finishes else []
            yield from block(f"NOINLINE void {name}({', '.join(parameters)})", [f"{kernel}({', '.join(arguments)});"])

    def includes(self) -> Iterator[str]:
        for (header, inputs, outputs), number in self.included.items():
            named = {**{f"X{i}": d for i, d in enumerate(inputs)}, **{f"Y{i}": d for i, d in enumerate(outputs)}}
            macros = {name: STORED[dtype] for name, dtype in named.items()}
            floats = [d for d in named.values() if d.startswith("float")]
            macros["A"] = COMPUTED[floats[0]] if floats else "int64_t"
            macros["NAME(f)"] = f"f##_{number}"
            yield from (f"#define {name} {text}" for name, text in macros.items())
            yield f'#include "{header.name}"'
            yield from (f"#undef {name.split('(')[0]}" for name in macros)


# functions


@dataclass(frozen=True)
class Function:
    """A printed function without its name, and what it is called with."""

    text: str  # FUNCTION stands for its name
    arguments: tuple[str, ...]
    comment: str


class Printer:
    """Prints the function of one region."""

    def __init__(self, plan: Plan, step: Step, kernels: Kernels, places: Places):
        assert step.region is not None
        self.plan, self.step, self.region, self.kernels, self.places = plan, step, step.region, kernels, places
        self.pointers: dict[Value, str] = {}

    def function(self) -> Function:
        region = self.region
        before: list[str] = []
        if region.call in self.plan.partition.claims:
            before, lines = self._tuned()
        elif region.call is not None and region.call.op.parts is not None:
            lines = self._parts()
        elif region.call is not None:
            lines = self._lines()
        elif region.totals:
            lines = self._totals()
        else:
            lines = self._pointwise()
        lines += self._borders()
        reads = list(self.pointers)
        writes = list(self.step.writes)
        parameters = [f"const {STORED[v.type.dtype]} *{self.pointers[v]}" for v in reads]
        parameters += [f"{STORED[v.type.dtype]} *y{i}" for i, v in enumerate(writes)]
        packs = self.step.packs
        parameters += [f"{'' if b.place == 'arena' else 'const '}float *{name}" for name, b in packs.items()]
        parameters += ["float *scratch"] if self.step.scratch else []
        barrier = any("barrier()" in line for line in lines)
        parameters += ["void (*barrier)(void)"] if barrier else []
        symbols = sorted({name for name in self.plan.sizes if any(f"n_{name}" in line for line in lines)})
        parameters += [f"idx n_{name}" for name in symbols]
        fault = ["int *fault"] if any("fault" in line for line in lines) else []
        head = f"NOINLINE void FUNCTION({', '.join(['int thread', 'int threads', *parameters, *fault])})"
        unused = ["(void)thread, (void)threads;"]
        arguments = [self._address(v, self.step.reads[v]) for v in reads]
        arguments += [self._address(v, self.step.writes[v]) for v in writes]
        arguments += [self._address(b.value, b) for b in packs.values()]
        arguments += [self._address(self.step.scratch.value, self.step.scratch)] if self.step.scratch else []
        arguments += ["c->barrier"] if barrier else []
        arguments += [f"n_{name}" for name in symbols] + (["&c->fault"] if fault else [])
        comment = ", ".join(dict.fromkeys(node.name for node in self.step.nodes))
        return Function("\n".join([*before, *block(head, unused + lines)]), tuple(arguments), comment)

    def _address(self, value: Value, buffer: Buffer) -> str:
        return f"({STORED[value.type.dtype]} *){self.places.of(buffer)}"

    def _body(self) -> Body:
        return Body(self.plan.partition, self.region, self.pointers, self.kernels)

    def _names(self) -> dict[Value, str]:
        """The pointers to what is written."""
        return {value: f"y{i}" for i, value in enumerate(self.step.writes)}

    def _stores(self, body: Body, values: Sequence[Value], axes: Sequence[tuple[int, Size]]) -> list[Statement]:
        names = self._names()
        return [body.store(value, axes, names[value]) for value in values if value in names]

    # calls

    def _tuned(self) -> tuple[list[str], list[str]]:
        """The function that finishes, if anything follows, and the phases of the call."""
        node = self.region.call
        assert node is not None
        call = self.plan.partition.claims[node]
        memory, names = self.plan.partition.memory, self._names()
        result = next(v for v in results(self.plan.partition, node) if v in names)
        operands = []
        for operand in call.operands:
            pointer = self.pointers.setdefault(operand.value, f"x{len(self.pointers)}")
            operands.append(pointer + _offset(memory.access_as(operand.value, operand.shape, operand.index)))
        before, lines = self._finish(result, names) if self.region.body else ([], [])
        rows = lambda number: memory.rows(result if number < 0 else call.operands[number].value)
        finish = ", FUNCTION_finish, with" if before else ", 0, 0"
        packs = {name: name for name in call.packs}
        target = names[result] + _offset(memory.access(result, _every_axis(result)))
        phases = call.phases(Pointers(operands, packs, "scratch", target, finish, self.kernels.shared, rows))
        moving = [(name, pack) for name, pack in call.packs.items() if call.operands[pack.operand].moves]
        if moving:
            phases = ["\n".join(self.kernels.packed(p, operands[p.operand], name) for name, p in moving), *phases]
        for number, phase in enumerate(phases):
            lines += ["barrier();"] if number else []
            lines += phase.split("\n")
        return before, lines

    def _finish(self, result: Value, names: dict[Value, str]) -> tuple[list[str], list[str]]:
        """What follows number by number, as a function of a run of numbers; and the addresses that it needs.

        A run is a piece of a row of the result, of which the kernel tells where in the result's memory it begins.
        """
        region, body, axes = self.region, self._body(), self.region.axes
        assert region.call is not None
        output = region.call.outputs[0]
        index, lying = place(output.type.shape, axes), place(result.type.shape, axes)
        assert index is not None
        assert lying is not None
        every = frozenset(axis for axis, _ in axes)
        body.known[output, index] = "number", every
        for value in region.body:
            body.member(value, axes)
        whole = self.plan.partition.memory.access(result, lying)
        first = Statement(f"const float number = {names[result]}[@];", every, whole)
        stores = self._stores(body, region.body, axes)
        if output in names and output is not result:
            stores.append(body.store(output, axes, names[output]))
        statements = [first, *body.statements, *stores]
        loops = merged(axes, [s.access for s in statements if s.access is not None], "i")
        nest = Nest(loops)
        same, each = ([nest.line(s) for s in statements if bool(s.axes) == differs] for differs in (False, True))
        pointers = {name: f"const {STORED[v.type.dtype]} *" for v, name in self.pointers.items()}
        pointers.update({name: f"{STORED[v.type.dtype]} *" for v, name in names.items()})
        used = [name for name in pointers if any(re.search(rf"\b{name}\b", line) for line in (*same, *each))]
        taken = [f"{pointers[name]}const {name} = ((void *const *)with)[{i}];" for i, name in enumerate(used)]
        head = "INLINE void FUNCTION_finish(idx begin, idx end, const void *with)"
        function = block(head, [*taken, *same, *_along_a_run(loops, whole, each)])
        given_ = f"const void *const with[] = {{{', '.join(used)}}};"
        return function, [given_]

    def _borders(self) -> list[str]:
        """The zeros around what lies in the middle of something padded."""
        partition, names = self.plan.partition, self._names()
        nodes = [partition.graph.producer[value] for value in self.region.padded]
        calls = [partition.claims[node].border for node in nodes]
        return [border(names[node.outputs[0]]) for node, border in zip(nodes, calls) if border is not None]

    def _parts(self) -> list[str]:
        """Each input of the node goes to its place in the result."""
        node = self.region.call
        assert node is not None
        assert node.op.parts is not None
        lines = []
        places = node.op.parts([v.type for v in node.inputs], [v.type for v in node.outputs], **node.attrs)
        for value, alongs in zip(node.inputs, places, strict=True):
            base, shape = self.plan.partition.base(value), value.type.shape
            pointer = self.pointers.setdefault(base, f"x{len(self.pointers)}")
            read = access(tuple(Along(axis) for axis in range(len(shape))), shape)
            write = access(tuple(alongs), node.outputs[0].type.shape)
            loops = merged(list(enumerate(shape)), [read, write], "i")
            copy = f"y0[{index_text(write, loops)}] = {pointer}[{index_text(read, loops)}];"
            nest = Nest(loops)
            text = Statement(copy, frozenset(range(len(shape))))
            lines += block("", self._nested(nest, [text], 0, self._split(loops), False)) if loops else [copy]
        return lines

    def _lines(self) -> list[str]:
        node = self.region.call
        assert node is not None
        assert node.op.kernel is not None
        assert node.op.kernel.lines is not None
        partition = self.plan.partition
        for value in node.inputs:
            base = partition.base(value)
            self.pointers.setdefault(base, f"x{len(self.pointers)}")
        names = self._names()
        pointers = [self.pointers[partition.base(v)] for v in node.inputs] + [names[v] for v in node.outputs]
        count = node.op.kernel.lines([v.type for v in node.inputs], [v.type for v in node.outputs], **node.attrs)
        limits = [f"const idx lines = {size_text(count)};"]
        head = "for (idx line = share(lines, thread, threads); line < share(lines, thread + 1, threads); line++)"
        return [*limits, *block(head, [self.kernels.call(node, ["line", *pointers]) + ";"])]

    # number by number

    def _pointwise(self) -> list[str]:
        body, axes = self._body(), self.region.axes
        for value in self.region.body:
            body.member(value, axes)
        statements = body.statements + self._stores(body, self.region.body, axes)
        loops = merged(axes, [s.access for s in statements if s.access is not None], "i")
        nest = Nest(loops)
        if not loops:
            return nest.at(statements, 0)
        split = self._split(loops)
        return self._nested(nest, statements, 0, split, body.heavy)

    def _split(self, loops: Sequence[Loop]) -> int:
        """Which loop the threads share."""
        return shared_loop([self._number(loop.size) for loop in loops])

    def _number(self, size: Size) -> int:
        return number_of(size, self.plan.expected)

    def _nested(self, nest: Nest, statements: list[Statement], level: int, split: int, heavy: bool) -> list[str]:
        """The statements of this level, and the loops further in."""
        lines = nest.at(statements, level)
        if level == len(nest.loops):
            return lines
        loop, last = nest.loops[level], level + 1 == len(nest.loops)
        inner = self._nested(nest, statements, level + 1, split, heavy)
        start, end = "0", loop.limit
        if level == split:
            share = "share_lines" if last else "share"
            start, end = f"{share}({loop.limit}, thread, threads)", f"{loop.variable}_end"
            lines.append(f"const idx {end} = {share}({loop.limit}, thread + 1, threads);")
        if last and not heavy:
            lines.append("SIMD")
        return [*lines, *block(for_(loop.variable, start, end), inner)]

    # totals

    def _totals(self) -> list[str]:
        region, body = self.region, self._body()
        for value in region.body:
            body.member(value, region.axes)
        operands = []
        for total in region.totals:
            operand = self.plan.graph.producer[total].inputs[0]
            index = place(operand.type.shape, region.axes)
            assert index is not None
            operands.append(body.value(operand, index)[0])
        statements = body.statements + self._stores(body, region.body, region.axes)
        tail, names = self._tail()
        totals = [
            Total(number, self.plan.graph.producer[value], operand, name)
            for number, (value, operand, name) in enumerate(zip(region.totals, operands, names))
        ]
        accesses = [s.access for s in (*statements, *tail) if s.access is not None]
        kept = merged(region.kept, accesses, "i")
        reduced = merged([a for a in region.axes if a[0] in (region.reduced or ())], accesses, "r")
        return Sums(kept, reduced, statements, tail, totals, self._number, self.step.scratch is not None).lines()

    def _tail(self) -> tuple[list[Statement], list[str]]:
        """What is computed from totals, and the variables in which the totals are."""
        region, body = self.region, self._body()
        names = []
        every = frozenset(axis for axis, _ in region.kept)
        for number, value in enumerate(region.totals):
            index = place(value.type.shape, region.kept)
            assert index is not None
            names.append(f"total{number}")
            body.known[value, index] = names[-1], every
        for value in region.tail:
            body.member(value, region.kept)
        renamed = [Statement(_renamed(s.text), s.axes | every, s.access) for s in body.statements]
        stores = self._stores(body, [*region.totals, *region.tail], region.kept)
        return renamed + [Statement(_renamed(s.text), s.axes, s.access) for s in stores], names


def _offset(where: Access) -> str:
    """Where the first number lies."""
    return "" if where.offset == 0 else f" + {size_text(where.offset)}"


def _every_axis(value: Value) -> Index:
    return tuple(Along(axis) for axis in range(value.type.rank))


def _along_a_run(loops: Sequence[Loop], whole: Access, lines: Sequence[str]) -> list[str]:
    """The lines for the numbers from begin to end, counted from the first in the memory of what is `whole`."""
    *outer, last = loops
    if not outer:
        return ["SIMD", *block(for_(last.variable, "begin", "end"), lines)]
    found = ["idx column = begin;"]
    for loop in outer:
        apart = size_text(whole.stride(loop.axes[-1]))
        found += [f"idx {loop.variable} = column / {apart};", f"column %= {apart};"]
    carry = f"{outer[0].variable}++;"
    for loop in outer[1:]:
        carry = f"if (++{loop.variable} == {loop.limit}) {{ {loop.variable} = 0; {carry} }}"
    walk = [
        f"const idx left = {last.limit} - column, count = end - begin < left ? end - begin : left;",
        "SIMD",
        *block(for_("k", "0", "count"), [f"const idx {last.variable} = column + k;", *lines]),
        "begin += count, column = 0;",
        carry,
    ]
    return [*found, *block("while (begin < end)", walk)]


def _renamed(text: str) -> str:
    """Variables of the tail have other names than those of the body."""
    return re.sub(r"\bv(\d+_\d+)\b", r"w\1", text)


# the program


@dataclass(frozen=True)
class Source:
    """C text of a whole plan: `step` runs it."""

    text: str
    own: tuple[str, ...]  # the names of the backend's headers that it includes
    headers: frozenset[Path]  # those of ops
    steps: tuple[str, ...]  # not in the text: functions step_0, step_1, ..., each of one step of the plan by itself


def given(plan: Plan) -> tuple[Buffer, ...]:
    """What is passed to a program by its address, in order: inputs, state, literals, outputs."""
    return tuple(dict.fromkeys(b for b in plan.buffers if b.place != "arena"))


class Places:
    """Where buffers lie, as C: offsets in the arena are in a table, so that the text is one for every batch."""

    def __init__(self, plan: Plan):
        self._texts = {buffer: f"given[{i}]" for i, buffer in enumerate(given(plan))}
        self._texts.update((p.target, f"c->packed[{i}]") for i, p in enumerate(plan.prepared))
        self._texts.update((buffer, f"(arena + at[{i}])") for i, buffer in enumerate(plan.roots))

    def of(self, buffer: Buffer) -> str:
        return self._texts[buffer.root]


def print_program(plan: Plan) -> Source:
    kernels, places = Kernels(), Places(plan)
    names: dict[str, str] = {}
    calls: list[str] = []
    steps: list[list[str]] = []
    first = first_write_to_state(plan)
    for number, step in enumerate(plan.steps):
        if step.barrier or number == first:
            calls.append("c->barrier();")
        if number == first:
            calls.append("if (c->fault) return;  // the state stays as it was")
        if step.region is None:
            steps.append(_copies(step, places))
        else:
            function = Printer(plan, step, kernels, places).function()
            name = names.setdefault(function.text, f"f{len(names)}")
            alone = is_small(plan, step)
            who = ["0", "1"] if alone else ["thread", "threads"]
            arguments = ["alone" if alone and a == "c->barrier" else a for a in function.arguments]
            call = f"{name}({', '.join([*who, *arguments])});"
            steps.append([f"// {number}: {function.comment}", f"if (thread == 0) {call}" if alone else call])
        calls += steps[-1]
    symbols = [f"const idx n_{name} = c->sizes[{i}];" for i, name in enumerate(sorted(plan.sizes))]
    start = ["char *const arena = c->arena;", "const idx *const at = c->offsets;"]
    start += ["void *const *const given = c->given;", *symbols]
    unused = ["(void)arena, (void)at, (void)given, (void)thread, (void)threads;"]
    step_text = block("void step(struct context *c, int thread, int threads)", [*start, *unused, *calls])
    each = [
        block(f"void step_{number}(struct context *c, int thread, int threads)", [*start, *unused, *lines])
        for number, lines in enumerate(steps)
    ]
    functions = [text.replace("FUNCTION", name) for text, name in names.items()]
    tuned = dict.fromkeys(name for call in plan.partition.claims.values() for name in call.headers)
    includes = [f'#include "{name}"' for name in ("prelude.h", "scalar.h", *tuned)]
    prepare = _prepare(plan, kernels, places)
    shared = list(kernels.functions())
    parts = [*includes, "", *kernels.includes(), "", *shared, "", *functions, "", *prepare, "", *step_text, ""]
    headers = frozenset(header for header, _, _ in kernels.included)
    return Source("\n".join(parts), (*includes_of(includes),), headers, tuple("\n".join(lines) for lines in each))


def first_write_to_state(plan: Plan) -> int | None:
    """The step before which all that may find an input wrong is done, where anything may and a state is written."""
    doubtful = any(step.region is not None and may_fail(step.region, plan.partition) for step in plan.steps)
    moving = (n for n, step in enumerate(plan.steps) if any(b.place == "state" for b in step.writes.values()))
    return next(moving, None) if doubtful else None


SMALL = 1 << 12  # operations that are not worth waking other threads for


def is_small(plan: Plan, step: Step) -> bool:
    """Whether one thread does it: a few operations, one number, or one total, which is added up in one order."""
    region = step.region
    assert region is not None
    number = partial(number_of, sizes=plan.expected)
    if region.call is None and step.scratch is None and number(product(size for _, size in region.kept)) == 1:
        return True  # no loop to share: all would do it, and one may read what another has written already
    work = max([number(product(region.domain)), *(flops_of(node, plan.expected) for node in step.nodes)])
    return work < SMALL


def _symbols(shape: str) -> list[str]:
    """The run-time sizes in the text of a shape."""
    return sorted(set(re.findall(r"\bn_\w+", shape)))


def includes_of(lines: Iterable[str]) -> Iterator[str]:
    return (line.split('"')[1] for line in lines)


def _prepare(plan: Plan, kernels: Kernels, places: Places) -> list[str]:
    """The function that packs what does not move."""
    lines = ["void *const *const given = c->given;", "(void)given, (void)thread, (void)threads;"]
    for prepared in plan.prepared:
        source = f"(const float *){places.of(prepared.source)}{_offset(prepared.operand.access)}"
        lines.append(f"// {prepared.target.name}")
        lines.append(kernels.packed(prepared.pack, source, f"(float *){places.of(prepared.target)}"))
    return block("void prepare(struct context *c, int thread, int threads)", lines)


def _copies(step: Step, places: Places) -> list[str]:
    lines = []
    for value, state in step.writes.items():
        (source,) = step.reads.values()
        lines.append(f"// {value.name} becomes {state.name}")
        lines.append(f"if (thread == 0) memcpy({places.of(state)}, {places.of(source)}, {state.nbytes});")
    return lines
