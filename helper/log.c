/* The log of a container: Docker's json-file lines, rotated by size.  Memory is one line of each stream, whatever comes. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static size_t utf8_length(const unsigned char *s, size_t left)
{
	size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
	if (n == 0 || n > left)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

static char *code_point(char *at, unsigned value)
{
	static const char digits[] = "0123456789abcdef";
	memcpy(at, "\\u", 2);
	for (int i = 0; i < 4; i++)
		at[2 + i] = digits[value >> (12 - 4 * i) & 15];
	return at + 6;
}

size_t escape(char *to, const char *from, size_t length)
{
	char *at = to;
	for (size_t i = 0; i < length;) {
		unsigned char c = (unsigned char)from[i];
		size_t n = utf8_length((const unsigned char *)from + i, length - i);
		if (c == '"' || c == '\\') {
			*at++ = '\\';
			*at++ = (char)c;
		} else if (c == '\n') {
			*at++ = '\\';
			*at++ = 'n';
		} else if (c < 0x20 || n == 0) {
			at = code_point(at, n == 0 ? 0xfffd : c);
		} else {
			memcpy(at, from + i, n);
			at += n;
		}
		i += n ? n : 1;
	}
	return (size_t)(at - to);
}

static void rotate(struct log *s)
{
	char from[4096], to[4096];
	const char *path = s->path;
	for (unsigned i = s->files - 1; s->files > 1 && i > 0; i--) {
		if (i == 1)
			snprintf(from, sizeof from, "%s", path);
		else
			snprintf(from, sizeof from, "%s.%u", path, i - 1);
		snprintf(to, sizeof to, "%s.%u", path, i);
		if (rename(from, to) < 0 && errno != ENOENT)
			return;
	}
	if (s->fd >= 0)
		close(s->fd);
	s->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
	s->size = 0;
}

void time_text(char text[40], const struct timespec *time)
{
	struct tm parts;
	gmtime_r(&time->tv_sec, &parts);
	size_t n = strftime(text, 26, "%Y-%m-%dT%H:%M:%S", &parts);
	snprintf(text + n, 40 - n, ".%09ldZ", time->tv_nsec % 1000000000);
}

void log_line(struct log *s, int stream)
{
	static char out[LINE * 6 + 256];
	struct timespec now;
	char stamp[40];
	size_t n, start = s->line_size[stream];
	int written;
	s->line_size[stream] = 0;
	if (s->fd < 0 || start == 0)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	time_text(stamp, &now);
	memcpy(out, "{\"log\":\"", 8);
	n = 8 + escape(out + 8, s->line[stream], start);
	n += (size_t)sprintf(out + n, "\",\"stream\":\"%s\",\"time\":\"%s\"}\n", stream ? "stderr" : "stdout", stamp);
	if (s->max && s->size + n > s->max && s->size > 0)
		rotate(s);
	/* A full disk loses lines, never the container: they are dropped until there is room. */
	written = s->fd >= 0 ? write_full(s->fd, out, n) : EBADF;
	if (written == 0)
		s->size += n;
	else if (s->fd >= 0 && ftruncate(s->fd, (off_t)s->size) < 0)
		s->size += n; /* the half line stays; readers pass over it */
}

void log_bytes(struct log *s, int stream, const char *bytes, size_t length)
{
	while (length > 0) {
		size_t room = LINE - s->line_size[stream], most = length < room ? length : room;
		const char *end = memchr(bytes, '\n', most);
		size_t part = end ? (size_t)(end - bytes) + 1 : most;
		memcpy(s->line[stream] + s->line_size[stream], bytes, part);
		s->line_size[stream] += part;
		if (end || part == room)
			log_line(s, stream);
		bytes += part;
		length -= part;
	}
}

int log_open(struct log *s, const char *path, uint64_t max, unsigned files)
{
	struct stat st;
	s->path = path;
	s->max = max;
	s->files = files;
	s->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (s->fd < 0 || fstat(s->fd, &st) < 0)
		return errno;
	s->size = (uint64_t)st.st_size;
	return 0;
}
