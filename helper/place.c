/* apply's place in the tree: entering and leaving directories, and the metadata of what is open.
 *
 * Metadata is set in the order owner, mode, extended attributes, times, because chown(2) clears set-user-ID bits and file
 * capabilities.  A directory's modification time is set when the stream leaves it; one that is entered again gets back the
 * time that it had, so memory stays bounded whatever the order of entries.
 */
#define _GNU_SOURCE
#include "apply.h"
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

int fail_at(struct apply *a, enum tree_phase phase, int error, const char *path)
{
	if (a->o->phase == TREE_PHASE_NONE) {
		a->o->phase = phase;
		size_t len = strlen(path), room = sizeof a->o->path - 1;
		memcpy(a->o->path, path, len < room ? len : room);
	}
	return error;
}

int fail(struct apply *a, enum tree_phase phase, int error)
{
	return fail_at(a, phase, error, a->e.path);
}

int fail_read(struct apply *a, int error)
{
	if (error == STREAM_FORMAT)
		return fail(a, TREE_PHASE_FORMAT, EINVAL);
	return fail(a, TREE_PHASE_READ, error == STREAM_EOF ? EPIPE : error);
}

/* Whether what has no owner here may become root's.  A program that changes ids must not where others could run it. */
static bool may_adopt(const struct apply *a)
{
	bool program = a->e.type != 'D' && (a->e.mode & 06000);
	return (a->o->flags & TREE_BEST_EFFORT_IDS) && !(program && (a->o->flags & TREE_STRICT_SETID));
}

static int set_owner(struct apply *a, int fd)
{
	if (fchown(fd, a->e.uid, a->e.gid) == 0)
		return 0;
	/* EINVAL: the id has no mapping in this user namespace */
	if ((errno != EPERM && errno != EINVAL) || !may_adopt(a))
		return fail(a, TREE_PHASE_OWNER, errno);
	a->o->skipped++;
	int e = record_owner(fd, a->e.uid, a->e.gid);
	return e && e != ENOTSUP ? fail(a, TREE_PHASE_XATTR, e) : 0;
}

static int set_xattr(struct apply *a, int fd, const char *name, const void *value, size_t length)
{
	if (!xattr_accepted(name, a->layer ? a->o->xattr_opaque : ""))
		return fail(a, TREE_PHASE_FORMAT, EPERM);
	if (fsetxattr(fd, name, value, length, 0) == 0)
		return 0;
	bool mark = !strcmp(name, a->o->xattr_opaque);
	bool refused = errno == EPERM && (a->o->flags & TREE_BEST_EFFORT_IDS) && !strcmp(name, "security.capability");
	if (mark || (errno != ENOTSUP && !refused))
		return fail(a, TREE_PHASE_XATTR, errno);
	a->o->skipped++;
	return 0;
}

int set_xattrs(struct apply *a, int fd)
{
	char name[XATTR_NAME_LIMIT + 1];
	const unsigned char *value;
	size_t at = 0, length;
	int e = 0;
	while (!e && next_xattr(&a->e, &at, name, &value, &length))
		e = set_xattr(a, fd, name, value, length);
	return e;
}

static int drop_acl(struct apply *a, int fd, bool directory)
{
	if (fremovexattr(fd, "system.posix_acl_access") < 0 && errno != ENODATA && errno != ENOTSUP)
		return fail(a, TREE_PHASE_XATTR, errno);
	if (directory && fremovexattr(fd, "system.posix_acl_default") < 0 && errno != ENODATA && errno != ENOTSUP)
		return fail(a, TREE_PHASE_XATTR, errno);
	return 0;
}

/* Owner, mode and attributes; `made`: it is new, with the mode's permission bits if nothing was inherited. */
int set_metadata(struct apply *a, int fd, bool made, bool directory, bool inherits)
{
	int e = set_owner(a, fd);
	if (e)
		return e;
	if (made && inherits && (e = drop_acl(a, fd, directory)))
		return e;
	if ((directory || inherits || (a->e.mode & 07000)) && fchmod(fd, a->e.mode) < 0)
		return fail(a, TREE_PHASE_MODE, errno);
	return set_xattrs(a, fd);
}

