/* pack: walk the tree and write a stream of entries.
 *
 * Each directory's names are sorted bytewise, so the same tree always gives the same stream.  A file is opened by its name
 * in a held directory, never through a symbolic link, and what is sent is what the descriptor says.  What vanishes or
 * changes its type meanwhile is left out.  Memory holds the names of the directories above the current one and the first
 * name of every file with several links, which has a limit.
 *
 * With TREE_REQUESTS the stream in names what is wanted: `R` records (path, flags, size = depth: 0 is the path itself, 1
 * also what is directly inside, and so on), until `E` or the end of file.  Each answer ends with `E`, whose mode is an
 * errno when the path is not there.
 */
#define _GNU_SOURCE
#include "pack.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { SYMLINKS_MAX = 40 };

/* What open_known() says besides a descriptor and -errno. */
enum { SKIP = -100000, SPECIAL = -100001 };

#ifndef STATX_ATTR_MOUNT_ROOT /* kernel >= 5.8; older C libraries do not name it */
#define STATX_ATTR_MOUNT_ROOT 0x2000
#endif

/* d_type of getdents64(2) */
enum { DT_UNKNOWN = 0, DT_DIR = 4, DT_REG = 8 };

static int look(int at, const char *name, struct statx *st)
{
	const int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (name[0] ? 0 : AT_EMPTY_PATH);
	return syscall(SYS_statx, at, name, flags, STATX_BASIC_STATS, st) < 0 ? errno : 0;
}

static bool mounted_over(const struct pack *p, const struct statx *st)
{
	return (p->o->flags & TREE_ONE_FILE_SYSTEM) && (st->stx_attributes & STATX_ATTR_MOUNT_ROOT); /* kernel >= 5.8 */
}

/* File systems whose files are the kernel's answers: endless, blocking or different at each look (linux/magic.h). */
static bool is_kernels(const struct pack *p, int fd)
{
	static const unsigned long kinds[] = { 0x9fa0 /* proc */, 0x62656572 /* sysfs */, 0x27e0eb /* cgroup */, 0x63677270 /* cgroup2 */,
		0x1cd1 /* devpts */, 0x19800202 /* mqueue */, 0x64626720 /* debugfs */, 0x74726163 /* tracefs */, 0x73636673 /* securityfs */,
		0xcafe4a11 /* bpf */, 0x6165676c /* pstore */, 0x62656570 /* configfs */, 0x65735543 /* fusectl */, 0x42494e4d /* binfmt_misc */ };
	struct statfs fs;
	if (!(p->o->flags & TREE_NO_KERNEL) || fstatfs(fd, &fs) < 0)
		return false;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if ((unsigned long)fs.f_type == kinds[i])
			return true;
	return false;
}

/* ---- the walk ---- */

/* Open `name` when that is harmless: a descriptor of a file or directory, SPECIAL (described by *st), SKIP or -errno. */
static int open_known(int at, const char *name, int hint, struct statx *st)
{
	if (hint != DT_DIR && hint != DT_REG) {
		int e = look(at, name, st);
		if (e)
			return gone(e) ? SKIP : -e;
		if (!S_ISDIR(st->stx_mode) && !S_ISREG(st->stx_mode))
			return SPECIAL;
		hint = S_ISDIR(st->stx_mode) ? DT_DIR : DT_REG;
	}
	/* if another process put a device or pipe here, opening must at least not wait */
	int fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | (hint == DT_DIR ? O_DIRECTORY : O_NONBLOCK | O_NOCTTY));
	if (fd < 0) {
		int error = errno;
		/* a device is mounted on the file that the directory lists, or has taken its place (see OP_NO_DEVICES) */
		if (error == EACCES && look(at, name, st) == 0 && !S_ISDIR(st->stx_mode) && !S_ISREG(st->stx_mode))
			return SPECIAL;
		return gone(error) ? SKIP : -error;
	}
	int e = look(fd, "", st);
	if (e || (hint == DT_DIR ? !S_ISDIR(st->stx_mode) : !S_ISREG(st->stx_mode))) {
		close(fd);
		return e ? -e : SKIP;
	}
	return fd;
}

