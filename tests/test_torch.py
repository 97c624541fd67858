"""Tensors of torch: in, out, and through autograd."""

# ruff: noqa: N806  a kernel matrix is called K

from __future__ import annotations

import threading

import numpy as np
import pytest

from pylazy import DeviceError, DtypeError, LazyTensor, Pm, ShapeError, Vi, Vj
from reference import tolerance

torch = pytest.importorskip("torch")

M, N, D, E = 7, 5, 3, 2


@pytest.fixture(name="tensors")
def make_tensors():
    torch.manual_seed(0)
    shapes = {"x": (M, 1, D), "y": (1, N, D), "b": (1, N, E), "p": ()}
    return {name: torch.rand(shape, dtype=torch.float64, requires_grad=True) for name, shape in shapes.items()}


def logits(x, y, p):
    """The formula, lazily or densely."""
    return -((x - y) ** 2).sum(-1) * p if isinstance(x, LazyTensor) else -((x - y) ** 2).sum(-1, keepdim=True) * p


def lazy(tensors):
    return {name: LazyTensor(tensor) for name, tensor in tensors.items()}


REDUCTIONS = {
    "sum": (
        lambda t: logits(t["x"], t["y"], t["p"]).exp().sum(axis=1),
        lambda t: logits(t["x"], t["y"], t["p"]).exp().sum(1),
    ),
    "sum over i": (
        lambda t: (logits(t["x"], t["y"], t["p"]).exp() * t["b"]).sum(axis=0),
        lambda t: (logits(t["x"], t["y"], t["p"]).exp() * t["b"]).sum(0),
    ),
    "mean": (lambda t: (t["x"] * t["y"]).sin().mean(axis=1), lambda t: (t["x"] * t["y"]).sin().mean(1)),
    "logsumexp": (
        lambda t: logits(t["x"], t["y"], t["p"]).logsumexp(axis=1),
        lambda t: logits(t["x"], t["y"], t["p"]).logsumexp(1),
    ),
    "logsumexp weighted": (
        lambda t: logits(t["x"], t["y"], t["p"]).logsumexp(axis=1, weight=t["b"]),
        lambda t: (logits(t["x"], t["y"], t["p"]).exp() * t["b"]).sum(1).log(),
    ),
    "softmax": (
        lambda t: logits(t["x"], t["y"], t["p"]).sumsoftmaxweight(t["b"], axis=1),
        lambda t: (logits(t["x"], t["y"], t["p"]).softmax(1) * t["b"]).sum(1),
    ),
    "softmax over i": (
        lambda t: logits(t["x"], t["y"], t["p"]).sumsoftmaxweight(t["x"], axis=0),
        lambda t: (logits(t["x"], t["y"], t["p"]).softmax(0) * t["x"]).sum(0),
    ),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_value_and_gradient_match_dense_torch(name, tensors):
    make_lazy, make_dense = REDUCTIONS[name]
    found, expected = make_lazy(lazy(tensors)), make_dense(tensors)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    cotangent = torch.rand_like(expected)
    wanted = list(tensors.values())
    gradients = torch.autograd.grad(found, wanted, cotangent, allow_unused=True)
    references = torch.autograd.grad(expected, wanted, cotangent, allow_unused=True)
    for gradient, reference in zip(gradients, references, strict=True):
        assert (gradient is None) == (reference is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, reference, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("x_batch", "y_batch"), [((2,), (1,)), ((2, 1), (3,)), ((), (2,)), ((2,), (2,))])
def test_gradient_sums_over_batch_dimensions_that_broadcast(x_batch, y_batch):
    torch.manual_seed(1)
    x = torch.rand((*x_batch, M, 1, D), dtype=torch.float64, requires_grad=True)
    y = torch.rand((*y_batch, 1, N, D), dtype=torch.float64, requires_grad=True)
    p = torch.rand((D,), dtype=torch.float64, requires_grad=True)
    rank = max(len(x_batch), len(y_batch))
    found = ((LazyTensor(x) - LazyTensor(y)) * p).sin().sum(axis=rank + 1)
    expected = ((x - y) * p).sin().sum(rank + 1)
    torch.testing.assert_close(found, expected)
    cotangent = torch.rand_like(expected)
    for gradient, reference in zip(
        torch.autograd.grad(found, (x, y, p), cotangent),
        torch.autograd.grad(expected, (x, y, p), cotangent),
        strict=True,
    ):
        torch.testing.assert_close(gradient, reference)


def test_matrix_product_has_gradients(tensors):
    x, y = tensors["x"], tensors["y"]
    v = torch.rand(N, dtype=torch.float64, requires_grad=True)
    found = (-LazyTensor(x).sqdist(LazyTensor(y))).exp() @ v
    expected = (-((x - y) ** 2).sum(-1)).exp() @ v
    assert found.shape == (M,)
    for wanted in (x, y, v):
        (gradient,) = torch.autograd.grad(found.sum(), wanted, retain_graph=True)
        (reference,) = torch.autograd.grad(expected.sum(), wanted, retain_graph=True)
        torch.testing.assert_close(gradient, reference)


def test_one_tensor_as_rows_and_columns_gets_both_gradients():
    x = torch.rand((M, D), dtype=torch.float64, requires_grad=True)
    found = (-Vi(x).sqdist(Vj(x))).exp().sum(axis=1).square().sum()
    expected = (-((x[:, None] - x[None]) ** 2).sum(-1)).exp().sum(1).square().sum()
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(expected, x))


