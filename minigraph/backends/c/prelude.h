// What every kernel may use: the names that the headers beside the ops are written in.
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef int64_t idx;

// Narrow floats, as they lie in memory. They are computed in float.
#ifdef __FLT16_MAX__  // gcc from 12 on, clang from 15 on
typedef _Float16 half;
#define half_of(x) ((half)(x))
#define float_of_half(x) ((float)(x))
#endif
typedef struct {
  uint16_t bits;
} bfloat16;

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline, unused))

#define SHAPE(type, ...) ((type){__VA_ARGS__})
#define SIMD _Pragma("omp simd")
#define FILL(array, n, value) for (int k_ = 0; k_ < (n); k_++) array[k_] = (value)

struct context {
  char *arena;         // memory of values that live within a step
  const idx *offsets;  // where in it each lies, for the batch at hand and smaller ones
  void *const *given;  // inputs, state, literals, outputs
  void *const *packed; // weights in the order in which kernels read them
  const idx *sizes;    // of symbols, in the order of their names
  void (*barrier)(void);
  int fault;  // whether an input was found wrong
};

// The barrier of one thread that works alone.
INLINE void alone(void) {}

// Where the share of a thread of n things begins; it ends where that of the next one begins.
INLINE idx share(idx n, int thread, int threads) { return n * thread / threads; }

// The same for neighbouring numbers: whole lines of the cache belong to one thread.
INLINE idx share_lines(idx n, int thread, int threads) {
  const idx lines = (n + 63) / 64, begin = lines * thread / threads * 64;
  return begin < n ? begin : n;
}
