"""What the algebra takes of each library and gives back: gradients, devices, types, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.helpers.arrays import Library, gram, random, wide
from vitnla.common.errors import InputError
from vitnla.linalg.arrays import as_float64, beside, cholesky, finite_float64, from_numpy, inverse_sqrt, to_numpy
from vitnla.linalg.low_rank import output_error, truncated_svd, whitened_svd
from vitnla.linalg.low_rank_curve import LowRankCurve
from vitnla.linalg.moments import Affine, Moments
from vitnla.linalg.pivoted_cholesky import pivoted_cholesky
from vitnla.linalg.regression import interpolation, ridge
from vitnla.linalg.score_basis import score_basis
from vitnla.linalg.symmetric import nearest_psd_factor, signed_form


def test_float64_is_not_copied_and_anything_else_is_converted(array: Library) -> None:
    double = array.double(random(2, 3))
    assert np.shares_memory(np.asarray(as_float64(double)), np.asarray(double))
    assert as_float64(array(random(2, 3))).dtype == double.dtype
    assert np.shares_memory(to_numpy(double), np.asarray(double))
    assert np.array_equal(wide(from_numpy(random(3, 2).T[::-1], double)), random(3, 2).T[::-1])
    assert beside(double, double) is double


def test_bfloat16_is_taken_and_given_back() -> None:
    weight = torch.tensor(random(6, 4)).bfloat16()
    factors = truncated_svd(weight, 4)
    assert factors.U.dtype == factors.V.dtype == torch.bfloat16
    assert float((weight.double() - factors.U.double() @ factors.V.double()).abs().max()) < 0.05


def test_parameters_are_taken_and_no_gradient_is_passed_on() -> None:
    weight = torch.nn.Parameter(torch.tensor(random(6, 4), dtype=torch.float32))
    moment = torch.tensor(gram(4, 20)).requires_grad_()
    factors = whitened_svd(weight, moment, 2)
    assert not factors.U.requires_grad
    assert not factors.V.requires_grad
    assert not nearest_psd_factor(moment).requires_grad
    assert not pivoted_cholesky(moment).factor.requires_grad
    assert not interpolation(moment, torch.arange(2), 1e-3).requires_grad


def test_only_pivoted_cholesky_leaves_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is on a GPU stays there."""
    weight, moment = torch.tensor(random(6, 4)), torch.tensor(gram(4, 20))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("left torch")

    for name in ("numpy", "__array__", "cpu", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    whitened_svd(weight, moment, 2)
    score_basis(moment, moment)
    signed_form(moment, moment, 2)
    interpolation(moment, torch.arange(2), 1e-3)
    ridge(moment, moment, 1e-3)
    LowRankCurve.of(Affine(weight, weight[:, 0]), Moments(moment, moment[0], 20, 1.0), "centered").at(2)
    with pytest.raises(AssertionError, match="left torch"):
        pivoted_cholesky(moment)


def test_arrays_of_two_libraries_are_not_mixed() -> None:
    with pytest.raises(TypeError):
        output_error(random(3, 3), torch.eye(3, dtype=torch.float64))


def test_the_reciprocal_root_of_what_is_not_used_is_zero(array: Library) -> None:
    values = array(np.array([4.0, 0.0, 1e-30]))
    assert wide(inverse_sqrt(values, values > 1e-20)).tolist() == [0.5, 0.0, 0.0]


def test_cholesky_tells_singular_matrices_from_other_errors(array: Library) -> None:
    assert np.array_equal(wide(cholesky(array(4 * np.eye(2)))), 2 * np.eye(2))
    assert cholesky(array(np.array([[1.0, 2.0], [2.0, 1.0]]))) is None
    if array.name == "torch":
        with pytest.raises(RuntimeError, match="square"):
            cholesky(array(np.ones((2, 3))))


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_what_is_not_finite_is_named(array: Library, bad: float) -> None:
    with pytest.raises(InputError, match="bias: expected finite numbers"):
        finite_float64(array(np.array([1.0, bad])), "bias")
