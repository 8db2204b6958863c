// Vectors of floats as wide as the machine's registers: what the tuned kernels are written in.
//
// One text for AVX-512 (16 lanes), AVX2 (8), NEON and anything else (4), by the compiler's own macros. GCC's vector
// extensions give + - * and a number times a vector (gcc 12, clang 14 and later); the functions here are the rest. A
// vector in memory needs no more alignment than a float.
#ifndef MINIGRAPH_VECTOR_H
#define MINIGRAPH_VECTOR_H

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

// LANES: floats in a vector. REGISTERS: vectors that the machine holds without memory; tile sizes follow from both.
#if defined(__AVX512F__)
enum { LANES = 16 };
#define REGISTERS 32
#elif defined(__AVX2__)
enum { LANES = 8 };
#define REGISTERS 16
#elif defined(__ARM_NEON)
enum { LANES = 4 };
#define REGISTERS 32
#else
enum { LANES = 4 };
#define REGISTERS 16
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float vec_in_memory __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t vec_mask __attribute__((vector_size(LANES * 4)));

// UNROLL: before a loop whose number of turns is a literal: nothing is left of the loop, so arrays of vectors become
// registers. PAIRS: before one that turns twice most often.
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define PAIRS _Pragma("clang loop unroll_count(2)")
#else
#define UNROLL _Pragma("GCC unroll 128")
#define PAIRS _Pragma("GCC unroll 2")
#endif

INLINE vec vec_load(const float *p) { return *(const vec_in_memory *)p; }
INLINE void vec_store(float *p, vec v) { *(vec_in_memory *)p = v; }
INLINE vec vec_splat(float a) { return a - (vec){0}; }  // minus, since -0 + 0 is +0

// The first n of LANES numbers (0 <= n <= LANES), and zeros; what lies behind them is neither read nor written.
INLINE vec vec_load_first(const float *p, idx n) {
#if defined(__AVX512F__)
  return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif defined(__AVX2__)
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return (vec)_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane));
#else
  vec v = {0};
  for (idx i = 0; i < n; i++) v[i] = p[i];
  return v;
#endif
}

INLINE void vec_store_first(float *p, vec v, idx n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif defined(__AVX2__)
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane), (__m256)v);
#else
  for (idx i = 0; i < n; i++) p[i] = v[i];
#endif
}

// The greater and the lesser, lane by lane. A NaN in b passes: put a limit into a, the numbers into b.
INLINE vec vec_max(vec a, vec b) {
#if defined(__AVX512F__)
  return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__ARM_NEON)
  return (vec)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
#else
  const vec_mask from_a = a > b;
  return (vec)(((vec_mask)a & from_a) | ((vec_mask)b & ~from_a));
#endif
}

INLINE vec vec_min(vec a, vec b) {
#if defined(__AVX512F__)
  return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__ARM_NEON)
  return (vec)vminq_f32((float32x4_t)a, (float32x4_t)b);
#else
  const vec_mask from_a = a < b;
  return (vec)(((vec_mask)a & from_a) | ((vec_mask)b & ~from_a));
#endif
}

// max_float and min_float of scalar.h, lane by lane, of vectors or numbers: a NaN in either passes.
INLINE vec vec_or_nan(vec chosen, vec y) {
  const vec_mask number = y == y;
  return (vec)(((vec_mask)chosen & number) | ((vec_mask)y & ~number));
}
INLINE vec vec_larger(vec x, vec y) { return vec_or_nan(vec_max(y, x), y); }
INLINE vec vec_smaller(vec x, vec y) { return vec_or_nan(vec_min(y, x), y); }
#define MAX_VEC(x, y) vec_larger((x) - (vec){0}, (y) - (vec){0})
#define MIN_VEC(x, y) vec_smaller((x) - (vec){0}, (y) - (vec){0})

// a * b + c, rounded once where the machine can, whatever the compiler was told of contractions.
INLINE vec vec_fma(vec a, vec b, vec c) {
#if defined(__AVX512F__)
  return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
  return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON) && defined(__ARM_FEATURE_FMA)
  return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

// The sum of the lanes.
INLINE float vec_sum(vec v) {
  float sums[LANES];
  vec_store(sums, v);
  for (int n = LANES / 2; n > 0; n /= 2) {
    for (int i = 0; i < n; i++) sums[i] += sums[i + n];
  }
  return sums[0];
}

// The first halves of two vectors, number by number in turn: a[0] b[0] a[1] b[1] ...; and the second halves.
#if defined(__AVX512F__)
#define VEC_FIRST 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define VEC_SECOND 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX2__)
#define VEC_FIRST 0, 8, 1, 9, 2, 10, 3, 11
#define VEC_SECOND 4, 12, 5, 13, 6, 14, 7, 15
#else
#define VEC_FIRST 0, 4, 1, 5
#define VEC_SECOND 2, 6, 3, 7
#endif
INLINE vec vec_zip_first(vec a, vec b) { return __builtin_shufflevector(a, b, VEC_FIRST); }
INLINE vec vec_zip_second(vec a, vec b) { return __builtin_shufflevector(a, b, VEC_SECOND); }
#undef VEC_FIRST
#undef VEC_SECOND

// LANES vectors as a matrix, turned: each round of zips moves one bit of a number's row into its column.
INLINE void vec_transpose(vec *rows) {
  vec next[LANES];
  UNROLL for (int round = 1; round < LANES; round *= 2) {
    UNROLL for (int i = 0; i < LANES / 2; i++) {
      next[2 * i] = vec_zip_first(rows[i], rows[i + LANES / 2]);
      next[2 * i + 1] = vec_zip_second(rows[i], rows[i + LANES / 2]);
    }
    UNROLL for (int i = 0; i < LANES; i++) rows[i] = next[i];
  }
}

#endif
