"""torch.compile, torch.export, fake tensors and autocast: one op of torch, with rules for shapes."""

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from pylazy import Genred, LazyTensor, Pm, ShapeError, UnsupportedError, Vi, Vj  # noqa: E402
from torch_formulas import REDUCTIONS, tensors  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch._prims_common.check:FutureWarning")


@pytest.fixture(autouse=True)
def _forget_compiled_functions():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def values_and_gradients(f, inputs):
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    value = f(*inputs)
    return value, torch.autograd.grad(value.sin().sum(), inputs, materialize_grads=True)


def gaussian(x, y, b, scale=1.0):
    return (-LazyTensor(x[:, None]).sqdist(LazyTensor(y[None])) * scale).exp() @ b


@pytest.mark.parametrize("name", REDUCTIONS)
def test_compiled_reduction_has_value_and_gradient_of_dense_torch(name):
    lazy, dense = REDUCTIONS[name]
    compiled = torch.compile(lazy, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(values_and_gradients(compiled, tensors()), values_and_gradients(dense, tensors()))


def test_inductor_compiles_what_surrounds_a_reduction():
    def layer(x, y, b):
        return gaussian(x.sin(), y * 2, b).tanh() + x.sum()

    compiled = torch.compile(layer, fullgraph=True)
    inputs = tensors()[:3]
    torch.testing.assert_close(values_and_gradients(compiled, inputs), values_and_gradients(layer, inputs))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_new_sizes_need_no_new_graph(requires_grad):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(gaussian, fullgraph=True, dynamic=True, backend=counter)
    graphs = []
    for rows, columns in [(7, 5), (300, 11), (4, 700), (513, 600)]:
        x, y, b = (torch.rand(n, d, requires_grad=requires_grad) for n, d in ((rows, 3), (columns, 3), (columns, 2)))
        found = compiled(x, y, b)
        torch.testing.assert_close(found, gaussian(x, y, b))
        if requires_grad:
            found.sum().backward()
        graphs.append(counter.frame_count)
    assert len(set(graphs)) == 1


def test_sizes_that_change_make_the_second_graph_the_last():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(gaussian, fullgraph=True, backend=counter)
    graphs = []
    for rows in (5, 6, 7, 8, 300):
        compiled(torch.rand(rows, 3), torch.rand(rows + 1, 3), torch.rand(rows + 1, 2))
        graphs.append(counter.frame_count)
    assert len(set(graphs[1:])) == 1


def test_numbers_and_batches_are_compiled():
    x, y = torch.rand(2, 1, 7, 1, 3, dtype=torch.float64), torch.rand(3, 1, 5, 3, dtype=torch.float64)

    def formula(x, y, scale):
        return ((LazyTensor(x) - LazyTensor(y)).sqnorm2() * scale).logsumexp(axis=3, weight=LazyTensor(y))

    compiled = torch.compile(formula, fullgraph=True, dynamic=True, backend="aot_eager")
    for scale in (0.5, 0.25):
        torch.testing.assert_close(compiled(x, y, scale), formula(x, y, scale))


def test_compiled_transformations_match_eager_ones():
    x, y, b, _ = tensors()

    def energy(x, y, b):
        return gaussian(x, y, b).square().sum()

    for transform in (
        torch.func.grad(energy, (0, 1)),
        torch.func.hessian(energy, 1),
        lambda x, y, b: torch.func.jvp(lambda x: gaussian(x, y, b), (x,), (x,)),
        lambda x, y, b: torch.func.vmap(gaussian, (None, None, 1))(x, y, b[..., None]),
    ):
        compiled = torch.compile(transform, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x, y, b), transform(x, y, b))


class Kernel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([0.5, 2.0, 1.5]))

    def forward(self, x, y, b):
        return ((-((Vi(x) - Vj(y)) * Pm(self.scale)).sqnorm2()).exp() * Vj(b)).sum(axis=1)


def test_module_with_parameters_learns_compiled():
    module = Kernel()
    x, y, b = torch.rand(7, 3), torch.rand(5, 3), torch.rand(5, 2)
    module(x, y, b).sum().backward()
    expected = module.scale.grad.clone()
    module.zero_grad()
    torch.compile(module, fullgraph=True, backend="aot_eager")(x, y, b).sum().backward()
    torch.testing.assert_close(module.scale.grad, expected)


_RELOAD = """
import sys, torch, pylazy.pytorch.torch_ops
program = torch.export.load(sys.argv[1]).module()
x, y, b = torch.load(sys.argv[2])
torch.save(program(x, y, b), sys.argv[3])
"""


