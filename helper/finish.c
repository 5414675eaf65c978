/* The end of a container: whether memory ran out, the exit record, the cgroups, the clean-up program. */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t oom_kills(const struct plan *plan)
{
	char path[4096], bytes[512];
	uint64_t kills = 0;
	if (plan->ops[plan->split].code == OP_ENTER)
		return 0; /* this process is in the container's mount namespace: the path would be the container's */
	for (uint32_t i = 0; i < plan->split; i++) {
		const struct op *op = &plan->ops[i];
		if (op->code != OP_CGROUP && op->code != OP_CGROUP_V1)
			continue;
		snprintf(path, sizeof path, "%s/%s", text(op, 0), op->code == OP_CGROUP ? "memory.events" : "memory.oom_control");
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		ssize_t n = read(fd, bytes, sizeof bytes - 1);
		close(fd);
		bytes[n > 0 ? n : 0] = 0;
		char *at = strstr(bytes, "oom_kill ");
		if (at != NULL)
			kills += strtoull(at + 9, NULL, 10);
	}
	return kills;
}

/* In a pid namespace of its own everything died with the first process; with the host's (--pid host) the rest goes now. */
static void kill_rest(const char *directory)
{
	char path[4096], line[32];
	FILE *list;
	snprintf(path, sizeof path, "%s/cgroup.procs", directory);
	list = fopen(path, "re");
	while (list != NULL && fgets(line, sizeof line, list) != NULL) {
		long pid = strtol(line, NULL, 10);
		if (pid > 1)
			kill((pid_t)pid, SIGKILL);
	}
	if (list != NULL)
		fclose(list);
}

void remove_cgroups(const struct plan *plan, bool ended)
{
	if (plan->ops[plan->split].code == OP_ENTER)
		return;
	for (uint32_t i = 0; i < plan->split; i++) {
		const char *directory = text(&plan->ops[i], 0);
		if (plan->ops[i].code != OP_CGROUP && plan->ops[i].code != OP_CGROUP_V1)
			continue;
		for (int tries = 0; rmdir(directory) < 0 && errno == EBUSY && tries < 50; tries++) {
			if (ended)
				kill_rest(directory);
			usleep(1000);
		}
	}
}

static void write_record(const struct supervisor *s, uint64_t kills)
{
	char temporary[4096], line[256];
	struct timespec now;
	int fd, n;
	if (s->record == NULL || *text(s->record, 0) == 0 || s->plan->ops[s->plan->split].code == OP_ENTER)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	n = snprintf(line, sizeof line, "%d %llu %lld.%09ld %lld.%09ld\n", s->status, (unsigned long long)kills,
	             (long long)s->started.tv_sec, s->started.tv_nsec, (long long)now.tv_sec, now.tv_nsec);
	snprintf(temporary, sizeof temporary, "%s.new", text(s->record, 0));
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return;
	if (write_full(fd, line, (size_t)n) == 0 && rename(temporary, text(s->record, 0)) == 0 && !(s->record->flags & 1))
		fsync(fd);
	close(fd);
}

static void start_cleanup(const struct supervisor *s)
{
	char **argv;
	char *env[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	if (s->cleanup == NULL || (argv = calloc(s->cleanup->count + 1u, sizeof *argv)) == NULL)
		return;
	for (unsigned i = 0; i < s->cleanup->count; i++)
		argv[i] = (char *)(uintptr_t)s->cleanup->fields[i].bytes;
	sigset_t none;
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		dup2(null, fd);
	syscall(SYS_close_range, 3, ~0u, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(argv[0], argv, env);
}

void finish(struct supervisor *s)
{
	uint64_t kills = oom_kills(s->plan);
	struct report head = { REPORT_EXITED, 0, 0, s->status, kills, 0, 0 };
	for (int stream = 0; stream < STREAMS; stream++)
		log_line(&s->log, stream);
	/* Whoever sees the record may start the container again: its cgroup must be gone by then. */
	remove_cgroups(s->plan, true);
	event_ended(s, kills);
	write_record(s, kills);
	for (int i = 0; i < CLIENTS; i++)
		if (s->clients[i].attached && s->clients[i].control != FD_IN)
			write_full(s->clients[i].control, &head, sizeof head);
	report(REPORT_EXITED, 0, 0, s->status, kills, NULL, 0);
	start_cleanup(s);
}
