"""Totals as CUDA C++: each is added up in an order that depends on its sizes alone, so that results repeat to the bit.

A block adds up some totals. Its threads are dealt out so that neighbours read neighbours: along the totals where the
last axis is kept, along the numbers of one total where it is reduced. Each thread goes over its numbers in float, for
some ROUNDS before they go to a double; then the sums of the threads are added two and two. Few totals of many numbers
are made in chunks, by a block each, and then of the chunks, in the same way, by a second kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minigraph.backends.cupy.grid import THREADS, Grid, count, placed
from minigraph.backends.expressions import COMPUTED
from minigraph.backends.loops import Loop, Nest, block
from minigraph.backends.regions import Region
from minigraph.backends.statements import OfTotals
from minigraph.backends.total import Total
from minigraph.core.dim import known, product

ROUNDS = 64  # additions in float before they go to a double
WARP = 32  # threads that read together
BLOCKS = 512  # that keep a GPU busy
EACH = 8  # numbers for a thread, at least, where totals are divided
MOST_CHUNKS = 128
SHARED = 48 << 10  # bytes that a block's threads may share


@dataclass(frozen=True)
class Shares:
    """How the numbers of a region's totals are dealt out.

    kept: so many totals are one block's, by so many threads each: `reduced`. chunks: so many blocks are at one total.
    columns: whether neighbouring threads are at neighbouring totals.
    """

    kept: int
    reduced: int
    chunks: int
    columns: bool

    @property
    def threads(self) -> int:
        return self.kept * self.reduced


def shares(region: Region) -> Shares:
    """By the sizes of the region, which are numbers."""
    totals = known(product(size for _, size in region.kept), "the number of totals")
    numbers = known(product(size for axis, size in region.axes if axis in (region.reduced or ())), "how many they add")
    columns = bool(region.kept) and region.kept[-1][0] == len(region.domain) - 1
    threads = THREADS
    while threads > WARP and threads * 8 * len(region.totals) > SHARED:
        threads //= 2
    reduced = max(1, threads // _power_above(totals, WARP)) if columns else _power_above(numbers, threads)
    reduced = min(reduced, _power_above(numbers, threads))
    kept = threads // reduced
    blocks = -(-totals // kept)
    chunks = min(MOST_CHUNKS, BLOCKS // max(1, blocks), numbers // (reduced * EACH))
    return Shares(kept, reduced, max(1, chunks), columns)


def _power_above(n: int, most: int) -> int:
    """The least power of two that is not below n, but at most `most`."""
    return min(most, 1 << max(0, n - 1).bit_length())


def printed(
    share: Shares, kept: Sequence[Loop], reduced: Sequence[Loop], sums: OfTotals
) -> list[tuple[Grid, list[str]]]:
    """The kernels: lines and grids."""
    points, chunks = count(kept), share.chunks
    numbers = [*placed("kept", kept), *_of_a_thread(share, count(reduced), [*kept, *reduced], reduced, sums)]
    ends = [*placed("kept", kept), *(t.declared(f"parts{t.number}[threadIdx.x]") for t in sums.totals)]
    ends += [Nest(kept).line(s) for s in sums.tail]
    if chunks == 1:
        return [_added(share, points, numbers, ends, sums)]
    place = {t: t.chunk(chunks, str(points), "chunk", "kept") for t in sums.totals}
    several = _added(share, points, numbers, [f"{place[t]} = parts{t.number}[threadIdx.x];" for t in sums.totals], sums)
    lanes = _power_above(points, WARP)
    of_chunks = Shares(lanes, min(_power_above(chunks, share.threads), max(1, share.threads // lanes)), 1, True)
    head = f"for (int chunk = reduced_lane; chunk < {chunks}; chunk += {of_chunks.reduced})"
    joined = block(head, [_joined(t, f"sum{t.number}", place[t], t.wide) for t in sums.totals])
    return [several, _added(of_chunks, points, joined, ends, sums)]


def _added(
    share: Shares, points: int, thread: Sequence[str], ends: Sequence[str], sums: OfTotals
) -> tuple[Grid, list[str]]:
    """A kernel. thread: how one adds up its numbers, at one of the totals. ends: what is done with each sum."""
    fast, slow = ("kept", "reduced") if share.columns else ("reduced", "kept")
    fast_lanes, blocks = getattr(share, fast), -(-points // share.kept)
    lines = [f"const int {fast}_lane = threadIdx.x % {fast_lanes}, {slow}_lane = threadIdx.x / {fast_lanes};"]
    lines += [f"const place kept = blockIdx.x % {blocks} * {share.kept} + kept_lane, chunk = blockIdx.x / {blocks};"]
    lines += [f"__shared__ {t.wide} parts{t.number}[{share.threads}];" for t in sums.totals]
    lines += [f"{t.wide} sum{t.number} = {t.start()};" for t in sums.totals]
    lines += block(f"if (kept < {points})", thread)
    lines += [f"parts{t.number}[threadIdx.x] = sum{t.number};" for t in sums.totals]
    apart = share.kept if share.columns else 1
    together = [
        _joined(t, f"parts{t.number}[threadIdx.x]", f"parts{t.number}[threadIdx.x + half * {apart}]", t.wide)
        for t in sums.totals
    ]
    inner = ["__syncthreads();", *block("if (reduced_lane < half)", together)]
    lines += block(f"for (int half = {share.reduced // 2}; half > 0; half /= 2)", inner)
    lines += block(f"if (reduced_lane == 0 && kept < {points})", ends)
    return Grid(blocks * share.chunks, share.threads), lines


def _of_a_thread(
    share: Shares, numbers: int, loops: Sequence[Loop], reduced: Sequence[Loop], sums: OfTotals
) -> list[str]:
    """What one thread adds up."""
    nest = Nest(loops)
    body = [line for level in range(len(loops) + 1) for line in nest.at(sums.statements, level)]
    narrow = [t for t in sums.totals if t.narrow]
    lines = [f"{COMPUTED[t.dtype]} part{t.number} = {t.start()};" for t in narrow]
    lines += ["int rounds = 0;"] if narrow else []
    inner = [*placed("reduced", reduced), *body]
    for t in sums.totals:
        kind = COMPUTED[t.dtype]
        inner.append(_joined(t, f"part{t.number}" if t.narrow else f"sum{t.number}", t.operand, kind))
    flush = " ".join(f"sum{t.number} += part{t.number}; part{t.number} = 0;" for t in narrow)
    inner += [f"if (++rounds == {ROUNDS}) {{ rounds = 0; {flush} }}"] if narrow else []
    begin, end = (f"(place)((idx){numbers} * {chunk} / {share.chunks})" for chunk in ("chunk", "(chunk + 1)"))
    head = f"for (place reduced = {begin} + reduced_lane; reduced < {end}; reduced += {share.reduced})"
    return [*lines, *block(head, inner), *([flush] if narrow else [])]


def _joined(total: Total, sum_: str, more: str, kind: str) -> str:
    return f"{sum_} = ({kind})({total.combined(sum_, more, kind)});"
