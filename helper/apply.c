/* apply: perform a stream of entries below the root.
 *
 * The place in the stream is a walk: the directories above the current entry are held open, so a file costs no path
 * look-up.  Nothing is ever done through a path: parents are descriptors, last components are never followed.  What stands
 * in the way of an entry is removed, as archive tools do; an existing directory is kept for a directory.
 */
#define _GNU_SOURCE
#include "apply.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

/* What an existing name of a directory entry stands for: a descriptor or -errno; *made tells a new directory. */
static int take_over(struct apply *a, int at, const char *name, bool *made)
{
	int fd = open_directory(at, name), e;
	if (fd != -ENOTDIR && fd != -ELOOP)
		return fd < 0 ? -fail(a, TREE_PHASE_OPEN, -fd) : fd;
	if (a->layer && is_whiteout(at, name)) {
		*made = true;
		return replace_whiteout(a, at, name);
	}
	if ((a->e.flags & ENTRY_KEEP) && (fd = follow(a, name, true)) != -ENOTDIR)
		return fd < 0 ? -fail(a, TREE_PHASE_OPEN, -fd) : fd;
	if ((e = clear_way(a, at, name, true)))
		return -e;
	if (mkdirat(at, name, a->e.mode & 0777) < 0)
		return -fail(a, TREE_PHASE_CREATE, errno);
	*made = true;
	fd = open_directory(at, name);
	return fd < 0 ? -fail(a, TREE_PHASE_OPEN, -fd) : fd;
}

static int open_entry_directory(struct apply *a, int at, const char *name, bool *made)
{
	*made = mkdirat(at, name, a->e.mode & 0777) == 0;
	if (!*made && errno != EEXIST)
		return -fail(a, TREE_PHASE_CREATE, errno);
	if (!*made)
		return take_over(a, at, name, made);
	int fd = open_directory(at, name);
	return fd < 0 ? -fail(a, TREE_PHASE_OPEN, -fd) : fd;
}

static int do_directory(struct apply *a)
{
	int at, fd, e;
	const char *name;
	bool made = false, inherits = false;
	if (a->e.path_len) {
		if ((e = enter_parent(a, &at, &name)))
			return e;
		inherits = here(a)->flags & LEVEL_ACL;
		if ((fd = open_entry_directory(a, at, name, &made)) < 0)
			return -fd;
		if (made) /* an existing one must not make its parent be copied up from a lower layer */
			here(a)->flags |= LEVEL_CHANGED;
		if ((e = walk_push(&a->walk, name, strlen(name), fd)))
			return fail(a, TREE_PHASE_OPEN, e);
	} else {
		if ((e = enter(a, "", 0, false)))
			return e;
		fd = walk_fd(&a->walk); /* its time was noted at the start */
	}
	if (a->e.path_len && !made && (e = note_existing(a, fd)))
		return e;
	if (!made && (a->e.flags & ENTRY_KEEP))
		return set_xattrs(a, fd);
	here(a)->mtime = (struct timespec){ .tv_sec = a->e.sec, .tv_nsec = a->e.nsec };
	here(a)->flags |= LEVEL_SET;
	if ((e = set_metadata(a, fd, made, true, inherits)))
		return e;
	if (a->e.nxattrs && fgetxattr(fd, "system.posix_acl_default", NULL, 0) > 0)
		here(a)->flags |= LEVEL_ACL;
	return 0;
}

static bool is_zero(const unsigned char *p)
{
	return p[0] == 0 && memcmp(p, p + 1, BLOCK - 1) == 0;
}

/* Write the bytes at `offset`, leaving out aligned blocks of zeros. */
static int write_sparse(int fd, const unsigned char *p, size_t count, uint64_t offset, uint64_t *end)
{
	while (count) {
		size_t part = BLOCK - (size_t)(offset % BLOCK);
		part = part < count ? part : count;
		if (part == BLOCK && is_zero(p)) {
			p += part, count -= part, offset += part;
			continue;
		}
		while (part < count && !(count - part >= BLOCK && is_zero(p + part)))
			part += count - part < BLOCK ? count - part : BLOCK;
		ssize_t n = pwrite(fd, p, part, (off_t)offset);
		if (n < 0 && errno != EINTR)
			return errno;
		if (n > 0)
			p += n, count -= (size_t)n, offset += (size_t)n, *end = offset;
	}
	return 0;
}

