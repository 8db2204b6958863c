// Pooling in float32, NHWC, over windows of two axes, and its gradients.
//
//     largest:  y[n][p][q][c] = max  over r, s of x[n][p * stride_h - top + r * dilation_h][...][c]
//     mean:     y[n][p][q][c] = (sum over r, s of the same) / (how many of the entries count)
//
// Of a window only what lies inside of the image is read; it holds one number at least. A NaN is larger than all else.
// The gradient to x brings each number of g, which lies as y does, to the first largest number (or first NaN) of its
// window, or divides it among all numbers of the window. Vectors run over channels.
#ifndef MINIGRAPH_POOLING_H
#define MINIGRAPH_POOLING_H

typedef struct {
  idx batch, C, H, W;  // of x, dense; batch may be a run-time number, all else is literal
  idx P, Q, R, S;      // the height and width of y, dense as well, and of the window
  idx stride_h, stride_w, dilation_h, dilation_w;
  idx top, left;       // padding
  idx counted_top, counted_left, counted_bottom, counted_right;  // how much of the padding counts in a mean
} pooling_shape;

// The entries [first, end) along one axis of a window.
typedef struct { idx first, end; } pooling_entries;

// Those entries, of `window` that lie `dilation` apart from `start` on, that lie in [begin, end).
INLINE pooling_entries pooling_inside(idx start, idx dilation, idx window, idx begin, idx end) {
  const idx first = start < begin ? (begin - start + dilation - 1) / dilation : 0;
  const idx stop = start < end ? (end - start + dilation - 1) / dilation : 0;
  return (pooling_entries){first, stop < window ? stop : window};
}

// How many entries count along one axis, `before` and `after` numbers beside the image included.
INLINE idx pooling_count(idx start, idx dilation, idx window, idx extent, idx before, idx after) {
  const pooling_entries counted = pooling_inside(start, dilation, window, -before, extent + after);
  return counted.end - counted.first;
}

INLINE vec pooling_load(const float *p, idx lanes) {
  return lanes == LANES ? vec_load(p) : vec_load_first(p, lanes);
}

INLINE void pooling_store(float *p, vec v, idx lanes) {
  if (lanes == LANES) vec_store(p, v); else vec_store_first(p, v, lanes);
}

// Where numbers take the place of the best so far: where they are larger, or the first NaN.
INLINE vec_mask pooling_wins(vec number, vec best) { return ~(number <= best) & (best == best); }

INLINE vec_mask pooling_chosen(vec_mask mask, vec_mask yes, vec_mask no) { return (yes & mask) | (no & ~mask); }

// Of `lanes` channels of rows x columns entries from x on, the largest, or the sum.
INLINE vec pooling_of(bool largest, const float *x, idx rows, idx columns, idx lanes, pooling_shape s) {
  vec result = largest ? pooling_load(x, lanes) : (vec){0};
  for (idx r = 0; r < rows; r++) {
    for (idx c = 0; c < columns; c++) {
      const vec number = pooling_load(x + (r * s.dilation_h * s.W + c * s.dilation_w) * s.C, lanes);
      if (largest) {
        result = (vec)pooling_chosen(pooling_wins(number, result), (vec_mask)number, (vec_mask)result);
      } else {
        result += number;
      }
    }
  }
  return result;
}

// All channels of one pixel of y, whose window has rows x columns entries from x on.
INLINE void pooling_pixel(bool largest, const float *x, float *y, idx rows, idx columns, float count,
                          pooling_shape s) {
  const idx whole = s.C / LANES * LANES, rest = s.C - whole;
  for (idx k = 0; k < whole; k += LANES) {
    const vec found = pooling_of(largest, x + k, rows, columns, LANES, s);
    vec_store(y + k, largest ? found : found / count);
  }
  if (rest) {
    const vec found = pooling_of(largest, x + whole, rows, columns, rest, s);
    vec_store_first(y + whole, largest ? found : found / count, rest);
  }
}

