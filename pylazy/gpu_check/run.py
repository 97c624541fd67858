"""All checks and times, with a report for people, a JSON file and a picture."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pylazy
from pylazy.gpu_check.checks import CHECKS, QUICK_SHAPES, SHAPES
from pylazy.gpu_check.devices import HostArrays, TorchTensors
from pylazy.gpu_check.fractions import draw_fractions
from pylazy.gpu_check.functions import compiled_here, prebuilt
from pylazy.gpu_check.judge import FAILED, RIGHT, UNSUPPORTED, WRONG, Verdict, judge, plan
from pylazy.gpu_check.timings import OURS, TIMED, is_right, time_reduction
from pylazy.runtime.errors import DeviceError, UnsupportedError
from pylazy.runtime.gpu_devices import GpuProperties, device_count, properties, reason_for_no_device

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pylazy.gpu_check.checks import Check, Shape
    from pylazy.gpu_check.devices import Arrays
    from pylazy.gpu_check.functions import Functions

_PACKAGES = ("numpy", "torch", "triton", "pykeops", "llvmlite", "torch-mlir")
_MOST_SHOWN = 40


@dataclass(frozen=True)
class Request:
    """What is asked of the check.

    Attributes:
        bundle: a file of prebuilt kernels; None to compile.
        trust: take that file whoever may have written it.
        quick: few checks, small shapes, short times.
        only: text in the names of what is checked and timed.
        points: M = N of what is timed.
        repeats: runs of what is timed.
        no_times: check only.
        host_arrays: NumPy arrays, also where torch is installed.
        output: JSON and picture are named after it.
    """

    bundle: Path | None = None
    trust: bool = False
    quick: bool = False
    only: str = ""
    points: int = 200_000
    repeats: int = 7
    no_times: bool = False
    host_arrays: bool = False
    output: Path = Path("gpu-check")


def run_check(request: Request) -> bool:
    """Check and time on the first GPU; write a report, and the files.

    Returns:
        Whether every result is right.

    Raises:
        DeviceError: there is no GPU.
        UnsupportedError: there are neither a compiler nor a bundle, or nothing has the text in its name.
    """
    gpu = _find_gpu()
    functions, arrays = _functions(request)
    only = request.only.lower()
    checks = [check for check in CHECKS if only in check.name.lower() and (check.quick or not request.quick)]
    timed = [] if request.no_times else [row for row in TIMED if only in row.name.lower()]
    if not checks and not timed:
        raise UnsupportedError(f"--only {request.only}: no check and nothing timed has this in its name")
    origin = "compiled here" if request.bundle is None else f"from {request.bundle}"
    _say(f"{_describe(gpu)}; {arrays.name}; kernels {origin}")
    verdicts = _check(checks, QUICK_SHAPES if request.quick else SHAPES, functions, arrays, request)
    rows = []
    for row in timed[:2] if request.quick else timed:
        show_progress(f"timing {row.name}")
        rows.append(time_reduction(row, functions, arrays, gpu, points=request.points, repeats=request.repeats))
    show_progress("")
    report = {
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "gpu": asdict(gpu),
        "arrays": arrays.name,
        "bundle": str(request.bundle or ""),
        "packages": {"pylazy": pylazy.__version__, **_versions()},
        "verdicts": [verdict.as_dict() for verdict in verdicts],
        "times": rows,
    }
    _show_verdicts(verdicts)
    _show_times(rows)
    _write(report, request.output, gpu=_describe(gpu))
    return not any(verdict.status in (WRONG, FAILED) for verdict in verdicts) and all(map(is_right, rows))


def _find_gpu() -> GpuProperties:
    if not device_count():
        raise DeviceError(
            f"no NVIDIA GPU: {reason_for_no_device()}; the check needs a GPU and NVIDIA's driver, whose library "
            "PYLAZY_CUDA_DRIVER names where it has another name"
        )
    return properties(0)


def _describe(gpu: GpuProperties) -> str:
    clock = f"{gpu.clock_hertz * 1e-9:.2f} GHz" if gpu.clock_hertz else "clock unknown"
    return f"{gpu.name}, {gpu.processors} multiprocessors, {clock}, sm_{gpu.capability[0]}{gpu.capability[1]}"


def _functions(request: Request) -> tuple[Functions, Arrays]:
    """Choose where kernels come from, and where arrays live."""
    has_torch = importlib.util.find_spec("torch") is not None and not request.host_arrays
    arrays: Arrays = HostArrays("GPU")
    if has_torch:
        import torch

        arrays = TorchTensors("cuda") if torch.cuda.is_available() else TorchTensors("cpu", "GPU")
    if request.bundle is not None:
        return prebuilt(pylazy.load_bundle(request.bundle, trust=request.trust), arrays.backend), arrays
    missing = [package for package in ("torch_mlir", "llvmlite") if importlib.util.find_spec(package) is None]
    if missing and importlib.util.find_spec("mlir") is None:
        raise UnsupportedError(
            f"the compiler is not installed here ({', '.join(missing)} not found): make a bundle where it is, with  "
            "pylazy gpu-check --make-bundle k.plzb  and take it with --bundle k.plzb"
        )
    return compiled_here(arrays.backend), arrays


def _check(
    checks: Sequence[Check], shapes: Sequence[Shape], functions: Functions, arrays: Arrays, request: Request
) -> list[Verdict]:
    if request.quick:
        checks = [replace(check, dtypes=check.dtypes[:1]) for check in checks]
    runs = plan(checks, shapes, small=request.quick)
    verdicts: list[Verdict] = []
    for number, run in enumerate(runs, start=1):
        show_progress(f"{number} of {len(runs)}: {run}")
        verdicts += judge(run, functions, arrays)
    return verdicts


# The report -----------------------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def show_progress(text: str) -> None:
    """Show what is being done, on a line of its own that the next one replaces; nothing where nobody watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text[:100]}")
        sys.stderr.flush()


