"""`pylazy info`: what is installed, what this machine has, what is switched off and why; a block for an issue."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import pylazy
from pylazy.bundling.bundled_programs import LEVEL_VARIABLE
from pylazy.commands.console import show_json, standard_output
from pylazy.commands.manage_cache import cache_entries
from pylazy.runtime.errors import PylazyError
from pylazy.runtime.gpu_devices import device_count, properties, reason_for_no_device
from pylazy.runtime.kernel_cache import default_directory
from pylazy.runtime.launch import host_target
from pylazy.runtime.threads import ENVIRONMENT_VARIABLE, get_num_threads

_PACKAGES = (
    "numpy",
    "torch",
    "llvmlite",
    "torch-mlir",
    "typer",
    "rich",
    "cryptography",
    "nvidia-cuda-nvcc",
    "nvidia-nvjitlink",
)
_VARIABLES = (
    ENVIRONMENT_VARIABLE,
    LEVEL_VARIABLE,
    "PYLAZY_CACHE",
    "PYLAZY_CACHE_DIR",
    "PYLAZY_CUDA_DRIVER",
    "PYLAZY_TRUSTED_KEYS",
)


def show_info(*, as_json: bool) -> None:
    """Write the report; loads neither MLIR nor LLVM nor torch."""
    found = collect_info()
    if as_json:
        show_json(found)
        return
    width = max(map(len, found))
    lines = [f"{name:{width}}  {value}" for name, value in found.items()]
    standard_output().out("\n".join(["```text", *lines, "```"]), highlight=False)


def collect_info() -> dict[str, str]:
    """Say everything that a report of a fault should have; nothing in it names a person or a file of theirs."""
    found = {"pylazy": pylazy.__version__, "python": f"{platform.python_version()}, {platform.python_implementation()}"}
    found["system"] = f"{platform.system()} {platform.release()}, {platform.machine()}"
    found.update({package: _version(package) for package in _PACKAGES})
    try:
        found["processor"] = f"{host_target()}, {os.cpu_count()} in the machine"
        found["threads"] = str(get_num_threads())
        found["runtime"] = "loaded"
    except PylazyError as error:
        found["runtime"] = f"off: {error}"
    found["compiler"] = _compiler()
    found["gpu"] = _gpu()
    found["cache"] = _cache()
    for name in _VARIABLES:
        found[name] = os.environ.get(name) or "not set"
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _compiler() -> str:
    missing = [package for package in ("torch-mlir", "llvmlite") if _version(package) == "not installed"]
    if missing:
        return f"off: {', '.join(missing)} not installed; bundles run without them"
    return "on"


def _gpu() -> str:
    try:
        devices = [properties(number) for number in range(device_count())]
    except PylazyError as error:
        return f"off: {error}"
    if not devices:
        return f"none: {reason_for_no_device()}"
    return ", ".join(
        f"{device.name} (compute capability {device.capability[0]}.{device.capability[1]}, {device.processors} "
        "processors)"
        for device in devices
    )


def _cache() -> str:
    chosen = default_directory()
    if chosen is None:
        return "off: PYLAZY_CACHE is 0, or there is no home folder"
    directory = Path(chosen)
    if not directory.is_dir():
        return "on, no folder yet: the first kernel makes it"
    if not os.access(directory, os.W_OK):
        return "off: the folder cannot be written"
    entries = cache_entries(directory)
    size = sum(entry.stat().st_size for entry in entries)
    return f"on, {len(entries)} kernels, {size:,} bytes"
