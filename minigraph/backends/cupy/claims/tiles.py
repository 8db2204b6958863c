"""Which tiles a product is made in, and in how many chunks its terms are added up.

The time is estimated in clocks of a GPU of about a hundred multiprocessors. Choices depend on sizes alone, so that
results repeat to the bit on any GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from minigraph.backends.cupy.grid import Grid, grid_of

PROCESSORS = 120  # multiprocessors: an A100 has 108, an H100 132
RATES = {"float": 128, "tf32": 512, "half": 1024, "bfloat16": 1024}  # products of each that one makes in a clock
PER_WORD = {"tf32": 1, "half": 2, "bfloat16": 2}  # factors that tensor cores read in a word of 32 bits
BYTES = 1400  # that all of them move in a clock
BEGIN = 1500  # clocks to start and end a block
ALONE = 0.7  # of its rate, that a multiprocessor reaches with one block instead of two
LAUNCH = 4000  # to launch one more kernel, and wait for it
EACH = 40  # to read a number of one more chunk
FULL = 4 * PROCESSORS  # blocks that are not divided further
LEAST = 64  # terms of a chunk
MOST_CHUNKS = 256


@dataclass(frozen=True)
class Tile:
    """See tile.cuh. share: of the rate, that its inner loop reaches."""

    rows: int
    columns: int
    depth: int
    own_rows: int
    own_columns: int
    share: float

    name: ClassVar[str] = "tile"
    lanes: ClassVar[int] = 1  # threads that share what it calls a thread's own

    @property
    def threads(self) -> int:
        return self.rows * self.columns // (self.own_rows * self.own_columns) * self.lanes

    def __str__(self) -> str:
        return f"{self.name}<{self.rows}, {self.columns}, {self.depth}, {self.own_rows}, {self.own_columns}>"

    def blocks(self, rows: int, columns: int) -> int:
        return -(-rows // self.rows) * -(-columns // self.columns)


@dataclass(frozen=True)
class Warps(Tile):
    """A tile on tensor cores: see fragments.cuh. depth: in words. own_: of a warp."""

    name = "warps"
    lanes = 32


TILES = (
    Tile(128, 128, 8, 8, 8, 0.9),
    Tile(128, 64, 16, 8, 4, 0.75),
    Tile(64, 128, 16, 4, 8, 0.75),
    Tile(64, 64, 16, 4, 4, 0.55),
    Tile(128, 32, 16, 4, 4, 0.5),
    Tile(32, 128, 16, 4, 4, 0.5),
    Tile(256, 16, 16, 4, 4, 0.4),
    Tile(16, 256, 16, 4, 4, 0.4),
)


# Half of the rate is what tensor cores reach where a warp reads its factors from shared memory number by number.
ON_TENSOR_CORES = (
    Warps(128, 128, 16, 64, 32, 0.5),
    Warps(128, 64, 16, 32, 32, 0.4),
    Warps(64, 128, 16, 32, 32, 0.4),
    Warps(64, 64, 16, 32, 16, 0.3),
    Warps(128, 32, 16, 32, 16, 0.25),
    Warps(32, 128, 16, 16, 32, 0.25),
    Warps(256, 16, 16, 32, 16, 0.2),
    Warps(16, 256, 16, 16, 32, 0.2),
)


@dataclass(frozen=True)
class Division:
    """So many products of a size, in tiles, their terms in chunks. results: numbers of all products.

    rate: products that a multiprocessor makes in a clock, at best.
    """

    tile: Tile
    chunks: int
    per_chunk: int
    blocks: int
    results: int
    rate: int

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Of the product, and of adding up the chunks, if there are several."""
        grid = Grid(self.blocks, self.tile.threads)
        return (grid,) if self.chunks == 1 else (grid, grid_of(self.results))

    @property
    def scratch(self) -> int:
        return 0 if self.chunks == 1 else self.chunks * self.results


def divided(rows: int, columns: int, terms: int, products: int, results: int, kind: str = "float") -> Division:
    """The division that is fastest by estimate. kind: the type in C++ that the factors are read as."""
    found = []
    for tile in ON_TENSOR_CORES if kind in PER_WORD else TILES:
        depth = tile.depth * PER_WORD.get(kind, 1)
        blocks, chunks = tile.blocks(rows, columns) * products, 1
        while chunks == 1 or (blocks * chunks < FULL and chunks <= MOST_CHUNKS and terms >= chunks * LEAST):
            per_chunk = max(1, -(-terms // (chunks * depth))) * depth
            count = max(1, -(-terms // per_chunk))
            found.append(Division(tile, count, per_chunk, blocks * count, results, RATES[kind]))
            chunks *= 2
    return min(found, key=_clocks)


def _clocks(division: Division) -> float:
    tile, (pairs, left) = division.tile, divmod(division.blocks, 2 * PROCESSORS)
    block = tile.rows * tile.columns * division.per_chunk / (division.rate * tile.share) + BEGIN
    last = 2 if left > PROCESSORS else 1 / ALONE if left else 0
    adding = LAUNCH + 8 * division.scratch / BYTES + EACH * division.chunks if division.chunks > 1 else 0
    return (2 * pairs + last) * block + adding
