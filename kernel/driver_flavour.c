// SPDX-License-Identifier: GPL-2.0-only
/*
 * Gives each PCI and platform device a file driver_flavour.
 *
 * Reading tells the flavours (universes of drivers) that flavourd knows, with
 * the one in brackets that the device is in now: "[default] vfio".
 * Writing asks flavourd, in user space, to put the device in another one. The
 * request goes out as a uevent with a number; the write returns when flavourd
 * has answered, through /dev/driver_flavour. One write(2) there is one message:
 *
 *	flavours\nBUS NAME PREFIX PROOF\n...	the whole table; PREFIX may be "-"
 *	begin SEQ\n	is anybody still waiting for this request?
 *	answer SEQ ERRNO\n	0, or what the writer shall get
 *	dismiss\n	whose request has not begun shall ask again (EAGAIN)
 */

#include <linux/ctype.h>
#include <linux/device.h>
#include <linux/kernfs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

/* udev has room for no more in a property, and a whole uevent for 2048. */
#define WORD_LENGTH 511
#define MODALIAS_LENGTH 300

static unsigned int timeout = 300;
module_param(timeout, uint, 0644);
MODULE_PARM_DESC(timeout, "How many seconds a writer waits for an answer");

/* prefix: of its drivers' aliases, or "-". proof: a directory of a device that is in it. */
struct flavour {
	char bus[65], name[65], prefix[65], proof[65];
};

/* A write that waits for its answer, on the writer's stack. */
struct waiter {
	struct list_head node;
	const struct device *dev;
	u64 seq;
	int result; /* PENDING, BEGUN, or what the writer gets: 0 or a negative errno */
};

enum { PENDING = 1, BEGUN };

/* Held for moments. Who finishes a waiter holds it, so that no waiter leaves meanwhile. */
static DEFINE_MUTEX(state_lock);
static LIST_HEAD(waiters);
static DECLARE_WAIT_QUEUE_HEAD(finished);
static char *flavours; /* as flavourd last told them, or NULL */
static bool listening;
static u64 last_seq;

/* Those of a device, or with a number, or all (NULL, 0) that are not spared; returns how many. */
static int finish(const struct device *dev, u64 seq, int spared, int result)
{
	struct waiter *waiter, *next;
	int count = 0;

	lockdep_assert_held(&state_lock);
	list_for_each_entry_safe(waiter, next, &waiters, node) {
		if ((dev && dev != waiter->dev) || (seq && seq != waiter->seq) ||
		    waiter->result == spared)
			continue;
		count++;
		WRITE_ONCE(waiter->result, result);
		if (result == BEGUN)
			continue;
		list_del_init(&waiter->node);
		wake_up_all(&finished);
	}
	return count;
}

/* Four words with a blank between, and none that was cut. */
static bool read_flavour(const char *line, struct flavour *to)
{
	return sscanf(line, "%64s %64s %64s %64s", to->bus, to->name, to->prefix, to->proof) == 4 &&
	       strlen(to->bus) + strlen(to->name) + strlen(to->prefix) + strlen(to->proof) + 3 ==
	       strcspn(line, "\n") && strchr(line, '\n');
}

/* Reads the first flavour of a device's bus from a line on; returns the line after it, or NULL. */
static const char *next_flavour(const char *line, struct device *dev, struct flavour *to)
{
	bool found = false;

	while (!found && line && *line) {
		found = read_flavour(line, to) && !strcmp(to->bus, dev->bus->name);
		line = strchr(line, '\n') + 1;
	}
	return found ? line : NULL;
}

/* The directory of a class stays for a moment after its last device: only what is in it tells. */
static bool is_proven(struct device *dev, const struct flavour *flavour)
{
	struct kernfs_node *kn = kernfs_find_and_get(dev->kobj.sd, flavour->proof);
	bool any = kn && kernfs_type(kn) == KERNFS_DIR && !RB_EMPTY_ROOT(&kn->dir.children);

	kernfs_put(kn);
	return any;
}

static ssize_t driver_flavour_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct flavour now, each;
	const char *line;
	int length;

	guard(mutex)(&state_lock);
	if (!flavours)
		return -EAGAIN;
	for (line = flavours; (line = next_flavour(line, dev, &now));)
		if (is_proven(dev, &now))
			break;
	if (!line)
		strscpy(now.name, "default");
	length = sysfs_emit(buf, line ? "default" : "[default]");
	for (line = flavours; (line = next_flavour(line, dev, &each));)
		length += sysfs_emit_at(buf, length, strcmp(each.name, now.name) ? " %s" : " [%s]",
					each.name);
	return length + sysfs_emit_at(buf, length, "\n");
}

/*
 * Any bus tells a device's modalias, but in uevents only. What follows its
 * first colon is the same in each flavour.
 */
