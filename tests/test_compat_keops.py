"""pykeops' names on top of pylazy; each test in a process of its own, so that this one keeps its modules."""

import json
import re
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

import pylazy

FRONT_END = [
    "Genred",
    "LazyTensor",
    "Pm",
    "Vi",
    "Vj",
    "generic_argkmin",
    "generic_argmin",
    "generic_logsumexp",
    "generic_sum",
]
OF_OTHER_MODULES = ["KernelSolve", "ComplexLazyTensor"]
CLUSTERS = [
    "cluster_centroids",
    "cluster_ranges",
    "cluster_ranges_centroids",
    "from_matrix",
    "grid_cluster",
    "sort_clusters",
    "swap_axes",
]
SYMBOLS = {
    "pykeops": [
        "__version__",
        "check_health",
        "clean_pykeops",
        "config",
        "default_device_id",
        "get_build_folder",
        "numpy",
        "set_build_folder",
        "set_verbose",
        "test_numpy_bindings",
        "test_torch_bindings",
        "torch",
        "verbose",
    ],
    "pykeops.config": ["get_build_folder", "gpu_available", "numpy_found", "torch_found"],
    "pykeops.common.gpu_utils": ["get_gpu_number"],
    "pykeops.numpy": FRONT_END,
    "pykeops.numpy.cluster": CLUSTERS,
    "pykeops.numpy.lazytensor.LazyTensor": ["LazyTensor", "Pm", "Var", "Vi", "Vj"],
    "pykeops.numpy.utils": [
        "WarmUpGpu",
        "chain_rules",
        "differences",
        "grad_np_kernel",
        "log_np_kernel",
        "log_sum_exp",
        "np_kernel",
        "np_kernel_sphere",
        "squared_distances",
    ],
    "pykeops.torch": FRONT_END,
    "pykeops.torch.cluster": CLUSTERS,
    "pykeops.torch.generic.generic_ops": ["generic_argkmin", "generic_argmin", "generic_logsumexp", "generic_sum"],
    "pykeops.torch.generic.generic_red": ["Genred"],
    "pykeops.torch.lazytensor.LazyTensor": ["LazyTensor", "Pm", "Var", "Vi", "Vj"],
    "pykeops.torch.utils": ["squared_distances", "torch_kernel"],
    "keopscore": ["auto_factorize"],
}
"""What programs import from pykeops: its tests, tutorials, examples and benchmarks."""


def run(*arguments: str, folder: Path, code: int = 0) -> str:
    """Run Python in a folder, and give what it writes."""
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_every_name_that_programs_use_is_there(tmp_path):
    program = f"""
        import importlib, sys
        import pylazy.compat.keops
        assert importlib.util.find_spec("pykeops") is not None
        for name, symbols in {SYMBOLS!r}.items():
            module = importlib.import_module(name)
            for symbol in symbols:
                getattr(module, symbol)
                assert symbol in dir(module), (name, symbol)
            assert module.__file__.startswith({str(Path(pylazy.__file__).parent)!r}), "the installed pykeops"
    """
    run("-c", textwrap.dedent(program), folder=tmp_path)


@pytest.mark.parametrize("name", OF_OTHER_MODULES)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_what_other_modules_of_pylazy_hold_is_there(tmp_path, name, backend):
    if not hasattr(pylazy, name):
        pytest.skip(f"there is no {name} yet")
    run("-c", f"import pylazy.compat.keops; from pykeops.{backend} import {name}", folder=tmp_path)


def test_a_star_gives_the_names_that_pykeops_gives(tmp_path):
    if not hasattr(pylazy, "KernelSolve"):
        pytest.skip("there is no KernelSolve yet")
    program = """
        import json
        import pylazy.compat.keops
        names = {}
        exec("from pykeops.torch import *", names)
        print(json.dumps(sorted(name for name in names if not name.startswith("__"))))
    """
    assert json.loads(run("-c", textwrap.dedent(program), folder=tmp_path)) == sorted([*FRONT_END, "KernelSolve"])


def test_importing_the_stand_in_loads_neither_torch_nor_the_compiler(tmp_path):
    program = """
        import sys
        import pylazy.compat.keops
        import pykeops
        loaded = {name.partition(".")[0] for name in sys.modules}
        assert not {"torch", "torch_mlir", "llvmlite"} & loaded, loaded
        assert pykeops.__version__.startswith("2.3")
        assert pykeops.config.gpu_available is False
        from pykeops.torch import LazyTensor
        assert "torch" in sys.modules
    """
    run("-c", textwrap.dedent(program), folder=tmp_path)


