"""Run every benchmark, then write the tables: `python benchmarks/run_all.py` on a quiet machine, 40 minutes."""

from __future__ import annotations

import subprocess
import sys

from harness import FOLDER, read_arguments

SCRIPTS = (
    *("compile_time.py", "call_overhead.py", "torch_overhead.py", "gradients.py", "shapes.py", "cpu_reductions.py"),
    "formulas.py",
)


def main() -> int:
    """Run all; the exit code is 1 if a script failed, and the others have run."""
    arguments = read_arguments(__doc__)
    options = ["--quick"] if arguments.quick else []
    options += ["--results", str(arguments.results)]
    failed = []
    for script in (*SCRIPTS, "tables.py"):
        print(f"== {script}", flush=True)
        own = options if script != "tables.py" else ["--results", str(arguments.results)]
        if subprocess.run([sys.executable, str(FOLDER / script), *own], check=False).returncode:
            failed.append(script)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
