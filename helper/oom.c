/* Tells that a container ran out of memory when the kernel tells: on version 2 a change of memory.events, on version 1 the
 * eventfd of its own group's memory.oom_control (cgroup-v1/memory.rst, "OOM Control").  Between two of these nothing wakes.
 * What happens in groups that the container made itself is counted by version 2 alone; of version 1 the end tells it. */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int open_in(const char *directory, const char *file, int flags)
{
	char path[4096];
	if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, file) >= sizeof path)
		return -1;
	return open(path, flags | O_CLOEXEC);
}

/* The kernel keeps what it needs of the two files: neither stays open. */
static int ask_version_1(const char *directory)
{
	char line[32];
	int control = open_in(directory, "memory.oom_control", O_RDONLY), fd = -1;
	int asked = control < 0 ? -1 : open_in(directory, "cgroup.event_control", O_WRONLY);
	if (asked >= 0)
		fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int n = snprintf(line, sizeof line, "%d %d", fd, control);
	if (fd >= 0 && write(asked, line, (size_t)n) != n)
		close_once(&fd);
	close_once(&asked);
	close_once(&control);
	return fd;
}

void oom_begin(struct supervisor *s)
{
	const struct plan *plan = s->plan;
	s->oom_told = 0;
	s->oom_counts = false;
	if (s->subject == NULL || plan->ops[plan->split].code == OP_ENTER)
		return;
	for (uint32_t i = 0; i < plan->split && s->oom < 0; i++) {
		const struct op *op = &plan->ops[i];
		s->oom_counts = op->code == OP_CGROUP;
		if (op->code == OP_CGROUP)
			s->oom = open_in(text(op, 0), "memory.events", O_RDONLY);
		else if (op->code == OP_CGROUP_V1)
			s->oom = ask_version_1(text(op, 0));
	}
	uint64_t times;
	if (s->oom >= 0 && !s->oom_counts && oom_kills(plan) > 0 /* before it was asked for, or since: then it is told here too */
	    && (read(s->oom, &times, sizeof times) == sizeof times || errno == EAGAIN)) {
		event(s, "oom", "");
		s->oom_told = 1;
	}
	oom_look(s); /* version 2 is polled from the first reading on */
}

void oom_look(struct supervisor *s)
{
	uint64_t times;
	if (s->oom < 0)
		return;
	if (!s->oom_counts) {
		if (read(s->oom, &times, sizeof times) == sizeof times) {
			event(s, "oom", "");
			s->oom_told++;
		}
		return;
	}
	if (!oom_count(s->oom, &times)) {
		close_once(&s->oom); /* the group is gone, for which poll would not wait */
		return;
	}
	if (times > s->oom_told)
		event(s, "oom", "");
	s->oom_told = times;
}
