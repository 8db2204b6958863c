// Matrix products of any sizes, strides and axes in front of the matrices: see tile.cuh.
#pragma once

struct gemm_shape {
  int M, N, K;
  int a_row, a_column, b_row, b_column;          // how far rows and columns lie apart
  int rank, sizes[8], a_apart[8], b_apart[8];  // the axes in front of the matrices; 0 apart where one is broadcast
  int products, per_chunk;                       // matrices in all; terms of each chunk
};

template <class T, class ReadA, class ReadB, class X, class Put>
INLINE void gemm(const X *a, const X *b, const gemm_shape s, const Put &put) {
  const work own = own_work<T>(s.M, s.N, s.products, s.per_chunk, s.K);
  int rest = own.number;
#pragma unroll
  for (int axis = s.rank - 1; axis >= 0; axis--) {
    const idx place = rest % s.sizes[axis];
    a += place * s.a_apart[axis];
    b += place * s.b_apart[axis];
    rest /= s.sizes[axis];
  }
  const int first = (own.chunk * s.products + own.number) * s.M;
  product<T, ReadA, ReadB>(matrix<X>{a, s.a_row, s.a_column}, matrix<X>{b, s.b_row, s.b_column}, s.M, s.N, own.row,
                           own.column, own.begin, own.end,
                           [&](int m, int n, float number) { put(first + m, n, number); });
}
