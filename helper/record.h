/* See record.c; functions that return int give 0 or an errno. */
#ifndef SAMPAN_RECORD_H
#define SAMPAN_RECORD_H

#include "stream.h"

#define RECORD_PREFIX "user.sampan."

int record_owner(int fd, uint32_t uid, uint32_t gid);
int record_device(int fd, uint8_t type, uint32_t major, uint32_t minor, uint32_t mode);
void recall_owner(int fd, struct entry *e);
bool recall_device(int fd, struct entry *e); /* true: the entry is that device now */
bool is_stand_in(int at, const char *name);

#endif
