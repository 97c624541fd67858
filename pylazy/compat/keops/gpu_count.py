"""Stands in for `pykeops.common.gpu_utils`."""


def get_gpu_number() -> int:
    """The number of GPUs that formulas can run on: none until launch on GPUs is there."""
    return 0
