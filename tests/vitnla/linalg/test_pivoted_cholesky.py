"""Pivoted Cholesky against its definition and against every choice of as many variables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.helpers.arrays import Library, random, wide
from vitnla.common.errors import InputError
from vitnla.linalg.pivoted_cholesky import pivoted_cholesky
from vitnla.linalg.regression import interpolation

Array = NDArray[np.float64]


def moment(size: int, samples: int, seed: int = 1) -> Array:
    """A second moment whose variables differ in size."""
    x = random(samples, size, seed=seed) * np.logspace(0, -1, size) + 0.3
    return x.T @ x / samples


def schur(c: Array, kept: Array) -> Array:
    """C - C[:, S] C[S, S]^-1 C[S, :], by a pseudo-inverse."""
    return c - c[:, kept] @ np.linalg.pinv(c[kept][:, kept], rcond=1e-13, hermitian=True) @ c[kept]


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 9), samples=st.integers(1, 12), seed=st.integers(0, 10_000))
def test_every_step_is_the_nystrom_approximation_of_the_pivots_so_far(array: Library, size: int, samples: int, seed: int) -> None:
    c = moment(size, samples, seed)
    found = pivoted_cholesky(array.double(c))
    pivots, factor, residuals = np.asarray(found.pivots), wide(found.factor), wide(found.residuals)
    scale = float(c.trace())
    assert found.rank <= min(size, samples)
    assert sorted(pivots.tolist()) == list(range(size))
    assert np.abs(factor @ factor.T - c).max() < 1e-10 * scale
    for step in range(found.rank + 1):
        left = schur(c, pivots[:step])
        assert np.allclose(c - factor[:, :step] @ factor[:, :step].T, left, rtol=0, atol=1e-8 * scale)
        assert residuals[step] == pytest.approx(float(left.trace()), abs=1e-8 * scale)
    assert (np.diff(residuals) <= 0).all()


def test_each_pivot_is_the_one_explained_least(array: Library) -> None:
    c = moment(8, 50)
    pivots = np.asarray(pivoted_cholesky(array.double(c)).pivots)
    for step in range(8):
        left = schur(c, pivots[:step]).diagonal()
        assert left[pivots[step]] == pytest.approx(left.max(), rel=1e-9)


def test_the_trace_left_is_between_the_best_subset_and_the_bound_of_greedy_choice(array: Library) -> None:
    """Greedy pivots lose at most 4^k (n - k) times what the best subspace of k directions does (Harbrecht et al. 2012)."""
    c, count = moment(7, 40), 3
    found = float(pivoted_cholesky(array.double(c)).residuals[count])
    best = min(float(schur(c, np.array(kept)).trace()) for kept in itertools.combinations(range(7), count))
    tail = float(np.linalg.eigvalsh(c)[: 7 - count].sum())
    assert tail <= best * (1 + 1e-12) <= found * (1 + 1e-9)
    assert found <= 4**count * (7 - count) * tail


@pytest.mark.parametrize("samples", [1, 3])
def test_an_exhausted_matrix_stops_at_its_rank(array: Library, samples: int) -> None:
    found = pivoted_cholesky(array.double(moment(8, samples)))
    assert found.rank == samples
    assert tuple(found.factor.shape) == (8, samples)
    assert float(found.residuals[-1]) < 1e-12 * float(found.residuals[0])


def test_a_matrix_of_zeros_has_no_pivots(array: Library) -> None:
    found = pivoted_cholesky(array(np.zeros((4, 4))))
    assert (found.rank, found.residuals.tolist()) == (0, [0.0])
    assert sorted(found.pivots.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_scales_change_nothing(array: Library, scale: float) -> None:
    c = array.double(moment(8, 20))
    plain, scaled = pivoted_cholesky(c), pivoted_cholesky(scale * c)
    assert plain.pivots.tolist() == scaled.pivots.tolist()
    assert np.allclose(wide(scaled.residuals) / scale, wide(plain.residuals), rtol=1e-9, atol=1e-12)
    kept = plain.pivots[:3]
    assert np.allclose(wide(interpolation(c, kept, 1e-6)), wide(interpolation(scale * c, kept, 1e-6)), rtol=1e-9)


def test_library_and_types_of_the_result(array: Library) -> None:
    given, double = array(moment(5, 9)), array.double(np.zeros(1)).dtype
    before = wide(given).copy()
    found = pivoted_cholesky(given)
    assert all(array.owns(part) for part in (found.pivots, found.factor, found.residuals))
    assert found.factor.dtype == found.residuals.dtype == double
    assert given[found.pivots].shape == given.shape  # they are indices of this library
    assert np.array_equal(wide(given), before)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(array: Library, bad: float) -> None:
    c = moment(3, 9)
    c[0, 1] = bad
    with pytest.raises(InputError, match="finite"):
        pivoted_cholesky(array(c))


def test_what_is_not_square_is_refused(array: Library) -> None:
    with pytest.raises(InputError, match=r"square matrix, got \[3, 4\]"):
        pivoted_cholesky(array(random(3, 4)))
