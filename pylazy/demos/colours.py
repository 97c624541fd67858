"""K-means on the colours of a photograph, with `argmin` for the nearest colour of the palette."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pylazy import Vi, Vj
from pylazy.demos.timing import Timing, timed
from pylazy.runtime.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MAX_STEPS = 2000
_SLACK = 1e-6  # two colours this near in squared distance are a tie for either way of rounding


@dataclass(frozen=True)
class Quantised:
    """A photograph in few colours.

    Attributes:
        before: (height, width, 3) float32 in [0, 1].
        after: the same with each pixel replaced by its colour of the palette.
        palette: (K, 3), dark to light.
        shares: (K,) the part of the pixels that has each colour.
        steps: K-means steps that were made.
        converged: whether the last step moved no pixel.
        colours_before: number of different colours of the original.
        psnr_decibel: peak signal-to-noise ratio of `after`.
        timing: of one assignment of all pixels.
    """

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    palette: NDArray[np.float32]
    shares: NDArray[np.float64]
    steps: int
    converged: bool
    colours_before: int
    psnr_decibel: float
    timing: Timing


def nearest(pixels: NDArray[np.float32], palette: NDArray[np.float32]) -> NDArray[np.int64]:
    """Find the colour of the palette that is nearest to each pixel: one reduction over all pairs."""
    labels: NDArray[np.int64] = Vi(pixels).sqdist(Vj(palette)).argmin(axis=1)[:, 0]
    return labels


def nearest_by_numpy(pixels: NDArray[np.float32], palette: NDArray[np.float32]) -> NDArray[np.int64]:
    """Find the same the dense way, with an array of all squared distances."""
    distances = (pixels**2).sum(axis=1)[:, None] - 2 * (pixels @ palette.T) + (palette**2).sum(axis=1)
    labels: NDArray[np.int64] = distances.argmin(axis=1)
    return labels


def quantise(image: NDArray[np.uint8], *, colours: int, max_steps: int, progress: Callable[[str], None]) -> Quantised:
    """Reduce an image to a number of colours.

    Lloyd's algorithm from k-means++ seeds (Arthur and Vassilvitskii, 2007), until no pixel changes its colour.

    Args:
        image: (height, width, 3).
        colours: size of the palette.
        max_steps: end here even if pixels still move.
        progress: told how far it is.

    Raises:
        InternalError: dense NumPy finds other colours.
    """
    before = image.astype(np.float32) / np.float32(255)
    pixels = np.ascontiguousarray(before.reshape(-1, 3))
    palette = _seeds(pixels, colours)
    labels = np.full(len(pixels), -1)
    converged = False
    steps = 0
    while steps < max_steps and not converged:
        found = nearest(pixels, palette)
        moved = np.count_nonzero(found != labels)
        labels, converged = found, moved == 0
        steps += 1
        progress(f"step {steps}, {moved:,} pixels moved")
        if not converged:
            palette = _means(pixels, labels, palette)
    palette = palette[np.argsort(palette @ [0.299, 0.587, 0.114])]  # luma of ITU-R BT.601
    progress("beside dense NumPy")
    labels, pylazy_seconds = timed(lambda: nearest(pixels, palette), repeats=9)
    dense, numpy_seconds = timed(lambda: nearest_by_numpy(pixels, palette), repeats=3)
    _check_same(pixels, palette, labels, dense)
    after = palette[labels]
    return Quantised(
        before=before,
        after=after.reshape(before.shape),
        palette=palette,
        shares=np.bincount(labels, minlength=colours) / len(labels),
        steps=steps,
        converged=converged,
        colours_before=len(np.unique(image.reshape(-1, 3), axis=0)),
        psnr_decibel=float(-10 * np.log10(np.square(after - pixels, dtype=np.float64).mean())),
        timing=Timing("nearest colour (argmin)", len(pixels), colours, 3, pylazy_seconds, numpy_seconds),
    )


def _seeds(pixels: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Choose pixels far from those chosen before, with a probability that grows as the squared distance."""
    random = np.random.default_rng(0)
    chosen: NDArray[np.float32] = pixels[random.integers(len(pixels))][None]
    while len(chosen) < count:
        distances = Vi(pixels).sqdist(Vj(chosen)).min(axis=1)[:, 0].astype(np.float64)
        following = random.choice(len(pixels), p=distances / distances.sum())
        chosen = np.concatenate([chosen, pixels[following][None]])
    return chosen


def _means(pixels: NDArray[np.float32], labels: NDArray[np.int64], palette: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average the pixels of each colour; a colour without pixels stays where it is."""
    counts = np.bincount(labels, minlength=len(palette))
    sums = [np.bincount(labels, weights=channel, minlength=len(palette)) for channel in pixels.T]
    means = np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]
    return np.where(counts[:, None] > 0, means, palette).astype(np.float32)


def _check_same(
    pixels: NDArray[np.float32], palette: NDArray[np.float32], found: NDArray[np.int64], dense: NDArray[np.int64]
) -> None:
    other = np.flatnonzero(found != dense)
    exact = pixels[other].astype(np.float64)
    gap = np.square(exact - palette[found[other]]).sum(axis=1) - np.square(exact - palette[dense[other]]).sum(axis=1)
    if np.any(np.abs(gap) > _SLACK):
        raise InternalError(
            f"{np.count_nonzero(np.abs(gap) > _SLACK)} of {len(pixels)} pixels have another nearest colour by NumPy"
        )
