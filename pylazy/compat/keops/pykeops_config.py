"""Stands in for `pykeops.config`: what was found on this machine."""

from importlib.util import find_spec

from pylazy.runtime.gpu_devices import device_count
from pylazy.runtime.kernel_cache import default_directory

numpy_found = find_spec("numpy") is not None
torch_found = find_spec("torch") is not None


def __getattr__(name: str) -> bool:
    """Say whether there are GPUs, when somebody asks: an import asks no device."""
    if name != "gpu_available":
        raise AttributeError(f"module {__name__!r}, for which pylazy stands in, has no attribute {name!r}", name=name)
    return device_count() > 0


def __dir__() -> list[str]:
    """Name what the module has, with what it says when somebody asks."""
    return sorted([*globals(), "gpu_available"])


def get_build_folder() -> str:
    """Where compiled kernels are kept; empty if the cache is switched off."""
    return default_directory() or ""
