// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The best that a script could do: switch many devices by bare writes to sysfs, so many at a time.
 *
 * usage: loop WORKERS there|back DRIVER ADDRESS...
 *
 * there: override, unbind, bind to DRIVER. back: no override, unbind, bind to DRIVER. Each of the workers, which stand
 * ready before, takes the next device that nobody has taken. Prints the seconds until the last is done.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
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

int main(int count, char **words)
{
	const char *driver, *override;
	int workers, gate[2], devices = count - 4;
	atomic_int *taken;
	double began;
	char nothing;

	if (count < 5 || (strcmp(words[2], "there") && strcmp(words[2], "back")))
		error(2, 0, "usage: loop WORKERS there|back DRIVER ADDRESS...");
	workers = atoi(words[1]);
	driver = words[3];
	override = strcmp(words[2], "there") ? "\n" : driver;
	taken = mmap(NULL, sizeof(*taken), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (taken == MAP_FAILED || pipe(gate))
		error(1, errno, "no room");
	for (int i = 0; i < workers; i++) {
		pid_t worker = fork();

		if (worker < 0)
			error(1, errno, "fork");
		if (worker)
			continue;
		close(gate[1]);
		if (read(gate[0], &nothing, 1))
			error(1, errno, "the gate");
		for (int mine; (mine = atomic_fetch_add(taken, 1)) < devices;)
			switch_one(words[4 + mine], driver, override);
		return 0;
	}
	began = now();
	close(gate[1]);
	for (int i = 0; i < workers; i++) {
		int status;

		if (wait(&status) < 0 || status)
			error(1, 0, "a worker has failed");
	}
	printf("%.9f\n", now() - began);
	return 0;
}
