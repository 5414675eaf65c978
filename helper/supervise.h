/* What the parts of the supervisor share: supervise.c starts, relay.c watches and moves bytes, client.c serves those who
 * watch, finish.c tells the end, events.c records what happened. */
#ifndef SAMPAN_SUPERVISE_H
#define SAMPAN_SUPERVISE_H

#include "log.h"

#include <time.h>

enum { CLIENTS = 16, CHUNK = 4096, KEYS = 28, RECORD = 192, REST = 1 << 20 };
enum { CONTROL_SIGNAL = 1, CONTROL_RESIZE = 2, CONTROL_KEEP = 4 };
enum hello_flags { HELLO_STDIN = 1, HELLO_HURRY = 2 }; /* HURRY: no client, no descriptors; see below */

/* What an attaching client sends first, with its descriptors 0 to 2 (SCM_RIGHTS). */
struct hello {
	uint16_t flags;
	uint16_t key_count;
	char keys[KEYS];       /* that detach */
};

struct client {
	int control, in, out[STREAMS];
	bool caller;           /* its control is FD_IN, its reports go to FD_OUT; a later client may get the number FD_IN */
	bool attached;         /* false with a control: the client has not said hello yet */
	size_t matched;        /* of the detach keys */
	size_t pending;        /* bytes of the current chunk still to be written */
	size_t rest[STREAMS];  /* how much of what was left at the end has been written */
	int refused;           /* errno of the first write that failed though the client is there: its disk is full */
	char keys[KEYS];
	size_t key_count;
};

struct supervisor {
	const struct plan *plan;
	const struct op *stdio, *record, *cleanup, *subject, *restart, *health, *sweep;
	int from[STREAMS], to;         /* the container's output and input on our side, none of which blocks */
	char input[CHUNK + KEYS];      /* what the container has not taken yet: that and held-back detach keys */
	size_t input_size, input_at;
	bool hurry;                    /* a stop is on its way: from now on output waits for no client */
	bool input_ended;              /* close `to` after the above */
	int listener, signals, pidfd;
	int events, home;              /* directories of the record of events and of the container, or -1 */
	int record_fd;                 /* the exit record: its space is taken at the start, for a disk that is full at the end */
	int oom;                       /* where the kernel tells that memory ran out, or -1: see oom.c */
	bool oom_counts;               /* it is a count (version 2) */
	uint64_t oom_kills, oom_told;  /* at the end; as events so far */
	struct log log;
	pid_t pid, waiter;             /* waiter: which starts it again, see restart.c */
	int go;
	unsigned pause;
	int status;
	bool exited, dismissed;        /* dismissed: told to end, from outside or by who watches */
	bool told;                     /* by a host that shuts down */
	int64_t kill_at;               /* milliseconds of the monotonic clock: who was told to end has until then; 0: no such time */
	bool groups_gone;
	bool kept;                     /* the caller has written down that the container runs: it may go now */
	struct timespec started, began; /* by the real clock, by the monotonic one */
	struct client clients[CLIENTS];
	char chunk[CHUNK];
	size_t chunk_size;
	int chunk_stream;
	size_t rest_size[STREAMS];
};

void send_signal(struct supervisor *s, int number);
void relay(struct supervisor *s);       /* returns after the exit, when all output is in the log */
void deliver(struct supervisor *s);     /* returns when every client that is still there has all output */
int open_record(struct supervisor *s);  /* 0 or errno */
void finish(struct supervisor *s);      /* removes the cgroups, writes the exit record */
void tell(struct supervisor *s);        /* tells everyone the end; may become the clean-up program */
uint64_t oom_kills(const struct plan *plan);
bool oom_count(int fd, uint64_t *kills);
void oom_begin(struct supervisor *s);
void oom_look(struct supervisor *s);    /* records what has happened since it was last called */
bool remove_cgroups(const struct plan *plan, bool ended); /* ended: what is left in them is killed; true: all are gone */
void plan_restart(struct supervisor *s, char *words, size_t size); /* words: what the exit record says of it */
void release_restart(struct supervisor *s);                        /* the record is there: the time runs */
void restart_here(struct supervisor *s);
void become(const struct op *op, unsigned from);                   /* execute the fields from there on */
bool dismisses(int signal_number);
void event(const struct supervisor *s, const char *action, const char *more); /* more: `,"key":"value"`… */
void event_started(const struct supervisor *s);
void event_ended(const struct supervisor *s, uint64_t oom_kills);
void close_once(int *fd);
void health_begin(struct supervisor *s);
int health_turn(struct supervisor *s);  /* does what is due; milliseconds until something is, or -1 */
int health_fd(const struct supervisor *s, int which);   /* 0: of reports, 1: of output; -1 */
void health_read(struct supervisor *s, int which);
void health_end(struct supervisor *s);

void accept_client(struct supervisor *s);
void add_caller(struct supervisor *s);
void drop_client(struct client *c);
void push_chunk(struct supervisor *s, struct client *c);
void push_rest(struct supervisor *s, struct client *c, int stream, const char *rest);
void give_input(struct supervisor *s);
void take_input(struct supervisor *s, struct client *c);
void take_control(struct supervisor *s, struct client *c);

#endif
