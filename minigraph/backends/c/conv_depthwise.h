// Depthwise convolution in float32, channels last: each channel by itself, over one to three spatial axes; and its two
// gradients.
//
//     y[n][d][p][q][k] = sum over t, r, s of
//         x[n][d * stride_d + t * dilation_d][p * stride_h + r * dilation_h][q * stride_w + s * dilation_w][k]
//         * w[t][r][s][k]
//
// x carries its padding physically, as a halo of zeros. Weights are packed [T][R][S][width], width being C rounded up
// to LANES (pack.h with K = C channels, and C = 1). Vectors run over channels; the last one may be a part of a vector.
//
// Needs prelude.h, vector.h, tile.h (finish_t) and conv_phase.h.
#ifndef MINIGRAPH_CONV_DEPTHWISE_H
#define MINIGRAPH_CONV_DEPTHWISE_H

typedef struct {
  idx batch, C;                  // batch may be a run-time number, all else is literal
  idx D, P, Q, T, R, S;          // the result's depth, height and width, the window's
  idx stride_d, stride_h, stride_w, dilation_d, dilation_h, dilation_w;
  idx x_image, x_slice, x_row;   // from image to image, slice to slice, row to row of x; from pixel to pixel C
  idx y_image, y_slice, y_row, y_pixel;  // of y
} conv_depthwise_shape;

INLINE vec depthwise_load(const float *p, idx lanes) { return lanes == LANES ? vec_load(p) : vec_load_first(p, lanes); }

INLINE void depthwise_store(float *p, vec v, idx lanes) {
  if (lanes == LANES) vec_store(p, v); else vec_store_first(p, v, lanes);
}

// `pixels` neighbours of one row of y, at `lanes` channels from k on, from the taps of a part.
INLINE void depthwise_pixels(int pixels, const float *x, const float *w, float *y, idx k, idx lanes, conv_part part,
                             conv_depthwise_shape s) {
  const idx width = (s.C + LANES - 1) / LANES * LANES, step = s.stride_w * s.C;
  const float *next = x + (part.R - 1) * s.dilation_h * s.x_row + (pixels + part.S - 1) * step + k;
  vec sum[REGISTERS];
  UNROLL for (int q = 0; q < pixels; q++) {
    sum[q] = (vec){0};
    __builtin_prefetch(next + q * step);  // what the next pixels read first of all: halves the time of large images
  }
  for (idx t = 0; t < part.T; t++) {
    for (idx r = 0; r < part.R; r++) {
      for (idx c = 0; c < part.S; c++) {
        const float *row = x + t * s.dilation_d * s.x_slice + r * s.dilation_h * s.x_row;
        const float *from = row + c * s.dilation_w * s.C + k;
        const vec wk = vec_load(w + ((t * s.R + r) * s.S + c) * width + k);
        UNROLL for (int q = 0; q < pixels; q++) sum[q] = vec_fma(depthwise_load(from + q * step, lanes), wk, sum[q]);
      }
    }
  }
  UNROLL for (int q = 0; q < pixels; q++) depthwise_store(y + q * s.y_pixel + k, sum[q], lanes);
}

// All channels of `pixels` neighbours.
INLINE void depthwise_group(int pixels, const float *x, const float *w, float *y, idx at, conv_part part,
                            conv_depthwise_shape s, finish_t finish, const void *with) {
  const idx whole = s.C / LANES * LANES;
  for (idx k = 0; k < whole; k += LANES) depthwise_pixels(pixels, x, w, y + at, k, LANES, part, s);
  if (s.C > whole) depthwise_pixels(pixels, x, w, y + at, whole, s.C - whole, part, s);
  if (finish) finish(at, pixels, s.y_pixel, s.C, with);
}

