// Pooling over windows of 1 to 3 spatial axes: the largest number of each, or the mean.
//
// Entry k of the window at p is x[p * stride + k * dilation - before]; what lies outside of x is padding, which is
// never the largest and adds nothing. x and y lie as their strides say, channels first or last. Missing spatial axes
// come first, with one entry.
#ifndef POOL_SHAPE
#define POOL_SHAPE
typedef struct {
  idx channels;
  idx window[3], stride[3], dilation[3], before[3];
  idx extents[3], places[3];  // spatial sizes of x and of y
  idx x_image, x_channel, x_axis[3];
  idx y_image, y_channel, y_axis[3];
  idx counted_before[3], counted_after[3];  // how much padding counts in a mean
} pool_shape;
typedef pool_shape max_pool_shape;
typedef pool_shape max_pool_gradient_shape;
typedef pool_shape max_pool_select_shape;
typedef pool_shape avg_pool_shape;
typedef pool_shape avg_pool_gradient_shape;

// The first k from 0 on with start + k * step >= 0.
INLINE idx pool_first(idx start, idx step) { return start < 0 ? (step - 1 - start) / step : 0; }

// The first k, at most `window`, with start + k * step >= extent.
INLINE idx pool_end(idx start, idx step, idx extent, idx window) {
  idx end = start < extent ? (extent - start + step - 1) / step : 0;
  return end < window ? end : window;
}

// Where the window of the i-th number of y starts along an axis.
INLINE idx pool_start(idx i, pool_shape s, int axis) {
  return i / s.y_axis[axis] % s.places[axis] * s.stride[axis] - s.before[axis];
}

// Where the image and the channel begin in x to which the i-th number of y belongs.
INLINE idx pool_image(idx i, pool_shape s) {
  return i / s.y_image * s.x_image + i / s.y_channel % s.channels * s.x_channel;
}

// How far along an axis entry k of the window at `start` lies from the beginning of its image.
INLINE idx pool_entry(idx start, idx k, pool_shape s, int axis) {
  return (start + k * s.dilation[axis]) * s.x_axis[axis];
}

// Where along an axis the i-th number of x lies.
INLINE idx pool_index(idx i, pool_shape s, int axis) { return i / s.x_axis[axis] % s.extents[axis]; }

// The position of the window whose entry k is entry h of an image, or -1 where there is none.
INLINE idx pool_place(idx h, idx k, pool_shape s, int axis) {
  const idx shift = h + s.before[axis] - k * s.dilation[axis], stride = s.stride[axis];
  return shift >= 0 && shift % stride == 0 && shift / stride < s.places[axis] ? shift / stride : -1;
}

// How many entries of the window at `start` count along an axis.
INLINE idx pool_count(idx start, pool_shape s, int axis) {
  const idx from = start + s.counted_before[axis], step = s.dilation[axis];
  const idx extent = s.counted_before[axis] + s.extents[axis] + s.counted_after[axis];
  return pool_end(from, step, extent, s.window[axis]) - pool_first(from, step);
}
#endif

INLINE bool NAME(pool_nan)(WIDE_X0 number) {
  const WIDE_X0 same = number;  // no integer differs from itself
  return number != same;
}

// The largest number of a window, which holds one at least; NaN if there is one.
INLINE Y0 NAME(max_pool)(idx i, const X0 *x, max_pool_shape s) {
  const X0 *image = x + pool_image(i, s);
  const idx start0 = pool_start(i, s, 0), first0 = pool_first(start0, s.dilation[0]);
  const idx start1 = pool_start(i, s, 1), first1 = pool_first(start1, s.dilation[1]);
  const idx start2 = pool_start(i, s, 2), first2 = pool_first(start2, s.dilation[2]);
  const idx end0 = pool_end(start0, s.dilation[0], s.extents[0], s.window[0]);
  const idx end1 = pool_end(start1, s.dilation[1], s.extents[1], s.window[1]);
  const idx end2 = pool_end(start2, s.dilation[2], s.extents[2], s.window[2]);
  const idx at = pool_entry(start0, first0, s, 0) + pool_entry(start1, first1, s, 1) + pool_entry(start2, first2, s, 2);
  WIDE_X0 best = FROM_X0(image[at]);
  for (idx k0 = first0; k0 < end0; k0++)
    for (idx k1 = first1; k1 < end1; k1++) {
      const X0 *row = image + pool_entry(start0, k0, s, 0) + pool_entry(start1, k1, s, 1);
      for (idx k2 = first2; k2 < end2; k2++) {
        const WIDE_X0 number = FROM_X0(row[pool_entry(start2, k2, s, 2)]);
        best = number > best || NAME(pool_nan)(number) ? number : best;
      }
    }
  return TO_Y0(best);
}

// Where in an image the first largest number, or the first NaN, lies of the window that starts there.
INLINE idx NAME(pool_chosen)(const X0 *image, idx start0, idx start1, idx start2, pool_shape s) {
  const idx first0 = pool_first(start0, s.dilation[0]), first1 = pool_first(start1, s.dilation[1]);
  const idx first2 = pool_first(start2, s.dilation[2]);
  const idx end0 = pool_end(start0, s.dilation[0], s.extents[0], s.window[0]);
  const idx end1 = pool_end(start1, s.dilation[1], s.extents[1], s.window[1]);
  const idx end2 = pool_end(start2, s.dilation[2], s.extents[2], s.window[2]);
  idx chosen = pool_entry(start0, first0, s, 0) + pool_entry(start1, first1, s, 1) + pool_entry(start2, first2, s, 2);
  WIDE_X0 best = FROM_X0(image[chosen]);
  for (idx k0 = first0; k0 < end0; k0++)
    for (idx k1 = first1; k1 < end1; k1++) {
      const idx row = pool_entry(start0, k0, s, 0) + pool_entry(start1, k1, s, 1);
      for (idx k2 = first2; k2 < end2; k2++) {
        const idx at = row + pool_entry(start2, k2, s, 2);
        const WIDE_X0 number = FROM_X0(image[at]);
        const bool wins = number > best || (NAME(pool_nan)(number) && !NAME(pool_nan)(best));
        best = wins ? number : best;
        chosen = wins ? at : chosen;
      }
    }
  return chosen;
}

