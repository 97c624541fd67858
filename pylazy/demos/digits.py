"""Handwritten digits, classified by their nearest neighbours and by kernel regression."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pylazy import Pm, Vi, Vj
from pylazy.demos.timing import Timing, timed
from pylazy.runtime.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

NEIGHBOURS = 5
CLASSES = 10
BANDWIDTHS = np.geomspace(3, 16, 13)
_TOLERANCE = 1e-4  # float32 sums of up to 11,313 terms, NumPy's squared distances through the expansion


@dataclass(frozen=True)
class Classified:
    """Held-out digits with what was found for them.

    Attributes:
        images: (tests, 8, 8) in [0, 16].
        labels: (tests,) the truth.
        by_neighbours: (tests,) the majority of the nearest neighbours.
        by_kernel: (tests,) the class of the largest Gaussian-kernel regression.
        neighbours: (tests, NEIGHBOURS, 8, 8) the training images nearest to each.
        training_count: number of training images, shifted copies included.
        bandwidths: those that were tried.
        leave_one_out: accuracy of the kernel regression on the training images for each bandwidth.
        bandwidth: the best.
        search_seconds: time of the search for it.
        timings: of both classifications.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    by_neighbours: NDArray[np.int64]
    by_kernel: NDArray[np.int64]
    neighbours: NDArray[np.float32]
    training_count: int
    bandwidths: NDArray[np.float64]
    leave_one_out: NDArray[np.float64]
    bandwidth: float
    search_seconds: float
    timings: tuple[Timing, ...]

    @property
    def neighbours_accuracy(self) -> float:
        """Part of the held-out digits that the neighbours get right."""
        return float((self.by_neighbours == self.labels).mean())

    @property
    def kernel_accuracy(self) -> float:
        """Part of the held-out digits that the kernel regression gets right."""
        return float((self.by_kernel == self.labels).mean())


def nearest_neighbours(tests: NDArray[np.float32], training: NDArray[np.float32]) -> NDArray[np.int64]:
    """Find the positions of the nearest training images of each test image, nearest first."""
    positions: NDArray[np.int64] = Vi(tests).sqdist(Vj(training)).argKmin(NEIGHBOURS, axis=1)
    return positions


def kernel_regression(
    tests: NDArray[np.float32], training: NDArray[np.float32], targets: NDArray[np.float32], bandwidth: float
) -> NDArray[np.float32]:
    """Average the targets with Gaussian weights (Nadaraya and Watson, 1964): (tests, E)."""
    log_weights = -Vi(tests).sqdist(Vj(training)) / Pm(2 * bandwidth**2)
    means: NDArray[np.float32] = log_weights.sumsoftmaxweight(Vj(targets), axis=1)
    return means


def leave_one_out_scores(
    images: NDArray[np.float32],
    groups: NDArray[np.float32],
    training: NDArray[np.float32],
    training_groups: NDArray[np.float32],
    targets: NDArray[np.float32],
    bandwidth: float,
) -> NDArray[np.float32]:
    """Sum the targets of all training images but those of the image's own group, with Gaussian weights.

    The bandwidth is data of the kernel, not part of it: one program serves all.
    """
    others = Vi(groups[:, None]) != Vj(training_groups[:, None])
    kernel = (-Vi(images).sqdist(Vj(training)) / Pm(2 * bandwidth**2)).exp()
    sums: NDArray[np.float32] = (others * kernel) @ targets
    return sums


