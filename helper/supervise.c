/* The parent of what was started: waits for it, moves its output, keeps its log, tells its end.
 *
 * A client is whoever watches: the caller (descriptors 0 to 2, control on FD_IN) or an attached one, which hands its own
 * descriptors over the socket.  A client that does not read stalls the container's output, never this process: it goes on
 * serving signals and the exit.  Memory is bounded by the buffers below.
 */
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS = 8, CHUNK = 4096, LINE = 16384, STREAMS = 2 };
enum { CONTROL_SIGNAL = 1, CONTROL_RESIZE = 2, CONTROL_DETACH = 3 };

struct client {
	int control, in, out[STREAMS];
	bool attached;
	size_t matched;                /* of the detach keys */
	size_t pending;                /* bytes of the current chunk still to be written */
	char keys[32];
	size_t key_count;
};

struct supervisor {
	const struct plan *plan;
	const struct op *stdio, *record, *cleanup;
	int from[STREAMS], to;         /* the container's output and input on our side */
	int listener, signals, pidfd, log;
	pid_t pid;
	uint64_t log_size, log_max;
	unsigned log_files;
	int status;
	bool exited;
	struct timespec started;
	struct client clients[CLIENTS];
	char chunk[CHUNK];
	size_t chunk_size;
	int chunk_stream;
	char line[STREAMS][LINE];
	size_t line_size[STREAMS];
};

static const struct op *find(const struct plan *plan, uint16_t code)
{
	for (uint32_t i = 0; i < plan->split; i++)
		if (plan->ops[i].code == code)
			return &plan->ops[i];
	return NULL;
}

static void close_once(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* ---- the log: Docker's json-file lines ---- */

static size_t utf8_length(const unsigned char *s, size_t left)
{
	size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
	if (n == 0 || n > left)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

static size_t escape(char *to, const char *from, size_t length)
{
	char *at = to;
	for (size_t i = 0; i < length;) {
		unsigned char c = (unsigned char)from[i];
		size_t n = utf8_length((const unsigned char *)from + i, length - i);
		if (c == '"' || c == '\\') {
			*at++ = '\\';
			*at++ = (char)c;
		} else if (c == '\n') {
			*at++ = '\\';
			*at++ = 'n';
		} else if (c < 0x20 || n == 0) {
			at += sprintf(at, "\\u%04x", n == 0 ? 0xfffd : c);
		} else {
			memcpy(at, from + i, n);
			at += n;
		}
		i += n ? n : 1;
	}
	return (size_t)(at - to);
}

static void rotate(struct supervisor *s)
{
	char from[4096], to[4096];
	const char *path = text(s->stdio, 0);
	for (unsigned i = s->log_files - 1; s->log_files > 1 && i > 0; i--) {
		if (i == 1)
			snprintf(from, sizeof from, "%s", path);
		else
			snprintf(from, sizeof from, "%s.%u", path, i - 1);
		snprintf(to, sizeof to, "%s.%u", path, i);
		if (rename(from, to) < 0 && errno != ENOENT)
			return;
	}
	close_once(&s->log);
	s->log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
	s->log_size = 0;
}

static void log_line(struct supervisor *s, int stream)
{
	static char out[LINE * 6 + 256];
	struct timespec now;
	struct tm parts;
	size_t n, start = s->line_size[stream];
	int written;
	s->line_size[stream] = 0;
	if (s->log < 0 || start == 0)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &parts);
	memcpy(out, "{\"log\":\"", 8);
	n = 8 + escape(out + 8, s->line[stream], start);
	n += (size_t)sprintf(out + n, "\",\"stream\":\"%s\",\"time\":\"", stream ? "stderr" : "stdout");
	n += strftime(out + n, 64, "%Y-%m-%dT%H:%M:%S", &parts);
	n += (size_t)sprintf(out + n, ".%09ldZ\"}\n", now.tv_nsec);
	if (s->log_max && s->log_size + n > s->log_max && s->log_size > 0)
		rotate(s);
	/* A full disk loses lines, never the container: they are dropped until there is room. */
	written = s->log >= 0 ? write_full(s->log, out, n) : EBADF;
	if (written == 0)
		s->log_size += n;
}

static void log_bytes(struct supervisor *s, int stream, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		s->line[stream][s->line_size[stream]++] = bytes[i];
		if (bytes[i] == '\n' || s->line_size[stream] == LINE)
			log_line(s, stream);
	}
}

