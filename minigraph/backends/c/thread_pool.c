// A pool of threads that run one job together: see thread_pool.h.
//
// Everything waits at gates. A gate counts its openings: who waits remembers the count and passes when it has changed.
// Waiting is spinning first, since the next part of a job is mostly microseconds away, then giving the core away, then
// sleeping, so that a pool with less than its share of the cores leaves them to whoever it waits for.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "thread_pool.h"

#include <errno.h>
#include <fenv.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#if defined(__linux__) && !defined(POOL_CONDITIONS)
#define POOL_FUTEX
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define SPIN_NANOSECONDS 20000
#define PAUSES 16 // between two looks at the clock
#define YIELDS 2
#define STACK_BYTES (4 << 20)
#define APART _Alignas(128) // two cache lines: neighbours are fetched in pairs

typedef struct {
  APART atomic_uint openings;
  atomic_uint sleepers;
#ifndef POOL_FUTEX
  pthread_mutex_t mutex;
  pthread_cond_t opened;
#endif
} gate;

static pthread_mutex_t one_job = PTHREAD_MUTEX_INITIALIZER; // held while a job of several threads runs
static gate begin[POOL_MOST];                               // one for each worker; that of number 0 is not used
static gate between, end;
static APART atomic_uint arrived;  // threads that wait at `between`, or are about to
static APART atomic_uint finished; // workers that have left the job
static int workers;                // threads that were started, with the numbers 1 to `workers`

static pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER; // of what is below
static pthread_cond_t passed;                            // a job of one thread has ended, or a fork
static int inside;                                       // jobs of one thread that run: these do not wait for each other
static bool forking;                                     // and none may begin

static pool_job the_job;
static void *the_with;
static int the_threads;
static fenv_t the_environment;

static _Thread_local int team; // threads of the job that this thread is in
static _Thread_local int self; // its number there

// Gates

static void gate_init(gate *g) {
  atomic_init(&g->openings, 0);
  atomic_init(&g->sleepers, 0);
#ifndef POOL_FUTEX
  pthread_mutex_init(&g->mutex, 0);
  pthread_cond_init(&g->opened, 0);
#endif
}

static unsigned gate_count(gate *g) { return atomic_load_explicit(&g->openings, memory_order_acquire); }

static void pause_core(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb"); // "yield" takes no time on most cores
#endif
}

static int64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool opens_soon(gate *g, unsigned count) {
  int64_t until = 0;
  do {
    for (int i = 0; i < PAUSES; i++) {
      if (gate_count(g) != count) return true;
      pause_core();
    }
    if (!until) until = nanoseconds() + SPIN_NANOSECONDS;
  } while (nanoseconds() < until);
  return false;
}

// Either the sleeper is counted before the gate opens, and is woken, or it sees that the gate is open: what counts here
// is in one order for all threads (memory_order_seq_cst, the default).
static void gate_sleep(gate *g, unsigned count) {
#ifdef POOL_FUTEX
  atomic_fetch_add(&g->sleepers, 1);
  while (gate_count(g) == count) syscall(SYS_futex, &g->openings, FUTEX_WAIT_PRIVATE, count, 0, 0, 0);
  atomic_fetch_sub(&g->sleepers, 1);
#else
  pthread_mutex_lock(&g->mutex);
  atomic_fetch_add(&g->sleepers, 1);
  while (atomic_load(&g->openings) == count) pthread_cond_wait(&g->opened, &g->mutex);
  atomic_fetch_sub(&g->sleepers, 1);
  pthread_mutex_unlock(&g->mutex);
#endif
}

static void gate_open(gate *g) {
  atomic_fetch_add(&g->openings, 1);
  if (!atomic_load(&g->sleepers)) return;
#ifdef POOL_FUTEX
  syscall(SYS_futex, &g->openings, FUTEX_WAKE_PRIVATE, INT_MAX, 0, 0, 0);
#else
  pthread_mutex_lock(&g->mutex); // whoever was counted has begun to wait
  pthread_cond_broadcast(&g->opened);
  pthread_mutex_unlock(&g->mutex);
#endif
}

// Cores
//
// Where the cores have other things to do too, the system likes to wake a thread on the core of the one that wakes it.
// Both then share that core, and since they run in turn nothing sets them apart again. So a worker that has waited too
// long to go on spinning looks where the others are, and moves if it is on the core of one. It is not bound to where it
// goes.

#ifdef __linux__
static atomic_int place[POOL_MOST]; // the core that each thread of the job was on when it last looked

static void remember_place(void) { atomic_store_explicit(&place[self], sched_getcpu(), memory_order_relaxed); }

