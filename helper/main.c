/* sampan's helper: performs a plan.  It has no options, reads no environment and looks nothing up; see plan.h.
 *
 * The supervisor performs what stands before the split, the child of the split what stands behind it; the last operation
 * becomes the program (OP_EXEC) or works on files (OP_APPLY, OP_PACK). */
#include "plan.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int join_environment(struct child *child, const struct op *op)
{
	uint32_t added = child->identity.env_count;
	child->env = calloc(op->count + added + 1u, sizeof *child->env);
	if (child->env == NULL)
		return ENOMEM;
	for (unsigned i = 0; i < op->count; i++)
		child->env[i] = (char *)(uintptr_t)op->fields[i].bytes;
	for (uint32_t i = 0; i < added; i++)
		child->env[op->count + i] = child->identity.env[i];
	return 0;
}

/* What a failed exec looked at, so that the message can name a missing interpreter or a foreign architecture. */
static void send_head(const struct child *child, const char *path, int error)
{
	char head[4096];
	ssize_t n = 0;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, head, sizeof head);
		close(fd);
	}
	struct { int32_t error; uint32_t at; uint32_t length; } failure = { error, child->at, n > 0 ? (uint32_t)n : 0 };
	if (write_full(child->sync, &failure, sizeof failure) == 0 && n > 0)
		write_full(child->sync, head, (size_t)n);
	_exit(127);
}

/* What this process becomes ends with its parent, also when that is killed: nobody would move its output or tell its end.
 * Set last: changing credentials clears it.  A parent that was gone before shows as an error on the pipe to it. */
static int die_with_parent(const struct child *child)
{
	struct pollfd parent = { child->sync, 0, 0 };
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return errno;
	if (poll(&parent, 1, 0) > 0)
		_exit(128 + SIGKILL);
	return 0;
}

/* flags: how many of the first fields are candidates for the program's path; the rest is argv. */
static int do_exec(const struct child *child, const struct op *op)
{
	char **argv = calloc(op->count + 1u, sizeof *argv), *none[] = { NULL };
	const char *found = NULL;
	int error = ENOENT;
	int e;
	if (argv == NULL || op->flags >= op->count)
		return EINVAL;
	e = die_with_parent(child);
	if (e)
		return e;
	for (unsigned i = op->flags; i < op->count; i++)
		argv[i - op->flags] = (char *)(uintptr_t)op->fields[i].bytes;
	*child->ready = true;
	for (unsigned i = 0; i < op->flags; i++) {
		/* To look costs a fifth of an execve that finds nothing. */
		if (op->flags > 1 && access(text(op, i), F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR))
			continue;
		execve(text(op, i), argv, child->env ? child->env : none);
		int e = errno;
		if (e == ENOENT && access(text(op, i), F_OK) == 0) {
			error = ENOENT;
			found = text(op, i);
			break;
		}
		if (e == EACCES && error == ENOENT) {
			error = EACCES;
		} else if (e != ENOENT && e != ENOTDIR && e != EACCES && (op->flags == 1 || (e != ENAMETOOLONG && e != ELOOP))) {
			error = e;
			found = text(op, i);
			break;
		}
	}
	if (found != NULL)
		send_head(child, found, error);
	return error;
}

static pid_t init_target;

static void forward(int signal_number)
{
	if (init_target > 0)
		kill(init_target, signal_number);
}

/* The program has a process group of its own and, where there is a terminal, the foreground: a key's signal is its own. */
static int become_program(const sigset_t *before)
{
	if (setpgid(0, 0) < 0)
		return errno;
	/* From the background this raises SIGTTOU, which is blocked here. */
	if (tcsetpgrp(0, getpgrp()) < 0 && errno != ENOTTY && errno != ENXIO && errno != EBADF)
		return errno;
	return sigprocmask(SIG_SETMASK, before, NULL) < 0 ? errno : 0;
}

/*
 * --init: this process stays as PID 1, passes signals on and reaps; the program is its child.  It was executed outside of the
 * container's user namespace, so an ordinary user may enter its namespaces only while it is dumpable (ptrace(2), access mode
 * checking): exec, cp and health checks.  It has the program's rights and filter, and its file is sealed.
 */
static int become_init(struct child *child, const struct op *op)
{
	int status, result = 0, e = die_with_parent(child);
	struct sigaction action = { .sa_handler = forward, .sa_flags = SA_RESTART };
	sigset_t all, before;
	pid_t pid;
	if (e)
		return e;
	sigfillset(&all);
	if (sigprocmask(SIG_SETMASK, &all, &before) < 0 || (init_target = fork()) < 0)
		return errno;
	if (init_target == 0)
		return become_program(&before);
	for (int n = 1; n < NSIG; n++)
		if (n == SIGTTIN || n == SIGTTOU)
			signal(n, SIG_IGN);
		else if (n != SIGKILL && n != SIGSTOP && n != SIGCHLD && n != SIGSEGV && n != SIGFPE && n != SIGILL && n != SIGBUS)
			sigaction(n, &action, NULL);
	/* First, because closing the last copy of the report's pipe says that all is ready. */
	if (prctl(PR_SET_DUMPABLE, op->flags & 1, 0, 0, 0) < 0 || syscall(SYS_close_range, 3, ~0u, 0) < 0
	    || prctl(PR_SET_NAME, "sampan-init", 0, 0, 0) < 0
	    || sigprocmask(SIG_SETMASK, &before, NULL) < 0)
		_exit(125);
	while ((pid = waitpid(-1, &status, 0)) > 0 || errno == EINTR)
		if (pid == init_target) {
			result = status;
			break;
		}
	if (WIFSIGNALED(result))
		_exit(128 + WTERMSIG(result));
	_exit(WEXITSTATUS(result));
}

