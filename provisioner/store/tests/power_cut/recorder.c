/* Records, in order, what a process writes and syncs under one folder and what it says on standard
 * output. Loaded with LD_PRELOAD by power_cut.rs, which rebuilds from it what a power cut would leave.
 *
 * KILN_RECORD_UNDER names the folder, KILN_RECORD_TO the file of records. One record: the operation,
 * one byte; then three times a length (u32, little endian) and bytes: path, second path, data; then an
 * offset (u64). Every call is made and recorded under one lock, so the order of records is the order
 * in which the kernel saw them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int to = -1;
static const char *under;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite64)(int, const void *, size_t, off64_t);
static int (*real_ftruncate64)(int, off64_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);

__attribute__((constructor)) static void begin(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite64 = dlsym(RTLD_NEXT, "pwrite64");
    real_ftruncate64 = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    under = getenv("KILN_RECORD_UNDER");
    const char *file = getenv("KILN_RECORD_TO");
    if (under && file) to = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    unsetenv("LD_PRELOAD");
}

static void put(const void *bytes, size_t length) {
    const char *at = bytes;
    while (length > 0) {
        ssize_t done = real_write(to, at, length);
        if (done <= 0) abort();
        at += done;
        length -= (size_t)done;
    }
}

static void put_bytes(const void *bytes, size_t length) {
    uint32_t size = (uint32_t)length;
    put(&size, sizeof size);
    put(bytes, length);
}

static void record(char operation, const char *path, const char *second, const void *data, size_t length,
                   uint64_t offset) {
    put(&operation, 1);
    put_bytes(path, strlen(path));
    put_bytes(second, strlen(second));
    put_bytes(data, length);
    put(&offset, sizeof offset);
}

static int watched(const char *path) {
    return to >= 0 && strncmp(path, under, strlen(under)) == 0;
}

/* The path of a descriptor, when it is under the folder. */
static int named(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return watched(path);
}

ssize_t write(int fd, const void *data, size_t length) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int is_said = fd == STDOUT_FILENO && to >= 0;
    int is_ours = !is_said && fd != to && named(fd, path);
    off64_t offset = is_ours ? lseek64(fd, 0, SEEK_CUR) : 0;
    ssize_t done = real_write(fd, data, length);
    if (done > 0 && is_said) record('a', "", "", data, (size_t)done, 0);
    if (done > 0 && is_ours) record('w', path, "", data, (size_t)done, (uint64_t)offset);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    ssize_t done = real_pwrite64(fd, data, length, offset);
    if (done > 0 && named(fd, path)) {
        record('w', path, "", data, (size_t)done, (uint64_t)offset);
        /* Such a write is durable when it returns, as if fdatasync came right after it. */
        if (fcntl(fd, F_GETFL) & O_DSYNC) record('d', path, "", "", 0, 0);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    return pwrite64(fd, data, length, offset);
}

int ftruncate64(int fd, off64_t length) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int result = real_ftruncate64(fd, length);
    if (result == 0 && named(fd, path)) record('t', path, "", "", 0, (uint64_t)length);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int synced(char operation, int (*real)(int), int fd) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int result = real(fd);
    if (result == 0 && named(fd, path)) record(operation, path, "", "", 0, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return synced('s', real_fsync, fd); }
int fdatasync(int fd) { return synced('d', real_fdatasync, fd); }

int rename(const char *from, const char *into) {
    pthread_mutex_lock(&lock);
    int result = real_rename(from, into);
    if (result == 0 && watched(from)) record('r', from, into, "", 0, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int result = real_unlink(path);
    if (result == 0 && watched(path)) record('u', path, "", "", 0, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

/* Recorded as the writes that it is made of. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (done < 0) return total > 0 ? total : done;
        total += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return total;
}
