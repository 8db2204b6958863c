// Direct convolution in float32, NHWC, groups = 1, any window, stride, dilation and number of channels; and its two
// gradients.
//
//     y[n][p][q][k] = sum over r, s, c of
//         x[n][p * stride_h + r * dilation_h][q * stride_w + s * dilation_w][c] * w[k][r][s][c]
//
// x carries its padding physically, as a halo of zeros, so no edge is special. Rows and images of x and y may lie any
// distance apart (y may be the interior of a padded buffer). Weights are packed [K / width][R][S][C][width], width =
// vectors * LANES, with zeros behind K (pack.h). Each is a walk of register tiles (tile.h): pixels of a row by
// `vectors` vectors of channels. A 1x1 convolution of stride 1 is a matrix product of all pixels: gemm.h.
//
// The gradient to x is such a convolution too, of dy with a halo of zeros, its C and K exchanged and the window turned.
// With a stride, it is one for each phase (f, g) of it, 0 <= f < stride_h, that makes rows f, f + stride_h, ... of the
// padded x (y_row and y_pixel say so) from taps f, f + stride_h, ... alone (pack.h takes these, the last one first): T
// = ceil((R - f) / stride_h) of them, of a stride of 1, and row i begins at row i - (T - 1) of dy. No product with a
// zero is made; a phase without taps (T = 0) becomes zero.
#ifndef MINIGRAPH_CONV_DIRECT_H
#define MINIGRAPH_CONV_DIRECT_H

typedef struct {
  idx batch, C, K;               // batch may be a run-time number, all else is literal
  idx P, Q, R, S;                // the result's height and width, the window's
  idx stride_h, stride_w, dilation_h, dilation_w;
  idx x_image, x_row;            // from image to image, from row to row of x; from pixel to pixel C
  idx y_image, y_row, y_pixel;   // of y
  int vectors;                   // 2, or 1 where K <= LANES
} conv_direct_shape;

// Floats of x (and of dy) that pass by one panel of weights (of sums) at a time: they stay in the L2 cache.
enum { CONV_BLOCK = 1 << 16 };

// Threads share image rows, and output channels where there are few rows.
INLINE void conv_direct(int thread, int threads, const float *x, const float *w, float *y, conv_direct_shape s,
                        finish_t finish, const void *with) {
  const idx width = (idx)s.vectors * LANES, panels = (s.K + width - 1) / width, taps = s.R * s.S * s.C;
  const bool dense = s.dilation_w == 1;  // the taps of a window's row lie side by side
  tile_shape t = {.outer = s.R, .middle = dense ? 1 : s.S, .inner = dense ? s.S * s.C : s.C,
                  .a_row = s.stride_w * s.C,
                  .a_outer = s.dilation_h * s.x_row, .a_middle = s.dilation_w * s.C, .a_inner = 1,
                  .b_outer = s.S * s.C * width, .b_middle = s.C * width, .b_inner = width,
                  .y_row = s.y_pixel, .vectors = s.vectors, .b_padded = true, .last = true};
  const idx block = s.stride_h * s.x_row < CONV_BLOCK ? CONV_BLOCK / (s.stride_h * s.x_row) : 1;
  const tile_share own = tile_split(thread, threads, s.batch * s.P, s.Q, panels, s.stride_h * s.x_row, taps * width);
  for (idx first = own.row; first < own.row_end; first += block) {
    const idx end = first + block < own.row_end ? first + block : own.row_end;
    for (idx panel = own.panel; panel < own.panel_end; panel++) {
      for (idx row = first; row < end; row++) {
        const idx n = row / s.P, p = row % s.P;
        const float *xp = x + n * s.x_image + p * s.stride_h * s.x_row;
        const idx at = n * s.y_image + p * s.y_row + panel * width;
        const float *wp = w + panel * taps * width;
        tile_panel(xp, wp, y, at, 0, s.Q, s.K - panel * width, &t, finish, with);
      }
    }
  }
}

// The gradient to the weights, for dy in the place of y:
//
//     dw[r][s][c][k] = sum over n, p, q of
//         x[n][p * stride_h + r * dilation_h][q * stride_w + s * dilation_w][c] * dy[n][p][q][k]
//
// k is column k % width of panel k / width, so dw may be dense (dw_row = K, dw_panel = width) or packed as the
// forward's weights are (dw_row = width, dw_panel = R * S * C * width; numbers behind K are not written). Threads share
// the rows and the panels of dw; each reads all pixels, a few rows or images at a time.
INLINE void conv_direct_weights(int thread, int threads, const float *x, const float *dy, float *dw, idx dw_row,
                                idx dw_panel, conv_direct_shape s, finish_t finish, const void *with) {
  const bool dense = s.dilation_w == 1;
  const idx line = dense ? s.S * s.C : s.C;         // rows of dw that lie side by side in x, as the pixels see it
  const idx lines = dense ? s.R : s.R * s.S;
  const idx rows = tile_rows_of(s.vectors, line);
  const idx tiles = (line + rows - 1) / rows, width = (idx)s.vectors * LANES, panels = (s.K + width - 1) / width;
  const idx image = s.x_image + s.y_image, row = s.stride_h * s.x_row + s.y_row;
  const idx images = image < CONV_BLOCK ? CONV_BLOCK / image : 1;          // of a block
  const idx height = images > 1 || row * s.P <= CONV_BLOCK ? s.P : row < CONV_BLOCK ? CONV_BLOCK / row : 1;
  const tile_share own = tile_split(thread, threads, lines * tiles, rows, panels, 1, 1);
  for (idx n = 0; n < s.batch || n == 0; n += images) {
    for (idx p = 0; p < s.P || p == 0; p += height) {
      tile_shape t = {.outer = n + images < s.batch ? images : s.batch - n,
                      .middle = p + height < s.P ? height : s.P - p, .inner = s.Q,
                      .a_row = 1,
                      .a_outer = s.x_image, .a_middle = s.stride_h * s.x_row, .a_inner = s.stride_w * s.C,
                      .b_outer = s.y_image, .b_middle = s.y_row, .b_inner = s.y_pixel,
                      .y_row = dw_row, .vectors = s.vectors, .add = n + p > 0,
                      .last = n + images >= s.batch && p + height >= s.P};
      for (idx panel = own.panel; panel < own.panel_end; panel++) {
        for (idx i = own.row; i < own.row_end; i++) {
          const idx r = dense ? i / tiles : i / tiles / s.S, ws = dense ? 0 : i / tiles % s.S, first = i % tiles * rows;
          const idx end = first + rows < line ? first + rows : line;
          const float *xp = x + n * s.x_image + (p * s.stride_h + r * s.dilation_h) * s.x_row + ws * s.dilation_w * s.C;
          const float *dyp = dy + n * s.y_image + p * s.y_row + panel * width;
          const idx at = panel * dw_panel + i / tiles * line * dw_row;
          tile_panel(xp, dyp, dw, at, first, end, s.K - panel * width, &t, finish, with);
        }
      }
    }
  }
}

#endif