def test_gradient_takes_the_dtype_of_its_tensor():
    x = torch.rand((M, D), requires_grad=True)
    y = torch.rand((N, D), dtype=torch.float64)
    result = Vi(x).sqdist(Vj(y)).sum(axis=1)
    assert result.dtype == torch.float64
    result.sum().backward()
    assert x.grad.dtype == torch.float32
    torch.testing.assert_close(x.grad, (2 * (x.double()[:, None] - y).sum(1)).float().detach())


def test_expanded_and_transposed_tensors_have_gradients():
    x = torch.rand((D, M), dtype=torch.float64, requires_grad=True)
    y = torch.rand((1, D), dtype=torch.float64, requires_grad=True)
    found = Vi(x.T).sqdist(Vj(y.expand(N, D))).sum(axis=1)
    expected = ((x.T[:, None] - y.expand(N, D)[None]) ** 2).sum((1, 2))
    for wanted in (x, y):
        (gradient,) = torch.autograd.grad(found.sum(), wanted, retain_graph=True)
        (reference,) = torch.autograd.grad(expected.sum(), wanted, retain_graph=True)
        torch.testing.assert_close(gradient, reference)


@pytest.mark.parametrize("sizes", [(0, N), (M, 0)])
def test_gradient_of_an_empty_reduction_is_zero(sizes):
    x = torch.rand((sizes[0], D), requires_grad=True)
    y = torch.rand((sizes[1], D), requires_grad=True)
    Vi(x).sqdist(Vj(y)).sum(axis=1).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
    assert torch.equal(y.grad, torch.zeros_like(y))


def test_float32_gradient_is_as_precise_as_float32():
    torch.manual_seed(2)
    x, y = torch.rand((M, D), requires_grad=True), torch.rand((N, D))
    (-Vi(x).sqdist(Vj(y))).exp().sum(axis=1).sum().backward()
    wide = x.detach().double().requires_grad_()
    (-((wide[:, None] - y.double()) ** 2).sum(-1)).exp().sum().backward()
    assert (x.grad - wide.grad).abs().max() <= tolerance(np.float32, N) * N


def test_tensors_in_tensors_out():
    x, y = torch.rand(M, D), torch.rand(N, D)
    K = Vi(x).sqdist(Vj(y))
    assert isinstance(K.sum(axis=1), torch.Tensor)
    assert K.sum(axis=1).dtype == torch.float32
    assert K.argmin(axis=1).dtype == torch.int64
    torch.testing.assert_close(K.Kmin(2, axis=1), torch.cdist(x, y).square().sort(1).values[:, :2])
    torch.testing.assert_close(K @ torch.ones(N), torch.cdist(x, y).square().sum(1))


def test_operators_with_tensors_work_from_both_sides():
    x, y = torch.rand(M, 1, D), torch.rand(1, N, D)
    for formula in (LazyTensor(x) - y, -(y - LazyTensor(x))):
        torch.testing.assert_close(formula.sum(axis=1), (x - y).sum(1))
    torch.testing.assert_close((torch.tensor(2.0) * LazyTensor(x)).sum(axis=1), 2 * x[:, 0])
    torch.testing.assert_close(
        (torch.tensor([1.0, 2.0, 3.0]) * LazyTensor(x)).sum(axis=1), torch.tensor([1.0, 2, 3]) * x[:, 0]
    )


