// What keeps a GPU waiting.
#pragma once

// One thread waits for so many nanoseconds.
KERNEL hold(const idx *nanoseconds) {
#ifdef __CUDACC__
  const uint64_t span = *nanoseconds;
  uint64_t start, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  while (now - start < span);
#endif
}
