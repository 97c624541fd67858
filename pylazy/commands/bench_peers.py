"""`pylazy bench` without a bundle: usual reductions beside the packages that are installed, and the roofline."""

from __future__ import annotations

import datetime as dt
import json
import sys
from typing import TYPE_CHECKING, Any

import typer

from pylazy.bench.cases import CASES, tolerance
from pylazy.bench.contenders import CONTENDERS
from pylazy.bench.cpu_reductions import multiply_adds_per_second, single_threaded, time_case
from pylazy.bench.machine import describe_machine, machine
from pylazy.bench.roofline import draw_roofline
from pylazy.commands.console import progress, show_json, show_table, standard_output
from pylazy.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pylazy.bench.cases import Case
    from pylazy.bench.drawing import Drawing

_OURS = "pylazy"


def bench_peers(
    *, peers: str, case: str, points: int, dtype: str, repeats: int, output: Path | None, as_json: bool
) -> bool:
    """Time cases, and write a table, a JSON file and pictures.

    Args:
        peers: names of contenders with commas between them; "" for the usual ones that are installed.
        case: only cases whose name has this text, whatever its capitals.
        points: M = N.
        dtype: only cases of this dtype; "" for all.
        repeats: runs of each contender.
        output: files are named after it: .json, .svg, and .png where matplotlib is installed.
        as_json: report for programs.

    Returns:
        Whether pylazy ran everywhere and every result of it is right.

    Raises:
        typer.BadParameter: there is no such peer, or no case is left.
    """
    cases, names = _cases(case, dtype), _contenders(peers)
    dtypes = sorted({found.dtype for found in cases})
    with progress() as show:
        rows = _time(cases, names, points=points, repeats=repeats, show=show)
        if show is not None:
            show("rate of multiply-adds", len(cases), len(cases))
        peaks = {name: multiply_adds_per_second(name) for name in dtypes}
    for row, found in zip(rows, cases, strict=True):
        row["slots"] = found.slots
        row["bound_gpairs_per_core_second"] = peaks[found.dtype] * 1e-9 / found.slots
    date = dt.datetime.now(dt.timezone.utc).date().isoformat()
    report = {"date": date, "machine": machine(), "multiply_adds_per_second": peaks, "rows": rows}
    if as_json:
        show_json(report)
    else:
        _show(report, names, points=points, repeats=repeats)
    if output is not None:
        _write(report, output)
    return all(_is_right(row) for row in rows)


def _cases(text: str, dtype: str) -> list[Case]:
    found = [case for case in CASES if text.lower() in case.name.lower() and dtype in ("", case.dtype)]
    if not found:
        names = "; ".join(case.name for case in CASES)
        raise typer.BadParameter(f"no case has {text!r} in its name and {dtype or 'any'} dtype; there are {names}")
    return found


def _contenders(peers: str) -> list[str]:
    """The names to time, ours first; a package that is asked for by name must be there."""
    others = {name.lower(): row for name, row in CONTENDERS.items() if name != _OURS}
    if not peers:
        return [_OURS, *(row.name for row in others.values() if row.usual and row.is_installed)]
    found = [_OURS]
    for word in peers.split(","):
        row = others.get(word.strip().lower())
        if row is None:
            raise typer.BadParameter(f"--peers has {word.strip()!r}, expected some of {', '.join(others)}")
        if not row.is_installed:
            raise UnsupportedError(f"--peers has {row.name}, and the package {row.package} is not installed")
        found.append(row.name)
    return found


def _time(cases: Sequence[Case], names: Sequence[str], *, points: int, repeats: int, show: Any) -> list[dict[str, Any]]:
    rows = []
    with single_threaded(names) as workers:
        for number, case in enumerate(cases):
            if show is not None:
                show(case.name, number, len(cases))
            rows.append(time_case(case, workers, size=points, repeats=repeats))
    return rows


def _is_right(row: Mapping[str, Any]) -> bool:
    ours = row["contenders"].get(_OURS)
    return ours is not None and bool(ours["relative_error"] <= tolerance(row["dtype"], row["rows"]))


def _show(report: Mapping[str, Any], names: Sequence[str], *, points: int, repeats: int) -> None:
    peers = [name for name in names if name != _OURS]
    headings = ("case", "Gpair/s", "of the bound", "error", *(f"times {name}" for name in peers))
    table = []
    for row in report["rows"]:
        for name, failure in row["failures"].items():
            sys.stderr.write(f"pylazy: {row['name']}: {name} failed: {failure}\n")
        ours = row["contenders"].get(_OURS)
        if ours is None:
            table.append((row["name"], *["failed"] * (len(headings) - 1)))
            continue
        rate = ours["gpairs_per_core_second"]
        cells = [f"{rate:.3g}", f"{rate / row['bound_gpairs_per_core_second']:.0%}", f"{ours['relative_error']:.0e}"]
        for name in peers:
            theirs = row["contenders"].get(name)
            cells.append(f"{theirs['cpu_seconds'] / ours['cpu_seconds']:.1f}" if theirs else "failed")
        table.append((row["name"], *cells))
        if not _is_right(row):
            sys.stderr.write(f"pylazy: {row['name']}: the error {ours['relative_error']:.1e} is too large\n")
    console = standard_output()
    console.print(f"{describe_machine(report['machine'])}, {report['date']}", soft_wrap=True)
    title = f"M = N = {points:,}, one thread each, medians of processor time of {repeats} runs, in turn"
    show_table(console, title, headings, table)


def _write(report: Mapping[str, Any], output: Path) -> None:
    """Write the files, and say which."""
    written = [output.with_suffix(".json"), output.with_suffix(".svg"), output.with_suffix(".png")]
    written[0].write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    drawing = _draw(report)
    drawing.save_svg(written[1])
    try:
        drawing.save_png(written[2])
    except UnsupportedError as error:
        written.pop()
        sys.stderr.write(f"pylazy: {error}\n")
    sys.stderr.write("".join(f"-> {path}\n" for path in written))


def _draw(report: Mapping[str, Any]) -> Drawing:
    return draw_roofline(
        [row for row in report["rows"] if row["contenders"]],
        peaks=report["multiply_adds_per_second"],
        machine=describe_machine(report["machine"]),
        date=report["date"],
    )