def test_numbers_of_torch_and_numpy_adapt():
    x = torch.rand(M, 1)
    for number in (torch.tensor(2.0, dtype=torch.float64), np.float64(2), np.array(2.0), 2, 2.0):
        result = (Vi(x) * number).sum(axis=1)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, 2 * x)


def test_arrays_and_tensors_mix_and_give_tensors():
    x, y = torch.rand(M, D, dtype=torch.float64), np.ones((N, D))
    result = Vi(x).sqdist(Vj(y)).sum(axis=1)
    torch.testing.assert_close(result[:, 0], N * ((x - 1) ** 2).sum(1))


def test_module_parameters_are_accepted():
    weight = torch.nn.Parameter(torch.rand(D))
    x = torch.rand(M, D)
    (Vi(x) * Pm(weight)).sum(-1).sum(axis=1).sum().backward()
    torch.testing.assert_close(weight.grad, x.sum(0))


@pytest.mark.parametrize("default", ["meta", "cpu"])
def test_results_lie_where_their_tensors_do_and_not_on_the_default_device(default):
    x, y, b = torch.rand(7, 3), torch.rand(5, 3), np.ones((7, 1), np.float32)
    expected = (x[:, None] - y).square().sum(-1).sum(1, keepdim=True)
    with torch.device(default):
        found = [
            Vi(x).sqdist(Vj(y)).sum(axis=1),
            (Vi(x).sqdist(Vj(y)) * [2.0] / 2).sum(axis=1),
            torch.func.vmap(lambda x: Vi(x).sqdist(Vj(y)).sum(axis=1))(x[None])[0],
        ]
        solution = (-Vi(x).sqdist(Vj(x))).exp().solve(b, alpha=1.0)
        leaf = x.detach().requires_grad_()
        Vi(leaf).sqdist(Vj(y)).Kmin(2, axis=1).sum().backward()
    for result in found:
        torch.testing.assert_close(result, expected)
    assert (solution.device.type, leaf.grad.device.type) == ("cpu", "cpu")


def test_no_grad_and_detached_tensors_make_no_graph(tensors):
    formula = LazyTensor(tensors["x"]).sqdist(LazyTensor(tensors["y"]))
    with torch.no_grad():
        assert not formula.sum(axis=1).requires_grad
    assert formula.sum(axis=1).requires_grad
    assert not LazyTensor(tensors["x"].detach()).sum(-1).sum(axis=1).requires_grad


def test_positions_and_truths_have_no_gradient(tensors):
    formula = LazyTensor(tensors["x"]).sqdist(LazyTensor(tensors["y"]))
    smallest, positions = formula.min_argmin(axis=1)
    assert smallest.requires_grad
    assert not positions.requires_grad
    assert not formula.argKmin(2, axis=1).requires_grad
    assert not (formula > 1).any(axis=1).requires_grad
    assert not (formula > 1).count(axis=1).requires_grad


SELECTIONS = {
    "min": lambda f, axis: f.min(axis=axis),
    "max": lambda f, axis: f.max(axis=axis, keepdim=True),
    "min_argmin": lambda f, axis: f.min_argmin(axis=axis)[0],
    "Kmin": lambda f, axis: f.Kmin(2, axis=axis),
    "KMax": lambda f, axis: f.KMax_argKmax(2, axis=axis)[0],
    "prod": lambda f, axis: f.prod(axis=axis),
    "mean": lambda f, axis: f.mean(axis=axis),
    "var": lambda f, axis: f.var(axis=axis),
    "std": lambda f, axis: f.std(axis=axis, ddof=1),
}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize(("x_batch", "y_batch"), [((), ()), ((2,), (1,)), ((), (2,)), ((2, 1), (3,))])
def test_gradients_of_selections_and_spreads_match_differences(x_batch, y_batch, name, axis):
    torch.manual_seed(4)
    x = torch.rand((*x_batch, 4, 1, D), dtype=torch.float64, requires_grad=True)
    y = torch.rand((*y_batch, 1, N, D), dtype=torch.float64, requires_grad=True)
    p = torch.rand(D, dtype=torch.float64, requires_grad=True)
    number = max(len(x_batch), len(y_batch)) + axis

    def reduce_vectors(x, y, p):
        return SELECTIONS[name](((LazyTensor(x) - LazyTensor(y)) * LazyTensor(p)).sin(), number)

    def reduce_scalars(x, y, p):
        return SELECTIONS[name](((LazyTensor(x) - LazyTensor(y)) * LazyTensor(p)).sqnorm2(), number)

    assert torch.autograd.gradcheck(reduce_vectors, (x, y, p))
    assert torch.autograd.gradcheck(reduce_scalars, (x, y, p))


