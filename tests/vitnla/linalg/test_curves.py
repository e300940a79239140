"""A linear at every rank and an MLP at every width, against the samples that their moments are of."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.arrays import LIBRARIES, Library, random, wide
from vitnla.linalg.low_rank_curve import LowRankCurve, Weighting
from vitnla.linalg.mlp_curve import MlpCurve
from vitnla.linalg.moments import Affine, Moments, relative_error

Array = NDArray[np.float64]
X = random(60, 7) @ random(7, 7, seed=1) + 2
HIDDEN = np.maximum(random(60, 12, seed=2) @ random(12, 12, seed=3), 0)


def moments(array: Library, x: Array) -> Moments[object]:
    return Moments(array.double(x.T @ x / len(x)), array.double(x.mean(0)), len(x), sensitivity=0.5)


def linear(array: Library, rows: int, columns: int) -> Affine[object]:
    return Affine(array(random(rows, columns, seed=4)), array(random(rows, seed=5)))


def outputs(map_: Affine[object], x: Array) -> Array:
    return x @ wide(map_.weight).T + wide(map_.bias)


def error(old: Array, new: Array) -> float:
    return float(np.linalg.norm(new - old) / np.linalg.norm(old - old.mean(0)))


@pytest.mark.parametrize("weighting", get_args(Weighting))
def test_a_linear_at_every_rank(array: Library, weighting: Weighting) -> None:
    old = linear(array, 9, 7)
    curve = LowRankCurve.of(old, moments(array, X), weighting)
    second = np.cov(X.T, bias=True) if weighting == "centered" else X.T @ X / len(X)
    for rank in range(1, 8):
        fit = curve.at(rank)
        assert (fit.map.factors.rank, fit.map.factors.U.dtype, fit.map.bias.dtype) == (rank, old.weight.dtype, old.bias.dtype)
        product = wide(fit.map.factors.U) @ wide(fit.map.factors.V)
        new = X @ product.T + wide(fit.map.bias)
        assert fit.error == pytest.approx(error(outputs(old, X), new), rel=1e-6, abs=10 * array.rounding)
        change = wide(old.weight) - product
        lost = 0.5 * float(np.trace(change @ second @ change.T))
        assert float(curve.losses[rank]) == pytest.approx(lost, rel=1e-6, abs=10 * array.rounding * float(curve.losses[0]))
        if weighting == "centered":
            assert np.allclose(new.mean(0), outputs(old, X).mean(0), atol=100 * array.rounding)
    assert fit.retained == pytest.approx(1)
    assert curve.at(1).error > curve.at(3).error > curve.at(6).error


def test_an_mlp_at_every_width(array: Library) -> None:
    first, second = linear(array, 12, 7), linear(array, 5, 12)
    curve = MlpCurve.of(first, second, moments(array, HIDDEN), damping=1e-12)
    old = outputs(second, HIDDEN)
    assert curve.full == 12
    assert float(curve.errors[0]) == pytest.approx(float(old.var(0).sum()), rel=1e-9)
    assert float(curve.errors[12]) == 0
    assert np.allclose(wide(curve.losses), 0.5 * wide(curve.errors))
    for width in (1, 4, 11):
        fit = curve.at(width)
        kept = np.asarray(fit.kept)
        assert kept.tolist() == sorted(np.asarray(curve.order)[:width].tolist())
        assert np.array_equal(wide(fit.first.weight), wide(first.weight)[kept])
        assert np.array_equal(wide(fit.first.bias), wide(first.bias)[kept])
        found = outputs(fit.second, HIDDEN[:, kept])
        best = np.hstack([HIDDEN[:, kept], np.ones((60, 1))])
        least = best @ np.linalg.lstsq(best, old, rcond=None)[0] - old
        assert np.square(found - old).sum() == pytest.approx(np.square(least).sum(), rel=1e-6)
        assert float(curve.errors[width]) == pytest.approx(np.square(least).sum() / 60, rel=1e-6)
        assert fit.error == pytest.approx(error(old, found), rel=1e-6)
        assert fit.retained == pytest.approx(1 - fit.error**2, rel=1e-6)


def test_relative_error_is_that_of_the_outputs(array: Library) -> None:
    old, new = linear(array, 9, 7), Affine(array(random(9, 7, seed=8)), array(random(9, seed=9)))
    expected = error(outputs(old, X), outputs(new, X))
    assert relative_error(old, new, moments(array, X)) == pytest.approx(expected, rel=1e-9)
    assert relative_error(old, old, moments(array, X)) == 0


@pytest.mark.parametrize("weighting", get_args(Weighting))
def test_both_libraries_choose_alike(weighting: Weighting) -> None:
    curves = [LowRankCurve.of(linear(array, 9, 7), moments(array, X), weighting) for array in LIBRARIES.values()]
    mlps = [MlpCurve.of(linear(array, 12, 7), linear(array, 5, 12), moments(array, HIDDEN), 1e-6) for array in LIBRARIES.values()]
    for curve, mlp in zip(curves[1:], mlps[1:], strict=True):
        assert np.allclose(wide(curve.losses), wide(curves[0].losses), rtol=1e-9, atol=1e-12)
        assert np.asarray(mlp.order).tolist() == np.asarray(mlps[0].order).tolist()
        for one, other in ((curve.at(3), curves[0].at(3)), (mlp.at(5), mlps[0].at(5))):
            assert one.error == pytest.approx(other.error, rel=1e-6)
            assert one.retained == pytest.approx(other.retained, rel=1e-9)
