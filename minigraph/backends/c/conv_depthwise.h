// Depthwise convolution in float32, NHWC: each channel by itself, `multiplier` results from each; and its two
// gradients.
//
//     y[n][p][q][k] = sum over r, s of
//         x[n][p * stride_h + r * dilation_h][q * stride_w + s * dilation_w][k / multiplier] * w[r][s][k]
//
// x carries its padding physically, as a halo of zeros. Weights are packed [R][S][width], width being K rounded up to
// LANES (pack.h with C = 1). Vectors run over channels; the last one may be a part of a vector.
//
// The gradient to x is the same text for dy (with a halo) and the turned window; each of its channels sums over the
// `summed` channels of dy that came from it, by weights [R][S][summed][width]. Of a strided convolution see
// conv_direct.h.
#ifndef MINIGRAPH_CONV_DEPTHWISE_H
#define MINIGRAPH_CONV_DEPTHWISE_H

typedef struct {
  idx batch, C;                  // batch may be a run-time number, all else is literal
  idx multiplier, summed;        // K = C * multiplier / summed; at least one of the two is 1
  idx P, Q, R, S;                // the result's height and width, the window's
  idx stride_h, stride_w, dilation_h, dilation_w;
  idx x_image, x_row;            // from image to image, from row to row of x; from pixel to pixel C
  idx y_image, y_row, y_pixel;   // of y
} conv_depthwise_shape;

INLINE idx depthwise_channels(conv_depthwise_shape s) { return s.C * s.multiplier / s.summed; }

// What `lanes` results from k on read of the pixel at p, the i-th of those that each of them sums.
INLINE vec depthwise_load(const float *p, idx k, idx lanes, idx i, conv_depthwise_shape s) {
  if (s.multiplier == 1 && s.summed == 1) return lanes == LANES ? vec_load(p + k) : vec_load_first(p + k, lanes);
  float v[LANES] = {0};
  for (idx lane = 0; lane < lanes; lane++) v[lane] = p[(k + lane) / s.multiplier * s.summed + i];
  return vec_load(v);
}

INLINE void depthwise_store(float *p, vec v, idx lanes) {
  if (lanes == LANES) vec_store(p, v); else vec_store_first(p, v, lanes);
}

// `pixels` neighbours of one row of y, at `lanes` channels from k on.
INLINE void depthwise_pixels(int pixels, const float *x, const float *w, float *y, idx k, idx lanes,
                             conv_depthwise_shape s) {
  const idx width = (depthwise_channels(s) + LANES - 1) / LANES * LANES, step = s.stride_w * s.C;
  const float *next = x + (s.R - 1) * s.dilation_h * s.x_row + (pixels + s.S - 1) * step + k * s.summed / s.multiplier;
  vec sum[REGISTERS];
  UNROLL for (int q = 0; q < pixels; q++) {
    sum[q] = (vec){0};
    __builtin_prefetch(next + q * step);  // what the next pixels read first of all: halves the time of large images
  }
  for (idx r = 0; r < s.R; r++) {
    for (idx c = 0; c < s.S; c++) {
      const float *from = x + r * s.dilation_h * s.x_row + c * s.dilation_w * s.C;
      for (idx i = 0; i < s.summed; i++) {
        const vec wk = vec_load(w + ((r * s.S + c) * s.summed + i) * width + k);
        UNROLL for (int q = 0; q < pixels; q++) {
          sum[q] = vec_fma(depthwise_load(from + q * step, k, lanes, i, s), wk, sum[q]);
        }
      }
    }
  }
  UNROLL for (int q = 0; q < pixels; q++) depthwise_store(y + q * s.y_pixel + k, sum[q], lanes);
}

// All channels of `pixels` neighbours.
INLINE void depthwise_group(int pixels, const float *x, const float *w, float *y, idx at, conv_depthwise_shape s,
                            finish_t finish, const void *with) {
  const idx K = depthwise_channels(s), whole = K / LANES * LANES;
  for (idx k = 0; k < whole; k += LANES) depthwise_pixels(pixels, x, w, y + at, k, LANES, s);
  if (K > whole) depthwise_pixels(pixels, x, w, y + at, whole, K - whole, s);
  if (finish) {
    for (int q = 0; q < pixels; q++) finish(at + q * s.y_pixel, at + q * s.y_pixel + K, with);
  }
}

// Threads share image rows.
INLINE void conv_depthwise(int thread, int threads, const float *x, const float *w, float *y, conv_depthwise_shape s,
                           finish_t finish, const void *with) {
  enum { PIXELS = 8 };
  const idx rows = s.batch * s.P;
  for (idx row = rows * thread / threads; row < rows * (thread + 1) / threads; row++) {
    const idx n = row / s.P, p = row % s.P;
    const float *xp = x + n * s.x_image + p * s.stride_h * s.x_row;
    const idx at = n * s.y_image + p * s.y_row;
    idx q = 0;
    for (; q + PIXELS <= s.Q; q += PIXELS) {
      depthwise_group(PIXELS, xp + q * s.stride_w * s.C, w, y, at + q * s.y_pixel, s, finish, with);
    }
    if (s.Q % PIXELS) {
      depthwise_group(s.Q % PIXELS, xp + q * s.stride_w * s.C, w, y, at + q * s.y_pixel, s, finish, with);
    }
  }
}