// The largest number of each window, or the mean. Threads share the rows of y.
INLINE void pooling(bool largest, int thread, int threads, const float *x, float *y, pooling_shape s, finish_t finish,
                    const void *with) {
  const idx rows = s.batch * s.P;
  for (idx row = share(rows, thread, threads); row < share(rows, thread + 1, threads); row++) {
    const idx n = row / s.P, h = row % s.P * s.stride_h - s.top, at = row * s.Q * s.C;
    const pooling_entries down = pooling_inside(h, s.dilation_h, s.R, 0, s.H);
    const idx high = pooling_count(h, s.dilation_h, s.R, s.H, s.counted_top, s.counted_bottom);
    for (idx q = 0; q < s.Q; q++) {
      const idx w = q * s.stride_w - s.left, to = at + q * s.C;
      const pooling_entries across = pooling_inside(w, s.dilation_w, s.S, 0, s.W);
      const idx wide = pooling_count(w, s.dilation_w, s.S, s.W, s.counted_left, s.counted_right);
      const idx first_h = h + down.first * s.dilation_h, first_w = w + across.first * s.dilation_w;
      const float *from = x + ((n * s.H + first_h) * s.W + first_w) * s.C, count = (float)(high * wide);
      if (down.end - down.first == s.R && across.end - across.first == s.S) {
        pooling_pixel(largest, from, y + to, s.R, s.S, count, s);
      } else {
        pooling_pixel(largest, from, y + to, down.end - down.first, across.end - across.first, count, s);
      }
    }
    if (finish) finish(at, s.Q, s.C, s.C, with);
  }
}

// Which of rows x columns entries from x on is the first largest number, or the first NaN, in each of `lanes` channels.
INLINE vec_mask pooling_first_largest(const float *x, idx rows, idx columns, idx lanes, pooling_shape s) {
  vec best = pooling_load(x, lanes);
  vec_mask chosen = {0};
  for (idx r = 0; r < rows; r++) {
    for (idx c = 0; c < columns; c++) {
      const vec number = pooling_load(x + (r * s.dilation_h * s.W + c * s.dilation_w) * s.C, lanes);
      const vec_mask wins = pooling_wins(number, best);
      best = (vec)pooling_chosen(wins, (vec_mask)number, (vec_mask)best);
      chosen = pooling_chosen(wins, (int32_t)(r * columns + c) - (vec_mask){0}, chosen);
    }
  }
  return chosen;
}

// Bring g, of `lanes` channels, to rows [own.first, own.end) of rows x columns entries from dx on; x as dx, or 0.
INLINE void pooling_bring(const float *x, vec g, float *dx, idx rows, idx columns, pooling_entries own, idx lanes,
                          pooling_shape s) {
  const vec_mask chosen = x ? pooling_first_largest(x, rows, columns, lanes, s) : (vec_mask){0};
  for (idx r = own.first; r < own.end; r++) {
    for (idx c = 0; c < columns; c++) {
      float *to = dx + (r * s.dilation_h * s.W + c * s.dilation_w) * s.C;
      const vec_mask here = chosen == (int32_t)(r * columns + c) - (vec_mask){0};
      pooling_store(to, pooling_load(to, lanes) + (x ? (vec)((vec_mask)g & here) : g), lanes);
    }
  }
}

// The same for all channels of one pixel of g.
INLINE void pooling_bring_pixel(const float *x, const float *g, float *dx, idx rows, idx columns, pooling_entries own,
                                float count, pooling_shape s) {
  const idx whole = s.C / LANES * LANES, rest = s.C - whole;
  for (idx k = 0; k < whole; k += LANES) {
    const vec gk = vec_load(g + k);
    pooling_bring(x ? x + k : 0, x ? gk : gk / count, dx + k, rows, columns, own, LANES, s);
  }
  if (rest) {
    const vec gk = vec_load_first(g + whole, rest);
    pooling_bring(x ? x + whole : 0, x ? gk : gk / count, dx + whole, rows, columns, own, rest, s);
  }
}

