"""`pylazy sign`: sign a bundle, in a file beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pylazy.commands.console import standard_output
from pylazy.runtime.bundle import sign_bundle

if TYPE_CHECKING:
    from pathlib import Path


def sign_file(path: Path, *, key: Path) -> None:
    """Sign a bundle.

    Args:
        path: the bundle.
        key: a file with an Ed25519 private key in PEM.
    """
    standard_output().print(f"{sign_bundle(path, key)}  signature of {path}", markup=False)
