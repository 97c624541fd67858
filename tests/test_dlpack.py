"""Arrays of other libraries, read through DLPack, give results of the same library."""

from __future__ import annotations

import copy
import pickle
import types

import numpy as np
import pytest
import torch

import pylazy
from pylazy import Genred, LazyTensor, Pm, Vi, Vj
from pylazy.runtime.errors import DeviceError, DtypeError, UnsupportedError
from reference import assert_close

M, N, D = 7, 300, 3
RNG = np.random.default_rng(0)
X, Y, B = (RNG.standard_normal(shape).astype(np.float32) for shape in ((M, D), (N, D), (N,)))


class Exposed:
    """All that the protocol asks for, over a NumPy array; says nothing of its library."""

    def __init__(self, array, device=(1, 0)):
        self.array = array
        self.device = device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device


class Foreign(Exposed):
    """An array of a library that names its namespace."""

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)

    def __array_namespace__(self):
        return foreign


class Other(Foreign):
    def __array_namespace__(self):
        return types.SimpleNamespace(__name__="other", from_dlpack=lambda result: result)


foreign = types.SimpleNamespace(__name__="foreign", from_dlpack=lambda result: Foreign(np.from_dlpack(result)))


def gaussian(x, y, scale=0.5):
    return (-((Vi(x) - Vj(y)) ** 2).sum(-1) * scale).exp()


EXPECTED = gaussian(X, Y).sum(axis=1)


def test_an_array_that_names_no_library_gives_numpy():
    found = gaussian(Exposed(X), Exposed(Y)).sum(axis=1)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, EXPECTED)


def test_results_are_made_by_the_namespace_of_the_inputs():
    k = gaussian(Foreign(X), Y)
    found = k.sum(axis=1)
    assert isinstance(found, Foreign)
    np.testing.assert_array_equal(found.array, EXPECTED)
    values, positions = k.max_argmax(axis=1)
    assert isinstance(values, Foreign)
    assert positions.array.dtype == np.int64
    assert isinstance(k.std(axis=1), Foreign)
    assert isinstance(k.any(axis=1), Foreign)


def test_data_is_not_copied():
    x = X.copy()
    k = gaussian(Foreign(x), Exposed(Y))
    x[:] = 2.0
    np.testing.assert_array_equal(k.sum(axis=1).array, gaussian(x, Y).sum(axis=1))
    assert np.shares_memory(Vi(Exposed(x))._expression.source.array, x)


@pytest.mark.parametrize("make", [Foreign, Exposed])
def test_products_parameters_weights_and_operators_take_them(make):
    scale = np.array([0.5], np.float32)
    k = gaussian(X, Y, scale=Pm(make(scale)))
    reference = gaussian(X, Y, scale=Pm(scale))
    pairs = [
        (k @ make(B), reference @ B),
        (k.logsumexp(axis=1, weight=make(Y[None])), reference.logsumexp(axis=1, weight=Y[None])),
        (k.sumsoftmaxweight(Vj(make(Y)), axis=1), reference.sumsoftmaxweight(Vj(Y), axis=1)),
        ((make(X[:, None]) * k + make(scale)).sum(axis=1), (X[:, None] * reference + scale).sum(axis=1)),
        (LazyTensor(make(X[:, None])).sum(axis=1), LazyTensor(X[:, None]).sum(axis=1)),
    ]
    for found, expected in pairs:
        assert isinstance(found, Foreign if make is Foreign else np.ndarray)
        np.testing.assert_array_equal(getattr(found, "array", found), expected)


@pytest.mark.parametrize("make", [Foreign, Exposed])
def test_genred_and_bundles_take_them(make, tmp_path):
    run = Genred("Exp(-p * SqDist(x, y))", ["x = Vi(3)", "y = Vj(3)", "p = Pm(1)"], "Sum", axis=1)
    bundle = pylazy.Bundle()
    bundle.add(gaussian(X, Y).sum(axis=1, call=False), name="gaussian", arguments=("x", "y"), gradients=False)
    bundle.compile(targets=[pylazy.execution.programs.host_target()]).save(tmp_path / "k.plzb")
    loaded = pylazy.load_bundle(tmp_path / "k.plzb").gaussian
    for _ in range(2):
        for found in (run(make(X), make(Y), 0.5), loaded(make(X), Y)):
            assert isinstance(found, Foreign if make is Foreign else np.ndarray)
            assert_close(getattr(found, "array", found), EXPECTED, dtype=np.float32, columns=N)


def test_solutions_of_arrays_with_a_namespace_are_theirs():
    expected = gaussian(X, X).solve(B[:M, None], alpha=0.5)
    for x, b in ((Foreign(X), Foreign(B[:M, None])), (X, Foreign(B[:M, None])), (Foreign(X), B[:M, None])):
        found = gaussian(x, x).solve(b, alpha=0.5)
        assert isinstance(found, Foreign)
        np.testing.assert_array_equal(found.array, expected)


def test_every_dtype_is_read():
    for dtype in (np.float16, np.int8, np.int64, np.bool_):
        x = (X > 0).astype(dtype)
        np.testing.assert_array_equal(gaussian(Exposed(x), Y).sum(axis=1), gaussian(x, Y).sum(axis=1))
    with pytest.raises(DtypeError, match=r"dtype complex64, expected float32|complex"):
        Vi(Exposed(X.astype(np.complex64)))


