// Weights in the order in which the kernels read them:
//
//     packed[group][k / width][t][r][s][c][k % width] =
//         w[group * w_group + k * w_k + c * w_c + t * w_t + r * w_r + s * w_s],  and 0 for k >= K
//
// One text for all weights, by the distances: those of a convolution from (K, C, T, R, S) or any other order; with k
// and c exchanged for the gradient to the input, and its taps by phases (`step_t`, `step_r`, `step_s`, see
// conv_phase.h); a matrix b of a product, (K, N) or transposed (C = its rows, K = its columns, T = R = S = 1); depthwise
// ones (C = 1, one panel). In training this runs inside the plan, since the weights change in each step.
#ifndef MINIGRAPH_PACK_H
#define MINIGRAPH_PACK_H

typedef struct {
  idx groups, K, C, T, R, S;
  idx w_group, w_k, w_c, w_t, w_r, w_s;  // distances in w
  idx width;  // of a panel, a multiple of LANES; groups * ceil(K / width) * T * R * S * C * width floats are written
  idx step_t, step_r, step_s;  // 0, or every step-th tap first, then those behind them, each time the last one first
} pack_shape;

// The tap that stands in this place, of `taps`.
INLINE idx pack_tap(idx place, idx taps, idx step) {
  if (step == 0) return place;
  idx phase = 0, count = (taps + step - 1) / step;
  while (place >= count) {
    place -= count;
    phase++;
    count = (taps - phase + step - 1) / step;
  }
  return phase + step * (count - 1 - place);
}

// LANES lines of `columns` columns, a multiple of LANES, where lines lie side by side in w. Read line by line, columns a
// power of two apart would drive one another out of the cache.
INLINE void pack_turned(const float *w, float *packed, idx columns, idx w_k, idx width) {
  for (idx k = 0; k < columns; k += LANES) {
    vec square[LANES];
    UNROLL for (int i = 0; i < LANES; i++) square[i] = vec_load(w + (k + i) * w_k);
    vec_transpose(square);
    UNROLL for (int i = 0; i < LANES; i++) vec_store(packed + i * width + k, square[i]);
  }
}

// Lines [begin, end) of one tap of one panel: c counts lines, `columns` <= width of which exist.
INLINE void pack_lines(const float *w, float *packed, idx begin, idx end, idx columns, pack_shape s) {
  enum { BLOCK = 16 };  // lines: as many as share a cache line of w where w_c = 1
  idx turned = begin;
  for (; s.w_c == 1 && columns % LANES == 0 && turned + LANES <= end; turned += LANES) {
    pack_turned(w + turned, packed + turned * s.width, columns, s.w_k, s.width);
    for (idx c = turned; c < turned + LANES; c++) {
      for (idx k = columns; k < s.width; k++) packed[c * s.width + k] = 0;
    }
  }
  for (idx first = turned; first < end; first += BLOCK) {
    const idx stop = first + BLOCK < end ? first + BLOCK : end;
    for (idx c = first; c < stop; c++) {
      const float *from = w + c * s.w_c;
      float *to = packed + c * s.width;
      for (idx k = 0; k < columns; k++) to[k] = from[k * s.w_k];
      for (idx k = columns; k < s.width; k++) to[k] = 0;
    }
  }
}

INLINE void pack(int thread, int threads, const float *w, float *packed, pack_shape s) {
  const idx panels = (s.K + s.width - 1) / s.width, taps = s.T * s.R * s.S;
  const idx lines = s.groups * panels * taps * s.C, end = lines * (thread + 1) / threads;
  for (idx line = lines * thread / threads; line < end;) {
    const idx row = line / s.C, c = line % s.C, tap = row % taps, group = row / taps / panels, k = row / taps % panels;
    const idx stop = end - line < s.C - c ? c + end - line : s.C;
    const idx t = pack_tap(tap / s.S / s.R, s.T, s.step_t), r = pack_tap(tap / s.S % s.R, s.R, s.step_r);
    const idx from = group * s.w_group + k * s.width * s.w_k + t * s.w_t + r * s.w_r;
    const float *tap_of_w = w + from + pack_tap(tap % s.S, s.S, s.step_s) * s.w_s;
    float *to = packed + row * s.C * s.width;
    if ((k + 1) * s.width <= s.K) {
      pack_lines(tap_of_w, to, c, stop, s.width, s);
    } else {
      pack_lines(tap_of_w, to, c, stop, s.K % s.width, s);
    }
    line += stop - c;
  }
}

// The other way, for one panel as wide as K:
//
//     w[k * w_k + c * w_c + t * w_t + r * w_r + s * w_s] = packed[t][r][s][c][k]
INLINE void unpack(int thread, int threads, const float *packed, float *w, pack_shape s) {
  for (idx k = share(s.K, thread, threads); k < share(s.K, thread + 1, threads); k++) {
    for (idx line = 0; line < s.T * s.R * s.S * s.C; line++) {
      const idx c = line % s.C, tap = line / s.C, r = tap / s.S % s.R;
      w[k * s.w_k + c * s.w_c + tap / s.S / s.R * s.w_t + r * s.w_r + tap % s.S * s.w_s] = packed[line * s.width + k];
    }
  }
}

#endif
