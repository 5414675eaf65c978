/* The end of a container: whether memory ran out, the exit record, the cgroups, the clean-up program. */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Version 1 counts in the group of the victim alone, version 2 adds those below up itself (memory.events). */
static uint64_t counted;
static const char *counter;

bool oom_count(int fd, uint64_t *kills)
{
	char bytes[512];
	ssize_t n = pread(fd, bytes, sizeof bytes - 1, 0);
	bytes[n > 0 ? n : 0] = 0;
	char *at = strstr(bytes, "oom_kill ");
	*kills = at != NULL ? strtoull(at + 9, NULL, 10) : 0;
	return n > 0;
}

static int count_kills(const char *path, const struct stat *st, int kind, struct FTW *place)
{
	char file[4096];
	uint64_t kills;
	(void)st;
	if (kind != FTW_D || (size_t)snprintf(file, sizeof file, "%s/%s", path, counter) >= sizeof file)
		return 0;
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	counted += oom_count(fd, &kills) ? kills : 0;
	close(fd);
	return place->level == 0 && strcmp(counter, "memory.events") == 0; /* 1 ends the walk */
}

uint64_t oom_kills(const struct plan *plan)
{
	counted = 0;
	if (plan->ops[plan->split].code == OP_ENTER)
		return 0; /* this process is in the container's mount namespace: the path would be the container's */
	for (uint32_t i = 0; i < plan->split; i++) {
		const struct op *op = &plan->ops[i];
		if (op->code != OP_CGROUP && op->code != OP_CGROUP_V1)
			continue;
		counter = op->code == OP_CGROUP ? "memory.events" : "memory.oom_control";
		char file[4096];
		if ((size_t)snprintf(file, sizeof file, "%s/%s", text(op, 0), counter) >= sizeof file || access(file, F_OK) < 0)
			continue; /* of another controller, or gone: nothing is counted there */
		if (nftw(text(op, 0), count_kills, 8, FTW_PHYS) < 0)
			continue; /* a group that is gone has counted nothing that we could still read */
	}
	return counted;
}

static bool ended_;
static const char *group_; /* the name of the container's own, which is being removed */

/* Whether a process is in the group called NAME or in one below it (proc(5): /proc/PID/cgroup). */
static bool is_member(long pid, const char *name)
{
	char path[40], lines[8192];
	size_t length = strlen(name);
	snprintf(path, sizeof path, "/proc/%ld/cgroup", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, lines, sizeof lines - 1);
	close_once(&fd);
	lines[n > 0 ? n : 0] = 0;
	for (const char *at = lines; (at = strstr(at, name)) != NULL; at += length)
		if (at > lines && at[-1] == '/' && (at[length] == '/' || at[length] == '\n'))
			return true;
	return false;
}

/* Looked up once it is held, so that no other process is meant that has the number by now. */
static void kill_member(long pid, const char *name)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd >= 0 && is_member(pid, name))
		syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
	close_once(&fd);
}

/* In a pid namespace of its own everything died with the first process; with the host's (--pid host) the rest goes now. */
static void kill_rest(const char *directory)
{
	char path[4096], line[32];
	FILE *list;
	snprintf(path, sizeof path, "%s/cgroup.kill", directory);
	int killer = open(path, O_WRONLY | O_CLOEXEC); /* cgroup2, kernel >= 5.14 */
	bool killed = killer >= 0 && write_full(killer, "1", 1) == 0;
	close_once(&killer);
	if (killed)
		return;
	snprintf(path, sizeof path, "%s/cgroup.procs", directory);
	list = fopen(path, "re");
	while (list != NULL && fgets(line, sizeof line, list) != NULL) {
		long pid = strtol(line, NULL, 10);
		if (pid > 1)
			kill_member(pid, group_);
	}
	if (list != NULL)
		fclose(list);
}

static int remove_group(const char *path, const struct stat *st, int kind, struct FTW *place)
{
	(void)st, (void)place;
	if (kind == FTW_DP && rmdir(path) < 0 && errno == EBUSY && ended_)
		kill_rest(path);
	return 0;
}

/* Says whether it is gone.  Busy: a process is still ending, or the container made groups of its own below. */
static bool remove_cgroup(const char *directory)
{
	const char *slash = strrchr(directory, '/');
	group_ = slash != NULL ? slash + 1 : directory;
	for (int tries = 0; rmdir(directory) < 0; tries++) {
		if (errno != EBUSY || tries == 50)
			return errno == ENOENT;
		if (nftw(directory, remove_group, 8, FTW_PHYS | FTW_DEPTH) < 0 && errno == ENOENT)
			return true;
		usleep(1000);
	}
	return true;
}

