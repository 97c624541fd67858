"""Nodes of a formula: keys, locations, sharing."""

# ruff: noqa: N806  a kernel matrix is called K

from __future__ import annotations

import copy
import gc
import inspect
import os
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from pylazy import LazyTensor, Pm, Vi, Vj, forms
from pylazy.canonical_form import Flattened
from pylazy.expression import apply, constant
from pylazy.operations import OPERATIONS, broadcast_dim, soft_dtw_derivative_dim, soft_dtw_dim
from pylazy.user_positions import resolve

X, Y = np.ones((7, 3)), np.zeros((5, 3))


def lines_of(lazy):
    return lazy.sum(axis=1, call=False).as_text("expression").splitlines()


def entries_of(lazy):
    return Flattened([lazy._expression]).entries


def gaussian(x, y):
    return (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp()


def test_formulas_of_one_structure_have_one_key_whatever_the_data():
    assert entries_of(gaussian(X, Y)) == entries_of(gaussian(X + 1, Y + 1))


def test_key_does_not_depend_on_the_order_of_building():
    def first():
        left = Vi(X).exp()
        return left + Vj(Y).sin()

    def second():
        right = Vj(Y).sin()
        return Vi(X).exp() + right

    assert entries_of(first()) == entries_of(second())


def test_key_tells_axes_inner_dimensions_and_operand_order_apart():
    formulas = [Vi(X) - Vj(Y), Vj(Y) - Vi(X), Vi(X) - Vi(X), Vi(X[:, :1]) - Vj(Y), Vi(X) - Pm(Y[0])]
    assert len({entries_of(formula) for formula in formulas}) == len(formulas)


def test_equal_subexpressions_share_one_entry():
    repeated = (Vi(X) - Vj(Y)).sqnorm2() + (Vi(X) - Vj(Y)).sqnorm2()
    assert [entry[0] for entry in entries_of(repeated)] == ["var", "var", "sub", "sqnorm2", "add"]


def test_formula_that_is_built_again_has_the_form_of_the_first_time():
    assert gaussian(X, Y)._expression.form is gaussian(X + 1, Y[:2])._expression.form is not None


def test_forms_tell_apart_what_keys_tell_apart():
    formulas = [
        Vi(X) - Vj(Y), Vj(Y) - Vi(X), Vi(X) - Vi(X), Vi(X) - Vi(X + 1), Vi(X[:, :1]) - Vj(Y), Vi(X) - Pm(Y[0]),
        Vi(X) * 2, Vi(X) * 3, Vi(X) * 2.0, Vi(X).where(Vi(X), Vj(Y)), Vi(X).where(Vj(Y), Vi(X)),
        Vi(X).where(Vj(Y), Vj(Y)), Vi(X.astype(np.float32)) - Vj(Y), Vi(X) + Vi(X).row_index(),
        Vi(X) + Vi(X).column_index(),
    ]  # fmt: skip
    assert len({id(formula._expression.form) for formula in formulas}) == len(formulas)


def test_results_of_one_form_are_those_of_their_own_data():
    for x, y in ((X, Y), (X + 1, Y), (X, X), (Y, X)):
        np.testing.assert_allclose(gaussian(x, y).sum(1)[:, 0], np.exp(-((x[:, None] - y) ** 2).sum(-1)).sum(1))
        weighted = (Vi(x) * Vj(y)).sum(-1).logsumexp(1, weight=Vj(y + 3))
        np.testing.assert_allclose(weighted, np.log(np.exp(x @ y.T) @ (y + 3)))


def test_formula_of_many_arrays_has_no_form_and_the_right_result():
    arrays = [X + number for number in range(40)]
    total = sum(Vi(array) for array in arrays)
    assert total._expression.form is None
    np.testing.assert_allclose(total.sum(0), np.sum(arrays, axis=0).sum(0)[None])


def test_forms_are_found_anew_after_the_table_was_emptied(monkeypatch):
    monkeypatch.setattr(forms, "_MAX_FORMS", 3)
    K = gaussian(X, Y)
    np.testing.assert_allclose((K + K.sqrt()).sum(1), (gaussian(X, Y) + gaussian(X, Y).sqrt()).sum(1))


def test_one_array_as_two_variables_is_one_input_for_each_axis():
    both = Vi(X) - Vj(X)
    assert len(Flattened([both._expression]).sources) == 2
    twice = Vi(X) + Vi(X).exp()
    assert len(Flattened([twice._expression]).sources) == 1


def test_float_is_an_input_so_that_another_value_needs_no_other_kernel():
    assert entries_of(Vi(X) * 0.25) == entries_of(Vi(X) * 0.75)


def test_integer_is_part_of_the_formula_exactly():
    assert entries_of(Vi(X) * 2) != entries_of(Vi(X) * 3)
    assert f"%1 = constant {2**53 + 1}" in lines_of(Vi(X) + (2**53 + 1))


def test_constants_of_different_type_or_sign_differ():
    nodes = [constant(1), constant(1.0), constant(0.0), constant(-0.0), constant(float("nan")), constant(0.1)]
    assert len({Flattened([node]).entries for node in nodes}) == len(nodes)


def test_too_many_numbers_for_a_kernel_become_constants():
    total = Vi(X)
    for k in range(300):
        total = total + (k + 0.5)
    request = total.sum(axis=1, call=False)._job.executable.request
    assert len(request.inputs) == 1
    assert request.nodes[-1].op == "add"


def test_formula_deeper_than_the_recursion_limit_is_keyed():
    total = Vi(X)
    for _ in range(sys.getrecursionlimit() + 1000):
        total = total.sin()
    assert len(entries_of(total)) == sys.getrecursionlimit() + 1001
    assert len(entries_of(total.T)) == sys.getrecursionlimit() + 1001


def test_digest_is_the_same_in_every_process():
    source = (
        "import numpy as np\n"
        "from pylazy import Vi, Vj\n"
        "K = (-((Vi(np.ones((7, 3))) - Vj(np.zeros((5, 3)))) ** 2).sum(-1) / 2).exp() ** 1.5\n"
        "print(K.sum(axis=1, call=False)._job.executable.request.digest())\n"
    )
    folder = str(Path(__file__).parents[1])
    digests = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": folder}
        run = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, env=environment, check=True
        )
        digests.add(run.stdout)
    assert len(digests) == 1


