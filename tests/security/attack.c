/* The attacks of the tests beside it, one per command word; static, so that it runs in an empty image.  Each prints what
 * the kernel answered: 0 for success, else the error's number. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void answer(const char *name, long result)
{
	printf("%s %d\n", name, result < 0 ? errno : 0);
	fflush(stdout);
}

static int system_calls(void)
{
	char page[4096] = { 0 };
	answer("keyctl", syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -3, 0));
	answer("add_key", syscall(SYS_add_key, "user", "sampan", "x", 1, -3));
	answer("bpf", syscall(SYS_bpf, 0, page, 128));
	answer("userfaultfd", syscall(SYS_userfaultfd, 1));
	answer("io_uring_setup", syscall(SYS_io_uring_setup, 1, page));
	answer("perf_event_open", syscall(SYS_perf_event_open, page, 0, -1, -1, 0));
	answer("af_alg", socket(38, SOCK_SEQPACKET, 0));
	answer("af_vsock", socket(40, SOCK_STREAM, 0));
	answer("clone3", syscall(SYS_clone3, page, 1));
	answer("unknown", syscall(9999));
	answer("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, page, 0));
	answer("getpid", getpid());
	if (fork() == 0) {
		answer("unshare_user", unshare(CLONE_NEWUSER));
		_exit(0);
	}
	wait(NULL);
	answer("mount", mount("none", "/", "tmpfs", 0, NULL));
	return 0;
}

static int device(void)
{
	unlink("/node");
	answer("mknod", mknod("/node", S_IFBLK | 0600, makedev(8, 0)));
	answer("open", open("/node", O_RDONLY));
	unlink("/node");
	answer("mknod_mem", mknod("/node", S_IFCHR | 0600, makedev(1, 1)));
	answer("open_mem", open("/node", O_RDONLY));
	unlink("/node");
	return 0;
}

/* In each directory: makes the node of a disk and opens it, and opens the one that was there. */
static int nodes(char **directories)
{
	for (; *directories; directories++) {
		char made[256], given[256], name[300];
		snprintf(made, sizeof made, "%s/made", *directories);
		snprintf(given, sizeof given, "%s/given", *directories);
		snprintf(name, sizeof name, "mknod:%s", *directories);
		answer(name, mknod(made, S_IFBLK | 0600, makedev(8, 0)));
		snprintf(name, sizeof name, "open:%s", *directories);
		answer(name, open(made, O_RDONLY));
		snprintf(name, sizeof name, "given:%s", *directories);
		answer(name, open(given, O_RDONLY));
		unlink(made);
	}
	return 0;
}

/* Stops every process that appears beside it, and tells what it is stopped with: the helper's would be the host's rights. */
static int trace(long seconds)
{
	time_t end = time(NULL) + seconds;
	pid_t last = getpid();
	int newest = 0;
	puts("tracing");
	fflush(stdout);
	while (time(NULL) < end) {
		/* Processes may have come and gone while this one did not run: the last word here is the newest pid. */
		FILE *load = fopen("/proc/loadavg", "r");
		if (load && fscanf(load, "%*s %*s %*s %*s %d", &newest) == 1 && newest - 8 > last)
			last = newest - 8;
		if (load)
			fclose(load);
		for (pid_t pid = last + 1; pid < last + 16; pid++) {
			char path[64], line[256];
			FILE *status;
			if (ptrace(PTRACE_SEIZE, pid, 0, 0) < 0)
				continue;
			last = pid;
			snprintf(path, sizeof path, "/proc/%d/status", pid);
			status = fopen(path, "r");
			while (status && fgets(line, sizeof line, status))
				if (!strncmp(line, "CapPrm:", 7) || !strncmp(line, "Seccomp:", 8))
					printf("%s", line);
			if (status)
				fclose(status);
			fflush(stdout);
			ptrace(PTRACE_INTERRUPT, pid, 0, 0);
			waitpid(pid, NULL, __WALL);
			ptrace(PTRACE_DETACH, pid, 0, 0);
		}
	}
	return 0;
}

