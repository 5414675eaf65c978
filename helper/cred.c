/* Who the child is and what it may do: limits, identity, capabilities, filter.  Numbers lie: an id of 2^32-1 means "no change"
 * to the kernel, so it is refused here as well as in Python. */
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { ACCOUNTS_MAX = 4 << 20, CHUNK = 1 << 16, LAST_CAP = 40 };

int loopback_up(int fd)
{
	struct ifreq request = { .ifr_name = "lo" };
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	return ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? errno : 0;
}

/* Where the supervisor is at it already (ns.c), this waits for it and finds nothing to do. */
static int do_loopback(void)
{
	int e, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno;
	e = loopback_up(fd);
	close(fd);
	return e;
}

/* Writes to procfs are proved to reach procfs (CVE-2019-16884 and CVE-2025-52881). */
static int write_proc(const char *path, const char *value, size_t length)
{
	struct statfs fs;
	int e = 0, fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno;
	if (fstatfs(fd, &fs) < 0)
		e = errno;
	else if (fs.f_type != PROC_SUPER_MAGIC)
		e = EXDEV;
	else
		e = write_full(fd, value, length);
	close(fd);
	return e;
}

static bool oom_is_set;

/* No user may lower what systemd raised for all that he starts (OOMScoreAdjust= of user@.service): unasked, it stays. */
int cred_oom(const struct op *op)
{
	int e = oom_is_set ? 0 : write_proc("/proc/self/oom_score_adj", text(op, 0), strlen(text(op, 0)));
	if (e == EACCES && op->flags & OOM_UNASKED)
		e = 0;
	oom_is_set = e == 0;
	return e;
}

static int do_rlimit(const struct op *op)
{
	struct rlimit limit = { number(op, 1), number(op, 2) };
	return setrlimit((int)number(op, 0), &limit) < 0 ? errno : 0;
}

static int send_file(uint32_t at, int which, const char *path)
{
	struct stat st;
	char *bytes = NULL;
	size_t length = 0;
	int e = 0, fd = open_in_root(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, RESOLVE_NO_MAGICLINKS);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		size_t most = st.st_size < ACCOUNTS_MAX - CHUNK ? (size_t)st.st_size + CHUNK : ACCOUNTS_MAX;
		bytes = malloc(most);
		if (bytes == NULL)
			e = ENOMEM;
		while (!e && length < most) {
			ssize_t n = read(fd, bytes + length, most - length);
			if (n < 0)
				e = errno;
			if (n <= 0)
				break;
			length += (size_t)n;
		}
	}
	if (fd >= 0)
		close(fd);
	if (!e)
		e = report(REPORT_ACCOUNTS, at, 0, which, 0, bytes, (uint32_t)length);
	free(bytes);
	return e;
}

/* Asks; the answer is read when it is needed, as meanwhile there are other things to do. */
static int do_accounts(struct child *child)
{
	int e = send_file(child->at, 0, "/etc/passwd");
	if (!e)
		e = send_file(child->at, 1, "/etc/group");
	child->identity.asked = !e;
	return e;
}

/* The answer: u32 uid, gid, group count, environment count; the groups; per variable u32 length and the bytes. */
static int take_answer(struct identity *who)
{
	uint32_t head[4];
	int e = read_full(FD_IN, head, sizeof head);
	if (e)
		return e;
	if (head[2] > 65536 || head[3] > 1024)
		return EBADMSG;
	who->uid = head[0];
	who->gid = head[1];
	who->groups = calloc(head[2] + 1, sizeof *who->groups);
	who->env = calloc(head[3] + 1, sizeof *who->env);
	if (who->groups == NULL || who->env == NULL)
		return ENOMEM;
	e = read_full(FD_IN, who->groups, head[2] * sizeof *who->groups);
	who->group_count = head[2];
	for (uint32_t i = 0; !e && i < head[3]; i++) {
		uint32_t length;
		e = read_full(FD_IN, &length, sizeof length);
		if (!e && length > 65536)
			e = EBADMSG;
		if (!e && (who->env[i] = calloc(length + 1, 1)) == NULL)
			e = ENOMEM;
		if (!e)
			e = read_full(FD_IN, who->env[i], length);
		who->env_count = i + 1;
	}
	return e;
}

/* So that the user can open /dev/stdout again.  Pipes and the container's terminal only: a file of the caller's stays his. */
static void own_streams(uid_t uid)
{
	enum { PIPEFS = 0x50495045 }; /* not in <linux/magic.h> before 5.17 */
	for (int fd = 0; fd < 3; fd++) {
		struct statfs fs;
		if (fstatfs(fd, &fs) == 0 && (fs.f_type == PIPEFS || fs.f_type == DEVPTS_SUPER_MAGIC)
		    && fchown(fd, uid, (gid_t)-1) < 0)
			continue; /* an id that is not mapped: then opening it again fails, nothing else */
	}
}

