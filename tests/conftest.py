"""What tests of the compiler share."""

from collections.abc import Iterator

import pytest


@pytest.fixture
def context() -> Iterator[None]:
    """A context with the dialect and an unknown location, entered for the time of the test."""
    from pylazy.compiler.dialects.reduction import load_dialect
    from pylazy.compiler.mlir import ir, new_context

    with new_context(), ir.Location.unknown():
        load_dialect()
        yield