static void add_modalias(struct kobj_uevent_env *env, struct device *dev, const char *word)
{
	struct kobj_uevent_env *told __free(kfree) = kzalloc(sizeof(*told), GFP_KERNEL);
	const char *line, *rest;
	struct flavour flavour;

	scoped_guard(mutex, &state_lock)
		for (line = flavours; (line = next_flavour(line, dev, &flavour));)
			if (!strcmp(flavour.name, word) && strcmp(flavour.prefix, "-"))
				break;
	if (!line || !told || !dev->bus->uevent || dev->bus->uevent(dev, told))
		return;
	for (int i = 0; i < told->envp_idx; i++) {
		rest = strchr(told->envp[i], ':');
		if (strstarts(told->envp[i], "MODALIAS=") && rest && strlen(rest) < MODALIAS_LENGTH)
			add_uevent_var(env, "FLAVOUR_MODALIAS=%s%s", flavour.prefix, rest);
	}
}

static int tell(struct device *dev, const char *buf, size_t count, u64 seq)
{
	struct kobj_uevent_env *env __free(kfree) = kzalloc(sizeof(*env), GFP_KERNEL);
	const char *word, *each;

	if (!env)
		return -ENOMEM;
	if (strlen(buf) != count || count > WORD_LENGTH + 1)
		return -EINVAL;
	add_uevent_var(env, "DRIVER_FLAVOUR=%s", skip_spaces(buf));
	word = strim(strchr(env->envp[0], '=') + 1);
	for (each = word; *each; each++)
		if (iscntrl(*each) || each - word == WORD_LENGTH)
			return -EINVAL;
	add_uevent_var(env, "DRIVER_FLAVOUR_SEQ=%llu", seq);
	add_modalias(env, dev, word);
	return kobject_uevent_env(&dev->kobj, KOBJ_CHANGE, env->envp);
}

static int request(struct device *dev, struct device_attribute *attr, const char *buf, size_t count)
{
	struct waiter waiter = { .dev = dev, .result = PENDING };
	struct kernfs_node *kn;
	long left;
	int ret;

	scoped_guard(mutex, &state_lock) {
		if (!listening)
			return -EAGAIN;
		waiter.seq = ++last_seq;
		list_add_tail(&waiter.node, &waiters);
	}
	/* As long as we are protected the device cannot leave sysfs, and so can be told of. */
	ret = tell(dev, buf, count, waiter.seq);
	/* From here on its removal does not wait for us, but finds us in the list. */
	kn = ret ? NULL : sysfs_break_active_protection(&dev->kobj, &attr->attr);
	ret = ret ?: -ENODEV;
	if (kn) {
		/*
		 * Only a signal that kills ends it, and it may be frozen. Who shares our open file
		 * waits behind us deaf to both, as kernfs holds its lock.
		 */
		left = min_t(u64, (u64)READ_ONCE(timeout) * HZ, MAX_SCHEDULE_TIMEOUT - 1);
		left = ___wait_event(finished,
				     ___wait_cond_timeout(READ_ONCE(waiter.result) <= 0),
				     (TASK_KILLABLE | TASK_FREEZABLE_UNSAFE), 0, left,
				     __ret = schedule_timeout(__ret));
		/* Never -ERESTARTSYS: the request would go out twice. */
		ret = left < 0 ? -EINTR : -ETIMEDOUT;
		sysfs_unbreak_active_protection(kn);
	}

	guard(mutex)(&state_lock);
	list_del_init(&waiter.node);
	return waiter.result > 0 ? ret : waiter.result;
}

static ssize_t driver_flavour_store(struct device *dev, struct device_attribute *attr,
				    const char *buf, size_t count)
{
	int ret;

	/* The file may go while we wait, and with it what keeps the module. */
	if (!try_module_get(THIS_MODULE))
		return -ENODEV;
	ret = request(dev, attr, buf, count);
	module_put(THIS_MODULE);
	return ret ?: count; /* the last steps are waited for in detach_all() */
}

static DEVICE_ATTR_RW(driver_flavour);

/*
 * Held while a file comes or goes, and over whole walks: a device that a walk
 * meets is still on its bus and so, until its BUS_NOTIFY_REMOVED_DEVICE has got
 * this lock, in sysfs.
 */
static DEFINE_MUTEX(files_lock);
static bool leaving;

static int attach(struct device *dev, void *unused)
{
	struct kernfs_node *kn;

	lockdep_assert_held(&files_lock);
	if (leaving || !device_is_registered(dev))
		return 0;
	/* A device that just comes is met by the walk and told by its bus. */
	kn = kernfs_find_and_get(dev->kobj.sd, dev_attr_driver_flavour.attr.name);
	kernfs_put(kn);
	if (!kn && device_create_file(dev, &dev_attr_driver_flavour))
		dev_warn(dev, "cannot make driver_flavour\n");
	return 0;
}

