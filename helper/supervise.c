/* The parent of what was started: waits for it, moves its output, keeps its log, tells its end.
 *
 * A client is whoever watches: the caller (descriptors 0 to 2, control on FD_IN) or an attached one, which hands its own
 * descriptors over the socket.  A client that does not read stalls the container's output, never this process: it goes on
 * serving signals and the exit, and what is left at the end is logged first.  Memory is bounded by static buffers.
 */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct op *find(const struct plan *plan, uint16_t code)
{
	for (uint32_t i = 0; i < plan->split; i++)
		if (plan->ops[i].code == code)
			return &plan->ops[i];
	return NULL;
}

struct start {
	struct child child;
	int stdio[3];
};

/* A path of the image may lead through /proc/self/fd to whatever directory this process has open, and from there with
 * ".." to the host's root (CVE-2024-21626): so nothing of the supervisor's stays open here.  */
static int keep_only_needed(struct child *child)
{
	/* The numbers of what close_unused() in main.c closed have been given to others since. */
	uint16_t last = child->plan->ops[child->plan->count - 1].code;
	unsigned first = last == OP_APPLY || last == OP_PACK ? FD_TARGET : FD_TREE_IN;
	int sync = fcntl(child->sync, F_DUPFD_CLOEXEC, FD_FREE + 2);
	int tty = child->tty_socket >= 0 ? fcntl(child->tty_socket, F_DUPFD_CLOEXEC, FD_FREE + 2) : -1;
	if (sync < 0 || dup3(sync, FD_FREE, O_CLOEXEC) < 0)
		return errno;
	child->sync = FD_FREE;
	if (child->tty_socket >= 0) {
		if (tty < 0 || dup3(tty, FD_FREE + 1, O_CLOEXEC) < 0)
			return errno;
		child->tty_socket = FD_FREE + 1;
	} else {
		close(FD_FREE + 1);
	}
	if (syscall(SYS_close_range, first, FD_TARGET, 0) < 0 || syscall(SYS_close_range, FD_FREE + 2, ~0u, 0) < 0)
		return errno;
	return 0;
}

static int body(void *argument)
{
	struct start *start = argument;
	struct { int32_t error; uint32_t at; uint32_t length; } failure = { 0, 0, 0 };
	for (int i = 0; i < 3; i++)
		if (start->stdio[i] >= 0 && dup2(start->stdio[i], i) < 0)
			return 125;
	if (keep_only_needed(&start->child) != 0)
		return 125;
	failure.error = child_perform(&start->child);
	failure.at = start->child.at;
	write_full(start->child.sync, &failure, sizeof failure);
	return 127;
}

static int open_pipe(int *ours, int *theirs, bool input)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return errno;
	*ours = ends[input ? 1 : 0];
	*theirs = ends[input ? 0 : 1];
	return 0;
}

static int prepare_stdio(struct supervisor *s, struct start *start, int *tty_socket)
{
	unsigned flags = s->stdio->flags;
	int sockets[2], e = 0, null;
	if (flags & STDIO_TTY) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
			return errno;
		*tty_socket = sockets[0];
		start->child.tty_socket = sockets[1];
		return 0;
	}
	if (!(flags & STDIO_PASS_IN) || flags & STDIO_NULL_OUT) {
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null < 0)
			return errno;
		if (!(flags & STDIO_PASS_IN) && !(flags & STDIO_STDIN))
			start->stdio[0] = null;
		if (flags & STDIO_NULL_OUT)
			start->stdio[1] = start->stdio[2] = null;
	}
	if (flags & STDIO_STDIN)
		e = open_pipe(&s->to, &start->stdio[0], true);
	if (!e && !(flags & (STDIO_PASS_OUT | STDIO_NULL_OUT)))
		e = open_pipe(&s->from[0], &start->stdio[1], false);
	if (!e && !(flags & (STDIO_PASS_ERR | STDIO_NULL_OUT)))
		e = open_pipe(&s->from[1], &start->stdio[2], false);
	return e;
}

static int receive_master(struct supervisor *s, int socket)
{
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	char byte;
	struct iovec io = { &byte, 1 };
	struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CMSG_LEN(sizeof(int)) };
	struct cmsghdr *head;
	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1 || (head = CMSG_FIRSTHDR(&message)) == NULL
	    || head->cmsg_type != SCM_RIGHTS)
		return ENXIO;
	memcpy(&s->from[0], CMSG_DATA(head), sizeof(int));
	s->to = dup(s->from[0]);
	close(socket);
	return s->to < 0 ? errno : 0;
}

