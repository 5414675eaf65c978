/* The log of a container; see log.c. */
#ifndef SAMPAN_LOG_H
#define SAMPAN_LOG_H

#include "plan.h"

#include <time.h>

enum { LINE = 16384, STREAMS = 2 };
enum { ENTRY = LINE * 6 + 256, TAIL = 36 << 10, AHEAD = 64 << 10 }; /* bytes: of a line at most, of the end, taken at once */

struct log {
	const char *path;
	int fd; /* -1: nothing is kept */
	uint64_t size, max;
	unsigned files;
	uint64_t taken;      /* the file has its blocks until there; the last TAIL bytes of them are for the end */
	bool plain, full;    /* plain: the file system takes none beforehand */
	struct timespec tried;
	char line[STREAMS][LINE];
	size_t line_size[STREAMS];
};

size_t escape(char *to, const char *from, size_t length); /* as a JSON string's inside, at most six times as long */
void time_text(char text[40], const struct timespec *time);
int log_open(struct log *log, const char *path, uint64_t max, unsigned files); /* 0 or errno */
void log_bytes(struct log *log, int stream, const char *bytes, size_t length);
void log_line(struct log *log, int stream); /* what is left of a line at the end */
void log_begin(struct log *log);            /* takes the blocks for the last lines */
void log_end(struct log *log);              /* writes what a full disk kept back */

#endif
