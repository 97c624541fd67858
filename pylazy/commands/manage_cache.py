"""`pylazy cache`: the kernels on disk."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pylazy.commands.console import show_json, show_table, standard_output
from pylazy.runtime.errors import PylazyError
from pylazy.runtime.gpu_image import GpuImage
from pylazy.runtime.kernel_cache import KernelCache, default_directory

if TYPE_CHECKING:
    from pylazy.runtime.kernel_cache import Image

_ENTRY = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}-.{8}")
_DAY_SECONDS = 86_400


def list_cache(*, as_json: bool) -> None:
    """Show every entry: its kernel, target, size and age."""
    directory = _directory()
    cache = KernelCache(directory=directory)
    now = time.time()
    rows = []
    for entry in cache_entries(directory):
        image = cache.get(entry.name)
        status = entry.stat()
        described = ("cannot be used", "") if image is None else (_first_name(image), image.target)
        rows.append((entry.name[:16], *described, status.st_size, round((now - status.st_mtime) / _DAY_SECONDS, 1)))
    headings = ("key", "first phase", "target", "bytes", "days old")
    if as_json:
        show_json({"directory": str(directory), "entries": [dict(zip(headings, row, strict=True)) for row in rows]})
        return
    console = standard_output()
    console.print(f"{directory}: {len(rows)} kernels, {sum(row[3] for row in rows):,} bytes", markup=False)
    if rows:
        show_table(console, "", headings, rows)


def _first_name(image: Image) -> str:
    return image.kernels[0].name if isinstance(image, GpuImage) else image.phases[0].name


def verify_cache() -> bool:
    """Read every entry, with its hash.

    Returns:
        Whether all can be used; what cannot is named, and would be compiled again.
    """
    directory = _directory()
    cache = KernelCache(directory=directory)
    entries = cache_entries(directory)
    bad = [entry.name for entry in entries if cache.get(entry.name) is None]
    console = standard_output()
    for name in bad:
        console.print(f"{name} cannot be used: damaged, foreign or of another version")
    console.print(f"{len(entries) - len(bad)} of {len(entries)} kernels can be used")
    return not bad


def prune_cache(*, days: float) -> None:
    """Remove what has not been written for some days, and what writers left behind."""
    directory = _directory()
    limit = time.time() - days * _DAY_SECONDS
    cache = KernelCache(directory=directory)
    _remove([entry for entry in cache_entries(directory) if entry.stat().st_mtime < limit or not cache.get(entry.name)])
    _remove_left_behind(directory)


def clear_cache() -> None:
    """Remove every entry; nothing else in the folder is touched."""
    directory = _directory()
    _remove(cache_entries(directory))
    _remove_left_behind(directory)


def cache_entries(directory: Path) -> list[Path]:
    """The files that are entries, the newest first."""
    if not directory.is_dir():
        return []
    entries = [path for path in directory.iterdir() if _ENTRY.fullmatch(path.name) and not path.is_symlink()]
    return sorted((path for path in entries if path.is_file()), key=lambda path: (-path.stat().st_mtime, path.name))


def _directory() -> Path:
    directory = default_directory()
    if directory is None:
        raise PylazyError("the kernel cache is off: PYLAZY_CACHE is 0, or there is no home folder")
    return Path(directory)


def _remove_left_behind(directory: Path) -> None:
    """Remove temporary files older than an hour: no writer takes that long."""
    limit = time.time() - _DAY_SECONDS / 24
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if _TEMPORARY.fullmatch(path.name) and path.lstat().st_mtime < limit:
            path.unlink(missing_ok=True)


def _remove(entries: list[Path]) -> None:
    size = sum(entry.stat().st_size for entry in entries)
    for entry in entries:
        entry.unlink(missing_ok=True)
    standard_output().print(f"removed {len(entries)} kernels, {size:,} bytes")
