// Running sums: y[b, i, a] = the sum of x[b, j, a] over j <= i; exclusive: over j < i; reverse: over j >= i, j > i.
#ifndef SCAN_SHAPE
#define SCAN_SHAPE
// The tensor is (before, size, after).
typedef struct {
  idx size, after;
  bool exclusive, reverse;
} cumsum_shape;
#endif

// A line is one (b, a).
INLINE void NAME(cumsum)(idx line, const X0 *x, Y0 *y, cumsum_shape s) {
  const idx start = line / s.after * s.size * s.after + line % s.after;
  A sum = 0;
  for (idx j = 0; j < s.size; j++) {
    const idx i = start + (s.reverse ? s.size - 1 - j : j) * s.after;
    const A before = sum;
    sum += (A)FROM_X0(x[i]);
    y[i] = TO_Y0(s.exclusive ? before : sum);
  }
}
