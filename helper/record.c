/* Owners and devices that an ordinary user cannot make, kept in extended attributes beside the file: whoever packs it again
 * gets what the archive had.  A device leaves an empty file, which no program can take for one.
 *
 * A container may write such attributes into its own files.  That gains it nothing: what they become is an archive, in
 * which any owner and any device can stand anyway.
 */
#define _GNU_SOURCE
#include "record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

static const char OWNER[] = RECORD_PREFIX "owner";   /* "uid:gid" */
static const char DEVICE[] = RECORD_PREFIX "device"; /* "c:major:minor", "b:major:minor" */

static int put(int fd, const char *name, const char *text)
{
	return fsetxattr(fd, name, text, strlen(text), 0) < 0 ? errno : 0;
}

int record_owner(int fd, uint32_t uid, uint32_t gid)
{
	char text[32];
	snprintf(text, sizeof text, "%u:%u", uid, gid);
	return put(fd, OWNER, text);
}

int record_device(int fd, uint8_t type, uint32_t major, uint32_t minor)
{
	char text[40];
	snprintf(text, sizeof text, "%c:%u:%u", type == 'B' ? 'b' : 'c', major, minor);
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
	if (!get(fd, OWNER, text, sizeof text) || sscanf(text, "%10u:%10u%c", &uid, &gid, &rest) != 2)
		return;
	if (uid == UINT32_MAX || gid == UINT32_MAX)
		return;
	e->uid = uid;
	e->gid = gid;
}

bool recall_device(int fd, struct entry *e)
{
	char text[40], type, rest;
	uint32_t major, minor;
	if (!get(fd, DEVICE, text, sizeof text) || sscanf(text, "%c:%10u:%10u%c", &type, &major, &minor, &rest) != 3)
		return false;
	/* 0/0 is a whiteout to overlayfs; larger numbers fit no device of Linux */
	if ((type != 'b' && type != 'c') || (!major && !minor) || major >= 1u << 12 || minor >= 1u << 20)
		return false;
	e->type = type == 'b' ? 'B' : 'C';
	e->rmajor = major;
	e->rminor = minor;
	e->size = 0;
	return true;
}
