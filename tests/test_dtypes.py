"""Dtypes of inputs: 16-bit floats, integers and bool, and how they promote."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import pylazy
from pylazy import Genred, LazyTensor, Pm, Vi, Vj
from pylazy.runtime.errors import DtypeError
from reference import assert_close, evaluate_dense, reduce_dense

M, N, D = 7, 300, 3
NUMPY_DTYPES = (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64",
)  # fmt: skip
TORCH_DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


def numpy_array(dtype, *shape):
    return np.random.default_rng(7).integers(0, 3, shape).astype(dtype)


def tensor(dtype, *shape):
    return torch.from_numpy(np.random.default_rng(7).integers(0, 3, shape)).to(getattr(torch, dtype))


def name_of(array):
    return str(array.dtype).removeprefix("torch.")


def sqdist(x, y):
    return ((Vi(x) - Vj(y)) ** 2).sum(-1)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations_with_replacement(NUMPY_DTYPES, 2)))
def test_promotion_is_that_of_numpy(first, second):
    expected = np.result_type(first, second)
    expected = str(expected) if expected.kind == "f" else "float64"
    x, y = numpy_array(first, M, D), numpy_array(second, N, D)
    found = sqdist(x, y)
    assert found.dtype == expected
    result = found.sum(axis=1)
    assert name_of(result) == expected
    np.testing.assert_array_equal(result, reduce_dense("sum", [evaluate_dense(found)], axis="j"))


@pytest.mark.parametrize(
    "three", list(itertools.combinations(("bool", "uint8", "int8", "uint16", "float16", "float32"), 3))
)
def test_promotion_depends_on_no_order(three):
    expected = np.result_type(*three)
    for order in itertools.permutations(three):
        x, y, p = (numpy_array(dtype, *shape) for dtype, shape in zip(order, ((M, 1), (N, 1), (1, 1)), strict=True))
        found = (Vi(x) * Vj(y) * Pm(p)).dtype
        assert found == (str(expected) if expected.kind == "f" else "float64")


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_tensors_of_every_dtype_are_read(dtype):
    x, y = tensor(dtype, M, D), tensor(dtype, N, D)
    found = sqdist(x, y)
    result = found.sum(axis=1)
    assert name_of(result) == found.dtype == (dtype if "float" in dtype else "float64")
    expected = reduce_dense("sum", [evaluate_dense(found)], axis="j")
    np.testing.assert_allclose(result.double(), expected, rtol=EPS.get(dtype, 0))


MIXED = [
    ("float16", "bfloat16", "float32"),
    ("bfloat16", "int8", "bfloat16"),
    ("bfloat16", "int16", "float32"),
    ("bfloat16", "float32", "float32"),
    ("bfloat16", "int64", "float64"),
    ("float32", "int64", "float64"),
    ("float32", "bool", "float32"),
]


@pytest.mark.parametrize(("first", "second", "expected"), MIXED)
def test_tensors_promote_as_arrays_do(first, second, expected):
    found = sqdist(tensor(first, M, D), tensor(second, N, D))
    assert found.dtype == name_of(found.sum(axis=1)) == expected


def test_numbers_and_zero_dimensional_arrays_give_way():
    x = Vi(tensor("bfloat16", M, D))
    assert (x * 2 + 0.5).dtype == "bfloat16"
    assert (x * np.float64(3)).dtype == "bfloat16"
    assert (x * torch.tensor(3)).dtype == "bfloat16"
    assert (Vi(numpy_array("float16", M, D)) * np.array(3, np.int64)).dtype == "float16"
    assert name_of((LazyTensor(np.array(3, np.int32)) * 2).sum(axis=1)) == "float64"
    assert name_of((LazyTensor(np.array(3, np.float16)) * 2).sum(axis=1)) == "float16"


def test_arithmetic_of_16_bit_floats_is_that_of_float32():
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((count, D)).astype(np.float16) for count in (M, N))
    wide = ((Vi(x.astype(np.float32)) - Vj(y.astype(np.float32))) ** 2).sum(-1)
    for reduce in (
        lambda k: (-k).exp().sum(axis=1),
        lambda k: k.logsumexp(axis=0),
        lambda k: k.min(axis=1),
        lambda k: k.mean(axis=1),
        lambda k: k.std(axis=1),
        lambda k: k.Kmin(3, axis=1),
        lambda k: k.sumsoftmaxweight(Vj(y), axis=1).astype(np.float16),
        lambda k: k @ y[:, 0],
    ):
        np.testing.assert_array_equal(reduce(sqdist(x, y)), reduce(wide).astype(np.float16))
    # 2049 is no float16: the sum runs in float32, and only the result is rounded.
    assert (Vi(np.ones((1, 1), np.float16)) * Vj(np.ones((2051, 1), np.float16))).sum(axis=1)[0, 0] == 2052


def test_values_beyond_float16_become_infinite():
    x = np.full((M, 1), 60000, np.float16)
    np.testing.assert_array_equal((Vi(x) + Vj(x)).sum(axis=1), np.full((M, 1), np.inf))
    np.testing.assert_array_equal((Vi(x) * Vj(x)).logsumexp(axis=0, weight=Vj(x) * 0), np.full((M, 1), -np.inf))


def test_positions_counts_and_truths_keep_their_dtypes():
    k = sqdist(numpy_array("float16", M, D), numpy_array("int8", N, D))
    assert [name_of(k.argmin(axis=1)), name_of(k.count(axis=1)), name_of(k.any(axis=1))] == ["int64", "int64", "bool"]
    assert [name_of(part) for part in k.min_argmin(axis=1)] == ["float16", "int64"]


def test_int64_beyond_two_to_the_53_is_rounded_as_a_conversion_does():
    x = np.array([[2**53 + 1], [-(2**62) - 1]])
    np.testing.assert_array_equal(Vi(x).sum(axis=1), x.astype(np.float64))


def test_rows_that_are_not_contiguous_and_batches_are_converted():
    x = numpy_array("int16", 3, M, 2 * D)[:, :, None, ::2]
    y = np.broadcast_to(numpy_array("float16", 1, 1, N, D), (3, 1, N, D))
    found = (LazyTensor(x) * LazyTensor(y)).sum(-1)
    assert found.dtype == "float32"
    assert_close(found.sum(axis=2), reduce_dense("sum", [evaluate_dense(found)], axis="j"), dtype=np.float32, columns=N)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_come_back_in_the_dtype_of_the_leaf(dtype):
    rng = np.random.default_rng(0)
    leaves = [torch.from_numpy(rng.standard_normal((count, D))).to(getattr(torch, dtype)) for count in (M, N)]
    narrow = [leaf.clone().requires_grad_() for leaf in leaves]
    wide = [leaf.double().requires_grad_() for leaf in leaves]
    for x, y in (narrow, wide):
        kernel = (-sqdist(x, y)).exp()
        (kernel.sum(axis=1).sum() + kernel.logsumexp(axis=1).sum() + sqdist(x, y).min(axis=1).sum()).backward()
    for found, expected in zip(narrow, wide, strict=True):
        assert found.grad.dtype == found.dtype
        error = (found.grad.double() - expected.grad).abs().max()
        assert error <= 4 * EPS[dtype] * expected.grad.abs().max()


def test_integers_have_no_gradient_and_floats_beside_them_do():
    x = tensor("float16", M, D).requires_grad_()
    result = (Vi(x) * Vj(tensor("int64", N, D))).sum(axis=1)
    assert result.dtype == torch.float64
    result.sum().backward()
    assert x.grad.dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    x, y = torch.randn(M, D, requires_grad=True), torch.randn(N, D)
    outside = (-sqdist(x, y)).exp().logsumexp(axis=1)
    with torch.autocast("cpu", dtype=dtype):
        inside = (-sqdist(x, y)).exp().logsumexp(axis=1)
        (gradient,) = torch.autograd.grad(inside.sum(), x)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
    assert torch.equal(gradient, torch.autograd.grad(outside.sum(), x)[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_out_is_of_the_dtype_of_the_result(dtype):
    x, y = tensor(dtype, M, D), tensor(dtype, N, D)
    k = sqdist(x, y)
    out = torch.empty(M, 1, dtype=getattr(torch, dtype))
    assert k.sum(axis=1, out=out) is out
    assert torch.equal(out, k.sum(axis=1))
    with pytest.raises(DtypeError, match=f"out has dtype float32, expected {dtype}, the dtype of the result"):
        k.sum(axis=1, out=torch.empty(M, 1))
    spread = torch.empty(M, 1, dtype=getattr(torch, dtype))
    assert torch.equal(k.var(axis=1, out=spread), k.var(axis=1))


def test_genred_and_symbolic_variables_take_every_dtype():
    distance = Genred("SqDist(x, y)", ["x = Vi(3)", "y = Vj(3)"], "Sum", axis=1)
    template = ((Vi(0, D) - Vj(1, D)) ** 2).sum(-1).sum(axis=1)
    for first, second, expected in (("float16", "float16", "float16"), ("int8", "float32", "float32"), *MIXED):
        x, y = tensor(first, M, D), tensor(second, N, D)
        for run in (distance, template):
            for _ in range(2):  # the second call finds the plan of the first
                assert name_of(run(x, y)) == expected
                assert torch.equal(run(x, y), sqdist(x, y).sum(axis=1))
    assert name_of(distance(numpy_array("int64", M, D), numpy_array("bool", N, D))) == "float64"


def test_bundles_of_float32_read_narrower_dtypes(tmp_path):
    x, y = numpy_array("float16", M, D), numpy_array("int8", N, D)
    bundle = pylazy.Bundle()
    bundle.add(sqdist(x, y).sum(axis=1, call=False), name="distance", arguments=("x", "y"), gradients=False)
    bundle.compile(targets=[pylazy.execution.programs.host_target()]).save(tmp_path / "k.plzb")
    distance = pylazy.load_bundle(tmp_path / "k.plzb").distance
    for _ in range(2):
        np.testing.assert_array_equal(distance(x, y), sqdist(x, y).sum(axis=1).astype(np.float32))
    assert distance(x, y).dtype == np.float32
    with pytest.raises(DtypeError, match="y has dtype int64, and distance was compiled for float32"):
        distance(x, y.astype(np.int64))


def test_bfloat16_arrays_of_numpy_are_known_by_name():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    x, y = numpy_array(ml_dtypes.bfloat16, M, D), numpy_array(ml_dtypes.bfloat16, N, D)
    found = sqdist(x, y)
    result = found.sum(axis=1)
    assert found.dtype == name_of(result) == "bfloat16"
    np.testing.assert_array_equal(result, sqdist(x.astype("f"), y.astype("f")).sum(axis=1).astype(ml_dtypes.bfloat16))
    out = np.empty((M, 1), ml_dtypes.bfloat16)
    assert found.sum(axis=1, out=out) is out
    assert sqdist(x, tensor("bfloat16", N, D)).sum(axis=1).dtype == torch.bfloat16
    assert sqdist(x, numpy_array("int16", N, D)).dtype == "float32"


@pytest.mark.parametrize("dtype", ["longdouble", "S1", "M8[s]", "object"])
def test_other_dtypes_are_refused_with_what_is_expected(dtype):
    x = np.zeros((M, D)).astype(dtype)
    with pytest.raises(DtypeError, match="expected float32 or float64, a 16-bit float, integers or bool"):
        Vi(x)


def test_other_byte_orders_are_refused():
    with pytest.raises(DtypeError, match="has dtype >f4, expected float32"):
        Vi(np.zeros((M, D), ">f4"))


def test_numpy_alone_needs_no_torch():
    code = (
        "import sys, numpy, pylazy; x = numpy.ones((4, 2), 'float16');"
        "assert (pylazy.Vi(x) * pylazy.Vj(x)).sum(axis=1).dtype == 'float16'; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
