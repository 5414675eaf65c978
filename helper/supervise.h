/* What the parts of the supervisor share: supervise.c starts, relay.c watches and moves bytes, finish.c tells the end,
 * events.c records what happened. */
#ifndef SAMPAN_SUPERVISE_H
#define SAMPAN_SUPERVISE_H

#include "log.h"

#include <time.h>

enum { CLIENTS = 8, CHUNK = 4096 };
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
	const struct op *stdio, *record, *cleanup, *subject;
	int from[STREAMS], to;         /* the container's output and input on our side, none of which blocks */
	char input[CHUNK + 32];        /* what the container has not taken yet: that and held-back detach keys */
	size_t input_size, input_at;
	bool input_ended;              /* close `to` after the above */
	int listener, signals, pidfd;
	int events;                    /* directory of the record of events, or -1 */
	struct log log;
	pid_t pid;
	int status;
	bool exited;
	struct timespec started, began; /* by the real clock, by the monotonic one */
	struct client clients[CLIENTS];
	char chunk[CHUNK];
	size_t chunk_size;
	int chunk_stream;
};

void send_signal(struct supervisor *s, int number);
void relay(struct supervisor *s);       /* returns after the exit, when its output has been passed on */
void finish(struct supervisor *s);      /* tells everyone, cleans up; may become the clean-up program */
void remove_cgroups(const struct plan *plan, bool ended); /* ended: what is left in them is killed */
void event(const struct supervisor *s, const char *action, const char *more); /* more: `,"key":"value"`… */
void event_ended(const struct supervisor *s, uint64_t oom_kills);
void close_once(int *fd);

#endif
