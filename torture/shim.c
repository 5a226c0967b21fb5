/* Counts what a process does to files under one folder, and at a chosen moment kills it, refuses
 * or delays: loaded with LD_PRELOAD, idle until torture_arm is called.
 *
 * A count is one call that changes a file or a folder: open for writing, write, truncate, sync,
 * rename, remove, make. Calls on other files pass through.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { COUNT, KILL, TEAR, REFUSE_ONCE, REFUSE_ON, DELAY };

static char root[PATH_MAX];
static size_t root_length;
static atomic_long count, moment;
static int mode, refusal, trace = -1;
static long delay_us;

void torture_arm(const char *folder, long at, int how, int error, long microseconds, int fd) {
  strncpy(root, folder, sizeof root - 1);
  mode = how; refusal = error; delay_us = microseconds; trace = fd;
  atomic_store(&count, 0);
  atomic_store(&moment, at);
  root_length = strlen(root);
}

void torture_disarm(void) { root_length = 0; }

long torture_count(void) { return atomic_load(&count); }

static int inside(const char *path) {
  return root_length && !strncmp(path, root, root_length)
      && (path[root_length] == '/' || !path[root_length]);
}

static int inside_fd(int fd) {
  char link[64], path[PATH_MAX];
  if (!root_length) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return inside(path);
}

static int inside_at(int folder, const char *path) {
  if (!root_length) return 0;
  if (path[0] == '/') return inside(path);
  if (folder != AT_FDCWD) return inside_fd(folder);
  char here[PATH_MAX];
  return getcwd(here, sizeof here) && inside(here);
}

static void die(const char *what) {
  if (trace >= 0) dprintf(trace, "%s\n", what);
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/* Returns 1: refuse; 2: do half of it, then die; 0: go on. */
static int fate(const char *what, int needs_room) {
  long number = atomic_fetch_add(&count, 1) + 1;
  if (mode == DELAY) {
    struct timespec pause_for = {delay_us / 1000000, delay_us % 1000000 * 1000};
    nanosleep(&pause_for, NULL);
  }
  long at = atomic_load(&moment);
  if (mode == COUNT || mode == DELAY || number < at) return 0;
  if (mode == REFUSE_ON) {
    if (refusal == ENOSPC && !needs_room) return 0;
    if (number == at && trace >= 0) dprintf(trace, "%s\n", what);
    return 1;
  }
  if (number > at) return 0;
  if (mode == TEAR && needs_room == 2) return 2;
  if (mode == KILL || mode == TEAR) die(what);
  if (trace >= 0) dprintf(trace, "%s\n", what);
  return 1;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); \
  if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)
#define REFUSED do { errno = refusal; return -1; } while (0)

#define OPEN(name) \
int name(const char *path, int flags, ...) { \
  REAL(int, name, const char *, int, ...); \
  va_list rest; va_start(rest, flags); mode_t bits = va_arg(rest, mode_t); va_end(rest); \
  if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && inside_at(AT_FDCWD, path) \
      && fate(#name, !!(flags & O_CREAT))) REFUSED; \
  return real(path, flags, bits); \
}
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
int name(int folder, const char *path, int flags, ...) { \
  REAL(int, name, int, const char *, int, ...); \
  va_list rest; va_start(rest, flags); mode_t bits = va_arg(rest, mode_t); va_end(rest); \
  if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && inside_at(folder, path) \
      && fate(#name, !!(flags & O_CREAT))) REFUSED; \
  return real(folder, path, flags, bits); \
}
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, write, int, const void *, size_t);
  if (inside_fd(fd)) switch (fate("write", 2)) {
    case 1: REFUSED;
    case 2: real(fd, data, size / 2); die("half a write");
  }
  return real(fd, data, size);
}

#define PWRITE(name) \
ssize_t name(int fd, const void *data, size_t size, off_t at) { \
  REAL(ssize_t, name, int, const void *, size_t, off_t); \
  if (inside_fd(fd)) switch (fate(#name, 2)) { \
    case 1: REFUSED; \
    case 2: real(fd, data, size / 2, at); die("half a " #name); \
  } \
  return real(fd, data, size, at); \
}
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t writev(int fd, const struct iovec *parts, int many) {
  REAL(ssize_t, writev, int, const struct iovec *, int);
  if (inside_fd(fd)) switch (fate("writev", 2)) {
    case 1: REFUSED;
    case 2: real(fd, parts, many / 2); die("half a writev");
  }
  return real(fd, parts, many);
}

#define ON_FD(name, room) \
int name(int fd) { \
  REAL(int, name, int); \
  if (inside_fd(fd) && fate(#name, room)) REFUSED; \
  return real(fd); \
}
ON_FD(fsync, 1)
ON_FD(fdatasync, 1)

#define TRUNCATE(name) \
int name(int fd, off_t size) { \
  REAL(int, name, int, off_t); \
  if (inside_fd(fd) && fate(#name, 0)) REFUSED; \
  return real(fd, size); \
}
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

int msync(void *start, size_t size, int flags) {
  REAL(int, msync, void *, size_t, int);
  if (root_length && fate("msync", 0)) REFUSED;
  return real(start, size, flags);
}

int rename(const char *from, const char *to) {
  REAL(int, rename, const char *, const char *);
  if (inside_at(AT_FDCWD, to) && fate("rename", 0)) REFUSED;
  return real(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
  REAL(int, renameat, int, const char *, int, const char *);
  if (inside_at(to_folder, to) && fate("renameat", 0)) REFUSED;
  return real(from_folder, from, to_folder, to);
}

#define ON_PATH(name, room) \
int name(const char *path) { \
  REAL(int, name, const char *); \
  if (inside_at(AT_FDCWD, path) && fate(#name, room)) REFUSED; \
  return real(path); \
}
ON_PATH(unlink, 0)
ON_PATH(rmdir, 0)

int unlinkat(int folder, const char *path, int flags) {
  REAL(int, unlinkat, int, const char *, int);
  if (inside_at(folder, path) && fate("unlinkat", 0)) REFUSED;
  return real(folder, path, flags);
}

int mkdir(const char *path, mode_t bits) {
  REAL(int, mkdir, const char *, mode_t);
  if (inside_at(AT_FDCWD, path) && fate("mkdir", 1)) REFUSED;
  return real(path, bits);
}
