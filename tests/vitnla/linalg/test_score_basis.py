"""The directions of a head's scores: what they lose, and that nothing of the same width loses less."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.helpers.arrays import Library, random, wide
from vitnla.common.errors import InputError
from vitnla.linalg.score_basis import ScoreBasis, score_basis

Array = NDArray[np.float64]


def moment(size: int, samples: int, seed: int) -> Array:
    x = random(samples, size, seed=seed) @ random(size, size, seed=seed + 1)
    return x.T @ x / samples


def loss(left: Array, right: Array, a: Array, b: Array) -> float:
    """E(qT k - qT F GT k)^2 for independent q and k with second moments A and B."""
    change = np.eye(len(a)) - left @ right.T
    return float(np.trace(change @ b @ change.T @ a))


def at(basis: ScoreBasis[object], rank: int) -> tuple[Array, Array]:
    return wide(basis.query_map)[:, :rank], wide(basis.key_map)[:, :rank]


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 8), queries=st.integers(1, 12), keys=st.integers(1, 12), seed=st.integers(0, 10_000))
def test_the_loss_is_exactly_the_energy_of_the_cut_directions(
    array: Library, size: int, queries: int, keys: int, seed: int
) -> None:
    a, b = moment(size, queries, seed), moment(size, keys, seed + 7)
    basis = score_basis(array.double(a), array.double(b))
    total, energies = float(np.trace(a @ b)), wide(basis.energies)
    assert energies.sum() == pytest.approx(total, rel=1e-9)
    assert (np.diff(energies) <= 0).all()
    for rank in range(size + 1):
        assert loss(*at(basis, rank), a, b) == pytest.approx(energies[rank:].sum(), rel=1e-6, abs=1e-9 * total)


def test_nothing_of_the_same_width_loses_less(array: Library) -> None:
    a, b, rank = moment(6, 30, 0), moment(6, 30, 5), 3
    basis = score_basis(array.double(a), array.double(b))
    least = loss(*at(basis, rank), a, b)
    for seed in range(50):
        left = wide(basis.query_map)[:, :rank] + 0.1 * random(6, rank, seed=seed)
        # The best keys for these queries: least squares of q by FT q.
        right = np.linalg.solve(left.T @ a @ left, left.T @ a).T
        assert loss(left, right, a, b) >= least * (1 - 1e-12)
    orthogonal = np.linalg.eigh(a).eigenvectors[:, ::-1][:, :rank]
    assert loss(orthogonal, orthogonal, a, b) > 1.01 * least


def test_full_width_is_exact(array: Library) -> None:
    basis = score_basis(array.double(moment(6, 60, 0)), array.double(moment(6, 60, 5)))
    assert np.abs(wide(basis.query_map) @ wide(basis.key_map).T - np.eye(6)).max() < 1e-10


def test_queries_and_keys_come_out_alike_and_uncorrelated(array: Library) -> None:
    a, b = moment(5, 30, 0), moment(5, 30, 5)
    basis = score_basis(array.double(a), array.double(b))
    expected = np.diag(np.sqrt(wide(basis.energies)))
    for map_, second in ((wide(basis.query_map), a), (wide(basis.key_map), b)):
        assert np.allclose(map_.T @ second @ map_, expected, atol=1e-9 * expected.max())


@pytest.mark.parametrize(("queries", "keys"), [(2, 30), (30, 2), (2, 2), (1, 1)])
def test_singular_moments_cost_nothing_beyond_their_rank(array: Library, queries: int, keys: int) -> None:
    a, b = moment(6, queries, 0), moment(6, keys, 5)
    basis = score_basis(array.double(a), array.double(b))
    rank = min(queries, keys)
    total = float(np.trace(a @ b))
    assert loss(*at(basis, rank), a, b) < 1e-9 * total
    assert np.isfinite(wide(basis.query_map)).all()
    assert loss(*at(basis, 6), a, b) < 1e-9 * total


def test_no_scores_at_all_give_zeros(array: Library) -> None:
    basis = score_basis(array(moment(4, 9, 0)), array(np.zeros((4, 4))))
    assert basis.energies.tolist() == [0.0] * 4
    assert np.abs(wide(basis.query_map)).max() == 0
    assert array.owns(basis.query_map)
    assert basis.energies.dtype == array.double(np.zeros(1)).dtype


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_scales_change_no_projection(array: Library, scale: float) -> None:
    a, b = array.double(moment(6, 30, 0)), array.double(moment(6, 30, 5))
    plain, scaled = score_basis(a, b), score_basis(scale * a, b)
    for rank in (1, 3):
        expected, found = (left @ right.T for left, right in (at(plain, rank), at(scaled, rank)))
        assert np.linalg.norm(found - expected) < 1e-9 * np.linalg.norm(expected)
    assert np.allclose(wide(scaled.energies) / scale, wide(plain.energies), rtol=1e-9)


def test_numbers_that_are_not_finite_are_refused(array: Library) -> None:
    with pytest.raises(InputError, match="finite"):
        score_basis(array(np.full((2, 2), math.nan)), array(np.eye(2)))