def test_formulas_with_them_are_copied_with_their_library():
    k = gaussian(Foreign(X), Y)
    np.testing.assert_array_equal(copy.copy(k).sum(axis=1).array, EXPECTED)
    assert pickle.loads(pickle.dumps(Vi(Exposed(X)))).sum(axis=1).shape == (M, D)


def test_two_libraries_are_refused():
    for second in (Other(Y), torch.from_numpy(Y)):
        with pytest.raises(DtypeError, match=r"are of foreign and (other|torch), expected one library besides NumPy"):
            gaussian(Foreign(X), second).sum(axis=1)
        with pytest.raises(DtypeError, match="expected one library besides NumPy"):
            (gaussian(X, Y) * Vi(second[:M] if second.__class__ is torch.Tensor else Other(X)) + Vi(Foreign(X))).sum(1)


def test_arrays_on_other_devices_are_refused():
    for read in (Vi, LazyTensor, lambda x: gaussian(X, Y) @ x, lambda x: gaussian(X, Y) * x):
        with pytest.raises(DeviceError, match="type Foreign lies on the DLPack device 10, expected the CPU") as caught:
            read(Foreign(X, device=(10, 0)))
        assert __file__ in str(caught.value)


def test_arrays_that_cannot_be_read_are_refused():
    class Broken(Exposed):
        def __dlpack__(self, **options):
            raise BufferError("exported already")

    with pytest.raises(DtypeError, match="type Broken cannot be read through DLPack, BufferError: exported already"):
        Vi(Broken(X))


def test_out_is_refused():
    with pytest.raises(UnsupportedError, match="arrays of this library cannot be written in place"):
        gaussian(Foreign(X), Y).sum(axis=1, out=np.empty((M, 1), np.float32))


@pytest.fixture(name="jnp")
def import_jax():
    return pytest.importorskip("jax.numpy", reason="jax is not installed")


def test_jax_arrays_give_jax_arrays(jnp):
    x, y, b = jnp.asarray(X), jnp.asarray(Y), jnp.asarray(B)
    k = gaussian(x, y)
    for found in (k.sum(axis=1), gaussian(X, y).sum(axis=1), gaussian(x, Y).sum(axis=1)):
        assert isinstance(found, jnp.ndarray)
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, EXPECTED)
    np.testing.assert_array_equal(k @ b, gaussian(X, Y) @ B)
    np.testing.assert_array_equal((b[None, :, None] * k).sum(axis=1), (B[None, :, None] * gaussian(X, Y)).sum(axis=1))
    np.testing.assert_array_equal(k.argmin(axis=1), gaussian(X, Y).argmin(axis=1))
    empty = gaussian(x[:0], y).sum(axis=1)
    assert (empty.shape, isinstance(empty, jnp.ndarray)) == ((0, 1), True)


RESULTS_OF_X = {
    "spread": lambda x, b: gaussian(x, x).var(axis=1),
    "later": lambda x, b: gaussian(x, x).std(axis=0, call=False)(),
    "dense": lambda x, b: gaussian(x, x).dense(),
    "diagonal": lambda x, b: gaussian(x, x).diagonal(),
    "entries": lambda x, b: gaussian(x, x)[1:3, [0, 2]].dense(),
    "solution": lambda x, b: gaussian(x, x).solve(b, alpha=0.5),
    "of a formula": lambda x, b: gaussian(x, x).solve(Vi(b[:, None]), alpha=0.5, preconditioner="jacobi"),
    "of an operator": lambda x, b: (gaussian(x, x) + gaussian(x, x) + 0.5 * pylazy.identity()).solve(b),
    "image": lambda x, b: (gaussian(x, x) + 0.5 * pylazy.identity()) @ b,
    "of KernelSolve": lambda x, b: pylazy.KernelSolve(
        "Exp(-SqDist(x, y)) * b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], "b", axis=1
    )(x, x, b[:, None], alpha=0.5),
}


@pytest.mark.parametrize("name", RESULTS_OF_X)
def test_jax_arrays_give_jax_arrays_of_all_else(jnp, name):
    found = RESULTS_OF_X[name](jnp.asarray(X), jnp.asarray(B[:M]))
    assert isinstance(found, jnp.ndarray)
    np.testing.assert_allclose(found, RESULTS_OF_X[name](X, B[:M]), rtol=1e-5, atol=1e-6)


def test_jax_arrays_of_16_bits_and_integers(jnp):
    for dtype in (jnp.float16, jnp.bfloat16, jnp.int8, jnp.int32, jnp.bool_):
        x = jnp.asarray(X > 0).astype(dtype)
        found = (Vi(x) * Vj(x)).sum(axis=1)
        assert isinstance(found, jnp.ndarray)
        if jnp.issubdtype(dtype, jnp.floating):
            assert found.dtype == dtype
        expected = (Vi(np.asarray(x, np.float32)) * Vj(np.asarray(x, np.float32))).sum(axis=1)
        np.testing.assert_array_equal(np.asarray(found, np.float32), expected)


def test_jax_and_torch_are_refused_together(jnp):
    with pytest.raises(DtypeError, match=r"are of jax\.numpy and torch, expected one library besides NumPy"):
        gaussian(jnp.asarray(X), torch.from_numpy(Y)).sum(axis=1)


def test_jax_arrays_under_trace_are_refused(jnp):
    jax = pytest.importorskip("jax", reason="jax is not installed")
    with pytest.raises(DtypeError, match="cannot be read through DLPack"):
        jax.jit(lambda x: gaussian(x, Y).sum(axis=1))(jnp.asarray(X))
