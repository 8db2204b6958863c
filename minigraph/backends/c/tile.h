// The register tile under matrix products and direct convolutions:
//
//     y[m][n] (+)= sum over i, j, k of  a[m * a_row + i * a_outer + j * a_middle + k * a_inner]
//                                     * b[    n     + i * b_outer + j * b_middle + k * b_inner]
//
// for a few rows m and a few vectors of columns n, all of whose sums stay in registers. What the three loops of the sum
// mean is the caller's: the window's rows, columns and channels in a convolution, images, rows and pixels in its weight
// gradient, only k in a matrix product. Each sum is made by one thread, from the first term to the last, so a result
// depends neither on the number of threads nor on which tile a row falls into.
#ifndef MINIGRAPH_TILE_H
#define MINIGRAPH_TILE_H

// What is left to do with numbers [begin, end) of y, counted from the pointer the kernel was given, as soon as they are
// whole and while they are in the cache. Called once for each number; a run never leaves its row (pixel) of y.
typedef void (*finish_t)(idx begin, idx end, const void *with);

typedef struct {
  idx outer, middle, inner;        // how often each loop of the sum turns
  idx a_row;                       // from one row of the tile to the next
  idx a_outer, a_middle, a_inner;  // from one term to the next in a
  idx b_outer, b_middle, b_inner;  // and in b
  idx y_row;                       // from one row of y to the next
  int vectors;                     // width of a whole tile, in vectors
  bool b_padded;                   // b may be read to the whole width where y ends before
  bool add;                        // to what y holds
  bool last;                       // the sums are whole after this
} tile_shape;

// The most rows whose sums fit into the registers, beside a row of b and a number of a.
INLINE int tile_rows(int vectors) { return (REGISTERS - 1 - vectors) / vectors; }

// The same, but so that tiles of one height share `rows` rows about evenly.
INLINE int tile_rows_of(int vectors, idx rows) {
  const idx most = tile_rows(vectors), tiles = (rows + most - 1) / most;
  return rows < 1 ? 1 : (int)((rows + tiles - 1) / tiles);
}

// How many of a vector's lanes are columns that exist.
INLINE idx tile_lanes(idx columns, int vector) {
  const idx rest = columns - (idx)vector * LANES;
  return rest < 0 ? 0 : rest < LANES ? rest : LANES;
}

INLINE vec tile_load(const float *p, idx columns, int vector) {
  const idx lanes = tile_lanes(columns, vector);
  return lanes == LANES ? vec_load(p + vector * LANES) : vec_load_first(p + vector * LANES, lanes);
}

INLINE void tile_store(float *p, idx columns, int vector, vec v) {
  const idx lanes = tile_lanes(columns, vector);
  if (lanes == LANES) vec_store(p + vector * LANES, v); else vec_store_first(p + vector * LANES, v, lanes);
}

// `rows` x `columns` numbers of y, of which the first `skip` rows are only computed: they are there already.
INLINE void tile(const float *a, const float *b, float *y, int rows, idx columns, idx skip, tile_shape s) {
  const int width = s.vectors;
  vec sum[REGISTERS], bs[REGISTERS];
  if (rows * width > REGISTERS) __builtin_trap();  // folded away: both are literals
  UNROLL for (int n = 0; n < rows * width; n++) sum[n] = (vec){0};
  if (s.add) {
    UNROLL for (int m = 0; m < rows; m++) {
      if (m < skip) continue;
      UNROLL for (int v = 0; v < width; v++) sum[m * width + v] = tile_load(y + m * s.y_row, columns, v);
    }
  }
  for (idx i = 0; i < s.outer; i++) {
    for (idx j = 0; j < s.middle; j++) {
      const float *at = a + i * s.a_outer + j * s.a_middle, *bt = b + i * s.b_outer + j * s.b_middle;
      for (idx k = 0; k < s.inner; k++) {
        UNROLL for (int v = 0; v < width; v++) bs[v] = tile_load(bt, s.b_padded ? width * LANES : columns, v);
        UNROLL for (int m = 0; m < rows; m++) {
          const vec am = vec_splat(at[m * s.a_row]);
          UNROLL for (int v = 0; v < width; v++) sum[m * width + v] = vec_fma(am, bs[v], sum[m * width + v]);
        }
        at += s.a_inner;
        bt += s.b_inner;
      }
    }
  }
  UNROLL for (int m = 0; m < rows; m++) {
    if (m < skip) continue;
    UNROLL for (int v = 0; v < width; v++) tile_store(y + m * s.y_row, columns, v, sum[m * width + v]);
  }
}

