// CUDA C++ on a CPU, for kernels that use blocks, shared memory, __syncthreads and tensor cores, and no more of it: a
// thread of a block is a coroutine that goes on to the next __syncthreads, or to where its warp meets, when it is its
// turn. Where the first thread of a grid does not wait for others, none may, and they run one after the other.
#pragma once
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <utility>
#include <vector>

#include "cuda_words.h"

static place threadIdx, blockIdx, blockDim, gridDim;

static jmp_buf scheduler, *running;  // setjmp saves no mask of signals, which swapcontext asks the system for
static bool waited, for_warp;  // whether the thread that had its turn last waits for its warp alone
static void wait(bool warp) {
  if (!running) fprintf(stderr, "a thread waits for others, and the first of the grid does not\n"), abort();
  waited = true, for_warp = warp;
  if (!_setjmp(*running)) _longjmp(scheduler, 1);
}
static void __syncthreads() { wait(false); }
static void __syncwarp() { wait(true); }
#include "cuda_fragments.h"

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
static void go_on() {
  for (;;) {
    now->run(now);
    over = true;
    if (!_setjmp(*running)) _longjmp(scheduler, 1);
  }
}

// A coroutine, which is made once and serves one thread of each block.
struct coroutine {
  jmp_buf place;
  char stack[1 << 16];
};

// Its stack ends where those of its neighbours do not: at one place in a cache there is room for few.
static void make(coroutine *one, unsigned number) {
  ucontext_t beginning;
  getcontext(&beginning);
  beginning.uc_stack.ss_sp = one->stack;
  beginning.uc_stack.ss_size = sizeof one->stack - number % 64 * 256;
  beginning.uc_link = 0;
  makecontext(&beginning, go_on, 0);
  setcontext(&beginning);
}

// A thread runs until it waits or is over.
static void take_turn(coroutine *thread, bool is_new) {
  running = &thread->place, over = false;
  if (_setjmp(scheduler)) return;
  if (is_new) make(thread, threadIdx.x);
  _longjmp(thread->place, 1);
}

// Threads of a block that do not wait for each other.
static void apart(const job &work, unsigned first, unsigned threads) {
  running = 0;
  for (threadIdx.x = first; threadIdx.x < threads; threadIdx.x++) work.run(&work);
}

// One block whose threads may wait for each other: warps go on in turn until all threads are over, and in a warp its
// threads, again and again where they meet.
static void together(const job &work, unsigned threads) {
  static std::vector<coroutine *> all;
  std::vector<bool> done(threads);
  now = &work;
  for (unsigned left = threads, warp = 0, meet; left; warp = warp + 32 < threads ? warp + 32 : 0)
    do {
      meet = 0;
      for (unsigned t = warp; t < threads && t < warp + 32; t++) {
        if (done[t]) continue;
        const bool is_new = t == all.size();
        if (is_new) all.push_back(new coroutine);
        threadIdx.x = t, for_warp = false;
        take_turn(all[t], is_new);
        if (over) done[t] = true, left--;
        if (!waited) return apart(work, 1, threads);
        meet += for_warp;
      }
      if (meet % 32) fprintf(stderr, "%u lanes of a warp meet, and the others do not\n", meet), abort();
    } while (meet);
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
    if (!b || waited) together(work, threads);
    else apart(work, 0, threads);
  }
}
