"""Images of programs for CPUs and GPUs by key: in memory, then on disk."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import stat
import sys
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar

from pylazy.runtime.errors import InternalError, KernelFormatError
from pylazy.runtime.fork_lock import ForkLock
from pylazy.runtime.kernel import FORMAT_VERSION, MAGIC, KernelImage
from pylazy.runtime.launch import Program

if TYPE_CHECKING:
    from collections.abc import Callable

    from pylazy.runtime.gpu_image import GpuImage
    from pylazy.runtime.gpu_launch import GpuProgram

    Image = KernelImage | GpuImage

_Program = TypeVar("_Program", "Program", "GpuProgram")

DEFAULT_CAPACITY = 1024
MAX_ENTRY_BYTES = 256 << 20

_ENTRY_MAGIC = b"pylazy kernel cache 1\n"
_KEY = re.compile(r"[0-9a-f]{64}")
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class _Entry:
    __slots__ = ("image", "program")

    def __init__(self, image: Any, program: Program | GpuProgram | None = None) -> None:
        self.image = image
        self.program = program


class KernelCache:
    """Kernel images, and the programs loaded from them, by key. Safe for threads, processes and forks.

    The disk never fails a caller: what cannot be read, or is damaged, foreign, stale or writable by other users, is
    missing; what cannot be written stays in memory, with one warning. No entry is used before its hash is checked.
    """

    def __init__(self, *, directory: str | os.PathLike[str] | None, capacity: int = DEFAULT_CAPACITY) -> None:
        """Make an empty memory over the entries of `directory`, which is made by the first write.

        Args:
            directory: where entries are kept; None for memory only.
            capacity: entries in memory; the least recently used one leaves first.
        """
        self.directory = None if directory is None else os.fspath(directory)
        self._capacity = capacity
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._memory_lock = ForkLock()
        self._build_lock = ForkLock()
        self._has_warned = False

    def get(self, key: str) -> Image | None:
        """The image of `key`, or None."""
        entry = self._find(key)
        return None if entry is None else entry.image

    def put(self, key: str, image: Image) -> None:
        """Keep `image`, in memory and on disk, in place of what was kept before."""
        self._remember(key, _Entry(image))
        if self.directory is None:
            return
        try:
            _write_entry(self.directory, key, image)
        except OSError as error:
            self._warn(f"cannot write to the kernel cache {self.directory}: {error}; kernels stay in memory")

    def program(self, key: str, build: Callable[[], KernelImage]) -> Program:
        """The loaded program of `key`; its image is built if no cache has it, by one thread at a time.

        Raises:
            DeviceError: the image is for another processor.
            Exception: whatever `build` raises; nothing is kept then.
        """
        return self._program(key, build, Program)

    def gpu_program(self, key: str, build: Callable[[], GpuImage]) -> GpuProgram:
        """The GPU program of `key`, described to the runtime; otherwise as `program`."""
        from pylazy.runtime.gpu_launch import GpuProgram

        return self._program(key, build, GpuProgram)

    def _program(self, key: str, build: Callable[[], Any], load: type[_Program]) -> _Program:
        entry = self._recall(key)
        if entry is not None and isinstance(entry.program, load):
            return entry.program
        with self._build_lock.held():
            entry = self._find(key)
            if entry is None:
                image = build()
                program = load(image)
                self.put(key, image)
                self._remember(key, _Entry(image, program))
                return program
            if not isinstance(entry.program, load):
                entry.program = load(entry.image)
            return entry.program

    def clear_memory(self) -> None:
        """Forget the entries in memory; programs that nobody uses are unloaded."""
        with self._memory_lock.held():
            self._entries.clear()

    def clear(self) -> None:
        """Forget the entries in memory and remove those on disk; nothing else in the folder is touched."""
        self.clear_memory()
        if self.directory is None or not os.path.isdir(self.directory):
            return
        with os.scandir(self.directory) as found:
            entries = [entry.path for entry in found if _KEY.fullmatch(entry.name)]
        for path in entries:
            if os.path.isfile(path) and not os.path.islink(path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def _find(self, key: str) -> _Entry | None:
        entry = self._recall(key)
        if entry is not None or self.directory is None:
            return entry
        image = _read_entry(self.directory, key)
        if image is None:
            return None
        entry = _Entry(image)
        self._remember(key, entry)
        return entry

    def _recall(self, key: str) -> _Entry | None:
        if _KEY.fullmatch(key) is None:
            raise InternalError(f"key of a kernel is {key!r}: expected 64 hexadecimal digits")
        with self._memory_lock.held():
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def _remember(self, key: str, entry: _Entry) -> None:
        if _KEY.fullmatch(key) is None:
            raise InternalError(f"key of a kernel is {key!r}: expected 64 hexadecimal digits")
        with self._memory_lock.held():
            self._entries[key] = entry
            self._entries.move_to_end(key)
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)

    def _warn(self, message: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(message, RuntimeWarning, stacklevel=4)


@functools.cache
def default_cache() -> KernelCache:
    """The cache of this process, in the folder that the environment names when it is first used."""
    return KernelCache(directory=default_directory())


def load(key: str) -> Image | None:
    """The image of `key` in the cache of this process, or None."""
    return default_cache().get(key)


def store(key: str, image: Image) -> None:
    """Keep `image` in the cache of this process."""
    default_cache().put(key, image)


def key(*parts: str) -> str:
    """The key of what `parts` describe: their SHA-256, with the format's version.

    Different sequences of parts have different keys. The parts must say everything that the image depends on: the
    formula, the target, the versions of pylazy, MLIR and LLVM.
    """
    digest = hashlib.sha256(b"kernel image %d" % FORMAT_VERSION)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def default_directory() -> str | None:
    """Where kernels are kept: PYLAZY_CACHE_DIR, or the platform's cache folder; None if PYLAZY_CACHE=0 or no home."""
    if os.environ.get("PYLAZY_CACHE", "").strip() == "0":
        return None
    chosen = os.environ.get("PYLAZY_CACHE_DIR", "").strip()
    if chosen:
        return chosen
    folder = _platform_cache_folder()
    return None if folder.startswith("~") else os.path.join(folder, "pylazy")  # "~" stays where there is no home