/* ---- clients ---- */

static void drop(struct client *c)
{
	close_once(&c->control);
	close_once(&c->in);
	close_once(&c->out[0]);
	close_once(&c->out[1]);
	c->pending = 0;
	c->attached = false;
}

static void tell_detached(struct client *c)
{
	struct report head = { REPORT_DETACHED, 0, 0, 0, 0, 0, 0 };
	if (c == NULL)
		return;
	write_full(c->control == FD_IN ? FD_OUT : c->control, &head, sizeof head);
	drop(c);
}

static void push(struct client *c, struct supervisor *s)
{
	int fd = c->out[s->chunk_stream];
	size_t from = s->chunk_size - c->pending;
	ssize_t n = write(fd, s->chunk + from, c->pending);
	if (n > 0)
		c->pending -= (size_t)n;
	else if (errno != EINTR && errno != EAGAIN) {
		close_once(&c->out[s->chunk_stream]);
		c->pending = 0;
	}
}

static bool busy(const struct supervisor *s)
{
	for (int i = 0; i < CLIENTS; i++)
		if (s->clients[i].pending > 0)
			return true;
	return false;
}

static void take_output(struct supervisor *s, int stream)
{
	ssize_t n = read(s->from[stream], s->chunk, CHUNK);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		close_once(&s->from[stream]);
		return;
	}
	s->chunk_size = (size_t)n;
	s->chunk_stream = stream;
	log_bytes(s, stream, s->chunk, (size_t)n);
	for (int i = 0; i < CLIENTS; i++)
		if (s->clients[i].attached && s->clients[i].out[stream] >= 0)
			s->clients[i].pending = (size_t)n;
}

static void take_input(struct supervisor *s, struct client *c)
{
	char bytes[CHUNK], out[CHUNK + 32];
	size_t m = 0;
	ssize_t n = read(c->in, bytes, sizeof bytes);
	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0) {
		close_once(&c->in);
		if (!(s->stdio->flags & STDIO_TTY))
			close_once(&s->to);
		return;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (c->key_count > 0 && bytes[i] == c->keys[c->matched]) {
			if (++c->matched == c->key_count) {
				if (m > 0 && s->to >= 0)
					write_full(s->to, out, m);
				tell_detached(c);
				return;
			}
			continue;
		}
		memcpy(out + m, c->keys, c->matched);
		m += c->matched;
		c->matched = 0;
		out[m++] = bytes[i];
		if (m > CHUNK)
			break;
	}
	if (s->to >= 0 && m > 0 && write_full(s->to, out, m) != 0)
		close_once(&s->to);
}

static void send_signal(struct supervisor *s, int number_)
{
	if (!s->exited)
		syscall(SYS_pidfd_send_signal, s->pidfd, number_, NULL, 0);
}

static void take_control(struct supervisor *s, struct client *c)
{
	uint32_t message[2];
	ssize_t n = read(c->control, message, sizeof message);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n != sizeof message) {
		bool caller = c->control == FD_IN;
		drop(c);
		/* Without OP_SUPERVISE the container lives no longer than its caller. */
		if (caller && s->record == NULL)
			send_signal(s, SIGKILL);
		return;
	}
	if (message[0] == CONTROL_SIGNAL)
		send_signal(s, (int)message[1]);
	if (message[0] == CONTROL_DETACH)
		tell_detached(c);
	if (message[0] == CONTROL_RESIZE && s->stdio->flags & STDIO_TTY) {
		struct winsize size = { (unsigned short)(message[1] >> 16), (unsigned short)message[1], 0, 0 };
		if (ioctl(s->from[0], TIOCSWINSZ, &size) < 0 && errno == ENOTTY)
			drop(c);
	}
}

