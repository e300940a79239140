"""Parity: logits against the reference, classes against the dense model."""

from __future__ import annotations

import math

import numpy as np
import pytest

from runtime.bench.plan import Target
from runtime.bundle.schema import Bundle
from runtime.check.accuracy import score
from runtime.check.logits import as_log, least_cosine, mean_divergence, relative_error
from runtime.check.parity import ParityRow, check_parity
from tests.helpers.bundles import agreeing_evaluation
from vitnla.common.errors import MissingDependencyError
from vitnla.data.dataset import Dataset


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_a_faithful_runtime_meets_parity(tiny_bundle: Bundle, tiny_data: Dataset, runtime: str) -> None:
    row = check_parity(tiny_bundle, Target(runtime), threads=1, evaluation=agreeing_evaluation(tiny_bundle, tiny_data))
    assert row.error is None
    assert row.max_rel is not None
    assert 0 <= row.max_rel <= 1e-4
    assert row.verdict == "met"
    assert (row.images, row.top1, row.agreement, row.lost, row.gained) == (20, 0.8, 1.0, 0, 0)
    assert row.p_value == 1.0
    assert row.calibration_error is not None
    assert 0 <= row.calibration_error <= 1
    assert row.cosine == pytest.approx(1, abs=1e-6)
    assert row.divergence == pytest.approx(0, abs=1e-6)
    assert ParityRow.model_validate_json(row.model_dump_json()) == row


def test_wrong_logits_are_not_met(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    row = check_parity(tiny_bundle, Target("quick"), threads=1)
    images, reference = tiny_bundle.reference()
    expected = np.abs(images.reshape(8, -1)[:, :10] - reference).max() / np.abs(reference).max()
    assert row.max_rel == pytest.approx(expected, rel=1e-5)
    assert row.verdict == "not met"
    assert (row.images, row.top1) == (None, None)


def test_a_crash_is_a_row_and_an_absent_runtime_an_error(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    row = check_parity(tiny_bundle, Target("crash"), threads=1, batch=1)
    assert row.error is not None
    assert "SIGSEGV" in row.error
    assert row.verdict == "not met"
    with pytest.raises(MissingDependencyError, match="no such device"):
        check_parity(tiny_bundle, Target("absent"), threads=1)


def test_relative_error_is_two_sided_and_infinite_for_what_is_not_finite() -> None:
    reference = np.array([[1.0, -4.0]], np.float32)
    assert relative_error(np.array([[1.0, -4.4]], np.float32), reference) == pytest.approx(0.1, rel=1e-5)
    assert relative_error(np.array([[0.6, -4.0]], np.float32), reference) == pytest.approx(0.1, rel=1e-5)
    for spoilt in (math.nan, math.inf):
        assert relative_error(np.array([[spoilt, -4.0]], np.float32), reference) == math.inf
    assert relative_error(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32)) == 0


def test_flips_are_counted_by_direction() -> None:
    labels, dense, predicted = (np.array(values) for values in ([0, 1, 2, 3, 4], [0, 1, 2, 0, 0], [0, 1, 0, 3, 1]))
    sure = np.full(5, 0.6)
    found = score(predicted, sure, labels, dense)
    assert (found.top1.value, found.agreement, found.lost, found.gained) == (0.6, 0.4, 1, 1)
    assert found.p_value == 1.0  # one lost, one gained: nothing to choose between them
    assert found.calibration_error == pytest.approx(0, abs=1e-12)  # 60 % sure, 60 % right
    alone = score(predicted, sure, labels, None)
    assert (alone.agreement, alone.p_value) == (None, None)


def test_divergence_and_cosine_of_known_logits() -> None:
    reference = np.log(np.array([[0.5, 0.5], [0.9, 0.1]], np.float32))
    other = np.log(np.array([[0.5, 0.5], [0.5, 0.5]], np.float32))
    expected = (0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)) / 2
    assert mean_divergence(reference, other) == pytest.approx(expected, rel=1e-5)
    assert mean_divergence(reference, reference + 7) == pytest.approx(0, abs=1e-6)
    assert mean_divergence(as_log(np.exp(reference)), as_log(np.exp(other))) == pytest.approx(expected, rel=1e-4)
    right, turned = np.array([[1, 0], [0, 2]], np.float32), np.array([[3, 0], [1, 1]], np.float32)
    assert least_cosine(right, turned) == pytest.approx(math.sqrt(0.5))
    assert least_cosine(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32)) == 1