def test_checks_of_the_installation_print_as_those_of_pykeops(tmp_path):
    program = """
        import pylazy.compat.keops
        import pykeops
        pykeops.test_numpy_bindings()
        pykeops.test_torch_bindings()
        pykeops.check_health()
        pykeops.set_verbose(False)
        pykeops.test_numpy_bindings()
    """
    lines = run("-c", textwrap.dedent(program), folder=tmp_path).splitlines()
    assert lines[:2] == [f"pyKeOps with {name} bindings is working!" for name in ("numpy", "torch")]
    assert lines[2].startswith("pylazy")
    assert sum("bindings" in line for line in lines) == 2


def test_folder_of_kernels_can_be_moved_and_cleaned(tmp_path):
    program = f"""
        import pathlib
        import numpy as np
        import pylazy.compat.keops
        import pykeops
        folder = pathlib.Path({str(tmp_path)!r}) / "kernels"
        pykeops.set_build_folder(folder)
        assert pykeops.get_build_folder() == pykeops.config.get_build_folder() == str(folder)
        pykeops.set_verbose(False)
        pykeops.test_numpy_bindings()
        (folder / "note.txt").write_text("not a kernel")
        assert len(list(folder.iterdir())) == 2
        pykeops.clean_pykeops()
        assert [path.name for path in folder.iterdir()] == ["note.txt"]
        pykeops.test_numpy_bindings()
        pykeops.set_build_folder()
        assert pykeops.get_build_folder() != str(folder)
    """
    run("-c", textwrap.dedent(program), folder=tmp_path)


def test_pykeops_imported_before_is_an_error(tmp_path):
    (tmp_path / "pykeops.py").write_text("")
    said = run("-c", "import pykeops; import pylazy.compat.keops", folder=tmp_path, code=1)
    assert "ImportError: pykeops is already imported, from" in said
    assert "import pylazy.compat.keops before" in said


def test_pykeops_installed_and_not_imported_gives_way(tmp_path):
    (tmp_path / "pykeops.py").write_text("raise AssertionError")
    run("-c", "import pylazy.compat.keops; import pykeops.numpy", folder=tmp_path)


def test_importing_the_stand_in_twice_installs_it_once(tmp_path):
    program = """
        import importlib, sys
        import pylazy.compat.keops as compat
        import pykeops
        importlib.reload(compat)
        assert sum(type(finder).__name__ == "StandInFinder" for finder in sys.meta_path) == 1
    """
    run("-c", textwrap.dedent(program), folder=tmp_path)


@pytest.mark.parametrize("name", ["pykeops.test", "keopscore.formulas", "pykeops.common.keops_io"])
def test_what_is_not_there_says_so(tmp_path, name):
    said = run("-c", f"import pylazy.compat.keops; import {name}", folder=tmp_path, code=1)
    assert f"ModuleNotFoundError: no module named '{name}'" in said