// What the windows of row p of g bring to rows [begin, end) of one image of dx.
INLINE void pooling_bring_row(const float *x, const float *g, float *dx, idx p, idx begin, idx end, pooling_shape s) {
  const idx h = p * s.stride_h - s.top;
  const pooling_entries down = pooling_inside(h, s.dilation_h, s.R, 0, s.H);
  const pooling_entries kept = pooling_inside(h, s.dilation_h, s.R, begin, end);
  const pooling_entries own = {kept.first - down.first, kept.end - down.first}, all = {0, s.R};
  const idx high = pooling_count(h, s.dilation_h, s.R, s.H, s.counted_top, s.counted_bottom);
  for (idx q = 0; q < s.Q; q++) {
    const idx w = q * s.stride_w - s.left;
    const pooling_entries across = pooling_inside(w, s.dilation_w, s.S, 0, s.W);
    const idx wide = pooling_count(w, s.dilation_w, s.S, s.W, s.counted_left, s.counted_right);
    const idx at = ((h + down.first * s.dilation_h) * s.W + w + across.first * s.dilation_w) * s.C;
    const float *gq = g + (p * s.Q + q) * s.C, *from = x ? x + at : 0, count = (float)(high * wide);
    if (own.end - own.first == s.R && across.end - across.first == s.S) {
      pooling_bring_pixel(from, gq, dx + at, s.R, s.S, all, count, s);
    } else {
      pooling_bring_pixel(from, gq, dx + at, down.end - down.first, across.end - across.first, own, count, s);
    }
  }
}

INLINE idx pooling_lesser(idx a, idx b) { return a < b ? a : b; }
INLINE idx pooling_greater(idx a, idx b) { return a > b ? a : b; }

// Rows [begin, end) of one image of dx, from the windows that reach into them, row by row of g: rows become zero just
// before the first window that reaches them, and are finished just after the last. at: of the image in dx.
INLINE void pooling_gradient_rows(const float *x, const float *g, float *dx, idx at, idx begin, idx end,
                                  pooling_shape s, finish_t finish, const void *with) {
  const idx line = s.W * s.C, reach = (s.R - 1) * s.dilation_h + 1, before = begin + s.top - reach;
  idx zeroed = begin, finished = begin;
  for (idx p = before < 0 ? 0 : before / s.stride_h + 1; p < s.P && p * s.stride_h - s.top < end; p++) {
    const idx start = p * s.stride_h - s.top, next = pooling_lesser(start + s.stride_h, end);
    const idx reached = pooling_greater(pooling_lesser(start + reach, end), next);
    if (reached > zeroed) {
      memset(dx + at + zeroed * line, 0, (size_t)((reached - zeroed) * line) * sizeof(float));
      zeroed = reached;
    }
    pooling_bring_row(x, g, dx + at, p, begin, end, s);
    if (finish && next > finished) {
      finish(at + finished * line, (next - finished) * s.W, s.C, s.C, with);
      finished = next;
    }
  }
  if (end > zeroed) memset(dx + at + zeroed * line, 0, (size_t)((end - zeroed) * line) * sizeof(float));
  if (finish && end > finished) finish(at + finished * line, (end - finished) * s.W, s.C, s.C, with);
}

// The gradient to x: of the largest where x is given, of the mean where it is 0. Threads share the rows of dx; where
// windows reach across the border between two threads' rows, both look at them.
INLINE void pooling_gradient(int thread, int threads, const float *x, const float *g, float *dx, pooling_shape s,
                             finish_t finish, const void *with) {
  const idx stop = share(s.batch * s.H, thread + 1, threads);
  for (idx row = share(s.batch * s.H, thread, threads); row < stop;) {
    const idx n = row / s.H, begin = row % s.H, end = pooling_lesser(s.H, begin + stop - row), at = n * s.H * s.W * s.C;
    const float *image = x ? x + at : 0, *gn = g + n * s.P * s.Q * s.C;
    pooling_gradient_rows(image, gn, dx, at, begin, end, s, finish, with);
    row += end - begin;
  }
}

#endif
