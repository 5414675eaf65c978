/* The log of a container; see log.c. */
#ifndef SAMPAN_LOG_H
#define SAMPAN_LOG_H

#include "plan.h"

#include <time.h>

enum { LINE = 16384, STREAMS = 2 };

struct log {
	const char *path;
	int fd; /* -1: nothing is kept */
	uint64_t size, max;
	unsigned files;
	char line[STREAMS][LINE];
	size_t line_size[STREAMS];
};

size_t escape(char *to, const char *from, size_t length); /* as a JSON string's inside, at most six times as long */
void time_text(char text[40], const struct timespec *time);
int log_open(struct log *log, const char *path, uint64_t max, unsigned files); /* 0 or errno */
void log_bytes(struct log *log, int stream, const char *bytes, size_t length);
void log_line(struct log *log, int stream); /* what is left of a line at the end */

#endif