static int receive_chunk(struct apply *a, int fd, uint64_t offset, size_t left, uint64_t *end)
{
	while (left) {
		int e = source_need(&a->in, left < BLOCK ? left : BLOCK);
		if (e)
			return fail_read(a, e);
		size_t part = a->in.end - a->in.at;
		if (part >= left)
			part = left;
		else if ((offset + part) % BLOCK < part)
			part -= (offset + part) % BLOCK; /* the rest of the block comes with the next read */
		if ((e = write_sparse(fd, a->in.bytes + a->in.at, part, offset, end)))
			return fail(a, TREE_PHASE_WRITE, e);
		a->in.at += part;
		offset += part;
		left -= part;
	}
	return 0;
}

static int receive(struct apply *a, int fd)
{
	uint64_t offset, past = 0, end = 0;
	uint32_t length;
	int e;
	for (;;) {
		if ((e = source_chunk(&a->in, &offset, &length)))
			return fail_read(a, e);
		if (length == 0)
			break;
		if (offset < past || offset > a->e.size || length > a->e.size - offset)
			return fail(a, TREE_PHASE_FORMAT, EINVAL);
		past = offset + length;
		if ((e = receive_chunk(a, fd, offset, length, &end)))
			return e;
	}
	if (end != a->e.size && ftruncate(fd, (off_t)a->e.size) < 0)
		return fail(a, TREE_PHASE_WRITE, errno);
	return 0;
}

/* The disk works while the rest arrives, so that the syncfs() at the end has less to wait for.  Small files are not worth a
 * system call; what a file system cannot start early, it writes then. */
static int write_back(struct apply *a, int fd)
{
	if (!(a->o->flags & TREE_WRITEBACK) || a->e.size < WRITEBACK_SIZE)
		return 0;
	if (sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE) == 0 || (errno != EIO && errno != ENOSPC && errno != EDQUOT))
		return 0;
	return fail(a, TREE_PHASE_WRITE, errno);
}

static int do_file(struct apply *a)
{
	const int how = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	int at, e;
	const char *name;
	if (a->e.flags & ENTRY_NO_DATA)
		return fail(a, TREE_PHASE_FORMAT, EINVAL);
	if ((e = enter_parent(a, &at, &name)))
		return e;
	here(a)->flags |= LEVEL_CHANGED;
	int fd = openat(at, name, how, a->e.mode & 0777);
	if (fd < 0 && errno == EEXIST) {
		if ((e = clear_way(a, at, name, false)))
			return e;
		fd = openat(at, name, how, a->e.mode & 0777);
	}
	if (fd < 0)
		return fail(a, TREE_PHASE_CREATE, errno);
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = a->e.sec, .tv_nsec = a->e.nsec } };
	e = receive(a, fd);
	if (!e)
		e = write_back(a, fd);
	if (!e)
		e = set_metadata(a, fd, true, false, here(a)->flags & LEVEL_ACL);
	if (!e && futimens(fd, times) < 0)
		e = fail(a, TREE_PHASE_TIME, errno);
	if (close(fd) < 0 && !e)
		e = fail(a, TREE_PHASE_WRITE, errno);
	return e;
}

static int do_symlink(struct apply *a)
{
	int at, e;
	const char *name;
	if ((e = enter_parent(a, &at, &name)))
		return e;
	here(a)->flags |= LEVEL_CHANGED;
	if (symlinkat(a->e.link, at, name) < 0) {
		if (errno != EEXIST)
			return fail(a, TREE_PHASE_CREATE, errno);
		if ((e = clear_way(a, at, name, false)))
			return e;
		if (symlinkat(a->e.link, at, name) < 0)
			return fail(a, TREE_PHASE_CREATE, errno);
	}
	return set_by_name(a, at, name);
}

