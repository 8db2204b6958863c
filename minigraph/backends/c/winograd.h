// Convolution of stride 1 by Winograd's F(m x m, r x r), tiles of m x m results and windows of r x r: F(4x4, 3x3),
// F(2x2, 3x3) and F(2x2, 5x5); NHWC, in groups, float32.
//
//     y = A^T [ sum over c of (G w_c G^T) * (B^T x_c B) ] A          for each tile
//
// B^T takes p x p numbers of x, p = m + r - 1, to the values of their polynomial at the points 0, 1, -1 (2, -2) and
// infinity; there the convolution is a product of numbers, so for each of the p^2 points the sum over c is a matrix
// product, tiles x channels times channels x outputs. F(4x4, 3x3) multiplies 4 times less than the direct sum,
// F(2x2, 3x3) 2.25 and F(2x2, 5x5) 2.78 times less. Price: rounding. Relative to the largest result six points err by
// up to about 2e-5 at 512 channels, and four by 1e-6 (direct: 2e-6); and one infinity or NaN in x spoils the tiles that
// read it, not just the window.
//
// x is already padded: the convolution reads (rows + r - 1) x (columns + r - 1) pixels of each image and nothing else,
// whatever the tiles are. The gradient to x is the same convolution, of the padded gradient to y with weights that are
// turned and transposed (`turned` below). The channels of a group lie side by side in x and in y. Results do not depend
// on the number of threads.
//
// Needs prelude.h, vector.h and tile.h.
#ifndef MINIGRAPH_WINOGRAD_H
#define MINIGRAPH_WINOGRAD_H

enum { WINOGRAD_MOST = 6, WINOGRAD_LINE = 16 };  // points in a row at most; floats in a line of the cache

// B^T, G and A, named by their rows and columns. Rows are points. Rows 1 and 2 (3 and 4) belong to p and -p: they agree
// in the even columns, and differ in sign in the odd.
static const float winograd_input_6_6[] = {4, 0, -5, 0, 1, 0,  0, -4, -4, 1, 1, 0,  0, 4, -4, -1, 1, 0,
                                           0, -2, -1, 2, 1, 0, 0, 2, -1, -2, 1, 0,  0, 4, 0, -5, 0, 1};
static const float winograd_input_4_4[] = {1, 0, -1, 0,  0, 1, 1, 0,  0, -1, 1, 0,  0, -1, 0, 1};
static const float winograd_weight_6_3[] = {1.f / 4, 0, 0, -1.f / 6, -1.f / 6, -1.f / 6, -1.f / 6, 1.f / 6, -1.f / 6,
                                            1.f / 24, 1.f / 12, 1.f / 6, 1.f / 24, -1.f / 12, 1.f / 6, 0, 0, 1};
static const float winograd_weight_4_3[] = {1, 0, 0,  .5f, .5f, .5f,  .5f, -.5f, .5f,  0, 0, 1};
static const float winograd_weight_6_5[] = {
    1.f / 4, 0, 0, 0, 0,
    -1.f / 6, -1.f / 6, -1.f / 6, -1.f / 6, -1.f / 6,  -1.f / 6, 1.f / 6, -1.f / 6, 1.f / 6, -1.f / 6,
    1.f / 24, 1.f / 12, 1.f / 6, 1.f / 3, 2.f / 3,  1.f / 24, -1.f / 12, 1.f / 6, -1.f / 3, 2.f / 3,
    0, 0, 0, 0, 1};
static const float winograd_output_6_4[] = {1, 0, 0, 0, 1, 1, 1, 1,  1, -1, 1, -1,
                                            1, 2, 4, 8, 1, -2, 4, -8, 0, 0, 0, 1};
static const float winograd_output_4_2[] = {1, 0,  1, 1,  1, -1,  0, 1};
static const float winograd_output_6_2[] = {1, 0,  1, 1,  1, -1,  1, 2,  1, -2,  0, 1};

INLINE idx winograd_up(idx n, idx step) { return (n + step - 1) / step * step; }
INLINE idx winograd_least(idx a, idx b) { return a < b ? a : b; }

// *sum + factor * v, where nothing was added to an empty sum yet. Factors are literals: 0 costs nothing, 1 and -1 no
// product.
INLINE void winograd_add(vec *sum, bool *empty, float factor, vec v) {
  if (factor == 0) return;
  if (*empty) {
    *sum = factor == 1 ? v : factor == -1 ? -v : factor * v;
  } else {
    *sum = factor == 1 ? *sum + v : factor == -1 ? *sum - v : vec_fma(vec_splat(factor), v, *sum);
  }
  *empty = false;
}

