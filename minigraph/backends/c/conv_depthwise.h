// Depthwise convolution in float32, NHWC: each channel by itself; and its two gradients.
//
//     y[n][p][q][k] = sum over r, s of
//         x[n][p * stride_h + r * dilation_h][q * stride_w + s * dilation_w][k] * w[r][s][k]
//
// x carries its padding physically, as a halo of zeros. Weights are packed [R][S][width], width being C rounded up to
// LANES (pack.h with K = C channels, and C = 1). Vectors run over channels; the last one may be a part of a vector.
//
// Needs prelude.h, vector.h, tile.h (finish_t) and conv_phase.h.
#ifndef MINIGRAPH_CONV_DEPTHWISE_H
#define MINIGRAPH_CONV_DEPTHWISE_H

typedef struct {
  idx batch, C;                  // batch may be a run-time number, all else is literal
  idx P, Q, R, S;                // the result's height and width, the window's
  idx stride_h, stride_w, dilation_h, dilation_w;
  idx x_image, x_row;            // from image to image, from row to row of x; from pixel to pixel C
  idx y_image, y_row, y_pixel;   // of y
} conv_depthwise_shape;

INLINE vec depthwise_load(const float *p, idx lanes) { return lanes == LANES ? vec_load(p) : vec_load_first(p, lanes); }

INLINE void depthwise_store(float *p, vec v, idx lanes) {
  if (lanes == LANES) vec_store(p, v); else vec_store_first(p, v, lanes);
}

// `pixels` neighbours of one row of y, at `lanes` channels from k on, from R x S taps.
INLINE void depthwise_pixels(int pixels, const float *x, const float *w, float *y, idx k, idx lanes, idx R, idx S,
                             conv_depthwise_shape s) {
  const idx width = (s.C + LANES - 1) / LANES * LANES, step = s.stride_w * s.C;
  const float *next = x + (R - 1) * s.dilation_h * s.x_row + (pixels + S - 1) * step + k;
  vec sum[REGISTERS];
  UNROLL for (int q = 0; q < pixels; q++) {
    sum[q] = (vec){0};
    __builtin_prefetch(next + q * step);  // what the next pixels read first of all: halves the time of large images
  }
  for (idx r = 0; r < R; r++) {
    for (idx c = 0; c < S; c++) {
      const float *from = x + r * s.dilation_h * s.x_row + c * s.dilation_w * s.C + k;
      const vec wk = vec_load(w + (r * s.S + c) * width + k);
      UNROLL for (int q = 0; q < pixels; q++) sum[q] = vec_fma(depthwise_load(from + q * step, lanes), wk, sum[q]);
    }
  }
  UNROLL for (int q = 0; q < pixels; q++) depthwise_store(y + q * s.y_pixel + k, sum[q], lanes);
}

// All channels of `pixels` neighbours.
INLINE void depthwise_group(int pixels, const float *x, const float *w, float *y, idx at, idx R, idx S,
                            conv_depthwise_shape s, finish_t finish, const void *with) {
  const idx whole = s.C / LANES * LANES;
  for (idx k = 0; k < whole; k += LANES) depthwise_pixels(pixels, x, w, y + at, k, LANES, R, S, s);
  if (s.C > whole) depthwise_pixels(pixels, x, w, y + at, whole, s.C - whole, R, S, s);
  if (finish) {
    for (int q = 0; q < pixels; q++) finish(at + q * s.y_pixel, at + q * s.y_pixel + s.C, with);
  }
}

