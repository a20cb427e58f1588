// SPDX-License-Identifier: GPL-2.0-only
/*
 * A vfio-pci variant driver that answers its probes as a test tells it.
 *
 * It lists one device that QEMU can emulate (e1000e) and otherwise only passes
 * on to vfio_pci_core, so that flavourd meets a real variant: a real vfio_pci:
 * alias, a real errno from probe, a real line in the kernel's log.
 */

#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>

static int answer;
module_param(answer, int, 0644);
MODULE_PARM_DESC(answer, "What probe answers: 0 accepts, else a negative errno");

static int times = -1;
module_param(times, int, 0644);
MODULE_PARM_DESC(times, "How many further probes get the answer; -1 means all");

static unsigned int delay_ms;
module_param(delay_ms, uint, 0644);
MODULE_PARM_DESC(delay_ms, "How long probe waits before it answers");

static unsigned int remove_delay_ms;
module_param(remove_delay_ms, uint, 0644);
MODULE_PARM_DESC(remove_delay_ms, "How long remove waits before it begins");

static atomic_t probe_count = ATOMIC_INIT(0);

static int probes_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%d\n", atomic_read(&probe_count));
}

static const struct kernel_param_ops probes_ops = {
	.get = probes_get,
};

module_param_cb(probes, &probes_ops, NULL, 0444);
MODULE_PARM_DESC(probes, "How many probes were seen");

/* Two devices may be probed at once, and each refusal counts. */
static DEFINE_MUTEX(answer_lock);

static int next_answer(void)
{
	int ret;

	mutex_lock(&answer_lock);
	ret = READ_ONCE(times) ? READ_ONCE(answer) : 0;
	if (ret && READ_ONCE(times) > 0)
		WRITE_ONCE(times, times - 1);
	mutex_unlock(&answer_lock);

	return ret;
}

static int test_vfio_pci_open_device(struct vfio_device *core_vdev)
{
	struct vfio_pci_core_device *vdev =
		container_of(core_vdev, struct vfio_pci_core_device, vdev);
	int ret;

	ret = vfio_pci_core_enable(vdev);
	if (ret)
		return ret;

	vfio_pci_core_finish_enable(vdev);
	return 0;
}

static const struct vfio_device_ops test_vfio_pci_ops = {
	.name = "test-vfio-pci",
	.init = vfio_pci_core_init_dev,
	.release = vfio_pci_core_release_dev,
	.open_device = test_vfio_pci_open_device,
	.close_device = vfio_pci_core_close_device,
	.ioctl = vfio_pci_core_ioctl,
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = vfio_pci_core_read,
	.write = vfio_pci_core_write,
	.mmap = vfio_pci_core_mmap,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
	.bind_iommufd = vfio_iommufd_physical_bind,
	.unbind_iommufd = vfio_iommufd_physical_unbind,
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
};

static int test_vfio_pci_probe(struct pci_dev *pdev,
			       const struct pci_device_id *id)
{
	struct vfio_pci_core_device *vdev;
	int ret;

	atomic_inc(&probe_count);
	if (READ_ONCE(delay_ms))
		msleep(READ_ONCE(delay_ms));

	ret = next_answer();
	if (ret) {
		pci_err(pdev, "test variant refuses: %d\n", ret);
		return ret;
	}

	vdev = vfio_alloc_device(vfio_pci_core_device, vdev, &pdev->dev,
				 &test_vfio_pci_ops);
	if (IS_ERR(vdev))
		return PTR_ERR(vdev);

	dev_set_drvdata(&pdev->dev, vdev);
	ret = vfio_pci_core_register_device(vdev);
	if (ret)
		vfio_put_device(&vdev->vdev);

	return ret;
}

static void test_vfio_pci_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *vdev = dev_get_drvdata(&pdev->dev);

	if (READ_ONCE(remove_delay_ms))
		msleep(READ_ONCE(remove_delay_ms));

	vfio_pci_core_unregister_device(vdev);
	vfio_put_device(&vdev->vdev);
}

static const struct pci_device_id test_vfio_pci_table[] = {
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_INTEL, 0x10d3) }, /* e1000e */
	{}
};

MODULE_DEVICE_TABLE(pci, test_vfio_pci_table);

static struct pci_driver test_vfio_pci_driver = {
	.name = KBUILD_MODNAME,
	.id_table = test_vfio_pci_table,
	.probe = test_vfio_pci_probe,
	.remove = test_vfio_pci_remove,
	.err_handler = &vfio_pci_core_err_handlers,
	.driver_managed_dma = true,
};

module_pci_driver(test_vfio_pci_driver);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("The flavourd developers");
MODULE_DESCRIPTION("VFIO PCI variant driver for tests, answers probes as told");
