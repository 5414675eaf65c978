/* pack's entries: metadata, extended attributes, contents and hard links of one file.
 *
 * What is sent of a file or directory comes from its descriptor.  Holes of at least one block stay holes.  The first name of
 * every file with several links is remembered until all were seen; that table has a limit.
 */
#define _GNU_SOURCE
#include "pack.h"
#include "record.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { LINKS_BYTES = 192 << 20, DATA_CHUNK = 1 << 17 };

struct link {
	struct link *next;
	uint64_t ino;
	uint32_t dev_major, dev_minor, left; /* names not seen yet */
	char path[];
};

int pack_fail(struct pack *p, enum tree_phase phase, int error, const char *path)
{
	if (p->o->phase == TREE_PHASE_NONE) {
		size_t len = strlen(path), room = sizeof p->o->path - 1;
		p->o->phase = phase;
		memcpy(p->o->path, path, len < room ? len : room);
	}
	return error;
}

bool gone(int error)
{
	return error == ENOENT || error == ENOTDIR || error == ELOOP || error == ENXIO || error == ESTALE;
}

/* ---- files with several names ---- */

static struct link **link_bucket(struct pack *p, const struct statx *st)
{
	uint64_t h = (st->stx_ino ^ ((uint64_t)st->stx_dev_minor << 40)) * 0x9E3779B97F4A7C15u;
	return &p->links[h >> 50];
}

static struct link **find_link(struct pack *p, const struct statx *st)
{
	struct link **at = link_bucket(p, st);
	while (*at && ((*at)->ino != st->stx_ino || (*at)->dev_major != st->stx_dev_major || (*at)->dev_minor != st->stx_dev_minor))
		at = &(*at)->next;
	return at;
}

static int remember_link(struct pack *p, const struct statx *st, const char *path)
{
	struct link **bucket = link_bucket(p, st);
	size_t size = sizeof(struct link) + strlen(path) + 1;
	if (p->links_bytes + size > LINKS_BYTES)
		return ENOBUFS;
	struct link *l = malloc(size);
	if (!l)
		return ENOMEM;
	l->next = *bucket;
	l->ino = st->stx_ino;
	l->dev_major = st->stx_dev_major;
	l->dev_minor = st->stx_dev_minor;
	l->left = st->stx_nlink - 1;
	memcpy(l->path, path, size - sizeof *l);
	*bucket = l;
	p->links_bytes += size;
	return 0;
}

static void forget_link(struct pack *p, struct link **slot)
{
	struct link *l = *slot;
	*slot = l->next;
	p->links_bytes -= sizeof *l + strlen(l->path) + 1;
	free(l);
}

void forget_links(struct pack *p)
{
	for (size_t i = 0; i < LINKS_SLOTS; i++)
		while (p->links[i])
			forget_link(p, &p->links[i]);
}

/* ---- one entry ---- */

static void describe(struct entry *e, uint8_t type, const struct statx *st)
{
	e->type = type;
	e->flags = 0;
	e->mode = st->stx_mode & 07777;
	e->uid = st->stx_uid;
	e->gid = st->stx_gid;
	e->rmajor = type == 'C' || type == 'B' ? st->stx_rdev_major : 0;
	e->rminor = type == 'C' || type == 'B' ? st->stx_rdev_minor : 0;
	e->sec = st->stx_mtime.tv_sec;
	e->nsec = st->stx_mtime.tv_nsec;
	e->size = type == 'F' ? st->stx_size : 0;
	e->nxattrs = 0;
	e->xattrs_len = 0;
}

static int send_entry(struct pack *p, const char *path, const char *link)
{
	int err;
	p->e.path_len = strlen(path);
	p->e.link_len = strlen(link);
	if (p->e.path_len > PATH_LIMIT)
		return pack_fail(p, TREE_PHASE_SEND, ENAMETOOLONG, path);
	if ((err = sink_head(&p->out, &p->e)) || (err = sink_put(&p->out, path, p->e.path_len)) ||
	    (err = sink_put(&p->out, link, p->e.link_len)) || (err = sink_put(&p->out, p->e.xattrs, p->e.xattrs_len)))
		return pack_fail(p, TREE_PHASE_SEND, err, path);
	return 0;
}