/* What stands in for a device that this user may not make: an empty file of root's, of no use to anybody, that records it. */
int stand_in(struct apply *a, int at, const char *name)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = a->e.sec, .tv_nsec = a->e.nsec } };
	int fd = openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0);
	if (fd < 0)
		return fail(a, TREE_PHASE_CREATE, errno);
	int e = record_device(fd, a->e.type, a->e.rmajor, a->e.rminor, a->e.mode);
	if (!e)
		e = record_owner(fd, a->e.uid, a->e.gid);
	if (e == ENOTSUP) /* then nothing is better than a file that is none */
		e = unlinkat(at, name, 0) < 0 ? fail(a, TREE_PHASE_REMOVE, errno) : 0;
	else if (e)
		e = fail(a, TREE_PHASE_XATTR, e);
	else if (!(e = drop_acl(a, fd, false)) && !(e = set_xattrs(a, fd)) && (fchmod(fd, 0) < 0 || futimens(fd, times) < 0))
		e = fail(a, TREE_PHASE_TIME, errno);
	close(fd);
	return e;
}

struct level *here(struct apply *a)
{
	return &a->walk.levels[a->walk.depth];
}

int settle(struct apply *a)
{
	struct level *l = here(a);
	bool kept = (l->flags & LEVEL_KEEP) && (l->flags & LEVEL_CHANGED);
	if (!(l->flags & LEVEL_SET) && !kept)
		return 0;
	int fd = walk_fd(&a->walk);
	if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
		return 0; /* a later entry or another process removed it */
	if (fd < 0)
		return fail_at(a, TREE_PHASE_TIME, -fd, a->walk.path);
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, l->mtime };
	/* nobody asked to keep a time: a directory that only others may touch (a volume, say) is no failure */
	if (futimens(fd, times) < 0 && (l->flags & LEVEL_SET))
		return fail_at(a, TREE_PHASE_TIME, errno, a->walk.path);
	return 0;
}

int leave(struct apply *a)
{
	int e = settle(a);
	walk_pop(&a->walk);
	return e;
}

int note_existing(struct apply *a, int fd)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return fail(a, TREE_PHASE_PARENT, errno);
	here(a)->mtime = st.st_mtim;
	here(a)->flags = LEVEL_KEEP;
	if (fgetxattr(fd, "system.posix_acl_default", NULL, 0) > 0)
		here(a)->flags |= LEVEL_ACL;
	return 0;
}

bool is_whiteout(int at, const char *name)
{
	struct stat st;
	return fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == 0;
}

int make_opaque(struct apply *a, int fd)
{
	return set_xattr(a, fd, a->o->xattr_opaque, "y", 1);
}

/* A whiteout, then a directory of that name: what lower layers have there stays hidden (image-spec layer.md, "Whiteouts"). */
int replace_whiteout(struct apply *a, int at, const char *name)
{
	if (unlinkat(at, name, 0) < 0)
		return -fail(a, TREE_PHASE_REMOVE, errno);
	int e = make_directory(at, name);
	if (e)
		return -fail(a, TREE_PHASE_CREATE, e);
	int fd = open_directory(at, name);
	if (fd < 0)
		return -fail(a, TREE_PHASE_OPEN, -fd);
	if ((e = make_opaque(a, fd))) {
		close(fd);
		return -e;
	}
	return fd;
}

/* What a symbolic link in the place of a directory leads to, below the root. */
int follow(struct apply *a, const char *name, bool create)
{
	struct text full = { 0 };
	int e = text_set(&full, a->o->base, a->walk.path, name);
	int fd = e ? -e : resolve(a->root, full.bytes, create, NULL);
	free(full.bytes);
	return fd;
}

static int descend(struct apply *a, const char *name, size_t len, bool create)
{
	int at = walk_fd(&a->walk), fd, e;
	bool made = false;
	if (at < 0)
		return fail(a, TREE_PHASE_PARENT, -at);
	fd = open_directory(at, name);
	if (fd == -ENOENT && create) {
		if ((e = make_directory(at, name)))
			return fail(a, TREE_PHASE_PARENT, e);
		made = true;
		here(a)->flags |= LEVEL_CHANGED;
		fd = open_directory(at, name);
	} else if (fd == -ENOTDIR || fd == -ELOOP) {
		fd = a->layer && create && is_whiteout(at, name) ? replace_whiteout(a, at, name) : follow(a, name, create);
	}
	if (fd < 0)
		return create ? fail(a, TREE_PHASE_PARENT, -fd) : -fd;
	if ((e = walk_push(&a->walk, name, len, fd)))
		return fail(a, TREE_PHASE_PARENT, e);
	return made ? 0 : note_existing(a, fd);
}