static void move_apart(int threads) {
  remember_place();
  int here = atomic_load_explicit(&place[self], memory_order_relaxed);
  cpu_set_t allowed, unused;
  if (sched_getaffinity(0, sizeof allowed, &allowed)) return; // more cores than a cpu_set_t has bits
  unused = allowed;
  bool alone = true;
  for (int other = 0; other < threads; other++) {
    if (other == self) continue;
    int core = atomic_load_explicit(&place[other], memory_order_relaxed);
    alone = alone && core != here;
    if (core >= 0) CPU_CLR((size_t)core, &unused);
  }
  if (alone || !CPU_COUNT(&unused)) return;
  sched_setaffinity(0, sizeof unused, &unused);
  sched_setaffinity(0, sizeof allowed, &allowed);
  remember_place();
}
#else
static void remember_place(void) {}
static void move_apart(int threads) { (void)threads; }
#endif

// Waits until the gate has been opened more than `count` times. `threads`: of the job that this thread is in, or was.
static void gate_pass(gate *g, unsigned count, int threads) {
  if (opens_soon(g, count)) return;
  if (self) move_apart(threads); // number 0 is not ours to move
  for (int i = 0; i < YIELDS && gate_count(g) == count; i++) sched_yield();
  if (gate_count(g) == count) gate_sleep(g, count);
}

// Workers

static void *work(void *number) {
  self = (int)(intptr_t)number;
  int threads = 1;
  for (unsigned jobs = 0;; jobs++) {
    gate_pass(&begin[self], jobs, threads);
    threads = team = the_threads;
    remember_place();
    fesetenv(&the_environment);
    the_job(the_with, self, threads);
    team = 0;
    // From here on the next job may be written down: nothing of this one is read.
    if ((int)atomic_fetch_add(&finished, 1) == threads - 2) gate_open(&end);
  }
  return 0;
}

static int start_worker(int thread) {
  gate_init(&begin[thread]);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); // the worker inherits it: signals are for the threads of the program
  pthread_t id;
  int error = pthread_create(&id, &attributes, work, (void *)(intptr_t)thread);
  pthread_sigmask(SIG_SETMASK, &before, 0);
  pthread_attr_destroy(&attributes);
  return error;
}

static int run_on_several(pool_job job, void *with, int threads) {
  for (; workers < threads - 1; workers++) {
    int error = start_worker(workers + 1);
    if (error) return error;
  }
  the_job = job, the_with = with, the_threads = threads;
  fegetenv(&the_environment);
  self = 0;
  remember_place();
  atomic_store(&finished, 0);
  unsigned ends = gate_count(&end);
  for (int thread = 1; thread < threads; thread++) gate_open(&begin[thread]);
  team = threads;
  job(with, 0, threads);
  team = 0;
  gate_pass(&end, ends, threads);
  return 0;
}

static void run_alone(pool_job job, void *with) {
  pthread_mutex_lock(&door);
  while (forking) pthread_cond_wait(&passed, &door);
  inside++;
  pthread_mutex_unlock(&door);
  team = 1;
  job(with, 0, 1);
  team = 0;
  pthread_mutex_lock(&door);
  if (!--inside && forking) pthread_cond_broadcast(&passed);
  pthread_mutex_unlock(&door);
}

static void run_within(pool_job job, void *with) {
  int outer = team;
  team = 1;
  job(with, 0, 1);
  team = outer;
}

int pool_run(pool_job job, void *with, int threads) {
  if (threads < 1 || threads > POOL_MOST) return EINVAL;
  if (team || threads == 1) {
    (team ? run_within : run_alone)(job, with);
    return 0;
  }
  pthread_mutex_lock(&one_job);
  int error = run_on_several(job, with, threads);
  pthread_mutex_unlock(&one_job);
  return error;
}

void pool_barrier(void) {
  if (team <= 1) return;
  unsigned count = gate_count(&between); // before the arrival: it cannot change until we have arrived
  if ((int)atomic_fetch_add(&arrived, 1) == team - 1) {
    atomic_store(&arrived, 0);
    gate_open(&between);
  } else {
    gate_pass(&between, count, team);
  }
}


// Fork waits for the end of all jobs, so that the child gets no half-written memory. The child has no workers: it starts
// its own.

static void before_fork(void) {
  if (team) return;
  pthread_mutex_lock(&one_job);
  pthread_mutex_lock(&door);
  forking = true;
  while (inside) pthread_cond_wait(&passed, &door);
}

static void after_fork(void) {
  if (team) return;
  forking = false;
  pthread_cond_broadcast(&passed);
  pthread_mutex_unlock(&door);
  pthread_mutex_unlock(&one_job);
}

static void prepare(void) {
  workers = 0;
  inside = 0;
  forking = false;
  pthread_cond_init(&passed, 0);
  atomic_store(&arrived, 0);
  gate_init(&between);
  gate_init(&end);
}

static void in_child(void) {
  prepare();
  if (team) return;
  pthread_mutex_unlock(&door);
  pthread_mutex_unlock(&one_job);
}

__attribute__((constructor)) static void load(void) {
  prepare();
  pthread_atfork(before_fork, after_fork, in_child);
}
