"""What decides whether a kernel on the disk is that of a request: the compiler that made it, to the letter."""

from pathlib import Path

import pytest

from pylazy.execution import programs


def test_source_of_the_compiler_decides_on_kernels_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    before = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        read.append(path.name)
        return before(path) + b"# changed" * (path.name == "cpu_few_columns.py")

    original = programs._compiler_versions.__wrapped__()
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert programs._compiler_versions.__wrapped__() != original
    assert {"trace.py", "reductions.py", "compile.py", "reduction_tile.py", "formula_ops.py"} <= set(read)


def test_version_of_llvm_decides_on_kernels_of_the_disk() -> None:
    assert programs._compiler_versions()[0].startswith("llvmlite-")
    assert programs._installed_version("numpy").startswith("numpy-")
    assert programs._installed_version("no-such-package") == "no no-such-package"
