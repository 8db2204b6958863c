// Convolution over 1 to 3 spatial axes, and its transposes in x and in w:
//
//   y[n, o, p] = sum over c, k of  x[n, c, p * stride + k * dilation - before] * w[o, c, k]
//
// x and y lie as their strides say, channels first or last; w is (groups * outputs, inputs, window), dense. Missing
// spatial axes come first, with one entry. In groups, o meets the channels c of its own group only. Padding
// is zeros, which are multiplied like other numbers: with infinity they make a NaN.
#ifndef CONV_SHAPE
#define CONV_SHAPE
typedef struct {
  idx batch, groups, inputs, outputs;  // inputs, outputs: channels of x and of y in each group
  idx window[3], stride[3], dilation[3], before[3];
  idx extents[3], places[3];  // spatial sizes of x and of y
  idx x_image, x_channel, x_axis[3];
  idx y_image, y_channel, y_axis[3];
} conv_shape;
typedef conv_shape conv_input_gradient_shape;
typedef conv_shape conv_weight_gradient_shape;

// The first i from 0 on with start + i * step >= 0.
INLINE idx conv_first(idx start, idx step) { return start < 0 ? (step - 1 - start) / step : 0; }

// The first i, at most `most`, with start + i * step >= extent.
INLINE idx conv_end(idx start, idx step, idx extent, idx most) {
  idx end = start < extent ? (extent - start + step - 1) / step : 0;
  return end < most ? end : most;
}

// Whether entry h along an axis belongs to x, and not to its padding.
INLINE bool conv_inside(idx h, conv_shape s, int axis) { return h >= 0 && h < s.extents[axis]; }

// The position p whose entry k is entry h of an image (shift = h + before - k * dilation), or -1 where there is none.
INLINE idx conv_place(idx shift, idx stride, idx places) {
  return shift >= 0 && shift % stride == 0 && shift / stride < places ? shift / stride : -1;
}
#endif

INLINE Y0 NAME(conv)(idx i, const X0 *x, const X1 *w, conv_shape s) {
  const idx o = i / s.y_channel % (s.groups * s.outputs), volume = s.window[0] * s.window[1] * s.window[2];
  const X0 *image = x + i / s.y_image * s.x_image + o / s.outputs * s.inputs * s.x_channel;
  const X1 *filter = w + o * s.inputs * volume;
  const idx start0 = i / s.y_axis[0] % s.places[0] * s.stride[0] - s.before[0];
  const idx start1 = i / s.y_axis[1] % s.places[1] * s.stride[1] - s.before[1];
  const idx start2 = i / s.y_axis[2] % s.places[2] * s.stride[2] - s.before[2];
  A total = 0;
  for (idx k0 = 0; k0 < s.window[0]; k0++)
    for (idx k1 = 0; k1 < s.window[1]; k1++)
      for (idx k2 = 0; k2 < s.window[2]; k2++) {
        const idx h0 = start0 + k0 * s.dilation[0], h1 = start1 + k1 * s.dilation[1], h2 = start2 + k2 * s.dilation[2];
        const bool inside = conv_inside(h0, s, 0) && conv_inside(h1, s, 1) && conv_inside(h2, s, 2);
        const idx at = h0 * s.x_axis[0] + h1 * s.x_axis[1] + h2 * s.x_axis[2];
        const X1 *weights = filter + (k0 * s.window[1] + k1) * s.window[2] + k2;
        if (inside)
          for (idx c = 0; c < s.inputs; c++)
            total += (A)FROM_X0(image[at + c * s.x_channel]) * (A)FROM_X1(weights[c * volume]);
        else
          for (idx c = 0; c < s.inputs; c++) total += 0 * (A)FROM_X1(weights[c * volume]);
      }
  return TO_Y0(total);
}

