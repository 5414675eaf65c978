/* Tree streams: bounded buffers and the entry records in them.
 *
 * Every number that arrives is checked here, before anything acts on it.  What Python sends was made from archives that
 * strangers wrote, so nothing of it is trusted.
 */
#define _GNU_SOURCE
#include "record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint32_t get32(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get64(const unsigned char *p)
{
	return (uint64_t)get32(p) | (uint64_t)get32(p + 4) << 32;
}

void put32(unsigned char *to, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		to[i] = (unsigned char)(value >> (8 * i));
}

void put64(unsigned char *to, uint64_t value)
{
	put32(to, (uint32_t)value);
	put32(to + 4, (uint32_t)(value >> 32));
}

int source_open(struct source *s, int fd)
{
	*s = (struct source){ .fd = fd, .bytes = malloc(STREAM_BUFFER) };
	return s->bytes ? 0 : ENOMEM;
}

int source_need(struct source *s, size_t count)
{
	if (s->end - s->at >= count)
		return 0;
	if (count > STREAM_BUFFER)
		return EMSGSIZE;
	memmove(s->bytes, s->bytes + s->at, s->end - s->at);
	s->end -= s->at;
	s->at = 0;
	while (s->end < count) {
		ssize_t n = read(s->fd, s->bytes + s->end, STREAM_BUFFER - s->end);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0)
			return s->end ? EPIPE : STREAM_EOF;
		s->end += (size_t)n;
	}
	return 0;
}

int source_copy(struct source *s, void *to, size_t count)
{
	unsigned char *p = to;
	while (count) {
		size_t part = count < STREAM_BUFFER ? count : STREAM_BUFFER;
		int e = source_need(s, part);
		if (e)
			return e == STREAM_EOF ? EPIPE : e;
		memcpy(p, s->bytes + s->at, part);
		s->at += part;
		p += part;
		count -= part;
	}
	return 0;
}

/* A relative path of plain components: no "", ".", "..", no NUL, no slash at either end. */
static bool plain_path(const char *path, size_t len)
{
	size_t start = 0;
	if (memchr(path, 0, len))
		return false;
	for (size_t i = 0; len && i <= len; i++) {
		if (i < len && path[i] != '/')
			continue;
		size_t part = i - start;
		if (part == 0 || (part == 1 && path[start] == '.') || (part == 2 && path[start] == '.' && path[start + 1] == '.'))
			return false;
		start = i + 1;
	}
	return true;
}

static bool fields_valid(const struct entry *e)
{
	/* 2^32-1 means "leave as it is" to chown(2): an owner that would silently not be set */
	if (e->uid == UINT32_MAX || e->gid == UINT32_MAX || e->mode > 07777 || e->nsec >= 1000000000u)
		return false;
	/* Linux keeps 12 bits of major and 20 of minor: others would name another device */
	if (e->rmajor >= 1u << 12 || e->rminor >= 1u << 20 || e->size > INT64_MAX)
		return false;
	if (e->path_len > PATH_LIMIT || e->link_len > (e->type == 'H' ? (size_t)PATH_LIMIT : (size_t)LINK_LIMIT))
		return false;
	return (e->link_len > 0) == (e->type == 'H' || e->type == 'L') && (!e->nxattrs || e->type == 'F' || e->type == 'D');
}

static int read_xattrs(struct source *s, struct entry *e)
{
	unsigned char head[8];
	e->xattrs_len = 0;
	for (uint32_t i = 0; i < e->nxattrs; i++) {
		int err = source_copy(s, head, sizeof head);
		if (err)
			return err;
		size_t name = get32(head), value = get32(head + 4);
		if (name == 0 || name > XATTR_NAME_LIMIT || value > XATTR_VALUE_LIMIT)
			return STREAM_FORMAT;
		size_t total = e->xattrs_len + sizeof head + name + value;
		if (total > XATTRS_LIMIT)
			return STREAM_FORMAT;
		if (total > e->xattrs_cap) {
			unsigned char *more = realloc(e->xattrs, total * 2);
			if (!more)
				return ENOMEM;
			e->xattrs = more;
			e->xattrs_cap = total * 2;
		}
		memcpy(e->xattrs + e->xattrs_len, head, sizeof head);
		err = source_copy(s, e->xattrs + e->xattrs_len + sizeof head, name + value);
		if (err)
			return err;
		e->xattrs_len = total;
	}
	return 0;
}

