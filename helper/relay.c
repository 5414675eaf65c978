/* Moves a container's output to those who watch and their input to it; serves signals, terminal sizes and the exit. */
#include "supervise.h"

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

/* Passes on what the container takes now; the rest waits for room, and no client is read meanwhile. */
static void give_input(struct supervisor *s)
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

static void end_input(struct supervisor *s, struct client *c)
{
	close_once(&c->in);
	if (!(s->stdio->flags & STDIO_TTY))
		s->input_ended = true;
	give_input(s);
}

/* Called only when nothing is left in the buffer, so what one read gives always fits, with the keys held back. */
static void take_input(struct supervisor *s, struct client *c)
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
		tell_detached(c);
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
		if (c->in >= 0)
			end_input(s, c); /* as Docker's StdinOnce: nobody else is going to write */
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
	ssize_t size = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	head = size < 0 ? NULL : CMSG_FIRSTHDR(&message);
	size_t count = head && head->cmsg_type == SCM_RIGHTS ? (head->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
	if (count > 0)
		memcpy(fds, CMSG_DATA(head), count * sizeof(int));
	if (size != sizeof c->keys || count != 3) {
		for (size_t i = 0; i < count; i++)
			close(fds[i]);
		close(fd);
		return;
	}
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

static void never_block(struct supervisor *s)
{
	int ours[] = { s->from[0], s->from[1], s->to };
	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
		if (ours[i] >= 0)
			fcntl(ours[i], F_SETFL, fcntl(ours[i], F_GETFL) | O_NONBLOCK);
	open_again(&s->clients[0].out[0]);
	open_again(&s->clients[0].out[1]);
}

void relay(struct supervisor *s)
{
	never_block(s);
	while (!s->exited || ((s->from[0] >= 0 || s->from[1] >= 0) && busy(s)) || s->from[0] >= 0 || s->from[1] >= 0) {
		struct pollfd polls[6 + CLIENTS * 3];
		struct { int kind; struct client *client; int stream; } what[6 + CLIENTS * 3];
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
			if (c->in >= 0 && s->to >= 0 && !s->exited && s->input_size == 0)
				WATCH(c->in, POLLIN, 5, c, 0);
			if (c->pending > 0)
				WATCH(c->out[s->chunk_stream], POLLOUT, 6, c, 0);
		}
		if (s->to >= 0 && s->input_size > 0 && !s->exited)
			WATCH(s->to, POLLOUT, 7, NULL, 0);
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
			case 5: if (what[i].client->in >= 0 && s->input_size == 0) take_input(s, what[i].client); break;
			case 6: if (what[i].client->pending > 0) push(what[i].client, s); break;
			case 7: give_input(s); break;
			}
		}
		if (stalled && s->exited && s->clients[0].control < 0)
			return;
	}
}
