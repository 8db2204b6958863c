"""What follows a kernel number by number, as a C function that it hands its rows to while they are in the cache.

A kernel hands on a few rows of numbers at a time, finish(begin, rows, apart, columns, with): see finish_t in tile.h.
Nearly always each is a piece of one row of the loops here, of a length that the compiler knows, and all lie in one turn
of the loops further out: then the next one is as far from each as from the first. What goes beyond is walked.
"""

from __future__ import annotations

from collections.abc import Sequence

from minigraph.backends.access import Access
from minigraph.backends.loops import Loop, Nest, Statement, block, for_, size_text
from minigraph.backends.vectors import in_vectors

ROWS = "idx begin, idx rows, idx apart, idx columns, const void *with"
HEAD = f"INLINE void FUNCTION_finish({ROWS})"
WALK = f"NOINLINE void FUNCTION_walk({ROWS})"
RUN = "NOINLINE void FUNCTION_run(idx begin, idx end, const void *with)"


def finishing(loops: Sequence[Loop], whole: Access, once: Sequence[str], each: Sequence[Statement]) -> list[str]:
    """The function of what is done with each number, in loops over the memory of what is `whole`.

    once: what the statements need.
    """
    *outer, last = loops
    if not outer:
        join = "if (apart == columns) columns *= rows, rows = 1;"
        number = f"const idx {last.variable} = begin + k;"
        row = [*_row(number, each, loops), "begin += apart;"]
        return block(HEAD, [*once, join, *block(for_("row", "0", "rows"), row)])
    distances = [size_text(whole.stride(loop.axes[-1])) for loop in outer]
    found = ["idx column = begin;"]
    for loop, distance in zip(outer, distances):
        found += [f"idx {loop.variable} = column / {distance};", f"column %= {distance};"]
    found_rows = [*found, f"const idx step = apart / {distances[-1]}, along = apart % {distances[-1]};"]
    variables = "".join(f"idx {loop.variable}, " for loop in outer)
    piece = block(
        f"INLINE void FUNCTION_piece({variables}idx column, idx columns, const void *with)",
        [*once, *_row(f"const idx {last.variable} = column + k;", each, loops)],
    )
    call = f"FUNCTION_piece({', '.join(loop.variable for loop in outer)}, column, columns, with);"
    beyond = f"columns + (rows - 1) * along > {last.limit} - column"
    nearest = outer[-1]
    near = f" || {nearest.variable} + (rows - 1) * step >= {nearest.limit}" if len(outer) > 1 else ""
    here = [
        *found_rows,
        *block(f"if ({beyond}{near})", ["FUNCTION_walk(begin, rows, apart, columns, with);", "return;"]),
    ]
    here += block(for_("row", "0", "rows"), [call, f"column += along, {nearest.variable} += step;"])
    left = [
        f"const idx left = {last.limit} - column, columns = end - begin < left ? end - begin : left;",
        call,
        "begin += columns, column = 0;",
        _onward(outer, "1"),
    ]
    run = block(RUN, [*found, *block("while (begin < end)", left)])
    walk = [*found_rows, *block(f"if ({beyond})", [*_each_run(), "return;"])]
    walk += block(for_("row", "0", "rows"), [call, "column += along;", _onward(outer, "step")])
    return [*piece, *run, *block(WALK, walk), *block(HEAD, here)]


def _row(number: str, each: Sequence[Statement], loops: Sequence[Loop]) -> list[str]:
    """A row of `columns` numbers, by vectors where that can be. number: which one k is."""
    nest = Nest(loops)
    whole, rest = in_vectors(each, loops), in_vectors(each, loops, "columns - k")
    if whole is None or rest is None:
        return ["SIMD", *block(for_("k", "0", "columns"), [number, *map(nest.line, each)])]
    head = "PAIRS for (; k + LANES <= columns; k += LANES)"
    vectors = block(head, [number, *map(nest.line, whole)])
    return ["idx k = 0;", *vectors, *block("if (k < columns)", [number, *map(nest.line, rest)])]


def _each_run() -> list[str]:
    at = "begin + row * apart"
    return block(for_("row", "0", "rows"), [f"FUNCTION_run({at}, {at} + columns, with);"])


def _onward(outer: Sequence[Loop], step: str) -> str:
    """So many rows further."""
    first, *rest = outer
    if not rest:
        return f"{first.variable} += {step};"
    carry = f"{first.variable}++;"
    for loop in rest[:-1]:
        carry = f"if (++{loop.variable} == {loop.limit}) {{ {loop.variable} = 0; {carry} }}"
    row = rest[-1]
    return f"for ({row.variable} += {step}; {row.variable} >= {row.limit}; {row.variable} -= {row.limit}) {{ {carry} }}"
