"""Symmetric and positive semidefinite forms of a matrix against brute force."""

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
from vitnla.linalg.symmetric import nearest_psd_factor, psd_root, signed_form, symmetric_part

Array = NDArray[np.float64]


def loss(matrix: Array, found: Array, root: Array) -> float:
    return float(np.linalg.norm(root.T @ (matrix - found) @ root))


def higham(matrix: Array) -> Array:
    """(B + H) / 2, B the symmetric part and H its polar factor (Higham 1988, theorem 2.1)."""
    symmetric = (matrix + matrix.T) / 2
    _, values, right = np.linalg.svd(symmetric)
    return (symmetric + (right.T * values) @ right) / 2


class TestSignedForm:
    @settings(max_examples=15, deadline=None)
    @given(rank=st.integers(1, 5), seed=st.integers(0, 50), psd=st.booleans(), scale=st.sampled_from([2.0**-26, 1.0, 2.0**26]))
    def test_no_choice_of_eigenvectors_and_no_step_from_it_is_better(
        self, array: Library, rank: int, seed: int, psd: bool, scale: float
    ) -> None:
        matrix, root = scale * random(5, 5, seed=seed), random(5, 5, seed=seed + 100)
        form = signed_form(array(matrix), array.double(root @ root.T), rank, psd=psd)
        factor, signs = wide(form.factor), wide(form.signs)
        best = loss(matrix, wide(form.product), root)
        core = root.T @ (matrix + matrix.T) @ root / 2
        values, vectors = np.linalg.eigh(core)
        anti = loss(matrix, (matrix + matrix.T) / 2, root)
        for chosen in itertools.combinations(range(5), rank):
            kept = values[list(chosen)].clip(min=0) if psd else values[list(chosen)]
            subset = vectors[:, list(chosen)]
            other = math.hypot(float(np.linalg.norm(core - (subset * kept) @ subset.T)), anti)
            assert best <= other * (1 + 1e-9)
        for step in (1e-3, 1e-1):
            moved = factor + step * np.linalg.norm(factor) * random(5, rank, seed=seed + 7)
            assert best <= loss(matrix, (moved * signs) @ moved.T, root) * (1 + 1e-9)

    def test_a_symmetric_matrix_is_exact_at_its_rank(self, array: Library) -> None:
        factor, signs = random(6, 3), np.array([1.0, -1.0, 1.0])
        matrix = (factor * signs) @ factor.T
        root = random(6, 6, seed=1)
        found = signed_form(array(matrix), array.double(root @ root.T), 3).product
        np.testing.assert_allclose(wide(found), matrix, rtol=10 * array.rounding, atol=10 * array.rounding)

    def test_a_singular_measure_counts_only_what_it_reaches(self, array: Library) -> None:
        matrix, root = random(6, 6), random(6, 2, seed=1)
        symmetric = (matrix + matrix.T) / 2
        form = signed_form(array(matrix), array.double(root @ root.T), 2)
        np.testing.assert_allclose(root.T @ wide(form.product) @ root, root.T @ symmetric @ root, rtol=1e-9, atol=1e-9)
        assert np.isfinite(wide(form.factor)).all()

    def test_psd_at_full_rank_is_the_nearest_psd_matrix(self, array: Library) -> None:
        matrix, identity = random(5, 5), np.eye(5)
        nearest = wide(signed_form(array(matrix), array(identity), 5, psd=True).product)
        np.testing.assert_allclose(nearest, higham(matrix), atol=1e-12)
        assert np.linalg.eigvalsh(nearest).min() > -1e-12
        for seed in range(50):  # no PSD matrix of a random search around it is nearer
            root = np.linalg.cholesky(nearest + 1e-9 * identity) + 0.05 * random(5, 5, seed=seed)
            assert loss(matrix, nearest, identity) <= loss(matrix, root @ root.T, identity) + 1e-9

    def test_a_zero_matrix_gives_zeros(self, array: Library) -> None:
        form = signed_form(array(np.zeros((4, 4))), array(np.zeros((4, 4))), 2)
        assert np.abs(wide(form.product)).max() == 0

    @pytest.mark.parametrize(
        ("matrix", "rank", "complaint"),
        [(np.eye(3), 4, "1 to 3, got 4"), (np.full((3, 3), np.nan), 1, "finite"), (np.zeros((2, 3)), 1, "square")],
    )
    def test_bad_input_is_named(self, array: Library, matrix: Array, rank: int, complaint: str) -> None:
        with pytest.raises(InputError, match=complaint):
            signed_form(array(matrix), array(np.eye(len(matrix))), rank)


class TestNearestPsdFactor:
    @pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
    @pytest.mark.parametrize("rank", [0, 1, 3, 5])
    def test_it_factors_singular_matrices(self, array: Library, rank: int, scale: float) -> None:
        root = random(5, rank)
        matrix = scale * root @ root.T
        lower = wide(nearest_psd_factor(array.double(matrix)))
        assert np.array_equal(lower, np.tril(lower))
        assert (lower.diagonal() >= 0).all()
        np.testing.assert_allclose(lower @ lower.T, matrix, rtol=1e-10, atol=1e-10 * scale)

    def test_it_is_the_usual_one_where_that_exists(self, array: Library) -> None:
        root = random(5, 5)
        found = nearest_psd_factor(array.double(root @ root.T))
        np.testing.assert_allclose(wide(found), np.linalg.cholesky(root @ root.T), rtol=1e-9, atol=1e-9)

    @settings(max_examples=30, deadline=None)
    @given(size=st.integers(1, 7), seed=st.integers(0, 10_000))
    def test_of_any_matrix_it_is_the_factor_of_the_nearest_psd_one(self, array: Library, size: int, seed: int) -> None:
        matrix = random(size, size, seed=seed)
        for root in (nearest_psd_factor(array(matrix)), psd_root(array(matrix))):
            np.testing.assert_allclose(wide(root) @ wide(root).T, higham(matrix), atol=1e-11)

    def test_library_and_type_of_the_result(self, array: Library) -> None:
        matrix, double = array(random(4, 4)), array.double(np.zeros(1)).dtype
        form = signed_form(matrix, matrix @ matrix.T, 2)
        for found in (symmetric_part(matrix), psd_root(matrix), nearest_psd_factor(matrix), form.factor, form.signs):
            assert array.owns(found)
            assert found.dtype == double
