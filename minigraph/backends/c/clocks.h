// The time on a clock that nobody sets, in seconds.
#ifndef MINIGRAPH_CLOCKS_H
#define MINIGRAPH_CLOCKS_H

#include <time.h>

INLINE double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif
