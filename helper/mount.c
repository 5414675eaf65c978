/* Everything that changes the child's mount namespace.
 *
 * Sources are opened on the host before the pivot; targets are resolved by the kernel below the new root after it, never
 * through procfs magic links.  What is masked is checked to be the real procfs or sysfs and the real /dev/null: a process
 * of another container may be rewriting a shared volume meanwhile.  Needs Linux 5.12 (mount_setattr).
 */
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef MOUNT_ATTR_RDONLY
#error "kernel headers without mount_setattr (5.12)"
#endif
/* <sys/mount.h> and <linux/mount.h> of glibc 2.36 define the same names twice. */
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
enum { DETACH = 2 /* MNT_DETACH */ };

static int sys_open_tree(int dir, const char *path, unsigned flags)
{
	return (int)syscall(SYS_open_tree, dir, path, flags);
}

static int sys_move_mount(int from, const char *from_path, int to, const char *to_path, unsigned flags)
{
	return (int)syscall(SYS_move_mount, from, from_path, to, to_path, flags);
}

static int set_attributes(int fd, uint64_t set, uint64_t propagation, bool recursive)
{
	struct mount_attr attr = { .attr_set = set, .propagation = propagation };
	if (set & (MOUNT_ATTR_NOATIME | MOUNT_ATTR_STRICTATIME))
		attr.attr_clr = MOUNT_ATTR__ATIME;
	unsigned flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
	return syscall(SYS_mount_setattr, fd, "", flags, &attr, sizeof attr) < 0 ? errno : 0;
}

/* A copy of the host's mounts still exchanges mounts with them where these are shared, as systemd makes them: nothing
 * mounted here may show there, and pivot_root(2) refuses shared parents. */
static int leave_peers(void)
{
	return mount(NULL, "/", NULL, 1ul << 19 | 16384 /* MS_SLAVE | MS_REC */, NULL) < 0 ? errno : 0;
}

/* No device can be opened from here on, whatever node a container puts in a file's place while its files are read: to
 * open one may be to act (a watchdog, a tape).  In a container's namespace this happens to a copy of its mounts. */
static int do_no_devices(const struct op *op)
{
	if (op->flags & 1 && unshare(CLONE_NEWNS) < 0)
		return errno;
	if (mount(NULL, "/", NULL, 1ul << 18 | 16384 /* MS_PRIVATE | MS_REC */, NULL) < 0)
		return errno;
	int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return errno;
	int e = set_attributes(root, MOUNT_ATTR_NODEV, 0, true);
	close(root);
	return e;
}

static int do_overlay(const struct op *op)
{
	const char *target = text(op, 0);
	int e = leave_peers();
	if (e)
		return e;
	return mount("overlay", target, "overlay", op->flags, text(op, 1)) < 0 ? errno : 0;
}

static int do_rootdir(const struct op *op)
{
	int e = leave_peers(), fd;
	if (e)
		return e;
	fd = sys_open_tree(AT_FDCWD, text(op, 0), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (op->flags ? AT_RECURSIVE : 0));
	if (fd < 0)
		return errno;
	if (sys_move_mount(fd, "", AT_FDCWD, text(op, 1), MOVE_MOUNT_F_EMPTY_PATH) < 0)
		e = errno;
	close(fd);
	return e;
}

static int do_source(struct child *child, const struct op *op)
{
	uint64_t slot = number(op, 0);
	unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (op->flags & 1 ? AT_RECURSIVE : 0);
	if (slot >= sizeof child->sources / sizeof *child->sources)
		return EINVAL;
	child->sources[slot] = sys_open_tree(AT_FDCWD, text(op, 1), flags);
	return child->sources[slot] < 0 ? errno : 0;
}

/* Until OP_DETACH the new root is a chroot: procfs may be mounted in a user namespace only while another full procfs is
 * visible, so the old root has to stay.  It must not be stacked on the new one meanwhile (pivot_root(".", ".")): ".." at
 * the root, which openat2 keeps there, would still cross into what is mounted on it, and a link of the image lead out. */
static int do_pivot(struct child *child, const struct op *op)
{
	int e;
	child->null_fd = open("/dev/null", O_PATH | O_CLOEXEC | O_NOFOLLOW);
	e = child->null_fd < 0 ? errno : is_null(child->null_fd);
	if (e)
		return e;
	child->old_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (child->old_root < 0 || chdir(text(op, 0)) < 0 || chroot(".") < 0)
		return errno;
	return 0;
}

