/* The split: one clone3 into the new namespaces (or into those of a running container) and straight into its cgroup.
 *
 * Moving another process, or a whole one, into a cgroup costs 5 to 14 ms after a rest: the kernel excludes all forks and
 * exits with a lock that waits for an RCU grace period.  A lone thread that moves itself does not need that lock (kernel
 * >= 5.5, cgroup_procs_write_start), so into groups of cgroup v1 the child writes itself, through their `tasks`. */
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { V1_MAX = 32 }; /* the kernel has a dozen v1 controllers */

static int write_at(const char *directory, const char *name, const char *value, size_t length)
{
	char path[4096];
	int e, fd;
	if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, name) >= sizeof path)
		return ENAMETOOLONG;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	e = write_full(fd, value, length);
	close(fd);
	return e;
}

/* eBPF of type CGROUP_DEVICE, kernel >= 4.15; the attachment holds the program and goes with the cgroup. */
static int attach_devices(int cgroup, const struct op *op)
{
	union bpf_attr attr;
	int e = 0, program;
	memset(&attr, 0, sizeof attr);
	attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	attr.insns = (uint64_t)(uintptr_t)op->fields[0].bytes;
	attr.insn_cnt = op->fields[0].length / 8;
	attr.license = (uint64_t)(uintptr_t) "Apache-2.0";
	program = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
	if (program < 0)
		return errno;
	memset(&attr, 0, sizeof attr);
	attr.target_fd = (uint32_t)cgroup;
	attr.attach_bpf_fd = (uint32_t)program;
	attr.attach_type = BPF_CGROUP_DEVICE;
	attr.attach_flags = BPF_F_ALLOW_MULTI;
	if (syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof attr) < 0)
		e = errno;
	close(program);
	return e;
}

static int run_tool(const char *path, pid_t pid, const char *map)
{
	char *argv[260], number_text[16], *words = strdup(map), *save = NULL;
	char *env[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	int n = 0, status, e;
	pid_t tool;
	if (words == NULL)
		return ENOMEM;
	snprintf(number_text, sizeof number_text, "%d", (int)pid);
	argv[n++] = (char *)(uintptr_t)path;
	argv[n++] = number_text;
	for (char *w = strtok_r(words, " \n", &save); w && n < 259; w = strtok_r(NULL, " \n", &save))
		argv[n++] = w;
	argv[n] = NULL;
	e = posix_spawn(&tool, path, NULL, NULL, argv, env);
	if (!e)
		while (waitpid(tool, &status, 0) < 0)
			if (errno != EINTR) {
				e = errno;
				break;
			}
	if (!e && status != 0)
		e = EPERM;
	free(words);
	return e;
}

static int write_maps(pid_t pid, const struct op *op)
{
	char directory[32];
	int e;
	if (*text(op, 2) != 0) {
		e = run_tool(text(op, 2), pid, text(op, 0));
		return e ? e : run_tool(text(op, 3), pid, text(op, 1));
	}
	snprintf(directory, sizeof directory, "/proc/%d", (int)pid);
	e = op->flags & 1 ? write_at(directory, "setgroups", "deny", 4) : 0;
	if (!e)
		e = write_at(directory, "uid_map", text(op, 0), strlen(text(op, 0)));
	return e ? e : write_at(directory, "gid_map", text(op, 1), strlen(text(op, 1)));
}

static pid_t sys_clone(uint64_t flags, int cgroup, int *pidfd)
{
	struct clone_args args = { .flags = flags | CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)pidfd, .exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD };
	if (cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup;
	}
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

struct groups {
	const struct op *op[V1_MAX];
	int tasks[V1_MAX];
	unsigned count;
};

/* Opened on the host: the child may be in another mount namespace when it writes. */
static int open_tasks(struct groups *groups, const struct op *op)
{
	char path[4096];
	int fd;
	if (groups->count == V1_MAX)
		return E2BIG;
	if ((size_t)snprintf(path, sizeof path, "%s/tasks", text(op, 0)) >= sizeof path)
		return ENAMETOOLONG;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	groups->op[groups->count] = op;
	groups->tasks[groups->count++] = fd;
	return 0;
}

static int fail_at(const struct plan *plan, const struct op *op, int e)
{
	report(REPORT_FAILED, (uint32_t)(op - plan->ops), e, 0, 0, NULL, 0);
	return e;
}

/* In the child: what must happen there before anything of the plan.  A cgroup namespace shows as its root the groups that
 * its maker is in, so it comes after them. */
static void arrive(const struct plan *plan, const struct op *how, const struct groups *groups, const int *gate, int late)
{
	char byte;
	int e = 0;
	if (gate[0] >= 0) {
		close(gate[1]);
		if (read_full(gate[0], &byte, 1) != 0)
			_exit(125);
		close(gate[0]);
	}
	for (unsigned i = 0; i < groups->count; i++) {
		e = write_full(groups->tasks[i], "0", 1);
		if (e) {
			fail_at(plan, groups->op[i], e);
			_exit(125);
		}
		close(groups->tasks[i]);
	}
	if (late && how->code == OP_ENTER)
		e = syscall(SYS_setns, FD_TARGET, late) < 0 ? errno : 0;
	else if (late)
		e = unshare(late) < 0 ? errno : 0;
	if (e) {
		fail_at(plan, how, e);
		_exit(125);
	}
}

static int read_text(const char *path, char *bytes, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, bytes, size - 1);
	int e = n < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	bytes[n > 0 ? n : 0] = 0;
	return e;
}

