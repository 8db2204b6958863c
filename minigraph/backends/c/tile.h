// The register tile under matrix products and convolutions:
//
//     y[m][n] (+)= sum over i, j, k of  a[m * a_row + i * a_outer + j * a_middle + k * a_inner]
//                                     * b[    n     + i * b_outer + j * b_middle + k * b_inner]
//
// for a few rows m and one or two vectors of columns n, all of whose sums stay in registers. What the three loops of
// the sum mean is the caller's: the window's rows, columns and channels in a convolution, images, rows and pixels in its
// weight gradient, only k in a matrix product. Each sum is made by one thread, from the first term to the last, so a
// result depends neither on the number of threads nor on which tile a row falls into.
//
// Each size of tile is one function, not inlined, that all kernels of a program share: how far apart numbers lie, and
// how many there are, it learns as it runs. So a kernel costs a compiler little, however many shapes it is called with.
#ifndef MINIGRAPH_TILE_H
#define MINIGRAPH_TILE_H

// Floats of packed b that are fetched into the L2 cache before they are needed, of this panel and of the next one, which
// lies behind it: processors fetch no further than to the end of a page by themselves, and weights come from memory.
enum { TILE_AHEAD = 1536 };

// What is left to do with `rows` rows of `columns` numbers of y each, as soon as they are whole and while they are in the
// cache: the first begins at y[begin], counted from the pointer the kernel was given, the next one `apart` behind it,
// which is in the next row (pixel) of y, or several further. Called once for each number.
typedef void (*finish_t)(idx begin, idx rows, idx apart, idx columns, const void *with);

typedef struct {
  idx outer, middle, inner;        // how often each loop of the sum turns
  idx a_row;                       // from one row of the tile to the next
  idx a_outer, a_middle, a_inner;  // from one term to the next in a
  idx b_outer, b_middle, b_inner;  // and in b
  idx y_row;                       // from one row of y to the next
  idx a_half, y_half;              // of tile_two: from the first half of the rows to the second
  int vectors;                     // width of a whole tile, in vectors: 1 or 2
  bool b_padded;                   // b may be read to the whole width where y ends before
  bool add;                        // to what y holds
  bool last;                       // the sums are whole after this
  // Set by tile_panel:
  idx columns;                     // that are there
  idx skip;                        // rows at the beginning that are there already, and only computed
  int b_lanes[2];                  // of each vector of b, that may be read
} tile_shape;

// How many of a vector's lanes are columns that exist.
INLINE idx tile_lanes(idx columns, int vector) {
  const idx rest = columns - (idx)vector * LANES;
  return rest < 0 ? 0 : rest < LANES ? rest : LANES;
}

// The numbers of y that are there, from and to a place that has all columns of a tile.
NOINLINE void tile_take(const float *y, float *sums, int rows, int width, const tile_shape *s) {
  for (idx m = 0; m < rows; m++) {
    for (int v = 0; v < width; v++) {
      const idx lanes = m < s->skip ? 0 : tile_lanes(s->columns, v);
      vec_store(sums + (m * width + v) * LANES, vec_load_first(y + m * s->y_row + v * LANES, lanes));
    }
  }
}

NOINLINE void tile_give(const float *sums, float *y, int rows, int width, const tile_shape *s) {
  for (idx m = s->skip; m < rows; m++) {
    for (int v = 0; v < width; v++) {
      const vec sum = vec_load(sums + (m * width + v) * LANES);
      vec_store_first(y + m * s->y_row + v * LANES, sum, tile_lanes(s->columns, v));
    }
  }
}

// Where a row of y lies, the rows being in two halves, or in one piece (0).
INLINE idx tile_row(int m, int half, idx row, idx apart) {
  return half ? m / half * apart + m % half * row : m * row;
}

