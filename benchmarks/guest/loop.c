// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The best that a script could do: switch many devices by bare writes to sysfs, so many at a time.
 *
 * usage: loop WORKERS there|back DRIVER ADDRESS...
 *
 * there: override, unbind, bind to DRIVER. back: no override, unbind, bind to DRIVER. Each of the workers, which stand
 * ready before, takes the next device that nobody has taken. Prints the seconds until the last is done.
 */
#include "bare.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

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
