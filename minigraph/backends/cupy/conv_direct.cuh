// Convolutions in groups of few channels, each channel by itself among them, and their two gradients: see conv.cuh.
//
// Neighbouring threads are at neighbouring channels. A thread holds the weights of its channel, if these are few, and
// goes over some places.
#pragma once

// lanes: so many threads of a block are side by side. each: so many places are a thread's. chunks are of so many places.
struct conv_dealt {
  int lanes, each, per_chunk;
};

// What a thread does at its places of one column: put(place, column, sum) for each. terms: of a sum. weight(term).
// at(place): add(sum, term, weight), which adds a product to a sum.
template <int HELD, class Weight, class At, class Put>
INLINE void each_place(int places, int terms, int column, int across, const conv_dealt d, const Weight &weight,
                       const At &at, const Put &put) {
  const int high = blockDim.x / d.lanes;
  float held[HELD ? HELD : 1];
#pragma unroll
  for (int i = 0; i < HELD; i++) held[i] = weight(i);
  int place = blockIdx.x / across * d.each * high + threadIdx.x / d.lanes;
  for (int i = 0; i < d.each && place < places; i++, place += high) {
    const auto add = at(place);
    float sum = 0;
    if constexpr (HELD) {
#pragma unroll
      for (int term = 0; term < HELD; term++) add(sum, term, held[term]);
    } else {
      for (int term = 0; term < terms; term++) add(sum, term, weight(term));
    }
    put(place, column, sum);
  }
}

template <int HELD, class X, class Put>
INLINE void conv_direct(const X *x, const X *w, const conv_sizes s, const conv_dealt d, const Put &put) {
  const int all = s.groups * s.outputs, across = (all + d.lanes - 1) / d.lanes;
  const int o = blockIdx.x % across * d.lanes + threadIdx.x % d.lanes;
  if (o >= all) return;
  const images<X> of = images_of(x + o / s.outputs * s.channels * s.channel, s);
  const auto weight = [&](int i) {
    return (float)w[o * s.w_column + i % s.channels * s.w_row + i / s.channels * s.w_tap];
  };
  const auto at = [&](int row) {
    return [&of, place = of.row(row)](float &sum, int term, float by) {
      const spot tap = of.column(term);
      sum += (of.has(place, tap) ? (float)of.from[place.offset + tap.offset] : 0) * by;
    };
  };
  each_place<HELD>(s.batch * volume(s.places), volume(s.window) * s.channels, o, across, d, weight, at, put);
}

// What lies outside of g is not multiplied.
template <int HELD, class X, class Put>
INLINE void conv_direct_inputs(const X *g, const X *w, const conv_sizes s, const conv_dealt d, const Put &put) {
  const int all = s.groups * s.channels, across = (all + d.lanes - 1) / d.lanes;
  const int c = blockIdx.x % across * d.lanes + threadIdx.x % d.lanes, group = c / s.channels;
  if (c >= all) return;
  const X *from = g + group * s.outputs * s.channel;
  const X *with = w + group * s.w_group + c % s.channels * s.w_column;
  const auto weight = [&](int i) { return (float)with[i % s.outputs * s.w_row + i / s.outputs * s.w_tap]; };
  const auto at = [&](int row) {
    spot first = {0, {0, 0, 0}};
#pragma unroll
    for (int axis = 2; axis >= 0; axis--) {
      first.at[axis] = row % s.extents[axis] + s.before[axis];
      row /= s.extents[axis];
    }
    first.offset = row * s.image;
    return [&s, from, first](float &sum, int term, float by) {
      int offset = first.offset + term % s.outputs * s.channel, tap = term / s.outputs;
      bool inside = true;
#pragma unroll
      for (int axis = 2; axis >= 0; axis--) {
        const int shift = first.at[axis] - tap % s.window[axis] * s.dilation[axis], place = shift / s.stride[axis];
        inside &= shift >= 0 && shift % s.stride[axis] == 0 && place < s.places[axis];
        offset += place * s.axis[axis];
        tap /= s.window[axis];
      }
      if (inside) sum += (float)from[offset] * by;
    };
  };
  each_place<HELD>(s.batch * volume(s.extents), volume(s.window) * s.outputs, c, across, d, weight, at, put);
}

// A block has some outputs, one channel of their groups, TAPS taps, and one chunk of the places.
template <int TAPS, int THREADS, class X, class Put>
INLINE void conv_direct_weights(const X *x, const X *g, const conv_sizes s, const conv_dealt d, const Put &put) {
  const int all = s.groups * s.outputs, across = (all + d.lanes - 1) / d.lanes, high = THREADS / d.lanes;
  const int taps = volume(s.window), parts = taps / TAPS, lane = threadIdx.x % d.lanes;
  int rest = blockIdx.x;
  const int o = rest % across * d.lanes + lane;
  rest /= across;
  const int c = rest % s.channels;
  rest /= s.channels;
  const int tap = rest % parts * TAPS, chunk = rest / parts;
  const int rows = s.batch * volume(s.places), begin = chunk * d.per_chunk;
  const int end = rows - begin < d.per_chunk ? rows : begin + d.per_chunk;
  const images<X> of = images_of(x + o / s.outputs * s.channels * s.channel, s);
  float sums[TAPS] = {};
  if (o < all)
    for (int row = begin + threadIdx.x / d.lanes; row < end; row += high) {
      const float gradient = (float)g[row * all + o];
      const spot place = of.row(row);
#pragma unroll
      for (int i = 0; i < TAPS; i++) {
        const spot at = of.column((tap + i) * s.channels + c);
        sums[i] += (of.has(place, at) ? (float)of.from[place.offset + at.offset] : 0) * gradient;
      }
    }
  __shared__ float shared[THREADS];
#pragma unroll
  for (int i = 0; i < TAPS; i++) {
    __syncthreads();
    shared[threadIdx.x] = sums[i];
    __syncthreads();
    if ((int)threadIdx.x < d.lanes && o < all) {
      float sum = 0;
      for (int j = 0; j < high; j++) sum += shared[j * d.lanes + lane];
      put(chunk * all + o, c * taps + tap + i, sum);
    }
  }
}
