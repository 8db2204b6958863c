// CUDA C++ on a CPU, for kernels that use blocks, shared memory and __syncthreads, and no more of it: a thread of a block
// is a coroutine that goes on to the next __syncthreads when it is its turn. Where the first thread of a grid does not
// wait for others, none may, and they run one after the other.
#pragma once
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <utility>
#include <vector>

#define __device__
#define __global__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))

struct place {
  unsigned x;
};
static place threadIdx, blockIdx, blockDim, gridDim;

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

static ucontext_t scheduler, *running;
static bool waited;
static void __syncthreads() {
  if (!running) fprintf(stderr, "a thread waits for others, and the first of the grid does not\n"), abort();
  waited = true;
  swapcontext(running, &scheduler);
}

template <class... P, size_t... I>
static void call(void (*kernel)(P...), void **a, std::index_sequence<I...>) {
  kernel((P)a[I]...);
}

struct job {
  void (*run)(const job *);
  void (*kernel)();
  void **arguments;
};
static const job *now;
static bool over;
static void begin() {
  now->run(now);
  over = true;
  swapcontext(running, &scheduler);
}

// One block whose threads may wait for each other: each goes on in turn until all are over.
static void together(const job &work, unsigned threads) {
  static std::vector<ucontext_t> contexts;
  static std::vector<char> stacks;
  const size_t size = 1 << 16;
  contexts.resize(threads), stacks.resize(threads * size);
  std::vector<bool> done(threads);
  now = &work;
  for (unsigned t = 0; t < threads; t++) {
    getcontext(&contexts[t]);
    contexts[t].uc_stack.ss_sp = &stacks[t * size];
    contexts[t].uc_stack.ss_size = size;
    contexts[t].uc_link = 0;
    makecontext(&contexts[t], begin, 0);
  }
  for (unsigned left = threads; left;)
    for (unsigned t = 0; t < threads; t++) {
      if (done[t]) continue;
      threadIdx.x = t, running = &contexts[t], over = false;
      swapcontext(&scheduler, running);
      if (over) done[t] = true, left--;
    }
}

template <class... P>
static void launch(void (*kernel)(P...), unsigned blocks, unsigned threads, void **arguments) {
  gridDim.x = blocks, blockDim.x = threads;
  const job work = {
      [](const job *w) { call((void (*)(P...))w->kernel, w->arguments, std::index_sequence_for<P...>{}); },
      (void (*)())kernel, arguments};
  waited = false;
  for (unsigned b = 0; b < blocks; b++) {
    blockIdx.x = b;
    if (!b || waited) together(work, threads), running = 0;
    else
      for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) work.run(&work);
  }
}