// Rows [begin, end) in tiles of `rows` each, and in one more if more than `small` are left over; returns the first row
// not done. That last tile begins earlier, if no row before row 0 is needed: it computes some rows again and stores
// what is new.
INLINE idx tiles_of(int rows, int small, const float *a, const float *b, float *y, idx at, idx begin, idx end,
                    idx columns, tile_shape s, finish_t finish, const void *with) {
  const idx whole = (end - begin) / rows, width = (idx)s.vectors * LANES;
  const bool rest = (end - begin) % rows > small && end >= rows;
  for (idx i = 0; i < whole + rest; i++) {
    const idx from = begin + i * rows, first = i < whole ? from : end - rows;
    tile(a + first * s.a_row, b, y + at + first * s.y_row, rows, columns, from - first, s);
    if (finish && s.last) {
      for (idx m = from; m < first + rows; m++) {
        const idx run = at + m * s.y_row;
        if (columns == width) finish(run, run + width, with); else finish(run, run + columns, with);
      }
    }
  }
  return rest ? end : begin + whole * rows;
}

INLINE void tile_columns(int rows, idx most, const float *a, const float *b, float *y, idx at, idx begin, idx end,
                         idx columns, tile_shape s, finish_t finish, const void *with) {
  const int half = rows / 2, quarter = rows / 4;
  if (rows <= most) begin = tiles_of(rows, half, a, b, y, at, begin, end, columns, s, finish, with);
  if (half > 1 && half <= most) begin = tiles_of(half, quarter, a, b, y, at, begin, end, columns, s, finish, with);
  if (quarter > 1 && quarter <= most) begin = tiles_of(quarter, 1, a, b, y, at, begin, end, columns, s, finish, with);
  tiles_of(1, 0, a, b, y, at, begin, end, columns, s, finish, with);
}

// Rows [begin, end) of one panel of y, from y[at] on, a being that of row 0; of the panel's columns those of `left` are
// there, and `tail` is how many the last panel has (0: all). `rows` is the tile's height, a literal; no more than
// `most` rows lie before `end`, so where that is a literal the tiles that are never used are not compiled.
INLINE void tile_panel(int rows, idx most, const float *a, const float *b, float *y, idx at, idx begin, idx end,
                       idx left, idx tail, tile_shape s, finish_t finish, const void *with) {
  const idx width = (idx)s.vectors * LANES;
  if (tail == 0) {
    tile_columns(rows, most, a, b, y, at, begin, end, width, s, finish, with);
  } else if (s.b_padded) {  // only what is stored depends on the tail: one text for both
    tile_columns(rows, most, a, b, y, at, begin, end, left < width ? left : width, s, finish, with);
  } else if (left >= width) {
    tile_columns(rows, most, a, b, y, at, begin, end, width, s, finish, with);
  } else {
    tile_columns(rows, most, a, b, y, at, begin, end, tail, s, finish, with);
  }
}

// Which rows and which panels of columns a thread does: a grid of threads that divides the work most evenly and, among
// equals, lets a thread read least. `height` is a row's number of tile rows; row_reads and panel_reads are floats.
typedef struct { idx row, row_end, panel, panel_end; } tile_share;

INLINE tile_share tile_split(int thread, int threads, idx rows, idx height, idx panels, idx row_reads,
                             idx panel_reads) {
  idx best_work = -1, best_reads = -1;
  int best = 1;
  for (int across = 1;; across = across < threads && threads % (across * 2) == 0 ? across * 2 : threads) {
    const int down = threads / across;
    const idx own_rows = (rows + down - 1) / down, own_panels = (panels + across - 1) / across;
    const idx work = (own_rows * height + 3) * own_panels;  // 3: a tile of few rows costs more than its share
    const idx reads = own_rows * row_reads + own_panels * panel_reads;
    if (best_work < 0 || work < best_work || (work == best_work && reads < best_reads)) {
      best = across, best_work = work, best_reads = reads;
    }
    if (across == threads) break;
  }
  const int down = threads / best, i = thread / best, j = thread % best;
  return (tile_share){rows * i / down, rows * (i + 1) / down, panels * j / best, panels * (j + 1) / best};
}

#endif
