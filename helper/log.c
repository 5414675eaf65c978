/* The log of a container: Docker's json-file lines, rotated by size.  Memory is one line of each stream, whatever comes.
 *
 * The file's blocks are taken ahead (FALLOC_FL_KEEP_SIZE), and the last TAIL bytes of them are for no line: when the disk is
 * full, lines go to buffers of that size, which have the newest.  They are written when there is room again, or at the end
 * into what was kept.  So a disk that stays full loses lines of the middle, and never the last ones. */
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

/* The last lines of a full disk, of each stream for itself: what one says at the end is not lost in what the other says.
 * When the present half cannot take one more, the other, with the lines before, is begun anew. */
static struct tail {
	char half[2][ENTRY];
	size_t used[2];
	int now;
} tails[STREAMS];

static void keep(struct tail *t, const char *entry, size_t length)
{
	if (t->used[t->now] > 0 && t->used[t->now] + length > TAIL / (2 * STREAMS)) {
		t->now ^= 1;
		t->used[t->now] = 0;
	}
	memcpy(t->half[t->now] + t->used[t->now], entry, length);
	t->used[t->now] += length;
}

static size_t kept(void)
{
	size_t sum = 0;
	for (int stream = 0; stream < STREAMS; stream++)
		sum += tails[stream].used[0] + tails[stream].used[1];
	return sum;
}

static bool is_full(int e)
{
	return e == ENOSPC || e == EDQUOT || e == EFBIG;
}

/* Takes the blocks for `length` more bytes and those of the end, more if it can; false: the disk is full. */
static bool take(struct log *s, size_t length)
{
	struct stat st;
	off_t least = (off_t)length + TAIL, most = length > 0 && s->max >= TAIL ? least + AHEAD : least;
	if (fstat(s->fd, &st) < 0)
		return false;
	if ((uint64_t)st.st_size < s->size)
		s->taken = 0; /* somebody has cut it, or it is another file */
	s->size = (uint64_t)st.st_size;
	for (off_t more = most; more > 0; more = more > least ? least : 0) {
		if (fallocate(s->fd, FALLOC_FL_KEEP_SIZE, st.st_size, more) == 0) {
			s->taken = s->size + (uint64_t)more;
			return true;
		}
		if (!is_full(errno))
			return s->plain = true;
	}
	return false;
}

static bool has_room(struct log *s, size_t length)
{
	return s->plain || s->size + length + TAIL <= s->taken || take(s, length);
}

/* The blocks beyond the end go back. */
static void trim(int fd)
{
	struct stat st;
	if (fstat(fd, &st) == 0 && st.st_size < (off_t)st.st_blocks * 512 && ftruncate(fd, st.st_size) < 0)
		return; /* they go with the file */
}

static int shift(const struct log *s)
{
	char from[4096], to[4096];
	for (unsigned i = s->files - 1; i > 0; i--) {
		if (i == 1)
			snprintf(from, sizeof from, "%s", s->path);
		else
			snprintf(from, sizeof from, "%s.%u", s->path, i - 1);
		snprintf(to, sizeof to, "%s.%u", s->path, i);
		if (rename(from, to) < 0 && errno != ENOENT)
			return errno;
	}
	return 0;
}

/* The next file is there, with its blocks, before the log leaves the one it has: else it stays.  On a full disk the oldest
 * file makes room, which it would do anyway. */
static void rotate(struct log *s)
{
	char next[4096], oldest[4096];
	int old = s->fd;
	uint64_t size = s->size, taken = s->taken;
	if (s->files <= 1) {
		if (ftruncate(s->fd, 0) == 0)
			s->size = s->taken = 0;
		return;
	}
	snprintf(next, sizeof next, "%s.new", s->path);
	snprintf(oldest, sizeof oldest, "%s.%u", s->path, s->files - 1);
	s->fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
	bool ready = s->fd >= 0 && (take(s, 0) || (unlink(oldest) == 0 && take(s, 0)));
	if (ready && shift(s) == 0 && rename(next, s->path) == 0) {
		trim(old);
		close(old);
		return;
	}
	if (s->fd >= 0) {
		close(s->fd);
		unlink(next);
	}
	s->fd = old;
	s->size = size;
	s->taken = taken;
}

void time_text(char text[40], const struct timespec *time)
{
	struct tm parts;
	gmtime_r(&time->tv_sec, &parts);
	size_t n = strftime(text, 26, "%Y-%m-%dT%H:%M:%S", &parts);
	snprintf(text + n, 40 - n, ".%09ldZ", time->tv_nsec % 1000000000);
}

static bool put(struct log *s, const char *entry, size_t length)
{
	struct stat st;
	if (write_full(s->fd, entry, length) == 0) {
		s->size += length;
		return true;
	}
	if (fstat(s->fd, &st) == 0 && ((uint64_t)st.st_size < s->size || ftruncate(s->fd, (off_t)s->size) < 0))
		s->size = s->taken = (uint64_t)st.st_size; /* somebody cut it; or a half line stays: readers pass over it */
	return false;
}

/* What was kept back goes to the log, the older half first; on a full disk the blocks of the end take it. */
static void put_kept(struct log *s)
{
	for (int stream = 0; stream < STREAMS && !s->plain && s->size + kept() > s->taken; stream++)
		tails[stream].used[tails[stream].now ^ 1] = 0; /* long lines: rather the newest */
	for (int i = 0; i < STREAMS * 2; i++) {
		struct tail *t = &tails[i / 2];
		t->now ^= 1;
		if (t->used[t->now] > 0)
			put(s, t->half[t->now], t->used[t->now]);
		t->used[t->now] = 0;
	}
	s->full = false;
}

/* A disk that was full is asked ten times a second whether it still is: a file system may look for room for long. */
static bool may_try(struct log *s)
{
	struct timespec now;
	if (!s->full)
		return true;
	if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
		return false;
	int64_t passed = ((int64_t)now.tv_sec - s->tried.tv_sec) * 1000 + (now.tv_nsec - s->tried.tv_nsec) / 1000000;
	if (passed < 100)
		return false;
	s->tried = now;
	return true;
}

void log_line(struct log *s, int stream)
{
	static char out[ENTRY];
	struct timespec now;
	char stamp[40];
	size_t n, start = s->line_size[stream];
	s->line_size[stream] = 0;
	if (s->fd < 0 || start == 0)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	time_text(stamp, &now);
	memcpy(out, "{\"log\":\"", 8);
	n = 8 + escape(out + 8, s->line[stream], start);
	n += (size_t)sprintf(out + n, "\",\"stream\":\"%s\",\"time\":\"%s\"}\n", stream ? "stderr" : "stdout", stamp);
	bool tries = may_try(s);
	if (tries && s->max && s->size + n > s->max && s->size > 0)
		rotate(s);
	if (tries && has_room(s, n + kept())) {
		if (s->full)
			put_kept(s);
		if (put(s, out, n))
			return;
	}
	s->full = true;
	keep(&tails[stream], out, n);
}

void log_begin(struct log *s)
{
	if (s->fd >= 0)
		has_room(s, 0);
}

void log_end(struct log *s)
{
	if (s->fd < 0)
		return;
	if (s->full)
		put_kept(s);
	trim(s->fd);
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