// Threads share rows. x, w and y[start] are the first that the part reads and writes; a row of it has `most` pixels or
// `least`, both literals.
INLINE void conv_depthwise_part(int thread, int threads, const float *x, const float *w, float *y, idx start, int least,
                                int most, conv_part part, conv_depthwise_shape s, finish_t finish, const void *with) {
  enum { PIXELS = 8 };
  const idx rows = s.batch * part.P, step = s.stride_w * s.C;
  for (idx row = share(rows, thread, threads); row < share(rows, thread + 1, threads); row++) {
    const idx n = row / part.P, p = row % part.P;
    const float *xp = x + n * s.x_image + p * s.stride_h * s.x_row;
    const idx at = start + n * s.y_image + p * s.y_row;
    idx q = 0;
    for (; q + PIXELS <= part.Q; q += PIXELS) {
      depthwise_group(PIXELS, xp + q * step, w, y, at + q * s.y_pixel, part.R, part.S, s, finish, with);
    }
    const float *xq = xp + q * step;
    if (most % PIXELS && part.Q == most) {
      depthwise_group(most % PIXELS, xq, w, y, at + q * s.y_pixel, part.R, part.S, s, finish, with);
    } else if (least % PIXELS && part.Q == least) {
      depthwise_group(least % PIXELS, xq, w, y, at + q * s.y_pixel, part.R, part.S, s, finish, with);
    }
  }
}

INLINE void conv_depthwise(int thread, int threads, const float *x, const float *w, float *y, conv_depthwise_shape s,
                           finish_t finish, const void *with) {
  const conv_part all = {1, s.P, s.Q, 1, s.R, s.S};
  conv_depthwise_part(thread, threads, x, w, y, 0, (int)s.Q, (int)s.Q, all, s, finish, with);
}

// The gradient to x, phase by phase: see conv_phase.h, and conv_direct.h for the fields.
typedef struct {
  conv_axis height, width;
  conv_depthwise_shape one;
} conv_depthwise_inputs_shape;

INLINE void conv_depthwise_inputs(int thread, int threads, const float *dy, const float *w, float *dx,
                                  conv_depthwise_inputs_shape s, finish_t finish, const void *with) {
  const conv_depthwise_shape one = s.one;
  const idx high = s.height.stride, wide = s.width.stride, width = (one.C + LANES - 1) / LANES * LANES;
  for (idx phase = 0; phase < high * wide; phase++) {
    const idx i = phase / wide, j = phase % wide;
    const conv_phase p = conv_phase_of(i, s.height), q = conv_phase_of(j, s.width);
    const conv_part part = {1, p.count, q.count, 1, q.taps ? p.taps : 0, q.taps};
    if (p.count * q.count == 0) continue;
    const float *from = dy + p.from * one.x_row + q.from * one.C, *taps = w + (p.tap * one.S + q.tap) * width;
    const idx start = i * (one.y_row / high) + j * (one.y_pixel / wide);
    const int least = (int)(s.width.size / wide), most = (int)((s.width.size + wide - 1) / wide);
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

// The gradient to the weights, dw[r][s][k] = sum over n, p, q of x[...][k] * dy[n][p][q][k], dense, for dy in the place
// of y. Threads share the channels, a vector at a time.
INLINE void conv_depthwise_weights(int thread, int threads, const float *x, const float *dy, float *dw,
                                   conv_depthwise_shape s, finish_t finish, const void *with) {
  const idx whole = s.C / LANES * LANES, vectors = (s.C + LANES - 1) / LANES;
  const idx begin = vectors * thread / threads * LANES, stop = vectors * (thread + 1) / threads * LANES;
  const idx end = stop < s.C ? stop : s.C;
  for (idx n = 0; n < s.batch; n++) {
    for (idx p = 0; p < s.P; p++) {
      const float *xp = x + n * s.x_image + p * s.stride_h * s.x_row, *dyp = dy + n * s.y_image + p * s.y_row;
      for (idx k = begin; k < end; k += LANES) {
        if (k < whole) {
          depthwise_window(xp, dyp, dw, k, LANES, n + p > 0, s);
        } else {
          depthwise_window(xp, dyp, dw, k, s.C - whole, n + p > 0, s);
        }
      }
    }
  }
  if (s.batch * s.P == 0) {  // no pixel, no sum
    for (idx tap = 0; tap < s.R * s.S; tap++) {
      for (idx k = begin; k < end; k++) dw[tap * s.C + k] = 0;
    }
  }
  if (finish && begin < end) {
    for (idx tap = 0; tap < s.R * s.S; tap++) finish(tap * s.C + begin, tap * s.C + end, with);
  }
}

#endif
