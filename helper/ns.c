/* The split: one clone3 into the new namespaces (or into those of a running container) and, where the kernel can, straight
 * into its cgroup: attaching afterwards costs milliseconds (an RCU grace period). */
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
	struct clone_args args = { .flags = flags | CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)pidfd, .exit_signal = SIGCHLD };
	if (cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup;
	}
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

/* Opened on the host: the writer may have left its mount namespace when the pid is known. */
static int open_procs(const char *directory, int *fd)
{
	char path[4096];
	if ((size_t)snprintf(path, sizeof path, "%s/cgroup.procs", directory) >= sizeof path)
		return ENAMETOOLONG;
	*fd = open(path, O_WRONLY | O_CLOEXEC);
	return *fd < 0 ? errno : 0;
}

static int fail_at(const struct plan *plan, const struct op *op, int e)
{
	report(REPORT_FAILED, (uint32_t)(op - plan->ops), e, 0, 0, NULL, 0);
	return e;
}

int split(const struct plan *plan, int (*body)(void *), void *argument, pid_t *pid, int *pidfd)
{
	const struct op *how = &plan->ops[plan->split], *maps = NULL, *op;
	int cgroup = -1, gate[2] = { -1, -1 }, e = 0, attach[V1_MAX];
	unsigned attachments = 0;
	/* The cgroup namespace is joined last: from within it clone3 may not reach the container's cgroup where namespaces are
	 * boundaries of delegation (nsdelegate, cgroups(7)).  A new one is made last where v1 directories are attached to: its
	 * root is where its maker is in each hierarchy (cgroup_namespaces(7)). */
	unsigned late = how->code == OP_ENTER ? how->flags & CLONE_NEWCGROUP : 0;
	char byte = 0, pid_text[16];
	for (op = plan->ops; op < how; op++) {
		if (op->code == OP_WORKDIR && chdir(text(op, 0)) < 0)
			return fail_at(plan, op, errno);
		if (op->code == OP_CGROUP && (cgroup = open(text(op, 0), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
			return fail_at(plan, op, errno);
		if (op->code == OP_DEVICES && (e = cgroup < 0 || op->count < 1 ? EINVAL : attach_devices(cgroup, op)))
			return fail_at(plan, op, e);
		if (op->code == OP_IDMAP)
			maps = op;
		if (op->code == OP_CGROUP_V1) {
			if (attachments == V1_MAX)
				return fail_at(plan, op, E2BIG);
			e = open_procs(text(op, 0), &attach[attachments]);
			if (e)
				return fail_at(plan, op, e);
			attachments++;
		}
	}
	bool gated = maps != NULL || attachments > 0;
	if (attachments > 0)
		late = how->flags & CLONE_NEWCGROUP;
	if (how->code == OP_ENTER && syscall(SYS_setns, FD_TARGET, how->flags & ~late) < 0)
		return fail_at(plan, how, errno);
	if (gated && pipe2(gate, O_CLOEXEC) < 0)
		return fail_at(plan, how, errno);
	*pid = sys_clone(how->code == OP_CLONE ? how->flags & ~late : 0, cgroup, pidfd);
	if (*pid < 0)
		return fail_at(plan, how, errno);
	if (*pid == 0) {
		if (gated) {
			close(gate[1]);
			if (read_full(gate[0], &byte, 1) != 0)
				_exit(125);
			close(gate[0]);
		}
		if (late && (how->code == OP_ENTER ? syscall(SYS_setns, FD_TARGET, late) : syscall(SYS_unshare, late)) < 0) {
			fail_at(plan, how, errno);
			_exit(125);
		}
		_exit(body(argument));
	}
	if (cgroup >= 0)
		close(cgroup);
	if (!gated)
		return 0;
	close(gate[0]);
	snprintf(pid_text, sizeof pid_text, "%d", (int)*pid);
	attachments = 0;
	for (op = plan->ops; op < how; op++) {
		if (op->code == OP_CGROUP_V1) {
			if (!e && (e = write_full(attach[attachments], pid_text, strlen(pid_text))) != 0)
				fail_at(plan, op, e);
			close(attach[attachments++]);
		} else if (op->code == OP_IDMAP && !e && (e = write_maps(*pid, op)) != 0) {
			fail_at(plan, op, e);
		}
	}
	if (!e)
		e = write_full(gate[1], &byte, 1);
	close(gate[1]);
	return e;
}
