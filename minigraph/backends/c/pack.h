// Weights in the order in which the kernels read them:
//
//     packed[k / width][r][s][c][k % width] = w[k * w_k + c * w_c + r * w_r + s * w_s],  and 0 for k >= K
//
// One text for all weights, by the distances: those of a convolution from (K, C, R, S) or any other order; turned by
// half a turn, with k and c exchanged (for the gradient to the input); every second tap (for that of a strided one); a
// matrix b of a product, (K, N) or transposed (C = its rows, K = its columns, R = S = 1); depthwise ones (C = 1, one
// panel). In training this runs inside the plan, since the weights change in each step.
#ifndef MINIGRAPH_PACK_H
#define MINIGRAPH_PACK_H

typedef struct {
  idx K, C, R, S;
  idx w_k, w_c, w_r, w_s;  // distances in w, below 0 for a turned window: w then points to the tap that comes first
  idx width;               // of a panel, a multiple of LANES; ceil(K / width) * R * S * C * width floats are written
} pack_shape;

// Lines [begin, end) of one tap of one panel: c counts lines, `columns` <= width of which exist.
INLINE void pack_lines(const float *w, float *packed, idx begin, idx end, idx columns, pack_shape s) {
  enum { BLOCK = 16 };  // lines: as many as share a cache line of w where w_c = 1
  for (idx first = begin; first < end; first += BLOCK) {
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
  const idx lines = (s.K + s.width - 1) / s.width * s.R * s.S * s.C;
  const idx end = lines * (thread + 1) / threads;
  for (idx line = lines * thread / threads; line < end;) {
    const idx tap = line / s.C, c = line % s.C, panel = tap / (s.R * s.S);
    const idx stop = end - line < s.C - c ? c + end - line : s.C;
    const float *from = w + panel * s.width * s.w_k + tap / s.S % s.R * s.w_r + tap % s.S * s.w_s;
    float *to = packed + tap * s.C * s.width;
    if ((panel + 1) * s.width <= s.K) {
      pack_lines(from, to, c, stop, s.width, s);
    } else {
      pack_lines(from, to, c, stop, s.K % s.width, s);
    }
    line += stop - c;
  }
}

// The other way, for one panel as wide as K: w[k * w_k + c * w_c + r * w_r + s * w_s] = packed[r][s][c][k].
INLINE void unpack(int thread, int threads, const float *packed, float *w, pack_shape s) {
  for (idx k = share(s.K, thread, threads); k < share(s.K, thread + 1, threads); k++) {
    for (idx line = 0; line < s.R * s.S * s.C; line++) {
      const idx c = line % s.C, tap = line / s.C;
      w[k * s.w_k + c * s.w_c + tap / s.S * s.w_r + tap % s.S * s.w_s] = packed[line * s.width + k];
    }
  }
}

#endif
