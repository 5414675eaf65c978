/* The records of a tree stream, and the walk over a tree that apply and pack share. */
#ifndef SAMPAN_STREAM_H
#define SAMPAN_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "tree.h"

enum {
	HEAD_SIZE = 56,
	CHUNK_HEAD = 12,
	BLOCK = 4096,           /* the smallest hole worth keeping */
	WRITEBACK_SIZE = 1 << 20, /* files of this size start on their way to the disk at once */
	STREAM_BUFFER = 1 << 18,
	PATH_LIMIT = 65535,     /* longer than the kernel's 4095: trees can be deeper than a path can say */
	LINK_LIMIT = 4095,
	XATTRS_LIMIT = 1 << 20, /* all of one entry */
	XATTR_NAME_LIMIT = 255, /* Linux XATTR_NAME_MAX */
	XATTR_VALUE_LIMIT = 65536,
};

/* Entry flags, per type. */
enum entry_flags {
	ENTRY_KEEP = 1,     /* D: an existing directory, also behind a symbolic link, keeps its metadata */
	ENTRY_CHILDREN = 2, /* W: remove what is inside only */
	ENTRY_NO_DATA = 4,  /* F: no chunks follow */
	REQUEST_FOLLOW = 8, /* R: a symbolic link as last component is followed */
	REQUEST_LIST = 16,  /* R: entries without contents */
};

struct entry {
	uint8_t type, flags;
	uint32_t mode, uid, gid, rmajor, rminor, nsec, nxattrs;
	int64_t sec;
	uint64_t size;
	size_t path_len, link_len, xattrs_len;
	unsigned char *xattrs; /* as on the wire */
	size_t xattrs_cap;
	char path[PATH_LIMIT + 1];
	char link[PATH_LIMIT + 1];
};

struct source {
	int fd;
	size_t at, end;
	unsigned char *bytes;
};

struct sink {
	int fd;
	size_t used;
	unsigned char *bytes;
};

#define CHUNK_ABORT UINT32_MAX /* length of a chunk: reading failed, an `E` record says why */

enum { STREAM_EOF = -1, STREAM_FORMAT = -2 };

int source_open(struct source *s, int fd);
int source_need(struct source *s, size_t count);        /* 0, STREAM_EOF before the first byte, EPIPE inside, errno */
int source_copy(struct source *s, void *to, size_t count);
int source_entry(struct source *s, struct entry *e);    /* as source_need, or STREAM_FORMAT */
int source_chunk(struct source *s, uint64_t *offset, uint32_t *length);
bool next_xattr(const struct entry *e, size_t *at, char name[XATTR_NAME_LIMIT + 1], const unsigned char **value, size_t *length);
bool xattr_accepted(const char *name, const char *opaque);

int sink_open(struct sink *s, int fd);
int sink_put(struct sink *s, const void *bytes, size_t count);
int sink_flush(struct sink *s);
int sink_head(struct sink *s, const struct entry *e);   /* all fields from e, without path, link and xattrs */
void put32(unsigned char *to, uint32_t value);
void put64(unsigned char *to, uint64_t value);

/* A place in a tree: a path and descriptors of its last directories.  The number of open descriptors is bounded, whatever
 * the depth: a forgotten one is opened again by walking down from the top, without following symbolic links (or, when
 * `root` is given, resolving them below it). */
struct level {
	size_t end;            /* length of the path up to here */
	int fd;                /* -1: forgotten */
	unsigned flags;        /* the owner's */
	struct timespec mtime;
	struct names *names;
	size_t next;
};

struct walk {
	int root;              /* -1: symbolic links are never followed */
	const char *prefix;    /* where level 0 is, for resolution below `root` */
	char *path;
	size_t len, cap;
	struct level *levels;
	size_t depth, levels_cap, low; /* levels low..depth are open, and level 0 */
};

struct text {
	char *bytes;
	size_t len, cap;
};

struct names {
	size_t count;
	char **at;             /* each: one byte of d_type, then the name */
	char *bytes;
};

int walk_start(struct walk *w, int fd);                 /* takes fd */
int walk_push(struct walk *w, const char *name, size_t len, int fd); /* takes fd */
void walk_pop(struct walk *w);
int walk_fd(struct walk *w);                            /* the last level's descriptor or -errno; w keeps it */
size_t walk_common(const struct walk *w, const char *path, size_t len);
void walk_free(struct walk *w);

int open_directory(int at, const char *name);           /* never through a symbolic link; descriptor or -errno */
int make_directory(int at, const char *name);           /* 0755 root; 0 or errno */
int resolve(int root, const char *path, bool create, struct text *real); /* as the kernel would in a chroot */
int text_set(struct text *t, const char *a, const char *b, const char *c); /* a/b/c without empty parts; 0 or errno */
int remove_below(int fd);                               /* everything inside */
int remove_at(int at, const char *name);                /* whatever it is; a missing one is fine */
int list_names(int fd, struct names **names);           /* sorted bytewise */
void names_free(struct names *names);

#endif
