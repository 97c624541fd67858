"""Write benchmarks/README.md, and the figures in the project's README, from the results."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

from harness import FOLDER, read_arguments

from pylazy.bench.cases import LIMIT_NOTE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BEGIN, END = "<!-- figures: begin (written by benchmarks/tables.py) -->", "<!-- figures: end -->"
DENSE = ("PyTorch", "NumPy", "JAX")

INTRODUCTION = """# Benchmarks

Written by `python benchmarks/tables.py` from the files in `results/`; do not edit.
`python benchmarks/run_all.py` takes all figures anew (40 minutes on a quiet machine) and then writes this page;
`--quick` only shows that everything runs, and its figures mean nothing.

| script | question |
|---|---|
| `cpu_reductions.py` | pairs per core-second of ten reductions, beside pykeops, PyTorch, NumPy and JAX |
| `formulas.py` | functions and reductions of the language, one to 64 results, beside the same packages |
| `compile_time.py` | imports, a formula never seen, a formula from the disk cache of another process |
| `call_overhead.py` | a call on 10 rows and 10 columns |
| `torch_overhead.py` | the same with torch's autograd, second derivatives and vmap |
| `gradients.py` | a value and all its gradients, in one program and through torch, beside pykeops |
| `shapes.py` | few rows, short columns, two threads against one, a million by a million |

