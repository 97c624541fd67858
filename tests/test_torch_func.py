"""Derivatives of any order and torch.func: the same answers as dense torch."""

import pytest

torch = pytest.importorskip("torch")

from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap  # noqa: E402
from torch.testing._internal.two_tensor import TwoTensor  # noqa: E402

from pylazy import LazyTensor, Vi, Vj  # noqa: E402
from pylazy.pytorch import torch_ops  # noqa: E402
from torch_formulas import REDUCTIONS, tensors  # noqa: E402

ALL = (0, 1, 2, 3)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def squares(reduction):
    """Make a number that is not linear in the results of a reduction."""
    return lambda *inputs: reduction(*inputs).square().sum()


@pytest.mark.parametrize("name", REDUCTIONS)
def test_first_derivatives_match_finite_differences(name):
    lazy, _ = REDUCTIONS[name]
    inputs = tuple(tensor.requires_grad_() for tensor in tensors())
    assert torch.autograd.gradcheck(lazy, inputs, check_forward_ad=True, fast_mode=True)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_second_derivatives_match_finite_differences(name):
    lazy, _ = REDUCTIONS[name]
    x, y, b, p = tensors()
    assert torch.autograd.gradgradcheck(lambda x, p: lazy(x, y, b, p), (x.requires_grad_(), p.requires_grad_()))


@pytest.mark.parametrize("name", ["sum", "logsumexp weighted", "softmax", "prod", "Kmin"])
def test_third_derivatives_match_dense_torch(name):
    x, y, b, p = tensors()

    def third(f):
        def value(x):
            return squares(f)(x, y, b, p)

        return grad(lambda x: grad(lambda x: grad(value)(x).square().sum())(x).sin().sum())(x)

    lazy, dense = REDUCTIONS[name]
    close(third(lazy), third(dense))


@pytest.mark.parametrize("name", ["sum", "logsumexp", "Kmin"])
def test_forward_mode_nests_in_every_way(name):
    x, y, b, p = tensors()
    lazy, dense = REDUCTIONS[name]

    def both(f):
        def of_x(x):
            return f(x, y, b, p)

        return jacfwd(jacfwd(of_x))(x), jacrev(jacfwd(of_x))(x), jacfwd(jacrev(of_x))(x)

    close(both(lazy), both(dense))


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
        "hessian": lambda f: hessian(squares(f))(*inputs),
    }
    lazy, dense = REDUCTIONS[name]
    for transform in transformations.values():
        close(transform(lazy), transform(dense))


def test_nested_vmap_moves_each_dimension_to_the_batch():
    x, y, b, p = tensors()
    many = torch.stack([x, x + 1, x - 1])
    scales = torch.stack([p, p * 2])
    lazy, dense = REDUCTIONS["logsumexp weighted"]

    def map_twice(f):
        return vmap(lambda x: vmap(lambda p: f(x, y, b, p), out_dims=1)(scales), in_dims=1)(many.transpose(0, 1))

    close(map_twice(lazy), map_twice(dense))


def test_positions_have_no_derivative_under_torch_func():
    x, y, _, _ = tensors()
    (value, position), (tangent, of_position) = jvp(lambda x: Vi(x).sqdist(Vj(y)).min_argmin(axis=1), (x,), (x,))
    assert torch.equal(position, torch.cdist(x, y).argmin(1, keepdim=True))
    assert tangent.shape == value.shape
    assert not of_position.any()


def test_ranges_are_tensors_inside_of_a_transformation():
    x, y = torch.rand(6, 3), torch.rand(20, 3)
    arrays = (
        [[0, 3], [3, 6]], [1, 2], [[0, 12], [8, 20]],
        [[0, 8], [8, 12], [12, 20]], [1, 2, 3], [[0, 3], [0, 6], [3, 6]],
    )  # fmt: skip
    kept = torch.zeros(6, 20, dtype=torch.bool)
    kept[:3, :12] = kept[3:, 8:] = True

    def lazy(x):
        given = tuple(torch.tensor(array) for array in arrays)
        return Vi(x).sqdist(Vj(y)).sum(axis=1, ranges=given).square().sum()

    def dense(x):
        return torch.where(kept, (x[:, None] - y).square().sum(-1), 0.0).sum(1).square().sum()

    torch.testing.assert_close(grad(lazy)(x), grad(dense)(x))
    outside = tuple(torch.tensor(array) for array in arrays)
    found = jvp(lambda x: Vi(x).sqdist(Vj(y)).sum(axis=1, ranges=outside).square().sum(), (x,), (x,))
    torch.testing.assert_close(found, jvp(dense, (x,), (x,)))


def test_mapping_over_dimensions_that_the_formula_has_too():
    x = torch.rand(2, 5, 4, 1, 3, dtype=torch.float64)
    y = torch.rand(2, 1, 7, 3, dtype=torch.float64)

    def formula(x, y):
        return (-(LazyTensor(x) - LazyTensor(y)).sqnorm2()).logsumexp(axis=2)

    expected = torch.stack([formula(one, other) for one, other in zip(x, y, strict=True)])
    close(vmap(formula)(x, y), expected)
    close(vmap(formula, (0, None))(x, y[0])[0], expected[0])