static int do_detach(struct child *child)
{
	int e = 0, root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return errno;
	if (fchdir(child->old_root) < 0 || chroot(".") < 0 || fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0
	    || fchdir(child->old_root) < 0 || mount(NULL, ".", NULL, 1ul << 18 | 16384 /* MS_PRIVATE | MS_REC */, NULL) < 0
	    || umount2(".", DETACH) < 0 || chdir("/") < 0)
		e = errno;
	close(root);
	close(child->old_root);
	close(child->null_fd);
	/* Nothing of the host is left to see (ns.c), and what of procfs is its own may be written again. */
	return !e && !child->hidden && prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ? errno : e;
}

int split_path(const char *path, char *parent, const char **name)
{
	const char *slash = strrchr(path, '/');
	if (slash == NULL || slash[1] == 0 || strlen(path) >= PATH_MAX)
		return EINVAL;
	memcpy(parent, path, (size_t)(slash - path));
	parent[slash - path] = 0;
	*name = slash + 1;
	return 0;
}

/* A missing directory for one of the kernel's own file systems, below what is no link. */
static int make_own(const char *target, int *fd)
{
	char parent[PATH_MAX];
	const char *name;
	int dir, e = split_path(target, parent, &name);
	if (e)
		return e;
	dir = open_in_root(AT_FDCWD, *parent ? parent : "/", O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
	if (dir < 0 && errno == ENOENT) {
		e = make_own(parent, &dir);
		if (e)
			return e;
	}
	if (dir < 0)
		return errno;
	if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
		e = errno;
	else if ((*fd = open_in_root(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, RESOLVE_NO_SYMLINKS)) < 0)
		e = errno;
	close(dir);
	return e;
}

/* The kernel lets a user namespace mount sysfs only where no part of the old one is covered, as it is inside most containers
 * (fs/namespace.c, mnt_already_visible): the old one takes its place then, to be read only. */
static int bind_old_sysfs(const struct child *child)
{
	int e = 0, tree = sys_open_tree(child->old_root, "sys", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	if (tree < 0)
		return errno;
	e = set_attributes(tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 1 << 18, true);
	if (!e && sys_move_mount(tree, "", AT_FDCWD, ".", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		e = errno;
	close(tree);
	return e;
}

/* A new file system.  With bit 31 it is one of the kernel's own, at a place that must be a real directory: an image whose
 * /proc or /dev is a link is refused (CVE-2019-19921 and its kin). */
static int do_mount(const struct child *child, const struct op *op)
{
	const char *target = text(op, 2);
	bool own = op->flags & 1u << 31;
	int fd = own ? open_in_root(AT_FDCWD, target, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS) : -1, e = 0;
	if (own && fd < 0 && errno != ENOENT)
		return errno;
	if (fd < 0) {
		e = own ? make_own(target, &fd) : resolve_directory(target, true, 0755, &fd);
		if (e)
			return e;
	}
	e = is_kind(fd, true);
	if (!e && strcmp(text(op, 0), "proc") != 0)
		e = not_procfs(fd);
	if (e) {
		close(fd);
		return e;
	}
	if (fchdir(fd) < 0)
		e = errno;
	close(fd);
	if (!e && mount(text(op, 1), ".", text(op, 0), op->flags & 0x3fffffff, text(op, 3)) < 0)
		e = errno == EPERM && strcmp(text(op, 0), "sysfs") == 0 ? bind_old_sysfs(child) : errno;
	return chdir("/") < 0 && !e ? errno : e;
}

static int do_attach(struct child *child, const struct op *op)
{
	uint64_t slot = number(op, 0);
	struct stat st;
	int source, target, e;
	if (slot >= sizeof child->sources / sizeof *child->sources || (source = child->sources[slot]) < 0)
		return EINVAL;
	if (fstat(source, &st) < 0)
		return errno;
	e = set_attributes(source, number(op, 2), number(op, 3), op->flags & 1);
	if (e)
		return e;
	if (S_ISDIR(st.st_mode))
		e = resolve_directory(text(op, 1), true, 0755, &target);
	else
		e = resolve_file(text(op, 1), &target);
	if (e)
		return e;
	if (op->flags & 1u << 31) {
		close(target);
		target = open_in_root(AT_FDCWD, text(op, 1), O_PATH, RESOLVE_NO_SYMLINKS);
		if (target < 0)
			return errno;
	}
	e = is_kind(target, S_ISDIR(st.st_mode));
	if (!e)
		e = not_procfs(target);
	if (!e && sys_move_mount(source, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		e = errno;
	close(target);
	close(source);
	child->sources[slot] = -1;
	return e;
}

static int open_kernel_path(const char *path)
{
	struct statfs fs;
	int fd = open_in_root(AT_FDCWD, path, O_PATH | O_NOFOLLOW, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
	if (fd < 0)
		return -1;
	if (fstatfs(fd, &fs) < 0) {
		close(fd);
		return -1;
	}
	if (fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC || fs.f_type == TMPFS_MAGIC)
		return fd;
	close(fd);
	errno = EXDEV;
	return -1;
}

static int empty_directory(struct child *child)
{
	int e = 0, context = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
	if (context < 0)
		return errno;
	if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "mode", "0555", 0) < 0
	    || syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		e = errno;
	else if ((child->mask_fd = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC,
	                                        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)) < 0)
		e = errno;
	close(context);
	return e;
}

/* Read-only, so that whoever is root inside changes neither mode nor owner of what it is a copy of. */
static int attach_copy(int from, int target)
{
	int e, copy = sys_open_tree(from, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	if (copy < 0)
		return errno;
	e = set_attributes(copy, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0, false);
	if (!e && sys_move_mount(copy, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		e = errno;
	close(copy);
	return e;
}

/* The empty tmpfs is moved to the first masked directory, and cloned from there: before Linux 6.15 a mount that is in no
 * namespace cannot be cloned (EINVAL). */
static int mask_directory(struct child *child, int target)
{
	int e;
	if (child->mask_fd >= 0)
		return attach_copy(child->mask_fd, target);
	e = empty_directory(child);
	if (!e && sys_move_mount(child->mask_fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		e = errno;
	return e;
}

static int do_mask(struct child *child, const struct op *op)
{
	struct stat st;
	int e, fd = open_kernel_path(text(op, 0));
	if (fd < 0)
		return errno == ENOENT ? 0 : errno;
	e = fstat(fd, &st) < 0 ? errno : 0;
	if (!e)
		e = S_ISDIR(st.st_mode) ? mask_directory(child, fd) : attach_copy(child->null_fd, fd);
	close(fd);
	return e;
}

static int do_readonly(const struct op *op)
{
	int e, copy, fd = open_kernel_path(text(op, 0));
	if (fd < 0)
		return errno == ENOENT ? 0 : errno;
	copy = sys_open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
	if (copy < 0) {
		e = errno;
	} else {
		e = set_attributes(copy, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0, true);
		if (!e && sys_move_mount(copy, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
			e = errno;
		close(copy);
	}
	close(fd);
	return e;
}

#define OWN "/dev/.own"

/* A file on the tmpfs that is the container's /dev. */
static int write_own(const struct field *content, int *tree)
{
	int e = 0, fd = open(OWN, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return errno;
	if (write(fd, content->bytes, content->length) != (ssize_t)content->length)
		e = EIO;
	else if ((*tree = sys_open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)) < 0)
		e = errno;
	close(fd);
	return e;
}

/* A link on the way, a directory in the file's place, a root that nothing can be made in, or another mount. */
static bool is_unsuited(int e)
{
	return e == ELOOP || e == ENOTDIR || e == EROFS || e == EXDEV;
}

/* The engine's own file in the place of one of the image's, which keeps what no file can be mounted on. */
static int do_own(const struct op *op)
{
	int e = 0, tree = -1, target = open_in_root(AT_FDCWD, text(op, 0), O_PATH, RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
	if (target < 0)
		e = errno == ENOENT ? resolve_file(text(op, 0), &target) : errno;
	if (e)
		return is_unsuited(e) ? 0 : e;
	e = write_own(&op->fields[1], &tree);
	if (!e && op->flags & 1)
		e = set_attributes(tree, MOUNT_ATTR_RDONLY, 0, false);
	if (!e && sys_move_mount(tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		e = errno;
	if (tree >= 0)
		close(tree);
	close(target);
	/* A file that never had a name could not be mounted (ENOENT). */
	if (unlink(OWN) < 0 && !e)
		e = errno;
	return is_unsuited(e) ? 0 : e;
}

static int do_root_ro(void)
{
	int e, fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	e = set_attributes(fd, MOUNT_ATTR_RDONLY, 0, false);
	close(fd);
	return e;
}

int mount_perform(struct child *child, const struct op *op)
{
	if (op->code < OP_SYMLINK || op->code > OP_FILE)
		leave_directory();
	switch (op->code) {
	case OP_OVERLAY: return do_overlay(op);
	case OP_ROOTDIR: return do_rootdir(op);
	case OP_SOURCE: return do_source(child, op);
	case OP_PIVOT: return do_pivot(child, op);
	case OP_MOUNT: return do_mount(child, op);
	case OP_ATTACH: return do_attach(child, op);
	case OP_SYMLINK: case OP_MKNOD: case OP_FILE: return make_perform(op);
	case OP_OWN: return do_own(op);
	case OP_MASK: return do_mask(child, op);
	case OP_READONLY: return do_readonly(op);
	case OP_DETACH: return do_detach(child);
	case OP_ROOT_RO: return do_root_ro();
	case OP_NO_DEVICES: return do_no_devices(op);
	default: return EINVAL;
	}
}
