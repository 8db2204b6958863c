"""What follows a kernel number by number, as a C function that it hands its rows to while they are in the cache.

A kernel hands on a few rows of numbers at a time, finish(begin, rows, apart, columns, with): see finish_t in tile.h.
Nearly always each is a piece of one row of the loops here, of a length that the compiler knows, and the next one lies
in the next row, or in the same, where this is longer; then where they lie is found once for all of them. What goes
beyond a row is walked from row to row.
"""

from __future__ import annotations

from collections.abc import Sequence

from minigraph.backends.access import Access
from minigraph.backends.loops import Loop, block, for_, size_text

HEAD = "INLINE void FUNCTION_finish(idx begin, idx rows, idx apart, idx columns, const void *with)"
RUN = "NOINLINE void FUNCTION_run(idx begin, idx end, const void *with)"


def finishing(loops: Sequence[Loop], whole: Access, once: Sequence[str], lines: Sequence[str]) -> list[str]:
    """The function of these lines, in loops over the memory of what is `whole`. once: what the lines need."""
    *outer, last = loops
    if not outer:
        join = "if (apart == columns) columns *= rows, rows = 1;"
        row = ["SIMD", *block(for_(last.variable, "begin", "begin + columns"), lines), "begin += apart;"]
        return block(HEAD, [*once, join, *block(for_("row", "0", "rows"), row)])
    distances = [size_text(whole.stride(loop.axes[-1])) for loop in outer]
    found = ["idx column = begin;"]
    for loop, distance in zip(outer, distances):
        found += [f"idx {loop.variable} = column / {distance};", f"column %= {distance};"]
    number = f"const idx {last.variable} = column + k;"
    rows = "".join(f"idx {loop.variable}, " for loop in outer)
    piece = block(
        f"INLINE void FUNCTION_piece({rows}idx column, idx columns, const void *with)",
        [*once, "SIMD", *block(for_("k", "0", "columns"), [number, *lines])],
    )
    call = f"FUNCTION_piece({', '.join(loop.variable for loop in outer)}, column, columns, with);"
    here = [*found, f"const idx step = apart / {distances[-1]}, along = apart % {distances[-1]};"]
    here += block(f"if (columns + (rows - 1) * along > {last.limit} - column)", [*_each_run(), "return;"])
    here += block(for_("row", "0", "rows"), [call, "column += along;", _onward(outer, "step")])
    walk = [
        f"const idx left = {last.limit} - column, columns = end - begin < left ? end - begin : left;",
        call,
        "begin += columns, column = 0;",
        _onward(outer, "1"),
    ]
    run = block(RUN, [*found, *block("while (begin < end)", walk)])
    return [*piece, *run, *block(HEAD, here)]


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
