/* A server and a client of the bus in C, with libubus: what others are measured against.
 *
 * peer SOCKET                          publishes bench.c, whose method `small` replies three members
 * peer SOCKET EACH (OBJECT METHOD)...  calls each method EACH times, one call after the other;
 *                                      prints the microseconds of each call, a line for a method
 */
#include <libubox/blobmsg.h>
#include <libubox/uloop.h>
#include <libubus.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct blob_buf table;

static int small(struct ubus_context *bus, struct ubus_object *object,
		 struct ubus_request_data *request, const char *method, struct blob_attr *arguments)
{
	blob_buf_init(&table, 0);
	blobmsg_add_u8(&table, "available", 1);
	blobmsg_add_string(&table, "state", "primary");
	blobmsg_add_string(&table, "active_path", "wan");
	return ubus_send_reply(bus, request, table.head);
}

static const struct ubus_method methods[] = { UBUS_METHOD_NOARG("small", small) };
static struct ubus_object_type type = UBUS_OBJECT_TYPE("bench.c", methods);
static struct ubus_object object = {
	.name = "bench.c", .type = &type, .methods = methods, .n_methods = 1,
};

static double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static int call(struct ubus_context *bus, const char *path, const char *method, int each)
{
	uint32_t id;

	if (ubus_lookup_id(bus, path, &id))
		return 1;
	while (each-- > 0) {
		double began_us = now_us();

		blob_buf_init(&table, 0);
		if (ubus_invoke(bus, id, method, table.head, NULL, NULL, 5000))
			return 1;
		printf("%.1f ", now_us() - began_us);
	}
	putchar('\n');
	return 0;
}

int main(int count, char **words)
{
	struct ubus_context *bus = ubus_connect(words[1]);

	if (!bus)
		return 1;
	if (count == 2) {
		uloop_init();
		ubus_add_uloop(bus);
		if (ubus_add_object(bus, &object))
			return 1;
		puts("ready");
		fflush(stdout);
		return uloop_run();
	}
	for (int at = 3; at + 1 < count; at += 2)
		if (call(bus, words[at], words[at + 1], atoi(words[2])))
			return 1;
	return 0;
}
