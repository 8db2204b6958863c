"""Matrix products, of operands where they lie."""

from __future__ import annotations

from minigraph.backends.calls import Operand, Pointers
from minigraph.backends.cupy.claims.factors import factors
from minigraph.backends.cupy.claims.launched import Launched, in_fours, numbers, reading, strides, struct
from minigraph.backends.cupy.claims.tiles import divided
from minigraph.core.dim import known
from minigraph.core.ir import Graph, Node, Value

MAX_RANK = 8  # of the axes in front of the matrices, in gemm.cuh


def matmul(graph: Graph, node: Node) -> Launched | None:
    shape = node.outputs[0].type.shape
    if len(shape) - 2 > MAX_RANK:
        return None
    of = factors(graph, node)
    a, b = (of.operand(value) for value in node.inputs)
    M, N, K = (known(n, "a size") for n in (*shape[-2:], node.inputs[0].type.shape[-1]))
    *a_front, a_row, a_column = _apart(a, node.inputs[0])
    *b_front, b_row, b_column = _apart(b, node.inputs[1])
    front = [known(n, "a size") for n in shape[:-2]]
    a_apart, b_apart = ([0] * (len(front) - len(own)) + own for own in (a_front, b_front))
    while front and b_apart[-1] == 0 and (front[-1] == 1 or a_apart[-1] == M * a_row):
        M *= front.pop()  # matrices of a that lie behind one another, and meet the same b, are one
        del a_apart[-1], b_apart[-1]
    products, rows = numbers(front), numbers(shape[:-1])
    division = divided(M, N, K, products, rows * N, of.kind)
    unused = (0,) * (MAX_RANK - len(front))
    fields = {
        "M": M, "N": N, "K": K, "a_row": a_row, "a_column": a_column, "b_row": b_row, "b_column": b_column,
        "rank": len(front), "sizes": (*front, *unused), "a_apart": (*a_apart, *unused), "b_apart": (*b_apart, *unused),
        "products": products, "per_chunk": division.per_chunk,
    }  # fmt: skip
    of_a, of_b = _reading(a, a_row, a_column, M, K, a_apart), _reading(b, b_column, b_row, N, K, b_apart)

    def phases(p: Pointers) -> list[str]:
        put = "finish" if division.chunks == 1 else f"chunks{{scratch, {N}}}"
        given = f"{', '.join(map(of.pointer, p.operands))}, {struct('gemm_shape', fields)}, {put}"
        first = f"gemm<{division.tile}, {of_a}, {of_b}>({given});"
        return [first, f"add_chunks(scratch, {division.chunks}, {rows}, {N}, 1, finish);"][: len(division.grids)]

    return Launched(
        node,
        ("tile.cuh", "fragments.cuh", "gemm.cuh"),
        (a, b),
        phases,
        scratch=division.scratch,
        finishes=True,
        grids=division.grids,
        columns=N,
    )


def _apart(found: Operand, value: Value) -> list[int]:
    """How far apart neighbours along each axis of an input lie; along axes in front of the matrices 0 if it has one."""
    apart, last = strides(found, value.type.rank), value.type.rank - 2
    return [0 if n == 1 and axis < last else apart[axis] for axis, n in enumerate(value.type.shape)]


def _reading(found: Operand, line: int, term: int, lines: int, terms: int, apart: list[int]) -> str:
    """How lines and terms that lie so far apart are read."""
    deep = term == 1 and (line != 1 or lines == 1)
    side_by_side, steps = (terms, [line, *apart]) if deep else (lines, [term, *apart])
    return reading(deep, (term if deep else line) == 1 and in_fours(found, side_by_side, steps))
