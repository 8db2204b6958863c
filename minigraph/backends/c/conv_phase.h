// Which taps of a strided convolution meet which numbers of x: what its gradient to x sums over.
//
//     dx[h] = sum over r of dy[(h + front - r * dilation) / stride] * w[r],  of those r where it is a whole number
//
// along each axis. dy is padded with zeros so far that it is there wherever it is read, and `front` says where it
// begins: dy[0] read x from h = -front on.
//
// Numbers of dx that lie `stride` apart, a phase, meet the same taps: every step-th, step = stride / gcd(stride,
// dilation), or none. So a phase is a convolution of stride 1 with these taps, the last one first, `dilation` step /
// stride apart, whose results lie `stride` apart. No product with a zero is made. Weights are packed by phases:
// r % step = 0, 1, ..., and in each from the last r on (pack.h).
#ifndef MINIGRAPH_CONV_PHASE_H
#define MINIGRAPH_CONV_PHASE_H

// So much of a result, from so many taps: all of both, or those of one phase. May be run-time numbers.
typedef struct { idx D, P, Q, T, R, S; } conv_part;

typedef struct {
  idx size;  // of dx
  idx window, stride, dilation, front, step;
} conv_axis;

typedef struct {
  idx count;  // numbers of dx, from the phase on, `stride` apart
  idx taps;   // that meet them
  idx tap;    // the first of these, as packed
  idx from;   // where in dy the first number meets it
} conv_phase;

INLINE conv_phase conv_phase_of(idx phase, conv_axis axis) {
  const idx step = axis.step, at = phase + axis.front;
  const idx count = phase < axis.size ? (axis.size - phase + axis.stride - 1) / axis.stride : 0;
  idx tap = 0;
  for (idx i = 0; i < step && i < axis.window; i++) {
    const idx taps = (axis.window - i + step - 1) / step, last = i + step * (taps - 1);
    if ((at - i * axis.dilation) % axis.stride == 0) {
      return (conv_phase){count, taps, tap, (at - last * axis.dilation) / axis.stride};
    }
    tap += taps;
  }
  return (conv_phase){count, 0, 0, 0};
}

#endif
