"""Derivatives of functions of complex NumPy arrays, by the convention of JAX."""

import numpy as np
import pytest
import torch

import pylazy
from pylazy import ComplexLazyTensor, DtypeError, UnsupportedError, Vi, Vj, jvp, vjp

RANDOM = np.random.default_rng(7)


def numbers(*shape):
    return RANDOM.standard_normal(shape) + 1j * RANDOM.standard_normal(shape)


Z, W, X = 0.4 * numbers(7, 3), 0.4 * numbers(5, 3), RANDOM.standard_normal((5, 2))
ALL = (0, 1, 2)


def wave(z, w):
    return (Vi(z) * Vj(w).conj()).sum(-1).exp()


def size(values):
    return (abs(values) ** 2).sum()


FUNCTIONS = {
    "sum": lambda z, w, x: size((wave(z, w) * Vj(x)).sum(axis=1)),
    "mean over rows": lambda z, w, x: (wave(z, w).mean(axis=0) * x[:, :1]).real.sum(),
    "real formula": lambda z, w, x: (abs(Vi(z) - Vj(w)) * Vj(w).angle()).sum(axis=1).sum() + x.sum(),
    "components": lambda z, w, x: size((Vi(z) - Vj(w)).sum(axis=1)) + (x**2).sum(),
    "complex vector": lambda z, w, x: size((-abs(Vi(z) - Vj(w)).sum(-1)).exp() @ (w[:, :2] * x)),
    "complex matrix": lambda z, w, x: size(wave(z, w) @ (w[:, 0] * x[:, 0])),
    "logsumexp": lambda z, w, x: size(wave(z, w).logsumexp(axis=1)) + (x**2).sum(),
    "softmax": lambda z, w, x: size((Vi(z.real).sqdist(Vj(w.real))).sumsoftmaxweight(Vj(w) * Vj(x[:, :1]), axis=1)),
    "var and prod": lambda z, w, x: wave(z, w).var(axis=1).sum() + wave(z, w).prod(axis=1).imag.sum() * x[0, 0],
    "elements": lambda z, w, x: size(np.exp(z) / (2 + z[:1] ** 2) - np.sqrt(z) * np.sin(z) + z**1.5 * 1j) + x.sum(),
    "parts": lambda z, w, x: (z.real * np.angle(z) + np.conj(z).imag * abs(z)).sum() + (w.T @ x).imag.sum(),
    "statistics": lambda z, w, x: np.std(z) + np.linalg.norm(w) + np.vdot(z[0], w[0]).real * np.var(x * w[:, :2]),
    "shapes": lambda z, w, x: (
        size(np.concatenate([z[:5].reshape(3, 5).T, w, x], 1) @ np.ones(8))
        + np.einsum("ij,ik,kj->", w, x, np.hstack([x, x])[:2, :3] * 1j).imag
    ),
    "real to complex": lambda z, w, x: size((x.astype(complex) * (1 + 2j)).sum(0) * np.where(x > 0, w[:, :2], x)),
}


def moved(step, along):
    return [array + step * tangent for array, tangent in zip((Z, W, X), along, strict=True)]


def slope(f, along, step=1e-5):
    return (f(*moved(step, along)) - f(*moved(-step, along))) / (2 * step)


def directions():
    random = np.random.default_rng(3)
    return [
        [(random.standard_normal(a.shape) + 1j * random.standard_normal(a.shape)).astype(a.dtype) for a in (Z, W)]
        + [random.standard_normal(X.shape)]
        for _ in range(2)
    ]


def paired(gradients, along):
    return sum((gradient * tangent).sum().real for gradient, tangent in zip(gradients, along, strict=True))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_match_finite_differences(name):
    f = FUNCTIONS[name]
    first, second = directions()
    gradients = pylazy.grad(f, ALL)(Z, W, X)
    assert [found.dtype for found in gradients] == [Z.dtype, W.dtype, X.dtype]
    expected = slope(f, first)
    np.testing.assert_allclose(paired(gradients, first), expected, rtol=1e-6, atol=1e-7)
    value, tangent = jvp(f, (Z, W, X), first)
    np.testing.assert_allclose((value, tangent), (f(Z, W, X), expected), rtol=1e-6, atol=1e-7)
    of_gradient = slope(lambda *arrays: paired(pylazy.grad(f, ALL)(*arrays), first), second)
    _, moved_gradient = jvp(pylazy.grad(f, ALL), (Z, W, X), second)
    np.testing.assert_allclose(paired(moved_gradient, first), of_gradient, rtol=1e-5, atol=1e-6)


def test_gradient_is_the_conjugate_of_torchs():
    z = torch.tensor(Z, requires_grad=True)
    (abs(z[:, None] * torch.tensor(W).conj()) ** 1.5).sum().backward()
    found = pylazy.grad(lambda z: (abs(Vi(z) * Vj(W).conj()) ** 1.5).sum(axis=1).sum())(Z)
    np.testing.assert_allclose(found, z.grad.conj().resolve_conj().numpy(), rtol=1e-10)


def test_vjp_and_jvp_of_a_holomorphic_function_multiply_by_its_derivative():
    z, cotangent = numbers(4), numbers(4)
    value, pull_back = vjp(np.exp, z)
    np.testing.assert_allclose(pull_back(cotangent)[0], cotangent * value, rtol=1e-14)
    np.testing.assert_allclose(jvp(np.exp, (z,), (cotangent,))[1], cotangent * value, rtol=1e-14)


def test_single_precision_stays_single():
    gradient = pylazy.grad(lambda z: size(wave(z, z).sum(axis=1)))(Z.astype(np.complex64))
    assert gradient.dtype == np.complex64
    np.testing.assert_allclose(gradient, pylazy.grad(lambda z: size(wave(z, z).sum(axis=1)))(Z), rtol=1e-4)


def test_numbers_and_symbolic_reductions_are_arguments():
    assert pylazy.grad(lambda z: abs(z) ** 2)(3 + 4j) == 6 - 8j
    reduction = (ComplexLazyTensor((0, 6, 0)) * Vj(W)).sum(axis=1)
    value, pull_back = vjp(reduction, Z.view(float))
    assert value.dtype == complex
    assert pull_back(value)[0].dtype == float


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda z: z.sum(), DtypeError, "returned complex128, expected a real number"),
        (lambda z: np.maximum(z, 1).real.sum(), UnsupportedError, "numpy.maximum of complex numbers"),
        (lambda z: z.max().real, UnsupportedError, "numpy.max of complex numbers"),
        (lambda z: np.sign(z).real.sum(), UnsupportedError, "numpy.sign of complex numbers"),
        (lambda z: z.astype(float).sum(), DtypeError, "complex numbers of a differentiated function are made float64"),
    ],
)
def test_what_has_no_meaning_is_refused(f, error, message):
    with pytest.raises(error, match=message) as raised:
        pylazy.grad(f)(Z)
    assert "test_complex_gradients.py" in str(raised.value)


def test_complex_tangents_and_cotangents_of_real_arrays_are_refused():
    with pytest.raises(DtypeError, match="tangent 0 is complex, expected real numbers"):
        jvp(np.exp, (X,), (1j * X,))
    _, pull_back = vjp(np.exp, X)
    with pytest.raises(DtypeError, match="the cotangent is complex"):
        pull_back(1j * X)
