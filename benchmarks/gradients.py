"""Processor milliseconds of a value and all its gradients: by pylazy.value_and_grad, and through torch with pykeops."""

from __future__ import annotations

import datetime as dt
import importlib.util
from typing import TYPE_CHECKING, Any

from harness import read_arguments, save

from pylazy.bench.machine import machine
from pylazy.bench.workers import ContenderError, Worker, interleave, median_cpu, threads

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE, QUICK_SIZE = 5000, 500
CASES = (("Gaussian", 3), ("Gaussian", 10), ("Gaussian", 64), ("logsumexp", 3))
CONTENDERS = ("pylazy value_and_grad", "pylazy torch", "pykeops torch")


def _reduce(case: str, x: Any, y: Any, b: Any) -> Any:
    """Reduce over j; x, y and b are LazyTensors of either package."""
    scores = -((x - y) ** 2).sum(-1)
    return (scores.exp() * b).sum(axis=1) if case == "Gaussian" else (scores + b).logsumexp(axis=1)


def _data(size: int, dim: int) -> list[Any]:
    import numpy as np

    random = np.random.default_rng(0)
    # Distances do not grow with D, so that no exponential is 0.
    return [(random.random((size, k)) / k**0.5).astype(np.float32) for k in (dim, dim, 1)]


def value_and_gradients(contender: str, case: str, dim: int, size: int) -> Callable[[], Any]:
    """Make what finds the sum of all results and its gradients in x, y and b."""
    data = _data(size, dim)
    if contender == "pylazy value_and_grad":
        import pylazy
        from pylazy import Vi, Vj

        find = pylazy.value_and_grad(lambda x, y, b: _reduce(case, Vi(x), Vj(y), Vj(b)).sum(), argnums=(0, 1, 2))
        return lambda: find(*data)

    import torch

    lazy = importlib.import_module("pylazy" if contender == "pylazy torch" else "pykeops.torch")
    tensors = [torch.from_numpy(array).requires_grad_() for array in data]

    def work() -> Any:
        x, y, b = tensors
        total = _reduce(case, lazy.Vi(x), lazy.Vj(y), lazy.Vj(b)).sum()
        return total.item(), [gradient.numpy() for gradient in torch.autograd.grad(total, tensors)]

    return work


def _error(found: Any, expected: Any) -> float:
    """The largest difference of a gradient, relative to the largest element of that gradient."""
    pairs = zip(found[1], expected[1], strict=True)
    return max(float(abs(one - other).max() / abs(other).max()) for one, other in pairs)


def main() -> None:
    """Time every case, the contenders in turn."""
    arguments = read_arguments(__doc__)
    size = QUICK_SIZE if arguments.quick else SIZE
    repeats = arguments.repeats or (3 if arguments.quick else 11)
    found = machine()
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    date = dt.datetime.now(dt.timezone.utc).date().isoformat()
    print(f"{found['processor']}, one thread, {found['level']}, {date}; {packages}")
    contenders = [name for name in CONTENDERS if importlib.util.find_spec(name.split()[0])]
    rows = []
    for case, dim in CASES:
        title = f"{case} D={dim}"
        if arguments.only not in title:
            continue
        workers = [Worker(contender, threads(1)) for contender in contenders]
        results = {}
        try:
            for worker in workers:
                worker.prepare("gradients:value_and_gradients", worker.name, case, dim, size)
                worker.run()
                results[worker.name] = worker.result()
            samples = interleave(workers, repeats=repeats)
        except ContenderError as error:
            print(f"{title}: {error}")
            continue
        finally:
            for worker in workers:
                worker.close()
        figures = {contender: median_cpu(samples[contender]) * 1e3 for contender in contenders}
        fastest = figures[contenders[0]]
        rows.append(
            {
                "name": title,
                "size": size,
                "cpu_milliseconds": figures,
                "times_value_and_grad": {contender: figure / fastest for contender, figure in figures.items()},
                "difference": {name: _error(result, results[contenders[0]]) for name, result in results.items()},
            }
        )
        shown = (f"{contender} {figure:.1f} ms ({figure / fastest:.2f})" for contender, figure in figures.items())
        print(f"{title}, M = N = {size:,}: {', '.join(shown)}")
    save("gradients", rows, arguments)


if __name__ == "__main__":
    main()
