/* A library that makes one file-system call fail, or kills the process during the call; preload it into a process.
 *
 * The library counts all calls that create, write, flush, rename, truncate or remove a file in a folder, whether
 * Python, SQLite or TensorBoard makes them, and logs each call before it is executed. Writes to the standard streams
 * do not count.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum verdict { PASS, HALF, FAIL };

static char watched_folder[PATH_MAX];
static int call_log = -1;
static long failing_call, call_count;
static int error_number; /* 0: the process is killed */
static int is_permanent;

/* Make the call with this number (0: no call) in a folder fail with an error number; the error number 0 kills the
 * process. If the error is permanent, all later calls that need disk space fail as well. */
void start_faults(const char *folder, int log_descriptor, long call, int with_error, int permanent)
{
    snprintf(watched_folder, sizeof watched_folder, "%s/", folder);
    call_log = log_descriptor;
    failing_call = call;
    error_number = with_error;
    is_permanent = permanent;
}

/* Count and log a call; decide whether it is executed (PASS), executed for half its bytes (HALF), or fails (FAIL). */
static enum verdict verdict_on(const char *call, const char *path, int needs_space, int is_write)
{
    if (strncmp(path, watched_folder, strlen(watched_folder)))
        return PASS;
    long number = __sync_add_and_fetch(&call_count, 1);
    dprintf(call_log, "%ld %s %s\n", number, call, path);
    if (!failing_call || number < failing_call || (number > failing_call && !(is_permanent && needs_space)))
        return PASS;
    if (number == failing_call && is_write && error_number != EIO)
        return HALF; /* a write to a full disk, or of a killed process, may store only the first bytes */
    if (!error_number)
        kill(getpid(), SIGKILL);
    errno = error_number;
    return FAIL;
}

static void absolute(const char *path, char *full)
{
    if (path[0] == '/' || !getcwd(full, PATH_MAX))
        snprintf(full, PATH_MAX, "%s", path);
    else
        snprintf(full + strlen(full), PATH_MAX - strlen(full), "/%s", path);
}

static enum verdict verdict_on_path(const char *call, const char *path, int needs_space)
{
    char full[PATH_MAX];
    if (call_log < 0)
        return PASS;
    absolute(path, full);
    return verdict_on(call, full, needs_space, 0);
}

static enum verdict verdict_on_file(const char *call, int file, int needs_space, int is_write)
{
    char link[64], path[PATH_MAX];
    if (call_log < 0 || file <= STDERR_FILENO || file == call_log)
        return PASS;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return verdict_on(call, path, needs_space, is_write);
}

static ssize_t written_half(ssize_t done)
{
    if (!error_number)
        kill(getpid(), SIGKILL);
    return done;
}

ssize_t write(int file, const void *bytes, size_t count)
{
    enum verdict verdict = verdict_on_file("write", file, 1, count > 1);
    if (verdict == FAIL)
        return -1;
    ssize_t done = NEXT(write)(file, bytes, verdict == HALF ? count / 2 : count);
    return verdict == HALF ? written_half(done) : done;
}

#define PWRITE(name, offset_type)                                                                       \
    ssize_t name(int file, const void *bytes, size_t count, offset_type offset)                         \
    {                                                                                                   \
        enum verdict verdict = verdict_on_file("write", file, 1, count > 1);                            \
        if (verdict == FAIL)                                                                            \
            return -1;                                                                                  \
        ssize_t done = NEXT(name)(file, bytes, verdict == HALF ? count / 2 : count, offset);            \
        return verdict == HALF ? written_half(done) : done;                                             \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define ON_FILE(name, needs_space, parameters, ...)                                                     \
    int name parameters { return verdict_on_file(#name, file, needs_space, 0) == FAIL ? -1 : NEXT(name)(__VA_ARGS__); }
ON_FILE(fsync, 0, (int file), file)
ON_FILE(fdatasync, 0, (int file), file)
ON_FILE(ftruncate, 0, (int file, off_t length), file, length)
ON_FILE(ftruncate64, 0, (int file, off64_t length), file, length)

#define ON_PATH(name, needs_space, parameters, ...)                                                     \
    int name parameters { return verdict_on_path(#name, path, needs_space) == FAIL ? -1 : NEXT(name)(__VA_ARGS__); }
ON_PATH(mkdir, 1, (const char *path, mode_t mode), path, mode)
ON_PATH(unlink, 0, (const char *path), path)

int rename(const char *old, const char *path)
{
    return verdict_on_path("rename", path, 0) == FAIL ? -1 : NEXT(rename)(old, path);
}

/* Opening a file counts if it creates or truncates the file. */
#define OPEN(name)                                                                                      \
    int name(const char *path, int flags, ...)                                                          \
    {                                                                                                   \
        mode_t mode = 0;                                                                                \
        if (flags & O_CREAT) {                                                                          \
            va_list rest;                                                                               \
            va_start(rest, flags);                                                                      \
            mode = va_arg(rest, mode_t);                                                                \
            va_end(rest);                                                                               \
        }                                                                                               \
        int creates = flags & O_TRUNC || (flags & O_CREAT && access(path, F_OK));                       \
        return creates && verdict_on_path("create", path, 1) == FAIL ? -1 : NEXT(name)(path, flags, mode);\
    }
OPEN(open)
OPEN(open64)
