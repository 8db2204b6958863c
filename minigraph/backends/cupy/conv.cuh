// Convolutions of images and their two gradients as products of matrices that are nowhere in memory:
//
//     y[n, p, o]  = sum over taps r and channels c of x[n, p * stride + r * dilation - before, c] * w[o, c, r]
//     dx[n, h, c] = sum over taps r and outputs o of g[n, (h + before - r * dilation) / stride, o] * w[o, c, r]
//     dw[o, c, r] = sum over images n and places p of g[n, p, o] * x[n, p * stride + r * dilation - before, c]
//
// p, h and r have three axes; missing ones come first, with one entry. Padding is nowhere: entries of x outside of the
// image are zeros, which are multiplied like other numbers. What lies outside of g takes part in no product of dx.
// Groups are products of their own. See tile.cuh.
#pragma once

struct conv_sizes {
  int batch, groups, channels, outputs;  // of each group: channels of x, and of y
  int extents[3], places[3];             // sizes of x, and of y
  int window[3], stride[3], dilation[3], before[3];
  int image, channel, axis[3];       // how far apart the numbers of x lie, or of g in a gradient to x
  int w_group, w_tap, w_row, w_column;  // and those of w, for the channel that is summed over and the other
  int per_chunk;                     // terms of each chunk
};

// Images as a matrix: a row for each place of a window, a column for each tap and channel.
template <class X>
struct images {
  typedef X kind;
  const X *from;
  int places[3], window[3], channels;
  int stride[3], dilation[3], before[3], extents[3];
  int image, channel, axis[3];

  INLINE spot row(int i) const {
    spot found;
    found.offset = 0;
#pragma unroll
    for (int d = 2; d >= 0; d--) {
      found.at[d] = i % places[d] * stride[d] - before[d];
      found.offset += found.at[d] * axis[d];
      i /= places[d];
    }
    found.offset += i * image;
    return found;
  }
  INLINE spot column(int i) const {
    spot found;
    found.offset = i % channels * channel;
    i /= channels;
#pragma unroll
    for (int d = 2; d >= 0; d--) {
      found.at[d] = i % window[d] * dilation[d];
      found.offset += found.at[d] * axis[d];
      i /= window[d];
    }
    return found;
  }
  INLINE bool has(spot a, spot b) const {
    bool inside = true;
#pragma unroll
    for (int d = 0; d < 3; d++) inside &= (unsigned)(a.at[d] + b.at[d]) < (unsigned)extents[d];
    return inside;
  }
};

template <class X>
INLINE images<X> images_of(const X *from, const conv_sizes &s) {
  images<X> found = {.from = from, .channels = s.channels, .image = s.image, .channel = s.channel};
#pragma unroll
  for (int d = 0; d < 3; d++) {
    found.places[d] = s.places[d], found.window[d] = s.window[d], found.extents[d] = s.extents[d];
    found.stride[d] = s.stride[d], found.dilation[d] = s.dilation[d], found.before[d] = s.before[d];
    found.axis[d] = s.axis[d];
  }
  return found;
}

INLINE int volume(const int (&sizes)[3]) { return sizes[0] * sizes[1] * sizes[2]; }

template <class T, class ReadX, class ReadW, class X, class W, class Put>
INLINE void conv_forward(const X *x, const W *w, const conv_sizes s, const Put &put) {
  const int rows = s.batch * volume(s.places), terms = volume(s.window) * s.channels;
  const work own = own_work<T>(rows, s.outputs, s.groups, s.per_chunk, terms);
  const int first = own.chunk * rows, group = own.number;
  product<T, ReadX, ReadW>(images_of(x + (idx)group * s.channels * s.channel, s),
                           matrix<W>{w + (idx)group * s.w_group, s.w_row, s.w_column}, rows, s.outputs, own.row,
                           own.column, own.begin, own.end, [&](int m, int n, float number) {
                             put(first + m, group * s.outputs + n, number);
                           });
}

// dw as a matrix: a row for each output, a column for each tap and channel, in which order chunks have them. In dw
// itself the taps of a channel lie side by side.
template <class T, class ReadG, class ReadX, bool IN_CHUNKS, class X, class Put>
INLINE void conv_weights(const X *x, const X *g, const conv_sizes s, const Put &put) {
  const int taps = volume(s.window), columns = taps * s.channels, terms = s.batch * volume(s.places);
  const work own = own_work<T>(s.outputs, columns, s.groups, s.per_chunk, terms);
  const int first = (own.chunk * s.groups + own.number) * s.outputs, all = s.groups * s.outputs;
  product<T, ReadG, ReadX>(matrix<X>{g + own.number * s.outputs, 1, all},
                           images_of(x + (idx)own.number * s.channels * s.channel, s), s.outputs, columns, own.row,
                           own.column, own.begin, own.end, [&](int m, int n, float number) {
                             put(first + m, IN_CHUNKS ? n : n % s.channels * taps + n / s.channels, number);
                           });
}

// Entries h of dx that lie `stride` apart, a phase, meet the same taps: every step-th, step = stride / gcd(stride,
// dilation), or none. So a phase is a convolution of g with these taps, of stride 1, that goes backwards through g.
struct phase {
  int count;       // of entries
  int taps, first;  // how many taps meet them, and the first of these
  int from;        // where in g the first entry meets it
  int step, back;  // from tap to tap: of the taps, and in g
};

INLINE int steps_of(int stride, int dilation) {
  int step = 1;
  while (step * dilation % stride) step++;
  return step;
}

