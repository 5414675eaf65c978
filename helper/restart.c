/* Starting a container again after its end, as its restart policy asks: Docker's rules and times.
 *
 * A process of its own, the waiter, lets the time pass and becomes the sampan command that starts the container; so neither
 * a client that is slow to read nor the death of this process holds it up.  It is named in the exit record by pid and start
 * time.  Whoever does not want the restart kills it; it begins to wait only when the record is there. */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FIRST = 100, LONGEST = 60000, STEADY = 10 }; /* milliseconds, milliseconds, seconds */

/* The policy lies in a file, which `sampan update` may replace at any time: name, most restarts, restarts so far, the last
 * pause.  `sampan stop` and `kill` leave a mark beside it before they send a signal. */
static bool wanted(const struct supervisor *s, unsigned *count, unsigned *pause)
{
	char line[64] = "", policy[16];
	unsigned most;
	struct timespec now;
	if (s->restart == NULL || s->dismissed || access(text(s->restart, 1), F_OK) == 0)
		return false;
	int fd = open(text(s->restart, 0), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
	close_once(&fd);
	if (n < 0 || sscanf(line, "%15s %u %u %u", policy, &most, count, pause) != 4 || clock_gettime(CLOCK_MONOTONIC, &now) < 0)
		return false;
	if (now.tv_sec - s->began.tv_sec - (now.tv_nsec < s->began.tv_nsec) >= STEADY)
		*pause = 0;
	*pause = *pause == 0 ? FIRST : *pause < LONGEST / 2 ? *pause * 2 : LONGEST;
	bool fails = s->status != 0 && (most == 0 || *count < most);
	++*count;
	return strcmp(policy, "on-failure") == 0 ? fails
		: strcmp(policy, "always") == 0 || strcmp(policy, "unless-stopped") == 0;
}

/* A container that was told to end, by the keys of who watches it or with its session, is not started again. */
bool dismisses(int signal_number)
{
	return signal_number == SIGTERM || signal_number == SIGINT || signal_number == SIGQUIT || signal_number == SIGHUP
		|| signal_number == SIGKILL || signal_number == SIGPWR;
}

/* Ticks after boot (proc(5), stat field 22), which tell this process from a later one with its pid. */
static unsigned long long start_time(pid_t pid)
{
	char path[32], line[1024];
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
	close_once(&fd);
	line[n > 0 ? n : 0] = 0;
	char *at = strrchr(line, ')'); /* field 2; field 3 follows after a blank */
	for (int field = 2; at != NULL && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at != NULL ? strtoull(at, NULL, 10) : 0;
}

static void wait_and_start(const struct op *restart, int go, unsigned pause)
{
	struct timespec left = { pause / 1000, (long)(pause % 1000) * 1000000 };
	char byte;
	sigset_t none;
	sigemptyset(&none);
	/* From here on a signal ends it, as is meant by who stops this process from outside. */
	if (chdir("/") < 0 || sigprocmask(SIG_SETMASK, &none, NULL) < 0 || (go >= 0 && read(go, &byte, 1) != 1))
		return;
	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
		;
	become(restart, 2);
}

void plan_restart(struct supervisor *s, char *words, size_t size)
{
	unsigned count;
	int ends[2] = { -1, -1 };
	words[0] = 0;
	if (!wanted(s, &count, &s->pause))
		return;
	s->waiter = pipe2(ends, O_CLOEXEC) < 0 ? -1 : fork();
	if (s->waiter == 0) {
		/* Nothing of the supervisor's stays open: its socket would seem to be served, its mounts would stay. */
		if (dup2(ends[0], 3) != 3 || syscall(SYS_close_range, 4, ~0u, 0) < 0 || setsid() < 0)
			_exit(1);
		wait_and_start(s->restart, 3, s->pause);
		_exit(1);
	}
	close_once(&ends[0]);
	s->go = ends[1];
	if (s->waiter < 0) /* no process to be had: this one waits, when it has told the end */
		s->waiter = getpid();
	snprintf(words, size, " %d %llu %u %u", (int)s->waiter, start_time(s->waiter), count, s->pause);
}

void release_restart(struct supervisor *s)
{
	/* A write that fails finds it killed: somebody does not want the restart. */
	if (s->go >= 0 && write(s->go, "", 1) < 0)
		s->waiter = -1;
	close_once(&s->go);
}

void restart_here(struct supervisor *s)
{
	if (s->waiter == getpid())
		wait_and_start(s->restart, -1, s->pause);
}
