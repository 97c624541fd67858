"""How many pairs a second a GPU can do at most, by the instructions of our loops."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pylazy.runtime.gpu_devices import GpuProperties

SLOTS_FILE = Path(__file__).parent / "issue_slots.json"
"""Instructions for one pair in the main loops, by pipe; tests/gpu/sass_budget.py counts them in machine code."""
COUNTED_ARCH = "sm_90"

# Lanes of a multiprocessor that start an instruction each cycle: four schedulers issue for a warp of 32 lanes each; the
# rest from "CUDA C++ Programming Guide", table of throughputs.
_LANES = {"issue": 128, "fma": 128, "mufu": 16}
_FP64_LANES = {(8, 0): 32, (9, 0): 64, (10, 0): 64}
_FEW_FP64_LANES = 2


@cache
def slots_of(name: str) -> Mapping[str, float] | None:
    """The instructions for a pair by pipe, with "issue" for all of them; None for a formula that has no count."""
    found: Mapping[str, Any] = json.loads(SLOTS_FILE.read_text(encoding="utf-8"))
    return found[name][COUNTED_ARCH] if name in found else None


def pairs_per_second(slots: Mapping[str, float], gpu: GpuProperties) -> float:
    """The most pairs a second: the busiest pipe, or the slots for issuing, full in every cycle of the highest clock."""
    lanes = {**_LANES, "fp64": _FP64_LANES.get(gpu.capability, _FEW_FP64_LANES)}
    cycles = max(slots[pipe] / lanes[pipe] for pipe in lanes if pipe in slots)
    return gpu.processors * gpu.clock_hertz / cycles
