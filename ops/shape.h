// Padding, and the transposes of slicing and padding. Arrays in the shapes have an entry for each axis, up to 8.
#ifndef SHAPE_SHAPE
#define SHAPE_SHAPE
// size: of the result. given: sizes of what is put into it, at start, start + step, ...
typedef struct {
  idx rank, size[8], given[8], start[8], step[8];
} unslice_shape;

enum { PAD_CONSTANT, PAD_EDGE, PAD_REFLECT, PAD_WRAP };

// size: of the result. given: sizes of x. The value around x is `real` where it holds floats, else `whole`.
typedef struct {
  idx rank, size[8], given[8], before[8], mode;
  bool is_float;
  double real;
  idx whole;
} pad_shape;

// size: of the result. padded: sizes of the gradient.
typedef struct {
  idx rank, size[8], padded[8], before[8], mode;
} pad_gradient_shape;

// What is left over when a is divided by n, from 0 to n - 1.
INLINE idx pad_modulo(idx a, idx n) { return (a % n + n) % n; }

// Which of n entries stands at `place`, counted from the first of them; outside of 0 to n - 1 it is repeated.
INLINE idx pad_source(idx place, idx n, idx mode) {
  if (0 <= place && place < n) return place;
  if (mode == PAD_EDGE) return place < 0 ? 0 : n - 1;
  if (mode == PAD_WRAP) return pad_modulo(place, n);
  const idx period = n > 1 ? 2 * (n - 1) : 1, forth = pad_modulo(place, period);
  return forth < period - forth ? forth : period - forth;
}

// The first place of a padded axis, from `least` on, that holds entry p of n; its size where there is none.
INLINE idx pad_next(idx least, idx p, idx n, idx before, idx padded, idx mode) {
  idx next = padded;
  if (mode == PAD_EDGE) {
    const idx own = p + before, first = p == 0 ? 0 : own, last = p == n - 1 ? padded - 1 : own;
    next = least <= first ? first : least <= last ? least : padded;
  } else {  // places p + before, less or more some periods; in a mirror also before - p
    const idx period = mode == PAD_WRAP ? n : n > 1 ? 2 * (n - 1) : 1;
    next = least + pad_modulo(p + before - least, period);
    if (mode == PAD_REFLECT) {
      const idx back = least + pad_modulo(before - p - least, period);
      next = back < next ? back : next;
    }
  }
  return next < padded ? next : padded;
}
#endif

// y = 0, but y[start + step * j] = g[j]
INLINE Y0 NAME(unslice)(idx i, const X0 *g, unslice_shape s) {
  idx from = 0, stride = 1;
  for (idx k = s.rank - 1; k >= 0; k--) {
    const idx ahead = i % s.size[k] - s.start[k], j = ahead / s.step[k];
    if (ahead % s.step[k] != 0 || j < 0 || j >= s.given[k]) return TO_Y0(0);
    i /= s.size[k];
    from += j * stride;
    stride *= s.given[k];
  }
  return g[from];
}

// y[i] = x[i - before] where that is inside, else the value, or the number of x that is repeated there
INLINE Y0 NAME(pad)(idx i, const X0 *x, pad_shape s) {
  idx from = 0, stride = 1;
  for (idx k = s.rank - 1; k >= 0; k--) {
    const idx place = i % s.size[k] - s.before[k];
    const bool outside = place < 0 || place >= s.given[k];
    if (s.mode == PAD_CONSTANT && outside) return s.is_float ? TO_Y0(s.real) : TO_Y0(s.whole);
    i /= s.size[k];
    from += (s.mode == PAD_CONSTANT ? place : pad_source(place, s.given[k], s.mode)) * stride;
    stride *= s.given[k];
  }
  return x[from];
}

// y[p] = the sum of g over the places where padding puts x[p]: along each axis some, and all combinations of them
INLINE Y0 NAME(pad_gradient)(idx i, const X0 *g, pad_gradient_shape s) {
  idx entry[8], place[8];
  for (idx k = s.rank - 1; k >= 0; k--) {
    entry[k] = i % s.size[k];
    place[k] = pad_next(0, entry[k], s.size[k], s.before[k], s.padded[k], s.mode);
    i /= s.size[k];
  }
  A sum = 0;
  for (bool more = true; more;) {
    idx from = 0;
    for (idx k = 0; k < s.rank; k++) from = from * s.padded[k] + place[k];
    sum += (A)FROM_X0(g[from]);
    more = false;
    for (idx k = s.rank - 1; k >= 0 && !more; k--) {
      place[k] = pad_next(place[k] + 1, entry[k], s.size[k], s.before[k], s.padded[k], s.mode);
      more = place[k] < s.padded[k];
      if (!more) place[k] = pad_next(0, entry[k], s.size[k], s.before[k], s.padded[k], s.mode);
    }
  }
  return TO_Y0(sum);
}
