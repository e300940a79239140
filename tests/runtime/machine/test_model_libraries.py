"""Whether `doctor` sees which libraries of models work together."""

from __future__ import annotations

import pytest

from runtime.machine.model_libraries import check_libraries


def test_each_library_is_tried_in_one_process() -> None:
    works, fails, absent, after = check_libraries(
        {
            "numpy": "import numpy; numpy.marker = 1",
            "pydantic": "raise RuntimeError('operator torchvision::nms does not exist')",
            "no-such-package": "import json",
            "onnx": "import numpy; assert numpy.marker == 1",
        }
    )
    assert (works.name, works.ok, works.reason) == ("numpy", True, "")
    assert works.version is not None
    assert (fails.ok, fails.reason) == (False, "RuntimeError: operator torchvision::nms does not exist")
    assert "torch and torchvision of one release" in fails.remedy
    assert (absent.version, absent.ok, absent.reason, absent.remedy) == (
        None,
        False,
        "not installed",
        "pip install no-such-package",
    )
    assert after.ok


def test_an_import_that_ends_the_process_is_told() -> None:
    died, unknown = check_libraries({"numpy": "import os; os._exit(1)", "onnx": "import onnx"})
    assert not died.ok
    assert not unknown.ok
    assert "ended or hung" in died.reason


def test_a_hang_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.machine.model_libraries._TIMEOUT_S", 1.0)
    good, hung = check_libraries({"numpy": "pass", "onnx": "import time; time.sleep(60)"})
    assert good.ok
    assert "ended or hung" in hung.reason