// The numbers of one row of a matrix in every other column, from `first` on, times `in`.
INLINE vec winograd_half(const float *row, int columns, int first, const vec *in, int in_step) {
  vec sum = {0};
  bool empty = true;
  UNROLL for (int i = first; i < columns; i += 2) winograd_add(&sum, &empty, row[i], in[i * in_step]);
  return sum;
}

// out = matrix in. Points p and -p share their even and odd halves.
INLINE void winograd_to_points(const float *matrix, int points, int columns, const vec *in, int in_step, vec *out,
                               int out_step) {
  vec sum = {0};
  bool empty = true;
  UNROLL for (int i = 0; i < columns; i++) winograd_add(&sum, &empty, matrix[i], in[i * in_step]);
  out[0] = sum;
  UNROLL for (int p = 1; p + 1 < points; p += 2) {
    const vec even = winograd_half(matrix + p * columns, columns, 0, in, in_step);
    const vec odd = winograd_half(matrix + p * columns, columns, 1, in, in_step);
    out[p * out_step] = even + odd;
    out[(p + 1) * out_step] = even - odd;
  }
  empty = true;
  UNROLL for (int i = 0; i < columns; i++) {
    winograd_add(&sum, &empty, matrix[(points - 1) * columns + i], in[i * in_step]);
  }
  out[(points - 1) * out_step] = sum;
}

// out = matrix^T in. Points p and -p are added and subtracted first.
INLINE void winograd_from_points(const float *matrix, int points, int columns, const vec *in, int in_step, vec *out,
                                 int out_step) {
  vec halves[2][WINOGRAD_MOST];
  UNROLL for (int p = 1; p + 1 < points; p += 2) {
    halves[0][p] = in[p * in_step] + in[(p + 1) * in_step];
    halves[1][p] = in[p * in_step] - in[(p + 1) * in_step];
  }
  UNROLL for (int i = 0; i < columns; i++) {
    vec sum = {0};
    bool empty = true;
    winograd_add(&sum, &empty, matrix[i], in[0]);
    UNROLL for (int p = 1; p + 1 < points; p += 2) {
      winograd_add(&sum, &empty, matrix[p * columns + i], halves[i % 2][p]);
    }
    winograd_add(&sum, &empty, matrix[(points - 1) * columns + i], in[(points - 1) * in_step]);
    out[i * out_step] = sum;
  }
}

// A square of size x size vectors, `row` and `column` floats apart, to points x points vectors, `plane` apart: M d M^T.
INLINE void winograd_square_to_points(const float *matrix, int points, int size, const float *from, idx row, idx column,
                                      float *to, idx plane) {
  vec square[WINOGRAD_MOST * WINOGRAD_MOST], half[WINOGRAD_MOST * WINOGRAD_MOST];
  UNROLL for (int i = 0; i < size; i++, from += row) {
    UNROLL for (int j = 0; j < size; j++) square[i * size + j] = vec_load(from + j * column);
    winograd_to_points(matrix, points, size, square + i * size, 1, half + i * points, 1);
  }
  const idx down = points * plane;
  UNROLL for (int q = 0; q < points; q++, to += plane) {
    winograd_to_points(matrix, points, size, half + q, points, square + q, points);
    UNROLL for (int p = 0; p < points; p++) vec_store(to + p * down, square[p * points + q]);
  }
}

// Back: M^T d M.
INLINE void winograd_square_from_points(const float *matrix, int points, int size, const float *from, idx plane,
                                        float *to, idx row, idx column) {
  vec square[WINOGRAD_MOST * WINOGRAD_MOST], half[WINOGRAD_MOST * WINOGRAD_MOST];
  const idx down = points * plane;
  UNROLL for (int p = 0; p < points; p++, from += down) {
    UNROLL for (int q = 0; q < points; q++) square[p * points + q] = vec_load(from + q * plane);
    winograd_from_points(matrix, points, size, square + p * points, 1, half + p * size, 1);
  }
  UNROLL for (int j = 0; j < size; j++, to += column) {
    winograd_from_points(matrix, points, size, half + j, size, square + j, size);
    UNROLL for (int i = 0; i < size; i++) vec_store(to + i * row, square[i * size + j]);
  }
}

