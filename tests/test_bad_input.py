"""What is wrong with the input is said in words, and ends at the user's line."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

from pylazy import (
    AxisError,
    DeviceError,
    DtypeError,
    LazyTensor,
    PylazyError,
    ShapeError,
    UnsupportedError,
    Vi,
    Vj,
)
from pylazy.methods.reduction_methods import ReductionMethods

M, N, D = 7, 5, 3
X, Y = np.ones((M, D)), np.ones((N, D))
K = Vi(X).sqdist(Vj(Y))
HUGE = 2**40
NAN = float("nan")


def huge(axis):
    shape = (HUGE, 1, 1) if axis == "i" else (1, HUGE, 1)
    return LazyTensor(np.broadcast_to(np.ones((1, 1, 1)), shape))


CASES = {
    "inner dimensions": (lambda: Vi(X) + Vj(np.ones((N, 2))), ShapeError, "add was given inner dimensions 3, 2"),
    "rows": (lambda: Vi(X) + Vi(Y), ShapeError, "M = 7 and M = 5 along axis i"),
    "columns": (lambda: Vj(X) + Vj(Y), ShapeError, "N = 7 and N = 5 along axis j"),
    "batches": (
        lambda: LazyTensor(np.ones((2, M, 1, D))) + LazyTensor(np.ones((3, 1, N, D))),
        ShapeError,
        r"batch shapes \(2,\) and \(3,\)",
    ),
    "2-D without an axis": (lambda: LazyTensor(X), AxisError, r"axis is not given for a 2-D array of shape \(7, 3\)"),
    "2-D operand": (lambda: Vi(X) * X, AxisError, "axis is not given for a 2-D array"),
    "dense array": (lambda: LazyTensor(np.ones((M, N, D))), AxisError, "varies with i and j at once"),
    "axis of a 3-D array": (lambda: Vi(np.ones((M, 1, D))), AxisError, "expected a 2-D array"),
    "axis of a 1-D array": (lambda: Vi(np.ones(M)), AxisError, r"reshape it, as by x.reshape\(-1, 1\)"),
    "axis of a number": (lambda: LazyTensor(2.0, axis=0), AxisError, r"expected an array of shape \(rows, D\)"),
    "unknown axis of an array": (lambda: LazyTensor(X, axis=3), AxisError, "axis is 3, expected 0"),
    "no components": (lambda: Vi(np.ones((M, 0))), ShapeError, "inner dimension 0, expected at least 1"),
    "long double": (lambda: Vi(X.astype(np.longdouble)), DtypeError, "has dtype float128, expected float32 or float64"),
    "order of complex numbers": (lambda: Vi(X) < 1j, UnsupportedError, "< has no meaning for complex numbers"),
    "foreign byte order": (lambda: Vi(X.astype(">f8")), DtypeError, "has dtype >f8"),
    "objects": (lambda: Vi(X.astype(object)), DtypeError, "has dtype object"),
    "masked array": (lambda: Vi(np.ma.masked_array(X)), DtypeError, "masked array"),
    "text": (lambda: LazyTensor("x"), DtypeError, "str in a formula, expected a LazyTensor"),
    "nothing": (lambda: LazyTensor(None), DtypeError, "NoneType in a formula"),
    "ragged list": (lambda: LazyTensor([1.0, [2.0]]), DtypeError, "in rows of one length"),
    "floor of complex numbers": (lambda: Vi(X + 1j).floor(), UnsupportedError, "floor has no meaning for complex"),
    "part of a reduction": (lambda: Vi(X + 1j).argmin(axis=1), UnsupportedError, "argmin has no meaning for complex"),
    "what has not learnt complex numbers": (
        lambda: ReductionMethods._reduce(Vi(X + 1j), "j", (), {}),
        UnsupportedError,
        "not there for complex LazyTensors",
    ),
    "enormous integer": (lambda: Vi(X) + 10**400, DtypeError, "1329 bits"),
    "truth": (lambda: bool(K), TypeError, "has no truth value"),
    "wrong axis": (
        lambda: K.sum(axis=3),
        AxisError,
        r"axis is 3, no axis of this LazyTensor: its shape is \(7, 5, 1\)",
    ),
    "negative axis": (lambda: K.sum(axis=-4), AxisError, "axis is -4"),
    "batch axis": (lambda: LazyTensor(np.ones((2, M, 1, D))).sum(axis=0), AxisError, "batch dimension"),
    "float axis": (lambda: K.sum(axis=1.0), AxisError, "axis is 1.0"),
    "no axis": (lambda: K.logsumexp(dim=None), AxisError, "axis is None, expected 0"),
    "inner axis of an outer reduction": (lambda: K.logsumexp(axis=-1), AxisError, "axis is -1, the components"),
    "axis of a norm": (lambda: Vi(X).norm(0), AxisError, "dim is 0, expected -1"),
    "axis of a concatenation": (lambda: LazyTensor.cat((Vi(X), Vi(X)), 0), AxisError, "axis is 0, expected -1"),
    "empty concatenation": (lambda: LazyTensor.cat(()), ShapeError, "no tensors to concatenate"),
    "logsumexp of a vector": (lambda: Vi(X).logsumexp(axis=1), ShapeError, "inner dimension 3, expected 1"),
    "component": (lambda: Vi(X)[3], ShapeError, "component 3 of a vector of inner dimension 3"),
    "extract": (lambda: Vi(X).extract(2, 2), ShapeError, "components 2 to 3"),
    "empty slice": (lambda: Vi(X)[2:2], ShapeError, "at least one must be taken"),
    "step": (lambda: Vi(X)[::2], AxisError, "has step 2, expected 1"),
    "batch index": (lambda: LazyTensor(X[None, :, None])[0, :, :], AxisError, "batch dimensions are taken whole"),
    "too many indices": (lambda: Vi(X)[0, 0, 0, 0], AxisError, "this LazyTensor of 3 axes was indexed with 0, 0, 0, 0"),
    "float index": (lambda: Vi(X)[1.0], DtypeError, "expected an integer"),
    "weights of a norm": (
        lambda: Vi(X).weightedsqnorm([1.0, 2.0]),
        ShapeError,
        "s has inner dimension 2, expected 1, 3 or 9",
    ),
    "K above N": (lambda: K.Kmin(6, axis=1), ShapeError, "K is 6, and axis j has 5 elements"),
    "K above M": (lambda: K.argKmin(8, axis=0), ShapeError, "K is 8, and axis i has 7 elements"),
    "K of nothing": (lambda: (Vi(X) * Vj(Y[:0])).Kmin(1, axis=1), ShapeError, "K is 1, and axis j has 0 elements"),
    "K of zero": (lambda: K.Kmin(0, axis=1), ShapeError, "K is 0, expected at least 1"),
    "K that is NaN": (lambda: K.Kmin(NAN, axis=1), DtypeError, "is nan of type float, expected an integer"),
    "K that is a float": (lambda: K.Kmin(2.0, axis=1), DtypeError, "is 2.0 of type float"),
    "axis that is NaN": (lambda: K.sum(axis=NAN), AxisError, "axis is nan"),
    "decimals that are NaN": (lambda: Vi(X).round(NAN), DtypeError, "number of decimals, is nan"),
    "size that is NaN": (lambda: Vi(X).extract(0, NAN), DtypeError, "number of components is nan"),
    "too many pairs": (
        lambda: (huge("i") * huge("j")).sum(axis=1),
        ShapeError,
        "more pairs than 64-bit integers count",
    ),
    "product with a tensor of another size": (lambda: K @ X, ShapeError, "K has 5 columns, v has 7 rows"),
    "product with a number": (lambda: K @ 2.0, ShapeError, "v is float, expected an array"),
    "product of vectors": (lambda: (Vi(X) - Vj(Y)) @ Y, ShapeError, "needs a K of inner dimension 1, found 3"),
    "unknown option": (lambda: K.sum(axis=1, bakend="CPU"), TypeError, "no argument 'bakend'"),
    "unknown backend": (lambda: K.sum(axis=1, backend="TPU"), DeviceError, "backend is 'TPU', expected one of auto"),
    "device_id": (lambda: K.sum(axis=1, device_id="0"), DeviceError, "device_id is '0', expected the number of a GPU"),
    "ranges": (lambda: K.sum(axis=1, ranges=(1,) * 6), DtypeError, "ranges_i of ranges is of type int"),
    "scheme": (lambda: K.sum(axis=1, sum_scheme="pairwise"), UnsupportedError, "sum_scheme is 'pairwise', expected"),
    "accumulator": (lambda: K.sum(axis=1, dtype_acc="float16"), DtypeError, "dtype_acc is 'float16', expected one of"),
    "narrow accumulator": (lambda: K.sum(axis=1, dtype_acc="float32"), DtypeError, "for a formula of float64"),
    "stage": (lambda: K.sum(axis=1, call=False).as_text("wasm"), UnsupportedError, "no stage is called 'wasm'"),
    "out of another shape": (
        lambda: K.sum(axis=1, out=np.ones(M)),
        ShapeError,
        r"out has shape \(7,\), expected \(7, 1\)",
    ),
    "out of another dtype": (
        lambda: K.sum(axis=1, out=np.ones((M, 1), np.float32)),
        DtypeError,
        "out has dtype float32, expected float64",
    ),
    "out that is no array": (
        lambda: K.sum(axis=1, out=[0.0] * M),
        DtypeError,
        "out is of type list, expected a numpy array",
    ),
    "out that is read-only": (
        lambda: K.sum(axis=1, out=np.frombuffer(bytes(8 * M)).reshape(M, 1)),
        ShapeError,
        "out is read-only",
    ),
    "out that is an input": (lambda: Vi(X[:, :1]).sum(axis=1, out=X[:, :1]), ShapeError, "shares memory with an input"),
    "out for two results": (
        lambda: K.min_argmin(axis=1, out=(np.ones((M, 1)),)),
        ShapeError,
        "out has 1 arrays, expected 2",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_error_names_what_was_found_and_ends_at_the_line_of_the_user(name):
    act, kind, message = CASES[name]
    with pytest.raises(kind, match=message) as caught:
        act()
    assert isinstance(caught.value, PylazyError | TypeError)
    message_lines = str(caught.value).splitlines()
    # A lambda of the table starts at its key: the line of the fault is inside it.
    first = inspect.getsourcelines(act)[1]
    place = re.match(r"  at (.*?):(\d+)", message_lines[-1])
    assert place is not None
    assert place[1] == __file__
    assert first <= int(place[2]) <= first + 6
    assert not message_lines[0].endswith(".")


def test_message_starts_in_lower_case_or_with_a_name():
    for act, kind, _ in CASES.values():
        with pytest.raises(kind) as caught:
            act()
        word = str(caught.value).split()[0].rstrip(",")
        assert word.islower() or word.isdigit() or word in ("<", "K", "LazyTensor", "NoneType"), word


def test_array_that_changes_its_shape_is_refused():
    x = np.ones((M, D))
    formula = Vi(x).sum()
    x.resize((1, D), refcheck=False)
    with pytest.raises(ShapeError, match=r"the array of shape \(7, 3\) in this formula now has shape \(1, 3\)"):
        formula.sum(axis=1)


def test_operators_leave_unknown_types_to_python():
    with pytest.raises(TypeError, match="unsupported operand"):
        K + "text"
    with pytest.raises(TypeError, match="unsupported operand"):
        object() - K


def test_numpy_functions_refuse_a_lazy_tensor():
    with pytest.raises(TypeError):
        np.exp(K)
