// Matrix products in float32: y = a b, all sizes, all tails.
//
//     y[m][n] = sum over k of a[m][k] * b[k][n]          m < M, n < N, k < K
//
// Distances between numbers are fields, so that one text serves the three products of a dense layer y = x w:
//
//     y  = x w        a = x by rows,     b = w, packed (pack.h: width a multiple of LANES)
//     dx = dy w^T     a = dy by rows,    b = w^T, packed by the same function with the distances exchanged
//     dw = x^T dy     a = x by columns,  b = dy as it lies
//
// b and y lie in panels of `vectors` * LANES columns: column n is column n % width of panel n / width. That is how b is
// packed, K rows of `width` (b_row = width, b_panel = K * width); a row-major matrix is the same with row = its columns
// and panel = width. So y may be written in panels too (N is then the padded number of columns).
#ifndef MINIGRAPH_GEMM_H
#define MINIGRAPH_GEMM_H

typedef struct {
  idx M, N, K;            // any of the three may be a run-time number
  idx a_row, a_column;    // a[m][k] is a[m * a_row + k * a_column]
  idx b_row, b_panel;     // b[k][n] is b[k * b_row + n / width * b_panel + n % width]
  idx y_row, y_panel;     // y[m][n] is y[m * y_row + n / width * y_panel + n % width]
  int vectors;            // width = vectors * LANES, a literal: 2 is best, 1 where N <= LANES
  bool b_padded;          // every panel of b may be read to its whole width: true where it is packed
} gemm_shape;

// How many terms are summed in one go, and how many rows pass by one panel of b: both blocks stay in the L2 cache. Where
// the terms lie a row of the matrix apart there are fewer: rows a power of two apart share few of its sets.
enum { GEMM_TERMS = 512, GEMM_TERMS_APART = 128, GEMM_ROWS = 168 };

INLINE void gemm(int thread, int threads, const float *a, const float *b, float *y, gemm_shape s, finish_t finish,
                 const void *with) {
  const idx terms = s.a_column == 1 ? GEMM_TERMS : GEMM_TERMS_APART;
  const idx width = (idx)s.vectors * LANES, panels = (s.N + width - 1) / width;
  const tile_share own = tile_split(thread, threads, s.M, 1, panels, s.K, s.K * width);
  for (idx row = own.row; row < own.row_end; row += GEMM_ROWS) {
    const idx row_end = row + GEMM_ROWS < own.row_end ? row + GEMM_ROWS : own.row_end;
    for (idx k = 0; k < s.K || k == 0; k += terms) {
      const bool last = k + terms >= s.K;
      tile_shape t = {.outer = 1, .middle = 1, .inner = last ? s.K - k : terms, .a_row = s.a_row,
                      .a_inner = s.a_column, .b_inner = s.b_row, .y_row = s.y_row, .vectors = s.vectors,
                      .b_padded = s.b_padded, .add = k > 0, .last = last};
      for (idx panel = own.panel; panel < own.panel_end; panel++) {
        const float *ak = a + k * s.a_column, *bk = b + panel * s.b_panel + k * s.b_row;
        const idx at = panel * s.y_panel, left = s.N - panel * width;
        tile_panel(ak, bk, y, at, row, row_end, left, &t, finish, with);
      }
    }
  }
}

#endif