// As winograd_square_to_points, where just rows x columns x lanes numbers exist: zeros stand for the others.
INLINE void winograd_edge_to_points(const float *matrix, int points, int size, const float *from, idx row, idx column,
                                    idx rows, idx columns, idx lanes, float *to, idx plane) {
  float square[WINOGRAD_MOST * WINOGRAD_MOST * LANES];
  const bool whole = rows >= size && columns >= size && lanes >= LANES;
  for (int i = 0; i < size && !whole; i++) {
    for (int j = 0; j < size; j++) {
      vec v = {0};
      const bool there = i < rows && j < columns && lanes > 0;
      if (there) v = vec_load_first(from + i * row + j * column, winograd_least(lanes, LANES));
      vec_store(square + (i * size + j) * LANES, v);
    }
  }
  winograd_square_to_points(matrix, points, size, whole ? from : square, whole ? row : size * LANES,
                            whole ? column : LANES, to, plane);
}

// As winograd_square_from_points; just rows x columns x lanes numbers exist, the others are not written.
INLINE void winograd_edge_from_points(const float *matrix, int points, int size, const float *from, idx plane,
                                      float *to, idx row, idx column, idx rows, idx columns, idx lanes) {
  float square[WINOGRAD_MOST * WINOGRAD_MOST * LANES];
  const bool whole = rows >= size && columns >= size && lanes >= LANES;
  winograd_square_from_points(matrix, points, size, from, plane, whole ? to : square, whole ? row : size * LANES,
                              whole ? column : LANES);
  for (int i = 0; i < winograd_least(size, rows) && !whole; i++) {
    for (int j = 0; j < winograd_least(size, columns); j++) {
      const vec v = vec_load(square + (i * size + j) * LANES);
      vec_store_first(to + i * row + j * column, v, winograd_least(lanes, LANES));
    }
  }
}

typedef void winograd_to(const float *from, idx row, idx column, idx rows, idx columns, idx lanes, float *to,
                         idx plane);
typedef void winograd_from(const float *from, idx plane, float *to, idx row, idx column, idx rows, idx columns,
                           idx lanes);

// The transforms are functions, not inlined, that all shapes share: to points those of the input, of the output's
// gradient and of the weight, and from points those of the output and of the weight's gradient.
#define WINOGRAD_TO_POINTS(name, points, size) \
  NOINLINE void winograd_##name##_to_##points##_##size(const float *from, idx row, idx column, idx rows, idx columns, \
                                                       idx lanes, float *to, idx plane) { \
    winograd_edge_to_points(winograd_##name##_##points##_##size, points, size, from, row, column, rows, columns, \
                            lanes, to, plane); \
  }
#define WINOGRAD_FROM_POINTS(name, points, size) \
  NOINLINE void winograd_##name##_from_##points##_##size(const float *from, idx plane, float *to, idx row, idx column, \
                                                         idx rows, idx columns, idx lanes) { \
    winograd_edge_from_points(winograd_##name##_##points##_##size, points, size, from, plane, to, row, column, rows, \
                              columns, lanes); \
  }
WINOGRAD_TO_POINTS(input, 6, 6)
WINOGRAD_TO_POINTS(input, 4, 4)
WINOGRAD_TO_POINTS(output, 6, 4)
WINOGRAD_TO_POINTS(output, 4, 2)
WINOGRAD_TO_POINTS(output, 6, 2)
WINOGRAD_TO_POINTS(weight, 6, 3)
WINOGRAD_TO_POINTS(weight, 4, 3)
WINOGRAD_TO_POINTS(weight, 6, 5)
WINOGRAD_FROM_POINTS(output, 6, 4)
WINOGRAD_FROM_POINTS(output, 4, 2)
WINOGRAD_FROM_POINTS(output, 6, 2)
WINOGRAD_FROM_POINTS(weight, 6, 3)
WINOGRAD_FROM_POINTS(weight, 4, 3)
WINOGRAD_FROM_POINTS(weight, 6, 5)
#undef WINOGRAD_TO_POINTS
#undef WINOGRAD_FROM_POINTS

