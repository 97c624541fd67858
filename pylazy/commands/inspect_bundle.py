"""`pylazy inspect`: what is in a bundle. No code is mapped and no driver is opened, whatever the file says."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pylazy.commands.console import show_json, show_table, standard_output
from pylazy.runtime.bundle import FIRST_LAUNCHED, BundleFile, choose_code, read_bundle
from pylazy.runtime.errors import UnsupportedError
from pylazy.runtime.kernel import CPU_LEVELS
from pylazy.runtime.manifest import to_json
from pylazy.runtime.signature import read_signature, require_signature, signature_path

if TYPE_CHECKING:
    from rich.console import Console

    from pylazy.runtime.manifest import Code, Function, Kernel

_DISASSEMBLERS = {"x86-64": ("-m", "i386:x86-64"), "aarch64": ("-m", "aarch64")}


def inspect_bundle(
    path: Path, *, ir: bool, asm: str, why: bool, verify: bool, public_key: Path | None, as_json: bool
) -> None:
    """Show a bundle.

    Args:
        path: the file, which may come from anybody.
        ir: write both levels of the dialect of every kernel.
        asm: a target, whose code is written as text.
        why: say which code this machine would take, and why.
        verify: read every image, and check it against the manifest; say whether the bundle is signed.
        public_key: a file with the key that must have signed it.
        as_json: write the manifest for programs.

    Raises:
        UntrustedBundleError: the owner of the key has not signed this bundle.
    """
    file = read_bundle(path)
    if verify:
        verify_all(file)
    signature = _signature_state(path, file, public_key)
    if as_json:
        described = {"bytes": len(file.data), "sha256": file.sha256, "signature": signature}
        show_json({**described, "manifest": to_json(file.manifest)})
        return
    console = standard_output()
    if ir or asm:
        for kernel in file.manifest.kernels:
            if ir:
                console.out(f"// {kernel.id}: formula\n{file.text(kernel.formula)}", highlight=False)
                console.out(f"// {kernel.id}: kernel\n{file.text(kernel.kernel)}", highlight=False)
            if asm:
                console.out(_code_as_text(file, kernel, asm), highlight=False)
        return
    _show(console, path, file)
    if why:
        show_decisions(console, file)
    if verify:
        console.print("every hash, image and launch is as the manifest says")
    if verify or public_key is not None:
        console.print(f"signature: {signature}", markup=False)


def _signature_state(path: Path, file: BundleFile, public_key: Path | None) -> str:
    if public_key is not None:
        require_signature(path, file.manifest_text, [public_key])
        return f"good, by {public_key}"
    if read_signature(path) is None:
        return "unsigned"
    return f"not checked: {signature_path(path)} is there, --public-key says whose it must be"


def verify_all(file: BundleFile) -> None:
    """Read all code, which still is bytes.

    Raises:
        BundleFormatError: an image is damaged, or of another kernel than the manifest says.
    """
    for kernel in file.manifest.kernels:
        for code in kernel.code:
            if code.target in CPU_LEVELS:
                file.image(kernel, code)
            elif file.manifest.format >= FIRST_LAUNCHED:
                file.gpu_image(kernel, code)
            else:
                file.launch(kernel, code)
                file.text(code.blob)


def show_decisions(console: Console, file: BundleFile) -> None:
    """Write which code this machine takes for each kernel."""
    from pylazy.bundling.bundled_programs import chosen_level

    level = chosen_level()
    rows = []
    for kernel in file.manifest.kernels:
        code = choose_code(kernel, level)
        present = ", ".join(dict.fromkeys(found.target for found in kernel.code))
        if code is None:
            rows.append((kernel.id, "nothing", f"this processor is {level}, there is {present}"))
        elif code.target == level:
            rows.append((kernel.id, code.target, "the level of this processor"))
        else:
            rows.append((kernel.id, code.target, f"the highest that {level} runs of {present}"))
        newest = [code.target for code in kernel.code if code.launch]
        if newest:
            exact = [code.target for code in kernel.code if code.cubin]
            cubins = f"the cubin on {', '.join(exact)}, else " if exact else ""
            rows.append((kernel.id, ", ".join(newest), f"on a GPU {cubins}PTX of the newest that it is not older than"))
    show_table(console, "what this machine takes", ("kernel", "code", "why"), rows)


def _show(console: Console, path: Path, file: BundleFile) -> None:
    manifest = file.manifest
    version = ".".join(map(str, manifest.format))
    console.print(f"{path}: bundle of format {version}, {len(file.data):,} bytes", markup=False)
    console.print(f"sha256 {file.sha256}")
    console.print(f"made by {', '.join(f'{name} {text}' for name, text in manifest.provenance.items())}", markup=False)
    for function in manifest.functions:
        console.print(f"\n{_signature(function)}", markup=False)
        console.print(
            f"    {function.meaning}, {function.dtype}; gradients: {_gradients(file, function)}", markup=False
        )
    sizes = {blob.path: blob.bytes for blob in manifest.blobs}
    sizes[""] = 0
    rows = [
        (
            kernel.id,
            target,
            sum(sizes[code.blob] + sizes[code.cubin] for code in kernel.code if code.target == target),
            _variants(kernel, target),
        )
        for kernel in manifest.kernels
        for target in manifest.targets
        if any(code.target == target for code in kernel.code)
    ]
    show_table(console, "", ("kernel", "target", "bytes", "forms"), rows)
    for what, reason in manifest.absent.items():
        console.print(f"not there: {what}: {reason}", markup=False)


def _signature(function: Function) -> str:
    shapes = {"i": "(M, {})", "j": "(N, {})", "": "({},)", "ij": "(M, N, {})", "ji": "(N, M, {})"}
    given = {}
    for argument in sorted(function.arguments, key=lambda argument: argument.place):
        shape = shapes[argument.axis].format(argument.dim)
        described = f"{argument.name}: {'complex ' * bool(argument.part)}{shape}"
        given[argument.name] = f"{argument.name}={argument.default}" if argument.default else described
    return f"{function.name}({', '.join([*given.values(), *['ranges'] * function.ranged])})"


def _gradients(file: BundleFile, function: Function) -> str:
    if function.selection:
        return "of the values, by the formula on the selected pairs"
    found = [_names(function, file.kernels[name].wrt) for name in function.gradients]
    return "; ".join(found) or "none"


def _names(function: Function, wrt: tuple[int, ...]) -> str:
    return " and ".join(dict.fromkeys(function.arguments[number].name for number in wrt))


def _variants(kernel: Kernel, target: str) -> str:
    """Say in which forms a kernel is there for a target: PTX and cubin, or for few rows along an axis as well."""
    codes = [code for code in kernel.code if code.target == target]
    forms = ["PTX" if code.launch else f"few {code.few_rows}" for code in codes if code.launch or code.few_rows]
    return ", ".join([*forms, *("cubin" for code in codes if code.cubin)])


def _code_as_text(file: BundleFile, kernel: Kernel, target: str) -> str:
    code = next((found for found in kernel.code if found.target == target and not found.few_rows), None)
    if code is None:
        known = ", ".join(dict.fromkeys(found.target for found in kernel.code))
        raise UnsupportedError(f"the bundle has no code of {kernel.id} for {target}, expected one of {known}")
    if target not in CPU_LEVELS:
        return f"// {kernel.id}\n{file.text(code.blob)}"
    return f"; {kernel.id}\n{_disassemble(file, kernel, code)}"


def _disassemble(file: BundleFile, kernel: Kernel, code: Code) -> str:
    tool = shutil.which("objdump")
    if tool is None:
        raise UnsupportedError("objdump, which reads machine code, is not installed: install binutils")
    image = file.image(kernel, code)
    machine = _DISASSEMBLERS["aarch64" if code.target == "aarch64" else "x86-64"]
    with tempfile.TemporaryDirectory() as folder:
        flat = Path(folder) / "code"
        flat.write_bytes(image.code)
        command = [tool, "-D", "-b", "binary", *machine, "--no-show-raw-insn", str(flat)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603, a tool that we found
    if done.returncode:
        raise UnsupportedError(f"objdump does not read code for {code.target}: {done.stderr.strip()[:500]}")
    entries = ", ".join(f"{phase.name} at {phase.entry:#x}" for phase in image.phases)
    return f"; {entries}; constants follow the code\n{done.stdout.partition('<.data>:')[2].lstrip()}"
