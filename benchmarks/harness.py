"""What the benchmark scripts share: their command line, their results, and times of small calls."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pylazy.bench.machine import machine
from pylazy.bench.workers import ContenderError, Worker, interleave, median_cpu, median_wall, threads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"


def time_calls(
    name: str, function: str, packages: Sequence[str], *arguments: Any, repeats: int, count: int
) -> dict[str, Any]:
    """Time small calls on one thread, the packages that are installed in turn, and print a line.

    Args:
        name: of the row.
        function: "module:function" that makes the call, from the name of a package and `arguments`.
        packages: the contenders.
        *arguments: what else the function takes.
        repeats: samples of each.
        count: calls in a sample.

    Returns:
        The row: medians of wall and processor time of one call, in microseconds.
    """
    workers = [Worker(package, threads(1)) for package in packages if importlib.util.find_spec(package)]
    for worker in workers:
        worker.prepare(function, worker.name, *arguments)
        worker.run(count)
    samples = interleave(workers, repeats=repeats, count=count)
    figures = {
        worker.name: {
            "wall_microseconds": median_wall(samples[worker.name]) * 1e6,
            "cpu_microseconds": median_cpu(samples[worker.name]) * 1e6,
        }
        for worker in workers
    }
    for worker in workers:
        worker.close()
    print(name, {package: f"{figure['wall_microseconds']:.1f} us" for package, figure in figures.items()})
    return {"name": name, "contenders": figures, "calls": repeats * count}


def run_snippet(code: str, *arguments: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run code in a fresh Python; the last line that it prints is JSON, and is returned.

    Raises:
        ContenderError: it ended with an error.
    """
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ContenderError(
            done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def fresh_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for a cache that nothing is in yet."""
    return tempfile.TemporaryDirectory(prefix="pylazy-benchmark-")


def read_arguments(description: str | None) -> argparse.Namespace:
    """Read the command line that all scripts share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats: does everything run?")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the JSON file goes")
    parser.add_argument("--only", metavar="TEXT", default="", help="run the rows whose name contains this text")
    parser.add_argument("--repeats", type=int, metavar="COUNT", help="runs of each contender (default: the script's)")
    return parser.parse_args()


def save(script: str, rows: Sequence[Mapping[str, Any]], arguments: argparse.Namespace) -> None:
    """Put the rows of one script into the file of this machine and day, beside those of the others."""
    found = machine()
    slug = re.sub(r"[^a-z0-9]+", "-", f"{found['processor']} {found['cores']} cores {found['level']}".lower()).strip(
        "-"
    )
    date = dt.datetime.now(dt.timezone.utc).date().isoformat()
    quick = "-quick" if arguments.quick else ""
    path = arguments.results / f"{slug}-{date}{quick}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads(path.read_text()) if path.exists() else {"scripts": {}}
    content["date"] = date
    content["quick"] = arguments.quick
    content["scripts"][script] = {"machine": found, "rows": list(rows)}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"-> {path}")