// Threads share rows. x, w and y[start] are the first that the part reads and writes; a row of it has `most` pixels or
// `least`, both literals.
INLINE void conv_depthwise_part(int thread, int threads, const float *x, const float *w, float *y, idx start, int least,
                                int most, conv_part part, conv_depthwise_shape s, finish_t finish, const void *with) {
  enum { PIXELS = 8 };
  const idx rows = s.batch * part.D * part.P, step = s.stride_w * s.C;
  for (idx row = share(rows, thread, threads); row < share(rows, thread + 1, threads); row++) {
    const idx p = row % part.P, slice = row / part.P, d = slice % part.D, n = slice / part.D;
    const float *xp = x + n * s.x_image + d * s.stride_d * s.x_slice + p * s.stride_h * s.x_row;
    const idx at = start + n * s.y_image + d * s.y_slice + p * s.y_row;
    idx q = 0;
    for (; q + PIXELS <= part.Q; q += PIXELS) {
      depthwise_group(PIXELS, xp + q * step, w, y, at + q * s.y_pixel, part, s, finish, with);
    }
    const float *xq = xp + q * step;
    if (most % PIXELS && part.Q == most) {
      depthwise_group(most % PIXELS, xq, w, y, at + q * s.y_pixel, part, s, finish, with);
    } else if (least % PIXELS && part.Q == least) {
      depthwise_group(least % PIXELS, xq, w, y, at + q * s.y_pixel, part, s, finish, with);
    }
  }
}

INLINE void conv_depthwise(int thread, int threads, const float *x, const float *w, float *y, conv_depthwise_shape s,
                           finish_t finish, const void *with) {
  const conv_part all = {s.D, s.P, s.Q, s.T, s.R, s.S};
  conv_depthwise_part(thread, threads, x, w, y, 0, (int)s.Q, (int)s.Q, all, s, finish, with);
}

// The gradient to x, phase by phase: see conv_phase.h, and conv_direct.h for the fields.
typedef struct {
  conv_axis depth, height, width;
  conv_depthwise_shape one;
} conv_depthwise_inputs_shape;

INLINE void conv_depthwise_inputs(int thread, int threads, const float *dy, const float *w, float *dx,
                                  conv_depthwise_inputs_shape s, finish_t finish, const void *with) {
  const conv_depthwise_shape one = s.one;
  const idx down = s.depth.stride, high = s.height.stride, wide = s.width.stride;
  const idx width = (one.C + LANES - 1) / LANES * LANES;
  const int least = (int)(s.width.size / wide), most = (int)((s.width.size + wide - 1) / wide);
  for (idx phase = 0; phase < down * high * wide; phase++) {
    const idx i = phase / wide / high, j = phase / wide % high, k = phase % wide;
    const conv_phase d = conv_phase_of(i, s.depth), p = conv_phase_of(j, s.height), q = conv_phase_of(k, s.width);
    const conv_part part = {d.count, p.count, q.count, d.taps, p.taps, q.taps};
    if (d.count * p.count * q.count == 0) continue;
    const float *from = dy + d.from * one.x_slice + p.from * one.x_row + q.from * one.C;
    const float *taps = w + ((d.tap * one.R + p.tap) * one.S + q.tap) * width;
    const idx start = i * (one.y_slice / down) + j * (one.y_row / high) + k * (one.y_pixel / wide);
    conv_depthwise_part(thread, threads, from, taps, dx, start, least, most, part, one, finish, with);
  }
}

