/* Lets one call that changes the disk fail, or kills the process in the midst of it. Preloaded into a process.
 *
 * Counted are all calls that create, write, flush, rename, cut or remove something in a folder, whoever makes them:
 * Python, SQLite, TensorBoard. Each is noted down before it is made. What is printed does not count.
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

static char place[PATH_MAX];
static int notes = -1;
static long deadly, made;
static int error_number; /* 0: the process is killed */
static int lasts;

/* The call of this number (0: none) in a folder fails with an error number; 0 kills. If the error stays, all later
 * calls that take room fail as well. */
void faults_begin(const char *folder, int notes_to, long call, int with_error, int stays)
{
    snprintf(place, sizeof place, "%s/", folder);
    notes = notes_to;
    deadly = call;
    error_number = with_error;
    lasts = stays;
}

/* What happens to a call: nothing, the half of it, or an error. */
static enum verdict judge(const char *call, const char *path, int takes_room, int is_write)
{
    if (strncmp(path, place, strlen(place)))
        return PASS;
    long number = __sync_add_and_fetch(&made, 1);
    dprintf(notes, "%ld %s %s\n", number, call, path);
    if (!deadly || number < deadly || (number > deadly && !(lasts && takes_room)))
        return PASS;
    if (number == deadly && is_write && error_number != EIO)
        return HALF; /* a full disk takes what it can, and a kill may leave anything */
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

static enum verdict judge_path(const char *call, const char *path, int takes_room)
{
    char full[PATH_MAX];
    if (notes < 0)
        return PASS;
    absolute(path, full);
    return judge(call, full, takes_room, 0);
}

static enum verdict judge_file(const char *call, int file, int takes_room, int is_write)
{
    char link[64], path[PATH_MAX];
    if (notes < 0 || file <= STDERR_FILENO || file == notes)
        return PASS;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return judge(call, path, takes_room, is_write);
}

static ssize_t written_half(ssize_t done)
{
    if (!error_number)
        kill(getpid(), SIGKILL);
    return done;
}

ssize_t write(int file, const void *bytes, size_t count)
{
    enum verdict verdict = judge_file("write", file, 1, count > 1);
    if (verdict == FAIL)
        return -1;
    ssize_t done = NEXT(write)(file, bytes, verdict == HALF ? count / 2 : count);
    return verdict == HALF ? written_half(done) : done;
}

#define PWRITE(name, offset_type)                                                                   \
    ssize_t name(int file, const void *bytes, size_t count, offset_type offset)                     \
    {                                                                                               \
        enum verdict verdict = judge_file("write", file, 1, count > 1);                             \
        if (verdict == FAIL)                                                                        \
            return -1;                                                                              \
        ssize_t done = NEXT(name)(file, bytes, verdict == HALF ? count / 2 : count, offset);        \
        return verdict == HALF ? written_half(done) : done;                                         \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define ON_FILE(name, takes_room, parameters, ...)                                                  \
    int name parameters { return judge_file(#name, file, takes_room, 0) == FAIL ? -1 : NEXT(name)(__VA_ARGS__); }
ON_FILE(fsync, 0, (int file), file)
ON_FILE(fdatasync, 0, (int file), file)
ON_FILE(ftruncate, 0, (int file, off_t length), file, length)
ON_FILE(ftruncate64, 0, (int file, off64_t length), file, length)

#define ON_PATH(name, takes_room, parameters, ...)                                                  \
    int name parameters { return judge_path(#name, path, takes_room) == FAIL ? -1 : NEXT(name)(__VA_ARGS__); }
ON_PATH(mkdir, 1, (const char *path, mode_t mode), path, mode)
ON_PATH(unlink, 0, (const char *path), path)

int rename(const char *old, const char *path)
{
    return judge_path("rename", path, 0) == FAIL ? -1 : NEXT(rename)(old, path);
}

/* Opening a file counts if it makes or empties it. */
#define OPEN(name)                                                                                  \
    int name(const char *path, int flags, ...)                                                      \
    {                                                                                               \
        mode_t mode = 0;                                                                            \
        if (flags & O_CREAT) {                                                                      \
            va_list rest;                                                                           \
            va_start(rest, flags);                                                                  \
            mode = va_arg(rest, mode_t);                                                            \
            va_end(rest);                                                                           \
        }                                                                                           \
        int makes = flags & O_TRUNC || (flags & O_CREAT && access(path, F_OK));                     \
        return makes && judge_path("create", path, 1) == FAIL ? -1 : NEXT(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