def test_script_runs_unchanged_with_its_arguments_and_its_folder(tmp_path):
    (tmp_path / "beside.py").write_text("SIGMA = 2.0")
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
            import sys, pickle
            import numpy as np
            from pykeops.numpy import LazyTensor, Vi, Vj
            import beside

            class Mine:
                pass

            assert __name__ == "__main__" and sys.modules["__main__"].Mine is Mine
            assert isinstance(pickle.loads(pickle.dumps(Mine())), Mine)
            x, y = np.random.rand(5, 3), np.random.rand(7, 3)
            found = (-Vi(x).sqdist(Vj(y)) / beside.SIGMA).exp().sum(axis=1)
            dense = np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / beside.SIGMA).sum(1)
            assert np.allclose(found[:, 0], dense)
            print(sys.argv)
            sys.exit(7)
        """)
    )
    script = str(tmp_path / "script.py")
    said = run("-m", "pylazy.compat.keops", script, "--help", "-m", folder=tmp_path.parent, code=7)
    assert said.strip() == str([script, "--help", "-m"])


def test_module_runs_unchanged_with_its_arguments(tmp_path):
    (tmp_path / "program.py").write_text("import sys, pykeops; print(pykeops.__version__[:3], sys.argv[1:])")
    said = run("-m", "pylazy.compat.keops", "-m", "program", "a", "-b", folder=tmp_path)
    assert said.strip() == "2.3 ['a', '-b']"


def test_error_of_a_script_ends_at_its_line(tmp_path):
    (tmp_path / "script.py").write_text("from pykeops.numpy import LazyTensor\nLazyTensor([[1.0], [2.0]])\n")
    said = run("-m", "pylazy.compat.keops", "script.py", folder=tmp_path, code=1)
    assert said.splitlines()[-1].endswith("script.py:2: LazyTensor([[1.0], [2.0]])")


@pytest.mark.parametrize("arguments", [[], ["-x"], ["-m"], ["there_is_none.py"]])
def test_no_program_is_an_error_of_usage(tmp_path, arguments):
    assert "usage:" in run("-m", "pylazy.compat.keops", *arguments, folder=tmp_path, code=2)


def test_dense_kernels_agree_between_numpy_and_torch_and_with_their_formulas(tmp_path):
    program = """
        import numpy as np, torch
        import pylazy.compat.keops
        from pykeops.numpy import utils as dense
        from pykeops.torch.utils import torch_kernel
        x, y, s = np.random.rand(4, 3), np.random.rand(5, 3) + 1, 0.7
        q = ((x[:, None] - y[None]) ** 2).sum(-1)
        for name, k in {
            "gaussian": lambda q: np.exp(-q / s**2),
            "laplacian": lambda q: np.exp(-np.sqrt(q) / s),
            "cauchy": lambda q: 1 / (1 + q / s**2),
            "inverse_multiquadric": lambda q: (1 + q / s**2) ** -0.5,
        }.items():
            assert np.allclose(dense.np_kernel(x, y, s, name), k(q))
            assert np.allclose(torch_kernel(torch.tensor(x), torch.tensor(y), s, name), k(q))
            assert np.allclose(dense.log_np_kernel(x, y, s, name), np.log(k(q)))
            h = 1e-6
            assert np.allclose(dense.grad_np_kernel(x, y, s, name), (k(q + h) - k(q - h)) / (2 * h), rtol=1e-6)
        assert np.allclose(dense.log_sum_exp(-q, axis=1), np.log(np.exp(-q).sum(1)))
        w, p = np.random.rand(4, 2), np.random.rand(5, 2)
        g = dense.chain_rules(w, x, y, dense.grad_np_kernel(x, y, s, "gaussian"), p)
        bumped = x.copy()
        bumped[1, 2] += h
        value = lambda x: (w * (dense.np_kernel(x, y, s, "gaussian") @ p)).sum()
        assert np.allclose(g[1, 2], (value(bumped) - value(x)) / h, rtol=1e-4)
        cosine = np.eye(3) @ x.T
        assert np.allclose(dense.np_kernel_sphere(np.eye(3), x, s, "binet"), cosine**2)
        try:
            dense.np_kernel(x, y, s, "gauss")
        except NotImplementedError as error:
            assert "kernel is 'gauss', expected one of gaussian" in str(error)
        else:
            raise AssertionError
    """
    run("-c", textwrap.dedent(program), folder=tmp_path)


@pytest.mark.skipif(find_spec("geomloss") is None, reason="geomloss comes with the extra 'test'")
def test_geomloss_gives_through_pylazy_what_it_gives_on_dense_matrices(tmp_path):
    program = """
        import torch
        import pylazy.compat.keops
        from geomloss import SamplesLoss
        torch.manual_seed(0)
        x, y = torch.rand(200, 3, dtype=torch.float64, requires_grad=True), torch.rand(150, 3, dtype=torch.float64)
        for loss in ("sinkhorn", "gaussian"):
            found = {}
            for backend in ("tensorized", "online", "multiscale"):
                value = SamplesLoss(loss, p=2, blur=0.1, truncate=None, backend=backend)(x, y)
                (gradient,) = torch.autograd.grad(value, [x])
                found[backend] = torch.cat((value.reshape(1), gradient.reshape(-1)))
            assert torch.allclose(found["online"], found["tensorized"], rtol=1e-6, atol=1e-9), loss
            assert torch.allclose(found["multiscale"], found["tensorized"], rtol=0.1, atol=1e-3), loss
    """
    run("-c", textwrap.dedent(program), folder=tmp_path)


def test_examples_of_the_guide_run(tmp_path):
    guide = (Path(__file__).parent.parent / "docs" / "coming-from-keops.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert len(examples) == 3
    run("-c", "\n".join(examples), folder=tmp_path)
