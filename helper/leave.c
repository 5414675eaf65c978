/* A supervisor that outlives its caller leaves the caller's control group, which may end, and kill all that is in it,
 * before the container does: systemd does so with a service and with a login's session.  On cgroup2 it is born in the
 * other group, and the process that the caller made ends: moving one would wait for an RCU grace period (ns.c).  Into
 * groups of version 1 it moves itself.  What fails is told as a warning, and the container starts all the same.
 * Whom the caller leaves by the detach keys moves itself then, and waits: there is no caller any more who would notice. */
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TRIES = 20 }; /* who finds the group empty removes it: it may be gone again before this process is in it */

static int make_group(const char *group)
{
	char parent[4096];
	const char *end = strrchr(group, '/');
	if (end == NULL || (size_t)(end - group) >= sizeof parent)
		return ENAMETOOLONG;
	memcpy(parent, group, (size_t)(end - group));
	parent[end - group] = 0;
	if ((mkdir(parent, 0755) < 0 && errno != EEXIST) || (mkdir(group, 0755) < 0 && errno != EEXIST))
		return errno;
	return 0;
}

/* The caller's child ends here; its own goes on. */
static int be_born_in(const char *group)
{
	int fd = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	struct clone_args args = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)fd };
	long pid = syscall(SYS_clone3, &args, sizeof args);
	int e = errno;
	if (pid > 0)
		_exit(0);
	close(fd);
	return pid < 0 ? e : 0;
}

static int move_to(const char *group, const char *file)
{
	char path[4096];
	if ((size_t)snprintf(path, sizeof path, "%s/%s", group, file) >= sizeof path)
		return ENAMETOOLONG;
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	int e = write_full(fd, "0", 1);
	close(fd);
	return e;
}

static int leave_for(const struct op *op)
{
	int e = 0;
	for (int tries = 0; tries < TRIES; tries++) {
		if (op->flags & (LEAVE_V1 | LEAVE_AT_DETACH))
			e = move_to(text(op, 0), op->flags & LEAVE_V1 ? "tasks" : "cgroup.procs");
		else
			e = be_born_in(text(op, 0));
		if (e != ENOENT && e != ENODEV)
			return e;
		int made = make_group(text(op, 0));
		if (made)
			return made;
	}
	return e;
}

void leave_cgroups(const struct plan *plan)
{
	for (uint32_t i = 0; i < plan->split; i++) {
		bool now = plan->ops[i].code == OP_LEAVE && !(plan->ops[i].flags & LEAVE_AT_DETACH);
		int e = now ? leave_for(&plan->ops[i]) : 0;
		if (e)
			report(REPORT_WARNING, i, e, 0, 0, NULL, 0);
	}
}

void leave_at_detach(const struct plan *plan)
{
	for (uint32_t i = 0; i < plan->split; i++)
		if (plan->ops[i].code == OP_LEAVE && plan->ops[i].flags & LEAVE_AT_DETACH)
			leave_for(&plan->ops[i]); /* where that fails it stays, as it would have anyway */
}