def test_location_is_the_line_of_the_user():
    line = inspect.currentframe().f_lineno + 1
    location = (Vi(X) - Vj(Y)).sum(-1)._expression.location
    assert (location.filename, location.line) == (__file__, line)
    assert location.function == "test_location_is_the_line_of_the_user"
    if sys.version_info >= (3, 11):
        assert location.column == 15


def test_location_is_no_part_of_the_key():
    first = Vi(X).exp()
    second = Vi(X).exp()
    assert first._expression.location != second._expression.location
    assert entries_of(first) == entries_of(second)


def test_position_of_code_without_lines_resolves():
    namespace = {"Vi": Vi, "X": X}
    exec("a = Vi(X)\nb = a.exp()", namespace)
    assert resolve(namespace["b"]._expression.position).line == 2


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_lazy_tensor_survives_copy_and_pickle(duplicate):
    original = gaussian(X, Y) * 0.5
    again = duplicate(original)
    assert entries_of(again) == entries_of(original)
    assert again.shape == original.shape
    assert again._expression.location == original._expression.location


def test_no_reference_cycle_keeps_data_alive():
    gc.collect()
    gc.disable()
    try:
        x = np.ones((7, 3))
        alive = weakref.ref(x)
        K = gaussian(x, Y)
        K.sum(axis=1, call=False)
        del K, x
        assert alive() is None
    finally:
        gc.enable()


def test_every_operation_of_the_table_can_be_built_and_has_a_meaning():
    leaf, component = Vi(X)._expression, Vi(X)[0]._expression
    defaults = {"exponent": 3, "start": 1, "size": 2}
    defaults |= {"sizes": (3, 3), "left": (0,), "right": (1,), "kept": (1, 0)}
    for row in OPERATIONS.values():
        attributes = tuple((name, defaults[name]) for name in row.attributes)
        operand = component if row.shape in (broadcast_dim, soft_dtw_dim, soft_dtw_derivative_dim) else leaf
        operands = [operand] * row.arity
        if row.name == "soft_dtw_hessian":
            operands[3] = leaf  # three components for two series and gamma of one each
        node = apply(row.name, tuple(operands), attributes)
        assert node.dim >= 1
        assert node.axes == "i"
        assert row.meaning


def test_canonical_text_is_one_line_for_each_value():
    assert lines_of((Vi(X) - Vj(Y)).sqnorm2() * 2) == [
        "reduction request 1, float64",
        "%0 = var 0 axis=i dim=3",
        "%1 = var 1 axis=j dim=3",
        "%2 = sub %0 %1",
        "%3 = sqnorm2 %2",
        "%4 = constant 2",
        "%5 = mul %3 %4",
        "sum over j %5 -> float64x1",
    ]


def test_import_loads_no_compiler_and_no_torch():
    source = (
        "import sys\n"
        "import pylazy\n"
        "pylazy.LazyTensor\n"
        "loaded = [name for name in sys.modules if name.split('.')[0] in ('torch', 'torch_mlir', 'mlir', 'llvmlite')]\n"
        "assert not loaded, loaded\n"
        "assert not any(name.startswith('pylazy.compiler') for name in sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", source], env=environment, check=True)


def test_lazy_tensor_is_hashable_by_identity():
    a, b = LazyTensor(X[:, None]), LazyTensor(X[:, None])
    assert len({a, b, a}) == 2