/* Writes to every program file that can be reached, over and over, as CVE-2019-5736 did. */
static int overwrite(long rounds)
{
	for (long i = 0; i < rounds; i++) {
		DIR *proc = opendir("/proc");
		for (struct dirent *e; proc && (e = readdir(proc)) != NULL;) {
			char path[300];
			int fd;
			if (e->d_name[0] < '1' || e->d_name[0] > '9' || atoi(e->d_name) == getpid())
				continue;
			snprintf(path, sizeof path, "/proc/%s/exe", e->d_name);
			fd = open(path, O_PATH);
			if (fd < 0)
				continue;
			snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
			int writable = open(path, O_WRONLY | O_TRUNC);
			if (writable >= 0 && write(writable, "#!/bad\n", 7) == 7)
				puts("WROTE");
			close(writable);
			close(fd);
		}
		if (proc)
			closedir(proc);
	}
	puts("done");
	return 0;
}

static int inject(void)
{
	int terminal = open("/dev/tty", O_RDWR);
	for (int fd = 0; fd < 3; fd++) {
		answer("sti", ioctl(fd, TIOCSTI, "X"));
		answer("linux", ioctl(fd, 0x541c /* TIOCLINUX */, "\x03"));
	}
	if (terminal >= 0)
		answer("tty_sti", ioctl(terminal, TIOCSTI, "X"));
	return 0;
}

static int descriptors(void)
{
	DIR *fds = opendir("/proc/self/fd");
	for (struct dirent *e; fds && (e = readdir(fds)) != NULL;)
		if (e->d_name[0] != '.' && atoi(e->d_name) != dirfd(fds))
			puts(e->d_name);
	return 0;
}

static int where(void)
{
	char path[4096];
	long n = syscall(SYS_getcwd, path, sizeof path);
	puts(n > 0 ? path : "none");
	return 0;
}

/* Children of children that nobody waits for: they become the first process's, which does not reap. */
static int orphans(long count, unsigned seconds)
{
	for (long i = 0; i < count; i++)
		if (fork() == 0) {
			if (fork() == 0)
				usleep(1000);
			_exit(0);
		}
	sleep(seconds);
	return 0;
}

static void show(const char *path)
{
	char text[8192];
	int fd = open(path, O_RDONLY);
	long n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	close(fd);
	if (n < 0)
		return;
	text[n] = 0;
	printf("%s:\t%s%s", path, text, n > 0 && text[n - 1] == '\n' ? "" : "\n");
}

/* All that confines a process, as lines that do not differ between two that are confined alike. */
static int identity(void)
{
	static const char *const spaces[] = { "cgroup", "ipc", "mnt", "net", "pid", "user", "uts" };
	char line[512];
	FILE *status = fopen("/proc/self/status", "r");
	while (status && fgets(line, sizeof line, status))
		if (!strncmp(line, "Cap", 3) || !strncmp(line, "NoNew", 5) || !strncmp(line, "Seccomp", 7)
		    || !strncmp(line, "Uid", 3) || !strncmp(line, "Gid", 3) || !strncmp(line, "Groups", 6))
			fputs(line, stdout);
	show("/proc/self/uid_map");
	show("/proc/self/gid_map");
	show("/proc/self/cgroup");
	for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
		char path[64], target[64];
		snprintf(path, sizeof path, "/proc/self/ns/%s", spaces[i]);
		long n = readlink(path, target, sizeof target - 1);
		if (n > 0)
			printf("ns:\t%.*s\n", (int)n, target);
	}
	return 0;
}

static void open_to_write(const char *directory, const char *name)
{
	char path[512];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	int fd = open(path, O_WRONLY);
	if (fd >= 0 || errno != ENOENT)
		answer(path, fd);
	close(fd);
}

