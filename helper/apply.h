/* What the two halves of apply share: its state, its place in the tree (place.c) and the entries (apply.c). */
#ifndef SAMPAN_APPLY_H
#define SAMPAN_APPLY_H

#include "stream.h"

/* Flags of a level of the walk. */
enum {
	LEVEL_CHANGED = 1, /* something inside was created or removed, which moved its time */
	LEVEL_SET = 2,     /* an entry said its time */
	LEVEL_KEEP = 4,    /* its time from before is known */
	LEVEL_ACL = 8,     /* it has a default ACL, which new files inside inherit: entries say all that a file has */
};

struct apply {
	struct tree_options *o;
	struct source in;
	struct walk walk;
	int root;
	bool layer; /* the tree is an overlay layer: C 0/0 and the opaque mark mean something */
	bool stale; /* a directory or symbolic link went away: what the walk holds may not be there any more */
	struct entry e;
};

/* All return 0 or an errno, and note the first failure in the options; descriptors come as fd or -errno. */
int fail(struct apply *a, enum tree_phase phase, int error);
int fail_at(struct apply *a, enum tree_phase phase, int error, const char *path);
int fail_read(struct apply *a, int error);

int set_xattrs(struct apply *a, int fd);
int set_metadata(struct apply *a, int fd, bool made, bool directory, bool inherits);
int stand_in(struct apply *a, int at, const char *name);
bool is_whiteout(int at, const char *name);
int make_opaque(struct apply *a, int fd);
int set_by_name(struct apply *a, int at, const char *name);
int set_special_bits(struct apply *a, int at, const char *name);
int agree(struct apply *a, int at, const char *name);
int replace_whiteout(struct apply *a, int at, const char *name);

struct level *here(struct apply *a);
int settle(struct apply *a);
int leave(struct apply *a);
int note_existing(struct apply *a, int fd);
int follow(struct apply *a, const char *name, bool create);
int enter(struct apply *a, const char *path, size_t len, bool create);
int enter_parent(struct apply *a, int *at, const char **name);
int clear_way(struct apply *a, int at, const char *name, bool for_directory);

#endif
