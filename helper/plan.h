/* The plan: what the helper is told to do, and what it reports back.
 *
 * A plan is bytes: "SMPN", u32 version, u32 operation count, u32 length of what follows; then per operation u16 code,
 * u16 nothing, u32 field count, u32 flags, and per field u32 length, bytes, one NUL (so that text can be used in place).
 * All numbers are little-endian.  sampan/runtime/plan.py writes the same codes.
 *
 * A plan that does not end with a final operation (the last three below) goes on: another piece of the same form follows on
 * the descriptor, which the child reads when it comes there.  So namespaces are made while the rest is still being compiled.
 */
#ifndef SAMPAN_PLAN_H
#define SAMPAN_PLAN_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PLAN_VERSION = 2, PLAN_MAX = 16 << 20 };

enum { OOM_UNASKED = 1, LEAVE_V1 = 1, LEAVE_AT_DETACH = 2, SIGNAL_REAP_ALL = SIGPWR };

#define SUPERVISOR_IGNORES SIGPIPE, SIGXFSZ, SIGTTOU, SIGTTIN, SIGTSTP

/* Well-known descriptors: the plan and answers come in on 3, reports leave on 4, tree streams use 5 and 6,
 * a pidfd of the container to join is 7. */
enum { FD_IN = 3, FD_OUT = 4, FD_TREE_IN = 5, FD_TREE_OUT = 6, FD_TARGET = 7, FD_FREE = 8 };

enum op_code {
	/* before the split: performed by the supervisor */
	OP_WORKDIR = 1,   /* host directory that relative layer names start from */
	OP_CGROUP = 2,    /* v2 directory; the child is cloned into it */
	OP_CGROUP_V1 = 3, /* v1 directory; the child writes itself to its tasks */
	OP_DEVICES = 4,   /* eBPF program for the v2 directory */
	OP_IDMAP = 5,     /* uid_map, gid_map, newuidmap, newgidmap */
	OP_STDIO = 6,     /* flags: enum stdio_flags; log path, max size, max files */
	OP_SUPERVISE = 7, /* outlive the caller; exit record path, attach socket path, seconds to stop in (- for ever) */
	OP_CLEANUP = 8,   /* argv of a program to start after the exit */
	OP_EVENTS = 9,    /* directory of events, beginning of each of ours, actions at the start and the end; the container's
	                     directory, where a newer name may lie, and its name */
	OP_RESTART = 10,  /* policy file, mark of a stop by hand, argv of a program that starts the container again */
	OP_HEALTH = 11,   /* plan file, status file, interval, timeout, start period, start interval (ms), retries, words */
	OP_JOIN = 12,     /* flags: CLONE_NEW*; namespaces of FD_TARGET that the child shares */
	OP_LEAVE = 13,    /* directory of a cgroup for the supervisor; flags: LEAVE_V1 where it is of version 1,
	                     LEAVE_AT_DETACH: only when the caller detaches */
	OP_NETWORK = 14,  /* the child's network namespace, made as soon as this is read: it may be a piece of its own, the first */
	OP_SWEEP = 15,    /* what goes at the end: directories to open (flags: how many), a file, directories that are empty then;
	                     told with REPORT_SWEPT, after the exit */
	/* the split */
	OP_CLONE = 20, /* flags: CLONE_NEW* */
	OP_ENTER = 21, /* flags: CLONE_NEW*, into the namespaces of FD_TARGET */
	/* after it: performed by the child */
	OP_OVERLAY = 30,
	OP_ROOTDIR = 31,
	OP_SOURCE = 32,
	OP_PIVOT = 33,
	OP_MOUNT = 34,
	OP_ATTACH = 35,
	OP_SYMLINK = 37,
	OP_MKNOD = 38,
	OP_FILE = 39,
	OP_MASK = 40,
	OP_READONLY = 41,
	OP_DETACH = 42,
	OP_ROOT_RO = 43,
	OP_OWN = 45,        /* path, content: a file of the engine's own, bound over the image's; flags 1: read-only */
	OP_NO_DEVICES = 44, /* flags 1: in a copy of the mount namespace */
	OP_HOSTNAME = 50,
	OP_DOMAINNAME = 51,
	OP_SYSCTL = 52,
	OP_RLIMIT = 53,
	OP_OOM = 54,        /* flags 1 (OOM_UNASKED): where the score may not be lowered it stays */
	OP_LOOPBACK = 55,
	OP_KEYRING = 56,
	OP_TTY = 57,
	OP_ACCOUNTS = 58,
	OP_USER = 59,
	OP_CAPS = 60,
	OP_NNP = 61,
	OP_SECCOMP = 62,
	OP_CWD = 63,
	OP_ENV = 64,
	OP_INIT = 65,
	OP_UMASK = 66,
	OP_SESSION = 67,
	OP_REAP = 68,       /* stay as the parent of the program and reap what it leaves; SIGNAL_REAP_ALL: all of it */
	OP_NULL = 69,       /* streams that are the host's null device become the container's */
	OP_EXEC = 70,
	OP_APPLY = 71,
	OP_PACK = 72,
};