def classify(
    data: NDArray[np.float64], target: NDArray[np.int64], *, quick: bool, progress: Callable[[str], None]
) -> Classified:
    """Train on seven tenths of the digits, classify the others.

    Args:
        data: (images, 64) pixels of 8-by-8 images in [0, 16].
        target: (images,) the digits.
        quick: train without shifted copies, and try few bandwidths.
        progress: told how far it is.

    Raises:
        InternalError: dense NumPy finds other results.
    """
    order = np.random.default_rng(1).permutation(len(data))
    count = len(data) * 7 // 10
    images = data[order[:count]].astype(np.float32)
    tests, labels = data[order[count:]].astype(np.float32), target[order[count:]]
    groups = np.arange(count, dtype=np.float32)
    training = images if quick else _with_shifts(images)
    copies = len(training) // count
    training_labels, training_groups = np.tile(target[order[:count]], copies), np.tile(groups, copies)
    targets = np.eye(CLASSES, dtype=np.float32)[training_labels]

    bandwidths = BANDWIDTHS[::4] if quick else BANDWIDTHS
    start = time.perf_counter()
    leave_one_out = np.empty(len(bandwidths))
    for number, bandwidth in enumerate(bandwidths):
        scores = leave_one_out_scores(images, groups, training, training_groups, targets, float(bandwidth))
        leave_one_out[number] = (scores.argmax(axis=1) == training_labels[:count]).mean()
        progress(f"bandwidth {bandwidth:.2f}, leave-one-out accuracy {leave_one_out[number]:.2%}")
    search_seconds = time.perf_counter() - start
    best = float(bandwidths[leave_one_out.argmax()])

    progress("beside dense NumPy")
    positions, neighbours_timing = _neighbours_beside_numpy(tests, training)
    regression, kernel_timing = _regression_beside_numpy(tests, training, targets, best)
    votes = np.eye(CLASSES, dtype=np.int64)[training_labels[positions]].sum(axis=1)
    return Classified(
        images=tests.reshape(-1, 8, 8),
        labels=labels,
        by_neighbours=votes.argmax(axis=1),
        by_kernel=regression.argmax(axis=1),
        neighbours=training[positions].reshape(-1, NEIGHBOURS, 8, 8),
        training_count=len(training),
        bandwidths=bandwidths,
        leave_one_out=leave_one_out,
        bandwidth=best,
        search_seconds=search_seconds,
        timings=(neighbours_timing, kernel_timing),
    )


def _with_shifts(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add a copy of each image for each of the eight directions, shifted by one pixel."""
    framed = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    shifts = sorted(((dy, dx) for dy in range(3) for dx in range(3)), key=lambda shift: shift != (1, 1))
    return np.concatenate([framed[:, dy : dy + 8, dx : dx + 8].reshape(-1, 64) for dy, dx in shifts])


def _squared_distances(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    distances: NDArray[np.float32] = (x**2).sum(axis=1)[:, None] - 2 * (x @ y.T) + (y**2).sum(axis=1)
    return distances


def _neighbours_beside_numpy(
    tests: NDArray[np.float32], training: NDArray[np.float32]
) -> tuple[NDArray[np.int64], Timing]:
    def by_numpy() -> NDArray[np.float32]:
        distances = _squared_distances(tests, training)
        nearest = np.argpartition(distances, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        return np.sort(np.take_along_axis(distances, nearest, axis=1), axis=1)

    found, pylazy_seconds = timed(lambda: nearest_neighbours(tests, training), repeats=9)
    dense, numpy_seconds = timed(by_numpy, repeats=3)
    # Pixels are small integers, so squared distances are exact in float32; equal ones may come in either order.
    distances = np.square(tests[:, None] - training[found]).sum(axis=2)
    if not np.array_equal(distances, dense):
        raise InternalError("the nearest neighbours have other distances by NumPy")
    task = f"{NEIGHBOURS} nearest digits (argKmin)"
    return found, Timing(task, len(tests), len(training), 64, pylazy_seconds, numpy_seconds)


def _regression_beside_numpy(
    tests: NDArray[np.float32], training: NDArray[np.float32], targets: NDArray[np.float32], bandwidth: float
) -> tuple[NDArray[np.float32], Timing]:
    def by_numpy() -> NDArray[np.float32]:
        kernel = np.exp(_squared_distances(tests, training) / np.float32(-2 * bandwidth**2))
        means: NDArray[np.float32] = kernel @ targets / kernel.sum(axis=1, keepdims=True)
        return means

    found, pylazy_seconds = timed(lambda: kernel_regression(tests, training, targets, bandwidth), repeats=9)
    dense, numpy_seconds = timed(by_numpy, repeats=3)
    difference = float(np.abs(found - dense).max())
    if not difference <= _TOLERANCE:
        raise InternalError(f"the kernel regression differs from NumPy's by {difference:.2g}")
    return found, Timing("kernel regression (softmax)", len(tests), len(training), 64, pylazy_seconds, numpy_seconds)
