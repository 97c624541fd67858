"""Kernels that another process has left on the disk: what they cost to import, and when they are made anew."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pylazy
from pylazy.execution import compiler_versions

ROOT = Path(__file__).parents[1]
FIRST_RESULT = """
import sys
import numpy as np
from pylazy import Vi, Vj
x = np.ones((7, 3), np.float32)
assert ((-Vi(x).sqdist(Vj(x))).exp().sum(axis=1) == 7).all()
print(*sorted(name for name in sys.modules if name.startswith(("pylazy.", "torch", "mlir", "llvmlite", "tempfile"))))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The modules that a process imports for its first result, from the kernel that another one has left."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYLAZY_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    environment.pop("PYLAZY_CACHE", None)
    command = [sys.executable, "-c", FIRST_RESULT]
    runs = [subprocess.run(command, env=environment, check=True, capture_output=True, text=True) for _ in range(2)]
    assert "pylazy.compiler.mlir" in runs[0].stdout.split()
    return runs[1].stdout.split()


def test_kernel_from_the_disk_loads_no_compiler_and_no_torch(loaded):
    foreign = ("pylazy.compiler", "pylazy.trace", "torch", "mlir", "llvmlite")
    assert not [name for name in loaded if name.startswith(foreign)]


def test_kernel_from_the_disk_loads_nothing_for_gpus(loaded):
    assert not [name for name in loaded if "gpu" in name]


def test_kernel_from_the_disk_loads_nothing_that_writes(loaded):
    assert "tempfile" not in loaded


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the sources that kernels depend on."""
    for source in map(Path, compiler_versions.compiler_sources()):
        target = tmp_path / source.relative_to(ROOT / "pylazy")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    monkeypatch.setattr(compiler_versions, "_PACKAGE_FOLDER", str(tmp_path))
    return tmp_path


def versions():
    return compiler_versions.compiler_versions.__wrapped__()


def test_copy_of_the_sources_has_the_same_versions(package):
    assert versions() == compiler_versions.compiler_versions()


@pytest.mark.parametrize("name", ["trace.py", "reductions.py", "compiler/passes/reduction_tile.py", "compiler/new.py"])
def test_change_of_the_compiler_is_another_key(package, name):
    before = versions()
    with (package / name).open("a") as file:
        file.write("# changed\n")
    assert versions() != before


def test_every_module_of_the_compiler_is_a_source():
    sources = set(compiler_versions.compiler_sources())
    for name in ("pipelines", "codegen.ptx", "schedule.cpu_schedule"):
        assert importlib.import_module(f"pylazy.compiler.{name}").__file__ in sources


def test_without_files_the_version_of_pylazy_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler_versions, "_PACKAGE_FOLDER", str(tmp_path / "pylazy.zip"))
    assert versions()[0] == pylazy.__version__


def test_versions_name_the_packages_that_make_the_code():
    llvm, mlir = versions()[1:3]
    assert llvm.startswith("llvmlite-")
    assert mlir.startswith("torch_mlir-")  # a package without __init__.py
    assert compiler_versions._installed_version("no-such-package") == "no no-such-package"
