/* Owners and devices that an ordinary user cannot make, kept in extended attributes beside the file: whoever packs it again
 * gets what the archive had.  A device leaves an empty file, which no program can take for one.
 *
 * A container can write such attributes too, and what it forges would become true where its image is run by root.  So a
 * record counts only on what belongs to the container's root, where apply leaves it, and of devices only on a file that
 * nobody but root may write: a user inside, who could make neither a root's set-user-ID file nor a device, still cannot.
 */
#define _GNU_SOURCE
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char OWNER[] = RECORD_PREFIX "owner";   /* "uid:gid" */
static const char DEVICE[] = RECORD_PREFIX "device"; /* "c:major:minor:mode" or "b:…", the mode in octal */

static int put(int fd, const char *name, const char *text)
{
	return fsetxattr(fd, name, text, strlen(text), 0) < 0 ? errno : 0;
}

int record_owner(int fd, uint32_t uid, uint32_t gid)
{
	char text[32];
	snprintf(text, sizeof text, "%u:%u", uid, gid);
	if (fchown(fd, 0, 0) < 0)
		return errno == EPERM || errno == EINVAL ? ENOTSUP : errno; /* another's: it stays as it is */
	return put(fd, OWNER, text);
}

int record_device(int fd, uint8_t type, uint32_t major, uint32_t minor, uint32_t mode)
{
	char text[48];
	snprintf(text, sizeof text, "%c:%u:%u:%o", type == 'B' ? 'b' : 'c', major, minor, mode & 07777);
	return put(fd, DEVICE, text);
}

static bool get(int fd, const char *name, char *text, size_t room)
{
	ssize_t n = fgetxattr(fd, name, text, room - 1);
	if (n <= 0)
		return false; /* not there, or no record of ours */
	text[n] = 0;
	return true;
}

void recall_owner(int fd, struct entry *e)
{
	char text[32], rest;
	uint32_t uid, gid;
	if (e->uid != 0 || !get(fd, OWNER, text, sizeof text) || sscanf(text, "%10u:%10u%c", &uid, &gid, &rest) != 2)
		return;
	if (uid == UINT32_MAX || gid == UINT32_MAX)
		return;
	e->uid = uid;
	e->gid = gid;
}

static bool stands_in(const struct stat *st)
{
	return S_ISREG(st->st_mode) && (st->st_mode & 07777) == 0 && st->st_size == 0 && st->st_uid == 0;
}

bool recall_device(int fd, struct entry *e)
{
	char text[48], type, rest;
	uint32_t major, minor, mode;
	struct stat st;
	if (fstat(fd, &st) < 0 || !stands_in(&st) || !get(fd, DEVICE, text, sizeof text)
	    || sscanf(text, "%c:%10u:%10u:%4o%c", &type, &major, &minor, &mode, &rest) != 4)
		return false;
	/* 0/0 is a whiteout to overlayfs; larger numbers fit no device of Linux */
	if ((type != 'b' && type != 'c') || (!major && !minor) || major >= 1u << 12 || minor >= 1u << 20)
		return false;
	e->type = type == 'b' ? 'B' : 'C';
	e->mode = mode;
	e->rmajor = major;
	e->rminor = minor;
	e->size = 0;
	return true;
}

bool is_stand_in(int at, const char *name)
{
	struct stat st;
	char text[48];
	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !stands_in(&st))
		return false;
	int fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	bool found = fd >= 0 && get(fd, DEVICE, text, sizeof text);
	if (fd >= 0)
		close(fd);
	return found;
}
