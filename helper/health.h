/* Health checks: health.c keeps the clock and the results, probe.c runs one check. */
#ifndef SAMPAN_HEALTH_H
#define SAMPAN_HEALTH_H

#include "supervise.h"

enum { OUTPUT = 4096 }; /* bytes kept of a check's output, as Docker does */

struct probe {
	pid_t pid;              /* of the helper that supervises it, 0: none */
	pid_t session;          /* of its processes, led by who reaps them; 0: it has not started */
	int control, reports, output;
	int exit_code;
	const char *why;        /* instead of output: why it did not run */
	bool truncated;
	size_t size;
	char bytes[OUTPUT];
};

int probe_start(struct probe *p, const char *plan, int pidfd); /* 0 or errno */
void probe_output(struct probe *p);                            /* takes what is there */
bool probe_report(struct probe *p);                            /* reads one report; true: it is over, see exit_code */
void probe_close(struct probe *p);                             /* which ends it, unless it is over */
bool probe_gone(struct probe *p, bool all);                    /* reaps it; all: kills its processes, however many, and closes it */
void probe_abandon(struct probe *p);                           /* kills it all at once, and waits for nothing */

#endif