/* Send a directory and, within the request's depth, stand in it; takes fd. */
static int enter_directory(struct pack *p, int fd, const char *name, const struct statx *st, const char *path)
{
	bool top = !p->walk.levels;
	int e = send_directory(p, fd, st, path);
	bool stop = !top && (mounted_over(p, st) || ((st->stx_attributes & STATX_ATTR_MOUNT_ROOT) && is_kernels(p, fd)));
	if (e || stop || (top ? 0 : p->walk.depth + 1) >= p->depth) {
		close(fd);
		return e;
	}
	struct names *names;
	if ((e = list_names(fd, &names))) {
		close(fd);
		return pack_fail(p, TREE_PHASE_LIST, e, path);
	}
	e = top ? walk_start(&p->walk, fd) : walk_push(&p->walk, name, strlen(name), fd);
	if (e) {
		names_free(names);
		return pack_fail(p, TREE_PHASE_LIST, e, path);
	}
	p->walk.levels[p->walk.depth].names = names;
	return 0;
}

static int visit(struct pack *p, int at, const char *name, int hint, const char *path)
{
	struct statx st;
	int fd = open_known(at, name, hint, &st);
	if (fd == SKIP)
		return 0;
	if (fd == SPECIAL)
		return mounted_over(p, &st) ? 0 : send_special(p, at, name, &st, path);
	if (fd < 0)
		return pack_fail(p, TREE_PHASE_OPEN, -fd, path);
	if (S_ISDIR(st.stx_mode))
		return enter_directory(p, fd, name, &st, path);
	int e = 0;
	if (!p->list && is_kernels(p, fd)) /* their sizes are no sizes */
		e = pack_fail(p, TREE_PHASE_OPEN, ENOTSUP, path);
	else if (!mounted_over(p, &st))
		e = send_file(p, fd, &st, path);
	close(fd);
	return e;
}

static void forget_names(struct level *l)
{
	names_free(l->names);
	l->names = NULL;
}

static int next_name(struct pack *p)
{
	struct level *l = &p->walk.levels[p->walk.depth];
	const char *name = l->names->at[l->next++];
	int at = walk_fd(&p->walk);
	if (at < 0 && gone(-at)) {
		l->next = l->names->count;
		return 0;
	}
	int e = at < 0 ? -at : text_set(&p->full, p->label.bytes, p->walk.path, name + 1);
	return e ? pack_fail(p, TREE_PHASE_LIST, e, p->walk.path) : visit(p, at, name + 1, name[0], p->full.bytes);
}

static int walk_tree(struct pack *p)
{
	int e = 0;
	while (!e) {
		struct level *l = &p->walk.levels[p->walk.depth];
		if (l->next < l->names->count) {
			e = next_name(p);
			continue;
		}
		forget_names(l);
		if (p->walk.depth == 0)
			break;
		walk_pop(&p->walk);
	}
	for (size_t i = 0; i <= p->walk.depth; i++)
		forget_names(&p->walk.levels[i]);
	walk_free(&p->walk);
	return e;
}

/* ---- requests ---- */

/* The parent directory and last component of `full`: a descriptor and *name inside full, or -errno. */
static int split_last(struct pack *p, char *full, const char **name, struct text *real)
{
	char *slash = strrchr(full, '/');
	*name = slash ? slash + 1 : full;
	if (!**name || !strcmp(*name, ".") || !strcmp(*name, ".."))
		return -ENOTDIR;
	if (!slash)
		return resolve(p->root, "", false, real);
	*slash = 0;
	int fd = resolve(p->root, full, false, real);
	return fd;
}

/* Follow `name` in `at` while it is a symbolic link: p->full becomes what it points to; 0, or -errno. */
static int follow_last(struct pack *p, int at, const char *name, const struct text *real)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(at, name, target, sizeof target - 1);
	if (n < 0)
		return errno == EINVAL ? 0 : errno;
	target[n] = 0;
	int e = text_set(&p->full, target[0] == '/' ? "" : real->bytes, target, "");
	return e ? e : EAGAIN;
}

