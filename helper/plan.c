/* Reads a plan with every bound checked, and writes reports. */
#include "plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

int read_full(int fd, void *buffer, size_t length)
{
	char *at = buffer;
	while (length > 0) {
		ssize_t n = read(fd, at, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0)
			return EPIPE;
		at += n;
		length -= (size_t)n;
	}
	return 0;
}

int write_full(int fd, const void *buffer, size_t length)
{
	const char *at = buffer;
	while (length > 0) {
		ssize_t n = write(fd, at, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		at += n;
		length -= (size_t)n;
	}
	return 0;
}

int report(enum report_kind kind, uint32_t op, int error, int value, uint64_t extra, const void *bytes, uint32_t length)
{
	struct report head = { kind, op, error, value, extra, length, 0 };
	struct iovec parts[] = { { &head, sizeof head }, { (void *)(uintptr_t)bytes, length } };
	/* In one go: a child that is killed between two would leave half a report, before its parent's. */
	ssize_t n = writev(FD_OUT, parts, 2);
	size_t done = n > 0 ? (size_t)n : 0;
	if (n < 0 && errno != EINTR)
		return errno;
	if (done < sizeof head) {
		int e = write_full(FD_OUT, (char *)&head + done, sizeof head - done);
		if (e)
			return e;
		done = sizeof head;
	}
	done -= sizeof head;
	return done < length ? write_full(FD_OUT, (const char *)bytes + done, length - done) : 0;
}

const char *text(const struct op *op, unsigned i)
{
	if (i >= op->count || memchr(op->fields[i].bytes, 0, op->fields[i].length) != NULL)
		return "";
	return op->fields[i].bytes;
}

uint64_t number(const struct op *op, unsigned i)
{
	return i < op->count ? strtoull(text(op, i), NULL, 10) : 0;
}

enum { OP_MIN = 12, FIELD_MIN = 5 }; /* bytes of an operation without fields, of an empty field */

struct cursor {
	char *at, *end;
};

static int take(struct cursor *c, void *into, size_t length)
{
	if ((size_t)(c->end - c->at) < length)
		return EBADMSG;
	memcpy(into, c->at, length);
	c->at += length;
	return 0;
}

static int take_op(struct cursor *c, struct op *op)
{
	struct field *fields;
	uint16_t nothing;
	if (take(c, &op->code, 2) || take(c, &nothing, 2) || take(c, &op->count, 4) || take(c, &op->flags, 4)
	    || op->count > (size_t)(c->end - c->at) / FIELD_MIN)
		return EBADMSG;
	fields = calloc(op->count ? op->count : 1, sizeof *fields);
	if (fields == NULL)
		return ENOMEM;
	op->fields = fields;
	for (unsigned i = 0; i < op->count; i++) {
		uint32_t length;
		if (take(c, &length, 4) || (size_t)(c->end - c->at) < (size_t)length + 1 || c->at[length] != 0)
			return EBADMSG;
		fields[i].bytes = c->at;
		fields[i].length = length;
		c->at += length + 1;
	}
	return 0;
}

static int grow(struct plan *plan, uint32_t count)
{
	struct op *ops = calloc(plan->count + count + 1, sizeof *ops);
	if (ops == NULL)
		return ENOMEM;
	if (plan->count > 0)
		memcpy(ops, plan->ops, plan->count * sizeof *ops);
	free(plan->ops);
	plan->ops = ops;
	return 0;
}

/* Operations are found by their place from the plan's beginning, whatever piece they came in. */
int plan_read(int fd, struct plan *plan)
{
	struct { char magic[4]; uint32_t version, count, length; } head;
	struct cursor c;
	int e = read_full(fd, &head, sizeof head);
	if (e)
		return e;
	if (memcmp(head.magic, "SMPN", 4) != 0 || head.version != PLAN_VERSION || head.length > PLAN_MAX || head.count == 0
	    || head.count > head.length / OP_MIN || plan->count > PLAN_MAX)
		return EBADMSG;
	c.at = malloc(head.length);
	if (c.at == NULL || grow(plan, head.count) != 0)
		return ENOMEM;
	c.end = c.at + head.length;
	e = read_full(fd, c.at, head.length);
	for (uint32_t left = head.count; !e && left > 0; left--) {
		struct op *op = &plan->ops[plan->count];
		e = take_op(&c, op);
		if (!plan->has_split && (op->code == OP_CLONE || op->code == OP_ENTER)) {
			plan->split = plan->count;
			plan->has_split = true;
		}
		plan->count++;
	}
	if (e)
		return e;
	return c.at == c.end ? 0 : EBADMSG;
}
