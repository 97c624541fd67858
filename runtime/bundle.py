"""Bundles: kernels compiled ahead of time for several targets, in one file that says what is in it.

A bundle is an archive (`pylazy.runtime.archive`) whose first entry is MANIFEST.json (`pylazy.runtime.manifest`); the
manifest lists every other entry with its size and SHA-256, and nothing in the file is used before all of it is checked.
Nothing here maps or runs code.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from pylazy.runtime.archive import MAX_ARCHIVE_BYTES, read_archive, require, write_archive
from pylazy.runtime.errors import BundleFormatError, DeviceError, KernelFormatError, UntrustedBundleError
from pylazy.runtime.kernel import CPU_LEVELS, Buffer, KernelImage
from pylazy.runtime.manifest import (
    MANIFEST,
    Code,
    Function,
    Kernel,
    Manifest,
    check_blobs,
    check_buffers,
    check_links,
    to_json,
)
from pylazy.runtime.manifest_reader import read_launch, read_manifest

if TYPE_CHECKING:
    from pylazy.runtime.gpu_image import GpuImage

FIRST_LAUNCHED = (1, 1)
"""The first format whose GPU code takes the parameters that `pylazy.runtime.gpu_image` describes."""

_CPU_FAMILIES = (CPU_LEVELS[:3], CPU_LEVELS[3:])  # each from the oldest to the newest level
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class BundleFile:
    """A bundle in memory, every rule of the format checked; its code is bytes.

    Attributes:
        manifest: what is in it.
        manifest_text: its bytes, which a signature signs.
        data: the file.
        kernels: by id.
    """

    def __init__(self, data: bytes) -> None:
        """Check a file; what images and launches say of themselves is checked when they are taken.

        Raises:
            BundleFormatError: the bytes break a rule of the format; the message says which.
        """
        entries = read_archive(data)
        require(next(iter(entries), "") == MANIFEST, f"the first entry is not {MANIFEST}")
        self.data = data
        text = entries.pop(MANIFEST)
        self.manifest_text = bytes(text)
        self.manifest = read_manifest(text)
        self.kernels = {kernel.id: kernel for kernel in self.manifest.kernels}
        self._entries = entries
        check_blobs(self.manifest, entries)
        check_links(self.manifest, self.kernels)

    @property
    def sha256(self) -> str:
        """The hash of the file."""
        return hashlib.sha256(self.data).hexdigest()

    def blob(self, path: str) -> bytes:
        """The content of an entry."""
        return bytes(self._entries[path])

    def text(self, path: str) -> str:
        """The content of an entry, as text."""
        try:
            return self.blob(path).decode()
        except UnicodeDecodeError as error:
            raise BundleFormatError(f"bundle: entry {path} is not text: {error}") from None

    def function_of(self, kernel: Kernel) -> Function:
        """The function that a kernel computes, or differentiates."""
        return next(function for function in self.manifest.all_functions if function.kernel == (kernel.of or kernel.id))

    def image(self, kernel: Kernel, code: Code) -> KernelImage:
        """The image of a kernel for a CPU level, checked against the manifest; still nothing is mapped.

        Raises:
            BundleFormatError: it is no image, or of another kernel than the manifest says.
        """
        try:
            image = KernelImage.from_bytes(self.blob(code.blob))
        except KernelFormatError as error:
            raise BundleFormatError(f"bundle: entry {code.blob}: {error}") from None
        require(image.target == code.target, f"entry {code.blob} is for {image.target}, not {code.target}")
        check_buffers(self.function_of(kernel), kernel, image.arguments, what=f"entry {code.blob}")
        return image

    def launch(self, kernel: Kernel, code: Code) -> tuple[tuple[Mapping[str, Any], ...], tuple[Buffer, ...]]:
        """The kernels of PTX, in the order in which they run, and its buffers, checked against the manifest.

        Raises:
            BundleFormatError: they are malformed, or of another kernel than the manifest says.
        """
        phases, buffers = read_launch(code)
        arguments = [buffer for buffer in buffers if buffer.role != "scratch"]
        check_buffers(self.function_of(kernel), kernel, arguments, what=f"entry {code.blob}")
        return phases, buffers

    def gpu_image(self, kernel: Kernel, code: Code) -> "GpuImage":
        """The image of a kernel for GPUs, checked against the manifest; no driver is opened.

        Raises:
            BundleFormatError: it is malformed, or of another kernel than the manifest says.
            DeviceError: the bundle was made before GPU programs could be launched.
        """
        if self.manifest.format < FIRST_LAUNCHED:
            version = ".".join(map(str, self.manifest.format))
            raise DeviceError(
                f"the bundle is of format {version}, whose code for GPUs takes other parameters than later code: "
                "compile it again"
            )
        from pylazy.runtime.gpu_image import GpuImage, GpuKernel

        phases, buffers = self.launch(kernel, code)
        cubin = self.blob(code.cubin) if code.cubin else b""
        try:
            kernels = tuple(GpuKernel(**phase) for phase in phases)
            return GpuImage(code.target, self.text(code.blob), kernels, buffers, cubin)
        except (KernelFormatError, TypeError) as error:
            raise BundleFormatError(f"bundle: entry {code.blob}: {error}") from None


def choose_code(kernel: Kernel, host: str, *, few_rows: str = "") -> Code | None:
    """The code of the highest CPU level that the host has, or None; the variant for few rows where there is one."""
    family = next((levels for levels in _CPU_FAMILIES if host in levels), ())
    usable = family[: family.index(host) + 1] if family else ()
    best: Code | None = None
    for level in usable:
        for wanted in ("", few_rows):
            best = next((code for code in kernel.code if (code.target, code.few_rows) == (level, wanted)), best)
    return best


def choose_gpu_code(kernel: Kernel, capability: tuple[int, int]) -> Code | None:
    """The code for a GPU of a compute capability, or None: for just that, else PTX for the newest below it.

    Code for "sm_90a" and the like runs on no other architecture, so it is taken where it is just that.
    """
    exact = f"sm_{capability[0]}{capability[1]}"
    usable = []
    for code in kernel.code:
        number = code.target.removeprefix("sm_") if code.launch else ""
        if code.target in (exact, f"{exact}a"):
            usable.append((2 if code.target == exact else 3, 0, code))
        elif number.isdigit() and (int(number[:-1]), int(number[-1])) < capability:
            usable.append((1, int(number), code))
    return max(usable, key=lambda found: found[:2])[2] if usable else None


def write_bundle(manifest: Manifest, entries: Mapping[str, bytes]) -> bytes:
    """Write a bundle; equal arguments give equal bytes.

    Args:
        manifest: its blobs are replaced by what `entries` are.
        entries: every entry but the manifest, by path.

    Raises:
        BundleFormatError: the bundle breaks a rule of its own format.
    """
    described = to_json(manifest)
    described["blobs"] = [
        {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in entries.items()
    ]
    text = json.dumps(described, indent=1, allow_nan=False, ensure_ascii=True) + "\n"
    data = write_archive({MANIFEST: text.encode(), **entries})
    file = BundleFile(data)
    for kernel in file.manifest.kernels:
        for code in kernel.code:
            if code.launch:
                file.launch(kernel, code)
    return data


def read_bundle(path: "str | os.PathLike[str]") -> BundleFile:
    """Read and check a file, to look into it; see `read_trusted_bundle` for one whose code will run.

    Raises:
        BundleFormatError: a rule of the format is broken.
        OSError: the file cannot be read.
    """
    return BundleFile(_read_file(path)[0])


def read_trusted_bundle(
    path: "str | os.PathLike[str]",
    *,
    trust: bool = False,
    sha256: str | None = None,
    public_key: "str | os.PathLike[str] | None" = None,
) -> BundleFile:
    """Read and check a file whose code will run.

    Args:
        path: the file.
        trust: take it whoever may have written it.
        sha256: the hash that the file must have; then nobody can have changed it.
        public_key: a file with the Ed25519 key that must have signed it; then nobody else can have changed it.

    Raises:
        UntrustedBundleError: others may have written the file, it has another hash, or it lacks the signature.
        BundleFormatError: a rule of the format is broken.
        UnsupportedError: the key cannot be used.
        OSError: a file cannot be read.
    """
    data, status = _read_file(path)
    if sha256 is not None:
        found = hashlib.sha256(data).hexdigest()
        if found != sha256.lower():
            raise UntrustedBundleError(f"{os.fspath(path)} has SHA-256 {found}, expected {sha256}: it is another file")
    file = BundleFile(data)
    if public_key is not None:
        from pylazy.runtime.signature import require_signature

        require_signature(path, file.manifest_text, [public_key])
    elif sha256 is None and not trust and not _is_private(status):
        from pylazy.runtime.signature import read_signature, require_signature, trusted_keys

        keys = trusted_keys()
        if not keys or read_signature(path) is None:
            _refuse_public(os.fspath(path), status)
        require_signature(path, file.manifest_text, keys)
    return file


def sign_bundle(path: "str | os.PathLike[str]", private_key: "str | os.PathLike[str]") -> str:
    """Sign a bundle, in a file beside it.

    Args:
        path: the bundle.
        private_key: a file with an Ed25519 private key in PEM.

    Returns:
        The path of the signature.

    Raises:
        BundleFormatError: this is no bundle.
        UnsupportedError: the file has no such key, or the package cryptography is not installed.
        OSError: a file cannot be read or written.
    """
    from pylazy.runtime.signature import sign, signature_path

    signature = sign(read_bundle(path).manifest_text, private_key)
    save_bundle(signature_path(path), signature)
    return signature_path(path)


def save_bundle(path: "str | os.PathLike[str]", data: bytes) -> None:
    """Write a file that only this user may change; whoever reads it meanwhile sees the old or the new one."""
    import tempfile  # takes 10 ms, which loading need not spend

    folder = os.path.dirname(os.fspath(path)) or "."
    descriptor, temporary = tempfile.mkstemp(prefix=".plzb-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _read_file(path: "str | os.PathLike[str]") -> tuple[bytes, os.stat_result]:
    flags = os.O_RDONLY
    for name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"):  # O_NONBLOCK: a pipe must not block us
        flags |= getattr(os, name, 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        require(stat.S_ISREG(status.st_mode), f"{os.fspath(path)} is no regular file")
        data = file.read(MAX_ARCHIVE_BYTES + 1)
    return data, status


def _is_private(status: os.stat_result) -> bool:
    """Whether only this user and root may have written a file."""
    if not hasattr(os, "geteuid"):  # Windows has no such bits
        return True
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & _WRITABLE_BY_OTHERS


def _refuse_public(path: str, status: os.stat_result) -> NoReturn:
    remedy = (
        "a bundle is machine code: pass trust=True if you trust all of them, sha256= to name the file you mean, or "
        "public_key= if it is signed"
    )
    if status.st_uid not in (os.geteuid(), 0):
        raise UntrustedBundleError(f"{path} belongs to another user (number {status.st_uid}); {remedy}")
    mode = stat.filemode(status.st_mode)
    raise UntrustedBundleError(f"{path} may be written by other users ({mode}); {remedy}, or chmod go-w")
