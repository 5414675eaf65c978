/* The clock of a container's health check, its results and its status: Docker's rules, on the monotonic clock.
 *
 * There is one check at a time, and no other before every process of one that took too long is gone.  A container that is
 * paused is not checked. */
#include "health.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { KEPT = 5, START_LIMIT = 30000, LOOK_AGAIN = 1000, SOON = 20 }; /* results; milliseconds */
enum setting_field { PLAN, STATUS, INTERVAL, TIMEOUT, START_PERIOD, START_INTERVAL, RETRIES, TOO_LONG };

struct result {
	struct timespec start, end;
	int exit_code;
	size_t size;
	char bytes[OUTPUT + 256];
};

static struct {
	enum { STARTING, HEALTHY, UNHEALTHY } status;
	enum { IDLE, CHECKING, ENDING } state;
	bool overdue;             /* the check that is ending took too long: all of it is killed */
	int64_t began, due, asked; /* milliseconds of the monotonic clock: the container, what is next, the check */
	struct timespec start;
	uint64_t streak;
	struct probe probe;
	struct result results[KEPT];
	unsigned count;           /* of all results so far */
} h;

static const char *const names[] = { "starting", "healthy", "unhealthy" };

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t setting(const struct supervisor *s, enum setting_field field)
{
	return (int64_t)number(s->health, field);
}

static bool says(const char *directory, const char *file, const char *word)
{
	char path[4096], bytes[256];
	if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, file) >= sizeof path)
		return false;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof bytes - 1);
	close_once(&fd);
	bytes[n > 0 ? n : 0] = 0;
	return strstr(bytes, word) != NULL;
}

static bool is_paused(const struct plan *plan)
{
	for (uint32_t i = 0; i < plan->split; i++)
		if ((plan->ops[i].code == OP_CGROUP && says(text(&plan->ops[i], 0), "cgroup.events", "frozen 1"))
		    || (plan->ops[i].code == OP_CGROUP_V1 && says(text(&plan->ops[i], 0), "freezer.state", "FR")))
			return true;
	return false;
}

static bool put(int fd, const char *bytes)
{
	return write_full(fd, bytes, strlen(bytes)) == 0;
}

static bool put_result(int fd, const struct result *r, bool first)
{
	static char out[sizeof r->bytes * 6 + 1];
	char start[40], end[40], line[160];
	time_text(start, &r->start);
	time_text(end, &r->end);
	snprintf(line, sizeof line, "%s{\"Start\":\"%s\",\"End\":\"%s\",\"ExitCode\":%d,\"Output\":\"", first ? "" : ",", start, end,
	         r->exit_code);
	return put(fd, line) && write_full(fd, out, escape(out, r->bytes, r->size)) == 0 && put(fd, "\"}");
}

/* Docker's State.Health, whole or not at all; a full disk leaves the one of before. */
static void write_status(const struct supervisor *s)
{
	char path[4096], line[96];
	unsigned first = h.count > KEPT ? h.count - KEPT : 0;
	if ((size_t)snprintf(path, sizeof path, "%s.new", text(s->health, STATUS)) >= sizeof path)
		return;
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	snprintf(line, sizeof line, "{\"Status\":\"%s\",\"FailingStreak\":%llu,\"Log\":[", names[h.status], (unsigned long long)h.streak);
	bool good = fd >= 0 && put(fd, line);
	for (unsigned i = first; good && i < h.count; i++)
		good = put_result(fd, &h.results[i % KEPT], i == first);
	good = good && put(fd, "]}\n");
	close_once(&fd);
	if (!good || rename(path, text(s->health, STATUS)) < 0)
		unlink(path);
}

static void keep_result(const char *why, const char *output, size_t size, bool truncated)
{
	struct result *r = &h.results[h.count++ % KEPT];
	r->start = h.start;
	clock_gettime(CLOCK_REALTIME, &r->end);
	r->exit_code = why ? -1 : h.probe.exit_code;
	int n = why ? snprintf(r->bytes, 250, "%s%s", why, size > 0 ? ": " : "") : 0;
	r->size = n > 249 ? 249 : (size_t)n;
	memcpy(r->bytes + r->size, output, size);
	r->size += size;
	if (truncated) {
		memcpy(r->bytes + r->size, "...", 3);
		r->size += 3;
	}
}