/* All children that have ended; `every`: and those that will. */
static void reap_children(bool every)
{
	pid_t pid;
	while ((pid = waitpid(-1, NULL, every ? 0 : WNOHANG)) > 0 || (pid < 0 && errno == EINTR))
		;
}

/*
 * A health check: this process stays as the parent of the program, in the container's pid namespace, because orphans go only to
 * a subreaper of their own namespace (prctl(2)), and else to a first process that may reap nothing.  It ends with the program,
 * and leaves what still runs to the first process; told that all are being killed, it stays until all are reaped.
 */
static int become_reaper(const struct child *child)
{
	int status, e = die_with_parent(child);
	pid_t self = getpid(), program, pid;
	sigset_t all, before, told;
	if (e)
		return e;
	sigfillset(&all);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0 || sigprocmask(SIG_SETMASK, &all, &before) < 0 || (program = fork()) < 0)
		return errno;
	if (program == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || sigprocmask(SIG_SETMASK, &before, NULL) < 0)
			return errno;
		return getppid() == self ? 0 : ESRCH;
	}
	/* First, because closing the last copy of the report's pipe says that all is ready. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || syscall(SYS_close_range, 3, ~0u, 0) < 0
	    || prctl(PR_SET_NAME, "sampan-check", 0, 0, 0) < 0)
		_exit(125);
	while ((pid = waitpid(-1, &status, 0)) != program)
		if (pid < 0 && errno != EINTR)
			_exit(125);
	reap_children(sigpending(&told) == 0 && sigismember(&told, SIGNAL_REAP_ALL) == 1);
	_exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static int do_tree(const struct child *child, const struct op *op)
{
	struct tree_options options;
	int e;
	memset(&options, 0, sizeof options);
	options.base = text(op, 0);
	options.xattr_opaque = text(op, 1);
	options.flags = op->flags;
	/* Else who asked would wait for a report that nobody writes, and this process for a request. */
	e = die_with_parent(child);
	if (e)
		return e;
	*child->ready = true;
	close(child->sync);
	e = op->code == OP_APPLY ? tree_apply(FD_TREE_IN, &options) : tree_pack(FD_TREE_IN, FD_TREE_OUT, &options);
	if (report(REPORT_TREE, child->at, e, (int)options.phase, options.skipped, options.path, (uint32_t)strlen(options.path)) != 0)
		_exit(125);
	_exit(e ? 1 : 0);
}

static const struct op *find(const struct plan *plan, uint32_t from, uint32_t end, uint16_t code)
{
	for (uint32_t i = from; i < end; i++)
		if (plan->ops[i].code == code)
			return &plan->ops[i];
	return NULL;
}

/*
 * What joins a container is privileged until its plan is performed, and whoever may trace processes inside (CAP_SYS_PTRACE) could
 * make it act for him, dumpable or not (ptrace(2)).  So it stays outside of the container's pid namespace, where nobody inside
 * sees it, and the program is a child that is born there without rights, filtered, with nothing open but the pipe.
 */
static int be_born(struct child *child)
{
	struct { int32_t error; uint32_t pid; uint32_t length; } born = { 0, 0, BORN };
	int gate[2];
	char byte = 0;
	long pid;
	if (child->sync != 3 && dup3(child->sync, 3, O_CLOEXEC) < 0)
		return errno;
	child->sync = 3;
	if (syscall(SYS_close_range, 4, ~0u, 0) < 0 || pipe2(gate, O_CLOEXEC) < 0)
		return errno;
	/* Not clone3, which filters cannot look into and so refuse.  clone(2): on s390 the first two change places. */
#ifdef __s390__
	pid = syscall(SYS_clone, 0, CLONE_PARENT | SIGCHLD, 0, 0, 0);
#else
	pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
#endif
	if (pid < 0)
		return errno;
	if (pid > 0) {
		born.pid = (uint32_t)pid;
		_exit(write_full(3, &born, sizeof born) == 0 && write_full(gate[1], &byte, 1) == 0 ? 0 : 125);
	}
	close(gate[1]);
	if (read_full(gate[0], &byte, 1) != 0)
		_exit(125);
	close(gate[0]);
	child->outside = false;
	return child->terminal ? tty_take() : setsid() < 0 && errno != EPERM ? errno : 0;
}