INLINE phase phase_of(int number, int extent, int window, int stride, int dilation, int before) {
  const int step = steps_of(stride, dilation), count = number < extent ? (extent - number + stride - 1) / stride : 0;
  for (int tap = 0; tap < step && tap < window; tap++) {
    const int at = number + before - tap * dilation;
    if (at % stride == 0)
      return phase{count, (window - tap + step - 1) / step, tap, at / stride, step, step * dilation / stride};
  }
  return phase{count, 0, 0, 0, step, 0};
}

// The weight as the matrix that a phase is multiplied with: a row for each of its taps and each output, a column for
// each channel.
template <class W>
struct weights {
  typedef W kind;
  const W *from;
  int window[3], taps[3], first[3], step[3], outputs, tap, row_step, column_step;
  bool whole;  // whether the phase has all taps
  INLINE spot row(int i) const {
    const int output = i % outputs * row_step;
    int rest = i / outputs;
    if (whole) return spot{rest * tap + output, {0, 0, 0}};
    int at[3];
#pragma unroll
    for (int d = 2; d >= 0; d--) {
      at[d] = first[d] + rest % taps[d] * step[d];
      rest /= taps[d];
    }
    return spot{((at[0] * window[1] + at[1]) * window[2] + at[2]) * tap + output, {0, 0, 0}};
  }
  INLINE spot column(int i) const { return spot{i * column_step, {0, 0, 0}}; }
  INLINE bool has(spot, spot) const { return true; }
};

// A sum that is not a number, once more: of the terms whose numbers of g are there. In the sum of a tile the others are
// products with zero, which are no numbers where a weight is infinite. Where all are there, from the first tap to the
// last, it is as it is.
template <class X, class W>
INLINE float sum_inside(const images<X> &g, const weights<W> &w, int m, int n, int begin, int end) {
  const spot row = g.row(m), column = w.column(n);
  if (g.has(row, g.column(0)) && g.has(row, g.column(volume(g.window) * g.channels - 1))) return NAN;
  float sum = 0;
#pragma unroll 1
  for (int k = begin; k < end; k++) {
    const spot term = g.column(k);
    if (g.has(row, term))
      sum += (float)g.from[row.offset + term.offset] * (float)w.from[w.row(k).offset + column.offset];
  }
  return sum;
}

template <class T, class ReadG, class ReadW, class X, class W, class Put>
INLINE void conv_inputs(const X *g, const W *w, const conv_sizes s, const Put &put) {
  const int phases = volume(s.stride), all = s.batch * volume(s.extents);
  int most = s.batch;
#pragma unroll
  for (int d = 0; d < 3; d++) most *= (s.extents[d] + s.stride[d] - 1) / s.stride[d];
  const int most_terms = volume(s.window) * s.outputs;
  const work own = own_work<T>(most, s.channels, s.groups * phases, s.per_chunk, most_terms);
  const int group = own.number / phases, first = own.chunk * all;
  int number = own.number % phases, at[3], rows = s.batch, terms = s.outputs;
  images<X> of = {.from = g + (idx)group * s.outputs * s.channel, .channels = s.outputs, .image = s.image,
               .channel = s.channel};
  weights<W> with = {.from = w + (idx)group * s.w_group, .outputs = s.outputs, .tap = s.w_tap, .row_step = s.w_row,
                  .column_step = s.w_column, .whole = phases == 1};
#pragma unroll
  for (int d = 2; d >= 0; d--) {
    at[d] = number % s.stride[d];
    number /= s.stride[d];
    const phase p = phase_of(at[d], s.extents[d], s.window[d], s.stride[d], s.dilation[d], s.before[d]);
    of.places[d] = p.count, of.window[d] = p.taps ? p.taps : 1, of.stride[d] = 1, of.dilation[d] = -p.back;
    of.before[d] = -p.from, of.extents[d] = s.places[d], of.axis[d] = s.axis[d];
    with.window[d] = s.window[d], with.taps[d] = of.window[d], with.first[d] = p.first, with.step[d] = p.step;
    rows *= p.count, terms *= p.taps;
  }
  if (own.row >= rows) return;
  const int end = own.end < terms ? own.end : terms;
  product<T, ReadG, ReadW>(of, with, rows, s.channels, own.row, own.column, own.begin, end,
                           [&](int m, int n, float sum) {
                             if (sum != sum) sum = sum_inside(of, with, m, n, own.begin, end);
                             int entry = 0, apart = 1, rest = m;
#pragma unroll
                             for (int d = 2; d >= 0; d--) {
                               entry += (at[d] + rest % of.places[d] * s.stride[d]) * apart;
                               apart *= s.extents[d], rest /= of.places[d];
                             }
                             put(first + rest * apart + entry, group * s.channels + n, sum);
                           });
}

// A weight in the order in which products read it: for each group the taps, for each of these the rows, whose numbers
// lie side by side, as many as `pitch` with zeros behind them.
struct pack_shape {
  int groups, window[3], rows, columns, pitch;
  int w_group, w_axis[3], w_row, w_column;
};

template <class W>
INLINE void pack(const W *w, W *packed, const pack_shape s) {
  const int points = s.groups * volume(s.window) * s.rows * s.pitch;
  for (int point = (int)first_point(); point < points; point += (int)all_threads()) {
    const int column = point % s.pitch, row = point / s.pitch % s.rows;
    int rest = point / s.pitch / s.rows, at = column * s.w_column + row * s.w_row;
#pragma unroll
    for (int d = 2; d >= 0; d--) {
      at += rest % s.window[d] * s.w_axis[d];
      rest /= s.window[d];
    }
    W number = {};
    if (column < s.columns) number = w[at + rest * s.w_group];
    packed[point] = number;
  }
}