// `rows` rows, at most 16, and `width` vectors: literals, as is `half`: the rows in each of two halves that lie
// `a_half` apart, or 0. Every fifth row of a, or each half, has a pointer of its own: so the innermost loop does with few
// general registers, and no compiler keeps what it has too many of in vector registers.
INLINE void tile(int rows, int width, int half, const float *a, const float *b, float *y, const tile_shape *s) {
  vec sum[REGISTERS], bs[2];
  float sums[REGISTERS * LANES];
  const bool whole = s->skip == 0 && s->columns == width * LANES;
  UNROLL for (int n = 0; n < rows * width; n++) sum[n] = (vec){0};
  if (s->add) {
    if (!whole) tile_take(y, sums, rows, width, s);
    const float *from = whole ? y : sums;
    const idx row = whole ? s->y_row : width * LANES, apart = whole ? s->y_half : half * row;
    UNROLL for (int n = 0; n < rows * width; n++) {
      sum[n] = vec_load(from + tile_row(n / width, half, row, apart) + n % width * LANES);
    }
  }
  const int lanes[2] = {s->b_lanes[0], s->b_lanes[1]};
  const idx ahead = s->b_padded ? TILE_AHEAD : 0;
  const bool masked = lanes[width - 1] < LANES;  // only where b ends: processors do not read ahead of masked loads
  const int group = half ? half : 5;
  const idx a_row = s->a_row, a_inner = s->a_inner, b_inner = s->b_inner, a_group = half ? s->a_half : 5 * a_row;
  for (idx i = 0; i < s->outer; i++) {
    for (idx j = 0; j < s->middle; j++) {
      const float *first = a + i * s->a_outer + j * s->a_middle, *bt = b + i * s->b_outer + j * s->b_middle;
      const float *at[4] = {first, first + a_group, first + 2 * a_group, first + 3 * a_group};
      for (idx k = s->inner; k > 0; k--) {
        UNROLL for (int v = 0; v < width; v++) {
          bs[v] = masked ? vec_load_first(bt + v * LANES, lanes[v]) : vec_load(bt + v * LANES);
          __builtin_prefetch(bt + v * LANES + ahead, 0, 2);
        }
        UNROLL for (int m = 0; m < rows; m++) {
          const vec am = vec_splat(at[m / group][m % group * a_row]);
          UNROLL for (int v = 0; v < width; v++) sum[m * width + v] = vec_fma(am, bs[v], sum[m * width + v]);
        }
        UNROLL for (int m = 0; m < rows; m += group) at[m / group] += a_inner;
        bt += b_inner;
      }
    }
  }
  float *const to = whole ? y : sums;
  const idx row = whole ? s->y_row : width * LANES, apart = whole ? s->y_half : half * row;
  UNROLL for (int n = 0; n < rows * width; n++) {
    vec_store(to + tile_row(n / width, half, row, apart) + n % width * LANES, sum[n]);
  }
  if (!whole) tile_give(sums, y, rows, width, s);
}

// Each height of a tile, and its width in vectors, up to the most whose sums fit into the registers beside a row of b
// and a number of a. The largest are even.
#define TILES_OF_ALL(T) \
  T(1, 1) T(2, 1) T(3, 1) T(4, 1) T(5, 1) T(6, 1) T(7, 1) T(8, 1) T(9, 1) T(10, 1) T(11, 1) T(12, 1) T(14, 1) \
  T(1, 2) T(2, 2) T(3, 2) T(4, 2) T(5, 2) T(6, 2)
#if REGISTERS == 32
#define TILES(T) TILES_OF_ALL(T) T(16, 1) T(7, 2) T(8, 2) T(10, 2) T(12, 2) T(14, 2)
#else
#define TILES(T) TILES_OF_ALL(T)
#endif

#define TILE_FUNCTION(rows, width) \
  NOINLINE void tile_##rows##_##width(const float *a, const float *b, float *y, const tile_shape *s) { \
    tile(rows, width, 0, a, b, y, s); \
  }
TILES(TILE_FUNCTION)

// Two short rows of pixels, as long as the half of a tile of two vectors, fill it together.
#if REGISTERS == 32
#define TILES_OF_TWO(T) T(4) T(5) T(6) T(7)
#else
#define TILES_OF_TWO(T) T(3)
#endif
#define TILE_OF_TWO(half) \
  NOINLINE void tile_of_two_##half(const float *a, const float *b, float *y, const tile_shape *s) { \
    tile(2 * half, 2, half, a, b, y, s); \
  }
TILES_OF_TWO(TILE_OF_TWO)

typedef void tile_function(const float *a, const float *b, float *y, const tile_shape *s);

INLINE tile_function *tile_of(idx rows, int width) {
#define TILE_ENTRY(rows, width) [width - 1][rows] = tile_##rows##_##width,
  static tile_function *const functions[2][17] = {TILES(TILE_ENTRY)};
#undef TILE_ENTRY
  return functions[width - 1][rows];
}

