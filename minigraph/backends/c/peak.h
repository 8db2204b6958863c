// How fast a machine is at best: multiply-adds in registers, and memory in streams. All threads begin together, the
// first of them reads the clock.
#ifndef MINIGRAPH_PEAK_H
#define MINIGRAPH_PEAK_H

struct peak {
  void (*barrier)(void);
  float *a, *b, *c;  // `count` numbers each
  idx count, turns;
  float *sums;       // 64 for each thread: what makes the work needed
  double begin, end;
};

INLINE void note(struct peak *p, int thread, double *where) {
  p->barrier();
  if (thread == 0) *where = seconds();
}

enum { CHAINS = 12 };  // that do not wait for each other: 2 units x 4 or 5 turns of latency, and two registers are left

INLINE vec added_up(const vec *sums, int count) {
  vec all = sums[0];
  for (int i = 1; i < count; i++) all += sums[i];
  return all;
}

// 2 * CHAINS * LANES operations a turn on each thread.
void multiply_adds(struct peak *p, int thread, int threads) {
  (void)threads;
  const vec factor = vec_splat(p->a[0]), summand = vec_splat(p->b[0]);
  vec sums[CHAINS];
  UNROLL for (int i = 0; i < CHAINS; i++) sums[i] = vec_splat((float)i);
  note(p, thread, &p->begin);
  for (idx turn = 0; turn < p->turns; turn++) {
    UNROLL for (int i = 0; i < CHAINS; i++) sums[i] = sums[i] * factor + summand;
  }
  note(p, thread, &p->end);
  vec_store(p->sums + 64 * thread, added_up(sums, CHAINS));
}

// Reads `count` numbers.
void reads(struct peak *p, int thread, int threads) {
  const idx begin = share_lines(p->count, thread, threads), end = share_lines(p->count, thread + 1, threads);
  vec sums[8] = {0};
  note(p, thread, &p->begin);
  for (idx i = begin; i + 8 * LANES <= end; i += 8 * LANES) {
    UNROLL for (int k = 0; k < 8; k++) sums[k] += vec_load(p->a + i + k * LANES);
  }
  note(p, thread, &p->end);
  vec_store(p->sums + 64 * thread, added_up(sums, 8));
}

// Reads 2 * `count` numbers and writes `count`.
void triad(struct peak *p, int thread, int threads) {
  const idx begin = share_lines(p->count, thread, threads), end = share_lines(p->count, thread + 1, threads);
  float *restrict a = p->a;
  const float *restrict b = p->b, *restrict c = p->c;
  note(p, thread, &p->begin);
  SIMD
  for (idx i = begin; i < end; i++) a[i] = b[i] + 0.5f * c[i];
  note(p, thread, &p->end);
}

int lanes(void) { return LANES; }

#endif