// Points of a tile, and the transforms.
INLINE idx winograd_points(idx tile, idx window) { return (tile + window - 1) * (tile + window - 1); }
INLINE winograd_to *winograd_input_to(idx tile, idx window) {
  return tile + window == 7 ? winograd_input_to_6_6 : winograd_input_to_4_4;
}
INLINE winograd_to *winograd_output_to(idx tile, idx window) {
  return tile == 4 ? winograd_output_to_6_4 : window == 5 ? winograd_output_to_6_2 : winograd_output_to_4_2;
}
INLINE winograd_to *winograd_weight_to(idx tile, idx window) {
  return tile == 4 ? winograd_weight_to_6_3 : window == 5 ? winograd_weight_to_6_5 : winograd_weight_to_4_3;
}
INLINE winograd_from *winograd_output_from(idx tile, idx window) {
  return tile == 4 ? winograd_output_from_6_4 : window == 5 ? winograd_output_from_6_2 : winograd_output_from_4_2;
}
INLINE winograd_from *winograd_weight_from(idx tile, idx window) {
  return tile == 4 ? winograd_weight_from_6_3 : window == 5 ? winograd_weight_from_6_5 : winograd_weight_from_4_3;
}

// ---- weights

// w is (groups, outputs, channels, window, window), or with `turned` (groups, channels, outputs, window, window) and
// read backwards in both axes of the window: the weight of the convolution that gives the gradient to x, where the
// gradient's channels are w's outputs.
typedef struct {
  idx groups, channels, outputs;  // of the convolution that will use them; channels and outputs of each group
  idx tile, window, vectors;  // as in winograd_shape
  bool turned;
} winograd_weights_shape;

// u = G w G^T, laid out [group][points][panels][channels][vectors * LANES] with panels = ceil(outputs / (vectors *
// LANES)); zeros behind the last output.
INLINE void winograd_weights(int thread, int threads, const float *w, float *u, winograd_weights_shape s) {
  const idx width = s.vectors * LANES, padded = winograd_up(s.outputs, width);
  const idx taps = s.window * s.window, points = winograd_points(s.tile, s.window);
  winograd_to *const to_points = winograd_weight_to(s.tile, s.window);
  const idx output = s.turned ? taps : s.channels * taps, channel = s.turned ? s.outputs * taps : taps;
  const idx each = padded / LANES * s.channels, items = s.groups * each;
  for (idx item = share(items, thread, threads); item < share(items, thread + 1, threads); item++) {
    const idx group = item / each, k = item % each / s.channels * LANES, c = item % s.channels;
    const idx first = (group * points * padded + k / width * width) * s.channels;
    float window[25 * LANES] = {0};
    for (idx lane = 0; lane < LANES && k + lane < s.outputs; lane++) {
      const float *from = w + group * s.outputs * s.channels * taps + (k + lane) * output + c * channel;
      for (idx i = 0; i < taps; i++) window[i * LANES + lane] = from[s.turned ? taps - 1 - i : i];
    }
    to_points(window, s.window * LANES, LANES, s.window, s.window, LANES, u + first + c * width + k % width,
              padded * s.channels);
  }
}

// ---- convolution

typedef struct {
  idx batch, rows, columns;  // of y
  idx groups, channels, outputs;  // channels and outputs of each group
  idx x_image, x_row;        // floats from one image, and from one row, to the next; pixels are all channels
  idx y_image, y_row;
  idx tile, window;          // m and r: 4 and 3, 2 and 3, or 2 and 5
  idx vectors;               // vectors of outputs in a panel of the weights: 2, or 1
  idx block;                 // tiles in a block, at least 1
  idx scratch;               // floats for each thread:
                             // points (block (up(channels, LANES) + up(outputs, vectors LANES)) + 32), or more
} winograd_shape;

// Tiles are numbered by image, row and column: where one lies, and how many rows and columns of y are there from it on.
typedef struct {
  idx image, row, column, rows, columns;
} winograd_place;

INLINE winograd_place winograd_find(idx tile, idx size, idx rows, idx columns) {
  const idx down = (rows + size - 1) / size, across = (columns + size - 1) / size;
  const idx row = tile / across % down * size, column = tile % across * size;
  return (winograd_place){tile / across / down, row, column, rows - row, columns - column};
}

// The outputs [k_begin, k_end) of a group, for a run of tiles of one row of tiles, from m to y, and what is to be done
// with them.
INLINE void winograd_run(idx group, idx first, idx tiles, const float *m, idx m_row, idx plane, idx k_begin, idx k_end,
                         float *y, winograd_shape s, finish_t finish, const void *with) {
  const idx pixel = s.groups * s.outputs;
  const winograd_place start = winograd_find(first, s.tile, s.rows, s.columns);
  const idx corner = start.image * s.y_image + start.row * s.y_row + start.column * pixel + group * s.outputs;
  winograd_from *const from_points = winograd_output_from(s.tile, s.window);
  for (idx t = 0; t < tiles; t++) {
    for (idx k = k_begin; k < k_end; k += LANES) {
      from_points(m + t * m_row + k, plane, y + corner + t * s.tile * pixel + k, s.y_row, pixel, start.rows,
                  start.columns - t * s.tile, k_end - k);
    }
  }
  if (!finish) return;
  const idx columns = winograd_least(tiles * s.tile, start.columns);
  for (idx row = 0; row < winograd_least(s.tile, start.rows); row++) {
    finish(corner + row * s.y_row + k_begin, columns, pixel, k_end - k_begin, with);
  }
}