bool remove_cgroups(const struct plan *plan, bool ended)
{
	bool gone = true;
	ended_ = ended;
	if (plan->ops[plan->split].code == OP_ENTER)
		return false;
	for (uint32_t i = 0; i < plan->split; i++)
		if (plan->ops[i].code == OP_CGROUP || plan->ops[i].code == OP_CGROUP_V1)
			gone &= remove_cgroup(text(&plan->ops[i], 0));
	return gone;
}

static bool keeps_record(const struct supervisor *s)
{
	return s->record != NULL && *text(s->record, 0) != 0 && s->plan->ops[s->plan->split].code != OP_ENTER;
}

static int record_path(const struct supervisor *s, char path[4096])
{
	return (size_t)snprintf(path, 4096, "%s.new", text(s->record, 0)) < 4096 ? 0 : ENAMETOOLONG;
}

int open_record(struct supervisor *s)
{
	char path[4096], blank[RECORD];
	int e;
	if (!keeps_record(s))
		return 0;
	e = record_path(s, path);
	if (e)
		return e;
	s->record_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	memset(blank, ' ', sizeof blank);
	return s->record_fd < 0 ? errno : write_full(s->record_fd, blank, sizeof blank);
}

static void write_record(struct supervisor *s)
{
	char path[4096], line[RECORD], restart[80];
	struct timespec now;
	int n;
	if (s->record_fd < 0 || record_path(s, path) != 0)
		return;
	plan_restart(s, restart, sizeof restart);
	clock_gettime(CLOCK_REALTIME, &now);
	n = snprintf(line, sizeof line, "%d %llu %lld.%09ld %lld.%09ld%s", s->status, (unsigned long long)s->oom_kills,
	             (long long)s->started.tv_sec, s->started.tv_nsec, (long long)now.tv_sec, now.tv_nsec, restart);
	memset(line + n, ' ', sizeof line - (size_t)n);
	line[sizeof line - 1] = '\n';
	if (lseek(s->record_fd, 0, SEEK_SET) == 0 && write_full(s->record_fd, line, sizeof line) == 0
	    && rename(path, text(s->record, 0)) == 0) {
		release_restart(s);
		if (!(s->record->flags & 1))
			fsync(s->record_fd);
	}
	close_once(&s->record_fd);
}

void become(const struct op *op, unsigned from)
{
	char **argv;
	char *env[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	if (op == NULL || op->count <= from || (argv = calloc(op->count - from + 1u, sizeof *argv)) == NULL)
		return;
	for (unsigned i = from; i < op->count; i++)
		argv[i - from] = (char *)(uintptr_t)op->fields[i].bytes;
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
	s->oom_kills = oom_kills(s->plan);
	oom_look(s);
	/* Whoever sees the record may start the container again: its cgroup must be gone by then. */
	s->groups_gone = s->sweep == NULL && remove_cgroups(s->plan, true);
	event_ended(s, s->oom_kills);
	write_record(s);
}

/* False where something was written, or stands in the way.  What is opened, an ordinary user's, is overlayfs's own: nobody
 * inside reaches it, to put a link there. */
static bool remove_empty(const struct op *op)
{
	for (unsigned i = 0; i < op->count; i++) {
		const char *path = text(op, i);
		int e = i < op->flags ? chmod(path, 0700) : i == op->flags ? unlink(path) : rmdir(path);
		if (e < 0 && errno != ENOENT)
			return false;
	}
	return true;
}

/* Of a container of which nothing is kept; whoever ran it has been told the end, and erases its record meanwhile. */
static void sweep(const struct supervisor *s)
{
	unsigned swept = remove_cgroups(s->plan, true) ? SWEPT_GROUPS : 0;
	swept |= remove_empty(s->sweep) ? SWEPT_FILES : 0;
	report(REPORT_SWEPT, swept, 0, 0, 0, NULL, 0);
}

void tell(struct supervisor *s)
{
	struct report head = { REPORT_EXITED, 0, 0, s->status, s->oom_kills, 0, 0 };
	int refused = 0;
	for (int i = 0; i < CLIENTS; i++) {
		head.error = s->clients[i].refused;
		if (s->clients[i].caller)
			refused = head.error;
		else if (s->clients[i].attached)
			write_full(s->clients[i].control, &head, sizeof head);
	}
	report(REPORT_EXITED, s->groups_gone ? SWEPT_GROUPS : 0, refused, s->status, s->oom_kills, NULL, 0);
	if (s->sweep != NULL)
		sweep(s);
	restart_here(s);
	become(s->cleanup, 0);
}
