// y[..., m, n] = sum over k of  x[..., m, k] * y[..., k, n]: products of matrices, the axes in front broadcast.
#ifndef MATMUL_SHAPE
#define MATMUL_SHAPE
typedef struct {
  idx rows, inner, columns;
  idx rank, sizes[8];               // the axes in front of the matrices
  idx x_strides[8], y_strides[8];  // from one matrix to the next along each; 0 where it broadcasts
} matmul_shape;
#endif

INLINE Y0 NAME(matmul)(idx i, const X0 *x, const X1 *y, matmul_shape s) {
  idx matrix = i / (s.rows * s.columns);
  for (idx axis = s.rank - 1; axis >= 0; axis--) {
    const idx place = matrix % s.sizes[axis];
    x += place * s.x_strides[axis];
    y += place * s.y_strides[axis];
    matrix /= s.sizes[axis];
  }
  const X0 *row = x + i / s.columns % s.rows * s.inner;
  const X1 *column = y + i % s.columns;
  A total = 0;
  for (idx k = 0; k < s.inner; k++) total += (A)FROM_X0(row[k]) * (A)FROM_X1(column[k * s.columns]);
  return TO_Y0(total);
}