// What one row of pixels adds to R' x S' taps of the window, whose sums stay in registers.
INLINE void depthwise_taps(int R, int S, const float *x, const float *dy, float *dw, idx k, idx lanes, bool add,
                           conv_depthwise_shape s) {
  const idx K = depthwise_channels(s), below = ((R - 1) * s.dilation_h + s.stride_h) * s.x_row;
  vec sum[REGISTERS];
  if (R * S > REGISTERS) __builtin_trap();  // folded away: both are literals
  UNROLL for (int i = 0; i < R * S; i++) sum[i] = (vec){0};
  if (add) {
    UNROLL for (int i = 0; i < R * S; i++) {
      const float *from = dw + (i / S * s.S + i % S) * K + k;
      sum[i] = lanes == LANES ? vec_load(from) : vec_load_first(from, lanes);
    }
  }
  for (idx q = 0; q < s.Q; q++) {
    const float *g = dy + q * s.y_pixel + k, *from = x + q * s.stride_w * s.C;
    __builtin_prefetch(g + s.y_row, 0, 2);  // the next row of pixels, into the L2 cache
    __builtin_prefetch(from + below + k * s.summed / s.multiplier, 0, 2);
    const vec gk = lanes == LANES ? vec_load(g) : vec_load_first(g, lanes);
    UNROLL for (int i = 0; i < R * S; i++) {
      const float *at = from + i / S * s.dilation_h * s.x_row + i % S * s.dilation_w * s.C;
      sum[i] = vec_fma(depthwise_load(at, k, lanes, 0, s), gk, sum[i]);
    }
  }
  UNROLL for (int i = 0; i < R * S; i++) depthwise_store(dw + (i / S * s.S + i % S) * K + k, sum[i], lanes);
}

// The same for the whole window: in one go where its sums fit, else by pieces of its rows.
INLINE void depthwise_window(const float *x, const float *dy, float *dw, idx k, idx lanes, bool add,
                             conv_depthwise_shape s) {
  enum { MOST = REGISTERS - 3 };
  const idx K = depthwise_channels(s);
  if (s.R * s.S <= MOST) {
    depthwise_taps(s.R, s.S, x, dy, dw, k, lanes, add, s);
    return;
  }
  const idx piece = s.S < MOST ? s.S : MOST;
  for (idx r = 0; r < s.R; r++) {
    const float *xr = x + r * s.dilation_h * s.x_row;
    idx c = 0;
    for (; c + piece <= s.S; c += piece) {
      depthwise_taps(1, piece, xr + c * s.dilation_w * s.C, dy, dw + (r * s.S + c) * K, k, lanes, add, s);
    }
    if (s.S % piece) {
      depthwise_taps(1, s.S % piece, xr + c * s.dilation_w * s.C, dy, dw + (r * s.S + c) * K, k, lanes, add, s);
    }
  }
}

// The gradient to the weights, dw[r][s][k] = sum over n, p, q of x[...][k / multiplier] * dy[n][p][q][k], dense, for dy
// in the place of y (and `summed` = 1). Threads share the channels, a vector at a time.
INLINE void conv_depthwise_weights(int thread, int threads, const float *x, const float *dy, float *dw,
                                   conv_depthwise_shape s, finish_t finish, const void *with) {
  const idx K = depthwise_channels(s), whole = K / LANES * LANES, vectors = (K + LANES - 1) / LANES;
  const idx begin = vectors * thread / threads * LANES, stop = vectors * (thread + 1) / threads * LANES;
  const idx end = stop < K ? stop : K;
  for (idx n = 0; n < s.batch; n++) {
    for (idx p = 0; p < s.P; p++) {
      const float *xp = x + n * s.x_image + p * s.stride_h * s.x_row, *dyp = dy + n * s.y_image + p * s.y_row;
      for (idx k = begin; k < end; k += LANES) {
        if (k < whole) {
          depthwise_window(xp, dyp, dw, k, LANES, n + p > 0, s);
        } else {
          depthwise_window(xp, dyp, dw, k, K - whole, n + p > 0, s);
        }
      }
    }
  }
  if (s.batch * s.P == 0) {  // no pixel, no sum
    for (idx tap = 0; tap < s.R * s.S; tap++) {
      for (idx k = begin; k < end; k++) dw[tap * K + k] = 0;
    }
  }
  if (finish && begin < end) {
    for (idx tap = 0; tap < s.R * s.S; tap++) finish(tap * K + begin, tap * K + end, with);
  }
}

#endif