def test_exported_program_runs_in_another_process_on_other_sizes(tmp_path):
    module = Kernel()
    rows, columns = torch.export.Dim("rows"), torch.export.Dim("columns")
    sizes = {"x": {0: rows}, "y": {0: columns}, "b": {0: columns}}
    example = (torch.rand(7, 3), torch.rand(5, 3), torch.rand(5, 2))
    exported = torch.export.export(module, example, dynamic_shapes=sizes, strict=True)
    assert any("pylazy.run" in str(node.target) for node in exported.graph.nodes)
    torch.export.save(exported, tmp_path / "kernel.pt2")
    inputs = (torch.rand(300, 3), torch.rand(11, 3), torch.rand(11, 2))
    torch.save(inputs, tmp_path / "inputs.pt")
    paths = [tmp_path / "kernel.pt2", tmp_path / "inputs.pt", tmp_path / "result.pt"]
    subprocess.run([sys.executable, "-c", _RELOAD, *map(str, paths)], check=True, cwd=Path(__file__).parent.parent)
    torch.testing.assert_close(torch.load(paths[2]), module(*inputs))
    with pytest.raises((ShapeError, RuntimeError, AssertionError)):
        exported.module()(*inputs[:2], torch.rand(10, 2))


def test_export_without_dynamo():
    module = Kernel()
    inputs = (torch.rand(7, 3), torch.rand(5, 3), torch.rand(5, 2))
    exported = torch.export.export(module, inputs, strict=False)
    torch.testing.assert_close(exported.module()(*inputs), module(*inputs))


def test_op_passes_the_checks_of_torch():
    x, y, b, p = tensors()
    formula = (-(Vi(x) - Vj(y)).sqnorm2() * Pm(p)).exp()
    program = formula.sumsoftmaxweight(Vj(b), axis=1, call=False).executable.text()
    op = torch.ops.pylazy.run.default
    for batch, rank in [((), 0), ((2,), 1)]:
        inputs = [tensor.requires_grad_() for tensor in tensors(batch=batch)]
        inputs = [inputs[0], inputs[1], inputs[3], inputs[2]]
        torch.library.opcheck(op, (inputs, program, [rank] * 4))
    positions = formula.argKmin(2, axis=1, call=False).executable.text()
    torch.library.opcheck(op, ([x, y, p], positions, [0, 0, 0]))


def test_fake_tensors_give_shapes_and_dtypes():
    with FakeTensorMode():
        x, y = torch.rand(2, 7, 1, 3), torch.rand(1, 5, 3)
        distances = LazyTensor(x).sqdist(LazyTensor(y))
        found = {
            "sum": distances.sum(axis=2),
            "min_argmin": distances.min_argmin(axis=1, keepdim=True)[1],
            "Kmin": distances.Kmin(3, axis=2),
            "any": (distances > 1).any(axis=2),
            "var": (LazyTensor(x) - LazyTensor(y)).var(axis=1),
        }
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in found.items()}
    assert shapes == {
        "sum": ((2, 7, 1), torch.float32),
        "min_argmin": ((2, 1, 5, 1), torch.int64),
        "Kmin": ((2, 7, 3), torch.float32),
        "any": ((2, 7, 1), torch.bool),
        "var": ((2, 5, 3), torch.float32),
    }


def test_text_of_a_program_is_checked_before_anything_runs():
    op = torch.ops.pylazy.run.default
    x, y = torch.rand(4, 3), torch.rand(5, 3)
    program = Vi(x).sqdist(Vj(y)).sum(axis=1, call=False).executable.text()
    for text in ("", "import os", program.replace("sqdist", "system"), program + "gradient with respect to 9\n"):
        with pytest.raises(UnsupportedError, match="which this pylazy does not read"):
            op([x, y], text, [0, 0])
    for inputs, message in [
        ([x], "was given 1 tensors, expected 2"),
        ([x, y[:, :2]], "expected rows of 3"),
    ]:
        with pytest.raises(ShapeError, match=message):
            op(inputs, program, [0] * len(inputs))
    two = (Vi(x) + Vi(x.clone())).sum(axis=1, call=False).executable.text()
    with pytest.raises(ShapeError, match="expected 4 rows"):
        op([x, x[:2]], two, [0, 0])
    with pytest.raises(ShapeError, match="do not broadcast"):
        op([x.expand(2, 4, 3), y.expand(3, 5, 3)], program, [1, 1])


def test_reductions_that_are_called_with_their_data_are_compiled_and_transformed():
    x, y, b, _ = tensors()
    text = Genred("Exp(-SqDist(x,y)) * b", ["x=Vi(2)", "y=Vj(2)", "b=Vj(2)"], reduction_op="Sum", axis=1)
    symbolic = ((-Vi(0, 2).sqdist(Vj(1, 2))).exp() * Vj(2, 2)).sum(axis=1)
    expected = gaussian(x, y, b)
    (of_x,) = values_and_gradients(lambda x: gaussian(x, y, b), (x,))[1]
    for reduction in (text, symbolic):
        compiled = torch.compile(reduction.__call__, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x, y, b), expected)
        torch.testing.assert_close(compiled(x[:2], y[:2], b[:2]), gaussian(x[:2], y[:2], b[:2]))
        torch.testing.assert_close(torch.func.grad(lambda x: reduction(x, y, b).sin().sum())(x), of_x)  # noqa: B023
