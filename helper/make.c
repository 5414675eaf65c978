/* Devices, links and files below the container's root, which OP_MKNOD, OP_SYMLINK and OP_FILE make. */
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Devices and links come one after the other into one directory, which stays open for the next. */
static struct { char path[PATH_MAX]; int fd; } maker = { .fd = -1 };

void leave_directory(void)
{
	if (maker.fd >= 0)
		close(maker.fd);
	maker.fd = -1;
}

static int enter_directory(const char *path)
{
	if (maker.fd >= 0 && strcmp(maker.path, path) == 0)
		return 0;
	leave_directory();
	strcpy(maker.path, path);
	return resolve_directory(path, true, 0755, &maker.fd);
}

/* The mode is the plan's, as the umask is 0.  Nothing is done to what has the name already: fchmodat(2) would follow a link,
 * and through procfs one of the image's leads to the host, whose root is still open here. */
static int make_node(int dir, const char *name, const struct op *op)
{
	dev_t device = makedev((unsigned)number(op, 1), (unsigned)number(op, 2));
	struct stat st;
	if (mknodat(dir, name, (mode_t)op->flags, device) == 0)
		return fchownat(dir, name, (uid_t)number(op, 3), (gid_t)number(op, 4), AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
	if (errno != EEXIST || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno;
	return ((st.st_mode ^ op->flags) & S_IFMT) == 0 && st.st_rdev == device ? 0 : EEXIST;
}

static int make_file(int dir, const char *name, const struct op *op)
{
	int fd = openat(dir, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, op->flags & 07777);
	if (fd < 0)
		return errno == EEXIST ? 0 : errno;
	close(fd);
	return 0;
}

int make_perform(const struct op *op)
{
	char parent[PATH_MAX];
	const char *name;
	int e = split_path(text(op, 0), parent, &name);
	if (!e)
		e = enter_directory(parent);
	if (e)
		return e;
	if (op->code == OP_SYMLINK)
		return symlinkat(text(op, 1), maker.fd, name) < 0 && errno != EEXIST ? errno : 0;
	return op->code == OP_MKNOD ? make_node(maker.fd, name, op) : make_file(maker.fd, name, op);
}
