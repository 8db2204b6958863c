// Images in another size. Along each axis, entry i of the result looks at the coordinate (i * step + offset) / unit of
// x, in whole numbers: the nearest entry (what is nearest is in the offset), or the two around it, weighed. What lies
// outside of x reads the outermost entry. x and y lie as their strides say, channels first or last. Missing spatial
// axes come first, with one entry.
#ifndef RESIZE_SHAPE
#define RESIZE_SHAPE
typedef struct {
  idx channels;
  idx extents[3], places[3];  // spatial sizes of x and of y
  idx step[3], offset[3], unit[3];
  idx linear;  // whether the two entries around a coordinate are weighed
  idx pinned;  // whether a result of one entry looks at coordinate 0
  idx x_image, x_channel, x_axis[3];
  idx y_image, y_channel, y_axis[3];
} resize_shape;
typedef resize_shape resize_gradient_shape;

// The unit; a size known only at run time may make it 0 where the one coordinate is 0.
INLINE idx resize_unit(resize_shape s, int axis) { return s.unit[axis] > 0 ? s.unit[axis] : 1; }

// What entry i of the result looks at along an axis, in units, inside of x.
INLINE idx resize_coordinate(idx i, resize_shape s, int axis) {
  if (s.pinned && s.places[axis] == 1) return 0;
  const idx coordinate = i * s.step[axis] + s.offset[axis], most = (s.extents[axis] - 1) * resize_unit(s, axis);
  return coordinate < 0 ? 0 : coordinate < most ? coordinate : most;
}

// The first entry of the result that looks at more than `coordinate` (in units), or `places` where none does.
INLINE idx resize_first(idx coordinate, resize_shape s, int axis) {
  if (s.pinned && s.places[axis] == 1) return coordinate < 0 ? 0 : 1;
  const idx room = coordinate - s.offset[axis];
  if (room < 0) return 0;
  const idx first = s.step[axis] > 0 ? room / s.step[axis] + 1 : s.places[axis];
  return first < s.places[axis] ? first : s.places[axis];
}

// The first entry of the result that may read entry h of x, and the first behind it that does not.
INLINE idx resize_begin(idx h, resize_shape s, int axis) {
  return h == 0 ? 0 : resize_first((h - 1) * resize_unit(s, axis), s, axis);
}
INLINE idx resize_end(idx h, resize_shape s, int axis) {
  return h == s.extents[axis] - 1 ? s.places[axis] : resize_first((h + 1) * resize_unit(s, axis) - 1, s, axis);
}
#endif

// The weight of the entry before a coordinate that lies `rest` units behind it, or of the one after it.
INLINE A NAME(resize_weight)(bool after, idx rest, idx unit) {
  const A weight = (A)rest / (A)unit;
  return after ? weight : 1 - weight;
}

INLINE Y0 NAME(resize)(idx i, const X0 *x, resize_shape s) {
  const X0 *image = x + i / s.y_image * s.x_image + i / s.y_channel % s.channels * s.x_channel;
  const idx unit0 = resize_unit(s, 0), unit1 = resize_unit(s, 1), unit2 = resize_unit(s, 2);
  const idx c0 = resize_coordinate(i / s.y_axis[0] % s.places[0], s, 0);
  const idx c1 = resize_coordinate(i / s.y_axis[1] % s.places[1], s, 1);
  const idx c2 = resize_coordinate(i / s.y_axis[2] % s.places[2], s, 2);
  const X0 *near = image + c0 / unit0 * s.x_axis[0] + c1 / unit1 * s.x_axis[1] + c2 / unit2 * s.x_axis[2];
  if (!s.linear) return TO_Y0(FROM_X0(*near));
  const idx rest0 = c0 % unit0, rest1 = c1 % unit1, rest2 = c2 % unit2;
  A total = 0;
  for (int j0 = 0; j0 <= (rest0 > 0); j0++)  // what has weight 0 is not read: it may be infinite
    for (int j1 = 0; j1 <= (rest1 > 0); j1++)
      for (int j2 = 0; j2 <= (rest2 > 0); j2++)
        total += (A)FROM_X0(near[j0 * s.x_axis[0] + j1 * s.x_axis[1] + j2 * s.x_axis[2]]) *
                 NAME(resize_weight)(j0, rest0, unit0) * NAME(resize_weight)(j1, rest1, unit1) *
                 NAME(resize_weight)(j2, rest2, unit2);
  return TO_Y0(total);
}

// The weight with which entry i of the result reads entry h of x.
INLINE A NAME(resize_share)(idx h, idx i, resize_shape s, int axis) {
  const idx unit = resize_unit(s, axis), coordinate = resize_coordinate(i, s, axis);
  const idx after = h - coordinate / unit, rest = s.linear ? coordinate % unit : 0;
  return after == 0 || (after == 1 && rest > 0) ? NAME(resize_weight)(after, rest, unit) : 0;
}

// Of g, which lies as y does: each number of x gets, with its weight, what looks at it.
INLINE Y0 NAME(resize_gradient)(idx i, const X0 *g, resize_gradient_shape s) {
  const X0 *gradients = g + i / s.x_image * s.y_image + i / s.x_channel % s.channels * s.y_channel;
  const idx h0 = i / s.x_axis[0] % s.extents[0], end0 = resize_end(h0, s, 0);
  const idx h1 = i / s.x_axis[1] % s.extents[1], end1 = resize_end(h1, s, 1);
  const idx h2 = i / s.x_axis[2] % s.extents[2], end2 = resize_end(h2, s, 2);
  A total = 0;
  for (idx p0 = resize_begin(h0, s, 0); p0 < end0; p0++) {
    const A share0 = NAME(resize_share)(h0, p0, s, 0);
    if (share0 == 0) continue;
    for (idx p1 = resize_begin(h1, s, 1); p1 < end1; p1++) {
      const A share1 = share0 * NAME(resize_share)(h1, p1, s, 1);
      if (share1 == 0) continue;
      for (idx p2 = resize_begin(h2, s, 2); p2 < end2; p2++) {
        const A share = share1 * NAME(resize_share)(h2, p2, s, 2);
        if (share != 0) total += share * (A)FROM_X0(gradients[p0 * s.y_axis[0] + p1 * s.y_axis[1] + p2 * s.y_axis[2]]);
      }
    }
  }
  return TO_Y0(total);
}
