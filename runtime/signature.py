"""Signatures of bundles: Ed25519 over the bytes of MANIFEST.json, in a file beside the bundle.

The manifest has the SHA-256 of every other entry and nothing of the archive is left to choice, so it stands for the
whole file. `k.plzb.sig` is the plain signature of 64 bytes (RFC 8032), so that other tools write and check it as well::

    openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out public.pem
    unzip -p k.plzb MANIFEST.json > manifest && openssl pkeyutl -sign -rawin -in manifest -inkey key.pem -out k.plzb.sig
"""

import os
from typing import Any

from pylazy.runtime.errors import UnsupportedError, UntrustedBundleError

SUFFIX = ".sig"
TRUSTED_KEYS_VARIABLE = "PYLAZY_TRUSTED_KEYS"
SIGNATURE_BYTES = 64

_MAX_KEY_BYTES = 1 << 16


def signature_path(path: "str | os.PathLike[str]") -> str:
    """Name the file with the signature of a bundle."""
    return f"{os.fspath(path)}{SUFFIX}"


def read_signature(path: "str | os.PathLike[str]") -> bytes | None:
    """Read the signature of a bundle; None where there is none."""
    try:
        with open(signature_path(path), "rb") as file:
            return file.read(SIGNATURE_BYTES + 1)
    except FileNotFoundError:
        return None


def sign(manifest: bytes, private_key: "str | os.PathLike[str]") -> bytes:
    """Sign the bytes of a manifest.

    Args:
        manifest: what is signed.
        private_key: a file with an Ed25519 private key in PEM, not encrypted.

    Raises:
        UnsupportedError: the file has no such key, or the package cryptography is not installed.
        OSError: the file cannot be read.
    """
    key = _load(private_key, "load_pem_private_key", "private", password=None)
    return bytes(key.sign(manifest))


def is_signed_by(manifest: bytes, signature: bytes, public_key: "str | os.PathLike[str]") -> bool:
    """Whether a signature is that of a key over the bytes of a manifest.

    Args:
        manifest: what was signed.
        signature: 64 bytes.
        public_key: a file with an Ed25519 public key in PEM.

    Raises:
        UnsupportedError: the file has no such key, or the package cryptography is not installed.
        OSError: the file cannot be read.
    """
    key = _load(public_key, "load_pem_public_key", "public")
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        return False
    return True


def require_signature(path: "str | os.PathLike[str]", manifest: bytes, keys: "list[str | os.PathLike[str]]") -> None:
    """Check that one of some keys has signed a bundle.

    Args:
        path: the bundle, beside which its signature lies.
        manifest: the bytes of its manifest.
        keys: files with public keys.

    Raises:
        UntrustedBundleError: it is not signed, or by none of these keys.
        UnsupportedError: a key cannot be read, or the package cryptography is not installed.
        OSError: a file cannot be read.
    """
    signature = read_signature(path)
    if signature is None:
        raise UntrustedBundleError(
            f"{os.fspath(path)} is not signed, as there is no {signature_path(path)}: expected the signature of "
            f"{_named(keys)}"
        )
    if not any(is_signed_by(manifest, signature, key) for key in keys):
        raise UntrustedBundleError(
            f"{signature_path(path)} is not the signature of {_named(keys)} over {os.fspath(path)}: one of the two was "
            "changed, or another key has signed"
        )


def trusted_keys() -> "list[str | os.PathLike[str]]":
    """The files with public keys that the environment names."""
    return [key for key in os.environ.get(TRUSTED_KEYS_VARIABLE, "").split(os.pathsep) if key]


def _named(keys: "list[str | os.PathLike[str]]") -> str:
    return " or ".join(os.fspath(key) for key in keys)


def _load(path: "str | os.PathLike[str]", loader: str, kind: str, **options: Any) -> Any:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise UnsupportedError(
            "signatures need the package cryptography, which is not installed: pip install 'pylazy[sign]'"
        ) from None
    with open(path, "rb") as file:
        text = file.read(_MAX_KEY_BYTES)
    try:
        key = getattr(serialization, loader)(text, **options)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise UnsupportedError(f"{os.fspath(path)} is no {kind} key in PEM without a password: {error}") from None
    if not isinstance(key, getattr(ed25519, f"Ed25519{kind.capitalize()}Key")):
        raise UnsupportedError(f"{os.fspath(path)} is a {kind} key of another algorithm, expected Ed25519")
    return key
