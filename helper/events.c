/* Appends what happens to a container to the record of events (sampan/store/events.py): one write for each, nothing
 * synced, and no failure matters.  The directory was opened before any namespace was joined, so it is the host's. */
#include "supervise.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SPAN = 600 };
static const off_t MOST = 64 << 20;

/* Since it was started, `sampan rename` may have given it another name, which then lies beside its record. */
static int put_name(const struct supervisor *s, const struct op *subject, char *to, size_t size)
{
	char name[160];
	if (subject->count < 6)
		return *to = 0;
	int fd = s->home < 0 ? -1 : openat(s->home, "name", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -1 : read(fd, name, sizeof name - 1);
	close_once(&fd);
	name[n > 0 ? n : 0] = 0;
	return snprintf(to, size, ",\"name\":\"%s\"", n > 0 ? name : text(subject, 5));
}

static void append(const struct supervisor *s, const struct op *subject, const char *action, const char *more)
{
	char name[32], called[192], tail[512];
	struct timespec now;
	if (s->events < 0 || *action == 0 || subject->count < 2 || clock_gettime(CLOCK_REALTIME, &now) < 0)
		return;
	snprintf(name, sizeof name, "%lld", (long long)now.tv_sec / SPAN);
	if (put_name(s, subject, called, sizeof called) < 0)
		return;
	int length = snprintf(tail, sizeof tail, "%s%s}},\"Action\":\"%s\",\"timeNano\":%lld%09ld}\n", called, more, action,
	                      (long long)now.tv_sec, now.tv_nsec);
	int fd = openat(s->events, name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || length < 0 || (size_t)length >= sizeof tail) {
		close_once(&fd);
		return;
	}
	/* It begins with a newline, so that a line which was cut short spoils no other. */
	struct iovec parts[] = { { (char *)"\n", 1 },
		{ (char *)(uintptr_t)subject->fields[1].bytes, subject->fields[1].length }, { tail, (size_t)length } };
	ssize_t written = lseek(fd, 0, SEEK_END) > MOST ? 0 : writev(fd, parts, 3);
	(void)written;
	close(fd);
}

void event(const struct supervisor *s, const char *action, const char *more)
{
	if (s->subject != NULL)
		append(s, s->subject, action, more);
}

/* Of what goes with the container: its volumes, which come before it and go after it. */
static void others(const struct supervisor *s, unsigned action)
{
	for (uint32_t i = 0; i < s->plan->split; i++)
		if (s->plan->ops[i].code == OP_EVENTS && &s->plan->ops[i] != s->subject)
			append(s, &s->plan->ops[i], text(&s->plan->ops[i], action), "");
}

void event_started(const struct supervisor *s)
{
	if (s->subject == NULL)
		return;
	others(s, 2);
	event(s, text(s->subject, 2), "");
}

void event_ended(const struct supervisor *s, uint64_t oom_kills)
{
	char more[128];
	struct timespec now;
	int status = s->status & 0x7f ? 128 + (s->status & 0x7f) : s->status >> 8 & 0xff;
	if (s->events < 0 || clock_gettime(CLOCK_MONOTONIC, &now) < 0)
		return;
	if (s->oom_counts ? oom_kills > s->oom_told : oom_kills > 0 && s->oom_told == 0)
		event(s, "oom", "");
	snprintf(more, sizeof more, ",\"exitCode\":\"%d\",\"execDuration\":\"%lld\"", status,
	         (long long)(now.tv_sec - s->began.tv_sec - (now.tv_nsec < s->began.tv_nsec)));
	event(s, text(s->subject, 3), more);
	others(s, 3);
}
