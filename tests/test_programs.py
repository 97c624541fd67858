"""Programs as users write them, on data whose answer is known, beside the same program on dense arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pylazy import LazyTensor, Pm, Vi, Vj, causal, causal_ranges, identity
from pylazy.clusters import cluster_ranges_centroids, from_matrix, grid_cluster, sort_clusters


@pytest.fixture(name="rng")
def make_rng():
    return np.random.default_rng(29)


@pytest.fixture(name="torch_seed", autouse=True)
def seed_torch():
    torch.manual_seed(29)


def blobs(rng, count, centers, spread=0.1):
    """Points around centers, and the number of the center of each."""
    labels = rng.integers(len(centers), size=count)
    return centers[labels] + spread * rng.standard_normal((count, centers.shape[1])), labels


def test_k_means_finds_separated_clusters(rng):
    centers = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])
    x, labels = blobs(rng, 803, centers)
    found = x[[np.flatnonzero(labels == k)[0] for k in range(4)]]
    for _ in range(10):
        nearest = Vi(x).sqdist(Vj(found)).argmin(axis=1)[:, 0]
        counts = np.bincount(nearest, minlength=4)
        sums = np.stack([np.bincount(nearest, weights=column, minlength=4) for column in x.T], axis=1)
        found = sums / counts[:, None]
    np.testing.assert_array_equal(nearest, labels)
    np.testing.assert_allclose(found, centers, atol=0.03)


def test_k_nearest_neighbours_classify_held_out_points(rng):
    centers = 3 * rng.standard_normal((5, 10))
    x, labels = blobs(rng, 1003, centers, spread=0.7)
    train, test = slice(0, 900), slice(900, None)
    neighbours = LazyTensor(x[test, None, :]).sqdist(LazyTensor(x[None, train, :])).argKmin(7, dim=1)
    votes = labels[train][neighbours]
    predicted = np.array([np.bincount(row).argmax() for row in votes])
    dense = ((x[test, None] - x[None, train]) ** 2).sum(-1)
    np.testing.assert_array_equal(neighbours, np.argsort(dense, axis=1, kind="stable")[:, :7])
    assert (predicted == labels[test]).mean() > 0.95


def test_kernel_regression_predicts_a_smooth_function(rng):
    x = rng.uniform(0, 1, (1500, 2))
    y = np.sin(6 * x[:, :1]) * x[:, 1:]
    held_out = rng.uniform(0.1, 0.9, (57, 2))
    scores = -Vi(held_out).sqdist(Vj(x)) / (2 * 0.03**2)
    predicted = scores.sumsoftmaxweight(Vj(y), axis=1)
    truth = np.sin(6 * held_out[:, :1]) * held_out[:, 1:]
    assert np.abs(predicted - truth).max() < 0.1


def sinkhorn_potentials(cost_xy, cost_yx, count, scales):
    """Dual potentials of entropic optimal transport between uniform measures, annealed (Feydy 2020, section 3.3)."""
    f, g = (torch.zeros(count, 1, dtype=torch.float64) for _ in range(2))
    log_weight = -math.log(count)
    for scale in scales:
        new_f = -scale * (Vj(g / scale + log_weight) - cost_xy / scale).logsumexp(dim=1)
        new_g = -scale * (Vj(f / scale + log_weight) - cost_yx / scale).logsumexp(dim=1)
        f, g = (f + new_f) / 2, (g + new_g) / 2
    return f, g


def test_sinkhorn_in_the_log_domain_transports_a_translation():
    count, shift = 211, torch.tensor([0.6, -0.2], dtype=torch.float64)
    x = torch.rand(count, 2, dtype=torch.float64)
    y = x + shift
    half = lambda a, b: Vi(a).sqdist(Vj(b)) / 2  # noqa: E731
    scales = [0.5**k for k in range(7)] + [0.005] * 200
    f, g = sinkhorn_potentials(half(x, y), half(y, x), count, scales)
    cost = (f.mean() + g.mean()).item()
    assert cost == pytest.approx(shift.square().sum().item() / 2, abs=0.02)
    plan = (Vi(f) + Vj(g) - half(x, y)) / 0.005 - 2 * math.log(count)
    np.testing.assert_allclose(plan.exp().sum(dim=1), torch.full((count, 1), 1 / count), rtol=0.05)


def test_gaussian_mixture_is_fitted_by_gradient(rng):
    centers = np.array([[-2.0, 0.0], [2.0, 1.0], [0.0, -3.0]])
    data, _ = blobs(rng, 500, centers, spread=0.4)
    x = torch.tensor(data, dtype=torch.float32)
    means = torch.tensor(centers + 0.7, dtype=torch.float32, requires_grad=True)
    log_precision = torch.zeros(3, 1, requires_grad=True)
    logits = torch.zeros(3, 1, requires_grad=True)
    optimizer = torch.optim.Adam([means, log_precision, logits], lr=0.1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        log_weights = torch.log_softmax(logits, 0) + log_precision  # in two dimensions
        exponent = Vj(log_weights) - Vi(x).sqdist(Vj(means)) * Vj(log_precision.exp()) / 2
        loss = -exponent.logsumexp(dim=1).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    np.testing.assert_allclose(means.detach().numpy(), centers, atol=0.15)
    spread = (-log_precision / 2).exp().detach().numpy()
    np.testing.assert_allclose(spread, 0.4, atol=0.06)


class RBFKernel(torch.nn.Module):
    """A kernel with a length scale that is learned, as Gaussian process packages have it."""

    def __init__(self):
        super().__init__()
        self.raw_lengthscale = torch.nn.Parameter(torch.tensor([0.0], dtype=torch.float64))

    @property
    def lengthscale(self):
        return torch.nn.functional.softplus(self.raw_lengthscale)

    def forward(self, first, second):
        first, second = first / self.lengthscale, second / self.lengthscale
        return (-LazyTensor(first[..., :, None, :]).sqdist(LazyTensor(second[..., None, :, :])) / 2).exp()


def test_kernel_module_learns_its_lengthscale_in_batches():
    x = torch.rand(2, 41, 3, dtype=torch.float64)
    v = torch.randn(2, 41, 1, dtype=torch.float64)
    kernel = RBFKernel()
    (kernel(x, x) @ v).square().sum().backward()
    lazy = kernel.raw_lengthscale.grad.clone()
    kernel.raw_lengthscale.grad = None
    scaled = x / kernel.lengthscale
    dense = (-((scaled[:, :, None] - scaled[:, None]) ** 2).sum(-1) / 2).exp()
    (dense @ v).square().sum().backward()
    torch.testing.assert_close(lazy, kernel.raw_lengthscale.grad)


def test_kernel_density_is_compared_between_samples_of_many_dtypes(rng):
    x = rng.standard_normal((300, 4)).astype(np.float32)
    bandwidth = Pm(np.array([0.5, 1.0, 2.0, 4.0], dtype=np.float32))
    log_density = (-((Vi(x) - Vj(x)) / bandwidth).sqnorm2() / 2).logsumexp(axis=1)
    scaled = (x.astype(np.float64)[:, None] - x.astype(np.float64)) / [0.5, 1.0, 2.0, 4.0]
    dense = np.log(np.exp(-(scaled**2).sum(-1) / 2).sum(1, keepdims=True))
    np.testing.assert_allclose(log_density, dense, rtol=2e-5)


def test_kriging_interpolates_noisy_measurements(rng):
    x = rng.uniform(0, 1, (700, 2))
    truth = lambda p: np.sin(5 * p[:, :1]) + p[:, 1:] ** 2  # noqa: E731
    measured = truth(x) + 0.01 * rng.standard_normal((700, 1))
    kernel = lambda a, b: (-Vi(a).sqdist(Vj(b)) / (2 * 0.2**2)).exp()  # noqa: E731
    weights = kernel(x, x).solve(measured, alpha=0.01)
    np.testing.assert_allclose((kernel(x, x) + 0.01 * identity()) @ weights, measured, atol=1e-5)
    held_out = rng.uniform(0.05, 0.95, (83, 2))
    assert np.abs(kernel(held_out, x) @ weights - truth(held_out)).max() < 0.05


def test_gaussian_product_on_clusters_leaves_out_what_is_far(rng):
    x, y = (np.concatenate([rng.normal(center, 0.05, (200, 2)) for center in (0.0, 1.0, 2.0)]) for _ in range(2))
    b = rng.standard_normal((600, 1))
    labels_x, labels_y = grid_cluster(x, 0.3), grid_cluster(y, 0.3)
    ranges_x, centroids_x, _ = cluster_ranges_centroids(x, labels_x)
    ranges_y, centroids_y, _ = cluster_ranges_centroids(y, labels_y)
    (x, labels_x), ((y, b), labels_y) = sort_clusters(x, labels_x), sort_clusters((y, b), labels_y)
    keep = ((centroids_x[:, None] - centroids_y) ** 2).sum(-1) < 0.8**2
    assert keep.mean() < 0.5
    kernel = (-Vi(x).sqdist(Vj(y)) / (2 * 0.05**2)).exp()
    dense = kernel @ b
    kernel.ranges = from_matrix(ranges_x, ranges_y, keep)
    np.testing.assert_allclose(kernel @ b, dense, atol=1e-12)


def geodesic(q, p, steps=5):
    """Shoot landmarks q with momenta p (the Hamiltonian flow of a Gaussian kernel), as in shape analysis."""
    for _ in range(steps):
        kernel = (-Vi(q).sqdist(Vj(q)) / 2).exp()
        energy = (p * (kernel @ p)).sum() / 2
        dp, dq = torch.autograd.grad(energy, [p, q], create_graph=True)
        q, p = q + dp / steps, p - dq / steps
    return q, p


def dense_geodesic(q, p, steps=5):
    for _ in range(steps):
        kernel = (-((q[:, None] - q[None]) ** 2).sum(-1) / 2).exp()
        energy = (p * (kernel @ p)).sum() / 2
        dp, dq = torch.autograd.grad(energy, [p, q], create_graph=True)
        q, p = q + dp / steps, p - dq / steps
    return q, p


def test_landmarks_are_matched_by_shooting_through_a_gradient_of_gradients():
    q = torch.randn(31, 2, dtype=torch.float64, requires_grad=True)
    target = q.detach() @ torch.tensor([[0.9, -0.3], [0.3, 0.9]], dtype=torch.float64) + 0.2
    p = torch.zeros(31, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([p], max_iter=15, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        found = (geodesic(q, p)[0] - target).square().sum()
        found.backward()
        return found

    first = loss().item()
    lazy = p.grad.clone()
    p.grad = None
    (dense_geodesic(q, p)[0] - target).square().sum().backward()
    torch.testing.assert_close(lazy, p.grad)
    optimizer.step(loss)
    assert loss().item() < first / 20


class CausalAttention(torch.nn.Module):
    """Attention heads whose scores are never stored, nor computed where the mask leaves out whole blocks."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.project = torch.nn.Linear(width, 3 * width, dtype=torch.float64)

    def split(self, x):
        return self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # 3, batch, heads, length, D

    def forward(self, x):
        q, k, v = self.split(x)
        length = x.shape[-2]
        scores = LazyTensor(q[..., :, None, :] / q.shape[-1] ** 0.5) | LazyTensor(k[..., None, :, :])
        masked = causal().where(scores, -math.inf)
        ranges = causal_ranges(length, length, block=16)
        heads = masked.sumsoftmaxweight(LazyTensor(v[..., None, :, :]), axis=3, ranges=ranges)
        return heads.transpose(-3, -2).flatten(-2)

    def dense(self, x):
        heads = torch.nn.functional.scaled_dot_product_attention(*self.split(x), is_causal=True)
        return heads.transpose(-3, -2).flatten(-2)


def test_causal_attention_matches_dense_attention_and_its_gradient():
    x = torch.randn(2, 53, 12, dtype=torch.float64, requires_grad=True)
    layer = CausalAttention(12, heads=3)
    torch.testing.assert_close(layer(x), layer.dense(x))
    inputs = (x, *layer.parameters())
    weights = torch.randn(2, 53, 12, dtype=torch.float64)
    lazy = torch.autograd.grad((layer(x) * weights).sum(), inputs)
    dense = torch.autograd.grad((layer.dense(x) * weights).sum(), inputs)
    torch.testing.assert_close(lazy, dense)


def test_nearest_centroid_under_soft_dtw_tells_shapes_of_curves_apart(rng):
    time = np.linspace(0, 1, 24)
    shapes = np.stack([np.sin(6 * time), np.sign(np.sin(6 * time)), 2 * time - 1])
    labels = rng.integers(3, size=60)
    warped = [np.interp(time ** rng.uniform(0.8, 1.25), time, shapes[label]) for label in labels]
    curves = np.stack(warped) + 0.1 * rng.standard_normal((60, 24))
    distances = Vi(curves).softdtw_sqdist(Vj(shapes), 0.1)
    assert (distances.argmin(axis=1)[:, 0] == labels).mean() > 0.95