def _platform_cache_folder() -> str:
    """The folder as text: pathlib takes 4 ms to import, which is a fifth of a first result from the disk."""
    if sys.platform == "win32":
        return os.environ.get("LOCALAPPDATA") or os.path.expanduser(os.path.join("~", "AppData", "Local"))
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches")
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is invalid and ignored.
    return configured if os.path.isabs(configured) else os.path.expanduser("~/.cache")


def _entry_head(key: str) -> bytes:
    # The key is in the entry, so that an entry under another's name is not taken for it.
    return _ENTRY_MAGIC + key.encode() + b"\n"


def _read_entry(directory: str, key: str) -> Image | None:
    try:
        if not _is_private(os.stat(directory)):
            return None
        data = _read_private_file(os.path.join(directory, key))
    except OSError:
        return None
    head = _entry_head(key)
    if data is None or not data.startswith(head):
        return None
    content = data[len(head) :]
    try:
        return KernelImage.from_bytes(content) if content.startswith(MAGIC) else _read_gpu_image(content)
    except KernelFormatError:
        return None


def _read_gpu_image(content: bytes) -> GpuImage:
    from pylazy.runtime.gpu_image import GpuImage

    return GpuImage.from_bytes(content)


def _read_private_file(path: str) -> bytes | None:
    flags = os.O_RDONLY
    for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # O_NONBLOCK: a pipe must not block us
        flags |= getattr(os, name, 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        is_usable = stat.S_ISREG(status.st_mode) and _is_private(status) and status.st_size <= MAX_ENTRY_BYTES
        return file.read() if is_usable else None


def _is_private(status: os.stat_result) -> bool:
    """Whether only this user can have written it. Windows has no such bits: its profile folders are private."""
    if not hasattr(os, "geteuid"):
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS


def _write_entry(directory: str, key: str, image: Image) -> None:
    import tempfile  # with what it imports a fifth of a first result from the disk, which writes nothing

    os.makedirs(directory, mode=0o700, exist_ok=True)
    if not _is_private(os.stat(directory)):
        raise PermissionError("other users may write to this folder, or own it")
    descriptor, temporary = tempfile.mkstemp(prefix=f".{key[:16]}-", dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_entry_head(key) + image.to_bytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, os.path.join(directory, key))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
