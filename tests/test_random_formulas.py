"""Random formulas, axes, dtypes and layouts against the oracle."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from random_formulas import REPLAY, check_random_formula

FORMULAS = 2000
SHARES = 8  # so that processes can share the work


@pytest.mark.parametrize("share", range(SHARES))
def test_random_formulas_match_oracle(share):
    seeds = st.integers(0, 2**32 // SHARES - 1).map(lambda number: number * SHARES + share)

    # Not shrunk: a smaller seed is no simpler formula.
    @settings(
        max_examples=FORMULAS // SHARES,
        deadline=None,  # each formula is compiled
        derandomize=True,  # the same formulas at each run
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(seeds)
    def check(seed):
        try:
            check_random_formula(seed)
        except Exception as error:
            raise AssertionError(f"the formula of seed {seed} is wrong: replay it by {REPLAY} {seed}") from error

    check()
