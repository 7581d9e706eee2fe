// Stands between a process and its disk: counts the calls that change a folder, and lets the n-th of
// them fail, or lets nothing reach the folder from it on, as if the process had been killed there.
//
// It is put before libc by LD_PRELOAD, and does nothing until `fault_arm` names a folder.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE, FSYNC, RENAME, UNLINK, CREATE, READ, KINDS };
enum { PASS, FREEZE, TEAR, FAIL, FILL, KILL };  // what happens at the n-th call of the kind

static char folder[PATH_MAX];
static volatile int armed, chosen, action, error_number, frozen, filled;
static volatile long left, counts[KINDS];

void fault_arm(const char *path, int kind, int what, int number, long n) {
  armed = 0;
  strncpy(folder, path, PATH_MAX - 1);
  chosen = kind, action = what, error_number = number, left = n, frozen = filled = 0;
  memset((void *)counts, 0, sizeof counts);
  __sync_synchronize();
  armed = 1;
}

void fault_disarm(void) { armed = frozen = filled = 0; }
long fault_count(int kind) { return counts[kind]; }
int fault_fired(void) { return armed && left <= 0 && action != PASS; }

static int within(const char *path) {
  size_t n = strlen(folder);
  return !strncmp(path, folder, n) && (!path[n] || path[n] == '/');
}

static int within_fd(int fd) {
  char link[64], target[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, target, sizeof target - 1);
  if (n < 0) return 0;
  target[n] = 0;
  return within(target);
}

static int within_at(int dir, const char *path) {
  char cwd[PATH_MAX];
  if (path[0] == '/') return within(path);
  if (dir != AT_FDCWD) return within_fd(dir);
  return getcwd(cwd, sizeof cwd) && within(cwd);
}

// What is to be done with a call: 0 do it, -1 fail with errno set, 1 say that it was done, 2 do half.
static int fate(int kind) {
  if (frozen) return 1;
  __sync_fetch_and_add(&counts[kind], 1);
  if (filled) {
    if (kind == READ) return 0;
    if (error_number == EROFS || kind == WRITE || kind == CREATE) return errno = error_number, -1;
    return 0;
  }
  if (action == PASS || kind != chosen || __sync_sub_and_fetch(&left, 1) != 0) return 0;
  switch (action) {
    case KILL: raise(SIGKILL); return 0;
    case FREEZE: frozen = 1; return 1;
    case TEAR: frozen = 1; return kind == WRITE ? 2 : 1;
    case FILL: filled = 1; errno = error_number; return -1;
    default: errno = error_number; return -1;
  }
}

#define WRITES(name, parameters, ...) \
  ssize_t name parameters { \
    static ssize_t(*real) parameters; \
    if (!real) real = (ssize_t(*) parameters)dlsym(RTLD_NEXT, #name); \
    if (armed && within_fd(fd)) { \
      int f = fate(WRITE); \
      if (f == -1) return -1; \
      if (f == 1) return n; \
      if (f == 2) { size_t all = n; n /= 2; if (n) real(__VA_ARGS__); return all; } \
    } \
    return real(__VA_ARGS__); \
  }
WRITES(write, (int fd, const void *buffer, size_t n), fd, buffer, n)
WRITES(pwrite, (int fd, const void *buffer, size_t n, off_t at), fd, buffer, n, at)
WRITES(pwrite64, (int fd, const void *buffer, size_t n, off64_t at), fd, buffer, n, at)

static ssize_t length(const struct iovec *parts, int n) {
  ssize_t total = 0;
  for (int i = 0; i < n; i++) total += parts[i].iov_len;
  return total;
}

#define WRITES_PARTS(name, parameters, ...) \
  ssize_t name parameters { \
    static ssize_t(*real) parameters; \
    if (!real) real = (ssize_t(*) parameters)dlsym(RTLD_NEXT, #name); \
    if (armed && within_fd(fd)) { \
      int f = fate(WRITE); \
      if (f == -1) return -1; \
      if (f) return length(parts, n); \
    } \
    return real(__VA_ARGS__); \
  }
WRITES_PARTS(writev, (int fd, const struct iovec *parts, int n), fd, parts, n)
WRITES_PARTS(pwritev, (int fd, const struct iovec *parts, int n, off_t at), fd, parts, n, at)
WRITES_PARTS(pwritev64, (int fd, const struct iovec *parts, int n, off64_t at), fd, parts, n, at)

#define CHANGES(name, kind, test, parameters, ...) \
  int name parameters { \
    static int(*real) parameters; \
    if (!real) real = (int(*) parameters)dlsym(RTLD_NEXT, #name); \
    if (armed && (test)) { \
      int f = fate(kind); \
      if (f == -1) return -1; \
      if (f) return 0; \
    } \
    return real(__VA_ARGS__); \
  }
CHANGES(ftruncate, WRITE, within_fd(fd), (int fd, off_t n), fd, n)
CHANGES(ftruncate64, WRITE, within_fd(fd), (int fd, off64_t n), fd, n)
CHANGES(truncate, WRITE, within_at(AT_FDCWD, path), (const char *path, off_t n), path, n)
CHANGES(fsync, FSYNC, within_fd(fd), (int fd), fd)
CHANGES(fdatasync, FSYNC, within_fd(fd), (int fd), fd)
CHANGES(rename, RENAME, within_at(AT_FDCWD, to), (const char *from, const char *to), from, to)
CHANGES(renameat, RENAME, within_at(b, to), (int a, const char *from, int b, const char *to), a, from, b, to)
CHANGES(renameat2, RENAME, within_at(b, to),
        (int a, const char *from, int b, const char *to, unsigned flags), a, from, b, to, flags)
CHANGES(unlink, UNLINK, within_at(AT_FDCWD, path), (const char *path), path)
CHANGES(unlinkat, UNLINK, within_at(dir, path), (int dir, const char *path, int flags), dir, path, flags)
CHANGES(rmdir, UNLINK, within_at(AT_FDCWD, path), (const char *path), path)
CHANGES(mkdir, CREATE, within_at(AT_FDCWD, path), (const char *path, mode_t mode), path, mode)
CHANGES(mkdirat, CREATE, within_at(dir, path), (int dir, const char *path, mode_t mode), dir, path, mode)

// A file that is opened to be written: where nothing reaches the folder, it leads nowhere.
static int opened(int dir, const char *path, int flags) {
  int changes = flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC);
  if (!armed || (frozen && !changes) || !within_at(dir, path)) return 0;
  if (!changes && faccessat(dir, path, F_OK, 0)) return 0;  // what is not there fails by itself
  return fate(changes ? CREATE : READ);
}

#define OPENS(name, dir, parameters, ...) \
  int name parameters { \
    static int (*real)(); \
    va_list more; \
    va_start(more, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more); \
    if (!real) real = (int (*)())dlsym(RTLD_NEXT, #name); \
    int f = opened(dir, path, flags); \
    if (f == -1) return -1; \
    if (f) { \
      static int (*plain)(const char *, int, ...); \
      if (!plain) plain = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"); \
      return plain("/dev/null", O_RDWR | (flags & O_CLOEXEC)); \
    } \
    return real(__VA_ARGS__, mode); \
  }
OPENS(open, AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPENS(open64, AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPENS(openat, at, (int at, const char *path, int flags, ...), at, path, flags)
OPENS(openat64, at, (int at, const char *path, int flags, ...), at, path, flags)
