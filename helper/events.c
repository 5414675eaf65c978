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

static void append(const struct supervisor *s, const struct op *subject, const char *action, const char *more)
{
	char name[32], tail[512];
	struct timespec now;
	if (s->events < 0 || *action == 0 || subject->count < 2 || clock_gettime(CLOCK_REALTIME, &now) < 0)
		return;
	snprintf(name, sizeof name, "%lld", (long long)now.tv_sec / SPAN);
	int length = snprintf(tail, sizeof tail, "%s}},\"Action\":\"%s\",\"timeNano\":%lld%09ld}\n", more, action,
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
	if (oom_kills > 0)
		event(s, "oom", "");
	snprintf(more, sizeof more, ",\"exitCode\":\"%d\",\"execDuration\":\"%lld\"", status,
	         (long long)(now.tv_sec - s->began.tv_sec - (now.tv_nsec < s->began.tv_nsec)));
	event(s, text(s->subject, 3), more);
	others(s, 3);
}