/* CVE-2022-0492 and 2023-25809: a control group that can be written to runs a program of one's choice on the host. */
static int cgroups(void)
{
	static const char *const files[] = { "release_agent", "notify_on_release", "cgroup.procs", "tasks", "devices.allow",
		"memory.limit_in_bytes", "memory.max", "cgroup.subtree_control" };
	DIR *top = opendir("/sys/fs/cgroup");
	for (struct dirent *e; top && (e = readdir(top)) != NULL;) {
		char path[300];
		if (!strcmp(e->d_name, ".."))
			continue;
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s", e->d_name);
		for (size_t i = 0; i < sizeof files / sizeof *files; i++)
			open_to_write(path, files[i]);
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s/attack", e->d_name);
		answer("mkdir", mkdir(path, 0755));
		rmdir(path);
	}
	if (fork() == 0) {
		answer("unshare", unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP));
		_exit(0);
	}
	wait(NULL);
	mkdir("/mnt", 0755);
	answer("mount_cgroup", mount("cgroup", "/mnt", "cgroup", 0, "memory"));
	answer("mount_cgroup2", mount("cgroup", "/mnt", "cgroup2", 0, NULL));
	answer("remount", mount(NULL, "/sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND, NULL));
	return 0;
}

enum { GET_KEYRING_ID = 0, JOIN_SESSION_KEYRING = 1, READ = 11, SESSION = -3 };

static int session(const char *key)
{
	char text[64];
	printf("session %ld\n", syscall(SYS_keyctl, GET_KEYRING_ID, SESSION, 0));
	answer("read", syscall(SYS_keyctl, READ, atol(key), text, sizeof text));
	return 0;
}

/* Uses the user's quota of keys up, then becomes another program. */
static int without_keys(char **argv)
{
	char name[32];
	int n = 0, before = -1;
	syscall(SYS_keyctl, JOIN_SESSION_KEYRING, NULL);
	/* The keyrings of processes that have just ended are still counted for a moment. */
	while (n != before) {
		before = n;
		usleep(300000);
		do
			snprintf(name, sizeof name, "sampan-%d", n);
		while (syscall(SYS_add_key, "user", name, "x", 1, SESSION) >= 0 && ++n < 100000);
	}
	if (errno != EDQUOT)
		return 97;
	execvp(argv[0], argv);
	return 96;
}

int main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "";
	if (!strcmp(word, "syscalls"))
		return system_calls();
	if (!strcmp(word, "device"))
		return device();
	if (!strcmp(word, "nodes"))
		return nodes(argv + 2);
	if (!strcmp(word, "chmod")) {
		answer("chmod", chmod(argv[2], (mode_t)strtol(argv[3], NULL, 8)));
		return 0;
	}
	if (!strcmp(word, "overwrite"))
		return overwrite(atol(argv[2]));
	if (!strcmp(word, "trace"))
		return trace(atol(argv[2]));
	if (!strcmp(word, "inject"))
		return inject();
	if (!strcmp(word, "fds"))
		return descriptors();
	if (!strcmp(word, "where"))
		return where();
	if (!strcmp(word, "identity"))
		return identity();
	if (!strcmp(word, "cgroups"))
		return cgroups();
	if (!strcmp(word, "session"))
		return session(argv[2]);
	if (!strcmp(word, "without-keys"))
		return without_keys(argv + 2);
	if (!strcmp(word, "orphans"))
		return orphans(atol(argv[2]), (unsigned)atoi(argv[3]));
	if (!strcmp(word, "sleep"))
		return (int)sleep((unsigned)atoi(argv[2]));
	if (!strcmp(word, "exit"))
		return atoi(argv[2]);
	if (!strcmp(word, "die")) {
		/* The first process of a namespace cannot be killed from inside: its child is, and told of as a shell does. */
		int status;
		pid_t pid = fork();
		if (pid == 0) {
			raise(atoi(argv[2]));
			_exit(0);
		}
		waitpid(pid, &status, 0);
		return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : 99;
	}
	return 98;
}
