// Images on a larger ground of zeros: what padding and the spreading of a strided gradient are, channels last, float32.
//
//     y[n][front + h * step_d][top + i * step_h][left + j * step_w][c] = x[n][h][i][j][c],  and 0 elsewhere
//
// Where x lies in y already, only what is around it is left to do.
#ifndef MINIGRAPH_HALO_H
#define MINIGRAPH_HALO_H

typedef struct {
  idx batch, C, D, H, W;      // of x; batch may be a run-time number
  idx slices, rows, columns;  // of y
  idx front, top, left, step_d, step_h, step_w;
  idx x_image, x_slice, x_row;  // from image to image, slice to slice, row to row of x
} halo_shape;

// Whether place `at` of an axis of y has a number of x.
INLINE bool halo_inside(idx at, idx step, idx size) { return at >= 0 && at % step == 0 && at / step < size; }

// Threads share the rows of y.
INLINE void halo(int thread, int threads, const float *x, float *y, halo_shape s) {
  const size_t pixel = s.C * sizeof(float);
  const idx lines = s.batch * s.slices * s.rows;
  for (idx line = share(lines, thread, threads); line < share(lines, thread + 1, threads); line++) {
    const idx n = line / s.rows / s.slices, slice = line / s.rows % s.slices - s.front, row = line % s.rows - s.top;
    float *const to = y + line * s.columns * s.C;
    if (!halo_inside(slice, s.step_d, s.D) || !halo_inside(row, s.step_h, s.H)) {
      memset(to, 0, s.columns * pixel);
      continue;
    }
    const float *const from = x + n * s.x_image + slice / s.step_d * s.x_slice + row / s.step_h * s.x_row;
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

// The zeros around x, whose numbers lie side by side (steps of 1).
INLINE void halo_border(int thread, int threads, float *y, halo_shape s) {
  const size_t pixel = s.C * sizeof(float);
  const idx lines = s.batch * s.slices * s.rows;
  for (idx line = share(lines, thread, threads); line < share(lines, thread + 1, threads); line++) {
    const idx slice = line / s.rows % s.slices - s.front, row = line % s.rows - s.top;
    float *const to = y + line * s.columns * s.C;
    if (!halo_inside(slice, 1, s.D) || !halo_inside(row, 1, s.H)) {
      memset(to, 0, s.columns * pixel);
    } else {
      memset(to, 0, s.left * pixel);
      memset(to + (s.left + s.W) * s.C, 0, (s.columns - s.left - s.W) * pixel);
    }
  }
}

#endif
