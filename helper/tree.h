/* Streams of entries; see docs/internals/architecture.md, "Trees".
 *
 * Both functions are called by a process that is already in its namespaces, with its root pivoted to the tree and "/" as
 * its directory.  They are final operations: they set the umask, ignore SIGPIPE and may change the directory.
 */
#ifndef SAMPAN_TREE_H
#define SAMPAN_TREE_H

#include <stdint.h>

enum tree_flags {
	TREE_MERGE = 1,              /* apply: the tree is a merged one: `W` entries remove; C 0/0 is not special */
	TREE_BEST_EFFORT_IDS = 4,    /* apply: a refused owner is recorded, it or a file capability counted in `skipped`, not fatal */
	TREE_BEST_EFFORT_NODES = 8,  /* apply: a refused device node becomes an empty file that records it, and is counted */
	TREE_SYNC = 16,              /* apply: syncfs() at the end */
	TREE_ONE_FILE_SYSTEM = 32,   /* pack: other mounts are not entered; files mounted over are left out */
	TREE_LIST = 64,              /* pack: entries without contents */
	TREE_CREATE_BASE = 128,      /* apply: a missing `base` is created, 0755 root */
	TREE_KEEP_TYPE = 256,        /* apply: a directory never replaces something else, nor the reverse */
	TREE_REQUESTS = 512,         /* pack: in_fd carries requests; without it the whole tree is packed once */
	TREE_NO_KERNEL = 2048,       /* pack: proc, sysfs, cgroups and the like are not entered, and their files refused */
	TREE_WRITEBACK = 4096,       /* apply: writing large files to the disk begins at once; a syncfs() is to follow */
	TREE_RECORDED = 8192,        /* pack: owners and devices are those that apply recorded */
	TREE_STRICT_SETID = 16384,   /* apply: despite BEST_EFFORT_IDS a refused owner of a set-ID program is fatal */
};

/* What was being done when it failed; runtime/tree.py has a sentence for each. */
enum tree_phase {
	TREE_PHASE_NONE = 0,
	TREE_PHASE_READ = 1,   /* the stream ended or could not be read */
	TREE_PHASE_FORMAT = 2, /* the stream holds what it may not */
	TREE_PHASE_BASE = 3,
	TREE_PHASE_PARENT = 4,
	TREE_PHASE_CREATE = 5,
	TREE_PHASE_WRITE = 6,
	TREE_PHASE_OWNER = 7,
	TREE_PHASE_MODE = 8,
	TREE_PHASE_XATTR = 9,
	TREE_PHASE_TIME = 10,
	TREE_PHASE_REMOVE = 11,
	TREE_PHASE_LINK = 12,
	TREE_PHASE_SYNC = 13,
	TREE_PHASE_OPEN = 14,
	TREE_PHASE_LIST = 15,
	TREE_PHASE_SEND = 16,
	TREE_PHASE_RESOLVE = 17, /* a requested path is not there */
};

struct tree_options {
	const char *base;         /* path in the root, symbolic links followed; "" is the root */
	const char *xattr_opaque; /* "trusted.overlay.opaque", "user.overlay.opaque" or "" */
	uint32_t flags;
	/* results */
	uint32_t phase;
	uint64_t skipped;         /* what best effort could not do */
	char path[513];           /* the path that failed, cut */
};

int tree_apply(int in_fd, struct tree_options *o); /* 0 or an errno */
int tree_pack(int in_fd, int out_fd, struct tree_options *o);

#endif