/* Find p->full in the root: a descriptor of its parent, and its last component copied to `last`. */
static int locate(struct pack *p, bool follow, char last[PATH_MAX])
{
	struct text real = { 0 };
	int fd = follow ? resolve(p->root, p->full.bytes, false, &real) : -ENOTDIR, e = EAGAIN;
	memcpy(last, ".", 2);
	for (int i = 0; fd == -ENOTDIR && e == EAGAIN; i++) {
		const char *name;
		fd = i == SYMLINKS_MAX ? -ELOOP : split_last(p, p->full.bytes, &name, &real);
		if (fd < 0)
			break;
		size_t len = strlen(name);
		memcpy(last, name, len < PATH_MAX ? len + 1 : 1);
		e = follow ? follow_last(p, fd, last, &real) : 0;
		if (e) {
			close(fd);
			fd = e == EAGAIN ? -ENOTDIR : -e;
		}
	}
	free(real.bytes);
	return fd;
}

static int answer(struct pack *p, const struct entry *r)
{
	char last[PATH_MAX];
	struct statx st;
	/* the base itself is followed, as any directory that a user names */
	bool follow = (r->flags & REQUEST_FOLLOW) || !r->path_len;
	int e = text_set(&p->label, r->path, "", "");
	if (e || (e = text_set(&p->full, p->o->base, r->path, "")))
		return pack_fail(p, TREE_PHASE_RESOLVE, e, r->path);
	int missing = 0, at = locate(p, follow, last);
	if (at >= 0)
		missing = look(at, last, &st);
	p->list = (p->o->flags & TREE_LIST) || (r->flags & REQUEST_LIST);
	p->depth = r->size;
	if (at >= 0 && !missing)
		e = visit(p, at, last, DT_UNKNOWN, p->label.bytes);
	if (!e && p->walk.levels)
		e = walk_tree(p);
	if (at >= 0)
		close(at);
	forget_links(p);
	missing = at < 0 ? -at : missing;
	return e ? e : send_end(p, missing, missing ? TREE_PHASE_RESOLVE : TREE_PHASE_NONE, p->label.bytes);
}

static int serve(struct pack *p)
{
	for (;;) {
		int e = source_entry(&p->in, &p->request);
		if (e == STREAM_EOF || (!e && p->request.type == 'E'))
			return 0;
		if (e || p->request.type != 'R')
			return pack_fail(p, e > 0 ? TREE_PHASE_READ : TREE_PHASE_FORMAT, e > 0 ? e : EINVAL, p->request.path);
		if ((e = answer(p, &p->request)))
			return e;
	}
}

static int start(struct pack *p, int in_fd, int out_fd)
{
	int e = sink_open(&p->out, out_fd);
	if (!e)
		e = source_open(&p->in, in_fd);
	p->root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!e && p->root < 0)
		e = errno;
	p->xattr_names = malloc(XATTR_VALUE_LIMIT);
	if (!e && !p->xattr_names)
		e = ENOMEM;
	return e ? pack_fail(p, TREE_PHASE_BASE, e, p->o->base) : 0;
}

static void release(struct pack *p)
{
	for (size_t i = 0; p->walk.levels && i <= p->walk.depth; i++)
		forget_names(&p->walk.levels[i]);
	walk_free(&p->walk);
	forget_links(p);
	if (p->root >= 0)
		close(p->root);
	free(p->in.bytes);
	free(p->out.bytes);
	free(p->xattr_names);
	free(p->e.xattrs);
	free(p->request.xattrs);
	free(p->label.bytes);
	free(p->full.bytes);
	free(p);
}

int tree_pack(int in_fd, int out_fd, struct tree_options *o)
{
	struct pack *p = calloc(1, sizeof *p);
	if (!p)
		return ENOMEM;
	signal(SIGPIPE, SIG_IGN);
	o->phase = TREE_PHASE_NONE;
	o->skipped = 0;
	memset(o->path, 0, sizeof o->path);
	p->o = o;
	p->request.size = INT64_MAX;
	int e = start(p, in_fd, out_fd);
	if (!e)
		e = o->flags & TREE_REQUESTS ? serve(p) : answer(p, &p->request);
	if (e && p->out.bytes && o->phase != TREE_PHASE_SEND)
		(void)send_failure(p, e); /* whoever reads gets it also from the helper's report */
	release(p);
	return e;
}
