// Numbers that depend on no number: y[i] = value, and how many numbers there are along some axes.
#ifndef CONSTANT_SHAPE
#define CONSTANT_SHAPE
// The value is `real` where floats are filled, else `whole`, which uint64 reads modulo 2^64.
typedef struct {
  bool is_float;
  double real;
  idx whole;
} fill_shape;

typedef struct {
  idx size;
} count_shape;
#endif

#ifndef X0  // no input
INLINE Y0 NAME(fill)(idx i, fill_shape s) {
  (void)i;
  return s.is_float ? TO_Y0(s.real) : TO_Y0(s.whole);
}
#else
INLINE Y0 NAME(count)(idx i, const X0 *x, count_shape s) {
  (void)i, (void)x;
  return TO_Y0(s.size);
}
#endif
