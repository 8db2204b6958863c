// What every kernel may use: the names that the headers beside the ops are written in.
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef int64_t idx;
typedef _Float16 half;

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
