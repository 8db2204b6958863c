// Direct convolution in float32, channels last, over one to three spatial axes, any window, stride, dilation, groups
// and number of channels; and its two gradients.
//
//     y[n][d][p][q][k] = sum over t, r, s, c of
//         x[n][d * stride_d + t * dilation_d][p * stride_h + r * dilation_h][q * stride_w + s * dilation_w][c]
//         * w[k][t][r][s][c]
//
// in each group by itself: its channels lie side by side in x and in y. x carries its padding physically, as a halo of
// zeros, so no edge is special. Rows, slices and images of x and y may lie any distance apart (y may be the interior of
// a padded buffer). Weights are packed [group][K / width][T][R][S][C][width], width = vectors * LANES, with zeros
// behind K (pack.h). Each is a walk of register tiles (tile.h): pixels of a row by `vectors` vectors of channels.
//
// Needs prelude.h, vector.h, tile.h and conv_phase.h.
#ifndef MINIGRAPH_CONV_DIRECT_H
#define MINIGRAPH_CONV_DIRECT_H

typedef struct {
  idx batch, groups, C, K;  // batch may be a run-time number, all else is literal; C and K: of each group
  idx D, P, Q, T, R, S;     // the result's depth, height and width; the window's
  idx stride_d, stride_h, stride_w, dilation_d, dilation_h, dilation_w;
  idx x_image, x_slice, x_row;  // from image to image, slice to slice, row to row of x; from pixel to pixel groups * C
  idx y_image, y_slice, y_row, y_pixel;  // of y
  int vectors;  // 2, or 1 where K <= LANES
} conv_direct_shape;

// Floats of x (and of dy) that pass by one panel of weights (of sums) at a time: they stay in the L2 cache.
enum { CONV_BLOCK = 1 << 16 };

// Where a row of y begins, and where in x its first window does.
typedef struct { idx x, y; } conv_row;

INLINE conv_row conv_row_of(idx row, conv_part part, conv_direct_shape s) {
  const idx p = row % part.P, slice = row / part.P, d = slice % part.D, n = slice / part.D;
  return (conv_row){n * s.x_image + d * s.stride_d * s.x_slice + p * s.stride_h * s.x_row,
                    n * s.y_image + d * s.y_slice + p * s.y_row};
}

// Threads share rows, and output channels where there are few rows. x, w and y[start] are the first that the part reads
// and writes.
INLINE void conv_direct_part(int thread, int threads, const float *x, const float *w, float *y, idx start,
                             conv_part part, conv_direct_shape s, finish_t finish, const void *with) {
  const idx width = (idx)s.vectors * LANES, panels = (s.K + width - 1) / width, pixel = s.groups * s.C;
  const idx line = s.S * s.C * width, taps = s.T * s.R * line;  // of packed weights
  const bool dense = s.dilation_w == 1 && s.groups == 1;        // the taps of a window's row lie side by side
  const bool none = part.T * part.R * part.S == 0;
  const idx reads = s.stride_h * s.x_row, block = reads < CONV_BLOCK ? CONV_BLOCK / reads : 1;
  const idx count = s.batch * part.D * part.P;
  const tile_share own = tile_split(thread, threads, count, part.Q, s.groups * panels, reads, taps);
  for (idx first = own.row; first < own.row_end; first += block) {
    const idx end = first + block < own.row_end ? first + block : own.row_end;
    for (idx panel = own.panel; panel < own.panel_end; panel++) {
      const idx group = panel / panels, k = panel % panels * width;
      const bool pairs = tile_pairs(part.Q, s.vectors) && s.K - k >= width;
      for (idx row = first, rows; row < end; row += rows) {
        rows = pairs && row + 1 < end ? 2 : 1;
        const conv_row here = conv_row_of(row, part, s), next = conv_row_of(row + 1, part, s);
        const float *xp = x + here.x + group * s.C;
        const idx at = start + here.y + group * s.K + k;
        for (idx t = 0; t < part.T || t == 0; t++) {
          tile_shape sum = {.outer = none ? 0 : part.R, .middle = dense ? 1 : part.S,
                            .inner = dense ? part.S * s.C : s.C, .a_row = s.stride_w * pixel,
                            .a_outer = s.dilation_h * s.x_row, .a_middle = s.dilation_w * pixel, .a_inner = 1,
                            .b_outer = line, .b_middle = s.C * width, .b_inner = width, .y_row = s.y_pixel,
                            .a_half = next.x - here.x, .y_half = next.y - here.y,
                            .vectors = s.vectors, .b_padded = true, .add = t > 0, .last = t + 1 >= part.T};
          const float *xt = xp + t * s.dilation_d * s.x_slice, *wt = w + panel * taps + t * s.R * line;
          if (rows == 2) {
            tile_two(xt, wt, y, at, part.Q, &sum, finish, with);
          } else {
            tile_panel(xt, wt, y, at, 0, part.Q, s.K - k, &sum, finish, with);
          }
        }
      }
    }
  }
}

INLINE void conv_direct(int thread, int threads, const float *x, const float *w, float *y, conv_direct_shape s,
                        finish_t finish, const void *with) {
  const conv_part all = {s.D, s.P, s.Q, s.T, s.R, s.S};
  conv_direct_part(thread, threads, x, w, y, 0, all, s, finish, with);
}

