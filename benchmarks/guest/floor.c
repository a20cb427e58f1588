// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The floor: what the kernel itself takes to switch a device, by bare writes to sysfs.
 *
 * usage: floor there|back ADDRESS DRIVER
 *
 * there: override, unbind, bind to DRIVER. back: no override, unbind, bind to DRIVER. Prints the seconds from before
 * the first write until after the last one; the start of the process is not among them.
 */
#include "bare.h"

int main(int count, char **words)
{
	double began;

	if (count != 4 || (strcmp(words[1], "there") && strcmp(words[1], "back")))
		error(2, 0, "usage: floor there|back ADDRESS DRIVER");
	began = now();
	switch_one(words[2], words[3], strcmp(words[1], "there") ? "\n" : words[3]);
	printf("%.9f\n", now() - began);
	return 0;
}
