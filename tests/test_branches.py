"""Derivatives of formulas with branches: those of the branch that is taken, whatever the other one does."""

import numpy as np
import pytest
import torch

import pylazy
from pylazy import Pm, Vi, Vj

X = np.array([[-1.0, 0.0], [0.5, 2.0], [3.0, -0.5]])
Y = np.array([[1.0, 1.0], [-2.0, 0.0]])
P = np.array([0.7])


def of_both(d, x, y, r):
    return (d > 0).where(r, x) + (d > 1).where(r.square(), y)


# Each formula, and the same where the branch that is not taken gets an argument that does it no harm.
FORMULAS = {
    "one branch": lambda d, x, y, p, safe: (d > 0).where(safe(d, d > 0).log(), d),
    "both branches": lambda d, x, y, p, safe: (d > 0).where(safe(d, d > 0).sqrt().log(), safe(1 - d, d <= 0).log() * y),
    "ifelse": lambda d, x, y, p, safe: (d - 0.01).ifelse(safe(d, d >= 0.01).rsqrt() * p, d.square()),
    "a chain": lambda d, x, y, p, safe: (d > 0).where((safe(d, d > 0).log() * x).sin().exp(), 3 * x) * y,
    "a branch in a branch": lambda d, x, y, p, safe: (d > 0).where(
        (d < 2).where(safe(2 - d, (d < 2).logical_and(d > 0)).log() / safe(d, d > 0), x).square(), p * d
    ),
    "a condition of one component": lambda d, x, y, p, safe: (d[0] > 0).where(safe(d[0], d[0] > 0).log() * x, y),
    "a parameter in a branch": lambda d, x, y, p, safe: (d > 0).where(p / safe(d, d > 0), p * d),
    "components that are added up": lambda d, x, y, p, safe: (d[0] > 0).where(
        safe(d[0], d[0] > 0).concat(d.square() + 1).log2().sum(-1), p
    ),
    "a value that both branches use": lambda d, x, y, p, safe: of_both(d, x, y, safe(d, d > 0).log()),
}


def raw(x, condition):
    del condition
    return x


def harmless(x, condition):
    return condition.where(x, 1.0)


def total(name, safe, x, y, p):
    x_i, y_j, p = Vi(x), Vj(y), Pm(p)
    return (FORMULAS[name](x_i - y_j, x_i, y_j, p, safe) * p).sum(axis=1)


@pytest.mark.parametrize("name", FORMULAS)
def test_derivatives_of_the_branch_that_is_not_taken_are_zero(name):
    found = []
    for safe in (raw, harmless):
        inputs = [torch.tensor(array, requires_grad=True) for array in (X, Y, P)]
        value = total(name, safe, *inputs)
        weights = torch.linspace(1, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
        firsts = torch.autograd.grad((value * weights).sum(), inputs, create_graph=True)
        square = sum((first**2).sum() for first in firsts)
        found.append([value, *firsts, *torch.autograd.grad(square, inputs)])
    for one, other in zip(*found, strict=True):
        assert other.isfinite().all()
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", FORMULAS)
def test_forward_mode_and_formulas_of_derivatives_agree(name):
    def f(x, y, p):
        return total(name, raw, x, y, p)

    value, pull_back = pylazy.vjp(f, X, Y, P)
    tangents = [np.linspace(-1, 1, array.size).reshape(array.shape) for array in (X, Y, P)]
    pulled = sum((g * t).sum() for g, t in zip(pull_back(np.ones_like(value)), tangents, strict=True))
    np.testing.assert_allclose(pylazy.jvp(f, (X, Y, P), tangents)[1].sum(), pulled, rtol=1e-12)
    x, y, p = Vi(X), Vj(Y), Pm(P)
    by_hand = (FORMULAS[name](x - y, x, y, p, raw) * p).grad(y, 1).sum(axis=0)
    np.testing.assert_allclose(by_hand, pull_back(np.ones_like(value))[1], rtol=1e-12)


def test_gradients_of_the_branch_that_is_taken_may_be_infinite():
    x = torch.zeros(1, 1, requires_grad=True)
    (of_x,) = torch.autograd.grad((Vi(x) >= 0).where(Vi(x).cbrt(), Vi(x)).sum(axis=1).sum(), x)
    assert of_x.isinf().all()
