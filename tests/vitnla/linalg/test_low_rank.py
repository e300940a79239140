"""Low-rank forms against their closed-form losses, against each other, and against anything else of the same rank."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.linalg.torch import (
    Factors,
    bias_correction,
    cholesky_basis,
    energies_along,
    output_basis,
    output_error,
    output_pca_factors,
    project,
    retained_energy,
    svd_basis,
    truncated_svd,
    whitened_svd_factors,
)

SHAPES = [(12, 7), (7, 12), (9, 9)]


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(size: int, samples: int, seed: int = 1) -> Tensor:
    """E[x xT] of correlated samples whose mean is not zero; singular where samples < size."""
    x = matrix(samples, size, seed) @ matrix(size, size, seed + 1) + 2
    return x.T @ x / samples


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    rows, columns, seed = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(0, 10_000))
    samples = draw(st.integers(1, 12))
    return matrix(rows, columns, seed), gram(columns, samples, seed + 1), draw(st.integers(1, min(rows, columns)))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_pca_loss_is_exactly_the_energy_of_the_cut_directions(problem: tuple[Tensor, Tensor, int]) -> None:
    w, c, rank = problem
    energies = output_basis(w, c).energies
    change = w - output_pca_factors(w, c, rank).product
    assert output_error(change, c) == pytest.approx(float(energies[rank:].sum()), rel=1e-9, abs=1e-11 * float(energies.sum()))
    assert (energies >= 0).all()
    assert (energies.diff() <= 0).all()


@settings(max_examples=60, deadline=None)
@given(problems())
def test_svd_loss_is_exactly_the_cut_squared_singular_values(problem: tuple[Tensor, Tensor, int]) -> None:
    w, _, rank = problem
    values = torch.linalg.svdvals(w)
    loss = float((w - truncated_svd(w, rank).product).square().sum())
    assert loss == pytest.approx(float(values[rank:].square().sum()), rel=1e-9, abs=1e-12 * float(values.square().sum()))
    assert torch.allclose(svd_basis(w).energies, values.square(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_whitened_form_and_the_pca_of_outputs_are_one_matrix(shape: tuple[int, int], rank: int) -> None:
    w, c = matrix(*shape), gram(shape[1], 200)
    pca, whitened = output_pca_factors(w, c, rank).product, whitened_svd_factors(w, c, rank).product
    assert float((pca - whitened).norm() / w.norm()) < 1e-9
    values = torch.linalg.svdvals(w @ torch.linalg.cholesky(c))
    assert torch.allclose(output_basis(w, c).energies, values.square(), rtol=1e-9, atol=1e-11 * float(values[0]) ** 2)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_cholesky_whitening_gives_the_matrix_of_the_eigen_form(problem: tuple[Tensor, Tensor, int]) -> None:
    """Also where C is singular, and where energies coincide: then losses are equal, but matrices need not be."""
    w, c, rank = problem
    eigen, whitened = output_basis(w, c), cholesky_basis(w, c)
    total = float(eigen.energies.sum())
    assert torch.allclose(whitened.energies, eigen.energies, rtol=1e-8, atol=1e-10 * total)
    losses = [output_error(w - project(w, basis, rank).product, c) for basis in (eigen, whitened)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-7, abs=1e-10 * total)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_projecting_on_whitened_directions_is_unwhitening(shape: tuple[int, int], rank: int) -> None:
    w, c = matrix(*shape), gram(shape[1], 200)
    found = project(w, cholesky_basis(w, c), rank).product
    for expected in (whitened_svd_factors(w, c, rank).product, output_pca_factors(w, c, rank).product):
        assert float((found - expected).norm() / w.norm()) < 1e-9


@settings(max_examples=60, deadline=None)
@given(problems())
def test_energies_along_directions_are_what_cutting_them_loses(problem: tuple[Tensor, Tensor, int]) -> None:
    w, c, rank = problem
    total = output_error(w, c)
    plain, weighted = svd_basis(w), output_basis(w, c)
    cut = float(energies_along(w, plain.directions, c)[rank:].sum())
    assert output_error(w - truncated_svd(w, rank).product, c) == pytest.approx(cut, rel=1e-9, abs=1e-11 * total)
    assert torch.allclose(energies_along(w, weighted.directions, c), weighted.energies, rtol=1e-9, atol=1e-11 * total)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_other_map_of_the_same_rank_loses_less(shape: tuple[int, int]) -> None:
    w, c, rank = matrix(*shape), gram(shape[1], 50), 3
    best = output_pca_factors(w, c, rank)
    least = output_error(w - best.product, c)
    for seed in range(50):
        u = best.U + 0.1 * matrix(*best.U.shape, seed)
        # Whatever C is, U⁺W is the best V for a given U: the competitor is at its own optimum.
        competitor = u @ torch.linalg.pinv(u) @ w
        assert output_error(w - competitor, c) >= least * (1 - 1e-12)
    assert output_error(w - truncated_svd(w, rank).product, c) > least
    assert float((w - best.product).square().sum()) > float((w - truncated_svd(w, rank).product).square().sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_full_rank_is_exact(shape: tuple[int, int]) -> None:
    w, full = matrix(*shape), min(shape)
    for factors in (truncated_svd(w, full), output_pca_factors(w, gram(shape[1], 3), full)):
        assert factors.rank == full
        assert float((w - factors.product).abs().max() / w.abs().max()) < 1e-10


def test_a_singular_second_moment_costs_nothing_beyond_its_rank() -> None:
    w, c = matrix(12, 8), gram(8, 3)
    assert torch.linalg.matrix_rank(c) == 3
    assert output_error(w - output_pca_factors(w, c, 3).product, c) < 1e-10 * output_error(w, c)
    assert output_error(w - output_pca_factors(w, c, 2).product, c) > 1e-4 * output_error(w, c)
    with pytest.raises(InputError, match="positive definite"):
        whitened_svd_factors(w, c - 1e-6 * torch.eye(8, dtype=c.dtype), 3)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_scales_change_nothing(scale: float) -> None:
    w, c = matrix(10, 6), gram(6, 40)
    expected = output_pca_factors(w, c, 2).product
    for scaled in (output_pca_factors(scale * w, c, 2).product / scale, output_pca_factors(w, scale * c, 2).product):
        assert float((scaled - expected).norm() / expected.norm()) < 1e-9


def test_a_known_spectrum() -> None:
    left, right = torch.linalg.qr(matrix(8, 5)).Q, torch.linalg.qr(matrix(5, 5, 1)).Q
    w = left @ torch.diag(torch.tensor([4.0, 3, 2, 1, 0], dtype=torch.float64)) @ right.T
    energies = output_basis(w, torch.eye(5, dtype=torch.float64)).energies
    assert energies.tolist() == pytest.approx([16, 9, 4, 1, 0], abs=1e-12)
    assert retained_energy(energies, 2) == pytest.approx(25 / 30)
    assert retained_energy(torch.zeros(3), 1) == 1.0


def test_centred_beats_gram_beats_plain_on_data_with_a_mean() -> None:
    x = matrix(500, 8) * torch.logspace(0, -2, 8, dtype=torch.float64) @ matrix(8, 8, 5) + 5 * matrix(1, 8, 3)
    w, second, mean = matrix(10, 8, 4), x.T @ x / len(x), x.mean(0)
    centred = output_pca_factors(w, second - mean.outer(mean), 2)
    correction = bias_correction(w, centred, mean)

    def error(factors: Factors, bias: Tensor | float = 0.0) -> float:
        return float((x @ (w - factors.product).T - bias).square().sum(1).mean())

    losses = [error(centred, correction), error(output_pca_factors(w, second, 2)), error(truncated_svd(w, 2))]
    assert losses == sorted(losses)
    assert losses[0] < 0.9 * losses[1] < 0.81 * losses[2]
    assert losses[0] == pytest.approx(output_error(w - centred.product, second - mean.outer(mean)), rel=1e-9)


def test_the_dtype_of_the_input_comes_back() -> None:
    w = matrix(6, 4).float()
    factors = output_pca_factors(w, gram(4, 20), 4)
    assert factors.U.dtype == factors.V.dtype == torch.float32
    assert output_basis(w, gram(4, 20)).energies.dtype == torch.float64
    assert float((w - factors.product).abs().max()) < 1e-5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    broken = matrix(4, 4)
    broken[1, 2] = bad
    for call in (lambda: svd_basis(broken), lambda: output_basis(broken, gram(4, 9)), lambda: output_basis(matrix(4, 4), broken)):
        with pytest.raises(InputError, match="finite"):
            call()


@pytest.mark.parametrize("rank", [0, 5, -1])
def test_ranks_out_of_range_are_refused(rank: int) -> None:
    with pytest.raises(InputError, match=f"expected 1 to 4, got {rank}"):
        truncated_svd(matrix(4, 6), rank)


def test_a_second_moment_of_another_width_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected \[6, 6\], got \[4, 4\]"):
        output_basis(matrix(4, 6), gram(4, 9))
