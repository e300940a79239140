"""Pivoted Cholesky against its definition, and the interpolation against least squares on the samples themselves."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.linalg.torch import interpolation, pivoted_cholesky


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(size: int, samples: int, seed: int = 1) -> Tensor:
    x = matrix(samples, size, seed) * torch.logspace(0, -1, size, dtype=torch.float64) + 0.3
    return x.T @ x / samples


def schur(c: Tensor, kept: Tensor) -> Tensor:
    """C - C[:, S] C[S, S]^-1 C[S, :], by a pseudo-inverse."""
    return c - c[:, kept] @ torch.linalg.pinv(c[kept][:, kept], rcond=1e-13, hermitian=True) @ c[kept]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 10_000))
def test_every_step_is_the_nystrom_approximation_of_the_pivots_so_far(size: int, samples: int, seed: int) -> None:
    c = gram(size, samples, seed)
    found = pivoted_cholesky(c)
    scale = float(c.trace())
    assert found.rank <= min(size, samples)
    assert sorted(found.pivots.tolist()) == list(range(size))
    assert float((found.factor @ found.factor.T - c).abs().max()) < 1e-10 * scale
    for step in range(found.rank + 1):
        left = schur(c, found.pivots[:step])
        product = found.factor[:, :step] @ found.factor[:, :step].T
        assert torch.allclose(c - product, left, rtol=0, atol=1e-8 * scale)
        assert float(found.residuals[step]) == pytest.approx(float(left.trace()), abs=1e-8 * scale)
    assert (found.residuals.diff() <= 0).all()


def test_each_pivot_is_the_one_explained_least() -> None:
    c = gram(8, 50)
    pivots = pivoted_cholesky(c).pivots
    for step in range(8):
        left = schur(c, pivots[:step]).diagonal()
        assert float(left[pivots[step]]) == pytest.approx(float(left.max()), rel=1e-9)


def test_the_trace_left_is_between_the_best_subset_and_the_bound_of_greedy_choice() -> None:
    """Greedy pivots lose at most 4^k (n - k) times what the best subspace of k directions does (Harbrecht et al. 2012)."""
    c, count = gram(7, 40), 3
    found = float(pivoted_cholesky(c).residuals[count])
    best = min(float(schur(c, torch.tensor(kept)).trace()) for kept in itertools.combinations(range(7), count))
    tail = float(torch.linalg.eigvalsh(c)[: 7 - count].sum())
    assert tail <= best * (1 + 1e-12) <= found * (1 + 1e-9)
    assert found <= 4**count * (7 - count) * tail


@pytest.mark.parametrize("samples", [1, 3])
def test_an_exhausted_matrix_stops_at_its_rank(samples: int) -> None:
    found = pivoted_cholesky(gram(8, samples))
    assert found.rank == samples
    assert found.factor.shape == (8, samples)
    assert float(found.residuals[-1]) < 1e-12 * float(found.residuals[0])


def test_a_matrix_of_zeros_has_no_pivots() -> None:
    found = pivoted_cholesky(torch.zeros(4, 4))
    assert (found.rank, found.residuals.tolist()) == (0, [0.0])
    assert sorted(found.pivots.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_scales_change_nothing(scale: float) -> None:
    c = gram(8, 20)
    plain, scaled = pivoted_cholesky(c), pivoted_cholesky(scale * c)
    assert plain.pivots.tolist() == scaled.pivots.tolist()
    assert torch.allclose(scaled.residuals / scale, plain.residuals, rtol=1e-9, atol=1e-12)
    kept = plain.pivots[:3]
    assert torch.allclose(interpolation(c, kept, 1e-6), interpolation(scale * c, kept, 1e-6), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(10, 30), st.integers(0, 10_000), st.data())
def test_interpolation_is_least_squares_on_the_samples(size: int, samples: int, seed: int, data: st.DataObject) -> None:
    x = matrix(samples, size, seed) + 0.5
    kept = torch.tensor(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))))
    found = interpolation(x.T @ x / samples, kept, damping=1e-14)
    expected = torch.linalg.lstsq(x[:, kept], x).solution.T
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert torch.allclose(found[kept], torch.eye(len(kept), dtype=torch.float64), atol=1e-8)


def test_damping_shrinks_towards_nothing_and_copes_with_singular_matrices() -> None:
    c = gram(6, 2)
    kept = torch.arange(5)
    found = interpolation(c, kept, damping=1e-9)
    assert float((found @ c[kept] - c).abs().max()) < 1e-6 * float(c.abs().max())
    assert float(interpolation(c, kept, damping=1e9).abs().max()) < 1e-8
    assert interpolation(torch.zeros(3, 3), torch.arange(2), damping=1e-6).abs().max() == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    c = gram(3, 9)
    c[0, 1] = bad
    with pytest.raises(InputError, match="finite"):
        pivoted_cholesky(c)


def test_what_is_not_square_or_not_damped_is_refused() -> None:
    with pytest.raises(InputError, match=r"square matrix, got \[3, 4\]"):
        pivoted_cholesky(matrix(3, 4))
    with pytest.raises(InputError, match="above 0, got 0"):
        interpolation(gram(4, 9), torch.arange(2), damping=0.0)
    with pytest.raises(InputError, match="too little"):
        interpolation(torch.ones(4, 4) - 1e-9 * torch.eye(4), torch.arange(4), damping=1e-30)