static int xattr_order(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Append one attribute to the entry as it goes on the wire. */
static int add_xattr(struct entry *e, int fd, const char *name)
{
	size_t name_len = strlen(name), need = e->xattrs_len + 8 + name_len + XATTR_VALUE_LIMIT;
	if (need > XATTRS_LIMIT + XATTR_VALUE_LIMIT)
		return E2BIG;
	if (need > e->xattrs_cap) {
		unsigned char *more = realloc(e->xattrs, need * 2);
		if (!more)
			return ENOMEM;
		e->xattrs = more;
		e->xattrs_cap = need * 2;
	}
	unsigned char *at = e->xattrs + e->xattrs_len;
	ssize_t n = fgetxattr(fd, name, at + 8 + name_len, XATTR_VALUE_LIMIT);
	/* capabilities that are no value, or belong to another user namespace, give nothing here: as if they were not there */
	if (n < 0 && (errno == EINVAL || errno == EOVERFLOW) && !strcmp(name, "security.capability"))
		return 0;
	if (n < 0)
		return errno == ENODATA ? 0 : errno;
	put32(at, (uint32_t)name_len);
	put32(at + 4, (uint32_t)n);
	memcpy(at + 8, name, name_len);
	e->xattrs_len += 8 + name_len + (size_t)n;
	e->nxattrs++;
	return 0;
}

/* A layer whose directories were renamed by reference, or files copied up without contents, is not complete by itself. */
static bool refers_below(const char *name, const char *opaque)
{
	const char *own = strrchr(opaque, '.');
	size_t len = own ? (size_t)(own - opaque) + 1 : 0;
	return len && !strncmp(name, opaque, len) && (!strcmp(name + len, "redirect") || !strcmp(name + len, "metacopy"));
}

static int collect_xattrs(struct pack *p, int fd, const char *path)
{
	char *sorted[XATTR_VALUE_LIMIT / 16];
	size_t count = 0;
	ssize_t n = flistxattr(fd, p->xattr_names, XATTR_VALUE_LIMIT);
	if (n <= 0)
		return n == 0 || errno == ENOTSUP ? 0 : pack_fail(p, TREE_PHASE_XATTR, errno, path);
	for (char *name = p->xattr_names; name < p->xattr_names + n; name += strlen(name) + 1) {
		if (refers_below(name, p->o->xattr_opaque))
			return pack_fail(p, TREE_PHASE_XATTR, ENOTSUP, path);
		if (!xattr_accepted(name, p->o->xattr_opaque))
			continue;
		if (count == sizeof sorted / sizeof *sorted)
			return pack_fail(p, TREE_PHASE_XATTR, E2BIG, path);
		sorted[count++] = name;
	}
	qsort(sorted, count, sizeof *sorted, xattr_order);
	for (size_t i = 0; i < count; i++) {
		int e = add_xattr(&p->e, fd, sorted[i]);
		if (e)
			return pack_fail(p, TREE_PHASE_XATTR, e, path);
	}
	return 0;
}

/* ---- contents ---- */

/* Send [offset, end) in chunks; a file that shrank just has fewer. */
static int send_range(struct pack *p, int fd, uint64_t offset, uint64_t end, const char *path)
{
	while (offset < end) {
		size_t want = end - offset < DATA_CHUNK ? (size_t)(end - offset) : DATA_CHUNK;
		if (STREAM_BUFFER - p->out.used < CHUNK_HEAD + want) {
			int e = sink_flush(&p->out);
			if (e)
				return pack_fail(p, TREE_PHASE_SEND, e, path);
		}
		unsigned char *head = p->out.bytes + p->out.used;
		ssize_t n = pread(fd, head + CHUNK_HEAD, want, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pack_fail(p, TREE_PHASE_OPEN, errno, path);
		if (n == 0)
			return 0;
		put64(head, offset);
		put32(head + 8, (uint32_t)n);
		p->out.used += CHUNK_HEAD + (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int send_sparse(struct pack *p, int fd, uint64_t size, const char *path)
{
	uint64_t at = 0;
	while (at < size) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO ? 0 : pack_fail(p, TREE_PHASE_OPEN, errno, path);
		off_t hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return errno == ENXIO ? 0 : pack_fail(p, TREE_PHASE_OPEN, errno, path);
		uint64_t start = (uint64_t)data - at < BLOCK ? at : (uint64_t)data;
		uint64_t end = (uint64_t)hole < size ? (uint64_t)hole : size;
		int e = send_range(p, fd, start, end, path);
		if (e)
			return e;
		at = (uint64_t)hole;
	}
	return 0;
}

static int send_contents(struct pack *p, int fd, const struct statx *st, const char *path)
{
	static const unsigned char last[CHUNK_HEAD];
	bool sparse = st->stx_blocks * 512 < st->stx_size;
	p->in_data = true;
	int e = sparse ? send_sparse(p, fd, st->stx_size, path) : send_range(p, fd, 0, st->stx_size, path);
	if (e)
		return e;
	p->in_data = false;
	e = sink_put(&p->out, last, sizeof last);
	return e ? pack_fail(p, TREE_PHASE_SEND, e, path) : 0;
}

/* The end of an answer; `error` says why there is none. */
int send_end(struct pack *p, int error, enum tree_phase phase, const char *path)
{
	size_t len = strlen(path);
	p->e.path_len = len < sizeof p->o->path ? len : sizeof p->o->path - 1;
	p->e.link_len = 0;
	p->e.nxattrs = p->e.nsec = p->e.uid = p->e.gid = p->e.rminor = 0;
	p->e.sec = 0;
	p->e.size = 0;
	p->e.type = 'E';
	p->e.flags = 0;
	p->e.mode = (uint32_t)error;
	p->e.rmajor = phase;
	int e = sink_head(&p->out, &p->e);
	if (!e)
		e = sink_put(&p->out, path, p->e.path_len);
	if (!e)
		e = sink_flush(&p->out);
	return e ? pack_fail(p, TREE_PHASE_SEND, e, path) : 0;
}

int send_failure(struct pack *p, int error)
{
	unsigned char chunk[CHUNK_HEAD] = { 0 };
	put32(chunk + 8, CHUNK_ABORT);
	if (p->in_data && sink_put(&p->out, chunk, sizeof chunk))
		return EPIPE;
	return send_end(p, error, p->o->phase, p->o->path);
}

/* ---- types ---- */

/* What apply recorded of a file that is open; true: it stands in for a device. */
static bool recall(struct pack *p, int fd)
{
	if (!(p->o->flags & TREE_RECORDED) || fd < 0)
		return false;
	recall_owner(fd, &p->e);
	return recall_device(fd, &p->e);
}

/* Send a further name of a file that was sent: 1 when done, 0 when it is the first, negative errno.  Its entry says of the
 * file what the first one says, because whoever unpacks it may believe the last. */
static int send_if_linked(struct pack *p, int fd, const struct statx *st, const char *path)
{
	if (st->stx_nlink < 2)
		return 0;
	struct link **slot = find_link(p, st);
	if (!*slot) {
		int e = remember_link(p, st, path);
		return e ? -pack_fail(p, TREE_PHASE_LINK, e, path) : 0;
	}
	describe(&p->e, 'H', st);
	if (recall(p, fd)) {
		p->e.type = 'H';
		p->e.rmajor = p->e.rminor = 0;
	}
	int e = send_entry(p, path, (*slot)->path);
	if (--(*slot)->left == 0)
		forget_link(p, slot);
	return e ? -e : 1;
}

int send_directory(struct pack *p, int fd, const struct statx *st, const char *path)
{
	describe(&p->e, 'D', st);
	recall(p, fd);
	int e = collect_xattrs(p, fd, path);
	return e ? e : send_entry(p, path, "");
}

int send_file(struct pack *p, int fd, const struct statx *st, const char *path)
{
	int e = send_if_linked(p, fd, st, path);
	if (e)
		return e < 0 ? -e : 0;
	describe(&p->e, 'F', st);
	if (recall(p, fd))
		return send_entry(p, path, "");
	p->e.flags = p->list ? ENTRY_NO_DATA : 0;
	if ((e = collect_xattrs(p, fd, path)) || (e = send_entry(p, path, "")))
		return e;
	return p->list ? 0 : send_contents(p, fd, st, path);
}

static int send_symlink(struct pack *p, int at, const char *name, const struct statx *st, const char *path)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(at, name, target, sizeof target - 1);
	if (n < 0)
		return errno == EINVAL || gone(errno) ? 0 : pack_fail(p, TREE_PHASE_OPEN, errno, path);
	target[n] = 0;
	int e = send_if_linked(p, -1, st, path);
	if (e)
		return e < 0 ? -e : 0;
	describe(&p->e, 'L', st);
	return send_entry(p, path, target);
}

int send_special(struct pack *p, int at, const char *name, const struct statx *st, const char *path)
{
	uint8_t type = S_ISCHR(st->stx_mode) ? 'C' : S_ISBLK(st->stx_mode) ? 'B' : 'P';
	if (S_ISLNK(st->stx_mode))
		return send_symlink(p, at, name, st, path);
	if (S_ISSOCK(st->stx_mode))
		return 0; /* no archive format has sockets */
	/* overlay gives all its whiteouts one inode (kernel >= 5.8): they are not links of each other */
	bool whiteout = type == 'C' && st->stx_rdev_major == 0 && st->stx_rdev_minor == 0;
	int e = whiteout ? 0 : send_if_linked(p, -1, st, path);
	if (e)
		return e < 0 ? -e : 0;
	describe(&p->e, type, st);
	return send_entry(p, path, "");
}
