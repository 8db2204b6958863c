// Loaded before all other libraries (LD_PRELOAD), it counts the calls that ask for memory or give it back.
//
// The calls of a program in C are those between the entry and the return of pool_run, on the thread that called it, and
// all those of a thread that has ever worked in a job of the pool: whatever library makes them on the program's behalf.
// `watched_run` stands for pool_run and says when that is. All calls of the process are counted besides.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define EACH(X) \
  X(malloc) X(calloc) X(realloc) X(reallocarray) X(free) X(posix_memalign) X(aligned_alloc) X(memalign) X(valloc) \
  X(mmap) X(mmap64) X(munmap) X(mremap) X(brk) X(sbrk)

#define NUMBER(name) AT_##name,
enum { EACH(NUMBER) FUNCTIONS };
#define NAME(name) #name,
static const char *const names[] = {EACH(NAME)};

static void *real[FUNCTIONS];
static atomic_long all[FUNCTIONS], programs[FUNCTIONS];
static atomic_long blocks; // that malloc, calloc and realloc have given, and that were not given back

// Of this kind thread-local variables are there from the start: reading another kind may itself ask for memory.
#define LOCAL static _Thread_local __attribute__((tls_model("initial-exec")))
LOCAL int inside; // how many calls of pool_run this thread is in
LOCAL int worker; // whether it has worked in a job of another thread

// dlsym itself may ask for memory: it gets some of this, which is never given back.
static _Alignas(16) char first[1 << 16];
static atomic_size_t used;

static int is_first(const void *p) { return (const char *)p >= first && (const char *)p < first + sizeof first; }

static void *from_first(size_t size) {
  size_t at = atomic_fetch_add(&used, (size + 15) / 16 * 16);
  return at + size <= sizeof first ? first + at : 0;
}

static void *count(int function) {
  static _Thread_local __attribute__((tls_model("initial-exec"))) int looking;
  atomic_fetch_add(&all[function], 1);
  if (inside || worker) atomic_fetch_add(&programs[function], 1);
  if (!real[function] && !looking) {
    looking = 1;
    real[function] = dlsym(RTLD_NEXT, names[function]);
    looking = 0;
  }
  return real[function];
}

#define REAL(name, result, ...) result (*call)(__VA_ARGS__) = (result(*)(__VA_ARGS__))count(AT_##name)

static void *given(void *p) {
  if (p) atomic_fetch_add(&blocks, 1);
  return p;
}

void *malloc(size_t size) {
  REAL(malloc, void *, size_t);
  return given(call ? call(size) : from_first(size));
}

void *calloc(size_t n, size_t size) {
  REAL(calloc, void *, size_t, size_t);
  return given(call ? call(n, size) : from_first(n * size));
}

void *realloc(void *p, size_t size) {
  REAL(realloc, void *, void *, size_t);
  if (call && !is_first(p)) return p ? call(p, size) : given(call(p, size));
  void *new = malloc(size);
  size_t there = p ? (size_t)(first + sizeof first - (char *)p) : 0;
  if (new && p) memcpy(new, p, size < there ? size : there);
  return new;
}

void free(void *p) {
  REAL(free, void, void *);
  if (p) atomic_fetch_sub(&blocks, 1);
  if (call && !is_first(p)) call(p);
}

void *reallocarray(void *p, size_t n, size_t size) {
  REAL(reallocarray, void *, void *, size_t, size_t);
  return call(p, n, size);
}

int posix_memalign(void **p, size_t alignment, size_t size) {
  REAL(posix_memalign, int, void **, size_t, size_t);
  return call(p, alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  REAL(aligned_alloc, void *, size_t, size_t);
  return call(alignment, size);
}

void *memalign(size_t alignment, size_t size) {
  REAL(memalign, void *, size_t, size_t);
  return call(alignment, size);
}

void *valloc(size_t size) {
  REAL(valloc, void *, size_t);
  return call(size);
}

void *mmap(void *at, size_t size, int protection, int flags, int file, off_t offset) {
  REAL(mmap, void *, void *, size_t, int, int, int, off_t);
  return call(at, size, protection, flags, file, offset);
}

void *mmap64(void *at, size_t size, int protection, int flags, int file, int64_t offset) {
  REAL(mmap64, void *, void *, size_t, int, int, int, int64_t);
  return call(at, size, protection, flags, file, offset);
}

int munmap(void *at, size_t size) {
  REAL(munmap, int, void *, size_t);
  return call(at, size);
}

void *mremap(void *at, size_t old, size_t new, int flags, ...) {
  REAL(mremap, void *, void *, size_t, size_t, int, ...);
  return call(at, old, new, flags); // nobody here says where to
}

int brk(void *at) {
  REAL(brk, int, void *);
  return call(at);
}

void *sbrk(intptr_t step) {
  REAL(sbrk, void *, intptr_t);
  return call(step);
}

// What the tests call

typedef void job_t(void *with, int thread, int threads);
typedef int run_t(job_t *job, void *with, int threads);

struct watched {
  job_t *job;
  void *with;
};

static void watched_job(void *with, int thread, int threads) {
  const struct watched *w = with;
  if (thread) worker = 1;
  w->job(w->with, thread, threads);
}

static run_t *pool_run;

void watch(run_t *run) { pool_run = run; }

int watched_run(job_t *job, void *with, int threads) {
  struct watched w = {job, with};
  inside++;
  int error = pool_run(watched_job, &w, threads);
  inside--;
  return error;
}

int functions(void) { return FUNCTIONS; }
const char *function_name(int function) { return names[function]; }
long calls_of_all(int function) { return atomic_load(&all[function]); }
long blocks_there(void) { return atomic_load(&blocks); }
long calls_of_programs(int function) { return atomic_load(&programs[function]); }

// A job that makes each call once on each thread: all of these have to be counted.
void asks(void *with, int thread, int threads) {
  void *volatile p = malloc(100);
  p = realloc(p, 200);
  free(p);
  p = calloc(3, 5);
  p = reallocarray(p, 30, 5);
  free(p);
  void *aligned = 0;
  if (!posix_memalign(&aligned, 64, 100)) p = aligned, free(p);
  p = aligned_alloc(64, 128);
  free(p);
  p = memalign(64, 100);
  free(p);
  p = valloc(100);
  free(p);
  enum { READ_WRITE = 3, PRIVATE_ANONYMOUS = 0x22 };
  p = mmap(0, 4096, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0);
  p = mremap(p, 4096, 8192, 1);
  munmap(p, 8192);
  p = mmap64(0, 4096, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0);
  munmap(p, 4096);
  sbrk(0), brk(0); // both only ask where the end is
  (void)with, (void)thread, (void)threads;
}
