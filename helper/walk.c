/* Directories: a place in a tree held by descriptors, and resolution below a root.
 *
 * Another process may rename and replace anything meanwhile.  So every step opens one component relative to a directory
 * that is held, with O_NOFOLLOW, and symbolic links are resolved here, in text, from the held root.  Descriptors in use are
 * bounded (WINDOW), so a tree of any depth can be walked.
 */
#define _GNU_SOURCE
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WINDOW = 48, SYMLINKS_MAX = 40 /* path_resolution(7) */, TEXT_LIMIT = 1 << 20 };

int open_directory(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int make_directory(int at, const char *name)
{
	if (mkdirat(at, name, 0755) < 0)
		return errno;
	/* a set-group-ID parent would hand its group down */
	return fchownat(at, name, 0, 0, AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
}

static int text_room(struct text *t, size_t need)
{
	if (need <= t->cap)
		return 0;
	if (need > TEXT_LIMIT)
		return ENAMETOOLONG;
	char *more = realloc(t->bytes, need * 2);
	if (!more)
		return ENOMEM;
	t->bytes = more;
	t->cap = need * 2;
	return 0;
}

static int text_add(struct text *t, const char *part, size_t len)
{
	int e = text_room(t, t->len + len + 2);
	if (e)
		return e;
	if (t->len && len)
		t->bytes[t->len++] = '/';
	memcpy(t->bytes + t->len, part, len);
	t->len += len;
	t->bytes[t->len] = 0;
	return 0;
}

int text_set(struct text *t, const char *a, const char *b, const char *c)
{
	int e;
	t->len = 0;
	if ((e = text_add(t, a, strlen(a))) || (e = text_add(t, b, strlen(b))))
		return e;
	return text_add(t, c, strlen(c));
}

/* Take the component of `path` at *at into `name`; 0 at the end, -ENAMETOOLONG, or its length. */
static int component(const char *path, size_t *at, char name[NAME_MAX + 1])
{
	while (path[*at] == '/')
		(*at)++;
	size_t len = strcspn(path + *at, "/");
	if (len > NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(name, path + *at, len);
	name[len] = 0;
	*at += len;
	return (int)len;
}

struct resolution {
	int root, fd, links;
	bool create;
	struct text todo, next, *real;
	size_t at;
};

static void stand_on(struct resolution *r, int fd)
{
	if (r->fd != r->root)
		close(r->fd);
	r->fd = fd;
}

/* ".." of the resolved path, from the root: the kernel's own ".." could lead out of a directory that was moved. */
static int step_up(struct resolution *r)
{
	char name[NAME_MAX + 1];
	char *slash = r->real->len ? strrchr(r->real->bytes, '/') : NULL;
	r->real->len = slash ? (size_t)(slash - r->real->bytes) : 0;
	if (r->real->bytes)
		r->real->bytes[r->real->len] = 0;
	stand_on(r, r->root);
	for (size_t at = 0; r->real->len;) {
		int n = component(r->real->bytes, &at, name);
		if (n <= 0)
			return -n;
		int fd = open_directory(r->fd, name);
		if (fd < 0)
			return -fd;
		stand_on(r, fd);
	}
	return 0;
}

static int step_link(struct resolution *r, const char *name)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(r->fd, name, target, sizeof target - 1);
	if (n < 0)
		return errno == EINVAL ? ENOTDIR : errno;
	if (++r->links > SYMLINKS_MAX)
		return ELOOP;
	target[n] = 0;
	int e = text_set(&r->next, target, r->todo.bytes + r->at, "");
	if (e)
		return e;
	struct text old = r->todo;
	r->todo = r->next;
	r->next = old;
	r->at = 0;
	if (target[0] == '/') {
		r->real->len = 0;
		stand_on(r, r->root);
	}
	return 0;
}

static int step_down(struct resolution *r, const char *name, size_t len)
{
	int fd = open_directory(r->fd, name);
	if (fd == -ENOENT && r->create) {
		int e = make_directory(r->fd, name);
		if (e && e != EEXIST)
			return e;
		fd = open_directory(r->fd, name);
	}
	if (fd == -ELOOP || fd == -ENOTDIR)
		return step_link(r, name);
	if (fd < 0)
		return -fd;
	stand_on(r, fd);
	return text_add(r->real, name, len);
}

static int resolve_steps(struct resolution *r)
{
	char name[NAME_MAX + 1];
	for (;;) {
		int n = component(r->todo.bytes, &r->at, name), e = 0;
		if (n <= 0)
			return -n;
		if (!strcmp(name, ".."))
			e = step_up(r);
		else if (strcmp(name, ".") != 0)
			e = step_down(r, name, (size_t)n);
		if (e)
			return e;
	}
}

int resolve(int root, const char *path, bool create, struct text *real)
{
	struct text own = { 0 };
	struct resolution r = { .root = root, .fd = root, .create = create, .real = real ? real : &own };
	r.real->len = 0;
	int e = text_room(r.real, 1);
	if (!e) {
		r.real->bytes[0] = 0;
		e = text_set(&r.todo, path, "", "");
	}
	if (!e)
		e = resolve_steps(&r);
	if (!e && r.fd == root && (r.fd = fcntl(root, F_DUPFD_CLOEXEC, 0)) < 0)
		e = errno;
	if (e && r.fd >= 0 && r.fd != root)
		close(r.fd);
	free(own.bytes);
	free(r.todo.bytes);
	free(r.next.bytes);
	return e ? -e : r.fd;
}

int walk_start(struct walk *w, int fd)
{
	*w = (struct walk){ .root = -1, .prefix = "", .low = 1, .levels_cap = 64, .cap = 1024 };
	w->levels = calloc(w->levels_cap, sizeof *w->levels);
	w->path = calloc(1, w->cap);
	if (!w->levels || !w->path) {
		free(w->levels);
		free(w->path);
		close(fd);
		*w = (struct walk){ 0 };
		return ENOMEM;
	}
	w->levels[0].fd = fd;
	return 0;
}

static int walk_room(struct walk *w, size_t len)
{
	if (w->len + len + 2 > w->cap) {
		char *more = realloc(w->path, (w->cap + len) * 2);
		if (!more)
			return ENOMEM;
		w->path = more;
		w->cap = (w->cap + len) * 2;
	}
	if (w->depth + 1 == w->levels_cap) {
		struct level *more = realloc(w->levels, w->levels_cap * 2 * sizeof *more);
		if (!more)
			return ENOMEM;
		w->levels = more;
		w->levels_cap *= 2;
	}
	return 0;
}

int walk_push(struct walk *w, const char *name, size_t len, int fd)
{
	int e = walk_room(w, len);
	if (e) {
		close(fd);
		return e;
	}
	if (w->len)
		w->path[w->len++] = '/';
	memcpy(w->path + w->len, name, len);
	w->len += len;
	w->path[w->len] = 0;
	w->levels[++w->depth] = (struct level){ .end = w->len, .fd = fd };
	if (w->low > w->depth)
		w->low = w->depth;
	if (w->depth - w->low >= WINDOW) {
		close(w->levels[w->low].fd);
		w->levels[w->low++].fd = -1;
	}
	return 0;
}

void walk_pop(struct walk *w)
{
	if (w->levels[w->depth].fd >= 0)
		close(w->levels[w->depth].fd);
	w->depth--;
	w->len = w->levels[w->depth].end;
	w->path[w->len] = 0;
	if (w->low > w->depth + 1)
		w->low = w->depth + 1;
}

/* Open level `n` from the descriptor of the level above it. */
static int reopen(struct walk *w, int above, size_t n)
{
	char name[NAME_MAX + 1];
	size_t start = w->levels[n - 1].end + (n > 1), len = w->levels[n].end - start;
	memcpy(name, w->path + start, len);
	name[len] = 0;
	int fd = open_directory(above, name);
	if ((fd != -ELOOP && fd != -ENOTDIR) || w->root < 0)
		return fd;
	struct text full = { 0 };
	char after = w->path[w->levels[n].end];
	w->path[w->levels[n].end] = 0;
	int e = text_set(&full, w->prefix, w->path, "");
	fd = e ? -e : resolve(w->root, full.bytes, false, NULL);
	w->path[w->levels[n].end] = after;
	free(full.bytes);
	return fd;
}

int walk_fd(struct walk *w)
{
	size_t low = w->depth >= WINDOW ? w->depth - WINDOW + 1 : 1;
	if (w->levels[w->depth].fd >= 0)
		return w->levels[w->depth].fd;
	int above = w->levels[0].fd;
	for (size_t n = 1; n <= w->depth; n++) {
		int fd = reopen(w, above, n);
		if (n > 1 && n - 1 < low)
			close(above);
		if (fd < 0) {
			for (size_t k = low; k < n; k++) {
				close(w->levels[k].fd);
				w->levels[k].fd = -1;
			}
			return fd;
		}
		if (n >= low)
			w->levels[n].fd = fd;
		above = fd;
	}
	w->low = low;
	return above;
}

size_t walk_common(const struct walk *w, const char *path, size_t len)
{
	size_t same = 0, n = w->depth;
	while (same < len && same < w->len && path[same] == w->path[same])
		same++;
	while (n && (w->levels[n].end > same || (w->levels[n].end < len && path[w->levels[n].end] != '/')))
		n--;
	return n;
}

void walk_free(struct walk *w)
{
	while (w->levels && w->depth)
		walk_pop(w);
	if (w->levels)
		close(w->levels[0].fd);
	free(w->levels);
	free(w->path);
	w->levels = NULL;
	w->path = NULL;
}
