"""Derivatives of any order and torch.func: the same answers as dense torch."""

import pytest

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad  # noqa: E402
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap  # noqa: E402

from pylazy import LazyTensor, Vi, Vj  # noqa: E402
from torch_formulas import REDUCTIONS, tensors  # noqa: E402

ALL = (0, 1, 2, 3)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def scalar(reduction):
    """Make a number that is not linear in the results of a reduction."""
    return lambda *inputs: (reduction(*inputs) ** 2 + reduction(*inputs)).sum()


def squares(reduction):
    return lambda *inputs: reduction(*inputs).square().sum()


@pytest.mark.parametrize("name", REDUCTIONS)
def test_first_and_second_derivatives_match_finite_differences(name):
    lazy, _ = REDUCTIONS[name]
    inputs = tuple(tensor.requires_grad_() for tensor in tensors())
    assert torch.autograd.gradcheck(lazy, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lazy, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_transformations_match_dense_torch(name):
    inputs = tensors()
    tangents = tensors(1)
    batched = tensors(2, batch=(2,))
    transformations = {
        "grad": lambda f: grad(squares(f), ALL)(*inputs),
        "jvp": lambda f: jvp(f, inputs, tangents),
        "vjp": lambda f: vjp(f, *inputs)[1](f(*inputs)),
        "vmap": lambda f: vmap(f)(*batched),
        "vmap of some inputs": lambda f: vmap(f, (None, 0, None, 0))(inputs[0], batched[1], inputs[2], batched[3]),
        "vmap of grad": lambda f: vmap(grad(squares(f), ALL))(*batched),
        "grad of vmap": lambda f: grad(lambda *given: vmap(f)(*given).square().sum(), ALL)(*batched),
        "jacrev": lambda f: jacrev(f, ALL)(*inputs),
        "jacfwd": lambda f: jacfwd(f, ALL)(*inputs),
        "hessian": lambda f: hessian(squares(f), (0, 3))(*inputs),
    }
    lazy, dense = REDUCTIONS[name]
    for transform in transformations.values():
        close(transform(lazy), transform(dense))
