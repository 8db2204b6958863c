// CUDA C++ on a CPU, for kernels that use blocks, shared memory and __syncthreads, and no more of it: a thread of a block
// is a coroutine that goes on to the next __syncthreads when it is its turn. Where the first thread of a grid does not
// wait for others, none may, and they run one after the other.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <utility>
#include <vector>

#include "cuda_words.h"

static place threadIdx, blockIdx, blockDim, gridDim;

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
