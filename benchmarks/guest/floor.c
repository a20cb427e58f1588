// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The floor: what the kernel itself takes to switch a device, by bare writes to sysfs.
 *
 * usage: floor there|back ADDRESS DRIVER
 *
 * there: override, unbind, bind to DRIVER. back: no override, unbind, bind to DRIVER. Prints the seconds from before
 * the first write until after the last one; the start of the process is not among them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
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

int main(int count, char **words)
{
	char override[ROOM], unbind[ROOM], bind[ROOM];
	double began;

	if (count != 4 || (strcmp(words[1], "there") && strcmp(words[1], "back")))
		error(2, 0, "usage: floor there|back ADDRESS DRIVER");
	snprintf(override, ROOM, "/sys/bus/pci/devices/%s/driver_override", words[2]);
	snprintf(unbind, ROOM, "/sys/bus/pci/devices/%s/driver/unbind", words[2]);
	snprintf(bind, ROOM, "/sys/bus/pci/drivers/%s/bind", words[3]);
	began = now();
	put(override, strcmp(words[1], "there") ? "\n" : words[3]);
	put(unbind, words[2]);
	put(bind, words[2]);
	printf("%.9f\n", now() - began);
	return 0;
}