/* An attaching client sends 32 bytes of detach keys (NUL-padded) and three descriptors with them. */
static void take_client(struct supervisor *s)
{
	union { char bytes[CMSG_SPACE(3 * sizeof(int))]; struct cmsghdr align; } control;
	struct client *c = NULL;
	struct iovec io;
	struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
	struct cmsghdr *head;
	int fds[3], fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
	struct timeval limit = { 1, 0 };
	if (fd < 0)
		return;
	for (int i = 0; i < CLIENTS && c == NULL; i++)
		if (!s->clients[i].attached && s->clients[i].control < 0)
			c = &s->clients[i];
	if (c == NULL || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0) {
		close(fd);
		return;
	}
	io.iov_base = c->keys;
	io.iov_len = sizeof c->keys;
	if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC) != sizeof c->keys || (head = CMSG_FIRSTHDR(&message)) == NULL
	    || head->cmsg_type != SCM_RIGHTS || head->cmsg_len != CMSG_LEN(sizeof fds)) {
		close(fd);
		return;
	}
	memcpy(fds, CMSG_DATA(head), sizeof fds);
	c->control = fd;
	c->in = fds[0];
	c->out[0] = fds[1];
	c->out[1] = fds[2];
	c->key_count = strnlen(c->keys, sizeof c->keys);
	c->matched = c->pending = 0;
	c->attached = true;
}

/* ---- the end ---- */

