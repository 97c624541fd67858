"""The tests of pykeops itself, unchanged, with pylazy in the place of pykeops.

They come from the wheel that is installed with the extra "test", and run in a process of their own: most of them do
their work while they are imported.
"""

import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import pytest

TIMEOUT_SECONDS = 600

EXPECTED = {
    "test_block_sparse_reduction.py": 1,
    "test_chunks.py": 1,
    "test_chunks_ranges.py": 1,
    "test_complex.py": 1,
    "test_complex_numpy.py": 1,
    "test_contiguous_numpy.py": 1,
    "test_contiguous_torch.py": 1,
    "test_finalchunks.py": 1,
    "test_finalchunks_ranges.py": 1,
    "test_float16.py": 0,
    "test_gpu_cpu.py": 1,
    "test_kron.py": 4,
    "test_lazytensor_clamp.py": 2,
    "test_lazytensor_gaussian_batch.py": 2,
    "test_lazytensor_gaussian_cpu.py": 3,
    "test_lazytensor_gaussian_fromhost.py": 1,
    "test_lazytensor_gaussian_inplace.py": 1,
    "test_lazytensor_gaussian_numpy_inplace.py": 1,
    "test_lazytensor_grad.py": 3,
    "test_lazytensor_tensordot.py": 1,
    "test_numpy.py": 8,
    "test_sinc.py": 2,
    "test_torch.py": 16,
    "test_torch_func.py": 7,
    "test_torch_func_logsumexp.py": 7,
    "test_transpose.py": 1,
    "test_vmap.py": 3,
}
"""How many tests of each file pass on a CPU with pykeops 2.3 itself; three more need a GPU and are skipped."""


class Outcome(NamedTuple):
    """What became of the tests of one file."""

    passed: int
    skipped: int
    faults: tuple[str, ...]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Run all files at once, and read what became of each."""
    try:
        files = distribution("pykeops").files or []
    except PackageNotFoundError:
        pytest.skip("pykeops is not installed: its tests come with the extra 'test'")
    folder = tmp_path_factory.mktemp("suite")
    for file in files:
        if file.name in EXPECTED and file.parts[:2] == ("pykeops", "test"):
            (folder / file.name).write_text(Path(file.locate()).read_text(encoding="utf-8"), encoding="utf-8")
    report = folder / "report.xml"
    options = ["-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", f"--junitxml={report}"]
    ran = subprocess.run(
        [sys.executable, "-m", "pylazy.compat.keops", "-m", "pytest", *options, *sorted(EXPECTED)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert report.exists(), ran.stdout + ran.stderr
    return read_report(report)


def read_report(report: Path) -> dict[str, Outcome]:
    """From a file to what became of its tests; a file that could not be imported has one fault."""
    found: dict[str, list[ET.Element]] = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        module = (case.get("classname") or case.get("name") or "").partition(".")[0]
        found.setdefault(f"{module}.py", []).append(case)
    return {file: outcome(cases) for file, cases in found.items()}


def outcome(cases: list[ET.Element]) -> Outcome:
    faults = [
        f"{case.get('name')}: {fault.get('message')}" for case in cases for fault in case if fault.tag in FAULT_TAGS
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len({case.get("name") for case in cases if len(case) == 0})
    return Outcome(passed, skipped, tuple(faults))


FAULT_TAGS = ("failure", "error")


def test_files_of_pykeops_pass(outcomes: dict[str, Outcome]) -> None:
    """One test for all files, since one process runs them all."""
    wrong = [fault for file in EXPECTED for fault in outcomes[file].faults]
    assert not wrong, "\n".join(wrong)
    assert {file: outcomes[file].passed for file in EXPECTED} == EXPECTED


def test_all_that_pykeops_passes_on_a_cpu_is_here() -> None:
    assert len(EXPECTED) == 27
    assert sum(EXPECTED.values()) == 72