/* A container that has controllers on for groups of its own below, as one with systemd, may have no process beside them
 * (cgroup-v2.rst, "No Internal Process Constraint"): who joins it goes to where its first process is.  Looked up on the
 * host, before its namespaces are joined.  Names of groups hold no line's end, and cgroupfs has no links. */
static int open_inner(const char *group, int *cgroup)
{
	char path[4096], bytes[8192], *at;
	const char *name = strrchr(group, '/');
	if ((size_t)snprintf(path, sizeof path, "%s/cgroup.subtree_control", group) >= sizeof path || name == NULL)
		return ENAMETOOLONG;
	if (read_text(path, bytes, sizeof bytes) != 0 || bytes[0] <= '\n')
		return 0;
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", FD_TARGET);
	int e = read_text(path, bytes, sizeof bytes);
	if (e || (at = strstr(bytes, "\nPid:")) == NULL)
		return e ? e : ESRCH;
	snprintf(path, sizeof path, "/proc/%ld/cgroup", strtol(at + 5, NULL, 10));
	e = read_text(path, bytes, sizeof bytes);
	if (e || (at = strstr(bytes, "0::/")) == NULL || (at = strstr(at, name)) == NULL)
		return e; /* it is elsewhere: the group itself is tried, and the kernel says what is wrong */
	at[strcspn(at, "\n")] = 0;
	if ((size_t)snprintf(path, sizeof path, "%s%s", group, at + strlen(name)) >= sizeof path)
		return ENAMETOOLONG;
	close(*cgroup);
	return (*cgroup = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ? errno : 0;
}

/* What stands before the split: where to be, the groups, and the maps, which are found for later. */
static const struct op *prepare(const struct plan *plan, const struct op *how, int *cgroup, struct groups *groups,
                                const struct op **maps)
{
	const struct op *op;
	for (op = plan->ops; op < how; op++) {
		int e = 0;
		if (op->code == OP_WORKDIR)
			e = chdir(text(op, 0)) < 0 ? errno : 0;
		else if (op->code == OP_CGROUP)
			e = (*cgroup = open(text(op, 0), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ? errno : how->code == OP_ENTER
				? open_inner(text(op, 0), cgroup) : 0;
		else if (op->code == OP_DEVICES)
			e = *cgroup < 0 || op->count < 1 ? EINVAL : attach_devices(*cgroup, op);
		else if (op->code == OP_CGROUP_V1)
			e = open_tasks(groups, op);
		else if (op->code == OP_IDMAP)
			*maps = op;
		if (e) {
			fail_at(plan, op, e);
			return op;
		}
	}
	return NULL;
}

struct split {
	const struct plan *plan;
	const struct op *how;
	struct groups groups;
	int cgroup, gate[2], answer;
	unsigned late;
	int (*body)(void *);
	void *argument;
};

/* In the child it does not return. */
static pid_t make_child(struct split *s, uint64_t flags, int *pidfd)
{
	pid_t pid = sys_clone(flags, s->cgroup, pidfd);
	if (pid != 0)
		return pid;
	if (s->answer >= 0)
		close(s->answer);
	arrive(s->plan, s->how, &s->groups, s->gate, (int)s->late);
	_exit(s->body(s->argument));
}

/* In a process that is there for this only: it joins the namespaces and makes the child, a child of its own parent. */
static int join_and_make(struct split *s, const struct op *op, uint64_t flags)
{
	int32_t pid;
	int pidfd;
	/* Whoever is privileged in the user namespace must not look into what still sees the host (CVE-2016-9962). */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || syscall(SYS_setns, FD_TARGET, op->flags) < 0)
		return fail_at(s->plan, op, errno);
	pid = make_child(s, flags | CLONE_PARENT, &pidfd);
	if (pid < 0)
		return fail_at(s->plan, s->how, errno);
	return write_full(s->answer, &pid, sizeof pid);
}

/* Namespaces of another container (kernel >= 5.8: setns with a pidfd).  Of a user's container its user namespace is one of
 * them, and gives the right to join the others.  The supervisor itself joins nothing: who checks the container's health,
 * starts it again or cleans up after it would be born in there, in reach of the other container. */
static int make_joined(struct split *s, const struct op *op, uint64_t flags, pid_t *pid, int *pidfd)
{
	int ends[2], e, status;
	int32_t made = -1;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return fail_at(s->plan, op, errno);
	s->answer = ends[1];
	pid_t between = fork();
	if (between == 0) {
		close(ends[0]);
		_exit(join_and_make(s, op, flags) == 0 ? 0 : 125);
	}
	e = between < 0 ? fail_at(s->plan, op, errno) : 0;
	close(ends[1]);
	if (!e)
		e = read_full(ends[0], &made, sizeof made);
	close(ends[0]);
	while (between > 0 && waitpid(between, &status, 0) < 0 && errno == EINTR)
		;
	close(FD_TARGET); /* only here: without this operation the number is another file's */
	*pid = made;
	*pidfd = e ? -1 : (int)syscall(SYS_pidfd_open, made, 0);
	return !e && *pidfd < 0 ? fail_at(s->plan, op, errno) : e;
}

static const struct op *find_join(const struct plan *plan, const struct op *how)
{
	for (const struct op *op = plan->ops; op < how; op++)
		if (op->code == OP_JOIN)
			return op;
	return NULL;
}

/* A network namespace takes as long to make as all the others and the program's start together.  So this process makes it
 * before it knows anything else, and is in it, as nobody else is, until its child is born there. */
static struct { int home, socket; } network = { -1, -1 };

/* Not a number that close_unused closes. */
static int out_of_the_way(int fd)
{
	int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FD_FREE), e = errno;
	if (fd >= 0)
		close(fd);
	errno = e;
	return high;
}

int begin_network(const struct plan *plan)
{
	if (plan->ops[0].code != OP_NETWORK || network.home >= 0)
		return 0;
	network.home = out_of_the_way(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
	if (network.home < 0 || unshare(CLONE_NEWNET) < 0)
		return errno;
	network.socket = out_of_the_way(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	return 0;
}

/* The loopback interface comes up beside the child's mounts.  Should that fail, the child tries too, and tells. */
static int leave_network(void)
{
	if (network.home < 0)
		return 0;
	if (syscall(SYS_setns, network.home, CLONE_NEWNET) < 0)
		return errno;
	close(network.home);
	if (network.socket >= 0) {
		loopback_up(network.socket);
		close(network.socket);
	}
	network.home = network.socket = -1;
	return 0;
}

static int make(struct split *s, pid_t *pid, int *pidfd)
{
	const struct op *how = s->how, *joined = how->code == OP_CLONE ? find_join(s->plan, how) : NULL;
	uint64_t made = s->late | (network.home >= 0 ? CLONE_NEWNET : 0);
	uint64_t flags = how->code == OP_CLONE ? how->flags & ~made : 0;
	if (joined != NULL)
		return make_joined(s, joined, flags, pid, pidfd);
	*pid = make_child(s, flags, pidfd);
	return *pid < 0 ? fail_at(s->plan, how, errno) : 0;
}

int split(const struct plan *plan, int (*body)(void *), void *argument, pid_t *pid, int *pidfd)
{
	const struct op *how = &plan->ops[plan->split], *maps = NULL;
	struct split s = { .plan = plan, .how = how, .cgroup = -1, .gate = { -1, -1 }, .answer = -1, .body = body, .argument = argument };
	int e;
	char byte = 0;
	if (prepare(plan, how, &s.cgroup, &s.groups, &maps) != NULL)
		return EIO;
	/* The cgroup namespace is joined last: from within it clone3 may not reach the container's cgroup where namespaces are
	 * boundaries of delegation (nsdelegate, cgroups(7)). */
	s.late = how->code == OP_ENTER || s.groups.count > 0 ? how->flags & CLONE_NEWCGROUP : 0;
	if (how->code == OP_ENTER)
		s.late |= how->flags & CLONE_NEWPID; /* the child itself stays outside: see be_born() in main.c */
	if (how->code == OP_ENTER && syscall(SYS_setns, FD_TARGET, how->flags & ~s.late) < 0)
		return fail_at(plan, how, errno);
	if (maps != NULL && pipe2(s.gate, O_CLOEXEC) < 0)
		return fail_at(plan, how, errno);
	e = make(&s, pid, pidfd);
	if (!e && (e = leave_network()) != 0)
		fail_at(plan, how, e);
	if (e)
		return e;
	for (unsigned i = 0; i < s.groups.count; i++)
		close(s.groups.tasks[i]);
	if (s.cgroup >= 0)
		close(s.cgroup);
	if (maps == NULL)
		return 0;
	close(s.gate[0]);
	e = write_maps(*pid, maps);
	if (e)
		fail_at(plan, maps, e);
	else
		e = write_full(s.gate[1], &byte, 1);
	close(s.gate[1]);
	return e;
}
