"""Which tiles a product is made in, and in how many chunks its terms are added up.

The time is estimated in clocks of a GPU of about a hundred multiprocessors. Choices depend on sizes alone, so that
results repeat to the bit on any GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from minigraph.backends.cupy.grid import Grid, grid_of

PROCESSORS = 120  # multiprocessors: an A100 has 108, an H100 132
RATE = 128  # products that one of them makes in a clock
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

    @property
    def threads(self) -> int:
        return self.rows * self.columns // (self.own_rows * self.own_columns)

    def __str__(self) -> str:
        return f"tile<{self.rows}, {self.columns}, {self.depth}, {self.own_rows}, {self.own_columns}>"

    def blocks(self, rows: int, columns: int) -> int:
        return -(-rows // self.rows) * -(-columns // self.columns)


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


@dataclass(frozen=True)
class Division:
    """So many products of a size, in tiles, their terms in chunks. results: numbers of all products."""

    tile: Tile
    chunks: int
    per_chunk: int
    blocks: int
    results: int

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Of the product, and of adding up the chunks, if there are several."""
        grid = Grid(self.blocks, self.tile.threads)
        return (grid,) if self.chunks == 1 else (grid, grid_of(self.results))

    @property
    def scratch(self) -> int:
        return 0 if self.chunks == 1 else self.chunks * self.results


def divided(rows: int, columns: int, terms: int, products: int, results: int) -> Division:
    """The division that is fastest by estimate."""
    found = []
    for tile in TILES:
        blocks, chunks = tile.blocks(rows, columns) * products, 1
        while chunks == 1 or (blocks * chunks < FULL and chunks <= MOST_CHUNKS and terms >= chunks * LEAST):
            per_chunk = max(1, -(-terms // (chunks * tile.depth))) * tile.depth
            count = max(1, -(-terms // per_chunk))
            found.append(Division(tile, count, per_chunk, blocks * count, results))
            chunks *= 2
    return min(found, key=_clocks)


def _clocks(division: Division) -> float:
    tile, (pairs, left) = division.tile, divmod(division.blocks, 2 * PROCESSORS)
    block = tile.rows * tile.columns * division.per_chunk / (RATE * tile.share) + BEGIN
    last = 2 if left > PROCESSORS else 1 / ALONE if left else 0
    adding = LAUNCH + 8 * division.scratch / BYTES + EACH * division.chunks if division.chunks > 1 else 0
    return (2 * pairs + last) * block + adding
