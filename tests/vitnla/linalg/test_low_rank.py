"""Low-rank forms against their closed-form losses, against each other, and against anything else of the same rank."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.helpers.arrays import Library, gram, random, wide
from vitnla.common.errors import InputError
from vitnla.linalg.low_rank import (
    Factors,
    bias_correction,
    energies_along,
    output_error,
    project,
    retained_energy,
    svd_basis,
    tail_energy,
    truncated_svd,
    whitened_basis,
    whitened_basis_by_cholesky,
    whitened_svd,
)

Array = NDArray[np.float64]
SHAPES = [(12, 7), (7, 12), (9, 9)]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Array, Array, int]:
    rows, columns, seed = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(0, 10_000))
    samples = draw(st.integers(1, 12))
    return random(rows, columns, seed=seed), gram(columns, samples, seed + 1), draw(st.integers(1, min(rows, columns)))


def product(factors: Factors[object]) -> Array:
    return wide(factors.U) @ wide(factors.V)


def loss(weight: Array, other: Array, moment: Array) -> float:
    """E|(W - What) x|^2, written out."""
    change = weight - other
    return float(np.trace(change @ moment @ change.T))


def textbook_whitened_svd(weight: Array, moment: Array, rank: int) -> Array:
    """C = L LT, SVD(W L) = U S VT, What = U_r S_r V_rT L^-1 (SVD-LLM); needs a positive definite C."""
    factor = np.linalg.cholesky(moment)
    left, values, right = np.linalg.svd(weight @ factor, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank] @ np.linalg.inv(factor)


@settings(max_examples=40, deadline=None)
@given(problem=problems())
def test_whitened_loss_is_exactly_the_tail_of_the_energies(array: Library, problem: tuple[Array, Array, int]) -> None:
    w, c, rank = problem
    energies = wide(whitened_basis(array(w), array.double(c)).energies)
    found = whitened_svd(array(w), array.double(c), rank)
    total = float(energies.sum())
    assert loss(w, product(found), c) == pytest.approx(float(energies[rank:].sum()), rel=1e-9, abs=array.rounding * total)
    change = array.double(w - product(found))
    assert output_error(change, array.double(c)) == pytest.approx(loss(w, product(found), c), rel=1e-9, abs=1e-15 * total)
    assert (energies >= 0).all()
    assert (np.diff(energies) <= 0).all()


@settings(max_examples=40, deadline=None)
@given(problem=problems())
def test_svd_loss_is_exactly_the_cut_squared_singular_values(array: Library, problem: tuple[Array, Array, int]) -> None:
    w, _, rank = problem
    squares = np.square(np.linalg.svd(w, compute_uv=False))
    change = w - product(truncated_svd(array(w), rank))
    tails = wide(tail_energy(svd_basis(array(w)).energies))
    assert np.square(change).sum() == pytest.approx(squares[rank:].sum(), rel=1e-9, abs=array.rounding * squares.sum())
    assert np.allclose(tails, [squares[cut:].sum() for cut in range(len(squares) + 1)], rtol=1e-9, atol=1e-12 * squares.sum())
    assert tails[-1] == 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_both_whitened_forms_are_the_textbook_s_matrix(array: Library, shape: tuple[int, int], rank: int) -> None:
    w, c = random(*shape), gram(shape[1], 200)
    expected = textbook_whitened_svd(w, c, rank)
    values = np.linalg.svd(w @ np.linalg.cholesky(c), compute_uv=False)
    for find in (whitened_basis, whitened_basis_by_cholesky):
        basis = find(array(w), array.double(c))
        found = product(project(array(w), basis, rank))
        assert np.linalg.norm(found - expected) < max(1e-9, 10 * array.rounding) * np.linalg.norm(w)
        assert np.allclose(wide(basis.energies), values**2, rtol=1e-9, atol=1e-11 * values[0] ** 2)
    found = product(whitened_svd(array(w), array.double(c), rank))
    assert np.linalg.norm(found - expected) < max(1e-9, 10 * array.rounding) * np.linalg.norm(w)


def test_in_float64_the_eigen_form_and_the_textbook_agree_to_rounding(array: Library) -> None:
    w, c = random(40, 24), gram(24, 400)
    found = product(whitened_svd(array.double(w), array.double(c), 9))
    assert np.linalg.norm(found - textbook_whitened_svd(w, c, 9)) < 1e-12 * np.linalg.norm(w)


@settings(max_examples=40, deadline=None)
@given(problem=problems())
def test_cholesky_whitening_gives_the_matrix_of_the_eigen_form(array: Library, problem: tuple[Array, Array, int]) -> None:
    """Also where C is singular, and where energies coincide: then losses are equal, but matrices need not be."""
    w, c, rank = problem
    eigen, whitened = whitened_basis(array(w), array.double(c)), whitened_basis_by_cholesky(array(w), array.double(c))
    total = float(wide(eigen.energies).sum())
    assert np.allclose(wide(whitened.energies), wide(eigen.energies), rtol=1e-8, atol=1e-10 * total)
    losses = [loss(w, product(project(array(w), basis, rank)), c) for basis in (eigen, whitened)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-7, abs=max(1e-10, array.rounding) * total)


@settings(max_examples=40, deadline=None)
@given(problem=problems())
def test_energies_along_directions_are_what_cutting_them_loses(array: Library, problem: tuple[Array, Array, int]) -> None:
    w, c, rank = problem
    total = loss(w, np.zeros_like(w), c)
    plain, weighted = svd_basis(array(w)), whitened_basis(array(w), array.double(c))
    cut = wide(energies_along(array(w), plain.directions, array.double(c)))[rank:].sum()
    assert loss(w, product(truncated_svd(array(w), rank)), c) == pytest.approx(cut, rel=1e-9, abs=array.rounding * total)
    along = energies_along(array(w), weighted.directions, array.double(c))
    assert np.allclose(wide(along), wide(weighted.energies), rtol=1e-9, atol=1e-11 * total)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_other_map_of_the_same_rank_loses_less(array: Library, shape: tuple[int, int]) -> None:
    w, c, rank = random(*shape), gram(shape[1], 50), 3
    best = whitened_svd(array(w), array.double(c), rank)
    least = loss(w, product(best), c) - array.rounding * loss(w, np.zeros_like(w), c)
    for seed in range(50):
        u = wide(best.U) + 0.1 * random(*best.U.shape, seed=seed)
        # Whatever C is, U⁺W is the best V for a given U: the competitor is at its own optimum.
        assert loss(w, u @ np.linalg.pinv(u) @ w, c) >= least * (1 - 1e-12)
    plain = product(truncated_svd(array(w), rank))
    assert loss(w, plain, c) > loss(w, product(best), c)
    assert np.linalg.norm(w - product(best)) > np.linalg.norm(w - plain)


@pytest.mark.parametrize("shape", SHAPES)
def test_full_rank_is_exact(array: Library, shape: tuple[int, int]) -> None:
    w, full = random(*shape), min(shape)
    for factors in (truncated_svd(array(w), full), whitened_svd(array(w), array.double(gram(shape[1], 3)), full)):
        assert factors.rank == full
        assert np.abs(w - product(factors)).max() < 10 * array.rounding * np.abs(w).max()
        assert np.array_equal(wide(factors.product), wide(factors.U @ factors.V))


def test_a_singular_second_moment_costs_nothing_beyond_its_rank(array: Library) -> None:
    w, c = random(12, 8), gram(8, 3)
    assert np.linalg.matrix_rank(c) == 3
    total = loss(w, np.zeros_like(w), c)
    assert loss(w, product(whitened_svd(array(w), array.double(c), 3)), c) < array.rounding * total
    assert loss(w, product(whitened_svd(array(w), array.double(c), 2)), c) > 1e-4 * total
    with pytest.raises(np.linalg.LinAlgError, match="positive definite"):
        textbook_whitened_svd(w, c - 1e-6 * np.eye(8), 3)


@pytest.mark.parametrize("scale", [2.0**-26, 1.0, 2.0**26])
def test_scales_change_nothing(array: Library, scale: float) -> None:
    w, c = random(10, 6), gram(6, 40)
    expected = product(whitened_svd(array(w), array.double(c), 2))
    for scaled in (
        product(whitened_svd(array(scale * w), array.double(c), 2)) / scale,
        product(whitened_svd(array(w), array.double(scale * c), 2)),
    ):
        assert np.linalg.norm(scaled - expected) < max(1e-9, array.rounding) * np.linalg.norm(expected)


def test_a_known_spectrum(array: Library) -> None:
    left, right = np.linalg.qr(random(8, 5)).Q, np.linalg.qr(random(5, 5, seed=1)).Q
    w = left @ np.diag([4.0, 3, 2, 1, 0]) @ right.T
    energies = whitened_basis(array(w), array.double(np.eye(5))).energies
    assert wide(energies).tolist() == pytest.approx([16, 9, 4, 1, 0], rel=10 * array.rounding, abs=array.rounding**2 + 1e-12)
    assert retained_energy(energies, 2) == pytest.approx(25 / 30, rel=10 * array.rounding)
    assert retained_energy(array(np.zeros(3)), 1) == 1.0


def test_centred_beats_gram_beats_plain_on_data_with_a_mean(array: Library) -> None:
    x = random(500, 8) * np.logspace(0, -2, 8) @ random(8, 8, seed=5) + 5 * random(1, 8, seed=3)
    w, second, mean = random(10, 8, seed=4), x.T @ x / len(x), x.mean(0)
    covariance = second - np.outer(mean, mean)
    centred = whitened_svd(array(w), array.double(covariance), 2)
    correction = wide(bias_correction(array(w), centred, array.double(mean)))

    def error(factors: Factors[object], bias: Array | float = 0.0) -> float:
        return float(np.square(x @ (w - product(factors)).T - bias).sum(1).mean())

    losses = [
        error(centred, correction),
        error(whitened_svd(array(w), array.double(second), 2)),
        error(truncated_svd(array(w), 2)),
    ]
    assert losses == sorted(losses)
    assert losses[0] < 0.9 * losses[1] < 0.81 * losses[2]
    assert losses[0] == pytest.approx(loss(w, product(centred), covariance), rel=1e-9)


def test_library_and_type_of_the_input_come_back(array: Library) -> None:
    w, c = array(random(6, 4)), array.double(gram(4, 20))
    for factors in (truncated_svd(w, 4), whitened_svd(w, c, 4), project(w, whitened_basis_by_cholesky(w, c), 4)):
        assert factors.U.dtype == factors.V.dtype == w.dtype
        assert array.owns(factors.U)
        assert array.owns(factors.V)
    for found in (whitened_basis(w, c).energies, bias_correction(w, factors, c[0]), energies_along(w, w[:, :2], c)):
        assert found.dtype == c.dtype
        assert array.owns(found)


def test_nothing_given_is_changed(array: Library) -> None:
    w, c = array.double(random(6, 4)), array.double(gram(4, 20))
    before = wide(w).copy(), wide(c).copy()
    factors = whitened_svd(w, c, 2)
    factors.U[:] = 0
    assert np.array_equal(before[0], wide(w))
    assert np.array_equal(before[1], wide(c))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(array: Library, bad: float) -> None:
    values = random(4, 4)
    values[1, 2] = bad
    broken, c = array(values), array.double(gram(4, 9))
    for call in (
        lambda: svd_basis(broken),
        lambda: whitened_basis(broken, c),
        lambda: whitened_basis(array(random(4, 4)), array.double(values)),
        lambda: whitened_basis_by_cholesky(broken, c),
        lambda: energies_along(broken, c, c),
    ):
        with pytest.raises(InputError, match="finite"):
            call()


@pytest.mark.parametrize("rank", [0, 5, -1])
def test_ranks_out_of_range_are_refused(array: Library, rank: int) -> None:
    with pytest.raises(InputError, match=f"expected 1 to 4, got {rank}"):
        truncated_svd(array(random(4, 6)), rank)


@pytest.mark.parametrize("find", [whitened_basis, whitened_basis_by_cholesky])
def test_a_second_moment_of_another_width_is_refused(array: Library, find: object) -> None:
    with pytest.raises(InputError, match=r"expected \[6, 6\], got \[4, 4\]"):
        find(array(random(4, 6)), array.double(gram(4, 9)))  # type: ignore[operator]