enum stdio_flags { STDIO_PASS_IN = 1, STDIO_PASS_OUT = 2, STDIO_PASS_ERR = 4, STDIO_STDIN = 8, STDIO_TTY = 16,
	STDIO_FOREGROUND = 32, STDIO_NULL_OUT = 64 };

enum report_kind { REPORT_STARTED = 1, REPORT_FAILED = 2, REPORT_EXITED = 3, REPORT_ACCOUNTS = 4, REPORT_WARNING = 5,
	REPORT_DETACHED = 6, REPORT_TREE = 7, REPORT_SWEPT = 8 /* op: enum swept */ };

enum swept { SWEPT_GROUPS = 1, SWEPT_FILES = 2 };

struct field {
	const char *bytes; /* NUL behind the last byte */
	uint32_t length;
};

struct op {
	uint16_t code;
	uint32_t count;
	uint32_t flags;
	const struct field *fields;
};

struct plan {
	struct op *ops;
	uint32_t count;
	uint32_t split; /* index of the OP_CLONE or OP_ENTER */
	bool has_split;
};

struct report {
	uint32_t kind;
	uint32_t op; /* of REPORT_EXITED: SWEPT_GROUPS or 0 */
	int32_t error; /* of REPORT_EXITED: why its reader could not be given all output */
	int32_t value;
	uint64_t extra; /* per kind */
	uint32_t length;
	uint32_t reserved;
};

int plan_read(int fd, struct plan *plan);                /* appends the next piece */
const char *text(const struct op *op, unsigned i);       /* "" when absent or holding a NUL */
uint64_t number(const struct op *op, unsigned i);        /* decimal field; 0 when absent */

int read_full(int fd, void *buffer, size_t length);      /* 0, EPIPE at the end of file, or errno */
int write_full(int fd, const void *buffer, size_t length);
int report(enum report_kind kind, uint32_t op, int error, int value, uint64_t extra, const void *bytes, uint32_t length);

/* Who the process becomes; resolved by the caller when the plan asks with OP_ACCOUNTS. */
struct identity {
	bool asked;          /* the answer is still to be read */
	uint32_t uid, gid;
	uint32_t group_count;
	gid_t *groups;
	char **env;          /* additions */
	uint32_t env_count;
};

/* What the child of the split works with. */
/* On the pipe to the supervisor, as a failure's length: the process to watch is another one from now on (main.c). */
#define BORN UINT32_MAX

struct child {
	struct plan *plan;
	int sync;            /* close-on-exec pipe to the supervisor: silence means started, if */
	volatile bool *ready; /* was set, in memory shared with it: right before the exec */
	int tty_socket;      /* where the pseudo-terminal's master goes */
	int null_fd;         /* the host's /dev/null, checked to be 1:3 */
	int mask_fd;         /* one empty read-only tmpfs, cloned for every masked directory */
	int old_root;
	int sources[256];
	struct identity identity;
	bool init;
	bool hidden;         /* from those whose namespaces it shares, until it has the program's rights */
	bool outside;        /* of the pid namespace that its program is going to be born in */
	bool terminal;       /* which its program takes then */
	char **env;
	uint32_t env_count;
	uint32_t at;         /* index of the operation being performed */
};

int child_perform(struct child *child);                  /* returns only on failure: errno */

int mount_perform(struct child *child, const struct op *op);
int make_perform(const struct op *op);
void leave_directory(void);                              /* that the last of these was made in */
int cred_perform(struct child *child, const struct op *op);
int cred_oom(const struct op *op);
int loopback_up(int fd);                                 /* a socket of the network namespace; 0 or errno */
int tty_open(struct child *child, const struct op *op);
int tty_take(void);                                      /* as the controlling terminal of a new session */
int take_null(void);
int is_null(int fd);                                     /* 0, ENODEV or errno */
int open_in_root(int dir, const char *path, uint64_t flags, uint64_t resolve);
int split_path(const char *path, char *parent, const char **name); /* 0 or EINVAL; of PATH_MAX bytes */
int resolve_directory(const char *path, bool create, mode_t mode, int *fd);
int resolve_file(const char *path, int *fd);
int is_kind(int fd, bool directory);                     /* 0, ENOTDIR, EISDIR or errno */
int not_procfs(int fd);

int split(const struct plan *plan, int (*body)(void *), void *argument, pid_t *pid, int *pidfd);
void leave_cgroups(const struct plan *plan);             /* may go on in another process */
int begin_network(const struct plan *plan);               /* 0 or errno; a plan without OP_NETWORK begins none */
void leave_at_detach(const struct plan *plan);
int supervise(struct plan *plan);

#endif
