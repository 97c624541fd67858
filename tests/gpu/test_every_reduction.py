"""Every reduction of the front end, its derivatives and its dtypes, as PTX on the interpreter against the oracle."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gpu_program import GpuProgram
from interpreted_front_end import on_interpreter
from stand_in import StandInDriver, launches

import pylazy
from gpu_formulas import inputs_of, traced
from pylazy import LazyTensor, Vi, Vij, Vj
from pylazy.reductions import REDUCTIONS
from reference import assert_close, reduce_dense

Array = Any  # an ndarray
MANY_PROCESSORS = 100
TILE = 128

#: By name: kinds of the oracle, k, and the reduction of a formula f with a weight g.
METHODS: dict[str, tuple[tuple[str, ...], int, Callable[..., Any]]] = {
    **{
        kind: ((kind,), 0, lambda f, g, kind=kind, **o: getattr(f, kind)(**o))
        for kind in ("sum", "mean", "var", "std", "prod", "min", "max", "argmin", "argmax", "any", "all", "count")
    },
    "logsumexp": (("logsumexp",), 0, lambda f, g, **o: f.logsumexp(**o)),
    "logsumexp weighted": (("logsumexp",), 0, lambda f, g, **o: f.logsumexp(weight=g, **o)),
    "softmax": (("softmax",), 0, lambda f, g, **o: f.sumsoftmaxweight(g, **o)),
    "min_argmin": (("min", "argmin"), 0, lambda f, g, **o: f.min_argmin(**o)),
    "max_argmax": (("max", "argmax"), 0, lambda f, g, **o: f.max_argmax(**o)),
    "Kmin": (("kmin",), 3, lambda f, g, **o: f.Kmin(3, **o)),
    "argKmax": (("argkmax",), 4, lambda f, g, **o: f.argKmax(4, **o)),
    "Kmax_argKmax": (("kmax", "argkmax"), 3, lambda f, g, **o: f.Kmax_argKmax(3, **o)),
    "long Kmin_argKmin": (("kmin", "argkmin"), 20, lambda f, g, **o: f.Kmin_argKmin(20, **o)),
    "long Kmax": (("kmax",), 20, lambda f, g, **o: f.Kmax(20, **o)),
    "long argKmin": (("argkmin",), 33, lambda f, g, **o: f.argKmin(33, **o)),
}
OVER_ROWS = ("var", "argmin", "logsumexp weighted", "Kmin", "long argKmin")
WEIGHTED = ("logsumexp weighted", "softmax")


def test_no_kind_is_left_out() -> None:
    tested = {kind for kinds, _, _ in METHODS.values() for kind in kinds}
    assert tested >= set(REDUCTIONS)


def clouds(rows: int, columns: int, dtype: Any = np.float32) -> tuple[Array, Array]:
    """Points, some of them equal."""
    random = np.random.default_rng(5)
    x, y = (random.standard_normal((count, 2)) / 2 for count in (rows, columns))
    y[columns // 2] = y[0]
    return x.astype(dtype), y.astype(dtype)


def check(name: str, rows: int, columns: int, axis: int, *, kinds: tuple[str, ...], k: int, found: Any) -> None:
    x, y = (some.astype(float) for some in clouds(rows, columns))
    f = ((x[:, None] - y[None]) ** 2).sum(-1, keepdims=True)
    if name == "prod":
        f = 1 + f / 100
    operands = [f, np.exp(x[:, None] * y[None])] if name in WEIGHTED else [f]
    for kind, result in zip(kinds, found if len(kinds) > 1 else (found,), strict=True):
        dense = np.asarray(reduce_dense(kind, operands, axis="j" if axis else "i", k=k), float).reshape(result.shape)
        scale = None if kind == "prod" else 1.0 + np.abs(dense).max()
        assert_close(np.asarray(result, float), dense, dtype=np.float32, columns=max(rows, columns), scale=scale)


@pytest.mark.parametrize("name", METHODS)
def test_reduction_matches_oracle(name: str) -> None:
    """In splits that are merged; those of a few families over rows, too."""
    kinds, k, method = METHODS[name]
    for rows, columns, axis in ((3, 3 * TILE + 3, 1), (40, 5, 0))[: 2 if name in OVER_ROWS else 1]:
        points = clouds(rows, columns)
        x, y = LazyTensor(points[0][:, None]), LazyTensor(points[1][None])
        f = ((x - y) ** 2).sum(-1)
        if name == "prod":
            f = 1 + f / 100
        with on_interpreter(processors=MANY_PROCESSORS) as programs:
            found = method(f, (x * y).exp(), axis=axis)
        check(name, rows, columns, axis, kinds=kinds, k=k, found=found)
        splits = 1 if name.startswith("long") or not axis else 2
        assert max(made.program.splits for made in programs) == splits


def test_several_reductions_share_a_program() -> None:
    rows, columns = 5, 2 * TILE + 3
    x, y = clouds(rows, columns)
    f = Vi(x).sqdist(Vj(y))
    names = ("sum", "argmin", "logsumexp", "Kmin", "long argKmin", "any")
    wanted = [METHODS[name][2](f, None, axis=1, call=False) for name in names]
    wanted.append(f.sum(axis=0, call=False))
    with on_interpreter() as programs:
        *found, other = pylazy.evaluate(*wanted)
    assert len(programs) == 1
    for name, result in zip(names, found, strict=True):
        kinds, k, _ = METHODS[name]
        check(name, rows, columns, 1, kinds=kinds, k=k, found=result)
    check("sum", rows, columns, 0, kinds=("sum",), k=0, found=other)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int16", "bool", "float64"])
def test_storage_is_converted_to_what_is_computed_in(dtype: str) -> None:
    stored = getattr(torch, dtype)
    x, y = (torch.tensor(4 * some).to(stored) for some in clouds(4, TILE + 1))
    b = torch.linspace(0, 1, TILE + 1)[:, None]
    with on_interpreter() as programs:
        found = (-(Vi(x) - Vj(y)).norm2() * Vj(b)).sum(axis=1)
    dense = -(x[:, None].double() - y[None].double()).norm(dim=-1) @ b.double()
    assert programs[0].program.module.buffers[0].dtype == ("float64" if dtype == "float64" else "float32")
    assert_close(found, dense.numpy(), dtype=np.float32, columns=TILE, scale=300.0)


# Lists in memory

_SPECIAL = {
    "NaN": {3: np.nan, 20: np.nan, 41: np.nan},
    "only NaN": dict.fromkeys(range(42), np.nan),
    "infinities": {7: np.inf, 8: -np.inf, 9: np.inf},
    "ties": dict.fromkeys(range(1, 42, 2), 0.25),
}


@pytest.mark.parametrize("kind", ["kmin", "kmax"])
def test_long_lists_hold_special_values_in_order(kind: str) -> None:
    y = np.random.default_rng(2).standard_normal((42, 1)).astype(np.float32)
    x = np.zeros((3, 1), np.float32)
    k = 25

    def lazy(y: Array) -> Any:
        f = Vi(x) + Vj(y)
        return (f.Kmin_argKmin if kind == "kmin" else f.Kmax_argKmax)(k, axis=1, call=False)

    program = GpuProgram(traced(lazy(y)))
    for values in _SPECIAL.values():
        special = y.copy()
        special[list(values), 0] = list(values.values())
        found = program.run(inputs_of(lazy(special)), rows=3, columns=42)
        dense = np.broadcast_to(special[None], (3, 42, 1)).astype(float)
        for name, result in zip((kind, f"arg{kind}"), found, strict=True):
            np.testing.assert_array_equal(result, reduce_dense(name, [dense], axis="j", k=k)[..., 0])


def test_what_has_one_split_or_no_merge_is_launched(driver: StandInDriver) -> None:
    """Through the runtime, on a driver that stands in for CUDA's."""
    x, y = clouds(5, 40)
    f = Vi(x).sqdist(Vj(y))
    for reduce in (
        lambda **o: f.argKmin(20, axis=1, **o),
        lambda **o: f.sum(axis=1, sum_scheme="direct_sum", **o),
        lambda **o: f.sum(axis=1, sum_scheme="kahan_scheme", **o),
        lambda **o: f.logsumexp(axis=1, dtype_acc="float64", **o),
        lambda **o: Vi(x).softdtw_sqdist(Vj(y), 0.5).sum(axis=1, **o),
    ):
        np.testing.assert_allclose(reduce(backend="GPU"), reduce(), rtol=1e-5)
    assert len(launches(driver.calls())) >= 5


