"""The dialect from Python; its text forms are in lit_tests/dialects."""

import threading

import pytest

from pylazy.compiler.dialects.reduction import (
    attribute,
    is_lazy,
    join_axes,
    lazy_axes,
    lazy_dim,
    lazy_type,
    load_dialect,
)
from pylazy.compiler.dialects.reduction.formula_ops import emit_constant, emit_formula_op, emit_reduce, result_dim
from pylazy.compiler.mlir import ir, new_context


@pytest.mark.parametrize(
    ("op_name", "dims", "expected"),
    [
        ("exp", [3], 3),
        ("add", [3, 1], 3),
        ("add", [3, 2], None),
        ("where", [1, 3, 3], 3),
        ("dot", [3, 3], 1),
        ("dot", [3, 2], None),
        ("norm2", [3], 1),
        ("normalize", [3], 3),
        ("concat", [3, 2], 5),
    ],
)
def test_result_dimension(op_name: str, dims: list[int], expected: "int | None") -> None:
    assert result_dim(op_name, dims) == expected


@pytest.mark.parametrize(
    ("start", "size", "expected"), [(0, 3, 3), (2, 1, 1), (2, 2, None), (-1, 1, None), (0, 0, None)]
)
def test_extract_stays_inside(start: int, size: int, expected: "int | None") -> None:
    assert result_dim("extract", [3], start=start, size=size) == expected


def test_axes_are_joined_in_one_order() -> None:
    assert join_axes(["j", "i"]) == "ij"
    assert join_axes(["", "j"]) == "j"
    assert join_axes([]) == ""


@pytest.mark.usefixtures("context")
def test_op_that_does_not_fit_is_not_built() -> None:
    one = emit_detached_constant()
    with pytest.raises(ValueError, match="inner dimensions \\[1\\]"):
        emit_formula_op("extract", one, start=1, size=1)


@pytest.mark.usefixtures("context")
def test_values_know_their_axes_and_dimension() -> None:
    value = emit_detached_constant()
    assert (lazy_axes(value), lazy_dim(value)) == ("", 1)


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('!reduction.lazy<"ij", vector<3xf32>>', True),
        ('!reduction.lazy<"ji", vector<3xf32>>', False),
        ('!reduction.lazy<"i", vector<2x3xf32>>', False),
        ('!reduction.lazy<"i", f32>', False),
        ("f32", False),
    ],
)
def test_well_formed_lazy_types_are_told_from_others(text: str, expected: bool) -> None:
    assert is_lazy(ir.Type.parse(text)) is expected


@pytest.mark.usefixtures("context")
def test_lazy_type_is_written_with_its_axes_and_vector() -> None:
    text = '!reduction.lazy<"i", vector<3xf32>>'
    assert str(lazy_type("i", ir.VectorType.get([3], ir.F32Type.get()))) == text


@pytest.mark.usefixtures("context")
def test_attributes_are_read_as_python_values() -> None:
    operation = emit_detached_constant().owner
    operation.attributes["numbers"] = ir.Attribute.parse("[1, 2]")
    assert attribute(operation, "value") == 1.5
    assert attribute(operation, "numbers") == (1, 2)
    assert attribute(operation, "missing", 7) == 7


def test_module_prints_outside_of_its_context() -> None:
    with new_context(), ir.Location.unknown():
        load_dialect()
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            emit_reduce(emit_constant(1.0, ir.F32Type.get()), kind="sum", axis="j")
    assert "tensor<?x1xf32>" in str(module)


def test_dialect_loads_in_several_threads_at_once() -> None:
    failures: list[BaseException] = []

    def load() -> None:
        try:
            with new_context(), ir.Location.unknown():
                load_dialect()
                assert lazy_dim(emit_detached_constant()) == 1
        except (AssertionError, RuntimeError) as error:
            failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


_modules = []


def emit_detached_constant() -> ir.Value:
    """Build a constant in a module of its own, which lives until the end of the tests."""
    module = ir.Module.create()
    _modules.append(module)
    with ir.InsertionPoint(module.body):
        return emit_constant(1.5, ir.F32Type.get())