// The tiles [first, first + tiles) and the panels [panel, panel_end) of the outputs of a group.
INLINE void winograd_block(idx group, idx first, idx tiles, idx panel, idx panel_end, const float *x, const float *u,
                           float *y, float *scratch, winograd_shape s, finish_t finish, const void *with) {
  const idx points = winograd_points(s.tile, s.window);
  const idx width = s.vectors * LANES, panels = winograd_up(s.outputs, width) / width, pixel = s.groups * s.channels;
  u += group * points * panels * s.channels * width;
  // One line of the cache more than a plane holds: else the same place of all planes falls into a few sets of the
  // cache.
  const idx v_row = winograd_up(s.channels, LANES), v_plane = s.block * v_row + WINOGRAD_LINE;
  const idx m_row = panels * width, m_plane = s.block * m_row + WINOGRAD_LINE;
  float *const v = scratch, *const m = scratch + points * v_plane;
  winograd_to *const to_points = winograd_input_to(s.tile, s.window);
  for (idx t = 0; t < tiles; t++) {
    const winograd_place at = winograd_find(first + t, s.tile, s.rows, s.columns);
    const float *from = x + at.image * s.x_image + at.row * s.x_row + at.column * pixel + group * s.channels;
    for (idx c = 0; c < s.channels; c += LANES) {
      to_points(from + c, s.x_row, pixel, at.rows + s.window - 1, at.columns + s.window - 1, s.channels - c,
                v + t * v_row + c, v_plane);
    }
  }
  tile_shape sum = {.outer = 1, .middle = 1, .inner = s.channels, .a_row = v_row, .a_inner = 1, .b_inner = width,
                    .y_row = m_row, .vectors = (int)s.vectors, .b_padded = true};
  for (idx e = 0; e < points; e++) {
    for (idx p = panel; p < panel_end; p++) {
      const float *const right = u + (e * panels + p) * s.channels * width;
      tile_rows_only(v + e * v_plane, right, m + e * m_plane, p * width, 0, tiles, width, &sum);
    }
  }
  const idx across = (s.columns + s.tile - 1) / s.tile, k_end = winograd_least(panel_end * width, s.outputs);
  for (idx t = 0, run; t < tiles; t += run) {
    run = winograd_least(tiles - t, across - (first + t) % across);
    winograd_run(group, first + t, run, m + t * m_row, m_row, m_plane, panel * width, k_end, y, s, finish, with);
  }
}

// y = x * w, of weights that winograd_weights made with the same tile, window, vectors, channels and outputs.
//
// The work is the list of all (group, block, panel), and each thread does a run of it: with many blocks that is a split
// of the tiles, with one block (few tiles) a split of the outputs.
INLINE void winograd(int thread, int threads, const float *x, const float *u, float *y, float *scratch,
                     winograd_shape s, finish_t finish, const void *with) {
  const idx panels = winograd_up(s.outputs, s.vectors * LANES) / (s.vectors * LANES);
  const idx tiles = s.batch * ((s.rows + s.tile - 1) / s.tile) * ((s.columns + s.tile - 1) / s.tile);
  const idx height = winograd_least(tile_most((int)s.vectors), s.block), heights = (tiles + height - 1) / height;
  const idx most = s.block / height;  // blocks are made of whole heights, about equally many each
  idx blocks = (heights + most - 1) / most;
  if (blocks > threads) blocks = winograd_up(blocks, threads);
  const idx items = s.groups * blocks * panels, end = share(items, thread + 1, threads);
  for (idx i = share(items, thread, threads), next; i < end; i = next) {
    const idx group = i / panels / blocks, block = i / panels % blocks, panel = i % panels;
    next = winograd_least(end, i - panel + panels);
    const idx first = heights * block / blocks * height;
    const idx last = winograd_least(tiles, heights * (block + 1) / blocks * height);
    winograd_block(group, first, last - first, panel, panel + next - i, x, u, y, scratch + thread * s.scratch, s,
                   finish, with);
  }
}

#endif