// What one row of pixels adds to R' x S' taps of the window, whose sums stay in registers.
INLINE void depthwise_taps(int R, int S, const float *x, const float *dy, float *dw, idx k, idx lanes, bool add,
                           conv_depthwise_shape s) {
  const idx below = ((R - 1) * s.dilation_h + s.stride_h) * s.x_row;
  vec sum[REGISTERS];
  if (R * S > REGISTERS) __builtin_trap();  // folded away: both are literals
  UNROLL for (int i = 0; i < R * S; i++) sum[i] = (vec){0};
  if (add) {
    UNROLL for (int i = 0; i < R * S; i++) {
      sum[i] = depthwise_load(dw + (i / S * s.S + i % S) * s.C + k, lanes);
    }
  }
  for (idx q = 0; q < s.Q; q++) {
    const float *g = dy + q * s.y_pixel + k, *from = x + q * s.stride_w * s.C + k;
    __builtin_prefetch(g + s.y_row, 0, 2);  // the next row of pixels, into the L2 cache
    __builtin_prefetch(from + below, 0, 2);
    const vec gk = depthwise_load(g, lanes);
    UNROLL for (int i = 0; i < R * S; i++) {
      const float *at = from + i / S * s.dilation_h * s.x_row + i % S * s.dilation_w * s.C;
      sum[i] = vec_fma(depthwise_load(at, lanes), gk, sum[i]);
    }
  }
  UNROLL for (int i = 0; i < R * S; i++) depthwise_store(dw + (i / S * s.S + i % S) * s.C + k, sum[i], lanes);
}

// The same for the whole window: in one go where its sums fit, else by pieces of its rows.
INLINE void depthwise_window(const float *x, const float *dy, float *dw, idx k, idx lanes, bool add,
                             conv_depthwise_shape s) {
  enum { MOST = REGISTERS - 3 };
  if (s.R * s.S <= MOST) {
    depthwise_taps(s.R, s.S, x, dy, dw, k, lanes, add, s);
    return;
  }
  const idx piece = s.S < MOST ? s.S : MOST;
  for (idx r = 0; r < s.R; r++) {
    const float *xr = x + r * s.dilation_h * s.x_row;
    idx c = 0;
    for (; c + piece <= s.S; c += piece) {
      depthwise_taps(1, piece, xr + c * s.dilation_w * s.C, dy, dw + (r * s.S + c) * s.C, k, lanes, add, s);
    }
    if (s.S % piece) {
      depthwise_taps(1, s.S % piece, xr + c * s.dilation_w * s.C, dy, dw + (r * s.S + c) * s.C, k, lanes, add, s);
    }
  }
}

// The gradient to the weights, dw[t][r][s][k] = sum over n, d, p, q of x[...][k] * dy[n][d][p][q][k], dense, for dy in
// the place of y. Threads share the channels, a vector at a time.
INLINE void conv_depthwise_weights(int thread, int threads, const float *x, const float *dy, float *dw,
                                   conv_depthwise_shape s, finish_t finish, const void *with) {
  const idx whole = s.C / LANES * LANES, vectors = (s.C + LANES - 1) / LANES, window = s.R * s.S * s.C;
  const idx begin = vectors * thread / threads * LANES, stop = vectors * (thread + 1) / threads * LANES;
  const idx end = stop < s.C ? stop : s.C, rows = s.batch * s.D * s.P;
  for (idx row = 0; row < rows; row++) {
    const idx p = row % s.P, slice = row / s.P, d = slice % s.D, n = slice / s.D;
    const float *xp = x + n * s.x_image + d * s.stride_d * s.x_slice + p * s.stride_h * s.x_row;
    const float *dyp = dy + n * s.y_image + d * s.y_slice + p * s.y_row;
    for (idx t = 0; t < s.T; t++) {
      const float *xt = xp + t * s.dilation_d * s.x_slice;
      for (idx k = begin; k < end; k += LANES) {
        if (k < whole) {
          depthwise_window(xt, dyp, dw + t * window, k, LANES, row > 0, s);
        } else {
          depthwise_window(xt, dyp, dw + t * window, k, s.C - whole, row > 0, s);
        }
      }
    }
  }
  for (idx tap = 0; tap < s.T * s.R * s.S; tap++) {
    for (idx k = begin; k < end && rows == 0; k++) dw[tap * s.C + k] = 0;  // no pixel, no sum
    if (finish && begin < end) finish(tap * s.C + begin, 1, s.C, end - begin, with);
  }
}

#endif
