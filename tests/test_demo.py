"""The `pylazy` command."""

import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pylazy
from pylazy import cli
from pylazy.demos import colours, digits, run
from pylazy.runtime.errors import InternalError, PylazyError

matplotlib_image = pytest.importorskip("matplotlib.image")
console_module = pytest.importorskip("rich.console")
pytest.importorskip("sklearn")


def silent(_text: str) -> None:
    pass


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "made" / "by the demo"
    output = io.StringIO()
    picture = run.run_demo(folder, quick=True, console=console_module.Console(file=output))
    return picture, output.getvalue()


def test_demo_draws_one_picture(quick_run):
    picture, _ = quick_run
    assert [path.name for path in picture.parent.iterdir()] == [run.PICTURE]
    height, width, _channels = matplotlib_image.imread(picture).shape
    assert (height, width) == (1305, 1800)


def test_demo_is_plain_when_not_a_terminal(quick_run):
    _, text = quick_run
    assert "\x1b" not in text
    assert "\r" not in text
    assert "bandwidths ..." not in text
    assert max(map(len, text.splitlines())) < 120 + len(str(quick_run[0]))


def test_demo_reports_accuracy_and_times(quick_run):
    _, text = quick_run
    assert "kernel regression" in text
    assert "dense NumPy" in text
    assert str(quick_run[0]) in text


def test_command_exits_with_0(tmp_path, capsys):
    assert cli.main(["demo", "--quick", "--output", str(tmp_path)]) == 0
    assert (tmp_path / run.PICTURE).exists()
    assert capsys.readouterr().err == ""


def test_missing_package_is_named_with_its_remedy(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert cli.main(["demo", "--output", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "needs scikit-learn" in error
    assert 'pip install "pylazy[demo]"' in error
    assert not list(tmp_path.iterdir())


def test_folder_that_is_a_file_is_refused(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert cli.main(["demo", "--output", str(file)]) == 1
    assert f"cannot write a picture into {file}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["dance"], ["demo", "--quik"], ["demo", "--output"]])
def test_unknown_argument_exits_with_2(arguments, capsys):
    assert cli.main(arguments) == 2
    assert "Error: " in capsys.readouterr().err


def test_no_command_exits_with_2_and_shows_help(capsys):
    assert cli.main([]) == 2
    assert "demo" in capsys.readouterr().err


def test_version_is_shown(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"pylazy {pylazy.__version__}\n"


def test_help_loads_no_compiler_and_no_extra():
    code = (
        "import sys\nfrom pylazy import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(names & {'torch', 'torch_mlir', 'llvmlite', 'matplotlib', 'rich', 'sklearn'}))"
    )
    checkout = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=checkout)
    assert done.stdout.splitlines()[-1] == "[]"


def test_kmeans_ends_where_no_pixel_moves():
    random = np.random.default_rng(3)
    image = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    found = colours.quantise(image, colours=4, max_steps=1000, progress=silent)
    assert found.converged
    pixels = found.before.reshape(-1, 3).astype(np.float64)
    squared = np.square(pixels[:, None] - found.palette).sum(axis=2)
    nearest = squared.argmin(axis=1)
    np.testing.assert_array_equal(found.after.reshape(-1, 3), found.palette[nearest])
    for colour in range(4):
        np.testing.assert_allclose(found.palette[colour], pixels[nearest == colour].mean(axis=0), atol=1e-6)


def test_wrong_colours_are_noticed(monkeypatch):
    monkeypatch.setattr(colours, "nearest_by_numpy", lambda pixels, palette: np.zeros(len(pixels), dtype=np.int64))
    image = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    with pytest.raises(InternalError, match="another nearest colour"):
        colours.quantise(image, colours=4, max_steps=3, progress=silent)


def test_kernel_regression_matches_float64():
    random = np.random.default_rng(5)
    tests, training = (random.random((rows, 7)).astype(np.float32) for rows in (5, 23))
    targets = random.random((23, 3)).astype(np.float32)
    squared = np.square(tests[:, None].astype(np.float64) - training).sum(axis=2)
    kernel = np.exp(-squared / (2 * 0.8**2))
    expected = kernel @ targets / kernel.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(digits.kernel_regression(tests, training, targets, 0.8), expected, rtol=1e-5)


def test_leave_one_out_leaves_the_own_group_out():
    random = np.random.default_rng(6)
    images = random.random((6, 4)).astype(np.float32)
    groups = np.arange(6, dtype=np.float32)
    targets = np.eye(6, dtype=np.float32)
    scores = digits.leave_one_out_scores(images, groups, images, groups, targets, 1.0)
    np.testing.assert_array_equal(scores.diagonal(), 0)
    assert (scores + np.eye(6) > 0).all()


def test_missing_extra_raises_a_pylazy_error(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(PylazyError, match="rich"):
        run.run_demo(tmp_path, quick=True)


def test_first_example_of_the_readme_runs():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    first, stages = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)[:2]
    names: dict = {}
    exec(first.replace("20_000", "200").replace("30_000", "300"), names)
    assert names["a"].shape == (200, 1)
    squared = np.square(names["x"][:, None].astype(np.float64) - names["y"]).sum(axis=2)
    np.testing.assert_allclose(names["a"], np.exp(-squared / 0.02) @ names["b"], rtol=1e-4)
    for found in (names["nearest"], names["five"]):
        smallest = np.sort(squared, axis=1)[:, : found.shape[1]]
        np.testing.assert_allclose(np.take_along_axis(squared, found, axis=1), smallest, rtol=1e-4)
    names["print"] = silent
    exec(f"from pylazy import Vj\n{stages}", names)
    np.testing.assert_allclose(names["product"](), names["a"], rtol=1e-6)


def test_kernel_of_the_readme_ships(tmp_path, monkeypatch):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("## Ship a kernel") :]
    toml, commands, use = (
        re.search(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL).group(1)
        for language in ("toml", "sh", "python")
    )
    monkeypatch.chdir(tmp_path)
    Path("gaussian.toml").write_text(toml, encoding="utf-8")
    for command in commands.splitlines():
        if "static" in command and shutil.which("cc") is None:
            continue
        assert cli.main(shlex.split(command, comments=True)[1:]) == 0
    random = np.random.default_rng(0)
    x, y, b = (random.random(shape, dtype=np.float32) for shape in ((7, 3), (5, 3), (5, 1)))
    names = {"x": x, "y": y, "b": b}
    exec(use, names)
    squared = np.square(x[:, None].astype(np.float64) - y).sum(axis=2)
    np.testing.assert_allclose(names["a"], np.exp(-squared / 0.5) @ b, rtol=1e-5)


def test_demo_command_of_the_readme_is_the_console_script():
    checkout = Path(__file__).parents[1]
    readme, project = ((checkout / name).read_text(encoding="utf-8") for name in ("README.md", "pyproject.toml"))
    assert '.venv/bin/pip install ".[demo]" && .venv/bin/pylazy demo\n' in readme
    assert 'pylazy = "pylazy.cli:main"' in project