static int device_type(uint8_t type)
{
	return type == 'B' ? S_IFBLK : type == 'C' ? S_IFCHR : S_IFIFO;
}

static int do_special(struct apply *a)
{
	const mode_t mode = (mode_t)device_type(a->e.type) | (a->e.mode & 0777);
	const dev_t device = a->e.type == 'P' ? 0 : makedev(a->e.rmajor, a->e.rminor);
	int at, e;
	const char *name;
	if ((e = enter_parent(a, &at, &name)) || (e = clear_way(a, at, name, false)))
		return e;
	here(a)->flags |= LEVEL_CHANGED;
	if (mknodat(at, name, mode, device) < 0) {
		if (errno != EPERM || a->e.type == 'P' || !(a->o->flags & TREE_BEST_EFFORT_NODES))
			return fail(a, TREE_PHASE_CREATE, errno);
		a->o->skipped++;
		return stand_in(a, at, name);
	}
	/* a default ACL masks the bits at creation; chown clears the special ones */
	if ((e = set_by_name(a, at, name)))
		return e;
	return (a->e.mode & 07000) || (here(a)->flags & LEVEL_ACL) ? set_special_bits(a, at, name) : 0;
}

/* C 0/0 in a layer: what lower layers have is hidden, what this layer has stays (image-spec layer.md, "Whiteouts"). */
static int do_layer_whiteout(struct apply *a)
{
	int at, e;
	const char *name;
	if ((e = enter_parent(a, &at, &name)))
		return e;
	here(a)->flags |= LEVEL_CHANGED;
	if (mknodat(at, name, S_IFCHR, 0) == 0)
		return 0;
	if (errno != EEXIST)
		return fail(a, TREE_PHASE_CREATE, errno);
	int fd = open_directory(at, name);
	if (fd == -ENOTDIR || fd == -ELOOP)
		return 0; /* a file hides what is below it anyway */
	if (fd < 0)
		return fail(a, TREE_PHASE_OPEN, -fd);
	e = make_opaque(a, fd);
	close(fd);
	return e;
}

