/* Runs one tree function below a directory, without the rest of the helper: for tests, sanitizers and fuzzing.
 *
 *     harness apply|pack ROOT FLAGS BASE OPAQUE     stream on descriptors 0 and 1
 *
 * Exit status 0, or 1 with "phase errno path" on descriptor 2.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../helper/tree.h"

#ifdef __SANITIZE_ADDRESS__
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0"; /* it needs /proc, which is outside of the root */
}
#endif

int main(int argc, char **argv)
{
	struct tree_options o = { 0 };
	if (argc != 6 || chroot(argv[2]) < 0 || chdir("/") < 0) {
		fprintf(stderr, "0 %d harness\n", errno);
		return 2;
	}
	o.flags = (uint32_t)strtoul(argv[3], NULL, 0);
	o.base = argv[4];
	o.xattr_opaque = argv[5];
	int e = strcmp(argv[1], "pack") ? tree_apply(0, &o) : tree_pack(0, 1, &o);
	if (e)
		fprintf(stderr, "%u %d %s\n", o.phase, e, o.path);
	return e ? 1 : 0;
}
