/* What is inside a directory: its names in order, and its removal at any depth with bounded memory and descriptors. */
#define _GNU_SOURCE
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* getdents64(2): the C library's own reader would add a buffer and an allocation per directory. */
static ssize_t read_names(int fd, char *buffer, size_t size)
{
	long n = syscall(SYS_getdents64, fd, buffer, size);
	return n < 0 ? -errno : (ssize_t)n;
}

struct dirent_head {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
} __attribute__((packed));

enum { DIRENT_NAME = sizeof(struct dirent_head), NAMES_BUFFER = 32768 };

static bool dots(const char *name)
{
	return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
}

/* Remove what can be removed of the last level: *into is a directory to empty first, or "".  Somebody else may be doing the
 * same: what is gone, is gone, and so is what was in a directory that is (getdents64(2): ENOENT). */
static int remove_files(int fd, char into[NAME_MAX + 1])
{
	char buffer[NAMES_BUFFER] __attribute__((aligned(8)));
	ssize_t n;
	into[0] = 0;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return errno;
	while ((n = read_names(fd, buffer, sizeof buffer)) > 0) {
		struct dirent_head head;
		for (char *p = buffer; p < buffer + n; p += head.reclen) {
			memcpy(&head, p, sizeof head);
			const char *name = p + DIRENT_NAME;
			if (dots(name) || unlinkat(fd, name, 0) == 0 || errno == ENOENT)
				continue;
			if (errno != EISDIR)
				return errno;
			if (unlinkat(fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
				continue;
			if (errno != ENOTEMPTY && errno != EEXIST)
				return errno;
			memcpy(into, name, strlen(name) + 1);
			return 0;
		}
	}
	return n == -ENOENT ? 0 : (int)-n;
}

static int remove_levels(struct walk *w)
{
	char name[NAME_MAX + 1];
	for (;;) {
		int fd = walk_fd(w), e;
		if (fd == -ENOENT && w->depth > 0) {
			walk_pop(w);
			continue;
		}
		if (fd < 0)
			return -fd;
		if ((e = remove_files(fd, name)))
			return e;
		if (name[0]) {
			int below = open_directory(fd, name);
			if (below == -ENOENT || below == -ENOTDIR || below == -ELOOP)
				continue; /* someone else removed or replaced it: look again */
			if (below < 0 || (e = walk_push(w, name, strlen(name), below)))
				return below < 0 ? -below : e;
		} else if (w->depth == 0) {
			return 0;
		} else {
			walk_pop(w); /* it is empty now: the next look at its parent removes it */
		}
	}
}

int remove_below(int fd)
{
	struct walk w;
	int copy = open_directory(fd, "."); /* own offset for reading names */
	if (copy < 0)
		return copy == -ENOENT ? 0 : -copy;
	int e = walk_start(&w, copy);
	if (!e)
		e = remove_levels(&w);
	walk_free(&w);
	return e;
}

int remove_at(int at, const char *name)
{
	if (unlinkat(at, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR)
		return errno;
	if (unlinkat(at, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST)
		return errno;
	int fd = open_directory(at, name);
	if (fd < 0)
		return fd == -ENOENT ? 0 : -fd;
	int e = remove_below(fd);
	close(fd);
	if (!e && unlinkat(at, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		e = errno;
	return e;
}

/* The bytes of all names, each behind its d_type. */
static int collect(int fd, struct names *list, size_t *used)
{
	char buffer[NAMES_BUFFER] __attribute__((aligned(8)));
	size_t cap = 0;
	ssize_t n;
	while ((n = read_names(fd, buffer, sizeof buffer)) > 0) {
		if (!list->bytes || *used + (size_t)n > cap) { /* what is kept of a record is shorter than the record */
			cap = cap ? cap * 2 : 4096;
			cap = cap < *used + (size_t)n ? *used + (size_t)n : cap;
			char *more = realloc(list->bytes, cap);
			if (!more)
				return ENOMEM;
			list->bytes = more;
		}
		struct dirent_head head;
		for (char *p = buffer; p < buffer + n; p += head.reclen) {
			memcpy(&head, p, sizeof head);
			const char *name = p + DIRENT_NAME;
			if (dots(name))
				continue;
			size_t len = strlen(name) + 1;
			list->bytes[*used] = (char)head.type;
			memcpy(list->bytes + *used + 1, name, len);
			*used += len + 1;
			list->count++;
		}
	}
	return (int)-n;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a + 1, *(char *const *)b + 1); /* strcmp compares unsigned bytes */
}

void names_free(struct names *list)
{
	if (list) {
		free(list->at);
		free(list->bytes);
		free(list);
	}
}

int list_names(int fd, struct names **names)
{
	struct names *list = calloc(1, sizeof *list);
	size_t used = 0;
	if (!list)
		return ENOMEM;
	int e = collect(fd, list, &used);
	if (!e && list->count && !(list->at = malloc(list->count * sizeof *list->at)))
		e = ENOMEM;
	if (e) {
		names_free(list);
		return e;
	}
	char *p = list->bytes;
	for (size_t i = 0; i < list->count; i++) {
		list->at[i] = p;
		p += strlen(p + 1) + 2;
	}
	if (list->count)
		qsort(list->at, list->count, sizeof *list->at, by_name);
	*names = list;
	return 0;
}
