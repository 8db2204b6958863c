// CUDA C++ on a CPU where each thread of a block is a thread of the machine, and __syncthreads a barrier: for
// ThreadSanitizer, which sees what threads do to one place without a barrier between. Blocks run one after the other.
#pragma once
#include <stdio.h>
#include <stdlib.h>

#include <barrier>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "cuda_words.h"

static thread_local place threadIdx, blockIdx;
static place blockDim, gridDim;
static thread_local std::barrier<> *of_block, *of_lanes;
static thread_local int waits;  // of a thread in its block, so far

#ifndef LEFT_OUT
#define LEFT_OUT -1  // which wait of each block is none
#endif
static void __syncthreads() {
  if (waits++ != LEFT_OUT) of_block->arrive_and_wait();
}
static void __syncwarp() { of_lanes->arrive_and_wait(); }
#include "cuda_fragments.h"

template <class... P, size_t... I>
static void call(void (*kernel)(P...), void **a, std::index_sequence<I...>) {
  kernel((P)a[I]...);
}

template <class... P>
static void launch(void (*kernel)(P...), unsigned blocks, unsigned threads, void **arguments) {
  gridDim.x = blocks, blockDim.x = threads;
  std::barrier<> between_blocks(threads);
  std::vector<std::unique_ptr<std::barrier<>>> barriers;
  for (unsigned b = 0; b < blocks; b++) barriers.push_back(std::make_unique<std::barrier<>>(threads));
  std::vector<std::unique_ptr<std::barrier<>>> warps;
  for (unsigned t = 0; t < threads; t += 32) warps.push_back(std::make_unique<std::barrier<>>(32));
  std::vector<std::thread> running;
  for (unsigned t = 0; t < threads; t++)
    running.emplace_back([&, t] {
      threadIdx.x = t, of_lanes = warps[t / 32].get();
      for (unsigned b = 0; b < blocks; b++) {
        blockIdx.x = b, of_block = barriers[b].get(), waits = 0;
        call(kernel, arguments, std::index_sequence_for<P...>{});
        of_block->arrive_and_drop();
        between_blocks.arrive_and_wait();
      }
    });
  for (std::thread &thread : running) thread.join();
}