int source_entry(struct source *s, struct entry *e)
{
	e->path_len = e->link_len = 0;
	e->path[0] = e->link[0] = 0;
	int err = source_need(s, HEAD_SIZE);
	if (err)
		return err;
	const unsigned char *p = s->bytes + s->at;
	e->type = p[0];
	e->flags = p[1];
	e->mode = get32(p + 4);
	e->uid = get32(p + 8);
	e->gid = get32(p + 12);
	e->rmajor = get32(p + 16);
	e->rminor = get32(p + 20);
	e->sec = (int64_t)get64(p + 24);
	e->nsec = get32(p + 32);
	e->nxattrs = get32(p + 36);
	e->size = get64(p + 40);
	e->path_len = get32(p + 48);
	e->link_len = get32(p + 52);
	s->at += HEAD_SIZE;
	if (!fields_valid(e)) {
		e->path_len = 0;
		return STREAM_FORMAT;
	}
	if ((err = source_copy(s, e->path, e->path_len)) || (err = source_copy(s, e->link, e->link_len)))
		return err;
	e->path[e->path_len] = e->link[e->link_len] = 0;
	if (!plain_path(e->path, e->path_len) || memchr(e->link, 0, e->link_len))
		return STREAM_FORMAT;
	if (e->type == 'H' && !plain_path(e->link, e->link_len))
		return STREAM_FORMAT;
	return read_xattrs(s, e);
}

int source_chunk(struct source *s, uint64_t *offset, uint32_t *length)
{
	int e = source_need(s, CHUNK_HEAD);
	if (e)
		return e == STREAM_EOF ? EPIPE : e;
	*offset = get64(s->bytes + s->at);
	*length = get32(s->bytes + s->at + 8);
	s->at += CHUNK_HEAD;
	return 0;
}

bool next_xattr(const struct entry *e, size_t *at, char name[XATTR_NAME_LIMIT + 1], const unsigned char **value, size_t *length)
{
	if (*at >= e->xattrs_len)
		return false;
	const unsigned char *p = e->xattrs + *at;
	size_t name_len = get32(p);
	memcpy(name, p + 8, name_len);
	name[name_len] = 0;
	*length = get32(p + 4);
	*value = p + 8 + name_len;
	*at += 8 + name_len + *length;
	return true;
}

bool xattr_accepted(const char *name, const char *opaque)
{
	if (opaque[0] && !strcmp(name, opaque))
		return true;
	if (!strncmp(name, "user.", 5))
		return strncmp(name, "user.overlay.", 13) != 0 && strncmp(name, RECORD_PREFIX, strlen(RECORD_PREFIX)) != 0;
	return !strcmp(name, "security.capability") || !strcmp(name, "system.posix_acl_access") ||
		!strcmp(name, "system.posix_acl_default");
}

int sink_open(struct sink *s, int fd)
{
	*s = (struct sink){ .fd = fd, .bytes = malloc(STREAM_BUFFER) };
	return s->bytes ? 0 : ENOMEM;
}

int sink_flush(struct sink *s)
{
	size_t done = 0;
	while (done < s->used) {
		ssize_t n = write(s->fd, s->bytes + done, s->used - done);
		if (n < 0 && errno != EINTR)
			return errno;
		if (n > 0)
			done += (size_t)n;
	}
	s->used = 0;
	return 0;
}

int sink_put(struct sink *s, const void *bytes, size_t count)
{
	const unsigned char *p = bytes;
	while (count) {
		size_t part = STREAM_BUFFER - s->used;
		if (part == 0) {
			int e = sink_flush(s);
			if (e)
				return e;
			continue;
		}
		if (part > count)
			part = count;
		memcpy(s->bytes + s->used, p, part);
		s->used += part;
		p += part;
		count -= part;
	}
	return 0;
}

int sink_head(struct sink *s, const struct entry *e)
{
	unsigned char p[HEAD_SIZE] = { e->type, e->flags };
	put32(p + 4, e->mode);
	put32(p + 8, e->uid);
	put32(p + 12, e->gid);
	put32(p + 16, e->rmajor);
	put32(p + 20, e->rminor);
	put64(p + 24, (uint64_t)e->sec);
	put32(p + 32, e->nsec);
	put32(p + 36, e->nxattrs);
	put64(p + 40, e->size);
	put32(p + 48, (uint32_t)e->path_len);
	put32(p + 52, (uint32_t)e->link_len);
	return sink_put(s, p, sizeof p);
}
