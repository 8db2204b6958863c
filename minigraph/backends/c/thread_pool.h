// A pool of threads that run one job together, with a barrier between its parts. One pool serves a whole process.
#ifndef MINIGRAPH_THREAD_POOL
#define MINIGRAPH_THREAD_POOL

#define POOL_MOST 1024 // threads of one job

// What the threads of a job do, each with its own number: 0 <= thread < threads. It must not throw, exit or fork.
typedef void (*pool_job)(void *with, int thread, int threads);

// Runs the job on so many threads, of which the caller is number 0, and returns when all have come to its end.
//
// All threads compute with the caller's rounding mode and treatment of denormals. While one job runs, a second caller
// waits. One thread needs no other, and so waits for nobody; a job that is started inside a job gets one thread too.
// A fork waits for the end of all jobs.
// Returns 0; else an errno, and nothing has run: EINVAL for a wrong number of threads, EAGAIN where the system has no
// more threads.
int pool_run(pool_job job, void *with, int threads);

// Called by every thread of a job: goes on when all have called it. What they wrote before, all can read after.
void pool_barrier(void);

#endif
