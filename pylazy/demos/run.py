"""The demo from beginning to end."""

from __future__ import annotations

import tempfile
import time
from importlib import import_module
from typing import TYPE_CHECKING

from pylazy.runtime.errors import PylazyError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

PICTURE = "pylazy-demo.png"
_EXTRAS = {"matplotlib": "matplotlib", "PIL": "pillow", "rich": "rich", "sklearn": "scikit-learn"}


def run_demo(folder: Path, *, quick: bool, console: Console | None = None) -> Path:
    """Quantise the colours of a photograph, classify handwritten digits, and draw what came out.

    Args:
        folder: where the picture goes; made if it is not there.
        quick: fewer pixels, colours and training images: a second or two in all.
        console: where to write; by default standard output.

    Returns:
        The picture.

    Raises:
        PylazyError: a package of the extra "demo" is missing, or the folder cannot be written.
        InternalError: a result differs from dense NumPy's.
    """
    _check_extras()
    picture = _check_folder(folder) / PICTURE

    from rich.console import Console as RichConsole
    from sklearn.datasets import load_digits, load_sample_image

    from pylazy import get_num_threads
    from pylazy.demos.colours import MAX_STEPS, quantise
    from pylazy.demos.digits import NEIGHBOURS, classify
    from pylazy.demos.picture import draw
    from pylazy.demos.report import Report
    from pylazy.demos.timing import seconds_text
    from pylazy.runtime.launch import host_target

    report = Report(console or RichConsole())
    began = time.perf_counter()
    step = 4 if quick else 1
    image = load_sample_image("china.jpg")[::step, ::step]
    colours = 16 if quick else 64
    count = image.shape[0] * image.shape[1]
    report.title(f"K-means: {count:,} pixels of a photograph in {colours} colours")
    start = time.perf_counter()
    with report.progress("K-means") as progress:
        quantised = quantise(image, colours=colours, max_steps=20 if quick else MAX_STEPS, progress=progress)
    end = "no pixel moves any more" if quantised.converged else "stopped there"
    report.line(f"{quantised.steps} steps in {seconds_text(time.perf_counter() - start)}, compiling included; {end}")
    report.line(f"{quantised.colours_before:,} colours became {colours}, at {quantised.psnr_decibel:.1f} dB PSNR")

    digits = load_digits()
    report.title("Digits: nearest neighbours and Gaussian-kernel regression")
    with report.progress("bandwidths") as progress:
        classified = classify(digits.data, digits.target, quick=quick, progress=progress)
    report.line(
        f"bandwidth {classified.bandwidth:.2f} by leave-one-out over {classified.training_count:,} training images: "
        f"{len(classified.bandwidths)} tried in {seconds_text(classified.search_seconds)}, one compiled program"
    )
    report.line(f"accuracy on {len(classified.labels)} digits never seen in training:")
    report.line(f"  {NEIGHBOURS} nearest neighbours  {classified.neighbours_accuracy:.2%}")
    report.line(f"  kernel regression     {classified.kernel_accuracy:.2%}")

    report.title(f"The same work by dense NumPy: same results, {get_num_threads()} threads, {host_target()}")
    timings = (quantised.timing, *classified.timings)
    report.timings(timings)
    draw(picture, quantised, classified)
    report.title("Picture")
    report.line(str(picture))
    report.line(f"all of it took {seconds_text(time.perf_counter() - began)}")
    return picture


def _check_extras() -> None:
    missing = [name for module, name in _EXTRAS.items() if not _is_importable(module)]
    if missing:
        raise PylazyError(
            f"the demo needs {', '.join(missing)}, found no such package: "
            'install what the demo needs with  pip install "pylazy[demo]"'
        )


def _is_importable(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def _check_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PylazyError(f"cannot write a picture into {folder}: {error.strerror}; choose one with --output") from None
    return folder
