/* Moves a container's output to those who watch and their input to it; serves signals, terminal sizes and the exit. */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STOP_SECONDS = 10 }; /* Docker's */
enum what { SIGNALS, EXIT, MEMORY, OUTPUT, LISTENER, CONTROL, INPUT, CHUNK_OUT, REST_OUT, TO_CONTAINER, CHECK };

struct watched {
	struct pollfd polls[9 + CLIENTS * 4];
	struct { enum what kind; struct client *client; int stream; } what[9 + CLIENTS * 4];
	nfds_t count;
};

/* What was left in the pipes at the end.  A pipe holds at most as much (fs.pipe-max-size); untouched pages cost nothing. */
static char rest[STREAMS][REST];

void close_once(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void watch(struct watched *w, int fd, short events, enum what kind, struct client *client, int stream)
{
	if (fd < 0)
		return;
	w->polls[w->count] = (struct pollfd){ fd, events, 0 };
	w->what[w->count].kind = kind;
	w->what[w->count].client = client;
	w->what[w->count].stream = stream;
	w->count++;
}

static bool is_behind(const struct supervisor *s, const struct client *c)
{
	if (c->pending > 0)
		return true;
	for (int stream = 0; c->attached && stream < STREAMS; stream++)
		if (c->out[stream] >= 0 && c->rest[stream] < s->rest_size[stream])
			return true;
	return false;
}

static bool behind(const struct supervisor *s)
{
	for (int i = 0; i < CLIENTS; i++)
		if (is_behind(s, &s->clients[i]))
			return true;
	return false;
}

static void forget_rest(struct supervisor *s)
{
	for (int stream = 0; stream < STREAMS; stream++) {
		s->rest_size[stream] = 0;
		for (int i = 0; i < CLIENTS; i++)
			s->clients[i].rest[stream] = 0;
	}
}

/* Reads and logs without waiting for anybody.  A client that is behind by more than `rest` holds is dropped. */
static bool take_rest(struct supervisor *s, int stream)
{
	if (s->rest_size[stream] > REST - CHUNK) {
		for (int i = 0; i < CLIENTS; i++)
			if (is_behind(s, &s->clients[i]))
				drop_client(&s->clients[i]);
		forget_rest(s);
	}
	char *to = rest[stream] + s->rest_size[stream];
	ssize_t n = read(s->from[stream], to, CHUNK);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	if (n <= 0) {
		close_once(&s->from[stream]);
		return false;
	}
	log_bytes(&s->log, stream, to, (size_t)n);
	s->rest_size[stream] += (size_t)n;
	return true;
}

static void take_output(struct supervisor *s, int stream)
{
	if (s->hurry && behind(s)) {
		take_rest(s, stream);
		return;
	}
	if (behind(s))
		return;
	forget_rest(s);
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

void send_signal(struct supervisor *s, int number_)
{
	if (!s->exited)
		syscall(SYS_pidfd_send_signal, s->pidfd, number_, NULL, 0);
}

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A host that shuts down waits for this process, systemd for 90 seconds; a first process without a handler never gets the
 * signal (pid_namespaces(7)).  So it has the time that `sampan stop` would give it; without end where that was asked for.
 * While somebody runs it in the foreground, as a unit of systemd does, it is his to say how long (TimeoutStopSec=): the time
 * begins when he is gone.  So it does after `run -d`, whose end this process may see later than the signal. */
static void give_time(struct supervisor *s)
{
	for (int i = 0; i < CLIENTS; i++)
		if (s->clients[i].caller && s->clients[i].control >= 0)
			return;
	const char *seconds = s->record != NULL && s->record->count > 2 ? text(s->record, 2) : "";
	if (*seconds != '-')
		s->kill_at = now_ms() + (*seconds ? strtoll(seconds, NULL, 10) : STOP_SECONDS) * 1000;
}

/* Kills who was told to end and has not; gives the milliseconds until then, or -1. */
static int kill_late(struct supervisor *s)
{
	if (s->told && s->kill_at == 0)
		give_time(s);
	if (s->kill_at == 0)
		return -1;
	int64_t left = s->kill_at - now_ms();
	if (left <= 0) {
		send_signal(s, SIGKILL);
		s->kill_at += 1000 - left;
		return 1000;
	}
	return left > INT_MAX ? INT_MAX : (int)left;
}

static void take_signal(struct supervisor *s)
{
	struct signalfd_siginfo info;
	if (read(s->signals, &info, sizeof info) != sizeof info || info.ssi_signo == SIGCHLD)
		return;
	s->dismissed |= dismisses((int)info.ssi_signo);
	s->told |= info.ssi_signo == SIGTERM || info.ssi_signo == SIGPWR;
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

static void never_block(struct supervisor *s)
{
	int ours[] = { s->from[0], s->from[1], s->to };
	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
		if (ours[i] >= 0)
			fcntl(ours[i], F_SETFL, fcntl(ours[i], F_GETFL) | O_NONBLOCK);
}

static void serve(struct supervisor *s, const struct watched *w, nfds_t i)
{
	struct client *c = w->what[i].client;
	int stream = w->what[i].stream;
	switch (w->what[i].kind) {
	case SIGNALS: take_signal(s); break;
	case EXIT: reap(s); break;
	case MEMORY: oom_look(s); break;
	case OUTPUT: if (s->from[stream] >= 0) take_output(s, stream); break;
	case LISTENER: accept_client(s); break;
	case CONTROL: if (c->control >= 0) take_control(s, c); break;
	case INPUT: if (c->in >= 0 && s->input_size == 0) take_input(s, c); break;
	case CHUNK_OUT: push_chunk(s, c); break;
	case REST_OUT: if (c->pending == 0) push_rest(s, c, stream, rest[stream]); break;
	case TO_CONTAINER: give_input(s); break;
	case CHECK: /* one that the container's end has ended is no result */
		if (!s->exited)
			health_read(s, stream);
		break;
	}
}

/* A client is served from the descriptors that it had when poll was called: one that came since has the next turn. */
static bool turn(struct supervisor *s, struct watched *w, int timeout)
{
	int ready = poll(w->polls, w->count, timeout);
	if (ready < 0)
		return errno == EINTR;
	for (nfds_t i = 0; ready > 0 && i < w->count; i++)
		if (w->polls[i].revents)
			serve(s, w, i);
	return true;
}

/* After the exit all that is left goes to the log at once, whoever reads; clients that are behind are served from `rest`
 * later.  A writer that escaped with a copy of the pipe is not waited for: what one pipe can hold is read, no more. */
static void drain(struct supervisor *s)
{
	for (int stream = 0; stream < STREAMS; stream++) {
		struct pollfd left = { s->from[stream], POLLIN, 0 };
		for (size_t most = REST / CHUNK; most > 0 && poll(&left, 1, 0) > 0 && take_rest(s, stream); most--)
			;
		close_once(&s->from[stream]);
		log_line(&s->log, stream);
	}
	log_end(&s->log);
}

/* Says whether somebody waits for output. */
static bool watch_readers(struct watched *w, struct supervisor *s)
{
	bool waiting = false;
	for (int i = 0; i < CLIENTS; i++) {
		struct client *c = &s->clients[i];
		if (!is_behind(s, c))
			continue;
		waiting = true;
		if (c->pending > 0)
			watch(w, c->out[s->chunk_stream], POLLOUT, CHUNK_OUT, c, 0);
		for (int stream = 0; c->pending == 0 && stream < STREAMS; stream++)
			if (c->rest[stream] < s->rest_size[stream])
				watch(w, c->out[stream], POLLOUT, REST_OUT, c, stream);
	}
	return waiting;
}

void relay(struct supervisor *s)
{
	bool going = true;
	never_block(s);
	while (going && !s->exited) {
		struct watched w = { .count = 0 };
		watch(&w, s->signals, POLLIN, SIGNALS, NULL, 0);
		watch(&w, s->pidfd, POLLIN, EXIT, NULL, 0);
		watch(&w, s->oom, s->oom_counts ? POLLPRI : POLLIN, MEMORY, NULL, 0);
		for (int i = 0; i < CLIENTS; i++) {
			struct client *c = &s->clients[i];
			watch(&w, c->control, POLLIN, CONTROL, c, 0);
			if (s->to >= 0 && s->input_size == 0)
				watch(&w, c->in, POLLIN, INPUT, c, 0);
		}
		bool stalled = watch_readers(&w, s) && !s->hurry;
		for (int i = 0; i < STREAMS && !stalled; i++)
			watch(&w, s->from[i], POLLIN, OUTPUT, NULL, i);
		watch(&w, s->listener, POLLIN, LISTENER, NULL, 0);
		if (s->input_size > 0)
			watch(&w, s->to, POLLOUT, TO_CONTAINER, NULL, 0);
		int timeout = health_turn(s), late = kill_late(s);
		watch(&w, health_fd(s, 0), POLLIN, CHECK, NULL, 0);
		watch(&w, health_fd(s, 1), POLLIN, CHECK, NULL, 1);
		going = turn(s, &w, timeout < 0 || (late >= 0 && late < timeout) ? late : timeout);
	}
	drain(s);
}

void deliver(struct supervisor *s)
{
	bool going = true;
	while (going) {
		struct watched w = { .count = 0 };
		if (!watch_readers(&w, s))
			return;
		for (int i = 0; i < CLIENTS; i++)
			if (s->clients[i].attached)
				watch(&w, s->clients[i].control, POLLIN, CONTROL, &s->clients[i], 0);
		going = turn(s, &w, -1);
	}
}
