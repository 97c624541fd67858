"""`pylazy compile`: from a file of formulas to a bundle, or to C."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pylazy.bundling.bundle_compiler import DEFAULT_TARGETS
from pylazy.commands.console import progress, show_json, standard_output
from pylazy.commands.formulas import read_formulas
from pylazy.runtime.bundle import BundleFile, save_bundle
from pylazy.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

EMITTED = ("bundle", "header", "source", "static", "shared")


def compile_formulas(path: Path, *, targets: Sequence[str], output: Path, emit: Sequence[str], as_json: bool) -> None:
    """Compile every formula of a file.

    Args:
        path: the TOML file.
        targets: by default all CPU levels.
        output: the bundle; for C the files have this name with other endings.
        emit: some of `EMITTED`.
        as_json: report for programs.
    """
    unknown = [kind for kind in emit if kind not in EMITTED]
    if unknown or not emit:
        raise UnsupportedError(f"--emit {','.join(emit)}: expected some of {', '.join(EMITTED)}")
    start = time.perf_counter()
    bundle = read_formulas(path)
    with progress() as show:
        bundle.compile(targets or DEFAULT_TARGETS, progress=show)
    file = BundleFile(bundle.to_bytes())
    written = []
    if "bundle" in emit:
        save_bundle(output, file.data)
        written.append(output)
    if set(emit) - {"bundle"}:
        from pylazy.commands.emit_c import emit_c

        written += emit_c(file, output.with_suffix(""), emit)
    seconds = round(time.perf_counter() - start, 2)
    absent = dict(file.manifest.absent)
    if as_json:
        files = {str(found): found.stat().st_size for found in written}
        show_json({"files": files, "sha256": file.sha256, "seconds": seconds, "absent": absent})
        return
    console = standard_output()
    for found in written:
        console.print(f"{found}  {found.stat().st_size:,} bytes")
    if "bundle" in emit:
        console.print(f"sha256 {file.sha256}")
    functions = ", ".join(function.name for function in file.manifest.functions)
    console.print(f"{functions} for {', '.join(file.manifest.targets)} in {seconds} s")
    for what, reason in absent.items():
        console.print(f"not there: {what}: {reason}", markup=False)
