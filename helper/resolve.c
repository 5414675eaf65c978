/* Places below the root that the image chooses: the kernel resolves them (openat2(2), Linux 5.6), never through procfs's
 * magic links; what is missing is made.  What is found is held by a descriptor, and only that is acted on. */
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

int open_in_root(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };
	return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
}

/* What most often is there: all of an absolute PATH, or all but its last directory, which is made.  ENOENT: look closer. */
static int resolve_at_once(const char *path, bool create, mode_t mode, int *fd)
{
	char parent[PATH_MAX];
	const char *name = strrchr(path, '/');
	int e = ENOENT, at;
	*fd = open_in_root(AT_FDCWD, path, O_PATH, RESOLVE_NO_MAGICLINKS);
	if (*fd >= 0 || errno != ENOENT || !create || name == path || name[1] == 0)
		return *fd >= 0 ? 0 : errno;
	memcpy(parent, path, (size_t)(name - path));
	parent[name - path] = 0;
	at = open_in_root(AT_FDCWD, parent, O_PATH, RESOLVE_NO_MAGICLINKS);
	if (at < 0)
		return errno;
	if (mkdirat(at, name + 1, mode) == 0) {
		*fd = open_in_root(at, name + 1, O_PATH | O_NOFOLLOW | O_DIRECTORY, RESOLVE_NO_MAGICLINKS);
		e = *fd < 0 ? errno : 0;
	}
	close(at);
	return e;
}

/* Opens PATH below "/", with the kernel following links inside the root only.  With CREATE, missing directories are made;
 * a dangling link is followed and its target made, as runc does.  */
int resolve_directory(const char *path, bool create, mode_t mode, int *fd)
{
	char want[PATH_MAX], link[PATH_MAX];
	int at, links = 0;
	if (strlen(path) >= sizeof want)
		return ENAMETOOLONG;
	if (path[0] == '/') {
		int e = resolve_at_once(path, create, mode, fd);
		if (e != ENOENT || !create)
			return e;
	}
	strcpy(want, path);
again:
	at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return errno;
	for (size_t from = 0, to; want[from]; from = to) {
		int next;
		while (want[from] == '/')
			from++;
		for (to = from; want[to] && want[to] != '/'; to++)
			;
		if (to == from)
			break;
		char saved = want[to];
		want[to] = 0;
		next = open_in_root(AT_FDCWD, want[0] == '/' ? want : "/", O_PATH, RESOLVE_NO_MAGICLINKS);
		if (next < 0 && errno == ENOENT && create) {
			if (mkdirat(at, want + from, mode) == 0) {
				next = open_in_root(at, want + from, O_PATH | O_NOFOLLOW | O_DIRECTORY, RESOLVE_NO_MAGICLINKS);
			} else if (errno == EEXIST) {
				ssize_t n = readlinkat(at, want + from, link, sizeof link - 1);
				size_t tail;
				close(at);
				if (n <= 0 || ++links > 40)
					return ELOOP;
				link[n] = 0;
				want[to] = saved;
				tail = strlen(want + to);
				if (link[0] == '/') {
					if ((size_t)n + tail >= sizeof want)
						return ENAMETOOLONG;
					memmove(want + n, want + to, tail + 1);
					memcpy(want, link, (size_t)n);
				} else {
					if (from + (size_t)n + tail >= sizeof want)
						return ENAMETOOLONG;
					memmove(want + from + n, want + to, tail + 1);
					memcpy(want + from, link, (size_t)n);
				}
				goto again;
			}
		}
		if (next < 0) {
			int e = errno;
			close(at);
			return e;
		}
		close(at);
		at = next;
		want[to] = saved;
	}
	*fd = at;
	return 0;
}

int not_procfs(int fd)
{
	struct statfs fs;
	if (fstatfs(fd, &fs) < 0)
		return errno;
	return fs.f_type == PROC_SUPER_MAGIC ? EPERM : 0;
}

int is_kind(int fd, bool directory)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return errno;
	if (S_ISDIR(st.st_mode) != directory)
		return directory ? ENOTDIR : EISDIR;
	return 0;
}

/* Replaces the last part of WANT, a link in DIR, by what the link says. */
static int follow_link(int dir, char want[static PATH_MAX], size_t parent)
{
	char link[PATH_MAX];
	ssize_t n = readlinkat(dir, want + parent + 1, link, sizeof link - 1);
	if (n <= 0)
		return n < 0 && errno != EINVAL ? errno : EEXIST;
	link[n] = 0;
	parent = link[0] == '/' ? 0 : parent + 1;
	if (parent + (size_t)n >= PATH_MAX)
		return ENAMETOOLONG;
	memcpy(want + parent, link, (size_t)n + 1);
	return 0;
}

static int make_file(int dir, const char *name, int *fd)
{
	int made = openat(dir, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (made < 0)
		return errno;
	close(made);
	*fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return *fd < 0 ? errno : 0;
}

/* The mount point for a file: its parents are made, then the file; an existing one is left as it is.  What a dangling link
 * names is made, as runc does. */
int resolve_file(const char *path, int *fd)
{
	char want[PATH_MAX], *slash;
	if (strlen(path) >= sizeof want)
		return ENAMETOOLONG;
	strcpy(want, path);
	for (int links = 0; links < 40; links++) {
		int dir, e;
		*fd = open_in_root(AT_FDCWD, want, O_PATH, RESOLVE_NO_MAGICLINKS);
		if (*fd >= 0)
			return 0;
		if (errno != ENOENT)
			return errno;
		slash = strrchr(want, '/');
		if (slash == NULL || slash[1] == 0)
			return EINVAL;
		*slash = 0;
		e = resolve_directory(want, true, 0755, &dir);
		*slash = '/';
		if (e)
			return e;
		e = not_procfs(dir);
		if (!e && (e = make_file(dir, slash + 1, fd)) == EEXIST && (e = follow_link(dir, want, (size_t)(slash - want))) == 0)
			e = EAGAIN;
		close(dir);
		if (e != EAGAIN)
			return e;
	}
	return ELOOP;
}
