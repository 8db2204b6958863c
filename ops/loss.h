// y[b, c, a] = 1 where labels[b, a] = c, else 0.
#ifndef LOSS_SHAPE
#define LOSS_SHAPE
typedef struct {
  idx classes, after;
} one_hot_shape;
#endif

INLINE Y0 NAME(one_hot)(idx i, const X0 *labels, one_hot_shape s, int *fault) {
  const X0 label = labels[i / s.after / s.classes * s.after + i % s.after];
  if ((uint64_t)label >= (uint64_t)s.classes) *fault = 1;  // a negative one is a large one
  return TO_Y0((idx)label == i / s.after % s.classes);
}