static int block_signals(struct supervisor *s)
{
	sigset_t all;
	sigfillset(&all);
	for (int n = 1; n < 32; n++)
		if (n == SIGSEGV || n == SIGBUS || n == SIGFPE || n == SIGILL || n == SIGABRT)
			sigdelset(&all, n);
	/* Our own, not the container's: blocked ones would be queued and passed on even though they are ignored. */
	static const int ours[] = { SUPERVISOR_IGNORES };
	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
		sigdelset(&all, ours[i]);
		signal(ours[i], SIG_IGN);
	}
	if (sigprocmask(SIG_SETMASK, &all, NULL) < 0)
		return errno;
	s->signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signals < 0 ? errno : 0;
}

static int open_outside(struct supervisor *s)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = s->record ? text(s->record, 1) : "";
	int e = *text(s->stdio, 0)
		? log_open(&s->log, text(s->stdio, 0), number(s->stdio, 1), (unsigned)number(s->stdio, 2)) : 0;
	if (!e)
		e = open_record(s);
	if (e)
		return e;
	if (s->subject)
		s->events = open(text(s->subject, 0), O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (s->subject && s->subject->count > 4)
		s->home = open(text(s->subject, 4), O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*path == 0)
		return 0;
	if (strlen(path) >= sizeof address.sun_path)
		return ENAMETOOLONG;
	strcpy(address.sun_path, path);
	if (unlink(path) < 0 && errno != ENOENT)
		return errno;
	s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	mode_t mask = umask(0177);
	if (s->listener < 0 || bind(s->listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(s->listener, 16) < 0)
		return errno;
	umask(mask);
	return 0;
}

/* It ended, by a signal most likely, before it was about to become the program: its memory ran out, or somebody killed it. */
static int died_early(struct supervisor *s)
{
	int status = 0, e = oom_kills(s->plan) > 0 ? ENOMEM : EINTR;
	while (waitpid(s->pid, &status, 0) < 0 && errno == EINTR)
		;
	remove_cgroups(s->plan, true);
	report(REPORT_FAILED, s->plan->split, e, status != 0 ? status : -1, 0, NULL, 0);
	return e;
}

/* Who has performed the plan is done; the program is another child of this process. */
static int follow(struct supervisor *s, pid_t born)
{
	int status;
	while (waitpid(s->pid, &status, 0) < 0 && errno == EINTR)
		;
	close_once(&s->pidfd);
	s->pid = born;
	s->pidfd = (int)syscall(SYS_pidfd_open, born, 0);
	return s->pidfd < 0 ? errno : 0;
}

/* Silence on the pipe until it closes means that the program was started, if it came as far as that. */
static int await_start(struct supervisor *s, int sync, const volatile bool *ready)
{
	struct { int32_t error; uint32_t at; uint32_t length; } failure;
	char head[4096];
	uint32_t length = 0;
	int status, e;
	if (read_full(sync, &failure, sizeof failure) != 0)
		return *ready ? 0 : died_early(s);
	if (failure.length == BORN) { /* the first thing that is told, and once: what follows may be in the power of who traces it */
		e = follow(s, (pid_t)failure.at);
		if (e)
			failure.error = e, failure.at = s->plan->split, failure.length = 0;
		else if (read_full(sync, &failure, sizeof failure) != 0)
			return *ready ? 0 : died_early(s);
	}
	if (failure.length <= sizeof head && failure.length > 0 && read_full(sync, head, failure.length) == 0)
		length = failure.length;
	while (waitpid(s->pid, &status, 0) < 0 && errno == EINTR)
		;
	remove_cgroups(s->plan, false);
	report(REPORT_FAILED, failure.at, failure.error, 0, 0, head, length);
	return failure.error;
}

int supervise(struct plan *plan)
{
	static struct supervisor s;
	static struct start start;
	static const unsigned passed[] = { STDIO_PASS_IN, STDIO_PASS_OUT, STDIO_PASS_ERR };
	int ends[2], tty_socket = -1, e;
	memset(&s, 0xff, sizeof s);
	s.plan = plan;
	s.stdio = find(plan, OP_STDIO);
	s.record = find(plan, OP_SUPERVISE);
	s.cleanup = find(plan, OP_CLEANUP);
	s.subject = find(plan, OP_EVENTS);
	s.restart = find(plan, OP_RESTART);
	s.health = find(plan, OP_HEALTH);
	s.sweep = find(plan, OP_SWEEP);
	s.groups_gone = s.exited = s.dismissed = s.told = s.hurry = s.input_ended = s.kept = false;
	s.log.plain = s.log.full = false;
	s.kill_at = 0;
	s.input_size = s.input_at = s.rest_size[0] = s.rest_size[1] = 0;
	s.chunk_size = s.log.size = s.log.max = s.log.taken = s.log.line_size[0] = s.log.line_size[1] = 0;
	for (int i = 0; i < CLIENTS; i++) {
		s.clients[i].attached = s.clients[i].caller = false;
		s.clients[i].matched = s.clients[i].pending = s.clients[i].key_count = 0;
		s.clients[i].rest[0] = s.clients[i].rest[1] = 0;
		s.clients[i].refused = 0;
	}
	memset(&start, 0xff, sizeof start);
	memset(&start.child.identity, 0, sizeof start.child.identity);
	start.child.plan = plan;
	start.child.env = NULL;
	start.child.init = false;
	start.child.terminal = false;
	start.child.hidden = find(plan, OP_JOIN) != NULL;
	start.child.outside = plan->ops[plan->split].code == OP_ENTER && plan->ops[plan->split].flags & CLONE_NEWPID;
	if (s.stdio == NULL)
		e = EBADMSG;
	else if (setsid() < 0 && errno != EPERM)
		e = errno;
	else if ((e = block_signals(&s)) == 0 && (e = open_outside(&s)) == 0 && (e = prepare_stdio(&s, &start, &tty_socket)) == 0
	         && pipe2(ends, O_CLOEXEC) < 0)
		e = errno;
	if (e) {
		report(REPORT_FAILED, s.stdio ? (uint32_t)(s.stdio - plan->ops) : UINT32_MAX, e, 0, 0, NULL, 0);
		return 125;
	}
	start.child.sync = ends[1];
	start.child.ready = mmap(NULL, sizeof *start.child.ready, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (start.child.ready == MAP_FAILED) {
		report(REPORT_FAILED, UINT32_MAX, errno, 0, 0, NULL, 0);
		return 125;
	}
	e = split(plan, body, &start, &s.pid, &s.pidfd);
	if (e) {
		remove_cgroups(plan, false);
		return 125;
	}
	/* Held open, the mount namespace outlives the program, so that unmounting (an overlay may sync its whole file system)
	 * comes after the exit was told.  Best effort: without it the exit is only told later. */
	char held[40];
	snprintf(held, sizeof held, "/proc/%d/ns/mnt", (int)s.pid);
	int namespace_fd = plan->ops[plan->split].code == OP_CLONE ? open(held, O_RDONLY | O_CLOEXEC) : -1;
	(void)namespace_fd;
	close(ends[1]);
	for (int i = 0; i < 3; i++) {
		close_once(&start.stdio[i]);
		/* The program has it now: who reads its output sees the end with the program, not with this process. */
		if (s.stdio->flags & passed[i])
			close(i);
	}
	close_once(&start.child.tty_socket);
	log_begin(&s.log); /* while it is set up: who is told that it runs may fill the disk */
	if (await_start(&s, ends[0], start.child.ready) != 0) {
		log_end(&s.log);
		return 125;
	}
	munmap((void *)(uintptr_t)start.child.ready, sizeof *start.child.ready);
	close(ends[0]);
	clock_gettime(CLOCK_REALTIME, &s.started);
	clock_gettime(CLOCK_MONOTONIC, &s.began);
	if (tty_socket >= 0 && (e = receive_master(&s, tty_socket)) != 0) {
		send_signal(&s, SIGKILL);
		report(REPORT_FAILED, UINT32_MAX, e, 0, 0, NULL, 0);
		return 125;
	}
	add_caller(&s);
	event_started(&s);
	report(REPORT_STARTED, 0, 0, s.pid, (uint64_t)s.started.tv_sec * 1000000000u + (uint64_t)s.started.tv_nsec, NULL, 0);
	oom_begin(&s);
	health_begin(&s);
	relay(&s);
	health_end(&s);
	finish(&s);
	deliver(&s);
	tell(&s);
	return 0;
}