static uint64_t oom_kills(const struct plan *plan)
{
	char path[4096], bytes[512];
	uint64_t kills = 0;
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

static void remove_cgroups(const struct plan *plan)
{
	if (plan->ops[plan->split].code == OP_ENTER)
		return;
	for (uint32_t i = 0; i < plan->split; i++)
		if (plan->ops[i].code == OP_CGROUP || plan->ops[i].code == OP_CGROUP_V1)
			for (int tries = 0; rmdir(text(&plan->ops[i], 0)) < 0 && errno == EBUSY && tries < 50; tries++)
				usleep(1000);
}

static void write_record(const struct supervisor *s, uint64_t kills)
{
	char temporary[4096], line[256];
	struct timespec now;
	int fd, n;
	if (s->record == NULL || *text(s->record, 0) == 0)
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
	syscall(SYS_close_range, 3, ~0u, 0);
	execve(argv[0], argv, env);
}

static void finish(struct supervisor *s)
{
	uint64_t kills = oom_kills(s->plan);
	struct report head = { REPORT_EXITED, 0, 0, s->status, kills, 0, 0 };
	for (int stream = 0; stream < STREAMS; stream++)
		log_line(s, stream);
	write_record(s, kills);
	for (int i = 0; i < CLIENTS; i++)
		if (s->clients[i].attached && s->clients[i].control != FD_IN)
			write_full(s->clients[i].control, &head, sizeof head);
	/* The caller may clean up the moment it reads this, so the cgroup goes first. */
	remove_cgroups(s->plan);
	report(REPORT_EXITED, 0, 0, s->status, kills, NULL, 0);
	start_cleanup(s);
}

/* ---- the loop ---- */

static void take_signal(struct supervisor *s)
{
	struct signalfd_siginfo info;
	if (read(s->signals, &info, sizeof info) != sizeof info || info.ssi_signo == SIGCHLD)
		return;
	send_signal(s, (int)info.ssi_signo);
}

static void reap(struct supervisor *s)
{
	int status;
	if (!s->exited && waitpid(s->pid, &status, WNOHANG) == s->pid) {
		s->status = status;
		s->exited = true;
	}
}


static void loop(struct supervisor *s)
{
	while (!s->exited || ((s->from[0] >= 0 || s->from[1] >= 0) && busy(s)) || s->from[0] >= 0 || s->from[1] >= 0) {
		struct pollfd polls[5 + CLIENTS * 3];
		struct { int kind; struct client *client; int stream; } what[5 + CLIENTS * 3];
		nfds_t n = 0;
		bool stalled = busy(s);
#define WATCH(f, e, k, c, st) do { polls[n].fd = (f); polls[n].events = (e); polls[n].revents = 0; \
		what[n].kind = (k); what[n].client = (c); what[n].stream = (st); n++; } while (0)
		WATCH(s->signals, POLLIN, 0, NULL, 0);
		if (!s->exited)
			WATCH(s->pidfd, POLLIN, 1, NULL, 0);
		for (int i = 0; i < STREAMS && !stalled; i++)
			if (s->from[i] >= 0)
				WATCH(s->from[i], POLLIN, 2, NULL, i);
		if (s->listener >= 0 && !s->exited)
			WATCH(s->listener, POLLIN, 3, NULL, 0);
		for (int i = 0; i < CLIENTS; i++) {
			struct client *c = &s->clients[i];
			if (c->control >= 0)
				WATCH(c->control, POLLIN, 4, c, 0);
			if (c->in >= 0 && s->to >= 0)
				WATCH(c->in, POLLIN, 5, c, 0);
			if (c->pending > 0)
				WATCH(c->out[s->chunk_stream], POLLOUT, 6, c, 0);
		}
		/* After the exit what is left in the pipes is read, but a writer that escaped with a copy is not waited for. */
		int ready = poll(polls, n, s->exited && !stalled ? 0 : -1);
		if (ready < 0 && errno != EINTR)
			return;
		if (ready == 0 && s->exited && !stalled)
			return;
		for (nfds_t i = 0; ready > 0 && i < n; i++) {
			if (!polls[i].revents)
				continue;
			switch (what[i].kind) {
			case 0: take_signal(s); break;
			case 1: reap(s); break;
			case 2: if (!busy(s)) take_output(s, what[i].stream); break;
			case 3: take_client(s); break;
			case 4: if (what[i].client->control >= 0) take_control(s, what[i].client); break;
			case 5: if (what[i].client->in >= 0) take_input(s, what[i].client); break;
			case 6: if (what[i].client->pending > 0) push(what[i].client, s); break;
			}
		}
		if (stalled && s->exited && s->clients[0].control < 0)
			return;
	}
}

/* ---- the start ---- */

struct start {
	struct child child;
	int stdio[3];
};

static int body(void *argument)
{
	struct start *start = argument;
	struct { int32_t error; uint32_t at; uint32_t length; } failure = { 0, 0, 0 };
	for (int i = 0; i < 3; i++)
		if (start->stdio[i] >= 0 && dup2(start->stdio[i], i) < 0)
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
	struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
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
		if (n == SIGSEGV || n == SIGBUS || n == SIGFPE || n == SIGILL || n == SIGABRT || n == SIGTTOU || n == SIGTTIN || n == SIGTSTP)
			sigdelset(&all, n);
	signal(SIGTTOU, SIG_IGN);
	signal(SIGTTIN, SIG_IGN);
	signal(SIGTSTP, SIG_IGN);
	if (sigprocmask(SIG_SETMASK, &all, NULL) < 0)
		return errno;
	s->signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signals < 0 ? errno : 0;
}

