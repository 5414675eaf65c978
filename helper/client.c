/* Those who watch a container: the caller, and whoever attached and handed its descriptors over.  None of them can block
 * the supervisor, whatever it does or leaves undone. */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

void drop_client(struct client *c)
{
	close_once(&c->control);
	close_once(&c->in);
	close_once(&c->out[0]);
	close_once(&c->out[1]);
	c->pending = c->matched = c->key_count = 0;
	c->attached = c->caller = false;
	c->refused = 0;
}

/* What the caller leaves must not end with the unit that he started it in, which may end as soon as he is told. */
static void tell_detached(const struct supervisor *s, struct client *c)
{
	struct report head = { REPORT_DETACHED, 0, 0, 0, 0, 0, 0 };
	if (c->caller)
		leave_at_detach(s->plan);
	write_full(c->caller ? FD_OUT : c->control, &head, sizeof head);
	drop_client(c);
}

/* Writes what the client takes now; one that is gone or cannot be written to gets nothing more of this stream. */
static size_t push(struct client *c, int stream, const char *bytes, size_t left)
{
	ssize_t n = send(c->out[stream], bytes, left, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno == ENOTSOCK)
		n = write(c->out[stream], bytes, left);
	if (n > 0)
		return left - (size_t)n;
	if (errno == EINTR || errno == EAGAIN)
		return left;
	if (c->refused == 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG || errno == EBADF))
		c->refused = errno;
	close_once(&c->out[stream]);
	return 0;
}

void push_chunk(struct supervisor *s, struct client *c)
{
	if (c->pending > 0)
		c->pending = push(c, s->chunk_stream, s->chunk + s->chunk_size - c->pending, c->pending);
}

void push_rest(struct supervisor *s, struct client *c, int stream, const char *rest)
{
	size_t left = s->rest_size[stream] - c->rest[stream];
	size_t part = left < CHUNK ? left : CHUNK;
	if (c->out[stream] >= 0 && part > 0)
		c->rest[stream] += part - push(c, stream, rest + c->rest[stream], part);
}

/* ---- input ---- */

/* Passes on what the container takes now; the rest waits for room, and no client is read meanwhile. */
void give_input(struct supervisor *s)
{
	while (s->to >= 0 && s->input_at < s->input_size) {
		ssize_t n = write(s->to, s->input + s->input_at, s->input_size - s->input_at);
		if (n > 0)
			s->input_at += (size_t)n;
		else if (errno == EAGAIN)
			return;
		else if (errno != EINTR)
			close_once(&s->to);
	}
	s->input_size = s->input_at = 0;
	if (s->input_ended)
		close_once(&s->to);
}

/* Docker's StdinOnce: a program that was started attached sees the end of its input with the first client's; one that was
 * started detached is written to by one client after another. */
static void end_input(struct supervisor *s, struct client *c)
{
	close_once(&c->in);
	if (s->stdio->flags & STDIO_TTY || !(s->stdio->flags & STDIO_FOREGROUND))
		return;
	s->input_ended = true;
	if (s->input_size == 0)
		give_input(s);
}

/* Called only when nothing is left in the buffer, so what one read gives always fits, with the keys held back. */
void take_input(struct supervisor *s, struct client *c)
{
	char bytes[CHUNK];
	bool detach = false;
	ssize_t n = read(c->in, bytes, sizeof bytes);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		end_input(s, c);
		return;
	}
	for (ssize_t i = 0; i < n && !detach; i++) {
		if (c->key_count > 0 && bytes[i] == c->keys[c->matched]) {
			detach = ++c->matched == c->key_count;
			continue;
		}
		memcpy(s->input + s->input_size, c->keys, c->matched);
		s->input_size += c->matched;
		c->matched = 0;
		s->input[s->input_size++] = bytes[i];
	}
	give_input(s);
	if (detach)
		tell_detached(s, c);
}

/* ---- coming, asking, going ---- */

/* A terminal that has room for one byte counts as ready, and a blocking write of more would hold up signals and the exit.
 * The flag belongs to the caller's open file too, so another one is opened; without that the write may block. */
static void open_again(int *fd)
{
	char path[32];
	int again;
	if (*fd < 0 || !isatty(*fd))
		return;
	snprintf(path, sizeof path, "/proc/self/fd/%d", *fd);
	again = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (again >= 0) {
		close(*fd);
		*fd = again;
	}
}