static int detach(struct device *dev, void *unused)
{
	lockdep_assert_held(&files_lock);
	/* This waits for those who are not in the list yet. */
	device_remove_file(dev, &dev_attr_driver_flavour);
	guard(mutex)(&state_lock);
	finish(dev, 0, 0, -ENODEV);
	return 0;
}

static int heard(struct notifier_block *block, unsigned long what, void *dev)
{
	/* REMOVED: a walk may have met it since DEL. Whether it is bound does not matter. */
	if (what != BUS_NOTIFY_ADD_DEVICE && what != BUS_NOTIFY_DEL_DEVICE &&
	    what != BUS_NOTIFY_REMOVED_DEVICE)
		return 0;
	guard(mutex)(&files_lock);
	return what == BUS_NOTIFY_ADD_DEVICE ? attach(dev, NULL) : detach(dev, NULL);
}

static struct {
	const struct bus_type *type;
	struct notifier_block block;
} buses[] = {
	{ &pci_bus_type, { .notifier_call = heard } },
	{ &platform_bus_type, { .notifier_call = heard } },
};

static void detach_all(void)
{
	scoped_guard(mutex, &files_lock) {
		leaving = true;
		for (int i = 0; i < ARRAY_SIZE(buses); i++)
			bus_for_each_dev(buses[i].type, NULL, NULL, detach);
	}
	for (int i = 0; i < ARRAY_SIZE(buses); i++)
		bus_unregister_notifier(buses[i].type, &buses[i].block);
	/* A writer whose device has gone may still be between module_put() and the end of store. */
	synchronize_rcu_tasks();
}

/* Keeps the text, and gives back the former one, or changes nothing. */
static int take_flavours(char **text)
{
	struct flavour flavour;
	const char *line;

	for (line = strchr(*text, '\n') + 1; *line; line = strchr(line, '\n') + 1)
		if (!read_flavour(line, &flavour))
			return -EINVAL;
	guard(mutex)(&state_lock);
	swap(*text, flavours);
	return 0;
}

static int take(char **text)
{
	unsigned int code;
	int end = 0;
	u64 seq;

	if (strstarts(*text, "flavours\n"))
		return take_flavours(text);
	guard(mutex)(&state_lock);
	if (!strcmp(*text, "dismiss\n")) {
		finish(NULL, 0, BEGUN, -EAGAIN);
		return 0;
	}
	if (sscanf(*text, "begin %llu\n%n", &seq, &end) == 1 && !(*text)[end] && seq)
		return finish(NULL, seq, 0, BEGUN) ? 0 : -ENOENT;
	if (sscanf(*text, "answer %llu %u\n%n", &seq, &code, &end) == 2 && !(*text)[end] && seq &&
	    code <= MAX_ERRNO)
		return finish(NULL, seq, 0, -(int)code) ? 0 : -ENOENT;
	return -EINVAL;
}

static ssize_t listener_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)
{
	char *text;
	int ret;

	if (count >= PAGE_SIZE)
		return -EINVAL;
	text = memdup_user_nul(buf, count);
	if (IS_ERR(text))
		return PTR_ERR(text);
	ret = strlen(text) == count ? take(&text) : -EINVAL;
	kfree(text);
	return ret ?: count;
}

static int listener_open(struct inode *inode, struct file *file)
{
	guard(mutex)(&state_lock);
	if (listening || !(file->f_mode & FMODE_WRITE))
		return listening ? -EBUSY : -EINVAL;
	listening = true;
	return nonseekable_open(inode, file);
}

static int listener_release(struct inode *inode, struct file *file)
{
	guard(mutex)(&state_lock);
	listening = false;
	finish(NULL, 0, 0, -EAGAIN);
	return 0;
}

static const struct file_operations listener_operations = {
	.owner = THIS_MODULE,
	.open = listener_open,
	.write = listener_write,
	.release = listener_release,
};

static struct miscdevice listener = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = KBUILD_MODNAME,
	.mode = 0600,
	.fops = &listener_operations,
};

static int __init driver_flavour_init(void)
{
	int ret = 0;

	last_seq = ktime_get_boottime_ns(); /* so that no number comes twice, even after a reload */
	for (int i = 0; i < ARRAY_SIZE(buses); i++) {
		ret = ret ?: bus_register_notifier(buses[i].type, &buses[i].block);
		guard(mutex)(&files_lock);
		bus_for_each_dev(buses[i].type, NULL, NULL, attach);
	}
	/* Last, so that who hears of it finds all files. */
	ret = ret ?: misc_register(&listener);
	if (ret)
		detach_all();
	return ret;
}
module_init(driver_flavour_init);

static void __exit driver_flavour_exit(void)
{
	misc_deregister(&listener);
	detach_all();
	kfree(flavours);
}
module_exit(driver_flavour_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("The flavourd developers");
MODULE_DESCRIPTION("A file driver_flavour for each device, answered by flavourd");
MODULE_VERSION("0.1.0");
