"""Damped regression from moments against least squares on the samples themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.arrays import Library, random, wide
from vitnla.common.errors import InputError
from vitnla.linalg.regression import interpolation, ridge


@settings(max_examples=30, deadline=None)
@given(size=st.integers(2, 8), samples=st.integers(10, 30), seed=st.integers(0, 10_000), data=st.data())
def test_interpolation_is_least_squares_on_the_samples(
    array: Library, size: int, samples: int, seed: int, data: st.DataObject
) -> None:
    x = random(samples, size, seed=seed) + 0.5
    kept = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))))
    found = wide(interpolation(array.double(x.T @ x / samples), array.indices(kept), damping=1e-14))
    expected = np.linalg.lstsq(x[:, kept], x, rcond=None)[0].T
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert np.allclose(found[kept], np.eye(len(kept)), atol=1e-8)


@pytest.mark.parametrize("damping", [1e-3, 1.0])
def test_interpolation_is_the_closed_form_of_ridge_regression(array: Library, damping: float) -> None:
    x, kept = random(30, 6), np.array([0, 2, 5])
    found = wide(interpolation(array.double(x.T @ x / 30), array.indices(kept), damping))
    strength = damping * np.square(x[:, kept]).mean()
    # Rows of sqrt(n lambda) I below the samples: least squares on these is ridge regression on the samples.
    stacked = np.vstack([x[:, kept], np.sqrt(30 * strength) * np.eye(3)])
    expected = np.linalg.lstsq(stacked, np.vstack([x, np.zeros((3, 6))]), rcond=None)[0].T
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_interpolation_is_ridge_without_a_constant(array: Library) -> None:
    x, kept = random(40, 5), np.array([1, 3])
    x -= x.mean(0)
    extended = np.hstack([x[:, kept], np.ones((40, 1))])
    fitted = wide(ridge(array.double(extended.T @ extended), array.double(x.T @ extended), 1e-2))
    found = wide(interpolation(array.double(x.T @ x / 40), array.indices(kept), 1e-2))
    assert np.allclose(fitted[:, :-1], found, rtol=1e-9, atol=1e-12)
    assert np.abs(fitted[:, -1]).max() < 1e-12


def test_damping_shrinks_towards_nothing_and_copes_with_singular_matrices(array: Library) -> None:
    x = random(2, 6) * np.logspace(0, -1, 6) + 0.3
    c, kept = x.T @ x / 2, array.indices(np.arange(5))
    found = wide(interpolation(array.double(c), kept, damping=1e-9))
    assert np.abs(found @ c[:5] - c).max() < 1e-6 * np.abs(c).max()
    assert np.abs(wide(interpolation(array.double(c), kept, damping=1e9))).max() < 1e-8
    assert np.abs(wide(interpolation(array(np.zeros((3, 3))), array.indices(np.arange(2)), damping=1e-6))).max() == 0


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_ridge_without_damping_is_least_squares(array: Library, scale: float) -> None:
    features, targets, ones = random(50, 6), random(50, 4, seed=1), np.ones((50, 1))
    expected = np.linalg.lstsq(np.hstack([features, ones]), targets, rcond=None)[0].T
    extended = np.hstack([features * scale, ones])
    found = wide(ridge(array.double(extended.T @ extended), array.double(targets.T @ extended), 1e-14))
    np.testing.assert_allclose(found[:, :-1] * scale, expected[:, :-1], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found[:, -1], expected[:, -1], atol=1e-9)


def test_ridge_takes_features_that_never_vary(array: Library) -> None:
    extended = np.ones((5, 3))
    found = ridge(array(extended.T @ extended), array(2 * np.ones((1, 5)) @ extended), 1e-2)
    assert np.allclose(wide(found), [[0.0, 0.0, 2.0]], atol=1e-12)


def test_library_and_type_of_the_result(array: Library) -> None:
    c = array(np.eye(4))
    for found in (interpolation(c, array.indices(np.arange(2)), 1e-6), ridge(c, c, 1e-6)):
        assert array.owns(found)
        assert found.dtype == array.double(np.zeros(1)).dtype


def test_what_is_not_damped_is_refused(array: Library) -> None:
    c = array.double(np.eye(4))
    with pytest.raises(InputError, match="above 0, got 0"):
        interpolation(c, array.indices(np.arange(2)), damping=0.0)
    with pytest.raises(InputError, match="above 0, got -1"):
        ridge(c, c, damping=-1.0)
    with pytest.raises(InputError, match="too little"):
        interpolation(array.double(np.ones((4, 4)) - 1e-9 * np.eye(4)), array.indices(np.arange(4)), damping=1e-30)
