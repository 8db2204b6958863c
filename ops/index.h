// Indexing by tensors of integers. A tensor is seen as (lead, before, axis, after): the batch, the axes between it and
// the one that is indexed, and those behind that; the indices as (lead, each).
#ifndef INDEX_SHAPE
#define INDEX_SHAPE
#define SCATTER_WIDTH 32  // the most places behind the axis that a line of scatter_add goes over

typedef struct {
  idx before, size, after, each;
} gather_shape;

// width: how many places behind the axis a line goes over, the last one perhaps fewer. in_place: whether sums are as
// exact as they should be where they are kept as what the result holds.
typedef struct {
  idx before, size, after, each, width;
  bool in_place;
} scatter_add_shape;

typedef struct {
  idx size, after, k;
  bool largest;
} topk_shape;

typedef struct {
  idx size;
} iota_shape;

// The index counted from the front of an axis of n places; -1 where there is no such place.
INLINE idx index_from_front(idx index, idx n) {
  if (index < 0) index += n;
  return 0 <= index && index < n ? index : -1;
}
#endif

#ifndef X0  // no input

// y[i] = i
INLINE Y0 NAME(iota)(idx i, iota_shape s) {
  (void)s;
  return TO_Y0(i);
}

#elif defined(X1)  // two inputs

// y[l, b, j, a] = x[l, b, indices[l, j], a]
INLINE Y0 NAME(gather)(idx i, const X0 *x, const X1 *indices, gather_shape s, int *fault) {
  const idx a = i % s.after, j = i / s.after % s.each, block = i / s.after / s.each;
  const idx place = index_from_front(indices[block / s.before * s.each + j], s.size);
  if (place < 0) {
    *fault = 1;
    return TO_Y0(0);
  }
  return x[(block * s.size + place) * s.after + a];
}

// y[l, b, p, a] = the sum of x[l, b, j, a] over the j with indices[l, j] = p, in their order.
//
// A line is one (l, b) and `width` places a: all of its sums start at 0, and each x is added where it belongs. Sums that
// need more digits than the result holds are formed one after the other, each at the first index of its place.
INLINE void NAME(scatter_add)(idx line, const X0 *x, const X1 *indices, Y0 *y, scatter_add_shape s, int *fault) {
  const idx chunks = (s.after + s.width - 1) / s.width, block = line / chunks, from = line % chunks * s.width;
  const idx width = s.after - from < s.width ? s.after - from : s.width;
  indices += block / s.before * s.each;
  x += block * s.each * s.after + from;
  y += block * s.size * s.after + from;
  for (idx p = 0; p < s.size; p++)
    for (idx a = 0; a < width; a++) y[p * s.after + a] = TO_Y0(0);
  for (idx j = 0; j < s.each; j++) {
    const idx place = index_from_front(indices[j], s.size);
    if (place < 0) {
      *fault = 1;
      continue;
    }
    Y0 *sums = y + place * s.after;
    if (s.in_place) {
      for (idx a = 0; a < width; a++) sums[a] = TO_Y0(FROM_Y0(sums[a]) + FROM_X0(x[j * s.after + a]));
      continue;
    }
    idx first = 0;
    while (index_from_front(indices[first], s.size) != place) first++;
    if (first < j) continue;
    A wide[SCATTER_WIDTH] = {0};
    for (idx k = j; k < s.each; k++)
      if (index_from_front(indices[k], s.size) == place)
        for (idx a = 0; a < width; a++) wide[a] += (A)FROM_X0(x[k * s.after + a]);
    for (idx a = 0; a < width; a++) sums[a] = TO_Y0(wide[a]);
  }
}

#elif defined(Y1)  // two outputs

// Whether one number comes before another: NaNs first, then the largest or the smallest.
INLINE bool NAME(topk_before)(WIDE_X0 one, WIDE_X0 other, bool largest) {
  if (isnan((double)one) || isnan((double)other)) return isnan((double)one) && !isnan((double)other);
  return largest ? one > other : one < other;
}

// values[b, :, a] = the first k of x[b, :, a] in order, at indices[b, :, a]. A line is one (b, a): its numbers are put,
// one by one, where they belong among those chosen so far, behind their equals.
INLINE void NAME(topk)(idx line, const X0 *x, Y0 *values, Y1 *indices, topk_shape s) {
  const idx block = line / s.after, a = line % s.after;
  x += block * s.size * s.after + a;
  values += block * s.k * s.after + a;
  indices += block * s.k * s.after + a;
  for (idx j = 0; j < s.size; j++) {
    const WIDE_X0 number = FROM_X0(x[j * s.after]);
    idx place = j < s.k ? j : s.k;
    while (place > 0 && NAME(topk_before)(number, FROM_Y0(values[(place - 1) * s.after]), s.largest)) place--;
    if (place == s.k) continue;
    for (idx p = j < s.k ? j : s.k - 1; p > place; p--) {
      values[p * s.after] = values[(p - 1) * s.after];
      indices[p * s.after] = indices[(p - 1) * s.after];
    }
    values[place * s.after] = x[j * s.after];
    indices[place * s.after] = (Y1)j;
  }
}

#endif
