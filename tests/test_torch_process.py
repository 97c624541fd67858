"""Processes that torch starts, and what many calls leave behind."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from pylazy import Vi, Vj  # noqa: E402

CALLS = 10_000
PAGES = 2_000


class Sums(torch.utils.data.Dataset):
    """Reductions that run in the workers."""

    def __init__(self):
        self.x = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return 4

    def __getitem__(self, index):
        x = self.x[index : index + 20].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(gaussian(x, self.x).sum(), x)
        return gaussian(x, self.x).detach(), gradient


def gaussian(x, y):
    return (-Vi(x).sqdist(Vj(y))).exp().sum(axis=1)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader_compute(method):
    # In a process of its own: this one may have threads of libraries that do not survive a fork.
    code = f"import test_torch_process; test_torch_process.check_workers({method!r})"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)


def check_workers(method):
    data = Sums()
    expected = [
        data[index] for index in range(len(data))
    ]  # this process has run kernels on its threads before it forks
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context=method)
    found = list(loader)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(tuple(one), other, rtol=0, atol=0)


def pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def step(x, y):
    gaussian(x, y).sum().backward()
    x.grad = None


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the size of a process is read from /proc")
def test_memory_does_not_grow_with_the_number_of_calls():
    x, y = torch.rand(10, 3, requires_grad=True), torch.rand(10, 3)
    for _ in range(500):
        step(x, y)
    before = pages()
    for _ in range(CALLS):
        step(x, y)
    assert pages() - before < PAGES


@pytest.mark.parametrize("create_graph", [False, True])
def test_results_are_freed_without_the_garbage_collector(create_graph):
    gc.collect()
    gc.disable()
    try:
        x, y = torch.rand(10, 3, requires_grad=True), torch.rand(10, 3)
        for reduce in (
            gaussian,
            lambda x, y: Vi(x).sqdist(Vj(y)).logsumexp(axis=1),
            lambda x, y: Vi(x).sqdist(Vj(y)).min(axis=1),
        ):
            result = reduce(x, y)
            (gradient,) = torch.autograd.grad(result.sum(), x, create_graph=create_graph)
            watched = [weakref.ref(result), weakref.ref(gradient)]
            del result, gradient
            assert [reference() for reference in watched] == [None, None]
    finally:
        gc.enable()