// The gradient to x, phase by phase: see conv_phase.h, which also says how the weights are packed.
//
// one: the convolution that a phase is, of dy (in the place of x) to numbers of dx (in that of y). C counts the
// channels of dy, K those of dx; T, R and S are the whole window; strides are 1, dilations those between the taps of a
// phase, and the distances in y those between numbers of a phase.
typedef struct {
  conv_axis depth, height, width;
  conv_direct_shape one;
} conv_direct_inputs_shape;

INLINE void conv_direct_inputs(int thread, int threads, const float *dy, const float *w, float *dx,
                               conv_direct_inputs_shape s, finish_t finish, const void *with) {
  const conv_direct_shape one = s.one;
  const idx down = s.depth.stride, high = s.height.stride, wide = s.width.stride, width = (idx)one.vectors * LANES;
  for (idx phase = 0; phase < down * high * wide; phase++) {
    const idx i = phase / wide / high, j = phase / wide % high, k = phase % wide;
    const conv_phase d = conv_phase_of(i, s.depth), p = conv_phase_of(j, s.height), q = conv_phase_of(k, s.width);
    const conv_part part = {d.count, p.count, q.count, d.taps, p.taps, q.taps};
    if (d.count * p.count * q.count == 0) continue;
    const float *from = dy + d.from * one.x_slice + p.from * one.x_row + q.from * one.groups * one.C;
    const float *taps = w + ((d.tap * one.R + p.tap) * one.S + q.tap) * one.C * width;
    const idx start = i * (one.y_slice / down) + j * (one.y_row / high) + k * (one.y_pixel / wide);
    conv_direct_part(thread, threads, from, taps, dx, start, part, one, finish, with);
  }
}

// The gradient to the weights, for dy in the place of y:
//
//     dw[t][r][s][c][k] = sum over n, d, p, q of  x[...][c] * dy[n][d][p][q][k],  as above
//
// k is column k % width of panel k / width, so dw may be dense (dw_row = groups * K, dw_panel = width; the columns of a
// group lie behind those of the one before) or, without groups, packed as the forward's weights are (dw_row = width,
// dw_panel = T * R * S * C * width; numbers behind K are not written). Threads share the rows and the panels of dw;
// each reads all pixels, a few rows, slices or images at a time.
INLINE void conv_direct_weights(int thread, int threads, const float *x, const float *dy, float *dw, idx dw_row,
                                idx dw_panel, conv_direct_shape s, finish_t finish, const void *with) {
  const bool dense = s.dilation_w == 1 && s.groups == 1, deep = s.D > 1;
  const idx pixel = s.groups * s.C, line = dense ? s.S * s.C : s.C;  // rows of dw that lie side by side in x
  const idx across = dense ? 1 : s.S, lines = s.T * s.R * across;
  const idx rows = tile_rows_of(s.vectors, line);
  const idx tiles = (line + rows - 1) / rows, width = (idx)s.vectors * LANES, panels = (s.K + width - 1) / width;
  // Images, or the slices of one image after the other, pass by in blocks of a few.
  const idx images = deep ? s.batch : 1, slices = deep ? s.D : s.batch;
  const idx x_slice = deep ? s.stride_d * s.x_slice : s.x_image, y_slice = deep ? s.y_slice : s.y_image;
  const idx both = s.P * (s.stride_h * s.x_row + s.y_row), row = s.stride_h * s.x_row + s.y_row;
  const idx many = both < CONV_BLOCK ? CONV_BLOCK / both : 1;  // slices of a block
  const idx height = both <= CONV_BLOCK ? s.P : row < CONV_BLOCK ? CONV_BLOCK / row : 1;
  const tile_share own = tile_split(thread, threads, lines * tiles, rows, s.groups * panels, 1, 1);
  for (idx n = 0; n < images || n == 0; n++) {
    for (idx d = 0; d < slices || d == 0; d += many) {
      for (idx p = 0; p < s.P || p == 0; p += height) {
        tile_shape sum = {.outer = n >= images ? 0 : d + many < slices ? many : slices - d,
                          .middle = p + height < s.P ? height : s.P - p, .inner = s.Q,
                          .a_row = 1,
                          .a_outer = x_slice, .a_middle = s.stride_h * s.x_row, .a_inner = s.stride_w * pixel,
                          .b_outer = y_slice, .b_middle = s.y_row, .b_inner = s.y_pixel,
                          .y_row = dw_row, .vectors = s.vectors, .add = n + d + p > 0,
                          .last = n + 1 >= images && d + many >= slices && p + height >= s.P};
        const float *xp = x + n * s.x_image + d * x_slice + p * s.stride_h * s.x_row;
        const float *dyp = dy + n * s.y_image + d * y_slice + p * s.y_row;
        for (idx panel = own.panel; panel < own.panel_end; panel++) {
          const idx group = panel / panels, k = panel % panels * width;
          for (idx i = own.row; i < own.row_end; i++) {
            const idx tap = i / tiles, t = tap / across / s.R, r = tap / across % s.R, ws = tap % across;
            const idx first = i % tiles * rows, end = first + rows < line ? first + rows : line;
            const idx seen = t * s.dilation_d * s.x_slice + r * s.dilation_h * s.x_row + ws * s.dilation_w * pixel;
            const float *a = xp + seen + group * s.C, *b = dyp + group * s.K + k;
            const idx at = group * s.K + panel % panels * dw_panel + tap * line * dw_row;
            tile_panel(a, b, dw, at, first, end, s.K - k, &sum, finish, with);
          }
        }
      }
    }
  }
}

#endif
