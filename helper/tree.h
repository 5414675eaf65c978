/* Streams of entries; see docs/internals/architecture.md, "Trees". */
#ifndef SAMPAN_TREE_H
#define SAMPAN_TREE_H
#include <stdint.h>
struct tree_options {
	const char *base;
	const char *xattr_opaque;
	uint32_t flags;
	uint32_t phase;
	uint64_t skipped;
	char path[513];
};
int tree_apply(int in_fd, int out_fd, struct tree_options *o);
int tree_pack(int in_fd, int out_fd, struct tree_options *o);
#endif
