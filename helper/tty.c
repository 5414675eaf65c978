/* The container's standard streams.  Its pseudo-terminal is made in its own devpts, its master handed to the supervisor.  The peer comes from
 * TIOCGPTPEER, never from a path (CVE-2025-52565). */
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

static int send_descriptor(int socket, int fd)
{
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	char byte = 0;
	struct iovec io = { &byte, 1 };
	struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	memset(&control, 0, sizeof control);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(head), &fd, sizeof fd);
	return sendmsg(socket, &message, MSG_NOSIGNAL) < 0 ? errno : 0;
}

/* flags 1: bind the terminal over /dev/console (not for exec). */
int tty_open(struct child *child, const struct op *op)
{
	struct statfs fs;
	struct winsize size = { (unsigned short)number(op, 0), (unsigned short)number(op, 1), 0, 0 };
	int e = 0, unlock = 0, peer, copy, at;
	int master = open_in_root(AT_FDCWD, "/dev/pts/ptmx", O_RDWR | O_NOCTTY, RESOLVE_NO_SYMLINKS);
	if (master < 0)
		return errno;
	if (fstatfs(master, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC)
		return ENXIO;
	if (ioctl(master, TIOCSPTLCK, &unlock) < 0 || (peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0)
		return errno;
	if (size.ws_row > 0 && ioctl(master, TIOCSWINSZ, &size) < 0)
		return errno;
	if (op->flags & 1) {
		copy = (int)syscall(SYS_open_tree, peer, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
		at = open_in_root(AT_FDCWD, "/dev/console", O_PATH, RESOLVE_NO_SYMLINKS);
		if (copy < 0 || at < 0
		    || syscall(SYS_move_mount, copy, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
			return errno;
		close(copy);
		close(at);
	}
	e = send_descriptor(child->tty_socket, master);
	if (e)
		return e;
	if (dup2(peer, 0) < 0 || dup2(peer, 1) < 0 || dup2(peer, 2) < 0)
		return errno;
	close(master);
	close(peer);
	child->terminal = true;
	return child->outside ? 0 : tty_take();
}

int tty_take(void)
{
	if (setsid() < 0 && errno != EPERM)
		return errno;
	return ioctl(0, TIOCSCTTY, 0) < 0 ? errno : 0;
}

int is_null(int fd)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return errno;
	return S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3) ? 0 : ENODEV;
}

/* A container's /dev may be a volume without one; then there is one, read-only, where a file of /proc is masked (mount.c). */
static int open_null(void)
{
	static const char *const places[] = { "/dev/null", "/proc/interrupts" };
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		int fd = open_in_root(AT_FDCWD, places[i], O_RDWR | O_NOCTTY | O_NONBLOCK, RESOLVE_NO_SYMLINKS);
		if (fd >= 0 && is_null(fd) == 0 && fcntl(fd, F_SETFL, 0) == 0)
			return fd;
		if (fd >= 0)
			close(fd);
	}
	return -1;
}

/* Whoever is root inside could change mode and owner of the host's: fchmod(2) asks of a descriptor neither writing nor a path.
 * Where there is no other it stays; only a privileged container, which can open the host's devices anyway, comes there. */
int take_null(void)
{
	int e = 0, null = -1;
	for (int fd = 0; fd < 3 && !e; fd++) {
		if (is_null(fd) != 0)
			continue;
		if (null < 0 && (null = open_null()) < 0)
			return 0;
		e = dup2(null, fd) < 0 ? errno : 0;
	}
	if (null >= 0)
		close(null);
	return e;
}