def _versions() -> dict[str, str]:
    return {package: _version(package) for package in _PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _show_verdicts(verdicts: Sequence[Verdict]) -> None:
    counts = Counter(verdict.status for verdict in verdicts)
    _say(f"{len(verdicts)} results: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    faults = [verdict for verdict in verdicts if verdict.status in (WRONG, FAILED)]
    for verdict in faults[:_MOST_SHOWN]:
        what = f"{verdict.check} {verdict.dtype}, {verdict.shape}, {verdict.what}"
        _say(f"  {verdict.status}: {what}: {verdict.message}")
    if len(faults) > _MOST_SHOWN:
        _say(f"  and {len(faults) - _MOST_SHOWN} more, see the JSON file")
    reasons = Counter(verdict.message for verdict in verdicts if verdict.status == UNSUPPORTED)
    for reason, count in reasons.most_common():
        _say(f"  unsupported, {count} times: {reason}")
    right = [verdict for verdict in verdicts if verdict.status == RIGHT]
    if right:
        worst = max(right, key=lambda verdict: verdict.share)
        _say(f"  largest error: {worst.share:.0%} of what is allowed, {worst.check} {worst.dtype}, {worst.shape}")


def _show_times(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        _say(f"{row['name']}, M = N = {row['rows']:,}")
        for name, failure in row["failures"].items():
            _say(f"  {name:14} failed: {failure}")
        ours = row["contenders"].get(OURS)
        for name, figure in row["contenders"].items():
            line = f"  {name:14} {figure['milliseconds']:10.3f} ms {figure['pairs_per_second'] * 1e-9:10.1f} Gpair/s"
            if row["bound_pairs_per_second"]:
                line += f" {figure['pairs_per_second'] / row['bound_pairs_per_second']:6.1%} of the bound"
            if ours is not None:
                line += f" {figure['milliseconds'] / ours['milliseconds']:6.2f} times our time"
            _say(f"{line}   error {figure['relative_error']:.0e}")
        if ours is not None and not is_right(row):
            _say(f"  wrong: our error is {ours['relative_error']:.1e}")


def _write(report: Mapping[str, Any], output: Path, *, gpu: str) -> None:
    path = output.with_suffix(".json")
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _say(f"-> {path}")
    rows = [row for row in report["times"] if row["bound_pairs_per_second"] and row["contenders"]]
    if not rows:
        return
    drawing = draw_fractions(rows, gpu=gpu, date=report["date"])
    drawing.save_svg(path.with_suffix(".svg"))
    _say(f"-> {path.with_suffix('.svg')}")
    try:
        drawing.save_png(path.with_suffix(".png"))
    except UnsupportedError as error:
        _say(str(error))
    else:
        _say(f"-> {path.with_suffix('.png')}")
