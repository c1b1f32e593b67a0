/* Moves the time of day of a process, and of no other: LD_PRELOAD=clock.so CLOCK_OFFSET_FILE=file

The file holds seconds as a 64-bit integer and is mapped, so that a write to it is a jump of the clock in all processes that
have it. The monotonic clock stays, as it does when somebody sets a machine's clock. (libfaketime 0.9.10 can leave it alone
too, but then Python's time.sleep fails.) A wait for a time of day that has begun keeps its length. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define EPOCH 1000000000 /* seconds; more than any machine is up: tells times of day from monotonic ones */

static volatile long long zero;
static volatile long long *offset = &zero;

__attribute__((constructor)) static void map_offset(void) {
  const char *path = getenv("CLOCK_OFFSET_FILE");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof(long long), PROT_READ, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) offset = mapped;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
  return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
  struct timespec found;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &found);
  now->tv_sec = found.tv_sec;
  now->tv_usec = found.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *now) {
  struct timespec found;
  clock_gettime(CLOCK_REALTIME, &found);
  if (now) *now = found.tv_sec;
  return found.tv_sec;
}

static struct timespec machines(const struct timespec *until) {
  struct timespec found = *until;
  if (found.tv_sec > EPOCH) found.tv_sec -= *offset;
  return found;
}

static void *next(const char *name, const char *version) {
  void *found = dlvsym(RTLD_NEXT, name, version);
  return found ? found : dlsym(RTLD_NEXT, name);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
  static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  if (!wait) wait = next("pthread_cond_timedwait", "GLIBC_2.3.2");
  struct timespec then = machines(until);
  return wait(condition, mutex, &then);
}

int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
  static int (*wait)(sem_t *, const struct timespec *);
  if (!wait) wait = next("sem_timedwait", "GLIBC_2.34");
  struct timespec then = machines(until);
  return wait(semaphore, &then);
}
