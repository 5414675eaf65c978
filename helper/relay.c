/* Moves a container's output to those who watch and their input to it; serves signals, terminal sizes and the exit. */
#include "supervise.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void close_once(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
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
	log_bytes(&s->log, stream, s->chunk, (size_t)n);
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

void send_signal(struct supervisor *s, int number_)
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


void relay(struct supervisor *s)
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
