// The words of CUDA C++ that kernels are written in, for a C++ compiler of a CPU: all but those of threads.
#pragma once
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define __device__
#define __global__
#define __shared__ static
#define __launch_bounds__(threads, blocks)
#define __forceinline__ inline __attribute__((always_inline))

#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 800  // as on a GPU that has tensor cores
#endif

struct place {
  unsigned x;
};

// Half precision, as CUDA's: computed in float, rounded to the nearest, ties to even.
struct half {
  uint16_t bits;
  half() = default;
  half(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    const uint32_t sign = u >> 16 & 0x8000, size = u & 0x7fffffff;
    uint32_t found;
    if (size > 0x7f800000) found = 0x7e00;
    else if (size >= 0x477ff000) found = 0x7c00;
    else if (size < 0x38800000) {  // below 2^-14: whole multiples of 2^-24
      float a;
      memcpy(&a, &size, 4);
      found = (uint32_t)nearbyintf(a * 0x1p24f);
    } else found = (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13;
    bits = (uint16_t)(sign | found);
  }
  operator float() const {
    const uint32_t size = bits & 0x7fff, sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t u = (size >= 0x7c00 ? size + 0x1c000 : size + 0x1c000 * (size >= 0x400)) << 13;
    if (size >= 0x7c00) u = (size << 13) + 0x70000000;
    else if (size >= 0x400) u = (size << 13) + 0x38000000;
    float y;
    if (size < 0x400) y = (float)size * 0x1p-24f;
    else memcpy(&y, &u, 4);
    uint32_t v;
    memcpy(&v, &y, 4);
    v |= sign;
    memcpy(&y, &v, 4);
    return y;
  }
};
