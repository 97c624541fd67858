"""Stands in for `pykeops.config`: what was found on this machine."""

from importlib.util import find_spec

from pylazy.runtime.kernel_cache import default_directory

gpu_available = False
numpy_found = find_spec("numpy") is not None
torch_found = find_spec("torch") is not None


def get_build_folder() -> str:
    """Where compiled kernels are kept; empty if the cache is switched off."""
    return str(default_directory() or "")
