/* What the two halves of pack share: its state, the walk (pack.c) and the sending of one entry (send.c). */
#ifndef SAMPAN_PACK_H
#define SAMPAN_PACK_H

#include <sys/stat.h>
#ifndef STATX_BASIC_STATS /* musl before 1.2.5 */
#include <linux/stat.h>
#endif

#include "stream.h"

enum { LINKS_SLOTS = 1 << 14 };

struct pack {
	struct tree_options *o;
	struct source in;
	struct sink out;
	struct walk walk;
	int root;
	bool list, in_data;
	uint64_t depth;        /* how deep the current request goes */
	struct text label;     /* the request's own path: entries are named below it */
	struct text full;
	struct link *links[LINKS_SLOTS];
	size_t links_bytes;
	char *xattr_names;     /* XATTR_VALUE_LIMIT bytes */
	struct entry request;
	struct entry e;        /* what is being sent; its own path and link stay unused */
};

/* All return 0 or an errno, and note the first failure in the options. */
int pack_fail(struct pack *p, enum tree_phase phase, int error, const char *path);
bool gone(int error); /* it vanished, or became something else between two looks */
void forget_links(struct pack *p);
int send_directory(struct pack *p, int fd, const struct statx *st, const char *path);
int send_file(struct pack *p, int fd, const struct statx *st, const char *path);
int send_special(struct pack *p, int at, const char *name, const struct statx *st, const char *path);
int send_end(struct pack *p, int error, enum tree_phase phase, const char *path); /* of an answer */
int send_failure(struct pack *p, int error);

#endif