/* flags 1: the identity is given here (uid, gid, groups…) rather than resolved; 2: a single-id map, setgroups is denied. */
static int do_user(struct child *child, const struct op *op)
{
	struct identity *who = &child->identity;
	if (!(op->flags & 1) && who->asked) {
		int e = take_answer(who);
		if (e)
			return e;
	}
	if (op->flags & 1) {
		if (op->count < 2)
			return EINVAL;
		who->groups = calloc(op->count, sizeof *who->groups);
		if (who->groups == NULL)
			return ENOMEM;
		who->uid = (uint32_t)number(op, 0);
		who->gid = (uint32_t)number(op, 1);
		who->group_count = op->count - 2u;
		for (unsigned i = 2; i < op->count; i++)
			who->groups[i - 2] = (gid_t)number(op, i);
	}
	if (who->uid == UINT32_MAX || who->gid == UINT32_MAX)
		return EINVAL;
	if (who->uid != 0)
		own_streams(who->uid);
	if (!(op->flags & 2) && syscall(SYS_setgroups, (size_t)who->group_count, who->groups) < 0)
		return errno;
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || syscall(SYS_setresgid, who->gid, who->gid, who->gid) < 0
	    || syscall(SYS_setresuid, who->uid, who->uid, who->uid) < 0 || prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0)
		return errno;
	return 0;
}

static int do_bounding(uint64_t keep)
{
	for (int cap = 0; cap <= 63; cap++) {
		if (keep & 1ull << cap || prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0)
			continue;
		if (errno == EINVAL) /* the kernel knows no more */
			return 0;
		if (errno != EPERM || prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 0)
			return EPERM;
	}
	return 0;
}

/* flags 1: drop from the bounding set (before the identity changes); 2: set the process's own sets (after it). */
static int do_caps(const struct op *op)
{
	uint64_t bounding = number(op, 0), effective = number(op, 1), ambient = number(op, 2);
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	if (op->flags & 1)
		return do_bounding(bounding);
	/* What execve(2) would take from a user goes before it: no_new_privs lets a file's capabilities give what the process
	 * had, and the program is looked up with the user's own rights. */
	if (op->flags & 4 && geteuid() != 0)
		effective = ambient;
	for (int i = 0; i < 2; i++) {
		data[i].effective = data[i].permitted = (uint32_t)(effective >> 32 * i);
		data[i].inheritable = (uint32_t)(ambient >> 32 * i);
	}
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 || syscall(SYS_capset, &head, data) < 0)
		return errno;
	for (int cap = 0; cap <= LAST_CAP; cap++)
		if (ambient & 1ull << cap && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			return errno;
	return 0;
}

static int do_seccomp(const struct op *op)
{
	struct sock_fprog program;
	/* No other flag: a listener is a descriptor that nobody would answer. */
	if (op->flags & ~(SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW))
		return EINVAL;
	if (op->count < 1 || op->fields[0].length % sizeof(struct sock_filter) || op->fields[0].length / 8 > BPF_MAXINSNS)
		return EINVAL;
	/* The plan's bytes carry no alignment; the kernel copies them, so none is needed. */
	program.len = (unsigned short)(op->fields[0].length / sizeof(struct sock_filter));
	memcpy(&program.filter, &(const void *){ op->fields[0].bytes }, sizeof program.filter);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, op->flags, &program) < 0 ? errno : 0;
}

/* The directory must be inside the root: one that an inherited descriptor leads out to shows as "(unreachable)"
 * (CVE-2024-21626). */
static int do_cwd(const struct op *op)
{
	char where[4096];
	int e, fd;
	e = resolve_directory(text(op, 0), op->flags & 1, 0755, &fd);
	if (e)
		return e;
	e = fchdir(fd) < 0 ? errno : 0;
	close(fd);
	if (e)
		return e;
	long n = syscall(SYS_getcwd, where, sizeof where);
	if (n < 0)
		return errno;
	return where[0] == '/' ? 0 : EXDEV;
}

int cred_perform(struct child *child, const struct op *op)
{
	switch (op->code) {
	case OP_HOSTNAME: return sethostname(text(op, 0), strlen(text(op, 0))) < 0 ? errno : 0;
	case OP_DOMAINNAME: return setdomainname(text(op, 0), strlen(text(op, 0))) < 0 ? errno : 0;
	case OP_SYSCTL: return write_proc(text(op, 0), text(op, 1), strlen(text(op, 1)));
	case OP_OOM: return cred_oom(op);
	case OP_RLIMIT: return do_rlimit(op);
	case OP_LOOPBACK: return do_loopback();
	case OP_KEYRING: return syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 ? errno : 0;
	case OP_ACCOUNTS: return do_accounts(child);
	case OP_USER: return do_user(child, op);
	case OP_CAPS: return do_caps(op);
	case OP_NNP: return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? errno : 0;
	case OP_SECCOMP: return do_seccomp(op);
	case OP_CWD: return do_cwd(op);
	case OP_UMASK: umask(op->flags); return 0;
	case OP_SESSION: return setsid() < 0 && errno != EPERM ? errno : 0;
	default: return EINVAL;
	}
}