static void judge(const struct supervisor *s, bool good)
{
	int before = h.status;
	if (good) {
		h.streak = 0;
		h.status = HEALTHY;
	} else if (h.status != STARTING || h.asked - h.began >= setting(s, START_PERIOD)) {
		if (++h.streak >= number(s->health, RETRIES))
			h.status = UNHEALTHY;
	}
	write_status(s);
	if (before != (int)h.status) {
		char action[40];
		snprintf(action, sizeof action, "health_status: %s", names[h.status]);
		event(s, action, "");
	}
}

static int64_t pause_until_next(const struct supervisor *s, int64_t now)
{
	bool early = h.status == STARTING && now - h.began < setting(s, START_PERIOD);
	return setting(s, early ? START_INTERVAL : INTERVAL);
}

static void end_check(bool overdue)
{
	if (!overdue)
		probe_close(&h.probe);
	h.overdue = overdue;
	h.state = ENDING;
	h.due = now_ms();
}

static void begin_check(struct supervisor *s, int64_t now)
{
	h.due = now + pause_until_next(s, now);
	if (is_paused(s->plan))
		return;
	/* Whoever starts the container leaves the plan once the program runs, which may be after the first check is due. */
	if (now - h.began < START_LIMIT && access(text(s->health, PLAN), F_OK) < 0 && errno == ENOENT) {
		h.due = now + SOON;
		return;
	}
	h.asked = now;
	clock_gettime(CLOCK_REALTIME, &h.start);
	if (probe_start(&h.probe, text(s->health, PLAN), s->pidfd) != 0) {
		keep_result("cannot start the check", h.probe.why, strlen(h.probe.why), false);
		judge(s, false);
		return;
	}
	h.state = CHECKING;
	h.due = now + START_LIMIT;
}

static void give_up(const struct supervisor *s)
{
	if (!is_paused(s->plan)) {
		const char *why = h.probe.session > 0 ? text(s->health, TOO_LONG) : "the check could not be started in time";
		probe_output(&h.probe);
		keep_result(why, h.probe.bytes, h.probe.size, h.probe.truncated);
		judge(s, false);
	}
	end_check(true);
}

/* Most checks are gone when they are looked for the second time; one that a frozen container holds may take long. */
static void look_after(const struct supervisor *s, int64_t now)
{
	if (probe_gone(&h.probe, h.overdue)) {
		h.state = IDLE;
		h.due = now + pause_until_next(s, now);
	} else {
		h.due = now + (h.overdue && now - h.asked > START_LIMIT * 4 ? LOOK_AGAIN : SOON);
	}
}

int health_turn(struct supervisor *s)
{
	if (s->health == NULL)
		return -1;
	int64_t now = now_ms();
	if (now >= h.due && h.state == IDLE)
		begin_check(s, now);
	else if (now >= h.due && h.state == CHECKING)
		give_up(s);
	if (now >= h.due && h.state == ENDING)
		look_after(s, now);
	now = h.due - now_ms();
	return now <= 0 ? 0 : now > INT_MAX ? INT_MAX : (int)now;
}

int health_fd(const struct supervisor *s, int which)
{
	if (s->health == NULL || h.state != CHECKING)
		return -1;
	return which == 0 ? h.probe.reports : h.probe.output;
}

void health_read(struct supervisor *s, int which)
{
	pid_t before = h.probe.session;
	if (h.state != CHECKING)
		return;
	if (which == 1) {
		probe_output(&h.probe);
		return;
	}
	bool over = probe_report(&h.probe);
	if (h.probe.session != before)
		h.due = now_ms() + setting(s, TIMEOUT);
	if (!over)
		return;
	probe_output(&h.probe);
	if (h.probe.why != NULL)
		keep_result("cannot start the check", h.probe.why, strlen(h.probe.why), false);
	else
		keep_result(NULL, h.probe.bytes, h.probe.size, h.probe.truncated);
	judge(s, h.probe.why == NULL && h.probe.exit_code == 0);
	end_check(false);
}

void health_begin(struct supervisor *s)
{
	if (s->health == NULL)
		return;
	h.began = now_ms();
	h.due = h.began + pause_until_next(s, h.began);
	h.probe.control = h.probe.reports = h.probe.output = -1;
}

void health_end(struct supervisor *s)
{
	if (s->health == NULL || h.state == IDLE)
		return;
	probe_abandon(&h.probe);
}