def test_gradient_of_one_selected_result_asks_for_no_other():
    x, y, b, p = (tensor.requires_grad_() for tensor in tensors())
    value = REDUCTIONS["sum"][0](x, y, b, p)
    of_x, of_y = torch.autograd.grad(value.sum(), (x, y), create_graph=True)
    (mixed,) = torch.autograd.grad(of_y.square().sum(), p)
    dense = REDUCTIONS["sum"][1](x, y, b, p)
    (reference,) = torch.autograd.grad(dense.sum(), y, create_graph=True)
    close(mixed, torch.autograd.grad(reference.square().sum(), p)[0])
    assert of_x.requires_grad


def test_saved_tensor_changed_before_a_second_derivative_is_noticed():
    x, y, b, p = tensors()
    x = x.requires_grad_()
    scaled = x * 1.0
    (gradient,) = torch.autograd.grad(REDUCTIONS["sum"][0](scaled, y, b, p).sum(), x, create_graph=True)
    scaled.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient.sum().backward()


def test_selection_among_no_rows_has_derivatives_of_no_rows():
    x = torch.rand((0, 2), dtype=torch.float64, requires_grad=True)
    y = torch.rand((3, 2), dtype=torch.float64)
    found = (Vi(x) * Vj(y)).min(axis=1)
    (gradient,) = torch.autograd.grad(found.sum(), x, create_graph=True)
    assert found.shape == gradient.shape == (0, 2)


@pytest.mark.parametrize("sizes", [(0, 3), (4, 0)])
def test_second_derivatives_over_nothing_are_zero(sizes):
    x, y = (torch.rand((size, 2), dtype=torch.float64, requires_grad=True) for size in sizes)
    value = (Vi(x) * Vj(y)).sum(-1).exp().sum(axis=1)
    (gradient,) = torch.autograd.grad(value.square().sum(), x, create_graph=True)
    for second in torch.autograd.grad(gradient.sum(), (x, y), allow_unused=True, materialize_grads=True):
        assert not second.any()


def test_subclasses_and_parameters_are_tensors():
    class Named(torch.Tensor):
        pass

    x, y, b, p = tensors()
    expected = REDUCTIONS["sum"][1](x, y, b, p)
    for wrap in (lambda tensor: tensor.as_subclass(Named), torch.nn.Parameter):
        wrapped = wrap(x.clone()).requires_grad_()
        found = REDUCTIONS["sum"][0](wrapped, y, b, p)
        close(torch.Tensor(found.detach()), expected)
        found.sum().backward()
        assert wrapped.grad.shape == x.shape


def test_wrapper_subclasses_see_the_op():
    x, y, b, p = tensors()
    wrapped = TwoTensor(x, x + 1).requires_grad_()
    found = REDUCTIONS["logsumexp"][0](wrapped, y, b, p)
    dense = [REDUCTIONS["logsumexp"][1](part, y, b, p) for part in (x, x + 1)]
    close((found.a.detach(), found.b.detach()), tuple(dense))
    found.sum().backward()
    close(wrapped.grad.b, grad(lambda x: REDUCTIONS["logsumexp"][1](x, y, b, p).sum())(x + 1))


@pytest.mark.parametrize(("wrt", "sweeps"), [((0,), 1), ((1, 2), 1), ((0, 1, 2), 2)])
def test_gradients_along_one_axis_are_found_in_one_sweep(wrt, sweeps):
    x, y, b, _ = tensors()
    gaussian = (-(Vi(x) - Vj(y)).sqnorm2()).exp() * Vj(b)
    gradient = gaussian.sum(axis=1, call=False).executable.derive(wrt)
    assert sum(not phase.merges for phase in gradient.load().image.phases) == sweeps
    if len(wrt) == 3:
        second = gradient.derive((0, 1, 2, 3))
        assert sum(not phase.merges for phase in second.load().image.phases) == sweeps


def test_forward_mode_runs_a_program_of_tangents(monkeypatch):
    programs = []
    run = torch_ops.run

    def record(inputs, program, batch_ranks):
        programs.append(program)
        return run(inputs, program, batch_ranks)

    monkeypatch.setattr(torch_ops, "run", record)
    jvp(REDUCTIONS["sum"][0], tensors(), tensors(1))
    assert programs[-1].splitlines()[-1] == "tangent with respect to 0 1 2 3"


@pytest.mark.parametrize("name", ["sum", "logsumexp", "softmax"])
def test_gradient_of_one_of_two_tangents_of_gradients(name):
    x, y, b, p = tensors()
    v = tensors(1)[0]

    def mixed(f):
        def tangents(x):
            return jvp(lambda x: grad(lambda x, y: squares(f)(x, y, b, p), (0, 1))(x, y), (x,), (v,))[1]

        return grad(lambda x: tangents(x)[0].sin().sum())(x), grad(lambda x: tangents(x)[1].sin().sum())(x)

    lazy, dense = REDUCTIONS[name]
    close(mixed(lazy), mixed(dense))


def test_low_precision_of_autocast_is_widened_to_float32():
    x, y = torch.rand(5, 3), torch.rand(4, 3)
    layer = torch.nn.Linear(3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = layer(x)
        assert hidden.dtype == torch.bfloat16
        found = Vi(hidden).sqdist(Vj(y)).exp().sum(axis=1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.cdist(hidden.float(), y).square().exp().sum(1, keepdim=True))
    found.sum().backward()
    assert layer.weight.grad.abs().sum() > 0
