"""`pylazy bench` beside its peers: figures, files, pictures, and what it exits with."""

import builtins
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pylazy import cli
from pylazy.bench import contenders
from pylazy.bench.cases import CASES, make_data, relative_error, tolerance
from pylazy.bench.drawing import Box, Dot, Drawing, Line, Text
from pylazy.bench.roofline import LogScale, draw_roofline

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What a small run reports; its files stand beside."""
    command = ["bench", "--case", "gaussian d=3", "--dtype", "float64", "--peers", "numpy", "--points", "200"]
    assert cli.main([*command, "--repeats", "1", "-o", str(tmp_path / "roof"), "--json"]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_bench_times_a_subset_and_writes_files(report: dict[str, Any], tmp_path: Path) -> None:
    (row,) = report["rows"]
    assert row["name"] == "Gaussian D=3 float64"
    assert list(row["contenders"]) == ["pylazy", "NumPy"]
    assert row["contenders"]["pylazy"]["relative_error"] < tolerance("float64", 200)
    assert json.loads((tmp_path / "roof.json").read_text()) == report
    picture = ET.fromstring((tmp_path / "roof.svg").read_text())
    words = " ".join(text.text or "" for text in picture.iter(f"{SVG}text"))
    for expected in (
        report["machine"]["processor"],
        report["date"],
        "Gaussian D=3 float64",
        "multiply-adds/s",
        "NumPy",
    ):
        assert expected in words
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--peers", "fortran"], 2, "'fortran', expected some of pykeops"),
        (["--case", "no such case"], 2, "there are Gaussian D=3 float32"),
        (["--dtype", "float16"], 2, "no case has"),
        (["-m", "5"], 2, "-m is for a bundle"),
        (["k.plzb", "--points", "5"], 2, "--points is not for a bundle"),
        (["--peers", "absent"], 1, "the package no_such_package_here is not installed"),
    ],
)
def test_bench_refuses_what_says_nothing_sensible(
    options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = contenders.Contender("absent", "no_such_package_here", contenders.CONTENDERS["NumPy"].make)
    monkeypatch.setattr("pylazy.commands.bench_peers.CONTENDERS", {**contenders.CONTENDERS, "absent": absent})
    assert cli.main(["bench", *options]) == code
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in error


def test_wrong_result_exits_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"wall_seconds": 1.0, "cpu_seconds": 1.0, "gpairs_per_core_second": 1.0, "relative_error": 0.5}

    def wrong(case: Any, *_: Any, size: int, repeats: int) -> dict[str, Any]:
        row = {"name": case.name, "rows": size, "dtype": case.dtype, "repeats": repeats}
        return row | {"contenders": {"pylazy": figures}, "failures": {"NumPy": "it has no time"}}

    monkeypatch.setattr("pylazy.commands.bench_peers.time_case", wrong)
    monkeypatch.setattr("pylazy.commands.bench_peers.multiply_adds_per_second", lambda _: 1e9)
    assert cli.main(["bench", "--case", "argmin", "--peers", "numpy"]) == 1
    error = capsys.readouterr().err
    assert "argmin D=16 float32: the error 5.0e-01 is too large" in error
    assert "NumPy failed: it has no time" in error


@pytest.mark.parametrize("name", ["NumPy", "PyTorch", "PyTorch dense", "pylazy"])
def test_contenders_compute_the_same(name: str) -> None:
    for formula in sorted({case.formula for case in CASES}):
        data = make_data(70, 90, 3, "float64")
        result = contenders.make_work(name, formula, 70, 90, 3, "float64")()
        assert relative_error(formula, data, result) < 100 * tolerance("float64", 90), formula


def test_array_of_too_many_pairs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "MOST_DENSE_PAIRS", 10)
    with pytest.raises(MemoryError, match="900 pairs in one array, at most 10"):
        contenders.make_work("PyTorch dense", "gaussian", 30, 30, 3, "float32")


def test_picture_says_how_far_below_the_roof_each_case_is() -> None:
    figures = {"pylazy": {"gpairs_per_core_second": 3.0}, "NumPy": {"gpairs_per_core_second": 1.5}}
    rows = [
        {"name": f"case {number}", "slots": 2.0 * number, "dtype": "float32", "contenders": figures}
        for number in (1, 2, 3)
    ]
    drawing = draw_roofline(rows, peaks={"float32": 20e9}, machine="A <machine> & more", date="2026-01-02")
    words = [shape.words for shape in drawing.shapes if isinstance(shape, Text)]
    for expected in ("30%", "60%", "90%", "2.0x", "float32: 20 G multiply-adds/s"):
        assert expected in words
    assert "A &lt;machine&gt; &amp; more" in drawing.to_svg()
    dots = [shape for shape in drawing.shapes if isinstance(shape, Dot)]
    assert all(0 < dot.x < drawing.width and 0 < dot.y < drawing.height for dot in dots)


def test_logarithmic_scale_has_round_ticks() -> None:
    scale = LogScale(0.5, 200, 0, 100)
    assert scale(10) == pytest.approx(50)
    assert [value for value, labelled in scale.ticks() if labelled] == pytest.approx(
        [0.5, 1, 2, 5, 10, 20, 50, 100, 200]
    )


def test_png_without_matplotlib_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = Drawing(40, 30)
    drawing.add(Line([(0, 0), (40, 30)], dashed=True), Box(1, 2, 3, 4, "#ff0000"), Dot(9, 9, 3, "#00ff00"))
    drawing.add(Text(20, 10, "$5 of <b>", angle=45))
    drawing.save_png(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    load = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return load(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(Exception, match="needs matplotlib"):
        drawing.save_png(tmp_path / "b.png")
    drawing.save_svg(tmp_path / "b.svg")
    assert np.isfinite([float(e.get("x", 0)) for e in ET.fromstring((tmp_path / "b.svg").read_text())]).all()
