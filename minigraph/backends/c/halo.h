// Images on a larger ground of zeros: what padding and the spreading of a strided gradient are, NHWC, float32.
//
//     y[n][top + i * step_h][left + j * step_w][c] = x[n][i][j][c],  and 0 elsewhere
#ifndef MINIGRAPH_HALO_H
#define MINIGRAPH_HALO_H

typedef struct {
  idx batch, C, H, W;    // of x; batch may be a run-time number
  idx rows, columns;     // of y
  idx top, left, step_h, step_w;
} halo_shape;

// Threads share the rows of y.
INLINE void halo(int thread, int threads, const float *x, float *y, halo_shape s) {
  const size_t pixel = s.C * sizeof(float);
  for (idx line = share(s.batch * s.rows, thread, threads); line < share(s.batch * s.rows, thread + 1, threads); line++) {
    const idx n = line / s.rows, row = line % s.rows - s.top, i = row / s.step_h;
    float *const to = y + line * s.columns * s.C;
    if (row < 0 || row % s.step_h != 0 || i >= s.H) {
      memset(to, 0, s.columns * pixel);
      continue;
    }
    const float *const from = x + (n * s.H + i) * s.W * s.C;
    if (s.step_w == 1) {
      memset(to, 0, s.left * pixel);
      memcpy(to + s.left * s.C, from, s.W * pixel);
      memset(to + (s.left + s.W) * s.C, 0, (s.columns - s.left - s.W) * pixel);
      continue;
    }
    memset(to, 0, s.columns * pixel);
    for (idx j = 0; j < s.W; j++) memcpy(to + (s.left + j * s.step_w) * s.C, from + j * s.C, pixel);
  }
}

#endif