// Of g, which lies as y does: entry h of x gets g[p] * w[k] for all p * stride + k * dilation - before = h.
INLINE Y0 NAME(conv_input_gradient)(idx i, const X0 *g, const X1 *w, conv_input_gradient_shape s) {
  const idx c = i / s.x_channel % (s.groups * s.inputs), volume = s.window[0] * s.window[1] * s.window[2];
  const idx group = c / s.inputs;
  const X0 *image = g + i / s.x_image * s.y_image + group * s.outputs * s.y_channel;
  const X1 *filter = w + (group * s.outputs * s.inputs + c % s.inputs) * volume;
  const idx shift0 = i / s.x_axis[0] % s.extents[0] + s.before[0];
  const idx shift1 = i / s.x_axis[1] % s.extents[1] + s.before[1];
  const idx shift2 = i / s.x_axis[2] % s.extents[2] + s.before[2];
  A total = 0;
  for (idx k0 = 0; k0 < s.window[0]; k0++) {
    const idx p0 = conv_place(shift0 - k0 * s.dilation[0], s.stride[0], s.places[0]);
    if (p0 < 0) continue;
    for (idx k1 = 0; k1 < s.window[1]; k1++) {
      const idx p1 = conv_place(shift1 - k1 * s.dilation[1], s.stride[1], s.places[1]);
      if (p1 < 0) continue;
      for (idx k2 = 0; k2 < s.window[2]; k2++) {
        const idx p2 = conv_place(shift2 - k2 * s.dilation[2], s.stride[2], s.places[2]);
        if (p2 < 0) continue;
        const X0 *numbers = image + p0 * s.y_axis[0] + p1 * s.y_axis[1] + p2 * s.y_axis[2];
        const X1 *weights = filter + (k0 * s.window[1] + k1) * s.window[2] + k2;
        for (idx o = 0; o < s.outputs; o++)
          total += (A)FROM_X0(numbers[o * s.y_channel]) * (A)FROM_X1(weights[o * s.inputs * volume]);
      }
    }
  }
  return TO_Y0(total);
}

// Of x and g, which lies as y does: w[o, c, k] gets x[n, c, p * stride + k * dilation - before] * g[n, o, p] for all
// n, p. Each row is added up by itself: sums of very many numbers lose less to rounding.
INLINE Y0 NAME(conv_weight_gradient)(idx i, const X0 *x, const X1 *g, conv_weight_gradient_shape s) {
  const idx volume = s.window[0] * s.window[1] * s.window[2], o = i / (volume * s.inputs);
  const X0 *from = x + (o / s.outputs * s.inputs + i / volume % s.inputs) * s.x_channel;
  const X1 *with = g + o * s.y_channel;
  const idx start0 = i / (s.window[2] * s.window[1]) % s.window[0] * s.dilation[0] - s.before[0];
  const idx start1 = i / s.window[2] % s.window[1] * s.dilation[1] - s.before[1];
  const idx start2 = i % s.window[2] * s.dilation[2] - s.before[2];
  const idx reached = conv_first(start2, s.stride[2]), first2 = reached < s.places[2] ? reached : s.places[2];
  const idx end2 = conv_end(start2, s.stride[2], s.extents[2], s.places[2]);
  A total = 0;
  for (idx n = 0; n < s.batch; n++) {
    A image = 0;
    for (idx p0 = 0; p0 < s.places[0]; p0++)
      for (idx p1 = 0; p1 < s.places[1]; p1++) {
        const idx h0 = start0 + p0 * s.stride[0], h1 = start1 + p1 * s.stride[1];
        const bool row_inside = conv_inside(h0, s, 0) && conv_inside(h1, s, 1);
        const idx row = n * s.x_image + h0 * s.x_axis[0] + h1 * s.x_axis[1] + start2 * s.x_axis[2];
        const X1 *gradients = with + n * s.y_image + p0 * s.y_axis[0] + p1 * s.y_axis[1];
        const idx first = row_inside ? first2 : s.places[2], end = row_inside ? end2 : s.places[2];
        A sum = 0;
        idx p2 = 0;
        for (; p2 < first; p2++) sum += 0 * (A)FROM_X1(gradients[p2 * s.y_axis[2]]);
        for (; p2 < end; p2++)
          sum += (A)FROM_X0(from[row + p2 * s.stride[2] * s.x_axis[2]]) * (A)FROM_X1(gradients[p2 * s.y_axis[2]]);
        for (; p2 < s.places[2]; p2++) sum += 0 * (A)FROM_X1(gradients[p2 * s.y_axis[2]]);
        image += sum;
      }
    total += image;
  }
  return TO_Y0(total);
}