def test_selected_values_are_the_same_with_and_without_a_graph(tensors):
    for name in ("min", "Kmin", "KMax"):
        found = SELECTIONS[name]((LazyTensor(tensors["x"]) * LazyTensor(tensors["y"])).sin(), 1)
        with torch.no_grad():
            expected = SELECTIONS[name]((LazyTensor(tensors["x"]) * LazyTensor(tensors["y"])).sin(), 1)
        assert torch.equal(found, expected)


def test_selection_takes_arrays_numbers_and_symbols():
    y = torch.rand((N, D), dtype=torch.float64, requires_grad=True)
    x = np.random.default_rng(0).random((M, D)).astype(np.float32)
    assert torch.autograd.gradcheck(lambda y: (Vi(x).sqdist(Vj(y)) * 0.5).min(axis=1), y)
    assert torch.autograd.gradcheck(lambda y: Vj(y).Kmin(2, axis=1, keepdim=True), y)
    symbolic = Vi(0, D).sqdist(Vj(1, D)).max(axis=0)
    assert torch.autograd.gradcheck(lambda y: symbolic(torch.from_numpy(x).double(), y), y)


def test_product_with_zeros_has_a_gradient():
    for zeros in (1, 2):
        b = torch.rand((6, 1), dtype=torch.float64)
        b[:zeros] = 0
        assert torch.autograd.gradcheck(lambda b: Vj(b).prod(axis=1), b.requires_grad_())


def test_selection_of_nothing_has_gradient_zero():
    x = torch.rand((M, D), requires_grad=True)
    (Vi(x) * Vj(torch.ones(0, D))).min(axis=1).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_input_changed_in_place_before_backward_is_noticed():
    x = torch.rand((M, D), requires_grad=True)
    doubled = x * 2
    result = Vi(doubled).sqnorm2().exp().sum(axis=1).sum()
    doubled.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()


def test_out_receives_the_result_and_its_graph(tensors):
    formula = LazyTensor(tensors["x"]).sqdist(LazyTensor(tensors["y"]))
    out = torch.zeros(M, 1, dtype=torch.float64)
    assert formula.sum(axis=1, out=out) is out
    torch.testing.assert_close(out, formula.sum(axis=1))
    assert out.requires_grad


def test_out_is_checked():
    K = Vi(torch.rand(M, D)).sqdist(Vj(torch.rand(N, D)))
    for out, kind, message in [
        (np.ones((M, 1), np.float32), DtypeError, "expected a torch tensor"),
        (torch.ones(M), ShapeError, "expected \\(7, 1\\)"),
        (torch.ones(M, 1, dtype=torch.float64), DtypeError, "out has dtype float64, expected float32"),
        (torch.ones(M, 1, device="meta"), DeviceError, "out lies on the device meta"),
        (torch.ones(1, 1).expand(M, 1), ShapeError, "broadcast view"),
    ]:
        with pytest.raises(kind, match=message):
            K.sum(axis=1, out=out)


def test_devices_may_not_mix():
    x, y = torch.rand(M, D), torch.rand(N, D, device="meta")
    with pytest.raises(DeviceError, match="lie on the devices cpu and meta, expected one"):
        Vi(x).sqdist(Vj(y)).sum(axis=1)
    with pytest.raises(DeviceError, match="lie on the device meta, expected cpu"):
        Vj(y).sqnorm2().sum(axis=1)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn])
def test_other_dtypes_are_refused_by_name(dtype):
    with pytest.raises(DtypeError, match=f"has dtype {dtype}, expected float32 or float64"):
        Vi(torch.ones((M, D), dtype=dtype))


def test_sparse_tensors_are_refused():
    with pytest.raises(DtypeError, match=r"use x\.to_dense"):
        Vi(torch.eye(D).to_sparse())


def test_backward_may_run_in_another_thread(tensors):
    result = LazyTensor(tensors["x"]).sqdist(LazyTensor(tensors["y"])).sum(axis=1).sum()
    thread = threading.Thread(target=result.backward)
    thread.start()
    thread.join()
    torch.testing.assert_close(tensors["x"].grad, 2 * (tensors["x"] - tensors["y"]).sum(1, keepdim=True).detach())
