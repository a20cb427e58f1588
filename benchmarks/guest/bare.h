// SPDX-License-Identifier: LGPL-2.1-or-later
/* What it takes to switch a device by bare writes to sysfs. */
#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROOM 256

static void put(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);

	if (file < 0)
		error(1, errno, "%s", path);
	if (write(file, text, strlen(text)) < 0)
		error(1, errno, "%s: %s", path, text);
	close(file);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void switch_one(const char *address, const char *driver, const char *override)
{
	char path[ROOM];

	snprintf(path, ROOM, "/sys/bus/pci/devices/%s/driver_override", address);
	put(path, override);
	snprintf(path, ROOM, "/sys/bus/pci/devices/%s/driver/unbind", address);
	put(path, address);
	snprintf(path, ROOM, "/sys/bus/pci/drivers/%s/bind", driver);
	put(path, address);
}
