"""The machine that figures are taken on."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGES = ("pylazy", "numpy", "llvmlite", "torch-mlir", "torch", "pykeops", "jax", "scipy")


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    from pylazy.runtime.launch import host_target

    return {
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "level": host_target(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {package: found for package in PACKAGES if (found := _version(package))},
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def describe_machine(found: Mapping[str, Any]) -> str:
    """Say what `machine` gave, in a line."""
    return f"{found['processor']}, {found['cores']} cores, {found['level']}"


def _processor_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown processor"
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.*)$", text, re.MULTILINE))
    return f"{fields.get('model name', 'processor')} family {fields.get('cpu family')} model {fields.get('model')}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        pass
    if package == "pylazy":
        import pylazy

        return pylazy.__version__
    return None