/* Make the walk stand on the first `len` bytes of `path`. */
int enter(struct apply *a, const char *path, size_t len, bool create)
{
	char name[NAME_MAX + 1];
	size_t keep = a->stale ? 0 : walk_common(&a->walk, path, len);
	int e;
	while (a->walk.depth > keep)
		if ((e = leave(a)))
			return e;
	a->stale = false;
	while (a->walk.len < len) {
		size_t start = a->walk.len + (a->walk.len > 0), end = start;
		while (end < len && path[end] != '/')
			end++;
		if (end - start > NAME_MAX)
			return fail(a, TREE_PHASE_PARENT, ENAMETOOLONG);
		memcpy(name, path + start, end - start);
		name[end - start] = 0;
		if ((e = descend(a, name, end - start, create)))
			return e;
	}
	return 0;
}

/* The parent of the current entry, as a descriptor in *at, and its last component. */
int enter_parent(struct apply *a, int *at, const char **name)
{
	const char *slash = strrchr(a->e.path, '/');
	if (a->e.path_len == 0)
		return fail(a, TREE_PHASE_FORMAT, EINVAL); /* the root is a directory and stays one */
	*name = slash ? slash + 1 : a->e.path;
	int e = enter(a, a->e.path, slash ? (size_t)(slash - a->e.path) : 0, true);
	if (e)
		return e;
	*at = walk_fd(&a->walk);
	if (*at < 0)
		return fail(a, TREE_PHASE_PARENT, -*at);
	return 0;
}

/* Remove what stands where the entry goes, as archive tools do: whatever it is. */
int clear_way(struct apply *a, int at, const char *name, bool for_directory)
{
	struct stat st;
	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : fail(a, TREE_PHASE_REMOVE, errno);
	if ((a->o->flags & TREE_KEEP_TYPE) && S_ISDIR(st.st_mode) != for_directory)
		return fail(a, TREE_PHASE_CREATE, for_directory ? ENOTDIR : EISDIR);
	if (S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode))
		a->stale = true;
	int e = remove_at(at, name);
	return e ? fail(a, TREE_PHASE_REMOVE, e) : 0;
}

/* Owner and time of what cannot be opened. */
int set_by_name(struct apply *a, int at, const char *name)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = a->e.sec, .tv_nsec = a->e.nsec } };
	if (fchownat(at, name, a->e.uid, a->e.gid, AT_SYMLINK_NOFOLLOW) < 0) {
		if ((errno != EPERM && errno != EINVAL) || !(a->o->flags & TREE_BEST_EFFORT_IDS))
			return fail(a, TREE_PHASE_OWNER, errno);
		a->o->skipped++;
	}
	if (utimensat(at, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(a, TREE_PHASE_TIME, errno);
	return 0;
}

/* fchmodat(2) follows symbolic links before kernel 6.6; what was just made here is none, and a race stays in the root. */
int set_special_bits(struct apply *a, int at, const char *name)
{
	enum { FCHMODAT2 = 452 };
	if (syscall(FCHMODAT2, at, name, a->e.mode, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	return errno == ENOSYS && fchmodat(at, name, a->e.mode, 0) == 0 ? 0 : fail(a, TREE_PHASE_MODE, errno);
}

/* What the link's own entry says holds for the file, as in Docker.  Nothing is done when it says the same: chown(2) would
 * take the file's capabilities. */
int agree(struct apply *a, int at, const char *name)
{
	struct stat st;
	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(a, TREE_PHASE_LINK, errno);
	bool same = st.st_uid == a->e.uid && st.st_gid == a->e.gid && (st.st_mode & 07777) == a->e.mode &&
		st.st_mtim.tv_sec == a->e.sec && st.st_mtim.tv_nsec == (long)a->e.nsec;
	if (same || S_ISLNK(st.st_mode) || is_stand_in(at, name))
		return 0;
	int e = set_by_name(a, at, name);
	return e ? e : set_special_bits(a, at, name);
}