// The number of h at the place where the window of x has its largest.
INLINE Y0 NAME(max_pool_select)(idx i, const X0 *h, const X0 *x, max_pool_select_shape s) {
  const idx image = pool_image(i, s);
  const idx start0 = pool_start(i, s, 0), start1 = pool_start(i, s, 1), start2 = pool_start(i, s, 2);
  return TO_Y0(FROM_X0(h[image + NAME(pool_chosen)(x + image, start0, start1, start2, s)]));
}

// Of g, which lies as y does: a number of x gets the sum over the windows in which it is chosen.
INLINE Y0 NAME(max_pool_gradient)(idx i, const X0 *g, const X0 *x, max_pool_gradient_shape s) {
  const idx n = i / s.x_image, c = i / s.x_channel % s.channels;
  const X0 *image = x + n * s.x_image + c * s.x_channel, *gradients = g + n * s.y_image + c * s.y_channel;
  const idx h0 = pool_index(i, s, 0), h1 = pool_index(i, s, 1), h2 = pool_index(i, s, 2);
  const idx here = h0 * s.x_axis[0] + h1 * s.x_axis[1] + h2 * s.x_axis[2];
  A total = 0;
  for (idx k0 = 0; k0 < s.window[0]; k0++) {
    const idx p0 = pool_place(h0, k0, s, 0), start0 = h0 - k0 * s.dilation[0];
    if (p0 < 0) continue;
    for (idx k1 = 0; k1 < s.window[1]; k1++) {
      const idx p1 = pool_place(h1, k1, s, 1), start1 = h1 - k1 * s.dilation[1];
      if (p1 < 0) continue;
      for (idx k2 = 0; k2 < s.window[2]; k2++) {
        const idx p2 = pool_place(h2, k2, s, 2), start2 = h2 - k2 * s.dilation[2];
        if (p2 < 0) continue;
        if (NAME(pool_chosen)(image, start0, start1, start2, s) == here)
          total += (A)FROM_X0(gradients[p0 * s.y_axis[0] + p1 * s.y_axis[1] + p2 * s.y_axis[2]]);
      }
    }
  }
  return TO_Y0(total);
}

// The sum of a window, divided by how many of its entries count.
INLINE Y0 NAME(avg_pool)(idx i, const X0 *x, avg_pool_shape s) {
  const X0 *image = x + pool_image(i, s);
  const idx start0 = pool_start(i, s, 0), start1 = pool_start(i, s, 1), start2 = pool_start(i, s, 2);
  const idx first2 = pool_first(start2, s.dilation[2]);
  const idx end0 = pool_end(start0, s.dilation[0], s.extents[0], s.window[0]);
  const idx end1 = pool_end(start1, s.dilation[1], s.extents[1], s.window[1]);
  const idx end2 = pool_end(start2, s.dilation[2], s.extents[2], s.window[2]);
  A total = 0;
  for (idx k0 = pool_first(start0, s.dilation[0]); k0 < end0; k0++)
    for (idx k1 = pool_first(start1, s.dilation[1]); k1 < end1; k1++) {
      const X0 *row = image + pool_entry(start0, k0, s, 0) + pool_entry(start1, k1, s, 1);
      for (idx k2 = first2; k2 < end2; k2++) total += (A)FROM_X0(row[pool_entry(start2, k2, s, 2)]);
    }
  return TO_Y0(total / (A)(pool_count(start0, s, 0) * pool_count(start1, s, 1) * pool_count(start2, s, 2)));
}

// Of g, which lies as y does: a number of x gets the sum over the windows that hold it, each divided by its count.
INLINE Y0 NAME(avg_pool_gradient)(idx i, const X0 *g, avg_pool_gradient_shape s) {
  const X0 *gradients = g + i / s.x_image * s.y_image + i / s.x_channel % s.channels * s.y_channel;
  const idx h0 = pool_index(i, s, 0), h1 = pool_index(i, s, 1), h2 = pool_index(i, s, 2);
  A total = 0;
  for (idx k0 = 0; k0 < s.window[0]; k0++) {
    const idx p0 = pool_place(h0, k0, s, 0);
    if (p0 < 0) continue;
    const idx count0 = pool_count(h0 - k0 * s.dilation[0], s, 0);
    for (idx k1 = 0; k1 < s.window[1]; k1++) {
      const idx p1 = pool_place(h1, k1, s, 1);
      if (p1 < 0) continue;
      const idx count1 = count0 * pool_count(h1 - k1 * s.dilation[1], s, 1);
      for (idx k2 = 0; k2 < s.window[2]; k2++) {
        const idx p2 = pool_place(h2, k2, s, 2);
        if (p2 < 0) continue;
        const idx count = count1 * pool_count(h2 - k2 * s.dilation[2], s, 2);
        total += (A)FROM_X0(gradients[p0 * s.y_axis[0] + p1 * s.y_axis[1] + p2 * s.y_axis[2]]) / (A)count;
      }
    }
  }
  return TO_Y0(total);
}
