// How fast a GPU is at best: multiply-adds in registers, and memory in a stream.
#pragma once

enum { CHAINS = 8, ROUNDS = 16 };  // chains that do not wait for each other; multiply-adds of each between two branches

// 2 * CHAINS * ROUNDS operations a turn by each thread. factors: two, and a number that no sum is.
KERNEL multiply_adds(const idx *turns, const float *factors, float *found) {
  const float factor = factors[0], summand = factors[1];
  const int last = (int)*turns;
  float sums[CHAINS];
#pragma unroll
  for (int i = 0; i < CHAINS; i++) sums[i] = (float)(threadIdx.x + i);
  for (int turn = 0; turn < last; turn++) {
#pragma unroll
    for (int k = 0; k < ROUNDS; k++)
#pragma unroll
      for (int i = 0; i < CHAINS; i++) sums[i] = sums[i] * factor + summand;
  }
  float all = 0;
#pragma unroll
  for (int i = 0; i < CHAINS; i++) all += sums[i];
  if (all == factors[2]) *found = all;  // never, which no compiler knows
}

struct alignas(16) piece {
  uint32_t at[4];
};

// Reads and writes `count` pieces of 16 bytes.
KERNEL copies(const idx *count, const piece *from, piece *to) {
  for (idx i = first_point(); i < *count; i += all_threads()) to[i] = from[i];
}