static int open_outside(struct supervisor *s)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct stat st;
	const char *path = s->record ? text(s->record, 1) : "";
	if (*text(s->stdio, 0)) {
		s->log = open(text(s->stdio, 0), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
		if (s->log < 0 || fstat(s->log, &st) < 0)
			return errno;
		s->log_size = (uint64_t)st.st_size;
		s->log_max = number(s->stdio, 1);
		s->log_files = (unsigned)number(s->stdio, 2);
	}
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

/* Silence on the pipe until it closes means that the program was started. */
static int await_start(struct supervisor *s, int sync)
{
	struct { int32_t error; uint32_t at; uint32_t length; } failure;
	char head[4096];
	uint32_t length = 0;
	int status;
	if (read_full(sync, &failure, sizeof failure) != 0)
		return 0;
	if (failure.length <= sizeof head && failure.length > 0 && read_full(sync, head, failure.length) == 0)
		length = failure.length;
	while (waitpid(s->pid, &status, 0) < 0 && errno == EINTR)
		;
	remove_cgroups(s->plan);
	report(REPORT_FAILED, failure.at, failure.error, 0, 0, head, length);
	return failure.error;
}

static void add_caller(struct supervisor *s)
{
	struct client *c = &s->clients[0];
	const char *keys = text(s->stdio, 3);
	unsigned flags = s->stdio->flags;
	c->control = FD_IN;
	c->attached = flags & STDIO_FOREGROUND;
	if (!c->attached)
		return;
	c->in = s->to >= 0 && flags & STDIO_STDIN ? 0 : -1;
	c->out[0] = s->from[0] >= 0 ? 1 : -1;
	c->out[1] = s->from[1] >= 0 ? 2 : -1;
	c->key_count = strnlen(keys, sizeof c->keys);
	memcpy(c->keys, keys, c->key_count);
}

int supervise(const struct plan *plan)
{
	static struct supervisor s;
	static struct start start;
	int ends[2], tty_socket = -1, e;
	memset(&s, 0xff, sizeof s);
	s.plan = plan;
	s.stdio = find(plan, OP_STDIO);
	s.record = find(plan, OP_SUPERVISE);
	s.cleanup = find(plan, OP_CLEANUP);
	s.exited = false;
	s.chunk_size = s.log_size = s.log_max = 0;
	s.line_size[0] = s.line_size[1] = 0;
	for (int i = 0; i < CLIENTS; i++) {
		s.clients[i].attached = false;
		s.clients[i].matched = s.clients[i].pending = s.clients[i].key_count = 0;
	}
	memset(&start, 0xff, sizeof start);
	memset(&start.child.identity, 0, sizeof start.child.identity);
	start.child.plan = plan;
	start.child.env = NULL;
	start.child.init = false;
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
	e = split(plan, body, &start, &s.pid, &s.pidfd);
	if (e) {
		remove_cgroups(plan);
		return 125;
	}
	/* Held open, the mount namespace outlives the program, so that unmounting (an overlay may sync its whole file system)
	 * comes after the exit was told.  Best effort: without it the exit is only told later. */
	char held[40];
	snprintf(held, sizeof held, "/proc/%d/ns/mnt", (int)s.pid);
	int namespace_fd = plan->ops[plan->split].code == OP_CLONE ? open(held, O_RDONLY | O_CLOEXEC) : -1;
	(void)namespace_fd;
	close(ends[1]);
	for (int i = 0; i < 3; i++)
		close_once(&start.stdio[i]);
	close_once(&start.child.tty_socket);
	if (await_start(&s, ends[0]) != 0)
		return 125;
	close(ends[0]);
	clock_gettime(CLOCK_REALTIME, &s.started);
	if (tty_socket >= 0 && (e = receive_master(&s, tty_socket)) != 0) {
		send_signal(&s, SIGKILL);
		report(REPORT_FAILED, UINT32_MAX, e, 0, 0, NULL, 0);
		return 125;
	}
	add_caller(&s);
	report(REPORT_STARTED, 0, 0, s.pid, (uint64_t)s.started.tv_sec * 1000000000u + (uint64_t)s.started.tv_nsec, NULL, 0);
	loop(&s);
	finish(&s);
	return 0;
}
