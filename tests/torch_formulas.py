"""Reductions that have derivatives, each as lazy and as dense code on tensors x (M, D), y (N, D), b (N, E) and p ()."""

import torch

from pylazy import Pm, Vi, Vj

M, N, D, E = 4, 3, 2, 2


def tensors(seed=0, batch=()):
    """Make x, y, b, p in float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((*batch, M, D), (*batch, N, D), (*batch, N, E), batch)
    return tuple(torch.rand(shape, dtype=torch.float64, generator=generator) for shape in shapes)


def lazy_logits(x, y, p):
    return -((Vi(x) - Vj(y)) ** 2).sum(-1) * Pm(p)


def logits(x, y, p):
    return -((x[:, None] - y) ** 2).sum(-1, keepdim=True) * p


def lazy_waves(x, y, p):
    return (Vi(x) * Vj(y) * 3.0 + Pm(p)).sin()


def waves(x, y, p):
    return (x[:, None] * y * 3.0 + p).sin()


REDUCTIONS = {
    "sum": (
        lambda x, y, b, p: (lazy_logits(x, y, p).exp() * Vj(b)).sum(axis=1),
        lambda x, y, b, p: (logits(x, y, p).exp() * b).sum(1),
    ),
    "sum over i": (
        lambda x, y, b, p: (lazy_logits(x, y, p).exp() * Vj(b)).sum(axis=0),
        lambda x, y, b, p: (logits(x, y, p).exp() * b).sum(0),
    ),
    "mean": (lambda x, y, b, p: lazy_waves(x, y, p).mean(axis=1), lambda x, y, b, p: waves(x, y, p).mean(1)),
    "var": (
        lambda x, y, b, p: lazy_waves(x, y, p).var(axis=1),
        lambda x, y, b, p: waves(x, y, p).var(1, correction=0),
    ),
    "prod": (lambda x, y, b, p: lazy_waves(x, y, p).prod(axis=1), lambda x, y, b, p: waves(x, y, p).prod(1)),
    "logsumexp": (
        lambda x, y, b, p: lazy_logits(x, y, p).logsumexp(axis=1),
        lambda x, y, b, p: logits(x, y, p).logsumexp(1),
    ),
    "logsumexp weighted": (
        lambda x, y, b, p: lazy_logits(x, y, p).logsumexp(axis=1, weight=Vj(b)),
        lambda x, y, b, p: (logits(x, y, p).exp() * b).sum(1).log(),
    ),
    "softmax": (
        lambda x, y, b, p: lazy_logits(x, y, p).sumsoftmaxweight(Vj(b), axis=1),
        lambda x, y, b, p: (logits(x, y, p).softmax(1) * b).sum(1),
    ),
    "min": (lambda x, y, b, p: lazy_waves(x, y, p).min(axis=1), lambda x, y, b, p: waves(x, y, p).amin(1)),
    "max_argmax": (
        lambda x, y, b, p: lazy_logits(x, y, p).max_argmax(axis=0)[0],
        lambda x, y, b, p: logits(x, y, p).amax(0),
    ),
    "Kmin": (
        lambda x, y, b, p: lazy_waves(x, y, p).Kmin(2, axis=1),
        lambda x, y, b, p: waves(x, y, p).sort(1).values[:, :2],
    ),
    "KMax": (
        lambda x, y, b, p: lazy_logits(x, y, p).KMax(2, axis=1),
        lambda x, y, b, p: logits(x, y, p)[..., 0].sort(1, descending=True).values[:, :2],
    ),
}