`pylazy.bench` has the formulas, the sizes and the limits (`cases.py`), the code of each package (`contenders.py`), and
runs each contender in a process of its own and lets them take turns (`workers.py`); figures are medians. `pylazy bench`
times the same reductions where there is no checkout.
Dense contenders (PyTorch, NumPy, JAX) work in blocks of a million pairs, with the squared distance as a matrix product
for PyTorch and NumPy and, above D = 16, for JAX. JAX and pykeops are measured where they are installed.
`pykeops` is as it installs; `pykeops tuned` has `CXXFLAGS="-march=native -ffast-math"`.
"""


def main() -> None:
    """Write both pages."""
    arguments = read_arguments(__doc__)
    found = _newest(arguments.results)
    if not found:
        raise SystemExit(f"no results in {arguments.results}: run  python benchmarks/run_all.py  first")
    parts = [INTRODUCTION]
    for content in found:
        parts += _page(content)
    (FOLDER / "README.md").write_text("\n".join(parts))
    readme = FOLDER.parent / "README.md"
    text = readme.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{_summary(found[0])}\n{END}{after}")
    print(f"-> {FOLDER / 'README.md'}, {readme}")


def _newest(folder: Path) -> list[dict[str, Any]]:
    """The newest results of each machine, the newest first; quick ones only where there are no others."""
    newest: dict[str, tuple[tuple[bool, str], dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        machine = next(iter(content["scripts"].values()))["machine"]
        name = f"{machine['processor']} {machine['cores']} {machine['level']}"
        rank = (not content["quick"], content["date"])
        if name not in newest or rank >= newest[name][0]:
            newest[name] = (rank, content)
    return [content for _, content in sorted(newest.values(), key=lambda entry: entry[0], reverse=True)]


def _page(content: Mapping[str, Any]) -> list[str]:
    scripts = content["scripts"]
    parts = [f"## {_machine_line(content)}\n"]
    if content["quick"]:
        parts.append("**Quick run: small sizes, few repeats. Not figures to quote.**\n")
    if "cpu_reductions" in scripts:
        parts += ["### Reductions, one thread\n", _reductions_table(scripts["cpu_reductions"]["rows"])]
        parts += [_packages_line(scripts["cpu_reductions"]["machine"]), LIMIT_NOTE + "\n"]
    if "formulas" in scripts:
        rows = scripts["formulas"]["rows"]
        parts += ["### Formulas of the language, one thread\n", _formulas_table(rows), f"{_formulas_line(rows)}\n"]
    if "compile_time" in scripts:
        parts += [
            "### Until the first result, processor milliseconds\n",
            _compile_table(scripts["compile_time"]["rows"]),
        ]
    if "call_overhead" in scripts:
        parts += ["### A call on 10 rows and 10 columns, microseconds\n", _call_table(scripts["call_overhead"]["rows"])]
    if "torch_overhead" in scripts:
        parts += ["### The same under torch's autograd, microseconds\n", _call_table(scripts["torch_overhead"]["rows"])]
    if "gradients" in scripts:
        parts += [
            "### A value and all its gradients, processor milliseconds\n",
            _gradients_table(scripts["gradients"]["rows"]),
        ]
    if "shapes" in scripts:
        load = scripts["shapes"]["machine"]["load_average"]
        parts += ["### Shapes: Gaussian, D=3, float32\n", _shapes_tables(scripts["shapes"]["rows"])]
        parts += [f"Load average at the end of the long shapes {load}.\n"]
    return parts


def _machine_line(content: Mapping[str, Any]) -> str:
    machine = next(iter(content["scripts"].values()))["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, {machine['level']}, {content['date']}"


def _packages_line(machine: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {found}" for name, found in machine["packages"].items())
    return f"Python {machine['python']}, {packages}; load average at the end {machine['load_average']}.\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _reductions_table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["contenders"]))
    others = [name for name in names if name != "pylazy"]
    header = ["case", "M = N", "Gpair/s per core", "of the limit", "wall ms", "error"]
    header += [f"times {name}" for name in others]
    lines = []
    for row in rows:
        ours = row["contenders"].get("pylazy")
        if ours is None:
            lines.append([row["name"], f"{row['rows']:,}", "failed", *[""] * (len(header) - 3)])
            continue
        rate = ours["gpairs_per_core_second"]
        line = [row["name"], f"{row['rows']:,}", f"{rate:.2f}", f"{rate / row['limit']:.0%}"]
        line += [f"{ours['wall_seconds'] * 1e3:.0f}", f"{ours['relative_error']:.0e}"]
        line += [_ratio(row, name) for name in others]
        lines.append(line)
    return _table(header, lines)


def _ratio(row: Mapping[str, Any], name: str) -> str:
    ours, theirs = row["contenders"].get("pylazy"), row["contenders"].get(name)
    return "" if ours is None or theirs is None else f"{theirs['cpu_seconds'] / ours['cpu_seconds']:.1f}"


def _formulas_table(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ["formula", "M = N", "Gpair/s per core", "times pykeops", *(f"times {name}" for name in DENSE)]
    lines = []
    for row in rows:
        seconds = row["cpu_seconds"]
        ours = seconds["pylazy"]
        line = [f"`{row['name']}`", f"{row['rows']:,}", f"{row['rows'] ** 2 / ours * 1e-9:.2f}"]
        found = (seconds.get(name) for name in ("pykeops", *DENSE))
        lines.append([*line, *("" if theirs is None else f"{theirs / ours:.1f}" for theirs in found)])
    return _table(header, lines)


def _formulas_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """The least and the median of the ratios; a package that has no such function, or fails, is left out."""
    seconds = [row["cpu_seconds"] for row in rows]
    keops = [found["pykeops"] / found["pylazy"] for found in seconds if "pykeops" in found]
    best = [min(found[name] for name in DENSE if name in found) / found["pylazy"] for found in seconds]
    against_keops = (
        f"{min(keops):.1f} to {max(keops):.0f} times pykeops (median {statistics.median(keops):.0f}) and "
        if keops
        else ""
    )
    return (
        f"Of {len(rows)} formulas and reductions, each runs at {against_keops}{min(best):.1f} to {max(best):.0f} times "
        f"the best of {', '.join(DENSE)} (median {statistics.median(best):.1f})."
    )


def _gradients_table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["cpu_milliseconds"]))
    lines = []
    for row in rows:
        figures = row["cpu_milliseconds"]
        shown = [f"{figures[name]:.1f}" if name in figures else "" for name in names]
        lines.append([row["name"], f"{row['size']:,}", *shown])
    return _table(["case", "M = N", *names], lines)


def _compile_table(rows: Sequence[Mapping[str, Any]]) -> str:
    keys = {
        "never_seen_cpu_seconds": "never seen",
        "never_seen_with_compiler_import_cpu_seconds": "never seen, with the import of the compiler",
        "from_disk_cpu_seconds": "from the disk",
        "from_disk_with_imports_cpu_seconds": "from the disk, with imports beyond NumPy",
    }
    lines = []
    for row in rows:
        if "cpu_seconds" in row:
            lines.append([row["name"], f"{row['cpu_seconds'] * 1e3:.1f}", *[""] * (len(keys) - 1)])
        else:
            lines.append([row["name"], *(f"{row[key] * 1e3:.0f}" if key in row else "" for key in keys)])
    return _table(["", *keys.values()], lines)


def _call_table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["contenders"]))
    lines = []
    for row in rows:
        found = row["contenders"]
        lines.append(
            [row["name"], *(f"{found[name]['wall_microseconds']:.1f}" if name in found else "" for name in names)]
        )
    return _table(["", *names], lines)


MEMORY_NOTE = (
    "Rates are by processor time. The memory's rate is that at which the data can be read once and a new array for the "
    "results be written, without arithmetic, by NumPy with as many threads: medians of runs in turn with the rest.\n"
)


def _shapes_tables(rows: Sequence[Mapping[str, Any]]) -> str:
    oblong = [
        [
            row["name"],
            f"{row['threads']}",
            f"{row['gpairs_per_core_second']:.2f}",
            f"{row['part_of_square_rate']:.0%}",
            f"{row['memory_part_of_square_rate']:.0%}",
            f"{row['part_of_memory_rate']:.0%}",
        ]
        for row in rows
        if "part_of_square_rate" in row
    ]
    threads = [
        [
            row["name"].removeprefix("threads: "),
            f"{row['one_thread_seconds'] * 1e3:.3f}",
            f"{row['all_threads_seconds'] * 1e3:.3f}",
            f"{row['speedup']:.2f}",
        ]
        for row in rows
        if "speedup" in row
    ]
    header = ["", "threads", "Gpair/s per core", "of the square's rate", "the memory's rate, of the square's"]
    tables = [_table([*header, "of the memory's rate"], oblong), MEMORY_NOTE]
    tables.append(_table(["M x N", "one thread, ms", "all threads, ms", "times"], threads))
    tables += [f"{_memory_line(row)}\n" for row in rows if "peak_bytes" in row]
    return "\n".join(tables)


def _memory_line(row: Mapping[str, Any]) -> str:
    return (
        f"{row['name'].removeprefix('memory: ')}: {row['wall_seconds']:.0f} s, peak memory "
        f"{row['peak_bytes'] / 1e6:.0f} MB, {row['peak_bytes_beyond_small_problem'] / 1e6:.0f} MB more than for "
        f"100 x 100; the data has {row['data_bytes'] / 1e6:.0f} MB, the array of all pairs would have "
        f"{row['dense_array_bytes'] / 1e9:,.0f} GB."
    )


def _summary(content: Mapping[str, Any]) -> str:
    """The figures of the newest machine, short."""
    scripts = content["scripts"]
    load = next(iter(scripts.values()))["machine"]["load_average"]
    parts = [
        f"{_machine_line(content)}, load average {load}."
        + (" **Quick run: not figures to quote.**" if content["quick"] else "")
    ]
    if "cpu_reductions" in scripts:
        lines = []
        for row in scripts["cpu_reductions"]["rows"]:
            found = row["contenders"]
            if "pylazy" not in found:
                continue
            rate = found["pylazy"]["gpairs_per_core_second"]
            dense = [found[name]["cpu_seconds"] for name in DENSE if name in found]
            best = f"{min(dense) / found['pylazy']['cpu_seconds']:.1f}" if dense else ""
            line = [row["name"], f"{rate:.2f}", f"{rate / row['limit']:.0%}"]
            lines.append([*line, _ratio(row, "pykeops"), _ratio(row, "pykeops tuned"), best])
        header = ["one thread", "Gpair/s", "of the port limit", "times pykeops 2.3"]
        header += ["times pykeops, tuned flags", f"times the best of {', '.join(DENSE)}"]
        parts.append(_table(header, lines).rstrip())
    facts = []
    for row in scripts.get("compile_time", {"rows": ()})["rows"]:
        if row["name"] == "Gaussian D=3":
            facts.append(
                f"A formula never seen costs {row['never_seen_cpu_seconds'] * 1e3:.0f} ms of processor time, "
                f"one from the disk cache of another process {row['from_disk_cpu_seconds'] * 1e3:.0f} ms."
            )
        if row["name"] == "pykeops, Gaussian D=3" and "never_seen_cpu_seconds" in row:
            facts.append(f"pykeops compiles it in {row['never_seen_cpu_seconds']:.1f} s.")
    for row in scripts.get("call_overhead", {"rows": ()})["rows"]:
        found = {name: f"{figure['wall_microseconds']:.0f} us" for name, figure in row["contenders"].items()}
        if row["name"].startswith("build") and "NumPy" in row["name"]:
            other = f" (pykeops: {found['pykeops']})" if "pykeops" in found else ""
            facts.append(f"Building and reducing a 10 x 10 LazyTensor takes {found['pylazy']}{other},")
        if row["name"] == "compiled Reduction, NumPy":
            facts.append(f"a compiled `Reduction` {found['pylazy']}.")
    if "formulas" in scripts:
        parts.append(_formulas_line(scripts["formulas"]["rows"]))
    facts += [_memory_line(row) for row in scripts.get("shapes", {"rows": ()})["rows"] if "peak_bytes" in row]
    if facts:
        parts.append(" ".join(facts))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