/* A terminal's output is one: the caller's second place for it would keep his terminal open after he has detached. */
static void leave_second_output(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, 2);
		close(null);
	}
}

void add_caller(struct supervisor *s)
{
	struct client *c = &s->clients[0];
	unsigned flags = s->stdio->flags;
	c->control = FD_IN;
	c->caller = true;
	c->attached = flags & STDIO_FOREGROUND;
	if (!c->attached)
		return;
	c->in = s->to >= 0 && flags & STDIO_STDIN ? 0 : -1;
	c->out[0] = s->from[0] >= 0 ? 1 : -1;
	c->out[1] = s->from[1] >= 0 ? 2 : -1;
	open_again(&c->out[0]);
	open_again(&c->out[1]);
	if (s->stdio->flags & STDIO_TTY)
		leave_second_output();
	if (s->stdio->count > 3 && s->stdio->fields[3].length <= KEYS) {
		c->key_count = s->stdio->fields[3].length;
		memcpy(c->keys, s->stdio->fields[3].bytes, c->key_count);
	}
}

void accept_client(struct supervisor *s)
{
	int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
	for (int i = 0; fd >= 0 && i < CLIENTS; i++)
		if (s->clients[i].control < 0) {
			s->clients[i].control = fd;
			return;
		}
	if (fd >= 0)
		close(fd);
}

static void take_hello(struct supervisor *s, struct client *c)
{
	union { char bytes[CMSG_SPACE(3 * sizeof(int))]; struct cmsghdr align; } control;
	struct hello hello;
	struct iovec io = { &hello, sizeof hello };
	struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CMSG_LEN(3 * sizeof(int)) };
	/* Not CMSG_SPACE: with its padding the kernel would find room for a fourth descriptor (net/core/scm.c). */
	ssize_t size = recvmsg(c->control, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	struct cmsghdr *head = size < 0 ? NULL : CMSG_FIRSTHDR(&message);
	size_t count = head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS
		? (head->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
	int fds[3] = { -1, -1, -1 };
	bool cut = count > 3 || message.msg_flags & MSG_CTRUNC;
	count = count > 3 ? 3 : count;
	memcpy(fds, count > 0 ? CMSG_DATA(head) : (void *)fds, count * sizeof(int));
	c->in = fds[0];
	c->out[0] = fds[1];
	c->out[1] = fds[2];
	s->hurry |= size == sizeof hello && hello.flags & HELLO_HURRY;
	if (size != sizeof hello || cut || count != 3 || hello.key_count > KEYS) {
		drop_client(c);
		return;
	}
	memcpy(c->keys, hello.keys, hello.key_count);
	c->key_count = hello.key_count;
	c->matched = c->pending = 0;
	for (int stream = 0; stream < STREAMS; stream++)
		c->rest[stream] = s->rest_size[stream]; /* from now on */
	c->attached = true;
	if (!(hello.flags & HELLO_STDIN) || s->to < 0)
		close_once(&c->in);
	open_again(&c->out[0]);
	open_again(&c->out[1]);
}

/* Without OP_SUPERVISE a container lives no longer than its caller, with it no longer than a caller that has not yet
 * written down that it runs: nothing runs of which no record tells. */
static void caller_is_gone(struct supervisor *s)
{
	if (s->record == NULL || !s->kept)
		send_signal(s, SIGKILL);
}

void take_control(struct supervisor *s, struct client *c)
{
	uint32_t message[2];
	bool caller = c->caller;
	if (!caller && !c->attached) {
		take_hello(s, c);
		return;
	}
	ssize_t n = read(c->control, message, sizeof message);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n != sizeof message) {
		if (c->in >= 0)
			end_input(s, c);
		drop_client(c);
		if (caller)
			caller_is_gone(s);
		return;
	}
	if (message[0] == CONTROL_SIGNAL) {
		s->dismissed |= dismisses((int)message[1]);
		send_signal(s, (int)message[1]);
	}
	if (message[0] == CONTROL_KEEP)
		s->kept = true;
	if (message[0] == CONTROL_RESIZE && s->stdio->flags & STDIO_TTY && s->from[0] >= 0) {
		struct winsize size = { (unsigned short)(message[1] >> 16), (unsigned short)message[1], 0, 0 };
		if (ioctl(s->from[0], TIOCSWINSZ, &size) < 0 && errno == ENOTTY)
			drop_client(c);
	}
}
