// What every kernel may use: the names that the headers beside the ops are written in.
#pragma once

#ifdef __CUDACC_RTC__  // it has no headers of the C library
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#define INT64_MIN (-9223372036854775807LL - 1)
#define NAN __int_as_float(0x7fffffff)
#define INFINITY __int_as_float(0x7f800000)
#endif

typedef int64_t idx;

#define INLINE __device__ __forceinline__
// Blocks have 256 threads at most, and there is room for two beside each other: a thread has at most 128 registers.
#define KERNEL extern "C" __global__ void __launch_bounds__(256, 2)
#define TABLE __device__ const
#define SHAPE(type, ...) (type{__VA_ARGS__})

#ifdef __CUDACC__
// Half precision: computed in float, rounded to the nearest.
struct half {
  uint16_t bits;
  half() = default;
  INLINE half(float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x)); }
  INLINE operator float() const {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
  }
};
#endif

// float32 without its last 16 bits, rounded to the nearest, ties to even.
struct bfloat16 {
  uint16_t bits;
  bfloat16() = default;
  INLINE bfloat16(float x) {
    uint32_t all;
    memcpy(&all, &x, 4);
    bits = (uint16_t)((x == x ? all + 0x7fff + (all >> 16 & 1) : all | 0x400000) >> 16);
  }
  INLINE operator float() const {
    const uint32_t all = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &all, 4);
    return x;
  }
};

#define half_of(x) half((float)(x))
#define bfloat16_of(x) bfloat16((float)(x))
#define float_of_half(x) ((float)(x))
#define float_of_bfloat16(x) ((float)(x))

// Points, or lines, are dealt out to all threads of a grid in turn, so that neighbours read and write neighbours.
INLINE idx first_point() { return (idx)blockIdx.x * blockDim.x + threadIdx.x; }
INLINE idx all_threads() { return (idx)gridDim.x * blockDim.x; }
