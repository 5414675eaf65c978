/* One health check: the helper again, as a process of its own, on the plan of an `exec` that Python left in a file.
 *
 * So a check is confined as an exec is, because it is one.  It lives no longer than this process: its control is a pipe
 * that we hold. */
#include "health.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* All of the plan goes into the pipe at once, or none: nothing here may block. */
static int give_plan(const char *path, int pipe)
{
	struct stat st;
	off_t at = 0;
	int e = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno;
	if (fstat(fd, &st) < 0 || (st.st_size > 1 << 15 && fcntl(pipe, F_SETPIPE_SZ, (int)st.st_size + 4096) < 0))
		e = errno;
	while (!e && at < st.st_size) {
		ssize_t n = sendfile(pipe, fd, &at, (size_t)(st.st_size - at));
		if (n < 0 && errno != EINTR)
			e = errno == EAGAIN ? E2BIG : errno;
		else if (n == 0)
			e = EBADMSG;
	}
	close(fd);
	return e;
}

static void become_helper(const int from[6])
{
	static const int to[6] = { 0, 1, 2, FD_IN, FD_OUT, FD_TARGET };
	char *argv[] = { (char *)"sampan-helper", NULL }, *env[] = { NULL };
	int high[6];
	for (int i = 0; i < 6; i++)
		if ((high[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 16)) < 0)
			return;
	for (int i = 0; i < 6; i++)
		if (dup2(high[i], to[i]) < 0)
			return;
	close(FD_TREE_IN);
	close(FD_TREE_OUT);
	if (syscall(SYS_close_range, FD_FREE, ~0u, 0) == 0)
		execve("/proc/self/exe", argv, env);
}

static int spawn(struct probe *p, const char *plan, int pidfd, int ends[6])
{
	int e, null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || pipe2(ends, O_CLOEXEC) < 0 || pipe2(ends + 2, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(ends + 4, O_CLOEXEC) < 0
	    || fcntl(ends[1], F_SETFL, O_NONBLOCK) < 0 || fcntl(ends[3], F_SETFL, 0) < 0 || fcntl(ends[4], F_SETFL, O_NONBLOCK) < 0) {
		e = errno;
		close_once(&null);
		return e;
	}
	e = give_plan(plan, ends[1]);
	if (!e && (p->pid = fork()) == 0) {
		become_helper((int[6]){ null, ends[5], ends[5], ends[0], ends[3], pidfd });
		_exit(127);
	}
	if (!e && p->pid < 0)
		e = errno;
	close(null);
	return e;
}

int probe_start(struct probe *p, const char *plan, int pidfd)
{
	int ends[6] = { -1, -1, -1, -1, -1, -1 }; /* control, reports, output: each the end to read from first */
	p->pid = p->session = 0;
	p->exit_code = -1;
	p->why = NULL;
	p->truncated = false;
	p->size = 0;
	int e = spawn(p, plan, pidfd, ends);
	p->control = ends[1];
	p->reports = ends[2];
	p->output = ends[4];
	close_once(&ends[0]);
	close_once(&ends[3]);
	close_once(&ends[5]);
	if (e) {
		p->pid = 0;
		p->why = strerror(e);
		probe_close(p);
	}
	return e;
}

void probe_output(struct probe *p)
{
	char rest[OUTPUT];
	for (int turns = 0; turns < 16 && p->output >= 0; turns++) { /* more comes the next time: a flood holds up nobody */
		bool full = p->size == OUTPUT;
		ssize_t n = full ? read(p->output, rest, sizeof rest) : read(p->output, p->bytes + p->size, OUTPUT - p->size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0)
			close_once(&p->output);
		else if (full)
			p->truncated = true;
		else
			p->size += (size_t)n;
	}
}

bool probe_report(struct probe *p)
{
	struct report head;
	ssize_t n = read(p->reports, &head, sizeof head);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	if (n != sizeof head) {
		p->why = "the check was killed";
		return true;
	}
	if (head.kind == REPORT_STARTED)
		p->session = head.value;
	if (head.kind == REPORT_FAILED)
		p->why = strerror(head.error);
	if (head.kind == REPORT_EXITED)
		p->exit_code = head.value & 0x7f ? 128 + (head.value & 0x7f) : head.value >> 8 & 0xff;
	return head.kind == REPORT_FAILED || head.kind == REPORT_EXITED;
}

void probe_close(struct probe *p)
{
	close_once(&p->control);
	close_once(&p->reports);
	close_once(&p->output);
}

/* Who reaps the others (OP_REAP) leads the session: it is only told, and goes on if it was stopped.  It is not looked for in /proc, which
 * may hide it from an ordinary user (hidepid=2): it is unreadable, and no program of the container's user namespace yet. */
static void tell_reaper(pid_t session)
{
	int fd = (int)syscall(SYS_pidfd_open, session, 0);
	if (fd >= 0 && getsid(session) == session) {
		syscall(SYS_pidfd_send_signal, fd, SIGNAL_REAP_ALL, NULL, 0);
		syscall(SYS_pidfd_send_signal, fd, SIGCONT, NULL, 0);
	}
	close_once(&fd);
}

/* Signals one process if it is of the session; held by a descriptor, it cannot have become another meanwhile.  Says whether it
 * is still to be waited for. */
static bool signal_member(pid_t pid, pid_t session, int signal_number)
{
	char path[32], line[512], state = 'Z';
	int parent = 0, found = 0, fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return false;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = file < 0 ? -1 : read(file, line, sizeof line - 1);
	close_once(&file);
	line[n > 0 ? n : 0] = 0;
	char *at = strrchr(line, ')'); /* proc(5): state, parent, group, session */
	bool member = at != NULL && sscanf(at + 1, " %c %d %*d %d", &state, &parent, &found) == 3 && found == session;
	if (member)
		syscall(SYS_pidfd_send_signal, fd, signal_number, NULL, 0); /* a first thread that has ended may have left others */
	close(fd);
	return member && (state != 'Z' || parent == session);
}

static bool signal_session(pid_t session, int signal_number)
{
	bool any = false;
	DIR *list = opendir("/proc");
	struct dirent *entry;
	tell_reaper(session);
	while (list != NULL && (entry = readdir(list)) != NULL) {
		long pid = strtol(entry->d_name, NULL, 10);
		if (pid > 1 && pid != session)
			any |= signal_member((pid_t)pid, session, signal_number);
	}
	if (list != NULL)
		closedir(list);
	return any;
}

/* Stopped first: a shell that sees its child killed would go on with `|| kill 1`. */
static bool end_session(pid_t session)
{
	bool any = signal_session(session, SIGSTOP);
	return signal_session(session, SIGKILL) || any;
}

bool probe_gone(struct probe *p, bool all)
{
	bool left = all && p->session > 0 && end_session(p->session);
	if (all && !left)
		probe_close(p); /* with which who reaps is killed, should a process that left the session hold it up */
	if (all && p->session == 0 && p->pid > 0)
		kill(p->pid, SIGKILL); /* its child dies with it (PR_SET_PDEATHSIG) */
	if (p->pid > 0 && waitpid(p->pid, NULL, WNOHANG) != 0)
		p->pid = 0;
	return !left && p->pid == 0;
}

void probe_abandon(struct probe *p)
{
	probe_gone(p, true);
	probe_close(p);
	if (p->pid > 0)
		kill(p->pid, SIGKILL);
}
