// Where along an axis the first largest or smallest number stands, the first NaN if there is one.
#ifndef REDUCE_SHAPE
#define REDUCE_SHAPE
// The tensor is (before, size, after), the result (before, after).
typedef struct {
  idx size, after;
} argmax_shape;
typedef argmax_shape argmin_shape;
#endif

INLINE Y0 NAME(argmax)(idx i, const X0 *x, argmax_shape s) {
  x += i / s.after * s.size * s.after + i % s.after;
  WIDE_X0 best = FROM_X0(x[0]);
  idx place = 0;
  for (idx j = 1; j < s.size && !isnan((double)best); j++) {
    const WIDE_X0 number = FROM_X0(x[j * s.after]);
    if (number > best || isnan((double)number)) best = number, place = j;
  }
  return TO_Y0(place);
}

INLINE Y0 NAME(argmin)(idx i, const X0 *x, argmin_shape s) {
  x += i / s.after * s.size * s.after + i % s.after;
  WIDE_X0 best = FROM_X0(x[0]);
  idx place = 0;
  for (idx j = 1; j < s.size && !isnan((double)best); j++) {
    const WIDE_X0 number = FROM_X0(x[j * s.after]);
    if (number < best || isnan((double)number)) best = number, place = j;
  }
  return TO_Y0(place);
}