# Derivatives

DIFFERENTIABLE: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "sum": (lambda f, g: (f * g).sum(axis=1), lambda f, g: (f * g).sum(1)),
    "prod": (lambda f, g: (f * g).prod(axis=1), lambda f, g: (f * g).prod(1)),
    "min": (lambda f, g: (f * g).min(axis=1), lambda f, g: (f * g).amin(1)),
    "kmax": (lambda f, g: f.Kmax(2, axis=1), lambda f, g: f[..., 0].topk(2, 1).values),
    "logsumexp": (
        lambda f, g: f.logsumexp(axis=1, weight=g),
        lambda f, g: (f.exp() * g).sum(1).log(),
    ),
    "softmax": (lambda f, g: f.sumsoftmaxweight(g, axis=1), lambda f, g: (f.softmax(1) * g).sum(1)),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_first_and_second_derivatives_match_dense_torch(name: str) -> None:
    lazy, dense = DIFFERENTIABLE[name]
    x, y = (torch.tensor(some, requires_grad=True) for some in clouds(3, 5, np.float64))
    a = torch.rand(3, 5, dtype=torch.float64, requires_grad=True)

    def derivatives(result: Any) -> tuple[Any, ...]:
        first = torch.autograd.grad((result**2).sum(), (x, y, a), create_graph=True)
        weights = [torch.linspace(-1, 1, one.numel(), dtype=torch.float64).reshape(one.shape) for one in first]
        total = sum((one * weight).sum() for one, weight in zip(first, weights, strict=True))
        return (result, *first, *torch.autograd.grad(total, (x, y, a)))

    with on_interpreter():
        found = derivatives(lazy(Vi(x).sqdist(Vj(y)) * Vij(a), (Vi(x[:, :1]) * Vj(y[:, 1:])).exp()))
    wide = ((x[:, None] - y[None]) ** 2).sum(-1, keepdim=True) * a[..., None]
    wanted = derivatives(dense(wide, (x[:, None, :1] * y[None, :, 1:]).exp()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other.reshape(one.shape))


# Soft-DTW


def test_soft_dtw_and_its_derivatives_match_the_cpu() -> None:
    random = np.random.default_rng(1)
    x, y = (torch.tensor(random.standard_normal(shape), requires_grad=True) for shape in ((3, 3), (2, 4)))

    def derivatives() -> tuple[Any, ...]:
        result = Vi(x).softdtw_sqdist(Vj(y), 0.3).sum(axis=1)
        first = torch.autograd.grad((result**2).sum(), (x, y), create_graph=True)
        return (result, *first, *torch.autograd.grad(sum((one**2).sum() for one in first), (x, y)))

    with on_interpreter() as programs:
        found = derivatives()
    assert programs[0].program.module.kernels[0].workgroup_bytes > 0
    for one, other in zip(found, derivatives(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_soft_dtw_of_series_as_long_as_memory_holds() -> None:
    """Tables of 32 threads, and a tile of few columns, in 48 KiB; a column more is refused by name."""
    random = np.random.default_rng(1)
    x, y = random.standard_normal((2, 93)).astype(np.float32), random.standard_normal((2, 4)).astype(np.float32)
    reduction = Vi(x).softdtw_sqdist(Vj(y), 1.0).sum(axis=1, call=False)
    (found,) = GpuProgram(traced(reduction)).run(inputs_of(reduction), rows=2, columns=2)
    np.testing.assert_allclose(found, reduction(), rtol=1e-5)
    too_long = Vi(np.ones((2, 100), np.float32)).softdtw_sqdist(Vj(np.ones((2, 100), np.float32)), 1.0)
    message = r"soft_dtw of series of 100 and 100 elements needs a table of 402 numbers a thread.*of sm_90 holds 3"
    with pytest.raises(pylazy.UnsupportedError, match=message) as raised:
        too_long.sum(axis=1, call=False).as_text("ptx")
    assert "test_every_reduction.py" in str(raised.value)
