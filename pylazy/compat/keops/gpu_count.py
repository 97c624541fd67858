"""Stands in for `pykeops.common.gpu_utils`."""

from pylazy.runtime.gpu_devices import device_count


def get_gpu_number() -> int:
    """The number of GPUs that formulas can run on."""
    return device_count()