static bool same_file(int at, const char *name, int other_at, const char *other)
{
	struct stat one, two;
	return fstatat(at, name, &one, AT_SYMLINK_NOFOLLOW) == 0 && fstatat(other_at, other, &two, AT_SYMLINK_NOFOLLOW) == 0 &&
		one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

static int link_from(struct apply *a, int from_at, const char *from)
{
	int at, e;
	const char *name;
	if ((e = enter_parent(a, &at, &name)))
		return e;
	here(a)->flags |= LEVEL_CHANGED;
	if (linkat(from_at, from, at, name, 0) < 0) {
		if (errno != EEXIST)
			return fail(a, TREE_PHASE_LINK, errno);
		if (same_file(from_at, from, at, name))
			return 0;
		if ((e = clear_way(a, at, name, false)))
			return e;
		if (linkat(from_at, from, at, name, 0) < 0)
			return fail(a, TREE_PHASE_LINK, errno);
	}
	return agree(a, at, name);
}

/* The link's target is found as its parent directory, through links in the root, and a last component never followed. */
static int do_hard_link(struct apply *a)
{
	struct text full = { 0 };
	char *slash = strrchr(a->e.link, '/');
	if (slash)
		*slash = 0;
	int e = text_set(&full, a->o->base, slash ? a->e.link : "", "");
	int from_at = e ? -e : resolve(a->root, full.bytes, false, NULL);
	free(full.bytes);
	if (from_at < 0)
		return fail(a, TREE_PHASE_LINK, -from_at);
	e = link_from(a, from_at, slash ? slash + 1 : a->e.link);
	close(from_at);
	return e;
}

static int remove_children(struct apply *a)
{
	int e = enter(a, a->e.path, a->e.path_len, false);
	if (e == ENOENT || e == ENOTDIR)
		return 0;
	int fd = e ? -e : walk_fd(&a->walk);
	if (fd < 0)
		return fail(a, TREE_PHASE_PARENT, -fd);
	here(a)->flags |= LEVEL_CHANGED;
	a->stale = true;
	e = remove_below(fd);
	return e ? fail(a, TREE_PHASE_REMOVE, e) : 0;
}

static int do_removal(struct apply *a)
{
	const char *slash = strrchr(a->e.path, '/');
	if (!(a->o->flags & TREE_MERGE) || (a->e.path_len == 0 && !(a->e.flags & ENTRY_CHILDREN)))
		return fail(a, TREE_PHASE_FORMAT, EINVAL);
	if (a->e.flags & ENTRY_CHILDREN)
		return remove_children(a);
	int e = enter(a, a->e.path, slash ? (size_t)(slash - a->e.path) : 0, false);
	if (e == ENOENT || e == ENOTDIR)
		return 0; /* nothing is there, nothing is removed */
	int at = e ? -e : walk_fd(&a->walk);
	if (at < 0)
		return fail(a, TREE_PHASE_PARENT, -at);
	here(a)->flags |= LEVEL_CHANGED;
	a->stale = true;
	e = remove_at(at, slash ? slash + 1 : a->e.path);
	return e ? fail(a, TREE_PHASE_REMOVE, e) : 0;
}

static int do_entry(struct apply *a)
{
	switch (a->e.type) {
	case 'D': return do_directory(a);
	case 'F': return do_file(a);
	case 'L': return do_symlink(a);
	case 'H': return do_hard_link(a);
	case 'C': return a->layer && a->e.rmajor == 0 && a->e.rminor == 0 ? do_layer_whiteout(a) : do_special(a);
	case 'B':
	case 'P': return do_special(a);
	case 'W': return do_removal(a);
	default: return fail(a, TREE_PHASE_FORMAT, EINVAL);
	}
}

static int finish(struct apply *a)
{
	int e = enter(a, "", 0, false);
	if (!e)
		e = settle(a);
	if (!e && (a->o->flags & TREE_SYNC) && syncfs(a->walk.levels[0].fd) < 0)
		e = fail(a, TREE_PHASE_SYNC, errno);
	return e;
}

static int do_stream(struct apply *a)
{
	for (;;) {
		int e = source_entry(&a->in, &a->e);
		if (e)
			return fail_read(a, e);
		if (a->e.type == 'E')
			return finish(a);
		if ((e = do_entry(a)))
			return e;
	}
}

static int start(struct apply *a, int in_fd)
{
	int e;
	umask(0);
	a->walk.levels = NULL;
	a->root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (a->root < 0)
		return fail(a, TREE_PHASE_BASE, errno);
	int base = resolve(a->root, a->o->base, a->o->flags & TREE_CREATE_BASE, NULL);
	if (base < 0)
		return fail_at(a, TREE_PHASE_BASE, -base, a->o->base);
	if ((e = walk_start(&a->walk, base)) || (e = source_open(&a->in, in_fd)))
		return fail(a, TREE_PHASE_BASE, e);
	a->walk.root = a->root;
	a->walk.prefix = a->o->base;
	return note_existing(a, base);
}

int tree_apply(int in_fd, struct tree_options *o)
{
	struct apply *a = calloc(1, sizeof *a);
	if (!a)
		return ENOMEM;
	signal(SIGPIPE, SIG_IGN);
	o->phase = TREE_PHASE_NONE;
	o->skipped = 0;
	memset(o->path, 0, sizeof o->path);
	a->o = o;
	a->layer = !(o->flags & TREE_MERGE) && o->xattr_opaque[0];
	int e = start(a, in_fd);
	if (!e)
		e = do_stream(a);
	free(a->in.bytes);
	free(a->e.xattrs);
	walk_free(&a->walk);
	if (a->root >= 0)
		close(a->root);
	free(a);
	return e;
}