INLINE idx tile_most(int width) { return REGISTERS < 32 ? width == 1 ? 14 : 6 : width == 1 ? 16 : 14; }

// A height that is there for so many rows, at most tile_most: theirs, or one more.
INLINE idx tile_even(idx rows, int width) { return rows > (width == 1 ? 12 : 8) ? rows + rows % 2 : rows; }

// Whether tile_two takes two rows of so many pixels.
INLINE bool tile_pairs(idx pixels, int vectors) {
  return vectors == 2 && (REGISTERS == 32 ? pixels >= 4 && pixels <= 7 : pixels == 3);
}

// The height of tiles that share `rows` rows about evenly.
INLINE idx tile_rows_of(int width, idx rows) {
  const idx most = tile_most(width), tiles = (rows + most - 1) / most;
  return rows < 1 ? 1 : tile_even((rows + tiles - 1) / tiles, width);
}

// Tiles of about one height. One that is higher than what is left begins earlier, if no row before row 0 is needed: it
// computes some rows again and stores what is new.
INLINE void tile_rows(const float *a, const float *b, float *y, idx at, idx begin, idx end, idx left, tile_shape *s,
                      finish_t finish, const void *with) {
  const idx wide = (idx)s->vectors * LANES, columns = left < wide ? left : wide, apart = s->y_row;
  const bool last = s->last;
  const int width = columns <= LANES ? 1 : 2;
  s->columns = columns;
  const idx most = tile_most(width);
  for (int v = 0; v < 2; v++) s->b_lanes[v] = s->b_padded ? LANES : (int)tile_lanes(columns, v);
  for (idx from = begin, rows; from < end; from += rows - s->skip) {
    const idx rest = end - from;
    rows = tile_even(rest >= 2 * most ? most : rest <= most ? rest : (rest + 1) / 2, width);
    if (rows > rest && rows > end) rows = (rest + 1) / 2;
    s->skip = rows > rest ? rows - rest : 0;
    const idx first = from - s->skip;
    tile_of(rows, width)(a + first * s->a_row, b, y + at + first * apart, s);
    if (finish && last) {
      const idx begin_at = at + from * apart, count = first + rows - from;
      if (columns == 2 * LANES) {  // the compiler knows how long nearly all rows are
        finish(begin_at, count, apart, 2 * LANES, with);
      } else {
        finish(begin_at, count, apart, columns, with);
      }
    }
  }
}

NOINLINE void tile_rows_only(const float *a, const float *b, float *y, idx at, idx begin, idx end, idx left,
                             tile_shape *s) {
  tile_rows(a, b, y, at, begin, end, left, s, 0, 0);
}

// Rows [begin, end) of one panel of y, from y[at] on, a being that of row 0; of the panel's columns those of `left` are
// there.
INLINE void tile_panel(const float *a, const float *b, float *y, idx at, idx begin, idx end, idx left, tile_shape *s,
                       finish_t finish, const void *with) {
  if (finish) {
    tile_rows(a, b, y, at, begin, end, left, s, finish, with);
  } else {
    tile_rows_only(a, b, y, at, begin, end, left, s);
  }
}

// Two rows of `pixels` pixels by one whole panel of y, the first from y[at] on, the second a_half and y_half behind it.
INLINE void tile_two(const float *a, const float *b, float *y, idx at, idx pixels, tile_shape *s, finish_t finish,
                     const void *with) {
#define TILE_ENTRY(half) [half] = tile_of_two_##half,
  static tile_function *const functions[8] = {TILES_OF_TWO(TILE_ENTRY)};
#undef TILE_ENTRY
  const idx apart = s->y_row, half = s->y_half;
  const bool last = s->last;
  s->columns = 2 * LANES, s->b_lanes[0] = s->b_lanes[1] = LANES;
  functions[pixels](a, b, y + at, s);
  if (finish && last) {
    finish(at, pixels, apart, 2 * LANES, with);
    finish(at + half, pixels, apart, 2 * LANES, with);
  }
}

// Which rows and which panels of columns a thread does: a grid of threads that divides the work most evenly and, among
// equals, lets a thread read least. `height` is a row's number of tile rows; row_reads and panel_reads are floats.
typedef struct { idx row, row_end, panel, panel_end; } tile_share;

NOINLINE tile_share tile_split(int thread, int threads, idx rows, idx height, idx panels, idx row_reads,
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