/* An ordinary user's score lies in a file that is root's while it is hidden: what could not be written is now. */
static int show(struct child *child)
{
	const struct op *oom = find(child->plan, child->plan->split, child->plan->count, OP_OOM);
	int e = prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ? errno : 0;
	child->hidden = false;
	if (e || oom == NULL || (e = cred_oom(oom)) == 0)
		return e;
	if (oom->flags & 1u << 30) {
		report(REPORT_WARNING, (uint32_t)(oom - child->plan->ops), e, 0, 0, NULL, 0);
		return 0;
	}
	child->at = (uint32_t)(oom - child->plan->ops);
	return e;
}

static int perform(struct child *child, const struct op *op)
{
	if (child->hidden && op->code == OP_OOM && access("/proc/self/oom_score_adj", W_OK) < 0)
		return 0;
	if (child->hidden && (op->code == OP_INIT || op->code == OP_EXEC)) {
		int e = show(child);
		if (e)
			return e;
	}
	if (child->outside && (op->code == OP_REAP || op->code == OP_EXEC)) {
		int e = be_born(child);
		if (e)
			return e;
	}
	switch (op->code) {
	case OP_ENV: return join_environment(child, op);
	case OP_INIT: return become_init(child, op);
	case OP_REAP: return become_reaper(child);
	case OP_TTY: return tty_open(child, op);
	case OP_NULL: return take_null();
	case OP_APPLY:
	case OP_PACK: return do_tree(child, op);
	case OP_EXEC:
		/* Closed now, not at the exec: the program's path is the image's (see keep_only_needed). */
		if (child->sync != 3 && dup3(child->sync, 3, O_CLOEXEC) < 0)
			return errno;
		child->sync = 3;
		if (syscall(SYS_close_range, 4, ~0u, 0) < 0)
			return errno;
		return do_exec(child, op);
	default: return op->code < OP_HOSTNAME ? mount_perform(child, op) : cred_perform(child, op);
	}
}

int child_perform(struct child *child)
{
	sigset_t none;
	sigemptyset(&none);
	/* What is ignored would stay ignored in the program (execve(2)): by the supervisor, and what the C library keeps to
	 * itself, which posix_spawn(3) leaves ignored.  Whoever starts the helper resets the rest (sampan/runtime/launch.py). */
	static const int ignored[] = { SUPERVISOR_IGNORES, 32, 33 };
	static const unsigned long by_default[4]; /* the kernel's struct sigaction */
	for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
		syscall(SYS_rt_sigaction, ignored[i], by_default, NULL, sizeof(uint64_t));
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(0); /* modes are the plan's; OP_UMASK sets the program's */
	for (child->at = child->plan->split + 1;; child->at++) {
		int e = child->at < child->plan->count ? 0 : plan_read(FD_IN, child->plan);
		if (!e)
			e = perform(child, &child->plan->ops[child->at]);
		if (e && child->at < child->plan->count && child->plan->ops[child->at].flags & 1u << 30) {
			report(REPORT_WARNING, child->at, e, 0, 0, NULL, 0);
			e = 0;
		}
		if (e)
			return e;
	}
}

/*
 * Readable by no one in the namespaces that it enters (CVE-2019-5736).  Not for new ones: nobody is there yet, and the files in
 * /proc through which ids are mapped would change owner.  So does that of the score, which is therefore set first.
 */
static int hide(const struct plan *plan)
{
	const struct op *oom = find(plan, plan->split, plan->count, OP_OOM);
	if (oom != NULL)
		cred_oom(oom); /* a failure is told when its turn comes */
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* Descriptors that the caller happened to have without close-on-exec are not kept open for a container's life. */
static void close_unused(const struct plan *plan)
{
	uint16_t last = plan->ops[plan->count - 1].code;
	if (last != OP_APPLY && last != OP_PACK) {
		close(FD_TREE_IN);
		close(FD_TREE_OUT);
	}
	if (plan->ops[plan->split].code != OP_ENTER && find(plan, 0, plan->split, OP_JOIN) == NULL)
		close(FD_TARGET);
}

/* Up to the split at least.  Where that may take its time, a first piece has the network namespace made meanwhile. */
static int read_plan(struct plan *plan, uint32_t *at)
{
	*at = UINT32_MAX;
	while (!plan->has_split) {
		int e = plan_read(FD_IN, plan);
		if (e)
			return e;
		e = begin_network(plan);
		if (e) {
			*at = 0;
			return e;
		}
	}
	return 0;
}

int main(void)
{
	static struct plan plan;
	uint32_t at;
	int e;
	/* The kernel has named it after the descriptor that it was executed from. */
	if (fcntl(FD_IN, F_SETFD, FD_CLOEXEC) < 0 || fcntl(FD_OUT, F_SETFD, FD_CLOEXEC) < 0
	    || prctl(PR_SET_NAME, "sampan-helper", 0, 0, 0) < 0)
		return 125;
	signal(SIGPIPE, SIG_IGN);
	syscall(SYS_close_range, FD_FREE, ~0u, 0);
	e = read_plan(&plan, &at);
	if (e) {
		report(REPORT_FAILED, at, e, 0, 0, NULL, 0);
		return 125;
	}
	close_unused(&plan);
	if (plan.ops[plan.split].code == OP_ENTER && hide(&plan) < 0)
		return 125;
	leave_cgroups(&plan);
	return supervise(&plan);
}
