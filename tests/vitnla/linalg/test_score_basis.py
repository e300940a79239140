"""The directions of a head's scores: what they lose, and that nothing of the same width loses less."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitnla.linalg.torch import ScoreBasis, score_basis


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(size: int, samples: int, seed: int) -> Tensor:
    x = matrix(samples, size, seed) @ matrix(size, size, seed + 1)
    return x.T @ x / samples


def loss(left: Tensor, right: Tensor, a: Tensor, b: Tensor) -> float:
    """E(qT k - qT F GT k)^2 for independent q and k with second moments A and B."""
    change = torch.eye(len(a), dtype=torch.float64) - left @ right.T
    return float(torch.trace(change @ b @ change.T @ a))


def at(basis: ScoreBasis, rank: int) -> tuple[Tensor, Tensor]:
    return basis.query_map[:, :rank], basis.key_map[:, :rank]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 12), st.integers(1, 12), st.integers(0, 10_000))
def test_the_loss_is_exactly_the_energy_of_the_cut_directions(size: int, queries: int, keys: int, seed: int) -> None:
    a, b = moment(size, queries, seed), moment(size, keys, seed + 7)
    basis = score_basis(a, b)
    total = float(torch.trace(a @ b))
    assert float(basis.energies.sum()) == pytest.approx(total, rel=1e-9)
    assert (basis.energies.diff() <= 0).all()
    for rank in range(size + 1):
        assert loss(*at(basis, rank), a, b) == pytest.approx(float(basis.energies[rank:].sum()), rel=1e-6, abs=1e-9 * total)


def test_nothing_of_the_same_width_loses_less() -> None:
    a, b, rank = moment(6, 30, 0), moment(6, 30, 5), 3
    basis = score_basis(a, b)
    least = loss(*at(basis, rank), a, b)
    for seed in range(50):
        left = basis.query_map[:, :rank] + 0.1 * matrix(6, rank, seed)
        # The best keys for these queries: least squares of q by FT q.
        right = torch.linalg.solve(left.T @ a @ left, left.T @ a).T
        assert loss(left, right, a, b) >= least * (1 - 1e-12)
    orthogonal = torch.linalg.eigh(a).eigenvectors.flip(1)[:, :rank]
    assert loss(orthogonal, orthogonal, a, b) > 1.01 * least


def test_full_width_is_exact() -> None:
    basis = score_basis(moment(6, 60, 0), moment(6, 60, 5))
    assert float((basis.query_map @ basis.key_map.T - torch.eye(6, dtype=torch.float64)).abs().max()) < 1e-10


def test_queries_and_keys_come_out_alike_and_uncorrelated() -> None:
    a, b = moment(5, 30, 0), moment(5, 30, 5)
    basis = score_basis(a, b)
    expected = basis.energies.sqrt().diag()
    for map_, second in ((basis.query_map, a), (basis.key_map, b)):
        assert torch.allclose(map_.T @ second @ map_, expected, atol=1e-9 * float(expected.max()))


@pytest.mark.parametrize(("queries", "keys"), [(2, 30), (30, 2), (2, 2), (1, 1)])
def test_singular_moments_cost_nothing_beyond_their_rank(queries: int, keys: int) -> None:
    a, b = moment(6, queries, 0), moment(6, keys, 5)
    basis = score_basis(a, b)
    rank = min(queries, keys)
    total = float(torch.trace(a @ b))
    assert loss(*at(basis, rank), a, b) < 1e-9 * total
    assert torch.isfinite(basis.query_map).all()
    assert loss(*at(basis, 6), a, b) < 1e-9 * total


def test_no_scores_at_all_give_zeros() -> None:
    basis = score_basis(moment(4, 9, 0), torch.zeros(4, 4))
    assert basis.energies.tolist() == [0.0] * 4
    assert float(basis.query_map.abs().max()) == 0


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_scales_change_no_projection(scale: float) -> None:
    a, b = moment(6, 30, 0), moment(6, 30, 5)
    plain, scaled = score_basis(a, b), score_basis(scale * a, b)
    for rank in (1, 3):
        expected, found = (left @ right.T for left, right in (at(plain, rank), at(scaled, rank)))
        assert float((found - expected).norm() / expected.norm()) < 1e-9
    assert torch.allclose(scaled.energies / scale, plain.energies, rtol=1e-9)
