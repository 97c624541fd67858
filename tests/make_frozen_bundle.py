"""Write the bundle of a release that every later version must load: python tests/make_frozen_bundle.py VERSION."""

import sys
from pathlib import Path

import numpy as np

import pylazy
from pylazy import Vi, Vij, Vj

FOLDER = Path(__file__).parent / "data"
TARGETS = ("x86-64", "aarch64", "sm_75")


def main(version: str) -> None:
    x, y = np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32)
    b = np.zeros((3, 1), np.float32)
    squared = Vi(x).sqdist(Vj(y))
    everything = np.array([[0, 2]]), np.array([1]), np.array([[0, 3]])
    ranges = (*everything, everything[2], everything[1], everything[0])
    bundle = pylazy.Bundle()
    product = ((-squared / 0.5).exp() * Vj(b)).sum(axis=1, call=False)
    bundle.add(product, name="gaussian", arguments=("x", "y", "b"), gradients=False)
    bundle.add(squared.argKmin(2, axis=1, call=False), name="two_nearest", arguments=("x", "y"))
    bundle.add(squared.min(axis=1, call=False), name="least", arguments=("x", "y"))
    bundle.add(squared.sum(axis=1, call=False, ranges=ranges), name="blocks", arguments=("x", "y"))
    waves = (1j * squared * Vj(b + 0j)).sum(axis=1, call=False)
    bundle.add(waves, name="waves", arguments=("x", "y", "b"), gradients=False)
    costs = Vij(np.zeros((2, 3), np.float32)).max(axis=1, call=False)
    bundle.add(costs, name="costs", arguments=("c",), gradients=False)
    bundle.compile(targets=TARGETS)
    path = FOLDER / f"frozen-{version}.plzb"
    sys.stdout.write(f"{bundle.save(path)}  {path.name}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
